"""Scores classes by how near a feature is to the embedding that a text tower gave for the name of each.

The cosine of the two, times a learned scale, plus a bias: SigLIP's logits (Zhai et al. 2023, "Sigmoid Loss for Language
Image Pre-Training", algorithm 1). The text tower is none of ours: its embeddings come from a file
(checkpoints/text_embeddings.py).
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vidloc.models import dense

# What a head calls this module, and what has to be given to it, below a head's root.
NAME = 'text'
EMBEDDING = f'{NAME}/embedding'
# Squared length below which a feature has no direction.
NOTHING = 1e-12


class TextSimilarity(nn.Module):
    """Feature -> perhaps a linear map to the width of the embeddings -> scale * cosine + bias, for each class.

    width: E, of the embeddings. project: whether features are mapped to it, by `projection/kernel` [D, E]; without, D
      must be E, and `scale` [] and `bias` [C] are all that is learned. `scale` is the natural logarithm of the scale.
    start_scale, start_bias: where these two start; the bias per class or one for all. SigLIP's start is 10 and -10.
    The embeddings, `embedding` [C, E], are not made here and start as NaN, so that a model to which nobody gave them
    has no outputs that could be taken for some. Their lengths do not matter.
    """

    classes: int
    width: int
    project: bool = True
    start_scale: float = 10.0
    start_bias: tuple[float, ...] = (0.0,)

    @nn.compact
    def __call__(self, x: Float[Array, '*batch D']) -> Float[Array, '*batch C']:
        """Logits, float32. A feature of zeros gives the bias, and has no gradient.

        Raises ValueError for sizes that do not fit.
        """
        if self.width < 1 or self.start_scale <= 0:
            raise ValueError(f'text_width {self.width} must be at least 1, text_scale {self.start_scale} above 0')
        if not self.project and x.shape[-1] != self.width:
            raise ValueError(
                f'text_project=False compares features as they are, of {x.shape[-1]} channels, with text embeddings of '
                f'{self.width}; these must be as many, or set text_project=True'
            )
        embedding = self.param('embedding', nn.initializers.constant(jnp.nan), (self.classes, self.width))
        log_scale = self.param('scale', nn.initializers.constant(math.log(self.start_scale)), ())
        bias = self.param(
            'bias', lambda _, shape: jnp.broadcast_to(jnp.float32(self.start_bias), shape), (self.classes,)
        )
        x = x.astype(jnp.float32)
        if self.project:
            x = dense.Dense((x.shape[-1],), (self.width,), use_bias=False, name='projection')(x)
        embedding = unit(embedding.astype(jnp.float32))
        return jnp.exp(log_scale) * (unit(x) @ embedding.T) + bias


def unit(x: Float[Array, '*batch E']) -> Float[Array, '*batch E']:
    """Vectors of length 1 in the directions of x; zeros, without a gradient, where x is zero."""
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    directed = square > NOTHING
    # Twice, since the derivative of the branch that is not taken must be finite, too.
    return x * jnp.where(directed, jax.lax.rsqrt(jnp.where(directed, square, 1.0)), 0.0)
