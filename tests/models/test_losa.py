"""LoSA against float64 NumPy loops, its start, its options, its parameter counts and the memory of its gradient."""

import functools
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.models import layers, losa

_SPEC = importlib.util.spec_from_file_location('losa_reference', pathlib.Path(__file__).parent / 'losa_reference.py')
reference = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(reference)

# 12 channels: halves of a sum over no power of two.
TOY = losa.LoSA(width=12, depth=4, tokens=2, adapter_width=8, heads=2)
PYRAMID = TOY.clone(stages=((1, 5, 6), (2, 6, 4), (1, 12, 2)))
BATCH, CLIPS = 2, 3
_KINDS = ('short', 'long')
DESIGN_A = {'conv': 'own', 'up': 'none'}


def _inputs(model=TOY, seed=0):
    """(maps of each tapped layer [B, clips, t, h, w, D], last [B, T, D], valid [B, T]); example 1 ends in padding."""
    rng = np.random.default_rng(seed)
    stages = [
        fields for fields in model.stages or ((model.depth, model.width, model.tokens),) for _ in range(fields[0])
    ]
    maps = []
    for layer in model.tapped():
        _, width, tokens = stages[layer]
        maps.append(rng.normal(size=(BATCH, CLIPS, tokens, 3, 2, width)).astype(np.float32))
    length = CLIPS * model.tokens
    valid = np.ones((BATCH, length), bool)
    valid[1, -2:] = False
    return maps, rng.normal(size=(BATCH, length, model.width)).astype(np.float32), valid


def _reduced(module, maps):
    """As a backbone calls it: each layer's maps, all clips together, through `reduce`."""
    trees = module.reduction() if module.stages else (module.reduction(),)
    unbound, first, found = module.clone(parent=None), 0, []
    for tree, taps in zip(trees, module._taps(), strict=True):
        x = jnp.stack(maps[first : first + taps.layers])  # [K, B, clips, t, h, w, D]
        first += taps.layers
        y = jax.vmap(unbound.reduce)(tree, x.reshape(len(x), -1, *x.shape[3:]))  # [K, B clips, t, d]
        found.append(y.reshape(len(x), x.shape[1], -1, y.shape[-1]))  # [K, B, clips t, d]
    return tuple(found) if module.stages else found[0]


def _whole(module, maps, last, valid):
    return module(_reduced(module, maps), jnp.asarray(last), jnp.asarray(valid), train=True)


def _apply(model, params, inputs):
    return model.apply({'params': params}, *inputs, method=_whole)


# A model compiles once in this file.
_run = jax.jit(_apply, static_argnums=0)


@functools.cache
def _shapes(model):
    def init():
        reduced = tuple(
            jnp.zeros((taps.layers, 1, taps.stage.tokens, taps.stage.width if model.spatial == 'pool' else
                       model.adapter_width * len(model._blocks())))
            for taps in model._taps()
        )  # fmt: skip
        last, valid = jnp.zeros((1, model.tokens, model.width)), jnp.ones((1, model.tokens), bool)
        reduced = reduced if model.stages else reduced[0]
        return model.init(jax.random.key(0), reduced, last, valid, train=False)['params']

    return jax.eval_shape(init)


def _started(model, take):
    """What `take` takes of the parameters of the first step; the rest is not computed."""
    maps, last, valid = jax.tree.map(jnp.asarray, _inputs(model))
    return jax.jit(lambda: take(model.init(jax.random.key(0), maps, last, valid, method=_whole)['params']))()


def _random(model):
    """Parameters after some training, say."""
    rng = np.random.default_rng(2)

    def draw(path, leaf):
        start = path[-1].key in ('scale', 'gate')
        return (start + 0.4 * rng.normal(size=leaf.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, _shapes(model))


def _float64(params):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), layers.to_canonical(jax.device_get(params)))


def _wide(inputs):
    maps, last, valid = inputs
    return [x.astype(np.float64) for x in maps], last.astype(np.float64), valid


OPTIONS = {
    'default': {},
    'design A': DESIGN_A,
    'clip keys': {'short_keys': 'clip'},
    'positions': {'positions': 'sincos'},
    'pooled, own layers': {'spatial': 'pool', 'conv': 'own'},
    'short alone': {'long': False},
    'long alone': {'short': False, 'conv': 'own'},
    'added': {'fusion': 'add', 'gating': 'none'},
    'cosine': {'gating': 'cosine'},
}


@pytest.fixture(scope='module')
def runs():
    """{option: its output}, every one held to the reference; parameters and inputs are the same where shapes are."""
    outputs = {}
    for name, fields in OPTIONS.items():
        model = TOY.clone(**fields)
        inputs = _inputs(model)
        params = _random(model)
        outputs[name] = np.asarray(_run(model, params, inputs))
        expected = reference.forward(model, _float64(params), *_wide(inputs))
        np.testing.assert_allclose(outputs[name], expected, rtol=2e-5, atol=2e-5, err_msg=name)
    return outputs


