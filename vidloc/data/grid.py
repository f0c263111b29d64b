"""Grid to seconds: when the points are at which a head predicts. In float64, on the host."""

import dataclasses
from typing import TypeVar

import numpy as np

Number = TypeVar('Number', float, np.ndarray)


@dataclasses.dataclass(frozen=True, slots=True)
class Grid:
    """Point i is at start + step * i seconds; the index may be any real number."""

    start: float
    step: float

    def seconds(self, index: Number) -> Number:
        """When a point is."""
        return self.start + self.step * index

    def index(self, seconds: Number) -> Number:
        """Where on the grid a moment is."""
        return (seconds - self.start) / self.step


def over(first: float, rate: float, count: int, points: int) -> Grid:
    """`points` evenly over `count` frames or feature vectors, the first at `first` seconds, `rate` of them a second.

    With as many points as frames, each is at its frame; with fewer or more they are where linear resampling
    (torch's, align_corners=False) of the frames' features has its samples.
    """
    share = count / points
    return Grid(first + (0.5 * share - 0.5) / rate, share / rate)


def valid(size: int, count: int, points: int) -> np.ndarray:
    """bool [G]: the points that lie on the first `size` of `count` frames or vectors; at least one is."""
    shown = (np.arange(points) + 0.5) * count <= size * points
    shown[0] = True
    return shown
