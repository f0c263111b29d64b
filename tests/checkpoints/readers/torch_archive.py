"""Files as torch.save writes them, made here byte by byte: right ones, broken ones and hostile ones."""

import pathlib
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence


def text(value: str) -> bytes:
    raw = value.encode('utf-8')
    return b'X' + struct.pack('<I', len(raw)) + raw


def number(value: int) -> bytes:
    return b'L%dL\n' % value


def numbers(values: Sequence[int]) -> bytes:
    return b'(' + b''.join(map(number, values)) + b't'


def name(module: str, attribute: str) -> bytes:
    return f'c{module}\n{attribute}\n'.encode()


def call(module: str, attribute: str, *arguments: bytes) -> bytes:
    return name(module, attribute) + b'(' + b''.join(arguments) + b'tR'


def storage(key: str = '0', count: int = 6, kind: str = 'FloatStorage') -> bytes:
    return b'(' + text('storage') + name('torch', kind) + text(key) + text('cpu') + number(count) + b'tQ'


def tensor(shape: Sequence[int], strides: Sequence[int], offset: int = 0, stored: bytes | None = None) -> bytes:
    hooks = call('collections', 'OrderedDict')
    parts = (stored or storage(), number(offset), numbers(shape), numbers(strides), b'\x89', hooks)
    return call('torch._utils', '_rebuild_tensor_v2', *parts)


def pickled(items: Mapping[str, bytes]) -> bytes:
    """The pickle of a dict, from the opcodes of its values."""
    return b'\x80\x02}(' + b''.join(text(key) + value for key, value in items.items()) + b'u.'


def write(
    path: pathlib.Path,
    pickle: bytes,
    storages: Mapping[str, bytes] | None = None,
    *,
    order: bytes | None = b'little',
    compression: int = zipfile.ZIP_STORED,
    root: str = 'archive/',
) -> pathlib.Path:
    """An archive of a pickle and storages; '0' has 24 bytes where none are given."""
    with zipfile.ZipFile(path, 'w', compression) as archive:
        archive.writestr(root + 'data.pkl', pickle)
        if order is not None:
            archive.writestr(root + 'byteorder', order)
        for key, data in (storages or {'0': bytes(24)}).items():
            archive.writestr(f'{root}data/{key}', data)
        archive.writestr(root + 'version', b'3\n')
    return path


def write_sparse(path: pathlib.Path, pickle: bytes, size: int) -> pathlib.Path:
    """An archive whose storage '0' has `size` bytes of zeros that take no room on the disk."""
    directory = b''
    with path.open('wb') as file:
        for member, data in (('archive/data.pkl', pickle), ('archive/data/0', None)):
            raw, length, at = member.encode(), size if data is None else len(data), file.tell()
            fields = (0, 0, 0, 0, zlib.crc32(data or b''), length, length, len(raw))
            file.write(b'PK\x03\x04' + struct.pack('<HHHHHIIIHH', 20, *fields, 0) + raw)
            if data is None:
                file.seek(length, 1)
            else:
                file.write(data)
            entry = struct.pack('<HHHHHHIIIHHHHHII', 20, 20, *fields, 0, 0, 0, 0, 0, at)
            directory += b'PK\x01\x02' + entry + raw
        start = file.tell()
        file.write(directory + b'PK\x05\x06' + struct.pack('<HHHHIIH', 0, 0, 2, 2, len(directory), start, 0))
    return path