def test_all_options_equal_plain_float64_loops_and_differ_from_each_other(runs):
    names = list(runs)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            assert np.abs(runs[first] - runs[second]).max() > 1e-3, (first, second)


def test_a_pyramid_of_stages_equals_plain_float64_loops():
    """Layers of 6, 4 and 2 tokens a clip and 5, 6 and 12 channels, with all the options that look at tokens."""
    model = PYRAMID.clone(short_keys='clip', positions='sincos', gating='cosine', **DESIGN_A)
    inputs = _inputs(model)
    params = _random(model)
    assert ('time' in params['stage_1_adapters']['blocks_00_01']['short']) and 'stage_2_adapters' not in params
    expected = reference.forward(model, _float64(params), *_wide(inputs))
    np.testing.assert_allclose(_run(model, params, inputs), expected, rtol=2e-5, atol=2e-5)


def test_a_stage_without_tapped_layers_is_left_out():
    model = PYRAMID.clone(layers=(2,))
    inputs = _inputs(model)
    params = _random(model)
    assert model.tapped() == (2, 3) and not [name for name in params if name.startswith('stage_0')]
    expected = reference.forward(model, _float64(params), *_wide(inputs))
    np.testing.assert_allclose(_run(model, params, inputs), expected, rtol=2e-5, atol=2e-5)


def test_maps_over_time_start_as_linear_resampling():
    """4 tokens -> 2: the middles of the halves."""
    model = PYRAMID.clone(layers=(1,), long=False)
    kernel = _started(model, lambda params: params['stage_1_adapters']['blocks_00_00']['short']['time']['kernel'][0])
    np.testing.assert_array_equal(kernel, [[0.5, 0], [0.5, 0], [0, 0.5], [0, 0.5]])


@pytest.mark.parametrize(('width', 'fields'), [(12, {'fusion': 'add'}), (1408, {})])
def test_step_zero_gives_the_last_layer_bit_for_bit(width, fields):
    model = TOY.clone(width=width, depth=2, **fields)
    maps, last, valid = _inputs(model)
    last = last * np.float32(10.0) ** np.random.default_rng(1).integers(-6, 7, last.shape).astype(np.float32)
    start = jax.jit(functools.partial(model.init_with_output, method=_whole))
    np.testing.assert_array_equal(start(jax.random.key(0), maps, last, valid)[0], last)


# One example of two clips, so that slopes of loops do not take long.
SMALL = TOY.clone(depth=3)
_SMALL_INPUTS = jax.tree.map(lambda x: x[1:, :2] if x.ndim == 6 else x[1:, 2:], _inputs(SMALL))
_WEIGHTS = np.random.default_rng(3).normal(size=_SMALL_INPUTS[1].shape).astype(np.float32)


@jax.jit
def _slope(params, inputs):
    return jax.grad(lambda params: jnp.sum(_apply(SMALL, params, inputs) * _WEIGHTS))(params)


def test_gradients_are_the_slopes_of_float64_loops(check_slopes):
    params = _random(SMALL)
    found = _slope(params, _SMALL_INPUTS)

    def function(canonical):
        return np.sum(reference.forward(SMALL, canonical, *_wide(_SMALL_INPUTS)) * _WEIGHTS)

    # A bias that all keys share moves all scores alike.
    check_slopes(function, _float64(params), _float64(found), nothing=("['key']['bias']",))


def test_while_gates_are_zero_they_alone_learn_of_the_adapters():
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: 0 * leaf if path[-1].key == 'gate' else leaf, _random(SMALL)
    )
    for path, leaf in jax.tree_util.tree_flatten_with_path(_slope(params, _SMALL_INPUTS))[0]:
        name = jax.tree_util.keystr(path)
        learns = name.endswith("['gate']") or 'projection' in name
        assert np.all(leaf != 0) if learns else np.all(leaf == 0), name


def test_eager_and_compiled_agree():
    model, inputs = TOY.clone(long=False), _inputs()
    params = _random(model)
    np.testing.assert_allclose(_apply(model, params, inputs), _run(model, params, inputs), rtol=1e-5, atol=1e-5)


def test_with_shared_keys_and_tied_weights_short_and_long_are_the_same_function():
    """What the paper's text says of the keys leaves no difference but the weights; clip keys make one."""
    inputs = _inputs()
    params = _random(TOY)
    adapters = params['adapters']['blocks_00_02']
    tied = params | {'adapters': {'blocks_00_02': adapters | {'short': adapters['long']}}}
    halves = np.split(np.asarray(params['projection']['kernel']), 2)
    swapped = tied | {'projection': params['projection'] | {'kernel': np.concatenate(halves[::-1])}}

    for keys, same in (('video', True), ('clip', False)):
        model = TOY.clone(short_keys=keys)
        apart = np.abs(np.asarray(_run(model, tied, inputs) - _run(model, swapped, inputs))).max()
        assert apart < 1e-5 if same else apart > 1e-2, keys


