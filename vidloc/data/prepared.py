"""Prepared sets: videos in array_record files, with all that reading them needs to know in columns beside (prepare.py).

Read as Footage: the same records find the same videos, and the same frames come out, as from the folder of video files
that the set was made of.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Callable

import numpy as np

from vidloc.annotations.records import VideoRecord
from vidloc.data import chunks, video, video_set
from vidloc.data.catalogue import Catalogue, Take
from vidloc.data.video_table import Piece, VideoTable

FORMAT_VERSION = 1
# The plan is written first and says what is to be in the set; the manifest is written last: then the set is whole.
PLAN, MANIFEST, INDEX = 'plan.json', 'manifest.json', 'index'
KIND = 'vidloc prepared videos'
SHOWN = 5


class PreparedError(ValueError):
    """A prepared set that cannot be used, or written, as it is: what is wrong and what to do."""


def is_prepared(folder: str) -> bool:
    """Whether a folder holds a prepared set, complete or not."""
    return _kind(pathlib.Path(folder, MANIFEST)) == KIND or _kind(pathlib.Path(folder, PLAN)) == KIND


def read_manifest(folder: str | os.PathLike) -> dict:
    """The manifest of a complete set. Raises PreparedError: not complete (what is missing), not ours, or newer."""
    path = pathlib.Path(folder, MANIFEST)
    if not path.exists():
        raise PreparedError(unfinished(folder))
    try:
        manifest = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise PreparedError(f'{path}: damaged ({error}); copy the set again') from error
    if manifest.get('format_version') != FORMAT_VERSION:
        raise PreparedError(
            f'{path}: format {manifest.get("format_version")}, this version of vidloc reads {FORMAT_VERSION}; '
            'prepare the set again, or read it with the version that wrote it'
        )
    return manifest


def parts_done(folder: str | os.PathLike) -> dict[int, dict]:
    """{number: what prepare noted} of the finished parts of a set."""
    notes = {}
    for path in sorted(pathlib.Path(folder, 'parts').glob('*.json')):
        with contextlib.suppress(FileNotFoundError):  # another machine has just joined the parts
            notes[int(path.stem)] = json.loads(path.read_text(encoding='utf-8'))
    return notes


def unfinished(folder: str | os.PathLike) -> str:
    """What a set without manifest lacks, and what to do."""
    plan = pathlib.Path(folder, PLAN)
    if not plan.exists():
        return f'{folder}: holds no prepared set; make one with tools/prepare_data.py'
    count = json.loads(plan.read_text(encoding='utf-8'))['parts']
    notes = parts_done(folder)
    lacking = [number for number in range(count) if number not in notes]
    if not lacking:
        return f'{folder}: all parts are there but not yet joined; run tools/prepare_data.py --join {folder}'
    machines = {note['machines'] for note in notes.values()}
    whose = ''
    if len(machines) == 1 and (of := machines.pop()) > 1:
        wanted = sorted({number % of + 1 for number in lacking})
        whose = f' (those of {", ".join(f"--shard {each}/{of}" for each in wanted)})'
    some = ', '.join(map(str, lacking[:SHOWN])) + (', ...' if len(lacking) > SHOWN else '')
    return (
        f'{folder}: the set is not complete, {len(lacking)} of {count} parts are missing: {some}{whose}; '
        'run tools/prepare_data.py with the same options again, it goes on where it stopped'
    )


class PreparedVideos:
    """A prepared set as Footage; a key is `<row>:<path of the video in the folder it came from>`.

    longest_clip: seconds; clips up to that length lie within one chunk. What the set knows is mapped from disk once in
    each process, files are opened when first read. Safe to use from several threads. Raises PreparedError for a set
    that is not complete or not what its manifest says.
    """

    def __init__(self, folder: str):
        self.folder = os.path.abspath(folder)
        manifest = read_manifest(folder)
        self.files = tuple(file['name'] for file in manifest['files'])
        # Not a hash of the videos: it tells in loader workers whether the set is still the one that was opened.
        self.identity = hashlib.sha256(pathlib.Path(folder, MANIFEST).read_bytes()).hexdigest()
        self.longest_clip = manifest['options']['overlap'] if manifest['counts']['cut_into_chunks'] else float('inf')
        for file in manifest['files']:
            path = pathlib.Path(folder, file['name'])
            if not path.exists() or path.stat().st_size != file['bytes']:
                found = f'{path.stat().st_size} bytes' if path.exists() else 'missing'
                raise PreparedError(
                    f'{path}: {found}, the manifest says {file["bytes"]} bytes; copy the set again, or check it with '
                    f'tools/prepare_data.py --verify {folder}'
                )
        try:
            if len(self._table) != manifest['counts']['videos']:
                raise ValueError(f'{len(self._table)} videos, the manifest says {manifest["counts"]["videos"]}')
        except (OSError, ValueError, EOFError) as error:
            raise PreparedError(
                f'{pathlib.Path(folder, INDEX)}: damaged ({error}); copy the set again, or make it with --join {folder}'
            ) from error

    def __getstate__(self) -> dict:
        return {name: getattr(self, name) for name in ('folder', 'files', 'identity', 'longest_clip')}

    @property
    def _table(self) -> VideoTable:
        return _opened_table(self.folder, self.identity)

    @functools.cached_property
    def catalogue(self) -> Catalogue:
        """The videos by name, as they lay in the folder they came from."""
        return Catalogue(self._rows)

    @functools.cached_property
    def _rows(self) -> dict[str, int]:
        """{path: row}, for finding records only; workers know keys."""
        return {name: row for row, name in enumerate(self._table.names())}

    def takes(self, record: VideoRecord) -> tuple[Take, ...]:
        """See footage.Footage."""
        found = self.catalogue.find(record)
        return tuple(dataclasses.replace(take, key=f'{self._rows[take.key]}:{take.key}') for take in found)

    def timeline(self, key: str) -> video.VideoIndex:
        """See footage.Footage; of the whole video, and nothing is opened for it."""
        return _index(self.folder, self.identity, _row(key))

    def read(self, key: str, times: np.ndarray, each: video.Each | None = None) -> np.ndarray:
        """See footage.Footage. Times within `longest_clip` seconds are read from one record, others from several.

        Raises video.VideoError: the video cannot be decoded there, or the file that holds it is damaged.
        """
        times = np.asarray(times, np.float64)
        if times.ndim != 1 or not len(times) or not np.isfinite(times).all():
            raise ValueError(f'{key}: times must be one or more finite seconds, not {times!r}.')
        index, pieces = self.timeline(key), self._table.pieces(_row(key))
        if pieces[0].whole:
            return self._read(key, pieces[0], index, times, each)
        frames, result = index.frames_at(times), None
        for piece, places in _groups(pieces, frames):
            own = chunks.chunk_timeline(index, chunks.Span(piece.first, piece.stop), piece.base)
            shown = self._read(key, piece, own, own.times[frames[places] - piece.first], each)
            if result is None:
                result = np.empty((len(times), *shown.shape[1:]), np.uint8)
            result[places] = shown
        return result

    def _read(
        self, key: str, piece: Piece, index: video.Timeline, times: np.ndarray, each: video.Each | None
    ) -> np.ndarray:
        content = self._content(key, piece)
        try:
            return video.read_frames(content, times, index=index, each=each)
        except video.VideoError as error:
            raise video.VideoError(f'{self.folder}: {key}, in {self._place(piece)}: {error}') from error

    def _content(self, key: str, piece: Piece) -> bytes:
        path = os.path.join(self.folder, self.files[piece.file_number])
        try:
            (record,) = _reader(os.getpid(), path).read([piece.record])
            example = video_set.parse(record)
        except Exception as error:  # array_record raises what it stumbles over, of any type
            raise video.VideoError(
                f'{self.folder}: {key}, in {self._place(piece)}: cannot be read ({type(error).__name__}: {error}); '
                f'look for damage with tools/prepare_data.py --verify {self.folder}'
            ) from error
        return example.video

    def _place(self, piece: Piece) -> str:
        return f'record {piece.record} of {self.files[piece.file_number]}'


def _groups(pieces: tuple[Piece, ...], frames: np.ndarray) -> list[tuple[Piece, np.ndarray]]:
    """(piece, which of `frames` [T] are read from it): one piece if one holds them all, as chunks overlap."""
    number = (
        np.searchsorted([piece.first for piece in pieces], frames, side='right') - 1
    )  # the latest that begins early
    if frames.max() < pieces[number.min()].stop:
        return [(pieces[number.min()], np.arange(len(frames)))]
    return [(pieces[each], np.flatnonzero(number == each)) for each in np.unique(number)]


def verify(folder: str | os.PathLike, seen: Callable[[int], None] = lambda size: None) -> list[str]:
    """What is damaged in a complete set, in words, by hashing all of it again; empty: nothing.

    seen: called with the number of bytes of each file that was hashed. Raises PreparedError as read_manifest does.
    """
    manifest = read_manifest(folder)
    damage = []
    for file in [*manifest['files'], *manifest['index']]:
        path = pathlib.Path(folder, file['name'])
        if not path.exists():
            damage.append(f'{path}: missing')
        elif path.stat().st_size != file['bytes']:
            damage.append(f'{path}: {path.stat().st_size} bytes, the manifest says {file["bytes"]}')
        elif sha256(path) != file['sha256']:
            damage.append(f'{path}: its bytes are not those that were written (sha256 differs)')
        seen(file['bytes'])
    return damage


def sha256(path: str | os.PathLike) -> str:
    """Of a file, hex, without holding it in memory."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _kind(path: pathlib.Path) -> str | None:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding='utf-8'))
        return found.get('kind') if isinstance(found, dict) else None
    return None


def _row(key: str) -> int:
    return int(key.partition(':')[0])


@functools.lru_cache(maxsize=16)
def _opened_table(folder: str, identity: str) -> VideoTable:
    return VideoTable.load(pathlib.Path(folder, INDEX))


@functools.lru_cache(maxsize=4096)
def _index(folder: str, identity: str, row: int) -> video.VideoIndex:
    return _opened_table(folder, identity).index(row)


@functools.lru_cache(maxsize=256)
def _reader(process: int, path: str):
    """The reader of a file in this process; it may be shared by threads, not by processes."""
    from array_record.python import array_record_module

    # Records are read out of order: reading ahead would read what nobody asks for.
    return array_record_module.ArrayRecordReader(path, options='readahead_buffer_size:0', file_reader_buffer_size=32768)
