"""Windows of frames over untrimmed videos with annotated segments."""

import concurrent.futures
import dataclasses
import functools
import logging
import math
from collections.abc import Mapping, Sequence

import numpy as np

from vidloc.annotations import records as rec
from vidloc.data import batching, rand_augment, sources, transforms, window_source
from vidloc.data.container import VideoError
from vidloc.data.footage import Footage, Take
from vidloc.data.timeline import Timeline
from vidloc.data.window_source import Place, WindowExample

THREADS = 8
EPSILON = 1e-6  # of a frame: a moment that is a frame's but for rounding is that frame's


@dataclasses.dataclass(frozen=True)
class Windows:
    """How untrimmed videos become examples: windows of frames, with the segments that lie in them.

    videos: folder of videos. frames: of a window. grid: points at which a head predicts over a window, 0: as many as
    frames. mode 'window': frames one after the other, `rate` a second, or, where rate is 0, every `stride`-th of the
    video at its frame rate (which the annotations say, else the file). mode 'resize': `frames` frames evenly over the
    whole video. size: (H, W) of the input. missing, frame_rate, batch_size: as in Keyframes. max_segments: static
    number of segments of a window; more are an error, none is cut.

    In training a window lies anywhere: as ActionFormer does it, its place is drawn up to `tries` times until it keeps
    an action, and of an action a share of at least `keep` must lie in it, or it is left out (its frames are background
    then); kept ones are cut to the window. Of a video that is shorter, or resized, a random share from crop[0] to
    crop[1] is taken. Videos without a segment are not trained on unless `empty`. All frames of a window are augmented
    alike: a random part of the picture with a share of `area` of it and sides of `ratio` (width by height) becomes the
    input, torchvision's RandomResizedCrop; `flip` is the probability of mirroring; rand_augment as in Clips.

    In evaluation windows lie over the whole video, each repeating a share `overlap` of the one before, the last one
    aligned to the video's end; a shorter video gives one window. cover: the picture covers the input and the middle is
    seen, or else lies inside it with zeros around. What a window has beyond the end is padding: not valid, and looks
    like the last frame.
    """

    videos: str = ''
    frames: int = 576
    grid: int = 0
    rate: float = 0.0
    stride: int = 4
    size: tuple[int, int] = (224, 224)
    mode: str = 'window'
    keep: float = 0.5
    tries: int = 200
    crop: tuple[float, float] = (0.9, 1.0)
    overlap: float = 0.5
    cover: bool = True
    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    rand_augment: tuple[int, float] = (0, 0.0)
    empty: bool = False
    max_segments: int = 256
    missing: str = 'refuse'
    frame_rate: float = 30.0
    batch_size: int = 0

    @property
    def points(self) -> int:
        """Of the grid."""
        return self.grid or self.frames

    def layout(self, classes: int) -> batching.Layout:
        """The arrays of an example: frames, the grid, and a row for each segment."""
        fields = batching.clip_fields(self.frames, self.size) | {'grid_valid': ((self.points,), np.bool_)}
        return window_source.layout(fields, self.max_segments)


