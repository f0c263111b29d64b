"""How a video becomes the input of pretrained weights: from the files beside them, else as their family has it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from vidloc.checkpoints.containers import FamilyError

RGB = tuple[float, float, float]
IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
DEFAULT = 'family default'
MIDDLE = ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How a video becomes the input of a model.

    mean, std: of red, green and blue, on 0..255 (the input is (pixel - mean) / std).
    size: of the input [height, width] in pixels; frames: of a clip; stride: frames of the video from one to the next.
    source: 'family default', or what comes from where: 'size, frames: config.json; mean, std, stride: family default'.
    """

    mean: RGB
    std: RGB
    size: tuple[int, int]
    frames: int
    stride: int
    source: str


def _default(colours: tuple[RGB, RGB], size: int, frames: int, stride: int) -> Preprocessing:
    return Preprocessing(*colours, (size, size), frames, stride, DEFAULT)


# V-JEPA 2: 64 frames of 256 x 256, a stride of 4 as in its probes. VideoMAE: fine-tuning on Kinetics. ViViT: [-1, 1],
# as Scenic has it (zero_centering). InternVideo2: 8 frames, which its recipes spread over a video: the stride is ours.
FAMILIES = {
    'vjepa2': _default(IMAGENET, 256, 64, 4),
    'videomae': _default(IMAGENET, 224, 16, 4),
    'vivit': _default(MIDDLE, 224, 32, 2),
    'vivit_joint': _default(MIDDLE, 224, 32, 2),
    'internvideo2': _default(IMAGENET, 224, 8, 8),
    'image_vit': _default(MIDDLE, 224, 1, 1),
}


def read(
    base: Preprocessing, beside: Mapping[str, Any] | None, preprocessor: Mapping[str, Any] | None, path: str
) -> tuple[Preprocessing, tuple[str, ...]]:
    """`base` with what config.json and preprocessor_config.json of Hugging Face say, and notes for the user.

    beside: {'image_size' | 'crop_size', 'num_frames' | 'frames_per_clip'}. preprocessor: {'do_rescale',
    'rescale_factor', 'offset', 'do_normalize', 'image_mean', 'image_std', 'do_center_crop', 'crop_size', 'size'}.
    The processor of ViViT rescales to [-1, 1] (`offset`) and then normalises once more, by default to [-3, 1]; Scenic
    trained the weights with [-1, 1], which is what is taken. Raises FamilyError for values that make no sense.
    """
    changed, notes, origin = {}, [], {}
    if beside is not None:
        for keys, field in ((('crop_size', 'image_size'), 'size'), (('frames_per_clip', 'num_frames'), 'frames')):
            for key in keys:
                if beside.get(key) is not None:
                    value = beside[key]
                    changed[field] = _size(value, key, path) if field == 'size' else whole(value, key, path)
                    origin[field] = 'config.json'
    if preprocessor is not None:
        # JSON files of Hugging Face write null for what is left to the class.
        preprocessor = {key: value for key, value in preprocessor.items() if value is not None}
        asked = preprocessor.get('crop_size') if preprocessor.get('do_center_crop', True) else None
        asked = preprocessor.get('size') if asked is None else asked
        if asked is not None:
            changed['size'], origin['size'] = _size(asked, 'size', path), 'preprocessor_config.json'
        if preprocessor.get('do_normalize', True) and not preprocessor.keys() & {'image_mean', 'image_std'}:
            mean, std = base.mean, base.std
            notes.append(
                'preprocessor_config.json has no mean and no deviation of colours; they are those of the family'
            )
        elif _twice(preprocessor):
            mean, std = MIDDLE
            notes.append(
                'the processor of these weights would normalise to [-1, 1] and then once more; the input is [-1, 1], '
                'as the model was trained'
            )
        else:
            mean, std = _colours(preprocessor, path)
            origin |= dict.fromkeys(('mean', 'std'), 'preprocessor_config.json')
        changed |= {'mean': mean, 'std': std}
    return dataclasses.replace(base, **changed, source=_said(origin)), tuple(notes)


