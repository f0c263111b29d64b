"""Features of untrimmed videos: what a backbone says of them, written once and read by many runs.

'clips': one vector for each clip of neighbouring frames, as ActionFormer's features are made. 'tokens': disjoint clips,
all of whose time tokens are kept, as a backbone sees a window inside a model.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from vidloc.data.footage import Footage
from vidloc.inference import clips as clips_lib
from vidloc.inference.feature_folder import FeatureFolder

if TYPE_CHECKING:
    from vidloc.inference.encoder import Encoder

MODES = ('tokens', 'clips')
DTYPES = {'float16': jnp.float16, 'float32': jnp.float32}
FORMAT = 1


class ExtractionError(ValueError):
    """The options do not fit together, or the backbone: what, and what to do."""


@dataclasses.dataclass(frozen=True)
class Extraction:
    """What is computed.

    clip_frames: frames of a clip. mode 'clips': a clip begins every `every` frames, and its vector is the mean over all
    its tokens; frames are those of the video, or `rate` a second. mode 'tokens': clips lie one behind the other, of
    every `stride`-th frame, or of `rate` a second. layers: the mean over space of every layer's output as well.
    size: (height, width) of the input, which the picture covers, pixels. dtype: of what is written. compute: type of
    the activations. batch: clips that are computed at a time. threads: videos that are decoded at a time.
    """

    mode: str = 'tokens'
    clip_frames: int = 16
    every: int = 4
    rate: float = 0.0
    stride: int = 4
    layers: bool = False
    size: tuple[int, int] = (224, 224)
    dtype: str = 'float16'
    compute: str = 'float32'
    batch: int = 8
    threads: int = 2

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ExtractionError(f'mode is {self.mode!r}; it must be one of {", ".join(MODES)}')
        if self.dtype not in DTYPES:
            raise ExtractionError(f'dtype is {self.dtype!r}; it must be one of {", ".join(DTYPES)}')
        if min(self.clip_frames, self.every, self.stride, self.batch, self.threads, *self.size) < 1:
            raise ExtractionError('clip_frames, every, stride, batch, threads and size must be at least 1')
        if not 0 <= self.rate < float('inf'):
            raise ExtractionError(f'rate is {self.rate}; it is frames a second, or 0 for the frames of the video')
        if self.layers and self.mode == 'clips':
            raise ExtractionError('layers are those of time tokens: they go with mode tokens')

    @property
    def sampling(self) -> clips_lib.Sampling:
        """Which frames make up clips."""
        if self.mode == 'clips':
            return clips_lib.Sampling(self.clip_frames, self.every, self.rate, padded=False)
        return clips_lib.Sampling(self.clip_frames, self.clip_frames, self.rate, self.stride)

    def description(self, encoder: 'Encoder') -> dict[str, Any]:
        """What features.json says: vector k is at (k * stride + span / 2) / rate seconds of the video.

        stride, span: frames, those of the video where rate is 0 (its own rate, or the fps of its annotations), else
        `rate` a second. Raises ExtractionError where the backbone does not take such clips.
        """
        tubelet = encoder.backbone.tubelet
        last, _, layers = jax.eval_shape(
            lambda *inputs: self._encoded(encoder, *inputs), encoder.params, *self._inputs(encoder)
        )
        step = 1 if self.rate else self.stride
        clips = self.mode == 'clips'
        prepare = encoder.preprocess
        return {
            'format': FORMAT,
            'stride': self.every if clips else step * tubelet,
            'span': self.clip_frames if clips else step * (tubelet - 1),
            'rate': self.rate,
            'mode': 'window',
            'sampling': self.mode,
            'width': last.shape[-1],
            'layers': 0 if layers is None else layers.shape[1],
            'frames_per_clip': self.clip_frames,
            'size': self.size,
            'dtype': self.dtype,
            'compute': self.compute,
            'backbone': encoder.kind,
            'weights': encoder.fingerprint,
            'preprocessing': {name: getattr(prepare, name) for name in ('mean', 'std', 'difference')},
        }

    def _inputs(self, encoder: 'Encoder') -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
        (height, width), frames, patch = self.size, self.clip_frames, encoder.backbone.patch
        if frames % encoder.backbone.tubelet or height % patch[0] or width % patch[1]:
            raise ExtractionError(
                f'clips of {frames} frames of {height} x {width} pixels do not split into tubelets of '
                f'{encoder.backbone.tubelet} frames and patches of {patch[0]} x {patch[1]}; change clip_frames or size'
            )
        shape = (self.batch, frames)
        return jax.ShapeDtypeStruct((*shape, height, width, 3), jnp.uint8), jax.ShapeDtypeStruct(shape, jnp.bool_)

    def _encoded(self, encoder: 'Encoder', params: Any, video: jax.Array, frame_valid: jax.Array) -> tuple:
        """Clips -> last [N, t, D] (t = 1 in mode clips), valid [N, t], layers [N, K, t, D] or None; in dtype."""
        last, valid, layers = encoder.encode(params, video, frame_valid, with_layers=self.layers)
        if self.mode == 'clips':
            share = valid[..., None].astype(jnp.float32)
            last = jnp.sum(last * share, axis=1, keepdims=True) / jnp.maximum(jnp.sum(share, axis=1, keepdims=True), 1)
            valid = jnp.any(valid, axis=1, keepdims=True)  # [N, t] -> [N, 1]
        dtype = DTYPES[self.dtype]
        return last.astype(dtype), valid, None if layers is None else layers.astype(dtype)

    def program(self, encoder: 'Encoder') -> Callable[[np.ndarray, np.ndarray], tuple]:
        """(video uint8 [batch, F, H, W, 3], frame_valid [batch, F]) -> see _encoded; over all devices of this process.

        Raises ExtractionError if the devices cannot share a batch evenly.
        """
        devices = jax.local_devices()
        if self.batch % len(devices):
            raise ExtractionError(f'a batch of {self.batch} does not divide among {len(devices)} devices')
        mesh = jax.sharding.Mesh(np.asarray(devices), ('data',))
        spread, same = (jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes)) for axes in (('data',), ()))
        params = jax.device_put(encoder.params, same)
        run = jax.jit(lambda *inputs: self._encoded(encoder, *inputs))
        return lambda video, frame_valid: run(params, *jax.device_put((video, frame_valid), spread))


@dataclasses.dataclass(frozen=True)
class Report:
    """written: videos by this process. there: that were there. elsewhere: that other processes write. broken: {video:
    why it could not be read}. vectors: that were written."""

    written: int
    there: int
    elsewhere: int
    broken: Mapping[str, str]
    vectors: int


def extract(
    footage: Footage,
    videos: Sequence[clips_lib.Video],
    folder: FeatureFolder,
    run: Callable[[np.ndarray, np.ndarray], tuple],
    extraction: Extraction,
    seen: Callable[[], None] = lambda: None,
) -> Report:
    """Writes the features of the videos that are not there and that no other process writes.

    run: extraction.program(encoder). seen: called for every video that is done, in whatever way.
    """
    counts = collections.Counter()
    broken: dict[str, str] = {}

    def ended(how: str) -> None:
        counts[how] += 1
        seen()

    jobs = _jobs(folder, videos, ended)
    pieces = clips_lib.decoded(footage, jobs, extraction.sampling, extraction.size, extraction.threads)
    for video, found in _computed(pieces, run, extraction.batch):
        try:
            if isinstance(found, str):
                broken[video] = found
            elif not all(np.isfinite(array).all() for array in found if array is not None):
                broken[video] = f'its features are not finite in {extraction.dtype}' + (
                    '; try --dtype float32' if extraction.dtype == 'float16' else ''
                )
            else:
                folder.write(video, *found)
                counts['vectors'] += len(found[0])
                counts['written'] += 1
        finally:
            folder.release(video)
        seen()
    return Report(counts['written'], counts['there'], counts['elsewhere'], broken, counts['vectors'])


def _jobs(
    folder: FeatureFolder, videos: Sequence[clips_lib.Video], ended: Callable[[str], None]
) -> Iterator[clips_lib.Video]:
    """What this process has claimed; those that others were at are looked at once more in the end."""
    busy: list[clips_lib.Video] = []
    for looked in (videos, busy):
        for video in list(looked):
            if folder.done(video.name):
                ended('there')
            elif not folder.claim(video.name):
                if looked is busy:
                    ended('elsewhere')
                else:
                    busy.append(video)
            elif folder.done(video.name):  # Written between the two looks.
                folder.release(video.name)
                ended('there')
            else:
                yield video


def _computed(
    pieces: Iterable[clips_lib.Piece | clips_lib.Broken], run: Callable[[np.ndarray, np.ndarray], tuple], batch: int
) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray | None] | str]]:
    """(video, (last [T, D], layers [K, T, D] or None)) of each, or why it is broken; batches hold clips of any videos.

    While a batch is computed, the next is gathered.
    """
    open_videos: dict[str, _Video] = {}
    gathered: list[tuple[_Video, np.ndarray, np.ndarray]] = []
    running: tuple[list[_Video], tuple] | None = None

    def begin() -> tuple[list[_Video], tuple]:
        # Filler repeats the first clip: a clip without a valid frame would have nothing to attend to.
        clips = gathered + gathered[:1] * (batch - len(gathered))
        video, valid = (np.stack([clip[part] for clip in clips]) for part in (1, 2))
        owners = [clip[0] for clip in gathered]
        gathered.clear()
        return owners, run(video, valid)

    def finished(done: tuple[list[_Video], tuple] | None) -> Iterator[tuple[str, Any]]:
        owners, outputs = done or ([], ())
        last, valid, layers = jax.device_get(outputs) if done else (None, None, None)
        for row, owner in enumerate(owners):
            owner.add(last[row], valid[row], None if layers is None else layers[row])
            if owner.whole and owner.name in open_videos:
                del open_videos[owner.name]
                yield owner.name, owner.joined()

    for piece in pieces:
        if isinstance(piece, clips_lib.Broken):
            if piece.video in open_videos:
                open_videos.pop(piece.video).drop()
            yield piece.video, piece.why
            continue
        owner = open_videos.setdefault(piece.video, _Video(piece.video, piece.clips))
        for rows, valid in zip(piece.rows, piece.valid, strict=True):
            gathered.append((owner, piece.frames[rows], valid))
            if len(gathered) == batch:
                started = begin()
                yield from finished(running)
                running = started
    started = begin() if gathered else None
    yield from finished(running)
    yield from finished(started)


class _Video:
    """The outputs of a video's clips, as far as they are computed."""

    def __init__(self, name: str, clips: int) -> None:
        self.name, self.clips = name, clips
        self._last: list[np.ndarray] = []
        self._layers: list[np.ndarray] = []
        self._dropped = False

    @property
    def whole(self) -> bool:
        return len(self._last) == self.clips

    def add(self, last: np.ndarray, valid: np.ndarray, layers: np.ndarray | None) -> None:
        """The next clip: last [t, D], valid [t], layers [K, t, D]."""
        if self._dropped:
            return
        self._last.append(last[valid])
        if layers is not None:
            self._layers.append(layers[:, valid])

    def drop(self) -> None:
        """Nothing of it is wanted any more."""
        self._dropped = True
        self._last, self._layers = [], []

    def joined(self) -> tuple[np.ndarray, np.ndarray | None]:
        """[T, D], [K, T, D]"""
        return np.concatenate(self._last), np.concatenate(self._layers, axis=1) if self._layers else None
