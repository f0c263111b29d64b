"""Frame mAP: the reference cases, and an independent row-by-row evaluation of random sets."""

import heapq
import json
import math
import pathlib

import numpy as np
import pytest

from vidloc.annotations import ava as files
from vidloc.metrics import ava

CASES = sorted(path.parent for path in (pathlib.Path(__file__).parents[1] / 'reference' / 'ava_eval').glob('*/gt.csv'))


def _tables(case):
    excluded = files.read_excluded(case / 'exclude.csv') if (case / 'exclude.csv').exists() else None
    truth = files.read_ava_table(case / 'gt.csv', scores=False)
    return truth, files.read_ava_table(case / 'det.csv'), files.read_label_map(case / 'labelmap.pbtxt'), excluded


def test_all_cases_are_there():
    assert len(CASES) == 8


@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_official_reference(case):
    truth, found, classes, excluded = _tables(case)
    expected = json.loads((case / 'expected.json').read_text())
    result = ava.frame_ap(truth, found, classes, excluded=excluded)
    assert abs(result.mean - expected['mAP']) < 1e-9
    assert expected['per_class'].keys() == {str(number) for number in result.per_class}
    for number, value in expected['per_class'].items():
        assert math.isnan(result.per_class[int(number)]) if value is None else True
        assert value is None or abs(result.per_class[int(number)] - value) < 1e-9


@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_slowfast_reference(case):
    truth, found, classes, excluded = _tables(case)
    expected = json.loads((case / 'expected_slowfast.json').read_text())
    result = ava.frame_ap(truth, found, classes, protocol='slowfast', excluded=excluded)
    assert abs(result.mean - expected['mAP']) < 1e-9


def test_reference_without_exclusion():
    case = next(case for case in CASES if case.name == '08_exclusion')
    truth, found, classes, _ = _tables(case)
    expected = json.loads((case / 'expected_without_exclusion.json').read_text())
    assert abs(ava.frame_ap(truth, found, classes).mean - expected['mAP']) < 1e-9


def _rows(columns):
    names = ('video', 'timestamp', 'x1', 'y1', 'x2', 'y2', 'action_id', 'score')
    length = len(columns['video'])
    return list(zip(*(columns.get(name, np.ones(length)).tolist() for name in names), strict=True))


def _plain_iou(a, b):
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    union = (a[3] - a[1]) * (a[2] - a[0]) + (b[3] - b[1]) * (b[2] - b[0]) - height * width
    return height * width / union


def _plain_ap(scored, positives):
    """scored: [(score, hit)] in order of insertion."""
    if not positives:
        return math.nan
    ordered = [scored[index] for index in sorted(range(len(scored)), key=lambda index: scored[index][0])][::-1]
    hits, points = 0, []
    for count, (_, hit) in enumerate(ordered, 1):
        hits += hit
        points.append((hits / positives, hits / count))
    area, reached = 0.0, 0.0
    for recall, _ in points:
        if recall > reached:
            area += (recall - reached) * max(precision for other, precision in points if other >= recall)
            reached = recall
    return area


def _plain_frame_ap(truth, found, classes, protocol):
    """Row by row with heaps and loops, by the rules of the reference's README."""
    official = protocol == 'official'
    tick = (lambda time: round(time * 1e6)) if official else int
    keys, boxes = {}, {}
    for video, time, *box, number, _ in _rows(truth):
        if number >= 0 or official:
            keys.setdefault((video, tick(time)), {})
        if number in classes:
            keys[video, tick(time)].setdefault(number, []).append(box)
    for row, (video, time, *box, number, score) in enumerate(_rows(found)):
        key = (video, tick(time))
        if number not in classes or (official and key not in keys):
            continue
        heap = boxes.setdefault(key, [])
        entry = (score, number, box[1], box[0], box[3], box[2], row)
        if not official or len(heap) < ava.KEYFRAME_LIMIT:
            heapq.heappush(heap, entry) if official else heap.append(entry)
        elif score > heap[0][0]:
            heapq.heapreplace(heap, entry)
    scored = {number: [] for number in classes}
    for key, entries in boxes.items():
        taken = set()
        if official:
            entries = sorted(entries, key=lambda entry: (-entry[0], entry[-1]))
        for score, number, y1, x1, y2, x2, _ in entries:
            if y1 >= y2 or x1 >= x2:
                continue
            mine = keys.get(key, {}).get(number, [])
            overlaps = [_plain_iou((x1, y1, x2, y2), box) for box in mine]
            best = int(np.argmax(overlaps)) if overlaps else -1
            hit = bool(overlaps) and overlaps[best] >= 0.5 and (number, best) not in taken
            if hit:
                taken.add((number, best))
            scored[number].append((score, hit))
    amounts = {number: sum(len(key.get(number, ())) for key in keys.values()) for number in classes}
    return {number: _plain_ap(scored[number], amounts[number]) for number in classes}


def _random_set(rng, *, ties):
    """Crowded keyframes, duplicates, degenerate boxes, other classes, other keyframes; scores rounded if `ties`."""
    people = [(f'v{rng.integers(3)}', 900 + int(rng.integers(4)) / 2, rng.uniform(0, 0.5, 2)) for _ in range(40)]
    truth, found = [], []
    for video, time, corner in people:
        box = [*corner, *(corner + rng.uniform(0.2, 0.5, 2))]
        for number in rng.permutation(8)[: rng.integers(0, 4)]:
            truth += [(video, time, *box, number)] * int(rng.integers(1, 3))
        if rng.random() < 0.2:
            truth.append((video, time, *[np.nan] * 4, -1))
        for _ in range(rng.integers(1, 3)):
            near = np.array(box) + rng.normal(0, 0.04, 4)
            near = near[[2, 1, 0, 3]] if rng.random() < 0.1 else near
            for number in rng.permutation(8):
                score = rng.random() ** 2
                when = time + (0 if rng.random() < 0.9 else 7)
                found.append((video, when, *near, number, round(score, 1) if ties else score))
    order = rng.permutation(len(found)) if rng.random() < 0.5 else np.arange(len(found))
    names = ('video', 'timestamp', 'x1', 'y1', 'x2', 'y2', 'action_id', 'score')
    kinds = (object, float, float, float, float, float, int, float)

    def columns(rows, names):
        return {
            name: np.array([row[place] for row in rows], kind)
            for place, (name, kind) in enumerate(zip(names, kinds, strict=False))
        }

    return columns(truth, names[:7]), columns([found[index] for index in order], names)


