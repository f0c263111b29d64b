"""mAP of temporal segments: public numbers, a plain loop written from the rules, and rules one by one."""

import numpy as np
import pytest

from vidloc.benchmarks.segment_scoring import scene
from vidloc.metrics import temporal

CASES = (
    'c01_perfect', 'c02_no_predictions_for_one_class', 'c03_prediction_in_video_without_gt',
    'c04_empty_prediction_list_videos', 'c05_duplicate_predictions', 'c06_duplicate_before_second_gt',
    'c07_second_best_gt_when_best_taken', 'c08_iou_exactly_at_threshold', 'c11_duplicate_gt', 'c12_zero_length_gt',
    'c19_single_class_anet_thresholds', 'r01_random_12v_4c',
)  # fmt: skip


def table(rows, *, scores=False):
    """Columns of (video, start, end, label[, score]) rows."""
    kinds = {'video': object, 'start': np.float64, 'end': np.float64, 'label': np.int64}
    kinds |= {'score': np.float64} if scores else {}
    return {name: np.array([row[place] for row in rows], kinds[name]) for place, name in enumerate(kinds)}


def evaluate(truth, found, thresholds=(0.5,), **settings):
    classes = {0: 'run', 1: 'jump', 2: 'swim'}
    return temporal.segment_ap(table(truth), table(found, scores=True), classes, thresholds, **settings)


def by_loops(truth, found, thresholds):
    """{(label, threshold): AP} by choosing in turn, with nothing of the module under test."""
    kept = []
    for row in zip(truth['video'], truth['start'], truth['end'], truth['label'], strict=True):
        same = [k for k in kept if k[0] == row[0] and k[3] == row[3]]
        if row[2] > row[1] and not any(abs(row[1] - k[1]) <= 1e-3 and abs(row[2] - k[2]) <= 1e-3 for k in same):
            kept.append(row)
    rows = list(zip(*(found[name] for name in ('video', 'start', 'end', 'label', 'score')), strict=True))
    result = {}
    for label in sorted({row[3] for row in kept}):
        mine = sorted((row for row in rows if row[3] == label), key=lambda row: -row[4])
        for threshold in thresholds:
            free = [row for row in kept if row[3] == label]
            total, hits = len(free), []
            for video, start, end, _, _ in mine:
                best, choice = threshold, None
                for place, (name, low, high, _) in enumerate(free):
                    shared = max(min(end, high) - max(start, low), 0.0)
                    union = (high - low) + (end - start) - shared
                    if name == video and union > 0 and shared / union >= best:
                        best, choice = shared / union, place
                hits.append(choice is not None)
                if choice is not None:
                    free.pop(choice)
            precision = [sum(hits[: i + 1]) / (i + 1) for i in range(len(hits))]
            result[label, threshold] = sum(max(precision[i:]) for i, hit in enumerate(hits) if hit) / total
    return result


@pytest.mark.parametrize('name', CASES)
def test_public_programs(segment_case, name):
    case, truth, found, classes = segment_case(name)
    result = temporal.segment_ap(truth, found, classes, case['tiou_thresholds'])
    expected = case['expected'][case['compare_with']]
    np.testing.assert_allclose(result.mean, expected['mAP'], atol=1e-9)
    assert result.average == pytest.approx(expected['average_mAP'], abs=1e-9)
    for place, label in classes.items():
        np.testing.assert_allclose(result.per_class[place], expected['ap_by_class'][label], atol=1e-9)
    recall = np.stack([result.recall[1], result.recall[5]], axis=1)
    np.testing.assert_allclose(recall, case['expected']['actionformer']['recall_at_1x_5x'], atol=1e-9)


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('decimals', [None, 1])
def test_equals_a_plain_loop(seed, decimals, monkeypatch):
    """Also with many equal scores and equal segments, and when pairs are looked at a few at a time."""
    truth, found = scene(6, 30, 3, 5, seed, decimals=decimals)
    found['end'][::17] = found['start'][::17] - 3.0
    thresholds = (0.1, 0.5, 0.8)
    classes = dict(enumerate('abc'))
    expected = by_loops(truth, found, thresholds)
    results = [temporal.segment_ap(truth, found, classes, thresholds)]
    monkeypatch.setattr(temporal, 'BLOCK', 7)
    results.append(temporal.segment_ap(truth, found, classes, thresholds))
    for result in results:
        got = {
            (label, level): result.per_class[label][i] for label, _ in expected for i, level in enumerate(thresholds)
        }
        assert got == pytest.approx(expected, abs=1e-12)
    assert 0.1 < np.mean(list(expected.values())) < 0.9


def test_of_equal_scores_the_earlier_row_comes_first():
    truth = [('v', 0, 10, 0)]
    right, wrong = ('v', 0, 10, 0, 0.5), ('v', 50, 60, 0, 0.5)
    assert evaluate(truth, [right, wrong]).average == 1.0
    assert evaluate(truth, [wrong, right]).average == 0.5


