import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.ops import boxes as box_ops

ARRAYS = [np.asarray, jnp.asarray]


def random_boxes(count: int, seed: int) -> np.ndarray:
    corners = np.sort(np.random.default_rng(seed).random((count, 2, 2)), axis=1)  # [N, 2, 2]
    return corners.reshape(count, 4)


@pytest.mark.parametrize('array', ARRAYS)
def test_area(array):
    boxes = array([[0.0, 0.0, 0.5, 0.25], [0.5, 0.5, 0.5, 0.9], [0.6, 0.6, 0.2, 0.2]])
    np.testing.assert_allclose(box_ops.area(boxes), [0.125, 0.0, 0.0])


@pytest.mark.parametrize('array', ARRAYS)
def test_iou_by_hand(array):
    first = array([[0.0, 0.0, 0.5, 0.5], [0.1, 0.1, 0.1, 0.1]])
    second = array([[0.25, 0.0, 0.75, 0.5], [0.0, 0.0, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9], [0.1, 0.1, 0.1, 0.1]])
    np.testing.assert_allclose(box_ops.iou(first, second), [[1 / 3, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]], atol=1e-6)


def test_iou_is_the_share_of_a_fine_grid():
    first, second = random_boxes(5, 0), random_boxes(6, 1)
    y, x = (np.mgrid[:400, :400] + 0.5) / 400

    def inside(box):
        return (x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3])

    expected = [[(inside(a) & inside(b)).sum() / (inside(a) | inside(b)).sum() for b in second] for a in first]
    np.testing.assert_allclose(box_ops.iou(first, second), expected, atol=0.03)


def test_iou_of_batches_and_of_no_boxes():
    first, second = random_boxes(6, 0).reshape(2, 3, 4), random_boxes(8, 1).reshape(2, 4, 4)
    both = box_ops.iou(first, second)
    assert both.shape == (2, 3, 4)
    np.testing.assert_array_equal(both[1], box_ops.iou(first[1], second[1]))
    assert box_ops.iou(np.zeros((0, 4)), second[0]).shape == (0, 4)


@pytest.mark.parametrize('array', ARRAYS)
def test_clip(array):
    boxes = array([[-0.5, 0.25, 0.5, 1.5], [1.5, 0.0, 2.0, 1.0]])
    np.testing.assert_allclose(box_ops.clip(boxes), [[0.0, 0.25, 0.5, 1.0], [1.0, 0.0, 1.0, 1.0]])


@pytest.mark.parametrize('array', ARRAYS)
def test_mirror(array):
    mirrored = box_ops.mirror(array([[0.125, 0.25, 0.5, 0.75]]))
    np.testing.assert_array_equal(mirrored, [[0.5, 0.25, 0.875, 0.75]])
    np.testing.assert_array_equal(box_ops.mirror(mirrored), [[0.125, 0.25, 0.5, 0.75]])
