"""The train step on a toy model of two linear heads: dispatch, accumulation, idle heads, NaN, memory."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.tasks import base
from vidloc.train import optimizer as optimizer_lib
from vidloc.train import state as state_lib
from vidloc.train import step as step_lib
from vidloc.train import trainable


@dataclasses.dataclass(frozen=True)
class Regression:
    """Squared error over valid examples; its state counts the steps in which it took part."""

    scale: float = 1.0

    def init_state(self):
        return np.int32(0)

    def weight(self, batch, state):
        return jnp.maximum(jnp.sum(batch['valid']), 1.0), state + 1

    def loss(self, outputs, batch, *, train):
        each = jnp.sum(jnp.square(outputs - batch['y']), axis=-1) * batch['valid']
        worst = jnp.sum(each > 1.0)
        return base.LossOutput(sum=jnp.sum(each), logs={'far': (worst, jnp.sum(batch['valid']))})

    def decode(self, outputs, batch):
        return {'y': outputs}


MOMENTUM = optimizer_lib.SGD(0.9, weight_decay=0.01)
TASKS = {'a': Regression(), 'b': Regression(scale=0.3)}


def apply(params, batches, *, train, rngs):
    def features(x):
        return jnp.tanh(x @ params['backbone']['w'])

    return {name: features(batch['x']) @ params[f'heads_{name}']['w'] for name, batch in batches.items()}


def parameters():
    key = jax.random.key(3)
    shapes = {'backbone': (4, 6), 'heads_a': (6, 2), 'heads_b': (6, 3)}
    return {
        root: {'w': jax.random.normal(jax.random.fold_in(key, i), shape)}
        for i, (root, shape) in enumerate(shapes.items())
    }


def batch(task, size=8, seed=0):
    rng = np.random.default_rng([seed, ord(task)])
    return {
        'x': rng.normal(size=(size, 4)).astype(np.float32),
        'y': rng.normal(size=(size, {'a': 2, 'b': 3}[task])).astype(np.float32),
        'valid': (np.arange(size) != 1).astype(np.float32),
    }


def setup(table=(('.*', 1.0, True),), rule=MOMENTUM, model=apply, **options):
    """(state, frozen, train step, optimizer)"""
    step_options = {key: options.pop(key) for key in ('accumulate', 'log_parameter_norm') if key in options}
    partition = trainable.resolve(table, parameters())
    train, frozen = partition.split(parameters())
    schedule = optimizer_lib.Schedule(rate=0.05, total=100)
    optimizer = optimizer_lib.Optimizer(rule, schedule, partition.rates(), partition.decay(), **options)
    state = state_lib.create(train, optimizer, TASKS, seed=1)
    return state, frozen, step_lib.make_train_step(model, TASKS, optimizer, **step_options), optimizer


def assert_close(ours, theirs, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), ours, theirs)


def assert_same(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_accumulation_changes_nothing():
    results = []
    for accumulate in (1, 4):
        state, frozen, train_step, _ = setup(accumulate=accumulate)
        for seed in range(3):
            state, metrics = train_step(state, frozen, {task: batch(task, seed=seed) for task in 'ab'})
        results.append((state, metrics))
    assert_close(results[1], results[0], rtol=2e-5, atol=1e-6)
    assert float(results[0][1]['logs']['a']['far'][1]) == 7


def test_a_head_that_is_not_in_the_batch_does_not_move():
    state, frozen, train_step, _ = setup(ema=0.9)
    state, _ = train_step(state, frozen, {'a': batch('a'), 'b': batch('b')})
    before = jax.device_get(state)
    after, _ = train_step(state, frozen, {'a': batch('a')})
    for field in ('params', 'opt', 'ema'):
        assert_same(getattr(after, field)['heads_b'], getattr(before, field)['heads_b'])
        assert np.any(
            jax.tree.leaves(getattr(after, field)['heads_a'])[0]
            != jax.tree.leaves(getattr(before, field)['heads_a'])[0]
        )
    assert (int(after.tasks['a']), int(after.tasks['b']), int(after.step)) == (2, 1, 2)


def test_idle_heads_move_when_asked():
    state, frozen, train_step, _ = setup(update_idle_heads=True)
    state, _ = train_step(state, frozen, {'a': batch('a'), 'b': batch('b')})
    before = jax.device_get(state)
    after, _ = train_step(state, frozen, {'a': batch('a')})
    assert np.all(after.params['heads_b']['w'] != before.params['heads_b']['w'])


def test_a_joint_batch_is_the_sum_of_its_parts():
    def first_update(batches):
        state, frozen, train_step, _ = setup(rule=optimizer_lib.SGD(0.0))
        before = jax.device_get(state.params)
        after, metrics = train_step(state, frozen, batches)
        return jax.tree.map(np.subtract, jax.device_get(after.params), before), float(metrics['loss'])

    a, loss_a = first_update({'a': batch('a')})
    b, loss_b = first_update({'b': batch('b')})
    both, loss = first_update({'a': batch('a'), 'b': batch('b')})
    assert_close(both, jax.tree.map(np.add, a, b), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(loss, loss_a + loss_b, rtol=1e-6)


def test_clipping_sees_only_the_groups_in_the_batch():
    state, frozen, train_step, _ = setup(rule=optimizer_lib.SGD(0.0), clip=0.1)
    before = jax.device_get(state.params)
    after, metrics = train_step(state, frozen, {'a': batch('a')})
    moved = jax.tree.leaves(
        jax.tree.map(lambda x, y: float(np.sum(np.square(x - y))), jax.device_get(after.params), before)
    )
    np.testing.assert_allclose(np.sqrt(sum(moved)), 0.1 * float(metrics['rate']), rtol=1e-3)
    assert float(metrics['gradient_norm']) > 0.1


@pytest.mark.parametrize('where', ['x', 'y'])
def test_a_step_that_is_not_finite_changes_nothing(where):
    state, frozen, train_step, _ = setup(ema=0.9)
    state, metrics = train_step(state, frozen, {'a': batch('a')})
    assert bool(metrics['finite'])
    before = jax.device_get(state)
    broken = batch('a')
    broken[where][0, 0] = np.nan
    after, metrics = train_step(state, frozen, {'a': broken})
    assert not bool(metrics['finite'])
    assert_same(jax.device_get(after), before)


def test_frozen_leaves_have_no_gradient_and_no_state():
    table = (('backbone/.*', None, False), ('heads_.*', 1.0, True))
    state, frozen, train_step, _ = setup(table, rule=optimizer_lib.AdamW())
    assert set(state.params) == {'heads_a', 'heads_b'}
    assert set(state.opt) == {'heads_a', 'heads_b'}
    before = jax.device_get(frozen)
    state, _ = train_step(state, frozen, {'a': batch('a')})
    assert_same(jax.device_get(frozen), before)
    assert set(state.params) == {'heads_a', 'heads_b'}


def test_metrics_are_sums_and_weights():
    state, frozen, train_step, optimizer = setup(accumulate=2, log_parameter_norm=True)
    _, metrics = train_step(state, frozen, {'a': batch('a'), 'b': batch('b')})
    total, weight = metrics['logs']['b']['loss']
    assert float(weight) == 7
    a, w = metrics['logs']['a']['loss']
    np.testing.assert_allclose(float(metrics['loss']), float(a / w + 0.3 * total / weight), rtol=1e-6)
    np.testing.assert_allclose(float(metrics['rate']), float(optimizer.schedule(0)))
    assert float(metrics['parameter_norm']) > 0


def test_dropout_keys_differ_by_step_micro_batch_and_seed():
    def noisy(params, batches, *, train, rngs):
        draw = jax.random.normal(rngs['dropout'], ())
        return {name: jnp.full_like(b['y'], draw) + 0 * params['backbone']['w'][0, 0] for name, b in batches.items()}

    @dataclasses.dataclass(frozen=True)
    class Shown(Regression):
        def loss(self, outputs, batch, *, train):
            drawn = outputs[0, 0]
            one = jnp.float32(1.0)
            return base.LossOutput(sum=0 * drawn, logs={'draw': (drawn, one), 'square': (jnp.square(drawn), one)})

    def draws(train_step, seed):
        state, frozen, _, _ = setup()
        state = state.replace(seed=jnp.uint32(seed), tasks={'a': np.int32(0)})
        found = []
        for _ in range(2):
            state, metrics = train_step(state, frozen, {'a': batch('a')})
            logs = metrics['logs']['a']
            found.append((float(logs['draw'][0]), float(logs['square'][0])))
        return found

    _, _, _, optimizer = setup()
    whole, halves = (step_lib.make_train_step(noisy, {'a': Shown()}, optimizer, accumulate=m) for m in (1, 2))
    (one, _), (two, _) = draws(whole, 1)
    assert one != two
    assert draws(whole, 1) == draws(whole, 1)
    assert draws(whole, 2)[0] != draws(whole, 1)[0]
    total, squares = draws(halves, 1)[0]
    assert abs(2 * squares - total**2) > 1e-4  # twice the same draw a: 2 * (a^2 + a^2) = (a + a)^2


def test_one_program_for_each_set_of_keys():
    traced = []

    def counted(params, batches, *, train, rngs):
        traced.append(tuple(batches))
        return apply(params, batches, train=train, rngs=rngs)

    state, frozen, train_step, _ = setup(model=counted)
    for keys in ('a', 'b', 'a', 'b', 'ab', 'ab'):
        state, _ = train_step(state, frozen, {key: batch(key) for key in keys})
    assert sorted(traced) == [('a',), ('a', 'b'), ('b',)]


def test_bad_batches_are_named():
    state, frozen, train_step, _ = setup(accumulate=3)
    with pytest.raises(ValueError, match="task 'a': a batch of 8 does not split into 3"):
        train_step(state, frozen, {'a': batch('a')})
    with pytest.raises(ValueError, match='the tasks are a, b'):
        train_step(state, frozen, {'c': batch('a')})


def test_predict_step_decodes_with_either_weights():
    state, frozen, train_step, _ = setup(ema=0.5)
    state, _ = train_step(state, frozen, {'a': batch('a')})
    predict_step = step_lib.make_predict_step(apply, TASKS)
    for average in (True, False):
        params = state_lib.weights(state, average=average)
        found = predict_step(params, frozen, {'a': batch('a')})['a']['y']
        want = apply(params, {'a': batch('a')}, train=False, rngs={})['a']
        np.testing.assert_allclose(found, want, rtol=1e-5)
    assert np.any(state.ema['backbone']['w'] != state.params['backbone']['w'])


def test_nothing_is_kept_for_a_backward_pass_through_frozen_layers():
    """XLA's own count of temporary memory, with the gradient norm and clipping always on."""
    layers, width, rows = 12, 32, 4096

    def deep(params, batches, *, train, rngs):
        def layer(x, w):
            return jnp.tanh(x @ w), None

        x, _ = jax.lax.scan(layer, batches['a']['x'], params['backbone']['blocks_00_11']['w'])
        return {'a': x @ params['heads_a']['w']}

    shapes = {
        'backbone': {'blocks_00_11': {'w': jax.ShapeDtypeStruct((layers, width, width), np.float32)}},
        'heads_a': {'w': jax.ShapeDtypeStruct((width, 2), np.float32)},
    }
    rows_of = {'x': (rows, width), 'y': (rows, 2), 'valid': (rows,)}
    batches = {'a': {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in rows_of.items()}}

    def memory(table, **options):
        partition = trainable.resolve(table, shapes)
        train, frozen = partition.split(shapes)
        optimizer = optimizer_lib.Optimizer(
            optimizer_lib.AdamW(weight_decay=0.1),
            optimizer_lib.Schedule(rate=0.1, total=10),
            partition.rates(),
            partition.decay(),
            clip=1.0,
            ema=0.9,
        )
        state = jax.eval_shape(lambda params: state_lib.create(params, optimizer, {'a': TASKS['a']}, seed=0), train)
        train_step = step_lib.make_train_step(deep, {'a': TASKS['a']}, optimizer, **options)
        found = train_step.lower(state, frozen, batches).compile().memory_analysis()
        return found.temp_size_in_bytes, found.output_size_in_bytes

    frozen_table = [('backbone/.*', None, False), ('heads_.*', 1.0, True)]
    everything, everything_out = memory([('.*', 1.0, True)])
    plain, plain_out = memory(frozen_table)
    logged, _ = memory(frozen_table, log_parameter_norm=True)
    kept = layers * rows * width * 4  # the scan's activations
    assert everything > kept
    assert plain < 0.5 * kept
    assert logged <= plain + 4096
    assert plain_out < 4 * (width * 2 * 4) + 4096 < everything_out


