"""ROI-Align as two matrix products: average features of the bins of each box.

The definition is Detectron2's (He et al. 2017, section 3, with its half-pixel correction); written in the separable
form out = Wy f Wx^T it needs no gather, and its backward pass no scatter.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_HIGHEST = jax.lax.Precision.HIGHEST


def roi_align(
    grid: Float[Array, 'B h w D'],
    boxes: Float[Array, 'B N 4'],
    size: tuple[int, int],
    *,
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> Float[Array, 'B N p q D']:
    """Bins (p, q) = size of each box, float32. No gradient flows to the boxes.

    boxes: xyxy in [0,1] of the grid. A box whose size is 0 or less gives 0 when sampling is adaptive.
    sampling_ratio: samples per bin and axis; 0: adaptive, as many as the bin has cells, rounded up (at most as many
      as for a box of the size of the grid).
    aligned: cell centres lie at half-integers; False is the older form, without the shift and with boxes of at
      least one cell.
    """
    rows, columns = _weights(grid, boxes, size, sampling_ratio, aligned)
    x = jnp.einsum('bnph,bhwd->bnpwd', rows, grid.astype(jnp.float32), precision=_HIGHEST)
    return jnp.einsum('bnqw,bnpwd->bnpqd', columns, x, precision=_HIGHEST)


def roi_mean(
    grid: Float[Array, 'B h w D'],
    boxes: Float[Array, 'B N 4'],
    size: tuple[int, int],
    *,
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> Float[Array, 'B N D']:
    """The mean of roi_align over the bins, without making them: the weights are averaged instead."""
    rows, columns = _weights(grid, boxes, size, sampling_ratio, aligned)
    place = jnp.mean(rows, axis=2)[..., :, None] * jnp.mean(columns, axis=2)[..., None, :]  # [B, N, h, w]
    return jnp.einsum('bnhw,bhwd->bnd', place, grid.astype(jnp.float32), precision=_HIGHEST)


def _weights(
    grid: jax.Array, boxes: jax.Array, size: tuple[int, int], sampling_ratio: int, aligned: bool
) -> tuple[jax.Array, jax.Array]:
    """Interpolation weights of the rows [B, N, p, h] and of the columns [B, N, q, w], float32."""
    boxes = jax.lax.stop_gradient(boxes.astype(jnp.float32))
    x1, y1, x2, y2 = (boxes[..., i] for i in range(4))  # [B, N]
    # Adaptive sampling leaves a box empty if either side is; otherwise the axes are independent.
    empty = (x2 <= x1) | (y2 <= y1) if sampling_ratio == 0 and aligned else jnp.zeros(x1.shape, bool)
    rows = _axis_weights(y1, y2, grid.shape[1], size[0], sampling_ratio, aligned)
    columns = _axis_weights(x1, x2, grid.shape[2], size[1], sampling_ratio, aligned)
    return jnp.where(empty[..., None, None], 0.0, rows), columns


def _axis_weights(
    start: jax.Array, stop: jax.Array, cells: int, bins: int, sampling_ratio: int, aligned: bool
) -> jax.Array:
    """start, stop [...] in [0,1] -> [..., bins, cells]: each bin is a weighted mean of the cells."""
    low = start * cells - (0.5 if aligned else 0.0)
    length = (stop - start) * cells
    length = length if aligned else jnp.maximum(length, 1.0)
    if sampling_ratio > 0:
        most, count = sampling_ratio, jnp.full(length.shape, float(sampling_ratio))
    else:
        most = math.ceil(cells / bins)
        # The margin keeps a length that is a whole number up to rounding from getting one sample more.
        count = jnp.clip(jnp.ceil(length / bins - 1e-4), 1, most)
    count = count[..., None, None]  # [..., 1, 1]
    sample = jnp.arange(most)
    part = (jnp.arange(bins)[:, None] + (sample + 0.5) / count) / bins  # [..., bins, samples]
    place = low[..., None, None] + part * length[..., None, None]
    used = (sample < count) & (place >= -1.0) & (place <= cells)
    place = jnp.clip(place, 0.0, cells - 1.0)[..., None]
    triangle = jnp.maximum(0.0, 1.0 - jnp.abs(place - jnp.arange(cells)))  # [..., bins, samples, cells]
    return jnp.sum(jnp.where(used[..., None], triangle, 0.0), axis=-2) / count
