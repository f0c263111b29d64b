import dataclasses
import functools
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidloc import losses
from vidloc.models import actionformer
from vidloc.ops import points as point_ops
from vidloc.tasks import segment_targets, temporal_localization

CLASSES = ('run', 'jump', 'sit')
RANGES = ((0, 4), (4, 8), (8, 10000))
LENGTH, LIMIT = 16, 5
POINTS = point_ops.points(LENGTH, RANGES)
ASSIGN = jax.jit(functools.partial(segment_targets.assign, POINTS, classes=len(CLASSES), radius=1.5))


class Head(nn.Module):
    """What the task reads of a head."""

    ranges: tuple = RANGES


def make_task(**fields):
    return temporal_localization.TemporalLocalization(CLASSES, Head(), **fields)


def make_batch():
    """Three rows: two segments and padding behind grid point 12, no segment, filler with a segment."""
    segments = np.zeros((3, LIMIT, 2), np.float32)
    segments[0, 0], segments[0, 1], segments[2, 0] = (1.5, 4.5), (6.5, 13.0), (3.0, 6.5)
    grid_valid = np.ones((3, LENGTH), bool)
    grid_valid[0, 12:] = False
    return {
        'grid_valid': grid_valid,
        'segments': segments,
        'segment_labels': np.array([[2, 0, 1, 1, 1]] * 3, np.int32),
        'segment_mask': np.array([[True, True, False, False, False], [False] * 5, [True] + [False] * 4]),
        'example_valid': np.array([True, True, False]),
    }


def make_outputs(batch, seed=0, classes=3):
    rng = np.random.default_rng(seed)
    count = len(batch['grid_valid'])
    return actionformer.Outputs(
        logits=jnp.asarray(rng.normal(size=(count, len(POINTS), classes)), jnp.float32),
        distances=jnp.asarray(rng.random((count, len(POINTS), 2)) * 3, jnp.float32),
        valid=jnp.asarray(batch['grid_valid'][:, POINTS[:, 0].astype(int)]),
    )


@functools.cache
def compiled(train, **fields):
    """(logits, distances, valid, batch) -> ((sum, output), gradients of the sum), compiled once for each setting."""
    task = make_task(**fields)

    def total(logits, distances, valid, batch):
        found = task.loss(actionformer.Outputs(logits, distances, valid), batch, train=train)
        return found.sum, found

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))


def loss(outputs, batch, train=True, **fields):
    return compiled(train, **fields)(outputs.logits, outputs.distances, outputs.valid, batch)[0][1]


def gradient(outputs, batch, **fields):
    """Of the loss in training, with respect to logits and distances."""
    return compiled(True, **fields)(outputs.logits, outputs.distances, outputs.valid, batch)[1]


def rows_of(batch, rows):
    return {name: values[rows] for name, values in batch.items()}


@pytest.fixture(scope='module')
def batch():
    return make_batch()


@pytest.fixture(scope='module')
def outputs(batch):
    return make_outputs(batch)


def test_weight_is_a_running_number_of_positive_points(batch, outputs):
    weigh = jax.jit(make_task(normalizer=50.0, momentum=0.8).weight)
    positives = float(loss(outputs, batch).logs['positives'][0])
    assert positives > 3
    weight, state = weigh(batch, np.float32(50.0))
    assert float(weight) == float(state) == pytest.approx(0.8 * 50 + 0.2 * positives)
    again, _ = weigh(batch, state)
    assert float(again) == pytest.approx(0.8 * float(state) + 0.2 * positives)
    # Without any positive point it moves towards 1.
    assert float(weigh({**batch, 'segment_mask': np.zeros_like(batch['segment_mask'])}, state)[0]) == pytest.approx(
        0.8 * float(state) + 0.2
    )


def test_padding_and_filler_take_no_part(batch, outputs):
    base = loss(outputs, batch)
    valid = np.asarray(outputs.valid) & batch['example_valid'][:, None]
    noise = make_outputs(batch, seed=1)
    other = actionformer.Outputs(
        logits=jnp.where(valid[..., None], outputs.logits, noise.logits),
        distances=jnp.where(valid[..., None], outputs.distances, noise.distances),
        valid=outputs.valid,
    )
    assert float(loss(other, batch).sum) == pytest.approx(float(base.sum), rel=1e-6)
    assert float(base.logs['positives'][1]) == 2.0
    # The point at 12 would be positive if the grid went that far.
    longer = {**batch, 'grid_valid': np.ones_like(batch['grid_valid'])}
    more = loss(outputs.replace(valid=jnp.ones_like(outputs.valid)), longer)
    assert float(more.logs['positives'][0]) > float(base.logs['positives'][0])