def test_without_positions_the_order_of_tokens_is_not_seen():
    order = np.random.default_rng(4).permutation(CLIPS * TOY.tokens)
    maps, last, valid = _inputs()

    def mixed(x):  # [B, clips, t, h, w, D]
        return x.reshape(BATCH, -1, *x.shape[3:])[:, order].reshape(x.shape)

    shuffled = [mixed(x) for x in maps], last[:, order], valid[:, order]

    for positions, blind in (('none', True), ('sincos', False)):
        model = TOY.clone(positions=positions)
        params = _random(model)
        plain = _run(model, params, _inputs())
        apart = np.abs(np.asarray(_run(model, params, shuffled) - plain[:, order])).max()
        assert apart < 1e-5 if blind else apart > 1e-2, positions


@pytest.mark.parametrize(('keys', 'reach'), [('clip', {2}), ('video', {0, 1, 2})])
def test_how_far_a_clip_is_seen_by_short_range_adapters(keys, reach):
    """The last layer's maps of clip 2 alone are changed; its own features `last` are not."""
    model = TOY.clone(short_keys=keys, long=False)
    maps, last, valid = _inputs()
    valid[:] = True
    params = _random(model)

    before = _run(model, params, (maps, last, valid))
    changed = [*maps[:-1], maps[-1].copy()]
    changed[-1][:, 2] += np.random.default_rng(5).normal(size=changed[-1][:, 2].shape)
    after = _run(model, params, (changed, last, valid))
    apart = np.abs(np.asarray(after - before)).reshape(BATCH, CLIPS, -1).max((0, 2))
    assert {c for c in range(CLIPS) if apart[c] > 1e-4} == reach
    assert all(apart[c] == 0 for c in range(CLIPS) if c not in reach)


@pytest.mark.parametrize('fields', [{'short_keys': 'clip'}, {'gating': 'cosine'}])
def test_padding_is_not_attended_to_and_nothing_but_padding_is_finite(fields):
    model = TOY.clone(**fields)
    maps, last, valid = _inputs()
    params = _random(model)
    before = np.asarray(_run(model, params, (maps, last, valid)))
    loud = [x.copy() for x in maps]
    for x in loud:
        x.reshape(BATCH, -1, *x.shape[3:])[1, -2:] = 100 * np.random.default_rng(6).normal(size=x[1, 0].shape)
    after = np.asarray(_run(model, params, (loud, last, valid)))
    assert np.abs(after[1, -2:] - before[1, -2:]).max() > 1e-2
    np.testing.assert_allclose(after[valid], before[valid], rtol=1e-5, atol=1e-5)
    assert np.isfinite(_run(model, params, (maps, last, np.zeros_like(valid)))).all()


def test_gradients_of_nothing_but_padding_are_finite():
    maps, last, valid = _SMALL_INPUTS
    found = _slope(_random(SMALL), (maps, last, np.zeros_like(valid)))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


@pytest.mark.parametrize('gating', ['zero', 'one', 'random', 'cosine', 'none'])
def test_gates_start_where_they_are_told_to(gating):
    model = TOY.clone(gating=gating)
    if gating in ('cosine', 'none'):
        assert losa.parts(_shapes(model))['gates'] == 0
        return
    gates = _started(model, lambda params: [params['adapters']['blocks_00_02'][kind]['gate'] for kind in _KINDS])
    if gating == 'random':
        assert len(np.unique(gates)) == 6
    else:
        np.testing.assert_array_equal(gates, np.full((2, 3), {'zero': 0.0, 'one': 1.0}[gating]))


B = ('convolution', 'attention', 'up', 'projection', 'gates')
A = ('convolution', 'depthwise', 'attention', 'projection', 'gates')
GIANT = losa.LoSA(width=1408, depth=40, tokens=8)


@pytest.mark.parametrize(
    ('model', 'counted', 'total'),
    [
        (GIANT, B, 142_941_262),
        (GIANT.clone(width=768, depth=12), B, 33_352_726),
        (GIANT.clone(**DESIGN_A), A, 140_787_662),
        # 19 and 10 layers have adapters: f21 to f39 and f30 to f39 of the paper.
        (GIANT.clone(layers=tuple(range(20, 39))), B, 72_042_022),
        (GIANT.clone(layers=tuple(range(29, 39))), B, 40_137_364),
    ],
)
def test_parameter_counts_by_part(model, counted, total):
    """The paper: 143 M beside VideoMAEv2 g. Not counted: norms, and of design B the depthwise convolutions."""
    found = losa.parts(_shapes(model))
    print(found)
    assert sum(found[part] for part in counted) == total


