"""Feature maps of one layer -> a vector for each time token."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vidloc.models import dense

EPS = 1e-6


class DepthwiseConv(nn.Module):
    """3 x 3 over rows and columns, every channel for itself; zeros around the map."""

    width: int
    dtype: Any = jnp.float32

    def setup(self):
        # Channels stand apart: the fan of each is its 9 numbers.
        start = nn.initializers.variance_scaling(1.0, 'fan_in', 'truncated_normal', in_axis=(0, 1), out_axis=2)
        self.kernel = self.param('kernel', start, (3, 3, self.width))
        self.bias = self.param('bias', nn.initializers.zeros, (self.width,))

    def __call__(self, x: Float[Array, 'M t h w d']) -> Float[Array, 'M t h w d']:
        h, w = x.shape[2:4]
        kernel = self.kernel.astype(self.dtype)
        padded = jnp.pad(x.astype(self.dtype), ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
        # Shifted maps times numbers, added up: a grouped convolution takes 20 to 100 times as long on CPUs.
        shifted = (padded[:, :, i : i + h, j : j + w] * kernel[i, j] for i, j in np.ndindex(3, 3))
        return sum(shifted, self.bias.astype(self.dtype))


class SpatialReduction(nn.Module):
    """Layer norm -> 1 x 1 convolution -> depthwise 3 x 3 -> GELU -> mean over rows and columns.

    inputs, width: channels of the maps and of the vectors.
    depthwise: False: without that convolution, for maps that have shrunk to a single place.
    dtype: of the products and the maps in between; the mean is taken in float32.
    """

    inputs: int
    width: int
    depthwise: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'M t h w D']) -> Float[Array, 'M t d']:
        x = nn.LayerNorm(epsilon=EPS, dtype=self.dtype, name='norm')(x)
        x = dense.Dense((self.inputs,), (self.width,), dtype=self.dtype, name='conv')(x)  # [M, t, h, w, d]
        if self.depthwise:
            x = DepthwiseConv(self.width, self.dtype, name='depthwise')(x)
        return jnp.mean(nn.gelu(x, approximate=False), axis=(2, 3), dtype=jnp.float32)
