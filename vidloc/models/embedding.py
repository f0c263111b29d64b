"""Tubelets of a video as tokens."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


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


def tubelet_start(name: str) -> Callable[[jax.Array, tuple[int, ...]], jax.Array]:
    """The initialiser that a backbone's `tubelet_init` names. Raises ValueError if there is none."""
    if name not in TUBELET_INITS:
        raise ValueError(f'tubelet_init is {name!r}; it must be one of {", ".join(TUBELET_INITS)}')
    return TUBELET_INITS[name]


class TubeletEmbedding(nn.Module):
    """Non-overlapping tubelets [t, h, w, 3] to tokens; kernel [t, h, w, 3, D] as that of a convolution."""

    width: int
    tubelet: int
    patch: tuple[int, int]
    init: Callable[[jax.Array, tuple[int, ...]], jax.Array]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, video: Float[Array, 'B T H W 3']) -> Float[Array, 'B t h w D']:
        """Fewer frames than a tubelet has, such as an image, are filled up with the last one.

        Raises ValueError if frames, height or width is no multiple of the tubelet or the patch.
        """
        video = jnp.pad(video, ((0, 0), (0, max(0, self.tubelet - video.shape[1])), *[(0, 0)] * 3), mode='edge')
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


def tubelet_valid(frame_valid: Bool[Array, 'B T'], tubelet: int) -> Bool[Array, 'B t']:
    """Which tubelets have a frame that is no padding."""
    batch, frames = frame_valid.shape
    return frame_valid.reshape(batch, -1, min(tubelet, frames)).any(axis=-1)  # [B, T] -> [B, t]
