"""Videos as folders of numbered pictures, as SlowFast and mmaction2 extract them.

`<video>/<video>_000001.jpg` (facebookresearch/SlowFast, slowfast/datasets/DATASET.md; 30 pictures a second, the first
at second 900 of the film: time_offset=900) and `<video>/img_00001.jpg` (open-mmlab/mmaction2, tools/data/ava). The
first number that is there is frame 0, at time 0. mmaction2 puts optical flow (`flow_x_...`) beside; it is passed over.
"""

import dataclasses
import functools
import itertools
import logging
import os
import re
import stat
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
from PIL import Image, ImageOps

from vidloc.annotations import rows
from vidloc.annotations.records import VideoRecord
from vidloc.data.catalogue import Catalogue, Take
from vidloc.data.container import Limits, VideoError
from vidloc.data.timeline import Timeline

FRAME_RATE = 30.0  # SlowFast's and mmaction2's extraction
SHOWN = 5
# Folders that are looked into before a folder is said to hold no pictures.
LOOKED_AT = 20

_PICTURE = re.compile(r'(.*?)([0-9]{1,9})(\.(?:jpe?g|png))', re.IGNORECASE)
_FLOW = re.compile(r'flow_[xy]_?', re.IGNORECASE)
# 16-bit grey and float pictures would be cut to 8 bits wrongly.
_MODES = ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'CMYK', 'YCbCr')


class FramesMissing(VideoError):
    """The numbers of a folder's pictures have gaps."""


@dataclasses.dataclass(frozen=True, slots=True)
class Series:
    """The pictures of one folder: `count` of them, numbered on from `first` without a gap."""

    prefix: str
    digits: int
    suffix: str
    first: int
    count: int

    def name(self, index: int) -> str:
        """The file of frame `index`, from 0."""
        return f'{self.prefix}{self.first + index:0{self.digits}d}{self.suffix}'


class FrameFolders:
    """A folder that holds, at any depth, one folder of numbered jpg or png pictures for each video; a key is its path.

    A record's `path` names its folder (an extension of a video at its end is passed over); without one the folder is
    called like the video, or like a Kinetics clip of it. frame_rate: pictures a second. Pictures are turned as their
    EXIF orientation says, as viewers and OpenCV do (extraction by FFmpeg writes none).
    """

    longest_clip = float('inf')

    def __init__(self, folder: str, frame_rate: float = FRAME_RATE, limits: Limits | None = None):
        if not 0 < frame_rate < float('inf'):
            raise ValueError(f'frame_rate is {frame_rate}; it is the number of pictures a second, above 0')
        self.folder, self.frame_rate, self.limits = os.fspath(folder), float(frame_rate), limits or Limits()

    def __getstate__(self) -> dict:
        return {'folder': self.folder, 'frame_rate': self.frame_rate, 'limits': self.limits}

    @functools.cached_property
    def catalogue(self) -> Catalogue:
        """The folders of pictures by name; finding them lists none of them in full."""
        return Catalogue(sorted(_leaves(self.folder)))

    def takes(self, record: VideoRecord) -> tuple[Take, ...]:
        """See footage.Footage."""
        return tuple(
            dataclasses.replace(take, key=os.path.join(self.folder, take.key)) for take in self.catalogue.find(record)
        )

    def timeline(self, key: str) -> Timeline:
        """See footage.Footage; from the names alone, no picture is opened."""
        pts = np.arange(series(key, self.limits).count)
        return Timeline(pts, pts, 1 / Fraction(self.frame_rate).limit_denominator(1_000_000), 1, 0)

    def read(self, key: str, times: np.ndarray, each: Callable[[np.ndarray], np.ndarray] | None = None) -> np.ndarray:
        """See footage.Footage. Times before the first and after the last picture give that picture."""
        times = np.asarray(times, np.float64)
        if times.ndim != 1 or not len(times) or not np.isfinite(times).all():
            raise ValueError(f'{key}: times must be one or more finite seconds, not {times!r}.')
        listed = series(key, self.limits)
        wanted, places = np.unique(self.timeline(key).frames_at(times), return_inverse=True)
        frames, shape = None, None
        for number, index in enumerate(wanted.tolist()):
            path = os.path.join(key, listed.name(index))
            picture = _picture(path, self.limits)  # [H, W, 3]
            shape = shape or picture.shape
            if picture.shape != shape:
                sizes = f'{_size(picture.shape)}, the one before {_size(shape)}'
                raise VideoError(f'{path}: the size changes within the video ({sizes}); extract it again.')
            if each is not None:
                picture = each(picture)  # [H', W', 3]
            if frames is None:
                frames = np.empty((len(times), *picture.shape), np.uint8)
            frames[places == number] = picture
        return frames


def holds_pictures(folder: str) -> bool:
    """Whether the first folders below `folder` hold numbered pictures, and neither they nor it any video."""
    for path, kind in itertools.islice(_walk(folder), LOOKED_AT):
        if kind == 'video':
            return False
        if kind == 'picture' and path != folder:
            # Posters lie beside videos in some sets.
            return not any(name.lower().endswith(rows.VIDEO_SUFFIXES) for name in os.listdir(path))
    return False


