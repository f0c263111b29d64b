"""The freezing table: cover, precedence, stacked leaves, segments, splitting."""

import jax
import numpy as np
import pytest
from flax import traverse_util

from vidloc.models import layers
from vidloc.train import trainable
from vidloc.train.trainable import Rule


def tree(segments=((0, 3),)):
    """A run-form tree of shapes: one stack of four layers, an embedding, one head."""
    layer = {
        'attn': {'kernel': jax.ShapeDtypeStruct((3, 3), np.float32)},
        'bias': jax.ShapeDtypeStruct((3,), np.float32),
    }
    canonical = {
        'backbone': {
            'embedding': {'kernel': jax.ShapeDtypeStruct((2, 3), np.float32)},
            'spatial': {f'block_{i:02d}': layer for i in range(4)},
        },
        'heads_clips': {'kernel': jax.ShapeDtypeStruct((3, 5), np.float32)},
    }
    return layers.to_run(canonical, {'backbone/spatial': segments})


HALF = (
    Rule('backbone/embedding/.*', None, False),
    Rule('backbone/spatial/block_0[01]/.*', None, False),
    Rule('.*/bias', 1.0, False),
    Rule('backbone/.*', 0.5, True),
    Rule('heads_.*', 1.0, True),
)


def test_first_match_wins_and_counts_are_per_rule():
    found = trainable.resolve(HALF, tree(((0, 1), (2, 3))))
    bias = found.leaves['backbone/spatial/blocks_02_03/bias']
    kernel = found.leaves['backbone/spatial/blocks_02_03/attn/kernel']
    assert (bias.rate, bias.decay) == (1.0, False)
    assert (kernel.rate, kernel.decay) == (0.5, True)
    assert not found.leaves['backbone/spatial/blocks_00_01/bias'].trainable
    assert found.counts() == {
        'backbone/embedding/.*': 0,
        'backbone/spatial/block_0[01]/.*': 0,
        '.*/bias': 6,
        'backbone/.*': 18,
        'heads_.*': 15,
    }
    assert (found.total(), found.total(trainable=True)) == (6 + 4 * 12 + 15, 39)


def test_patterns_match_whole_names():
    with pytest.raises(trainable.TableError, match='no row matches backbone/embedding/kernel'):
        trainable.resolve([('backbone', 1.0, True), ('heads_.*', 1.0, True)], tree())


def test_error_lists_every_difference():
    with pytest.raises(trainable.TableError) as caught:
        trainable.resolve([('.*/bias', 1.0, True), ('film/.*', 1.0, True), ('side/.*', None, False)], tree())
    text = str(caught.value)
    for part in ('film/.*', 'side/.*', 'backbone/spatial/block_03/attn/kernel', 'heads_clips/kernel'):
        assert part in text


@pytest.mark.parametrize(
    ('table', 'said'),
    [
        ([('(', 1.0, True), ('.*', 1.0, True)], 'not a regular expression'),
        ([('.*', 1.0, True), ('.*', None, True)], 'stands twice'),
    ],
)
def test_a_broken_table_is_refused(table, said):
    with pytest.raises(trainable.TableError, match=said):
        trainable.resolve(table, tree())


GIVEN = ('heads_a/text/embedding', 'heads_b/text/embedding')


@pytest.mark.parametrize(
    ('table', 'added', 'frozen'),
    [
        ((('.*', 1.0, True),), GIVEN, GIVEN),
        ((('heads_a/.*', None, False), ('.*', 1.0, True)), GIVEN[1:], GIVEN),
        ((('heads_a/text/.*', 0.1, False), ('.*', 1.0, True)), GIVEN, GIVEN),  # it is for the bias, too
        ((('heads_a/text/e.*', 0.1, False), ('.*', 1.0, True)), GIVEN[1:], GIVEN[1:]),
        ((('.*/embedding', 0.1, False), ('.*', 1.0, True)), (), ()),
    ],
)
def test_what_is_given_trains_only_by_a_row_that_is_meant_for_it(table, added, frozen):
    text = {name: jax.ShapeDtypeStruct((2,), np.float32) for name in ('embedding', 'bias')}
    model = {'heads_a': {'text': text}, 'heads_b': {'text': text}}
    kept = trainable.keeping(table, model, GIVEN)
    assert kept == (*(Rule(name, None, False) for name in added), *(Rule(*row) for row in table))
    leaves = trainable.resolve(kept, model).leaves
    assert tuple(name for name in GIVEN if not leaves[name].trainable) == frozen
    assert trainable.keeping(table, model, ()) == kept[len(added) :]


