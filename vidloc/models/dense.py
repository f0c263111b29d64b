"""The linear layer that every block, head and adapter is made of."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


class Dense(nn.Module):
    """Linear map from the last `len(inputs)` axes to `outputs` axes.

    kernel [*inputs, *outputs] is initialised as the matrix [prod(inputs), prod(outputs)], so that fans are those
    of the matrix product whatever the axes; bias [*outputs], unless use_bias is False.
    dtype: the precision of the product; parameters are float32.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kernel_init: Callable[..., Array] = nn.initializers.xavier_uniform()
    bias_init: Callable[..., Array] = nn.initializers.zeros
    use_bias: bool = True
    dtype: Any = jnp.float32

    def setup(self):
        matrix = (math.prod(self.inputs), math.prod(self.outputs))
        shape = (*self.inputs, *self.outputs)
        self.kernel = self.param('kernel', lambda key: self.kernel_init(key, matrix).reshape(shape))
        if self.use_bias:
            self.bias = self.param('bias', self.bias_init, self.outputs)

    def __call__(self, x: Float[Array, '...']) -> Float[Array, '...']:
        matrix = self.kernel.reshape(math.prod(self.inputs), math.prod(self.outputs)).astype(self.dtype)
        lead = x.shape[: x.ndim - len(self.inputs)]
        # One product of two matrices: a third faster on CPUs than the same product with batch axes.
        x = x.reshape(-1, matrix.shape[0]).astype(self.dtype) @ matrix
        if self.use_bias:
            x = x + self.bias.reshape(-1).astype(self.dtype)
        return x.reshape(*lead, *self.outputs)