def test_who_chooses_first_takes_the_best_and_the_next_one_the_rest():
    truth = [('v', 0, 10, 0), ('v', 2, 12, 0), ('v', 4, 14, 0)]
    # All three like the middle one best; the third, which overlaps nothing else by half, comes too late.
    found = [('v', 2, 12, 0, 0.9), ('v', 2.5, 12.5, 0, 0.8), ('v', 4, 10, 0, 0.7)]
    matches = temporal.match(table(truth), table(found, scores=True), {0: 'run'}, (0.5, 0.6))
    assert matches.taken.tolist() == [[1, 1], [2, 2], [0, 0]]
    strict = temporal.match(table(truth), table(found, scores=True), {0: 'run'}, (0.61, 0.9))
    assert strict.taken.tolist() == [[1, 1], [2, -1], [-1, -1]]


def test_of_ground_truths_that_overlap_alike_the_later_row_is_taken():
    truth = [('v', 0, 10, 0), ('v', 10, 20, 0)]
    matches = temporal.match(table(truth), table([('v', 5, 15, 0, 0.5)], scores=True), {0: 'run'}, (0.3,))
    assert matches.taken.tolist() == [[1]]


def test_a_detection_that_ends_before_it_starts_is_false():
    truth = [('v', 0, 10, 0), ('v', 30, 40, 1)]
    found = [('v', 10, 0, 0, 0.9), ('v', 20, 10, 0, 0.8), ('v', 5, 5, 0, 0.7), ('v', 0, 10, 0, 0.6)]
    assert evaluate(truth, found).per_class[0].tolist() == [0.25]


def test_duplicates_are_held_against_what_was_kept():
    near = [('v', 0.0, 10.0, 0), ('v', 0.0008, 10.0, 0), ('v', 0.0016, 10.0, 0), ('v', 0.0, 10.0, 1)]
    result = evaluate(near, [])
    # The second row repeats the first; the third is near the second only, which is gone.
    assert result.counts['duplicate_ground_truths'] == 1 and result.counts['ground_truths'] == 3
    assert evaluate([*near, ('w', 0.0, 10.0, 0)], []).counts['ground_truths'] == 4


def test_counts():
    truth = [('a', 0, 10, 0), ('a', 0, 10, 0), ('a', 5, 5, 0), ('b', 9, 8, 0), ('c', 0, 5, 1)]
    found = [
        ('a', 0, 10, 0, 0.9),
        ('b', 0, 10, 0, 0.8),
        ('x', 0, 10, 0, 0.7),
        ('a', 0, 10, 2, 0.6),
        ('a', 0, 1, 9, 0.5),
    ]
    counts = {
        'videos': 2,
        'videos_with_ground_truth': 2,
        'ground_truths': 2,
        'predictions': 5,
        'duplicate_ground_truths': 1,
        'empty_ground_truths': 2,
        'predictions_ignored': 2,
        'predictions_elsewhere': 2,
    }
    result = evaluate(truth, found)
    assert result.counts == counts
    assert evaluate(truth, found, videos=['a', 'b', 'c', 'd']).counts == counts | {'videos': 4}
    assert result.per_class[0].tolist() == [1.0] and result.per_class[1].tolist() == [0.0]
    assert np.isnan(result.per_class[2]).all() and result.average == 0.5


def test_recall_counts_what_the_best_of_each_video_reach():
    truth = [('a', 0, 10, 0), ('a', 20, 30, 0), ('b', 0, 10, 0)]
    found = [('a', 50, 60, 0, 0.9), ('a', 0, 10, 0, 0.8), ('a', 20, 30, 0, 0.7), ('b', 0, 10, 0, 0.1)]
    result = evaluate(truth, found, (0.5, 1.0))
    assert result.recall[1] == pytest.approx(np.array([2 / 3, 2 / 3]))
    assert result.recall[5] == pytest.approx(np.array([1.0, 1.0]))


def test_nothing_found_and_nothing_true():
    assert evaluate([('a', 0, 10, 0)], []).average == 0.0
    nothing = evaluate([], [('a', 0, 10, 0, 0.5)])
    assert np.isnan(nothing.average) and np.isnan(nothing.recall[5]).all()
    assert nothing.counts['predictions_ignored'] == 1


@pytest.mark.parametrize('thresholds', [(), (0.0,), (1.1,), (float('nan'),), (50,)])
def test_thresholds_are_shares(thresholds):
    with pytest.raises(ValueError, match='thresholds'):
        evaluate([('a', 0, 10, 0)], [], thresholds)


@pytest.mark.parametrize(
    ('truth', 'found', 'says'),
    [
        (('a', 0, 10, 7), ('a', 0, 10, 0, 0.5), 'label 7'),
        (('a', 0, float('nan'), 0), ('a', 0, 10, 0, 0.5), 'end of 1 rows of ground truth'),
        (('a', 0, 10, 0), ('a', 0, 10, 0, float('nan')), 'score of 1 rows of detection'),
        (('a', 0, 10, 0), ('a', float('-inf'), 10, 0, 0.5), 'start of 1 rows of detection'),
    ],
)
def test_what_cannot_be_scored_is_refused(truth, found, says):
    with pytest.raises(ValueError, match=says):
        evaluate([truth], [found])
