"""JSON files that are one long list: read entry by entry, so that only one is in memory, each with its line."""

import json
import math
import re
from collections.abc import Iterator, Mapping

from vidloc.annotations import rows

LAYOUT = 'docs/formats.md shows the layout.'
_SPACE = re.compile(r'[ \t\n\r]*')
_KINDS = {str: 'a text', list: 'a list', dict: 'an object', float: 'a finite number', int: 'a whole number'}


class Entry:
    """One value of the list, the line in which it begins, and where its text is."""

    def __init__(self, value: object, line: int, text: str, start: int, end: int):
        self.value, self.line = value, line
        self._text, self._start, self._end = text, start, end
        self._at, self._at_line = start, line

    def line_of(self, name: str) -> int:
        """The line in which the text `name` stands in quotes, else the entry's own.

        Names that are asked for in the order of the file cost one walk through the entry.
        """
        for begin, line in ((self._at, self._at_line), (self._start, self.line)):
            for ascii_only in (False, True):
                position = self._text.find(json.dumps(name, ensure_ascii=ascii_only), begin, self._end)
                if position >= 0:
                    self._at, self._at_line = position, line + self._text.count('\n', begin, position)
                    return self._at_line
        return self.line


def entries(text: str, findings: rows.Findings) -> Iterator[Entry]:
    """The entries of a JSON list. Keys that are twice in one object are problems; stops at what is no list."""
    twice: list[str] = []

    def unique(pairs: list[tuple[str, object]]) -> dict:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice.extend(sorted({key for key in keys if keys.count(key) > 1}))
        return found

    decoder = json.JSONDecoder(object_pairs_hook=unique)
    position = _SPACE.match(text, 0).end()
    if not text.startswith('[', position):
        findings.stop('json-layout', 1, 'the file is no JSON list', LAYOUT)
    position, line, counted = _SPACE.match(text, position + 1).end(), 1, 0
    more = not text.startswith(']', position)
    while more:
        line, counted, start = line + text.count('\n', counted, position), position, position
        try:
            value, position = decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            findings.stop('json-syntax', error.lineno, f'not JSON: {error.msg}', 'Check that the file is complete.')
        except (ValueError, RecursionError) as error:
            findings.stop('json-syntax', line, f'not JSON that can be read: {error}', 'Check the file.')
        for key in dict.fromkeys(twice):
            findings.add(
                'json-duplicate-key', line, f'{rows.shown(key)} is there twice in one object', 'Keep one of them.'
            )
        twice.clear()
        yield Entry(value, line, text, start, position)
        position = _SPACE.match(text, position).end()
        more = text.startswith(',', position)
        if more:
            position = _SPACE.match(text, position + 1).end()
    if not text.startswith(']', position) or _SPACE.match(text, position + 1).end() < len(text):
        line += text.count('\n', counted, position)
        findings.stop('json-syntax', line, 'not JSON: the list does not end here', 'Check that the file is complete.')


def field(found: Mapping, key: str, kind: type, where: str, line: int | None, findings: rows.Findings):
    """found[key] if it is of the kind (str, list, dict, int or float, which takes whole numbers too), else None.

    What lacks or is of another kind is a problem.
    """
    value = found.get(key)
    if key not in found:
        findings.add('key-missing', line, f'{where} has no "{key}"', LAYOUT)
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
        fine = False
    else:
        fine = kind is not float or (abs(value) <= rows.TIME_LIMIT and math.isfinite(value))
    if not fine:
        message = f'"{key}" of {where} is {rows.shown(str(value))}, expected {_KINDS[kind]}'
        findings.add('value-invalid', line, message, LAYOUT)
        return None
    return value