def _said(origin: Mapping[str, str]) -> str:
    """{field: where it is from} -> text; what is not in it is the family's."""
    if not origin:
        return DEFAULT
    groups: dict[str, list[str]] = {}
    for field in ('mean', 'std', 'size', 'frames', 'stride'):
        groups.setdefault(origin.get(field, DEFAULT), []).append(field)
    return '; '.join(f'{", ".join(fields)}: {place}' for place, fields in groups.items())


def overridden(prepared: Preprocessing, given: Mapping[str, Any]) -> Preprocessing:
    """`prepared` with fields that a user gives. Raises FamilyError for values that make no sense."""
    changed: dict[str, Any] = {}
    for key, value in given.items():
        if key == 'size':
            changed[key] = _size(value, key, 'overrides')
        elif key in ('mean', 'std'):
            changed[key] = _rgb(value, key, 'overrides')
        else:
            changed[key] = whole(value, key, 'overrides')
    source = f'{", ".join(given)}: as given; else {prepared.source}' if given else prepared.source
    return dataclasses.replace(prepared, **changed, source=source)


def whole(value: Any, name: str, path: str) -> int:
    """A positive whole number that a user or a JSON file gives; raises FamilyError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1_000_000:
        raise FamilyError(f'{path}: {name} is {value!r}; it must be a whole number above 0')
    return value


def _size(value: Any, name: str, path: str) -> tuple[int, int]:
    if isinstance(value, Mapping):
        sides = [value.get(key, value.get('shortest_edge')) for key in ('height', 'width')]
    elif isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        sides = list(value)
    else:
        sides = [value, value]
    height, width = (whole(side, name, path) for side in sides)
    return height, width


def _twice(preprocessor: Mapping[str, Any]) -> bool:
    """Whether pixels are brought to [-1, 1] and normalised after that, as ViViT's processor does unless told not to."""
    offset = preprocessor.get('offset', preprocessor.get('image_processor_type') == 'VivitImageProcessor')
    # Other numbers were chosen: weights that were exported here say theirs so.
    half = all(preprocessor.get(key, 0.5) in (0.5, [0.5] * 3) for key in ('image_mean', 'image_std'))
    return bool(offset) and half and bool(preprocessor.get('do_normalize', True))


def _colours(preprocessor: Mapping[str, Any], path: str) -> tuple[RGB, RGB]:
    """((pixel * factor - offset) - mean) / std, written as (pixel - mean') / std'."""
    factor = preprocessor.get('rescale_factor', 1 / 255) if preprocessor.get('do_rescale', True) else 1.0
    numbers = isinstance(factor, int | float) and not isinstance(factor, bool)
    if not numbers or not 0 < factor < float('inf'):
        raise FamilyError(f'{path}: rescale_factor is {factor!r}; it must be above 0')
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if preprocessor.get('do_normalize', True):
        mean = _rgb(preprocessor.get('image_mean'), 'image_mean', path)
        std = _rgb(preprocessor.get('image_std'), 'image_std', path)
        if min(std) <= 0:
            raise FamilyError(f'{path}: image_std is {list(std)}; it must be above 0')
    shift = 1.0 if preprocessor.get('offset', False) else 0.0
    middle = tuple((value + shift) / factor for value in mean)
    return middle, tuple(value / factor for value in std)


def _rgb(value: Any, name: str, path: str) -> RGB:
    values = [value] * 3 if isinstance(value, int | float) else value
    numbers = isinstance(values, Sequence) and len(values) == 3 and not isinstance(values, str)
    if not numbers or not all(isinstance(x, int | float) and abs(x) < 1e9 for x in values):
        raise FamilyError(f'{path}: {name} is {value!r}; it must be three numbers')
    return tuple(float(x) for x in values)
