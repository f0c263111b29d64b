"""ActionFormer against the outputs of its public code, and outputs and gradients of a forward in float64."""

import importlib.util
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.models import actionformer, features

_SPEC = importlib.util.spec_from_file_location(
    'actionformer_reference', pathlib.Path(__file__).with_name('actionformer_reference.py')
)
reference = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(reference)

CASE = pathlib.Path(__file__).parents[1] / 'reference/actionformer'
# Every option that adds something: neighbours on two levels and all places on the third, positions that are too short.
TINY = actionformer.ActionFormer(
    3,
    5,
    width=8,
    heads=2,
    stem=1,
    levels=3,
    windows=(3, 5, -1),
    ranges=((0, 4), (4, 8), (8, 100)),
    positions=True,
    relative=True,
    max_length=8,
    neck='fpn',
    layer_scale=0.5,
)
# As few layers as there may be, and no option.
LEAST = TINY.clone(
    levels=2,
    windows=(3,),
    ranges=((0, 4), (4, 100)),
    stem=0,
    embed_layers=1,
    head_layers=1,
    positions=False,
    relative=False,
    neck='identity',
)


def start(module, *args, **kwargs):
    """Parameters of which none is what it is at the start."""
    noise = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *args, train=False, **kwargs))['params']

    def leaf(path, shape):
        return (noise.normal(size=shape.shape) * 0.4 + (path[-1].key == 'scale')).astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def draw(model, length=16):
    """(parameters, features, which of them are valid)."""
    valid = jnp.arange(length) < jnp.array([[length], [length - 5]])
    x = jax.random.normal(jax.random.key(0), (2, length, model.inputs)) * valid[..., None]
    return start(model, x, valid, method='run'), x, valid


def run(model, params, x, valid, *, train=False, seed=0):
    rngs = {'dropout': jax.random.key(seed)} if train else {}
    return model.apply({'params': params}, x, valid, train=train, method='run', rngs=rngs)


@pytest.fixture(scope='module')
def tiny():
    """(parameters, features, valid, weights of the loss, the compiled gradient of the loss, and the outputs)."""
    params, x, valid = draw(TINY)
    noise = np.random.default_rng(3)
    weights = [noise.normal(size=(2, 28, channels)).astype(np.float32) for channels in (3, 2)]

    def loss(inputs, valid):
        got = run(TINY, *inputs, valid)
        return jnp.sum(got.logits * weights[0]) + jnp.sum(got.distances * weights[1]), got

    return params, x, valid, weights, jax.jit(jax.grad(loss, has_aux=True))


@pytest.fixture(scope='module')
def least():
    params, x, valid = draw(LEAST)
    return params, x, valid, jax.jit(lambda x: run(LEAST, params, x, valid))


def test_the_reference_case():
    with np.load(CASE / 'thumos_small_win5_state_dict.npz') as names:
        params = reference.from_public(names)
    with np.load(CASE / 'thumos_small_win5_io.npz') as case:
        x, valid = jnp.asarray(case['input'].swapaxes(1, 2)), jnp.asarray(case['mask'][:, 0])
        want = {
            name: [case[f'{name}_{i}'].swapaxes(1, -1) for i in range(4)]
            for name in ('backbone_feat', 'fpn_feat', 'mask', 'cls_logits', 'offsets')
        }
    ranges = ((0, 4), (4, 8), (8, 16), (16, 10000))
    model = actionformer.ActionFormer(5, 32, 64, levels=4, windows=(5,), ranges=ranges, layer_scale=0.0)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x, valid, train=False, method='run'))['params']
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, shapes)

    def within(params):
        return model.apply({'params': params}, x, valid, train=False, method='run', capture_intermediates=True)

    got, found = jax.jit(within)(params)
    found = found['intermediates']
    for got_each, name in ((got.logits, 'cls_logits'), (got.distances, 'offsets')):
        np.testing.assert_allclose(got_each, np.concatenate(want[name], axis=1), atol=2e-5, rtol=0, err_msg=name)
    np.testing.assert_array_equal(got.valid, np.concatenate(want['mask'], axis=1)[..., 0])
    for i, block in enumerate(('stem_1', 'branch_0', 'branch_1', 'branch_2')):
        np.testing.assert_allclose(found[block]['__call__'][0], want['backbone_feat'][i], atol=2e-5, rtol=0)
        np.testing.assert_allclose(found['neck']['__call__'][0][i], want['fpn_feat'][i], atol=2e-5, rtol=0)


