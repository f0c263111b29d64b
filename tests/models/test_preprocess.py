"""Normalisation, differences and colour augmentation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.models import preprocess


def _clips(batch=3, frames=4):
    video = jax.random.randint(jax.random.key(0), (batch, frames, 6, 5, 3), 0, 256).astype(jnp.uint8)
    return video, jnp.ones((batch, frames), bool), jnp.arange(batch, dtype=jnp.uint32) + 7


@pytest.mark.parametrize('jit', [False, True])
def test_normalisation(jit):
    prepare = preprocess.Preprocess(mean=(10.0, 20.0, 30.0), std=(2.0, 4.0, 5.0))
    run = (lambda *a: prepare(*a, train=True)) if not jit else jax.jit(lambda *a: prepare(*a, train=True))
    video, valid, seed = _clips()
    want = (np.asarray(video, np.float32) - [10, 20, 30]) / [2, 4, 5]
    np.testing.assert_allclose(run(video, valid, seed), want, rtol=1e-5, atol=1e-5)
    default = preprocess.Preprocess()(video, valid, seed, train=False)
    np.testing.assert_allclose(default, np.asarray(video, np.float32) / 127.5 - 1, atol=1e-6)


def test_differences_keep_the_shape_and_ignore_padding():
    video, valid, seed = _clips()
    valid = valid.at[1, 2:].set(False)
    got = np.asarray(preprocess.Preprocess(difference=2.0)(video, valid, seed, train=False))
    x = np.asarray(video, np.float32) / 127.5 - 1
    want = 2 * np.concatenate([x[:, 1:] - x[:, :-1], x[:, 3:] - x[:, 2:3]], axis=1)
    want[1, 1:] = 0
    np.testing.assert_allclose(got, want, atol=1e-5)
    with pytest.raises(ValueError, match='at least 2 frames'):
        preprocess.Preprocess(difference=1.0)(video[:, :1], valid[:, :1], seed, train=False)


STRENGTHS = ('brightness', 'contrast', 'saturation', 'hue')


@pytest.mark.parametrize('name', STRENGTHS)
def test_colour_changes_in_training_only_and_alike_for_all_frames(name):
    video, valid, seed = _clips(frames=1)
    video, valid = jnp.tile(video, (1, 4, 1, 1, 1)), jnp.tile(valid, (1, 4))
    plain, colour = preprocess.Preprocess(), preprocess.Preprocess(**{name: 0.3})
    want = plain(video, valid, seed, train=False)
    np.testing.assert_array_equal(colour(video, valid, seed, train=False), want)
    got = np.asarray(colour(video, valid, seed, train=True))
    assert np.abs(got - want).max() > 0.01
    assert got.min() >= -1 - 1e-5 and got.max() <= 1 + 1e-5
    np.testing.assert_allclose(got, np.broadcast_to(got[:, :1], got.shape), atol=1e-6)


def test_colour_depends_on_the_seed_and_not_on_the_batch():
    prepare = preprocess.Preprocess(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1)
    video, valid, seed = _clips()
    video = jnp.tile(video[:1], (3, 1, 1, 1, 1))
    seed = seed.at[2].set(seed[0])
    got = np.asarray(prepare(video, valid, seed, train=True))
    np.testing.assert_allclose(got[0], got[2], atol=1e-6)
    assert np.abs(got[0] - got[1]).max() > 0.01
    alone = prepare(video[1:2], valid[1:2], seed[1:2], train=True)
    np.testing.assert_allclose(alone[0], got[1], atol=1e-5)
