import functools
import math

import jax
import numpy as np
import pytest

from vidloc.ops import points as point_ops
from vidloc.tasks import segment_targets

RANGES, CLASSES, LENGTH = ((0, 4), (4, 8), (8, 10000)), 4, 32
POINTS = point_ops.points(LENGTH, RANGES)
ASSIGN = {
    radius: jax.jit(functools.partial(segment_targets.assign, POINTS, classes=CLASSES, radius=radius))
    for radius in (1.5, math.inf)
}


def assign(segments, labels, radius=1.5, limit=6):
    """The targets of one example, [P, C] and [P, 2]."""
    rows = np.full((1, limit, 2), 7.0, np.float32)
    kinds, mask = np.ones((1, limit), np.int32), np.zeros((1, limit), bool)
    count = len(labels)
    rows[0, :count], kinds[0, :count], mask[0, :count] = np.reshape(segments, (count, 2)), labels, True
    found = ASSIGN[radius](rows, kinds, mask)
    return np.asarray(found.classes[0]), np.asarray(found.offsets[0])


def at(level, time):
    """The row of a point."""
    return np.flatnonzero((POINTS[:, 3] == 2**level) & (POINTS[:, 0] == time))[0]


def positives(classes):
    rows = np.flatnonzero(classes.any(axis=1))
    return [(int(np.log2(POINTS[row, 3])), float(POINTS[row, 0])) for row in rows]


def test_one_segment_by_hand():
    # The centre is 11: level 0 reaches from 9.5 to 12.5 strictly, level 1 from 8 to 14, level 2 all of the segment.
    classes, offsets = assign([[8.5, 13.5]], [2])
    assert positives(classes) == [(0, 10.0), (0, 11.0), (0, 12.0)]
    assert classes[:, 2].sum() == 3
    np.testing.assert_array_equal(offsets[at(0, 10)], [1.5, 3.5])
    assert not offsets[~classes.any(axis=1)].any()


def test_offsets_are_in_strides_of_the_level():
    classes, offsets = assign([[6.0, 16.0]], [0])
    assert positives(classes) == [(1, 10.0), (1, 12.0), (2, 8.0)]
    np.testing.assert_array_equal(offsets[at(1, 10)], [4 / 2, 6 / 2])
    np.testing.assert_array_equal(offsets[at(2, 8)], [2 / 4, 8 / 4])


def test_ranges_hold_their_ends():
    # At 4 of level 0 the larger distance is exactly 4; at 12 of level 1 and of level 2 it is exactly 8.
    assert (0, 4.0) in positives(assign([[2.0, 8.0]], [1], math.inf)[0])
    both = positives(assign([[4.0, 16.0]], [1], math.inf)[0])
    assert (1, 12.0) in both
    assert (2, 12.0) in both


def test_points_at_the_ends_and_at_the_radius_are_outside():
    inside = positives(assign([[8.0, 11.0]], [0], math.inf)[0])
    assert inside == [(0, 9.0), (0, 10.0)]
    # Centre 9.5: points 8 and 11 lie at 1.5 strides exactly.
    assert positives(assign([[6.5, 12.5]], [0])[0])[:2] == [(0, 9.0), (0, 10.0)]


def test_without_a_radius_all_points_inside_count():
    classes, _ = assign([[3.0, 9.0]], [0], math.inf)
    assert [time for level, time in positives(classes) if level == 0] == [5.0, 6.0, 7.0]


def test_the_shortest_segment_wins():
    classes, offsets = assign([[8.0, 14.0], [9.5, 12.5]], [0, 3])
    np.testing.assert_array_equal(classes[at(0, 11)], [0, 0, 0, 1])
    np.testing.assert_array_equal(offsets[at(0, 11)], [1.5, 1.5])


def test_segments_of_equal_length_both_name_the_class():
    classes, offsets = assign([[9.0, 13.0], [9.0, 13.0005], [9.0, 13.1]], [0, 2, 3])
    np.testing.assert_array_equal(classes[at(0, 11)], [1, 0, 1, 0])
    np.testing.assert_array_equal(offsets[at(0, 11)], [2.0, 2.0])
    twice, _ = assign([[9.0, 13.0], [9.0, 13.0]], [2, 2])
    assert twice[at(0, 11)].tolist() == [0, 0, 1, 0]


def test_segments_that_are_not_there_change_nothing():
    segments, labels = [[2.0, 7.5], [9.0, 13.0], [12.0, 30.0]], [0, 2, 3]
    one = assign(segments, labels, limit=3)
    other = assign(segments, labels, limit=12)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_no_segments_at_all():
    classes, offsets = assign([], [])
    assert not classes.any()
    assert not offsets.any()


@pytest.mark.parametrize('seed', range(5))
def test_order_of_segments_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 24, 6)
    segments = np.stack([start, start + rng.uniform(1, 12, 6)], axis=1)
    segments[3] = segments[2]  # one action with two labels
    labels = np.array([0, 1, 2, 3, 1, 2])
    order = rng.permutation(6)
    for a, b in zip(assign(segments, labels), assign(segments[order], labels[order]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_shift_by_the_largest_stride_shifts_the_targets():
    segments, labels = np.array([[4.2, 9.7], [10.0, 13.0]]), [1, 3]
    one, other = assign(segments, labels), assign(segments + 8, labels)
    for row, (time, _, _, stride) in enumerate(POINTS):
        if time + 8 < LENGTH:
            moved = at(int(np.log2(stride)), time + 8)
            np.testing.assert_array_equal(one[0][row], other[0][moved])
            np.testing.assert_allclose(one[1][row], other[1][moved], atol=1e-5)
