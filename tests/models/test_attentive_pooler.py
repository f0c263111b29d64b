"""The attentive head against the public model's outputs and a float64 forward; its start and its promises."""

import functools
import importlib.util
import pathlib

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.models import attentive_pooler, features, layers

_SPEC = importlib.util.spec_from_file_location(
    'vjepa2_reference', pathlib.Path(__file__).with_name('vjepa2_reference.py')
)
reference = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(reference)

CASES = pathlib.Path(__file__).parents[1] / 'reference/backbones'
TINY = attentive_pooler.AttentiveHead(classes=3, heads=2, layers=2)


def _encoded(grid=(2, 2, 3), width=12, batch=2):
    tokens = jax.random.normal(jax.random.key(5), (batch, *grid, width))
    return features.Features(grid=tokens, valid=jnp.ones((batch, grid[0]), bool))


def _start(head, encoded, seed=0):
    return jax.jit(lambda key: head.init(key, encoded, {}, train=False)['params'])(jax.random.key(seed))


def _shapes(head, **sizes):
    return jax.eval_shape(lambda key: head.init(key, _encoded(**sizes), {}, train=False)['params'], jax.random.key(0))


@functools.cache
def _random(head, width=12):
    params = _shapes(head, width=width)
    rng = np.random.default_rng(0)
    paths = jax.tree_util.tree_flatten_with_path(params)[0]
    leaves = [(path[-1].key == 'scale') + rng.normal(0, 0.4, leaf.shape).astype(np.float32) for path, leaf in paths]
    return jax.tree.unflatten(jax.tree.structure(params), leaves)


@functools.cache
def _run(head):
    return jax.jit(lambda params, encoded: head.apply({'params': params}, encoded, {}, train=False))


def _exact(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), layers.to_canonical(tree))


def test_every_stage_equals_the_public_pooler():
    name, heads = 'vjepa2_d12_two_heads', 2
    want = np.load(CASES / name / 'outputs.npz')
    tree = reference.canonical(reference.read(CASES / name / 'model.safetensors'), heads)['head']
    params = layers.to_run(tree, {})['pooler']
    tokens = jnp.asarray(want['encoder_norm'])
    pooler = attentive_pooler.AttentivePooler(tokens.shape[-1], heads, blocks=1)
    valid = jnp.ones(tokens.shape[:2], bool)

    @jax.jit
    def stages(tokens):
        bound = pooler.bind({'params': params})
        return bound.self_blocks.run_blocks(tokens, train=False)[0], bound(tokens, valid, train=False)

    refined, pooled = stages(tokens)
    np.testing.assert_allclose(refined, want['pooler_self_0'], atol=1e-4)
    np.testing.assert_allclose(pooled, want['pooled'], atol=2e-5)
    np.testing.assert_allclose(pooled, want['pooler_cross'][:, 0], atol=2e-5)


@pytest.mark.parametrize(('count', 'heads', 'width'), [(2, 2, 12), (0, 3, 24)])
def test_logits_equal_numpy_in_float64(count, heads, width):
    head = TINY.clone(layers=count, heads=heads)
    params, encoded = _random(head, width), _encoded(width=width)
    got = _run(head)(params, encoded)
    assert got.shape == (2, 3) and got.dtype == jnp.float32
    assert ('self' in params['pooler']) == (count > 0)
    exact = _exact(params)
    for i in range(2):
        want = reference.classify(np.asarray(encoded.grid[i], np.float64), exact)
        np.testing.assert_allclose(got[i], want, atol=2e-5 * np.abs(want).max())


def test_hidden_times_are_not_attended_to():
    params, encoded = _random(TINY), _encoded()
    encoded = encoded.replace(valid=jnp.array([[True, False], [True, True]]))
    other = encoded.replace(grid=encoded.grid.at[0, 1].set(7.0))
    a, b = _run(TINY)(params, encoded), _run(TINY)(params, other)
    np.testing.assert_allclose(a, b, atol=1e-5)
    want = reference.classify(np.asarray(encoded.grid[0], np.float64), _exact(params), seen=np.array([True, False]))
    np.testing.assert_allclose(a[0], want, atol=2e-5 * np.abs(want).max())
    nothing = encoded.replace(valid=jnp.zeros((2, 2), bool))
    assert np.isfinite(_run(TINY)(params, nothing)).all()


