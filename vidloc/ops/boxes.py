"""Boxes xyxy, [..., 4], y down. Works on any array type that follows the array API standard."""

from typing import Any

Array = Any


def area(boxes: Array) -> Array:
    """[..., 4] -> [...]; boxes whose sides are swapped have area 0."""
    xp = boxes.__array_namespace__()
    sides = xp.clip(boxes[..., 2:] - boxes[..., :2], 0, None)  # [..., 2]
    return sides[..., 0] * sides[..., 1]


def clip(boxes: Array) -> Array:
    """[..., 4] -> [..., 4]: the part within [0,1]; boxes wholly outside shrink to an empty one on the border."""
    return boxes.__array_namespace__().clip(boxes, 0, 1)


def mirror(boxes: Array) -> Array:
    """[..., 4] -> [..., 4]: left and right exchanged within [0,1]."""
    xp = boxes.__array_namespace__()
    return xp.stack([1 - boxes[..., 2], boxes[..., 1], 1 - boxes[..., 0], boxes[..., 3]], axis=-1)


def iou(first: Array, second: Array) -> Array:
    """Intersection over union of all pairs, [..., N, 4] and [..., M, 4] -> [..., N, M]; 0 where both are empty."""
    xp = first.__array_namespace__()
    one, other = first[..., :, None, :], second[..., None, :, :]  # [..., N, 1, 4], [..., 1, M, 4]
    low, high = xp.maximum(one[..., :2], other[..., :2]), xp.minimum(one[..., 2:], other[..., 2:])
    shared = area(xp.concat([low, high], axis=-1))  # [..., N, M]
    union = area(one) + area(other) - shared
    # Where the union is empty so is the intersection, and any other divisor gives 0.
    return shared / xp.where(union > 0, union, xp.ones_like(union))
