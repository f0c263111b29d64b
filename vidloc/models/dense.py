"""The linear layer that every block, head and adapter is made of."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vidloc.models import lora as lora_lib


class Dense(nn.Module):
    """Linear map from the last `len(inputs)` axes to `outputs` axes.

    kernel [*inputs, *outputs] is initialised as the matrix [prod(inputs), prod(outputs)], so that fans are those
    of the matrix product whatever the axes; bias [*outputs], unless use_bias is False.
    dtype: the precision of the product; parameters are float32.
    lora: a learned change of low rank beside the kernel, lora_a [prod(inputs), rank] and lora_b [rank, prod(outputs)];
      None: there is none.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kernel_init: Callable[..., Array] = nn.initializers.xavier_uniform()
    bias_init: Callable[..., Array] = nn.initializers.zeros
    use_bias: bool = True
    dtype: Any = jnp.float32
    lora: lora_lib.Lora | None = None

    def setup(self):
        matrix = (math.prod(self.inputs), math.prod(self.outputs))
        shape = (*self.inputs, *self.outputs)
        self.kernel = self.param('kernel', lambda key: self.kernel_init(key, matrix).reshape(shape))
        if self.use_bias:
            self.bias = self.param('bias', self.bias_init, self.outputs)
        # Behind the others, so that those start as they do without it.
        if self.lora is not None:
            self.lora_a = self.param('lora_a', lora_lib.starting, (matrix[0], self.lora.rank))
            self.lora_b = self.param('lora_b', nn.initializers.zeros, (self.lora.rank, matrix[1]))
            self.drop = nn.Dropout(self.lora.dropout)

    def __call__(self, x: Float[Array, '...'], *, train: bool = False) -> Float[Array, '...']:
        """train: whether the dropout of the LoRA draws."""
        matrix = self.kernel.reshape(math.prod(self.inputs), math.prod(self.outputs)).astype(self.dtype)
        lead = x.shape[: x.ndim - len(self.inputs)]
        # One product of two matrices: a third faster on CPUs than the same product with batch axes.
        x = x.reshape(-1, matrix.shape[0]).astype(self.dtype)
        y = x @ matrix
        if self.lora is not None:
            y = y + self._change(x, train)
        if self.use_bias:
            y = y + self.bias.reshape(-1).astype(self.dtype)
        return y.reshape(*lead, *self.outputs)

    def _change(self, x: Float[Array, 'M inputs'], train: bool) -> Float[Array, 'M outputs']:
        a, b = self.lora_a.astype(self.dtype), self.lora_b.astype(self.dtype)
        if self.lora.dropout_on == 'input':
            return (self.drop(x, deterministic=not train) @ a * self.lora.scale) @ b
        return (self.drop(x @ a, deterministic=not train) * self.lora.scale) @ b
