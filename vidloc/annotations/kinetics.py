"""Kinetics-400, -600 and -700 csv: a header, then one clip of a YouTube video a row.

`label,youtube_id,time_start,time_end,split` and, in some copies of Kinetics-400, `is_cc`; test lists lack `label`.
Times are whole seconds in the YouTube video; the clip's file is `<youtube_id>_SSSSSS_EEEEEE.mp4`, in a folder for each
class or in one folder. Layout: the readme of the data set's archive, activitynet/ActivityNet, Crawler/Kinetics, and
open-mmlab/mmaction2, tools/data/parse_file_list.py.
"""

import os
from collections.abc import Iterable, Sequence

from vidloc.annotations import class_list, rows
from vidloc.annotations.clip_names import clip_name
from vidloc.annotations.records import ClipLabel, Problem, VideoRecord

COLUMNS = ('label', 'youtube_id', 'time_start', 'time_end', 'split')
NEEDED = ('youtube_id', 'time_start', 'time_end')
LATEST = 999_999  # seconds: file names have six digits
SPOILT = ('#NAME?', '#VALUE!', '#REF!', '#ERROR!')
_FIX = 'The first line is label,youtube_id,time_start,time_end,split; is_cc may follow, test lists have no label.'


def read_kinetics(
    path: str | os.PathLike,
    classes: str | os.PathLike | Sequence[str] | None = None,
    subset: str | None = None,
    *,
    notes: list[Problem] | None = None,
) -> list[VideoRecord]:
    """A record for each clip, sorted by video: `video` is the stem of its file, which may lie in any folder.

    The label is that of the whole file, so it has no times. classes: if given, each label must be one of them (spaces
    and underscores are the same). subset: keeps the rows whose `split` is this. `is_cc` is checked by nobody and
    dropped. Raises AnnotationError with every error found.
    """
    findings = rows.Findings(path)
    known = None if classes is None else class_list.spellings(class_list.names(classes))
    header: list[str] = []
    clips: dict[str, tuple[str | None, dict[str, int]]] = {}  # {video: (split, {label: line})}
    for line, row in rows.csv_rows(rows.read_text(path, findings), findings):
        if not header:
            header = _header(row, line, findings)
            continue
        if len(row) != len(header):
            message = f'the row has {len(row)} columns, the header {len(header)}'
            findings.add('column-count', line, message, 'Put names that hold a comma in quotation marks.')
            continue
        fields = dict(zip(header, row, strict=True))
        video = _video(fields, line, findings)
        label = _label(fields['label'], known, line, findings) if 'label' in fields else None
        if video is None or (label is None and 'label' in fields):
            continue
        split = fields.get('split') or None
        first, labels = clips.setdefault(video, (split, {}))
        if first != split:
            message = f'{rows.shown(video)} is in the split {split} and in {first}'
            findings.add('clip-in-two-splits', line, message, 'Take one of the rows out.')
        else:
            rows.add_label(labels, label, video, line, findings)
    if not clips and not findings.problems:
        findings.add('file-empty', None, 'the list has a header and no rows', 'Check that it was copied completely.')
    if subset is not None and clips and all(split != subset for split, _ in clips.values()):
        splits = ', '.join(sorted({rows.shown(split) for split, _ in clips.values() if split})) or 'none'
        findings.add('subset-unknown', None, f'no clip has the split {subset!r}', f'Found: {splits}.')
    findings.finish(notes)
    return [
        VideoRecord(video, subset=split, labels=tuple(ClipLabel(label) for label in labels if label is not None))
        for video, (split, labels) in sorted(clips.items())
        if subset is None or split == subset
    ]


def write_kinetics(path: str | os.PathLike, records: Iterable[VideoRecord]) -> None:
    """Writes label, id, times and split of each clip; without the label column if no clip has a label.

    Everything else of the records has no place here. Raises ValueError for names that are not `<id>_SSSSSS_EEEEEE`, and
    for some clips with labels and some without.
    """
    records = sorted(records, key=lambda record: record.video)
    labelled = any(record.labels for record in records)
    if labelled and not all(record.labels for record in records):
        raise ValueError('either all clips have a label or none has')
    body = []
    for record in records:
        clip = clip_name(rows.safe_name(record.video))
        if clip is None or '/' in record.video or clip[0] in SPOILT:
            raise ValueError(f'{record.video!r} is no clip of Kinetics: their names are <id>_SSSSSS_EEEEEE')
        where = [clip[0], str(int(clip[1])), str(int(clip[2])), _split_text(record)]
        for label in record.labels:
            if rows.label_problem(label.label):
                raise ValueError(f'{record.video}: {label.label!r} cannot be the name of a class')
        body += [[label.label, *where] for label in record.labels] if labelled else [where]
    rows.write_csv(path, [COLUMNS if labelled else COLUMNS[1:], *body])


def _split_text(record: VideoRecord) -> str:
    if record.subset is not None and rows.label_problem(record.subset):
        raise ValueError(f'{record.video}: {record.subset!r} cannot be the name of a split')
    return record.subset or ''


def _header(row: list[str], line: int, findings: rows.Findings) -> list[str]:
    names = [name.lower() for name in row]
    unknown = [name for name in names if name not in (*COLUMNS, 'is_cc')]
    if unknown or len(set(names)) < len(names) or not set(NEEDED) <= set(names):
        message = f'the first line {rows.shown(",".join(row))} is not the header of Kinetics'
        findings.stop('header-missing', line, message, _FIX)
    return names


def _video(fields: dict[str, str], line: int, findings: rows.Findings) -> str | None:
    """The stem of the clip's file, or None after a problem."""
    name = fields['youtube_id']
    if name in SPOILT:
        message = f'the id is {rows.shown(name)}: a spreadsheet took an id that starts with - or = for a formula'
        findings.add('id-spoilt', line, message, 'Get the file again and do not save it with a spreadsheet.')
        return None
    start, end = (_second(fields[column], column, line, findings) for column in ('time_start', 'time_end'))
    if start is None or end is None:
        return None
    if end <= start:
        message = f'the clip ends at {end} s, not after its start {start} s'
        findings.add('clip-order', line, message, 'Give time_start, then time_end, in seconds.')
        return None
    if '/' in name:
        findings.add('video-path-refused', line, f'the id {rows.shown(name)} holds a slash', 'Write the id alone.')
        return None
    if rows.video_name(name, line, findings) is None:
        return None
    return f'{name}_{start:06d}_{end:06d}'


def _second(text: str, column: str, line: int, findings: rows.Findings) -> int | None:
    value = rows.timestamp(text, line, findings, column)
    if value is None:
        return None
    if value != int(value) or value > LATEST:
        message = f'{column} is {text}, but the names of the files have whole seconds of six digits'
        findings.add('time-not-whole', line, message, 'Write whole seconds; for other clips use our table format.')
        return None
    return int(value)


def _label(text: str, known: dict[str, str] | None, line: int, findings: rows.Findings) -> str | None:
    text = text.strip('"')
    if rows.label_problem(text):
        findings.add('label-missing', line, f'the label {rows.label_problem(text)}', 'Write the name of the class.')
        return None
    if known is None:
        return text
    if text not in known:
        fix = rows.nearest(text, dict.fromkeys(known.values()))
        findings.add('label-unknown', line, f'{rows.shown(text)} is not in the list of classes', fix)
        return None
    return known[text]
