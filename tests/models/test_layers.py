"""The block, the stack and the two forms of its parameters."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.models import attention, dense, layers

BLOCK = layers.Block(width=8, hidden=16, heads=2)


def _stack(segments=(), **changes):
    fields = ('dropout', 'rescale', 'dtype', 'norm', 'bias', 'qk_norm', 'layer_scale')
    block = BLOCK.clone(**{name: changes.pop(name) for name in fields if name in changes})
    return layers.Stack(block=block, layers=changes.pop('layers', 6), segments=segments, **changes)


@functools.cache
def _start(stack):
    return jax.jit(lambda key: stack.init(key, jnp.zeros((1, 2, 8)), train=False)['params'])(jax.random.key(0))


@functools.cache
def _block_start():
    return jax.jit(lambda key: BLOCK.init(key, jnp.zeros((1, 2, 8)), train=False)['params'])(jax.random.key(0))


def _apply(module, params, x, *, train=False, **options):
    """Compiled: one program costs less than the many small ones of a run without jit."""

    def run(params, x, key):
        return module.apply({'params': params}, x, train=train, rngs={'dropout': key}, **options)

    return jax.jit(run)(params, x, jax.random.key(0))


def _tokens(sequences=4):
    return jax.random.normal(jax.random.key(1), (sequences, 3, 8))


def test_names_shapes_and_starts():
    block = _block_start()
    shapes = {'/'.join(p.key for p in path): x.shape for path, x in jax.tree_util.tree_flatten_with_path(block)[0]}
    split = {f'attn/{n}/{leaf}': s for n in ('query', 'key', 'value') for leaf, s in
             (('kernel', (8, 2, 4)), ('bias', (2, 4)))}  # fmt: skip
    assert shapes == split | {
        'attn/out/kernel': (2, 4, 8),
        'attn/out/bias': (8,),
        'ln1/scale': (8,),
        'ln1/bias': (8,),
        'ln2/scale': (8,),
        'ln2/bias': (8,),
        'mlp/fc1/kernel': (8, 16),
        'mlp/fc1/bias': (16,),
        'mlp/fc2/kernel': (16, 8),
        'mlp/fc2/bias': (8,),
    }


def test_projections_have_the_fan_of_the_matrix():
    module = dense.Dense((64,), (4, 16))
    kernel = module.init(jax.random.key(0), jnp.zeros((1, 64)))['params']['kernel']
    limit = np.sqrt(6 / (64 + 64))  # Xavier uniform of a 64 x 64 matrix
    assert 0.98 * limit < np.abs(kernel).max() <= limit
    bias = layers.Mlp(64, 64).init(jax.random.key(0), jnp.zeros((1, 1, 64)), train=False)['params']['fc1']['bias']
    assert 0.5e-6 < np.std(bias) < 2e-6


def test_segments_change_neither_the_start_nor_the_result():
    whole, parts = _stack(), _stack(((0, 2), (3, 5)))
    a, b = _start(whole), _start(parts)
    assert set(a) == {'blocks_00_05'} and set(b) == {'blocks_00_02', 'blocks_03_05'}
    jax.tree.map(np.testing.assert_array_equal, layers.to_canonical(a), layers.to_canonical(b))
    first, second = layers.to_canonical(a)['block_00'], layers.to_canonical(a)['block_01']
    assert np.abs(first['mlp']['fc1']['kernel'] - second['mlp']['fc1']['kernel']).max() > 0.1
    x = _tokens()
    np.testing.assert_array_equal(_apply(parts, b, x), _apply(whole, a, x))


def test_the_scan_equals_the_blocks_one_after_another():
    stack, x = _stack(), _tokens()
    params = _start(stack)
    got = _apply(stack, params, x)
    one = jax.jit(lambda params, x: BLOCK.apply({'params': params}, x, train=False))
    for i in range(6):
        x = one(layers.to_canonical(params)[f'block_{i:02d}'], x)
    np.testing.assert_allclose(got, x, atol=1e-5)


def test_forms_convert_back_and_forth():
    tree = {'backbone': {'spatial': _start(_stack()), 'norm': {'scale': np.ones(8)}}, 'heads_a': {'bias': np.zeros(2)}}
    segments = {'backbone/spatial': ((0, 0), (1, 5))}
    canonical = layers.to_canonical(tree)
    run = layers.to_run(canonical, segments)
    assert set(run['backbone']['spatial']) == {'blocks_00_00', 'blocks_01_05'}
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(run))
    jax.tree.map(np.testing.assert_array_equal, layers.to_canonical(run), canonical)
    jax.tree.map(np.testing.assert_array_equal, layers.to_run(canonical, {}), tree)

    shapes = jax.eval_shape(lambda: tree)
    assert layers.to_run(layers.to_canonical(shapes), segments) == jax.eval_shape(lambda: run)
    names = layers.canonical_names(shapes)
    assert names['heads_a/bias'] == ('heads_a/bias',)
    stem = 'backbone/spatial/{}/attn/query/kernel'
    assert names[stem.format('blocks_00_05')] == tuple(stem.format(f'block_{i:02d}') for i in range(6))
    flat = {'/'.join(p.key for p in path) for path, _ in jax.tree_util.tree_flatten_with_path(canonical)[0]}
    assert {name for group in names.values() for name in group} == flat


def test_conversion_refuses_what_does_not_fit():
    canonical = layers.to_canonical({'s': _start(_stack())})
    with pytest.raises(ValueError, match='do not cover the layers 0 to 5'):
        layers.to_run(canonical, {'s': ((0, 3),)})
    with pytest.raises(ValueError, match='are found under t'):
        layers.to_run(canonical, {'t': ((0, 5),)})
    broken = {'s': canonical['s'] | {'block_03': {}}}
    with pytest.raises(ValueError, match='do not have the same parameters'):
        layers.to_run(broken, {})
    with pytest.raises(ValueError, match='first axis is wrong'):
        layers.to_canonical({'blocks_00_03': {'bias': np.zeros((3, 8))}})
    with pytest.raises(ValueError, match='do not cover'):
        _start(_stack(((1, 5),)))
    with pytest.raises(ValueError, match='remat'):
        _start(_stack(remat='some'))


class _Mask(layers.Block):
    """Shifts its input by one binary digit and puts its dropout mask in the free place, to make masks visible."""

    def __call__(self, x, *, train, valid=None, rope=None, drop_path=None, examples=None):
        dropped = self.drop(jnp.ones_like(x), deterministic=not train) > 0
        return 2 * x + dropped + 0 * self.ln1(x)


def test_layers_draw_different_dropout_masks():
    block = _Mask(width=8, hidden=16, heads=2, dropout=0.5)

    def digits(segments):
        stack = layers.Stack(block=block, layers=3, segments=segments)
        return np.asarray(_apply(stack, _start(stack), jnp.zeros((4, 3, 8)), train=True)).astype(int)

    masks = [digits(()) >> i & 1 for i in range(3)]
    for mask in masks:
        assert 0.25 < mask.mean() < 0.75
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert 0.2 < np.mean(masks[a] != masks[b]) < 0.8
    np.testing.assert_array_equal(digits(((0, 0), (1, 2))), digits(()))


@pytest.mark.parametrize('rescale', [False, True])
def test_drop_path_is_drawn_per_example_and_branch(rescale):
    block = BLOCK.clone(rescale=rescale)
    x = jnp.tile(jax.random.normal(jax.random.key(1), (1, 3, 8)), (128, 1, 1))  # 64 examples of 2 equal sequences
    params = _block_start()

    def run(rate):
        out = _apply(block, params, x, train=True, drop_path=jnp.float32(rate), examples=64)
        return np.asarray(out).reshape(64, 2, -1)

    out = run(0.5)
    np.testing.assert_array_equal(out[:, 0], out[:, 1])  # the sequences of an example share the draw
    assert len(np.unique(out[:, 0].round(5), axis=0)) == 4  # each branch is in or out
    kept = np.asarray(_apply(block, params, x))[0].reshape(-1)
    near = np.isclose(out[:, 0], kept, atol=1e-5).all(axis=1)
    assert near.any() != rescale
    np.testing.assert_allclose(run(0.0)[0, 0], kept, atol=1e-5)


def test_the_rate_of_drop_path_rises_from_zero_at_the_first_layer():
    stack = _stack(layers=2, drop_path=1.0)
    params, x = _start(stack), _tokens()
    out = _apply(stack, params, x, train=True)
    one = _apply(BLOCK, layers.to_canonical(params)['block_00'], x)
    np.testing.assert_allclose(out, one, atol=1e-5)


@pytest.mark.parametrize('remat', ['full', 'dots'])
def test_remat_changes_no_gradient(remat):
    plain, saved = _stack(dropout=0.1, layers=2), _stack(dropout=0.1, layers=2, remat=remat)
    params, x = _start(plain), _tokens()

    def gradient(stack):
        def loss(params):
            out = stack.apply({'params': params}, x, train=True, rngs={'dropout': jax.random.key(0)})
            return jnp.sum(out**2)

        return jax.jit(jax.grad(loss))(params)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), gradient(saved), gradient(plain))


def test_bfloat16_keeps_parameters_and_stays_near():
    stack, x = _stack(dtype=jnp.bfloat16), _tokens()
    params = _start(stack)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype('float32')}
    out = _apply(stack, params, x.astype(jnp.bfloat16))
    assert out.dtype == jnp.bfloat16
    want = _apply(_stack(), params, x)
    np.testing.assert_allclose(out.astype(jnp.float32), want, atol=0.2)


def test_tokens_that_are_not_valid_are_not_attended_to():
    x = _tokens(2)
    params = _block_start()
    valid = jnp.array([[True, True, False], [True, True, True]])

    apply = jax.jit(lambda x: BLOCK.apply({'params': params}, x, train=False, valid=valid))

    def run(x):
        return np.asarray(apply(x))

    changed = x.at[:, 2].set(x[:, 2, ::-1])
    np.testing.assert_array_equal(run(x)[0, :2], run(changed)[0, :2])
    assert np.abs(run(x)[1, :2] - run(changed)[1, :2]).max() > 1e-3


def _random(tree):
    """Random biases, norms and scales: those of a start would hide mistakes."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32), tree)


