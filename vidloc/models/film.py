"""Learned augmentation inside a backbone: copies of the features of one layer, each scaled and shifted by channel.

Patel et al. 2025, "Group Relative Augmentation", section 3.2, with FiLM (Perez et al. 2018) for the change. The paper's
text was not at hand, only a summary; docs/fewshot.md says what is the paper's and what is a choice.
"""

import dataclasses
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vidloc.models import dense

TEACHERS = ('original', 'unadapted')


@dataclasses.dataclass(frozen=True)
class Copies:
    """What makes N copies of every example behind one layer of a stack.

    after: the layer, counted from the first of the stack. gamma, beta: [E, N, D], E the number of examples, or 1 for
      the same change of all. An example is followed by its copies: row b is at b * (1 + N), its copy i at b * (1 + N)
      + 1 + i, so that no row leaves its device.
    """

    after: int
    gamma: Float[Array, 'E N D']
    beta: Float[Array, 'E N D']

    @property
    def count(self) -> int:
        """N."""
        return self.gamma.shape[1]

    def within(self, first: int, count: int) -> 'Copies | None':
        """The same for a stack of `count` layers that begins with the layer `first`; None if it is in another one."""
        inside = first <= self.after < first + count
        return dataclasses.replace(self, after=self.after - first) if inside else None

    def augment(self, x: Float[Array, 'M T D'], examples: int) -> Float[Array, '_ T D']:
        """M sequences, those of each of the examples side by side -> M (1 + N)."""
        tokens = x.reshape(examples, 1, -1, *x.shape[1:])  # [E, 1, M / E, T, D]
        gamma, beta = (part[:, :, None, None] for part in (self.gamma, self.beta))  # [E, N, 1, 1, D]
        # In float32: near 1, numbers of 16 bits are further apart than the first gammas are from 1.
        changed = (gamma * tokens.astype(jnp.float32) + beta).astype(x.dtype)
        return jnp.concatenate([tokens, changed], axis=1).reshape(-1, *x.shape[1:])

    def repeat(self, rows: jax.Array, examples: int) -> jax.Array:
        """What the copies share with their example: [M, ...] -> [M (1 + N), ...], in the order of `augment`."""
        each = rows.reshape(examples, 1, -1, *rows.shape[1:])  # [E, 1, M / E, ...]
        return jnp.repeat(each, 1 + self.count, axis=1).reshape(-1, *rows.shape[1:])


@flax.struct.dataclass
class Augmented:
    """What a head gives in training where features are augmented.

    original: of the examples, [B, ...]. copies: of their N copies, [N, B, ...]. teacher: of the examples in the
    backbone without LoRA, as a constant [B, ...]; None where the originals are the teacher. gamma, beta: [E, N, D],
    see Copies.
    """

    original: Any
    copies: Any
    teacher: Any
    gamma: jax.Array
    beta: jax.Array


def told_apart(outputs: Any, copies: Copies, teacher: Any = None) -> Augmented:
    """A head's outputs of examples and copies, [B (1 + N), ...] in the order of Copies."""
    split = jax.tree.map(lambda x: x.reshape(-1, 1 + copies.count, *x.shape[1:]), outputs)  # [B, 1 + N, ...]
    return Augmented(
        original=jax.tree.map(lambda x: x[:, 0], split),
        copies=jax.tree.map(lambda x: jnp.moveaxis(x[:, 1:], 1, 0), split),
        teacher=teacher,
        gamma=copies.gamma,
        beta=copies.beta,
    )


class Film(nn.Module):
    """N learned changes: an embedding each, and a generator of (gamma - 1, beta) from it.

    count: N. after: the layer of the backbone, counted through all its stacks, behind which the copies are made; -1:
    just in front of the first layer with LoRA. embedding: width of the table. hidden: of a layer with a GELU in the
    generator; 0: there is none, the generator is one linear map. std: the last kernel of the generator starts normal
    with this deviation and its bias at 0, so that gamma is about 1 and beta about 0 at the start.
    teacher: 'original', the examples in the model as it is, or 'unadapted', in the backbone without LoRA (a forward
    pass more), for the distillation of tasks.group_relative.
    """

    width: int
    count: int = 8
    after: int = -1
    embedding: int = 128
    hidden: int = 0
    std: float = 1e-3
    teacher: str = 'original'

    def setup(self):
        check(self)
        if self.embedding < 1 or self.hidden < 0:
            raise ValueError(
                f'film.embedding {self.embedding} must be at least 1, film.hidden {self.hidden} at least 0'
            )
        self.table = self.param('table', nn.initializers.normal(1.0), (self.count, self.embedding))
        inputs = self.embedding
        if self.hidden:
            self.inner = dense.Dense((inputs,), (self.hidden,), name='hidden')
            inputs = self.hidden
        self.generator = dense.Dense((inputs,), (2 * self.width,), kernel_init=nn.initializers.normal(self.std))

    def __call__(self, examples: int) -> Copies:
        """The same changes for all the examples."""
        del examples
        x = jax.nn.gelu(self.inner(self.table)) if self.hidden else self.table
        delta, beta = jnp.split(self.generator(x)[None], 2, axis=-1)  # [1, N, D] each
        return Copies(self.after, 1.0 + delta, beta)


class Noise(nn.Module):
    """N random changes, drawn anew for every example and step: what learned ones are compared with.

    count, after, teacher: as in Film. std: of gamma - 1 and of beta, normal.
    """

    width: int
    count: int = 8
    after: int = -1
    std: float = 0.1
    teacher: str = 'original'

    def setup(self):
        check(self)

    def __call__(self, examples: int) -> Copies:
        """Draws from the stream 'dropout'; without it, as in initialisation, nothing is changed."""
        shape = examples, self.count, self.width
        if not self.has_rng('dropout'):
            return Copies(self.after, jnp.ones(shape), jnp.zeros(shape))
        delta, beta = self.std * jax.random.normal(self.make_rng('dropout'), (2, *shape))
        return Copies(self.after, 1.0 + delta, beta)


def check(kind: Film | Noise) -> None:
    """Raises ValueError for what no kind of augmentation can be."""
    if kind.count < 1:
        raise ValueError(f"film.count is {kind.count}; it must be at least 1, or film.kind 'none'")
    if kind.after < -1:
        raise ValueError(f'film.after is {kind.after}; it must be a layer or -1, in front of the first with LoRA')
    if kind.std < 0:
        raise ValueError(f'film.std is {kind.std}; it must be at least 0')
    if kind.teacher not in TEACHERS:
        raise ValueError(f'film.teacher is {kind.teacher!r}; it must be one of {", ".join(TEACHERS)}')
