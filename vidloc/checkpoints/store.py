"""Checkpoints of a run on disk: written by orbax, committed by one rename, verified when read.

Imports nothing of ours, so that anything may use it: a state is any pytree of arrays, known by its leaves'
names (path keys joined by '/'), and turning one run form into another is a function that the caller passes
in.

A step's folder holds `state` (the arrays), `about` (format, fingerprint and metrics), `manifest.json` (size and
checksum of every file, written before the commit) and `figures.json` (metrics that were found later). Reading
checks the manifest and falls back to the step before if a checkpoint is damaged, naming it; a writer then puts
the damaged one aside, never deletes it. Frozen parameters are not in there but once beside it (checkpoints/frozen.py).
"""

import dataclasses
import json
import logging
import math
import os
import pathlib
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

FORMAT = 1
_MANIFEST = 'manifest.json'
_FIGURES = 'figures.json'
_UNLISTED = (_MANIFEST, '_CHECKPOINT_METADATA')  # orbax writes the second one again after the commit
Flat = Mapping[str, Any]
Convert = Callable[[Flat, Flat], dict[str, Any]]


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, found, read or used; the text names it and says why."""


class _Damaged(Exception):
    """One checkpoint cannot be used, but an earlier one may."""


@dataclasses.dataclass(frozen=True)
class Policy:
    """Which checkpoints stay: the last `keep`, those at multiples of `every` (0: none), and the best one.

    best: name of the metric that decides, as given to save(); None: no best. larger_is_better: how.
    """

    keep: int = 2
    every: int = 0
    best: str | None = None
    larger_is_better: bool = True


class Store:
    """The checkpoints in one directory, which is made at the first save.

    fingerprint: that of the run's frozen part (None: all is trained); checkpoints name it, and one that names
    another is refused. read_only: never renames or writes (evaluation beside a running training).
    With several processes every one makes a Store and calls the same methods; process 0 writes the small
    files.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        policy: Policy = Policy(),
        *,
        fingerprint: str | None = None,
        read_only: bool = False,
    ):
        if '://' in str(directory):
            raise CheckpointError(f'{directory} is no path on this machine: mount the bucket and give its folder')
        self._directory = pathlib.Path(directory).absolute()
        self._policy = policy
        self._fingerprint = fingerprint
        self._read_only = read_only
        self._manager: Any = None
        self._saving: int | None = None

    # Writing.

    def save(self, step: int, state: Any, metrics: Mapping[str, float] | None = None) -> bool:
        """Starts to write a checkpoint and returns once the arrays are copied; False if this step is there
        already, with metrics or without any to add: metrics are added to a checkpoint that has none.

        metrics: finite ones are kept; the checkpoint can be the best only if the policy's metric is among
        them. Raises CheckpointError if this save, or the one before it, failed.
        """
        import orbax.checkpoint as ocp

        if self._read_only:
            raise CheckpointError(f'{self._directory} was opened for reading')
        try:
            manager = self._writer()
            manager.wait_until_finished()
            kept = {name: float(value) for name, value in (metrics or {}).items() if math.isfinite(value)}
            if step in self.steps():
                if not kept or self.metrics(step):
                    return False
                if jax.process_index() == 0:
                    write_json(self._directory / str(step) / _FIGURES, kept)
                _barrier('figures_added')
                return True
            self._saving = step
            manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(_nest(flatten(state))),
                    about=ocp.args.JsonSave(
                        {'format': FORMAT, 'step': step, 'fingerprint': self._fingerprint, 'metrics': kept}
                    ),
                ),
                force=True,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(self._failed(step, error)) from error
        return True

    def wait(self) -> None:
        """Returns when the last save is committed; raises CheckpointError if it failed."""
        if self._manager is not None:
            try:
                self._manager.wait_until_finished()
            except (OSError, ValueError, RuntimeError) as error:
                raise CheckpointError(self._failed(self._saving, error)) from error

    def close(self) -> None:
        """wait(), then lets go of threads."""
        self.wait()
        if self._manager is not None:
            self._manager.close()
            self._manager = None

    def __enter__(self) -> 'Store':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _failed(self, step: int | None, error: Exception) -> str:
        return (
            f'checkpoint {step} in {self._directory} could not be written: {error}. Earlier checkpoints are '
            f'untouched ({_listed(self.steps())}); make room or mend the disk and start the same command again'
        )

    def _writer(self) -> Any:
        if self._manager is None:
            import orbax.checkpoint as ocp
            from orbax.checkpoint import checkpoint_managers as policies

            if jax.process_index() == 0:
                self._directory.mkdir(parents=True, exist_ok=True)
                # A damaged one must not take the place of one that is kept.
                for step in self.steps():
                    if problem := self._problem(step, thorough=False):
                        self._put_aside(step, problem)
            _barrier('checkpoints_checked')
            keep: list[Any] = [policies.LatestN(n=self._policy.keep)]
            if self._policy.every:
                keep.append(policies.EveryNSteps(interval_steps=self._policy.every))
            if self._policy.best:
                keep.append(_Best(self))
            self._manager = ocp.CheckpointManager(
                self._directory,
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=policies.AnyPreservationPolicy(keep),
                    cleanup_tmp_directories=True,
                    enable_async_checkpointing=True,
                    async_options=ocp.AsyncOptions(post_finalization_callback=self._write_manifest),
                ),
            )
        return self._manager

    def _write_manifest(self) -> None:
        """Called by orbax when all files are written and the folder does not have its final name yet."""
        if jax.process_index() == 0:
            for folder in self._directory.glob(f'{self._saving}.orbax-checkpoint-tmp*'):
                files = {name: _checksum(folder / name) for name in _files(folder)}
                write_json(folder / _MANIFEST, files)

    # Finding.

    def steps(self) -> list[int]:
        """Steps with a committed checkpoint, ascending; damaged ones included."""
        if not self._directory.is_dir():
            return []
        return sorted(int(entry.name) for entry in self._directory.iterdir() if re.fullmatch(r'\d+', entry.name))

    def metrics(self, step: int) -> dict[str, float]:
        """What save() was given with this step ({} if nothing, or if it cannot be read)."""
        try:
            added = self._directory / str(step) / _FIGURES
            return json.loads(added.read_text()) if added.exists() else self._about(step)['metrics']
        except (_Damaged, OSError, ValueError):
            return {}

    def latest(self) -> int | None:
        """The newest step, None if there is none."""
        return max(self.steps(), default=None)

    def best(self) -> int | None:
        """The step with the best value of the policy's metric (the earliest of equals), None if there is none."""
        values = {step: self.metrics(step).get(self._policy.best or '') for step in self.steps()}
        sign = 1 if self._policy.larger_is_better else -1
        found = [step for step, value in values.items() if value is not None]
        return max(found, key=lambda step: (sign * values[step], -step), default=None)

    def select(self, which: str | int) -> int:
        """'latest', 'best' or a step -> a step that is there; CheckpointError with what there is, if not."""
        steps = self.steps()
        if not steps:
            raise CheckpointError(f'no checkpoint in {self._directory}: train first, or check the path')
        if which == 'latest':
            return steps[-1]
        if which == 'best':
            best = self.best()
            if best is None:
                raise CheckpointError(
                    f'no checkpoint in {self._directory} carries the metric {self._policy.best!r}, so none is the '
                    f'best: ask for latest, or for one of {_listed(steps)}'
                )
            return best
        if not str(which).isdecimal() or int(which) not in steps:
            raise CheckpointError(
                f'no checkpoint {which!r} in {self._directory}: ask for latest, best, or one of {_listed(steps)}'
            )
        return int(which)

    # Reading.

    def restore(
        self, target: Any, step: int | None = None, *, convert: Convert | None = None, partial: bool = False
    ) -> tuple[Any, int]:
        """(state shaped like target, its step), from `step` or else from the newest checkpoint that is
        usable.

        target: a pytree of jax.ShapeDtypeStruct; with a sharding a leaf comes back on that mesh, without as
        NumPy. convert(stored, wanted) -> {name: array}: brings the host arrays of another run form into the
        wanted one; tried when names or shapes differ. partial: the target may hold fewer leaves than the
        checkpoint. Without `step`, checkpoints that cannot be used are named in a warning and, once an
        earlier one was read, put aside (unless read_only). Raises CheckpointError if none can be used, with
        the reason for each; or if the fingerprint of the frozen part differs, which no earlier checkpoint
        would mend.
        """
        self.wait()
        asked = [self.select('latest' if step is None else step)]
        candidates = [i for i in reversed(self.steps()) if i <= asked[0]] if step is None else asked
        problems: dict[int, str] = {}
        for candidate in candidates:
            try:
                if problem := _agreed(lambda candidate=candidate: self._problem(candidate, thorough=True)):
                    raise _Damaged(problem)
                state = self._read(candidate, target, convert, partial)
            except _Damaged as error:
                problems[candidate] = str(error)
                continue
            for bad, problem in problems.items():
                logging.warning('checkpoint %d in %s is not used: %s', bad, self._directory, problem)
                if not self._read_only and jax.process_index() == 0:
                    self._put_aside(bad, problem)
            _barrier('checkpoints_put_aside')
            if problems and self._manager is not None:
                self._manager.reload()
            return state, candidate
        reasons = ''.join(f'\n  {bad}: {problem}' for bad, problem in problems.items())
        raise CheckpointError(f'no checkpoint in {self._directory} can be used:{reasons}')

    def _problem(self, step: int, *, thorough: bool) -> str:
        """What is wrong with a checkpoint's files, '' if nothing. thorough: checksums too, else sizes alone."""
        folder = self._directory / str(step)
        try:
            listed = json.loads((folder / _MANIFEST).read_text())
            for name, (size, checksum) in sorted(listed.items()):
                path = folder / name
                if not path.is_file():
                    return f'{name} is missing'
                if path.stat().st_size != size:
                    return f'{name} has {path.stat().st_size} bytes, it was written with {size}'
                if thorough and _checksum(path)[1] != checksum:
                    return f'{name} was changed after it was written (its checksum differs)'
        except (OSError, ValueError, TypeError, AttributeError) as error:
            return f'its list of files ({_MANIFEST}) cannot be read: {error}'
        return ''

    def _about(self, step: int) -> dict[str, Any]:
        try:
            about = json.loads((self._directory / str(step) / 'about' / 'metadata').read_text())
            return {key: about[key] for key in ('format', 'fingerprint', 'metrics')}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _Damaged(f'its description (about/metadata) cannot be read: {error}') from error

    def _put_aside(self, step: int, problem: str) -> None:
        name = f'damaged_{step}'
        while (self._directory / name).exists():
            name += '_again'
        (self._directory / str(step)).rename(self._directory / name)
        logging.warning('checkpoint %d was renamed to %s: %s', step, self._directory / name, problem)

    def _read(self, step: int, target: Any, convert: Convert | None, partial: bool) -> Any:
        import orbax.checkpoint as ocp

        folder, about = self._directory / str(step), self._about(step)
        if about['format'] > FORMAT:
            raise _Damaged(f'it is of format {about["format"]}, newer than this version of vidloc ({FORMAT}) reads')
        if about['fingerprint'] != self._fingerprint:
            raise CheckpointError(
                f'checkpoint {folder} was trained on another frozen part (fingerprint {about["fingerprint"]}) than '
                f'the one of this run ({self._fingerprint}): use the workdir it was made in, with its frozen file'
            )
        wanted = flatten(target)
        reader = ocp.PyTreeCheckpointHandler()
        try:
            metadata = reader.metadata(folder / 'state').tree
            stored = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in flatten(metadata).items()}
            if not _differences(stored, wanted, partial):
                return _unflatten(target, _load(reader, folder / 'state', wanted))
            if convert is not None:
                found = convert(_load(reader, folder / 'state', stored), wanted)
                if not _differences(found, wanted, partial):
                    return _unflatten(target, {name: _place(found[name], leaf) for name, leaf in wanted.items()})
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise _Damaged(f'it cannot be read: {error}') from error
        finally:
            reader.close()
        raise _Damaged('it does not fit this run:\n    ' + '\n    '.join(_differences(stored, wanted, partial)))


