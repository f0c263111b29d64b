"""RandAugment (Cubuk et al. 2020) for clips: one draw of operations and places for all frames of a clip.

The operations, their scale and their equal chances are those that ViViT was trained with: google-research/scenic,
dataset_lib/video_ops.py, distort_image_with_randaugment, and level_to_arg of tensorflow/models,
official/legacy/image_classification/augment.py. Magnitude 10 is the middle of that scale. Nothing there moves the
picture (no rotation, shearing or translation), so labels with a side stay true, and one choice of twelve changes
nothing. The scale is kept with its oddities: colour, contrast, brightness and sharpness change nothing at magnitude 5
and grow from there; solarizing and posterizing weaken as it grows and end at 10 and 20.

As there, statistics (equalize, auto_contrast, the mean of contrast) are those of the whole clip, so equal pixels stay
equal through time. It differs in this: contrast turns about the mean of the clip, as Pillow does it and as the name
says (there a sum in place of the mean makes it white for every clip); sharpness does not mix the border of a frame with
that of the next; half a cutout is 40 pixels per 10 levels of an input whose shorter side is 224, and grows with it;
posterizing leaves at least one bit (there 0 below magnitude 2.5, which is black).

Zero borders that fitting made are pixels like others.
"""

import numpy as np

OPERATIONS = (
    'auto_contrast',
    'equalize',
    'invert',
    'posterize',
    'solarize',
    'color',
    'contrast',
    'brightness',
    'sharpness',
    'cutout',
    'solarize_add',
    'identity',
)
LARGEST = 30.0  # the largest magnitude of the paper
_FILL = 128  # a cutout is grey


def wrong(value: object) -> list[str]:
    """What is wrong with a view's rand_augment, in words."""
    try:
        layers, magnitude = value
        sound = isinstance(layers, int) and not isinstance(layers, bool) and layers >= 0 and 0 <= magnitude <= LARGEST
    except (TypeError, ValueError):
        sound = False
    if sound:
        return []
    return [
        f'rand_augment is {value!r}; give (layers, magnitude): a whole number, and 0 to {LARGEST:g}, such as (2, 20); '
        '(0, 0) leaves it out'
    ]


def rand_augment(frames: np.ndarray, layers: int, magnitude: float, rng: np.random.Generator) -> np.ndarray:
    """`layers` random operations, one after the other, on a clip.

    Args:
      frames: uint8 [T, H, W, 3], left as they are.
      layers: number of operations.
      magnitude: 0 to 30; ViViT takes 2 layers of 20 for Something-Something and of 15 for Epic Kitchens.
      rng: each layer takes the same number of draws, whatever it does.

    Returns:
      uint8 [T, H, W, 3].
    """
    for _ in range(layers):
        name = OPERATIONS[int(rng.integers(len(OPERATIONS)))]
        centre = tuple(rng.random(2).tolist())
        frames = apply(frames, name, magnitude, centre)
    return frames


def apply(frames: np.ndarray, name: str, magnitude: float, centre: tuple[float, float] = (0.5, 0.5)) -> np.ndarray:
    """One of OPERATIONS on uint8 [T, H, W, 3]; centre: (across, down) in [0,1] of a cutout."""
    from PIL import Image, ImageEnhance, ImageOps

    level = magnitude / 10
    enhance = {
        'color': ImageEnhance.Color,
        'contrast': ImageEnhance.Contrast,
        'brightness': ImageEnhance.Brightness,
        'sharpness': ImageEnhance.Sharpness,
    }
    if name == 'identity':
        return frames
    if name == 'cutout':
        return _cutout(frames, int(level * 40 / 224 * min(frames.shape[1:3])), centre)
    if name == 'solarize_add':
        values = np.arange(256)
        return np.where(values < 128, np.minimum(values + int(level * 110), 255), values).astype(np.uint8)[frames]
    if name == 'sharpness':
        factor = _factor(level)
        return np.stack([np.asarray(enhance[name](Image.fromarray(frame)).enhance(factor)) for frame in frames])
    # Frames below each other are one picture: one table, one mean, one pass.
    tall = Image.fromarray(np.ascontiguousarray(frames).reshape(-1, *frames.shape[2:]))  # [T H, W, 3]
    if name == 'auto_contrast':
        tall = ImageOps.autocontrast(tall)
    elif name == 'equalize':
        tall = ImageOps.equalize(tall)
    elif name == 'invert':
        tall = ImageOps.invert(tall)
    elif name == 'posterize':
        tall = ImageOps.posterize(tall, min(max(int(level * 4), 1), 8))
    elif name == 'solarize':
        tall = ImageOps.solarize(tall, int(level * 256))
    else:
        tall = enhance[name](tall).enhance(_factor(level))
    return np.asarray(tall).reshape(frames.shape)


def _factor(level: float) -> float:
    """Of an enhancement: 1 leaves the picture, 0 is its plain version, above 1 it is exaggerated."""
    return level * 1.8 + 0.1


def _cutout(frames: np.ndarray, half: int, centre: tuple[float, float]) -> np.ndarray:
    """A grey square of side 2 * half around the centre, cut at the borders."""
    height, width = frames.shape[1:3]
    x, y = int(centre[0] * width), int(centre[1] * height)
    cut = frames.copy()
    cut[:, max(y - half, 0) : y + half, max(x - half, 0) : x + half] = _FILL
    return cut
