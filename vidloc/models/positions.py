"""Position embeddings: fixed tables that a learned embedding may start from, and resizing to another grid."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def sincos(grid: tuple[int, ...], width: int) -> Float[np.ndarray, 'tokens D']:
    """Sines and cosines of each coordinate, the channels shared out equally over the axes of the grid.

    Frequencies fall geometrically from 1 to 1/10000 (Vaswani et al. 2017, section 3.5); several axes are put side
    by side as in MoCo v3 (Chen et al. 2021, section 5). Tokens are in row-major order of the grid.
    """
    axes = len(grid)
    if width % (2 * axes):
        raise ValueError(f'sin-cos positions over {axes} axes need a width divisible by {2 * axes}, not {width}')
    count = width // (2 * axes)
    frequency = 10000.0 ** (-np.arange(count) / count)  # [width / (2 axes)]
    coordinates = np.stack(np.meshgrid(*[np.arange(n) for n in grid], indexing='ij'), -1).reshape(-1, axes)
    angle = coordinates[:, :, None] * frequency  # [tokens, axes, width / (2 axes)]
    table = np.concatenate([np.sin(angle), np.cos(angle)], axis=-1)
    return table.reshape(len(coordinates), width).astype(np.float32)


def flat_sincos(tokens: int, width: int) -> Float[np.ndarray, 'tokens D']:
    """Sines (even channels) and cosines (odd ones) of the number of each token, whatever its place in a grid.

    Vaswani et al. 2017, section 3.5; VideoMAE numbers its tokens through time, rows and columns
    (OpenGVLab/VideoMAEv2, models/modeling_finetune.py). Taken in float64, because numbers run into the thousands.
    """
    channel = np.arange(width)
    angle = np.arange(tokens)[:, None] / 10000.0 ** (2 * (channel // 2) / width)  # [tokens, D]
    return np.where(channel % 2, np.cos(angle), np.sin(angle)).astype(np.float32)


def resample(
    table: Float[np.ndarray, 'tokens D'], from_grid: tuple[int, int, int], to_grid: tuple[int, int, int]
) -> Float[np.ndarray, 'new_tokens D']:
    """A table over (time, row, column) for another grid: bicubic in each frame, then linear over time.

    Both with pixel centres at halves and edges repeated, as OpenGVLab/VideoMAEv2 does it (run_class_finetuning.py),
    which moves corners: not the convention of `resize`. Grids need not be square. Taken in float64.
    """
    x = table.astype(np.float64).reshape(*from_grid, -1)  # [t, h, w, D]
    for axis, (old, new) in enumerate(zip(from_grid, to_grid, strict=True)):
        weights = _centred_weights(old, new, _tent if axis == 0 else _cubic)
        x = np.moveaxis(np.tensordot(weights, x, axes=(1, axis)), 0, axis)
    return x.reshape(-1, table.shape[-1]).astype(np.float32)


def resize(
    embedding: Float[Array | np.ndarray, '1 tokens D'],
    from_grid: tuple[int, ...],
    to_grid: tuple[int, ...],
    *,
    cls: bool,
) -> Float[Array, '1 new_tokens D']:
    """Linear interpolation along each axis of the grid; the grids may have any shape and any number of axes.

    Corners stay on corners: the first and the last position of an axis keep their values (the convention of
    Scenic's ViViT, which uses scipy.ndimage.zoom with order 1). An axis reduced to one position takes the middle.

    cls: the first token has no place in the grid and is kept as it is.
    Raises ValueError if the embedding does not have the tokens of from_grid, or the grids differ in rank.
    """
    if len(from_grid) != len(to_grid):
        raise ValueError(f'cannot resize positions from grid {from_grid} to {to_grid}: different number of axes')
    tokens = math.prod(from_grid) + cls
    if embedding.shape[1] != tokens:
        found = embedding.shape[1]
        raise ValueError(f'positions have {found} tokens, but grid {from_grid} with cls={cls} needs {tokens}')
    if tuple(from_grid) == tuple(to_grid):
        return jnp.asarray(embedding)
    width = embedding.shape[-1]
    table = embedding[0, int(cls) :].reshape(*from_grid, width)
    for axis, (old, new) in enumerate(zip(from_grid, to_grid, strict=True)):
        weights = jnp.asarray(_linear_weights(old, new), table.dtype)  # [new, old]
        table = jnp.moveaxis(
            jnp.tensordot(weights, table, axes=(1, axis), precision=jax.lax.Precision.HIGHEST), 0, axis
        )
    return jnp.concatenate([embedding[:, : int(cls)], table.reshape(1, -1, width)], axis=1)


def _linear_weights(old: int, new: int) -> np.ndarray:
    """[new, old]; each row sums to 1."""
    if new == 1:
        place = np.array([(old - 1) / 2])
    else:
        place = np.linspace(0.0, old - 1, new)
    return np.maximum(0.0, 1.0 - np.abs(place[:, None] - np.arange(old)))


def _centred_weights(old: int, new: int, kernel: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """[new, old]; rows sum to 1. New cell i lies at (i + 1/2) old / new - 1/2 among the old ones.

    kernel: the weight of a cell at a distance; 0 from 2 on.
    """
    weights = np.zeros((new, old))
    place = (np.arange(new) + 0.5) * old / new - 0.5
    below = np.floor(place).astype(int)
    for cell in (below - 1, below, below + 1, below + 2):
        np.add.at(weights, (np.arange(new), np.clip(cell, 0, old - 1)), kernel(np.abs(place - cell)))
    return weights


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Cubic convolution (Keys 1981) with the slope -0.75, as PyTorch has it; 0 from 2 on."""
    slope = -0.75
    near = ((slope + 2) * distance - (slope + 3)) * distance**2 + 1
    far = slope * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def _tent(distance: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, 1.0 - distance)
