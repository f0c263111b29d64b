"""A linear classifier on the summary of a clip."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vidloc.models import dense, features


class ClassificationHead(nn.Module):
    """Mean of all valid tokens, or the backbone's own summary -> dropout -> linear (Arnab et al. 2022, section 3.1).

    norm: a layer norm in front of the dropout (VideoMAE's fc_norm); norm_eps: its epsilon.
    kernel_std: the kernel starts normal with this deviation; 0: at zero, as in Scenic's ViViT.
    """

    classes: int
    dropout: float = 0.0
    kernel_std: float = 0.0
    norm: bool = False
    norm_eps: float = 1e-6

    @nn.compact
    def __call__(self, encoded: features.Features, batch: Mapping[str, Any], *, train: bool) -> Float[Array, 'B C']:
        """Logits, float32; nothing of `batch` is used. Without a valid token the mean is 0."""
        if encoded.pooled is None:
            weight = encoded.valid.astype(jnp.float32)[..., None]  # [B, t, 1]
            x = jnp.mean(encoded.grid.astype(jnp.float32), axis=(2, 3))  # [B, t, h, w, D] -> [B, t, D]
            x = jnp.sum(x * weight, axis=1) / jnp.maximum(jnp.sum(weight, axis=1), 1.0)  # [B, D]
        else:
            x = encoded.pooled.astype(jnp.float32)
        x = nn.LayerNorm(epsilon=self.norm_eps, name='norm')(x) if self.norm else x
        x = nn.Dropout(self.dropout)(x, deterministic=not train)
        start = nn.initializers.normal(self.kernel_std) if self.kernel_std else nn.initializers.zeros
        return dense.Dense((x.shape[-1],), (self.classes,), kernel_init=start, name='output')(x)
