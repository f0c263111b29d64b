"""Everything a prepared set knows about its videos, in columns: a million of them cost a loader worker no memory.

Lists of differing length (names, timestamps, keyframes, pieces) are stored end to end, with a column of where each
video's ends. On disk each column is a .npy file that is mapped, not read.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from vidloc.data.video import VideoIndex

# One entry a video. step: ticks between frames, 0 where they differ and `pts` lists them.
VIDEO_COLUMNS = {
    'size': np.int64,
    'frames': np.int64,
    'width': np.int32,
    'height': np.int32,
    'first_pts': np.int64,
    'step': np.int64,
    'last_ticks': np.int64,
    'missing': np.int64,
    'tick_numerator': np.int64,
    'tick_denominator': np.int64,
    'aspect_numerator': np.int64,
    'aspect_denominator': np.int64,
    'resampled': np.bool_,
}
# One entry a piece: the record of the file that holds frames [first, stop), or the whole file as it was.
PIECE_COLUMNS = {
    'file_number': np.int64,
    'record': np.int64,
    'first': np.int64,
    'stop': np.int64,
    'base': np.int64,
    'whole': np.bool_,
}
# Stored end to end: how many entries each video has is told by the column `<name>_end`.
LISTS = {'name': np.uint8, 'codec': np.uint8, 'sha256': np.uint8, 'pts': np.int64, 'keyframes': np.int64}


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """Frames [first, stop) of a video are in `record` of file `file_number`, the first at `base` ticks there.

    whole: the record is the file as it was, with the timestamps it had.
    """

    file_number: int
    record: int
    first: int
    stop: int
    base: int = 0
    whole: bool = False


@dataclasses.dataclass(frozen=True)
class Entry:
    """One video. name: its path in the source folder. size, sha256 (hex): of that file. index: of what is stored."""

    name: str
    size: int
    sha256: str
    index: VideoIndex
    resampled: bool
    pieces: tuple[Piece, ...]


class VideoTable:
    """Columns of all videos; a row is the number of a video."""

    def __init__(self, columns: Mapping[str, np.ndarray]):
        self.columns = dict(columns)

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> 'VideoTable':
        """The table of these videos, in this order."""
        rows = [_row(entry) for entry in entries]
        columns = {name: np.array([row[name] for row in rows], kind) for name, kind in VIDEO_COLUMNS.items()}
        for name, kind in LISTS.items():
            parts = [np.asarray(row[name], kind) for row in rows]
            columns[name] = np.concatenate([np.empty(0, kind), *parts])
            columns[f'{name}_end'] = np.cumsum([len(part) for part in parts], dtype=np.int64)
        pieces = [piece for entry in entries for piece in entry.pieces]
        for name, kind in PIECE_COLUMNS.items():
            columns[name] = np.array([getattr(piece, name) for piece in pieces], kind)
        columns['piece_end'] = np.cumsum([len(entry.pieces) for entry in entries], dtype=np.int64)
        return cls(columns)

    @classmethod
    def joined(cls, tables: Sequence['VideoTable'], first_files: Sequence[int]) -> 'VideoTable':
        """One after the other; the files of each are counted from its entry of `first_files`."""
        columns = {}
        for name in tables[0].columns:
            parts = [np.asarray(table.columns[name]) for table in tables]
            if name.endswith('_end'):
                totals = np.cumsum([0] + [int(part[-1]) if len(part) else 0 for part in parts])
                parts = [part + total for part, total in zip(parts, totals[:-1], strict=True)]
            elif name == 'file_number':
                parts = [part + first for part, first in zip(parts, first_files, strict=True)]
            columns[name] = np.concatenate(parts)
        return cls(columns)

    @classmethod
    def load(cls, folder: str | os.PathLike) -> 'VideoTable':
        """Maps what save wrote. Raises OSError or ValueError for a column that lacks or is damaged."""
        names = [*VIDEO_COLUMNS, *PIECE_COLUMNS, *LISTS, *(f'{name}_end' for name in LISTS), 'piece_end']
        return cls({name: np.load(pathlib.Path(folder, f'{name}.npy'), mmap_mode='r') for name in names})

    def save(self, folder: str | os.PathLike) -> None:
        """Writes a .npy file for each column into a folder, which is there."""
        for name, column in self.columns.items():
            np.save(pathlib.Path(folder, f'{name}.npy'), column)

    def pack(self, path: str | os.PathLike) -> None:
        """Writes one .npz file."""
        np.savez(path, **self.columns)

    @classmethod
    def unpacked(cls, path: str | os.PathLike) -> 'VideoTable':
        """Reads what pack wrote."""
        with np.load(path) as columns:
            return cls(dict(columns))

    def __len__(self) -> int:
        return len(self.columns['frames'])

    def names(self) -> list[str]:
        """The path of each video in the folder it came from."""
        blob, ends = bytes(self.columns['name']), self.columns['name_end'].tolist()
        return [os.fsdecode(blob[start:end]) for start, end in zip([0, *ends], ends, strict=False)]

    def index(self, row: int) -> VideoIndex:
        """What video.index_video says of the video that is stored."""
        value = {name: self.columns[name][row].item() for name in VIDEO_COLUMNS}
        pts = np.array(self._list('pts', row))
        if value['step']:
            pts = value['first_pts'] + value['step'] * np.arange(value['frames'], dtype=np.int64)
        return VideoIndex(
            pts=pts,
            keyframes=np.array(self._list('keyframes', row)),
            time_base=Fraction(value['tick_numerator'], value['tick_denominator']),
            last_ticks=value['last_ticks'],
            missing=value['missing'],
            width=value['width'],
            height=value['height'],
            pixel_aspect=Fraction(value['aspect_numerator'], value['aspect_denominator']),
            codec=bytes(self._list('codec', row)).decode(),
        )

    def pieces(self, row: int) -> tuple[Piece, ...]:
        """Where the video is stored, in order of time."""
        end = self.columns['piece_end']
        rows = range(int(end[row - 1]) if row else 0, int(end[row]))
        return tuple(Piece(**{name: self.columns[name][i].item() for name in PIECE_COLUMNS}) for i in rows)

    def _list(self, name: str, row: int) -> np.ndarray:
        end = self.columns[f'{name}_end']
        return self.columns[name][int(end[row - 1]) if row else 0 : int(end[row])]


def _row(entry: Entry) -> dict:
    """{column: value, or list of values} of a video."""
    index = entry.index
    steps = np.unique(np.diff(index.pts))
    regular = len(steps) == 1
    return {
        'size': entry.size,
        'frames': len(index.pts),
        'width': index.width,
        'height': index.height,
        'first_pts': index.pts[0],
        'step': steps[0] if regular else 0,
        'last_ticks': index.last_ticks,
        'missing': index.missing,
        'tick_numerator': index.time_base.numerator,
        'tick_denominator': index.time_base.denominator,
        'aspect_numerator': index.pixel_aspect.numerator,
        'aspect_denominator': index.pixel_aspect.denominator,
        'resampled': entry.resampled,
        'name': list(os.fsencode(entry.name)),
        'codec': list(index.codec.encode()),
        'sha256': list(bytes.fromhex(entry.sha256)),
        'pts': [] if regular else index.pts,
        'keyframes': index.keyframes,
    }
