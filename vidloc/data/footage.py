"""Where the videos of a source are: which file holds which video, from when, and its frames at given times.

Footage is found once, with every record at hand, and read many times, in loader workers: an object of it is small when
pickled.
"""

import dataclasses
import functools
import logging
import os
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from vidloc.annotations import rows
from vidloc.annotations.records import VideoRecord
from vidloc.data import frame_folders, prepared, video
from vidloc.data.catalogue import Catalogue
from vidloc.data.catalogue import Take as Take
from vidloc.data.timeline import Timeline


class Footage(Protocol):
    """Videos of one folder; keys are those of its takes.

    longest_clip: seconds; longer clips are read from several records, which takes longer.
    """

    longest_clip: float

    def takes(self, record: VideoRecord) -> tuple[Take, ...]:
        """Pieces that hold the video, in order of time; empty: it is not there."""

    def timeline(self, key: str) -> Timeline:
        """When each frame of a piece is shown, from its first frame. Raises video.VideoError."""

    def read(self, key: str, times: np.ndarray, each: video.Each | None = None) -> np.ndarray:
        """Frames shown at `times` [T], seconds from the piece's first frame: uint8 [T, H, W, 3].

        each: done to every frame before the next one is decoded, see video.read_frames; the result has its sizes.
        Raises video.VideoError.
        """


def open_footage(folder: str, frame_rate: float = frame_folders.FRAME_RATE) -> Footage:
    """The footage of a folder, by what it holds: folders of extracted pictures, or video files.

    frame_rate: of extracted pictures. Raises FileNotFoundError without the folder, ValueError for an impossible rate.
    """
    if not folder or not os.path.isdir(folder):
        raise FileNotFoundError(folder)
    if prepared.is_prepared(folder):
        return prepared.PreparedVideos(folder)
    if frame_folders.holds_pictures(folder):
        return frame_folders.FrameFolders(folder, frame_rate)
    return VideoFiles(folder)


@functools.lru_cache(maxsize=4096)
def indexed(path: str) -> video.VideoIndex:
    """The index of a file, remembered in each process: without one every read goes through the whole file's packets."""
    return video.index_video(path)


class VideoFiles:
    """A folder of video files, below it at any depth; a key is a path.

    A record's `path` names its file; without one the file is called like the video, with any known extension, or like a
    Kinetics clip of it (`<video>_SSSSSS_EEEEEE`), whose annotations count from the start of the whole video. Of several
    files of one name the first is read (tools/check_data.py tells of them).
    """

    longest_clip = float('inf')

    def __init__(self, folder: str):
        self.folder = os.fspath(folder)

    def __getstate__(self) -> dict[str, str]:
        return {'folder': self.folder}

    @functools.cached_property
    def catalogue(self) -> Catalogue:
        """The files by name: one walk, parents before what is in them, in the order of names."""
        return Catalogue(_files(self.folder))

    def takes(self, record: VideoRecord) -> tuple[Take, ...]:
        """See Footage."""
        return tuple(
            dataclasses.replace(take, key=os.path.join(self.folder, take.key)) for take in self.catalogue.find(record)
        )

    def timeline(self, key: str) -> Timeline:
        """See Footage."""
        return indexed(key)

    def read(self, key: str, times: np.ndarray, each: video.Each | None = None) -> np.ndarray:
        """See Footage."""
        return video.read_frames(key, times, index=indexed(key), each=each)


def _files(root: str) -> Iterator[str]:
    """Video files below a folder, relative to it. Links to folders are followed, but not round in circles."""
    above: dict[str, frozenset[str]] = {root: frozenset()}

    def unlisted(error: OSError) -> None:
        logging.warning('%s cannot be listed: %s; its videos count as missing', error.filename, error.strerror)

    for parent, folders, files in os.walk(root, followlinks=True, onerror=unlisted):
        real, before = os.path.realpath(parent), above.pop(parent)
        if real in before:
            folders.clear()
            continue
        folders.sort()
        above.update((os.path.join(parent, folder), before | {real}) for folder in folders)
        for file in sorted(files):
            if file.lower().endswith(rows.VIDEO_SUFFIXES):
                yield os.path.relpath(os.path.join(parent, file), root)
