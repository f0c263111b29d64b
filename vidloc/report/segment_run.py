"""What a run measured on a source of segments: W/eval/<source>.json of kind `segments`, read and checked."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from vidloc.report import fields
from vidloc.report.fields import RunError


@dataclasses.dataclass(frozen=True)
class Bin:
    """True segments of a like kind: those whose characteristic is in (low, high]; high None: without an end.

    segments: how many there are. map: normalised mAP on them; missed: the share of them that no detection found; None
    where nothing is known.
    """

    name: str
    low: float
    high: float | None
    segments: int
    map: float | None
    missed: float | None


@dataclasses.dataclass(frozen=True)
class SegmentErrors:
    """Where average precision is lost (metrics/segment_errors.py says by which rules).

    bins: whose bins these are. thresholds: the tIoUs that all of it is the mean over. map: normalised mAP of all.
    profile: {kind of detection: share} of the first, second, ... G detections of every class with G true segments, None
    where there are none. impact: {kind of error: what normalised mAP gains when its detections are taken away}.
    characteristics: {characteristic: its bins, in rising order}.
    """

    bins: str
    thresholds: tuple[float, ...]
    map: float | None
    profile: tuple[Mapping[str, float | None], ...]
    impact: Mapping[str, float | None]
    characteristics: Mapping[str, tuple[Bin, ...]]


@dataclasses.dataclass(frozen=True)
class Operating:
    """The score from which a class's detections have the best F1 at tIoU 0.5, and what they reach there."""

    score: float
    f1: float
    precision: float
    recall: float


@dataclasses.dataclass(frozen=True)
class Segments:
    """What a run measured on a source of segments.

    per_class: {class: its AP at each of `thresholds`}, None where the validation truth has no segment of the class.
    recall: {'1 x': at each threshold, of the best 1 x G detections of a video and class with G true segments}.
    truth_count, train_count: segments of each class in validation and in training; counted_in as in run.Detection.
    counts: videos, ground_truths, left_out_videos (not there) and more. operating: {class: Operating or None, where no
    detection is right}. ranked: {video: AP of its detections of all classes in one ranking at tIoU 0.5}, of the videos
    that have true segments. errors: None where no true segment fits into its video. videos: the folder of videos, ''
    where none is known; frame_rate: of extracted pictures. truth, detections: files below the workdir, in
    ActivityNet's layouts.
    """

    source: str
    task: str
    step: int
    metrics: Mapping[str, float | None]
    classes: tuple[str, ...]
    thresholds: tuple[float, ...]
    per_class: Mapping[str, tuple[float | None, ...]]
    recall: Mapping[str, tuple[float | None, ...]]
    truth_count: Mapping[str, float | None]
    train_count: Mapping[str, float | None]
    counted_in: str
    counts: Mapping[str, float | None]
    operating: Mapping[str, Operating | None]
    ranked: Mapping[str, float | None]
    errors: SegmentErrors | None
    videos: str
    frame_rate: float
    truth: str
    detections: str

    MAIN = 'average_map'

    def mean(self, name: str) -> float | None:
        """The average over thresholds of a class's AP."""
        values = [value for value in self.per_class[name] if value is not None]
        return sum(values) / len(values) if values else None


def read_segments(path: pathlib.Path, data: Mapping[str, Any]) -> Segments:
    """Segments from the object of a result file. Raises RunError."""
    classes = fields.classes(path, data)
    thresholds = fields.list_of(path, data, 'thresholds', (int, float))
    per_class = fields.field(path, data, 'per_class', dict)
    operating, recall = fields.field(path, data, 'operating', dict), fields.field(path, data, 'recall', dict)
    absent = [name for name in classes if name not in per_class or name not in operating]
    if absent:
        raise RunError(f'{path}: `per_class` and `operating` say nothing of {", ".join(absent[:3])}.')
    return Segments(
        classes=classes,
        thresholds=thresholds,
        per_class={name: _row(path, per_class, name, len(thresholds)) for name in classes},
        recall={times: _row(path, recall, times, len(thresholds)) for times in recall},
        metrics=fields.metrics(path, data, Segments.MAIN),
        operating={name: _operating(path, name, operating[name]) for name in classes},
        ranked=fields.scores(path, data, 'ranked'),
        counts=fields.scores(path, data, 'counts', ('videos', 'ground_truths', 'left_out_videos')),
        errors=None if data.get('analysis') is None else _errors(path, fields.field(path, data, 'analysis', dict)),
        frame_rate=float(fields.field(path, data, 'frame_rate', float)),
        **{key: fields.scores(path, data, key, classes) for key in ('truth_count', 'train_count')},
        step=fields.field(path, data, 'step', int),
        **{
            key: fields.field(path, data, key, str)
            for key in ('source', 'task', 'counted_in', 'videos', 'truth', 'detections')
        },
    )


def _row(path: pathlib.Path, values: Mapping[str, Any], name: str, length: int) -> tuple[float | None, ...]:
    row = fields.field(path, values, name, list)
    if len(row) != length:
        raise RunError(f'{path}: `{name}` has {len(row)} values for {length} thresholds; evaluate the run again.')
    return tuple(fields.score(path, name, value) for value in row)


def _operating(path: pathlib.Path, name: str, value: Any) -> Operating | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise RunError(f'{path}: `operating` of {name} must be an object or null; evaluate the run again.')
    numbers = (field.name for field in dataclasses.fields(Operating))
    return Operating(**{key: float(fields.field(path, value, key, float)) for key in numbers})


def _errors(path: pathlib.Path, data: Mapping[str, Any]) -> SegmentErrors:
    profile = fields.list_of(path, data, 'profile', dict)
    if any(block.keys() != profile[0].keys() for block in profile):
        raise RunError(f'{path}: the blocks of `profile` must have the same kinds; evaluate the run again.')
    characteristics = fields.field(path, data, 'characteristics', dict)
    return SegmentErrors(
        bins=fields.field(path, data, 'bins', str),
        thresholds=fields.list_of(path, data, 'thresholds', (int, float)),
        map=fields.score(path, 'map', data.get('map')),
        profile=tuple({kind: fields.score(path, kind, share) for kind, share in block.items()} for block in profile),
        impact=fields.scores(path, data, 'impact'),
        characteristics={
            name: tuple(_bin(path, entry) for entry in fields.list_of(path, characteristics, name, dict))
            for name in characteristics
        },
    )


def _bin(path: pathlib.Path, data: Mapping[str, Any]) -> Bin:
    return Bin(
        name=fields.field(path, data, 'name', str),
        low=float(fields.field(path, data, 'low', float)),
        high=fields.score(path, 'high', data.get('high')),
        segments=fields.field(path, data, 'segments', int),
        map=fields.score(path, 'map', data.get('map')),
        missed=fields.score(path, 'missed', data.get('missed')),
    )
