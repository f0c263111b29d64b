"""ActivityNet JSON, in which THUMOS and most other sets of temporal segments are handed around too.

`{"database": {video: {"subset": ..., "duration": seconds, "annotations": [{"segment": [start, end], "label": ...}]}}}`
Layout: activity-net.org, and activitynet/ActivityNet, Evaluation/README. happyharrycn/actionformer_release adds `fps`
to a video and `label_id` to an annotation, and calls THUMOS's subsets 'Validation' (for training) and 'Test';
sming256/OpenTAD calls them 'training' and 'validation', and names videos that its evaluation passes over.
"""

import collections
import json
import math
import os
from collections.abc import Collection, Iterable, Mapping, Sequence

from vidloc.annotations import label_ids, rows
from vidloc.annotations.records import Problem, Segment, VideoRecord

DURATION_SLACK = 1e-3  # seconds: durations are often rounded to milliseconds
LARGEST_FPS = 1000.0


def read_activitynet(
    path: str | os.PathLike,
    subset: str | None = None,
    *,
    classes: Sequence[str] | None = None,
    blocked: Collection[str] = (),
    prefix: str = '',
    notes: list[Problem] | None = None,
) -> list[VideoRecord]:
    """Records sorted by video, each with its segments sorted by time.

    Args:
      path: the JSON file.
      subset: only its videos; a name that differs in case alone will do if there is one such. None takes all.
      classes: if given, each label must be one of them, and a label_id its index.
      blocked: videos to leave out.
      prefix: what the names of the videos' files have before those of the videos ('v_' for ActivityNet's).
      notes: takes the warnings.

    Raises AnnotationError with every error found.
    """
    findings = rows.Findings(path)
    text = rows.read_text(path, findings)
    entries = database(text, findings)
    lines, ids = _Lines(text), label_ids.LabelIds(classes)
    found: list[tuple[str, dict, int | None]] = []
    subsets: collections.Counter = collections.Counter()
    for video, entry in sorted(entries.items()):
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
        subsets[name] += 1
        found.append((video, entry, line))
        ids.see(entry, line, findings)
    wanted = None if subset is None else _subset(subset, subsets, findings)
    mine = [each for each in found if subset is None or each[1].get('subset') == wanted]
    left_out = [video for video, _, _ in mine if video in blocked]
    if left_out:
        message = f'{len(left_out)} of {len(mine)} videos are blocked ({", ".join(left_out[:5])})'
        findings.warn('video-blocked', None, message, 'They are left out, and so is what is annotated in them.')
    if mine and len(left_out) == len(mine):
        findings.add('video-all-blocked', None, 'every video is blocked', 'Check the list of blocked videos.')
    records = [_record(*each, prefix, classes, findings) for each in mine if each[0] not in blocked]
    findings.finish(notes)
    return records


def class_order(path: str | os.PathLike) -> tuple[str, ...]:
    """The labels of a file, of all its subsets: by their label_id if these are 0, 1, 2, ..., else sorted.

    Raises AnnotationError.
    """
    findings = rows.Findings(path)
    ids = label_ids.LabelIds(None)
    for entry in database(rows.read_text(path, findings), findings).values():
        if isinstance(entry, dict):
            ids.see(entry, None, findings)
    return ids.order()


def write_activitynet(path: str | os.PathLike, records: Iterable[VideoRecord]) -> None:
    """Writes subset, duration, fps and segments; numbers are exact. Boxes, keyframes and clip labels have no place.

    Raises ValueError for names, durations and segments that no reader would take.
    """
    written: dict[str, dict] = {}
    for record in sorted(records, key=lambda record: record.video):
        video = rows.safe_name(record.video)
        entry: dict = {}
        if record.subset is not None:
            entry['subset'] = record.subset
        if record.duration is not None:
            entry['duration'] = float(record.duration)
        if record.fps is not None:
            if not 0 < record.fps <= LARGEST_FPS:
                raise ValueError(f'{video}: {record.fps} frames a second cannot be written')
            entry['fps'] = float(record.fps)
        entry['annotations'] = [
            {'segment': [float(segment.start), float(segment.end)], 'label': segment.label}
            for segment in record.segments
        ]
        for segment in record.segments:
            if not 0 <= segment.start < segment.end <= rows.TIME_LIMIT or rows.label_problem(segment.label):
                raise ValueError(f'{video}: {segment} cannot be written')
        if record.duration is not None and not 0 < record.duration <= rows.TIME_LIMIT:
            raise ValueError(f'{video}: a duration of {record.duration} seconds cannot be written')
        if video in written:
            raise ValueError(f'{video} is there twice')
        written[video] = entry
    rows.write_text(path, json.dumps({'database': written}, indent=1, ensure_ascii=False, allow_nan=False) + '\n')


def database(text: str, findings: rows.Findings) -> dict:
    """{video: entry} of a JSON text. Stops at what has no such object."""
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


def _subset(wanted: str, subsets: Mapping[str | None, int], findings: rows.Findings) -> str | None:
    """The subset of the file that is meant; None after a problem."""
    if wanted in subsets:
        return wanted
    alike = [name for name in subsets if name is not None and name.casefold() == wanted.casefold()]
    if len(alike) == 1:
        message = f'the subset is called {rows.shown(alike[0])}, not {wanted!r}'
        findings.warn('subset-case', None, message, 'It is taken; write it as the file does.')
        return alike[0]
    known = ', '.join(f'{rows.shown(name)} ({count})' for name, count in subsets.items() if name is not None)
    findings.add('subset-unknown', None, f'no video has the subset {wanted!r}', f'Found: {known or "none"}.')
    return None


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > rows.TIME_LIMIT:
        return None
    return float(value) if math.isfinite(value) else None


def _record(
    video: str,
    entry: dict,
    line: int | None,
    prefix: str,
    classes: Sequence[str] | None,
    findings: rows.Findings,
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
    fps = None
    if entry.get('fps') is not None:
        fps = _seconds(entry['fps'])
        if fps is None or not 0 < fps <= LARGEST_FPS:
            findings.add(
                'fps-invalid',
                line,
                f'the fps of {rows.shown(video)} is {rows.shown(str(entry["fps"]))}',
                f'Give frames a second as a number above 0, at most {LARGEST_FPS:g}, or leave it out.',
            )
            fps = None
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
    stem = f'{prefix}{video}' if prefix else None
    return VideoRecord(video, subset=entry.get('subset'), duration=duration, segments=ordered, stem=stem, fps=fps)


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
    if start == end and start >= 0:
        findings.warn('segment-empty', line, f'{where} has no length, at {start} s', 'It is left out; remove it.')
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
