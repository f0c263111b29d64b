"""Keyframes with person boxes, as AVA annotates them, cut into examples."""

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from vidloc.annotations import records as rec
from vidloc.data import batching, kshot, sources, transforms
from vidloc.data.footage import Take
from vidloc.data.keyframe_table import KeyframeExample, KeyframeTable
from vidloc.ops import boxes as box_ops


@dataclasses.dataclass(frozen=True)
class Keyframes:
    """How annotated keyframes become examples: a clip around each, with its person boxes.

    videos: folder of videos (data/footage.py). frames, rate: the clip is `frames` frames, `rate` a second, the
    keyframe at index frames // 2 (32 frames with stride 2 of 30 fps are rate 15). size: (H, W) of the input, the
    frame fills it along its longer side, the rest is zero. max_boxes: static number of boxes N; more in a keyframe is
    an error, none is cut. boxes: 'truth', 'detections' or 'both'. threshold: least detector score. match_iou: a
    detection that carries no label takes those of the true box it overlaps at least this much. time_offset: seconds
    at which files start on the annotation's clock, unless their names say (Kinetics clips). missing: 'refuse' videos
    that are not there, or 'leave_out' their keyframes, from the truth too; their number is reported. So it is with
    keyframes that lie in none of a video's clips. frame_rate: of videos that were extracted to folders of pictures;
    others know theirs. In training:
    scale is the range of random zoom (paper 0.65 to 1.1), box_jitter the largest shift of each side as a share of the
    box (paper 0.15), flip the probability of mirroring. batch_size 0: the config's train.batch_size.

    shots: K, 0 for all there is. With K the source, of training or evaluation, has K people of every class, drawn from
    its annotations by the rule of data/kshot.py with the seed shots_seed, and nothing else: other boxes are neither in
    examples nor in the truth, other keyframes neither. A person is a drawn box with labels on an annotated keyframe, so
    no other field changes who is drawn. Of detections those are kept that stand for the chosen: they overlap one of
    them by match_iou, and nobody else more. With boxes='detections' a person whom none stands for is missing from
    training and stays in the truth of evaluation. folds: with F the videos of the shots are divided into F folds;
    training takes all but `fold`, evaluation `fold` alone. 0: all of them in both.
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
    missing: str = 'refuse'
    frame_rate: float = 30.0
    scale: tuple[float, float] = (0.65, 1.1)
    box_jitter: float = 0.15
    flip: float = 0.5
    batch_size: int = 0
    shots: int = 0
    shots_seed: int = 0
    folds: int = 0
    fold: int = 0

    def layout(self, classes: int) -> batching.Layout:
        """The arrays of an example: a clip, and a row for each box."""
        return batching.Layout(
            fields=batching.clip_fields(self.frames, self.size),
            rows={
                'boxes': ((4,), np.float32),
                'source_boxes': ((4,), np.float32),
                'box_scores': ((), np.float32),
                'labels': ((classes,), np.float32),
            },
            limit=self.max_boxes,
            mask='box_mask',
            what='boxes',
            limit_name='max_boxes',
        )


class KeyframeSource(sources.Source):
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
            raise sources.DataError(f'source {name}: boxes is {view.boxes!r}; known: truth, detections, both')
        kshot.check(name, view)
        index = {label: i for i, label in enumerate(classes)}
        if view.shots:
            drawn = kshot.draw(name, view, kshot.samples(records, index, _people), classes, train=train)
            records = _of_shots(records, drawn.drawn, view, train=train)
        footage, takes, left_out = sources.locate(name, view, records)
        records, cut_off = _within(name, view, [record for record in records if record.video in takes], takes)
        examples = []
        for record in records:
            annotated = {round(time, 6) for time in record.keyframes}
            for time, people in _by_time(record.boxes).items():
                if train and time not in annotated:
                    continue
                chosen = _choose(people, view)
                if chosen:
                    if len(chosen) > view.max_boxes:
                        raise sources.DataError(
                            f'source {name}: {record.video} has {len(chosen)} boxes at {time:g} s, max_boxes is '
                            f'{view.max_boxes}; set {"" if train else "eval_"}sources.{name}.max_boxes to at least that'
                        )
                    take = _take_at(takes[record.video], time, view.time_offset)
                    examples.append(_keyframe_example(record.video, take, time, chosen, index))
        self._truth = _truth_columns(records, index)
        super().__init__(name, view, classes, examples, footage, (*left_out, *cut_off), train=train)
        self.examples = KeyframeTable(self.examples)
        if view.shots:
            self.shots = drawn.holding(kshot.samples(records, index, _people))

    def load(self, index: int, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
        """video [T,H,W,3] uint8, frame_valid [T], boxes and source_boxes [N,4], box_scores [N], labels [N,C].

        rng None: no augmentation. Boxes that the random view leaves out are left out. Raises video.VideoError.
        """
        example, view = self.examples[index], self.view
        times = transforms.clip_times(example.time - example.start, view.frames, view.rate)
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

    def _frames(
        self,
        path: str,
        times: np.ndarray,
        rng: np.random.Generator | None,
    ) -> tuple[np.ndarray, transforms.Placement]:
        """Decoded, resized clip: (frames [T, H', W', 3] uint8, placement). rng None: no jitter, centred."""
        frames = self.footage.read(path, times)  # [T, H, W, 3]
        scale, anchor = 1.0, (0.5, 0.5)
        if rng is not None:
            scale = float(rng.uniform(*self.view.scale))
            anchor = tuple(float(x) for x in rng.random(2))
        return transforms.fit(frames, tuple(self.view.size), scale=scale, anchor=anchor)

    def truth(self) -> dict[str, np.ndarray]:
        """Columns video, timestamp, x1, y1, x2, y2, action_id (class index, -1: keyframe only) of all records."""
        return self._truth

    def label_counts(self) -> np.ndarray:
        """[C] int64: true boxes of each class."""
        ids = self._truth['action_id']
        return np.bincount(ids[ids >= 0], minlength=len(self.classes))

    def label_share(self) -> np.ndarray:
        """[C] float64: share of this source's boxes for which each class holds."""
        return self.examples.labels.mean(axis=0)


