"""The motion-capture clips of motions.npz (made by tools/convert_motions.py; provenance and licence in NOTICE)."""

import dataclasses
import functools
import pathlib

import numpy as np

from vidloc.synthetic import quaternions
from vidloc.synthetic.skeleton import INDEX, JOINTS, Pose

FILE = pathlib.Path(__file__).with_name('motions.npz')
# Columns of a row: 0 duration, 1-3 root position, 4-7 root rotation, then the joints in this order.
_BALL = {
    'root': 4,
    'chest': 8,
    'neck': 12,
    'right_hip': 16,
    'right_ankle': 21,
    'right_shoulder': 25,
    'left_hip': 30,
    'left_ankle': 35,
    'left_shoulder': 39,
}
_HINGE = {'right_knee': 20, 'right_elbow': 29, 'left_knee': 34, 'left_elbow': 43}


@dataclasses.dataclass(frozen=True)
class Clip:
    """One take.

    times: seconds of its rows from the first, float64 [n].
    pose: the rows, root starting at x = z = 0.
    loops: whether the last row leads into the first.
    """

    name: str
    times: np.ndarray
    pose: Pose
    loops: bool

    @property
    def duration(self) -> float:
        return float(self.times[-1])

    def play(self, seconds: np.ndarray) -> Pose:
        """The pose at each of `seconds` [T]: a looping clip cycles and travels on, another holds its ends."""
        seconds = np.asarray(seconds, np.float64)
        cycles = np.floor(seconds / self.duration) if self.loops else np.zeros(len(seconds))
        local = np.clip(seconds - cycles * self.duration, 0.0, self.duration)
        after = np.clip(np.searchsorted(self.times, local, side='right'), 1, len(self.times) - 1)
        before = after - 1
        weight = (local - self.times[before]) / (self.times[after] - self.times[before])
        weight = weight[:, None]
        root = self.pose.root[before] * (1 - weight) + self.pose.root[after] * weight
        travel = (self.pose.root[-1] - self.pose.root[0]) * np.array([1.0, 0.0, 1.0])
        rotations = quaternions.blend(self.pose.rotations[before], self.pose.rotations[after], weight[:, :, None])
        return Pose(root + cycles[:, None] * travel, rotations)


def _clip(name: str, rows: np.ndarray, loops: bool) -> Clip:
    rows = rows.astype(np.float64)
    times = np.concatenate([[0.0], np.cumsum(rows[:-1, 0])])
    rotations = np.zeros((len(rows), len(JOINTS), 4))
    for joint, first in _BALL.items():
        rotations[:, INDEX[joint]] = rows[:, first : first + 4]
    for joint, column in _HINGE.items():
        rotations[:, INDEX[joint]] = quaternions.about('z', rows[:, column])
    root = rows[:, 1:4] - rows[0, 1:4] * np.array([1.0, 0.0, 1.0])
    return Clip(name, times, Pose(root, quaternions.normalise(rotations)), loops)


@functools.cache
def load() -> dict[str, Clip]:
    """All 15 clips by name."""
    with np.load(FILE, allow_pickle=False) as data:
        ends = np.cumsum(data['lengths'])
        return {
            str(name): _clip(str(name), data['rows'][end - length : end], bool(loops))
            for name, loops, length, end in zip(data['names'], data['loops'], data['lengths'], ends, strict=True)
        }
