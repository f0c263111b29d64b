"""UCF-101 lists: `Class/v_Class_g01_c01.avi 1` to train, the same without the number to test.

Numbers count from 1 and stand in classInd.txt, `1 ApplyEyeMakeup` (class_list.py). In test lists the folder is the
class. HMDB-51 is handed around in the same lists. Layout: crcv.ucf.edu/data/UCF101, UCF101TrainTestSplits.
"""

import os
import re
from collections.abc import Iterable, Sequence

from vidloc.annotations import class_list, rows
from vidloc.annotations.records import ClipLabel, Problem, VideoRecord

_FIX = 'Each line is Class/file.avi and, to train, a space and the number of the class in classInd.txt.'


def read_ucf101(
    path: str | os.PathLike,
    classes: str | os.PathLike | Sequence[str],
    *,
    notes: list[Problem] | None = None,
) -> list[VideoRecord]:
    """A record for each video, sorted; `video` and `path` are both the path as written.

    classes: the names in order, or the file that lists them. A number that is not that of the folder's class is an
    error. Raises AnnotationError with every error found.
    """
    findings = rows.Findings(path)
    names = class_list.names(classes)
    known = class_list.spellings(names)
    labels: dict[str, tuple[str, int]] = {}
    for line, text in enumerate(rows.read_text(path, findings).splitlines(), 1):
        if not text.strip():
            continue
        video, number = _split(text.strip())
        if rows.video_name(video, line, findings) is None:
            continue
        folder = video.rpartition('/')[0].rpartition('/')[2]
        label = _label(folder, number, names, known, line, findings)
        if label is None:
            continue
        where = labels.setdefault(video, (label, line))[1]
        if where != line:
            findings.warn('duplicate-row', line, f'{rows.shown(video)} is in line {where} too', 'It is counted once.')
    findings.finish(notes)
    return [VideoRecord(video, path=video, labels=(ClipLabel(label),)) for video, (label, _) in sorted(labels.items())]


def write_ucf101(
    path: str | os.PathLike,
    records: Iterable[VideoRecord],
    classes: str | os.PathLike | Sequence[str],
    *,
    numbers: bool = True,
) -> None:
    """Writes the path and, unless numbers is False (test lists), the number of the class, from 1.

    Raises ValueError for clips that do not lie in the folder of their one class, and for labels outside the classes.
    """
    names = class_list.names(classes)
    known = class_list.spellings(names)
    lines = []
    for record in sorted(records, key=lambda record: record.path or record.video):
        video = rows.safe_name(record.path or record.video)
        label = record.labels[0].label if len(record.labels) == 1 else None
        if label not in names:
            raise ValueError(f'{video}: the label must be one of the classes, not {label!r}')
        if known.get(video.rpartition('/')[0].rpartition('/')[2]) != label:
            raise ValueError(f'{video} does not lie in a folder {label!r}')
        line = f'{video} {names.index(label) + 1}' if numbers else video
        if _split(line) != (video, str(names.index(label) + 1) if numbers else None) or len(line.splitlines()) != 1:
            raise ValueError(f'{video!r} cannot be told from a label in this list')
        lines.append(line + '\n')
    rows.write_text(path, ''.join(lines))


def _split(text: str) -> tuple[str, str | None]:
    """(path, number or None)"""
    match = re.fullmatch(r'(.*\S)[ \t]+(-?[0-9]{1,9})', text, re.ASCII)
    return (match[1], match[2]) if match else (text, None)


def _label(
    folder: str,
    number: str | None,
    names: Sequence[str],
    known: dict[str, str],
    line: int,
    findings: rows.Findings,
) -> str | None:
    if number is not None and not 1 <= int(number) <= len(names):
        hint = ' These perhaps count from 0: add 1.' if int(number) == 0 else ''
        message = f'the class is {number}, but the classes go from 1 to {len(names)}'
        findings.add('label-index-out-of-range', line, message, f'Use the classInd.txt of this list.{hint}')
        return None
    if folder not in known:
        fix = f'{rows.nearest(folder, names)} {_FIX}' if folder else _FIX
        findings.add('label-unknown', line, f'the folder {rows.shown(folder)} is no class', fix)
        return None
    if number is not None and names[int(number) - 1] != known[folder]:
        message = f'class {number} is {rows.shown(names[int(number) - 1])}, but the folder is {rows.shown(folder)}'
        fix = 'Numbers count from 1; use the classInd.txt that belongs to this list.'
        findings.add('label-differs-from-folder', line, message, fix)
        return None
    return known[folder]
