"""Which points of the pyramid answer for which segments, and what they should say."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Targets(NamedTuple):
    """classes: [B, P, C] float32, 1 for each class that holds at a point, all 0 where none does.

    offsets: [B, P, 2] float32, the distances to start and end in units of the point's stride; 0 where no class holds.
    """

    classes: jax.Array
    offsets: jax.Array


def assign(
    points: np.ndarray, segments: jax.Array, labels: jax.Array, mask: jax.Array, *, classes: int, radius: float
) -> Targets:
    """points [P, 4] of ops/points.py, segments [B, S, 2] in grid units, labels [B, S] int32, mask [B, S] -> Targets.

    A segment is a candidate at a point that lies strictly inside it, strictly within `radius` strides of its centre
    (math.inf: anywhere inside), and whose larger distance to the ends is in the range of its level, both ends
    included. The shortest candidate, of equals the first, gives the offsets; all candidates that are at most 1e-3
    longer give the classes, so that two labels of one segment both hold. happyharrycn/actionformer_release,
    libs/modeling/meta_archs.py (label_points_single_video); Zhang et al. 2022, section 3.4.
    """
    time, low, high, stride = (points[:, i, None] for i in range(4))  # [P, 1] each
    start, end = segments[:, None, :, 0], segments[:, None, :, 1]  # [B, 1, S]
    left, right = time - start, end - time  # [B, P, S]
    centre = 0.5 * (start + end)
    reach = stride * np.float32(radius)
    inside = (time > jnp.maximum(centre - reach, start)) & (time < jnp.minimum(centre + reach, end))
    farther = jnp.maximum(left, right)
    candidate = mask[:, None] & inside & (farther >= low) & (farther <= high)  # [B, P, S]

    span = jnp.where(candidate, end - start, jnp.inf)
    shortest = jnp.min(span, axis=-1, keepdims=True)  # [B, P, 1]
    kinds = jax.nn.one_hot(labels, classes)  # [B, S, C]
    chosen = (candidate & (span <= shortest + 1e-3)).astype(jnp.float32)
    held = jnp.einsum('bps,bsc->bpc', chosen, kinds) > 0

    best = jnp.argmin(span, axis=-1, keepdims=True)  # [B, P, 1]
    distances = [jnp.take_along_axis(each, best, axis=-1) for each in (left, right)]
    offsets = jnp.concatenate(distances, axis=-1) / stride  # [B, P, 2]
    return Targets(held.astype(jnp.float32), jnp.where(jnp.isfinite(shortest), offsets, 0.0))
