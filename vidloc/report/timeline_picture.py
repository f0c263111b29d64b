"""A timeline as a PNG file, for papers and documents: true segments above predicted ones, a lane a class."""

import functools
import os
import pathlib

from PIL import Image, ImageDraw, ImageFont

from vidloc.report.draw import shortened
from vidloc.report.plots import ticks
from vidloc.report.timeline_plots import FAINTEST, clock
from vidloc.report.timelines import Lane, Piece, Timeline

# Pixels; a page of text shows it at half the size.
WIDTH = 1800
_NAME, _EDGE = 400, 36
_BAND, _GAP, _LANE = 26, 6, 26
_SIZE = 26
_PAPER, _INK, _SOFT = (255, 255, 255), (29, 31, 35), (95, 100, 109)
_TRACK, _RULE = (239, 237, 232), (214, 211, 205)
_RIGHT, _WRONG = (42, 125, 79), (178, 59, 59)


def write_picture(path: str | os.PathLike, timeline: Timeline, *, names: tuple[str, str] = ('', '')) -> None:
    """Writes the PNG at once or not at all. names: of this run and of a second one, '' without one."""
    path = pathlib.Path(path)
    partial = path.with_suffix('.partial')
    picture(timeline, names=names).save(partial, 'PNG', optimize=True)
    os.replace(partial, path)


def picture(timeline: Timeline, *, names: tuple[str, str] = ('', '')) -> Image.Image:
    """The RGB picture, WIDTH pixels wide."""
    bands = 3 if names[1] else 2
    lane = bands * (_BAND + _GAP) + _LANE
    top = 3 * _SIZE + 2 * _EDGE
    canvas = Image.new('RGB', (WIDTH, top + max(1, len(timeline.lanes)) * lane + _EDGE), _PAPER)
    pen = ImageDraw.Draw(canvas)
    head = f'{timeline.video} · {timeline.place}, AP {"–" if timeline.ap is None else f"{timeline.ap:.2f}"}'
    pen.text((_EDGE, _EDGE), shortened(head, _font(30), WIDTH - 2 * _EDGE), fill=_INK, font=_font(30))
    _legend(pen, names)
    left, right = _NAME + _EDGE, WIDTH - _EDGE
    bottom = canvas.height - _EDGE
    for time in (t for t in ticks(0.0, timeline.seconds, 8) if t <= timeline.seconds):
        x = left + (right - left) * time / timeline.seconds
        pen.line((x, top - 8, x, bottom), fill=_RULE, width=2)
        anchor = 'la' if time == 0 else 'ma' if x < right - 30 else 'ra'
        pen.text((x, top - 14 - _SIZE), clock(time), fill=_SOFT, font=_font(22), anchor=anchor)
    best = max((p.score or 0.0 for one in timeline.lanes for p in (*one.guesses, *one.others)), default=0.0)
    for number, one in enumerate(timeline.lanes):
        y = top + number * lane + _LANE // 2
        words = shortened(one.name, _font(_SIZE), _NAME - _EDGE)
        pen.text((_EDGE, y + (lane - _LANE) / 2), words, fill=_INK, font=_font(_SIZE), anchor='lm')
        _lane(pen, one, y, bands, left, right, timeline.seconds, best)
    return canvas


def _lane(pen: ImageDraw.ImageDraw, lane: Lane, y: int, bands: int, left: int, right: int, seconds: float, best: float):
    for pieces in (lane.truth, lane.guesses, lane.others)[:bands]:
        pen.rectangle((left, y, right, y + _BAND), fill=_TRACK)
        for piece in sorted(pieces, key=lambda piece: piece.right is False):
            x1 = left + (right - left) * min(max(piece.start / seconds, 0.0), 1.0)
            x2 = left + (right - left) * min(max(piece.end / seconds, 0.0), 1.0)
            _piece(pen, (round(x1), y, max(round(x2), round(x1) + 3), y + _BAND), piece, best)
        y += _BAND + _GAP


def _piece(pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], piece: Piece, best: float) -> None:
    """Truth in ink; right ones filled, wrong ones half as high with holes, so that colours are not needed."""
    if piece.right is None:
        pen.rectangle(box, fill=_INK)
        return
    share = FAINTEST + (1 - FAINTEST) * ((piece.score or 0.0) / best if best > 0 else 1.0)
    base = _RIGHT if piece.right else _WRONG
    colour = tuple(round(share * c + (1 - share) * ground) for c, ground in zip(base, _TRACK, strict=True))
    if piece.right:
        pen.rectangle(box, fill=colour)
        return
    left, top, right, bottom = box
    top = (top + bottom) // 2
    pen.rectangle((left, top, right, bottom), fill=colour, outline=_TRACK)
    for x in range(left + 4, right - 4, 10):
        pen.line((x, bottom - 2, min(x + 5, right), top + 2), fill=_TRACK, width=3)


def _legend(pen: ImageDraw.ImageDraw, names: tuple[str, str]) -> None:
    """What the colours mean and in which order the bands stand."""
    y = _EDGE + 30 + 22
    order = f'from above: true, {names[0]}, {names[1]}' if names[1] else 'from above: true, predicted'
    x = _EDGE
    for words, colour in ((order, None), ('true', _INK), ('right at tIoU 0.5', _RIGHT), ('wrong', _WRONG)):
        if colour is not None:
            sample = Piece(0.0, 0.0, 1.0, None if colour == _INK else colour == _RIGHT)
            _piece(pen, (x, y - 9, x + 40, y + 9), sample, 1.0)
            x += 52
        words = shortened(words, _font(22), WIDTH / 2)
        pen.text((x, y), words, fill=_SOFT, font=_font(22), anchor='lm')
        x += round(_font(22).getlength(words)) + 40


@functools.lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.ImageFont:
    return ImageFont.load_default(size)
