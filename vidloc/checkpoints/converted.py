"""Weights that were imported once and written down in our own form, which opens at once.

A folder holds `params_000`, `params_001`, ...: orbax checkpoints of the parameters under their canonical names, one
entry a layer, each of so many parameters that writing them needs little memory. `imported.json` says what they are
(family, sizes, preprocessing, labels), where they are from, and the shape and checksum of each parameter, which reading
checks: orbax itself takes a block that is missing for zeros.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import os
import pathlib
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from vidloc.checkpoints import families, key_maps
from vidloc.checkpoints.readers import orbax, shards
from vidloc.checkpoints.readers.weights import Entry, ReadError, Weights

FORMAT = 1
ABOUT = 'imported.json'
PARAMS = 'params_{:03d}'
GROUP = 1 << 28  # bytes of parameters that are written at a time
_AGAIN = 'Import the weights again (tools/import_checkpoint.py)'
_MAY_BE_NONE = ('backbone', 'head', 'labels')


@dataclasses.dataclass(frozen=True)
class Canonical(key_maps.Layout):
    """The layout of our own folders: arrays have the names of the parameters.

    initialised: parameters for which the imported weights had nothing.
    """

    initialised: tuple[str, ...] = ()

    def bind(self, canonical: str) -> tuple[key_maps.Rule, ...]:
        return (key_maps.Rule(canonical, canonical),)

    def leaves(self, source: str) -> tuple[key_maps.Rule, ...]:
        return (key_maps.Rule(source, source),)


def is_converted(path: str | os.PathLike[str]) -> bool:
    """Whether a folder was made by `write`."""
    return (pathlib.Path(path) / ABOUT).is_file()


def check_free(out: str | os.PathLike[str]) -> None:
    """Raises FileExistsError if there is something where a folder is to be written."""
    out = pathlib.Path(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise FileExistsError(f'{out} is there already: name a new folder, or remove it first')


def write(
    out: str | os.PathLike[str],
    fill: Mapping[str, Callable[[], np.ndarray]],
    found: families.Found,
    *,
    source: str,
    counts: Mapping[str, int],
    initialised: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Writes the parameters {canonical name: reads it}; returns what stands in imported.json.

    found: with the backbone that the parameters are of. source: path of the imported file or folder. counts: of the
    import's table. initialised: parameters that are not there because the source had nothing for them.
    `out` gets its name when everything is written. Raises FileExistsError if it is there and not empty, OSError.
    """
    from vidloc.checkpoints import store

    check_free(out)
    out = pathlib.Path(out).absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f'{out.name}.writing-{os.getpid()}')
    try:
        temporary.mkdir()
        parameters, fingerprint = _write_groups(temporary, fill)
        about = {
            'format': FORMAT,
            'family': found.family,
            'layout': found.layout.name,
            'backbone': found.backbone,
            'head': found.head,
            'labels': found.labels,
            'preprocessing': found.preprocessing and dataclasses.asdict(found.preprocessing),
            'notes': found.notes,
            'source': {'name': pathlib.Path(source).name, 'sha256': _digests(pathlib.Path(source))},
            'table': dict(counts),
            'initialised': initialised,
            'fingerprint': fingerprint,
            'parameters': parameters,
        }
        store.write_json(temporary / ABOUT, about)
        if out.exists():
            out.rmdir()
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return about


