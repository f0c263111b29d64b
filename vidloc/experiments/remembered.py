"""Footage that stays in memory: for studies that read a small data set hundreds of times."""

import numpy as np

from vidloc.annotations.records import VideoRecord
from vidloc.data import footage as footage_lib
from vidloc.data import video
from vidloc.data.timeline import Timeline


class Remembered:
    """Every file of another footage is decoded once, when it is first read; see data/footage.py."""

    def __init__(self, footage: footage_lib.Footage):
        self._footage = footage
        self._files: dict[str, tuple[Timeline, np.ndarray]] = {}

    def takes(self, record: VideoRecord) -> tuple[footage_lib.Take, ...]:
        """See Footage."""
        return self._footage.takes(record)

    def timeline(self, key: str) -> Timeline:
        """See Footage."""
        return self._file(key)[0]

    def read(self, key: str, times: np.ndarray, each: video.Each | None = None) -> np.ndarray:
        """See Footage."""
        timeline, frames = self._file(key)
        shown = frames[timeline.frames_at(times)]  # [T, H, W, 3]
        return shown if each is None else np.stack([each(frame) for frame in shown])

    def _file(self, key: str) -> tuple[Timeline, np.ndarray]:
        if key not in self._files:
            timeline = self._footage.timeline(key)
            self._files[key] = timeline, self._footage.read(key, timeline.times)  # all frames [T, H, W, 3]
        return self._files[key]