def test_partly_frozen_stack_names_the_boundary_and_boundaries_mends_it():
    with pytest.raises(trainable.TableError, match=r'between .*block_01/.* and .*block_02/'):
        trainable.resolve(HALF, tree())
    segments = trainable.boundaries(HALF, tree())
    assert segments == {'backbone/spatial': ((0, 1), (2, 3))}
    trainable.resolve(HALF, tree(segments['backbone/spatial']))


def test_boundaries_keep_those_that_are_there():
    assert trainable.boundaries(HALF, tree(((0, 0), (1, 3)))) == {'backbone/spatial': ((0, 0), (1, 1), (2, 3))}


def test_rates_that_differ_by_layer_are_a_vector():
    table = [
        *(Rule(f'backbone/spatial/block_{i:02d}/.*', 0.5 ** (3 - i), i > 1) for i in range(4)),
        Rule('.*', 1.0, True),
    ]
    assert trainable.boundaries(table, tree()) == {'backbone/spatial': ((0, 3),)}
    leaf = trainable.resolve(table, tree()).leaves['backbone/spatial/blocks_00_03/attn/kernel']
    np.testing.assert_array_equal(leaf.rate, np.array([0.125, 0.25, 0.5, 1.0]).reshape(4, 1, 1))
    np.testing.assert_array_equal(leaf.decay, np.array([False, False, True, True]).reshape(4, 1, 1))
    row = next(row for row in trainable.resolve(table, tree()).rows() if row.name == leaf.name)
    assert row.trainable == 'x0.12 to 1'
    assert row.rule == 'backbone/spatial/block_00/.* | 2 more | backbone/spatial/block_03/.*'


def test_split_and_merge_are_inverse():
    params = tree(((0, 1), (2, 3)))
    found = trainable.resolve(HALF, params)
    train, frozen = found.split(params)
    assert 'embedding' not in train['backbone']
    assert 'heads_clips' not in frozen
    assert trainable.merge(train, frozen) == params
    assert traverse_util.flatten_dict(found.rates()).keys() == traverse_util.flatten_dict(train).keys()
    with pytest.raises(ValueError, match='both parts hold'):
        trainable.merge(train, train)
    with pytest.raises(trainable.TableError, match='heads_clips/kernel'):
        found.split({'backbone': params['backbone']})


def test_what_trains_is_counted_by_kind_layer_by_layer_and_once():
    found = trainable.resolve(HALF, tree(((0, 1), (2, 3))))
    kinds = {'last': r'.*/block_03/.*', 'heads': r'heads_.*', 'biases': r'.*/bias'}
    counts = found.by_kind(kinds)
    assert list(counts) == ['last', 'heads', 'biases', 'other']
    assert sum(counts.values()) == found.total(trainable=True)
    sizes = {
        name: int(np.prod(leaf.shape)) // len(leaf.names)
        for leaf in found.leaves.values()
        for name in leaf.names
        if leaf.trainable
    }
    assert counts['last'] == sum(size for name, size in sizes.items() if '/block_03/' in name) > 0
    assert counts['biases'] == sizes['backbone/spatial/block_02/bias'] > 0


def test_overview_shows_what_trains():
    text = trainable.resolve(HALF, tree(((0, 1), (2, 3)))).overview()
    assert 'backbone/spatial/blocks_02_03/bias' in text
    assert 'trainable: 39' in text