def count(**fields):
    model = actionformer.ActionFormer(**fields)
    x, valid = jax.ShapeDtypeStruct((1, 576, model.inputs), jnp.float32), jax.ShapeDtypeStruct((1, 576), bool)
    made = jax.eval_shape(lambda x, valid: model.init(jax.random.key(0), x, valid, train=False, method='run'), x, valid)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(made))


def test_parameters_of_the_published_sizes():
    # Only the first convolution depends on the width of the features, and only `classify/output` on the classes.
    assert count(classes=20, inputs=1408) == 28_268_572
    thumos = {512: 26_892_316, 768: 27_285_532, 1024: 27_678_748, 1280: 28_071_964, 2048: 29_251_612}
    thumos |= {2304: 29_644_828, 2816: 30_431_260, 3200: 31_021_084}
    assert all(want == 28_268_572 + 3 * 512 * (inputs - 1408) for inputs, want in thumos.items())
    assert count(classes=20, inputs=2048) == thumos[2048]
    anet = {(1, 512): 6_943_497, (1, 768): 7_140_105, (1, 1408): 7_631_625, (1, 2048): 8_123_145}
    anet |= {(200, 512): 7_096_528, (200, 768): 7_293_136, (200, 1408): 7_784_656, (200, 2048): 8_276_176}
    added = {key: 769 * (key[0] - 200) + 3 * 256 * (key[1] - 2048) for key in anet}
    assert all(want == anet[200, 2048] + added[key] for key, want in anet.items())
    fields = {'width': 256, 'windows': (7, 7, 7, 7, 7, -1), 'positions': True, 'max_length': 192}
    assert count(classes=200, inputs=2048, **fields) == anet[200, 2048]


def exact(leaves, valid):
    """The outputs of TINY, by definition."""
    leaves = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), leaves)
    return reference.forward(*leaves, np.asarray(valid), heads=2, windows=(3, 5, -1), stem=1, neck='fpn', places=8)


def test_outputs_of_every_option_equal_the_definition(tiny):
    params, x, valid, _, gradient = tiny
    _, got = gradient((params, x), valid)
    logits, distances = exact((params, x), valid)
    np.testing.assert_allclose(got.logits, logits, atol=2e-5, rtol=0)
    np.testing.assert_allclose(got.distances, distances, atol=2e-5, rtol=0)
    assert (distances > 0).mean() > 0.2


def test_gradients_equal_finite_differences_in_float64(tiny, check_slopes):
    params, x, valid, weights, gradient = tiny

    def loss(leaves):
        return sum(np.sum(each * weight) for each, weight in zip(exact(leaves, valid), weights, strict=True))

    start = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (params, x))
    found, _ = gradient((params, x), valid)
    check_slopes(loss, start, found, nothing=("['key']['bias']", "['key_norm']['bias']"))


def test_an_example_with_nothing_valid_gives_zeros(tiny):
    params, x, valid, _, gradient = tiny
    empty = valid & jnp.array([[True], [False]])
    found, got = gradient((params, x * empty[..., None]), empty)
    assert not np.any(got.logits[1]) and not np.any(got.distances[1]) and not got.valid[1].any()
    assert not np.any(found[1][1]) and np.any(found[1][0])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((found, got)))


def test_examples_do_not_touch_each_other(least):
    _, x, _, compiled = least
    other = compiled(x + jnp.array([1.0, 0.0])[:, None, None])
    want = compiled(x)
    np.testing.assert_array_equal(other.logits[1], want.logits[1])
    assert not np.allclose(other.logits[0], want.logits[0])
    assert not np.any(want.logits[~np.asarray(want.valid)]) and not np.any(want.distances[~np.asarray(want.valid)])


def test_features_are_averaged_over_space_and_stretched_over_time_and_jit_changes_nothing(least):
    params, _, valid, compiled = least
    grid = np.random.default_rng(5).normal(size=(2, 8, 2, 3, 5)).astype(np.float32)
    x = np.stack([reference.stretch(each.mean((1, 2)), 16) for each in grid]).astype(np.float32)
    want = compiled(x * valid[..., None])
    # What is not valid is not read.
    whole = np.where(valid[..., None], x, np.nan)[:, :, None, None]
    for values, shown in ((grid, jnp.ones((2, 8), bool)), (whole, valid)):
        encoded = features.Features(jnp.asarray(values), shown)
        got = LEAST.apply({'params': params}, encoded, {'grid_valid': valid}, train=False)
        np.testing.assert_allclose(got.logits, want.logits, atol=2e-5)
        np.testing.assert_allclose(got.distances, want.distances, atol=2e-5)
        np.testing.assert_array_equal(got.valid, want.valid)


