"""What annotations hold, in numbers: for a person to read, and as JSON."""

import collections
import statistics
from collections.abc import Mapping, Sequence

from vidloc.annotations.records import VideoRecord

WIDTH = 40  # of the bars
# Of more classes than SHOWN only the most and the fewest are shown.
SHOWN, RAREST = 40, 10
NAMED = 20


def summarise(records: Sequence[VideoRecord], classes: Sequence[str] | None) -> dict:
    """Counts of videos, keyframes, boxes, segments and labels; people per keyframe; durations; the class histogram.

    Plain numbers, lists and dicts, ready for JSON.
    """
    histogram: collections.Counter = collections.Counter()
    people: collections.Counter = collections.Counter()
    unlabelled = scored = 0
    for record in records:
        at = collections.Counter(person.time for person in record.boxes)
        people.update(at[time] for time in record.keyframes)
        for person in record.boxes:
            histogram.update(person.labels)
            unlabelled += not person.labels
            scored += person.score is not None
        histogram.update(segment.label for segment in record.segments)
        histogram.update(clip.label for clip in record.labels)
    known = () if classes is None else classes
    lengths = [segment.end - segment.start for record in records for segment in record.segments]
    times = [time for record in records for time in (record.keyframes[:1] + record.keyframes[-1:])]
    return {
        'videos': len(records),
        'keyframes': sum(people.values()),
        'keyframe_seconds': spread(times),
        'boxes': sum(len(record.boxes) for record in records),
        'boxes_with_score': scored,
        'boxes_without_label': unlabelled,
        'boxes_per_keyframe': {str(number): people[number] for number in sorted(people)},
        'segments': len(lengths),
        'segment_seconds': spread(lengths),
        'clip_labels': sum(len(record.labels) for record in records),
        'duration_seconds': spread([record.duration for record in records if record.duration is not None]),
        'subsets': dict(collections.Counter(record.subset for record in records if record.subset is not None)),
        'classes': dict(sorted(histogram.items(), key=lambda item: (-item[1], item[0]))),
        'classes_without_example': [name for name in known if name not in histogram],
    }


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """Least, median and most; None of nothing."""
    if not values:
        return None
    return {'least': min(values), 'median': statistics.median(values), 'most': max(values)}


def describe(summary: Mapping[str, Mapping]) -> str:
    """{what: numbers} as text for a person; zeros and empty parts are left out."""
    lines = []
    for what, counts in summary.items():
        lines.append(what)
        for key, value in counts.items():
            name = f'  {key.replace("_", " "):<24}'
            if key == 'classes':
                lines += [f'{name}{len(value)}', *_histogram(value)] if value else []
            elif isinstance(value, Mapping) and key.endswith('seconds'):
                lines.append(name + ', '.join(f'{part} {number:.6g}' for part, number in value.items()))
            elif isinstance(value, Mapping) and value:
                lines.append(name + ', '.join(f'{part}: {number}' for part, number in value.items()))
            elif isinstance(value, list) and value:
                more = f' and {len(value) - NAMED} more' if len(value) > NAMED else ''
                lines.append(f'{name}{len(value)}: {", ".join(value[:NAMED])}{more}')
            elif isinstance(value, int) and value:
                lines.append(f'{name}{value}')
    return '\n'.join(lines)


def _histogram(counts: Mapping[str, int]) -> list[str]:
    """A bar for each class, from the most to the fewest examples."""
    names = list(counts)
    width, most = max(map(len, names)), max(counts.values())
    bars = [
        f'    {name:<{width}}  {counts[name]:>8}  {"#" * max(1, round(WIDTH * counts[name] / most))}' for name in names
    ]
    if len(bars) > SHOWN + RAREST:
        bars[SHOWN:-RAREST] = [f'    ... {len(bars) - SHOWN - RAREST} more classes ...']
    return bars
