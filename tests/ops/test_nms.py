import json
import math
import pathlib

import numpy as np
import pytest

from vidloc.ops import nms

CASES = json.loads((pathlib.Path(__file__).parents[1] / 'reference/actionformer/nms_cases.json').read_text())
EMPTY = (np.zeros((0, 2)), np.zeros(0), np.zeros(0, np.int64))


def candidates(count, classes, seed=0, length=200.0, dtype=np.float64):
    """Segments that overlap a lot, scores that are all different, labels."""
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, length, count)
    segments = np.stack([start, start + rng.uniform(2, 40, count)], axis=1)
    return segments.astype(dtype), rng.uniform(0.002, 1, count).astype(dtype), rng.integers(0, classes, count)


def one_by_one(segments, scores, groups, *, sigma, min_score, limit):
    """Soft NMS as a program of places that are looked at one after the other: what the array operations must equal."""
    found = []
    for group in np.unique(groups):
        places = [[*segments[i], scores[i], i] for i in np.flatnonzero(groups == group)]
        i = 0
        while i < len(places):
            best = max(range(i, len(places)), key=lambda place: (places[place][2], -place))
            places[i], places[best] = places[best], places[i]
            start, end, _, _ = places[i]
            at = i + 1
            while at < len(places):
                other = places[at]
                shared = max(0.0, min(end, other[1]) - max(start, other[0]))
                overlap = shared / ((end - start + 1e-6) + (other[1] - other[0] + 1e-6) - shared)
                other[2] *= math.exp(-overlap * overlap / sigma)
                if other[2] < min_score:
                    last = places.pop()
                    if at < len(places):
                        places[at] = last
                else:
                    at += 1
            i += 1
        found += [(int(place[3]), place[2]) for place in places[:limit]]
    return found


def check_against_one_by_one(segments, scores, groups, **rule):
    expected = one_by_one(segments, scores, groups, **rule)
    indices, left = nms.soft(segments, scores, groups, **rule)
    assert indices.tolist() == [i for i, _ in expected]
    np.testing.assert_allclose(left, [score for _, score in expected], rtol=1e-9)


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
@pytest.mark.parametrize('case', CASES, ids=[case['case'] for case in CASES])
def test_public_code(case, dtype):
    given = case['args']
    rule = nms.Rule(
        method='soft' if given['use_soft_nms'] else 'hard',
        sigma=given['sigma'],
        iou=given['iou_threshold'],
        min_score=given['min_score'],
        limit=given['max_seg_num'],
        per_class=given['multiclass'],
        voting=given['voting_thresh'],
    )
    segments, scores = np.array(case['segments'], dtype), np.array(case['scores'], dtype)
    found = nms.suppress(segments, scores, np.array(case['labels']), rule)
    np.testing.assert_array_equal(found[2], case['out_labels'])
    np.testing.assert_allclose(found[1], case['out_scores'], atol=1e-5)
    np.testing.assert_allclose(found[0], case['out_segments'], atol=1e-4)


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('limit', [5, 1000])
def test_soft_of_many_classes_equals_one_by_one(seed, limit):
    segments, scores, labels = candidates(300, 7, seed)
    check_against_one_by_one(segments, scores, labels, sigma=0.5, min_score=0.05, limit=limit)


@pytest.mark.parametrize('seed', range(8))
def test_ties_go_to_the_first_place_as_places_are_exchanged(seed):
    rng = np.random.default_rng(seed)
    start = rng.integers(0, 30, 120)
    segments = np.stack([start, start + rng.integers(1, 12, 120)], axis=1).astype(float)
    scores, labels = rng.integers(1, 5, 120) / 4, rng.integers(0, 3, 120)
    labels[0] = 4
    check_against_one_by_one(segments, scores, labels, sigma=0.5, min_score=0.2, limit=1000)
    # Without overlaps nothing decays, and nothing but ties decides.
    apart = np.arange(120.0)[:, None] * 2 + [0.0, 1.0]
    check_against_one_by_one(apart, scores, labels, sigma=0.5, min_score=0.2, limit=1000)


def test_classes_of_very_different_sizes_equal_one_by_one():
    segments, scores, _ = candidates(260, 1)
    labels = np.repeat([9, 2, 5, 7], [1, 9, 50, 200])
    labels = np.random.default_rng(0).permutation(labels)
    check_against_one_by_one(segments, scores, labels, sigma=0.3, min_score=0.01, limit=1000)


def test_what_was_picked_stays_whatever_its_score():
    segments = np.array([[0.0, 4.0], [1.0, 5.0], [0.0, 3.0]])
    for method, left in (('soft', 1), ('hard', 0)):
        found = nms.suppress(segments, np.full(3, 1e-6), np.zeros(3, int), nms.Rule(method=method))
        assert len(found[1]) == left


