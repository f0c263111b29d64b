import math

import numpy as np
import pytest

from vidloc.metrics.average_precision import average_precision


def test_by_hand():
    assert average_precision(np.array([True, False, True, True]), 3) == pytest.approx((1 + 0.75 + 0.75) / 3, abs=1e-15)
    assert average_precision(np.array([False, True]), 1) == 0.5
    assert average_precision(np.array([True, False, False]), 4) == 0.25


def test_without_truth_or_detections():
    assert math.isnan(average_precision(np.array([True]), 0))
    assert average_precision(np.array([], bool), 3) == 0.0
    assert average_precision(np.zeros(5, bool), 3) == 0.0


@pytest.mark.parametrize('seed', range(20))
def test_equals_the_area_summed_point_by_point(seed):
    rng = np.random.default_rng(seed)
    hits = rng.random(rng.integers(1, 60)) < rng.random()
    positives = int(hits.sum() + rng.integers(1, 10))
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    area = sum(precision[place:].max() / positives for place in np.flatnonzero(hits))
    assert average_precision(hits, positives) == pytest.approx(area, abs=1e-12)