@functools.lru_cache(maxsize=4096)
def series(folder: str, limits: Limits) -> Series:
    """The pictures of a folder, remembered in each process. Raises VideoError: none, several series, or a gap."""
    groups: dict[tuple[str, str], list[str]] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                found = _PICTURE.fullmatch(entry.name)
                if found and entry.is_file() and not _FLOW.fullmatch(found[1]):
                    groups.setdefault((found[1], found[3]), []).append(found[2])
    except OSError as error:
        raise VideoError(f'{folder}: {error.strerror}; check the path.') from error
    if not groups:
        raise VideoError(f'{folder}: holds no numbered jpg or png pictures; extract the frames of this video again.')
    if len(groups) > 1:
        kinds = ', '.join(
            f'{prefix}#{suffix} ({len(each)})' for (prefix, suffix), each in sorted(groups.items())[:SHOWN]
        )
        raise VideoError(f'{folder}: holds several series of pictures: {kinds}; keep only the frames of the video.')
    (((prefix, suffix), texts),) = groups.items()
    if len(texts) > limits.max_frames:
        raise VideoError(f'{folder}: holds {len(texts)} pictures, the limit is {limits.max_frames}.')
    digits = min(map(len, texts))
    numbers = sorted(map(int, texts))
    found = Series(prefix, digits, suffix, numbers[0], len(numbers))
    odd = next((text for text in sorted(texts) if text != f'{int(text):0{digits}d}'), None)
    if odd is not None:
        name = f'{prefix}{odd}{suffix}'
        raise VideoError(f'{folder}: numbers are written with {digits} digits, but {name} is not; extract it again.')
    if numbers[-1] - numbers[0] >= len(numbers):
        gaps = _gaps(found, np.array(numbers))
        raise FramesMissing(f'{folder}: {gaps} missing; extract the frames of this video again.')
    return found


def _gaps(found: Series, numbers: np.ndarray) -> str:
    """'3 pictures between the first and the last are', with the first names; numbers [n] sorted."""
    steps = np.diff(numbers)
    lacking = int((steps - 1).sum())
    named: list[str] = []
    for at in np.flatnonzero(steps > 1)[:SHOWN]:
        after = range(int(numbers[at]) + 1, min(int(numbers[at + 1]), int(numbers[at]) + 1 + SHOWN))
        named += [found.name(number - found.first) for number in after]
    more = f' and {lacking - SHOWN} more' if lacking > SHOWN else ''
    return f'of its numbered pictures {", ".join(named[:SHOWN])}{more} {"is" if lacking == 1 else "are"}'


def _walk(folder: str) -> Iterator[tuple[str, str | None]]:
    """(folder, what its first telling entry is: 'picture', 'video' or None), from the top, in the order of names.

    A folder of pictures may hold a hundred thousand: it is not listed in full, and folders in it are not looked at.
    """
    todo, above = [(folder, ())], ()
    while todo:
        folder, above = todo.pop()
        real = os.path.realpath(folder)
        if real in above:  # a link to a folder above would never end
            continue
        kind, inner = None, []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if _PICTURE.fullmatch(entry.name):
                        kind = 'picture'
                        break
                    if entry.name.lower().endswith(rows.VIDEO_SUFFIXES) and entry.is_file():
                        kind = 'video'
                    elif entry.is_dir():
                        inner.append(entry.path)
        except OSError as error:
            logging.warning('%s cannot be listed: %s; its videos count as missing', folder, error.strerror)
            continue
        yield folder, kind
        if kind != 'picture':
            todo += [(path, (*above, real)) for path in sorted(inner, reverse=True)]


def _leaves(folder: str) -> Iterator[str]:
    return (os.path.relpath(path, folder) for path, kind in _walk(folder) if kind == 'picture' and path != folder)


def _picture(path: str, limits: Limits) -> np.ndarray:
    """uint8 [H, W, 3], upright. Raises VideoError."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise VideoError(f'{path}: is not a plain file; extract the frames of this video again.')
        # Only these two parsers: Pillow tells formats by what a file holds, whatever it is called.
        with Image.open(path, formats=('JPEG', 'PNG')) as image:
            width, height = image.size
            if width * height > limits.max_pixels:
                raise VideoError(
                    f'{path}: {width}x{height} pixels exceed the limit of {limits.max_pixels}; make it smaller.'
                )
            if image.mode not in _MODES:
                raise VideoError(
                    f'{path}: pictures of the kind {image.mode} are not read; save it with 8 bits a colour.'
                )
            return np.asarray(ImageOps.exif_transpose(image).convert('RGB'))
    except VideoError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise VideoError(f'{path}: cannot be read ({reason}); extract the frames of this video again.') from error
    except Exception as error:  # Pillow's parsers raise what they stumble over, of any type
        reason = f'{type(error).__name__}: {error}'
        raise VideoError(f'{path}: cannot be read ({reason}); extract the frames of this video again.') from error


def _size(shape: tuple[int, ...]) -> str:
    return f'{shape[1]}x{shape[0]}'
