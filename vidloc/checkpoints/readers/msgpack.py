"""Flax's msgpack files (`flax.serialization`, and `checkpoint_<step>` files of `flax.training.checkpoints`, Scenic).

The file is walked from value to value; where an array lies is written down, its data are skipped. What Flax adds
to msgpack (flax/serialization.py, "On-the-wire"): extension 1 is an array, packed as (shape, name of the dtype,
data), 2 a complex number, 3 a NumPy number (packed as an array); an array too large for msgpack is a map with the
key '__msgpack_chunked_array__', its shape and its flattened pieces. Format: github.com/msgpack/msgpack, spec.md.
"""

import dataclasses
import functools
import os
import pathlib
import struct
from typing import Any, BinaryIO

import numpy as np

from vidloc.checkpoints.readers import weights
from vidloc.checkpoints.readers.weights import AGAIN, Entry, ReadError

DEPTH = 64  # containers in containers
VALUES = 2_000_000  # values of a file
TEXT = 1 << 20  # bytes of a text
_CHUNKED = '__msgpack_chunked_array__'
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_NUMBERS = {0xCA: '>f', 0xCB: '>d', 0xCC: '>B', 0xCD: '>H', 0xCE: '>I', 0xCF: '>Q',
            0xD0: '>b', 0xD1: '>h', 0xD2: '>i', 0xD3: '>q'}  # fmt: skip
_SIZES = {0xC4: '>B', 0xC5: '>H', 0xC6: '>I', 0xC7: '>B', 0xC8: '>H', 0xC9: '>I', 0xD9: '>B', 0xDA: '>H', 0xDB: '>I',
          0xDC: '>H', 0xDD: '>I', 0xDE: '>H', 0xDF: '>I'}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Array:
    shape: tuple[int, ...]
    dtype: np.dtype
    pieces: tuple[tuple[int, int], ...]  # (where its bytes begin, how many), in order


class _Damaged(ValueError):
    """What is wrong with the bytes."""


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Entry], dict[str, Any]]:
    """({name: Entry}, {name: plain value}) of a file, keys joined by '/'; raises ReadError.

    Numbers outside arrays, Python's and NumPy's, are plain values; so are texts. None and empty maps leave no trace.
    """
    path = pathlib.Path(path)
    try:
        size = path.stat().st_size
        with path.open('rb') as file:
            walker = _Walker(file, size)
            tree = walker.value(0)
        if not isinstance(tree, dict):
            raise _Damaged(f'it holds a single {type(tree).__name__.strip("_").lower()} and not a map of arrays')
        if walker.place < size:
            raise _Damaged(f'{size - walker.place} bytes follow after its end')
        entries: dict[str, Entry] = {}
        extras: dict[str, Any] = {}
        _collect(path, tree, '', entries, extras)
    except OSError as error:
        raise weights.unreadable(path, error) from error
    except _Damaged as error:
        raise ReadError(path, f'it is no sound msgpack file of Flax: {error}', AGAIN) from error
    return entries, extras


