import numpy as np
import pytest

from vidloc.data import grid


@pytest.mark.parametrize('seed', range(5))
def test_seconds_and_indices_are_each_others_inverse(seed):
    rng = np.random.default_rng(seed)
    for _ in range(40):
        rate = float(rng.choice([25 / 4, 29.97 / 4, 30000 / 1001 / 4, 30 / 4, 0.37]))
        points = grid.over(float(rng.uniform(0, 1e4)), rate, int(rng.integers(1, 3000)), int(rng.integers(1, 3000)))
        moments = rng.uniform(0, 2e4, 50)
        np.testing.assert_allclose(points.seconds(points.index(moments)), moments, rtol=0, atol=1e-9)
        places = rng.uniform(-10, 3000, 50)
        np.testing.assert_allclose(points.index(points.seconds(places)), places, rtol=1e-9, atol=1e-7)


def test_as_many_points_as_frames_are_at_the_frames():
    points = grid.over(3.2, 7.5, 576, 576)
    np.testing.assert_allclose(points.seconds(np.arange(576)), 3.2 + np.arange(576) / 7.5, rtol=0, atol=1e-12)


def test_fewer_points_are_in_the_middle_of_their_frames():
    points = grid.over(1.0, 10.0, 16, 4)
    np.testing.assert_allclose(points.seconds(np.arange(4)), 1.0 + np.array([1.5, 5.5, 9.5, 13.5]) / 10)
    finer = grid.over(1.0, 10.0, 4, 8)
    np.testing.assert_allclose(finer.seconds(np.arange(4)), 1.0 + np.array([-0.25, 0.25, 0.75, 1.25]) / 10)


@pytest.mark.parametrize(('first', 'fps', 'stride', 'span', 'upsample'), [(0, 30, 4, 16, 1), (17, 29.97, 8, 16, 2)])
def test_features_are_where_actionformer_has_them(first, fps, stride, span, upsample):
    points = grid.over((first * stride + 0.5 * span) / fps, fps / stride, 100, 100 * upsample)
    if upsample == 1:
        # libs/modeling/meta_archs.py, postprocessing: (segments * stride + 0.5 * num_frames) / fps
        expected = ((np.arange(100) + first) * stride + 0.5 * span) / fps
        np.testing.assert_allclose(points.seconds(np.arange(100)), expected, rtol=1e-13)
    assert points.step == pytest.approx(stride / (fps * upsample), rel=1e-14)
    start = first * stride / fps + (0.5 * span + (0.5 / upsample - 0.5) * stride) / fps
    assert points.start == pytest.approx(start, rel=1e-13)


def test_points_beyond_the_frames_are_not_valid():
    assert grid.valid(4, 4, 4).tolist() == [True] * 4
    assert grid.valid(3, 4, 4).tolist() == [True, True, True, False]
    assert grid.valid(3, 4, 8).tolist() == [True] * 6 + [False] * 2
    assert grid.valid(6, 8, 4).tolist() == [True, True, True, False]
    assert grid.valid(1, 16, 2).tolist() == [True, False]  # never none
