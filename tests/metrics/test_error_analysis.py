"""Hand-made scenes in which every count can be told by looking."""

import numpy as np
import pytest

from vidloc.metrics import ava, error_analysis

CLASSES = {1: 'walk', 2: 'wave', 3: 'talk'}
LEFT, RIGHT = (0.1, 0.1, 0.3, 0.5), (0.6, 0.1, 0.8, 0.5)
BESIDE = (0.2, 0.1, 0.4, 0.5)  # IoU 1/3 with LEFT
ALMOST = (0.1, 0.1, 0.3, 0.48)  # IoU 0.95 with LEFT
NOWHERE = (0.0, 0.8, 0.1, 0.9)


def table(rows, *, scores):
    """Columns of (second, box or None, action id[, score]) rows of one video."""
    columns = {
        'video': np.array(['v'] * len(rows), dtype=object),
        'timestamp': np.array([row[0] for row in rows], np.float64),
        'action_id': np.array([row[2] for row in rows], np.int64),
    }
    for axis, name in enumerate(('x1', 'y1', 'x2', 'y2')):
        columns[name] = np.array([np.nan if row[1] is None else row[1][axis] for row in rows], np.float64)
    return columns | ({'score': np.array([row[3] for row in rows], np.float64)} if scores else {})


def analyse(truth, found):
    columns = table(truth, scores=False), table(found, scores=True)
    return error_analysis.analyse(*columns, ava.match(*columns, CLASSES))


def test_people_without_a_box_are_missed_whatever_the_scores():
    truth = [(1, LEFT, 1), (1, LEFT, 2), (1, RIGHT, 1), (2, LEFT, 3), (3, None, -1)]
    found = [(1, ALMOST, 3, 0.9), (2, BESIDE, 3, 0.9), (3, LEFT, 1, 0.9), (4, RIGHT, 1, 0.9)]
    result = analyse(truth, found)
    assert result.people == 3
    assert result.missed == pytest.approx(2 / 3)
    assert result.missed_per_class == {1: 0.5, 2: 0.0, 3: 1.0}
    assert result.bound_per_class == {1: 0.5, 2: 1.0, 3: 0.0}
    assert result.bound == pytest.approx(0.5)


def test_the_bound_is_what_a_classifier_that_knows_the_truth_scores():
    """On random scenes: the official AP of detections that are scored by the truth equals the bound."""
    random = np.random.default_rng(0)
    for _ in range(20):
        truth, found = [], []
        for second in range(6):
            corners = random.uniform(0, 0.3, (4, 2))
            people = [(*corner, *(corner + random.uniform(0.2, 0.4, 2))) for corner in corners]
            truth += [(second, box, int(action)) for box in people[:3] for action in random.permutation(3)[:2] + 1]
            for box in people:
                moved = np.array(box) + random.normal(0, 0.03, 4)
                found += [(second, tuple(moved), action, 0.5) for action in CLASSES]
        result = analyse(truth, found)
        true, boxes = table(truth, scores=False), table(found, scores=True)
        best = 0.0
        # Who knows the truth gives 1 to the rows that can be right and 0 to the rest.
        for _ in range(8):
            matches = ava.match(true, boxes, CLASSES)
            boxes['score'][matches.row] = matches.hit.astype(np.float64)
            best = max(best, ava.frame_ap(true, boxes, CLASSES).mean)
        assert result.bound == pytest.approx(best)


def test_a_person_whom_no_box_overlaps_most_is_out_of_reach():
    inside = (0.1, 0.1, 0.3, 0.45)
    result = analyse([(1, LEFT, 1), (1, inside, 1), (1, inside, 2)], [(1, LEFT, 1, 0.5)])
    assert result.missed == 0.0
    assert result.bound_per_class[1] == 0.5 and result.bound_per_class[2] == 1.0


