"""Safetensors: round trips with the format's dtypes, lazy reading, damaged and hostile headers, shards."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest

from vidloc.checkpoints import frozen
from vidloc.checkpoints.readers import safetensors, shards
from vidloc.checkpoints.readers.weights import ReadError


def write(path, header, data=b'', *, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack('<Q', len(text) if length is None else length) + text + data)
    return path


def one(dtype='F32', shape=(2,), offsets=(0, 8)):
    return {'dtype': dtype, 'shape': list(shape), 'data_offsets': list(offsets)}


@pytest.mark.parametrize('code', sorted(safetensors.DTYPES))
def test_every_dtype(tmp_path, code):
    dtype = safetensors.DTYPES[code]
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    end = array.nbytes
    header = {'first': one(code, (2, 3), (0, end)), 'none': one(code, (0, 3), (end, end))}
    entries, _ = safetensors.read(write(tmp_path / 'a.safetensors', header, array.tobytes()))
    found = entries['first'].read()
    assert found.dtype == entries['first'].dtype == dtype
    assert found.tobytes() == array.tobytes()
    assert entries['none'].read().shape == entries['none'].shape == (0, 3)


def test_what_vidloc_writes_is_read(tmp_path):
    flat = {
        'b/kernel': np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32),
        'a/scale': np.arange(5).astype(ml_dtypes.bfloat16),
        'scalar': np.array(7, np.int32),
    }
    mark = frozen.write_frozen(tmp_path / 'frozen', flat)
    entries, extras = safetensors.read(tmp_path / 'frozen')
    assert extras == {'fingerprint': mark}
    assert entries.keys() == flat.keys()
    for name, array in flat.items():
        found = entries[name].read()
        np.testing.assert_array_equal(found, array)
        assert found.dtype == entries[name].dtype == array.dtype
        assert found.flags.owndata and found.flags.c_contiguous and found.flags.writeable
        assert found is not entries[name].read()


def test_opening_does_not_read_tensors(tmp_path):
    path = write(tmp_path / 'a.safetensors', {'a': one(shape=(1 << 30,), offsets=(0, 1 << 32))})
    with path.open('r+b') as file:
        file.truncate(path.stat().st_size + (1 << 32))  # a hole of 4 GiB: no disk is taken
    entries, _ = safetensors.read(path)
    assert entries['a'].shape == (1 << 30,)


def test_a_file_that_became_shorter(tmp_path):
    path = write(tmp_path / 'a.safetensors', {'a': one()}, bytes(8))
    entries, _ = safetensors.read(path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ReadError, match='ends 3 bytes before the end of a tensor'):
        entries['a'].read()


@pytest.mark.parametrize(
    ('header', 'data', 'text'),
    [
        ({'a': one()}, bytes(5), '3 of 8 bytes of tensors are missing'),
        ({'a': one()}, bytes(9), '1 bytes at its end belong to no tensor'),
        ({'a': one(), 'b': one(offsets=(4, 12))}, bytes(12), "'b' and 'a' lie over each other"),
        ({'a': one(), 'b': one(offsets=(9, 17))}, bytes(17), "1 bytes before 'b' belong to no tensor"),
        ({'a': one(offsets=(-8, 0))}, bytes(8), 'takes 8 bytes'),
        ({'a': one(offsets=(8, 0))}, bytes(8), 'takes 8 bytes'),
        ({'a': one(shape=(3,))}, bytes(8), 'takes 12 bytes'),
        ({'a': one(dtype='F7')}, bytes(8), "its dtype 'F7' is none of"),
        ({'a': one(dtype=['F32'])}, bytes(8), 'is none of'),
        ({'a': one(shape=(-1, -2))}, bytes(8), 'something else than sizes'),
        ({'a': one(shape=(2.0,))}, bytes(8), 'something else than sizes'),
        ({'a': one(shape=(True, 2))}, bytes(8), 'something else than sizes'),
        ({'a': one(shape=(0, 1 << 62), offsets=(0, 0))}, b'', 'larger than any memory'),
        ({'a': one(shape=(1,) * 33, offsets=(0, 4))}, bytes(4), 'at most 32 sizes'),
        ({'a': one(offsets=(0, 8, 8))}, bytes(8), 'no pair of numbers'),
        ({'a': {'dtype': 'F32', 'shape': [2]}}, bytes(8), 'not described by dtype, shape and data_offsets'),
        ({'a': 3}, b'', 'not described by dtype, shape and data_offsets'),
        ({'__metadata__': 3}, b'', '__metadata__ is no table'),
        (b'{"a": 1, "b": 2, "a": 3}', b'', "'a' stands in it twice"),
        (b'[1, 2]', b'', 'its header is no table'),
        (b'{"a": ', b'', 'is not the JSON'),
        (b'{"a": ' + b'[' * 100_000, b'', 'is not the JSON'),
        (b'\xff\xfe{}', b'', 'is not the JSON'),
    ],
)
def test_damaged_headers(tmp_path, header, data, text):
    path = write(tmp_path / 'a.safetensors', header, data)
    with pytest.raises(ReadError, match=text) as caught:
        safetensors.read(path)
    assert str(path) in str(caught.value)


def test_lengths_that_cannot_be(tmp_path):
    path = write(tmp_path / 'a.safetensors', {'a': one()}, length=500)
    with pytest.raises(ReadError, match='its header takes 500 bytes and the file ends after'):
        safetensors.read(path)
    write(path, {'a': one()}, length=1 << 63)
    with pytest.raises(ReadError, match='longer than the format allows'):
        safetensors.read(path)
    path.write_bytes(b'\x05\0\0')
    with pytest.raises(ReadError, match='it has 3 bytes'):
        safetensors.read(path)
    with pytest.raises(ReadError, match='cannot be read: No such file'):
        safetensors.read(tmp_path / 'missing.safetensors')


def sharded(folder):
    write(folder / 'm-1.safetensors', {'a': one()}, np.array([1, 2], np.float32).tobytes())
    write(folder / 'm-2.safetensors', {'b': one(), 'c': one('I8', (1,), (8, 9))}, bytes(9))
    index = folder / 'm.safetensors.index.json'
    index.write_text(
        json.dumps({'metadata': {'total_size': 17}, 'weight_map': {'b': 'm-2.safetensors', 'a': 'm-1.safetensors'}})
    )
    return index


def test_shards(tmp_path):
    entries, extras = shards.read(sharded(tmp_path), safetensors.read)
    assert list(entries) == ['b', 'a']
    np.testing.assert_array_equal(entries['a'].read(), np.array([1, 2], np.float32))
    assert extras == {'metadata': {'total_size': 17}, 'not in the index': ['c']}


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        ({'weight_map': {'a': 'm-1.safetensors', 'z': 'm-9.safetensors'}}, '1 of the 2 files it names are not beside'),
        ({'weight_map': {'a': 'm-2.safetensors'}}, "1 tensors are not in .* first is 'a' in m-2.safetensors"),
        ({'weight_map': {'a': '../m-1.safetensors'}}, 'is no file beside it'),
        ({'weight_map': {'a': '/etc/passwd'}}, 'is no file beside it'),
        ({'weight_map': {'a': 3}}, 'without a `weight_map`'),
        ({'weight_map': {}}, 'without a `weight_map`'),
        ({}, 'without a `weight_map`'),
        ([], 'without a `weight_map`'),
    ],
)
def test_damaged_indices(tmp_path, change, text):
    index = sharded(tmp_path)
    index.write_text(json.dumps(change))
    with pytest.raises(ReadError, match=text):
        shards.read(index, safetensors.read)


def test_an_index_that_is_no_json(tmp_path):
    index = sharded(tmp_path)
    index.write_text('{"weight_map": ')
    with pytest.raises(ReadError, match='it is no JSON'):
        shards.read(index, safetensors.read)


def test_a_damaged_shard(tmp_path):
    index = sharded(tmp_path)
    (tmp_path / 'm-2.safetensors').write_bytes((tmp_path / 'm-2.safetensors').read_bytes()[:-1])
    with pytest.raises(ReadError, match=r'm-2\.safetensors.*1 of 9 bytes of tensors are missing'):
        shards.read(index, safetensors.read)
