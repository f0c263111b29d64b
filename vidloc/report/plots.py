"""Figures as inline SVG and HTML. They take their colours from the page's style, so they follow light and dark.

Bars, timelines and confusion matrices are HTML, which keeps its text size on a phone; curves are small SVGs, one
a metric, that the page lays out in as many columns as fit.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from vidloc.report import markup

# A curve is drawn with at most so many points; more are averaged in runs of neighbours.
CURVE_POINTS = 80
# A larger confusion matrix is replaced by its largest entries off the diagonal.
MATRIX_CLASSES = 30
CONFUSIONS_LISTED = 25
# Above this share of a row the shade is so dark that white reads better on it than ink.
STRONG = 0.75
# Scores below this are left out of a timeline; its table has them.
LOWEST_DRAWN = 0.1

WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 12, 26


@dataclasses.dataclass(frozen=True)
class Bar:
    """One class: its score, where its mark (prevalence or chance) stands, and a second run's score.

    group: a word such as head, mid or tail, or '' where classes have none; it gives colour and tag.
    notes: (column name, text) pairs that only the table shows.
    """

    name: str
    value: float | None
    mark: float | None
    group: str = ''
    other: float | None = None
    notes: tuple[tuple[str, str], ...] = ()


def bars(
    entries: Sequence[Bar],
    *,
    score: str,
    mark: str,
    group_style: Mapping[str, int],
    other: str = '',
    what: str = 'class',
) -> str:
    """Horizontal bars in the order given, on a scale from 0 to the largest entry (rounded up), and their table.

    Args:
      entries: the classes, or what else has a bar.
      score, mark: what value and mark are called; mark is '' where nothing is marked.
      group_style: {group: index of its colour, 0 to 2}; a group that is absent is drawn neutral.
      other: the name of the second run; '' where there is none.
      what: what has a bar, as the heading of the table.
    """
    numbers = [n for bar in entries for n in (bar.value, bar.mark, bar.other) if n is not None]
    top = round_up(max(numbers, default=1.0))
    rows = []
    for bar in entries:
        style = f' g{group_style[bar.group]}' if bar.group in group_style else ''
        marks = ''
        if bar.other is not None:
            marks += f'<i class="other" style="left:{percent(bar.other, top)}"></i>'
        if bar.mark is not None:
            marks += f'<i class="mark" style="left:{percent(bar.mark, top)}"></i>'
        fill = f'<i class="fill{style}" style="width:{percent(bar.value or 0.0, top)}"></i>'
        change = ''
        if other:
            known = bar.value is not None and bar.other is not None
            change = f'<span class="delta">{markup.signed(bar.value - bar.other if known else None)}</span>'
        tag = f'<span class="tag{style}">{markup.text(bar.group)}</span>' if group_style else ''
        rows.append(
            f'<div class="bar"><span class="name" title="{markup.text(bar.name)}">{markup.text(bar.name)}</span>'
            f'{tag}<span class="track">{fill}{marks}</span>'
            f'<span class="value">{markup.number(bar.value)}</span>{change}</div>'
        )
    shown = [bar for bar in entries if bar.value is not None]
    alt = f'Bars of {score} for {len(shown)} {"classes" if what == "class" else "rows"}'
    if shown:
        best, worst = max(shown, key=lambda bar: bar.value), min(shown, key=lambda bar: bar.value)
        alt += f', from {worst.name} {markup.number(worst.value)} to {best.name} {markup.number(best.value)}'
    keys = [f'<span><i class="swatch g{i}"></i>{markup.text(g)}</span>' for g, i in group_style.items()]
    if mark:
        keys.append(f'<span><i class="swatch mark"></i>{markup.text(mark)}</span>')
    if other:
        keys.append(f'<span><i class="swatch other"></i>{markup.text(other)} (second run)</span>')
        keys.append('<span>last column: this run minus the second</span>')
    columns = 'wide' if group_style else ''
    columns += ' compared' if other else ''
    return (
        f'<p class="keys">{"".join(keys)}<span>full width: {top:g}</span></p>'
        f'<div class="bars {columns}" role="img" aria-label="{markup.text(alt)}">{"".join(rows)}</div>'
        + markup.details('Table of these figures', _bar_table(entries, what, score, mark, bool(group_style), other))
    )


def _bar_table(entries, what, score, mark, grouped, other) -> str:
    headers = [what, *(['group'] if grouped else []), score, *([mark] if mark else [])]
    headers += [f'{score}, {other}', 'difference'] if other else []
    headers += [name for name, _ in entries[0].notes] if entries else []
    rows = []
    for bar in entries:
        row = [bar.name, *([bar.group or '–'] if grouped else [])]
        row += [markup.number(bar.value), *([markup.number(bar.mark)] if mark else [])]
        if other:
            known = bar.value is not None and bar.other is not None
            row += [markup.number(bar.other), markup.signed(bar.value - bar.other if known else None)]
        rows.append(row + [content for _, content in bar.notes])
    return markup.table(headers, rows)


@dataclasses.dataclass(frozen=True)
class Axes:
    """The frame of a small SVG over steps: from the first step to the last, from the lowest mark to the highest."""

    first: int
    last: int
    ys: Sequence[float]

    @classmethod
    def around(cls, points: Sequence[tuple[int, float]]) -> 'Axes':
        """Room for all of these points, at least one."""
        steps, values = [step for step, _ in points], [value for _, value in points]
        return cls(min(steps), max(steps), ticks(min(values), max(values)))

    def place(self, step: float, value: float) -> tuple[float, float]:
        """(x, y) in the SVG."""
        across = (step - self.first) / (self.last - self.first) if self.last > self.first else 0.5
        up = (value - self.ys[0]) / (self.ys[-1] - self.ys[0])
        x = LEFT + across * (WIDTH - LEFT - RIGHT)
        return round(x, 1), round(HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1)

    def path(self, points: Sequence[tuple[int, float]]) -> str:
        """The points of a polyline."""
        return ' '.join('{},{}'.format(*self.place(*point)) for point in points)

    def drawn(self) -> str:
        """Lines and words of the frame."""
        parts = []
        for y in self.ys:
            _, at = self.place(self.first, y)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>')
            parts.append(f'<text class="tick" x="{LEFT - 6}" y="{at + 4}" text-anchor="end">{_tick(y)}</text>')
        for step in _step_ticks(self.first, self.last):
            at, _ = self.place(step, self.ys[0])
            anchor = 'end' if at > WIDTH - 40 else 'middle'
            parts.append(f'<text class="tick" x="{at}" y="{HEIGHT - 8}" text-anchor="{anchor}">{step}</text>')
        return ''.join(parts)


def curve(
    title: str,
    points: Sequence[tuple[int, float]],
    others: Sequence[tuple[int, float]] = (),
    *,
    names=('', ''),
) -> str:
    """One metric over steps as a small SVG with its table; `others` is the second run's, drawn dashed.

    Values that are not finite are left out and counted in the caption.
    """
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    finite_others = [(step, value) for step, value in others if math.isfinite(value)]
    lost = len(points) - len(finite)
    caption = f'<figcaption>{markup.text(title)}'
    caption += f' <span class="warn">({lost} values that are not finite are left out)</span>' if lost else ''
    caption += '</figcaption>'
    if not finite:
        return f'<figure class="curve">{caption}<p class="note">No finite value was logged.</p></figure>'
    shown, size = averaged(finite)
    shown_others, _ = averaged(finite_others)
    everything = [*shown, *shown_others]
    axes = Axes.around(everything)
    parts = [axes.drawn()]
    for data, style in ((shown_others, 'line second'), (shown, 'line')):
        path = axes.path(data)
        if len(data) > 1:
            parts.append(f'<polyline class="{style}" points="{path}"/>')
        if 0 < len(data) <= 20:
            dots = (axes.place(*point) for point in data)
            parts.extend(f'<circle class="{style}" cx="{x}" cy="{y}" r="2.6"/>' for x, y in dots)
    end = shown[-1]
    alt = f'{title} over steps {axes.first} to {axes.last}: starts at {shown[0][1]:.4g}, ends at {end[1]:.4g}'
    svg = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{markup.text(alt)}">'
        f'<title>{markup.text(alt)}</title>{"".join(parts)}</svg>'
    )
    note = f'Each point is the mean of up to {size} logged values.' if size > 1 else ''
    headers = ['step', names[0] or 'value']
    rows = [(step, markup.compact(value)) for step, value in shown]
    tables = markup.table(headers, rows, caption=note)
    if shown_others:
        rows = [(step, markup.compact(value)) for step, value in shown_others]
        tables += markup.table(['step', names[1] or 'second run'], rows)
    final = f'<p class="final">last {markup.compact(finite[-1][1])} at step {finite[-1][0]}</p>'
    return f'<figure class="curve">{caption}{svg}{final}{markup.details("Table", tables)}</figure>'


def averaged(points: Sequence[tuple[int, float]], most: int = CURVE_POINTS) -> tuple[list[tuple[int, float]], int]:
    """At most so many points, means of runs of neighbours at their last step; the length of a run."""
    size = max(1, math.ceil(len(points) / most))
    runs = [points[i : i + size] for i in range(0, len(points), size)]
    return [(run[-1][0], math.fsum(value for _, value in run) / len(run)) for run in runs], size


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round numbers in even steps that enclose [low, high], about `wanted` intervals, at least one."""
    if high <= low:
        low, high = (low - 0.5, high + 0.5) if low == 0 else (low - abs(low) / 2, high + abs(high) / 2)
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    start, stop = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(start, max(stop, start + 1) + 1)]


