"""VideoMAE, version 1 and 2: one transformer over all tubelets of a clip, with fixed positions and no CLS token.

Tong et al. 2022 and Wang et al. 2023; the parameters are those of the encoder of OpenGVLab/VideoMAEv2.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vidloc.models import embedding, features, layers, positions
from vidloc.models import film as film_lib
from vidloc.models import lora as lora_lib
from vidloc.models import tap as tap_lib


class VideoMAE(nn.Module):
    """Video [B, T, H, W, 3] -> Features without a summary: the head takes the mean of the tokens.

    grid: tokens (t, h, w) for which the table of positions is made; inputs of any other size or length get one that
      is interpolated from it (positions.resample), so this is the grid of the pretraining, whatever the input.
    tubelet_init: see embedding.TUBELET_INITS.
    eps: of all norms: 1e-6 in the original, 1e-12 in the files of Hugging Face.
    layer_scale: see layers.Block; no published file has it.
    final_norm: a norm behind the last layer, as in pretraining; fine-tuned models have one behind the mean instead
      (classification_head.ClassificationHead.norm).
    segments: {'encoder': ...}, as layers.Stack takes them.
    taps: layers whose tokens [B, t, h, w, D] are given along (Features.taps), in this order.
    dropout, kernel, dtype: see layers.Block. drop_path, remat, unroll: see layers.Stack; lora: lora.Lora. rescale: as
    the original.
    """

    width: int
    mlp: int
    layers: int
    heads: int
    grid: tuple[int, int, int] = (8, 14, 14)
    patch: tuple[int, int] = (16, 16)
    tubelet: int = 2
    tubelet_init: str = 'random'
    eps: float = 1e-6
    layer_scale: float = 0.0
    final_norm: bool = False
    dropout: float = 0.0
    drop_path: float = 0.0
    rescale: bool = True
    taps: tuple[int, ...] = ()
    segments: Mapping[str, layers.Segments] | None = None
    remat: str = 'none'
    unroll: int = 1
    kernel: str = 'xla'
    dtype: Any = jnp.float32
    lora: lora_lib.Lora | None = None

    def setup(self):
        layers.check_stacks(self.segments, self.stacks())
        block = layers.Block(
            self.width,
            self.mlp,
            self.heads,
            dropout=self.dropout,
            rescale=self.rescale,
            gelu_approximate=False,
            eps=self.eps,
            bias='qv',
            layer_scale=self.layer_scale,
            kernel=self.kernel,
            dtype=self.dtype,
            parent=None,
        )
        init = embedding.tubelet_start(self.tubelet_init)
        self.embedding = embedding.TubeletEmbedding(self.width, self.tubelet, self.patch, init, self.dtype)
        self.encoder = layers.Stack(
            block=block,
            layers=self.layers,
            segments=(self.segments or {}).get('encoder', ()),
            drop_path=self.drop_path,
            remat=self.remat,
            unroll=self.unroll,
            lora=self.lora and self.lora.of_stack(0, self.layers, self.layers),
        )
        if self.final_norm:
            self.norm = nn.LayerNorm(epsilon=self.eps, dtype=self.dtype)
        self.drop = nn.Dropout(self.dropout)

    def stacks(self) -> dict[str, int]:
        """{name of each stack: its number of layers}."""
        return {'encoder': self.layers}

    def __call__(
        self,
        video: Float[Array, 'B T H W 3'],
        frame_valid: Bool[Array, 'B T'],
        *,
        train: bool,
        tap: tap_lib.Tap | None = None,
        film: film_lib.Copies | None = None,
    ) -> features.Features:
        """video: normalised; frame_valid: False for padding frames, whose tubelets are not attended to.

        film: behind its layer there are examples and copies, B (1 + N) in the order of film.Copies, and so in the
        result. Raises ValueError if frames, height or width is no multiple of the tubelet or the patch, or a tap is no
        layer.
        """
        x = self.embedding(video)  # [B, t, h, w, D]
        batch, t, h, w, width = x.shape
        valid = embedding.tubelet_valid(frame_valid, self.tubelet)  # [B, T] -> [B, t]
        x = x.reshape(batch, t * h * w, width) + self.positions((t, h, w)).astype(self.dtype)  # [B, t h w, D]
        x = self.drop(x, deterministic=not train)
        keys = jnp.repeat(valid, h * w, axis=1)  # [B, t] -> [B, t h w]
        tap = tap and tap.seen(lambda tokens: tokens.reshape(batch, t, h, w, width))
        x, tapped, reduced = self.encoder.run_blocks(x, train=train, valid=keys, taps=self.taps, tap=tap, film=film)
        x = self.norm(x) if self.final_norm else x
        grid, *tapped = (y.reshape(-1, t, h, w, width) for y in (x, *tapped))
        valid = film.repeat(valid, batch) if film else valid
        return features.Features(grid=grid, valid=valid, taps=tuple(tapped), tapped=reduced)

    def positions(self, grid: tuple[int, int, int]) -> Float[Array, 'tokens D']:
        """The fixed table for tokens (t, h, w), a constant of the compiled program."""
        native = tuple(self.grid)
        table = positions.flat_sincos(native[0] * native[1] * native[2], self.width)
        return jnp.asarray(table if grid == native else positions.resample(table, native, grid))
