"""AVA label maps (.pbtxt): ids from 1 and names, in the style of the 60-class and of the 80-class lists."""

import os
import re
from collections.abc import Iterable, Mapping

from vidloc.annotations import rows

_TOKEN = re.compile(
    r'\s+|#[^\n]*|(?P<text>"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\')|(?P<mark>[{}:])|(?P<word>[\w.+-]+)'
)


def read_label_map(path: str | os.PathLike) -> dict[int, str]:
    """{id: name} in the order of the file, from `item { name: "..." id: N }` or `label { name: label_id: }`.

    Raises AnnotationError: broken syntax, no entry, an id or a name that is missing, twice there, or below 1.
    """
    findings = rows.Findings(path)
    text = rows.read_text(path, findings)
    classes: dict[int, str] = {}
    for line, entry in _blocks(text, findings):
        name, number = entry.get('name'), entry.get('id', entry.get('label_id'))
        if name is None or number is None:
            lacks = 'name' if name is None else 'id'
            findings.add('label-map-incomplete', line, f'the entry has no {lacks}', 'Give each entry a name and an id.')
            continue
        if rows.label_problem(name):
            reason = rows.label_problem(name)
            findings.add(
                'label-map-name',
                line,
                f'the name {rows.shown(name)} {reason}',
                'Give each class a plain name.',
            )
        elif not re.fullmatch('[0-9]{1,6}', number, re.ASCII):
            findings.add(
                'label-map-id',
                line,
                f'the id {rows.shown(number)} is not a whole number',
                'Ids count from 1.',
            )
        elif int(number) == 0:
            findings.add('label-map-id', line, 'the id is 0', 'Ids count from 1; 0 is kept for the background.')
        elif int(number) in classes:
            findings.add('label-map-duplicate', line, f'id {number} is there twice', 'Give each class its own id.')
        elif name in classes.values():
            findings.add(
                'label-map-duplicate',
                line,
                f'{rows.shown(name)} is there twice',
                'Give each class its own name.',
            )
        else:
            classes[int(number)] = name
    if not classes and not findings.problems:
        findings.add('label-map-empty', None, 'no class was found', 'Expected: item { name: "walk" id: 1 }')
    findings.finish(None)
    return classes


def _blocks(text: str, findings: rows.Findings) -> Iterable[tuple[int, dict[str, str]]]:
    """(line, {key: value}) of each `word { key: value ... }`; values are texts without their quotes."""

    def broken(position: int, what: str):
        line = text.count('\n', 0, position) + 1
        findings.stop('label-map-syntax', line, what, 'Expected: item { name: "walk" id: 1 }')

    tokens, position = [], 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            broken(position, f'unexpected {rows.shown(text[position : position + 20])}')
        if match.lastgroup is not None:
            tokens.append((match.lastgroup, match.group(), position))
        position = match.end()
    entry, key, opened = None, None, 0
    for index, (kind, value, position) in enumerate(tokens):
        following = tokens[index + 1][1] if index + 1 < len(tokens) else ''
        if entry is None and kind == 'word' and following == '{':
            opened = text.count('\n', 0, position) + 1
        elif entry is None and value == '{' and index and tokens[index - 1][0] == 'word':
            entry = {}
        elif entry is not None and key is None and kind == 'word' and following == ':':
            key = value
        elif key is not None and value == ':' and tokens[index - 1][1] == key:
            continue
        elif key is not None and kind in ('word', 'text'):
            plain = value if kind == 'word' else re.sub(r'\\(.)', r'\1', value[1:-1])
            if key in entry:
                broken(position, f'{rows.shown(key)} is given twice in one entry')
            entry[key], key = plain, None
        elif entry is not None and key is None and value == '}':
            yield opened, entry
            entry = None
        else:
            broken(position, f'unexpected {rows.shown(value)}')
    if entry is not None:
        broken(len(text), 'the last entry is not closed')


def write_label_map(path: str | os.PathLike, classes: Mapping[int, str]) -> None:
    """Writes {id: name} in the style of the 60-class lists, which the official parser reads."""
    blocks = []
    for number, name in classes.items():
        if rows.label_problem(name) or int(number) < 1:
            raise ValueError(f'class {number}: {rows.shown(name)} cannot be written')
        plain = name.replace('\\', '\\\\').replace('"', '\\"')
        blocks.append(f'item {{\n  name: "{plain}"\n  id: {int(number)}\n}}\n')
    if len(set(classes.values())) < len(blocks) or not blocks:
        raise ValueError('a label map needs at least one class, and each name once')
    rows.write_text(path, ''.join(blocks))
