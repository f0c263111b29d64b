import types

import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.models import classification_head
from vidloc.tasks import classification

CLASSES = tuple('abcdefg')
EXAMPLES = [types.SimpleNamespace(video=f'v{i // 2}', time=0.0, view=i % 2) for i in range(6)]


def make_task(**fields):
    head = classification_head.ClassificationHead(classes=len(CLASSES))
    return classification.Classification(CLASSES, head, **fields)


def make_batch(labels=(2, 0, 5), valid=(True, True, False)):
    return {'labels': np.eye(len(CLASSES), dtype=np.float32)[list(labels)], 'example_valid': np.array(valid)}


def decoded(task, logits, batch):
    return {name: np.asarray(value) for name, value in task.decode(jnp.asarray(logits), batch).items()}


def test_the_loss_is_a_mean_over_real_clips():
    batch, task = make_batch(), make_task()
    logits = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)
    logits[1, 0] = 9
    weight, state = task.weight(batch, ())
    assert float(weight) == 2 and state == ()
    found = task.loss(jnp.asarray(logits), batch, train=True)
    log = logits.astype(np.float64) - np.log(np.exp(logits.astype(np.float64)).sum(axis=-1, keepdims=True))
    assert float(found.sum) == pytest.approx(-log[0, 2] - log[1, 0], rel=1e-5)
    hits, clips = map(float, found.logs['top1'])
    assert clips == 2 and hits == 1 + (logits[0].argmax() == 2)


def test_a_step_of_filler_has_a_weight_all_the_same():
    batch = make_batch(valid=(False, False, False))
    weight, _ = make_task().weight(batch, ())
    assert float(weight) == 1
    assert float(make_task().loss(jnp.ones((3, 7)), batch, train=True).sum) == 0


def test_labels_are_smoothed_in_training_only():
    batch, logits = make_batch(), jnp.asarray(np.eye(3, 7, dtype=np.float32))
    plain, smooth = make_task(), make_task(label_smoothing=0.1)
    assert float(smooth.loss(logits, batch, train=False).sum) == float(plain.loss(logits, batch, train=False).sum)
    assert float(smooth.loss(logits, batch, train=True).sum) != float(plain.loss(logits, batch, train=True).sum)


def test_views_of_a_video_are_averaged_whatever_the_batches():
    task, batch = make_task(), make_batch(labels=(0, 0, 0, 0), valid=(True, True, True, False))
    logits = np.random.default_rng(0).normal(size=(4, 7)).astype(np.float32)
    parts = decoded(task, logits, batch)
    np.testing.assert_allclose(parts['scores'].sum(axis=-1), 1, rtol=1e-5)
    ids = np.array([4, 1, 0, 5])
    whole, turned = task.collector(EXAMPLES), task.collector(EXAMPLES)
    whole.add(ids, batch['example_valid'], parts)
    turned.add(ids[::-1], batch['example_valid'][::-1], {name: value[::-1] for name, value in parts.items()})
    found, again = whole.detections(), turned.detections()
    assert found['video'].tolist() == again['video'].tolist() == ['v0', 'v2']
    np.testing.assert_array_equal(found['scores'], again['scores'])
    np.testing.assert_allclose(found['scores'][0], parts['scores'][1:3, 0].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found['scores'][1], parts['scores'][0, 0], rtol=1e-6)


def test_a_video_without_a_prediction_counts_as_wrong():
    task, batch = make_task(), make_batch(labels=(0, 1, 2), valid=(True, True, True))
    collector = task.collector(EXAMPLES)
    collector.add(np.array([0, 2, 4]), np.array([False, True, True]), decoded(task, 9 * batch['labels'], batch))
    truth = {'video': np.array(['v0', 'v1', 'v2'], dtype=object), 'time': np.zeros(3), 'label': np.array([0, 1, 2])}
    assert task.score(collector.detections(), truth) == {
        'top1': pytest.approx(2 / 3),
        'top5': pytest.approx(2 / 3),
    }


def test_the_score_does_not_depend_on_the_order_of_videos():
    task = make_task()
    scores = np.random.default_rng(0).random((3, 7))
    found = {'video': np.array(['x', 'y', 'z'], dtype=object), 'time': np.zeros(3), 'scores': scores}
    truth = {
        'video': np.array(['z', 'x', 'y'], dtype=object),
        'time': np.zeros(3),
        'label': scores.argmax(axis=1)[[2, 0, 1]],
    }
    assert task.score(found, truth) == {'top1': 1.0, 'top5': 1.0}


def test_top5_is_left_out_where_it_means_nothing():
    task = classification.Classification(CLASSES[:5], classification_head.ClassificationHead(classes=5))
    found = {'video': np.array(['x'], dtype=object), 'time': np.zeros(1), 'scores': np.eye(1, 5)}
    assert task.score(found, {'video': found['video'], 'time': np.zeros(1), 'label': np.array([0])}) == {'top1': 1.0}


def test_parts_of_a_video_are_scored_apart():
    examples = [types.SimpleNamespace(video='v', time=time, view=0) for time in (0.0, 4.5)]
    task, batch = make_task(), make_batch(labels=(1, 3), valid=(True, True))
    collector = task.collector(examples)
    collector.add(np.array([0, 1]), np.array([True, True]), decoded(task, 9 * batch['labels'], batch))
    truth = {'video': np.array(['v', 'v'], dtype=object), 'time': np.array([4.5, 0.0]), 'label': np.array([3, 1])}
    assert task.score(collector.detections(), truth)['top1'] == 1.0
