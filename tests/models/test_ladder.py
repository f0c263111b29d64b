"""The side ladder against the literal order of the public code in float64, its start, its options and its memory."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.models import ladder, layers

TOY = ladder.Ladder(width=12, depth=3, tokens=2, ratio=3)
BATCH, CLIPS = 2, 3
_erf = np.vectorize(math.erf)


def _inputs(model=TOY):
    """(maps [K, B, T, h, w, D], last [B, T, D], valid [B, T]); example 1 ends in padding."""
    rng = np.random.default_rng(0)
    length = CLIPS * model.tokens
    maps = rng.normal(size=(len(model.tapped()), BATCH, length, 3, 2, model.width)).astype(np.float32)
    valid = np.ones((BATCH, length), bool)
    valid[1, -2:] = False
    return maps, rng.normal(size=(BATCH, length, model.width)).astype(np.float32), valid


def _whole(module, maps, last, valid):
    """As a backbone calls it: maps of each layer, a clip at a time, through `reduce`."""
    x = jnp.asarray(maps).reshape(len(maps), BATCH * CLIPS, -1, *maps.shape[3:])  # [K, B clips, t, h, w, D]
    reduced = jax.vmap(module.clone(parent=None).reduce)(module.reduction(), x)  # [K, B clips, t, d]
    reduced = reduced.reshape(len(maps), BATCH, -1, reduced.shape[-1])  # [K, B, T, d]
    return module(reduced, jnp.asarray(last), jnp.asarray(valid), train=True)


def _apply(model, params, inputs):
    return model.apply({'params': params}, *inputs, method=_whole)


_run = jax.jit(_apply, static_argnums=0)


def _random(model):
    inputs = _inputs(model)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *inputs, method=_whole)['params'])
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


def _gelu(x):
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)))


def _float64(params):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), layers.to_canonical(jax.device_get(params)))


def _literal(params, maps, last, valid, average_first=False):
    """Everything on maps, [T, h, w, .] of each example, and their average at the very end."""
    outputs = []
    for example in range(BATCH):
        total = np.broadcast_to(last[example][:, None, None], maps.shape[2:]).astype(np.float64)
        for k, layer in enumerate(maps):
            block, down = params['adapters'][f'block_{k:02d}'], params['reduce'][f'block_{k:02d}']['down']
            x = layer[example].astype(np.float64)
            if average_first:
                x = np.broadcast_to(x.mean((1, 2), keepdims=True), x.shape)
            x = _gelu(x @ down['kernel'] + down['bias']) * valid[example][:, None, None, None]
            along = np.zeros_like(x)
            for time in range(len(x)):
                for step in (-1, 0, 1):
                    if 0 <= time + step < len(x):
                        along[time] += x[time + step] * block['temporal']['kernel'][step + 1]
            along += block['temporal']['bias']
            x = x + along @ block['mix']['kernel'] + block['mix']['bias']
            total = total + (x @ block['up']['kernel'] + block['up']['bias']) * block['gate']
        outputs.append(total.mean((1, 2)))
    return np.stack(outputs)


@pytest.mark.parametrize('fields', [{}, {'layers': (2, 0)}, {'spatial': 'pool'}])
def test_equals_the_order_on_whole_maps(fields):
    """The average over space commutes with all that follows the GELU; pooled features are another function."""
    model = TOY.clone(**fields)
    inputs, params = _inputs(model), _random(model)
    found, pooled = _run(model, params, inputs), model.spatial == 'pool'
    expected = _literal(_float64(params), *inputs, average_first=pooled)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert np.abs(expected - _literal(_float64(params), *inputs, average_first=not pooled)).max() > 0.1
    assert model.tapped() == ((0, 2) if model.layers else (0, 1, 2))


def test_step_zero_gives_the_last_layer_and_only_up_projections_learn():
    inputs = _inputs()
    params = jax.jit(functools.partial(TOY.init, method=_whole))(jax.random.key(0), *inputs)['params']
    np.testing.assert_array_equal(_run(TOY, params, inputs), inputs[1])
    adapters = params['adapters']['blocks_00_02']
    assert np.all(adapters['gate'] == 1) and np.any(adapters['temporal']['kernel'] != 0)
    slope = jax.jit(jax.grad(lambda params: jnp.sum(jnp.square(_apply(TOY, params, inputs)))))(params)
    for path, leaf in jax.tree_util.tree_flatten_with_path(slope)[0]:
        name = jax.tree_util.keystr(path)
        assert np.any(leaf != 0) if "['up']" in name else np.all(leaf == 0), name


def test_gradients_are_the_slopes_of_float64_loops_whatever_is_kept(check_slopes):
    inputs, params = _inputs(), _random(TOY)
    weights = np.random.default_rng(3).normal(size=inputs[1].shape).astype(np.float32)

    def slope(memory):
        model = TOY.clone(memory=memory)
        return jax.jit(jax.grad(lambda params: jnp.sum(_apply(model, params, inputs) * weights)))(params)

    found = slope('remat_clips')

    def function(canonical):
        return np.sum(_literal(canonical, *inputs) * weights)

    check_slopes(function, _float64(params), _float64(found))
    for again, kept in zip(jax.tree.leaves(found), jax.tree.leaves(slope('store')), strict=True):
        np.testing.assert_allclose(again, kept, rtol=1e-4, atol=1e-4)


def test_padding_is_not_seen():
    maps, last, valid = _inputs()
    params = _random(TOY)
    before = np.asarray(_run(TOY, params, (maps, last, valid)))
    loud = maps.copy()
    loud[:, 1, -2:] *= 100
    np.testing.assert_array_equal(np.asarray(_run(TOY, params, (loud, last, valid))), before)
    everywhere = _run(TOY, params, (loud, last, np.ones_like(valid)))
    assert np.abs(np.asarray(everywhere)[1, -3] - before[1, -3]).max() > 1.0


def test_parameter_count():
    """VideoMAEv2 g, an eighth: 1,408 to 176 channels and back, on its last 20 layers."""
    model = ladder.Ladder(width=1408, depth=40, tokens=8, layers=tuple(range(20, 40)))
    zeros = jnp.zeros((20, 1, 8, 176)), jnp.zeros((1, 8, 1408)), jnp.ones((1, 8), bool)
    shapes = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), *zeros)
    each = (1408 * 176 + 176) + (3 * 176 + 176) + (176 * 176 + 176) + (176 * 1408 + 1408) + 1
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 20 * each
    names = {name for each in layers.canonical_names(shapes['params']).values() for name in each}
    assert {'reduce/block_19/down/kernel', 'adapters/block_00/temporal/kernel', 'adapters/block_07/gate'} <= names


@pytest.mark.parametrize(
    ('fields', 'text'),
    [
        ({'spatial': 'conv'}, "spatial is 'conv'; it must be one of map, pool"),
        ({'ratio': 0}, 'ratio is 0'),
        ({'layers': (3,)}, 'counted from 0 to 2'),
        ({'memory': 'none'}, 'one of remat_clips, remat_adapters, store'),
    ],
)
def test_fields_that_do_not_fit_are_refused(fields, text):
    zeros = jnp.zeros((3, 1, 6, 4)), jnp.zeros((1, 6, 12)), jnp.ones((1, 6), bool)
    with pytest.raises(ValueError, match=text):
        jax.eval_shape(functools.partial(TOY.clone(**fields).init, train=False), jax.random.key(0), *zeros)
