"""Random windows of an untrimmed sequence, and the actions that stay in them: ActionFormer's rules.

happyharrycn/actionformer_release, libs/datasets/data_utils.py, truncate_feats. Segments and places are in positions:
indices of frames or feature vectors, as real numbers.
"""

import numpy as np


def draw(
    segments: np.ndarray,
    count: int,
    length: int,
    rng: np.random.Generator,
    *,
    keep: float,
    tries: int,
    crop: tuple[float, float],
    reach: tuple[float, float] = (0.0, 0.0),
) -> tuple[int, int]:
    """(first position, positions) of a random window.

    A sequence longer than the window gives `length` positions. A shorter one gives a random share of it, from crop[0]
    to crop[1]. The place is drawn until an action is kept, at most `tries` times; the last draw counts then.

    Args:
      segments: float64 [n, 2].
      count: positions of the sequence.
      length: of the window.
      keep, reach: as in `kept`.
    """
    size = length
    if count <= length:
        low, high = max(round(crop[0] * count), 1), min(round(crop[1] * count), count)
        size = int(rng.integers(low, max(high, low) + 1))
    first = 0
    for _ in range(tries if len(segments) else 1):
        first = int(rng.integers(0, count - size + 1))
        if kept(segments, first, size, keep=keep, reach=reach)[1].any():
            break
    return first, size


def kept(
    segments: np.ndarray, first: int, size: int, *, keep: float, reach: tuple[float, float] = (0.0, 0.0)
) -> tuple[np.ndarray, np.ndarray]:
    """(segments [m, 2] cut to the window, bool [n]: which stay): those of which a share of at least `keep` lies in it.

    reach: the window goes from first - reach[0] to first + size + reach[1]: vectors tell of what is around them.
    """
    low, high = first - reach[0], first + size + reach[1]
    inside = np.clip(segments, low, high)  # [n, 2]
    lengths = segments[:, 1] - segments[:, 0]
    stay = (lengths > 0) & (inside[:, 1] - inside[:, 0] >= keep * lengths) & (inside[:, 1] > inside[:, 0])
    return inside[stay], stay


def keepable(
    segments: np.ndarray, count: int, length: int, *, keep: float, reach: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray:
    """bool [n]: the segments that some window keeps, of those that lie in the sequence."""
    low, high = -reach[0], count + reach[1]
    lengths = segments[:, 1] - segments[:, 0]
    inside = np.clip(segments, low, high)
    most = np.minimum(inside[:, 1] - inside[:, 0], min(length, count) + sum(reach))
    return (lengths > 0) & (most > 0) & (most >= keep * lengths)


def crowd(segments: np.ndarray, extent: float) -> int:
    """The most segments [n, 2] that touch one window of `extent` positions, wherever it lies."""
    if not len(segments):
        return 0
    starts, ends = np.sort(segments[:, 0]), np.sort(segments[:, 1])
    # The most are met by a window that begins where a segment ends.
    begun = np.searchsorted(starts, ends + extent, side='right')
    over = np.searchsorted(ends, ends, side='left')
    return int((begun - over).max())


def starts(count: int, length: int, overlap: float) -> list[int]:
    """First positions of the test windows of a sequence: the last one ends with it, a short one has one window."""
    if count <= length:
        return [0]
    step = max(1, round(length * (1 - overlap)))
    return [*range(0, count - length, step), count - length]
