import numpy as np
import pytest

from vidloc.data import truncation

RULES = {'keep': 0.5, 'tries': 200, 'crop': (0.9, 1.0)}


def test_an_action_stays_if_half_of_it_is_in_the_window():
    segments = np.array([[0.0, 8.0], [2.0, 10.0], [6.0, 14.0], [18.0, 22.0], [17.0, 24.0], [40.0, 50.0], [5.0, 5.0]])
    inside, stay = truncation.kept(segments, 6, 14, keep=0.5)  # 6 to 20
    assert stay.tolist() == [False, True, True, True, False, False, False]
    assert inside.tolist() == [[6.0, 10.0], [6.0, 14.0], [18.0, 20.0]]
    inside, stay = truncation.kept(segments[:2], 6, 14, keep=0.5, reach=(2.0, 2.0))
    assert inside.tolist() == [[4.0, 8.0], [4.0, 10.0]] and stay.all()


def actionformer(segments, count, length, offset, first):
    """What libs/datasets/data_utils.py, truncate_feats, makes of a window, said anew with its own quantities."""
    ratios = [
        max(0.0, min(first + length + offset, end) - max(first - offset, start)) / (end - start)
        for start, end in segments
    ]
    kept = [i for i, ratio in enumerate(ratios) if ratio >= 0.5]
    return [[max(segments[i][0], first - offset), min(segments[i][1], first + length + offset)] for i in kept]


def test_windows_are_those_of_actionformer():
    rng, lone = np.random.default_rng(0), 0
    for _ in range(300):
        count = int(rng.integers(40, 200))
        starts = rng.uniform(0, count - 1, 3)
        segments = np.stack([starts, starts + rng.uniform(0.5, 30, 3)], axis=1)
        first, size = truncation.draw(segments, count, 32, rng, **RULES, reach=(2.0, 2.0))
        assert size == 32 and 0 <= first <= count - 32
        inside, stay = truncation.kept(segments, first, size, keep=0.5, reach=(2.0, 2.0))
        np.testing.assert_allclose(inside, np.reshape(actionformer(segments.tolist(), count, 32, 2.0, first), (-1, 2)))
        assert stay.any()
        lone += stay.sum() == 1
    assert lone > 50


def test_a_short_sequence_gives_most_of_it():
    rng = np.random.default_rng(0)
    found = [truncation.draw(np.array([[3.0, 9.0]]), 50, 64, rng, **RULES) for _ in range(300)]
    assert {size for _, size in found} == set(range(45, 51))
    assert all(0 <= first <= 50 - size for first, size in found)
    assert truncation.draw(np.array([[0.0, 1.0]]), 1, 64, rng, **RULES) == (0, 1)


def test_what_cannot_be_kept_ends_the_search():
    rng = np.random.default_rng(0)
    long = np.array([[0.0, 1000.0]])
    first, size = truncation.draw(long, 1000, 100, rng, **RULES)
    assert size == 100 and not truncation.kept(long, first, size, keep=0.5)[1].any()
    assert not truncation.keepable(long, 1000, 100, keep=0.5).any()
    assert truncation.keepable(long, 1000, 500, keep=0.5).all()
    assert truncation.keepable(long, 1000, 496, keep=0.5, reach=(2.0, 2.0)).all()
    assert not truncation.keepable(np.array([[8.0, 30.0]]), 10, 64, keep=0.5).any()  # most lies beyond the end


@pytest.mark.parametrize('seed', range(8))
def test_no_window_meets_more_than_the_crowd(seed):
    rng = np.random.default_rng(seed)
    starts = rng.uniform(0, 100, 40)
    segments = np.stack([starts, starts + rng.exponential(6, 40)], axis=1)
    most = truncation.crowd(segments, 12.0)
    met = [((segments[:, 0] <= x + 12) & (segments[:, 1] >= x)).sum() for x in np.linspace(-12, 120, 4000)]
    assert max(met) <= most <= max(met) + 1
    assert truncation.crowd(segments, 1e6) == 40 and truncation.crowd(segments[:0], 5.0) == 0


@pytest.mark.parametrize(
    ('count', 'overlap', 'firsts'),
    [
        (10, 0.5, [0]),
        (16, 0.5, [0]),
        (17, 0.5, [0, 1]),
        (24, 0.5, [0, 8]),
        (25, 0.5, [0, 8, 9]),
        (40, 0.0, [0, 16, 24]),
        (20, 0.99, [0, 1, 2, 3, 4]),
    ],
)
def test_test_windows_lose_nothing(count, overlap, firsts):
    assert truncation.starts(count, 16, overlap) == firsts
    assert {p for first in firsts for p in range(first, min(first + 16, count))} == set(range(count))
