"""Attention of the tokens of one sequence to those of another."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vidloc.models import attention, dense

EPS = 1e-6

Tables = tuple[Float[Any, 'N d'], Float[Any, 'K d']]


class CrossAttention(nn.Module):
    """Multi-head attention behind a norm on either sequence; no residual, no MLP, no dropout.

    dtype: of the products; norms and softmax take their statistics in float32.
    """

    width: int
    heads: int
    dtype: Any = jnp.float32

    def setup(self):
        if self.width % self.heads:
            raise ValueError(f'width {self.width} cannot be split into {self.heads} heads')
        split = (self.heads, self.width // self.heads)
        self.query_norm = nn.LayerNorm(epsilon=EPS, dtype=self.dtype)
        self.source_norm = nn.LayerNorm(epsilon=EPS, dtype=self.dtype)
        self.query = dense.Dense((self.width,), split, dtype=self.dtype)
        self.key = dense.Dense((self.width,), split, dtype=self.dtype)
        self.value = dense.Dense((self.width,), split, dtype=self.dtype)
        self.out = dense.Dense(split, (self.width,), dtype=self.dtype)

    def __call__(
        self,
        x: Float[Array, 'M N d'],
        source: Float[Array, 'M K d'],
        valid: Bool[Array, 'M K'],
        *,
        parts: int = 1,
        tables: Tables | None = None,
    ) -> Float[Array, 'M N d']:
        """x asks, source answers.

        valid: tokens of the source that may be attended to; a sequence or part without any attends to all of its own.
        parts: both sequences are cut into so many equal parts, and each part of x attends to that of the source alone.
        tables: (of x, of the source) added behind the norms, to what becomes queries and keys, not to the values.
        """
        x, source = self.query_norm(x), self.source_norm(source)
        if tables is None:
            query, key = self.query(x), self.key(source)  # [M, N, h, d / h]
        else:
            ours, theirs = (jnp.asarray(table, self.dtype) for table in tables)
            query, key = self.query(x + ours), self.key(source + theirs)
        mixed = attention.attend(*(_cut(each, parts) for each in (query, key, self.value(source), valid)))
        return self.out(mixed.reshape(query.shape))  # [M N, ..] -> [M, N, d]


def _cut(x: jax.Array, parts: int) -> jax.Array:
    """[M, N, ...] -> [M parts, N / parts, ...]"""
    return x.reshape(x.shape[0] * parts, x.shape[1] // parts, *x.shape[2:])


def sinusoid(places: np.ndarray, width: int) -> Float[np.ndarray, 'N d']:
    """Sines, then cosines of places [N] in time, at frequencies from 1 to 1/10000 (Vaswani et al. 2017, section 3.5).

    As positions.sincos, for places that need not be whole numbers. Raises ValueError for an odd width.
    """
    if width % 2:
        raise ValueError(f'sin-cos positions need an even width, not {width}')
    angle = np.asarray(places, np.float64)[:, None] * 10000.0 ** (-np.arange(width // 2) / (width // 2))
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)
