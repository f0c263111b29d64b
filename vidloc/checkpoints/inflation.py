"""An image ViT becomes the start of a video model: filters inflated, positions repeated, the rest copied.

Arnab et al. 2021, section 3.4. The image's encoder is the spatial one of the factorised ViViT, or the only one of the
joint ViViT. Other than in google-research/scenic the CLS token goes along, with its position, and the central filter
lies on the axis of time.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from vidloc.checkpoints.leaves import Leaf, Shape

METHODS = ('central', 'mean')
# Kind of backbone -> the encoder that an image's encoder becomes.
ENCODERS = {'vivit': 'spatial', 'vivit_joint': 'encoder'}
# What an image has nothing for.
FRESH = {'vivit': (re.compile(r'backbone/temporal/.*'), 'from scratch: an image has no time')}


class InflationError(ValueError):
    """An image model cannot become this video model; the text says why and what to do."""


def inflate(kernel: np.ndarray, frames: int, method: str) -> np.ndarray:
    """The filter of an image [h, w, 3, D] -> that of tubelets [frames, h, w, 3, D].

    'central': the image's filter on the frame frames // 2, zeros elsewhere (Arnab et al. 2021, equation 9); 'mean': on
    the mean of the frames (equation 8). A still video has the embedding of its image with both.
    """
    if method == 'mean':
        return np.repeat(kernel[None].astype(np.float32) / np.float32(frames), frames, axis=0)
    video = np.zeros((frames, *kernel.shape), np.float32)
    video[frames // 2] = kernel
    return video


def renamed(name: str, kind: str) -> str:
    """The parameter of the video model that one of the image model becomes."""
    return name.replace('backbone/encoder/', f'backbone/{ENCODERS[kind]}/', 1)


def to_video(
    leaves: Mapping[str, Leaf],
    own: Mapping[str, Any],
    backbone: Mapping[str, Any],
    shapes: Mapping[str, Shape],
    method: str,
) -> dict[str, Leaf]:
    """The parameters of an image model -> those of the video model `backbone` that have a source.

    own: sizes of the image model (families.Found.backbone). shapes: {canonical name: shape} of the video model.
    Positions keep their rows and columns, and are resized later; the joint ViViT gets them once for each time.
    Raises InflationError for a kind that images do not become, or an unknown method.
    """
    kind = backbone['kind']
    if kind not in ENCODERS:
        raise InflationError(f'an image model becomes {" or ".join(ENCODERS)}, not {kind!r}')
    if method not in METHODS:
        raise InflationError(f'the inflation of filters is {method!r}; it must be one of {", ".join(METHODS)}')
    video, places = {}, math.prod(own['grid'])
    for name, leaf in leaves.items():
        target = renamed(name, kind)
        wanted = shapes.get(target, leaf.shape)
        if name == 'backbone/embedding/kernel' and len(leaf.shape) == 4 and len(wanted) == 5:
            frames = wanted[0]
            note = {'central': f'the filter on frame {frames // 2} of {frames}, zeros elsewhere'}
            note |= {'mean': f'the filter on the mean of {frames} frames'}
            leaf = leaf.made(
                (frames, *leaf.shape), lambda kernel, frames=frames: inflate(kernel, frames, method), note[method]
            )
        elif target == 'backbone/encoder/position':
            times = backbone['grid'][0]
            extra = leaf.shape[1] - places
            shape = (1, extra + times * places, leaf.shape[2])
            leaf = leaf.made(shape, lambda x, n=extra, times=times: _over_time(x, n, times), f'{times} times in time')
        elif name == 'backbone/encoder/cls':
            leaf = dataclasses.replace(leaf, note='the CLS token, which Scenic does not take along')
        video[target] = leaf
    return video


def _over_time(position: np.ndarray, extra: int, times: int) -> np.ndarray:
    """[1, extra + h w, D] -> [1, extra + times h w, D]; tokens (t, h, w) in row-major order."""
    return np.concatenate([position[:, :extra], *[position[:, extra:]] * times], axis=1)


def backbone_of(
    own: Mapping[str, Any],
    kind: str,
    *,
    size: tuple[int, int] | None,
    frames: int,
    tubelet: int,
    temporal_layers: int,
) -> dict[str, Any]:
    """The backbone {'kind': ..., its sizes} that an image model of the sizes `own` becomes.

    size: height and width of the input in pixels; None: as the image model's. frames: of a clip; tubelet: of a tubelet.
    temporal_layers: of a factorised ViViT.
    Raises InflationError for another kind, or sizes that tubelets and patches do not divide.
    """
    if kind not in ENCODERS:
        raise InflationError(f'an image model becomes {" or ".join(ENCODERS)}, not {kind!r}')
    patch = own['patch']
    height, width = size or tuple(places * side for places, side in zip(own['grid'][1:], patch, strict=True))
    for what, value, step in (('frames', frames, tubelet), ('height', height, patch[0]), ('width', width, patch[1])):
        if value <= 0 or step <= 0 or value % step:
            raise InflationError(f'the video has {what} {value}, which is no multiple of {step}')
    sizes = {'kind': kind, **{name: own[name] for name in ('width', 'mlp', 'heads', 'patch')}, 'tubelet': tubelet}
    sizes['grid'] = (frames // tubelet, height // patch[0], width // patch[1])
    if kind == 'vivit':
        return sizes | {'spatial_layers': own['layers'], 'temporal_layers': temporal_layers, 'cls': own['cls']}
    return sizes | {'layers': own['layers']}
