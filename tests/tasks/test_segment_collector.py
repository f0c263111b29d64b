"""Windows of a video joined, suppressed once, cut to the video and named by external scores."""

import json
import types

import flax.linen as nn
import numpy as np
import pytest

from vidloc.annotations.records import AnnotationError
from vidloc.tasks import score_fusion, temporal_localization

CLASSES = ('run', 'jump', 'sit')
# Windows of 16 points, 0.5 s a point, every 4 s; the second video is named by one window only.
EXAMPLES = [
    *(types.SimpleNamespace(video='long', grid_start=4.0 * i, grid_step=0.5, limit=18.0) for i in range(3)),
    types.SimpleNamespace(video='brief', grid_start=0.25, grid_step=0.5, limit=6.0),
]
COLUMNS = ('video', 'start', 'end', 'label', 'score')


def make_task(**fields):
    return temporal_localization.TemporalLocalization(CLASSES, nn.Dense(1), **fields)


def make_predictions(seed=0, count=40):
    rng = np.random.default_rng(seed)
    start = rng.uniform(-2, 14, (len(EXAMPLES), count))
    segments = np.stack([start, start + rng.uniform(0.5, 9, start.shape)], axis=-1).astype(np.float32)
    return {
        'segments': segments,
        'scores': rng.uniform(0.002, 1, start.shape).astype(np.float32),
        'labels': rng.integers(0, 3, start.shape).astype(np.int32),
        'valid': rng.random(start.shape) < 0.8,
    }


def collect(task, predictions, order=(0, 1, 2, 3), size=2):
    collector = task.collector(EXAMPLES)
    order = list(order)
    for first in range(0, len(order), size):
        ids = np.array(order[first : first + size])
        valid = np.array([True] * len(ids) + [False])
        rows = np.append(ids, 0)  # the last row of each batch is filler
        collector.add(rows, valid, {name: values[rows] for name, values in predictions.items()})
    return collector.detections()


def single(segments, scores, labels, number):
    """Predictions in which only example `number` has candidates."""
    predictions = {name: values[:, : len(scores)].copy() for name, values in make_predictions().items()}
    predictions['valid'][:] = False
    predictions['valid'][number] = True
    predictions['segments'][number], predictions['scores'][number] = segments, scores
    predictions['labels'][number] = labels
    return predictions


def same(one, other):
    for name in COLUMNS:
        np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize('method', ['soft', 'hard', 'none'])
def test_neither_batches_nor_order_matter(method):
    task, predictions = make_task(nms=method), make_predictions()
    whole = collect(task, predictions, size=4)
    same(whole, collect(task, predictions, size=1))
    same(whole, collect(task, predictions, order=[3, 1, 0, 2], size=3))
    assert whole['video'].tolist() == sorted(whole['video'])
    for video in ('brief', 'long'):
        assert (np.diff(whole['score'][whole['video'] == video]) <= 0).all()


def test_seconds_and_the_ends_of_the_video():
    task = make_task(nms='none')
    segments = [[2.0, 6.0], [-4.0, 3.0], [8.0, 40.0], [20.0, 30.0]]
    found = collect(task, single(segments, [0.9, 0.8, 0.7, 0.6], [0, 1, 2, 0], 3))
    # 0.25 s + 0.5 s a point, 6 s long; the last lies behind the end and is left out.
    np.testing.assert_allclose(found['start'], [1.25, 0.0, 4.25])
    np.testing.assert_allclose(found['end'], [3.25, 1.75, 6.0])
    assert found['label'].tolist() == [0, 1, 2]
    assert [found[name].dtype for name in COLUMNS] == [object, np.float64, np.float64, np.int64, np.float64]


def test_windows_of_a_video_are_suppressed_together():
    predictions = single(np.zeros((1, 2)), [0.0], [0], 0)
    for number, score in ((0, 0.9), (1, 0.8)):
        # The same action, at 6 to 8 s, seen in two windows that start 4 s apart.
        start = (6.0 - EXAMPLES[number].grid_start) / 0.5
        predictions['segments'][number], predictions['scores'][number] = [start, start + 4.0], score
        predictions['labels'][number], predictions['valid'][number] = 1, True
    found = collect(make_task(nms='hard', iou=0.5), predictions)
    assert found['video'].tolist() == ['long']
    assert (found['start'].item(), found['end'].item(), found['label'].item()) == (6.0, 8.0, 1)
    assert found['score'].item() == pytest.approx(0.9)
    assert len(collect(make_task(nms='none'), predictions)['score']) == 2


def test_overlaps_count_what_sticks_out_of_the_video():
    # Cut to the 6 s of the video both would be the same; as they are they overlap by a third.
    predictions = single([[6.0, 14.0], [6.0, 30.0]], [0.9, 0.8], [0, 0], 3)
    found = collect(make_task(nms='hard', iou=0.5), predictions)
    np.testing.assert_allclose(found['end'], [6.0, 6.0])


