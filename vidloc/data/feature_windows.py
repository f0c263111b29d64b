"""Windows of pre-extracted feature vectors over untrimmed videos with annotated segments."""

import concurrent.futures
import dataclasses
import logging
import math
import os
from collections.abc import Mapping, Sequence

import numpy as np

from vidloc.annotations import records as rec
from vidloc.data import batching, feature_files, sources, window_source
from vidloc.data.container import VideoError
from vidloc.data.feature_files import Description, FeatureFiles
from vidloc.data.window_source import Place, WindowExample

THREADS = 8
ODD = 1.25  # times the duration of a video, or this part of it: features cover about all of it


@dataclasses.dataclass(frozen=True)
class FeatureWindows:
    """How features of untrimmed videos become examples; fields that are not named here are those of Windows.

    features: folder of `<prefix><video><suffix>.npy` or `.npz` files of [T, width] (data/feature_files.py); key: the
    array in .npz files. layers: cached layers to read beside them, 0 for none. length: vectors of a window. upsample:
    points of the grid for each vector. stride, span, rate: source frames from one vector to the next, source frames
    that a vector looks at (ActionFormer's feat_stride and num_frames), and source frames a second: vector k is at
    (k * stride + span / 2) / rate seconds. What is 0 (span: -1) is what features.json in the folder says, and for the
    rate else the fps of the annotations.

    mode 'window': `length` vectors one after the other. mode 'resize': all vectors of a video, resized linearly to
    `length` (ActionFormer's force_upsampling); they lie evenly over what they cover, or, where no stride is known,
    over the whole video.

    ActionFormer evaluates whole videos: with a length in evaluation that the longest video has, so do these windows.
    """

    features: str = ''
    width: int = 0
    layers: int = 0
    length: int = 2304
    upsample: int = 1
    stride: float = 0.0
    span: float = -1.0
    rate: float = 0.0
    mode: str = 'window'
    keep: float = 0.5
    tries: int = 200
    crop: tuple[float, float] = (0.9, 1.0)
    overlap: float = 0.5
    prefix: str = ''
    suffix: str = ''
    key: str = 'feats'
    empty: bool = False
    max_segments: int = 256
    missing: str = 'refuse'
    batch_size: int = 0

    @property
    def points(self) -> int:
        """Of the grid."""
        return self.length * self.upsample

    def layout(self, classes: int) -> batching.Layout:
        """The arrays of an example: vectors, perhaps those of layers, the grid, and a row for each segment."""
        fields = {
            'sequence': ((self.length, self.width), np.float32),
            'sequence_valid': ((self.length,), np.bool_),
            'grid_valid': ((self.points,), np.bool_),
        }
        if self.layers:
            fields['layers'] = ((self.layers, self.length, self.width), np.float32)
        return window_source.layout(fields, self.max_segments)


