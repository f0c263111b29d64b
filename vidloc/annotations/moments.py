"""Moments in Time: `category/file.mp4,category,agree,disagree`, without a header.

agree and disagree count the people who confirmed and denied the label. The videos lie in training/ and validation/, so
that the folder of videos is one of these. moments_categories.txt holds `name,index`, from 0 (class_list.py).
Layout: the readme of the data set's archive, and open-mmlab/mmaction2, tools/data/parse_file_list.py.
"""

import os
import re
from collections.abc import Iterable, Sequence

from vidloc.annotations import class_list, rows
from vidloc.annotations.records import ClipLabel, Problem, VideoRecord

_FIX = 'The columns are category/file.mp4,category and then, if known, agree,disagree.'


def read_moments(
    path: str | os.PathLike,
    classes: str | os.PathLike | Sequence[str] | None = None,
    *,
    notes: list[Problem] | None = None,
) -> list[VideoRecord]:
    """A record for each video, sorted; `video` and `path` are both the first column.

    The label is the second column; a folder of another name gives a warning. The counts of people are checked and
    dropped. classes: if given, each label must be one of them. Raises AnnotationError with every error found.
    """
    findings = rows.Findings(path)
    known = None if classes is None else class_list.names(classes)
    names = frozenset(known or ())
    labels: dict[str, dict[str, int]] = {}
    for line, row in rows.csv_rows(rows.read_text(path, findings), findings):
        if len(row) > 1 and re.fullmatch('[0-9]+', row[1], re.ASCII) and row[1] not in names:
            message = f'the label is the number {row[1]}, as in Multi-Moments in Time'
            findings.add('label-is-number', line, message, 'Use the lists of Moments in Time, which name the category.')
            continue
        if len(row) not in (2, 4):
            findings.add('column-count', line, f'the row has {len(row)} columns, expected 4 or 2', _FIX)
            continue
        video, label = row[:2]
        counts = [_count(text, line, findings) for text in row[2:]]
        if rows.video_name(video, line, findings) is None or None in counts:
            continue
        if rows.label_problem(label):
            findings.add('label-missing', line, f'the category {rows.label_problem(label)}', _FIX)
            continue
        if known is not None and label not in names:
            fix = rows.nearest(label, known)
            findings.add('label-unknown', line, f'{rows.shown(label)} is not in the list of classes', fix)
            continue
        folder = video.rpartition('/')[0].rpartition('/')[2]
        if folder != label:
            message = f'the category is {rows.shown(label)}, the folder {rows.shown(folder)}'
            findings.warn('label-differs-from-folder', line, message, 'The category is taken; check the row.')
        mine = labels.setdefault(video, {})
        rows.add_label(mine, label, video, line, findings)
    findings.finish(notes)
    return [
        VideoRecord(video, path=video, labels=tuple(ClipLabel(label) for label in mine))
        for video, mine in sorted(labels.items())
    ]


def write_moments(path: str | os.PathLike, records: Iterable[VideoRecord]) -> None:
    """Writes path and category of each label; the counts of people are not known, so these columns are left out.

    Raises ValueError for clips without a label and for names that no reader would take.
    """
    body = []
    for record in sorted(records, key=lambda record: record.path or record.video):
        video = rows.safe_name(record.path or record.video)
        if not record.labels:
            raise ValueError(f'{video} has no label, and Moments in Time has no place for that')
        for label in record.labels:
            if rows.label_problem(label.label) or label.label.isdecimal():
                raise ValueError(f'{video}: {label.label!r} cannot be a category')
            body.append([video, label.label])
    rows.write_csv(path, body)


def _count(text: str, line: int, findings: rows.Findings) -> int | None:
    if re.fullmatch('[0-9]{1,9}', text, re.ASCII):
        return int(text)
    findings.add('count-not-a-number', line, f'a count of people is {rows.shown(text)}', _FIX)
    return None