def test_voting_moves_segments_when_classes_are_together():
    predictions = single([[2.0, 6.0], [2.0, 6.4]], [0.9, 0.45], [0, 0], 3)
    found = collect(make_task(nms='hard', iou=0.5, multiclass=False, voting=0.7), predictions)
    weights = np.array([0.9, 0.45 * (4.0 / 4.4)])
    assert found['end'].item() == pytest.approx(0.25 + 0.5 * (weights @ [6.0, 6.4] / weights.sum()), rel=1e-5)
    assert collect(make_task(nms='hard', iou=0.5, voting=0.7), predictions)['end'].item() == pytest.approx(3.25)


def test_shift_of_the_windows_shifts_the_detections():
    predictions = make_predictions()
    predictions['segments'] = np.abs(predictions['segments']).astype(np.float32)
    predictions['segments'].sort(axis=-1)
    found = []
    for shift in (0.0, 64.0):
        examples = [
            types.SimpleNamespace(video=e.video, grid_start=e.grid_start + shift, grid_step=e.grid_step, limit=1000.0)
            for e in EXAMPLES
        ]
        collector = make_task().collector(examples)
        collector.add(np.arange(4), np.ones(4, bool), predictions)
        found.append(collector.detections())
    for name in ('start', 'end'):
        found[0][name] += 64.0
        np.testing.assert_allclose(found[0].pop(name), found[1].pop(name))
    for name in ('video', 'label'):
        np.testing.assert_array_equal(found[0][name], found[1][name])
    np.testing.assert_allclose(found[0]['score'], found[1]['score'], rtol=1e-6)


def test_a_video_without_candidates_and_none_at_all():
    predictions = make_predictions()
    predictions['valid'][3] = False
    found = collect(make_task(), predictions)
    assert set(found['video']) == {'long'}
    predictions['valid'][:] = False
    nothing = collect(make_task(), predictions)
    assert all(len(nothing[name]) == 0 for name in COLUMNS)
    assert [nothing[name].dtype for name in COLUMNS] == [found[name].dtype for name in COLUMNS]
    assert len(make_task().collector(EXAMPLES).detections()['video']) == 0


def test_a_video_that_lacks_windows_has_the_others():
    found = collect(make_task(), make_predictions(), order=[0, 2])
    assert set(found['video']) == {'long'}


def test_fusion_by_hand():
    segments, scores = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]), np.array([0.25, 0.81, 0.04])
    found, fused, labels = score_fusion.fuse(segments, scores, np.array([0.36, 0.01, 0.64]), top=2, proposals=2)
    np.testing.assert_allclose(fused, [0.9 * 0.8, 0.9 * 0.6, 0.5 * 0.8, 0.5 * 0.6])
    assert labels.tolist() == [2, 0, 2, 0]
    np.testing.assert_array_equal(found, segments[[1, 1, 0, 0]])
    assert len(score_fusion.fuse(segments, scores, np.array([0.5]), top=4, proposals=9)[1]) == 3


def test_external_scores_name_the_proposals(tmp_path):
    path = tmp_path / 'scores.json'
    path.write_text(json.dumps({'v_long': [{'label': 'sit', 'score': 0.9}], 'brief': [{'label': 'run', 'score': 0.4}]}))
    task = make_task(proposals=True, multiclass=False, external_scores=str(path), external_top=1)
    predictions = make_predictions()
    plain = collect(make_task(multiclass=False), predictions)
    found = collect(task, predictions)
    assert set(found['label'][found['video'] == 'long']) == {2}
    assert set(found['label'][found['video'] == 'brief']) == {0}
    rows = found['video'] == 'brief'
    np.testing.assert_allclose(found['score'][rows], np.sqrt(0.4 * plain['score'][rows]))


def test_external_scores_above_one_are_told(tmp_path, caplog):
    path = tmp_path / 'scores.json'
    path.write_text(json.dumps({'long': [0.1, 4.0, 0.3], 'brief': [0.1, 0.2, 0.3]}))
    with caplog.at_level('WARNING'):
        make_task(external_scores=str(path)).collector(EXAMPLES)
    assert 'scores above 1' in caplog.text


def test_videos_without_external_scores_are_refused_before_anything_runs(tmp_path):
    path = tmp_path / 'scores.json'
    path.write_text(json.dumps({'results': {'long': [0.1, 0.2, 0.3]}}))
    with pytest.raises(ValueError, match='1 of 2 videos, such as brief'):
        make_task(external_scores=str(path)).collector(EXAMPLES)
    path.write_text('{"results": {"long": [0.1, 0.2]}}')
    with pytest.raises(AnnotationError, match='2 scores for 3 classes'):
        make_task(external_scores=str(path)).collector(EXAMPLES)
