"""Makes a MocapStreet directory: videos, their truth in the formats that users bring, and what was made."""

import collections
import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import os
import pathlib
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np

from vidloc.annotations import activitynet, ava, clips, rows, table
from vidloc.annotations.records import VideoRecord
from vidloc.synthetic import card, detections, script, untrimmed
from vidloc.synthetic.collection import SETS, SIZES, SPLITS, UNTRIMMED, clip_classes, draw

# Raised whenever the same seed would give other data: the sets that are always made, and the untrimmed videos.
VERSION, UNTRIMMED_VERSION = 1, 1
MANIFEST = 'mocapstreet.json'
CRF, PRESET = 18, 'veryfast'


class MocapStreetError(ValueError):
    """The directory cannot be made as asked; the text says why and what to do."""


@dataclasses.dataclass(frozen=True)
class _Job:
    """One video: which one, and the folder of its set."""

    folder: str
    size: str
    seed: int
    name: str
    split: str
    number: int


@dataclasses.dataclass(frozen=True)
class _Made:
    """What a worker sends back: the truth, the simulated detections of a street video, the frames' sha256."""

    job: _Job
    truth: VideoRecord
    detected: VideoRecord | None
    digest: str
    frames: int


def _produce(job: _Job) -> _Made:
    """Renders and encodes one video."""
    from vidloc.data import encode

    frames, truth, detected = draw(job.size, job.seed, job.name, job.split, job.number)
    fps = SIZES[job.size].fps(job.name)
    inside = f'{job.split}/{truth.video}.mp4' if truth.path is None else truth.path
    encode.write_video(pathlib.Path(job.folder) / inside, frames, fps, crf=CRF, gop=fps, preset=PRESET)
    return _Made(job, truth, detected, hashlib.sha256(frames.tobytes()).hexdigest(), len(frames))


def _jobs(folder: pathlib.Path, size: str, seed: int, name: str) -> list[_Job]:
    """All videos of one set, into its folder."""
    return [
        _Job(str(folder), size, seed, name, split, number)
        for split, count in zip(SPLITS, SIZES[size].videos(name), strict=True)
        for number in range(count)
    ]


