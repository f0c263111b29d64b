"""What became of every array of a weight file and of every parameter of the model, as rows and as text."""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# In the order in which they are printed.
KINDS = {
    'used': 'as it is',
    'reshaped': 'made to fit',
    'initialised': 'has no source and starts as in a new model',
    'ignored': 'no part of the model',
    'elsewhere': 'in a part of the file that was not asked for',
    'missing': 'no array for a parameter',
    'unused': 'no parameter for an array',
    'mismatched': 'of the wrong shape or type',
    'different': 'a setting that does not agree',
}
WRONG = ('different', 'missing', 'unused', 'mismatched')
LINES = 40
_HINTS = 20
_WHOLE = 3
_STEMS = 6
_NUMBER = re.compile(r'(?<=[._/])\d+(?=[._/])|(?<=block_)\d+(?=/)')


@dataclass(frozen=True)
class Row:
    """kind: one of KINDS. name: canonical, or that of the file where there is no canonical one.

    sources: full names in the file. shape: of the parameter; source_shape: of the array in the file; None where
    there is none. nbytes: of the array. allowed: a difference that the caller's regex lets pass.
    """

    kind: str
    name: str
    sources: tuple[str, ...] = ()
    shape: tuple[int, ...] | None = None
    source_shape: tuple[int, ...] | None = None
    nbytes: int = 0
    note: str = ''
    allowed: bool = False

    @property
    def wrong(self) -> bool:
        return self.kind in WRONG and not self.allowed


def counts(rows: Iterable[Row]) -> dict[str, int]:
    """{kind: number of rows}, kinds without any left out; differences that were let pass count as 'allowed'."""
    found = dict.fromkeys((*KINDS, 'allowed'), 0)
    for row in rows:
        found['allowed' if row.allowed else row.kind] += 1
    return {kind: count for kind, count in found.items() if count}


def grouped(names: Iterable[str]) -> list[tuple[str, int]]:
    """Names -> (label, how many names it stands for), sorted: layers that have the same names become a range.

    'a/block_00/x', 'a/block_01/x' -> 'a/block_{00..01}/x'; more than three names of a layer become
    'a/block_00/* (5 names)'.
    """
    alone: list[str] = []
    layers: dict[str, dict[str, set[str]]] = {}
    for name in set(names):
        match = _NUMBER.search(name)
        if match:
            layers.setdefault(name[: match.start()], {}).setdefault(match[0], set()).add(name[match.end() :])
        else:
            alone.append(name)
    found = [(name, 1) for name in alone]
    for stem, numbers in layers.items():
        alike: dict[frozenset[str], list[str]] = {}
        for number, rest in numbers.items():
            alike.setdefault(frozenset(rest), []).append(number)
        if len(alike) > 1 and not any(len(rests) > _WHOLE for rests in alike):
            # Few names in many layers: by name, not by layer.
            by_rest: dict[str, list[str]] = {}
            for number, rests in numbers.items():
                for rest in rests:
                    by_rest.setdefault(rest, []).append(number)
            alike = {frozenset([rest]): held for rest, held in by_rest.items()}
        for rests, held in alike.items():
            label = f'{stem}{_ranges(held)}'
            if len(rests) > _WHOLE:
                mark = min(rests)[0]
                found.append((f'{label}{mark}* ({len(rests)} names)', len(rests) * len(held)))
            else:
                found += [(f'{label}{rest}', len(held)) for rest in rests]
    return sorted(found)


def _ranges(numbers: Sequence[str]) -> str:
    """['00', '01', '02', '07'] -> '{00..02,07}'"""
    runs: list[list[str]] = []
    for number in sorted(numbers, key=int):
        if runs and int(number) == int(runs[-1][-1]) + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    text = ','.join('..'.join(run) for run in runs)
    return text if len(numbers) == 1 else f'{{{text}}}'


def text(rows: Sequence[Row]) -> str:
    """The table: how many of each kind, and what is not plainly used, in groups."""
    lines = []
    for kind, meaning in KINDS.items():
        held = [row for row in rows if row.kind == kind]
        if not held:
            continue
        lines.append(f'{len(held):6d} {kind}: {meaning}')
        if kind == 'used':
            lines += [f'         {line}' for line in _by_note(held) if not line.startswith('-')]
        elif kind in ('ignored', 'elsewhere'):
            lines += [f'         {line}' for line in _dropped(held)]
        else:
            lines += [f'         {line}' for line in _cut(_lines(held), LINES)]
    return '\n'.join(lines)


