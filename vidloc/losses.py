"""Losses: pure functions without a hidden reduction over examples; the caller masks, sums and divides."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


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
