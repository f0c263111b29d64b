"""Segments (start, end), [..., 2]. Works on any array type that follows the array API standard."""

from typing import Any

Array = Any


def length(segments: Array) -> Array:
    """[..., 2] -> [...]; segments whose ends are swapped have length 0."""
    return segments.__array_namespace__().clip(segments[..., 1] - segments[..., 0], 0, None)


def iou(first: Array, second: Array) -> Array:
    """Intersection over union of all pairs, [..., N, 2] and [..., M, 2] -> [..., N, M]; 0 where both are empty."""
    xp = first.__array_namespace__()
    one, other = first[..., :, None, :], second[..., None, :, :]  # [..., N, 1, 2], [..., 1, M, 2]
    shared = xp.clip(xp.minimum(one[..., 1], other[..., 1]) - xp.maximum(one[..., 0], other[..., 0]), 0, None)
    union = length(one) + length(other) - shared  # [..., N, M]
    # Where the union is empty so is the intersection, and any other divisor gives 0.
    return shared / xp.where(union > 0, union, xp.ones_like(union))
