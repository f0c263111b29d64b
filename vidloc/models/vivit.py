"""ViViT, the factorised encoder: a spatial transformer over each tubelet slice, then a temporal one.

Arnab et al. 2021, section 3.3, model 2; the parameters are those of google-research/scenic, projects/vivit.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vidloc.models import features, layers, positions


def _tubelet_random(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """LeCun normal over the whole tubelet."""
    return nn.initializers.lecun_normal(in_axis=(0, 1, 2, 3))(key, shape)


def _image_filter(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """LeCun normal for one frame, [h, w, 3, D]."""
    return nn.initializers.lecun_normal(in_axis=(0, 1, 2))(key, shape[1:])


def _tubelet_central(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """An image filter on the frame t // 2, zeros elsewhere (ViViT, equation 9)."""
    return jnp.zeros(shape).at[shape[0] // 2].set(_image_filter(key, shape))


def _tubelet_mean(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """An image filter on the average frame (ViViT, equation 8)."""
    return jnp.broadcast_to(_image_filter(key, shape) / shape[0], shape)


def _tubelet_difference(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """An image filter on the last frame minus the first, at unit gain for independent frames."""
    if shape[0] < 2:
        raise ValueError('difference filters need tubelets of at least 2 frames')
    image = _image_filter(key, shape) / jnp.sqrt(2.0)
    return jnp.zeros(shape).at[0].set(-image).at[-1].set(image)


TUBELET_INITS: dict[str, Callable[[jax.Array, tuple[int, ...]], jax.Array]] = {
    'random': _tubelet_random,
    'central': _tubelet_central,
    'mean': _tubelet_mean,
    'difference': _tubelet_difference,
}


class TubeletEmbedding(nn.Module):
    """Non-overlapping tubelets [t, h, w, 3] to tokens; kernel [t, h, w, 3, D] as that of a convolution."""

    width: int
    tubelet: int
    patch: tuple[int, int]
    init: Callable[[jax.Array, tuple[int, ...]], jax.Array]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, video: Float[Array, 'B T H W 3']) -> Float[Array, 'B t h w D']:
        batch, frames, height, width, _ = video.shape
        for name, size, step in zip(
            ('frames', 'height', 'width'), (frames, height, width), (self.tubelet, *self.patch), strict=True
        ):
            if size % step:
                raise ValueError(f'the video has {name} {size}, which is no multiple of {step}')
        shape = (self.tubelet, *self.patch, 3, self.width)
        kernel = self.param('kernel', self.init, shape).astype(self.dtype)
        bias = self.param('bias', nn.initializers.zeros, (self.width,)).astype(self.dtype)
        t, h, w = frames // self.tubelet, height // self.patch[0], width // self.patch[1]
        x = video.astype(self.dtype).reshape(batch, t, self.tubelet, h, self.patch[0], w, self.patch[1] * 3)
        x = x.transpose(0, 1, 3, 5, 2, 4, 6).reshape(batch, t, h, w, -1)  # [B, t, h, w, tubelet * patch * 3]
        return x @ kernel.reshape(-1, self.width) + bias


class Encoder(layers.Stack, kw_only=True):
    """A stack with position embeddings in front, a norm behind, and optionally a CLS token.

    grid: the places for which positions are learned; other grids get resized ones.
    """

    grid: tuple[int, ...]
    with_cls: bool
    position_init: Callable[..., Array]

    def setup(self):
        width = self.block.width
        tokens = math.prod(self.grid) + self.with_cls
        if self.with_cls:
            self.cls_token = self.param('cls', nn.initializers.zeros, (1, 1, width))
        self.position = self.param('position', self.position_init, (1, tokens, width))
        self.norm = nn.LayerNorm(epsilon=self.block.eps, dtype=self.block.dtype)
        self.drop = nn.Dropout(self.block.dropout)
        super().setup()

    def __call__(
        self,
        x: Float[Array, 'M N D'],
        *,
        grid: tuple[int, ...],
        examples: int,
        train: bool,
        valid: Bool[Array, 'M N'] | None = None,
    ) -> tuple[Float[Array, 'M N D'], Float[Array, 'M D'] | None]:
        """x: M sequences over `grid`, those of an example side by side -> (tokens, CLS or None), both normed."""
        if self.with_cls:
            token = jnp.broadcast_to(self.cls_token, (len(x), 1, x.shape[-1])).astype(x.dtype)
            x = jnp.concatenate([token, x], axis=1)  # [M, 1 + N, D]
            valid = None if valid is None else jnp.pad(valid, ((0, 0), (1, 0)), constant_values=True)
        x = x + positions.resize(self.position, self.grid, grid, cls=self.with_cls).astype(x.dtype)
        x = self.drop(x, deterministic=not train)
        x = self.norm(self.run_blocks(x, train=train, valid=valid, examples=examples))
        return (x[:, 1:], x[:, 0]) if self.with_cls else (x, None)


class ViViT(nn.Module):
    """Video [B, T, H, W, 3] -> Features.

    grid: tokens (t, h, w) for which positions are learned; inputs of any other size get resized ones.
    cls: one CLS token in each encoder. It takes part in the attention and never enters the grid.
    temporal_on: 'tokens': the temporal encoder runs over time at each place of the grid, and `pooled` is None.
      'rois': the grid holds the normed spatial tokens, `pooled` is the classic path (CLS or mean over the places
      of each time, temporal encoder, CLS or mean over time), and a head that pools regions of each time gives them
      to `encode_time`. The parameters are the same.
    tubelet_init: 'random', 'central', 'mean' or 'difference', see TUBELET_INITS.
    position_init: of the spatial positions, 'normal' with `position_std`, or 'sincos' times `position_amplitude`.
    temporal_position_std: of the temporal positions, normal.
    segments: {'spatial': ..., 'temporal': ...}, as layers.Stack takes them.
    dropout, rescale, dtype: see layers.Block. drop_path, remat, unroll: see layers.Stack; each has its own ramp.
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
    segments: Mapping[str, layers.Segments] | None = None
    remat: str = 'none'
    unroll: int = 1
    dtype: Any = jnp.float32

    def setup(self):
        for name, choices in (
            ('temporal_on', ('tokens', 'rois')),
            ('tubelet_init', tuple(TUBELET_INITS)),
            ('position_init', ('normal', 'sincos')),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f'{name} is {getattr(self, name)!r}; it must be one of {", ".join(choices)}')
        if unknown := set(self.segments or ()) - set(self.stacks()):
            raise ValueError(f'segments for {sorted(unknown)}: ViViT has the stacks {", ".join(self.stacks())}')
        block = layers.Block(
            self.width,
            self.mlp,
            self.heads,
            dropout=self.dropout,
            rescale=self.rescale,
            dtype=self.dtype,
            parent=None,
        )
        normal = nn.initializers.normal
        starts = {
            'spatial': self._spatial_start if self.position_init == 'sincos' else normal(self.position_std),
            'temporal': normal(self.temporal_position_std),
        }
        encoders = {
            name: Encoder(
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
            )
            for name, count in self.stacks().items()
        }
        init = TUBELET_INITS[self.tubelet_init]
        self.embedding = TubeletEmbedding(self.width, self.tubelet, self.patch, init, self.dtype)
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
    ) -> features.Features:
        """video: normalised; frame_valid: False for padding frames, to which the temporal encoder does not attend.

        Raises ValueError if frames, height or width is no multiple of the tubelet or the patch.
        """
        x = self.embedding(video)  # [B, t, h, w, D]
        batch, t, h, w, width = x.shape
        valid = frame_valid.reshape(batch, t, self.tubelet).any(axis=-1)  # [B, T] -> [B, t]
        x = x.reshape(batch * t, h * w, width)  # [B, t, h, w, D] -> [B t, h w, D]
        x, summary = self.spatial(x, grid=(h, w), examples=batch, train=train)
        x = x.reshape(batch, t, h * w, width)
        if self.temporal_on == 'rois':
            summary = jnp.mean(x, axis=2) if summary is None else summary.reshape(batch, t, width)  # [B, t, D]
            pooled = self.encode_time(summary[:, None], valid, train=train)[:, 0]  # [B, 1, t, D] -> [B, D]
            return features.Features(grid=x.reshape(batch, t, h, w, width), valid=valid, pooled=pooled)
        x, _ = self._over_time(x.transpose(0, 2, 1, 3), valid, train=train)  # [B, h w, t, D]
        x = x.transpose(0, 2, 1, 3).reshape(batch, t, h, w, width)
        return features.Features(grid=x, valid=valid)

    def encode_time(
        self, x: Float[Array, 'B N t D'], valid: Bool[Array, 'B t'], *, train: bool
    ) -> Float[Array, 'B N D']:
        """N sequences over time per example through the temporal encoder: its CLS token, or the mean over time."""
        x, summary = self._over_time(x, valid, train=train)
        return _masked_mean(x, valid[:, None]) if summary is None else summary

    def _over_time(self, x: jax.Array, valid: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array | None]:
        """x [B, N, t, D], valid [B, t] -> tokens [B, N, t, D] and CLS [B, N, D] or None."""
        batch, count, t, width = x.shape
        x = x.reshape(batch * count, t, width)  # [B N, t, D]
        valid = jnp.repeat(valid, count, axis=0)  # [B N, t]
        x, summary = self.temporal(x, grid=(t,), examples=batch, train=train, valid=valid)
        summary = None if summary is None else summary.reshape(batch, count, width)
        return x.reshape(batch, count, t, width), summary

    def _spatial_start(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Sin-cos positions over (h, w); the place of a CLS token is 0."""
        del key
        table = self.position_amplitude * positions.sincos(self.grid[1:], self.width)
        return jnp.pad(jnp.asarray(table), ((int(self.cls), 0), (0, 0)))[None].reshape(shape)


def _masked_mean(x: jax.Array, valid: jax.Array) -> jax.Array:
    """x [..., t, D], valid [..., t] -> mean over the valid times [..., D]; 0 if there is none."""
    weight = valid.astype(x.dtype)[..., None]
    return jnp.sum(x * weight, axis=-2) / jnp.maximum(jnp.sum(weight, axis=-2), 1.0)
