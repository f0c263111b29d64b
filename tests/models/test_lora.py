"""LoRA: identity at the start, the layers it is on, its dropout, and the same model with it merged."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from vidloc.models import attention, attentive_pooler, dense, features, layers, lora
from vidloc.models.lora import Lora

FAMILIES = ('vivit', 'vivit on rois', 'vivit_joint', 'videomae', 'vjepa2', 'internvideo2', 'attentive')
# On each dense layer of a block, in all layers but the first.
EVERYWHERE = Lora(rank=3, alpha=6.0, on=lora.LAYERS, where=lora.PLACES, layers=(1, -1))
HEAD = attentive_pooler.AttentiveHead(classes=3, heads=2, layers=2)


def flat(params):
    """{canonical name: array}"""
    return traverse_util.flatten_dict(layers.to_canonical(jax.device_get(params)), sep='/')


def run_form(canonical):
    return layers.to_run(traverse_util.unflatten_dict(canonical, sep='/'), {})


def drawn(module, inputs, **spread):
    """Random parameters in run form; of the leaves that are named, with this spread."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, train=False)['params'])
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        return (name == 'scale') + rng.normal(0, spread.get(name, 0.3), leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


class Case:
    """A module without LoRA and with it, in one program, and parameters of the latter."""

    def __init__(self, module, inputs):
        self.plain, self.changed, self.inputs = module, module.clone(lora=EVERYWHERE), inputs
        self.params = drawn(self.changed, inputs)
        self.run = jax.jit(lambda *params: (self.eager(self.plain, params[0]), self.eager(self.changed, params[1])))

    def eager(self, module, params):
        found = module.apply({'params': params}, *self.inputs, train=False)
        return found.grid if isinstance(found, features.Features) else found


@pytest.fixture(scope='module')
def cases(families, clips):
    tokens = jax.random.normal(jax.random.key(1), (2, 2, 2, 2, 16))
    encoded = features.Features(grid=tokens, valid=jnp.array([[True, True], [True, False]]))

    @functools.cache
    def case(family):
        return Case(HEAD, (encoded, {})) if family == 'attentive' else Case(families[family], clips)

    return case


def without(canonical):
    return {name: x for name, x in canonical.items() if not name.endswith(lora.LEAVES)}


@pytest.mark.parametrize('family', FAMILIES)
def test_while_lora_b_is_zero_nothing_is_changed_bit_for_bit(cases, family):
    case = cases(family)
    start = drawn(case.changed, case.inputs, lora_b=0)
    before, after = case.run(run_form(without(flat(start))), start)
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize('family', FAMILIES)
def test_merged_it_gives_the_same(cases, family):
    """Kernels of one input and two output axes (query), of two and one (out), and plain ones (fc1)."""
    case = cases(family)
    canonical = flat(case.params)
    merged = lora.merged(canonical, EVERYWHERE)
    assert merged.keys() == without(canonical).keys()
    before, after = case.run(run_form(merged), case.params)
    scale = np.abs(after).max()
    assert np.abs(after - case.run(run_form(without(canonical)), case.params)[0]).max() > 0.01 * scale
    np.testing.assert_allclose(before, after, atol=1e-5 * scale)


def test_merged_changes_are_those_of_the_formula_and_nothing_else_is_touched():
    rng = np.random.default_rng(0)
    params = {
        'a/query/kernel': rng.normal(size=(4, 2, 3)).astype(np.float32),
        'a/query/lora_a': rng.normal(size=(4, 2)).astype(np.float32),
        'a/query/lora_b': rng.normal(size=(2, 6)).astype(np.float32),
        'a/out/kernel': rng.normal(size=(2, 3, 4)).astype(np.float32),
        'a/out/lora_a': rng.normal(size=(6, 2)).astype(np.float32),
        'a/out/lora_b': rng.normal(size=(2, 4)).astype(np.float32),
        'a/out/bias': rng.normal(size=4).astype(np.float32),
    }
    merged = lora.merged(params, Lora(rank=2, alpha=5.0))
    assert merged.keys() == {'a/query/kernel', 'a/out/kernel', 'a/out/bias'}
    change = np.einsum('ir,rhd->ihd', params['a/query/lora_a'], params['a/query/lora_b'].reshape(2, 2, 3))
    np.testing.assert_allclose(merged['a/query/kernel'], params['a/query/kernel'] + 2.5 * change, rtol=1e-5)
    change = np.einsum('hdr,ro->hdo', params['a/out/lora_a'].reshape(2, 3, 2), params['a/out/lora_b'])
    np.testing.assert_allclose(merged['a/out/kernel'], params['a/out/kernel'] + 2.5 * change, rtol=1e-5)
    assert merged['a/out/bias'] is params['a/out/bias']
    for gone, words in (('kernel', 'no a/out/kernel'), ('lora_a', 'no a/out/lora_a'), ('lora_b', 'no a/out/lora_b')):
        broken = {name: x for name, x in params.items() if name != f'a/out/{gone}'}
        with pytest.raises(ValueError, match=f'the LoRA of a/out cannot be merged: there is {words}'):
            lora.merged(broken, Lora(rank=2))
    with pytest.raises(ValueError, match='the LoRA of a/out has rank 2, not 4'):
        lora.merged(params, Lora(rank=4))


@pytest.mark.parametrize(
    ('asked', 'depth', 'found'),
    [
        ((0, -1), 40, (0, 39)),
        ((30, -1), 40, (30, 39)),
        ((-10, -1), 40, (30, 39)),
        ((3, 3), 4, (3, 3)),
        ((-4, -4), 4, (0, 0)),
    ],
)
def test_layers_are_counted_from_both_ends(asked, depth, found):
    assert Lora(rank=2, layers=asked).span(depth) == found


def test_stacks_have_their_part_of_the_layers():
    """Three layers, then two: the last of the first stack and the first of the second."""
    change = Lora(rank=2, layers=(2, 3))
    assert [change.of_stack(first, count, 5).layers for first, count in ((0, 3), (3, 2))] == [(2, 2), (0, 0)]
    assert change.of_stack(0, 2, 5) is None and change.of_stack(4, 1, 5) is None
    assert change.of_head(7).layers == (0, 6)
    assert change.runs(5) == ((0, 1), (2, 3), (4, 4)) and Lora(rank=2, layers=(0, 4)).runs(5) == ((0, 4),)
    assert change.touches(2, 3) and not change.touches(0, 1) and not change.touches(4, 4)


@pytest.mark.parametrize(
    ('fields', 'words'),
    [
        ({'on': ('query', 'proj')}, r"lora.on has 'proj'; known: query, key, value, out, fc1, fc2"),
        ({'where': ('head',)}, r"lora.where has 'head'; known: backbone, heads"),
        ({'dropout_on': 'output'}, "lora.dropout_on is 'output'; it must be one of input, rank"),
        ({'rank': -1}, r'lora.rank -1 must be at least 0'),
        ({'dropout': 1.0}, r'lora.dropout 1.0 in \[0, 1\)'),
        ({'layers': (30,)}, r'lora.layers is \(30,\); it must be the first and the last layer'),
        ({'on': ()}, 'lora.rank is set, but lora.on or lora.where names nothing'),
        ({'where': ()}, 'lora.rank is set, but lora.on or lora.where names nothing'),
    ],
)
def test_fields_that_do_not_fit_are_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        Lora(**{'rank': 2, **fields})


@pytest.mark.parametrize('asked', [(2, 1), (0, 4), (-5, -1), (4, 4)])
def test_layers_that_do_not_exist_are_refused(asked):
    with pytest.raises(ValueError, match=r'lora.layers .*: the layers are 0 to 3'):
        Lora(rank=2, layers=asked).span(4)


@pytest.mark.parametrize('run', [(0, 1), (2, 3), (0, 3)])
def test_layers_that_are_stacked_together_are_changed_together(run):
    told = f'the layers {run[0]} to {run[1]} are stacked together, but LoRA is on 1 to 2'
    with pytest.raises(ValueError, match=told):
        Lora(rank=2, layers=(1, 2)).touches(*run)


BLOCK = layers.Block(width=8, hidden=16, heads=2)


@pytest.mark.parametrize('on', [('query', 'value'), ('key',), ('out', 'fc2'), lora.LAYERS])
def test_any_of_the_dense_layers_can_be_named(on):
    block = BLOCK.clone(lora=Lora(rank=3, on=on))
    shapes = flat(jax.eval_shape(lambda: block.init(jax.random.key(0), jnp.zeros((1, 2, 8)), train=False)['params']))
    found = {name: x.shape for name, x in shapes.items() if name.endswith(lora.LEAVES)}
    sizes = {'fc1': (8, 16), 'fc2': (16, 8)}
    wanted = {}
    for name in on:
        inputs, outputs = sizes.get(name, (8, 8))
        path = f'{"mlp" if name in sizes else "attn"}/{name}'
        wanted |= {f'{path}/lora_a': (inputs, 3), f'{path}/lora_b': (3, outputs)}
    assert found == wanted


def test_nothing_is_changed_without_compiling_either():
    x = jax.random.normal(jax.random.key(1), (3, 5, 8))
    plain = attention.Attention(8, 2)
    changed = plain.clone(lora=Lora(rank=2, on=lora.LAYERS))
    shapes = jax.eval_shape(lambda: changed.init(jax.random.key(0), x)['params'])
    rng = np.random.default_rng(0)
    params = {
        name: {
            leaf: jnp.asarray((leaf != 'lora_b') * rng.normal(size=like.shape), jnp.float32)
            for leaf, like in part.items()
        }
        for name, part in shapes.items()
    }
    base = {name: without(part) for name, part in params.items()}
    before, after = plain.apply({'params': base}, x), changed.apply({'params': params}, x)
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize('kind', ['stack', 'pooler'])
def test_all_else_starts_as_it_does_without(kind):
    """Though the layers are stacked in other segments; lora_a starts within 1 / sqrt(inputs), lora_b at zero."""
    if kind == 'stack':
        changed = layers.Stack(block=BLOCK, layers=2, lora=EVERYWHERE.of_stack(0, 2, 2))
        inputs = (jnp.zeros((1, 2, 8)),)
    else:
        changed = attentive_pooler.AttentivePooler(8, 2, 1, lora=EVERYWHERE)
        inputs = jnp.zeros((1, 2, 8)), jnp.ones((1, 2), bool)
    modules = changed.clone(lora=None), changed
    start = jax.jit(lambda key: [each.init(key, *inputs, train=False)['params'] for each in modules])
    plain, changed = map(flat, start(jax.random.key(0)))
    assert plain.keys() == without(changed).keys() != changed.keys()
    for name, value in plain.items():
        np.testing.assert_array_equal(changed[name], value, err_msg=name)
    for name in changed.keys() - plain.keys():
        most = np.abs(changed[name]).max() * np.sqrt(len(changed[name]))
        assert 0.6 < most <= 1 if name.endswith('lora_a') else most == 0, name


def stack_of_four(segments=(), unroll=1):
    return layers.Stack(
        block=BLOCK, layers=4, segments=segments, unroll=unroll, lora=Lora(rank=2, on=('query', 'fc1'), layers=(1, 2))
    )


def test_segments_and_unrolling_change_nothing():
    x = jax.random.normal(jax.random.key(1), (3, 5, 8))
    stack, parts = stack_of_four(), tuple((i, i) for i in range(4))
    params = drawn(stack, (x,))
    assert set(params) == {'blocks_00_00', 'blocks_01_02', 'blocks_03_03'}
    canonical = layers.to_canonical(params)

    @functools.partial(jax.jit, static_argnums=0)
    def run(module, params, x):
        return module.apply({'params': params}, x, train=False)

    want = x
    for i in range(4):
        want = run(BLOCK.clone(lora=stack.lora) if i in (1, 2) else BLOCK, canonical[f'block_{i:02d}'], want)
    single = layers.to_run({'stack': canonical}, {'stack': parts})['stack']
    for module, tree in ((stack, params), (stack_of_four(parts, unroll=4), single)):
        np.testing.assert_allclose(run(module, tree, x), want, atol=1e-5 * np.abs(want).max())
    with pytest.raises(ValueError, match='the layers 0 to 1 are stacked together, but LoRA is on 1 to 2'):
        drawn(stack_of_four(((0, 1), (2, 3))), (x,))


def dense_of_ones(dropout_on):
    """Inputs of ones -> the sum of those that are kept, twice, times alpha / rank; with a kernel of zeros."""
    layer = dense.Dense((8,), (2,), lora=Lora(rank=2, alpha=3.0, dropout=0.25, dropout_on=dropout_on))
    params = {'kernel': jnp.zeros((8, 2)), 'bias': jnp.zeros(2), 'lora_a': jnp.ones((8, 2)), 'lora_b': jnp.eye(2)}

    @functools.partial(jax.jit, static_argnums=0)
    def run(train):
        return layer.apply({'params': params}, jnp.ones((4000, 8)), train=train, rngs={'dropout': jax.random.key(0)})

    return np.asarray(run(True)), np.asarray(run(False))


def test_dropout_of_the_input_drops_channels_for_all_ranks_together():
    trained, evaluated = dense_of_ones('input')
    np.testing.assert_array_equal(evaluated, 8 * 1.5)
    np.testing.assert_array_equal(trained[:, 0], trained[:, 1])
    np.testing.assert_allclose(np.unique(trained)[-3:], np.array([6, 7, 8]) / 0.75 * 1.5, rtol=1e-6)
    assert abs(trained.mean() / 12 - 1) < 0.01


def test_dropout_on_the_rank_drops_ranks_whole_and_apart():
    trained, evaluated = dense_of_ones('rank')
    np.testing.assert_array_equal(evaluated, 8 * 1.5)
    np.testing.assert_allclose(np.unique(trained), [0, 8 / 0.75 * 1.5], rtol=1e-6)
    assert 0.3 < np.mean(trained[:, 0] != trained[:, 1]) < 0.45  # 2 * 0.25 * 0.75
    assert abs(trained.mean() / 12 - 1) < 0.02


class _Masks(layers.Block):
    """What dropout leaves of ones in front of the LoRA of query and value, as binary digits of its result."""

    def __call__(self, x, *, train, valid=None, rope=None, drop_path=None, examples=None):
        query, value = (
            part(jnp.ones_like(x), train=train).reshape(x.shape) > 0 for part in (self.attn.query, self.attn.value)
        )
        return 4 * x + 2 * query + value


def test_layers_queries_and_values_draw_masks_of_their_own():
    change = Lora(rank=8, alpha=8.0, dropout=0.5, layers=(0, 2))
    block = _Masks(width=8, hidden=16, heads=2)
    x = jnp.zeros((40, 3, 8))

    @jax.jit
    def run(key):
        stack = layers.Stack(block=block, layers=3, lora=change)
        parted = stack.clone(segments=((0, 0), (1, 2)))
        found = []
        for each in (stack, parted):
            shapes = jax.eval_shape(lambda each=each: each.init(jax.random.key(0), x, train=False)['params'])
            params = jax.tree_util.tree_map_with_path(
                lambda path, leaf: (
                    jnp.broadcast_to(jnp.eye(8), leaf.shape) if path[-1].key in lora.LEAVES else jnp.zeros(leaf.shape)
                ),
                shapes,
            )
            found.append(each.apply({'params': params}, x, train=True, rngs={'dropout': key}))
        return found

    whole, parted = run(jax.random.key(0))
    np.testing.assert_array_equal(whole, parted)
    masks = [np.asarray(whole).astype(int) >> i & 1 for i in range(6)]
    for i, mask in enumerate(masks):
        assert 0.4 < mask.mean() < 0.6
        assert all(0.4 < np.mean(mask != other) < 0.6 for other in masks[:i])
    assert np.any(run(jax.random.key(1))[0] != whole)


def test_frozen_kernels_in_bfloat16_beside_a_change_in_float32():
    """As precision.frozen keeps them: the product is that of the rounded kernel, the change is not rounded."""
    layer = dense.Dense((6,), (2, 4), lora=Lora(rank=3))
    x = jax.random.normal(jax.random.key(0), (5, 6))
    params = jax.tree.map(jnp.asarray, drawn(layer, (x,)))
    half = params | {'kernel': params['kernel'].astype(jnp.bfloat16)}
    rounded = params | {'kernel': half['kernel'].astype(jnp.float32)}
    found, want = (layer.apply({'params': each}, x) for each in (half, rounded))
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, want)


def test_of_a_head_all_blocks_have_it_as_in_the_guide_of_v_jepa_2():
    """LoRA of rank 16 on the 15 square projections of the public pooler of width 1024."""
    change = Lora(rank=16, on=('query', 'key', 'value', 'out'), where=('heads',))
    head = attentive_pooler.AttentiveHead(classes=4, heads=16, layers=3, lora=change)
    encoded = features.Features(grid=jnp.zeros((1, 1, 1, 1, 1024)), valid=jnp.ones((1, 1), bool))
    shapes = flat(jax.eval_shape(lambda: head.init(jax.random.key(0), encoded, {}, train=False)['params']))
    found = {name: x for name, x in shapes.items() if name.endswith(lora.LEAVES)}
    blocks = {f'self/block_{i:02d}': ('query', 'key', 'value', 'out') for i in range(3)}
    blocks['cross'] = ('query', 'key', 'value')
    wanted = {f'pooler/{block}/attn/{name}' for block, names in blocks.items() for name in names}
    assert len(wanted) == 15 and {name.rpartition('/')[0] for name in found} == wanted
    assert sum(int(np.prod(x.shape)) for x in found.values()) == 491_520
