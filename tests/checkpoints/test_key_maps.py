"""Rules in both directions: against the arithmetic of the modules that they come from, and back again."""

import math

import numpy as np
import pytest

from vidloc.checkpoints import key_maps
from vidloc.checkpoints.key_maps import FormError, Rule
from vidloc.checkpoints.layouts import LAYOUTS, actionformer, internvideo2, vivit, vjepa2

D, HEADS, HIDDEN = 12, 3, 20
SPLIT = (HEADS, D // HEADS)


def numbers(*shape):
    return np.random.default_rng(math.prod(shape)).standard_normal(shape).astype(np.float32)


# Of layouts whose names alone do not tell.
BY_FORM = {'conv': (3, D, HIDDEN), 'pointwise': (D, HIDDEN), 'channels': (D,), 'same': (D,)}


def leaf_shape(rule, layout):
    """The shape that the leaf of a rule has in a model of the widths above."""
    canonical = rule.canonical
    if layout.family == 'actionformer':
        return BY_FORM[rule.form]
    *_, module, name = canonical.split('/')
    if module in ('query', 'key', 'value') and 'ln_' not in module:
        return (D, *SPLIT) if name == 'kernel' else SPLIT
    if module == 'out' and name == 'kernel':
        return (*SPLIT, D)
    if module in ('fc1', 'output') and name == 'kernel':
        return (D, HIDDEN)
    if module == 'fc2' and name == 'kernel':
        return (HIDDEN, D)
    if module in ('embedding', 'image_embedding') and name == 'kernel':
        return (2, 4, 4, 3, D)
    if name in ('cls', 'video_modality', 'image_modality') or canonical == 'head/pooler/query':
        return (1, 1, D)
    return (1, 1 + 2 * 5, D) if name == 'position' else (D,)


def test_a_linear_layer_computes_the_same():
    weight, bias, x = numbers(D, D), numbers(D), numbers(7, D)
    kernel = key_maps.apply(Rule('q/kernel', 'q.weight', 'linear'), weight, (D, *SPLIT))
    shift = key_maps.apply(Rule('q/bias', 'q.bias', 'flat'), bias, SPLIT)
    want = (x @ weight.T + bias).reshape(7, *SPLIT)  # torch splits the outputs into heads
    np.testing.assert_allclose(np.einsum('nd,dhe->nhe', x, kernel) + shift, want, rtol=1e-5, atol=1e-6)


def test_the_linear_layer_behind_the_heads_computes_the_same():
    weight, mixed = numbers(D + 1, D), numbers(7, *SPLIT)
    kernel = key_maps.apply(Rule('out/kernel', 'proj.weight', 'linear', inputs=2), weight, (*SPLIT, D + 1))
    want = mixed.reshape(7, D) @ weight.T
    np.testing.assert_allclose(np.einsum('nhe,hed->nd', mixed, kernel), want, rtol=1e-5, atol=1e-6)


def test_parts_of_a_fused_matrix_are_query_key_and_value():
    qkv, x = numbers(3 * D, D), numbers(7, D)
    rules = vjepa2.OFFICIAL.leaves('blocks.11.attn.qkv.weight')
    names = [f'backbone/encoder/block_11/attn/{part}/kernel' for part in ('query', 'key', 'value')]
    assert [rule.canonical for rule in rules] == names
    want = (x @ qkv.T).reshape(7, 3, *SPLIT)  # the order of timm's reshape
    for k, rule in enumerate(rules):
        kernel = key_maps.apply(rule, qkv, (D, *SPLIT))
        np.testing.assert_allclose(np.einsum('nd,dhe->nhe', x, kernel), want[:, k], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('tubelet', [(), (2,)])
def test_a_convolution_computes_the_same(tubelet):
    filters = numbers(D, 3, *tubelet, 4, 4)
    patch = numbers(3, *tubelet, 4, 4)
    kernel = key_maps.apply(Rule('embedding/kernel', 'proj.weight', 'conv'), filters, (*tubelet, 4, 4, 3, D))
    ours = np.moveaxis(patch, 0, -1).reshape(-1) @ kernel.reshape(-1, D)
    np.testing.assert_allclose(ours, filters.reshape(D, -1) @ patch.reshape(-1), rtol=1e-4, atol=1e-5)


def test_positions_of_space_and_time_are_added_for_each_token():
    (rule,) = internvideo2.SEPARATE.bind('backbone/encoder/position')
    space, time, token = numbers(1, 5, D), numbers(1, 2, D), numbers(1, 1, D)
    whole = key_maps.apply(rule, space, (1, 11, D), time, token)
    np.testing.assert_array_equal(whole[0, 0], token[0, 0])
    for t in range(2):
        for s in range(5):
            np.testing.assert_array_equal(whole[0, 1 + t * 5 + s], space[0, s] + time[0, t])
    with pytest.raises(FormError, match='sum'):
        key_maps.invert(rule, [whole])


@pytest.mark.parametrize('length', [1, 3])
def test_a_convolution_along_time_computes_the_same(length):
    filters, x = numbers(D + 1, D, length), numbers(length, D)
    form, shape = ('conv', (length, D, D + 1)) if length > 1 else ('pointwise', (D, D + 1))
    kernel = key_maps.apply(Rule('conv/kernel', 'conv.weight', form), filters, shape)
    want = np.einsum('oct,tc->o', filters, x)
    np.testing.assert_allclose(np.tensordot(x, kernel.reshape(length, D, D + 1), 2), want, rtol=1e-4, atol=1e-5)


def test_numbers_of_levels_become_one_leaf():
    (rule,) = actionformer.of_levels(3).bind('head/regress/scale')
    assert rule.sources == tuple(f'reg_head.scale.{level}.scale' for level in range(3))
    scales = [np.float32(level) for level in range(3)]
    np.testing.assert_array_equal(key_maps.apply(rule, scales[0], (3,), *scales[1:]), [0, 1, 2])
    assert actionformer.of_levels(3).leaves('reg_head.scale.2.scale') == (rule,)
    with pytest.raises(FormError, match='is the list of'):
        key_maps.invert(rule, [numbers(3)])


def test_a_stacked_source_has_the_layers_first():
    rule = Rule('block_{i}/fc1/kernel', 'block/Dense_0/kernel', stacked=True)
    layers = numbers(3, D, HIDDEN)
    for i in range(3):
        bound = Rule(f'block_{i:02d}/fc1/kernel', rule.source, stacked=True, layer=i)
        np.testing.assert_array_equal(key_maps.apply(bound, layers, (D, HIDDEN)), layers[i])
    np.testing.assert_array_equal(key_maps.invert(rule, list(layers)), layers)
    beyond = Rule('block_03/fc1/kernel', rule.source, stacked=True, layer=3)
    with pytest.raises(FormError, match='shape'):
        key_maps.apply(beyond, layers, (D, HIDDEN))


@pytest.mark.parametrize('layout', LAYOUTS, ids=lambda layout: layout.name)
def test_every_rule_of_every_layout_goes_there_and_back(layout):
    sources = {}
    for rule in layout.rules:
        for layer in range(2) if '{i}' in rule.canonical else [0]:
            (bound,) = layout.bind(rule.canonical.replace('{i}', f'{layer:02d}'))
            sources.setdefault(bound.source, []).append(bound)
    for source, rules in sources.items():
        if rules[0].form == 'positions':
            continue  # the sum of two arrays has no way back
        rules.sort(key=lambda rule: (rule.layer if rule.stacked else 0, rule.part))
        count = 2 if rules[0].stacked else rules[0].part[1]
        assert len(rules) == count, f'{source} is read by {[rule.canonical for rule in rules]}'
        leaves = [numbers(*leaf_shape(rule, layout)) + k for k, rule in enumerate(rules)]
        array = key_maps.invert(rules[0], leaves)
        assert array.flags.c_contiguous
        for rule, leaf in zip(rules, leaves, strict=True):
            np.testing.assert_array_equal(key_maps.apply(rule, array, leaf.shape), leaf)
        back = {rule.canonical for rule in layout.leaves(source)}
        assert back == {rule.canonical for rule in rules} or rules[0].stacked


def test_layers_are_written_with_two_digits_behind_block_alone():
    (rule,) = actionformer.LAYOUT.leaves('backbone.stem.1.attn.rel_pe')
    assert rule.canonical == 'head/stem_1/attn/position'
    assert actionformer.LAYOUT.bind('head/stem_1/attn/position') == (rule,)


def test_names_of_layers_are_plain_numbers():
    (rule,) = vjepa2.OFFICIAL.leaves('blocks.7.norm1.weight')
    assert (rule.canonical, rule.layer) == ('backbone/encoder/block_07/ln1/scale', 7)
    assert vjepa2.OFFICIAL.bind('backbone/encoder/block_07/ln1/scale') == (rule,)
    for name in ('blocks.x.norm1.weight', 'blocks.7.norm1.weight.old', 'blocks.12345.norm1.weight', 'norm7.weight'):
        assert vjepa2.OFFICIAL.leaves(name) == ()
    assert vivit.SCENIC.bind('backbone/temporal/block_11/attn/out/kernel')[0].source == (
        'TemporalTransformer/encoderblock_11/MultiHeadDotProductAttention_0/out/kernel'
    )
    assert vivit.SCENIC.bind('backbone/encoder/cls') == ()


def test_what_is_ignored_has_a_reason():
    assert 'predictor' in vjepa2.HF.why_ignored('predictor.layer.0.norm1.weight')
    assert vjepa2.HF.why_ignored('encoder.layer.0.norm1.weight') is None
    assert 'positions' in vjepa2.OFFICIAL.why_ignored('pos_embed')


@pytest.mark.parametrize(
    ('rule', 'array', 'shape'),
    [
        (Rule('a', 'b'), (4, 3), (3, 4)),
        (Rule('a', 'b'), (12,), (3, 4)),
        (Rule('a', 'b', 'flat'), (3, 4), (3, 4)),
        (Rule('a', 'b', 'linear'), (3, 4), (3, 4)),
        (Rule('a', 'b', 'linear'), (12, 12), (3, 4, 12)),
        (Rule('a', 'b', 'linear'), (12,), (12,)),
        (Rule('a', 'b', 'conv'), (8, 3, 4), (3, 4, 8)),
        (Rule('a', 'b', 'conv'), (8, 3, 4, 4), (1, 4, 4, 3, 8)),
        (Rule('a', 'b', 'conv'), (8, 3), (3, 8)),
        (Rule('a', 'b', 'pointwise'), (8, 3, 2), (3, 8)),
        (Rule('a', 'b', 'pointwise'), (8, 3), (3, 8)),
        (Rule('a', 'b', 'channels'), (8,), (8,)),
        (Rule('a', 'b', 'channels'), (1, 8, 2), (8,)),
        (Rule('a', 'b', 'levels', beside=('c',)), (1,), (2,)),
        (Rule('a', 'b', 'flat', (0, 3)), (8,), (8,)),
        (Rule('a', 'b', stacked=True), (2, 3), (3,)),
        (Rule('a', 'b', stacked=True, layer=0), (), ()),
        (Rule('a', 'b', 'positions', beside=('c', 'd')), (1, 4, 8), (1, 9, 8)),
    ],
)
def test_what_does_not_fit_is_told(rule, array, shape):
    with pytest.raises(FormError, match=r'\bb\b'):
        key_maps.apply(rule, np.zeros(array, np.float32), shape)


def test_invert_wants_all_the_parts():
    with pytest.raises(FormError, match='3 leaves, 2 are given'):
        key_maps.invert(Rule('a', 'b', 'flat', (0, 3)), [np.zeros(4), np.zeros(4)])
    with pytest.raises(FormError, match='0 are given'):
        key_maps.invert(Rule('a', 'b', stacked=True), [])
