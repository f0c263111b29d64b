"""The loss of augmented features: every copy counts by how far it is from its example, relative to the other copies.

Patel et al. 2025, "Group Relative Augmentation", sections 3.3 and 3.4. Of the paper only a summary was at hand: names
of the terms are the paper's, what they are exactly is our reading, and every choice is a field.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vidloc import losses
from vidloc.models import film

WEIGHTINGS = ('group', 'none')
DISTANCES = ('cross_entropy', 'kl')
BINS = 10


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """What logits [*batch, C] say of a sample.

    cross_entropy(logits, targets, label_smoothing=) and entropy(logits): [*batch]. probabilities(logits): [*batch, C].
    """

    cross_entropy: Callable[..., jax.Array]
    entropy: Callable[[jax.Array], jax.Array]
    probabilities: Callable[[jax.Array], jax.Array]


def _over_classes(each: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    return lambda *logits, **settings: jnp.mean(each(*logits, **settings), axis=-1)


# Each class holds or not: the mean over classes. One class holds.
MANY = Likelihood(_over_classes(losses.sigmoid_cross_entropy), _over_classes(losses.sigmoid_entropy), jax.nn.sigmoid)
ONE = Likelihood(losses.softmax_cross_entropy, losses.softmax_entropy, jax.nn.softmax)


@dataclasses.dataclass(frozen=True)
class GroupRelative:
    """Terms beside the loss of the examples themselves; used where features are augmented (models/film.py) and
    training.

    copies: times the loss of the copies against the labels, weighted. weighting: 'group'
      (losses.group_relative_weights, by the distance from the example itself) or 'none', all copies count 1.
      sensitivity: s of the weights; large: all near 1. eps: beside the deviation in them. normalize: divide by the sum
      of the weights of a sample's copies, not by their number.
    distillation: times the mean distance of the copies from the teacher (film.Film.teacher). distance:
      'cross_entropy' to the teacher's probabilities, or 'kl', which is that less their entropy (the same gradient and
      weights).
    entropy: times the mean entropy of the copies' predictions; below 0 it is made large in place of small.
    """

    copies: float = 1.0
    weighting: str = 'group'
    sensitivity: float = 1.0
    normalize: bool = False
    eps: float = 1e-6
    distillation: float = 0.5
    distance: str = 'cross_entropy'
    entropy: float = 0.01

    def __post_init__(self):
        for field, known in (('weighting', WEIGHTINGS), ('distance', DISTANCES)):
            if getattr(self, field) not in known:
                raise ValueError(f'group.{field} is {getattr(self, field)!r}; it must be one of {", ".join(known)}')
        if self.sensitivity <= 0 or self.eps <= 0:
            raise ValueError(f'group.sensitivity {self.sensitivity} and group.eps {self.eps} must be above 0')

    def terms(
        self,
        outputs: film.Augmented,
        labels: Float[Array, '*batch C'],
        present: Float[Array, '*batch'],
        says: Likelihood,
        *,
        label_smoothing: float = 0.0,
    ) -> tuple[Float[Array, '*batch'], dict[str, tuple[jax.Array, jax.Array]]]:
        """(what the copies add to the loss of each sample, logs as LossOutput has them).

        outputs: logits [*batch, C] and [N, *batch, C]. present: 1 for a sample that counts, 0 for padding, which no log
        sees; it is not multiplied into the result. says: MANY or ONE.
        """
        original, copies = (x.astype(jnp.float32) for x in (outputs.original, outputs.copies))
        teacher = original if outputs.teacher is None else outputs.teacher.astype(jnp.float32)
        count = len(copies)
        distance = self._distance(copies, original, says)  # [N, *batch]
        weight = jnp.ones_like(distance)
        if self.weighting == 'group':
            flat = losses.group_relative_weights(distance.reshape(count, -1), self.sensitivity, eps=self.eps)
            weight = flat.reshape(distance.shape)
        targets = jnp.broadcast_to(labels, copies.shape)
        each = says.cross_entropy(copies, targets, label_smoothing=label_smoothing)  # [N, *batch]
        divisor = jnp.sum(weight, axis=0) if self.normalize else count
        weighted = jnp.sum(weight * each, axis=0) / divisor
        taught = jnp.mean(distance if outputs.teacher is None else self._distance(copies, teacher, says), axis=0)
        uncertain = jnp.mean(says.entropy(copies), axis=0)
        total = self.copies * weighted + self.distillation * taught + self.entropy * uncertain
        means = {
            'copies': jnp.mean(each, axis=0),
            'weighted_copies': weighted,
            'distillation': taught,
            'copies_entropy': uncertain,
            'original_entropy': says.entropy(original),
            # Of how different sizes the distances within a group are: near 0, weights tell nothing.
            'divergence_spread': jnp.std(distance, axis=0) / jnp.maximum(jnp.mean(distance, axis=0), 1e-12),
        }
        number = jnp.sum(present)
        logs = {name: (jnp.sum(value * present), number) for name, value in means.items()}
        return total, logs | self._by_copy(outputs, distance, weight, present)

    def _distance(self, copies: jax.Array, teacher: jax.Array, says: Likelihood) -> jax.Array:
        """[N, *batch, C] from the constant [*batch, C] -> [N, *batch]."""
        teacher = jax.lax.stop_gradient(teacher)
        distance = says.cross_entropy(copies, jnp.broadcast_to(says.probabilities(teacher), copies.shape))
        return distance - says.entropy(teacher) if self.distance == 'kl' else distance

    def _by_copy(
        self, outputs: film.Augmented, distance: jax.Array, weight: jax.Array, present: jax.Array
    ) -> dict[str, tuple[jax.Array, jax.Array]]:
        """Of each copy its distance and how far gamma is from 1 and beta from 0, and how the weights are spread."""
        logs, one = {}, jnp.ones((), jnp.float32)
        number = jnp.sum(present)
        for i in range(len(distance)):
            logs[f'divergence/{i:02d}'] = (jnp.sum(distance[i] * present), number)
            logs[f'gamma/{i:02d}'] = (jnp.mean(jnp.abs(outputs.gamma[:, i] - 1.0)), one)
            logs[f'beta/{i:02d}'] = (jnp.mean(jnp.abs(outputs.beta[:, i])), one)
        place = jnp.minimum((weight * BINS).astype(jnp.int32), BINS - 1)
        for i in range(BINS):
            share = jnp.mean((place == i).astype(jnp.float32), axis=0)  # [*batch]
            logs[f'weights/{i / BINS:.1f}'] = (jnp.sum(share * present), number)
        return logs
