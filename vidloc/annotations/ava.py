"""AVA and AVA-Kinetics: ground truth, label maps, and person detections in the layout of LFB and SlowFast.

Ground truth has no header and rows of 8, 7 or 2 columns: `video, timestamp, x1, y1, x2, y2, action_id, person_id`,
the same without the person, or only a keyframe on which nobody was boxed. A person with three actions has three
rows with the same box. Detections have 8 columns, `video, timestamp, x1, y1, x2, y2, action_id or empty, score`.
Layouts: research.google.com/ava, and facebookresearch/SlowFast, slowfast/datasets/DATASET.md.
"""

import collections
import os
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from vidloc.annotations import rows
from vidloc.annotations.ava_table import read_ava_table as read_ava_table
from vidloc.annotations.ava_table import write_ava_table as write_ava_table
from vidloc.annotations.label_map import read_label_map
from vidloc.annotations.label_map import write_label_map as write_label_map
from vidloc.annotations.records import PersonBox, Problem, VideoRecord

AVA_IDS = 80  # AVA annotates 80 actions and evaluates 60 of them: its files hold ids that its label map lacks


def read_ava(
    ground_truth: Sequence[str | os.PathLike] | str | os.PathLike,
    label_map: str | os.PathLike,
    excluded: str | os.PathLike | None = None,
    included: str | os.PathLike | None = None,
    *,
    notes: list[Problem] | None = None,
) -> list[VideoRecord]:
    """Records of all the files together, sorted by video.

    Rows with the same box at one (video, timestamp) are one person with several labels. Ids that the label map
    lacks are dropped and counted if they lie in 1..80 (the official files hold 80 ids, the official lists 60 of
    them); the person and the keyframe stay. An empty action id is a person who does none of the classes.
    excluded: csv `video,timestamp` of keyframes to leave out. included: text file of the seconds that may be keyframes,
    one a line; a row at another one is an error.
    notes: takes the warnings. Raises AnnotationError with every error found.
    """
    classes = read_label_map(label_map)
    paths = [ground_truth] if isinstance(ground_truth, (str, os.PathLike)) else list(ground_truth)
    reader = _Reader(classes, (2, 7, 8), rows.Findings(paths[0] if paths else 'ground_truth'), included)
    if not paths:
        reader.findings.stop('file-missing', None, 'no ground truth was named', 'Name at least one csv file.')
    for path in paths:
        reader.read(path)
    left_out = set()
    if excluded is not None:
        reader.findings.file = os.fspath(excluded)
        left_out = _excluded_keys(excluded, reader.findings)
    reader.findings.finish(notes)
    return reader.records(left_out)


def read_excluded(path: str | os.PathLike, *, notes: list[Problem] | None = None) -> dict[str, np.ndarray]:
    """Columns video (object) and timestamp (float64) of a csv of keyframes to leave out, without repeats, sorted.

    An empty file excludes nothing, with a warning: some tools ask for one. Raises AnnotationError.
    """
    findings = rows.Findings(path)
    keys = sorted(_excluded_keys(path, findings))
    findings.finish(notes)
    return {
        'video': np.array([video for video, _ in keys], dtype=object),
        'timestamp': np.array([time for _, time in keys], dtype=np.float64),
    }


def read_included(path: str | os.PathLike) -> frozenset[float]:
    """The seconds of a text file of one number a line (ava_included_timestamps_v2.2.txt: 0902 to 1798).

    Raises AnnotationError.
    """
    findings = rows.Findings(path)
    lines = rows.read_text(path, findings).splitlines()
    times = [rows.timestamp(text.strip(), line, findings) for line, text in enumerate(lines, 1) if text.strip()]
    findings.finish(None)
    return frozenset(time for time in times if time is not None)


def not_included(what: str, line: int | None) -> tuple[str, int | None, str, str]:
    """The problem of a keyframe that the list of included seconds lacks: code, line, message, fix."""
    return (
        'timestamp-not-included',
        line,
        f'{what} is at a second that the list of included seconds lacks',
        "AVA's keyframes are 902 to 1798 s of the movie: check that times count from its start, not from the start of "
        'the 15 minutes, and that the list belongs to this set (the clips of Kinetics have none).',
    )


def write_ava(path: str | os.PathLike, records: Iterable[VideoRecord], label_map: Mapping[int, str]) -> None:
    """Writes keyframes, boxes, labels and tracks; numbers are exact, so that reading gives the same again.

    A person without labels has an empty action id. Scores, segments, clip labels, paths, subsets and durations have no
    place in this format and are left out. Two people with equal boxes on one keyframe are read back as one.
    Raises ValueError for labels outside the map and for boxes or names that no reader would take.
    """
    rows.write_csv(
        path, _rows(records, label_map, lambda person: [] if person.track is None else [rows.safe_track(person.track)])
    )


