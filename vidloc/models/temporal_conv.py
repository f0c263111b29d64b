"""Convolutions along time, with zeros beyond both ends and a kernel of odd length."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Uniform within 1 / sqrt(fan in), the start of PyTorch's convolutions and linear layers.
START = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


class TemporalConv(nn.Module):
    """Dense convolution; kernel [kernel, inputs, outputs], bias [outputs] unless use_bias is False.

    bias_start: the value that the bias starts at.
    """

    inputs: int
    outputs: int
    kernel: int = 3
    use_bias: bool = False
    bias_start: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'B T C']) -> Float[Array, 'B T D']:
        check_odd(self.kernel)
        weights = self.param('kernel', START, (self.kernel, self.inputs, self.outputs)).astype(self.dtype)
        x = jax.lax.conv_general_dilated(
            x.astype(self.dtype), weights, (1,), 'SAME', dimension_numbers=('NTC', 'TIO', 'NTC')
        )
        if self.use_bias:
            bias = self.param('bias', nn.initializers.constant(self.bias_start), (self.outputs,))
            x = x + bias.astype(self.dtype)
        return x


class DepthwiseConv(nn.Module):
    """Every channel by itself; kernel [kernel, 1, width], no bias. Every stride-th result, from the first on.

    Sums of shifted products: grouped convolutions are 10 to 100 times slower on CPUs.
    """

    width: int
    stride: int = 1
    kernel: int = 3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'B T D']) -> Float[Array, 'B t D']:
        check_odd(self.kernel)
        weights = self.param('kernel', START, (self.kernel, 1, self.width)).astype(self.dtype)
        windows = shifted(x.astype(self.dtype), self.kernel, self.stride, 0.0)
        return sum(window * weights[i, 0] for i, window in enumerate(windows))


def shifted(x: jax.Array, kernel: int, stride: int, beyond: float) -> list[jax.Array]:
    """[B, T, D] -> `kernel` arrays [B, ceil(T / stride), D]: entry t of array i is x[t * stride + i - kernel // 2].

    beyond: what stands beyond both ends.
    """
    length, reach = x.shape[1], kernel // 2
    padded = jnp.pad(x, ((0, 0), (reach, reach), (0, 0)), constant_values=beyond)
    return [padded[:, i : i + length : stride] for i in range(kernel)]


def halve_by_maximum(x: Float[Array, 'B T D']) -> Float[Array, 'B t D']:
    """The largest of each even position and its two neighbours; [B, T, D] -> [B, T / 2, D]."""
    first, middle, last = shifted(x, 3, 2, -jnp.inf)
    return jnp.maximum(jnp.maximum(first, middle), last)


def check_odd(kernel: int) -> None:
    """Raises ValueError unless a kernel of this length has a middle."""
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f'kernel is {kernel}; a convolution along time needs an odd length, such as 3')