def test_drop_path_is_drawn_for_each_example_and_rescaled():
    block = actionformer.Block(8, 2, 3, layer_scale=0.5, drop_path=0.4)
    x = jnp.broadcast_to(jax.random.normal(jax.random.key(0), (8, 8)), (64, 8, 8))
    valid = jnp.ones((64, 8), bool)
    params = start(block, x, valid)

    @jax.jit
    def both(params, seed):
        still = block.apply({'params': params}, x, valid, train=False)
        drawn = block.apply({'params': params}, x, valid, train=True, rngs={'dropout': jax.random.key(seed)})
        return still - x, drawn - x

    for other in ('gamma1', 'gamma2'):
        alone = {**params, other: jnp.zeros(8)}
        want, got = both(alone, 0)
        kept = np.abs(got).max((1, 2)) > 0
        assert 25 < kept.sum() < 52
        np.testing.assert_allclose(got[kept], want[kept] / 0.6, rtol=1e-4, atol=1e-6)
        assert not np.array_equal(kept, np.abs(both(alone, 1)[1]).max((1, 2)) > 0)


def test_dropout_is_drawn_in_training(least):
    params, x, valid, compiled = least
    model = LEAST.clone(dropout=0.3, drop_path=0.0)
    trained = jax.jit(lambda seed: run(model, params, x, valid, train=True, seed=seed).logits)
    one, other = trained(0), trained(1)
    assert not np.allclose(one, other, atol=1e-3) and not np.allclose(one, compiled(x).logits, atol=1e-3)
    np.testing.assert_array_equal(one, trained(0))


def test_bfloat16(least):
    params, x, valid, compiled = least
    got = jax.jit(lambda: run(LEAST.clone(dtype=jnp.bfloat16), params, x, valid))()
    want = compiled(x)
    assert got.logits.dtype == got.distances.dtype == jnp.float32
    for name in ('logits', 'distances'):
        value, expected = getattr(got, name), getattr(want, name)
        assert np.abs(value - expected).max() < 0.05 * np.abs(expected).max(), name


def test_start():
    model = LEAST.clone(prior=0.2, embed_norm=False, layer_scale=0.0)
    x, valid = jnp.zeros((1, 16, 5)), jnp.ones((1, 16), bool)
    params = jax.jit(lambda: model.init(jax.random.key(0), x, valid, train=False, method='run')['params'])()
    np.testing.assert_allclose(params['classify']['output']['bias'], math.log(0.25), rtol=1e-6)
    np.testing.assert_array_equal(params['regress']['scale'], 1)
    assert set(params['embed']) == {'conv_0'} and not params['embed']['conv_0']['bias'].any()
    assert set(params['branch_0']) == {'ln1', 'attn', 'ln2', 'mlp'}
    for kernel, fan in (
        (params['embed']['conv_0']['kernel'], 15),
        (params['branch_0']['mlp']['fc2']['kernel'], 32),
        (params['branch_0']['attn']['key_conv']['kernel'], 3),
    ):
        assert 0.8 / math.sqrt(fan) < np.abs(kernel).max() <= 1 / math.sqrt(fan)


@pytest.mark.parametrize(
    ('fields', 'length', 'text'),
    [
        ({}, 18, 'of 18 places .* multiple of 4; pad it to 20'),
        ({'windows': (3, 3, 3)}, 16, '3 windows for 2 levels'),
        ({'ranges': ((0, 4),)}, 16, '1 ranges for 2 levels'),
        ({'heads': 3}, 16, 'width 8 cannot be split into 3 heads'),
        ({'windows': (4,), 'relative': True}, 16, r'windows \[4, 4\] are even'),
        ({'neck': 'pan'}, 16, "neck is 'pan'; it must be one of identity, fpn"),
        ({'kernel': 2}, 16, 'kernel is 2'),
        ({'head_layers': 0}, 16, 'head_layers is 0'),
        ({'inputs': 7}, 16, 'features of width 7, these have 5'),
        ({'positions': True}, 16, 'in training, but max_length is 8'),
    ],
)
def test_what_does_not_fit_is_refused(fields, length, text):
    x, valid = jnp.zeros((1, length, 5)), jnp.ones((1, length), bool)
    keys = {'params': jax.random.key(0), 'dropout': jax.random.key(1)}
    model = LEAST.clone(**fields)
    with pytest.raises(ValueError, match=text):
        jax.eval_shape(lambda: model.init(keys, x, valid, train=True, method='run'))
