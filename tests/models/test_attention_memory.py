"""Memory that XLA plans for long videos: compiled for shapes at full size, nothing is run."""

import jax
import jax.numpy as jnp

from vidloc.models import sizes, vjepa2

# V-JEPA 2 g on 384 x 384 pixels: 32 frames are 9,216 tokens, 64 are 18,432.
MODEL = vjepa2.VJepa2(**sizes.SIZES['vjepa2']['g'], remat='full')
MAP = 4 * MODEL.heads * 18_432**2  # the scores of one layer


def _loss(params, video):
    valid = jnp.ones(video.shape[:2], bool)
    return jnp.mean(jnp.square(MODEL.apply({'params': params}, video, valid, train=False).grid))


def _planned(frames):
    video = jax.ShapeDtypeStruct((1, frames, 384, 384, 3), jnp.float32)
    small, valid = jnp.zeros((1, 2, 32, 32, 3)), jnp.ones((1, 2), bool)
    params = jax.eval_shape(lambda: MODEL.init(jax.random.key(0), small, valid, train=False)['params'])
    return jax.jit(jax.grad(_loss)).lower(params, video).compile().memory_analysis().temp_size_in_bytes


def test_memory_grows_with_the_number_of_tokens_and_not_with_its_square():
    """Of the gradient, which has the forward pass in it."""
    half, whole = _planned(32), _planned(64)
    assert whole < 2.1 * half
    assert whole < 0.25 * MAP
