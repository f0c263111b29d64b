"""The points of a pyramid over time, and the lengths that it can stand on."""

import pathlib

import numpy as np
import pytest

from vidloc.ops import points

CASE = pathlib.Path(__file__).parents[1] / 'reference/actionformer/thumos_small_win5_io.npz'
THUMOS = ((0, 4), (4, 8), (8, 16), (16, 32), (32, 64), (64, 10000))


def test_points_of_the_reference_case():
    with np.load(CASE) as case:
        want = np.concatenate([case[f'points_{i}'] for i in range(4)])
    got = points.points(128, ((0, 4), (4, 8), (8, 16), (16, 10000)))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, want)


def test_points_of_six_levels():
    got = points.points(576, THUMOS)
    assert len(got) == 576 + 288 + 144 + 72 + 36 + 18
    np.testing.assert_array_equal(got[576:579], [[0, 4, 8, 2], [2, 4, 8, 2], [4, 4, 8, 2]])
    np.testing.assert_array_equal(got[-1], [544, 64, 10000, 32])
    assert points.strides(6) == (1, 2, 4, 8, 16, 32)


@pytest.mark.parametrize(
    ('windows', 'step'),
    [((19,) * 6, 576), ((7, 7, 7, 7, 7, -1), 96), ((5,) * 4, 32), ((1,) * 6, 32), ((-1,), 1), ((3, 19, 7), 72)],
)
def test_every_length_is_a_multiple(windows, step):
    assert points.multiple(windows) == step
    points.check_length(3 * step, windows)
    for wrong in (0, step + 1, 3 * step - 1) if step > 1 else (0,):
        with pytest.raises(ValueError, match=f'multiple of {step}; pad it to .* smallest legal length is {step}'):
            points.check_length(wrong, windows)


def test_the_next_legal_length_is_named():
    with pytest.raises(ValueError, match=r'of 600 places .* pad it to 1152'):
        points.check_length(600, (19,) * 6)
    with pytest.raises(ValueError, match=r'of 48 places .* multiple of 32'):
        points.points(48, THUMOS)