def read_detections(
    path: str | os.PathLike,
    label_map: str | os.PathLike | None = None,
    included: str | os.PathLike | None = None,
    *,
    notes: list[Problem] | None = None,
) -> list[VideoRecord]:
    """Records whose boxes have a score, sorted by video; labels stay empty where the file has none.

    Without a label map the ids themselves, as text, are the labels. Rows of two columns are keyframes without
    detections. Rows with the same box and score at one (video, timestamp) are one person. included: as for read_ava.
    Raises AnnotationError with every error found.
    """
    classes = None if label_map is None else read_label_map(label_map)
    reader = _Reader(classes, (2, 8), rows.Findings(path), included, scored=True)
    reader.read(path)
    reader.findings.finish(notes)
    return reader.records(set())


def write_detections(
    path: str | os.PathLike, records: Iterable[VideoRecord], label_map: Mapping[int, str] | None = None
) -> None:
    """Writes boxes with scores in the LFB/SlowFast layout; numbers are exact. Tracks are left out.

    Without a label map the labels must be the ids as text. Raises ValueError for a box without a score.
    """
    rows.write_csv(path, _rows(records, label_map, _score))


def _score(person: PersonBox) -> list[str]:
    if person.score is None or not 0 <= person.score <= 1:
        raise ValueError(f'the box {person.box} at {person.time} s needs a score in [0,1], not {person.score}')
    return [repr(float(person.score))]


def _rows(records: Iterable[VideoRecord], label_map: Mapping[int, str] | None, last) -> Iterable[list[str]]:
    ids = None if label_map is None else {name: str(number) for number, name in label_map.items()}
    for record in sorted(records, key=lambda record: record.video):
        video = rows.safe_name(record.video)
        people = collections.defaultdict(list)
        for person in record.boxes:
            people[person.time].append(person)
        for time in sorted(people.keys() | set(record.keyframes)):
            text = rows.time_text(time)
            if time not in people:
                yield [video, text]
            for person in people.get(time, ()):
                box = rows.box_texts(person.box, f'{video} at {text}')
                for label in person.labels or ('',):
                    if not label or (ids is None and re.fullmatch('[1-9][0-9]{0,5}', label)):
                        number = label
                    elif ids is None or label not in ids:
                        raise ValueError(f'{label!r} is not in the label map. {rows.nearest(label, ids or ())}')
                    else:
                        number = ids[label]
                    yield [video, text, *box, number, *last(person)]


