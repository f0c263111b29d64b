import math

import pytest

from vidloc.experiments import statistics


# Percentage points of Student's t, as in every table of them.
@pytest.mark.parametrize(
    ('p', 'degrees', 'quantile'),
    [
        (0.95, 1, 6.314),
        (0.95, 2, 2.920),
        (0.95, 3, 2.353),
        (0.95, 4, 2.132),
        (0.95, 9, 1.833),
        (0.975, 2, 4.303),
        (0.975, 3, 3.182),
        (0.975, 10, 2.228),
        (0.95, 1000, 1.646),
    ],
)
def test_quantiles_are_those_of_the_tables(p, degrees, quantile):
    assert statistics.student_quantile(p, degrees) == pytest.approx(quantile, abs=0.01)


def test_quantile_of_the_median_is_zero():
    assert [statistics.student_quantile(0.5, degrees) for degrees in (1, 2, 3, 30)] == pytest.approx([0.0] * 4)


def test_an_impossible_quantile_is_refused():
    with pytest.raises(ValueError, match='degrees=0'):
        statistics.student_quantile(0.95, 0)


def test_equal_differences_are_resolved_whatever_the_spread_of_the_runs():
    found = statistics.paired([0.3, 0.5, 0.9], [0.2, 0.4, 0.8])
    assert found.resolved and found.mean == pytest.approx(0.1) and found.count == 3


def test_interval_decides():
    # s = 1, n = 3: the interval is mean +- 2.920 / sqrt(3) = 1.686.
    assert statistics.paired([2.7, 1.7, 0.7], [0.0, 0.0, 0.0]).resolved
    found = statistics.paired([2.6, 1.6, 0.6], [0.0, 0.0, 0.0])
    assert not found.resolved and found.half == pytest.approx(1.686, abs=1e-3)


def test_reverse_is_resolved_too():
    assert statistics.paired([0.1, 0.2, 0.3], [1.1, 1.21, 1.3]).resolved


def test_one_pair_resolves_nothing():
    found = statistics.paired([5.0], [0.0])
    assert not found.resolved and math.isinf(found.half)
    assert math.isnan(statistics.spread([1.0]))
