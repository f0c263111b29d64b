import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.ops import segments as segment_ops

ARRAYS = [np.asarray, jnp.asarray]


@pytest.mark.parametrize('array', ARRAYS)
def test_length_by_hand(array):
    segments = array([[0.0, 2.5], [-1.0, 0.5], [3.0, 1.0], [6.0, 8.0]])
    np.testing.assert_allclose(segment_ops.length(segments), [2.5, 1.5, 0.0, 2.0])


@pytest.mark.parametrize('array', ARRAYS)
def test_iou_by_hand(array):
    first = array([[0.0, 4.0], [1.0, 1.0]])
    second = array([[2.0, 6.0], [0.0, 4.0], [4.0, 5.0], [3.0, 2.0], [1.0, 1.0]])
    np.testing.assert_allclose(
        segment_ops.iou(first, second), [[1 / 3, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]], atol=1e-6
    )


def test_iou_of_batches_and_of_no_segments():
    ends = np.sort(np.random.default_rng(0).random((2, 7, 2)), axis=-1)
    first, second = ends[:, :3], ends[:, 3:]
    each = np.stack([segment_ops.iou(a, b) for a, b in zip(first, second, strict=True)])
    np.testing.assert_array_equal(segment_ops.iou(first, second), each)
    assert segment_ops.iou(first[0], np.zeros((0, 2))).shape == (3, 0)


def test_iou_does_not_change_with_shift_scale_and_mirror():
    ends = np.sort(np.random.default_rng(1).random((9, 2)), axis=-1)
    expected = segment_ops.iou(ends, ends)
    for moved in (ends + 3, 7 * ends, -ends[:, ::-1]):
        np.testing.assert_allclose(segment_ops.iou(moved, moved), expected, atol=1e-12)
    np.testing.assert_array_equal(expected, expected.T)
    np.testing.assert_allclose(np.diag(expected), 1.0)