def test_loss_of_a_batch_is_the_sum_over_its_examples(batch, outputs):
    whole = loss(outputs, batch)
    ones = [{**batch, 'example_valid': np.arange(3) == i} for i in range(2)]
    parts = [loss(outputs, one) for one in ones]
    assert float(whole.sum) == pytest.approx(sum(float(part.sum) for part in parts), rel=1e-5)
    for name in whole.logs:
        for side in (0, 1):
            assert float(whole.logs[name][side]) == pytest.approx(
                sum(float(p.logs[name][side]) for p in parts), rel=1e-5
            )


def test_segments_in_another_order_or_behind_more_padding_change_nothing(batch, outputs):
    base = float(loss(outputs, batch).sum)
    order = np.array([3, 1, 4, 0, 2])
    mixed = {name: batch[name][:, order] for name in ('segments', 'segment_labels', 'segment_mask')}
    assert float(loss(outputs, {**batch, **mixed}).sum) == pytest.approx(base, rel=1e-6)
    padded = {name: np.concatenate([batch[name]] + [0 * batch[name]] * 2, axis=1) for name in mixed}
    assert float(loss(outputs, {**batch, **padded}).sum) == pytest.approx(base, rel=1e-6)


def test_no_segments_leave_the_focal_loss(batch, outputs):
    nothing = {**batch, 'segment_mask': np.zeros_like(batch['segment_mask'])}
    found = loss(outputs, nothing)
    assert float(found.sum) == pytest.approx(float(found.logs['classification'][0]))
    assert float(found.sum) > 0
    assert float(found.logs['regression'][0]) == float(found.logs['regression'][1]) == 0.0
    assert not np.asarray(gradient(outputs, nothing)[1]).any()


def test_gradient_is_finite_where_predictions_have_no_length(batch, outputs):
    flat = outputs.replace(distances=jnp.zeros_like(outputs.distances))
    _, distances = gradient(flat, batch)
    assert np.isfinite(distances).all()
    assert 0 < np.abs(distances).max() < 10