def test_parts_of_the_default_on_videomae_g():
    shapes = _shapes(GIANT)
    found = losa.parts(shapes)
    assert found == {
        'norms': 40 * 2 * 1408 + 78 * 4 * 512,
        'convolution': 28_856_320,
        'depthwise': 204_800,
        'attention': 81_948_672,
        'time': 0,
        'up': 28_169_856,
        'projection': 3_966_336,
        'gates': 78,
    }
    assert losa.parts(layers.to_canonical(shapes)) == found
    with pytest.raises(ValueError, match='other/kernel is no parameter'):
        losa.parts({'other': {'kernel': jnp.zeros(3)}})


def test_canonical_names_and_the_way_back():
    params = _random(TOY)
    names = {name for each in layers.canonical_names(params).values() for name in each}
    assert {'reduce/block_03/conv/kernel', 'adapters/block_02/short/gate', 'adapters/block_00/up/bias'} <= names
    back = layers.to_run(layers.to_canonical(params), {})
    jax.tree.map(np.testing.assert_array_equal, params, back)


def test_scores_of_all_layers_are_kept_only_when_told_to_and_gradients_are_the_same():
    model = losa.LoSA(width=16, depth=11, tokens=8, adapter_width=16, heads=4, long=False)
    rng = np.random.default_rng(7)
    inputs = [jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((11, 1, 256, 16), (1, 256, 16))]
    found, planned = {}, {}
    for memory in ('store', 'remat_clips'):

        def loss(params, memory=memory):
            valid = jnp.ones((1, 256), bool)
            return jnp.sum(jnp.square(model.clone(memory=memory).apply({'params': params}, *inputs, valid, train=True)))

        compiled = jax.jit(jax.grad(loss)).lower(_random(model)).compile()
        found[memory] = compiled(_random(model))
        planned[memory] = compiled.memory_analysis().temp_size_in_bytes
    scores = 4 * 4 * 256**2  # of one layer: four heads, float32
    assert planned['store'] > 10 * scores and planned['remat_clips'] < 4 * scores
    for kept, again in zip(*(jax.tree.leaves(found[memory]) for memory in found), strict=True):
        np.testing.assert_allclose(kept, again, rtol=1e-4, atol=1e-4 * np.abs(kept).max())


@pytest.mark.parametrize(
    ('fields', 'text'),
    [
        ({'gating': 'half'}, "gating is 'half'; it must be one of zero, one, random, cosine, none"),
        ({'spatial': 'max'}, "spatial is 'max'"),
        ({'layers': (1, 3)}, r'the last of the 4 layers \(3\) is what the others attend to'),
        ({'layers': (1, 1)}, 'each once'),
        ({'short': False, 'long': False}, 'the head alone'),
        ({'up': 'none', 'fusion': 'add'}, "take up='layer' or fusion='project'"),
        ({'depth': 1}, 'a backbone of 1 layer has none'),
        ({'stages': ((2, 5, 6), (1, 12, 2))}, 'must sum to 4'),
        ({'stages': ((2, 5, 6), (2, 8, 2))}, 'must have width 12 and 2 tokens'),
        ({'heads': 3}, 'width 8 cannot be split into 3 heads'),
    ],
)
def test_fields_that_do_not_fit_are_refused(fields, text):
    model = TOY.clone(**fields)
    zeros = jnp.zeros((4, 1, 6, 8)), jnp.zeros((1, 6, 12)), jnp.ones((1, 6), bool)
    with pytest.raises(ValueError, match=text):
        jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), *zeros)


def test_clip_keys_need_whole_clips():
    zeros = jnp.zeros((4, 1, 5, 8)), jnp.zeros((1, 5, 12)), jnp.ones((1, 5), bool)
    with pytest.raises(ValueError, match='5 time tokens are no whole number of clips of 2 tokens'):
        jax.eval_shape(functools.partial(TOY.clone(short_keys='clip').init, train=False), jax.random.key(0), *zeros)
    model = TOY.clone(positions='sincos', gating='cosine')
    fused, _ = jax.eval_shape(functools.partial(model.init_with_output, train=False), jax.random.key(0), *zeros)
    assert fused.shape == (1, 5, 12)


def test_bfloat16_products_leave_sums_in_float32_near_the_float32_ones():
    inputs = _inputs()
    params = _random(TOY)
    half, full = (_run(TOY.clone(dtype=dtype), params, inputs) for dtype in (jnp.bfloat16, jnp.float32))
    assert half.dtype == jnp.float32
    apart = np.abs(np.asarray(half - full)).max()
    assert 1e-4 < apart < 0.03 * np.abs(np.asarray(full)).max()
