"""A pinhole camera that stands still or turns about its vertical axis."""

import dataclasses

import numpy as np

NEAR = 0.3


@dataclasses.dataclass(frozen=True)
class Camera:
    """The camera stands at x = z = 0, `eye` metres above the ground, and looks along -z.

    focal: pixels; horizon: row of the horizon, pixels from the top.
    turn: angle to the right at each frame, radians [T].
    follow: what it moves sideways and in depth to keep up with somebody, metres [T, 2] (x, z); None: it stands.
    """

    height: int
    width: int
    focal: float
    horizon: float
    eye: float
    turn: np.ndarray
    follow: np.ndarray | None = None

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """World points [T, ..., 3] -> columns, rows and depths in pixels, pixels and metres, each [T, ...]."""
        ones = (slice(None),) + (None,) * (points.ndim - 2)
        x, z = points[..., 0], points[..., 2]
        if self.follow is not None:
            x, z = x - self.follow[:, 0][ones], z - self.follow[:, 1][ones]
        cos, sin = np.cos(self.turn)[ones], np.sin(self.turn)[ones]
        depth = np.maximum(-z * cos + x * sin, NEAR)
        columns = self.width / 2 + self.focal * (x * cos + z * sin) / depth
        rows = self.horizon - self.focal * (points[..., 1] - self.eye) / depth
        return columns, rows, depth