def _by_time(people: Sequence[rec.PersonBox]) -> Mapping[float, list[rec.PersonBox]]:
    groups: dict[float, list[rec.PersonBox]] = {}
    for person in people:
        groups.setdefault(round(person.time, 6), []).append(person)
    return groups


def _people(record: rec.VideoRecord) -> Iterator[tuple[int, tuple[float, ...], tuple[str, ...]]]:
    """(number of the box, (second, box), labels) of everybody whom shots are drawn from."""
    annotated = {round(time, 6) for time in record.keyframes}
    for number, person in enumerate(record.boxes):
        if person.score is None and person.labels and round(person.time, 6) in annotated:
            yield number, (person.time, *person.box), person.labels


def _of_shots(
    records: Sequence[rec.VideoRecord], drawn: kshot.Samples, view: Keyframes, *, train: bool
) -> list[rec.VideoRecord]:
    """The records with the people drawn, their keyframes, and the detections that stand for them."""
    few = []
    for number, wanted in sorted(drawn.of_records().items()):
        record, kept = records[number], []
        moments: dict[float, list[int]] = {}
        for i, person in enumerate(record.boxes):
            moments.setdefault(round(person.time, 6), []).append(i)
        for numbers in moments.values():
            standing = _standing(record.boxes, numbers, wanted, view)
            people = wanted.intersection(numbers)
            if train and view.boxes == 'detections':
                people &= set(standing.values())  # the others would count as learned and be in no example
            kept += sorted([*people, *standing])
        boxes = tuple(record.boxes[i] for i in kept)
        times = {round(person.time, 6) for person in boxes}
        keyframes = tuple(time for time in record.keyframes if round(time, 6) in times)
        if boxes:
            few.append(dataclasses.replace(record, keyframes=keyframes, boxes=boxes))
    return few


def _standing(
    boxes: Sequence[rec.PersonBox], numbers: Sequence[int], wanted: set[int], view: Keyframes
) -> dict[int, int]:
    """{detection: the person of `wanted` whom it overlaps most, at least by match_iou}, of the boxes of one moment."""
    truth = [i for i in numbers if boxes[i].score is None]
    detected = [i for i in numbers if boxes[i].score is not None and boxes[i].score >= view.threshold]
    if view.boxes == 'truth' or not detected or wanted.isdisjoint(truth):
        return {}
    nearest = _nearest([boxes[i] for i in detected], [boxes[i] for i in truth], view.match_iou)
    return {
        i: truth[near] for i, near in zip(detected, nearest, strict=True) if near is not None and truth[near] in wanted
    }


