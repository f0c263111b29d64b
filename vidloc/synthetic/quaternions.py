"""Unit quaternions (w, x, y, z) as arrays [..., 4]; rotations act on column vectors, right-handed."""

import numpy as np


def normalise(q: np.ndarray) -> np.ndarray:
    """[..., 4] of unit length."""
    return q / np.sqrt(np.sum(q * q, axis=-1, keepdims=True))


def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The rotation that does `b` first, then `a`; [..., 4], broadcasting."""
    aw, ax, ay, az = np.moveaxis(a, -1, 0)
    bw, bx, by, bz = np.moveaxis(b, -1, 0)
    return np.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        axis=-1,
    )


def about(axis: str, angle: np.ndarray | float) -> np.ndarray:
    """Rotation by `angle` radians about 'x', 'y' or 'z'; [..., 4]."""
    half = np.asarray(angle, np.float64) / 2
    q = np.zeros((*half.shape, 4))
    q[..., 0] = np.cos(half)
    q[..., 1 + 'xyz'.index(axis)] = np.sin(half)
    return q


def from_vector(v: np.ndarray) -> np.ndarray:
    """Rotation vectors [..., 3] (axis times radians) to quaternions [..., 4]."""
    angle = np.sqrt(np.sum(v * v, axis=-1, keepdims=True))
    # sinc keeps the zero rotation finite: sin(a/2)/a = sinc(a/2/pi)/2.
    return np.concatenate([np.cos(angle / 2), v * (np.sinc(angle / (2 * np.pi)) / 2)], axis=-1)


def blend(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Renormalised linear interpolation the short way round; weight 0 gives a, 1 gives b (up to sign)."""
    sign = np.where(np.sum(a * b, axis=-1, keepdims=True) < 0, -1.0, 1.0)
    return normalise(a * (1 - weight) + b * sign * weight)


def matrix(q: np.ndarray) -> np.ndarray:
    """Rotation matrices [..., 3, 3]."""
    w, x, y, z = np.moveaxis(q, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def heading(q: np.ndarray) -> np.ndarray:
    """Radians about y in the swing-twist split of q; defined unless the body stands exactly on its head."""
    return 2 * np.arctan2(q[..., 2], q[..., 0])
