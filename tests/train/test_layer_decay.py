"""Layer-wise rate decay: closed form, whole stacks, and what one step does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from vidloc.models import layers, vivit
from vidloc.train import layer_decay, optimizer, trainable

STACKS = {'spatial': 3, 'temporal': 2}
DECAY = 0.65
# Layers 1 to 5, the embedding is 0 and the head 6: rate 0.65 ** (6 - layer).
LAYERS = {
    'backbone/embedding/kernel': 0,
    'backbone/embedding/bias': 0,
    'backbone/spatial/position': 0,
    'backbone/spatial/cls': 0,
    'backbone/spatial/block_00/attn/query/kernel': 1,
    'backbone/spatial/block_01/ln1/scale': 2,
    'backbone/spatial/block_02/mlp/fc2/kernel': 3,
    'backbone/spatial/norm/scale': 4,
    'backbone/temporal/position': 3,
    'backbone/temporal/block_00/mlp/fc1/bias': 4,
    'backbone/temporal/block_01/attn/out/kernel': 5,
    'backbone/temporal/norm/bias': 6,
    'heads_clips/output/kernel': 6,
    'heads_clips/output/bias': 6,
}


@pytest.fixture(scope='module')
def tree():
    """Shapes of a small ViViT with a head, run form, one segment a stack."""
    backbone = vivit.ViViT(
        width=8, mlp=16, heads=2, spatial_layers=3, temporal_layers=2, grid=(2, 2, 2), patch=(4, 4), cls=True
    )
    video, valid = jnp.zeros((1, 4, 8, 8, 3)), jnp.ones((1, 4), bool)
    params = jax.eval_shape(lambda key: backbone.init(key, video, valid, train=False), jax.random.key(0))['params']
    head = {
        'output': {'kernel': jax.ShapeDtypeStruct((8, 3), np.float32), 'bias': jax.ShapeDtypeStruct((3,), np.float32)}
    }
    return {'backbone': params, 'heads_clips': head}


def canonical(partition):
    """{canonical name: Rule}."""
    return {name: rule for leaf in partition.leaves.values() for name, rule in zip(leaf.names, leaf.rules, strict=True)}


def test_rates_follow_the_closed_form_through_both_stacks(tree):
    rules = canonical(trainable.resolve(layer_decay.table(STACKS, DECAY), tree))
    assert {name: rules[name].rate for name in LAYERS} == {
        name: pytest.approx(DECAY ** (6 - layer)) for name, layer in LAYERS.items()
    }
    plain = ('bias', 'scale', 'cls', 'position')
    assert all(rule.decay == (name.rsplit('/', 1)[1] not in plain) for name, rule in rules.items())
    assert all(rule.rate is not None for rule in rules.values())


def test_stacks_stay_whole(tree):
    table = layer_decay.table(STACKS, DECAY)
    assert trainable.boundaries(table, tree) == {'backbone/spatial': ((0, 2),), 'backbone/temporal': ((0, 1),)}


def test_a_step_moves_each_layer_by_its_rate(tree):
    partition = trainable.resolve(layer_decay.table(STACKS, DECAY), tree)
    ours = optimizer.Optimizer(
        rule=optimizer.SGD(0.0),
        schedule=optimizer.Schedule(rate=0.1, total=10, kind='constant'),
        rates=partition.rates(),
        decay=partition.decay(),
    )
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), tree)
    step = jax.jit(lambda params: ours.update(params, ours.init(params), params, None, 0, jnp.float32(1.0))[0])
    moved = jax.tree.map(lambda new: 1.0 - np.asarray(new), step(params))  # the gradient is 1 everywhere too
    moved = traverse_util.flatten_dict(layers.to_canonical(moved), sep='/')
    for name, layer in LAYERS.items():
        np.testing.assert_allclose(moved[name], 0.1 * DECAY ** (6 - layer), rtol=2e-5, atol=1e-7, err_msg=name)


def test_without_decay_everything_learns_alike(tree):
    rules = canonical(trainable.resolve(layer_decay.table(STACKS, 1.0), tree))
    assert {rule.rate for rule in rules.values()} == {1.0}


@pytest.mark.parametrize('decay', [0.0, 1.1, -0.5, float('nan')])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(ValueError, match='above 0 and at most 1'):
        layer_decay.table(STACKS, decay)


@pytest.mark.parametrize('stacks', [{}, {'spatial': 0}])
def test_stacks_without_layers_are_refused(stacks):
    with pytest.raises(ValueError, match='at least one layer'):
        layer_decay.table(stacks, 0.9)


def test_a_stack_that_the_model_lacks_is_an_error(tree):
    with pytest.raises(trainable.TableError, match='wins no leaf'):
        trainable.resolve(layer_decay.table({'spatial': 4, 'temporal': 2}, DECAY), tree)


def test_the_parameter_table_shows_rates(tree):
    partition = trainable.resolve(layer_decay.table({'spatial': 3, 'temporal': 2}, 0.5), tree)
    rows = {row.name: row for row in partition.rows()}
    assert rows['backbone/embedding/kernel'].trainable == 'x0.016'
    assert rows['backbone/spatial/blocks_00_02/ln1/bias'].trainable == 'x0.031 to 0.12'
    assert rows['heads_clips/output/kernel'].trainable == 'yes'
