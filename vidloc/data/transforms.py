"""Clips and their boxes: which moments, which part of the picture, in which size. NumPy."""

import dataclasses
import math

import numpy as np
from PIL import Image

from vidloc.ops import boxes as box_ops

CROP_TRIES = 10  # torchvision's


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where the displayed frame lies in the network's input: x' = scale_x * x + shift_x, both in [0,1].

    scale_x is negative when left and right are exchanged.
    """

    scale_x: float = 1.0
    scale_y: float = 1.0
    shift_x: float = 0.0
    shift_y: float = 0.0

    def apply(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes [..., 4] of the displayed frame -> of the input. Not clipped; a float type is kept."""
        return self._map(boxes, lambda values, scale, shift: values * scale + shift)

    def invert(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes [..., 4] of the input -> of the displayed frame. Not clipped; a float type is kept."""
        return self._map(boxes, lambda values, scale, shift: (values - shift) / scale)

    def _map(self, boxes, move) -> np.ndarray:
        boxes = np.asarray(boxes)
        across = move(boxes[..., 0::2].astype(np.float64), self.scale_x, self.shift_x)  # [..., 2]
        down = move(boxes[..., 1::2].astype(np.float64), self.scale_y, self.shift_y)  # [..., 2]
        if self.scale_x < 0:
            across = across[..., ::-1]
        moved = np.stack([across[..., 0], down[..., 0], across[..., 1], down[..., 1]], axis=-1)
        return moved.astype(boxes.dtype) if np.issubdtype(boxes.dtype, np.floating) else moved


def clip_times(centre: float, frames: int, rate: float) -> np.ndarray:
    """float64 [T]: T = frames moments, `rate` a second, with `centre` seconds at index T // 2.

    That is where SlowFast's AVA loader has the keyframe: element 16 of 32 (slowfast/datasets/utils.py,
    get_sequence).
    """
    if frames < 1 or not rate > 0:
        raise ValueError(f'a clip of {frames} frames at {rate} a second is not possible; both must be positive.')
    return centre + (np.arange(frames) - frames // 2) / rate


def fit(
    frames: np.ndarray,
    size: tuple[int, int],
    *,
    scale: float = 1.0,
    anchor: tuple[float, float] = (0.5, 0.5),
    cover: bool = False,
) -> tuple[np.ndarray, Placement]:
    """Resizes a clip, shape of the picture kept, so that it just fits into the input, times `scale`.

    With scale 1 the side that is longer relative to `size` fills the input and zeros fill the rest, as in
    "Beyond Transfer Learning: Co-finetuning for Action Localisation", Table 8. A larger scale crops, a
    smaller one pads more. With `cover` it is the shorter side that fills the input at scale 1, and what the longer
    one has beyond it is cropped, as most recipes for clips do.

    Args:
      frames: uint8 [T, H, W, 3].
      size: (H', W') of the input.
      scale: the paper draws it from 0.65 to 1.1 in training; resizing the shorter side to 256 and cropping 224 is
        scale 256 / 224 with `cover`.
      anchor: (across, down) in [0,1]: where the picture lies if smaller than the input, which part is kept
        if larger; 0 is left or top.
      cover: whether the picture covers the input at scale 1, in place of lying inside it.

    Returns:
      uint8 [T, H', W', 3], `frames` itself if there is nothing to change, and the Placement.

    Raises:
      ValueError: wrong shape or type, or size, scale or anchor out of range.
    """
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise ValueError(f'frames are {frames.dtype} {list(frames.shape)}; they must be uint8 [T, H, W, 3].')
    if min(size) < 1 or not 0 < scale < float('inf') or not all(0 <= part <= 1 for part in anchor):
        raise ValueError(f'size={size} and scale={scale} must be positive, anchor={anchor} within [0,1].')
    source, target = np.array(frames.shape[1:3]), np.array(size)  # both (height, width)
    ratio = (target / source).max() if cover else (target / source).min()
    resized = np.maximum(np.rint(source * ratio * scale).astype(int), 1)
    offset = np.rint((target - resized) * np.array(anchor[::-1])).astype(int)
    placement = Placement(
        scale_x=float(resized[1] / target[1]),
        scale_y=float(resized[0] / target[0]),
        shift_x=float(offset[1] / target[1]),
        shift_y=float(offset[0] / target[0]),
    )
    if (resized == source).all() and (resized == target).all():
        return frames, placement
    # The part of the resized picture that is seen, from `first` up to `last`, and where it goes.
    first, last = np.maximum(-offset, 0), np.minimum(target - offset, resized)
    (top, left), (bottom, right) = first + offset, last + offset
    output = np.zeros((len(frames), *target.tolist(), 3), np.uint8)
    if (resized == source).all():
        output[:, top:bottom, left:right] = frames[:, first[0] : last[0], first[1] : last[1]]
        return output, placement
    # Only what is seen is resampled. Bilinear in Pillow widens its filter when it shrinks: no aliasing.
    box = (*(first * source / resized)[::-1].tolist(), *(last * source / resized)[::-1].tolist())
    seen = (int(right - left), int(bottom - top))
    for picture, place in zip(frames, output, strict=True):
        place[top:bottom, left:right] = Image.fromarray(picture).resize(seen, Image.Resampling.BILINEAR, box)
    return output, placement


def random_part(
    shape: tuple[int, int], area: tuple[float, float], ratio: tuple[float, float], draws: np.ndarray
) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) in pixels of a random part of a picture: torchvision's RandomResizedCrop.

    pytorch/vision, torchvision/transforms/transforms.py, RandomResizedCrop.get_params: an area and a shape are drawn
    until they fit; if none does, the largest part in the middle whose shape is in the range.

    Args:
      shape: (H, W) of the picture.
      area: least and most share of the picture.
      ratio: least and most width by height.
      draws: float64 [CROP_TRIES, 4] in [0, 1), which decide everything.
    """
    height, width = shape
    low, high = np.log(ratio)
    for share, form, across, down in draws.tolist():
        pixels = height * width * (area[0] + (area[1] - area[0]) * share)
        sides = float(np.exp(low + (high - low) * form))
        wide, tall = round(math.sqrt(pixels * sides)), round(math.sqrt(pixels / sides))
        if 0 < wide <= width and 0 < tall <= height:
            left, top = int(across * (width - wide + 1)), int(down * (height - tall + 1))
            return left, top, left + wide, top + tall
    wide = min(width, max(1, round(height * ratio[1])))
    tall = min(height, max(1, round(width / ratio[0])))
    left, top = (width - wide) // 2, (height - tall) // 2
    return left, top, left + wide, top + tall