def _run(stack, params, x, **options):
    def run(params, x):
        return stack.apply({'params': params}, x, train=False, method='run_blocks', **options)

    return jax.jit(run)(params, x)


def test_taps_are_what_the_layers_gave_in_the_order_asked_for():
    stack = _stack(((0, 0), (1, 3)), layers=4)
    params, x = _start(stack), _tokens()
    out, taps, reduced = _run(stack, params, x, taps=(2, 0, 2, 3))
    assert reduced is None
    one = jax.jit(lambda params, x: BLOCK.apply({'params': params}, x, train=False))
    wanted, y = [], x
    for i in range(4):
        y = one(layers.to_canonical(params)[f'block_{i:02d}'], y)
        wanted.append(y)
    assert len(taps) == 4
    for tap, i in zip(taps, (2, 0, 2, 3), strict=True):
        np.testing.assert_allclose(tap, wanted[i], atol=1e-5)
    np.testing.assert_array_equal(out, taps[3])
    with pytest.raises(ValueError, match=r'taps \[4\]: the layers are 0 to 3'):
        _run(stack, params, x, taps=(1, 4))


def test_a_block_with_every_switch_equals_its_formula():
    """RMS norms, norms of queries and keys, no biases, scaled branches, rotary positions."""
    block = BLOCK.clone(norm='rms', bias='none', qk_norm=True, layer_scale=0.1, gelu_approximate=False, eps=1e-3)
    x = _tokens()
    start = jax.eval_shape(lambda: block.init(jax.random.key(0), x, train=False)['params'])
    assert set(start) == {'ln1', 'attn', 'gamma1', 'ln2', 'mlp', 'gamma2'} and set(start['ln1']) == {'scale'}
    assert set(start['attn']['query']) == {'kernel'} and set(start['attn']['out']) == {'kernel', 'bias'}
    p = _random(start)
    angle = np.repeat(np.arange(3)[:, None] * [1.0, 0.3], 2, axis=1)
    rope = (np.cos(angle), np.sin(angle))
    got = _apply(block, p, x, rope=rope)

    def rms(x, norm):
        return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-3) * norm['scale']

    x = np.asarray(x, np.float64)
    y = rms(x, p['ln1'])
    q, k, v = (np.einsum('mnd,dhe->mnhe', y, p['attn'][name]['kernel']) for name in ('query', 'key', 'value'))
    q, k = (
        rms(part.reshape(x.shape), p['attn'][f'{name}_norm']).reshape(part.shape)
        for part, name in ((q, 'query'), (k, 'key'))
    )
    q, k = (np.asarray(attention.rotate(jnp.asarray(part, jnp.float32), rope)) for part in (q, k))
    weights = np.exp(np.einsum('mqhe,mkhe->mhqk', q, k) / 2)
    mixed = np.einsum('mhqk,mkhe->mqhe', weights / weights.sum(axis=-1, keepdims=True), v)
    out = np.einsum('mqhe,hed->mqd', mixed, p['attn']['out']['kernel']) + p['attn']['out']['bias']
    x = x + out * p['gamma1']
    fc1, fc2 = p['mlp']['fc1'], p['mlp']['fc2']
    hidden = rms(x, p['ln2']) @ fc1['kernel'] + fc1['bias']
    hidden = hidden * (1 + np.vectorize(math.erf)(hidden / np.sqrt(2))) / 2
    x = x + (hidden @ fc2['kernel'] + fc2['bias']) * p['gamma2']
    np.testing.assert_allclose(got, x, atol=1e-4)