def read(
    path: str | os.PathLike[str], *, which: str = '', overrides: Mapping[str, Any] | None = None
) -> tuple[Weights, families.Found]:
    """Opens a folder by `write`, without reading the parameters; raises ReadError.

    which, overrides: must be empty. What they say was settled when the weights were imported.
    """
    path = pathlib.Path(path)
    if which or overrides:
        given = ' and '.join([*(['which'] if which else []), *(overrides or {})])
        raise ReadError(
            path, f'it was imported before, and {given} cannot be chosen any more', f'{_AGAIN} to change it'
        )
    about = describe(path)
    listed, entries = about['parameters'], {}
    for folder in sorted(path.glob(PARAMS.replace('{:03d}', '*'))):
        entries |= orbax.read(folder)[0]
    if differing := sorted(entries.keys() ^ listed.keys()):
        raise ReadError(path, f'{ABOUT} does not list the parameters that are there ({differing[0]})', _AGAIN)
    checked = {}
    for name, (shape, mark) in listed.items():
        if entries[name].shape != tuple(shape):
            raise ReadError(path, f'{name} has the shape {entries[name].shape}, it was written with {shape}', _AGAIN)
        reading = functools.partial(_read, path, name, entries[name], mark)
        checked[name] = dataclasses.replace(entries[name], read=reading)
    preprocessing = _plain(about['preprocessing'])
    layout = Canonical(about['layout'], about['family'], (), (), initialised=tuple(about['initialised']))
    found = families.Found(
        family=about['family'],
        layout=layout,
        prefix='',
        names={name: name for name in listed},
        backbone=_plain(about['backbone']),
        head=_plain(about['head']),
        labels=None if about['labels'] is None else tuple(about['labels']),
        preprocessing=preprocessing and families.Preprocessing(**preprocessing),
        notes=(f'imported from {about["source"]["name"]}', *about['notes']),
    )
    return Weights(str(path), 'orbax', checked, {}), found


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What stands in imported.json; raises ReadError."""
    path = pathlib.Path(path)
    try:
        about = json.loads((path / ABOUT).read_text(encoding='utf-8'))
        if about['format'] > FORMAT:
            raise ReadError(path, f'it is of format {about["format"]}, newer than this vidloc ({FORMAT})', _AGAIN)
        fields = {field.name for field in dataclasses.fields(families.Preprocessing)}
        prepared = about['preprocessing']
        whole = (prepared is None or prepared.keys() == fields) and isinstance(about['source']['name'], str)
        whole = whole and all(len(item) == 2 for item in about['parameters'].values())
        missing = {'family', 'layout', 'notes', 'table', 'initialised', 'fingerprint', *_MAY_BE_NONE} - about.keys()
        if missing or not whole:
            raise ValueError(f'it lacks {", ".join(sorted(missing)) or "fields"}')
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, ReadError):
            raise
        raise ReadError(path / ABOUT, f'it is damaged ({error})', _AGAIN) from error
    return about


def _write_groups(
    folder: pathlib.Path, fill: Mapping[str, Callable[[], np.ndarray]]
) -> tuple[dict[str, list[Any]], str]:
    """Writes the parameters, a group at a time -> ({name: [shape, checksum]}, fingerprint).

    The fingerprint is the SHA-256 over name, shape and SHA-256 of the bytes of each parameter, by name.
    """
    parameters: dict[str, list[Any]] = {}
    digests: dict[str, str] = {}
    group: dict[str, np.ndarray] = {}
    count = 0
    for i, (name, read) in enumerate(fill.items()):
        array = group[name] = np.array(read(), np.float32, order='C')  # its own: no view of something larger
        parameters[name] = [list(array.shape), _checksum(array)]
        digests[name] = hashlib.sha256(array.reshape(-1).view(np.uint8)).hexdigest()
        if i + 1 == len(fill) or sum(each.nbytes for each in group.values()) > GROUP:
            _save(folder / PARAMS.format(count), group)
            group, count = {}, count + 1
    described = [[name, parameters[name][0], digests[name]] for name in sorted(parameters)]
    return parameters, hashlib.sha256(json.dumps(described).encode()).hexdigest()


def _save(folder: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    import orbax.checkpoint as ocp

    # Folders of arrays and no database, which would be merged from copies of the whole.
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False)) as checkpointer, _only_errors():
        checkpointer.save(folder, args=ocp.args.PyTreeSave(_nested(arrays)))


@contextlib.contextmanager
def _only_errors() -> Iterator[None]:
    """Without orbax's warning that there is no database to merge."""
    logger = logging.getLogger('absl')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _read(path: pathlib.Path, name: str, entry: Entry, mark: int) -> np.ndarray:
    array = entry.read()
    if _checksum(array) != mark:
        raise ReadError(path, f'{name} is not what was written (its checksum differs)', _AGAIN)
    return array


def _checksum(array: np.ndarray) -> int:
    """CRC-32 of the bytes."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def _digests(path: pathlib.Path) -> str | dict[str, str]:
    """SHA-256 of the file; of each file of a folder or of an index, by name."""
    if path.is_dir():
        files = {file.relative_to(path).as_posix(): file for file in sorted(path.rglob('*')) if file.is_file()}
    elif path.name.endswith('.index.json'):
        parts = sorted(set(shards.files(path).values()))
        files = {path.name: path} | {name: path.parent / name for name in parts}
    else:
        return _digest(path)
    return {name: _digest(file) for name, file in files.items()}


def _digest(path: pathlib.Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _nested(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, array in flat.items():
        *folders, last = name.split('/')
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = array
    return tree


def _plain(value: Any) -> Any:
    """JSON's lists to tuples, as they were."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return tuple(_plain(inner) for inner in value) if isinstance(value, list) else value
