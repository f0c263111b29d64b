"""ActivityNet JSON, in which THUMOS and most other sets of temporal segments are handed around too.

`{"database": {video: {"subset": ..., "duration": seconds, "annotations": [{"segment": [start, end], "label": ...}]}}}`
Layout: activity-net.org, and activitynet/ActivityNet, Evaluation/README.
"""

import json
import math
import os
from collections.abc import Iterable, Sequence

from vidloc.annotations import rows
from vidloc.annotations.records import Problem, Segment, VideoRecord

DURATION_SLACK = 1e-3  # seconds: durations are often rounded to milliseconds


def read_activitynet(
    path: str | os.PathLike,
    subset: str | None = None,
    *,
    classes: Sequence[str] | None = None,
    notes: list[Problem] | None = None,
) -> list[VideoRecord]:
    """Records sorted by video, each with its segments sorted by time; `subset` keeps only the videos of that name.

    classes: if given, each label must be one of them. notes: takes the warnings.
    Raises AnnotationError with every error found.
    """
    findings = rows.Findings(path)
    text = rows.read_text(path, findings)
    database = _database(text, findings)
    lines = _Lines(text)
    records, subsets = [], {}
    for video, entry in sorted(database.items()):
        line = lines.of(video)
        if rows.video_name(video, line, findings) is None:
            continue
        if not isinstance(entry, dict):
            findings.add(
                'json-layout',
                line,
                f'{rows.shown(video)} is no object',
                'Expected subset, duration, annotations.',
            )
            continue
        name = entry.get('subset')
        if name is not None and (not isinstance(name, str) or rows.label_problem(name)):
            findings.add('subset-invalid', line, f'the subset of {rows.shown(video)} is no name', 'Write it as a text.')
            continue
        subsets[name] = subsets.get(name, 0) + 1
        if subset is None or name == subset:
            records.append(_record(video, entry, line, classes, findings))
    if subset is not None and subset not in subsets:
        found = ', '.join(f'{rows.shown(name)} ({count})' for name, count in subsets.items() if name is not None)
        findings.add('subset-unknown', None, f'no video has the subset {subset!r}', f'Found: {found or "none"}.')
    findings.finish(notes)
    return records


def write_activitynet(path: str | os.PathLike, records: Iterable[VideoRecord]) -> None:
    """Writes subset, duration and segments; numbers are exact. Boxes, keyframes and clip labels have no place here.

    Raises ValueError for names, durations and segments that no reader would take.
    """
    database = {}
    for record in sorted(records, key=lambda record: record.video):
        video = rows.safe_name(record.video)
        entry: dict = {}
        if record.subset is not None:
            entry['subset'] = record.subset
        if record.duration is not None:
            entry['duration'] = float(record.duration)
        entry['annotations'] = [
            {'segment': [float(segment.start), float(segment.end)], 'label': segment.label}
            for segment in record.segments
        ]
        for segment in record.segments:
            if not 0 <= segment.start < segment.end <= rows.TIME_LIMIT or rows.label_problem(segment.label):
                raise ValueError(f'{video}: {segment} cannot be written')
        if record.duration is not None and not 0 < record.duration <= rows.TIME_LIMIT:
            raise ValueError(f'{video}: a duration of {record.duration} seconds cannot be written')
        if video in database:
            raise ValueError(f'{video} is there twice')
        database[video] = entry
    rows.write_text(path, json.dumps({'database': database}, indent=1, ensure_ascii=False, allow_nan=False) + '\n')


def _database(text: str, findings: rows.Findings) -> dict:
    twice: list[str] = []

    def unique(pairs: list[tuple[str, object]]) -> dict:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            keys = [key for key, _ in pairs]
            twice.extend(sorted({key for key in keys if keys.count(key) > 1}))
        return entries

    root = rows.json_root(text, findings, unique)
    for key in twice:
        findings.add('json-duplicate-key', None, f'{rows.shown(key)} is there twice in one object', 'Keep one of them.')
    if not isinstance(root, dict) or not isinstance(root.get('database'), dict):
        findings.stop('json-layout', 1, 'there is no "database" object', 'Expected {"database": {video: {...}}}.')
    if not root['database']:
        findings.stop('file-empty', 1, 'the database has no video', 'Check that the file was written completely.')
    return root['database']


