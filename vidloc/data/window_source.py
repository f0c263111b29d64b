"""What windows of frames and windows of feature vectors have in common: examples, segments on the grid, truth.

A sequence has positions 0 to count - 1, frames or vectors; position p is at (p + lead) / rate seconds. A window is
`length` of them, on which lie the grid's points.
"""

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vidloc.annotations import records as rec
from vidloc.data import batching, grid, sources, truncation
from vidloc.data.video_segments import VideoSegments

MODES = ('window', 'resize')


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WindowExample(sources.Example):
    """A video in training, of which a window is drawn; in evaluation the window that starts at `time`.

    grid_start, grid_step: point i of its grid is at grid_start + grid_step * i seconds (nan in training). limit: the
    duration of the video, to which segments are cut. rate, lead: of its positions, nan where the file could not be
    opened; loading it says why.
    """

    grid_start: float
    grid_step: float
    limit: float
    rate: float
    lead: float


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where the positions of one video are: see the module. count: how many; limit: its duration in seconds."""

    path: str
    limit: float
    rate: float
    lead: float
    count: int

    @property
    def known(self) -> bool:
        """Whether the file could be opened."""
        return not math.isnan(self.rate)


def unknown(path: str, record: rec.VideoRecord, length: int) -> Place:
    """The place of a file that cannot be opened; without a duration its limit is the end of its last segment."""
    limit = record.duration or max((segment.end for segment in record.segments), default=1.0)
    return Place(path, limit, math.nan, math.nan, length)


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """Positions first to first + size - 1, and what is annotated in them.

    sample: segments float32 [n, 2] in grid units, segment_labels int32 [n], grid_valid bool [G].
    """

    first: int
    size: int
    sample: dict[str, np.ndarray]


class WindowedSource(sources.Source):
    """Random access to windows; subclasses read the frames or vectors of one.

    length: positions of a window. points: of the grid over it. widened: whether a position tells of what is around it,
    so that the window of a segment reaches `lead` further on both sides (ActionFormer's feat_offset), or shows what
    lies between it and the next one, as a frame does.
    """

    beyond = (
        'segment-beyond-video',
        'Times are seconds, not frames; check that annotations belong to these files, and stride and rate of features.',
    )

    def __init__(
        self,
        name: str,
        view: Any,
        records: Sequence[rec.VideoRecord],
        classes: Sequence[str],
        places: Mapping[str, Place],
        footage: Any,
        left_out: Sequence[str],
        *,
        length: int,
        points: int,
        widened: bool,
        train: bool,
    ):
        self._length, self._points, self._widened = length, points, widened
        found = [record for record in records if record.video in places]
        self.segments = VideoSegments(name, found, classes)
        _tell_of_ends(name, self.segments, places)
        self._check_crowds(name, view, places)
        if train:
            examples = [_whole(video, places[video]) for video in self._learnable(name, view, places)]
        else:
            examples = [each for video in self.segments.videos for each in self._windows(video, places[video], view)]
        super().__init__(name, view, classes, examples, footage, left_out, train=train)

    def truth(self) -> dict[str, np.ndarray]:
        """Columns video (object), start, end (float64 s), label (int64 class index) of all videos, as annotated."""
        return self.segments.truth()

    def label_counts(self) -> np.ndarray:
        """[C] int64: segments of each class."""
        return np.bincount(self.segments.truth()['label'], minlength=len(self.classes))

    def moments(self, numbers: Sequence[int]) -> list[float]:
        """See Source: where the segments of these examples' videos start; ends are often rounded up."""
        videos = {self.examples[number].video for number in numbers}
        return [float(start) for video in sorted(videos) for start in self.segments.within(video, math.inf)[0][:, 0]]

    def window(self, example: WindowExample, count: int, rng: np.random.Generator | None) -> Window:
        """The window of an example; without `rng` the one that starts at its time.

        count: positions that can be read, which may be fewer than its file promised.
        """
        view, reach = self.view, self._reach(example.lead)
        seconds, labels = self.segments.within(example.video, example.limit)
        segments = seconds * example.rate - example.lead  # in positions
        first, size = round(example.time * example.rate), self._length
        if self.train and rng is not None:
            first, size = truncation.draw(
                segments, count, size, rng, keep=view.keep, tries=view.tries, crop=view.crop, reach=reach
            )
        size = max(1, min(size, count - first))
        inside, stay = segments, np.ones(len(segments), bool)
        # A file may end before what is annotated.
        if size < count or np.any(segments[:, 1] > first + size + reach[1] + 1):
            inside, stay = truncation.kept(segments, first, size, keep=view.keep, reach=reach)
        points = self._grid(first, example.rate, example.lead)
        on_grid = points.index((inside + example.lead) / example.rate)
        sample = {
            'segments': on_grid.astype(np.float32),
            'segment_labels': labels[stay].astype(np.int32),
            'grid_valid': grid.valid(size, self._length, self._points),
        }
        return Window(first, size, sample)

    def _grid(self, first: int, rate: float, lead: float) -> grid.Grid:
        return grid.over((first + lead) / rate, rate, self._length, self._points)

    def _reach(self, lead: float) -> tuple[float, float]:
        return (lead, lead if self._widened else -lead)

    def _windows(self, video: str, place: Place, view: Any) -> list[WindowExample]:
        """The test windows of a video."""
        if not place.known:
            return [_whole(video, place)]
        examples = []
        for first in truncation.starts(place.count, self._length, view.overlap):
            points = self._grid(first, place.rate, place.lead)
            examples.append(
                WindowExample(
                    video=video,
                    path=place.path,
                    time=first / place.rate,
                    duration=min(self._length, place.count) / place.rate,
                    grid_start=points.start,
                    grid_step=points.step,
                    limit=place.limit,
                    rate=place.rate,
                    lead=place.lead,
                )
            )
        return examples

    def _learnable(self, name: str, view: Any, places: Mapping[str, Place]) -> list[str]:
        """The videos to train on. Raises DataError if there is none."""
        chosen, bare, unheld = [], [], []
        for video in self.segments.videos:
            segments = self._positions(video, places[video])
            if not len(segments):
                bare.append(video)
                if view.empty:
                    chosen.append(video)
                continue
            place = places[video]
            keepable = truncation.keepable(
                segments, place.count, self._length, keep=view.keep, reach=self._reach(place.lead)
            )
            if place.known and not keepable.any():
                unheld.append(video)
                continue
            chosen.append(video)
        if bare and not view.empty:
            logging.info('source %s: %d videos without segments are not trained on', name, len(bare))
        if unheld:
            logging.warning(
                'source %s: of %d videos no window holds a share of %g of a segment (%s): all are longer than that, or '
                'lie where the file has ended; these videos are not trained on',
                *(name, len(unheld), view.keep, sources.some(unheld)),
            )
        if not chosen or len(bare) == len(self.segments.videos):
            what = f'{len(bare)} have no segment'
            if unheld:
                what += f', of {len(unheld)} no window holds a share of {view.keep:g} of one'
            raise sources.DataError(
                f'source {name}: of {len(self.segments.videos)} videos none can be learned from: {what}; check '
                'the subset and the annotations'
            )
        return chosen

    def _check_crowds(self, name: str, view: Any, places: Mapping[str, Place]) -> None:
        """Raises DataError if a window may hold more segments than max_segments: none is ever cut."""
        most, where = 0, ''
        for video in self.segments.videos:
            extent = self._length + sum(self._reach(places[video].lead))
            count = truncation.crowd(self._positions(video, places[video]), extent)
            if count > most:
                most, where = count, video
        if most > view.max_segments:
            raise sources.DataError(
                f'source {name}: a window of {where} may hold {most} segments, max_segments is {view.max_segments}; '
                f'set it to at least {most}'
            )

    def _positions(self, video: str, place: Place) -> np.ndarray:
        """Segments [n, 2] in positions; all at one place where the rate is not known."""
        seconds, _ = self.segments.within(video, place.limit)
        return seconds * place.rate - place.lead if place.known else np.tile([0.0, 1.0], (len(seconds), 1))


def _whole(video: str, place: Place) -> WindowExample:
    return WindowExample(
        video=video,
        path=place.path,
        time=0.0,
        grid_start=math.nan,
        grid_step=math.nan,
        limit=place.limit,
        rate=place.rate,
        lead=place.lead,
    )


def _tell_of_ends(name: str, segments: VideoSegments, places: Mapping[str, Place]) -> None:
    late = [video for video in segments.videos if segments.beyond(video, places[video].limit)]
    if late:
        logging.warning(
            'source %s: %d videos have segments that end after the video (%s); for training they are cut there, the '
            'truth that is evaluated keeps them as annotated',
            *(name, len(late), sources.some(late)),
        )


def layout(fields: batching.Arrays, max_segments: int) -> batching.Layout:
    """The arrays of an example: these fields, and a row for each segment."""
    return batching.Layout(
        fields=fields,
        rows={'segments': ((2,), np.float32), 'segment_labels': ((), np.int32)},
        limit=max_segments,
        mask='segment_mask',
        what='segments',
        limit_name='max_segments',
    )


def check(name: str, view: Any, extra: Sequence[str] = ()) -> None:
    """Raises DataError for fields that make no sense; extra: what else is wrong, in words."""
    wrong = list(extra)
    if view.mode not in MODES:
        wrong.append(f'mode is {view.mode!r}; known: {", ".join(MODES)}')
    if not 0 < view.keep <= 1:
        wrong.append(f'keep is {view.keep!r}; it is the share of an action that must lie in a window, above 0 to 1')
    if not whole(view.tries, 1) or not whole(view.max_segments, 1):
        wrong.append(f'tries is {view.tries!r}, max_segments {view.max_segments!r}; both are whole numbers from 1')
    if not pair(view.crop) or not 0 < view.crop[0] <= view.crop[1] <= 1:
        wrong.append(f'crop is {view.crop!r}; give (least, most) share of a short video, such as (0.9, 1.0)')
    if not 0 <= view.overlap < 1:
        wrong.append(f'overlap is {view.overlap!r}; it is the share of a test window that the next repeats, below 1')
    if wrong:
        raise sources.DataError('\n'.join(f'source {name}: {line}' for line in wrong))


def whole(value: object, least: int) -> bool:
    """Whether a field is a whole number of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def pair(value: object) -> bool:
    """Whether a field is two finite numbers."""
    return (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(isinstance(each, int | float) and math.isfinite(each) for each in value)
    )
