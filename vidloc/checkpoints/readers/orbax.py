"""Folders written by orbax, read through tensorstore alone (orbax itself needs jax).

An item of a checkpoint is a folder with `_METADATA`: JSON that names its leaves and says how they are stored, as
zarr or zarr3 arrays, in folders or in an OCDBT database; texts lie in `_strings.json`. A step's folder holds items
(`default`, or as the writer named them), a manager's folder holds steps, named by number. As orbax 0.5 to 0.12
writes them; checkpoints of vidloc's own runs are steps with the item `state`.
"""

import dataclasses
import functools
import json
import os
import pathlib
import re
from typing import Any

import numpy as np

from vidloc.checkpoints.readers import weights
from vidloc.checkpoints.readers.weights import Entry, ReadError

METADATA = '_METADATA'
JSON = 1 << 28  # bytes of a description that are read
SMALL = 1 << 20  # bytes of a JSON item that is kept among the extras
_AGAIN = 'Copy the folder again, whole'
_FAILURES = (ValueError, TypeError, AttributeError, RuntimeError, OSError, NotImplementedError)
_STEP = re.compile(r'\d+')


def is_checkpoint(path: pathlib.Path) -> bool:
    """Whether a folder is an item, a step or a manager's folder of steps, by the files that orbax writes."""
    return bool((path / METADATA).is_file() or _items(path) or _steps(path))


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Entry], dict[str, Any]]:
    """({name: Entry}, extras) of an item, of a step, or of the newest step; raises ReadError.

    Names are the keys on the way to a leaf, joined by '/'; the item's name goes first if a step has several items
    with arrays. extras: Python's numbers and texts among the leaves, JSON items under their names, and `chosen` if
    a step was chosen out of several.
    """
    path = pathlib.Path(path)
    if '.orbax-checkpoint-tmp' in path.name:
        raise ReadError(path, 'writing this checkpoint never came to its end', 'Name an earlier one')
    try:
        if (path / METADATA).is_file():
            return _item(path)
        if items := _items(path):
            return _step(path, items)
        steps = _steps(path)
        if not steps:
            raise ReadError(path, 'it is no checkpoint of orbax', f'Name a folder that holds {METADATA} or steps')
        newest = path / str(max(steps))
        entries, extras = _step(newest, _items(newest))
        if len(steps) > 1:
            listed = ', '.join(map(str, sorted(steps)))
            extras['chosen'] = f'step {newest.name}, the newest of {listed}; another one is opened by its own folder'
        return entries, extras
    except OSError as error:
        raise weights.unreadable(path, error) from error


def _items(path: pathlib.Path) -> list[pathlib.Path]:
    """Folders of a step that hold arrays."""
    return sorted(metadata.parent for metadata in path.glob(f'*/{METADATA}'))


def _steps(path: pathlib.Path) -> list[int]:
    if not path.is_dir():
        return []
    return [int(entry.name) for entry in path.iterdir() if _STEP.fullmatch(entry.name) and _items(entry)]


def _step(path: pathlib.Path, items: list[pathlib.Path]) -> tuple[dict[str, Entry], dict[str, Any]]:
    entries: dict[str, Entry] = {}
    extras: dict[str, Any] = {}
    for item in items:
        prefix = f'{item.name}/' if len(items) > 1 else ''
        found, plain = _item(item)
        entries |= {prefix + name: entry for name, entry in found.items()}
        extras |= {prefix + name: value for name, value in plain.items()}
    for file in sorted(path.glob('*/metadata')):
        if file.stat().st_size <= SMALL:
            extras.setdefault(file.parent.name, _json(file))
    return entries, extras


def _json(path: pathlib.Path) -> Any:
    try:
        if path.stat().st_size > JSON:
            raise ValueError(f'it is longer than {JSON} bytes')
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ReadError(path, f'it is no JSON of orbax ({error})', _AGAIN) from error