class _Walker:
    """Reads the values of a file one after another; arrays as _Array, without their data."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size, self.place, self.values = file, size, 0, 0

    def value(self, depth: int) -> Any:
        """The next value: dict, list, _Array or plain."""
        if depth > DEPTH:
            raise _Damaged(f'more than {DEPTH} containers lie in each other')
        (kind,) = self.take(1)
        if kind < 0x80 or kind >= 0xE0:
            return kind if kind < 0x80 else kind - 0x100
        if kind < 0xA0 or 0xDC <= kind <= 0xDF:
            is_map = kind < 0x90 or kind >= 0xDE
            count = kind & 0x0F if kind < 0xA0 else self.number(_SIZES[kind])
            self.values += count
            if self.values > VALUES:
                raise _Damaged(f'it holds more than {VALUES} values')
            return self.map(count, depth + 1) if is_map else [self.value(depth + 1) for _ in range(count)]
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind])
        if kind in _CONSTANTS:
            return _CONSTANTS[kind]
        if 0xC7 <= kind <= 0xC9 or 0xD4 <= kind <= 0xD8:
            return self.extension(self.number(_SIZES[kind]) if kind < 0xD0 else 1 << (kind - 0xD4), depth + 1)
        return self.text(kind)

    def text(self, kind: int) -> str | bytes:
        length = self.text_length(kind)
        if length > TEXT:
            raise _Damaged(f'a text of {length} bytes stands at byte {self.place}')
        text = self.take(length)
        try:
            return text if 0xC4 <= kind <= 0xC6 else text.decode()
        except UnicodeDecodeError as error:
            raise _Damaged(f'the text before byte {self.place} is not in UTF-8') from error

    def text_length(self, kind: int) -> int:
        """Bytes of the text or byte string that begins with `kind`."""
        if 0xA0 <= kind < 0xC0:
            return kind & 0x1F
        if 0xC4 <= kind <= 0xC6 or 0xD9 <= kind <= 0xDB:
            return self.number(_SIZES[kind])
        raise _Damaged(f'byte {self.place - 1} ({kind:#04x}) begins no value that belongs there')

    def map(self, count: int, depth: int) -> Any:
        table: dict[str, Any] = {}
        for _ in range(count):
            key = self.value(depth)
            if not isinstance(key, str | int | bytes) or isinstance(key, bool):
                raise _Damaged(f'the key before byte {self.place} is no name')
            name = key.decode(errors='replace') if isinstance(key, bytes) else str(key)
            if name in table:
                raise _Damaged(f'{name!r} stands twice in one map')
            table[name] = self.value(depth)
        return _whole(table) if _CHUNKED in table else table

    def extension(self, length: int, depth: int) -> Any:
        code, end = self.number('>b'), self.place + length
        if code in (1, 3):
            value = self.array(depth)
            if code == 3:
                value = self.scalar(value)
        elif code == 2:
            value = self.value(depth)
            if not isinstance(value, list) or len(value) != 2 or not all(type(part) is float for part in value):
                raise _Damaged(f'the complex number before byte {self.place} is no pair of numbers')
            value = complex(*value)
        else:
            raise _Damaged(f'byte {self.place} begins an extension of type {code}, which Flax does not write')
        if self.place != end:
            raise _Damaged(f'the array before byte {self.place} has another length than it names')
        return value

    def array(self, depth: int) -> _Array:
        """The packed (shape, name of the dtype, data) of an array; the data are passed over."""
        begin = self.place
        if self.take(1) != b'\x93':
            raise _Damaged(f'the array at byte {begin} is no triple of shape, dtype and data')
        shape, name = self.value(depth), self.value(depth)
        if isinstance(name, bytes):
            name = name.decode(errors='replace')
        dtype = weights.named_dtype(name) if isinstance(name, str) else None
        if dtype is None:
            raise _Damaged(f'the array at byte {begin} is of {name!r}, not of numbers')
        (kind,) = self.take(1)
        length = self.text_length(kind)
        try:
            shape = weights.checked_shape(shape, dtype)
        except ValueError as error:
            raise _Damaged(f'the array at byte {begin}: {error}') from error
        if weights.nbytes(shape, dtype) != length:
            raise _Damaged(f'the array at byte {begin}: {dtype} {list(shape)} does not take {length} bytes')
        data = self.place
        self.expect(length)
        self.place += length
        self.file.seek(self.place)
        return _Array(shape, dtype, ((data, length),))

    def scalar(self, array: _Array) -> Any:
        """The number of an array without axes."""
        if array.shape:
            raise _Damaged(f'the number before byte {self.place} is an array')
        ((data, length),) = array.pieces
        self.file.seek(data)
        return np.frombuffer(self.file.read(length), array.dtype).item()

    def number(self, code: str) -> Any:
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def take(self, count: int) -> bytes:
        """The next bytes."""
        self.expect(count)
        self.place += count
        data = self.file.read(count)
        if len(data) < count:
            raise _Damaged('it became shorter while it was read')
        return data

    def expect(self, count: int) -> None:
        if self.place + count > self.size:
            raise _Damaged(f'it ends {self.place + count - self.size} bytes before the end of a value')


def _whole(table: dict[str, Any]) -> _Array:
    """The array whose pieces lie in a map of Flax's chunked form."""
    try:
        sizes, pieces = ([table[key][str(i)] for i in range(len(table[key]))] for key in ('shape', 'chunks'))
        if not all(isinstance(piece, _Array) and piece.dtype == pieces[0].dtype for piece in pieces):
            raise ValueError('its pieces are no arrays of one dtype')
        dtype = pieces[0].dtype
        shape = weights.checked_shape(sizes, dtype)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise _Damaged(f'an array in pieces lacks shape or pieces ({error})') from error
    places = tuple(place for piece in pieces for place in piece.pieces)
    if sum(length for _, length in places) != weights.nbytes(shape, dtype):
        raise _Damaged(f'the pieces of an array {dtype} {list(shape)} do not make up its size')
    return _Array(shape, dtype, places)


def _collect(path: pathlib.Path, value: Any, name: str, entries: dict[str, Entry], extras: dict[str, Any]) -> None:
    """Flattens a value into entries and extras under names joined by '/'."""
    if isinstance(value, list) and not any(isinstance(item, dict | list | _Array) for item in value):
        value = tuple(value)
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            _collect(path, item, f'{name}/{key}' if name else str(key), entries, extras)
    elif name in entries or name in extras:
        raise _Damaged(f'{name!r} stands in it twice')
    elif isinstance(value, _Array):
        entries[name] = Entry(value.shape, value.dtype, functools.partial(_read_array, path, value))
    elif value is not None:
        extras[name] = list(value) if isinstance(value, tuple) else value


def _read_array(path: pathlib.Path, described: _Array) -> np.ndarray:
    array = np.empty(described.shape, described.dtype)
    view, done = weights.as_bytes(array), 0
    for begin, length in described.pieces:
        weights.fill(path, begin, view[done : done + length])
        done += length
    return array