def _updating(clip, **options):
    """Temporary bytes of a step over matrices that stand side by side, and their size."""
    shapes = {'heads_a': {f'w_{i}': jax.ShapeDtypeStruct((256, 256), np.float32) for i in range(8)}}

    def wide(params, batches, *, train, rngs):
        del train, rngs
        matrices = params['heads_a'].values()
        return {'a': sum(jnp.sin(batches['a']['x'] @ w) for w in matrices)[:, :2]}

    batches = {
        'a': {
            name: jax.ShapeDtypeStruct(shape, np.float32)
            for name, shape in {'x': (4, 256), 'y': (4, 2), 'valid': (4,)}.items()
        }
    }
    partition = trainable.resolve([('.*', 1.0, True)], shapes)
    optimizer = optimizer_lib.Optimizer(
        optimizer_lib.AdamW(weight_decay=0.1),
        optimizer_lib.Schedule(rate=0.1, total=10),
        partition.rates(),
        partition.decay(),
        clip=clip,
        ema=0.9,
    )
    state = jax.eval_shape(lambda params: state_lib.create(params, optimizer, {'a': TASKS['a']}, seed=0), shapes)
    train_step = step_lib.make_train_step(wide, {'a': TASKS['a']}, optimizer, **options)
    found = train_step.lower(state, {}, batches).compile().memory_analysis()
    return found.temp_size_in_bytes, 8 * 256 * 256 * 4


def test_the_state_is_changed_where_it_lies():
    """Beside the gradients, no copy of parameters, moments or averages is made, though a step may be refused."""
    used, size = _updating(1.0)
    assert used < 1.3 * size


def test_logging_the_norm_costs_nothing_where_gradients_are_clipped_and_at_most_their_size_where_not():
    assert _updating(1.0)[0] <= _updating(1.0, log_gradient_norm=False)[0] + 64
    (logged, size), (silent, _) = _updating(None), _updating(None, log_gradient_norm=False)
    assert logged - silent <= size + 4096
