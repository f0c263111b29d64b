"""The vision tower of InternVideo2 (Wang et al. 2024; OpenGVLab/InternVideo, InternVideo2/single_modality/models).

A ViT over all the tokens of a clip: RMS norms, queries and keys normed over their whole width, no bias of query, key
and value, LayerScale, and no norm behind the last block. The public models end in projector_head.ProjectorHead.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vidloc.models import embedding, encoder, features, layers, positions
from vidloc.models import film as film_lib
from vidloc.models import lora as lora_lib
from vidloc.models import tap as tap_lib


class InternVideo2(nn.Module):
    """Video [B, T, H, W, 3] -> Features; the summary `pooled` is the CLS token, which no norm has seen either.

    grid: tokens (t, h, w) for which positions are learned, joint over time and space; they start as `position_table`.
      Inputs of any other size or length get resized ones, linear with corners on corners (positions.resize). The
      public code does that when it loads weights, bicubic in space and linear in time, with half-pixel centres.
    layer_scale: start of LayerScale; 0: none.
    gelu_approximate: the tanh form of GELU, which is what the fused MLP computes that the public models were trained
      with; their plain MLP has the exact form.
    rescale: as timm's drop path does, which the public code uses.
    tubelet_init: see embedding.TUBELET_INITS. segments: {'encoder': ...}, as layers.Stack takes them.
    taps: layers whose tokens [B, t, h, w, D] are given along (Features.taps), in this order.
    dropout, kernel, dtype: see layers.Block. drop_path, remat, unroll: see layers.Stack; lora: lora.Lora.
    """

    width: int
    mlp: int
    heads: int
    layers: int
    grid: tuple[int, int, int]
    patch: tuple[int, int] = (14, 14)
    tubelet: int = 1
    layer_scale: float = 1e-5
    gelu_approximate: bool = True
    tubelet_init: str = 'random'
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
        init = embedding.tubelet_start(self.tubelet_init)
        self.embedding = embedding.TubeletEmbedding(self.width, self.tubelet, self.patch, init, self.dtype)
        block = layers.Block(
            self.width,
            self.mlp,
            self.heads,
            dropout=self.dropout,
            rescale=self.rescale,
            gelu_approximate=self.gelu_approximate,
            norm='rms',
            bias='none',
            qk_norm=True,
            layer_scale=self.layer_scale,
            kernel=self.kernel,
            dtype=self.dtype,
            parent=None,
        )
        self.encoder = encoder.Encoder(
            block=block,
            layers=self.layers,
            segments=(self.segments or {}).get('encoder', ()),
            drop_path=self.drop_path,
            remat=self.remat,
            unroll=self.unroll,
            lora=self.lora and self.lora.of_stack(0, self.layers, self.layers),
            grid=self.grid,
            with_cls=True,
            with_norm=False,
            position_init=self._position_start,
        )

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
        """video: normalised; frame_valid: False for padding frames, to which nothing attends.

        film: behind its layer there are examples and copies, B (1 + N) in the order of film.Copies, and so in the
        result. Raises ValueError if frames, height or width is no multiple of the tubelet or the patch, or a tap is no
        layer.
        """
        return encoder.encode_jointly(
            self.embedding, self.encoder, video, frame_valid, train=train, taps=self.taps, tap=tap, film=film
        )

    def _position_start(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The place of the CLS token is 0."""
        del key
        return jnp.pad(jnp.asarray(position_table(self.grid, self.width)), ((1, 0), (0, 0)))[None].reshape(shape)


def position_table(grid: tuple[int, int, int], width: int) -> Float[np.ndarray, 'tokens D']:
    """Sines and cosines of time in the first quarter of the channels, then of the column, then of the row.

    As get_3d_sincos_pos_embed of the public code (models/pos_embed.py); tokens (t, h, w) in row-major order.
    Raises ValueError unless the width is a multiple of 16, so that each part has pairs.
    """
    if width % 16:
        raise ValueError(f'sin-cos positions of InternVideo2 need a width divisible by 16, not {width}')
    t, h, w = grid
    parts = (
        positions.sincos((t,), width // 4)[:, None, None],  # [t, 1, 1, D / 4]
        positions.sincos((w,), width * 3 // 8)[None, None],  # [1, 1, w, 3 D / 8]
        positions.sincos((h,), width * 3 // 8)[None, :, None],  # [1, h, 1, 3 D / 8]
    )
    table = np.concatenate([np.broadcast_to(part, (*grid, part.shape[-1])) for part in parts], axis=-1)
    return table.reshape(-1, width)