def test_order_of_candidates_does_not_matter_without_ties():
    segments, scores, labels = candidates(200, 3)
    order = np.random.default_rng(5).permutation(200)
    for rule in (nms.Rule(), nms.Rule(method='hard'), nms.Rule(per_class=False), nms.Rule(method='none')):
        one = nms.suppress(segments, scores, labels, rule)
        other = nms.suppress(segments[order], scores[order], labels[order], rule)
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9)


@pytest.mark.parametrize('method', ['soft', 'hard'])
def test_shift_and_unit_do_not_matter(method):
    segments, scores, labels = candidates(200, 3)
    rule = nms.Rule(method=method, iou=0.3, per_class=False)
    one = nms.suppress(segments, scores, labels, rule)
    other = nms.suppress(0.13 * segments + 70, scores, labels, rule)
    np.testing.assert_array_equal(one[2], other[2])
    np.testing.assert_allclose(one[1], other[1], atol=1e-5)
    np.testing.assert_allclose(0.13 * one[0] + 70, other[0], atol=1e-4)


def test_hard_leaves_no_pair_above_the_threshold_and_drops_nothing_without_one():
    segments, scores, labels = candidates(150, 1)
    rule = nms.Rule(method='hard', iou=0.4, limit=1000, voting=0.0)
    found, left, _ = nms.suppress(segments, scores, labels, rule)
    overlap = nms.segment_ops.iou(found, found)
    np.fill_diagonal(overlap, 0)
    assert overlap.max() < 0.4
    assert (np.diff(left) <= 0).all()
    dropped = segments[~np.isin(scores, left)]
    assert (nms.segment_ops.iou(dropped, found).max(axis=1) >= 0.4 - 1e-6).all()


def test_limit_is_of_a_class_and_of_all():
    segments, scores, labels = candidates(100, 4)
    for method in nms.METHODS:
        assert len(nms.suppress(segments, scores, labels, nms.Rule(method=method, limit=3))[1]) == 3
    # Class 0 has the best scores, but no more than the limit come from it.
    scores = np.where(labels == 0, 0.9 + 0.1 * scores, 0.5 * scores)
    indices, _ = nms.soft(segments, scores, labels, sigma=0.5, min_score=0.001, limit=3)
    assert np.bincount(labels[indices]).tolist() == [3, 3, 3, 3]


def test_voting_by_hand():
    picked, segments = np.array([[0.0, 10.0], [50.0, 50.0]]), np.array([[0.0, 10.0], [0.0, 8.0], [0.0, 2.0]])
    moved = nms.vote(picked, segments, np.array([0.5, 0.25, 1.0]), iou=0.7)
    weights = np.array([0.5 * 1.0, 0.25 * 0.8])
    np.testing.assert_allclose(moved, [[0.0, weights @ [10.0, 8.0] / weights.sum()], [50.0, 50.0]])


def test_voting_in_pieces_is_the_same(monkeypatch):
    segments, scores, _ = candidates(90, 1)
    whole = nms.vote(segments[:40], segments, scores, iou=0.5)
    monkeypatch.setattr(nms, '_VOTING', 200)
    # Products of matrices of another size may be added up in another order.
    pieces = nms.vote(segments[:40], segments, scores, iou=0.5)
    np.testing.assert_allclose(pieces, whole, rtol=1e-13, atol=0)


@pytest.mark.parametrize('method', nms.METHODS)
@pytest.mark.parametrize('per_class', [True, False])
def test_nothing_to_suppress(method, per_class):
    found = nms.suppress(*EMPTY, nms.Rule(method=method, per_class=per_class))
    assert [each.shape for each in found] == [(0, 2), (0,), (0,)]


def test_empty_segments_divide():
    segments = np.array([[3.0, 3.0], [3.0, 3.0], [1.0, 4.0]])
    for method in nms.METHODS:
        found = nms.suppress(segments, np.array([0.9, 0.5, 0.4]), np.zeros(3, int), nms.Rule(method=method))
        assert np.isfinite(found[0]).all()
        assert np.isfinite(found[1]).all()


@pytest.mark.parametrize(
    ('fields', 'told'),
    [({'method': 'diou'}, 'soft, hard, none'), ({'limit': 0}, '1 or more'), ({'sigma': 0.0}, 'sigma')],
)
def test_rule_refuses_what_makes_no_sense(fields, told):
    with pytest.raises(ValueError, match=told):
        nms.Rule(**fields)