def confusion(classes: Sequence[str], counts: Sequence[Sequence[float]], *, unit: str = 'clips') -> str:
    """Rows are the truth, columns the prediction, shaded by the share of the row; unit: what is counted.

    Above MATRIX_CLASSES classes the CONFUSIONS_LISTED largest entries off the diagonal are listed instead.
    """
    totals = [sum(row) for row in counts]
    pairs = sorted(
        (
            (counts[i][j], classes[i], classes[j], counts[i][j] / totals[i])
            for i in range(len(classes))
            for j in range(len(classes))
            if i != j and _whole(counts[i][j])
        ),
        key=lambda pair: (-pair[0], pair[1], pair[2]),
    )
    if len(classes) > MATRIX_CLASSES:
        note = (
            f'<p class="note">{len(classes)} classes are too many for a matrix; these are the '
            f'{min(len(pairs), CONFUSIONS_LISTED)} most frequent confusions.</p>'
        )
        rows = [(true, taken, _whole(n), f'{100 * share:.0f} %') for n, true, taken, share in pairs[:CONFUSIONS_LISTED]]
        table = markup.table(['true class', 'taken for', unit, 'of the true class'], rows)
        return f'{note}<div class="plain">{table}</div>'
    head = ''.join(f'<th scope="col"><span>{markup.text(name)}</span></th>' for name in classes)
    body = []
    for i, name in enumerate(classes):
        cells = []
        for j, n in enumerate(counts[i]):
            share = n / totals[i] if totals[i] else 0.0
            style = 'diagonal' if i == j else ''
            style += ' strong' if share > STRONG else ''
            title = f'{name} taken for {classes[j]}: {_whole(n)} of {_whole(totals[i])} {unit}'
            cells.append(
                f'<td class="{style.strip()}" style="--s:{share:.3f}" title="{markup.text(title)}">'
                f'{_whole(n) or "·"}</td>'
            )
        body.append(f'<tr><th scope="row">{markup.text(name)}</th>{"".join(cells)}</tr>')
    worst = ''
    if pairs:
        worst = f' Most frequent confusion: {pairs[0][1]} taken for {pairs[0][2]}, {_whole(pairs[0][0])} {unit}.'
    return (
        '<p class="note">Rows: true class. Columns: predicted class. Shade: share of the row.'
        f'{markup.text(worst)}</p><div class="scroll"><table class="confusion">'
        f'<thead><tr><th></th>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
    )