def _nearest(detected: Sequence[rec.PersonBox], truth: Sequence[rec.PersonBox], match_iou: float) -> list[int | None]:
    """For each detection the true box that it overlaps most, None if that is by less than match_iou."""
    overlap = box_ops.iou(
        np.array([person.box for person in detected]), np.array([person.box for person in truth])
    )  # [detected, truth]
    best = overlap.argmax(axis=1)
    return [int(near) if overlap[i, near] >= match_iou else None for i, near in enumerate(best)]


def _choose(people: list[rec.PersonBox], view: Keyframes) -> list[rec.PersonBox]:
    """The boxes of one keyframe that the view wants; unlabelled detections take the labels of the truth they match."""
    truth = [person for person in people if person.score is None]
    detected = [person for person in people if person.score is not None and person.score >= view.threshold]
    if view.boxes == 'truth':
        return truth
    if detected and truth:
        nearest = _nearest(detected, truth, view.match_iou)
        detected = [
            person if person.labels or near is None else dataclasses.replace(person, labels=truth[near].labels)
            for person, near in zip(detected, nearest, strict=True)
        ]
    if view.boxes == 'detections':
        return detected
    # A box that is in both is one person, with the labels of both (SlowFast, slowfast/datasets/ava_helper.py).
    again = {person.box: person.labels for person in detected}
    drawn = {person.box for person in truth}
    return [
        *(
            dataclasses.replace(person, labels=tuple(dict.fromkeys([*person.labels, *again.get(person.box, ())])))
            for person in truth
        ),
        *(person for person in detected if person.box not in drawn),
    ]


def _within(
    name: str, view: Keyframes, records: Sequence[rec.VideoRecord], takes: Mapping[str, Sequence[Take]]
) -> tuple[list[rec.VideoRecord], tuple[str, ...]]:
    """(records without the moments that no piece of their video holds, the videos that lack a keyframe).

    Pieces that say when they end are clips; asked for a moment of another clip they would show their last frame.
    Raises DataError, unless view.missing is 'leave_out'.
    """
    kept, lacking = [], []
    for record in records:
        pieces = takes[record.video]
        if any(take.end == float('inf') for take in pieces):
            kept.append(record)
            continue
        moments = {*record.keyframes, *(person.time for person in record.boxes)}
        held = {time for time in moments if any(take.start <= time <= take.end for take in pieces)}
        lacking += [(record.video, time) for time in record.keyframes if time not in held]
        keyframes = tuple(time for time in record.keyframes if time in held)
        boxes = tuple(person for person in record.boxes if person.time in held)
        kept.append(dataclasses.replace(record, keyframes=keyframes, boxes=boxes))
    if lacking:
        more = f' and {len(lacking) - sources.SHOWN} more' if len(lacking) > sources.SHOWN else ''
        text = (
            f'source {name}: {len(lacking)} keyframes are in no clip that is in {view.videos}: '
            f'{", ".join(f"{video} at {time:g} s" for video, time in lacking[: sources.SHOWN])}{more}'
        )
        if view.missing == 'refuse':
            raise sources.DataError(
                f'{text}; get the clips that hold them, take them out of the annotations, or set '
                "missing='leave_out' to go on without them"
            )
        logging.warning('%s; left out', text)
    return kept, tuple(dict.fromkeys(video for video, _ in lacking))


def _take_at(takes: Sequence[Take], time: float, offset: float) -> Take:
    """The piece with the most of what is around the moment; `offset` is where pieces start that do not say."""
    if len(takes) == 1 and takes[0].end == float('inf'):
        return dataclasses.replace(takes[0], start=offset)
    return max(takes, key=lambda take: min(time - take.start, take.end - time))


def _keyframe_example(
    video_name: str, take: Take, time: float, people: list[rec.PersonBox], index: Mapping[str, int]
) -> KeyframeExample:
    labels = np.zeros((len(people), len(index)), np.uint8)
    for row, person in enumerate(people):
        for label in person.labels:
            labels[row, index[label]] = 1
    return KeyframeExample(
        video=video_name,
        path=take.key,
        time=time,
        start=take.start,
        boxes=np.array([person.box for person in people], np.float64),
        scores=np.array([1.0 if person.score is None else person.score for person in people], np.float32),
        labels=labels,
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