def test_regression_weight_and_balance(batch, outputs):
    base = loss(outputs, batch)
    focal, diou = (float(base.logs[name][0]) for name in ('classification', 'regression'))
    assert float(base.sum) == pytest.approx(focal + diou, rel=1e-6)
    assert float(loss(outputs, batch, regression_weight=2.0).sum) == pytest.approx(focal + 2 * diou, rel=1e-6)
    # Balanced: both count the same, and the weight has no gradient of its own.
    assert float(loss(outputs, batch, regression_weight=-1.0).sum) == pytest.approx(2 * focal, rel=1e-6)
    plain, balanced = (gradient(outputs, batch, regression_weight=weight) for weight in (1.0, -1.0))
    np.testing.assert_allclose(balanced[0], plain[0], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(balanced[1], focal / diou * plain[1], rtol=1e-4, atol=1e-6)


def test_balance_does_not_blow_up_a_regression_that_is_right(batch, outputs):
    rows = (batch[name] for name in ('segments', 'segment_labels', 'segment_mask'))
    right = outputs.replace(distances=ASSIGN(*rows).offsets)
    found = loss(right, batch, regression_weight=-1.0)
    assert float(found.logs['regression'][0]) < 1e-4
    assert float(found.sum) < 1.1 * float(found.logs['classification'][0])


def test_label_smoothing_moves_all_targets_in_training(batch, outputs):
    rows = (batch[name] for name in ('segments', 'segment_labels', 'segment_mask'))
    targets = ASSIGN(*rows).classes
    smoothed = targets * (1 - 0.4) + 0.4 / (3 + 1)  # also where nothing happens
    part = np.asarray(outputs.valid) & batch['example_valid'][:, None]
    focal = jax.jit(losses.sigmoid_focal)
    for train, expected in ((True, smoothed), (False, targets)):
        each = focal(outputs.logits, expected) * part[..., None]
        found = loss(outputs, batch, train, label_smoothing=0.4).logs['classification'][0]
        assert float(found) == pytest.approx(float(each.sum()), rel=1e-5)


def test_decode_by_hand():
    task = make_task(pre_nms_topk=4, pre_nms_threshold=0.3, duration_threshold=1.0)
    batch = rows_of(make_batch(), slice(0, 1))
    logits, distances = np.full((1, len(POINTS), 3), -9.0, np.float32), np.ones((1, len(POINTS), 2), np.float32)
    coarse = LENGTH + LENGTH // 2  # the first point of the third level, stride 4
    logits[0, 3, 1], logits[0, 2, [0, 2]] = 2.0, [1.0, 3.0]
    logits[0, 5, 0], distances[0, 5] = 4.0, 0.25  # too short
    logits[0, 14, 0] = 5.0  # padding
    logits[0, coarse + 1, 2] = 0.5
    valid = jnp.asarray(batch['grid_valid'][:, POINTS[:, 0].astype(int)])
    outputs = actionformer.Outputs(jnp.asarray(logits), jnp.asarray(distances), valid)
    decode = jax.jit(task.decode)
    found = {name: np.asarray(values[0]) for name, values in decode(outputs, batch).items()}
    assert found['scores'].shape == (12,)
    keep = found['valid']
    np.testing.assert_array_equal(found['labels'][keep], [2, 1, 0, 2])
    np.testing.assert_array_equal(found['segments'][keep], [[1, 3], [2, 4], [1, 3], [0, 8]])
    np.testing.assert_allclose(found['scores'][keep], 1 / (1 + np.exp([-3.0, -2.0, -1.0, -0.5])), rtol=1e-6)
    assert not np.asarray(decode(outputs, {**batch, 'example_valid': np.array([False])})['valid']).any()


def test_decode_keeps_no_more_than_a_level_has(batch, outputs):
    found = jax.jit(make_task(pre_nms_topk=20).decode)(outputs, batch)
    assert found['scores'].shape == (3, 20 + 20 + 12)
    assert found['segments'].shape == (3, 52, 2)


def test_proposals_have_one_class(batch, tmp_path):
    with pytest.raises(ValueError, match='external_scores'):
        make_task(proposals=True)
    task = make_task(proposals=True, external_scores=str(tmp_path / 'scores.json'))
    assert task.outputs == 1
    outputs = make_outputs(batch, classes=1)
    one = jax.jit(functools.partial(task.loss, train=True))(outputs, batch)
    assert float(one.logs['positives'][0]) == float(loss(make_outputs(batch), batch).logs['positives'][0])
    assert not np.asarray(jax.jit(task.decode)(outputs, batch)['labels']).any()


@pytest.mark.parametrize(
    ('fields', 'told'),
    [({'nms': 'weighted'}, 'soft, hard, none'), ({'max_segments': 0}, 'limit'), ({'pre_nms_topk': 0}, 'pre_nms_topk')],
)
def test_settings_that_make_no_sense_are_refused(fields, told):
    with pytest.raises(ValueError, match=told):
        make_task(**fields)


def test_score_of_what_is_right_and_of_nothing():
    truth = {
        'video': np.array(['a', 'a', 'b'], object),
        'start': np.array([1.0, 5.0, 2.0]),
        'end': np.array([3.0, 9.0, 4.0]),
        'label': np.array([0, 1, 0]),
    }
    found = make_task(tiou=(0.3, 0.5)).score({**truth, 'score': np.array([0.9, 0.8, 0.7])}, truth)
    assert found == {'map@0.3': 1.0, 'map@0.5': 1.0, 'average_map': 1.0}
    nothing = {name: values[:0] for name, values in truth.items()} | {'score': np.zeros(0)}
    assert make_task().score(nothing, truth)['average_map'] == 0.0


def test_state_and_fields_are_plain():
    task = make_task()
    assert task.init_state() == np.float32(100.0)
    assert task.init_state().dtype == np.float32
    assert dataclasses.replace(task, sigma=1).rule().sigma == 1.0
    assert types.MappingProxyType(dataclasses.asdict(task.rule()))['limit'] == 200