def flatten(tree: Any) -> dict[str, Any]:
    """{name: leaf}; a name is the keys, fields and indices on the way to the leaf, joined by '/'."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf for path, leaf in leaves}


def _unflatten(target: Any, flat: Flat) -> Any:
    return jax.tree.unflatten(jax.tree.structure(target), [flat[name] for name in flatten(target)])


def _nest(flat: Flat) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, leaf in flat.items():
        *folders, last = name.split('/')
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = leaf
    return tree


def _load(reader: Any, folder: pathlib.Path, wanted: Flat) -> dict[str, Any]:
    import orbax.checkpoint as ocp

    tree = _nest(wanted)
    arguments = ocp.checkpoint_utils.construct_restore_args(tree)
    found = reader.restore(folder, args=ocp.args.PyTreeRestore(tree, restore_args=arguments, partial_restore=True))
    return flatten(found)


def _place(value: Any, leaf: Any) -> Any:
    value = np.asarray(value, leaf.dtype)
    if leaf.sharding is None:
        return value
    return jax.make_array_from_callback(value.shape, leaf.sharding, lambda index: value[index])


def _differences(stored: Flat, wanted: Flat, partial: bool) -> list[str]:
    found = [f'{name} is not in the checkpoint' for name in sorted(wanted.keys() - stored.keys())]
    if not partial:
        found += [f'{name} is only in the checkpoint' for name in sorted(stored.keys() - wanted.keys())]
    for name in sorted(stored.keys() & wanted.keys()):
        theirs, ours = stored[name], wanted[name]
        if tuple(theirs.shape) != tuple(ours.shape) or theirs.dtype != ours.dtype:
            found.append(
                f'{name} is {theirs.dtype}{list(theirs.shape)} there and {ours.dtype}{list(ours.shape)} in this run'
            )
    return found


@dataclasses.dataclass(frozen=True)
class _Best:
    """orbax's preservation policy that keeps store.best(); orbax's own takes figures only when a step is saved."""

    store: Store

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        best = self.store.best()
        return [checkpoint.step == best for checkpoint in checkpoints]


def _files(folder: pathlib.Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob('*')
        if path.is_file() and path.name not in _UNLISTED
    )


def _checksum(path: pathlib.Path) -> tuple[int, int]:
    """(size in bytes, CRC-32)"""
    size = value = 0
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            size, value = size + len(block), zlib.crc32(block, value)
    return size, value


def _agreed(look: Callable[[], str]) -> str:
    """What process 0 sees, on every process."""
    if jax.process_count() == 1:
        return look()
    from jax.experimental import multihost_utils

    text = np.zeros(512, np.uint8)
    if jax.process_index() == 0:
        seen = look().encode()[: text.size]
        text[: len(seen)] = np.frombuffer(seen, np.uint8)
    return bytes(multihost_utils.broadcast_one_to_all(text)).rstrip(b'\0').decode(errors='replace')


def _barrier(name: str) -> None:
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def _listed(steps: list[int]) -> str:
    return ', '.join(map(str, steps)) if steps else 'there are none'


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes JSON atomically."""
    write_atomically(pathlib.Path(path), [(json.dumps(value, indent=1, sort_keys=True) + '\n').encode()])


def write_atomically(path: pathlib.Path, blocks: Iterable[Any]) -> None:
    """Writes blocks of bytes so that the file is either whole or as it was: temporary name, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        with temporary.open('wb') as file:
            for block in blocks:
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
