"""Figures of an error analysis of segments: columns over bins, and what detections are, block by block.

As in plots.py: HTML, which keeps its text size on a phone and takes its colours from the page; numbers in tables.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from vidloc.report import markup
from vidloc.report.plots import percent, round_up


@dataclasses.dataclass(frozen=True)
class Column:
    """A bin: its name, what is in it, its value, and a second run's; amount: how many true segments it holds."""

    name: str
    range: str
    value: float | None
    amount: int
    other: float | None = None


@dataclasses.dataclass(frozen=True)
class Chart:
    """A characteristic with its bins."""

    title: str
    columns: tuple[Column, ...]


def charts(
    entries: Sequence[Chart],
    *,
    score: str,
    level: float | None = None,
    other_level: float | None = None,
    shares: bool = False,
    names: tuple[str, str] = ('', ''),
) -> str:
    """Columns of every bin, one chart a characteristic, all on one scale from 0, and a table.

    score: what the values are called. level, other_level: a line across, of all segments, of this run and a second one.
    shares: values are written as percentages. names: of the two runs; the second is '' without one.
    """
    values = [v for chart in entries for column in chart.columns for v in (column.value, column.other)]
    top = round_up(max([v for v in (*values, level, other_level) if v is not None], default=1.0))

    def said(value: float | None) -> str:
        return '–' if value is None else f'{100 * value:.0f} %' if shares else f'{100 * value:.1f}'

    def column(entry: Column) -> str:
        bars = _bar(entry.value, top, '', said)
        title = f'{entry.range}: {said(entry.value)}, {entry.amount} segments'
        if names[1]:
            bars += _bar(entry.other, top, 'second', said)
            title += f'; {names[1]}: {said(entry.other)}'
        return f'<div class="column" title="{markup.text(title)}">{bars}</div>'

    figures = []
    for chart in entries:
        lines = ''.join(
            f'<i class="level{style}" style="bottom:{100 * value / top:.2f}%"></i>'
            for style, value in ((' second', other_level), ('', level))
            if value is not None
        )
        under = ''.join(
            f'<span>{markup.text(entry.name)}<small>{markup.text(entry.range)}</small></span>'
            for entry in chart.columns
        )
        words = ', '.join(f'{entry.name} ({entry.range}) {said(entry.value)}' for entry in chart.columns)
        figures.append(
            f'<figure class="chart"><figcaption>{markup.text(chart.title)}</figcaption>'
            f'<div class="columns" role="img" aria-label="{markup.text(f"{score} by {chart.title}: {words}")}">'
            f'{lines}{"".join(column(entry) for entry in chart.columns)}</div><div class="under">{under}</div></figure>'
        )
    headers = [
        'characteristic',
        'bin',
        'range',
        'true segments',
        score,
        *([f'{score}, {names[1]}'] if names[1] else []),
    ]
    rows = [
        (chart.title, entry.name, entry.range, entry.amount, said(entry.value))
        + ((said(entry.other),) if names[1] else ())
        for chart in entries
        for entry in chart.columns
    ]
    return f'<div class="charts">{"".join(figures)}</div>' + markup.details(
        'Table of these figures', markup.table(headers, rows)
    )


def _bar(value: float | None, top: float, style: str, said) -> str:
    height = 0.0 if value is None else value / top
    classes = f'{style} none' if value is None else style
    return f'<i class="{classes.strip()}" style="height:{100 * height:.2f}%"><b>{said(value)}</b></i>'


def profile(blocks: Sequence[Mapping[str, float | None]]) -> str:
    """A bar a block, cut by the share of each kind of detection, and a table; the first kind is that of right ones.

    Blocks at the end in which there is nothing are left out.
    """
    kinds = list(blocks[0]) if blocks else []
    rows = []
    while blocks and all(share is None for share in blocks[-1].values()):
        blocks = blocks[:-1]
    for number, block in enumerate(blocks, 1):
        pieces, left = '', 0.0
        for place, kind in enumerate(kinds):
            share = block[kind]
            if share:
                title = markup.text(f'block {number}: {100 * share:.1f} % {kind}')
                style = f'left:{percent(left, 1.0)};width:{percent(share, 1.0)}'
                pieces += f'<i class="k{place}" style="{style}" title="{title}"></i>'
                left += share
        first = block[kinds[0]]
        value = '–' if first is None else f'{100 * first:.0f} %'
        rows.append(
            f'<div class="bar"><span class="name">{number}G</span><span class="track parts">{pieces}</span>'
            f'<span class="value">{value}</span></div>'
        )
    alt = f'Kinds of detections in {len(blocks)} blocks'
    if blocks:
        alt += ', in the first: ' + ', '.join(
            f'{kind} {100 * share:.0f} %' for kind, share in blocks[0].items() if share is not None
        )
    table = markup.table(
        ('block', *kinds),
        [
            (f'{number}G', *('–' if block[kind] is None else f'{100 * block[kind]:.1f} %' for kind in kinds))
            for number, block in enumerate(blocks, 1)
        ],
    )
    return (
        f'<div class="bars profile" role="img" aria-label="{markup.text(alt)}">{"".join(rows)}</div>'
        + markup.details('Table of these shares', table)
    )


def profile_keys(kinds: Sequence[str]) -> str:
    """What the colours of profiles mean."""
    keys = ''.join(f'<span><i class="swatch k{i}"></i>{markup.text(kind)}</span>' for i, kind in enumerate(kinds))
    return f'<p class="keys">{keys}<span>right: share of the first kind</span></p>'
