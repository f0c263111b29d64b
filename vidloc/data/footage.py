"""Where the videos of a source are: which file holds which video, from when, and its frames at given times.

Footage is found once, with every record at hand, and read many times, in loader workers: an object of it is small when
pickled.
"""

import dataclasses
import functools
import os
import re
from typing import Protocol

import numpy as np

from vidloc.annotations import rows
from vidloc.annotations.records import VideoRecord
from vidloc.data import video
from vidloc.data.timeline import Timeline

# A clip of Kinetics: youtube id, first and last second in the whole video.
_CLIP = re.compile(r'(.+)_(\d{6})_(\d{6})')


@dataclasses.dataclass(frozen=True, slots=True)
class Take:
    """One piece of a video: `key` reads it; start, end: seconds on the annotation's clock of its first frame and end.

    end is infinite where only opening the file would tell.
    """

    key: str
    start: float = 0.0
    end: float = float('inf')


class Footage(Protocol):
    """Videos of one folder; keys are those of its takes."""

    def takes(self, record: VideoRecord) -> tuple[Take, ...]:
        """Pieces that hold the video, in order of time; empty: it is not there."""

    def timeline(self, key: str) -> Timeline:
        """When each frame of a piece is shown, from its first frame. Raises video.VideoError."""

    def read(self, key: str, times: np.ndarray) -> np.ndarray:
        """Frames shown at `times` [T], seconds from the piece's first frame: uint8 [T, H, W, 3].

        Raises video.VideoError.
        """


def open_footage(folder: str) -> Footage:
    """The footage of a folder, by what it holds. Raises FileNotFoundError without the folder."""
    if not folder or not os.path.isdir(folder):
        raise FileNotFoundError(folder)
    return VideoFiles(folder)


@functools.lru_cache(maxsize=4096)
def indexed(path: str) -> video.VideoIndex:
    """The index of a file, remembered in each process: without one every read goes through the whole file's packets."""
    return video.index_video(path)


class VideoFiles:
    """A folder of video files, below it at any depth; a key is a path.

    A record's `path` names its file; without one the file is called like the video, with any known extension, or like a
    Kinetics clip of it (`<video>_SSSSSS_EEEEEE`), whose annotations count from the start of the whole video.
    """

    def __init__(self, folder: str):
        self.folder = os.fspath(folder)

    def __getstate__(self) -> dict[str, str]:
        return {'folder': self.folder}

    def takes(self, record: VideoRecord) -> tuple[Take, ...]:
        """See Footage."""
        paths, stems, clips = self._catalogue
        if record.path is not None:
            path = os.path.normpath(record.path)
            return (Take(os.path.join(self.folder, path)),) if path in paths else ()
        if record.video in stems:
            return (Take(os.path.join(self.folder, stems[record.video])),)
        return tuple(
            Take(os.path.join(self.folder, path), start, end)
            for start, end, path in sorted(clips.get(record.video, ()))
        )

    def timeline(self, key: str) -> Timeline:
        """See Footage."""
        return indexed(key)

    def read(self, key: str, times: np.ndarray) -> np.ndarray:
        """See Footage."""
        return video.read_frames(key, times, index=indexed(key))

    @functools.cached_property
    def _catalogue(self) -> tuple[set[str], dict[str, str], dict[str, list[tuple[float, float, str]]]]:
        """One walk: relative paths, {stem: path} (the first by name) and {video: its Kinetics clips}."""
        paths, stems, clips, seen = set(), {}, {}, set()
        for parent, folders, files in os.walk(self.folder, followlinks=True):
            real = os.path.realpath(parent)
            folders[:] = [] if real in seen else sorted(folders)  # a link to a folder above would never end
            seen.add(real)
            for file in sorted(files):
                stem, extension = os.path.splitext(file)
                if extension.lower() not in rows.VIDEO_SUFFIXES:
                    continue
                path = os.path.relpath(os.path.join(parent, file), self.folder)
                paths.add(path)
                stems.setdefault(stem, path)
                if clip := _CLIP.fullmatch(stem):
                    clips.setdefault(clip[1], []).append((float(clip[2]), float(clip[3]), path))
        return paths, stems, clips