def _item(path: pathlib.Path) -> tuple[dict[str, Entry], dict[str, Any]]:
    metadata = _json(path / METADATA)
    try:
        leaves = [leaf for item in metadata['tree_metadata'].values() if (leaf := _leaf(item))]
        stored = _Stored(
            path,
            'zarr3' if metadata.get('use_zarr3', False) else 'zarr',
            # Descriptions older than this flag: a database is known by its manifest.
            bool(metadata.get('use_ocdbt', (path / 'manifest.ocdbt').is_file())),
            bool(metadata.get('store_array_data_equal_to_fill_value', False)),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ReadError(path / METADATA, f'its leaves are not described as orbax does ({error})', _AGAIN) from error
    keys_of = {'/'.join(keys): '.'.join(keys) for keys, _ in leaves}
    if len(keys_of) < len(leaves):
        raise ReadError(path / METADATA, 'two of its leaves have one name', _AGAIN)
    kinds = {'/'.join(keys): kind for keys, kind in leaves}
    extras: dict[str, Any] = {}
    if texts := [name for name, kind in kinds.items() if kind == 'string']:
        known = _json(path / '_strings.json')
        if not isinstance(known, dict) or not all(keys_of[name] in known for name in texts):
            raise ReadError(path / '_strings.json', 'texts of the checkpoint are missing in it', _AGAIN)
        extras = {name: known[keys_of[name]] for name in texts}
    entries = stored.entries({name: key for name, key in keys_of.items() if name not in extras})
    for name in [name for name, entry in entries.items() if kinds[name] == 'scalar' and not entry.shape]:
        extras[name] = entries.pop(name).read().item()
    return entries, extras


def _leaf(item: Any) -> tuple[tuple[str, ...], str] | None:
    """(keys, kind) of a leaf in the description, None for one without a value; raises if it is not understood."""
    keys = tuple(str(part['key']) for part in item['key_metadata'])
    kind = item['value_metadata']['value_type']
    if not keys or not isinstance(kind, str):
        raise ValueError('a leaf has no name')
    if any(part in ('', '.', '..') for key in keys for part in key.split('/')):
        raise ValueError(f'{keys} is no name')
    return None if item['value_metadata'].get('skip_deserialize', kind == 'None') else (keys, kind)


@dataclasses.dataclass(frozen=True)
class _Stored:
    """How the arrays of an item are stored."""

    path: pathlib.Path
    driver: str
    database: bool  # in an OCDBT database, else in folders
    complete: bool  # every block was written; else one that is missing is filled with zeros

    def entries(self, keys: dict[str, str]) -> dict[str, Entry]:
        """{name: Entry} for {name: key in the store}."""
        futures = {name: self._open(key) for name, key in keys.items()}
        entries = {}
        for name, future in futures.items():
            try:
                store = future.result()
                dtype = np.dtype(store.dtype.numpy_dtype)
                shape = weights.checked_shape(list(store.shape), dtype)
            except _FAILURES as error:
                raise self._unreadable(name, error) from error
            entries[name] = Entry(shape, dtype, functools.partial(self.read, name, keys[name], shape, dtype))
        return entries

    def read(self, name: str, key: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        import tensorstore

        try:
            # Unlike in other formats no length of a file bounds what a damaged description asks for.
            array = np.empty(shape, dtype)
            tensorstore.array(array).write(self._open(key).result()).result()
        except (*_FAILURES, MemoryError) as error:
            raise self._unreadable(name, error) from error
        return array

    def _open(self, key: str) -> Any:
        """A future of the array, without any cache."""
        try:
            import tensorstore
        except ImportError as error:
            raise ReadError(
                self.path, 'it is a checkpoint of orbax, which takes tensorstore to read', 'pip install tensorstore'
            ) from error
        folder = f'{self.path.absolute()}/'
        if self.database:
            place = {'driver': 'ocdbt', 'base': {'driver': 'file', 'path': folder}, 'path': f'{key}/'}
        else:
            place = {'driver': 'file', 'path': f'{folder}{key}/'}
        spec = {'driver': self.driver, 'kvstore': place, 'fill_missing_data_reads': not self.complete}
        return tensorstore.open(spec, open=True, read=True)

    def _unreadable(self, name: str, error: Exception) -> ReadError:
        # tensorstore adds its whole specification in brackets.
        text = str(error).split(' [', 1)[0]
        return ReadError(self.path, f'{name!r} in this checkpoint of orbax cannot be read: {text}', _AGAIN)
