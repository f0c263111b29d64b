"""Rotary tables against loops over tokens and channels, and what a rotation promises."""

import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.models import attention, rope


def _angle(place, channel, head, interleave):
    """The angle of a channel; None for the rest that stays."""
    part = head // 3 // 2 * 2
    axis, channel = divmod(channel, part)
    if axis > 2:
        return None
    which = channel // 2 if interleave else channel % (part // 2)
    return place[axis] / 10000 ** (which / (part // 2))


@pytest.mark.parametrize('interleave', [False, True])
@pytest.mark.parametrize('head', [6, 12, 24, 32, 64, 80, 88])
def test_tables_equal_loops(head, interleave):
    grid = (3, 2, 4)
    cosine, sine = rope.tables(grid, head, interleave=interleave)
    assert cosine.shape == sine.shape == (24, head)
    assert cosine.dtype == sine.dtype == np.float32
    want = np.zeros((2, 24, head))
    for token, place in enumerate(np.ndindex(*grid)):
        for channel in range(head):
            angle = _angle(place, channel, head, interleave)
            want[:, token, channel] = (1, 0) if angle is None else (np.cos(angle), np.sin(angle))
    np.testing.assert_allclose((cosine, sine), want, atol=1e-6)


@pytest.mark.parametrize(('head', 'still'), [(12, 0), (24, 0), (32, 2), (64, 4), (80, 2), (88, 4)])
def test_channels_that_are_left_over_are_not_turned(head, still):
    cosine, sine = rope.tables((2, 2, 2), head)
    assert ((cosine[-1] == 1) & (sine[-1] == 0)).sum() == still
    assert (sine[-1, : head - still] != 0).all()


def test_rows_and_columns_are_stretched_and_times_are_not():
    grid = (3, 4, 31)
    cosine, sine = rope.tables(grid, 12, interleave=True, pretrained_grid=16)
    angle = np.arctan2(sine, cosine).reshape(*grid, 12)  # the first channel of each part has the position itself
    np.testing.assert_allclose(angle[:, 0, 0, 0], [0, 1, 2], atol=1e-6)
    np.testing.assert_allclose(np.cos(angle[0, :, 0, 4]), np.cos([0, 5, 10, 15]), atol=1e-6)
    np.testing.assert_allclose(np.cos(angle[0, 0, :, 8]), np.cos(np.arange(31) / 2), atol=1e-6)
    counted = rope.tables((3, 16, 16), 12, interleave=True)
    for a, b in zip(rope.tables((3, 16, 16), 12, interleave=True, pretrained_grid=16), counted, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_single_row_or_column_is_at_zero():
    for grid in ((2, 1, 3), (2, 3, 1), (1, 1, 1)):
        cosine, sine = rope.tables(grid, 12, pretrained_grid=16)
        assert np.isfinite(cosine).all() and np.isfinite(sine).all()
        single = [axis for axis in (1, 2) if grid[axis] == 1]
        for axis in single:
            np.testing.assert_array_equal(sine[:, 4 * axis : 4 * axis + 4], 0)


def test_interleaved_scores_depend_on_distances_only_and_tiled_ones_do_not():
    """The promise of rotary positions, which the layout of V-JEPA 2.0 breaks: both must stay as they are."""
    query, key = np.random.default_rng(0).normal(size=(2, 24)).astype(np.float32)
    scores = {}
    for interleave in (True, False):
        angles = rope.tables((5, 1, 1), 24, interleave=interleave)
        same = (jnp.tile(x, (1, 5, 1))[:, :, None] for x in (query, key))  # [1, 5, 1, 24]
        q, k = (np.asarray(attention.rotate(x, angles))[0, :, 0] for x in same)
        scores[interleave] = np.array([q[i] @ k[i + 1] for i in range(4)])
        turned = np.linalg.norm(q, axis=-1) / np.linalg.norm(query)
        assert (np.abs(turned - 1).max() < 1e-5) == interleave
    np.testing.assert_allclose(scores[True], scores[True][0], rtol=1e-4)
    assert np.ptp(scores[False]) > 0.1


@pytest.mark.parametrize('head', [2, 4, 5, 7, 65])
def test_heads_without_channels_for_every_axis_are_refused(head):
    with pytest.raises(ValueError, match=f'at least 6 channels, and an even number, not {head}: choose another'):
        rope.tables((2, 2, 2), head)
