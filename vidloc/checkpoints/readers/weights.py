"""What the readers of weight files give back: tensors that are read one at a time, and plain values beside them."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

AGAIN = 'Download or copy it again'
LONGEST = 500  # characters that are said about what is wrong
DIMENSIONS = 32  # of an array; what NumPy has taken in all its versions


class ReadError(ValueError):
    """A weight file that cannot be read: which, what is wrong and what to do."""

    def __init__(self, path: str | os.PathLike[str], wrong: str, fix: str) -> None:
        # A damaged file may be cited at any length.
        shown = wrong if len(wrong) <= LONGEST else f'{wrong[:LONGEST]} ...'
        super().__init__(f'{os.fspath(path)}: {shown}. {fix}.')


@dataclasses.dataclass(frozen=True)
class Entry:
    """A tensor of a file: known by shape and dtype, read when asked.

    read() gives a fresh C-contiguous array of its own and leaves nothing open, mapped or cached; it raises
    ReadError where the file ends or changed since it was opened.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Weights:
    """An opened file or folder of weights.

    format: 'safetensors', 'torch', 'msgpack', 'npz' or 'orbax'. entries: {name: Entry}, containers of the file
    joined by '/'. extras: small plain values that lie beside the tensors (epoch, arguments). config,
    preprocessor: config.json and (video_)preprocessor_config.json beside the file, None where there is none.
    """

    path: str
    format: str
    entries: dict[str, Entry]
    extras: dict[str, Any]
    config: dict[str, Any] | None = None
    preprocessor: dict[str, Any] | None = None


def named_dtype(name: str) -> np.dtype | None:
    """The dtype of numbers that a file calls by this name ('float32', 'bfloat16', ...); None if there is none."""
    kind = getattr(ml_dtypes, name, None)
    try:
        dtype = np.dtype(name if kind is None else kind)
    except (TypeError, ValueError):
        return None
    return dtype if dtype.kind in 'biufc' or (kind is not None and dtype.type is kind) else None


def checked_shape(shape: Any, dtype: np.dtype) -> tuple[int, ...]:
    """A shape that a file names, as a tuple; raises ValueError where NumPy could not make such an array."""
    if not isinstance(shape, list | tuple) or len(shape) > DIMENSIONS:
        raise ValueError(f'its shape is no list of at most {DIMENSIONS} sizes')
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f'its shape {list(shape)} holds something else than sizes')
    if math.prod(max(size, 1) for size in shape) * dtype.itemsize >= 1 << 62:
        raise ValueError(f'its shape {list(shape)} is larger than any memory')
    return tuple(shape)


def nbytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Bytes of an array."""
    return math.prod(shape) * dtype.itemsize


def as_bytes(array: np.ndarray) -> memoryview:
    """The bytes of a C-contiguous array, to be written into."""
    return memoryview(array.reshape(-1).view(np.uint8))


def read_block(path: pathlib.Path, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array that lies whole and in C order at `offset` of a file; raises ReadError where the file ends."""
    array = np.empty(shape, dtype)
    fill(path, offset, as_bytes(array))
    return array


def fill(path: pathlib.Path, offset: int, view: memoryview) -> None:
    """Fills `view` with the bytes at `offset` of a file; raises ReadError where the file ends."""
    done = 0
    try:
        with path.open('rb', buffering=0) as file:
            file.seek(offset)
            while done < len(view):
                count = file.readinto(view[done:])
                if not count:
                    break
                done += count
    except OSError as error:
        raise unreadable(path, error) from error
    if done < len(view):
        raise ReadError(path, f'it ends {len(view) - done} bytes before the end of a tensor (byte {offset})', AGAIN)


def unreadable(path: str | os.PathLike[str], error: OSError) -> ReadError:
    """What the operating system says about a file, as a ReadError."""
    return ReadError(path, f'it cannot be read: {error.strerror or error}', 'Check the path and the disk')