@pytest.mark.parametrize('ties', [False, True])
@pytest.mark.parametrize('protocol', ava.PROTOCOLS)
@pytest.mark.parametrize('seed', range(15))
def test_equals_row_by_row(monkeypatch, seed, protocol, ties):
    monkeypatch.setattr(ava, 'KEYFRAME_LIMIT', [50, 20, 5][seed % 3])
    truth, found = _random_set(np.random.default_rng(seed), ties=ties)
    classes = {number: f'c{number}' for number in (0, 1, 3, 4, 6, 7, 99)}
    result = ava.frame_ap(truth, found, classes, protocol=protocol)
    expected = _plain_frame_ap(truth, found, classes, protocol)
    np.testing.assert_allclose([result.per_class[number] for number in classes], list(expected.values()), atol=1e-12)
    assert protocol == 'slowfast' or result.counts['over_limit'] > 0 or seed % 3 == 0
    assert result.counts['degenerate'] > 0 and result.counts['other_class'] > 0 and result.counts['off_keyframe'] > 0


def test_no_detections_and_no_truth():
    truth, found = _random_set(np.random.default_rng(0), ties=False)
    nothing = {name: values[:0] for name, values in found.items()}
    for protocol in ava.PROTOCOLS:
        assert ava.frame_ap(truth, nothing, {1: 'a'}, protocol=protocol).mean == 0.0
        empty = {name: values[:0] for name, values in truth.items()}
        assert math.isnan(ava.frame_ap(empty, found, {1: 'a'}, protocol=protocol).mean)
        assert math.isnan(ava.frame_ap(empty, nothing, {}, protocol=protocol).mean)


def test_order_of_rows_does_not_matter_without_ties():
    truth, found = _random_set(np.random.default_rng(3), ties=False)
    shuffled = np.random.default_rng(4).permutation(len(found['video']))
    classes = {number: str(number) for number in range(8)}
    first = ava.frame_ap(truth, found, classes)
    second = ava.frame_ap(truth, {name: values[shuffled] for name, values in found.items()}, classes)
    assert first == second


def test_wrong_input_is_refused():
    truth, found = _random_set(np.random.default_rng(0), ties=False)
    with pytest.raises(ValueError, match='protocol'):
        ava.frame_ap(truth, found, {1: 'a'}, protocol='coco')
    swapped = {**truth, 'x1': truth['x2'], 'x2': truth['x1']}
    with pytest.raises(ValueError, match='corner'):
        ava.frame_ap(swapped, found, {1: 'a'})
    with pytest.raises(ValueError, match='not finite'):
        ava.frame_ap({**truth, 'x1': truth['x1'] * np.nan}, found, {1: 'a'})
    with pytest.raises(ValueError, match='not finite'):
        ava.frame_ap(truth, {**found, 'score': found['score'] * np.nan}, {1: 'a'})


def test_times_before_zero_are_times_like_others():
    truth, found = _random_set(np.random.default_rng(5), ties=False)
    classes = {number: str(number) for number in range(8)}
    for table in (truth, found):
        table['timestamp'] = table['timestamp'] - 901
    assert (truth['timestamp'] < 0).any()
    per_class = ava.frame_ap(truth, found, classes).per_class
    expected = _plain_frame_ap(truth, found, classes, 'official')
    np.testing.assert_allclose([per_class[number] for number in classes], list(expected.values()), atol=1e-12)


def test_people_are_the_different_boxes_of_each_keyframe(few):
    assert ava.people(few).tolist() == [0, 2, 3]
    again = ava.join([few, few])
    assert ava.people(again).tolist() == [0, 2, 3]
    first, person = ava.different_boxes(again, np.array([0, 0, 1, 2, 3] * 2))
    assert first.tolist() == [0, 2, 3] and person.tolist() == [0, 0, 1, 2, -1] * 2


def test_parts_are_taken_by_video(few):
    columns = few
    part = {name: values[2:3] for name, values in columns.items()}
    assert ava.on_videos_of(columns, part)['timestamp'].tolist() == [1.0, 2.0, 3.0]
    assert ava.join([part, part])['video'].tolist() == ['a', 'a']


def test_rows_of_other_classes_are_left_out(few):
    assert ava.of_classes(few, {2: 'b', 3: 'c'})['video'].tolist() == ['b', 'a']
    assert len(ava.of_classes(few, {})['video']) == 0


@pytest.mark.parametrize('sizes', [(5,) * 40, (60, *(2,) * 40), (3, 1, 4, 1, 5), (7,), ()])
def test_rows_are_ordered_by_keyframe_and_score_and_as_they_come_among_equals(sizes):
    """A few equal scores, keyframes mixed; even sizes go one way through the function, uneven ones the other."""
    random = np.random.default_rng(3)
    key = random.permutation(np.repeat(np.arange(len(sizes)), sizes)).astype(np.int64)
    score = random.integers(-2, 3, len(key)) / 4
    found = ava._by_keyframe_and_score(key, score)
    assert np.array_equal(found, np.lexsort((-score, key)))