class _Lines:
    """Where a video stands in the text: JSON has no line numbers, but its keys are unique texts."""

    def __init__(self, text: str):
        self.text, self.position, self.line = text, 0, 1

    def of(self, video: str) -> int | None:
        position = -1
        for ascii_only in (False, True):
            position = self.text.find(json.dumps(video, ensure_ascii=ascii_only))
            if position >= 0:
                break
        if position < 0:
            return None
        if position >= self.position:
            self.line += self.text.count('\n', self.position, position)
        else:
            self.line -= self.text.count('\n', position, self.position)
        self.position = position
        return self.line


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > rows.TIME_LIMIT:
        return None
    return float(value) if math.isfinite(value) else None


def _record(
    video: str, entry: dict, line: int | None, classes: Sequence[str] | None, findings: rows.Findings
) -> VideoRecord:
    duration = None
    if entry.get('duration') is not None:
        duration = _seconds(entry['duration'])
        if duration is None or duration <= 0:
            findings.add(
                'duration-invalid',
                line,
                f'the duration of {rows.shown(video)} is {rows.shown(str(entry["duration"]))}',
                'Give seconds as a number above 0, or leave it out.',
            )
            duration = None
    annotations = entry.get('annotations', [])
    if not isinstance(annotations, list):
        findings.add(
            'json-layout',
            line,
            f'the annotations of {rows.shown(video)} are no list',
            'Expected [{segment, label}].',
        )
        annotations = []
    segments: dict[Segment, int] = {}
    for index, annotation in enumerate(annotations):
        where = f'annotation {index} of {rows.shown(video)}'
        segment = _segment(annotation, where, line, duration, classes, findings)
        if segment in segments:
            findings.warn(
                'duplicate-row',
                line,
                f'{where} repeats annotation {segments[segment]}',
                'It is counted once; remove it.',
            )
        elif segment is not None:
            segments[segment] = index
    ordered = tuple(sorted(segments, key=lambda segment: (segment.start, segment.end)))
    return VideoRecord(video, subset=entry.get('subset'), duration=duration, segments=ordered)


def _segment(
    annotation: object,
    where: str,
    line: int | None,
    duration: float | None,
    classes: Sequence[str] | None,
    findings: rows.Findings,
) -> Segment | None:
    times = annotation.get('segment') if isinstance(annotation, dict) else None
    if not isinstance(times, list) or len(times) != 2:
        findings.add(
            'segment-layout',
            line,
            f'{where} has no segment of two numbers',
            'Expected "segment": [start, end].',
        )
        return None
    start, end = (_seconds(time) for time in times)
    if start is None or end is None:
        findings.add(
            'segment-not-a-number',
            line,
            f'the segment of {where} is {rows.shown(str(times))}',
            'Give start and end as finite numbers of seconds.',
        )
        return None
    label = annotation.get('label')
    if not isinstance(label, str) or rows.label_problem(label):
        findings.add('label-missing', line, f'{where} has no label', 'Give each annotation a "label" text.')
        return None
    return segment_or_problem(start, end, label, where, line, duration, classes, findings)


def segment_or_problem(
    start: float,
    end: float,
    label: str,
    where: str,
    line: int | None,
    duration: float | None,
    classes: Sequence[str] | None,
    findings: rows.Findings,
) -> Segment | None:
    """A segment whose times and label make sense, or None after a problem."""
    if start < 0:
        findings.add(
            'segment-negative',
            line,
            f'{where} starts at {start} s',
            'Times count from the start of the video.',
        )
        return None
    if end <= start:
        findings.add(
            'segment-order',
            line,
            f'{where} ends at {end} s, not after its start {start} s',
            'Give start, then end.',
        )
        return None
    if classes is not None and label not in classes:
        fix = rows.nearest(label, classes)
        findings.add('label-unknown', line, f'{rows.shown(label)} of {where} is not in the list of classes', fix)
        return None
    if duration is not None and end > duration + DURATION_SLACK:
        findings.warn(
            'segment-beyond-duration',
            line,
            f'{where} ends at {end} s, the video at {duration} s',
            'It is kept; check that times are seconds and belong to this video.',
        )
    return Segment(start, end, label)
