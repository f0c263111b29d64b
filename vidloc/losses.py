"""Losses: pure functions without a hidden reduction over examples; the caller masks, sums and divides."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Of the weights of copies: above the least numbers of float32, which products with them would leave.
LEAST = 1e-20


def sigmoid_cross_entropy(
    logits: Float[Array, '*shape'], targets: Float[Array, '*shape'], *, label_smoothing: float = 0.0
) -> Float[Array, '*shape']:
    """Binary cross-entropy of each logit, float32, not reduced.

    targets: in [0,1]. label_smoothing s in [0,1) moves a target y to y * (1 - s) + s / 2: the two-class form of
    Szegedy et al. 2016, section 7 (each label is a choice between yes and no).
    """
    logits = logits.astype(jnp.float32)
    targets = targets.astype(jnp.float32) * (1.0 - label_smoothing) + 0.5 * label_smoothing
    # log(1 + exp(-|x|)) never overflows, whatever the sign of the logit.
    return jnp.maximum(logits, 0.0) - logits * targets + jnp.log1p(jnp.exp(-jnp.abs(logits)))


def softmax_cross_entropy(
    logits: Float[Array, '*batch C'], targets: Float[Array, '*batch C'], *, label_smoothing: float = 0.0
) -> Float[Array, '*batch']:
    """Cross-entropy of each row, float32, reduced over classes only.

    targets: distributions over C classes (one-hot, or mixed). label_smoothing s mixes them with the uniform
    distribution: (1 - s) * target + s / C (Szegedy et al. 2016, section 7).
    """
    classes = logits.shape[-1]
    targets = targets.astype(jnp.float32) * (1.0 - label_smoothing) + label_smoothing / classes
    return -jnp.sum(targets * jax.nn.log_softmax(logits.astype(jnp.float32)), axis=-1)


def sigmoid_entropy(logits: Float[Array, '*shape']) -> Float[Array, '*shape']:
    """Entropy in nats of each logit's choice between yes and no, float32, not reduced."""
    return sigmoid_cross_entropy(logits, jax.nn.sigmoid(logits.astype(jnp.float32)))


def softmax_entropy(logits: Float[Array, '*batch C']) -> Float[Array, '*batch']:
    """Entropy in nats of each row's choice of one class, float32, reduced over classes only."""
    return softmax_cross_entropy(logits, jax.nn.softmax(logits.astype(jnp.float32), axis=-1))


def group_relative_weights(
    divergence: Float[Array, 'N B'], sensitivity: float | Float[Array, ''], *, eps: float = 1e-6
) -> Float[Array, 'N B']:
    """How much each of N augmented copies of each of B samples counts: in (0, 1], float32, a constant to gradients.

    exp(-z^2 / (2 sensitivity^2)), z the copy's divergence from the original sample relative to those of the N copies of
    the sample: (d - mean) / (std + eps), with the population's deviation (Patel et al. 2025, section 3.4; the
    deviation, eps and the stopped gradient are our reading). Copies that are all alike weigh 1; none weighs less than
    LEAST, so that a sum of weights can be divided by.
    """
    divergence = jax.lax.stop_gradient(divergence.astype(jnp.float32))
    # From the first, so that of copies that are all alike nothing is left, where a mean is rounded.
    divergence = divergence - divergence[:1]
    z = (divergence - jnp.mean(divergence, axis=0)) / (jnp.std(divergence, axis=0) + eps)
    return jnp.maximum(jnp.exp(-0.5 * jnp.square(z / sensitivity)), LEAST)


def sigmoid_focal(
    logits: Float[Array, '*shape'], targets: Float[Array, '*shape'], *, alpha: float = 0.25, gamma: float = 2.0
) -> Float[Array, '*shape']:
    """Focal loss of each logit, float32, not reduced: Lin et al. 2017, equation 5, for targets in [0,1].

    The share (1 - p)^gamma of well-classified entries goes to 0; targets of 1 weigh alpha, those of 0 1 - alpha.
    Between the two, everything is interpolated linearly, as in happyharrycn/actionformer_release,
    libs/modeling/losses.py.
    """
    logits, targets = logits.astype(jnp.float32), targets.astype(jnp.float32)
    # 1 - p and not p: near 1 its difference from 1 would be rounded away.
    yes, no = jax.nn.sigmoid(logits), jax.nn.sigmoid(-logits)
    missed = no * targets + yes * (1.0 - targets)
    weight = alpha * targets + (1.0 - alpha) * (1.0 - targets)
    return weight * missed**gamma * sigmoid_cross_entropy(logits, targets)


def diou_1d(
    predicted: Float[Array, '*shape 2'], target: Float[Array, '*shape 2'], *, eps: float = 1e-8
) -> Float[Array, '*shape']:
    """Distance-IoU loss of segments that share a point, float32, not reduced: Zheng et al. 2020, equation 7, in 1-D.

    predicted, target: (left, right), the distances from the point to both ends, not negative, in any one unit.
    1 - IoU + (distance of the centres / length of the hull)^2; happyharrycn/actionformer_release,
    libs/modeling/losses.py. Where a union or hull is shorter than eps its term is 0, without a gradient.
    """
    predicted, target = predicted.astype(jnp.float32), target.astype(jnp.float32)
    (left, right), (true_left, true_right) = (jnp.moveaxis(each, -1, 0) for each in (predicted, target))
    shared = jnp.minimum(left, true_left) + jnp.minimum(right, true_right)
    union = left + right + true_left + true_right - shared
    hull = jnp.maximum(left, true_left) + jnp.maximum(right, true_right)
    apart = 0.5 * (right - left - true_right + true_left)
    return 1.0 - _ratio(shared, union, eps) + jnp.square(_ratio(apart, hull, eps))


def _ratio(part: Float[Array, '*shape'], whole: Float[Array, '*shape'], eps: float) -> Float[Array, '*shape']:
    """part / whole, 0 where the whole is less than eps; the gradient is finite everywhere."""
    safe = whole >= eps
    return jnp.where(safe, part, 0.0) / jnp.where(safe, whole, 1.0)
