"""NumPy archives: stored and deflated members, byte and axis orders, bfloat16 as voids, refusals."""

import io
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest

from vidloc.checkpoints.readers import npz
from vidloc.checkpoints.readers.weights import ReadError


def member(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def archive(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, 'w', compression) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


def arrays():
    rng = np.random.default_rng(0)
    return {
        'Transformer/encoderblock_0/kernel': rng.standard_normal((3, 4, 5)).astype(np.float32),
        'fortran': np.asfortranarray(rng.standard_normal((4, 3, 2))),
        'big': rng.standard_normal((2, 3)).astype('>f4'),
        'big_fortran': np.asfortranarray(rng.integers(0, 999, (2, 3))).astype('>i8', order='K'),
        'scalar': np.array(3.5),
        'empty': np.zeros((0, 4), np.float16),
        'flags': np.array([True, False]),
        'complex': np.array([1 + 2j], np.complex64),
    }


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_round_trip(tmp_path, save):
    save(tmp_path / 'a.npz', **arrays(), note=np.array('augreg'))
    entries, extras = npz.read(tmp_path / 'a.npz')
    assert entries.keys() == arrays().keys()
    assert extras == {'note': 'augreg'}
    for name, array in arrays().items():
        found = entries[name].read()
        np.testing.assert_array_equal(found, array)
        assert found.dtype == entries[name].dtype == array.dtype.newbyteorder('=')
        assert found.dtype.isnative
        assert found.shape == entries[name].shape == array.shape
        assert found.flags.c_contiguous and found.flags.owndata and found.flags.writeable


def test_bfloat16_as_voids(tmp_path):
    array = np.random.default_rng(0).standard_normal((3, 4)).astype(ml_dtypes.bfloat16)
    np.savez(tmp_path / 'a.npz', **{'params/pos_embedding': array.view('V2')}, as_it_is=array)
    entries, _ = npz.read(tmp_path / 'a.npz')
    for entry in entries.values():
        assert entry.dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(entry.read().view(np.uint16), array.view(np.uint16))


class Marks:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def test_objects_are_refused_and_nothing_runs(tmp_path):
    # np.savez takes whatever an object array holds and pickles it.
    np.savez(tmp_path / 'a.npz', good=np.ones(2), bad=np.array([Marks(tmp_path / 'ran'), None], dtype=object))
    with pytest.raises(ReadError, match="'bad': it is an array of Python objects"):
        npz.read(tmp_path / 'a.npz')
    assert not (tmp_path / 'ran').exists()
    pickle.loads(pickle.dumps(Marks(tmp_path / 'ran'))).close()  # noqa: S301 - it would have run
    assert (tmp_path / 'ran').exists()


@pytest.mark.parametrize(
    ('members', 'text'),
    [
        ([('a.npy', member(np.zeros(3, [('x', 'f4')])))], "'a': it is an array of .*, not of numbers"),
        ([('a.npy', member(np.zeros(3, 'V3')))], 'not of numbers'),
        ([('a.npy', member(np.zeros(3, 'M8[s]')))], 'not of numbers'),
        ([('a.npy', member(np.zeros(40_000, 'U1')))], 'a long text'),
        ([('a.npy', member(np.zeros(3))[:-1])], 'takes 152 bytes and it has 151'),
        ([('a.npy', member(np.zeros(3)) + b'x')], 'takes 152 bytes and it has 153'),
        ([('a.npy', b'\x93NUMPY\x03\x00' + bytes(90))], 'does not begin as a .npy array of version 1 or 2'),
        ([('a.npy', b'\x93NUMPY\x02\x00\xff\xff\xff\x7f' + bytes(90))], 'is longer than any'),
        ([('a.npy', b'\x93NUMPY\x01\x00\x10\x00' + b'(' * 16)], 'its header is no description of an array'),
        ([('a.npy', b'\x93NUMPY\x01\x00\x07\x00{1: 2, ')], "'a': "),
        ([('a.npy', b'\x93NUMPY\x01\x00\x10\x00{1: 2, "a": 3}  ')], "'a': "),
        ([('a.npy', b'\x93NUMPY\x01\x00\xff\x00{')], "'a': "),
        ([('a.npy', b'')], 'does not begin as a .npy array'),
        ([('.npy', b'text')], "'': it does not begin"),
        ([('a.txt', b'text')], "its member 'a.txt' is no .npy array"),
    ],
)
def test_refused_members(tmp_path, members, text):
    path = archive(tmp_path / 'a.npz', members)
    with pytest.raises(ReadError, match=text) as caught:
        npz.read(path)
    assert str(path) in str(caught.value)


def test_a_name_that_stands_twice(tmp_path):
    with pytest.warns(UserWarning, match='Duplicate name'):
        path = archive(tmp_path / 'a.npz', [('a.npy', member(np.zeros(3)))] * 2)
    with pytest.raises(ReadError, match="'a' stands in it twice"):
        npz.read(path)


def test_a_member_without_a_name(tmp_path):
    path = archive(tmp_path / 'a.npz', [('a', b'')])
    content = bytearray(path.read_bytes())
    listed = content.index(b'PK\x01\x02')
    content[listed + 28], content[listed + 30] = 0, 1  # the name's byte becomes one of the extra field behind it
    path.write_bytes(content)
    with pytest.raises(ReadError, match="its member '' is no"):
        npz.read(path)


def test_a_shape_that_the_bytes_cannot_fill(tmp_path):
    path = tmp_path / 'a.npz'
    np.savez_compressed(path, a=np.zeros(1000))
    content = path.read_bytes()
    # The uncompressed size in the directory at the archive's end: a petabyte in a kilobyte.
    with zipfile.ZipFile(path) as file:
        size = file.infolist()[0].file_size.to_bytes(4, 'little')
    head, entry = content[: content.rindex(b'PK\x01\x02')], content[content.rindex(b'PK\x01\x02') :]
    path.write_bytes(head + entry.replace(size, (1 << 31).to_bytes(4, 'little'), 1))
    with pytest.raises(ReadError, match='cannot hold the 2147483648 that it names'):
        npz.read(path)


def test_damage_is_seen_when_an_array_is_read(tmp_path):
    path = tmp_path / 'a.npz'
    np.savez(path, a=np.arange(1 << 15, dtype=np.uint16))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    entries, _ = npz.read(path)
    with pytest.raises(ReadError, match=r'a damaged \.npz file \(Bad CRC-32'):
        entries['a'].read()
    path.write_bytes(content[:-30])
    with pytest.raises(ReadError, match=r'a damaged \.npz file'):
        entries['a'].read()
    with pytest.raises(ReadError, match=r'a damaged \.npz file'):
        npz.read(path)
    np.savez(path, a=np.zeros(1 << 16, np.uint16))
    with pytest.raises(ReadError, match='another length'):
        entries['a'].read()
