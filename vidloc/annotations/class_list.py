"""Ordered class names, from whichever file a data set keeps them in.

What a file is follows from its suffix and its content, never from its name:
- `.pbtxt`: AVA's label map, in the order of its ids;
- `.json`: `{name: index}` (Something-Something's labels.json), `{index: name}` or a list of names;
- `.csv` with a header: the sorted names of a `label` column (Kinetics), or `id,name`;
- `name,index` in every line (moments_categories.txt of Moments in Time);
- `number name` in every line, counted from 1 (classInd.txt of UCF-101) or from 0;
- else one name a line.
"""

import json
import os
import pathlib
import re
from collections.abc import Iterable, Sequence

from vidloc.annotations import clips, rows
from vidloc.annotations.label_map import read_label_map

_NUMBER_NAME = re.compile(r'([0-9]{1,6})[ \t]+(\S.*)', re.ASCII)
_NAME_NUMBER = re.compile(r'(.*\S)[ \t]*,[ \t]*([0-9]{1,6})', re.ASCII)


def read_class_list(path: str | os.PathLike) -> tuple[str, ...]:
    """The names in the order of their indices. Raises AnnotationError: gaps in the indices, names twice, no names."""
    suffix = pathlib.Path(path).suffix.lower()
    if suffix == '.pbtxt':
        return tuple(name for _, name in sorted(read_label_map(path).items()))
    findings = rows.Findings(path)
    text = rows.read_text(path, findings)
    if suffix == '.json':
        return _checked(_json_entries(text, findings), findings)
    if suffix == '.csv':
        entries = _csv_entries(text, findings)
        if entries is not None:
            return _checked(entries, findings)
    lines = [(line, entry.strip()) for line, entry in enumerate(text.splitlines(), 1) if entry.strip()]
    for pattern, number, name in ((_NUMBER_NAME, 1, 2), (_NAME_NUMBER, 2, 1)):
        found = [(line, pattern.fullmatch(entry)) for line, entry in lines]
        if all(match for _, match in found):
            return _checked([(int(match[number]), match[name], line) for line, match in found], findings)
    return clips.read_class_list(path)


def write_class_list(path: str | os.PathLike, classes: Sequence[str], style: str = 'lines') -> None:
    """Writes names that read_class_list reads back.

    style: 'lines' (one name a line), 'class_ind' (UCF-101's `1 name`), 'categories' (Moments' `name,0`) or 'json'
    (Something-Something's `{name: "0"}`). Raises ValueError for names that would not be read back the same.
    """
    numbered = {
        'class_ind': ''.join(f'{number} {name}\n' for number, name in enumerate(classes, 1)),
        'categories': ''.join(f'{name},{number}\n' for number, name in enumerate(classes)),
        'json': json.dumps({name: str(number) for number, name in enumerate(classes)}, indent=1, ensure_ascii=False),
    }
    if style not in ('lines', *numbered):
        raise ValueError(f'there is no style {style!r} of class lists; known: lines, {", ".join(numbered)}')
    for name in classes:
        if _name_problem(name):
            raise ValueError(f'{name!r} cannot be the name of a class: it {_name_problem(name)}')
    if len(set(classes)) < len(classes) or not classes:
        raise ValueError('a class list needs at least one class, and each name once')
    if (pathlib.Path(path).suffix.lower() == '.json') != (style == 'json'):
        raise ValueError(f'{path}: the style {style!r} and the suffix do not fit, it would be read as another')
    if style == 'lines':
        clips.write_class_list(path, classes)
    else:
        rows.write_text(path, numbered[style])


def names(classes: str | os.PathLike | Sequence[str]) -> tuple[str, ...]:
    """The names themselves, or those of the file that lists them."""
    return read_class_list(classes) if isinstance(classes, (str, os.PathLike)) else tuple(classes)


def spellings(classes: Iterable[str]) -> dict[str, str]:
    """{spelling: class}: each class as it is, with its spaces as underscores and the other way round.

    Public copies of one data set differ in this (`air drumming`, `air_drumming`); a class's own name always wins.
    """
    classes = tuple(classes)
    found = {name.replace(' ', '_'): name for name in reversed(classes)}
    found |= {name.replace('_', ' '): name for name in reversed(classes)}
    return found | {name: name for name in classes}