def differences(rows: Sequence[Row]) -> str:
    """Everything that is wrong, sorted and in groups, at most LINES lines and then counts."""
    wrong = [row for row in rows if row.wrong]
    free = sorted(row.name for row in wrong if row.kind == 'unused')
    lines = []
    for kind in WRONG:
        held = [row for row in wrong if row.kind == kind]
        if held:
            lines.append(f'{kind} ({KINDS[kind]}), {len(held)}:')
            lines += [f'  {line}' for line in _lines(held, free)]
    return '\n'.join(_cut(lines, LINES))


def _cut(lines: list[str], limit: int) -> list[str]:
    return lines if len(lines) <= limit else [*lines[: limit - 1], f'... and {len(lines) - limit + 1} lines more']


def _lines(rows: Sequence[Row], free: Sequence[str] = ()) -> list[str]:
    """Rows with the same shapes and notes in groups. free: unused names, one of which may be a misspelt one."""
    alike: dict[tuple, list[Row]] = {}
    for row in rows:
        alike.setdefault((row.shape, row.source_shape, row.note, row.allowed), []).append(row)
    whole = rows and rows[0].kind in ('missing', 'unused', 'initialised')
    found = []
    if whole:
        # Shapes differ within a layer: a layer that is missing as a whole is one line.
        alike = {}
        for row in rows:
            alike.setdefault((row.note, row.allowed), []).append(row)
    named = {row.name: row for row in rows}
    hints = 0
    for held in alike.values():
        for label, count in grouped(row.name for row in held):
            row = named.get(label, held[0])
            line = label if whole and count > 1 else label + _shapes(row)
            line += f': {row.note}' if row.note else ''
            if row.kind == 'missing' and row.sources and hints < _HINTS and '*' not in label:
                line += _hint(row, free)
                hints += 1
            found.append(line + (' (allowed)' if row.allowed else ''))
    return sorted(found)


def _hint(row: Row, free: Sequence[str]) -> str:
    close = difflib.get_close_matches(row.sources[0], free, n=1, cutoff=0.8)
    likely = f'; is it {close[0]!r}?' if close else ''
    return f', looked for {row.sources[0]!r}{likely}'


def _shapes(row: Row) -> str:
    there = '' if row.source_shape is None else f' {list(row.source_shape)}'
    here = '' if row.shape is None else f' {list(row.shape)}'
    if there and here:
        return f': {there.strip()} in the file, {here.strip()} in the model'
    return there or here


def _by_note(rows: Sequence[Row]) -> list[str]:
    notes: dict[str, int] = {}
    for row in rows:
        if row.note:
            notes[row.note] = notes.get(row.note, 0) + 1
    return [f'{count} {note}' for note, count in sorted(notes.items())]


def _dropped(rows: Sequence[Row]) -> list[str]:
    """One line a reason: how much it is, and where."""
    notes: dict[str, list[Row]] = {}
    for row in rows:
        notes.setdefault(row.note, []).append(row)
    found = []
    for note, held in sorted(notes.items()):
        size = sum(row.nbytes for row in held) / 1e6
        found.append(f'{_stems(row.name for row in held)}: {note} ({len(held)} arrays, {size:.1f} MB)')
    return found


def _stems(names: Iterable[str]) -> str:
    """['a.b.c', 'a.b.d', 'e'] -> 'a.b.*, e': what names with the same first part have in common."""
    parts: dict[str, list[str]] = {}
    for name in names:
        parts.setdefault(re.split(r'[/.]', name)[0], []).append(name)
    stems = [_stem(held) for _, held in sorted(parts.items())]
    more = [f'and {len(stems) - _STEMS} more'] if len(stems) > _STEMS else []
    return ', '.join([*stems[:_STEMS], *more])


def _stem(names: Sequence[str]) -> str:
    """What names have in common at their beginning: ['a.b.c', 'a.b.d'] -> 'a.b.*'"""
    first, last = min(names), max(names)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first if len(names) == 1 else f'{first[:length]}*'
