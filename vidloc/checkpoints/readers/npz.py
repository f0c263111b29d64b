"""NumPy's .npz files: a zip archive of .npy members, whose headers are read without the data.

Nothing in such a file is ever unpickled. Weights of big_vision keep bfloat16 as plain two-byte voids ('|V2').
"""

import functools
import io
import os
import pathlib
import struct
import tokenize
import zipfile
import zlib
from typing import IO, Any

import ml_dtypes
import numpy as np

from vidloc.checkpoints.readers import weights
from vidloc.checkpoints.readers.weights import AGAIN, Entry, ReadError

MEMBERS = 100_000
HEADER = 1 << 16  # bytes of a member's header
TEXT = 1 << 16  # bytes of a text beside weights that is kept among the extras
_PIECE = 1 << 24  # bytes that are inflated at a time
_EXPANSION = 1100  # what deflate can at most make of a byte is 1032
_OTHERWISE = 'Save the file again without it, or as an array of numbers'
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, struct.error)


def read(path: str | os.PathLike[str], *, text: int = TEXT) -> tuple[dict[str, Entry], dict[str, Any]]:
    """({name: Entry}, {name: text}) of a file, members' names without '.npy'; raises ReadError.

    text: bytes that a text may have.
    """
    path = pathlib.Path(path)
    entries: dict[str, Entry] = {}
    extras: dict[str, Any] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.filename.endswith('/')]
            if len(members) > MEMBERS:
                raise ReadError(path, f'it has {len(members)} members; a model has fewer than {MEMBERS}', AGAIN)
            for member in members:
                name = member.filename.removesuffix('.npy')
                if name == member.filename:
                    raise ReadError(
                        path, f'its member {name!r} is no .npy array', 'Unpack it and name the file of weights in it'
                    )
                if name in entries or name in extras:
                    raise ReadError(path, f'{name!r} stands in it twice', AGAIN)
                try:
                    shape, stored, fortran = _described(archive, member)
                    dtype = _meaning(stored)
                except ValueError as error:
                    fix = _OTHERWISE if isinstance(error, _Unusable) else AGAIN
                    raise ReadError(path, f'{name!r}: {error}', fix) from error
                read_one = functools.partial(_read_member, path, member.filename, shape, stored, fortran)
                if dtype.kind not in 'US':
                    entries[name] = Entry(shape, dtype, read_one)
                elif weights.nbytes(shape, stored) <= text:
                    extras[name] = _text(path, name, read_one())
                else:
                    raise ReadError(path, f'{name!r} is a long text', 'Save the file again without it')
    except ReadError:
        raise
    except OSError as error:
        raise weights.unreadable(path, error) from error
    except (*_BROKEN, ValueError) as error:
        raise _damaged(path, error) from error
    return entries, extras


class _Unusable(ValueError):
    """An array that is sound, but of no numbers."""


def _damaged(path: pathlib.Path, error: Exception) -> ReadError:
    return ReadError(path, f'it is a damaged .npz file ({error or type(error).__name__})', AGAIN)


def _described(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype, bool]:
    """(shape, dtype as stored, Fortran order?) of a member, whose length is checked; raises ValueError."""
    if member.flag_bits & 1:
        raise _Unusable('it is encrypted')
    if member.file_size > _EXPANSION * max(member.compress_size, 1):
        raise ValueError(f'{member.compress_size} bytes cannot hold the {member.file_size} that it names')
    with archive.open(member) as file:
        shape, fortran, dtype = _array_header(file)
        length = file.tell()
    if dtype.hasobject:
        raise _Unusable('it is an array of Python objects, which are programs to be run and not numbers')
    shape = weights.checked_shape(shape, dtype)
    wanted = length + weights.nbytes(shape, dtype)
    if member.file_size != wanted:
        raise ValueError(f'an array {dtype} {list(shape)} takes {wanted} bytes and it has {member.file_size}')
    return shape, dtype, fortran


def _array_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, Fortran order?, dtype); the file is left where the data begin; raises ValueError."""
    first = file.read(8)
    version = tuple(first[6:8])
    if first[:6] != b'\x93NUMPY' or version not in ((1, 0), (2, 0)):
        raise ValueError(f'it does not begin as a .npy array of version 1 or 2 ({first!r})')
    size = file.read(2 if version == (1, 0) else 4)
    length = int.from_bytes(size, 'little')
    if length > HEADER:
        raise ValueError(f'its header of {length} bytes is longer than any ({HEADER})')
    whole = io.BytesIO(size + file.read(length))
    parse = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        return parse(whole)
    except (SyntaxError, TypeError, MemoryError, RecursionError, tokenize.TokenError) as error:
        raise ValueError('its header is no description of an array') from error


def _meaning(stored: np.dtype) -> np.dtype:
    """The dtype that the array is read as; raises ValueError for what is neither numbers nor text."""
    if stored == np.dtype('V2') and stored.names is None and stored.subdtype is None:
        return np.dtype(ml_dtypes.bfloat16)
    if stored.kind in 'biufcUS':
        return stored.newbyteorder('=')
    raise _Unusable(f'it is an array of {stored}, not of numbers')


def _text(path: pathlib.Path, name: str, array: np.ndarray) -> Any:
    """Text, or lists of it, of an array."""
    try:
        return array.tolist()
    except ValueError as error:
        raise ReadError(path, f'{name!r} is a damaged text ({error})', AGAIN) from error


def _read_member(
    path: pathlib.Path, member: str, shape: tuple[int, ...], stored: np.dtype, fortran: bool
) -> np.ndarray:
    """The array of a member; its checksum is verified."""
    array = np.empty(shape[::-1] if fortran else shape, _meaning(stored))
    view = weights.as_bytes(array) if array.nbytes else memoryview(b'')
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            _array_header(file)
            done = 0
            while done < len(view) and (count := file.readinto(view[done : done + _PIECE])):
                done += count
            if done < len(view) or file.read(1):
                raise EOFError(f'{member!r} has another length than when it was opened')
    except OSError as error:
        raise weights.unreadable(path, error) from error
    except (*_BROKEN, KeyError, ValueError) as error:
        raise _damaged(path, error) from error
    if not stored.isnative:
        array.byteswap(inplace=True)
    return np.array(array.T, order='C') if fortran else array
