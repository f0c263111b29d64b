"""A classifier on the summary of a clip: linear, or by texts."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vidloc.models import dense, features, text_similarity


class ClassificationHead(nn.Module):
    """Mean of all valid tokens, or the backbone's own summary -> dropout -> linear (Arnab et al. 2022, section 3.1).

    norm: a layer norm in front of the dropout (VideoMAE's fc_norm); norm_eps: its epsilon.
    kernel_std: the kernel starts normal with this deviation; 0: at zero, as in Scenic's ViViT.
    text, text_width, text_project, text_scale: as in roi_head.RoiHead.
    """

    classes: int
    dropout: float = 0.0
    kernel_std: float = 0.0
    norm: bool = False
    norm_eps: float = 1e-6
    text: str = ''
    text_width: int = 0
    text_project: bool = True
    text_scale: float = 10.0

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
        if self.text:
            return text_similarity.TextSimilarity(
                self.classes, self.text_width, self.text_project, self.text_scale, name=text_similarity.NAME
            )(x)
        start = nn.initializers.normal(self.kernel_std) if self.kernel_std else nn.initializers.zeros
        return dense.Dense((x.shape[-1],), (self.classes,), kernel_init=start, name='output')(x)