def test_layer_scale_starts_at_its_value_and_biases_of_keys_can_be_left_out():
    params = _start(_stack(layers=2, layer_scale=0.25, bias='qv'))['blocks_00_01']
    for name in ('gamma1', 'gamma2'):
        np.testing.assert_array_equal(params[name], np.full((2, 8), 0.25))
    assert 'bias' in params['attn']['query'] and 'bias' in params['attn']['value']
    assert 'bias' not in params['attn']['key']
    with pytest.raises(ValueError, match="norm is 'batch'; it must be one of layer, rms"):
        _start(_stack(norm='batch'))


def test_a_stack_gives_positions_and_valid_tokens_to_every_layer():
    stack, x = _stack(layers=2), _tokens()
    params = _start(stack)
    angle = np.repeat(np.arange(3)[:, None] * [1.0, 0.3], 2, axis=1)
    options = {'rope': (np.cos(angle), np.sin(angle)), 'valid': jnp.array([[True, True, False]] * 4)}
    got, *_ = _run(stack, params, x, **options)
    want = x
    for i in range(2):
        want = _apply(BLOCK, layers.to_canonical(params)[f'block_{i:02d}'], want, **options)
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert np.abs(got - _apply(stack, params, x)).max() > 1e-2


@pytest.mark.parametrize('unroll', [1, 4])
def test_what_is_computed_again_is_not_kept(unroll):
    """Also where the layers are written out, in which XLA would find the same work twice."""
    block = layers.Block(width=32, hidden=128, heads=2)
    x = jax.ShapeDtypeStruct((4, 64, 32), jnp.float32)

    def memory(remat):
        stack = layers.Stack(block=block, layers=4, remat=remat, unroll=unroll)
        params = jax.eval_shape(lambda: stack.init(jax.random.key(0), jnp.zeros((1, 2, 32)), train=False))
        loss = jax.grad(lambda params, x: jnp.sum(stack.apply(params, x, train=True) ** 2))
        return jax.jit(loss).lower(params, x).compile().memory_analysis().temp_size_in_bytes

    assert memory('full') < 0.6 * memory('none')
