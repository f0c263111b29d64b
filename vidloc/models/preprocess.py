"""From decoded frames to what the network reads, on the device."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt8, UInt32

RGB = tuple[float, float, float]
MIDDLE: RGB = (127.5, 127.5, 127.5)


@dataclasses.dataclass(frozen=True)
class Preprocess:
    """Colour augmentation (training only), normalisation and, if asked for, frame differences.

    mean, std: per channel, on the scale 0 to 255; (): those of the weights that a run starts from, else [-1, 1].
    difference: 0: colours. Otherwise the input is frame t+1 minus frame t of the normalised video, times this; the
      last difference stands twice, so that shapes stay. It is 0 where either frame is padding.
    brightness, contrast, saturation, hue: strengths; 0 leaves a step out. Brightness (on the scale 0 to 1) and hue (of
      the circle) are shifted by a draw from [-s, s], contrast and saturation multiplied by one from [1-s, 1+s].
      One draw holds for all frames of a clip and depends on the clip's seed alone.

    Zero borders that fitting made are pixels like others: brightness and contrast change them too, and
    differences make them 0.
    """

    mean: RGB | tuple[()] = ()
    std: RGB | tuple[()] = ()
    difference: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __call__(
        self,
        video: UInt8[Array, 'B T H W 3'],
        frame_valid: Bool[Array, 'B T'],
        seed: UInt32[Array, ' B'],
        *,
        train: bool,
    ) -> Float[Array, 'B T H W 3']:
        """seed: of each example; all randomness comes from it."""
        x = video.astype(jnp.float32)
        if train and (self.brightness or self.contrast or self.saturation or self.hue):
            x = jax.vmap(self._jitter)(x / 255.0, seed) * 255.0
        mean, std = (jnp.asarray(given or MIDDLE, jnp.float32) for given in (self.mean, self.std))
        x = (x - mean) / std
        if not self.difference:
            return x
        if x.shape[1] < 2:
            raise ValueError('differences need clips of at least 2 frames')
        both = frame_valid[:, 1:] & frame_valid[:, :-1]  # [B, T - 1]
        x = jnp.where(both[..., None, None, None], (x[:, 1:] - x[:, :-1]) * self.difference, 0.0)
        return jnp.concatenate([x, x[:, -1:]], axis=1)

    def _jitter(self, clip: jax.Array, seed: jax.Array) -> jax.Array:
        """clip [T, H, W, 3] in [0,1] -> the same."""
        import dm_pix

        shift, contrast, saturation, hue = jax.random.uniform(
            jax.random.fold_in(jax.random.key(0), seed), (4,), minval=-1.0, maxval=1.0
        )
        if self.brightness:
            clip = dm_pix.adjust_brightness(clip, self.brightness * shift)
        if self.contrast:
            clip = dm_pix.adjust_contrast(clip, 1.0 + self.contrast * contrast)
        clip = jnp.clip(clip, 0.0, 1.0)
        if self.saturation:
            clip = dm_pix.adjust_saturation(clip, 1.0 + self.saturation * saturation)
        if self.hue:
            clip = dm_pix.adjust_hue(clip, self.hue * hue)
        return jnp.clip(clip, 0.0, 1.0)
