"""ViViT with joint space-time attention: one transformer over all the tokens of a clip.

Arnab et al. 2021, section 3.3, model 1; the parameters are those of the unfactorised models of google-research/scenic,
projects/vivit, and of Hugging Face's Vivit classes.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vidloc.models import embedding, encoder, features, layers
from vidloc.models import film as film_lib
from vidloc.models import lora as lora_lib
from vidloc.models import tap as tap_lib


class JointViViT(nn.Module):
    """Video [B, T, H, W, 3] -> Features; the summary `pooled` is the CLS token behind the last norm.

    grid: tokens (t, h, w) for which positions are learned; inputs of any other size or length get resized ones.
    tubelet_init: 'random', 'central', 'mean' or 'difference', see embedding.TUBELET_INITS.
    position_std: the positions start normal with this deviation.
    segments: {'encoder': ...}, as layers.Stack takes them.
    taps: layers whose tokens [B, t, h, w, D] are given along (Features.taps), in this order.
    dropout, rescale, kernel, dtype: see layers.Block. drop_path, remat, unroll: see layers.Stack; lora: lora.Lora.
    """

    width: int
    mlp: int
    heads: int
    layers: int
    grid: tuple[int, int, int]
    patch: tuple[int, int] = (16, 16)
    tubelet: int = 2
    tubelet_init: str = 'central'
    position_std: float = 0.02
    dropout: float = 0.0
    drop_path: float = 0.0
    rescale: bool = False
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
            position_init=nn.initializers.normal(self.position_std),
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
