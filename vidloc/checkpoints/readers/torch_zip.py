"""Files of torch.save: a zip archive of one pickle and one member per storage, read without torch and running nothing.

The pickle is read by plain_pickle.py with the names of torch_names.py; tensors are read one at a time, with plain reads
at their place in the file. Layout: pytorch/pytorch, torch/serialization.py (_save, _load) and
caffe2/serialize/inline_container.cc: `<archive>/data.pkl`, `<archive>/data/<key>`, `<archive>/byteorder`.
"""

import dataclasses
import functools
import math
import os
import pathlib
import stat
import struct
import sys
import zipfile
import zlib
from typing import Any, NoReturn

import numpy as np

from vidloc import plain_pickle
from vidloc.checkpoints.readers import weights
from vidloc.checkpoints.readers.torch_names import TORCH, Record, Tensor
from vidloc.checkpoints.readers.weights import AGAIN, Entry, ReadError

LARGEST_PICKLE = 32 << 20  # bytes; without the storages, a model of thousands of tensors takes one megabyte
MOST_VALUES = 1 << 23  # numbers and texts beside the tensors
BLOCK = 4 << 20  # bytes that a tensor which does not lie in order is gathered from at a time
DEPTH = plain_pickle.DEPTH
# A tensor may be larger than its storage (a stride of 0 repeats it) and a storage larger than its compressed member,
# up to this many times the file and this many bytes.
TIMES, FREE = 4, 64 << 20
_LEGACY = b'\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'  # the number near the beginning of files before torch 1.6
_RESAVE = 'torch.save(torch.load(file, map_location="cpu", weights_only=True), new_file)'
_WEIGHTS = (
    'If you trust where it is from, load it where torch is installed and save only its weights: '
    'torch.save(model.state_dict(), new_file)'
)
_CONTIGUOUS = 'Save a copy of the tensor that lies in order: tensor.clone(memory_format=torch.contiguous_format)'
_NAME = 'Check that it is the file you meant, and that it was downloaded completely'
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, struct.error, ValueError)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Entry], dict[str, Any]]:
    """({name: Entry}, {name: value}) of a file; containers joined by '/', of lists the index; raises ReadError.

    Tensors and arrays of numbers are entries. The rest is extras: a container without any tensor is one extra, whole.
    """
    archive = _opened(pathlib.Path(path))
    data = _whole(archive, archive.pickle, LARGEST_PICKLE)
    try:
        value = plain_pickle.loads(data, TORCH)
    except plain_pickle.PickleError as error:
        if error.refused:
            raise ReadError(archive.path, f'its pickle asks for {error}; nothing of it was run', _WEIGHTS) from error
        raise ReadError(archive.path, f'its data.pkl is no sound pickle: {error}', AGAIN) from error
    found = _Found(archive, min(4 * len(data), MOST_VALUES) + (1 << 16))
    found.add(value, '', 0)
    if not found.entries:
        raise ReadError(archive.path, 'it holds no tensor', 'Check that it is the file of the weights')
    return found.entries, found.extras


@dataclasses.dataclass(frozen=True)
class _Archive:
    """An archive's list of members, by name. swap: whether its numbers are in the other byte order."""

    path: pathlib.Path
    size: int
    pickle: str
    members: dict[str, zipfile.ZipInfo]
    swap: bool = False

    @property
    def root(self) -> str:
        return self.pickle.removesuffix('data.pkl')


def _opened(path: pathlib.Path) -> _Archive:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ReadError(path, 'it is no file', 'Give the file of the weights')
        with path.open('rb') as file:
            head = file.read(512)
        if not head.startswith(b'PK\x03\x04'):
            _no_archive(path, head)
        with zipfile.ZipFile(path) as opened:
            members = _members(path, status.st_size, opened.infolist())
    except OSError as error:
        raise weights.unreadable(path, error) from error
    except ReadError:
        raise
    except _BROKEN as error:
        raise ReadError(path, f'it is a zip archive that is cut off or damaged ({error})', AGAIN) from error
    archive = _Archive(path, status.st_size, _pickle_name(path, members), members)
    order = archive.root + 'byteorder'
    named = _whole(archive, order, 64) if order in members else b'little'
    if named not in (b'little', b'big'):
        raise ReadError(path, f'its byte order is {named!r:.40}, neither little nor big', AGAIN)
    return dataclasses.replace(archive, swap=named.decode() != sys.byteorder)


