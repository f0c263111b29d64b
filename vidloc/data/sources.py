"""Sources: one data set on disk as a table of examples with random access.

A view says how examples are cut from records and videos (its fields are what a config may set); a source is a
view applied to the records of one split. Loading is a pure function of (example, random generator).
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from vidloc.annotations import records as rec
from vidloc.annotations import rows
from vidloc.data import transforms, video
from vidloc.ops import boxes as box_ops

SHOWN = 5


class DataError(ValueError):
    """The data on disk do not fit the config; the text says what, where and what to do."""


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One row of a source's table.

    time: the keyframe in seconds on the annotation's clock, or the start of a clip.
    boxes [N, 4], scores [N] (1 for boxes drawn by a person), labels [N, C] for keyframes; labels [C] for clips.
    """

    video: str
    path: str
    time: float
    labels: np.ndarray
    boxes: np.ndarray | None = None
    scores: np.ndarray | None = None
    duration: float = 0.0
    view: int = 0

    @property
    def key(self) -> str:
        return f'{self.video}|{self.time:.6f}|{self.view}'


@functools.lru_cache(maxsize=4096)
def indexed(path: str) -> video.VideoIndex:
    """The index of a file, remembered in each process: without one every read goes through the whole file's packets."""
    return video.index_video(path)


class Source:
    """Random access to the examples of one split, ordered by key; subclasses say what an example is."""

    def __init__(self, name: str, view, classes: Sequence[str], examples: list[Example], *, train: bool):
        self.name, self.view, self.classes, self.train = name, view, tuple(classes), train
        self.examples = sorted(examples, key=lambda example: example.key)
        if not self.examples:
            raise DataError(f'source {name}: no example is left; check the annotations, subset and thresholds')

    def __len__(self) -> int:
        return len(self.examples)

    def fingerprint(self) -> dict[str, int | str]:
        """Size and sha256 of the ordered example keys (W/data.json)."""
        digest = hashlib.sha256('\n'.join(example.key for example in self.examples).encode())
        return {'size': len(self.examples), 'sha256': digest.hexdigest()}

    def _frames(
        self,
        path: str,
        times: np.ndarray,
        rng: np.random.Generator | None,
    ) -> tuple[np.ndarray, transforms.Placement]:
        """Decoded, resized clip: (frames [T, H', W', 3] uint8, placement). rng None: no jitter, centred."""
        frames = video.read_frames(path, times, index=indexed(path))  # [T, H, W, 3]
        scale, anchor = 1.0, (0.5, 0.5)
        if rng is not None:
            scale = float(rng.uniform(*self.view.scale))
            anchor = tuple(float(x) for x in rng.random(2))
        return transforms.fit(frames, tuple(self.view.size), scale=scale, anchor=anchor)


@dataclasses.dataclass(frozen=True)
class Keyframes:
    """How annotated keyframes become examples: a clip around each, with its person boxes.

    videos: folder of video files. frames, rate: the clip is `frames` frames, `rate` a second, the keyframe at
    index frames // 2 (facts: 32 frames with stride 2 of 30 fps are rate 15). size: (H, W) of the input, the frame
    fills it along its longer side, the rest is zero. max_boxes: static number of boxes N; more in a keyframe is an
    error, none is cut. boxes: 'truth', 'detections' or 'both'. threshold: least detector score. match_iou: a
    detection that carries no label takes those of the true box it overlaps at least this much. time_offset: seconds
    at which the file starts on the annotation's clock. In training: scale is the range of random zoom (paper 0.65
    to 1.1), box_jitter the largest shift of each side as a share of the box (paper 0.15), flip the probability of
    mirroring. batch_size 0: the config's train.batch_size.
    """

    videos: str = ''
    frames: int = 32
    rate: float = 15.0
    size: tuple[int, int] = (224, 224)
    max_boxes: int = 20
    boxes: str = 'detections'
    threshold: float = 0.8
    match_iou: float = 0.75
    time_offset: float = 0.0
    scale: tuple[float, float] = (0.65, 1.1)
    box_jitter: float = 0.15
    flip: float = 0.5
    batch_size: int = 0


