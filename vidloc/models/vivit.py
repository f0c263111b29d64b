"""ViViT, the factorised encoder: a spatial transformer over each tubelet slice, then a temporal one.

Arnab et al. 2021, section 3.3, model 2; the parameters are those of google-research/scenic, projects/vivit.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vidloc.models import embedding, encoder, features, layers, positions
from vidloc.models import film as film_lib
from vidloc.models import lora as lora_lib
from vidloc.models import tap as tap_lib


class ViViT(nn.Module):
    """Video [B, T, H, W, 3] -> Features.

    grid: tokens (t, h, w) for which positions are learned; inputs of any other size get resized ones.
    cls: one CLS token in each encoder. It takes part in the attention and never enters the grid.
    temporal_on: 'tokens': the temporal encoder runs over time at each place of the grid, and `pooled` is None.
      'rois': the grid holds the normed spatial tokens, `pooled` is the classic path (CLS or mean over the places
      of each time, temporal encoder, CLS or mean over time), and a head that pools regions of each time gives them
      to `encode_time`. The parameters are the same.
    tubelet_init: 'random', 'central', 'mean' or 'difference', see embedding.TUBELET_INITS.
    position_init: of the spatial positions, 'normal' with `position_std`, or 'sincos' times `position_amplitude`.
    temporal_position_std: of the temporal positions, normal.
    segments: {'spatial': ..., 'temporal': ...}, as layers.Stack takes them.
    taps: layers whose tokens [B, t, h, w, D] are given along (Features.taps), in this order, counted through both
      encoders: those of the temporal one begin at spatial_layers, and exist where it runs on tokens.
    dropout, rescale, kernel, dtype: see layers.Block. drop_path, remat, unroll: see layers.Stack; each encoder has its
      own ramp. lora: see lora.Lora, its layers counted as those of `taps`.
    """

    width: int
    mlp: int
    heads: int
    spatial_layers: int
    temporal_layers: int
    grid: tuple[int, int, int]
    patch: tuple[int, int] = (16, 16)
    tubelet: int = 2
    cls: bool = False
    temporal_on: str = 'tokens'
    tubelet_init: str = 'central'
    position_init: str = 'normal'
    position_std: float = 0.02
    position_amplitude: float = 0.5
    temporal_position_std: float = 0.02
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
        for name, choices in (
            ('temporal_on', ('tokens', 'rois')),
            ('position_init', ('normal', 'sincos')),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f'{name} is {getattr(self, name)!r}; it must be one of {", ".join(choices)}')
        layers.check_stacks(self.segments, self.stacks())
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
        normal = nn.initializers.normal
        starts = {
            'spatial': self._spatial_start if self.position_init == 'sincos' else normal(self.position_std),
            'temporal': normal(self.temporal_position_std),
        }
        encoders = {
            name: encoder.Encoder(
                block=block,
                layers=count,
                segments=(self.segments or {}).get(name, ()),
                drop_path=self.drop_path,
                remat=self.remat,
                unroll=self.unroll,
                grid=self.grid[1:] if name == 'spatial' else self.grid[:1],
                with_cls=self.cls,
                position_init=starts[name],
                name=name,
                lora=self.lora and self.lora.of_stack(first, count, self.spatial_layers + self.temporal_layers),
            )
            for (name, count), first in zip(self.stacks().items(), (0, self.spatial_layers), strict=True)
        }
        init = embedding.tubelet_start(self.tubelet_init)
        self.embedding = embedding.TubeletEmbedding(self.width, self.tubelet, self.patch, init, self.dtype)
        self.spatial = encoders['spatial']
        self.temporal = encoders['temporal']

    def stacks(self) -> dict[str, int]:
        """{name of each stack: its number of layers}."""
        return {'spatial': self.spatial_layers, 'temporal': self.temporal_layers}

    def __call__(
        self,
        video: Float[Array, 'B T H W 3'],
        frame_valid: Bool[Array, 'B T'],
        *,
        train: bool,
        tap: tap_lib.Tap | None = None,
        film: film_lib.Copies | None = None,
    ) -> features.Features:
        """video: normalised; frame_valid: False for padding frames, to which the temporal encoder does not attend.

        film: behind its layer there are examples and copies, B (1 + N) in the order of film.Copies, and so in the
        result. Raises ValueError if frames, height or width is no multiple of the tubelet or the patch, or a tap is no
        layer.
        """
        depth = self.spatial_layers + (0 if self.temporal_on == 'rois' else self.temporal_layers)
        asked = (*self.taps, *(tap.layers if tap else ()), *((film.after,) if film else ()))
        if wrong := [i for i in asked if not 0 <= i < depth]:
            raise ValueError(
                f'{"film behind layer" if film else "taps"} {wrong}: with temporal_on={self.temporal_on!r} there are '
                f'those from 0 to {depth - 1}'
            )
        x = self.embedding(video)  # [B, t, h, w, D]
        batch, t, h, w, width = x.shape
        valid = embedding.tubelet_valid(frame_valid, self.tubelet)  # [B, T] -> [B, t]
        early = tuple(i for i in self.taps if i < self.spatial_layers)
        late = tuple(i - self.spatial_layers for i in self.taps if i >= self.spatial_layers)
        x = x.reshape(batch * t, h * w, width)  # [B, t, h, w, D] -> [B t, h w, D]
        shape = batch, t, h, w, width
        first = tap and tap.between(0, self.spatial_layers - 1).seen(lambda tokens: tokens.reshape(shape))
        copies = film and film.within(0, self.spatial_layers)
        x, summary, tapped, reduced = self.spatial(
            x, grid=(h, w), examples=batch, train=train, taps=early, tap=first, film=copies
        )
        batch = len(x) // t  # with copies, if they were made there
        valid = copies.repeat(valid, len(valid)) if copies else valid
        found = {i: value.reshape(shape) for i, value in zip(early, tapped, strict=True)}
        x = x.reshape(batch, t, h * w, width)  # [B t, h w, D] -> [B, t, h w, D]
        if self.temporal_on == 'rois':
            summary = jnp.mean(x, axis=2) if summary is None else summary.reshape(batch, t, width)  # [B, t, D]
            pooled = self.encode_time(summary[:, None], valid, train=train)[:, 0]  # [B, 1, t, D] -> [B, D]
            taps = tuple(found[i] for i in self.taps)
            grid = x.reshape(batch, *shape[1:])
            return features.Features(grid=grid, valid=valid, pooled=pooled, taps=taps, tapped=reduced)
        second = tap and tap.between(self.spatial_layers, depth - 1).seen(lambda tokens: tokens.reshape(shape))
        copies = film and film.within(self.spatial_layers, self.temporal_layers)
        x = x.transpose(0, 2, 1, 3)  # [B, t, h w, D] -> [B, h w, t, D]
        x, _, tapped, more = self._over_time(x, valid, train=train, taps=late, tap=second, film=copies)
        valid = copies.repeat(valid, batch) if copies else valid
        # [B, h w, t, D] -> [B, t, h, w, D]
        x, *tapped = (y.transpose(0, 2, 1, 3).reshape(-1, *shape[1:]) for y in (x, *tapped))
        found |= {self.spatial_layers + i: value for i, value in zip(late, tapped, strict=True)}
        reduced = tap_lib.joined([part for part in (reduced, more) if part is not None])
        return features.Features(grid=x, valid=valid, taps=tuple(found[i] for i in self.taps), tapped=reduced)

    def encode_time(
        self, x: Float[Array, 'B N t D'], valid: Bool[Array, 'B t'], *, train: bool
    ) -> Float[Array, 'B N D']:
        """N sequences over time per example through the temporal encoder: its CLS token, or the mean over time."""
        x, summary, *_ = self._over_time(x, valid, train=train)
        return _masked_mean(x, valid[:, None]) if summary is None else summary

    def _over_time(
        self,
        x: jax.Array,
        valid: jax.Array,
        *,
        train: bool,
        taps: tuple[int, ...] = (),
        tap: tap_lib.Tap | None = None,
        film: film_lib.Copies | None = None,
    ) -> tuple[jax.Array, jax.Array | None, tuple[jax.Array, ...], jax.Array | None]:
        """x [B, N, t, D], valid [B, t] -> tokens as x, CLS [B, N, D] or None, taps as x, what `tap` made.

        `tap` sees [B, t, N, D]. Behind `film` there are as many times the examples.
        """
        batch, count, t, width = x.shape
        x = x.reshape(batch * count, t, width)  # [B N, t, D]
        valid = jnp.repeat(valid, count, axis=0)  # [B N, t]
        tap = tap and tap.seen(lambda tokens: tokens.reshape(batch, count, t, width).transpose(0, 2, 1, 3))
        x, summary, tapped, reduced = self.temporal(
            x, grid=(t,), examples=batch, train=train, valid=valid, taps=taps, tap=tap, film=film
        )
        summary = None if summary is None else summary.reshape(-1, count, width)
        x, *tapped = (y.reshape(-1, count, t, width) for y in (x, *tapped))
        return x, summary, tuple(tapped), reduced

    def _spatial_start(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Sin-cos positions over (h, w); the place of a CLS token is 0."""
        del key
        table = self.position_amplitude * positions.sincos(self.grid[1:], self.width)
        return jnp.pad(jnp.asarray(table), ((int(self.cls), 0), (0, 0)))[None].reshape(shape)


def _masked_mean(x: jax.Array, valid: jax.Array) -> jax.Array:
    """x [..., t, D], valid [..., t] -> mean over the valid times [..., D]; 0 if there is none."""
    weight = valid.astype(x.dtype)[..., None]
    return jnp.sum(x * weight, axis=-2) / jnp.maximum(jnp.sum(weight, axis=-2), 1.0)
