"""Figures of several lines over steps, and of how a histogram changes with steps: small inline SVGs, as in plots.py."""

import dataclasses
import math
from collections.abc import Sequence

from vidloc.report import markup, plots

# A heat map has at most so many columns; more steps are averaged in runs of neighbours.
HEAT_COLUMNS = 48


@dataclasses.dataclass(frozen=True)
class Line:
    """What a line is called, its colour in CSS, and its points (step, value); those not finite are left out."""

    name: str
    colour: str
    points: Sequence[tuple[int, float]]


def ramp(place: int, count: int) -> str:
    """The colour of the first to the last of `count` things of one kind that have an order and no meaning."""
    share = 100 * place / max(count - 1, 1)
    return f'color-mix(in oklch,var(--g0),var(--g2) {share:.0f}%)'


def keys(entries: Sequence[Line]) -> str:
    """What the colours mean."""
    each = (f'<span><i class="swatch of" style="--of:{e.colour}"></i>{markup.text(e.name)}</span>' for e in entries)
    return f'<p class="keys">{"".join(each)}</p>'


def lines(title: str, entries: Sequence[Line], *, keyed: bool = True, zero: bool = False) -> str:
    """Several lines in one frame, with a table. keyed: with a key; without where many figures share one. zero: the
    frame holds 0, for what is compared with nothing at all."""
    shown = []
    for entry in entries:
        points = [point for point in entry.points if math.isfinite(point[1])]
        if points:
            shown.append(dataclasses.replace(entry, points=plots.averaged(points)[0]))
    caption = f'<figcaption>{markup.text(title)}</figcaption>'
    if not shown:
        return f'<figure class="curve">{caption}<p class="note">No finite value was logged.</p></figure>'
    least = [(shown[0].points[0][0], 0.0)] if zero else []
    axes = plots.Axes.around([point for entry in shown for point in entry.points] + least)
    parts = [axes.drawn()]
    for entry in shown:
        drawn = f'<title>{markup.text(entry.name)}</title>'
        if len(entry.points) > 1:
            drawn += f'<polyline points="{axes.path(entry.points)}"/>'
        if len(entry.points) <= 20:
            dots = (axes.place(*point) for point in entry.points)
            drawn += ''.join(f'<circle cx="{x}" cy="{y}" r="2.4"/>' for x, y in dots)
        parts.append(f'<g style="--of:{entry.colour}">{drawn}</g>')
    ends = ', '.join(f'{e.name} from {e.points[0][1]:.3g} to {e.points[-1][1]:.3g}' for e in shown)
    key = keys(shown) if keyed else ''
    svg = _svg('many', f'{title} over steps {axes.first} to {axes.last}: {ends}', ''.join(parts))
    return f'<figure class="curve">{caption}{svg}{key}{markup.details("Table", _table(shown))}</figure>'


def heat(title: str, rows: Sequence[tuple[str, Sequence[tuple[int, float]]]], *, unit: str) -> str:
    """Shares over steps: a column a step, a row each of `rows` (name of its lower edge, points), the first lowest.

    Rows are those of one histogram: of the same steps, and the shares of a step sum to 1. The darkest cell is the
    largest share there is. unit: what the shares are of.
    """
    entries = [Line(name, '', plots.averaged(points, HEAT_COLUMNS)[0]) for name, points in rows]
    steps = [step for step, _ in entries[0].points]
    top = max(share for entry in entries for _, share in entry.points) or 1.0
    wide = (plots.WIDTH - plots.LEFT - plots.RIGHT) / len(steps)
    high = (plots.HEIGHT - plots.TOP - plots.BOTTOM) / len(rows)
    parts = [
        f'<rect class="ground" x="{plots.LEFT}" y="{plots.TOP}" width="{wide * len(steps):.1f}" '
        f'height="{high * len(rows):.1f}"/>'
    ]
    for j, entry in enumerate(entries):
        y = plots.HEIGHT - plots.BOTTOM - (j + 1) * high
        for i, (step, share) in enumerate(entry.points):
            said = markup.text(f'step {step}, from {entry.name}: {share:.0%}')
            parts.append(
                f'<rect x="{plots.LEFT + i * wide:.2f}" y="{y:.2f}" width="{wide + 0.05:.2f}" '
                f'height="{high:.2f}" fill-opacity="{share / top:.3f}"><title>{said}</title></rect>'
            )
    # A column tells of the steps up to its own, so that the first begins where there was none.
    first = max(2 * steps[0] - steps[1], 0) if len(steps) > 1 else steps[0] - 1
    parts.append(plots.Axes(first, steps[-1], (0.0, 0.5, 1.0)).drawn())
    most = max(entries, key=lambda entry: entry.points[-1][1])
    end = f'at the end {most.points[-1][1]:.0%} {unit} from {most.name} on'
    alt = f'{title} over steps {steps[0]} to {steps[-1]}: {end}'
    scale = f'<p class="keys"><span><i class="swatch shade"></i>darkest: {top:.0%} {markup.text(unit)}</span></p>'
    return (
        f'<figure class="curve"><figcaption>{markup.text(title)}</figcaption>'
        f'{_svg("heat", alt, "".join(parts))}{scale}{markup.details("Table", _table(entries))}</figure>'
    )


def _svg(style: str, alt: str, content: str) -> str:
    words = markup.text(alt)
    return (
        f'<svg class="{style}" viewBox="0 0 {plots.WIDTH} {plots.HEIGHT}" role="img" aria-label="{words}">'
        f'{content}</svg>'
    )


def _table(entries: Sequence[Line]) -> str:
    values = [dict(entry.points) for entry in entries]
    steps = sorted(set().union(*values))
    rows = [(step, *(markup.compact(each.get(step)) for each in values)) for step in steps]
    return markup.table(('step', *(entry.name for entry in entries)), rows)
