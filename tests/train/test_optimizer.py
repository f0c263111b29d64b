"""Schedules against closed forms; SGD and AdamW against NumPy and optax; groups, masks, clipping, EMA."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vidloc.train import optimizer as optimizer_lib
from vidloc.train.optimizer import SGD, AdamW, Optimizer, Schedule

PARAMS = {
    'backbone': {'w': jnp.array([1.0, -2.0])},
    'heads_a': {'w': jnp.array([3.0])},
    'heads_b': {'w': jnp.array([0.5])},
}
GRADS = {'backbone': {'w': jnp.array([0.3, 0.4])}, 'heads_a': {'w': jnp.array([1.2])}}


def full(value):
    return jax.tree.map(lambda _: value, PARAMS)


def optimizer(rule, **changes):
    settings = {
        'schedule': Schedule(rate=0.1, total=10, kind='constant'),
        'rates': full(1.0),
        'decay': full(True),
    }
    return Optimizer(rule, **{**settings, **changes})


def test_schedule_is_linear_then_half_a_cosine():
    schedule = Schedule(rate=0.2, total=110, warmup=10, end=0.02)
    np.testing.assert_allclose([schedule(i) for i in range(10)], 0.2 * np.arange(1, 11) / 10, rtol=1e-6)
    np.testing.assert_allclose(schedule(60), (0.2 + 0.02) / 2, rtol=1e-6)
    np.testing.assert_allclose([schedule(110), schedule(500)], 0.02, rtol=1e-6)
    middle = 0.02 + 0.18 * 0.5 * (1 + np.cos(np.pi * 25 / 100))
    np.testing.assert_allclose(jax.jit(schedule)(jnp.int32(35)), middle, rtol=1e-6)


def test_linear_and_constant_schedules():
    np.testing.assert_allclose(Schedule(rate=1.0, total=10, kind='linear')(4), 0.6, rtol=1e-6)
    np.testing.assert_allclose(Schedule(rate=1.0, total=10, kind='constant')(9), 1.0)


@pytest.mark.parametrize('wrong', [{'kind': 'cosin'}, {'warmup': 11}, {'total': 0}])
def test_a_schedule_without_meaning_is_refused(wrong):
    with pytest.raises(ValueError, match='schedule'):
        Schedule(**{'rate': 1.0, 'total': 10, **wrong})


@pytest.mark.parametrize(
    ('rule', 'theirs'),
    [
        (SGD(0.9, weight_decay=0.05), optax.chain(optax.add_decayed_weights(0.05), optax.sgd(0.1, 0.9))),
        (SGD(0.9, nesterov=True), optax.sgd(0.1, 0.9, nesterov=True)),
        (SGD(0.0), optax.sgd(0.1)),
        (AdamW(weight_decay=0.05), optax.adamw(0.1, weight_decay=0.05)),
    ],
)
def test_equals_optax_when_all_groups_move(rule, theirs):
    ours = optimizer(rule)
    grads = {**GRADS, 'heads_b': {'w': jnp.array([-0.7])}}
    params, opt, state, want = PARAMS, ours.init(PARAMS), theirs.init(PARAMS), PARAMS
    for step in range(3):
        params, opt, _ = ours.update(grads, opt, params, None, jnp.int32(step), jnp.float32(1.0))
        updates, state = theirs.update(grads, state, want)
        want = optax.apply_updates(want, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), params, want)


def test_a_group_corrects_bias_by_its_own_count():
    ours = optimizer(AdamW())
    params, opt = PARAMS, ours.init(PARAMS)
    body = {'backbone': GRADS['backbone']}
    for step in range(5):
        params, opt, _ = ours.update(body, opt, params, None, jnp.int32(step), jnp.float32(1.0))
    before = params['heads_a']['w']
    params, _, _ = ours.update(GRADS, opt, params, None, jnp.int32(5), jnp.float32(1.0))
    # The first corrected Adam update is the sign of the gradient.
    np.testing.assert_allclose(params['heads_a']['w'], before - 0.1, rtol=1e-6)


def test_decay_mask_and_rates_may_be_vectors_over_layers():
    params = {'backbone': {'w': jnp.ones((3, 2))}}
    column = np.array([[0.0], [1.0], [2.0]], np.float32)
    ours = Optimizer(
        AdamW(weight_decay=0.5),
        Schedule(rate=0.1, total=1, kind='constant'),
        rates={'backbone': {'w': column}},
        decay={'backbone': {'w': column == 2}},
    )
    zero = {'backbone': {'w': jnp.zeros((3, 2))}}
    new, _, _ = ours.update(zero, ours.init(params), params, None, jnp.int32(0), jnp.float32(0.0))
    np.testing.assert_allclose(new['backbone']['w'], 1.0 - 0.1 * 2 * 0.5 * (column == 2) * np.ones(2), rtol=1e-6)


def test_clipping_scales_all_gradients_by_one_factor():
    norm = optimizer_lib.global_norm(GRADS)
    new, _, _ = optimizer(SGD(0.0), clip=0.13).update(
        GRADS,
        {
            'body': optimizer(SGD(0.0)).init(PARAMS)['body'],
            'heads_a': optimizer(SGD(0.0)).init(PARAMS)['heads_a'],
        },
        PARAMS,
        None,
        jnp.int32(0),
        norm,
    )
    np.testing.assert_allclose(norm, 1.3, rtol=1e-6)
    np.testing.assert_allclose(
        new['backbone']['w'], PARAMS['backbone']['w'] - 0.1 * 0.1 * GRADS['backbone']['w'], rtol=1e-6
    )


def test_average_moves_only_with_its_group():
    ours = optimizer(SGD(0.0), ema=0.75)
    new, _, ema = ours.update(GRADS, ours.init(PARAMS), PARAMS, PARAMS, jnp.int32(0), jnp.float32(1.0))
    np.testing.assert_allclose(
        ema['heads_a']['w'], 0.75 * PARAMS['heads_a']['w'] + 0.25 * new['heads_a']['w'], rtol=1e-6
    )
    np.testing.assert_array_equal(ema['heads_b']['w'], PARAMS['heads_b']['w'])


def test_groups_and_roots():
    tree = {'backbone': 1, 'film': 2, 'heads_a': 3, 'heads_b': 4}
    assert optimizer_lib.groups(tree) == {
        'body': {'backbone': 1, 'film': 2},
        'heads_a': {'heads_a': 3},
        'heads_b': {'heads_b': 4},
    }
    assert optimizer_lib.roots_in_batch(tree, ['b']) == ('backbone', 'film', 'heads_b')