def _run(jobs: list[_Job], workers: int) -> Iterator[_Made]:
    """Results in the order of the jobs, whatever the number of workers."""
    if workers == 1:
        yield from map(_produce, jobs)
        return
    # Fresh interpreters: forking a process that runs threads (JAX's, say) may hang.
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            yield from pool.map(_produce, jobs, chunksize=8)
        except BrokenProcessPool:
            raise MocapStreetError(
                'a rendering process was killed (out of memory?); try again with fewer --workers.'
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _shown(results: Iterator[_Made], total: int, what: str) -> Iterator[_Made]:
    """Passes results on and reports progress: a bar on a terminal, else a line for each tenth."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(results, total=total, desc=what, unit='video', smoothing=0.1)
        return
    for done, result in enumerate(results, start=1):
        yield result
        if done * 10 // total > (done - 1) * 10 // total:
            print(f'{what}: {done}/{total} videos', file=sys.stderr, flush=True)


def _write_street(folder: pathlib.Path, made: list[_Made]) -> None:
    label_map = dict(enumerate(script.STREET_CLASSES, start=1))
    ava.write_label_map(folder / 'action_list.pbtxt', label_map)
    for split in SPLITS:
        truths = [one.truth for one in made if one.job.split == split]
        ava.write_ava(folder / f'ava_{split}.csv', truths, label_map)
        found = [one.detected for one in made if one.job.split == split]
        ava.write_detections(folder / f'detections_{split}.csv', found, label_map)
        table.write_table(folder / f'table_{split}.csv', truths)
    activitynet.write_activitynet(folder / 'segments.json', [one.truth for one in made])


def _write_clips(folder: pathlib.Path, name: str, made: list[_Made]) -> None:
    classes = clip_classes(name)
    clips.write_class_list(folder / 'classes.txt', classes)
    for split in SPLITS:
        clips.write_clips(folder / f'{split}.txt', [one.truth for one in made if one.job.split == split], classes)


def _write_untrimmed(folder: pathlib.Path, made: list[_Made]) -> None:
    clips.write_class_list(folder / 'classes.txt', tuple(untrimmed.CLASSES))
    activitynet.write_activitynet(folder / 'annotations.json', [one.truth for one in made])


def detection_quality(made: list[tuple[VideoRecord, VideoRecord]]) -> dict[str, float]:
    """Recall and precision at an overlap of a half, one detection a person, of (truth, detections) pairs."""
    people = guesses = right = 0
    for truth, detected in made:
        people += len(truth.boxes)
        guesses += len(detected.boxes)
        for time in truth.keyframes:
            left = [person for person in truth.boxes if person.time == time]
            for guess in sorted((b for b in detected.boxes if b.time == time), key=lambda b: -b.score):
                best = max(left, key=lambda person: detections.overlap(person.box, guess.box), default=None)
                if best is not None and detections.overlap(best.box, guess.box) > 0.5:
                    left.remove(best)
                    right += 1
    return {'recall': round(right / max(people, 1), 4), 'precision': round(right / max(guesses, 1), 4)}


def _manifest(size: str, seed: int, made: list[_Made]) -> dict:
    import av

    counts = {name: dict.fromkeys(SPLITS, 0) for name in SETS}
    digests = {name: {split: hashlib.sha256() for split in SPLITS} for name in SETS}
    boxes, labels = collections.Counter(), collections.Counter()
    for one in made:
        counts[one.job.name][one.job.split] += 1
        digests[one.job.name][one.job.split].update(bytes.fromhex(one.digest))
        if one.job.name == 'street':
            boxes[one.job.split] += len(one.truth.boxes)
            if one.job.split == 'train':
                labels.update(label for person in one.truth.boxes for label in person.labels)
    pairs = [(one.truth, one.detected) for one in made if one.job.name == 'street' and one.job.split == 'val']
    return {
        'version': VERSION,
        'size': size,
        'seed': seed,
        'counts': {f'{name} videos': counts[name] for name in SETS}
        | {'street boxes': {split: boxes[split] for split in SPLITS}},
        'frames': sum(one.frames for one in made),
        'street': dataclasses.asdict(SIZES[size].street),
        'clips': dataclasses.asdict(SIZES[size].clip),
        'classes': {'street': list(script.STREET_CLASSES)} | {name: list(clip_classes(name)) for name in SETS[1:]},
        'label_shares': {
            label: round(labels[label] / max(boxes['train'], 1), 4)
            for label in sorted(script.STREET_CLASSES, key=lambda label: -labels[label])
        },
        'detections': detection_quality(pairs),
        'libraries': {
            'python': platform.python_version(),
            'numpy': np.__version__,
            'av': av.__version__,
        },
        'sha256_frames': {name: {split: digests[name][split].hexdigest() for split in SPLITS} for name in SETS},
    }


def _untrimmed_manifest(size: str, made: list[_Made]) -> dict:
    """What the manifest says of the untrimmed videos, under a key of their own."""
    counts, seconds = collections.Counter(), collections.Counter()
    labels = {split: collections.Counter() for split in SPLITS}
    digests = {split: hashlib.sha256() for split in SPLITS}
    for one in made:
        split = one.job.split
        counts[split] += 1
        seconds[split] += one.truth.duration
        labels[split].update(segment.label for segment in one.truth.segments)
        digests[split].update(bytes.fromhex(one.digest))
    return {
        'version': UNTRIMMED_VERSION,
        'stage': dataclasses.asdict(SIZES[size].long),
        'videos': {split: counts[split] for split in SPLITS},
        'seconds': {split: seconds[split] for split in SPLITS},
        'segments': {label: {split: labels[split][label] for split in SPLITS} for label in untrimmed.CLASSES},
        'sha256_frames': {split: digests[split].hexdigest() for split in SPLITS},
    }


def _describe(root: pathlib.Path, manifest: Mapping[str, Any]) -> None:
    """Writes the card and, last, the manifest, by which a directory is known."""
    rows.write_text(root / 'README.md', card.text(manifest))
    rows.write_text(root / MANIFEST, json.dumps(manifest, indent=1) + '\n')


def _cores() -> int:
    # Not every system can tell which cores this process may use.
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def _found(out: pathlib.Path, size: str, seed: int, *, long: bool, force: bool) -> dict | None:
    """The manifest of `out` if it holds what is asked for, but perhaps for the untrimmed videos (`long`).

    Raises if something else is there that must not be replaced.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not out.is_dir():
        raise MocapStreetError(f'{out} is a file; name a directory that does not exist yet.')
    try:
        manifest = json.loads((out / MANIFEST).read_text(encoding='utf-8'))
        there = (manifest['size'], manifest['seed'], manifest['version'])
        version = manifest[UNTRIMMED]['version'] if UNTRIMMED in manifest else None
    except (OSError, ValueError, KeyError, TypeError):
        raise MocapStreetError(
            f'{out} exists and is no MocapStreet directory ({MANIFEST} is missing or unreadable), so it is left alone; '
            'name another directory or remove it yourself.'
        ) from None
    if force and version is not None and not long:
        raise MocapStreetError(
            f'{out} holds untrimmed videos too, which would be lost: add --untrimmed to make them again with the rest.'
        )
    if force:
        return None
    if there != (size, seed, VERSION):
        raise MocapStreetError(
            f'{out} holds size {there[0]}, seed {there[1]}, version {there[2]}, but size {size}, seed {seed}, version '
            f'{VERSION} was asked for; name another directory, or replace it with --force.'
        )
    if long and version is None and (out / UNTRIMMED).exists():
        raise MocapStreetError(
            f'{out / UNTRIMMED} exists, but {MANIFEST} does not know it, so it is left alone; remove it yourself, or '
            'make everything again with --force.'
        )
    if long and version not in (None, UNTRIMMED_VERSION):
        raise MocapStreetError(
            f'{out} holds untrimmed videos of version {version}, but version {UNTRIMMED_VERSION} was asked for; name '
            'another directory, or make everything again with --force.'
        )
    return manifest


@contextlib.contextmanager
def _beside(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """A new directory beside `out` that becomes `out` at the end, or vanishes if anything goes wrong."""
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = pathlib.Path(tempfile.mkdtemp(prefix=f'.{out.name}.', suffix='.partial', dir=out.parent))
    try:
        # Not `scratch` itself: only its owner may enter that.
        new, old = scratch / 'new', scratch / 'old'
        new.mkdir()
        yield new
        if out.exists():
            os.replace(out, old)
        os.replace(new, out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _make_untrimmed(folder: pathlib.Path, size: str, seed: int, workers: int) -> dict:
    """Fills the folder of the untrimmed videos; returns what the manifest says of them."""
    for split in SPLITS:
        (folder / split).mkdir()
    jobs = _jobs(folder, size, seed, UNTRIMMED)
    made = list(_shown(_run(jobs, workers), len(jobs), f'MocapStreet {size}, untrimmed'))
    _write_untrimmed(folder, made)
    return _untrimmed_manifest(size, made)


def make(
    out: pathlib.Path, size: str, seed: int, workers: int | None = None, *, long: bool = False, force: bool = False
) -> pathlib.Path:
    """Makes the MocapStreet directory `out` and returns it; one that is there already and complete is reused.

    The directory gets its name only when it is complete. The videos do not depend on the number of workers.

    Args:
      out: the directory; its parents are made.
      size: a key of SIZES.
      seed: of everything random, 0 or above.
      workers: processes; None takes one a core of this process (one for size tiny, which is over before they start).
      long: the untrimmed videos too; they are added to a directory that has the rest, which stays as it is.
      force: make it again even if it is there; only a MocapStreet directory is ever replaced.

    Raises:
      MocapStreetError: unknown size, bad seed or workers, `out` holds something else, or a worker was killed.
    """
    out = pathlib.Path(os.path.abspath(out))
    if size not in SIZES:
        raise MocapStreetError(f'size {size!r} is unknown; choose one of {", ".join(SIZES)}.')
    if long and SIZES[size].long is None:
        has = ', '.join(name for name, each in SIZES.items() if each.long)
        raise MocapStreetError(f'size {size} has no untrimmed videos; choose one of {has}.')
    if seed < 0:
        raise MocapStreetError(f'seed {seed} is negative; seeds count from 0.')
    if workers is not None and workers < 1:
        raise MocapStreetError(f'{workers} workers cannot work; give 1 or more.')
    manifest = _found(out, size, seed, long=long, force=force)
    if manifest is not None and (UNTRIMMED in manifest or not long):
        print(f'{out}: size {size}, seed {seed} is there already and is used.', file=sys.stderr)
        return out
    if workers is None:
        workers = 1 if size == 'tiny' else _cores()
    if manifest is not None:
        with _beside(out / UNTRIMMED) as folder:
            added = _make_untrimmed(folder, size, seed, workers)
        _describe(out, manifest | {UNTRIMMED: added})
        return out
    with _beside(out) as root:
        for name in SETS:
            for inside in SPLITS if name == 'street' else ('videos',):
                (root / name / inside).mkdir(parents=True)
        jobs = [job for name in SETS for job in _jobs(root / name, size, seed, name)]
        made = list(_shown(_run(jobs, workers), len(jobs), f'MocapStreet {size}'))
        _write_street(root / 'street', [one for one in made if one.job.name == 'street'])
        for name in SETS[1:]:
            _write_clips(root / name, name, [one for one in made if one.job.name == name])
        manifest = _manifest(size, seed, made)
        if long:
            (root / UNTRIMMED).mkdir()
            manifest[UNTRIMMED] = _make_untrimmed(root / UNTRIMMED, size, seed, workers)
        _describe(root, manifest)
    return out
