"""Figures over the classes of boxes: differences between runs, label frequency, precision curves, kinds of errors.

As in plots.py: lists are HTML, which keeps its text size on a phone, curves are small SVGs; numbers stand in tables.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from vidloc.report import markup
from vidloc.report.plots import percent, round_up, ticks

# So many precision curves are open, the rest is folded.
CURVES_SHOWN = 16
# Recalls at which the table of precision curves gives numbers.
_RECALLS_LISTED = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclasses.dataclass(frozen=True)
class Class:
    """One class: its score here and in a second run, its labels in training, its group ('' for none)."""

    name: str
    value: float | None
    count: float | None = None
    group: str = ''
    other: float | None = None

    @property
    def change(self) -> float | None:
        """This run minus the second."""
        return self.value - self.other if self.value is not None and self.other is not None else None


def differences(entries: Sequence[Class], *, score: str, other: str, group_style: Mapping[str, int]) -> str:
    """A bar a class, right of zero where this run is better, in the order given, beside its log label frequency.

    Arnab et al. 2022, figures 1 and 3. group_style: {group: index of its colour, 0 to 2}.
    """
    changes = [entry.change for entry in entries if entry.change is not None]
    up, down = max([0.0, *changes]), -min([0.0, *changes])
    span = (up + down) or 1.0
    most = math.log10(max([10.0, *(entry.count for entry in entries if entry.count)]))
    rows = []
    for entry in entries:
        style = f' g{group_style[entry.group]}' if entry.group in group_style else ''
        fill = ''
        if entry.change is not None:
            left = down + min(entry.change, 0.0)
            place = f'left:{percent(left, span)};width:{percent(abs(entry.change), span)}'
            fill = f'<i class="fill{style}" style="{place}"></i>'
        log = math.log10(entry.count) if entry.count and entry.count >= 1 else 0.0
        often = markup.count(round(entry.count)) if entry.count is not None else '–'
        tag = f'<span class="tag{style}">{markup.text(entry.group)}</span>' if group_style else ''
        name = markup.text(entry.name)
        rows.append(
            f'<div class="bar"><span class="name" title="{name}">{name}</span>{tag}'
            f'<span class="often" title="{often} training labels"><i style="width:{percent(log, most)}"></i></span>'
            f'<span class="track">{fill}<i class="zero" style="left:{percent(down, span)}"></i></span>'
            f'<span class="value">{markup.signed(entry.change)}</span></div>'
        )
    better = sum(change > 0 for change in changes)
    alt = f'Difference of {score} to {other}: higher in {better} of {len(changes)} classes'
    keys = [f'<span><i class="swatch g{i}"></i>{markup.text(g)}</span>' for g, i in group_style.items()]
    keys.append('<span><i class="swatch often"></i>training labels, log scale</span>')
    table = markup.table(
        ('class', *(['group'] if group_style else []), 'training labels', score, f'{score}, {other}', 'difference'),
        [
            (e.name, *([e.group or '–'] if group_style else []), markup.compact(e.count))
            + (markup.number(e.value), markup.number(e.other), markup.signed(e.change))
            for e in entries
        ],
    )
    return (
        f'<p class="keys">{"".join(keys)}</p>'
        f'<div class="bars change{" wide" if group_style else ""}" role="img" aria-label="{markup.text(alt)}">'
        f'{"".join(rows)}</div>' + markup.details('Table of these figures', table)
    )


def by_frequency(
    entries: Sequence[Class], *, score: str, group_style: Mapping[str, int], limits: tuple[int, int]
) -> str:
    """A dot a class: across, its labels in training (log scale); up, its score. Lines at the limits of the groups."""
    shown = [entry for entry in entries if entry.value is not None and entry.count and entry.count >= 1]
    if len(shown) < 2:
        return ''
    width, height, left, right, top, bottom = 400, 230, 38, 12, 10, 40
    first = math.floor(math.log10(min(entry.count for entry in shown)))
    last = max(math.ceil(math.log10(max(entry.count for entry in shown))), first + 1)
    ys = ticks(0.0, max(entry.value for entry in shown) or 1.0)

    def across(count: float) -> float:
        return round(left + (math.log10(count) - first) / (last - first) * (width - left - right), 1)

    def up(value: float) -> float:
        return round(height - bottom - value / ys[-1] * (height - top - bottom), 1)

    parts = []
    for y in ys:
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{up(y)}" y2="{up(y)}"/>')
        parts.append(f'<text class="tick" x="{left - 6}" y="{up(y) + 4}" text-anchor="end">{y:.2g}</text>')
    for power in range(first, last + 1):
        anchor = 'end' if power == last else 'middle'
        x = across(10.0**power) + (right if power == last else 0)
        words = f'{10 ** (power % 3)}{("", "k", "M", "G")[power // 3]}'
        parts.append(f'<text class="tick" x="{x}" y="{height - 22}" text-anchor="{anchor}">{words}</text>')
    for limit in limits:
        if 10.0**first < limit < 10.0**last:
            x = across(limit)
            parts.append(f'<line class="limit" x1="{x}" x2="{x}" y1="{top}" y2="{height - bottom}"/>')
    middle = (left + width - right) / 2
    parts.append(f'<text class="tick" x="{middle}" y="{height - 5}" text-anchor="middle">training labels</text>')
    for entry in shown:
        style = f'g{group_style[entry.group]}' if entry.group in group_style else ''
        said = f'{entry.name}: {markup.number(entry.value)}, {markup.count(round(entry.count))} training labels'
        parts.append(
            f'<g class="dot {style}"><title>{markup.text(said)}</title>'
            f'<circle cx="{across(entry.count)}" cy="{up(entry.value)}" r="4"/></g>'
        )
    alt = f'{score} of {len(shown)} classes over their training labels'
    return (
        f'<figure class="curve wide"><figcaption>{markup.text(score)} over label frequency</figcaption>'
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{markup.text(alt)}">{"".join(parts)}</svg>'
        '</figure>'
    )


@dataclasses.dataclass(frozen=True)
class Precision:
    """A class's precision at even recalls from 0 to 1 (None: unknown), and a second run's, () where there is none."""

    name: str
    value: float | None
    points: Sequence[float | None]
    others: Sequence[float | None] = ()


def precision_curves(entries: Sequence[Precision], *, score: str) -> str:
    """A small curve a class in the order given, CURVES_SHOWN open and the others folded, and one table."""
    known = [entry for entry in entries if entry.value is not None]
    figures = [_precision_curve(entry, score) for entry in known]
    open_ones, folded = figures[:CURVES_SHOWN], figures[CURVES_SHOWN:]
    rows = [
        (entry.name, markup.number(entry.value))
        + tuple(markup.number(entry.points[round(r * (len(entry.points) - 1))], 2) for r in _RECALLS_LISTED)
        for entry in known
    ]
    table = markup.table(('class', score, *(f'at recall {recall:g}' for recall in _RECALLS_LISTED)), rows)
    content = f'<div class="small-curves">{"".join(open_ones)}</div>'
    if folded:
        rest = f'<div class="small-curves">{"".join(folded)}</div>'
        content += markup.details(f'The other {len(folded)} classes', rest)
    return content + markup.details('Table of precisions', table)


def _precision_curve(entry: Precision, score: str) -> str:
    width, height, edge = 150, 112, 4

    def path(points: Sequence[float | None]) -> str:
        last = len(points) - 1
        places = (
            (edge + i / last * (width - 2 * edge), height - edge - (point or 0.0) * (height - 2 * edge))
            for i, point in enumerate(points)
        )
        return ' '.join(f'{x:.1f},{y:.1f}' for x, y in places)

    grid = ''.join(
        f'<line class="grid" x1="{edge}" x2="{width - edge}" y1="{y}" y2="{y}"/>'
        for y in (edge, height / 2, height - edge)
    )
    grid += f'<line class="grid" x1="{width / 2}" x2="{width / 2}" y1="{edge}" y2="{height - edge}"/>'
    second = f'<polyline class="line second" points="{path(entry.others)}"/>' if entry.others else ''
    alt = f'Precision over recall of {entry.name}, {score} {markup.number(entry.value)}'
    name = markup.text(entry.name)
    return (
        f'<figure class="small"><figcaption title="{name}">{name}</figcaption>'
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{markup.text(alt)}">{grid}{second}'
        f'<polyline class="line" points="{path(entry.points)}"/></svg>'
        f'<p class="final">{markup.text(score)} {markup.number(entry.value)}</p></figure>'
    )


def stacked(rows: Sequence[tuple[str, Mapping[str, int]]], *, label: str) -> str:
    """A bar a row, cut by the share of each kind, all of the same length; and a table of the numbers."""
    kinds = list(rows[0][1]) if rows else []
    lines = []
    for name, numbers in rows:
        total = sum(numbers.values())
        pieces, left = '', 0.0
        for place, kind in enumerate(kinds):
            if numbers[kind]:
                said = f'{name}: {numbers[kind]} of {total} {kind}'
                style = f'left:{percent(left, total)};width:{percent(numbers[kind], total)}'
                pieces += f'<i class="k{place}" style="{style}" title="{markup.text(said)}"></i>'
                left += numbers[kind]
        shown = markup.text(name)
        lines.append(
            f'<div class="bar"><span class="name" title="{shown}">{shown}</span>'
            f'<span class="track parts">{pieces}</span><span class="value">{markup.count(total)}</span></div>'
        )
    keys = ''.join(f'<span><i class="swatch k{i}"></i>{markup.text(kind)}</span>' for i, kind in enumerate(kinds))
    table = markup.table((label, *kinds), [(name, *(numbers[kind] for kind in kinds)) for name, numbers in rows])
    alt = f'Kinds of detections of {len(rows)} rows'
    return (
        f'<p class="keys">{keys}</p><div class="bars" role="img" aria-label="{markup.text(alt)}">{"".join(lines)}</div>'
        + markup.details('Table of these numbers', table)
    )


def levels(rows: Sequence[tuple[str, float | None]], *, label: str) -> str:
    """Bars of a few figures that are to be compared, on one scale from 0."""
    top = round_up(max([value for _, value in rows if value is not None], default=1.0))
    lines = ''.join(
        f'<div class="bar"><span class="name" title="{markup.text(name)}">{markup.text(name)}</span>'
        f'<span class="track"><i class="fill" style="width:{percent(value or 0.0, top)}"></i></span>'
        f'<span class="value">{markup.number(value)}</span></div>'
        for name, value in rows
    )
    said = '; '.join(f'{name} {markup.number(value)}' for name, value in rows)
    return f'<div class="bars levels" role="img" aria-label="{markup.text(f"{label}: {said}")}">{lines}</div>'
