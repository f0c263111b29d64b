"""The folder that features are written to: what they are, which videos are done, and who writes which.

A file has its name only when it is whole, so that what is there is done. Processes that write to one folder agree by
locks of the operating system, which end with their process however it ends.
"""

import fcntl
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from vidloc.checkpoints import store

DESCRIPTION = 'features.json'
LOCKS = '.locks'  # a byte of it for each video


class FolderError(ValueError):
    """The folder holds something else: what, and what to do."""


class FeatureFolder:
    """Features of videos in `OUT/<video>.npy` ([T, D]), or `.npz` (`last` [T, D] and `layers` [K, T, D])."""

    def __init__(self, out: str | os.PathLike[str], description: Mapping[str, Any]) -> None:
        """Begins a folder, or goes on with one of the same description, which stands in OUT/features.json.

        Raises FolderError for a folder of other features; OSError.
        """
        self.out = pathlib.Path(out)
        self.suffix = '.npz' if description['layers'] else '.npy'
        self.out.mkdir(parents=True, exist_ok=True)
        self._locks = os.open(self.out / LOCKS, os.O_RDWR | os.O_CREAT, 0o666)
        place = self.out / DESCRIPTION
        # JSON has no tuples.
        description = json.loads(json.dumps(dict(description)))
        self._lock(DESCRIPTION, wait=True)
        try:
            if not place.exists():
                if strange := sorted(path.name for path in self.out.iterdir() if path.name != LOCKS):
                    raise FolderError(
                        f'{out} holds {", ".join(strange[:5])} and no {DESCRIPTION}: name a new or empty folder'
                    )
                store.write_json(place, description)
            self._check(place, description)
        finally:
            self.release(DESCRIPTION)

    def _check(self, place: pathlib.Path, description: Mapping[str, Any]) -> None:
        try:
            there = json.loads(place.read_text(encoding='utf-8'))
        except ValueError as error:
            raise FolderError(f'{place} is damaged ({error}): name a new folder') from error
        there = there if isinstance(there, dict) else {}
        names = sorted(there.keys() | description.keys())
        differing = [
            f'{name} {there.get(name)!r} there, {description.get(name)!r} here'
            for name in names
            if there.get(name) != description.get(name)
        ]
        if differing:
            raise FolderError(
                f'{self.out} holds other features: {"; ".join(differing)}. Use the same again, or name a new folder'
            )

    def path(self, video: str) -> pathlib.Path:
        """Of the features of a video."""
        return self.out / f'{video}{self.suffix}'

    def done(self, video: str) -> bool:
        """Whether they are there."""
        return self.path(video).exists()

    def claim(self, video: str) -> bool:
        """Whether this process is to write the features of a video; False if another one is at it just now."""
        return self._lock(video, wait=False)

    def release(self, video: str) -> None:
        """Lets others claim it."""
        fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, _byte(video))

    def write(self, video: str, last: np.ndarray, layers: np.ndarray | None) -> None:
        """Writes the features of a video that this process has claimed, whole or not at all. Raises OSError."""
        # Only who has the claim writes, so what a process left that was ended is written over.
        temporary = self.out / f'.{video}.writing'
        with temporary.open('wb') as file:
            if layers is None:
                np.save(file, last)
            else:
                np.savez(file, last=last, layers=layers)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path(video))

    def close(self) -> None:
        """Lets go of all claims."""
        os.close(self._locks)

    def _lock(self, name: str, *, wait: bool) -> bool:
        try:
            fcntl.lockf(self._locks, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, _byte(name))
        except BlockingIOError:
            return False
        except PermissionError:  # What some systems say of a lock that another process has.
            return False
        return True


def _byte(name: str) -> int:
    """Of the file of locks; 2**40 of them, so that two videos of a set hardly share one."""
    return int.from_bytes(hashlib.sha256(name.encode('utf-8', 'surrogateescape')).digest()[:5], 'big')
