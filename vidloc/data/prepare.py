"""Makes prepared sets (prepared.py): the videos that records name, from a folder of files into array_record files.

The videos are dealt out to parts, whatever the number of processes and machines, and each part is written by one
process and noted as done when it is. So work that was stopped goes on where it stopped, machines share it without
talking to each other, and whoever finds all parts done joins them (join.py).
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import os
import pathlib
import queue
import shutil
import signal
from collections.abc import Callable, Sequence

from vidloc.annotations.records import VideoRecord
from vidloc.annotations.rows import write_text
from vidloc.data import footage, prepared, video_set
from vidloc.data.part import Options, Part, alone, write_part
from vidloc.data.prepared import PreparedError
from vidloc.data.video_table import VideoTable

# At least so many parts, if there are so many videos: what can be shared out, and lost at a stop.
PARTS = 16
# The list of the plan's videos, one [path, size] a line: it names what has changed since.
VIDEOS = 'videos.jsonl'


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be prepared. missing: the records' names whose videos are not in the folder."""

    source: str
    options: Options
    parts: tuple[Part, ...]
    missing: tuple[str, ...]

    @property
    def videos(self) -> int:
        return sum(len(part.videos) for part in self.parts)

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)


def plan(records: Sequence[VideoRecord], folder: str, options: Options) -> Plan:
    """Finds the videos of the records, as training does, and deals them out.

    Raises PreparedError: no folder, no video found, or the folder holds something else than video files.
    """
    try:
        opened = footage.open_footage(folder)
    except FileNotFoundError as error:
        raise PreparedError(f'no folder of videos at {folder!r}') from error
    if not isinstance(opened, footage.VideoFiles):
        raise PreparedError(f'{folder}: holds {type(opened).__name__}; only folders of video files are prepared')
    wanted: dict[str, list[VideoRecord]] = {}
    missing = []
    for record in records:
        takes = opened.catalogue.find(record)
        if not takes:
            missing.append(record.path or record.stem or record.video)
        for take in takes:
            wanted.setdefault(take.key, []).append(record)
    if not wanted:
        raise PreparedError(
            f'none of the {len(records)} videos of the annotations is in {folder}'
            f'{" (first: " + ", ".join(missing[: prepared.SHOWN]) + ")" if missing else ""}; check --videos'
        )
    videos = []
    for path in sorted(wanted, key=_in_walk):
        try:
            size = os.stat(os.path.join(folder, path)).st_size
        except OSError:
            size = 0  # a link to nowhere is listed as failed when its turn comes
        videos.append((path, size, tuple(wanted[path])))
    return Plan(folder, options, _deal(videos, options), tuple(dict.fromkeys(missing)))


def _in_walk(path: str) -> tuple[tuple[bool, str], ...]:
    """Sorts paths as a walk over folders meets them: the files of a folder, then what is in its folders."""
    *folders, file = path.split('/')
    return (*((True, folder) for folder in folders), (False, file))


