"""Scores each given box: features of the box, pooled over space and time, then a linear layer or texts."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vidloc.models import dense, features, text_similarity
from vidloc.ops import roi_align


class RoiHead(nn.Module):
    """ROI-Align of the box held over time -> pooling -> dropout -> linear (Arnab et al. 2022, section 3.1).

    size: bins (rows, columns) of each box; 7 x 7 with pool 'max' is the head of SlowFast's AVA models.
    pool: 'max' or 'mean' over the bins.
    temporal: 'mean': tokens are averaged over time before ROI-Align, as in SlowFast. 'max': the pooled box of each
      time, then the largest over time. 'encoder': the pooled boxes of each time run through the temporal encoder of
      the backbone.
    norm: a layer norm of the pooled box in front of the dropout, for backbones that end without one; norm_eps: its
      epsilon.
    encoder: the backbone itself, for temporal 'encoder'; the same instance as the Localizer's, so that its
      parameters are shared (it has `encode_time`, see vivit.ViViT).
    bias: start of the bias, per class or one for all; the log-odds of the training frequencies make a good start.
    kernel_std: the kernel starts normal with this deviation; 0: at zero.
    text: a file with an embedding of the name of each class (checkpoints/text_embeddings.py), with which the pooled
      features are compared in place of the linear layer; '': there is none. text_width: of these embeddings; 0: as the
      file says. text_project, text_scale: see text_similarity.TextSimilarity.
    """

    classes: int
    size: tuple[int, int] = (7, 7)
    pool: str = 'max'
    temporal: str = 'mean'
    sampling_ratio: int = 0
    dropout: float = 0.0
    norm: bool = False
    norm_eps: float = 1e-6
    kernel_std: float = 0.0
    bias: tuple[float, ...] = (0.0,)
    text: str = ''
    text_width: int = 0
    text_project: bool = True
    text_scale: float = 10.0
    encoder: nn.Module | None = None

    def setup(self):
        for name, choices in (('pool', ('max', 'mean')), ('temporal', ('mean', 'max', 'encoder'))):
            if getattr(self, name) not in choices:
                raise ValueError(f'{name} is {getattr(self, name)!r}; it must be one of {", ".join(choices)}')
        if (self.temporal == 'encoder') != (self.encoder is not None):
            raise ValueError("temporal='encoder' goes together with encoder=the backbone")
        if len(self.bias) not in (1, self.classes):
            raise ValueError(f'bias has {len(self.bias)} values for {self.classes} classes; give 1 or one a class')

    @nn.compact
    def __call__(self, encoded: features.Features, batch: Mapping[str, Any], *, train: bool) -> Float[Array, 'B N C']:
        """Logits, float32, for batch['boxes'] [B, N, 4] in [0,1] of the network's input. No gradient to the boxes."""
        x = self._pool(encoded, batch['boxes'], train)  # [B, N, D]
        x = nn.LayerNorm(epsilon=self.norm_eps, name='norm')(x) if self.norm else x
        x = nn.Dropout(self.dropout)(x, deterministic=not train)
        if self.text:
            return text_similarity.TextSimilarity(
                self.classes, self.text_width, self.text_project, self.text_scale, self.bias, name=text_similarity.NAME
            )(x)
        start = nn.initializers.normal(self.kernel_std) if self.kernel_std else nn.initializers.zeros
        bias = jnp.broadcast_to(jnp.asarray(self.bias, jnp.float32), (self.classes,))
        output = dense.Dense(
            (x.shape[-1],), (self.classes,), kernel_init=start, bias_init=lambda *_: bias, name='output'
        )
        return output(x)

    def _pool(self, encoded: features.Features, boxes: jax.Array, train: bool) -> jax.Array:
        """[B, t, h, w, D], [B, N, 4] -> [B, N, D] float32; times that are not valid have no share."""
        if self.temporal == 'mean':
            weight = encoded.valid.astype(jnp.float32)
            weight = weight / jnp.maximum(jnp.sum(weight, axis=1, keepdims=True), 1.0)  # [B, t]
            return self._bins(jnp.einsum('bthwd,bt->bhwd', encoded.grid.astype(jnp.float32), weight), boxes)
        batch, t, h, w, width = encoded.grid.shape
        tube = encoded.grid.transpose(0, 2, 3, 1, 4).reshape(batch, h, w, t * width)  # time beside the channels
        x = self._bins(tube, boxes).reshape(batch, -1, t, width)  # [B, N, t, D]
        if self.temporal == 'encoder':
            return self.encoder.encode_time(x, encoded.valid, train=train).astype(jnp.float32)
        valid = encoded.valid[:, None, :, None]
        return jnp.where(jnp.any(valid, axis=2), jnp.max(jnp.where(valid, x, -jnp.inf), axis=2), 0.0)

    def _bins(self, grid: jax.Array, boxes: jax.Array) -> jax.Array:
        """[B, h, w, E], [B, N, 4] -> [B, N, E]."""
        if self.pool == 'mean':
            return roi_align.roi_mean(grid, boxes, self.size, sampling_ratio=self.sampling_ratio)
        bins = roi_align.roi_align(grid, boxes, self.size, sampling_ratio=self.sampling_ratio)
        return jnp.max(bins, axis=(2, 3))
