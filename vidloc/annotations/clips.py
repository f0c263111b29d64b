"""Clip lists as Kinetics, UCF-101 and many others are handed around: `path label` a line, and a list of classes.

The label is the index of the class in the list, from 0, or its name; both path and name may hold spaces.
"""

import os
import re
from collections.abc import Iterable, Sequence

from vidloc.annotations import rows
from vidloc.annotations.records import ClipLabel, Problem, VideoRecord


def read_class_list(path: str | os.PathLike) -> tuple[str, ...]:
    """One class name a line; blank lines are skipped. Raises AnnotationError: names twice, or mere numbers."""
    findings = rows.Findings(path)
    names: dict[str, int] = {}
    for line, text in enumerate(rows.read_text(path, findings).splitlines(), 1):
        name = text.strip()
        if not name:
            continue
        if rows.label_problem(name):
            reason = rows.label_problem(name)
            findings.add('class-name', line, f'the name {rows.shown(name)} {reason}', 'Give each class a plain name.')
        elif name.isdecimal():
            findings.add(
                'class-name-number',
                line,
                f'the class is called {name}',
                'A number cannot be told from an index: put a letter before it.',
            )
        elif name in names:
            findings.add(
                'class-name-duplicate',
                line,
                f'{rows.shown(name)} repeats line {names[name]}',
                'List each class once.',
            )
        else:
            names[name] = line
    findings.finish(None)
    return tuple(names)


def write_class_list(path: str | os.PathLike, classes: Sequence[str]) -> None:
    """One name a line. Raises ValueError for names that read_class_list would refuse."""
    for name in classes:
        if rows.label_problem(name) or name.isdecimal() or len(name.splitlines()) != 1:
            raise ValueError(f'{name!r} cannot be the name of a class')
    if len(set(classes)) < len(classes) or not classes:
        raise ValueError('a class list needs at least one class, and each name once')
    rows.write_text(path, ''.join(f'{name}\n' for name in classes))


def read_clips(
    path: str | os.PathLike,
    classes: str | os.PathLike | Sequence[str],
    *,
    notes: list[Problem] | None = None,
) -> list[VideoRecord]:
    """One record a path, in the order of the file; `video` and `path` are both the path as written.

    classes: the names in order, or the file that lists them. Raises AnnotationError with every error found.
    """
    names = read_class_list(classes) if isinstance(classes, (str, os.PathLike)) else tuple(classes)
    findings = rows.Findings(path)
    known = frozenset(names)
    labels: dict[str, dict[str, int]] = {}
    for line, text in enumerate(rows.read_text(path, findings).splitlines(), 1):
        if not text.strip():
            continue
        split = _split(text.strip(), known)
        if split is None:
            findings.add(*_no_label(text.strip(), line))
            continue
        video, label = split
        name = _class(label, names, line, findings)
        if rows.video_name(video, line, findings) is None or name is None:
            continue
        mine = labels.setdefault(video, {})
        rows.add_label(mine, name, video, line, findings)
    findings.finish(notes)
    return [
        VideoRecord(video, path=video, labels=tuple(ClipLabel(name) for name in mine)) for video, mine in labels.items()
    ]


def write_clips(
    path: str | os.PathLike, records: Iterable[VideoRecord], classes: str | os.PathLike | Sequence[str]
) -> None:
    """Writes `path index` for each label of the whole clip; other content of the records has no place here.

    Raises ValueError for labels outside the classes and for paths that would not be read back the same.
    """
    names = read_class_list(classes) if isinstance(classes, (str, os.PathLike)) else tuple(classes)
    index = {name: number for number, name in enumerate(names)}
    lines = []
    for record in records:
        video = rows.safe_name(record.path or record.video)
        for label in record.labels:
            if label.label not in index:
                raise ValueError(f'{label.label!r} is no class. {rows.nearest(label.label, names)}')
            line = f'{video} {index[label.label]}'
            if _split(line, frozenset(names)) != (video, str(index[label.label])) or len(line.splitlines()) != 1:
                raise ValueError(f'{video!r} cannot be told from a label in a clip list')
            lines.append(line + '\n')
    rows.write_text(path, ''.join(lines))


def _split(text: str, names: frozenset[str]) -> tuple[str, str] | None:
    """(path, label): the longest end that is a class, else the last word."""
    gaps = list(re.finditer(r'[ \t]+', text))
    for gap in gaps:
        if text[gap.end() :] in names:
            return text[: gap.start()], text[gap.end() :]
    return (text[: gaps[-1].start()], text[gaps[-1].end() :]) if gaps else None


def _no_label(text: str, line: int) -> tuple[str, int, str, str]:
    for mark, word in ((',', 'comma'), (';', 'semicolon')):
        if mark in text:
            return (
                f'{word}-separated',
                line,
                f'path and label are separated by a {word}',
                'Put a space between them.',
            )
    return 'label-missing', line, f'{rows.shown(text)} has no label', 'Each line is: path, a space, label.'


def _class(label: str, names: Sequence[str], line: int, findings: rows.Findings) -> str | None:
    if label in names:
        return label
    if not re.fullmatch(r'-?[0-9]{1,9}', label, re.ASCII):
        fix = rows.nearest(label, names)
        findings.add('label-unknown', line, f'{rows.shown(label)} is not in the list of classes', fix)
        return None
    if 0 <= int(label) < len(names):
        return names[int(label)]
    hint = ' The labels perhaps count from 1.' if int(label) == len(names) else ''
    findings.add(
        'label-index-out-of-range',
        line,
        f'the label is {label}, but there are {len(names)} classes',
        f'Labels go from 0 to {len(names) - 1}.{hint}',
    )
    return None
