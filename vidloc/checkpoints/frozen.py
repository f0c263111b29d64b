"""The frozen part of a run: one file in the safetensors format, and the fingerprint that checkpoints name."""

import hashlib
import itertools
import json
import math
import os
import pathlib
import struct
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from vidloc.checkpoints import store

_SAFETENSORS = {
    'bool': 'BOOL', 'int8': 'I8', 'uint8': 'U8', 'int16': 'I16', 'uint16': 'U16', 'int32': 'I32', 'uint32': 'U32',
    'int64': 'I64', 'uint64': 'U64', 'float16': 'F16', 'bfloat16': 'BF16', 'float32': 'F32', 'float64': 'F64',
}  # fmt: skip
_DTYPES = {code: np.dtype(getattr(ml_dtypes, name, name)) for name, code in _SAFETENSORS.items()}


def fingerprint(flat: store.Flat) -> str | None:
    """SHA-256 over name, shape, dtype and bytes of each array, by name; None if there is none.

    flat: {canonical name: array}, as loaded, before any cast; so it does not depend on segments or devices.
    """
    if not flat:
        return None
    digest = hashlib.sha256()
    for name in sorted(flat):
        array = np.ascontiguousarray(flat[name])
        digest.update(json.dumps([name, list(np.shape(flat[name])), array.dtype.name]).encode() + b'\0')
        digest.update(array.reshape(-1).view(np.uint8))
    return digest.hexdigest()


def write_frozen(path: str | os.PathLike[str], flat: store.Flat) -> str | None:
    """Writes the frozen part {canonical name: array} in the safetensors format; returns its fingerprint.

    Leaves a file that is there alone if it carries the same fingerprint, and raises store.CheckpointError if
    another. With several processes only process 0 calls it. Nothing is written when there is no frozen part.
    """
    path, mark = pathlib.Path(path), fingerprint(flat)
    if mark is None:
        return None
    if path.exists():
        there = _header(path)[0].get('__metadata__', {}).get('fingerprint')
        if there != mark:
            raise store.CheckpointError(
                f'{path} holds another frozen part (fingerprint {there}) than this run loaded ({mark}): use a new '
                'workdir, or start from the weights that this one began with'
            )
        return mark
    write_safetensors(
        path,
        {name: (np.shape(flat[name]), flat[name].dtype, lambda name=name: flat[name]) for name in sorted(flat)},
        {'fingerprint': mark},
    )
    return mark


def write_safetensors(
    path: str | os.PathLike[str],
    arrays: Mapping[str, tuple[tuple[int, ...], np.dtype, Callable[[], np.ndarray]]],
    metadata: Mapping[str, str],
) -> None:
    """Writes a safetensors file, one array after the other, so that no more than one has to be in memory.

    arrays: {name: (shape, dtype, gives the array)}. The file appears when it is whole. Raises store.CheckpointError
    for types that the format does not have, and for an array that is not what was announced.
    """
    header: dict[str, Any] = {'__metadata__': dict(metadata)}
    start = 0
    for name, (shape, dtype, _) in arrays.items():
        if dtype.name not in _SAFETENSORS:
            raise store.CheckpointError(f'{name}: arrays of {dtype} cannot be written')
        end = start + math.prod(shape) * dtype.itemsize
        header[name] = {'dtype': _SAFETENSORS[dtype.name], 'shape': list(shape), 'data_offsets': [start, end]}
        start = end
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)

    def data(name: str) -> np.ndarray:
        shape, dtype, read = arrays[name]
        array = np.ascontiguousarray(read())
        if (math.prod(array.shape), array.dtype) != (math.prod(shape), dtype):
            raise store.CheckpointError(f'{name}: {array.dtype} {array.shape} in place of {dtype} {shape}')
        return array.reshape(-1).view(np.uint8)

    blocks = itertools.chain([struct.pack('<Q', len(text)), text], map(data, arrays))
    store.write_atomically(pathlib.Path(path), blocks)


def read_frozen(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], str]:
    """({canonical name: array}, fingerprint) of a file by write_frozen; raises store.CheckpointError."""
    path = pathlib.Path(path)
    header, start = _header(path)
    mark = header.pop('__metadata__', {}).get('fingerprint')
    data = np.memmap(path, np.uint8, mode='r', offset=start) if header and path.stat().st_size > start else None
    flat = {}
    try:
        for name, entry in header.items():
            a, b = entry['data_offsets']
            part = data[a:b] if data is not None else np.zeros(0, np.uint8)
            flat[name] = np.array(part).view(_DTYPES[entry['dtype']]).reshape(entry['shape'])
    except (KeyError, TypeError, ValueError) as error:
        raise store.CheckpointError(f'{path} is damaged: {error}') from error
    if mark is None or fingerprint(flat) != mark:
        raise store.CheckpointError(f'{path} is damaged: its content does not have the fingerprint it names ({mark})')
    return flat, mark


def _header(path: pathlib.Path) -> tuple[dict[str, Any], int]:
    """(the JSON header, where the data start)"""
    try:
        with path.open('rb') as file:
            (length,) = struct.unpack('<Q', file.read(8))
            if length > path.stat().st_size:
                raise ValueError('its header is longer than the file')
            header = json.loads(file.read(length))
        if not isinstance(header, dict):
            raise ValueError('its header is no table')
    except FileNotFoundError as error:
        raise store.CheckpointError(f'{path} is missing: it holds the frozen part of the model') from error
    except (OSError, ValueError, struct.error) as error:
        raise store.CheckpointError(f'{path} is damaged: {error}') from error
    return header, 8 + length
