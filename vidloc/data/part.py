"""One part of a prepared set: some of its videos, written by one process and noted as done when they are."""

import contextlib
import dataclasses
import errno
import fcntl
import functools
import json
import logging
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata

from vidloc.annotations.records import VideoRecord
from vidloc.annotations.rows import write_text
from vidloc.data import chunks, prepared, video, video_set
from vidloc.data.prepared import PreparedError
from vidloc.data.transcode import Transcode
from vidloc.data.video_table import Entry, Piece, VideoTable

FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclasses.dataclass(frozen=True)
class Options:
    """What is written.

    chunk_seconds: longer videos are cut into chunks of about that length. overlap: seconds by which chunks reach into
    the next one, at least the length of the longest clip. file_mb: size of a file, about; each process holds that much
    in memory. transcode: a Transcode, or None to keep videos as they are.
    """

    chunk_seconds: float = 60.0
    overlap: float = 3.0
    file_mb: int = 256
    transcode: Transcode | None = None

    def __post_init__(self):
        if not (self.chunk_seconds > 0 and self.overlap > 0):
            raise PreparedError(
                f'chunk_seconds {self.chunk_seconds:g} and overlap {self.overlap:g} are seconds, above 0'
            )
        if not 1 <= self.file_mb <= 512:
            raise PreparedError(f'file_mb {self.file_mb} is not in 1 to 512: files are held in memory while written')


@dataclasses.dataclass(frozen=True)
class Part:
    """Some of the videos, neighbours in the order of the set: (path, size, records)."""

    number: int
    videos: tuple[tuple[str, int, tuple[VideoRecord, ...]], ...]

    @property
    def size(self) -> int:
        return sum(size for _, size, _ in self.videos)


def write_part(
    out: str | os.PathLike,
    source: str,
    part: Part,
    options: Options,
    machines: int = 1,
    seen: Callable[[int], None] = lambda size: None,
) -> None:
    """Writes one part, unless it is done. A second process that is given the same part waits for the first.

    A video that cannot be prepared is noted with the reason and left out. seen: called with the size of each video.
    Raises OSError where the set cannot be written.
    """
    folder = pathlib.Path(out, 'parts')
    note = folder / f'{part.number:05d}.json'
    with alone(folder / f'{part.number:05d}.lock'):
        if note.exists():
            seen(part.size)
            return
        for left in folder.glob(f'{part.number:05d}-*'):  # of a process that was stopped
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        scratch = folder / f'{part.number:05d}-scratch'
        scratch.mkdir()
        writing = _Writing(source, options, scratch)
        files = []
        for examples in _files(writing, part, options.file_mb << 20, seen):
            path = folder / f'{part.number:05d}-{len(files):02d}.array_record'
            video_set.write_file(path, examples)
            described = {'name': path.name, 'bytes': path.stat().st_size, 'sha256': prepared.sha256(path)}
            files.append(described | {'records': writing.record})
        VideoTable.of(writing.entries).pack(folder / f'{part.number:05d}.npz')
        shutil.rmtree(scratch)
        noted = {'files': files, 'machines': machines, 'versions': versions()}
        write_text(note, json.dumps(noted | {'failed': writing.failed, 'kept_whole': writing.kept_whole}))


def _files(
    writing: '_Writing', part: Part, limit: int, seen: Callable[[int], None]
) -> Iterator[Iterator[video_set.Example]]:
    """The examples of one file after the other, each of `limit` bytes unless a single record is larger."""
    stream = writing.examples(part, seen)
    held = next(stream, None)

    def one() -> Iterator[video_set.Example]:
        nonlocal held
        written = 0
        while held is not None and (not written or written + len(held[0].video) <= limit):
            example, place = held
            place(writing.file, writing.record)
            writing.record += 1
            written += len(example.video)
            yield example
            held = next(stream, None)

    while held is not None:
        yield one()
        writing.file, writing.record = writing.file + 1, 0


