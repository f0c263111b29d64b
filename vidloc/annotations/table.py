"""Our own CSV: `video,start,end,label[,x1,y1,x2,y2,track]` with a header line, for people who start from nothing.

A row says one thing, and its empty fields say which:
- label alone: the whole clip is that; - start, end and label: a segment;
- start, box and label: a person at that moment (end is empty or equal to start); several labels are several rows
  with the same box, no label is a person who does none of the classes; - start alone: a keyframe without people.
"""

import os
from collections.abc import Iterable, Sequence

from vidloc.annotations import rows
from vidloc.annotations.activitynet import segment_or_problem
from vidloc.annotations.records import ClipLabel, PersonBox, Problem, VideoRecord

COLUMNS = ('video', 'start', 'end', 'label')
BOX_COLUMNS = (*COLUMNS, 'x1', 'y1', 'x2', 'y2')
TRACK_COLUMNS = (*BOX_COLUMNS, 'track')
_FIX = 'The first line is video,start,end,label and may go on with x1,y1,x2,y2 and then track.'


def read_table(
    path: str | os.PathLike,
    *,
    classes: Sequence[str] | None = None,
    notes: list[Problem] | None = None,
) -> list[VideoRecord]:
    """Records sorted by video. A video that ends in a known suffix (.mp4, ...) is also the record's path.

    classes: if given, each label must be one of them. notes: takes the warnings.
    Raises AnnotationError with every error found.
    """
    findings = rows.Findings(path)
    text = rows.read_text(path, findings)
    videos: dict[str, _Video] = {}
    refused: set[str] = set()
    seen: dict[tuple[str, ...], int] = {}
    width = 0
    for line, row in rows.csv_rows(text, findings):
        if not width:
            names = tuple(name.lower() for name in row)
            if names not in (COLUMNS, BOX_COLUMNS, TRACK_COLUMNS):
                message = f'the first line {rows.shown(",".join(row))} is not the header of a table'
                findings.stop('header-missing', line, message, _FIX)
            width = len(row)
            continue
        if len(row) != width:
            findings.add('column-count', line, f'the row has {len(row)} columns, the header {width}', _FIX)
            continue
        first = seen.setdefault(tuple(row), line)
        if first != line:
            findings.warn('duplicate-row', line, f'the row repeats line {first}', 'It is counted once; remove it.')
            continue
        if row[0] not in videos and row[0] not in refused:
            if rows.video_name(row[0], line, findings) is None:
                refused.add(row[0])
            else:
                videos[row[0]] = _Video()
        if row[0] not in refused:
            videos[row[0]].add(line, row + [''] * (len(TRACK_COLUMNS) - width), classes, findings)
    if not seen:
        findings.add('file-empty', None, 'the table has a header and no rows', 'Add rows.')
    findings.finish(notes)
    return [videos[video].record(video) for video in sorted(videos)]


def write_table(path: str | os.PathLike, records: Iterable[VideoRecord]) -> None:
    """Writes keyframes, boxes, labels, tracks, segments and clip labels; numbers are exact.

    The video column is the record's path, else its name. Scores, subsets and durations have no place here and are left
    out; a clip label with times is written as the segment that it is. Raises ValueError for what no reader would take.
    """
    body, wide = [], False
    for record in sorted(records, key=lambda record: record.path or record.video):
        video = rows.safe_name(record.path or record.video)
        for clip in record.labels:
            times = ['', ''] if clip.start is None else _times(clip.start, clip.end, clip.label, video)
            body.append([video, *times, _label(clip.label, video), '', '', '', '', ''])
        for segment in record.segments:
            times = _times(segment.start, segment.end, segment.label, video)
            body.append([video, *times, _label(segment.label, video), '', '', '', '', ''])
        wide = wide or bool(record.boxes)
        for time in sorted(set(record.keyframes) - {person.time for person in record.boxes}):
            body.append([video, _time(time), '', '', '', '', '', '', ''])
        for person in record.boxes:
            box = rows.box_texts(person.box, f'{video} at {person.time}')
            track = '' if person.track is None else rows.safe_track(person.track)
            for label in person.labels or ('',):
                name = _label(label, video) if label else ''
                body.append([video, _time(person.time), '', name, *box, track])
    header = TRACK_COLUMNS if wide else COLUMNS
    rows.write_csv(path, [header, *(row[: len(header)] for row in body)])