def _name_problem(name: str) -> str | None:
    reason = rows.label_problem(name)
    if reason is None and (name.isdecimal() or len(name.splitlines()) != 1):
        reason = 'cannot be told from an index, or has several lines'
    return reason


def _json_entries(text: str, findings: rows.Findings) -> list[tuple[int, str, int | None]]:
    twice = []

    def unique(pairs: list[tuple[str, object]]) -> dict:
        if len(dict(pairs)) < len(pairs):
            twice.append(pairs)
        return dict(pairs)

    fix = 'Expected {"name": index}, {"index": "name"} or ["name", ...].'
    root = rows.json_root(text, findings, unique)
    if twice:
        findings.stop('class-name-duplicate', None, 'a name is there twice', 'List each class once.')
    if isinstance(root, list) and all(isinstance(name, str) for name in root):
        return [(number, name, None) for number, name in enumerate(root)]
    if not isinstance(root, dict):
        findings.stop('class-list-layout', 1, 'this is no list of classes', fix)
    if all(isinstance(name, str) and not _is_index(name) for name in root.values()):
        pairs = [(name, number) for number, name in root.items()]
    else:
        pairs = list(root.items())
    if not all(_is_index(number) for _, number in pairs):
        findings.stop('class-list-layout', 1, 'not every class has a whole number', fix)
    return [(int(number), _unquoted(name), None) for name, number in pairs]


def _is_index(value: object) -> bool:
    if isinstance(value, str):
        return re.fullmatch('[0-9]{1,6}', value, re.ASCII) is not None
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**6


def _unquoted(name: str) -> str:
    """Some lists of Kinetics' classes quote the names with a space twice, once for JSON."""
    return name[1:-1] if len(name) > 2 and name[0] == name[-1] == '"' else name


def _csv_entries(text: str, findings: rows.Findings) -> list[tuple[int, str, int | None]] | None:
    """Entries of a csv with a header that is known, else None."""
    table = list(rows.csv_rows(text, findings))
    header = [name.lower() for name in table[0][1]]
    if header == ['id', 'name']:
        for line, row in table[1:]:
            if len(row) != 2 or not _is_index(row[0]):
                findings.stop('class-list-layout', line, 'the row is no id,name', 'Write a whole number and a name.')
        return [(int(row[0]), row[1], line) for line, row in table[1:]]
    if 'label' not in header:
        return None
    column = header.index('label')
    found: dict[str, int] = {}
    for line, row in table[1:]:
        if len(row) != len(header):
            message = f'the row has {len(row)} columns, the header {len(header)}'
            findings.stop('column-count', line, message, 'Check the row.')
        if row[column]:
            found.setdefault(row[column], line)
    return [(number, name, found[name]) for number, name in enumerate(sorted(found))]


def _checked(entries: list[tuple[int, str, int | None]], findings: rows.Findings) -> tuple[str, ...]:
    """The names of (index, name, line) in the order of the indices, which go from 0 or from 1 without gaps."""
    if not entries:
        findings.stop('file-empty', None, 'no class was found', 'Name the file that lists the classes.')
    seen: dict[str, int | None] = {}
    for _, name, line in entries:
        reason = _name_problem(name)
        if reason:
            findings.add('class-name', line, f'the name {rows.shown(name)} {reason}', 'Give each class a plain name.')
        elif name in seen:
            findings.add('class-name-duplicate', line, f'{rows.shown(name)} is there twice', 'List each class once.')
        seen[name] = line
    entries = sorted(entries, key=lambda entry: entry[0])
    first = entries[0][0]
    for expected, (number, name, line) in enumerate(entries, first):
        if first > 1 or number != expected:
            message = f'the index of {rows.shown(name)} is {number}, expected {expected if first < 2 else 0}'
            findings.add('class-index', line, message, 'Indices count from 0 or from 1, each once and without gaps.')
            break
    findings.finish(None)
    return tuple(name for _, name, _ in entries)
