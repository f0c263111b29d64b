"""Whole validation videos beside the page: linked or copied as they are where browsers play them, else encoded anew."""

import base64
import dataclasses
import io
import os
import pathlib
import shutil
import urllib.parse
from collections.abc import Iterator

import numpy as np
from PIL import Image

from vidloc.annotations.records import VideoRecord
from vidloc.data import encode, footage, video

# What browsers play, by the extension and the codec of a file.
PLAYED = {'.mp4': ('h264', 'av1', 'vp9'), '.m4v': ('h264',), '.webm': ('vp8', 'vp9', 'av1')}
# A file of at most so many bytes is copied, so that the folder of the page can be moved; a larger one is linked.
COPIED = 64 << 20
# What browsers do not play is encoded anew: small, with few frames a second, and no more than so many seconds of it.
LONG_SIDE = 480
FPS = 12.5
MAX_SECONDS = 600.0
# Frames are large: so many bytes of them are held at a time.
HELD = 1 << 27

RULE = (
    f'A file that browsers play is copied beside this page up to {COPIED >> 20} MB and linked where it lies above; '
    f'of other files a small copy is made, of their first {MAX_SECONDS / 60:g} minutes.'
)


@dataclasses.dataclass(frozen=True)
class Film:
    """A video that the page plays.

    address: relative to the page. start: its first second, and moment: that of its poster, a JPEG, on the annotation's
    clock.
    """

    address: str
    start: float
    seconds: float
    width: int
    height: int
    poster: bytes
    moment: float

    @property
    def poster_url(self) -> str:
        return 'data:image/jpeg;base64,' + base64.b64encode(self.poster).decode('ascii')


def bring(films: footage.Footage, record: VideoRecord, folder: pathlib.Path, number: int, moment: float) -> Film:
    """Brings the video of a record to `folder`, as film_<number>; its poster is the frame at `moment` seconds.

    Raises:
      VideoError: there is no such video, or it is damaged.
      OSError: it cannot be read or copied.
    """
    takes = films.takes(record)
    if not takes:
        raise video.VideoError(f'no video of the name {record.video} is there')
    take = next((take for take in takes if take.start <= moment < take.end), takes[0])
    timeline = films.timeline(take.key)
    frame = films.read(take.key, np.array([min(max(moment - take.start, 0.0), timeline.duration)]))[0]
    seconds = timeline.duration
    if _plays(take.key, timeline):
        address = _placed(pathlib.Path(take.key), folder, number)
    else:
        address = f'film_{number:02d}.mp4'
        seconds = min(seconds, MAX_SECONDS)
        fps = min(len(timeline.pts) / timeline.duration, FPS)
        times = np.arange(max(1, round(seconds * fps))) / fps
        encode.write_video(folder / address, _small(films, take.key, times, frame.nbytes), fps, crf=26)
    buffer = io.BytesIO()
    poster = _resized(frame)
    Image.fromarray(poster).save(buffer, 'JPEG', quality=80)
    height, width, _ = poster.shape
    return Film(address, take.start, seconds, width, height, buffer.getvalue(), moment)


def _plays(key: str, timeline: object) -> bool:
    """Whether browsers play it: a file (prepared sets and pictures are none) of a known kind."""
    codec = timeline.codec if isinstance(timeline, video.VideoIndex) else ''
    return os.path.isfile(key) and codec in PLAYED.get(pathlib.PurePath(key).suffix.lower(), ())


def _placed(path: pathlib.Path, folder: pathlib.Path, number: int) -> str:
    if path.stat().st_size > COPIED:
        return urllib.parse.quote(os.path.relpath(path.resolve(), folder.resolve()).replace(os.sep, '/'))
    target = folder / f'film_{number:02d}{path.suffix.lower()}'
    partial = target.with_suffix('.partial')
    shutil.copyfile(path, partial)
    os.replace(partial, target)
    return target.name


def _small(films: footage.Footage, key: str, times: np.ndarray, size: int) -> Iterator[np.ndarray]:
    held = max(1, HELD // size)
    for first in range(0, len(times), held):
        for frame in films.read(key, times[first : first + held]):
            yield _resized(frame)


def _resized(frame: np.ndarray) -> np.ndarray:
    """The frame [H, W, 3] with a longer side of at most LONG_SIDE, and even sides."""
    height, width, _ = frame.shape
    scale = min(1.0, LONG_SIDE / max(height, width))
    size = tuple(max(2, round(side * scale) // 2 * 2) for side in (width, height))
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))
