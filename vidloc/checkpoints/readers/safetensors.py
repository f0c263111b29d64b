"""Safetensors files. Format: github.com/huggingface/safetensors, README; its rules are checked as strictly there.

A file is the length of a header (8 bytes), the header (JSON: name, dtype, shape and place of each tensor) and the
tensors, one after another without gaps.
"""

import functools
import json
import os
import pathlib
import struct
from typing import Any, NoReturn

import numpy as np

from vidloc.checkpoints.readers import weights
from vidloc.checkpoints.readers.weights import AGAIN, Entry, ReadError

HEADER = 100_000_000  # bytes; the format's own limit
_NAMES = {
    'BOOL': 'bool', 'I8': 'int8', 'U8': 'uint8', 'I16': 'int16', 'U16': 'uint16', 'I32': 'int32', 'U32': 'uint32',
    'I64': 'int64', 'U64': 'uint64', 'F16': 'float16', 'BF16': 'bfloat16', 'F32': 'float32', 'F64': 'float64',
    'C64': 'complex64', 'F8_E4M3': 'float8_e4m3fn', 'F8_E5M2': 'float8_e5m2', 'F8_E8M0': 'float8_e8m0fnu',
    'F8_E4M3FNUZ': 'float8_e4m3fnuz', 'F8_E5M2FNUZ': 'float8_e5m2fnuz',
}  # fmt: skip
DTYPES = {code: dtype for code, name in _NAMES.items() if (dtype := weights.named_dtype(name)) is not None}


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Entry], dict[str, Any]]:
    """({name: Entry}, the file's own notes `__metadata__`) of one file; raises ReadError."""
    path = pathlib.Path(path)
    header, start, size = _header(path)
    extras = header.pop('__metadata__', {})
    if not isinstance(extras, dict):
        _damaged(path, 'its __metadata__ is no table')
    entries: dict[str, Entry] = {}
    ranges: list[tuple[int, int, str]] = []
    for name, item in header.items():
        try:
            shape, dtype, (begin, end) = _tensor(item)
        except ValueError as error:
            _damaged(path, f'{name!r}: {error}')
        ranges.append((begin, end, name))
        entries[name] = Entry(shape, dtype, functools.partial(weights.read_block, path, start + begin, shape, dtype))
    _check_ranges(path, ranges, size - start)
    return entries, dict(extras)


def _damaged(path: pathlib.Path, wrong: str) -> NoReturn:
    raise ReadError(path, f'it is a damaged safetensors file: {wrong}', AGAIN)


def _header(path: pathlib.Path) -> tuple[dict[str, Any], int, int]:
    """(the header, where the tensors begin, bytes of the file)"""
    try:
        size = path.stat().st_size
        with path.open('rb') as file:
            first = file.read(8)
            if len(first) < 8:
                _damaged(path, f'it has {size} bytes')
            (length,) = struct.unpack('<Q', first)
            if length > HEADER:
                _damaged(path, f'its header of {length} bytes is longer than the format allows ({HEADER})')
            if 8 + length > size:
                _damaged(path, f'its header takes {length} bytes and the file ends after {size}')
            text = file.read(length)
    except OSError as error:
        raise weights.unreadable(path, error) from error
    try:
        header = json.loads(text, object_pairs_hook=_table)
    except (ValueError, RecursionError) as error:
        _damaged(path, f'its header is not the JSON it should be ({error})')
    if not isinstance(header, dict):
        _damaged(path, 'its header is no table')
    return header, 8 + length, size


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'{twice!r} stands in it twice')
    return table


def _tensor(item: Any) -> tuple[tuple[int, ...], np.dtype, tuple[int, int]]:
    """(shape, dtype, (first byte, end)) of one tensor in the header; raises ValueError."""
    if not isinstance(item, dict) or set(item) != {'dtype', 'shape', 'data_offsets'}:
        raise ValueError('it is not described by dtype, shape and data_offsets')
    code, offsets = item['dtype'], item['data_offsets']
    if not isinstance(code, str) or code not in DTYPES:
        raise ValueError(f'its dtype {code!r} is none of {", ".join(DTYPES)}')
    shape = weights.checked_shape(item['shape'], DTYPES[code])
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(offset) is int for offset in offsets):
        raise ValueError(f'its data_offsets {offsets!r} are no pair of numbers')
    begin, end = offsets
    wanted = weights.nbytes(shape, DTYPES[code])
    if begin < 0 or end - begin != wanted:
        raise ValueError(f'{code} {list(shape)} takes {wanted} bytes and data_offsets say {begin} to {end}')
    return shape, DTYPES[code], (begin, end)


def _check_ranges(path: pathlib.Path, ranges: list[tuple[int, int, str]], available: int) -> None:
    """Raises unless the tensors cover the rest of the file, each byte once."""
    reached, before = 0, 'the header'
    for begin, end, name in sorted(ranges):
        if begin < reached:
            _damaged(path, f'{name!r} and {before!r} lie over each other')
        if begin > reached:
            _damaged(path, f'{begin - reached} bytes before {name!r} belong to no tensor')
        reached, before = end, name
    if reached > available:
        _damaged(path, f'{reached - available} of {reached} bytes of tensors are missing at its end')
    if reached < available:
        _damaged(path, f'{available - reached} bytes at its end belong to no tensor')
