"""Timestamps of a stream: which frame is shown when."""

import dataclasses
import functools
from fractions import Fraction

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Timeline:
    """When each frame of a stream is shown.

    pts: int64 [n], sorted, without repeats, in units of `time_base` seconds.
    keyframes: int64 [k], sorted: the pts at which decoding may start; empty if only decoding from the start
      of the file gives these pts.
    last_ticks: how long the last frame is shown.
    missing: frames that the header promises and the file does not hold: it was cut short.
    """

    pts: np.ndarray
    keyframes: np.ndarray
    time_base: Fraction
    last_ticks: int
    missing: int

    @functools.cached_property
    def times(self) -> np.ndarray:
        """float64 [n]: the second at which each frame is first shown; the first is 0."""
        return (self.pts - self.pts[0]) * float(self.time_base)

    @property
    def duration(self) -> float:
        """Seconds from the start of the first frame to the end of the last one that is there."""
        return float((int(self.pts[-1]) - int(self.pts[0]) + self.last_ticks) * self.time_base)

    @functools.cached_property
    def tolerance(self) -> float:
        """Seconds by which a frame may start after t and still count as shown at t.

        Containers round timestamps to their tick (1 ms in Matroska), so that frame 2 of a 30 Hz video starts
        at 0.067 and not at 2/30. One tick covers the rounding of this frame and of the first one; more than
        1 ms, or half the shortest frame, would pick a frame too early.
        """
        gap = float(np.diff(self.times).min()) if len(self.pts) > 1 else 1.0
        return max(1e-6, min(float(self.time_base), 1e-3, gap / 2))

    def frames_at(self, times: np.ndarray) -> np.ndarray:
        """int64 [T]: the frame shown at each of `times` [T]; the first before it, the last after it."""
        shown = np.searchsorted(self.times, np.asarray(times, np.float64) + self.tolerance, side='right') - 1
        return np.clip(shown, 0, len(self.pts) - 1)

    def keyframe_before(self, pts: int) -> int:
        """Which of `keyframes` decoding starts at to get the frame at `pts`."""
        return max(int(np.searchsorted(self.keyframes, pts, side='right')) - 1, 0)