class WindowSource(window_source.WindowedSource):
    """Windows of frames; in training an example is a video, in evaluation a window."""

    def __init__(
        self,
        name: str,
        view: Windows,
        records: Sequence[rec.VideoRecord],
        classes: Sequence[str],
        *,
        train: bool,
    ):
        _check(name, view)
        footage, takes, left_out = sources.locate(name, view, records, clip=0.0)
        places = _places(name, view, [record for record in records if record.video in takes], takes, footage)
        super().__init__(
            name,
            view,
            records,
            classes,
            places,
            footage,
            left_out,
            length=view.frames,
            points=view.points,
            widened=False,
            train=train,
        )

    def load(self, number: int, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
        """video [F,H,W,3] uint8, frame_valid [F], grid_valid [G], segments [n,2] (grid units), segment_labels [n].

        rng None: the window that starts at the example's time, without augmentation. Raises video.VideoError.
        """
        example, view = self.examples[number], self.view
        window = self.window(example, self._held(example), rng)
        places = window.first + np.minimum(np.arange(view.frames), window.size - 1)  # [F], the last one repeats
        each = functools.partial(_centred, size=view.size, cover=view.cover)
        if self.train and rng is not None:
            draws = rng.random((transforms.CROP_TRIES, 4))
            flipped = bool(rng.random() < view.flip)
            each = functools.partial(
                _cropped, size=view.size, area=view.area, ratio=view.ratio, draws=draws, flipped=flipped
            )
        frames = self.footage.read(example.path, (places + example.lead) / example.rate, each)  # [F, H, W, 3]
        if self.train and rng is not None:
            frames = rand_augment.rand_augment(frames, *view.rand_augment, rng)
        return {'video': frames, 'frame_valid': np.arange(view.frames) < window.size, **window.sample}

    def probe(self, number: int) -> None:
        """See Source: the middle of the example, not all of its frames."""
        example = self.examples[number]
        middle = self._held(example) // 2
        self.footage.read(example.path, np.array([(middle + example.lead) / example.rate]))

    def _held(self, example: WindowExample) -> int:
        """Positions of the example's video that its file holds."""
        duration = self.footage.timeline(example.path).duration
        if math.isnan(example.rate):
            raise VideoError(f'{example.path}: could not be opened when its windows were laid out; start again.')
        most = self.view.frames if self.view.mode == 'resize' else _count(example.limit, example.rate)
        return min(most, _count(duration, example.rate, example.lead))


def _places(
    name: str,
    view: Windows,
    records: Sequence[rec.VideoRecord],
    takes: Mapping[str, Sequence[Take]],
    footage: Footage,
) -> dict[str, Place]:
    """Where the frames of each video are; files are opened only for what neither view nor annotations say."""
    pieces = [record.video for record in records if len(takes[record.video]) > 1 or takes[record.video][0].start]
    if pieces:
        raise sources.DataError(
            f'source {name}: {len(pieces)} videos are there as clips of them ({sources.some(pieces)}); windows are cut '
            'from whole videos'
        )
    resized = view.mode == 'resize'
    unsaid = [r for r in records if r.duration is None or not (resized or view.rate or r.fps)]
    opened = _timelines(name, footage, [takes[record.video][0].key for record in unsaid])
    places = {}
    for record in records:
        key = takes[record.video][0].key
        timeline = opened.get(key)
        if key in opened and timeline is None:
            places[record.video] = window_source.unknown(key, record, view.frames)
            continue
        limit = record.duration or timeline.duration
        if resized:
            places[record.video] = Place(key, limit, view.frames / limit, 0.5, view.frames)
            continue
        rate = view.rate or (record.fps or _frame_rate(timeline)) / view.stride
        places[record.video] = Place(key, limit, rate, 0.0, _count(limit, rate))
    return places


def _timelines(name: str, footage: Footage, keys: Sequence[str]) -> dict[str, Timeline | None]:
    """{key: its timeline, None if it cannot be read}."""

    def opened(key: str) -> Timeline | None:
        try:
            return footage.timeline(key)
        except VideoError as error:
            logging.warning('source %s: %s', name, error)
            return None

    if len(keys) > THREADS:
        logging.info('source %s: %d videos are opened: their annotations lack fps or duration', name, len(keys))
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(keys, pool.map(opened, keys), strict=True))


def _frame_rate(timeline: Timeline) -> float:
    """Frames a second, on the whole: containers round single timestamps."""
    gaps = len(timeline.pts) - 1
    return gaps / float(timeline.times[-1]) if gaps else 1 / timeline.duration


def _count(duration: float, rate: float, lead: float = 0.0) -> int:
    """How many positions lie before the end, at least one."""
    return max(1, math.ceil(duration * rate - lead - EPSILON))


def _centred(frame: np.ndarray, *, size: tuple[int, int], cover: bool) -> np.ndarray:
    """[H, W, 3] -> the input [H', W', 3], as in evaluation."""
    return transforms.fit(frame[None], size, cover=cover)[0][0]


def _cropped(
    frame: np.ndarray,
    *,
    size: tuple[int, int],
    area: tuple[float, float],
    ratio: tuple[float, float],
    draws: np.ndarray,
    flipped: bool,
) -> np.ndarray:
    """[H, W, 3] -> the input [H', W', 3], as in training; the same part of every frame of a video."""
    part = transforms.random_part(frame.shape[:2], area, ratio, draws)
    shown = transforms.resized_part(frame, part, size)
    return shown[:, ::-1] if flipped else shown


def _check(name: str, view: Windows) -> None:
    wrong = []
    if not window_source.whole(view.frames, 1) or not window_source.whole(view.grid, 0):
        wrong.append(f'frames is {view.frames!r} and grid {view.grid!r}; they are whole numbers, grid=0 is frames')
    if not 0 <= view.rate < math.inf or not window_source.whole(view.stride, 1):
        wrong.append(
            f'rate is {view.rate!r} and stride {view.stride!r}; rate is frames a second, or 0 for every stride-th'
        )
    if not window_source.pair(view.area) or not 0 < view.area[0] <= view.area[1] <= 1:
        wrong.append(f'area is {view.area!r}; give (least, most) share of the picture, such as (0.08, 1.0)')
    if not window_source.pair(view.ratio) or not 0 < view.ratio[0] <= view.ratio[1]:
        wrong.append(f'ratio is {view.ratio!r}; give (least, most) width by height, such as (0.75, 1.333)')
    wrong += rand_augment.wrong(view.rand_augment)
    window_source.check(name, view, wrong)
