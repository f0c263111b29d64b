"""Tubelets as tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.models import embedding

EMBED = embedding.TubeletEmbedding(width=5, tubelet=2, patch=(3, 2), init=embedding.TUBELET_INITS['random'])


def _video(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=(*shape, 3)), jnp.float32)


def _params():
    rng = np.random.default_rng(1)
    return {'kernel': jnp.asarray(rng.normal(size=(2, 3, 2, 3, 5)), jnp.float32), 'bias': jnp.arange(5.0)}


@pytest.mark.parametrize('jit', [False, True])
def test_each_token_is_the_product_of_the_kernel_with_its_tubelet(jit):
    video, params = _video(2, 4, 6, 6), _params()

    def run(video):
        return EMBED.apply({'params': params}, video)

    got = (jax.jit(run) if jit else run)(video)
    assert got.shape == (2, 2, 2, 3, 5)
    frames, kernel = np.asarray(video, np.float64), np.asarray(params['kernel'], np.float64)
    for b, t, h, w in np.ndindex(2, 2, 2, 3):
        cut = frames[b, 2 * t : 2 * t + 2, 3 * h : 3 * h + 3, 2 * w : 2 * w + 2]
        want = np.tensordot(cut, kernel, axes=4) + np.arange(5)
        np.testing.assert_allclose(got[b, t, h, w], want, atol=1e-4)


def test_too_few_frames_are_filled_up_with_the_last():
    video, params = _video(2, 1, 3, 4), _params()
    got = EMBED.apply({'params': params}, video)
    np.testing.assert_array_equal(got, EMBED.apply({'params': params}, jnp.repeat(video, 2, axis=1)))
    longer = EMBED.clone(tubelet=3)
    params = {'kernel': jnp.concatenate([params['kernel'], 2 * params['kernel'][:1]]), 'bias': params['bias']}
    video = _video(1, 2, 3, 2)
    filled = jnp.concatenate([video, video[:, 1:]], axis=1)
    np.testing.assert_array_equal(longer.apply({'params': params}, video), longer.apply({'params': params}, filled))


def test_a_tubelet_with_one_real_frame_is_valid():
    frames = jnp.array([[True, True, False, False], [True, False, False, True]])
    np.testing.assert_array_equal(embedding.tubelet_valid(frames, 2), [[True, False], [True, True]])
    np.testing.assert_array_equal(embedding.tubelet_valid(frames, 1), frames)
    image = jnp.array([[True], [False]])
    np.testing.assert_array_equal(embedding.tubelet_valid(image, 2), image)
    np.testing.assert_array_equal(embedding.tubelet_valid(frames[:, :3], 4), [[True], [True]])


def test_sizes_that_are_no_multiple_are_refused():
    for video, text in (
        (_video(1, 3, 3, 2), 'frames 3, which is no multiple of 2'),
        (_video(1, 2, 4, 2), 'height 4, which is no multiple of 3'),
        (_video(1, 2, 3, 3), 'width 3, which is no multiple of 2'),
    ):
        with pytest.raises(ValueError, match=text):
            EMBED.apply({'params': _params()}, video)


def test_tubelet_filters():
    shape = (3, 4, 4, 3, 5)
    start = {name: np.asarray(init(jax.random.key(0), shape)) for name, init in embedding.TUBELET_INITS.items()}
    image = start['central'][1]
    assert 0.7 < image.std() * np.sqrt(48) < 1.3  # LeCun normal of 4 x 4 x 3 inputs
    assert not start['central'][[0, 2]].any()  # the frame axis is the first
    np.testing.assert_allclose(start['mean'], np.broadcast_to(image / 3, shape), rtol=1e-6)
    np.testing.assert_allclose(start['difference'][2], image / np.sqrt(2), rtol=1e-6)
    np.testing.assert_array_equal(start['difference'].sum(0), 0)
    assert 0.8 < start['random'].std() * np.sqrt(144) < 1.2
    with pytest.raises(ValueError, match='at least 2 frames'):
        embedding.TUBELET_INITS['difference'](jax.random.key(0), (1, 4, 4, 3, 5))