def _whole(number: float) -> int:
    """Rounded as it is read: labels that are spread over classes give fractions."""
    return math.floor(number + 0.5)


def versus(value: float | None, baseline: float | None, baseline_name: str) -> str:
    """Two thin bars on one scale from 0: a value and what it is measured against."""
    top = max(value or 0.0, baseline or 0.0) or 1.0
    return (
        f'<div class="versus" aria-hidden="true"><i class="ours" style="width:{percent(value or 0.0, top)}"></i>'
        f'<i class="base" style="width:{percent(baseline or 0.0, top)}" title="{markup.text(baseline_name)}"></i>'
        '</div>'
    )


@dataclasses.dataclass(frozen=True)
class Span:
    """What a timeline says of a class from `start` to `end` seconds: whether it is true, its best score."""

    start: float
    end: float
    truth: bool
    score: float | None


def timeline(rows: Sequence[tuple[str, Sequence[Span]]], seconds: float, keyframes: Sequence[float]) -> str:
    """A row a class: above, where it is true (solid); below, predicted scores (outlined, height by score)."""
    parts = []
    for name, spans in rows:
        pieces = []
        for span in spans:
            place = f'left:{percent(span.start, seconds)};width:{percent(span.end - span.start, seconds)}'
            when = f'{span.start:.1f} to {span.end:.1f} s'
            if span.truth:
                title = markup.text(f'true: {name}, {when}')
                pieces.append(f'<i class="true" style="{place}" title="{title}"></i>')
            if span.score is not None and span.score >= LOWEST_DRAWN:
                title = markup.text(f'predicted: {name} {span.score:.2f}, {when}')
                height = f'{50 * min(max(span.score, 0.0), 1.0):.0f}%'
                pieces.append(f'<i class="guess" style="{place};height:{height}" title="{title}"></i>')
        label = markup.text(name)
        parts.append(
            f'<div class="row"><span class="name" title="{label}">{label}</span>'
            f'<span class="track">{"".join(pieces)}</span></div>'
        )
    marks = ''.join(f'<i style="left:{percent(t, seconds)}"></i>' for t in keyframes)
    said = '; '.join(
        f'{name} true at ' + (', '.join(f'{s.start:.1f}-{s.end:.1f} s' for s in spans if s.truth) or 'no time')
        for name, spans in rows
    )
    return (
        f'<div class="timeline" role="img" aria-label="{markup.text("Timeline: " + said)}">'
        f'<div class="row axis"><span class="name">keyframes</span><span class="track">{marks}</span></div>'
        f'{"".join(parts)}<div class="over"><b class="head"></b></div></div>'
    )


def percent(value: float, top: float) -> str:
    """A share of `top` as a length in CSS, within 0 to 100 %."""
    return f'{100 * min(max(value / top, 0.0), 1.0) if top > 0 else 0.0:.2f}%'


def round_up(value: float) -> float:
    """The next round number, 1 for 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 2.5, 4, 5, 6, 8, 10) if factor * power >= value * 0.9999)


def _tick(value: float) -> str:
    return f'{value:.3g}'.replace('e-0', 'e-').replace('-', '−')


def _step_ticks(first: int, last: int) -> list[int]:
    inside = [round(t) for t in ticks(first, last, 5) if first <= t <= last]
    return sorted(set(inside)) or [first]
