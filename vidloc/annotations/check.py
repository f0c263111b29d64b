"""The validator: reads annotation files as training would, and tells all that is wrong and what is in them."""

import collections
import dataclasses
import os
import statistics
from collections.abc import Sequence

from vidloc.annotations import activitynet, ava, clips, table
from vidloc.annotations.records import AnnotationError, Problem, VideoRecord

FORMATS = ('ava', 'ava_detections', 'clips', 'activitynet', 'table')
NEEDS_LABELS = ('ava', 'clips')


@dataclasses.dataclass(frozen=True)
class Report:
    """What was found: all problems, and for each file that could be read its records and summary.

    summary: counts, see `summarise`; plain numbers, lists and dicts, ready for JSON.
    """

    problems: tuple[Problem, ...]
    records: dict[str, list[VideoRecord]]
    summary: dict[str, dict]

    @property
    def errors(self) -> int:
        return sum(problem.severity == 'error' for problem in self.problems)


def check(
    format_name: str,
    annotations: Sequence[str | os.PathLike],
    *,
    labels: str | os.PathLike | None = None,
    subset: str | None = None,
) -> Report:
    """Checks each file by itself, and that no video is in two of them.

    format_name: one of FORMATS. labels: a label map (.pbtxt) for ava and ava_detections, else a list of names; needed
    for NEEDS_LABELS. subset: for activitynet. Raises ValueError for an unknown format or labels that lack.
    """
    if format_name not in FORMATS:
        raise ValueError(f'unknown format {format_name!r}; known: {", ".join(FORMATS)}')
    if format_name in NEEDS_LABELS and labels is None:
        raise ValueError(f'format {format_name} needs the classes: name their file with labels')
    if subset is not None and format_name != 'activitynet':
        raise ValueError(f'format {format_name} has no subsets')
    problems: list[Problem] = []
    try:
        classes = _classes(format_name, labels)
    except AnnotationError as error:
        return Report(error.problems, {}, {})
    records, summary = {}, {}
    for path in dict.fromkeys(map(os.fspath, annotations)):
        notes: list[Problem] = []
        try:
            records[path] = _read(format_name, path, labels, classes, subset, notes)
        except AnnotationError as error:
            problems.extend(error.problems)
            continue
        problems.extend(notes)
        summary[path] = summarise(records[path], classes)
        absent = summary[path]['classes_without_example']
        if absent:
            some = ', '.join(absent[:5]) + (', ...' if len(absent) > 5 else '')
            message = f'{len(absent)} of {len(classes)} classes have no example ({some})'
            fix = 'They cannot be learned, or scored, from this file.'
            problems.append(Problem('class-without-example', path, None, message, fix, 'warning'))
    problems.extend(_shared(records))
    return Report(tuple(problems), records, summary)


def _classes(format_name: str, labels: str | os.PathLike | None) -> tuple[str, ...] | None:
    if labels is None:
        return None
    if format_name in ('ava', 'ava_detections'):
        return tuple(ava.read_label_map(labels).values())
    return clips.read_class_list(labels)


def _read(
    format_name: str,
    path: str,
    labels: str | os.PathLike | None,
    classes: tuple[str, ...] | None,
    subset: str | None,
    notes: list[Problem],
) -> list[VideoRecord]:
    readers = {
        'ava': lambda: ava.read_ava([path], labels, notes=notes),
        'ava_detections': lambda: ava.read_detections(path, labels, notes=notes),
        'clips': lambda: clips.read_clips(path, classes, notes=notes),
        'activitynet': lambda: activitynet.read_activitynet(path, subset, classes=classes, notes=notes),
        'table': lambda: table.read_table(path, classes=classes, notes=notes),
    }
    return readers[format_name]()


def _shared(records: dict[str, list[VideoRecord]]) -> list[Problem]:
    """A problem for each pair of files that have videos in common."""
    paths = list(records)
    names = [{record.video for record in records[path]} for path in paths]
    problems = []
    for second in range(len(paths)):
        for first in range(second):
            common = sorted(names[first] & names[second])
            if common:
                some = ', '.join(common[:3]) + (', ...' if len(common) > 3 else '')
                message = f'{len(common)} videos are also in {paths[first]} ({some})'
                fix = 'Training and validation must not share a video: take it out of one of them.'
                problems.append(Problem('video-in-two-files', paths[second], None, message, fix))
    return problems


def summarise(records: Sequence[VideoRecord], classes: Sequence[str] | None) -> dict:
    """Counts of videos, keyframes, boxes, segments and labels; people per keyframe; durations; the class histogram."""
    histogram: collections.Counter = collections.Counter()
    people: collections.Counter = collections.Counter()
    unlabelled = 0
    for record in records:
        at = collections.Counter(person.time for person in record.boxes)
        people.update(at[time] for time in record.keyframes)
        for person in record.boxes:
            histogram.update(person.labels)
            unlabelled += not person.labels
        histogram.update(segment.label for segment in record.segments)
        histogram.update(clip.label for clip in record.labels)
    known = () if classes is None else classes
    lengths = [segment.end - segment.start for record in records for segment in record.segments]
    return {
        'videos': len(records),
        'keyframes': sum(people.values()),
        'boxes': sum(len(record.boxes) for record in records),
        'boxes_without_label': unlabelled,
        'boxes_per_keyframe': {str(number): people[number] for number in sorted(people)},
        'segments': len(lengths),
        'segment_seconds': _spread(lengths),
        'clip_labels': sum(len(record.labels) for record in records),
        'duration_seconds': _spread([record.duration for record in records if record.duration is not None]),
        'subsets': dict(collections.Counter(record.subset for record in records if record.subset is not None)),
        'classes': dict(sorted(histogram.items(), key=lambda item: (-item[1], item[0]))),
        'classes_without_example': [name for name in known if name not in histogram],
    }


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {'least': min(values), 'median': statistics.median(values), 'most': max(values)}


def describe(summary: dict[str, dict]) -> str:
    """The summaries as text for a person."""
    lines = []
    for path, counts in summary.items():
        lines.append(path)
        for key, value in counts.items():
            if key == 'classes':
                lines.append(f'  {"classes":<24}{len(value)}')
                width = max(map(len, value), default=0)
                most = max(value.values(), default=1)
                for name, count in value.items():
                    lines.append(f'    {name:<{width}}  {count:>8}  {"#" * max(1, round(40 * count / most))}')
            elif isinstance(value, dict) and key.endswith('seconds'):
                text = ', '.join(f'{name} {number:.6g}' for name, number in value.items())
                lines.append(f'  {key.replace("_", " "):<24}{text}')
            elif isinstance(value, dict) and value:
                text = ', '.join(f'{name}: {number}' for name, number in value.items())
                lines.append(f'  {key.replace("_", " "):<24}{text}')
            elif isinstance(value, list) and value:
                lines.append(f'  {key.replace("_", " "):<24}{", ".join(value)}')
            elif isinstance(value, int) and value:
                lines.append(f'  {key.replace("_", " "):<24}{value}')
    return '\n'.join(lines)