def _deal(videos: list, options: Options) -> tuple[Part, ...]:
    total = sum(size for _, size, _ in videos) + len(videos)
    count = min(len(videos), max(PARTS, -(-total // (options.file_mb << 20))))
    groups: dict[int, list] = {}
    before = 0
    for entry in videos:
        groups.setdefault(before * count // total, []).append(entry)
        before += entry[1] + 1
    return tuple(Part(number, tuple(group)) for number, group in enumerate(groups.values()))


def begin(out: str | os.PathLike, wanted: Plan) -> None:
    """Writes the plan into the folder of the set, or checks that the one there is the same.

    Raises PreparedError that names the difference, or for a folder that holds something else.
    """
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    described, listed = _described(wanted)
    if not (out / prepared.PLAN).exists():
        # Another machine may be writing the same plan just now.
        ours = (prepared.PLAN, VIDEOS, 'parts')
        strange = sorted(path.name for path in out.iterdir() if not path.name.startswith(ours))
        if strange:
            raise PreparedError(f'{out}: holds {", ".join(strange[: prepared.SHOWN])}; name a new or empty folder')
        write_text(out / VIDEOS, listed)
        write_text(out / prepared.PLAN, json.dumps(described, indent=1))
    if not (out / prepared.MANIFEST).exists():
        (out / 'parts').mkdir(exist_ok=True)
    before = json.loads((out / prepared.PLAN).read_text(encoding='utf-8'))
    differences = [
        f'{name}: {before["options"].get(name)} before, {value} now'
        for name, value in described['options'].items()
        if before['options'].get(name) != value
    ]
    if before['list'] != described['list']:
        differences.append(_list_difference(out / VIDEOS, listed, before, described))
    elif before['annotations'] != described['annotations']:
        differences.append('the annotations of the same videos differ')
    if differences:
        raise PreparedError(
            f'{out}: was begun with something else: {"; ".join(differences)}. '
            'Use the same again, or another --out; what is there cannot be mixed'
        )


def _described(wanted: Plan) -> tuple[dict, str]:
    """(the plan for JSON, the list of its videos as text)."""
    lines, annotations = [], hashlib.sha256()
    for part in wanted.parts:
        for path, size, records in part.videos:
            lines.append(json.dumps([path, size]))
            annotations.update(repr(records).encode('utf-8', 'surrogateescape'))
    listed = '\n'.join(lines) + '\n'
    described = {
        'kind': prepared.KIND,
        'format_version': prepared.FORMAT_VERSION,
        'parts': len(wanted.parts),
        'videos': wanted.videos,
        'bytes': wanted.size,
        'options': dataclasses.asdict(wanted.options),
        'list': hashlib.sha256(listed.encode()).hexdigest(),
        'annotations': annotations.hexdigest(),
        'missing': list(wanted.missing),
    }
    return described, listed


def _list_difference(path: pathlib.Path, listed: str, before: dict, now: dict) -> str:
    counts = f'{before["videos"]} videos of {before["bytes"]} bytes before, {now["videos"]} of {now["bytes"]} now'
    if not path.exists():
        return counts
    old = dict(map(json.loads, path.read_text(encoding='utf-8').splitlines()))
    new = dict(map(json.loads, listed.splitlines()))
    changed = [
        f'{name} ({old.get(name, "not there")} -> {new.get(name, "not there")})'
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    more = f' and {len(changed) - prepared.SHOWN} more' if len(changed) > prepared.SHOWN else ''
    return f'{counts}: {", ".join(changed[: prepared.SHOWN])}{more}'


def write(
    out: str | os.PathLike,
    wanted: Plan,
    *,
    workers: int = 1,
    machine: int = 1,
    machines: int = 1,
    seen: Callable[[int], None] = lambda size: None,
) -> dict | None:
    """Writes the parts of this machine, then joins all if all are there; returns the manifest, or None.

    workers: processes. machine: from 1 to machines; each writes every so-many-th part. seen: called with the size of
    each video that is done. Raises PreparedError, or OSError where the set cannot be written.
    """
    begin(out, wanted)
    if not pathlib.Path(out, prepared.MANIFEST).exists():
        mine = [part for part in wanted.parts if part.number % machines == machine - 1]
        if workers == 1:
            for part in mine:
                write_part(out, wanted.source, part, wanted.options, machines, seen)
        else:
            _write_parallel(out, wanted, mine, min(workers, max(1, len(mine))), machines, seen)
    else:
        seen(wanted.size)
    if len(prepared.parts_done(out)) < len(wanted.parts) and not pathlib.Path(out, prepared.MANIFEST).exists():
        return None
    return join(out)


_progress = None


def _connect(progress) -> None:
    global _progress
    _progress = progress
    # Ctrl-C reaches these processes too: they end at once, and their parts are made again.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _write_one(out: str, source: str, part: Part, options: Options, machines: int) -> None:
    write_part(out, source, part, options, machines, _progress.put)


def _write_parallel(out, wanted: Plan, mine: list[Part], workers: int, machines: int, seen) -> None:
    context = multiprocessing.get_context('spawn')
    progress = context.Queue()
    with concurrent.futures.ProcessPoolExecutor(workers, context, _connect, (progress,)) as pool:
        arguments = (os.fspath(out), wanted.source)
        # Large parts first, so that none is left over for one process at the end.
        ordered = sorted(mine, key=lambda part: -part.size)
        running = {pool.submit(_write_one, *arguments, part, wanted.options, machines) for part in ordered}
        try:
            while running:
                with contextlib.suppress(queue.Empty):
                    while True:
                        seen(progress.get(timeout=0.1))
                done = {future for future in running if future.done()}
                for future in done:
                    future.result()
                running -= done
            with contextlib.suppress(queue.Empty):
                while True:
                    seen(progress.get_nowait())
        except concurrent.futures.process.BrokenProcessPool as error:
            raise PreparedError(
                f'{out}: a process died, perhaps for want of memory; start again with fewer --workers or a smaller '
                '--file_mb, finished parts are kept'
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def join(out: str | os.PathLike) -> dict:
    """Makes one set of finished parts and returns its manifest; nothing is left to do if that is there.

    Can be stopped and started again at any point. Raises PreparedError: parts are missing (which).
    """
    out = pathlib.Path(out)
    if (out / prepared.MANIFEST).exists():
        return prepared.read_manifest(out)
    if not (out / prepared.PLAN).exists():
        raise PreparedError(prepared.unfinished(out))
    with alone(out / '.lock'):
        if (out / prepared.MANIFEST).exists():
            return prepared.read_manifest(out)
        described = json.loads((out / prepared.PLAN).read_text(encoding='utf-8'))
        notes = prepared.parts_done(out)
        if any(number not in notes for number in range(described['parts'])):
            raise PreparedError(prepared.unfinished(out))
        manifest = _manifest(out, described, [notes[number] for number in range(described['parts'])])
        write_text(out / prepared.MANIFEST, json.dumps(manifest, indent=1))
    shutil.rmtree(out / 'parts')
    return manifest


def _manifest(out: pathlib.Path, described: dict, notes: list[dict]) -> dict:
    """Renames the files, writes the table and what tfds wants to know: all but the manifest."""
    parts = out / 'parts'
    files = [file for note in notes for file in note['files']]
    if not files:
        first = notes[0]['failed'][0]
        raise PreparedError(f'{out}: none of the videos can be prepared; the first: {first["name"]}: {first["reason"]}')
    for number, file in enumerate(files):
        name = video_set.file_name(number, len(files))
        if (parts / file['name']).exists():  # else it was renamed before a stop
            os.replace(parts / file['name'], out / name)
        elif not (out / name).exists():
            raise PreparedError(f'{parts / file["name"]}: is missing; copy it from the machine that wrote it')
        file['name'] = name
    tables = [VideoTable.unpacked(parts / f'{number:05d}.npz') for number in range(len(notes))]
    counts = [len(note['files']) for note in notes]
    table = VideoTable.joined(tables, [sum(counts[:number]) for number in range(len(counts))])
    index = out / prepared.INDEX
    shutil.rmtree(index, ignore_errors=True)
    index.mkdir()
    table.save(index)
    video_set.write_description(out, [file['records'] for file in files], sum(file['bytes'] for file in files))
    failed = [each for note in notes for each in note['failed']]
    kept_whole = [each for note in notes for each in note['kept_whole']]
    used = {tuple(sorted(note['versions'].items())) for note in notes}
    return {
        'kind': prepared.KIND,
        'format_version': prepared.FORMAT_VERSION,
        'counts': {
            'videos': len(table),
            'frames': int(table.columns['frames'].sum()),
            'records': sum(file['records'] for file in files),
            'cut_into_chunks': sum(len(table.pieces(row)) > 1 for row in range(len(table))),
            'long_but_kept_whole': len(kept_whole),
            'resampled': int(table.columns['resampled'].sum()),
            'failed': len(failed),
            'missing': len(described['missing']),
        },
        'source_bytes': int(table.columns['size'].sum()),
        'bytes': sum(file['bytes'] for file in files),
        'options': described['options'],
        'same_as_files': described['options']['transcode'] is None,
        'annotations': described['annotations'],
        'list': described['list'],
        'versions': [dict(each) for each in sorted(used)],
        'failed': failed,
        'kept_whole': kept_whole,
        'missing': described['missing'],
        'files': files,
        'index': [
            {'name': f'{prepared.INDEX}/{path.name}', 'bytes': path.stat().st_size, 'sha256': prepared.sha256(path)}
            for path in sorted(index.iterdir())
        ],
    }