def test_the_first_k_classes_of_a_box_are_held_against_its_k_true_ones():
    truth = [(1, LEFT, 1), (1, LEFT, 2), (2, LEFT, 1), (3, LEFT, 1), (4, RIGHT, 1)]
    found = [(1, LEFT, 1, 0.9), (1, LEFT, 3, 0.8), (1, LEFT, 2, 0.7)]  # 2 is pushed out by 3
    found += [(2, ALMOST, 2, 0.2), (2, ALMOST, 1, 0.1)]  # 1 goes to 2
    found += [(2, BESIDE, 1, 0.9)]  # not the box that overlaps the person most
    found += [(3, LEFT, 1, 0.1), (3, LEFT, 3, 0.1)]  # of equals the first class
    result = analyse(truth, found)
    assert result.confusion.tolist() == [[2, 1, 0], [0, 0, 1], [0, 0, 0]]


def test_a_missing_label_is_spread_over_the_wrong_ones_and_unscored_classes_take_no_place():
    truth = [(1, LEFT, 1), (1, LEFT, 2), (2, LEFT, 1), (2, LEFT, 3)]
    found = [(1, LEFT, 3, 0.9), (2, LEFT, 2, 0.9), (2, LEFT, 3, 0.8)]
    result = analyse(truth, found)
    # Second 1: both 1 and 2 go to 3. Second 2: 3 is right, 1 goes to 2.
    assert result.confusion.tolist() == [[0, 1, 1], [0, 0, 1], [0, 0, 1]]
    both = analyse([(1, LEFT, 1)], [(1, LEFT, 2, 0.9), (1, LEFT, 3, 0.8)])
    assert both.confusion.tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_rows_of_the_confusion_sum_to_the_labels_of_found_people():
    random = np.random.default_rng(1)
    truth = [(second, LEFT, int(action)) for second in range(40) for action in random.permutation(3)[:2] + 1]
    found = [(second, LEFT, action, random.random()) for second in range(30) for action in CLASSES]
    result = analyse(truth, found)
    expected = [sum(row[2] == action for row in truth if row[0] < 30) for action in CLASSES]
    np.testing.assert_allclose(result.confusion.sum(axis=1), expected)


def test_kinds_of_detections():
    truth = [(1, LEFT, 1), (1, RIGHT, 2), *((second, LEFT, 1) for second in range(2, 7))]
    found = [
        (1, LEFT, 1, 0.9),
        (1, ALMOST, 1, 0.8),  # a duplicate
        (1, RIGHT, 1, 0.7),  # a person who waves
        (2, BESIDE, 1, 0.6),
        (2, NOWHERE, 1, 0.5),
        (3, NOWHERE, 1, 0.4),
        (4, LEFT, 1, 0.3),  # beyond the six best
    ]
    result = analyse(truth, found)
    assert result.kinds[1] == {'right': 1, 'duplicate': 1, 'wrong class': 1, 'wrong place': 1, 'background': 2}
    assert result.kinds[2] == dict.fromkeys(error_analysis.KINDS, 0)
    assert error_analysis.sums(result.kinds, [1, 2])['background'] == 2


def test_the_area_under_a_curve_is_the_average_precision():
    random = np.random.default_rng(2)
    # 40 labels: every recall that a detection reaches is a point of the curve.
    truth = [(second, LEFT, 1) for second in range(40)] + [(0, RIGHT, 2)]
    found = [(s, LEFT if random.random() < 0.6 else NOWHERE, 1, random.random()) for s in range(40)]
    result = analyse(truth, found)
    expected = ava.frame_ap(table(truth, scores=False), table(found, scores=True), CLASSES)
    assert result.precision[1][1:].mean() == pytest.approx(expected.per_class[1])
    assert result.precision[1][0] == result.precision[1].max()
    assert (np.diff(result.precision[1]) <= 0).all()
    assert result.precision[2].tolist() == [0.0] * error_analysis.RECALLS
    assert np.isnan(result.precision[3]).all()


@pytest.mark.parametrize('found', [[], [(1, LEFT, 9, 0.5)], [(9, LEFT, 1, 0.5)], [(1, (0.3, 0.1, 0.1, 0.5), 1, 0.5)]])
def test_nothing_detected_is_everything_missed(found):
    result = analyse([(1, LEFT, 1)], found)
    assert result.missed == 1.0 and result.bound == 0.0
    assert result.confusion.sum() == 0 and not sum(result.kinds[1].values())


def test_nothing_true_is_unknown():
    result = analyse([(1, None, -1)], [(1, LEFT, 1, 0.5)])
    assert np.isnan([result.missed, result.bound, result.bound_per_class[1]]).all()
    assert result.people == 0