def _time(seconds: float) -> str:
    if not 0 <= seconds <= rows.TIME_LIMIT:
        raise ValueError(f'a time of {seconds} seconds cannot be written')
    return repr(float(seconds))


def _times(start: float, end: float | None, label: str, video: str) -> list[str]:
    if end is None or not start < end:
        raise ValueError(f'{video}: {label!r} from {start} to {end} is no segment')
    return [_time(start), _time(end)]


def _label(label: str, video: str) -> str:
    if rows.label_problem(label):
        raise ValueError(f'{video}: {label!r} cannot be the name of a class')
    return label


class _Video:
    """What the rows of one video say."""

    def __init__(self):
        self.keyframes: set[float] = set()
        self.people: dict[tuple, list[str]] = {}  # {(time, box, track): labels}
        self.segments: dict = {}
        self.clips: dict[str, None] = {}

    def add(self, line: int, row: list[str], classes: Sequence[str] | None, findings: rows.Findings) -> None:
        _, start_text, end_text, label, *box_texts, track = row
        if label and rows.label_problem(label):
            message = f'the label {rows.shown(label)} {rows.label_problem(label)}'
            findings.add('label-name', line, message, 'Give each class a plain name.')
            return
        if label and classes is not None and label not in classes:
            fix = rows.nearest(label, classes)
            findings.add('label-unknown', line, f'{rows.shown(label)} is not in the list of classes', fix)
            return
        start = rows.timestamp(start_text, line, findings, 'start') if start_text else None
        end = rows.timestamp(end_text, line, findings, 'end') if end_text else None
        if (start_text and start is None) or (end_text and end is None):
            return
        if any(box_texts):
            self._person(line, start, end, label, box_texts, track, findings)
        elif start is None and end is None and label:
            self.clips[label] = None
        elif start is not None and end is not None and label:
            segment = segment_or_problem(start, end, label, 'the segment', line, None, None, findings)
            if segment is not None:
                self.segments[segment] = None
        elif start is not None and end is None and not label:
            self.keyframes.add(start)
        else:
            findings.add(
                'row-incomplete',
                line,
                'the row is neither a clip, a segment, a person nor a keyframe',
                'Give label; or start, end and label; or start and a box; or start alone.',
            )

    def _person(
        self,
        line: int,
        start: float | None,
        end: float | None,
        label: str,
        box_texts: list[str],
        track: str,
        findings: rows.Findings,
    ) -> None:
        box = rows.box(box_texts, line, findings)
        if start is None or (end is not None and end != start):
            findings.add(
                'box-without-moment',
                line,
                'a box belongs to one moment',
                'Give start and leave end empty; a person over time is one row a keyframe with the same track.',
            )
        elif box is not None:
            self.keyframes.add(start)
            labels = self.people.setdefault((start, box, track or None), [])
            if label and label not in labels:
                labels.append(label)

    def record(self, video: str) -> VideoRecord:
        boxes = [PersonBox(time, box, tuple(labels), None, track) for (time, box, track), labels in self.people.items()]
        return VideoRecord(
            video,
            path=video if video.lower().endswith(rows.VIDEO_SUFFIXES) else None,
            keyframes=tuple(sorted(self.keyframes)),
            boxes=tuple(sorted(boxes, key=lambda person: person.time)),
            segments=tuple(sorted(self.segments, key=lambda segment: (segment.start, segment.end))),
            labels=tuple(ClipLabel(label) for label in self.clips),
        )
