import math

import numpy as np
import pytest

from vidloc.metrics import classification

SCORES = np.array([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4], [0.1, 0.5, 0.4], [0.6, 0.3, 0.1]])
LABELS = np.array([0, 1, 2, 2])


def test_top_k():
    assert classification.top_k(SCORES, LABELS, 1) == 0.5
    assert classification.top_k(SCORES, LABELS, 2) == 0.75
    assert classification.top_k(SCORES, LABELS, 3) == 1.0


def test_constant_scores_are_not_right_by_chance():
    assert classification.top_k(np.zeros((4, 3)), LABELS, 2) == 0.0


def test_what_was_not_predicted_counts_as_wrong():
    scores = SCORES.copy()
    scores[0] = -np.inf
    assert classification.top_k(scores, LABELS, 1) == 0.25
    assert classification.top_k(scores, LABELS, 3) == 0.75
    assert classification.confusion(scores, LABELS).sum() == 3
    assert classification.per_class_accuracy(scores, LABELS).tolist() == [0.0, 1.0, 0.0]


def test_confusion_and_accuracies():
    assert classification.confusion(SCORES, LABELS).tolist() == [[1, 0, 0], [0, 1, 0], [1, 1, 0]]
    assert classification.per_class_accuracy(SCORES, LABELS).tolist() == [1.0, 1.0, 0.0]
    assert classification.mean_class_accuracy(SCORES, LABELS) == pytest.approx(2 / 3)
    each = classification.per_class_accuracy(SCORES[:2], LABELS[:2])
    assert each[:2].tolist() == [1.0, 1.0] and math.isnan(each[2])
    assert classification.mean_class_accuracy(SCORES[:2], LABELS[:2]) == 1.0


def test_without_examples():
    nothing, labels = np.zeros((0, 3)), np.zeros(0, int)
    assert math.isnan(classification.top_k(nothing, labels, 1))
    assert math.isnan(classification.mean_class_accuracy(nothing, labels))
    assert classification.confusion(nothing, labels).shape == (3, 3)


@pytest.mark.parametrize(
    ('scores', 'labels', 'k'),
    [
        (SCORES, np.array([0, 1, 2]), 1),
        (SCORES, np.array([0, 1, 2, 3]), 1),
        (SCORES, np.array([0, 1, 2, -1]), 1),
        (SCORES, LABELS, 4),
        (SCORES * np.nan, LABELS, 1),
    ],
)
def test_wrong_input_is_refused(scores, labels, k):
    with pytest.raises(ValueError):
        classification.top_k(scores, labels, k)
