"""Opens many videos, in processes of their own: one that hangs or takes its process down costs only itself."""

import dataclasses
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection

import numpy as np

from vidloc.data.footage import Footage
from vidloc.data.frame_folders import FramesMissing
from vidloc.data.video import VideoError

START = 120.0  # seconds that a process may take to start
DECODED = 4  # frames at each place


@dataclasses.dataclass(frozen=True)
class Opened:
    """What opening a piece of a video told.

    duration: seconds. rate: frames a second, the median. size: (height, width) in pixels as displayed, None if only
    decoding would tell. lacking: frames that the header promises and the file does not hold. code, problem: what is
    wrong, both '' if nothing is.
    """

    duration: float = 0.0
    rate: float = 0.0
    size: tuple[int, int] | None = None
    lacking: int = 0
    code: str = ''
    problem: str = ''


def open_one(footage: Footage, key: str, *, decode: bool) -> Opened:
    """Opens one piece; decode: also decodes a few frames at its start, middle and end. Raises nothing."""
    opened = Opened()
    try:
        timeline = footage.timeline(key)
        size = (timeline.height, timeline.width) if hasattr(timeline, 'height') else None
        rate = 1 / float(np.median(np.diff(timeline.times))) if len(timeline.pts) > 1 else 0.0
        opened = Opened(timeline.duration, rate, size, timeline.missing)
        if decode:
            last = len(timeline.times) - DECODED
            for first in sorted({0, max(0, last // 2), max(0, last)}):
                footage.read(key, timeline.times[first : first + DECODED])
    except FramesMissing as error:
        return Opened(code='frames-missing', problem=str(error))
    except VideoError as error:
        code = 'video-damaged' if opened.duration else 'video-unreadable'
        return dataclasses.replace(opened, code=code, problem=str(error))
    except Exception as error:  # one file may not end the check of all, whatever a library makes of it
        problem = f'{key}: {type(error).__name__}: {error}'
        return dataclasses.replace(opened, code='video-unreadable', problem=problem)
    return opened


def open_all(
    footage: Footage,
    keys: Sequence[str],
    *,
    decode: bool = False,
    workers: int = 0,
    timeout: float = 60.0,
    seen: Callable[[], None] = lambda: None,
) -> dict[str, Opened]:
    """{key: what opening it told}, in the order of `keys`.

    workers: processes; 0 opens in this one, without a limit of time. timeout: seconds a piece may take. seen: called
    after each piece. Raises ChildProcessError if no process can be started.
    """
    found = {}
    results = _parallel(footage, keys, decode, workers, timeout) if workers and keys else _serial(footage, keys, decode)
    for key, opened in results:
        found[key] = opened
        seen()
    return {key: found[key] for key in keys}


def _serial(footage: Footage, keys: Sequence[str], decode: bool) -> Iterator[tuple[str, Opened]]:
    for key in keys:
        yield key, open_one(footage, key, decode=decode)


class _Worker:
    """One process and what it is doing: `key` is None while it starts, '' while it waits."""

    def __init__(self, footage: Footage, decode: bool):
        context = multiprocessing.get_context('spawn')
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, footage, decode), daemon=True)
        self.process.start()
        theirs.close()
        self.key: str | None = None
        self.deadline = time.monotonic() + START

    def take(self, key: str, timeout: float) -> None:
        self.key, self.deadline = key, time.monotonic() + timeout
        self.pipe.send(key)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(pipe: connection.Connection, footage: Footage, decode: bool) -> None:
    """What a process does: opens what it is sent, until nobody sends."""
    try:
        pipe.send(None)
        while True:
            pipe.send(open_one(footage, pipe.recv(), decode=decode))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return


def _parallel(
    footage: Footage, keys: Sequence[str], decode: bool, workers: int, timeout: float
) -> Iterator[tuple[str, Opened]]:
    todo = list(reversed(keys))
    running = [_Worker(footage, decode) for _ in range(min(workers, len(keys)))]
    try:
        while running:
            nearest = min((worker.deadline for worker in running), default=0.0) - time.monotonic()
            ready = connection.wait([worker.pipe for worker in running], max(0.0, nearest))
            for worker in list(running):
                lost = None
                if worker.pipe in ready:
                    try:
                        opened = worker.pipe.recv()
                    except (EOFError, OSError):
                        lost = 'video-crashes', 'takes down the process that opens it; leave it out'
                elif worker.deadline <= time.monotonic():
                    lost = 'video-hangs', f'is not open after {timeout:g} s; leave it out, or give it more time'
                else:
                    continue
                running.remove(worker)
                if lost and worker.key is None:
                    worker.end()
                    raise ChildProcessError('the processes that open videos do not start; open them with workers=0')
                if lost:
                    yield worker.key, Opened(code=lost[0], problem=f'{worker.key}: {lost[1]}')
                    worker.end()
                    if todo:
                        running.append(_Worker(footage, decode))
                    continue
                if worker.key is not None:
                    yield worker.key, opened
                if todo:
                    worker.take(todo.pop(), timeout)
                    running.append(worker)
                else:
                    worker.end()
    finally:
        for worker in running:
            worker.end()


def processes() -> int:
    """As many as this machine can run at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
