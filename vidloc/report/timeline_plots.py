"""Timelines as HTML: true segments above predicted ones, a lane a class, beside the video that they tell of.

All of it can be read without scripts; with them (segment_style.py) a click, the arrow keys and two buttons move the
video, and a line follows it.
"""

from collections.abc import Sequence

from vidloc.report import markup
from vidloc.report.plots import percent, ticks
from vidloc.report.timelines import Lane, Piece, Timeline

# The faintest prediction; the best of a video has 1.
FAINTEST = 0.35
# From this share of the axis on, the words of a mark stand left of it.
LATE = 0.9
# So many of the classes that find no lane are named.
HIDDEN_NAMED = 10


def film(timeline: Timeline, *, names: tuple[str, str]) -> str:
    """The figure of a video. names: of this run and of a second one, '' without one."""
    title = f'{markup.text(timeline.video)} <span class="note">{markup.text(_standing(timeline, names))}</span>'
    return (
        f'<figure class="film"><figcaption>{title}</figcaption><div class="screen">{_stage(timeline)}'
        f'<div class="strip">{_strip(timeline, names)}</div></div>'
        f'{markup.details("Table of segments", _table(timeline, names))}</figure>'
    )


def _standing(timeline: Timeline, names: tuple[str, str]) -> str:
    said = f'{timeline.place}, AP {markup.number(timeline.ap, 2)}'
    return f'{said} ({names[1]}: {markup.number(timeline.other_ap, 2)})' if names[1] else said


def _stage(timeline: Timeline) -> str:
    shown = timeline.film
    if shown is None:
        return f'<p class="missing">No video: {markup.text(timeline.problem)}</p>'
    label = markup.text(f'Video {timeline.video}, {shown.seconds:.1f} seconds')
    return (
        f'<div class="stage"><video src="{markup.text(shown.address)}" poster="{shown.poster_url}" '
        f'width="{shown.width}" height="{shown.height}" data-start="{shown.start:.3f}" '
        f'data-moment="{shown.moment:.3f}" aria-label="{label}" controls '
        f'muted playsinline preload="metadata"></video>'
        f'<button class="play" type="button" aria-label="Play {markup.text(timeline.video)}" hidden>▶</button></div>'
    )


def _strip(timeline: Timeline, names: tuple[str, str]) -> str:
    """The lanes over a common axis of time, with the buttons and the line of words that scripts bring to life."""
    best = max((p.score or 0.0 for lane in timeline.lanes for p in (*lane.guesses, *lane.others)), default=0.0)
    lanes = ''.join(_lane(lane, timeline.seconds, best, names) for lane in timeline.lanes)
    if not lanes:
        lanes = '<p class="note">Nothing is true here, and nothing is predicted.</p>'
    label = markup.text(f'Timeline of {timeline.video}: {_words(timeline)}')
    more = ''
    if timeline.hidden:
        rest = len(timeline.hidden) - HIDDEN_NAMED
        named = markup.listing(timeline.hidden[:HIDDEN_NAMED]) + (f' and {rest} more classes' if rest > 0 else '')
        more = f'<p class="note">Also there: {named}.</p>'
    buttons = (
        '<p class="steer" hidden><button type="button" class="back" aria-label="Segment before">◀ segment</button>'
        '<button type="button" class="on" aria-label="Segment after">segment ▶</button>'
        '<button type="button" class="zoom" aria-pressed="false">zoom</button><span class="said"></span></p>'
    )
    return (
        f'<div class="reel"><div class="lanes" role="img" aria-label="{label}" '
        f'data-name="{markup.text(timeline.video)}" data-seconds="{timeline.seconds:.3f}">'
        f'{_axis(timeline.seconds)}{lanes}<b class="now"></b></div></div>'
        f'{buttons}{more}'
    )


def _lane(lane: Lane, seconds: float, best: float, names: tuple[str, str]) -> str:
    rows = [('true', 'true', lane.truth), ('guess', names[0] or 'predicted', lane.guesses)]
    if names[1]:
        rows.append(('other', names[1], lane.others))
    bands = ''
    for kind, who, pieces in rows:
        # Wrong ones are drawn over right ones, which are higher.
        ordered = sorted(pieces, key=lambda piece: piece.right is False)
        drawn = ''.join(_piece(kind, who, lane.name, piece, seconds, best) for piece in ordered)
        bands += f'<span class="band">{drawn}</span>'
    return f'<div class="lane"><span class="class">{markup.text(lane.name)}</span>{bands}</div>'


def _piece(kind: str, who: str, label: str, piece: Piece, seconds: float, best: float) -> str:
    place = f'left:{percent(piece.start, seconds)};width:{percent(piece.end - piece.start, seconds)}'
    said = f'{who}: {label}'
    style = kind
    if piece.score is not None:
        place += f';--strength:{FAINTEST + (1 - FAINTEST) * (piece.score / best if best > 0 else 1.0):.2f}'
        said += f' {piece.score:.2f}' + ('' if piece.right else ', wrong')
        style += '' if piece.right else ' wrong'
    title = f'{said}, {piece.start:.1f} to {piece.end:.1f} s'
    return (
        f'<i class="{style}" style="{place}" data-from="{piece.start:.3f}" data-to="{piece.end:.3f}" '
        f'data-said="{markup.text(said)}" title="{markup.text(title)}"></i>'
    )


def _axis(seconds: float) -> str:
    marks = [time for time in ticks(0.0, seconds, 6) if time <= seconds]
    texts = ''.join(
        f'<i{" class=late" if time > LATE * seconds else ""} style="left:{percent(time, seconds)}">{clock(time)}</i>'
        for time in marks
    )
    return f'<div class="axis">{texts}</div>'


def clock(time: float) -> str:
    """`7.5 s`, from a minute on `2:05`."""
    if time < 60:
        return f'{time:g} s'
    return f'{int(time) // 60}:{time % 60:02.0f}'


def _words(timeline: Timeline) -> str:
    return '; '.join(
        f'{lane.name} true at {_spans(lane.truth)}, predicted at {_spans(lane.guesses)}' for lane in timeline.lanes
    )


def _spans(pieces: Sequence[Piece]) -> str:
    return ', '.join(f'{piece.start:.1f}-{piece.end:.1f} s' for piece in pieces) or 'no time'


def _table(timeline: Timeline, names: tuple[str, str]) -> str:
    rows = []
    for lane in timeline.lanes:
        for who, pieces in (('true', lane.truth), (names[0] or 'predicted', lane.guesses), (names[1], lane.others)):
            for piece in pieces:
                judged = '' if piece.right is None else ('right' if piece.right else 'wrong')
                times = (f'{piece.start:.2f}', f'{piece.end:.2f}')
                rows.append((lane.name, who, *times, markup.number(piece.score), judged or '–'))
    return markup.table(('class', 'by', 'from, s', 'to, s', 'score', 'at tIoU 0.5'), rows)


KEYS = (
    '<span><i class="swatch true"></i>true</span>'
    '<span><i class="swatch guess"></i>predicted and right: a true segment at a tIoU of 0.5</span>'
    '<span><i class="swatch guess wrong"></i>predicted and wrong (half as high)</span>'
    '<span>the fainter, the lower the score</span>'
)


def keys(other: str) -> str:
    """What the colours mean; other: the name of a second run, '' without one."""
    order = f'<span>bands from above: true, this run, {markup.text(other)}</span>' if other else ''
    return f'<p class="keys">{KEYS}{order}<span>click, or arrow keys, to go there</span></p>'