class _Reader:
    """Gathers people by (video, time, box) over the rows of one or several files."""

    def __init__(
        self,
        classes: Mapping[int, str] | None,
        widths: tuple[int, ...],
        findings: rows.Findings,
        included: str | os.PathLike | None = None,
        *,
        scored: bool = False,
    ):
        self.classes, self.widths, self.findings, self.scored = classes, widths, findings, scored
        # {video: {time: {(box, score): [labels, track]}}}; a keyframe without people has an empty inner dict
        self.videos: dict[str, dict[float, dict[tuple, list]]] = {}
        self.refused: set[str] = set()
        self.included = None if included is None else read_included(included)
        self.known = self.unknown = 0
        self.names = {} if classes is None else {str(number): name for number, name in classes.items()}
        self.last: tuple = ([], None, None)  # a row's first six fields, with the keyframe's people and the box

    def read(self, path: str | os.PathLike) -> None:
        self.findings.file = os.fspath(path)
        outside: dict[int, list[int]] = collections.defaultdict(list)
        self.known = self.unknown = 0
        text = rows.read_text(path, self.findings)
        for index, (line, row) in enumerate(rows.csv_rows(text, self.findings)):
            if index == 0 and rows.is_header(row):
                self.findings.add(
                    'header-line', line, 'the first line holds column names', 'Remove it: AVA has no header.'
                )
                continue
            if len(row) not in self.widths:
                widths = ', '.join(map(str, self.widths[:-1])) + f' or {self.widths[-1]}'
                self.findings.add(
                    'column-count', line, f'the row has {len(row)} columns, expected {widths}', self._layout()
                )
                continue
            self._row(line, row, outside)
        self._outside(outside)

    def _layout(self) -> str:
        last = 'action_id or empty,score' if self.scored else 'action_id[,person_id]'
        return (
            f'The columns are video,timestamp,x1,y1,x2,y2,{last}; video,timestamp alone for a keyframe without boxes.'
        )

    def _row(self, line: int, row: list[str], outside: dict[int, list[int]]) -> None:
        if len(row) == 2 or row[:6] != self.last[0]:  # the rows of one person mostly follow each other
            self.last = (row[:6], *self._place(line, row))
        _, people, box = self.last
        if people is not None and any(row[2:]):
            self._person(line, row, people, box, outside)

    def _place(self, line: int, row: list[str]) -> tuple[dict | None, tuple | None]:
        """The people on the row's keyframe, which is new if need be, and the row's box; None after a problem."""
        video = row[0]
        if video in self.refused:
            return None, None
        if video not in self.videos and rows.video_name(video, line, self.findings) is None:
            self.refused.add(video)
            return None, None
        time = rows.timestamp(row[1], line, self.findings)
        if time is None:
            return None, None
        if self.included is not None and time not in self.included:
            self.findings.add(*not_included(f'the timestamp {row[1]} of {rows.shown(video)}', line))
            return None, None
        people = self.videos.setdefault(video, {}).setdefault(time, {})
        return people, rows.box(row[2:6], line, self.findings) if any(row[2:]) else None

    def _person(self, line: int, row: list[str], people: dict, box: tuple | None, outside: dict) -> None:
        score = self._score(row[7], line) if self.scored else None
        label = self._label(row[6], line, outside)
        if box is None or (self.scored and score is None):
            return
        track = row[7] if len(row) == 8 and not self.scored and row[7] else None
        person = people.setdefault((box, score), [[], track])
        if label in person[0] and person[1] == track:
            self.findings.warn(
                'duplicate-row', line, 'the row says what an earlier one says', 'It is counted once; remove it.'
            )
        elif person[1] != track:
            self.findings.warn(
                'same-box-two-people',
                line,
                f'the box {",".join(row[2:6])} belongs to person {person[1]} and to person {track}',
                'Equal boxes on one keyframe are read as one person; correct one of them if they are two.',
            )
        if label is not None and label not in person[0]:
            person[0].append(label)

    def _score(self, text: str, line: int) -> float | None:
        value = rows.number(text, 'the score', 'score-not-a-number', line, self.findings)
        if value is not None and not 0 <= value <= 1:
            self.findings.add(
                'score-out-of-range',
                line,
                f'the score is {text}',
                'Scores lie in [0,1]. In ground truth the last column is the person: do not read it as detections.',
            )
            return None
        return value

    def _label(self, text: str, line: int, outside: dict[int, list[int]]) -> str | None:
        if not text:
            return None
        if text in self.names:
            self.known += 1
            return self.names[text]
        if not re.fullmatch('[0-9]{1,6}', text, re.ASCII):
            self.findings.add(
                'action-id-not-a-number',
                line,
                f'the action id is {rows.shown(text)}',
                'Write the id of the label map.',
            )
            return None
        number = int(text)
        if number == 0:
            self.findings.add('action-id-zero', line, 'the action id is 0', 'Ids count from 1: add 1 to all of them.')
            return None
        if self.classes is None:
            return str(number)
        if number in self.classes:
            self.known += 1
            return self.classes[number]
        self.unknown += 1
        if number > max(AVA_IDS, *self.classes):
            self.findings.add(
                'action-id-unknown',
                line,
                f'the label map has no id {number}',
                f'Its ids go from {min(self.classes)} to {max(self.classes)}: use the list that belongs to this file.',
            )
        else:
            outside[number].append(line)
        return None

    def _outside(self, outside: dict[int, list[int]]) -> None:
        if not outside:
            return
        ids = ', '.join(str(number) for number in sorted(outside)[:20])
        count = sum(len(lines) for lines in outside.values())
        line = min(lines[0] for lines in outside.values())
        if self.unknown > self.known:
            self.findings.add(
                'wrong-label-map',
                line,
                f'{self.unknown} of {self.known + self.unknown} labels have an id that the label map lacks ({ids})',
                'Use the label map that belongs to this version of the annotations.',
            )
        else:
            self.findings.warn(
                'action-outside-label-map',
                line,
                f'{count} labels with {len(outside)} ids outside the label map were dropped ({ids})',
                'This is as it should be for AVA with its list of 60 classes; else use the complete list.',
            )

    def records(self, left_out: set[tuple[str, float]]) -> list[VideoRecord]:
        records = []
        for video in sorted(self.videos):
            keyframes = sorted(time for time in self.videos[video] if (video, time) not in left_out)
            boxes = [
                PersonBox(time, box, tuple(labels), score, track)
                for time in keyframes
                for (box, score), (labels, track) in self.videos[video][time].items()
            ]
            if keyframes:
                records.append(VideoRecord(video, keyframes=tuple(keyframes), boxes=tuple(boxes)))
        return records


def _excluded_keys(path: str | os.PathLike, findings: rows.Findings) -> set[tuple[str, float]]:
    text = rows.read_text(path, findings, may_be_empty=True)
    keys = set()
    for line, row in rows.csv_rows(text, findings):
        if len(row) != 2:
            findings.add(
                'excluded-columns',
                line,
                f'the row has {len(row)} columns, expected 2',
                'Its columns are video,timestamp.',
            )
            continue
        time = rows.timestamp(row[1], line, findings)
        if time is not None:
            keys.add((row[0], time))
    if not text.strip():
        findings.warn('excluded-empty', None, 'the list of excluded keyframes is empty', 'Nothing is excluded.')
    return keys
