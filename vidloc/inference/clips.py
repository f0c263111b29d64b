"""The clips of a video that features are computed of, decoded ahead in background threads."""

import dataclasses
import functools
import math
import queue
import threading
from collections.abc import Iterable, Iterator

import numpy as np

from vidloc.data import transforms
from vidloc.data.container import VideoError
from vidloc.data.footage import Footage
from vidloc.data.timeline import Timeline

BLOCK = 256  # frames of a video that are held at once, unless a clip has more
EPSILON = 1e-6  # of a frame: a video that ends there ends before it
TURN = 0.2  # seconds after which a waiting thread looks whether it should stop


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Which frames make up clips.

    frames: of a clip. every: sampled frames from the start of one clip to that of the next. rate: sampled frames a
    second; 0: every `stride`-th frame of the video. padded: whether the last clip may reach beyond the end; else only
    whole clips are taken, or one padded clip of a video that has none.
    """

    frames: int
    every: int
    rate: float = 0.0
    stride: int = 1
    padded: bool = True

    def times(self, timeline: Timeline, clock: float = 0.0) -> np.ndarray:
        """float64 [n]: the seconds of all sampled frames.

        clock: frames a second of the video as its annotations have it, in whose frames they will be read; 0: its own.
        """
        if self.rate or clock:
            rate, step = (self.rate, 1) if self.rate else (clock, self.stride)
            count = max(1, math.ceil(timeline.duration * rate - EPSILON))
            return np.arange(0, count, step) / rate
        gaps = len(timeline.pts) - 1
        # On the whole: containers round single timestamps.
        rate = gaps / float(timeline.times[-1]) if gaps else 1.0
        return np.arange(0, gaps + 1, self.stride) / rate

    def starts(self, count: int) -> np.ndarray:
        """int64 [m]: the first frame of each clip of `count` sampled ones."""
        last = count - 1 if self.padded else max(count - self.frames, 0)
        return np.arange(0, last + 1, self.every)


@dataclasses.dataclass(frozen=True)
class Video:
    """name: of its features. key: of the footage. clock: see Sampling.times."""

    name: str
    key: str
    clock: float = 0.0


@dataclasses.dataclass(frozen=True)
class Piece:
    """Neighbouring clips of a video.

    number: of the first of them; clips: of the whole video. frames: uint8 [n, H, W, 3]. rows: [c, F], of each frame of
    a clip its place in `frames`. valid: [c, F], False where the last frame is repeated beyond the end.
    """

    video: str
    number: int
    clips: int
    frames: np.ndarray
    rows: np.ndarray
    valid: np.ndarray


@dataclasses.dataclass(frozen=True)
class Broken:
    """A video that cannot be read, and why."""

    video: str
    why: str


def cut(footage: Footage, video: Video, sampling: Sampling, size: tuple[int, int]) -> Iterator[Piece]:
    """The clips of one video, of frames as evaluation sees them: the middle, resized to cover `size` (height, width).

    Raises VideoError.
    """
    times = sampling.times(footage.timeline(video.key), video.clock)
    starts = sampling.starts(len(times))
    together = max(1, (BLOCK - sampling.frames) // sampling.every + 1)
    each = functools.partial(_fitted, size=size)
    for number in range(0, len(starts), together):
        places = starts[number : number + together, None] + np.arange(sampling.frames)  # [c, F]
        valid = places < len(times)
        places = np.minimum(places, len(times) - 1)
        first = int(places[0, 0])
        frames = footage.read(video.key, times[first : int(places.max()) + 1], each)
        yield Piece(video.name, number, len(starts), frames, places - first, valid)


def _fitted(frame: np.ndarray, *, size: tuple[int, int]) -> np.ndarray:
    """[H, W, 3] -> [H', W', 3]"""
    return transforms.fit(frame[None], size, cover=True)[0][0]


def decoded(
    footage: Footage, jobs: Iterable[Video], sampling: Sampling, size: tuple[int, int], threads: int
) -> Iterator[Piece | Broken]:
    """The clips of all jobs, several videos at a time; those of a video in order.

    A job is taken from `jobs` when a thread is free for it. An error that is not the video's ends all.
    """
    found: queue.Queue[Piece | Broken | BaseException | None] = queue.Queue(2 * threads)
    stop, turn, todo = threading.Event(), threading.Lock(), iter(jobs)

    def put(item: Piece | Broken | BaseException | None) -> bool:
        """Whether somebody still waits for it."""
        while not stop.is_set():
            try:
                found.put(item, timeout=TURN)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            while True:
                with turn:
                    job = next(todo, None)
                if job is None:
                    break
                try:
                    if not all(map(put, cut(footage, job, sampling, size))):
                        return
                except (VideoError, OSError) as error:
                    put(Broken(job.name, str(error)))
            put(None)
        except BaseException as error:
            put(error)

    workers = [threading.Thread(target=work, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        while threads:
            item = found.get()
            if item is None:
                threads -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
    finally:
        stop.set()
        for worker in workers:
            worker.join()
