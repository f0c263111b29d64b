"""Rotary positions over time, height and width, as tables for attention.rotate.

The tables of V-JEPA 2 (facebookresearch/vjepa2, src/models/utils/modules.py) and of V-JEPA 2.1 (the same repository,
app/vjepa_2_1/models/utils/modules.py).
"""

import numpy as np
from jaxtyping import Float

BASE = 10000.0


def tables(
    grid: tuple[int, int, int], head: int, *, interleave: bool = False, pretrained_grid: int | None = None
) -> tuple[Float[np.ndarray, 'N d'], Float[np.ndarray, 'N d']]:
    """Cosines and sines [t h w, head] in float32 for the tokens of a grid (t, h, w) in row-major order.

    The channels of a head are three equal parts of even size, for time, row and column, and a rest (cosine 1, sine 0).
    A part of 2k channels has the k angles position * 10000^(-i/k).
    interleave: both channels of a pair have the same angle, which makes a rotation: V-JEPA 2.1. Otherwise the k
      angles are laid out twice one after the other, so that the channels of a pair have different ones; V-JEPA 2 was
      trained that way (its pull request 15).
    pretrained_grid: rows and columns are stretched to 0 ... pretrained_grid - 1, however many there are (V-JEPA 2.1);
      None: they are counted. Times are always counted, and all positions start at 0.
    Raises ValueError if a head has fewer than 6 channels, which leaves none for some axis, or an odd number.
    """
    if head < 6 or head % 2:
        raise ValueError(
            f'rotary positions over time, height and width need heads of at least 6 channels, and an even number, '
            f'not {head}: choose another width or number of heads'
        )
    half = head // 3 // 2
    frequency = BASE ** (-np.arange(half) / half)  # [half]
    place = np.stack(np.meshgrid(*[np.arange(n, dtype=np.float64) for n in grid], indexing='ij'), -1).reshape(-1, 3)
    if pretrained_grid is not None:
        # A single row or column is at 0, whatever it is stretched by.
        place[:, 1:] *= (pretrained_grid - 1) / np.maximum(np.array(grid[1:]) - 1, 1)
    angle = place[:, :, None] * frequency  # [N, 3, half]
    angle = np.repeat(angle, 2, axis=-1) if interleave else np.tile(angle, 2)  # [N, 3, 2 half]
    angle = np.pad(angle.reshape(len(place), -1), ((0, 0), (0, head - 6 * half)))  # [N, head]
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
