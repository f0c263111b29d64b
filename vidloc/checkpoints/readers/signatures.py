"""What a file is, by its first bytes: formats of weights that are read here, and others that are told apart."""

import os
import pathlib
import struct
import zipfile

from vidloc.checkpoints.readers.weights import AGAIN, ReadError, unreadable

_BY_NAME = {'.safetensors': 'safetensors', '.npz': 'npz', '.msgpack': 'msgpack'}
HEAD = 512
_FORMATS = '.safetensors, .npz, a PyTorch .pt/.pth/.bin or a msgpack file of Flax'
_CONVERT = f'Save its weights as {_FORMATS} with the program that wrote it'
_TENSORFLOW = (
    'Take the PyTorch, safetensors, npz or Flax file of the same model, or save the variables by name with numpy.savez'
)
_PACKED = 'Unpack it and name the file or folder of weights that was in it'

# (first bytes, what it is, what to do); the order matters: msgpack takes nearly any first byte.
_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b'version https://git-lfs', 'a pointer that git-lfs left in place of the file', 'Fetch the file: git lfs pull'),
    (b'\x93NUMPY', 'a single NumPy array (.npy), which names no tensors', 'Save the arrays by name: numpy.savez'),
    (b'\x89HDF\r\n\x1a\n', 'a HDF5 file (Keras, TensorFlow)', _TENSORFLOW),
    (b'GGUF', 'a GGUF file (llama.cpp), whose weights are usually quantised', 'Take the file it was made from'),
    (b'\x08\x01\x12', 'the graph of a TensorFlow SavedModel', _TENSORFLOW),
    (b'\x1f\x8b', 'packed with gzip', _PACKED),
    (b'BZh', 'packed with bzip2', _PACKED),
    (b'\xfd7zXZ\x00', 'packed with xz', _PACKED),
    (b'\x28\xb5\x2f\xfd', 'packed with zstd', _PACKED),
    (b'7z\xbc\xaf\x27\x1c', 'packed with 7-Zip', _PACKED),
    (b'Rar!', 'packed with RAR', _PACKED),
    (b'%PDF', 'a PDF document', 'Name the file of weights'),
)
_PAGES = (b'<!doctype html', b'<html', b'<?xml', b'<head', b'<error')
_LEGACY_TAR = (b'sys_info', b'pickle', b'storages', b'tensors')  # members of what the first PyTorch wrote
_LEVELDB = bytes.fromhex('57fb808b247547db')  # the end of a TensorFlow checkpoint's table


def recognise(path: str | os.PathLike[str]) -> str:
    """'safetensors', 'torch', 'msgpack', 'npz' or 'index', by the content of a file.

    'torch' holds for every file of PyTorch, old forms that cannot be read included; 'index' for a JSON file.
    Raises ReadError, which says what the file is, where it is none of these.
    """
    path = pathlib.Path(path)
    try:
        size = path.stat().st_size
        with path.open('rb') as file:
            head = file.read(HEAD)
            file.seek(max(size - len(_LEVELDB), 0))
            end = file.read(len(_LEVELDB))
    except OSError as error:
        raise unreadable(path, error) from error
    if not size:
        raise ReadError(path, 'it is empty', AGAIN)
    if not any(head):
        raise ReadError(
            path, f'its first {len(head)} bytes are zeros, as of a download that never came to its end', AGAIN
        )
    # First, since the length that a safetensors file begins with may look like anything.
    if head[4:9] == b'\0\0\0\0{':
        return 'safetensors'
    if head[:4] in (b'PK\x03\x04', b'PK\x05\x06'):
        return _archive(path)
    for magic, what, fix in _MAGIC:
        if head.startswith(magic):
            raise _other(path, what, fix)
    if head[0] == 0x80 and head[1:2] in (b'\x02', b'\x03', b'\x04', b'\x05'):
        return 'torch'  # a pickle: what PyTorch wrote before it wrote zip archives
    if head[257:262] == b'ustar':
        if head[:100].rstrip(b'\0') in _LEGACY_TAR:
            return 'torch'
        raise _other(path, 'a tar archive', _PACKED)
    if end == _LEVELDB or '.data-0000' in path.name or head.startswith(b'model_checkpoint_path'):
        raise _other(path, 'a part of a TensorFlow checkpoint', _TENSORFLOW)
    return _by_structure(path, head, size)


def _by_structure(path: pathlib.Path, head: bytes, size: int) -> str:
    """recognise() for what has no signature of its own."""
    text = head.lstrip(b'\xef\xbb\xbf \t\r\n').lower()
    if text.startswith(_PAGES):
        fix = 'The download gave a page (to log in, or an error) instead of the file: open the address in a browser'
        raise _other(path, 'a web page', fix)
    if text.startswith(b'{'):
        return 'index'
    if head[4:8] == b'TFL3':
        raise _other(path, 'a TensorFlow Lite model', _TENSORFLOW)
    # The fields of ONNX' ModelProto: ir_version, a small number, then the name of the producer or the graph.
    if path.suffix == '.onnx' or (head[0] == 0x08 and head[1:2] < b'\x20' and head[2:3] in (b'\x12', b'\x3a')):
        raise _other(path, 'an ONNX model', 'Take the PyTorch or safetensors file that it was exported from')
    # Damaged from its first byte on: the reader of what it is called says how.
    if path.suffix in _BY_NAME:
        return _BY_NAME[path.suffix]
    if 0x81 <= head[0] <= 0x8F or head[0] in (0xDE, 0xDF) or (head[0] == 0x80 and size == 1):
        return 'msgpack'
    raise ReadError(path, f'it begins with {head[:16]!r}, which no known file of weights does', f'Wanted is {_FORMATS}')


def _archive(path: pathlib.Path) -> str:
    """recognise() for a zip archive: of PyTorch, of NumPy, or of something else."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith('/')]
    except OSError as error:
        raise unreadable(path, error) from error
    except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError) as error:
        raise ReadError(
            path,
            f'it begins as a zip archive (PyTorch and .npz files are such) and is cut off or damaged ({error})',
            AGAIN,
        ) from error
    ends = {name.rsplit('/', 1)[-1] for name in names}
    if 'data.pkl' in ends:
        return 'torch'
    if any(name.endswith('.npy') for name in names) or not names:
        return 'npz'
    if 'saved_model.pb' in ends:
        raise _other(path, 'a packed TensorFlow SavedModel', _TENSORFLOW)
    raise _other(path, f'a zip archive of {len(names)} files ({", ".join(sorted(names)[:3])}, ...)', _PACKED)


def _other(path: pathlib.Path, what: str, fix: str) -> ReadError:
    return ReadError(path, f'it is {what}, no file of weights that is read here', fix)
