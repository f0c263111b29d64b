"""Pre-extracted features: one .npy or .npz file a video, and what a folder says about its files.

ActionFormer's layout is `<prefix><video><suffix>.npy` with [T, D], or `.npz` with that array under a key ('feats').
tools/extract_features.py writes `.npz` with `last` [t, D] and `layers` [K, t, D], and features.json beside them.
"""

import dataclasses
import json
import os
import pathlib
import struct
import zipfile
from typing import Any

import numpy as np

from vidloc.annotations import rows
from vidloc.data.container import VideoError

SUFFIXES = ('.npy', '.npz')
DESCRIPTION = 'features.json'
LARGEST = 1e9  # of its numbers
LAST, LAYERS = 'last', 'layers'


@dataclasses.dataclass(frozen=True)
class Description:
    """What features.json says; 0 or '', and a negative span, is not said.

    stride, span: source frames from one vector to the next, and that one looks at; rate: source frames a second (0:
    each video's own). mode: 'window', or 'resize' where the vectors lie evenly over the whole video. width: numbers of
    a vector. layers: cached layers.
    """

    stride: float = 0.0
    span: float = -1.0
    rate: float = 0.0
    mode: str = ''
    width: int = 0
    layers: int = 0


def describe(folder: str | os.PathLike) -> Description | None:
    """What the folder says about its features; None if it says nothing. Raises ValueError for nonsense."""
    path = pathlib.Path(folder, DESCRIPTION)
    if not path.exists():
        return None
    try:
        said = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise ValueError(f'{path}: cannot be read ({error}); extract the features again') from error
    if not isinstance(said, dict):
        raise ValueError(f'{path}: is no object; extract the features again')
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Description):
        value = said.get(field.name)
        if value is None:
            continue
        text = field.type is str
        if isinstance(value, bool) or not isinstance(value, str if text else int | float):
            raise ValueError(f'{path}: {field.name} is {value!r}; extract the features again')
        if not text and not 0 <= value < LARGEST:
            raise ValueError(f'{path}: {field.name} is {value!r}; extract the features again')
        values[field.name] = value
    return Description(**values)


class FeatureFiles:
    """The feature files of one folder, by name; `key` is the array's name in .npz files."""

    def __init__(self, folder: str, prefix: str = '', suffix: str = '', key: str = 'feats'):
        self.folder, self.prefix, self.suffix, self.key = os.fspath(folder), prefix, suffix, key

    def find(self, video: str) -> str | None:
        """The file of a video, or None."""
        ends = ('',) if self.suffix.endswith(SUFFIXES) else SUFFIXES
        # Files may be called like the videos, or like their entries in the annotations.
        names = [f'{prefix}{video}{self.suffix}{end}' for prefix in (self.prefix, '') for end in ends]
        paths = (os.path.join(self.folder, name) for name in names)
        return next((path for path in paths if os.path.isfile(path)), None)

    def name(self, video: str) -> str:
        """What the file of a video would be called."""
        stem = f'{self.prefix}{video}{self.suffix}'
        return stem if self.suffix.endswith(SUFFIXES) else f'{stem}.npy'

    def vectors(self, path: str) -> np.ndarray:
        """The features [T, D], floating point, of which only what is used is read. Raises VideoError."""
        array = _opened(path, (self.key, LAST))
        if array.ndim != 2 or 0 in array.shape:
            raise VideoError(f'{path}: features are [T, D], these are {list(array.shape)}; extract them again.')
        return array

    def layers(self, path: str, count: int) -> np.ndarray:
        """The cached layers [K, T, D], floating point. Raises VideoError unless there are `count`."""
        if not path.endswith('.npz'):
            raise VideoError(f'{path}: cached layers are in .npz files; extract the features again.')
        array = _opened(path, (LAYERS,))
        if array.ndim != 3 or len(array) != count:
            raise VideoError(f'{path}: {LAYERS} is {list(array.shape)}, not [{count}, T, D]; extract them again.')
        return array


def _opened(path: str, keys: tuple[str, ...]) -> np.ndarray:
    """A mapped array; one in a packed .npz is read."""
    try:
        if path.endswith('.npz'):
            array = _member(path, keys)
        else:
            array = np.load(path, mmap_mode='r', allow_pickle=False)
    except VideoError:
        raise
    except (OSError, ValueError, EOFError, KeyError, struct.error, zipfile.BadZipFile, NotImplementedError) as error:
        raise VideoError(f'{path}: cannot be read as features ({error}); extract or copy them again.') from error
    if array.dtype.kind != 'f':
        raise VideoError(f'{path}: features are floating-point numbers, these are {array.dtype}; extract them again.')
    return array


def _member(path: str, keys: tuple[str, ...]) -> np.ndarray:
    """The first of the arrays that the .npz file has."""
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix('.npy') for name in archive.namelist()]
        found = next((key for key in keys if key in names), None)
        if found is None:
            held = ', '.join(map(rows.shown, names)) or 'none'
            raise VideoError(
                f'{path}: has no array {" or ".join(map(repr, keys))}, but {held}; name the right one with key.'
            )
        info = archive.getinfo(f'{found}.npy')
        with archive.open(info) as file:
            version = np.lib.format.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(f'npy version {version}')
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, column_major, dtype = read(file)
            header = file.tell()
        if info.compress_type != zipfile.ZIP_STORED or dtype.hasobject:
            with archive.open(info) as file:
                return np.lib.format.read_array(file, allow_pickle=False)
    with open(path, 'rb') as file:
        # The local header's own lengths: they may differ from those in the table at the end of the archive.
        file.seek(info.header_offset + 26)
        extra = sum(struct.unpack('<HH', file.read(4)))
    offset = info.header_offset + 30 + extra + header
    return np.memmap(path, dtype, 'r', offset, shape, order='F' if column_major else 'C')


def resized(vectors: np.ndarray, length: int) -> np.ndarray:
    """[..., n, D] -> [..., length, D] float32, linearly, as torch's interpolate does with align_corners=False."""
    count = vectors.shape[-2]
    vectors = vectors.astype(np.float32)
    if count == length:
        return vectors
    places = np.clip((np.arange(length) + 0.5) * count / length - 0.5, 0.0, count - 1)  # [length]
    before = places.astype(int)
    after = np.minimum(before + 1, count - 1)
    share = (places - before)[:, None].astype(np.float32)  # [length, 1]
    return vectors[..., before, :] * (1 - share) + vectors[..., after, :] * share
