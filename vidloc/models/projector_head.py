"""The head of InternVideo2: its tokens are pooled by attention, projected and classified.

OpenGVLab/InternVideo, InternVideo2/single_modality/models/internvideo2.py: clip_projector, fc_norm and head.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vidloc.models import attention, dense, features

# The norms of the head; those of the blocks have another one.
EPS = 1e-5


class AttentionPool(nn.Module):
    """One query, the mean of the tokens, attends to the tokens; query, keys and values have norms of their own.

    embed: width of the result. heads: of the attention.
    """

    width: int
    embed: int
    heads: int

    def setup(self):
        if self.width % self.heads:
            raise ValueError(f'width {self.width} cannot be split into {self.heads} heads')
        split = (self.heads, self.width // self.heads)
        start = nn.initializers.normal(0.02)
        self.ln_query, self.ln_key, self.ln_value = (nn.LayerNorm(epsilon=EPS) for _ in range(3))
        self.query, self.key, self.value = (dense.Dense((self.width,), split, kernel_init=start) for _ in range(3))
        self.out = dense.Dense(split, (self.embed,), kernel_init=start)

    def __call__(self, x: Float[Array, 'B N D'], valid: Bool[Array, 'B N']) -> Float[Array, 'B E']:
        """Tokens that are not valid have no share in the mean and are not attended to."""
        weight = valid.astype(x.dtype)[..., None]  # [B, N, 1]
        mean = jnp.sum(x * weight, axis=1, keepdims=True) / jnp.maximum(jnp.sum(weight, axis=1, keepdims=True), 1.0)
        query = self.query(self.ln_query(mean))  # [B, 1, h, d]
        key, value = self.key(self.ln_key(x)), self.value(self.ln_value(x))  # [B, N, h, d]
        return self.out(attention.attend(query, key, value, valid))[:, 0]  # [B, 1, E] -> [B, E]


class ProjectorHead(nn.Module):
    """Attention pooling of all the tokens -> norm -> dropout -> linear.

    The tokens are those of the grid behind the backbone's summary, if it has one: in the public code the CLS token is
    part of the mean and is attended to like any other.

    heads, embed: of the pooling; the public models of all sizes have 16 heads and project to 768.
    kernel_std: the kernel of the classifier starts normal with this deviation; 0: at zero.
    """

    classes: int
    heads: int = 16
    embed: int = 768
    dropout: float = 0.0
    kernel_std: float = 0.0

    @nn.compact
    def __call__(self, encoded: features.Features, batch: Mapping[str, Any], *, train: bool) -> Float[Array, 'B C']:
        """Logits, float32; nothing of `batch` is used. Raises ValueError if the heads do not divide the width."""
        x, valid = _tokens(encoded)
        x = AttentionPool(x.shape[-1], self.embed, self.heads, name='pool')(x, valid)  # [B, E]
        x = nn.LayerNorm(epsilon=EPS, name='norm')(x)
        x = nn.Dropout(self.dropout)(x, deterministic=not train)
        start = nn.initializers.normal(self.kernel_std) if self.kernel_std else nn.initializers.zeros
        return dense.Dense((self.embed,), (self.classes,), kernel_init=start, name='output')(x)


def _tokens(encoded: features.Features) -> tuple[jax.Array, jax.Array]:
    """The summary, if there is one, and the grid: tokens [B, N, D] float32 and whether each is valid [B, N]."""
    batch, _, h, w, width = encoded.grid.shape
    x = encoded.grid.astype(jnp.float32).reshape(batch, -1, width)  # [B, t, h, w, D] -> [B, t h w, D]
    valid = jnp.repeat(encoded.valid, h * w, axis=1)  # [B, t] -> [B, t h w]
    if encoded.pooled is None:
        return x, valid
    x = jnp.concatenate([encoded.pooled.astype(jnp.float32)[:, None], x], axis=1)  # [B, 1 + t h w, D]
    return x, jnp.pad(valid, ((0, 0), (1, 0)), constant_values=True)
