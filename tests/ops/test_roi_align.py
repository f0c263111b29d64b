"""ROI-Align against the reference cases and its own promises."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.ops import roi_align

FOLDER = pathlib.Path(__file__).parents[1] / 'reference' / 'roi_align'
CASES = json.loads((FOLDER / 'forward.json').read_text())
ARRAYS = np.load(FOLDER / 'forward.npz')


def _load(case):
    """The case in this project's units: features [1, H, W, C], boxes [1, N, 4] in [0,1], out [N, p, q, C]."""
    feature, boxes, out = (ARRAYS[f'{case["case"]}_{name}'] for name in ('feature', 'boxes', 'out'))
    height, width = case['H'] / case['spatial_scale'], case['W'] / case['spatial_scale']
    boxes = boxes / np.array([width, height, width, height])
    return jnp.asarray(feature[None], jnp.float32), jnp.asarray(boxes[None], jnp.float32), out


@pytest.mark.parametrize('jit', [False, True])
@pytest.mark.parametrize('case', CASES, ids=[case['case'] for case in CASES])
def test_reference(case, jit):
    feature, boxes, want = _load(case)
    options = {'sampling_ratio': case['sampling_ratio'], 'aligned': case['aligned']}
    size = tuple(case['out'])

    def bins(feature, boxes):
        return roi_align.roi_align(feature, boxes, size, **options)

    def mean(feature, boxes):
        return roi_align.roi_mean(feature, boxes, size, **options)

    if jit:
        bins, mean = jax.jit(bins), jax.jit(mean)
    tolerance = 1e-5 * (1 + np.abs(want).max())
    np.testing.assert_allclose(bins(feature, boxes)[0], want, atol=tolerance, rtol=0)
    np.testing.assert_allclose(mean(feature, boxes)[0], want.mean((1, 2)), atol=tolerance, rtol=0)


def test_whole_frame_at_ratio_two_is_average_pooling():
    grid = jax.random.normal(jax.random.key(0), (1, 14, 14, 3))
    box = jnp.array([[[0.0, 0.0, 1.0, 1.0]]])
    got = roi_align.roi_align(grid, box, (7, 7), sampling_ratio=2)[0, 0]
    np.testing.assert_allclose(got, grid.reshape(7, 2, 7, 2, 3).mean((1, 3)), atol=1e-5)


def test_padded_and_inverted_boxes_give_zero_and_finite_gradients():
    grid = jax.random.normal(jax.random.key(0), (1, 4, 6, 3))
    boxes = jnp.array([[[0, 0, 0, 0], [0.6, 0.2, 0.3, 0.9], [0.2, 0.9, 0.8, 0.1], [0.1, 0.1, 0.1, 0.9]]], jnp.float32)

    def total(grid, boxes):
        return jnp.sum(roi_align.roi_align(grid, boxes, (3, 2)) ** 2)

    assert total(grid, boxes) == 0
    to_grid, to_boxes = jax.grad(total, argnums=(0, 1))(grid, boxes)
    assert np.all(np.isfinite(to_grid))
    assert np.all(np.asarray(to_boxes) == 0)


def test_no_gradient_to_real_boxes_but_to_features():
    grid = jax.random.normal(jax.random.key(0), (1, 4, 6, 3))
    boxes = jnp.array([[[0.1, 0.2, 0.7, 0.9]]])

    def total(grid, boxes):
        return jnp.sum(roi_align.roi_mean(grid, boxes, (3, 2)) ** 2)

    to_grid, to_boxes = jax.grad(total, argnums=(0, 1))(grid, boxes)
    assert np.abs(to_grid).max() > 0
    assert np.all(np.asarray(to_boxes) == 0)


def test_bfloat16_features_are_weighted_in_float32():
    grid = jax.random.normal(jax.random.key(0), (1, 5, 7, 4)).astype(jnp.bfloat16)
    boxes = jnp.array([[[0.03, 0.11, 0.71, 0.93]]])
    got = roi_align.roi_align(grid, boxes, (2, 3))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, roi_align.roi_align(grid.astype(jnp.float32), boxes, (2, 3)), atol=1e-6)


def test_a_box_larger_than_the_grid_stays_finite_and_near_a_dense_sampling():
    rows = jnp.linspace(0.0, 1.0, 8)
    grid = jnp.broadcast_to(rows[None, :, None, None], (1, 8, 8, 1))
    box = jnp.array([[[-1.0, 0.0, 2.0, 1.0]]])
    adaptive = roi_align.roi_mean(grid, box, (1, 1))
    dense = roi_align.roi_mean(grid, box, (1, 1), sampling_ratio=64)
    np.testing.assert_allclose(adaptive, dense, atol=0.1)
