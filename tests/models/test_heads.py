"""The ROI head and the classification head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.models import classification_head, features, roi_head
from vidloc.ops import roi_align


def _encoded(pooled=False):
    keys = jax.random.split(jax.random.key(0), 2)
    return features.Features(
        grid=jax.random.normal(keys[0], (2, 3, 4, 5, 6)),
        valid=jnp.array([[True, True, False], [True, True, True]]),
        pooled=jax.random.normal(keys[1], (2, 6)) if pooled else None,
    )


BATCH = {'boxes': jnp.array([[[0.1, 0.2, 0.7, 0.9], [0, 0, 1, 1]], [[0.3, 0.1, 0.4, 0.8], [0, 0, 0, 0]]])}


def _run(head, encoded, batch=BATCH):
    params = jax.jit(lambda: head.init(jax.random.key(1), encoded, batch, train=False)['params'])()
    out = jax.jit(lambda params: head.apply({'params': params}, encoded, batch, train=False))(params)
    assert out.dtype == jnp.float32
    return np.asarray(out), jax.tree.map(np.asarray, params)


@pytest.mark.parametrize('pool', ['max', 'mean'])
@pytest.mark.parametrize('temporal', ['mean', 'max'])
def test_roi_head(pool, temporal):
    encoded = _encoded()
    out, params = _run(roi_head.RoiHead(7, (3, 2), pool, temporal, kernel_std=1.0, bias=(0.5,)), encoded)
    reduce = {'max': np.max, 'mean': np.mean}
    align = jax.jit(lambda grid, boxes: roi_align.roi_align(grid, boxes, (3, 2)))
    for b, times in enumerate((2, 3)):  # example 0 has two valid times
        grid = np.asarray(encoded.grid[b, :times])
        frames = grid.mean(0, keepdims=True) if temporal == 'mean' else grid
        boxes = jnp.broadcast_to(BATCH['boxes'][b], (len(frames), 2, 4))
        bins = np.asarray(align(jnp.asarray(frames), boxes))  # [frames, N, p, q, D]
        want = reduce[temporal](reduce[pool](bins, axis=(2, 3)), axis=0)
        np.testing.assert_allclose(out[b], want @ params['output']['kernel'] + 0.5, atol=1e-4)


def test_clips_without_a_valid_time_give_the_bias():
    encoded = _encoded().replace(valid=jnp.zeros((2, 3), bool))
    for temporal in ('mean', 'max'):
        out, _ = _run(roi_head.RoiHead(2, (3, 2), temporal=temporal, kernel_std=1.0, bias=(0.5, -2.0)), encoded)
        np.testing.assert_allclose(out, np.broadcast_to([0.5, -2.0], out.shape))
    out, _ = _run(classification_head.ClassificationHead(2, kernel_std=1.0), encoded, {})
    np.testing.assert_array_equal(out, 0)


def test_roi_head_refuses_what_does_not_fit():
    for options, text in (
        ({'pool': 'sum'}, "pool is 'sum'"),
        ({'temporal': 'last'}, "temporal is 'last'"),
        ({'temporal': 'encoder'}, 'encoder=the backbone'),
        ({'bias': (1.0, 2.0)}, '2 values for 3 classes'),
    ):
        with pytest.raises(ValueError, match=text):
            roi_head.RoiHead(3, **options).init(jax.random.key(0), _encoded(), BATCH, train=False)


def test_classification_head_averages_valid_tokens_or_takes_the_summary():
    encoded = _encoded()
    head = classification_head.ClassificationHead(4, kernel_std=1.0)
    out, params = _run(head, encoded, {})
    for b, times in enumerate((2, 3)):
        mean = np.asarray(encoded.grid[b, :times]).mean((0, 1, 2))
        np.testing.assert_allclose(out[b], mean @ params['output']['kernel'], atol=1e-5)
    encoded = _encoded(pooled=True)
    out, params = _run(head, encoded, {})
    np.testing.assert_allclose(out, np.asarray(encoded.pooled) @ params['output']['kernel'], atol=1e-5)


@pytest.mark.parametrize('pooled', [False, True])
def test_classification_head_norms_the_mean(pooled):
    encoded = _encoded(pooled)
    head = classification_head.ClassificationHead(4, kernel_std=1.0, norm=True, norm_eps=0.1)
    params = {
        'norm': {'scale': jnp.linspace(0.5, 2.0, 6), 'bias': jnp.linspace(-1.0, 1.0, 6)},
        'output': {'kernel': jax.random.normal(jax.random.key(2), (6, 4)), 'bias': jnp.arange(4.0)},
    }
    assert jax.tree.map(np.shape, _run(head, encoded, {})[1]) == jax.tree.map(np.shape, params)
    out = jax.jit(lambda params: head.apply({'params': params}, encoded, {}, train=False))(params)
    for b, times in enumerate((2, 3)):
        mean = encoded.pooled[b] if pooled else np.asarray(encoded.grid[b, :times]).mean((0, 1, 2))
        normed = (mean - mean.mean()) / np.sqrt(mean.var() + 0.1) * params['norm']['scale'] + params['norm']['bias']
        np.testing.assert_allclose(out[b], normed @ params['output']['kernel'] + params['output']['bias'], atol=1e-5)


def test_roi_head_norms_the_pooled_box():
    encoded, given = _encoded(), {'scale': jnp.linspace(0.5, 2.0, 6), 'bias': jnp.linspace(-1.0, 1.0, 6)}
    # A linear layer that lets the pooled box through shows what the norm is given.
    shown = {'output': {'kernel': jnp.eye(6), 'bias': jnp.zeros(6)}}
    head = roi_head.RoiHead(6, (2, 2), norm=True, norm_eps=0.1)
    _, params = _run(head, encoded)
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, shown | {'norm': given})
    apply = jax.jit(lambda head, params: head.apply({'params': params}, encoded, BATCH, train=False), static_argnums=0)
    pooled = np.asarray(apply(head.clone(norm=False), shown))
    normed = (pooled - pooled.mean(-1, keepdims=True)) / np.sqrt(pooled.var(-1, keepdims=True) + 0.1)
    out = apply(head, shown | {'norm': given})
    np.testing.assert_allclose(out, normed * np.asarray(given['scale']) + np.asarray(given['bias']), atol=1e-5)


def test_a_zero_kernel_is_the_default_start():
    for head in (classification_head.ClassificationHead(4), roi_head.RoiHead(4, (2, 2))):
        out, _ = _run(head, _encoded())
        np.testing.assert_array_equal(out, 0)


def test_dropout_only_in_training():
    head = classification_head.ClassificationHead(4, dropout=0.5, kernel_std=1.0)
    encoded = _encoded(pooled=True)
    out, params = _run(head, encoded, {})
    dropped = head.apply({'params': params}, encoded, {}, train=True, rngs={'dropout': jax.random.key(0)})
    assert np.abs(dropped - out).max() > 0.1