class KeyframeSource(Source):
    """Keyframes with person boxes; every annotated keyframe is kept as truth, those without boxes give no example."""

    def __init__(
        self,
        name: str,
        view: Keyframes,
        records: Sequence[rec.VideoRecord],
        classes: Sequence[str],
        *,
        train: bool,
    ):
        if view.boxes not in ('truth', 'detections', 'both'):
            raise DataError(f'source {name}: boxes is {view.boxes!r}; known: truth, detections, both')
        index = {label: i for i, label in enumerate(classes)}
        paths = find_videos(name, view.videos, records)
        examples = []
        for record in records:
            annotated = {round(time, 6) for time in record.keyframes}
            for time, people in _by_time(record.boxes).items():
                if train and time not in annotated:
                    continue
                chosen = _choose(people, view)
                if chosen:
                    if len(chosen) > view.max_boxes:
                        raise DataError(
                            f'source {name}: {record.video} has {len(chosen)} boxes at {time:g} s, max_boxes is '
                            f'{view.max_boxes}; set {"" if train else "eval_"}sources.{name}.max_boxes to at least that'
                        )
                    examples.append(_keyframe_example(record.video, paths[record.video], time, chosen, index))
        self._truth = _truth_columns(records, index)
        super().__init__(name, view, classes, examples, train=train)

    def load(self, index: int, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
        """video [T,H,W,3] uint8, frame_valid [T], boxes and source_boxes [N,4], box_scores [N], labels [N,C].

        rng None: no augmentation. Boxes that the random view leaves out are left out. Raises video.VideoError.
        """
        example, view = self.examples[index], self.view
        times = transforms.clip_times(example.time - view.time_offset, view.frames, view.rate)
        frames, placement = self._frames(example.path, times, rng)
        boxes, seen = example.boxes, np.ones(len(example.boxes), bool)
        if rng is None:
            boxes = placement.apply(boxes)
        else:
            if rng.random() < view.flip:
                frames, placement = transforms.flip(frames, placement)
            boxes = placement.apply(transforms.jitter_boxes(boxes, view.box_jitter, rng))
            seen = transforms.visible(boxes)
        return {
            'video': frames,
            'frame_valid': np.ones(view.frames, bool),
            'boxes': np.clip(boxes[seen], 0.0, 1.0).astype(np.float32),
            'source_boxes': example.boxes[seen].astype(np.float32),
            'box_scores': example.scores[seen].astype(np.float32),
            'labels': example.labels[seen].astype(np.float32),
        }

    def truth(self) -> dict[str, np.ndarray]:
        """Columns video, timestamp, x1, y1, x2, y2, action_id (class index, -1: keyframe only) of all records."""
        return self._truth

    def label_counts(self) -> np.ndarray:
        """[C] int64: true boxes of each class."""
        ids = self._truth['action_id']
        return np.bincount(ids[ids >= 0], minlength=len(self.classes))

    def label_share(self) -> np.ndarray:
        """[C] float64: share of this source's boxes for which each class holds."""
        return np.concatenate([example.labels for example in self.examples]).mean(axis=0)


@dataclasses.dataclass(frozen=True)
class Clips:
    """How labelled clips become examples; fields as in Keyframes.

    In training the clip of frames / rate seconds starts anywhere in the video, in evaluation it is the middle one.
    """

    videos: str = ''
    frames: int = 32
    rate: float = 15.0
    size: tuple[int, int] = (224, 224)
    scale: tuple[float, float] = (0.65, 1.1)
    flip: float = 0.5
    batch_size: int = 0


class ClipSource(Source):
    """Clips with one label each."""

    def __init__(
        self,
        name: str,
        view: Clips,
        records: Sequence[rec.VideoRecord],
        classes: Sequence[str],
        *,
        train: bool,
    ):
        index = {label: i for i, label in enumerate(classes)}
        paths = find_videos(name, view.videos, records)
        examples = []
        for record in records:
            for label in record.labels:
                target = np.zeros(len(classes), np.float32)
                target[index[label.label]] = 1.0
                start = label.start or 0.0
                length = 0.0 if label.end is None else label.end - start
                examples.append(Example(record.video, paths[record.video], start, target, duration=length))
        super().__init__(name, view, classes, examples, train=train)

    def load(self, number: int, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
        """video [T,H,W,3] uint8, frame_valid [T], labels [C]. rng None: the middle of the clip, no augmentation."""
        example, view = self.examples[number], self.view
        length = example.duration or indexed(example.path).duration - example.time
        spare = max(0.0, length - view.frames / view.rate)
        start = example.time + spare * (0.5 if rng is None else rng.random())
        times = start + np.arange(view.frames) / view.rate
        frames, placement = self._frames(example.path, times, rng)
        if rng is not None and rng.random() < view.flip:
            frames, placement = transforms.flip(frames, placement)
        return {'video': frames, 'frame_valid': np.ones(view.frames, bool), 'labels': example.labels}

    def truth(self) -> dict[str, np.ndarray]:
        """Columns video, time (start of the clip) and label (class index)."""
        return {
            'video': np.array([example.video for example in self.examples], dtype=object),
            'time': np.array([example.time for example in self.examples]),
            'label': np.array([int(np.argmax(example.labels)) for example in self.examples]),
        }

    def label_counts(self) -> np.ndarray:
        """[C] int64: clips of each class."""
        return np.sum([example.labels for example in self.examples], axis=0).astype(np.int64)

    def label_share(self) -> np.ndarray:
        """[C] float64."""
        return self.label_counts() / len(self.examples)


def find_videos(name: str, folder: str, records: Sequence[rec.VideoRecord]) -> dict[str, str]:
    """{video: path} below `folder`. Raises DataError that names the folder and the first missing videos."""
    root = pathlib.Path(folder)
    if not folder or not root.is_dir():
        raise DataError(
            f'source {name}: no folder of videos at {folder or "(not set)"!r}; '
            f'set --config.sources.{name}.videos=DIR to the folder that holds {_wanted(records)}'
        )
    found: dict[str, str] = {}
    if any(record.path is None for record in records):
        for parent, _, files in os.walk(root):
            for file in sorted(files):
                stem, extension = os.path.splitext(file)
                if extension.lower() in rows.VIDEO_SUFFIXES:
                    found.setdefault(stem, os.path.join(parent, file))
    paths, missing = {}, []
    for record in records:
        path = found.get(record.video) if record.path is None else str(root / record.path)
        if path is None or (record.path is not None and not os.path.isfile(path)):
            missing.append(record.path or record.video)
        else:
            paths[record.video] = path
    if missing:
        more = f' and {len(missing) - SHOWN} more' if len(missing) > SHOWN else ''
        raise DataError(
            f'source {name}: {len(missing)} of {len(records)} videos are not in {root}: '
            f'{", ".join(missing[:SHOWN])}{more}; get them, or take them out of the annotations'
        )
    return paths


def _wanted(records: Sequence[rec.VideoRecord]) -> str:
    return ', '.join(record.path or f'{record.video}.mp4' for record in records[:2]) + ', ...' if records else 'them'


def _by_time(people: Sequence[rec.PersonBox]) -> Mapping[float, list[rec.PersonBox]]:
    groups: dict[float, list[rec.PersonBox]] = {}
    for person in people:
        groups.setdefault(round(person.time, 6), []).append(person)
    return groups


def _choose(people: list[rec.PersonBox], view: Keyframes) -> list[rec.PersonBox]:
    """The boxes of one keyframe that the view wants; unlabelled detections take the labels of the truth they match."""
    truth = [person for person in people if person.score is None]
    detected = [person for person in people if person.score is not None and person.score >= view.threshold]
    if view.boxes == 'truth':
        return truth
    if detected and truth:
        overlap = box_ops.iou(
            np.array([person.box for person in detected]), np.array([person.box for person in truth])
        )  # [detected, truth]
        best = overlap.argmax(axis=1)
        detected = [
            person
            if person.labels or overlap[i, best[i]] < view.match_iou
            else dataclasses.replace(person, labels=truth[best[i]].labels)
            for i, person in enumerate(detected)
        ]
    return detected if view.boxes == 'detections' else truth + detected


def _keyframe_example(
    video_name: str, path: str, time: float, people: list[rec.PersonBox], index: Mapping[str, int]
) -> Example:
    labels = np.zeros((len(people), len(index)), np.float32)
    for row, person in enumerate(people):
        for label in person.labels:
            labels[row, index[label]] = 1.0
    return Example(
        video_name,
        path,
        time,
        labels,
        boxes=np.array([person.box for person in people], np.float64),
        scores=np.array([1.0 if person.score is None else person.score for person in people], np.float32),
    )


def _truth_columns(records: Sequence[rec.VideoRecord], index: Mapping[str, int]) -> dict[str, np.ndarray]:
    rows = []
    for record in records:
        rows += [(record.video, time, np.nan, np.nan, np.nan, np.nan, -1) for time in record.keyframes]
        for person in record.boxes:
            if person.score is None:
                rows += [(record.video, person.time, *person.box, index[label]) for label in person.labels]
    names = ('video', 'timestamp', 'x1', 'y1', 'x2', 'y2', 'action_id')
    kinds = (object, np.float64, np.float64, np.float64, np.float64, np.float64, np.int64)
    return {
        name: np.array([row[i] for row in rows], dtype=kind)
        for i, (name, kind) in enumerate(zip(names, kinds, strict=True))
    }
