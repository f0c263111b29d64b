"""Position embeddings: fixed tables that a learned embedding may start from, and resizing to another grid."""

import math

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
