"""Position embeddings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.models import positions


def test_the_same_grid_changes_nothing():
    embedding = jax.random.normal(jax.random.key(0), (1, 1 + 6, 4))
    np.testing.assert_array_equal(positions.resize(embedding, (2, 3), (2, 3), cls=True), embedding)


@pytest.mark.parametrize('to_grid', [(14, 18), (3, 2), (1, 7), (1, 1)])
def test_a_constant_stays_constant_and_cls_stays_first(to_grid):
    embedding = jnp.concatenate([jnp.full((1, 1, 4), 7.0), jnp.full((1, 16 * 9, 4), 3.0)], axis=1)
    got = positions.resize(embedding, (16, 9), to_grid, cls=True)
    assert got.shape == (1, 1 + to_grid[0] * to_grid[1], 4)
    np.testing.assert_array_equal(got[:, 0], 7.0)
    np.testing.assert_allclose(got[:, 1:], 3.0, rtol=1e-6)


@pytest.mark.parametrize('jit', [False, True])
def test_a_ramp_stays_a_ramp_from_corner_to_corner(jit):
    y, x = np.meshgrid(np.linspace(-1, 1, 5), np.linspace(2, 4, 7), indexing='ij')
    embedding = jnp.asarray(np.stack([y, x], -1).reshape(1, 35, 2), jnp.float32)

    def resize(embedding):
        return positions.resize(embedding, (5, 7), (8, 3), cls=False)

    got = (jax.jit(resize) if jit else resize)(embedding).reshape(8, 3, 2)
    y, x = np.meshgrid(np.linspace(-1, 1, 8), np.linspace(2, 4, 3), indexing='ij')
    np.testing.assert_allclose(got, np.stack([y, x], -1), atol=1e-6)


def test_one_axis_and_an_axis_of_one():
    embedding = jnp.arange(3.0).reshape(1, 3, 1)
    np.testing.assert_allclose(positions.resize(embedding, (3,), (5,), cls=False)[0, :, 0], [0, 0.5, 1, 1.5, 2])
    np.testing.assert_allclose(positions.resize(embedding, (3,), (1,), cls=False)[0, :, 0], [1.0])
    one = jnp.full((1, 1, 1), 4.0)
    np.testing.assert_allclose(positions.resize(one, (1,), (3,), cls=False)[0, :, 0], [4.0, 4.0, 4.0])


def test_wrong_token_counts_are_refused():
    with pytest.raises(ValueError, match=r'7 tokens, but grid \(2, 3\) with cls=False needs 6'):
        positions.resize(jnp.zeros((1, 7, 4)), (2, 3), (4, 4), cls=False)
    with pytest.raises(ValueError, match='different number of axes'):
        positions.resize(jnp.zeros((1, 6, 4)), (2, 3), (4,), cls=False)


def test_sincos_tells_places_apart_and_shares_channels():
    table = positions.sincos((3, 5), 16)
    assert table.shape == (15, 16)
    assert len(np.unique(table.round(6), axis=0)) == 15
    by_place = table.reshape(3, 5, 16)
    np.testing.assert_array_equal(by_place[:, 0, :8], by_place[:, 4, :8])  # the first half knows the row only
    np.testing.assert_array_equal(by_place[0, :, 8:], by_place[2, :, 8:])
    np.testing.assert_allclose((table**2).sum(-1), 8.0, rtol=1e-6)
    with pytest.raises(ValueError, match='divisible by 4'):
        positions.sincos((3, 5), 6)


def test_flat_sincos_counts_tokens():
    table = positions.flat_sincos(1600, 6)
    for token, channel, value in (
        (0, 0, 0.0),
        (0, 5, 1.0),
        (7, 0, np.sin(7)),
        (7, 1, np.cos(7)),
        (1599, 2, np.sin(1599 / 10000 ** (1 / 3))),
        (1599, 5, np.cos(1599 / 10000 ** (2 / 3))),
    ):
        np.testing.assert_allclose(table[token, channel], value, atol=1e-7)
    assert positions.flat_sincos(3, 5).shape == (3, 5)
    np.testing.assert_allclose(positions.flat_sincos(3, 5)[2, 4], np.sin(2 / 10000**0.8), atol=1e-7)


SQUARES = np.arange(5.0, dtype=np.float32) ** 2


@pytest.mark.parametrize(
    ('axis', 'new', 'want'),
    [
        # torch.nn.functional.interpolate of 0, 1, 4, 9, 16 with align_corners=False
        (0, 7, [0.0, 0.5714286, 1.8571429, 4.0, 7.5714286, 12.0, 16.0]),
        (1, 7, [-0.0787172, 0.2653061, 1.6822157, 4.0, 7.0466472, 12.4635569, 16.5510204]),
        (2, 3, [0.1481481, 4.0, 14.0740741]),
    ],
)
def test_resampling_is_linear_in_time_and_bicubic_in_space(axis, new, want):
    grid, to_grid = [3, 2, 4], [3, 2, 4]
    grid[axis], to_grid[axis] = 5, new
    by_axis = np.moveaxis(np.broadcast_to(SQUARES, (*np.delete(grid, axis), 5)), -1, axis)  # [t, h, w]
    got = positions.resample(by_axis.reshape(-1, 1), tuple(grid), tuple(to_grid)).reshape(to_grid)
    got = np.moveaxis(got, axis, -1).reshape(-1, new)
    np.testing.assert_allclose(got, np.broadcast_to(want, got.shape), atol=1e-5)


def test_resampling_keeps_constants_and_the_same_grid():
    table = np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32)
    np.testing.assert_array_equal(positions.resample(table, (2, 3, 4), (2, 3, 4)), table)
    constant = positions.resample(np.full((24, 3), 2.5, np.float32), (2, 3, 4), (1, 7, 2))
    assert constant.shape == (14, 3) and constant.dtype == np.float32
    np.testing.assert_allclose(constant, 2.5, rtol=1e-6)
