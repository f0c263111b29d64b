import types

import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.models import roi_head
from vidloc.tasks import action_detection

CLASSES = ('walk', 'wave', 'talk')
EXAMPLES = [types.SimpleNamespace(video=f'v{i}', time=float(i)) for i in range(4)]


def make_task(**fields):
    return action_detection.ActionDetection(CLASSES, roi_head.RoiHead(classes=len(CLASSES)), **fields)


def make_batch():
    """Three rows of up to two boxes: two boxes, one box, filler."""
    boxes = np.tile(np.array([0.1, 0.2, 0.3, 0.6], np.float32), (3, 2, 1))
    boxes[:, 1] += 0.25
    labels = np.zeros((3, 2, 3), np.float32)
    labels[0, 0, 0] = labels[0, 1, 1] = labels[0, 1, 2] = labels[1, 0, 1] = 1
    return {
        'source_boxes': boxes,
        'boxes': boxes / 2,
        'box_mask': np.array([[True, True], [True, False], [True, True]]),
        'example_valid': np.array([True, True, False]),
        'labels': labels,
    }


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_the_loss_is_a_mean_over_real_boxes_and_classes():
    batch, task = make_batch(), make_task()
    logits = np.random.default_rng(0).normal(size=(3, 2, 3)).astype(np.float32)
    weight, state = task.weight(batch, ())
    assert float(weight) == 3 and state == ()
    found = task.loss(jnp.asarray(logits), batch, train=True)
    chance = sigmoid(logits.astype(np.float64))
    each = -np.log(np.where(batch['labels'] > 0, chance, 1 - chance)).mean(axis=-1)
    assert float(found.sum) == pytest.approx(each[0, 0] + each[0, 1] + each[1, 0], rel=1e-5)
    assert tuple(map(float, found.logs['boxes'])) == (3, 2)


def test_what_is_padding_does_not_count():
    batch, task = make_batch(), make_task()
    logits = np.zeros((3, 2, 3), np.float32)
    other = logits.copy()
    other[1, 1], other[2] = 50, -50
    assert float(task.loss(jnp.asarray(other), batch, train=True).sum) == pytest.approx(
        float(task.loss(jnp.asarray(logits), batch, train=True).sum)
    )


def test_a_step_without_a_box_has_a_weight_all_the_same():
    batch = {**make_batch(), 'box_mask': np.zeros((3, 2), bool)}
    weight, _ = make_task().weight(batch, ())
    assert float(weight) == 1
    assert float(make_task().loss(jnp.ones((3, 2, 3)), batch, train=True).sum) == 0


def test_labels_are_smoothed_in_training_only():
    batch, logits = make_batch(), jnp.full((3, 2, 3), 2.0)
    plain, smooth = make_task(), make_task(label_smoothing=0.2)
    assert float(smooth.loss(logits, batch, train=False).sum) == float(plain.loss(logits, batch, train=False).sum)
    assert float(smooth.loss(logits, batch, train=True).sum) != float(plain.loss(logits, batch, train=True).sum)


def test_detections_are_boxes_of_the_displayed_frame_whatever_the_batches():
    batch, task = make_batch(), make_task()
    logits = np.random.default_rng(1).normal(size=(3, 2, 3)).astype(np.float32)
    decoded = {name: np.asarray(value) for name, value in task.decode(jnp.asarray(logits), batch).items()}
    ids = np.array([3, 1, 1], np.int32)  # the filler repeats an id; it must not be filed
    whole, parts = task.collector(EXAMPLES), task.collector(EXAMPLES)
    whole.add(ids, batch['example_valid'], decoded)
    for row in (1, 0, 2):
        one = {name: value[row : row + 1] for name, value in decoded.items()}
        parts.add(ids[row : row + 1], batch['example_valid'][row : row + 1], one)
    found, again = whole.detections(), parts.detections()
    for name, column in found.items():
        np.testing.assert_array_equal(column, again[name], err_msg=name)
    assert found['video'].tolist() == ['v1'] * 3 + ['v3'] * 6
    assert found['timestamp'].tolist() == [1.0] * 3 + [3.0] * 6
    assert found['action_id'].tolist() == [0, 1, 2] * 3
    np.testing.assert_allclose(found['score'][:3], sigmoid(logits[1, 0]), rtol=1e-5)
    corners = np.stack([found[name] for name in ('x1', 'y1', 'x2', 'y2')], axis=-1)
    np.testing.assert_allclose(corners[::3], batch['source_boxes'][[1, 0, 0], [0, 0, 1]])


def test_nothing_detected_is_an_empty_table_that_scores_zero():
    task = make_task()
    empty = task.collector(EXAMPLES).detections()
    assert set(empty) == {'video', 'timestamp', 'x1', 'y1', 'x2', 'y2', 'action_id', 'score'}
    assert all(len(column) == 0 for column in empty.values())
    assert task.score(empty, truth_of(make_batch()))['frame_map@0.5'] == 0


def truth_of(batch):
    """The labels of the batch's two real rows as the truth of v3 and v1."""
    rows = [
        (EXAMPLES[i].video, EXAMPLES[i].time, *batch['source_boxes'][row, box], label)
        for row, i in ((0, 3), (1, 1))
        for box in np.flatnonzero(batch['box_mask'][row])
        for label in np.flatnonzero(batch['labels'][row, box])
    ]
    names = ('video', 'timestamp', 'x1', 'y1', 'x2', 'y2', 'action_id')
    kinds = (object, *[np.float64] * 5, np.int64)
    return {
        name: np.array(column, dtype=kind)
        for name, column, kind in zip(names, zip(*rows, strict=True), kinds, strict=True)
    }


@pytest.mark.parametrize(('sharpness', 'low', 'high'), [(9.0, 1.0, 1.0), (-9.0, 0.0, 0.6)])
def test_the_score_goes_from_logits_to_map(sharpness, low, high):
    """Logits that are the labels score 1, their opposite far less."""
    batch, task = make_batch(), make_task()
    logits = sharpness * (2 * batch['labels'] - 1)
    collector = task.collector(EXAMPLES)
    decoded = task.decode(jnp.asarray(logits), batch)
    collector.add(np.array([3, 1, 0]), batch['example_valid'], {k: np.asarray(v) for k, v in decoded.items()})
    scores = task.score(collector.detections(), truth_of(batch))
    assert set(scores) == {'frame_map@0.5', 'frame_map_slowfast@0.5'}
    assert all(low <= score <= high for score in scores.values()), scores
