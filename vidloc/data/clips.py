"""Labelled clips, as Kinetics, Moments in Time and Something-Something have them, cut into examples."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from vidloc.annotations import records as rec
from vidloc.annotations import something
from vidloc.data import batching, kshot, rand_augment, sources, transforms
from vidloc.data.clip_table import ClipExample, ClipTable
from vidloc.data.footage import Take


@dataclasses.dataclass(frozen=True)
class Clips:
    """How labelled clips become examples; fields that are not named here are those of Keyframes.

    cover: the picture covers the input and what lies over is cropped (resize the shorter side, then crop), in place of
    lying inside it with zeros around.

    In training the clip of frames / rate seconds starts anywhere in the video. scale: the range of random zoom, then a
    crop at a random place; ViViT's, the shorter side 256 times 0.9 to 1.33 and a crop of 224, is (1.03, 1.52) with
    `cover` (its loader draws a factor for each side, dmvr/processors.py, scale_jitter_augm; here shapes are kept).
    flip_sided: mirror also clips whose class has a side ('left', 'right').
    rand_augment: (layers, magnitude) of data/rand_augment.py, ViViT takes (2, 20) for Something-Something. mixup: alpha
    of data/mixup.py, 0 leaves it out.

    In evaluation a clip gives test_views = (temporal, spatial) examples, whose scores are averaged: clips with starts
    evenly from the first to the last possible one, or the middle one; crops evenly along the longer side, or the
    centre. ViViT's 4 x 3 views are (4, 3) with `cover` and test_scale 256 / 224, the zoom.

    shots, shots_seed, folds, fold: as in Keyframes, of clips in place of people; clips whose names say that they were
    cut from one video are in one fold.
    """

    videos: str = ''
    frames: int = 32
    rate: float = 15.0
    size: tuple[int, int] = (224, 224)
    cover: bool = False
    scale: tuple[float, float] = (0.65, 1.1)
    flip: float = 0.5
    flip_sided: bool = False
    rand_augment: tuple[int, float] = (0, 0.0)
    mixup: float = 0.0
    test_scale: float = 1.0
    test_views: tuple[int, int] = (1, 1)
    missing: str = 'refuse'
    frame_rate: float = 30.0
    batch_size: int = 0
    shots: int = 0
    shots_seed: int = 0
    folds: int = 0
    fold: int = 0

    def layout(self, classes: int) -> batching.Layout:
        """The arrays of an example: a clip and its labels."""
        clip = batching.clip_fields(self.frames, self.size)
        return batching.Layout(clip | {'labels': ((classes,), np.float32)})


class ClipSource(sources.Source):
    """Clips with one label each; in evaluation an example is one view of a clip."""

    def __init__(
        self,
        name: str,
        view: Clips,
        records: Sequence[rec.VideoRecord],
        classes: Sequence[str],
        *,
        train: bool,
    ):
        _check(name, view, train=train)
        kshot.check(name, view)
        index = {label: i for i, label in enumerate(classes)}
        if view.shots:
            drawn = kshot.draw(name, view, kshot.samples(records, index, _labelled), classes, train=train)
            records = [
                dataclasses.replace(records[i], labels=tuple(records[i].labels[number] for number in sorted(numbers)))
                for i, numbers in sorted(drawn.drawn.of_records().items())
            ]
        footage, takes, left_out = sources.locate(name, view, records)
        views = 1 if train else math.prod(view.test_views)
        examples = [
            _example(record.video, takes[record.video], label, index[label.label], number)
            for record in records
            if record.video in takes
            for label, number in itertools.product(record.labels, range(views))
        ]
        super().__init__(name, view, classes, examples, footage, left_out, train=train)
        self.examples = ClipTable(self.examples)
        if view.shots:
            there = [record for record in records if record.video in takes]
            self.shots = drawn.holding(kshot.samples(there, index, _labelled))
        # Videos of several files, of which the right one is known when the start is drawn.
        self._pieces = {video: pieces for video, pieces in takes.items() if len(pieces) > 1}
        self._sided = tuple(something.sided(label) for label in self.classes)

    def load(self, number: int, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
        """video [T,H,W,3] uint8, frame_valid [T], labels [C]. rng None: the example's view, no augmentation.

        Raises video.VideoError.
        """
        example, view = self.examples[number], self.view
        temporal, spatial = divmod(example.view, view.test_views[1])
        part = _place(temporal, view.test_views[0]) if rng is None else rng.random()
        frames = self._read(example, part)  # [T, H, W, 3]
        if rng is None:
            anchor = transforms.view_anchor(frames.shape[1:3], view.size, spatial, view.test_views[1])
            frames, _ = transforms.fit(frames, view.size, scale=view.test_scale, anchor=anchor, cover=view.cover)
        else:
            frames = self._augmented(frames, example.label, rng)
        labels = np.zeros(len(self.classes), np.float32)
        labels[example.label] = 1.0
        return {'video': frames, 'frame_valid': np.ones(view.frames, bool), 'labels': labels}

    def _read(self, example: ClipExample, part: float) -> np.ndarray:
        """Frames [T, H, W, 3]; part: 0 is the first possible start in the clip, 1 the last."""
        times = np.arange(self.view.frames) / self.view.rate
        seconds = self.view.frames / self.view.rate
        length = example.duration
        if not length:
            length = self.footage.timeline(example.path).duration - (example.time - example.start)
        begin = example.time + max(0.0, length - seconds) * part
        if example.video in self._pieces:
            take = _nearest(self._pieces[example.video], begin, begin + seconds)
            return self.footage.read(take.key, begin - take.start + times)
        return self.footage.read(example.path, begin - example.start + times)

    def _augmented(self, frames: np.ndarray, label: int, rng: np.random.Generator) -> np.ndarray:
        view = self.view
        scale = float(rng.uniform(*view.scale))
        anchor = tuple(float(x) for x in rng.random(2))
        frames, placement = transforms.fit(frames, view.size, scale=scale, anchor=anchor, cover=view.cover)
        if rng.random() < view.flip and (view.flip_sided or not self._sided[label]):
            frames, _ = transforms.flip(frames, placement)
        return rand_augment.rand_augment(frames, *view.rand_augment, rng)

    def truth(self) -> dict[str, np.ndarray]:
        """Columns video, time (start of the clip) and label (class index), a row for each clip."""
        table, clips = self.examples, self._clips()
        return {
            'video': np.array([table.videos[i] for i in clips], dtype=object),
            'time': table.times[clips],
            'label': table.labels[clips].astype(np.int64),
        }

    def label_counts(self) -> np.ndarray:
        """[C] int64: clips of each class."""
        return np.bincount(self.examples.labels[self._clips()], minlength=len(self.classes))

    def label_share(self) -> np.ndarray:
        """[C] float64."""
        return self.label_counts() / len(self._clips())

    def _clips(self) -> np.ndarray:
        """Rows of the examples, one for each clip whatever its views."""
        return np.flatnonzero(self.examples.views == 0)


def _labelled(record: rec.VideoRecord) -> Iterator[tuple[int, tuple[float, float], tuple[str]]]:
    """(number of the label, (start, end), label) of every clip; NaN where the annotation does not say."""
    for number, clip in enumerate(record.labels):
        yield number, tuple(math.nan if time is None else time for time in (clip.start, clip.end)), (clip.label,)


def _example(video: str, takes: Sequence[Take], label: rec.ClipLabel, index: int, view: int) -> ClipExample:
    """A label without times is that of the whole file, or of all files that follow the first without a gap."""
    if label.start is None and len(takes) == 1:
        return ClipExample(video=video, path=takes[0].key, time=0.0, label=index, view=view)
    start = takes[0].start if label.start is None else label.start
    take = _nearest(takes, start, start)
    end = label.end
    if end is None and len(takes) > 1:
        end = take.end
        for later in takes:
            end = max(end, later.end) if start <= later.start <= end else end
    return ClipExample(
        video=video,
        path=take.key,
        time=start,
        start=take.start,
        duration=0.0 if end is None or math.isinf(end) else end - start,
        label=index,
        view=view,
    )


def _nearest(takes: Sequence[Take], start: float, end: float) -> Take:
    """The first piece that holds this span, or else the one that lacks the least of it."""
    return min(takes, key=lambda take: max(take.start - start, end - take.end, 0.0))


def _place(number: int, count: int) -> float:
    """Evenly from 0 to 1, 0.5 if there is one: google-deepmind/dmvr, dmvr/processors.py, sample_linspace_sequence."""
    return 0.5 if count == 1 else number / (count - 1)


def _check(name: str, view: Clips, *, train: bool) -> None:
    """Raises DataError for fields that make no sense, alone or together."""
    try:
        _, _ = view.rand_augment
        temporal, spatial = view.test_views
    except (TypeError, ValueError) as error:
        raise sources.DataError(
            f'source {name}: rand_augment is (layers, magnitude) and test_views is (temporal, spatial); they are '
            f'{view.rand_augment!r} and {view.test_views!r}'
        ) from error
    wrong = rand_augment.wrong(view.rand_augment)
    if not 0 <= view.mixup < math.inf:
        wrong.append(f'mixup is {view.mixup!r}; give the alpha of its Beta distribution, such as 0.3, or 0 for none')
    if not _whole(temporal, 1) or not _whole(spatial, 1):
        wrong.append(f'test_views is {view.test_views!r}; give (temporal, spatial), whole numbers of at least 1')
    elif spatial > 1 and not view.cover:
        wrong.append(
            f'test_views is {view.test_views!r}, but without cover=True the picture lies inside the input and several '
            f'crops would be the same; set cover=True or test_views=({temporal}, 1)'
        )
    least, field = (view.scale[0], 'scale') if train else (view.test_scale, 'test_scale')
    if not 0 < least < math.inf:
        wrong.append(f'{field} is {getattr(view, field)!r}; it must be positive')
    elif view.cover and least < 1:
        wrong.append(
            f'cover=True fills the input, which {field}={getattr(view, field)!r} would not; it must be at least 1, '
            f'such as {"(1.03, 1.52), the range of ViViT" if train else "256 / 224, the zoom of ViViT"}'
        )
    if wrong:
        raise sources.DataError('\n'.join(f'source {name}: {line}' for line in wrong))


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