def resized_part(frame: np.ndarray, part: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    """A part (left, top, right, bottom) of a frame uint8 [H, W, 3] as uint8 [H', W', 3], its shape not kept."""
    left, top, right, bottom = part
    cut = frame[top:bottom, left:right]
    if cut.shape[:2] == tuple(size):
        return cut
    return np.asarray(Image.fromarray(cut).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def view_anchor(shape: tuple[int, int], size: tuple[int, int], view: int, views: int) -> tuple[float, float]:
    """The anchor (across, down) of `fit` for test crop `view` of `views`.

    The crops lie evenly from the start to the end of the side of `shape` (H, W) that is longer relative to `size`
    (H', W'), and in the middle of the other; a single one lies in the middle of both. Three are the left, centre and
    right (or top, centre and bottom) crops of google-research/scenic, dataset_lib/video_ops.py, three_spatial_crops,
    which also takes them across where both sides are equal.
    """
    if views == 1:
        return (0.5, 0.5)
    place = view / (views - 1)
    return (0.5, place) if shape[0] * size[1] > shape[1] * size[0] else (place, 0.5)


def flip(frames: np.ndarray, placement: Placement) -> tuple[np.ndarray, Placement]:
    """Exchanges left and right of frames [..., W, 3] and of the placement; boxes mapped by it follow."""
    mirrored = dataclasses.replace(placement, scale_x=-placement.scale_x, shift_x=1 - placement.shift_x)
    return frames[..., ::-1, :], mirrored


def jitter_boxes(boxes: np.ndarray, ratio: float, rng: np.random.Generator) -> np.ndarray:
    """Moves each side of boxes [N, 4] by up to `ratio` of the box's own width or height; not clipped.

    The co-finetuning paper trains with 0.15. Raises ValueError unless 0 <= ratio < 0.5: beyond that sides
    could change places.
    """
    if not 0 <= ratio < 0.5:
        raise ValueError(f'the ratio of box jitter is {ratio}; it must be at least 0 and below 0.5.')
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)  # [N, 4]: width, height, width, height
    return (boxes + sides * rng.uniform(-ratio, ratio, boxes.shape)).astype(boxes.dtype)


def visible(boxes: np.ndarray, min_fraction: float = 0.2) -> np.ndarray:
    """bool [N]: whether at least `min_fraction` of the area of boxes [N, 4], and not nothing, is in [0,1]."""
    inside, whole = box_ops.area(box_ops.clip(boxes)), box_ops.area(boxes)
    return (inside > 0) & (inside >= min_fraction * whole)