class FeatureSource(window_source.WindowedSource):
    """Windows of feature vectors; in training an example is a video, in evaluation a window."""

    def __init__(
        self,
        name: str,
        view: FeatureWindows,
        records: Sequence[rec.VideoRecord],
        classes: Sequence[str],
        *,
        train: bool,
    ):
        _check(name, view)
        said = _described(name, view)
        files = FeatureFiles(view.features, view.prefix, view.suffix, view.key)
        paths, left_out = _found(name, view, records, files)
        places = _places(name, view, said, [record for record in records if record.video in paths], paths, files)
        super().__init__(
            name,
            view,
            records,
            classes,
            places,
            files,
            left_out,
            length=view.length,
            points=view.points,
            widened=True,
            train=train,
        )

    def load(self, number: int, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
        """sequence [t,D], sequence_valid [t], grid_valid [G], segments [n,2] (grid units), segment_labels [n].

        With layers also layers [K,t,D]. rng None: the window that starts at the example's time. Raises
        video.VideoError.
        """
        example, view = self.examples[number], self.view
        vectors = self.footage.vectors(example.path)  # [T, D], not yet read
        _check_width(example.path, vectors, view.width)
        window = self.window(example, self._held(example, len(vectors)), rng)
        sample = {'sequence_valid': np.arange(view.length) < window.size, **window.sample}
        sample['sequence'] = self._cut(example.path, vectors, window)  # [t, D]
        if view.layers:
            layers = self.footage.layers(example.path, view.layers)  # [K, T, D]
            if layers.shape[1:] != vectors.shape:
                raise VideoError(
                    f'{example.path}: layers are {list(layers.shape)}, the last one is {list(vectors.shape)}; '
                    'extract the features again.'
                )
            sample['layers'] = self._cut(example.path, layers, window)  # [K, t, D]
        return sample

    def extent(self, number: int) -> tuple[float, float, float]:
        """See Source: a file of features has no frames."""
        example = self.examples[number]
        held = self._held(example, len(self.footage.vectors(example.path)))
        return 0.0, (held - 1 + 2 * example.lead) / example.rate, 0.0

    def _held(self, example: WindowExample, count: int) -> int:
        """Positions that a file of `count` vectors holds."""
        if math.isnan(example.rate):
            raise VideoError(f'{example.path}: could not be read when its windows were laid out; start again.')
        return self.view.length if self.view.mode == 'resize' else count

    def _cut(self, path: str, vectors: np.ndarray, window: window_source.Window) -> np.ndarray:
        """float32 [..., length, D]: the vectors [..., T, D] of the window, zeros after them."""
        if self.view.mode == 'resize':
            vectors = feature_files.resized(vectors, self.view.length)
        cut = np.zeros((*vectors.shape[:-2], self.view.length, vectors.shape[-1]), np.float32)
        cut[..., : window.size, :] = vectors[..., window.first : window.first + window.size, :]
        if not np.isfinite(cut).all():
            raise VideoError(f'{path}: holds values that are not finite; extract the features again.')
        return cut


def _described(name: str, view: FeatureWindows) -> Description:
    """Stride, span, rate and mode of the features: what the config says, else the folder. Raises DataError."""
    try:
        said = feature_files.describe(view.features) or Description()
    except ValueError as error:
        raise sources.DataError(f'source {name}: {error}') from error
    told = _set(said)
    against = [
        f'{field} is {value:g}, {feature_files.DESCRIPTION} says {told[field]:g}'
        for field, value in _set(view).items()
        if field in told and value != told[field]
    ]
    if said.mode == 'resize' and view.mode != 'resize':
        against.append(f'mode is {view.mode!r}, but these vectors lie evenly over whole videos (resize)')
    if against:
        raise sources.DataError(
            f'source {name}: the config does not fit the features in {view.features}: {"; ".join(against)}; set width '
            'and layers to what the folder says, leave stride, span and rate out, or name other features'
        )
    found = dataclasses.replace(
        said,
        mode=said.mode or 'window',
        stride=view.stride or said.stride,
        span=said.span if view.span < 0 else view.span,
        rate=view.rate or said.rate,
    )
    if view.mode == 'window' and (not found.stride or found.span < 0):
        raise sources.DataError(
            f'source {name}: when the vectors of {view.features} are is not known: it has no '
            f'{feature_files.DESCRIPTION}; set stride and span, source frames (ActionFormer: feat_stride, num_frames)'
        )
    if view.mode == 'resize' and found.mode == 'window' and found.stride and found.span < 0:
        raise sources.DataError(f'source {name}: set span too, the source frames that a vector looks at')
    return found


def _set(fields: FeatureWindows | Description) -> dict[str, float]:
    """{field: value} of what is set."""
    found = {field: getattr(fields, field) for field in ('stride', 'rate', 'width', 'layers') if getattr(fields, field)}
    return found if fields.span < 0 else found | {'span': fields.span}


def _found(
    name: str, view: FeatureWindows, records: Sequence[rec.VideoRecord], files: FeatureFiles
) -> tuple[dict[str, str], tuple[str, ...]]:
    """({video: its file}, videos left out). Raises DataError."""
    if not view.features or not os.path.isdir(view.features):
        raise sources.DataError(
            f'source {name}: no folder of features at {view.features or "(not set)"!r}; set '
            f'--config.sources.{name}.features=DIR to the folder that holds {files.name("VIDEO")}'
        )
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        listed = list(pool.map(files.find, [record.video for record in records]))
    paths = {record.video: path for record, path in zip(records, listed, strict=True) if path}
    missing = [record.video for record in records if record.video not in paths]
    if missing:
        text = (
            f'source {name}: {len(missing)} of {len(records)} feature files are not in {view.features}: '
            f'{sources.some([files.name(video) for video in missing])}'
        )
        bare = FeatureFiles(view.features, f'{view.prefix}v_', view.suffix)
        if bare.find(missing[0]):
            text += f" ({bare.name(missing[0])} is there: set prefix='{bare.prefix}')"
        if view.missing == 'refuse' or not paths:
            raise sources.DataError(
                f"{text}; extract them, take the videos out of the annotations, or set missing='leave_out' to go on "
                'without them'
            )
        logging.warning('%s; left out', text)
    return paths, tuple(missing)


def _places(
    name: str,
    view: FeatureWindows,
    said: Description,
    records: Sequence[rec.VideoRecord],
    paths: Mapping[str, str],
    files: FeatureFiles,
) -> dict[str, Place]:
    """Where the vectors of each video are. Raises DataError where it cannot be known."""

    def count(path: str) -> int:
        """Vectors of a file, 0 if it cannot be read."""
        try:
            vectors = files.vectors(path)
        except VideoError as error:
            logging.warning('source %s: %s', name, error)
            return 0
        _check_width(path, vectors, view.width)
        return len(vectors)

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        try:
            counts = list(pool.map(count, [paths[record.video] for record in records]))
        except VideoError as error:
            raise sources.DataError(f'source {name}: {error}') from error
    whole = said.mode == 'resize' or not said.stride
    unsaid = [r.video for r in records if (r.duration is None if whole else not (said.rate or r.fps))]
    if unsaid:
        lacking = 'durations' if whole else 'frame rates'
        field = '"duration"' if whole else '"fps"'
        advice = '' if whole else 'set rate to the source frames a second, or '
        raise sources.DataError(
            f'source {name}: the {lacking} of {len(unsaid)} videos are not known ({sources.some(unsaid)}); {advice}add '
            f'{field} to the annotations'
        )
    places, shares = {}, []
    for record, vectors in zip(records, counts, strict=True):
        path, fps = paths[record.video], said.rate or record.fps
        if not vectors:
            places[record.video] = window_source.unknown(path, record, view.length)
            continue
        covered = record.duration if whole else ((vectors - 1) * said.stride + said.span) / fps
        limit = record.duration or covered
        if view.mode == 'resize':
            places[record.video] = Place(path, limit, view.length / covered, 0.5, view.length)
            shares += [covered / limit] if record.duration and not whole else []
        else:
            places[record.video] = Place(path, limit, fps / said.stride, 0.5 * said.span / said.stride, vectors)
            shares += [covered / limit] if record.duration else []
    if shares and not 1 / ODD <= (share := float(np.median(shares))) <= ODD:
        logging.warning(
            'source %s: by stride, span and rate the features cover %.0f %% of what videos last; check the three',
            *(name, 100 * share),
        )
    return places


def _check_width(path: str, vectors: np.ndarray, width: int) -> None:
    """Raises VideoError unless the vectors [T, D] have `width` numbers."""
    if vectors.shape[1] == width:
        return
    hint = f'{width} is its first side: they are [D, T], transpose them' if vectors.shape[0] == width else 'set width'
    raise VideoError(f'{path}: features are [T, {width}] by the config, these are {list(vectors.shape)}; {hint}.')


def _check(name: str, view: FeatureWindows) -> None:
    wrong = []
    if not all(window_source.whole(value, 1) for value in (view.width, view.length, view.upsample)):
        wrong.append(
            f'width is {view.width!r}, length {view.length!r} and upsample {view.upsample!r}; all are whole numbers '
            'from 1, and width is that of the feature vectors'
        )
    if not window_source.whole(view.layers, 0):
        wrong.append(f'layers is {view.layers!r}; it is the number of cached layers, 0 for none')
    if not all(0 <= value < math.inf for value in (view.stride, view.rate)) or not -1 <= view.span < math.inf:
        wrong.append(f'stride is {view.stride!r}, span {view.span!r}, rate {view.rate!r}; they cannot be negative')
    if view.mode == 'resize' and view.upsample != 1:
        wrong.append(f"upsample is {view.upsample!r}, but mode 'resize' gives `length` points; leave it at 1")
    window_source.check(name, view, wrong)
