"""Ground truth of temporal segments (ActivityNet JSON) as columns, raw: what evaluation reads.

Unlike annotations/activitynet.py this keeps segments given twice and segments without length: the rules of the
evaluation say what becomes of them.
"""

import contextlib
import dataclasses
import gc
import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from vidloc.annotations import rows
from vidloc.annotations.records import Problem


@dataclasses.dataclass(frozen=True)
class SegmentTable:
    """columns: video object (str), start, end, duration float64 (seconds; NaN if not given), label int64, [M] each.

    classes: what labels mean: all of the file, of any subset, sorted. videos: the evaluated ones, also those without
    segments. blocked: videos of the subset that were left out.
    """

    columns: Mapping[str, np.ndarray]
    videos: tuple[str, ...]
    classes: tuple[str, ...]
    blocked: int


def read_segment_table(
    path: str | os.PathLike,
    subset: str | None = None,
    blocked: Collection[str] = (),
    *,
    notes: list[Problem] | None = None,
) -> SegmentTable:
    """All segments of a subset in the order of the file.

    subset: None for all videos; a name that no video has is looked for without regard to case, with a note.
    blocked: videos to leave out. notes: takes the warnings. Raises AnnotationError for everything that cannot be scored
    and for a subset that no video has.
    """
    findings = rows.Findings(path)
    database = read_object(path, 'database', findings)
    chosen, classes, dropped = {}, set(), 0
    wanted = _subset(database, subset, findings)
    for video, entry in database.items():
        if rows.video_name(video, None, findings) is None:
            continue
        annotations = entry.get('annotations', []) if isinstance(entry, dict) else None
        if not isinstance(annotations, list):
            message = f'{rows.shown(video)} has no list of annotations'
            findings.add(
                'json-layout', None, message, 'Expected {"subset": ..., "duration": ..., "annotations": [...]}.'
            )
            continue
        for annotation in annotations:
            if isinstance(annotation, dict) and isinstance(annotation.get('label'), str):
                classes.add(annotation['label'])
        if subset is None or entry.get('subset') == wanted:
            if video in blocked:
                dropped += 1
            else:
                chosen[video] = entry
    found = [row for video, entry in chosen.items() for row in _segments(video, entry, findings)]
    findings.finish(notes)
    video, start, end, label, duration = zip(*found, strict=True) if found else ((),) * 5
    names = tuple(sorted(classes))
    columns = {
        'video': np.array(video, dtype=object),
        'start': np.array(start, np.float64),
        'end': np.array(end, np.float64),
        'label': label_numbers(label, names),
        'duration': np.array(duration, np.float64),
    }
    return SegmentTable(columns, tuple(chosen), names, dropped)


def read_blocked(path: str | os.PathLike) -> tuple[str, ...]:
    """Names of videos to leave out: a JSON list (OpenTAD's blocked.json), the keys of a JSON object, or one a line."""
    findings = rows.Findings(path)
    text = rows.read_text(path, findings)
    if text.lstrip().startswith(('[', '{')):
        names = rows.json_root(text, findings)
        if not all(isinstance(name, str) for name in names):
            findings.stop('json-layout', None, 'an entry is no text', 'Expected ["video", ...].')
        return tuple(names)
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def label_numbers(labels: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """int64 [M]: the place of each label in `classes`, -1 for others."""
    place = {name: number for number, name in enumerate(classes)}
    return np.fromiter((place.get(label, -1) for label in labels), np.int64, len(labels))


def read_object(path: str | os.PathLike, key: str, findings: rows.Findings) -> dict:
    """The object `key` of a JSON file. Stops at what is no such file and at names given twice in an object."""
    text = rows.read_text(path, findings)
    twice: dict[str, None] = {}

    def unique(pairs: list[tuple[str, object]]) -> dict:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            names = [name for name, _ in pairs]
            twice.update(dict.fromkeys(name for name in names if names.count(name) > 1))
        return entries

    with _without_collection():
        root = rows.json_root(text, findings, unique)
    for name in twice:
        findings.add(
            'json-duplicate-key', None, f'{rows.shown(name)} is there twice in one object', 'Keep one of them.'
        )
    if not isinstance(root, dict) or not isinstance(root.get(key), dict):
        names = f'; found: {", ".join(rows.shown(name) for name in list(root)[:5])}' if isinstance(root, dict) else ''
        findings.stop(
            'json-layout', None, f'there is no object "{key}"{names}', f'Expected {{"{key}": {{video: ...}}}}.'
        )
    return root[key]


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Half a million small objects come into being and all stay: to look for garbage among them doubles the time."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def seconds(value: object) -> float | None:
    """A finite number of seconds, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= rows.TIME_LIMIT:
        return None
    return float(value)


def _subset(database: Mapping[str, object], subset: str | None, findings: rows.Findings) -> str | None:
    """The name of the subset as the file writes it."""
    counts: dict[str, int] = {}
    for entry in database.values():
        name = entry.get('subset') if isinstance(entry, dict) else None
        if isinstance(name, str):
            counts[name] = counts.get(name, 0) + 1
    if subset is None or subset in counts:
        return subset
    found = ', '.join(f'{rows.shown(name)} ({count} videos)' for name, count in sorted(counts.items())) or 'none'
    alike = [name for name in counts if name.casefold() == subset.casefold()]
    if len(alike) != 1:
        findings.stop('subset-unknown', None, f'no video has the subset {rows.shown(subset)}', f'Found: {found}.')
    fix = f'Subsets of the file: {found}. (Files of THUMOS-14 name the videos to evaluate Test or validation.)'
    findings.warn('subset-case', None, f'the subset {rows.shown(subset)} is read as {rows.shown(alike[0])}', fix)
    return alike[0]


def _segments(video: str, entry: dict, findings: rows.Findings) -> list[tuple[str, float, float, str, float]]:
    duration = math.nan
    if entry.get('duration') is not None:
        duration = seconds(entry['duration'])
        if duration is None or duration <= 0:
            message = f'the duration of {rows.shown(video)} is {rows.shown(str(entry["duration"]))}'
            findings.add('duration-invalid', None, message, 'Give seconds as a number above 0, or leave it out.')
            return []
    found = []
    for index, annotation in enumerate(entry.get('annotations', [])):
        where = f'annotation {index} of {rows.shown(video)}'
        times = annotation.get('segment') if isinstance(annotation, dict) else None
        start, end = map(seconds, times) if isinstance(times, list) and len(times) == 2 else (None, None)
        if start is None or end is None:
            message = f'the segment of {where} is {rows.shown(str(times))}'
            findings.add('segment-not-a-number', None, message, 'Expected "segment": [start, end], finite seconds.')
            continue
        label = annotation.get('label')
        if not isinstance(label, str) or rows.label_problem(label):
            findings.add('label-missing', None, f'{where} has no label', 'Give each annotation a "label" text.')
            continue
        found.append((video, start, end, label, duration))
    return found
