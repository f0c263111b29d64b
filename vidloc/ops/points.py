"""The points of a pyramid over time at which segments are predicted. Host-side NumPy: lengths are static."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

# Of each level: least and largest distance to an end of a segment, in grid units.
Ranges = Sequence[tuple[float | int, float | int]]


def strides(levels: int) -> tuple[int, ...]:
    """Grid units from one point to the next, of each level: 1, 2, 4, ..."""
    return tuple(2**level for level in range(levels))


def multiple(windows: Sequence[int]) -> int:
    """What every length must be a multiple of, for a pyramid with these attention windows, one a level.

    A level with a window of 2 or more is cut into pieces of 2 * (window // 2) places; one that attends to all places
    has to have whole places only. 576 for six levels with windows of 19
    (happyharrycn/actionformer_release, libs/modeling/meta_archs.py: max_div_factor).
    """
    pieces = [2 * (window // 2) if window > 1 else 1 for window in windows]
    return math.lcm(*[stride * piece for stride, piece in zip(strides(len(windows)), pieces, strict=True)])


def check_length(length: int, windows: Sequence[int]) -> None:
    """Raises ValueError, which says the next legal length, unless a pyramid can stand on `length` grid points."""
    step = multiple(windows)
    if length < 1 or length % step:
        raise ValueError(
            f'a sequence of {length} places does not fit: {len(windows)} levels with attention windows '
            f'{", ".join(map(str, windows))} need a multiple of {step}; pad it to {max(1, -(-length // step)) * step} '
            f'(the smallest legal length is {step})'
        )


def points(length: int, ranges: Ranges) -> Float[np.ndarray, 'P 4']:
    """Rows (t, low, high, stride) in grid units, the finest level first: level i has the points 0, 2**i, 2 * 2**i, ...

    length: grid points of the sequence. ranges: the (low, high) of each level.
    Zhang et al. 2022 (ActionFormer), section 3.3; happyharrycn/actionformer_release, libs/modeling/loc_generators.py.
    Raises ValueError if the length is no multiple of the coarsest stride.
    """
    check_length(length, [1] * len(ranges))
    rows = []
    for (low, high), stride in zip(ranges, strides(len(ranges)), strict=True):
        count = length // stride
        level = np.empty((count, 4), np.float32)
        level[:, 0] = np.arange(count) * stride
        level[:, 1:] = low, high, stride
        rows.append(level)
    return np.concatenate(rows)  # [P, 4]