def _no_archive(path: pathlib.Path, head: bytes) -> NoReturn:
    if not head:
        raise ReadError(path, 'it is empty', AGAIN)
    if _LEGACY in head or head[257:262] == b'ustar':
        wrong = 'it is in the format of torch before 1.6, which is no zip archive'
        raise ReadError(path, wrong, f'Convert it where torch is installed: {_RESAVE}')
    if head.startswith(b'\x80'):
        raise ReadError(path, 'it is a pickle that torch.save did not write', _WEIGHTS)
    raise ReadError(path, f'it is no file of torch.save; it begins with {head[:16]!r}', _NAME)


def _members(path: pathlib.Path, size: int, listed: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for member in listed:
        name = member.filename
        if name.startswith(('/', '\\')) or '..' in name.replace('\\', '/').split('/'):
            raise ReadError(path, f'its member {name!r:.80} leads out of the archive', AGAIN)
        if name in members:
            raise ReadError(path, f'its member {name!r:.80} stands in it twice', AGAIN)
        if member.flag_bits & 1:
            raise ReadError(path, f'its member {name!r:.80} is encrypted', 'Decrypt it')
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ReadError(path, f'its member {name!r:.80} is compressed in a rare way', f'Save it again: {_RESAVE}')
        stored = member.compress_type == zipfile.ZIP_STORED
        if member.file_size > (member.compress_size if stored else TIMES * size + FREE):
            wrong = f'its member {name!r:.80} claims {member.file_size} bytes, far more than there are'
            raise ReadError(path, wrong, AGAIN)
        members[name] = member
    return members


def _pickle_name(path: pathlib.Path, members: dict[str, zipfile.ZipInfo]) -> str:
    """The name of the one data.pkl, in the archive's single folder."""
    found = [name for name in members if name.rpartition('/')[2] == 'data.pkl' and name.count('/') <= 1]
    if len(found) > 1:
        raise ReadError(path, f'it has two pickles, {found[0]!r:.80} and {found[1]!r:.80}', AGAIN)
    if any(name.split('/')[1:2] in (['code'], ['constants.pkl']) for name in members):
        wrong = 'it is a TorchScript archive, which holds a program'
        fix = 'Where torch is installed: torch.save(torch.jit.load(file, map_location="cpu").state_dict(), new_file)'
        raise ReadError(path, wrong, fix)
    if not found:
        shown = ', '.join(sorted(members)[:3])
        raise ReadError(path, f'it has no data.pkl as files of torch.save have (but {shown[:200]})', _NAME)
    return found[0]


def _start(archive: _Archive, name: str) -> int:
    """Where in the file the data of a member begin that is not compressed."""
    member = archive.members[name]
    at = member.header_offset
    if not 0 <= at <= archive.size - 30:
        raise ReadError(archive.path, f'it ends before its member {name!r:.80}', AGAIN)
    header = weights.read_block(archive.path, at, (30,), np.dtype(np.uint8)).tobytes()
    if header[:4] != b'PK\x03\x04':
        raise ReadError(archive.path, f'its member {name!r:.80} does not begin where its list says', AGAIN)
    at += 30 + sum(struct.unpack('<HH', header[26:]))
    if at + member.file_size > archive.size:
        raise ReadError(archive.path, f'it ends within its member {name!r:.80}', AGAIN)
    return at


def _whole(archive: _Archive, name: str, most: int) -> bytes:
    """The bytes of a member. The checksum is not looked at where torch does not compress: it may be left out there."""
    member = archive.members[name]
    if member.file_size > most:
        wrong = f'its member {name!r:.80} has {member.file_size} bytes; more than {most} are no description of weights'
        raise ReadError(archive.path, wrong, _WEIGHTS)
    if member.compress_type != zipfile.ZIP_STORED:
        return _inflated(archive.path, name, member.file_size)
    start = _start(archive, name)
    return weights.read_block(archive.path, start, (member.file_size,), np.dtype(np.uint8)).tobytes()


def _inflated(path: pathlib.Path, name: str, size: int) -> bytes:
    try:
        with zipfile.ZipFile(path) as opened, opened.open(name) as file:
            data = file.read(size + 1)
    except OSError as error:
        raise weights.unreadable(path, error) from error
    except (*_BROKEN, KeyError) as error:
        raise ReadError(path, f'its member {name!r:.80} is damaged ({error})', AGAIN) from error
    if len(data) != size:
        raise ReadError(path, f'its member {name!r:.80} has another length than its list says', AGAIN)
    return data


class _Found:
    """The tensors and the plain values of a tree. left: how many values and letters of names are still allowed.

    A pickle of a kilobyte can name one list in another so often that its parts cannot be counted.
    """

    def __init__(self, archive: _Archive, left: int):
        self.archive, self.left = archive, left
        self.entries: dict[str, Entry] = {}
        self.extras: dict[str, Any] = {}
        self.known: dict[int, bool] = {}
        self.starts: dict[str, int] = {}

    def add(self, value: Any, name: str, depth: int) -> None:
        self.spend(1 + len(name), depth)
        if isinstance(value, dict | list | tuple) and self.holds_tensors(value, depth):
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                self.add(item, f'{name}/{key}' if depth else str(key), depth + 1)
            return
        name = name if depth else 'tensor'
        if name in self.entries or name in self.extras:
            raise ReadError(self.archive.path, f'two of its values are called {name!r:.200}', 'Rename one of them')
        if isinstance(value, Tensor):
            self.entries[name] = self.entry(name, value)
        elif isinstance(value, np.ndarray):
            self.entries[name] = Entry(value.shape, value.dtype, lambda: np.array(value, order='C'))
        else:
            self.extras[name] = self.plain(value, depth)

    def spend(self, count: int, depth: int) -> None:
        self.left -= count
        if self.left < 0 or depth > DEPTH:
            raise ReadError(
                self.archive.path,
                'it holds millions of values beside its tensors, or containers without an end',
                _WEIGHTS,
            )

    def holds_tensors(self, value: Any, depth: int) -> bool:
        self.spend(0, depth)
        if isinstance(value, Tensor | np.ndarray):
            return True
        if not isinstance(value, dict | list | tuple) or isinstance(value, Record):
            return False
        if id(value) not in self.known:
            self.known[id(value)] = False  # for a container that holds itself
            items = value.values() if isinstance(value, dict) else value
            self.known[id(value)] = any(self.holds_tensors(item, depth + 1) for item in items)
        return self.known[id(value)]

    def plain(self, value: Any, depth: int) -> Any:
        """A copy of nothing but dicts, lists, tuples, texts and numbers; a tensor among settings is only named."""
        self.spend(1, depth)
        if isinstance(value, dict):
            return {key: self.plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.plain(item, depth + 1) for item in value)
        return 'tensor' if isinstance(value, Tensor | np.ndarray) else value

    def entry(self, name: str, tensor: Tensor) -> Entry:
        """The tensor, once it is known to lie inside its storage."""

        def wrong(what: str, fix: str = AGAIN) -> ReadError:
            return ReadError(self.archive.path, f'{name!r:.200}: {what}', fix)

        dtype, size = tensor.dtype, self.archive.size
        try:
            shape = weights.checked_shape(tensor.shape, dtype)
        except ValueError as error:
            raise wrong(str(error)) from error
        if math.prod(max(length, 1) for length in shape) * dtype.itemsize > TIMES * size + FREE:
            raise wrong(f'its shape {list(shape)} is far larger than the file of {size} bytes', _CONTIGUOUS)
        member = f'{self.archive.root}data/{tensor.storage.key}'
        if member not in self.archive.members:
            raise wrong(f'its data, the member {member!r:.80}, are missing')
        there = self.archive.members[member].file_size
        if there != tensor.storage.nbytes:
            raise wrong(f'its storage has {tensor.storage.nbytes} bytes, but the member {member!r:.80} has {there}')
        strides = _still(shape, tensor.strides)
        last, count = tensor.offset + _span(shape, strides) - 1, there // dtype.itemsize
        if 0 not in shape and last >= count:
            raise wrong(f'it reaches to the element {last} of a storage that has {count}')
        if 0 not in shape and _overlaps(shape, strides):
            raise wrong('its elements overlap in the storage', _CONTIGUOUS)
        stored = self.archive.members[member].compress_type == zipfile.ZIP_STORED
        if member not in self.starts:
            self.starts[member] = _start(self.archive, member) if stored else 0
        start = self.starts[member] + tensor.offset * dtype.itemsize
        place = _Place(self.archive.path, start, shape, strides, dtype, self.archive.swap)
        return Entry(shape, dtype, place.read if stored else functools.partial(place.read_compressed, member, there))


def _span(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Elements of the storage from the first to the last of a view, both counted."""
    return 1 + sum(stride * (size - 1) for size, stride in zip(shape, strides, strict=True))


def _overlaps(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether one axis steps into what another one reaches; axes with the stride 0, which repeat, do not count."""
    reach = 0
    for stride, size in sorted(zip(strides, shape, strict=True)):
        if 0 < stride <= reach:
            return True
        reach += stride * (size - 1)
    return False


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where and how a tensor lies. start: its first byte, in the file or in its compressed member; strides in elements.

    swap: whether it is in the other byte order.
    """

    path: pathlib.Path
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype
    swap: bool

    def read(self) -> np.ndarray:
        """A fresh array in C order, in this machine's byte order."""
        array = np.empty(self.shape, self.dtype)
        if array.size and _in_order(self.shape, self.strides):
            weights.fill(self.path, self.start, weights.as_bytes(array))
        elif array.size:
            self.gather(array, self.start, self.strides)
        return self.plain(array)

    def read_compressed(self, member: str, size: int) -> np.ndarray:
        """The same from a member of `size` bytes that has to be expanded whole."""
        array = np.empty(self.shape, self.dtype)
        storage = memoryview(_inflated(self.path, member, size))
        if array.size:
            array[...] = _strided(storage[self.start :], self.shape, self.strides, self.dtype)
        return self.plain(array)

    def gather(self, target: np.ndarray, start: int, strides: tuple[int, ...]) -> None:
        """Fills `target` from a storage in which it does not lie in order, halving it until few bytes are needed."""
        span = _span(target.shape, strides)
        if span * target.itemsize <= BLOCK:
            part = weights.read_block(self.path, start, (span * target.itemsize,), np.dtype(np.uint8))
            target[...] = _strided(part, target.shape, strides, self.dtype)
            return
        axis = int(np.argmax(strides))
        half = target.shape[axis] // 2
        first, second = np.split(target, [half], axis)
        self.gather(first, start, _still(first.shape, strides))
        self.gather(second, start + half * strides[axis] * target.itemsize, _still(second.shape, strides))

    def plain(self, array: np.ndarray) -> np.ndarray:
        """The array that was filled with bytes as they are, made this machine's numbers in place."""
        if self.swap:
            unit = self.dtype.itemsize // 2 if self.dtype.kind == 'c' else self.dtype.itemsize
            array.reshape(-1).view(f'u{unit}').byteswap(inplace=True)
        if self.dtype == np.bool_:  # a byte that another program wrote may be any number
            np.not_equal(array.view(np.uint8), 0, out=array)
        return array


def _strided(part: Any, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A view of bytes; NumPy checks that it lies inside."""
    return np.ndarray(shape, dtype, part, strides=tuple(stride * dtype.itemsize for stride in strides))


def _still(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...]:
    """The strides without those of axes that have one place."""
    return tuple(stride if size > 1 else 0 for size, stride in zip(shape, strides, strict=True))


def _in_order(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether a view lies in C order without gaps."""
    step = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size > 1 and stride != step:
            return False
        step *= size
    return True
