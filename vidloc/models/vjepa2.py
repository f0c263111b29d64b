"""V-JEPA 2 and 2.1: joint space-time transformers with rotary positions.

Assran et al. 2025, "V-JEPA 2"; the parameters are those of facebookresearch/vjepa2: the encoder of src/models for 2.0,
of app/vjepa_2_1/models for 2.1.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vidloc.models import embedding, features, layers, rope
from vidloc.models import film as film_lib
from vidloc.models import lora as lora_lib
from vidloc.models import tap as tap_lib

LEVELS = 4
# The one published depth whose levels are not its quarters.
_UNEVEN = {48: (11, 23, 37, 47)}


def level_layers(count: int) -> tuple[int, ...]:
    """The layers that the level norms of V-JEPA 2.1 belong to: quarters of the depth, the last layer among them."""
    return _UNEVEN.get(count) or tuple(-(-count * i // LEVELS) - 1 for i in range(1, LEVELS + 1))


class VJepa2(nn.Module):
    """Video [B, T, H, W, 3] -> Features. Any length, size and shape: positions are those of the tokens there are.

    Without flags this is V-JEPA 2.0. V-JEPA 2.1 has all of the next five:
    rope_interleave: the rotary angles are laid out as a rotation, see rope.tables.
    rope_interpolate: rows and columns are stretched to `pretrained_grid` positions, see rope.tables.
    modality: a learned vector is added to all tokens, one for videos and one for images (T == 1).
    image_embedding: images (T == 1) have an embedding of their own, of single frames. Otherwise an image is repeated
      to fill a tubelet.
    level_norms: four norms norm_0 ... norm_3, which belong to `level_layers`, in place of one; the grid is normed by
      the last.
    hierarchical: the grid holds all four normed levels, side by side: [B, t, h, w, 4 D]. Needs level_norms.
    taps: layers whose tokens [B, t, h, w, D] are given along (Features.taps), in this order, before any norm.
    segments: {'encoder': ...}, as layers.Stack takes them.
    dropout, rescale, eps, kernel, dtype: see layers.Block. drop_path, remat, unroll: see layers.Stack; lora: lora.Lora.
    """

    width: int
    mlp: int
    heads: int
    layers: int
    patch: tuple[int, int] = (16, 16)
    tubelet: int = 2
    rope_interleave: bool = False
    rope_interpolate: bool = False
    pretrained_grid: int = 16
    modality: bool = False
    image_embedding: bool = False
    level_norms: bool = False
    hierarchical: bool = False
    eps: float = 1e-6
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
        if self.hierarchical and not self.level_norms:
            raise ValueError('hierarchical features are those behind the level norms: set level_norms=True as well')
        start = nn.initializers.normal(0.02)
        self.embedding = embedding.TubeletEmbedding(self.width, self.tubelet, self.patch, start, self.dtype)
        if self.image_embedding:
            self.frame_embedding = embedding.TubeletEmbedding(
                self.width, 1, self.patch, start, self.dtype, name='image_embedding'
            )
        if self.modality:
            start = nn.initializers.normal(1e-6)
            self.video_modality = self.param('video_modality', start, (1, 1, self.width))
            self.image_modality = self.param('image_modality', start, (1, 1, self.width))
        block = layers.Block(
            self.width,
            self.mlp,
            self.heads,
            dropout=self.dropout,
            rescale=self.rescale,
            gelu_approximate=False,
            eps=self.eps,
            kernel=self.kernel,
            dtype=self.dtype,
            parent=None,
        )
        self.encoder = layers.Stack(
            block=block,
            layers=self.layers,
            segments=(self.segments or {}).get('encoder', ()),
            drop_path=self.drop_path,
            remat=self.remat,
            unroll=self.unroll,
            lora=self.lora and self.lora.of_stack(0, self.layers, self.layers),
        )
        names = [f'norm_{i}' for i in range(LEVELS)] if self.level_norms else ['norm']
        self.norms = [nn.LayerNorm(epsilon=self.eps, dtype=self.dtype, name=name) for name in names]

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
        """video: normalised; frame_valid: False for padding frames; tokens of nothing else are not attended to.

        film: behind its layer there are examples and copies, B (1 + N) in the order of film.Copies, and so in the
        result. Raises ValueError if frames, height or width is no multiple of the tubelet or the patch, a head has too
        few channels (rope.tables), or a tap is no layer.
        """
        x = self._embed(video)  # [B, t, h, w, D]
        batch, t, h, w, width = x.shape
        valid = embedding.tubelet_valid(frame_valid, self.tubelet)  # [B, T] -> [B, t]
        angles = rope.tables(
            (t, h, w),
            width // self.heads,
            interleave=self.rope_interleave,
            pretrained_grid=self.pretrained_grid if self.rope_interpolate else None,
        )
        levels = level_layers(self.layers) if self.hierarchical else ()
        x, tapped, reduced = self.encoder.run_blocks(
            x.reshape(batch, t * h * w, width),  # [B, N, D]
            train=train,
            valid=jnp.repeat(valid, h * w, axis=1),  # [B, t] -> [B, N]
            rope=angles,
            examples=batch,
            taps=self.taps + levels,
            tap=tap and tap.seen(lambda tokens: tokens.reshape(batch, t, h, w, width)),
            film=film,
        )
        tapped, tokens = tapped[: len(self.taps)], tapped[len(self.taps) :]
        if self.is_initializing():
            # All the norms have parameters, whether they are asked for or not.
            for norm in self.norms:
                norm(x)
        if self.hierarchical:
            normed = [norm(level) for norm, level in zip(self.norms, tokens, strict=True)]
            x = jnp.concatenate(normed, axis=-1)  # [B, N, 4 D]
        else:
            x = self.norms[-1](x)
        grid, *taps = (y.reshape(-1, t, h, w, y.shape[-1]) for y in (x, *tapped))
        valid = film.repeat(valid, batch) if film else valid
        return features.Features(grid=grid, valid=valid, taps=tuple(taps), tapped=reduced)

    def _embed(self, video: jax.Array) -> jax.Array:
        """[B, T, H, W, 3] -> [B, t, h, w, D]"""
        image = video.shape[1] == 1
        x = self.frame_embedding(video) if self.image_embedding and image else self.embedding(video)
        if self.image_embedding and self.is_initializing():
            # Both have parameters, whatever the input is.
            self.embedding(video)
            self.frame_embedding(video)
        if self.modality:
            x = x + (self.image_modality if image else self.video_modality).astype(x.dtype)
        return x