def test_the_parameters_are_named_and_shaped_by_the_width_alone():
    tree = layers.to_canonical(_shapes(TINY))
    other = layers.to_canonical(_shapes(TINY, grid=(1, 3, 4), batch=1))
    shapes = jax.tree.map(lambda x: x.shape, tree)
    assert shapes == jax.tree.map(lambda x: x.shape, other)
    split = {part: {'kernel': (12, 2, 6), 'bias': (2, 6)} for part in ('query', 'key', 'value')}
    norms = {name: {'scale': (12,), 'bias': (12,)} for name in ('ln1', 'ln2')}
    mlp = {'fc1': {'kernel': (12, 48), 'bias': (48,)}, 'fc2': {'kernel': (48, 12), 'bias': (12,)}}
    out = {'kernel': (2, 6, 12), 'bias': (12,)}
    block = {'attn': split | {'out': out}, 'mlp': mlp} | norms
    assert shapes == {
        'pooler': {
            'query': (1, 1, 12),
            'self': {'block_00': block, 'block_01': block},
            'cross': {'attn': split, 'mlp': mlp} | norms,
        },
        'output': {'kernel': (12, 3), 'bias': (3,)},
    }


@pytest.mark.parametrize(('width', 'heads', 'count'), [(1024, 16, 49_336_320), (1408, 22, 93_249_024)])
def test_the_public_sizes_have_the_public_number_of_parameters(width, heads, count):
    params = _shapes(attentive_pooler.AttentiveHead(4, heads), grid=(1, 1, 1), width=width)
    assert sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params['pooler'])) == count


def test_the_start_of_cut_segments_is_that_of_the_public_model():
    """Normal with 0.02; out and fc2 of block i (counted from 1, the cross block last) divided by sqrt(i)."""
    head = TINY.clone(layers=3, segments={'self': ((0, 1), (2, 2))})
    run = _start(head, _encoded(width=48, batch=1))
    assert set(run['pooler']['self']) == {'blocks_00_01', 'blocks_02_02'}
    tree = layers.to_canonical(run)
    blocks = [*tree['pooler']['self'].values(), tree['pooler']['cross']]
    kernels = []
    for depth, block in enumerate(blocks, 1):
        for layer in ('fc1', 'fc2'):
            share = depth**0.5 if layer == 'fc2' else 1
            np.testing.assert_allclose(block['mlp'][layer]['kernel'].std() * share, 0.02, rtol=0.05)
        for part, dense in block['attn'].items():
            share = depth**0.5 if part == 'out' else 1
            np.testing.assert_allclose(dense['kernel'].std() * share, 0.02, rtol=0.08)
            kernels.append(dense['kernel'].ravel())
        assert not any(np.any(x) for path, x in jax.tree_util.tree_leaves_with_path(block) if path[-1].key == 'bias')
        np.testing.assert_array_equal(block['ln1']['scale'], 1)
    similar = np.corrcoef(np.array(kernels)) - np.eye(len(kernels))
    assert np.abs(similar).max() < 0.1  # no two kernels are drawn alike
    np.testing.assert_allclose(tree['pooler']['query'].std(), 0.02, rtol=0.4)
    np.testing.assert_allclose(tree['output']['kernel'].std(), 0.02, rtol=0.25)


def test_segments_do_not_change_the_result():
    segments = {'self': ((0, 0), (1, 1))}
    other = TINY.clone(segments=flax.core.freeze(segments))
    encoded, params = _encoded(), layers.to_canonical(_random(TINY))
    want = _run(TINY)(layers.to_run(params, {}), encoded)
    got = _run(other)(layers.to_run(params, {'pooler/self': segments['self']}), encoded)
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


def test_bfloat16_stays_near_float32():
    params, encoded = jax.tree.map(lambda x: x / 2, _random(TINY)), _encoded()
    exact = _run(TINY)(params, encoded)
    rough = _run(TINY.clone(dtype=jnp.bfloat16))(params, encoded)
    assert rough.dtype == jnp.float32
    error = np.linalg.norm(rough - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < 0.05


def test_fields_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match='width 12 cannot be split into 5 heads'):
        _shapes(TINY.clone(heads=5, layers=0))
    with pytest.raises(ValueError, match='the stacks are self'):
        _shapes(TINY.clone(segments={'encoder': ((0, 1),)}))
    with pytest.raises(ValueError, match='the stacks are none'):
        _shapes(TINY.clone(layers=0, segments={'self': ((0, 1),)}))
