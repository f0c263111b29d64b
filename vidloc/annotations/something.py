"""Something-Something v2: JSON lists of clips, whose class is a sentence with [something] in it.

`[{"id": "78687", "label": "holding potato next to vase", "template": "Holding [something] next to [something]",
"placeholders": ["potato", "vase"]}, ...]`; test lists have only the id, and test-answers.csv has `id;class`. The class
is the template without brackets; labels.json maps it to its index, `{"Holding something next to something": "0"}`.
Files are `<id>.webm`. Both generations of names are the same inside: something-something-v2-train.json and train.json.
Layout: open-mmlab/mmaction2, tools/data/parse_file_list.py; see docs/formats.md.
"""

import json
import os
import pathlib
import re
from collections.abc import Iterable, Sequence

from vidloc.annotations import class_list, rows
from vidloc.annotations.records import ClipLabel, Problem, VideoRecord

_FIX = 'Expected [{"id": "1", "template": "Holding [something]"}, ...].'
_WORD = re.compile(r'[A-Z]?[a-z]+|[A-Z]+')


def sided(label: str) -> bool:
    """Whether the name of a class has a side: 'left' or 'right' as a word of its own.

    Such clips must not be mirrored, for their mirror image belongs to another class. Words end at anything that is no
    letter and at a capital letter (`TurnLeft`).
    """
    return any(word.lower() in ('left', 'right') for word in _WORD.findall(label))


def read_something(
    path: str | os.PathLike,
    classes: str | os.PathLike | Sequence[str] | None = None,
    *,
    notes: list[Problem] | None = None,
) -> list[VideoRecord]:
    """A record for each clip, sorted by id: `video` is the id, and the file may lie in any folder.

    path: a JSON list, or a `.csv` of `id;class` without a header (test-answers.csv). classes: if given, each label
    must be one of them. Raises AnnotationError with every error found.
    """
    findings = rows.Findings(path)
    known = None if classes is None else class_list.names(classes)
    names = frozenset(known or ())
    text = rows.read_text(path, findings)
    answers = pathlib.Path(path).suffix.lower() == '.csv'
    clips: dict[str, str | None] = {}
    for where, line, video, label in _answers(text, findings) if answers else _entries(text, findings):
        if rows.video_name(video, line, findings) is None:
            continue
        if label is not None and known is not None and label not in names:
            message = f'{rows.shown(label)} of {where} is not in the list of classes'
            findings.add('label-unknown', line, message, rows.nearest(label, known))
        elif video not in clips:
            clips[video] = label
        elif clips[video] == label:
            findings.warn('duplicate-row', line, f'{where}: the id {rows.shown(video)} is there twice', 'Remove one.')
        else:
            message = f'{where}: the id {rows.shown(video)} has two labels'
            findings.add('clip-two-labels', line, message, 'Each clip has one.')
    if not findings.problems and len({label is None for label in clips.values()}) > 1:
        video = next(video for video, label in clips.items() if label is None)
        message = f'the clip {rows.shown(video)} has no template and others have one'
        findings.add('label-missing', None, message, 'Give each clip a template, or none in a test list.')
    findings.finish(notes)
    return [
        VideoRecord(video, labels=() if label is None else (ClipLabel(label),))
        for video, label in sorted(clips.items())
    ]


def write_something(path: str | os.PathLike, records: Iterable[VideoRecord]) -> None:
    """Writes id and template of each clip, or the id alone where there is no label; the objects are not known.

    Raises ValueError for several labels and for names that no reader would take or that hold brackets.
    """
    clips, seen = [], set()
    for record in sorted(records, key=lambda record: record.video):
        entry = {'id': rows.safe_name(record.video)}
        if len(record.labels) > 1 or record.video in seen:
            raise ValueError(f'{record.video} has several labels')
        seen.add(record.video)
        for label in record.labels:
            if rows.label_problem(label.label) or re.search(r'[\[\]]', label.label):
                raise ValueError(f'{record.video}: {label.label!r} cannot be a template')
            entry['template'] = label.label
        clips.append(entry)
    if len({len(entry) for entry in clips}) > 1:
        raise ValueError('either all clips have a label or none has')
    rows.write_text(path, json.dumps(clips, indent=0, ensure_ascii=False) + '\n')


def _entries(text: str, findings: rows.Findings) -> Iterable[tuple[str, int | None, str, str | None]]:
    """(where, line, id, label or None) of the clips of a JSON list."""
    root = rows.json_root(text, findings)
    if not isinstance(root, list):
        what = 'the list of classes' if isinstance(root, dict) else 'no list'
        findings.stop('json-layout', 1, f'this is {what}, not a list of clips', _FIX)
    if not root:
        findings.stop('file-empty', 1, 'the list has no clip', 'Check that it was written completely.')
    for index, entry in enumerate(root):
        where = f'entry {index}'
        video = entry.get('id') if isinstance(entry, dict) else None
        if isinstance(video, int) and not isinstance(video, bool) and 0 <= video < 10**9:
            video = str(video)
        if not isinstance(video, str):
            findings.add('json-layout', None, f'{where} has no id', _FIX)
            continue
        template = entry.get('template')
        if template is None:
            if entry.get('label') is not None:
                message = f'{where} has a label and no template, which names the class'
                findings.add('template-missing', None, message, 'Use the original list.')
            else:
                yield where, None, video, None
            continue
        label = re.sub(r'[\[\]]', '', template) if isinstance(template, str) else ''
        if rows.label_problem(label):
            findings.add('label-missing', None, f'the template of {where} {rows.label_problem(label)}', _FIX)
            continue
        yield where, None, video, label


def _answers(text: str, findings: rows.Findings) -> Iterable[tuple[str, int | None, str, str | None]]:
    for line, row in enumerate(text.splitlines(), 1):
        if not row.strip():
            continue
        video, mark, label = (part.strip() for part in row.partition(';'))
        label = re.sub(r'[\[\]]', '', label)
        if not mark or rows.label_problem(label):
            message = f'{rows.shown(row.strip())} has no class'
            findings.add('label-missing', line, message, 'Each line is the id, a semicolon and the name of the class.')
        else:
            yield f'line {line}', line, video, label
