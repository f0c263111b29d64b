"""What a folder holds, by name: which file or folder below it is which video, or which piece of one."""

import dataclasses
import os
from collections.abc import Iterable

from vidloc.annotations import rows
from vidloc.annotations.clip_names import clip_name
from vidloc.annotations.records import VideoRecord


@dataclasses.dataclass(frozen=True, slots=True)
class Take:
    """One piece of a video: `key` reads it; start, end: seconds on the annotation's clock of its first frame and end.

    end is infinite where only opening the file would tell.
    """

    key: str
    start: float = 0.0
    end: float = float('inf')


def stem(path: str) -> str:
    """A path without the extension of a video; other dots belong to the name."""
    bare, extension = os.path.splitext(path)
    return bare if extension.lower() in rows.VIDEO_SUFFIXES else path


class Catalogue:
    """Paths relative to one folder, each of which holds a video.

    A record's `path` is looked for as it is written, also without the extension of a video (frames of `a/b.mp4` are in
    `a/b`). A record without one is looked for by its `stem`, else by its name: as a path, as a path without extension,
    as the last part of one (the first in the order given), and as clips of Kinetics of that name.
    """

    def __init__(self, paths: Iterable[str]):
        self.paths: set[str] = set()
        self.named: dict[str, list[str]] = {}
        self.clips: dict[str, list[tuple[float, float, str]]] = {}
        for path in paths:
            self.paths.add(path)
            name = stem(path)
            last = os.path.basename(name)
            for key in {name, last}:
                self.named.setdefault(key, []).append(path)
            if clip := clip_name(last):
                self.clips.setdefault(clip[0], []).append((clip[1], clip[2], path))

    def find(self, record: VideoRecord) -> tuple[Take, ...]:
        """Takes whose keys are paths of the catalogue, in order of time; empty: it is not there."""
        if record.path is not None:
            wanted = os.path.normpath(record.path)
            exact = next((path for path in (wanted, stem(wanted)) if path in self.paths), None)
            return () if exact is None else (Take(exact),)
        name = record.stem or record.video
        if name in self.paths:
            return (Take(name),)
        if name in self.named:
            return (Take(self.named[name][0]),)
        return tuple(Take(path, start, end) for start, end, path in sorted(self.clips.get(name, ())))

    def same_name(self, record: VideoRecord) -> tuple[str, ...]:
        """All paths that the name of a record without a path could mean."""
        name = record.stem or record.video
        if record.path is not None or name in self.paths:
            return ()
        return tuple(self.named.get(name, ()))
