"""Boxes and labels on frames: the truth and the prediction told apart by line, place and colour."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Truth: solid line, label below its box. Prediction: dashed line a little outside, label above its box.
TRUTH_COLOUR = (255, 255, 255)
PREDICTED_COLOUR = (255, 176, 0)
_INK = (16, 18, 22)
_STRIP = (24, 26, 31)
_STRIP_TEXT = (214, 217, 224)

# The longer side of an annotated frame, in pixels: small frames are enlarged, large ones reduced.
LONG_SIDE = 640


@dataclasses.dataclass(frozen=True)
class Person:
    """A box (x1, y1, x2, y2) in [0,1] of the frame, with its labels: (name, score or None), best first."""

    box: tuple[float, float, float, float]
    labels: tuple[tuple[str, float | None], ...] = ()


@dataclasses.dataclass(frozen=True)
class Keyframe:
    """What is true and what is predicted at `time` seconds."""

    time: float
    truth: tuple[Person, ...] = ()
    predicted: tuple[Person, ...] = ()


def nearest(keyframes: Sequence[Keyframe], time: float) -> Keyframe:
    """The keyframe whose time is closest, the earlier one of two at the same distance."""
    return min(keyframes, key=lambda keyframe: (abs(keyframe.time - time), keyframe.time))


def spans(times: Sequence[float], seconds: float) -> list[tuple[float, float]]:
    """From when to when each of the sorted `times` is the nearest, within [0, seconds]."""
    middles = [(a + b) / 2 for a, b in itertools.pairwise(times)]
    return list(zip([0.0, *middles], [*middles, seconds], strict=True))


def annotate(
    frames: Iterable[np.ndarray], times: Sequence[float], keyframes: Sequence[Keyframe]
) -> Iterator[np.ndarray]:
    """Yields each frame [H, W, 3] uint8, resized and drawn on with the boxes of its nearest keyframe."""
    for frame, time in zip(frames, times, strict=True):
        yield draw_frame(frame, nearest(keyframes, time), time=time)


def draw_frame(frame: np.ndarray, keyframe: Keyframe, *, time: float) -> np.ndarray:
    """One annotated frame: the picture at LONG_SIDE, boxes with labels, and a strip above that explains them.

    Args:
      frame: uint8 [H, W, 3].
      keyframe: the boxes to draw.
      time: the frame's own second, written in the strip beside the keyframe's.

    Returns: uint8 [H', W', 3] with even sides.
    """
    width, height = canvas_size(frame.shape[1], frame.shape[0])
    enlarged = width > frame.shape[1]
    picture = Image.fromarray(frame).resize(
        (width, height), Image.Resampling.BICUBIC if enlarged else Image.Resampling.LANCZOS
    )
    size = max(13, round(max(width, height) / 31))
    strip = _strip(width, size, time, keyframe.time)
    pen = ImageDraw.Draw(picture)
    stroke = max(2, round(size / 6))
    truth = [(person, _pixels(person.box, width, height, 0)) for person in keyframe.truth]
    predicted = [(p, _pixels(p.box, width, height, 2 * stroke)) for p in keyframe.predicted]
    for _, box in truth:
        _rectangle(pen, box, stroke, TRUTH_COLOUR, dashed=False)
    for _, box in predicted:
        _rectangle(pen, box, stroke, PREDICTED_COLOUR, dashed=True)
    taken: list[tuple[int, int, int, int]] = []
    for person, box in truth:
        _labels(pen, person, box, (width, height), size, TRUTH_COLOUR, taken, above=False)
    for person, box in predicted:
        _labels(pen, person, box, (width, height), size, PREDICTED_COLOUR, taken, above=True)
    canvas = Image.new('RGB', (width, height + strip.height))
    # Above the picture: a player's controls lie over its lower edge.
    canvas.paste(strip, (0, 0))
    canvas.paste(picture, (0, strip.height))
    return np.asarray(canvas)


def canvas_size(width: int, height: int) -> tuple[int, int]:
    """Even width and height of the drawn picture: a whole multiple of a small frame, a large one reduced."""
    longest = max(width, height)
    scale = LONG_SIDE // longest if longest <= LONG_SIDE else LONG_SIDE / longest
    return tuple(max(2, round(side * scale) // 2 * 2) for side in (width, height))


@functools.lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _pixels(box, width: int, height: int, outside: int) -> tuple[int, int, int, int]:
    """The box in pixels, `outside` pixels larger on each side, kept within the picture."""
    x1, y1, x2, y2 = box
    left, top = round(x1 * width) - outside, round(y1 * height) - outside
    right, bottom = round(x2 * width) + outside, round(y2 * height) + outside
    left, top = min(max(left, 0), width - 2), min(max(top, 0), height - 2)
    return left, top, min(max(right, left + 1), width - 1), min(max(bottom, top + 1), height - 1)


def _rectangle(pen: ImageDraw.ImageDraw, box, stroke: int, colour, *, dashed: bool) -> None:
    """Four lines over a thin dark edge, so that they stand out from light and dark pictures."""
    left, top, right, bottom = box
    dash = 3 * stroke
    sides = [
        ((left, top, right, top), right - left),
        ((right, top, right, bottom), bottom - top),
        ((left, bottom, right, bottom), right - left),
        ((left, top, left, bottom), bottom - top),
    ]
    for (x1, y1, _, y2), length in sides:
        across, down = (1, 0) if y1 == y2 else (0, 1)
        starts = range(0, max(length, 1), 2 * dash) if dashed else [0]
        for start in starts:
            end = min(start + dash, length) if dashed else length
            line = (x1 + across * start, y1 + down * start, x1 + across * end, y1 + down * end)
            pen.line(line, fill=_INK, width=stroke + 2)
            pen.line(line, fill=colour, width=stroke)


def _labels(pen, person: Person, box, canvas, size: int, colour, taken, *, above: bool) -> None:
    """Writes the labels of one box as lines on a ground of its colour, best one next to the box."""
    font = _font(size)
    width, height = canvas
    line = round(size * 1.35)
    for rank, (name, score) in enumerate(person.labels):
        words = shortened(name, font, width * 0.6) + ('' if score is None else f' {score:.2f}')
        wide = round(font.getlength(words)) + round(size * 0.6)
        x = min(max(box[0], 0), max(width - wide, 0))
        y = box[1] - (rank + 1) * line if above else box[3] + 1 + rank * line
        y = min(max(y, 0), height - line)
        x, y = _free((x, y, x + wide, y + line), taken, height, -line if above else line)
        pen.rectangle((x, y, x + wide - 1, y + line - 1), fill=colour, outline=_INK)
        pen.text((x + wide / 2, y + line / 2), words, fill=_INK, font=font, anchor='mm')
        taken.append((x, y, x + wide, y + line))


def _free(place, taken, height: int, step: int) -> tuple[int, int]:
    """(x, y) at the nearest height, first towards `step`, where the label covers no other; else where it was."""
    left, top, right, bottom = place
    for shift in (0, step, -step, 2 * step, -2 * step, 3 * step, -3 * step):
        y1, y2 = top + shift, bottom + shift
        inside = y1 >= 0 and y2 <= height
        if inside and not any(left < r and right > x and y1 < b and y2 > t for x, t, r, b in taken):
            return left, y1
    return left, top


def shortened(name: str, font: ImageFont.ImageFont, width: float) -> str:
    """`name` cut with an ellipsis to at most `width` pixels; control characters become spaces."""
    name = ''.join(letter if letter.isprintable() else ' ' for letter in name)
    if font.getlength(name) <= width:
        return name
    while name and font.getlength(name + '…') > width:
        name = name[:-1]
    return name + '…'


def _strip(width: int, size: int, time: float, keyframe_time: float) -> Image.Image:
    """The strip above a frame: its time, whose boxes these are, what the lines mean; two rows if narrow."""
    small = max(12, round(size * 0.85))
    font = _font(small)
    line = round(small * 1.9)
    gap, sample = round(small * 0.6), round(small * 2.2)
    when = f'{time:.2f} s   boxes of {keyframe_time:g} s'
    entries = (('true', TRUTH_COLOUR, False), ('predicted', PREDICTED_COLOUR, True))
    legend = sum(sample + round(font.getlength(word)) + 3 * gap for word, _, _ in entries)
    rows = 1 if font.getlength(when) + legend + 3 * gap <= width else 2
    # Even sides: 4:2:0 pictures need them.
    strip = Image.new('RGB', (width, (rows * line + 1) // 2 * 2), _STRIP)
    pen = ImageDraw.Draw(strip)
    pen.text((gap, line / 2), when, fill=_STRIP_TEXT, font=font, anchor='lm')
    x, y = (width - legend if rows == 1 else gap), round(line * (rows - 0.5))
    for word, colour, dashed in entries:
        for start in range(0, sample, 10):
            pen.line((x + start, y, x + min(start + (5 if dashed else 10), sample), y), fill=colour, width=3)
        pen.text((x + sample + gap, y), word, fill=_STRIP_TEXT, font=font, anchor='lm')
        x += sample + round(font.getlength(word)) + 3 * gap
    return strip