class _Writing:
    """One part in the making: what comes of each of its videos."""

    def __init__(self, source: str, options: Options, scratch: pathlib.Path):
        self.source, self.options, self.scratch = source, options, scratch
        self.entries: list[Entry] = []
        self.failed: list[dict[str, str]] = []
        self.kept_whole: list[dict[str, str]] = []
        self.file = self.record = 0

    def examples(self, part: Part, seen: Callable[[int], None]) -> Iterator[tuple[video_set.Example, Callable]]:
        """(example, what to call with the file and record that it is written to), video by video."""
        for path, size, records in part.videos:
            with contextlib.ExitStack() as stack:
                try:
                    entry, contents = self._stored(path, stack)
                except (video.VideoError, OSError) as error:
                    if getattr(error, 'errno', None) in FULL:
                        raise
                    self.failed.append({'name': path, 'reason': str(error)})
                    seen(size)
                    continue
                self.entries.append(entry)
                for number, content in enumerate(contents):
                    example = video_set.Example(
                        name=os.fsencode(path).decode('utf-8', 'replace'),
                        video=content(),
                        start_us=round(1e6 * float(entry.index.times[entry.pieces[number].first])),
                        chunk=number,
                        chunks=len(contents),
                        annotations=video_set.annotations_text(() if number else records),
                    )
                    yield example, functools.partial(self._placed, len(self.entries) - 1, number)
            seen(size)

    def _placed(self, row: int, number: int, file: int, record: int) -> None:
        entry = self.entries[row]
        pieces = list(entry.pieces)
        pieces[number] = dataclasses.replace(pieces[number], file_number=file, record=record)
        self.entries[row] = dataclasses.replace(entry, pieces=tuple(pieces))

    def _stored(self, name: str, stack: contextlib.ExitStack) -> tuple[Entry, list[Callable[[], bytes]]]:
        """What is stored of a video: (its entry, functions that give the bytes of its pieces).

        Everything that can go wrong with the video does so here, before the first piece is written.
        """
        path, resampled = os.path.join(self.source, name), False
        index = video.index_video(path)
        size, digest = os.stat(path).st_size, prepared.sha256(path)
        if self.options.transcode:
            smaller = self.scratch / 'smaller.mp4'
            stack.callback(smaller.unlink, missing_ok=True)
            resampled = self.options.transcode.write(smaller, path, index)
            path, index = os.fspath(smaller), video.index_video(smaller)
        found = self._cut(name, path, index, stack)
        if found is None:
            content = pathlib.Path(path).read_bytes()
            if len(content) > video_set.LARGEST:
                raise video.VideoError(
                    f'{path}: {len(content)} bytes cannot be cut and are too many for one record '
                    f'({video_set.LARGEST}); prepare it with --transcode, or encode it again'
                )
            found = [Piece(0, 0, 0, len(index.pts), whole=True)], [lambda: content]
        pieces, contents = found
        return Entry(name, size, digest, index, resampled, tuple(pieces)), contents

    def _cut(
        self, name: str, path: str, index: video.VideoIndex, stack: contextlib.ExitStack
    ) -> tuple[list[Piece], list[Callable[[], bytes]]] | None:
        """(pieces, their bytes) of a long video; None: it is stored as it is."""
        if index.duration <= self.options.chunk_seconds:
            return None
        spans = chunks.spans(index, self.options.chunk_seconds, self.options.overlap)
        if len(spans) == 1:
            if len(index.keyframes) < 2:
                self.kept_whole.append({'name': name, 'reason': 'decoding can only start at its beginning'})
            return None
        # On disk: chunks are kept until the last of them is known to be good.
        kept = stack.enter_context(tempfile.TemporaryFile(dir=self.scratch))  # noqa: SIM115
        pieces, contents = [], []
        try:
            for chunk in chunks.cut(path, index, spans):
                contents.append(functools.partial(_range_of, kept, kept.tell(), len(chunk.content)))
                kept.write(chunk.content)
                pieces.append(Piece(0, 0, chunk.span.first, chunk.span.stop, chunk.base))
        except chunks.Uncuttable as error:
            self.kept_whole.append({'name': name, 'reason': str(error)})
            return None
        return pieces, contents


def _range_of(file, start: int, length: int) -> bytes:
    file.seek(start)
    return file.read(length)


@functools.cache
def versions() -> dict[str, str]:
    """Of what a set is made with."""
    return {name: metadata.version(name) for name in ('vidloc', 'av', 'numpy', 'tensorflow-datasets', 'array-record')}


@contextlib.contextmanager
def alone(path: pathlib.Path) -> Iterator[None]:
    """Holds a lock on a file; waits for whoever has it."""
    with path.open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            logging.warning('%s: no file locks here (%s); do not start the same part twice', path.parent, error)
        yield
