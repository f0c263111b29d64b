"""Flax's msgpack files: what flax.serialization writes is read back; damaged and hostile files are named."""

import jax.numpy as jnp
import ml_dtypes
import msgpack as official
import numpy as np
import pytest
from flax import serialization

from vidloc.checkpoints.readers import msgpack
from vidloc.checkpoints.readers.weights import ReadError


def tree():
    rng = np.random.default_rng(0)
    return {
        'optimizer': {
            'target': {
                'Transformer': {'encoderblock_0': {'kernel': rng.standard_normal((4, 2, 3)).astype(np.float32)}},
                'half': rng.standard_normal(5).astype(np.float16),
                'brain': jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3),
                'none': np.zeros((0, 3), np.int8),
            },
            'state': {'step': np.array(7)},
        },
        'layers': [np.arange(3), {'flags': np.array([True, False])}],
    }


def write(path, content):
    path.write_bytes(content)
    return path


EXPECTED = {
    'optimizer/target/Transformer/encoderblock_0/kernel': ((4, 2, 3), 'float32'),
    'optimizer/target/half': ((5,), 'float16'),
    'optimizer/target/brain': ((2, 3), 'bfloat16'),
    'optimizer/target/none': ((0, 3), 'int8'),
    'optimizer/state/step': ((), 'int64'),
    'layers/0': ((3,), 'int64'),
    'layers/1/flags': ((2,), 'bool'),
}


@pytest.mark.parametrize('limit', [None, 16, 1])
def test_round_trip_whole_and_in_pieces(tmp_path, monkeypatch, limit):
    if limit is not None:
        monkeypatch.setattr(serialization, 'MAX_CHUNK_SIZE', limit)
    content = serialization.msgpack_serialize(tree())
    assert (b'__msgpack_chunked_array__' in content) == (limit is not None)
    entries, extras = msgpack.read(write(tmp_path / 'checkpoint', content))
    assert {name: (entry.shape, entry.dtype.name) for name, entry in entries.items()} == EXPECTED
    assert extras == {}
    for name, entry in entries.items():
        wanted = tree()
        for key in name.split('/'):
            wanted = wanted[int(key) if isinstance(wanted, list) else key]
        found = entry.read()
        assert found.dtype == entry.dtype == np.asarray(wanted).dtype
        np.testing.assert_array_equal(found, np.asarray(wanted))
        assert found.flags.owndata and found.flags.c_contiguous and found.flags.writeable


def test_plain_values_are_extras(tmp_path):
    plain = {
        'epoch': 300, 'below': -5, 'far below': -(1 << 40), 'large': 1 << 40, 'rate': 1e-3, 'done': True,
        'nothing': None, 'name': 'ViT-B', 'long': 'x' * 70_000, 'bytes': b'\xff\0', 'complex': 1 + 2j,
        'sizes': [1, 2, 224], 'scale': np.float32(0.5), 'brain': ml_dtypes.bfloat16(1.5), 'count': np.int64(3),
        'empty': {}, 'nested': {'note': 'n', 'deeper': [{'x': 1}, {'x': 2}]},
    }  # fmt: skip
    content = serialization.msgpack_serialize({'params': {'w': np.ones(2)}, 'about': plain})
    entries, extras = msgpack.read(write(tmp_path / 'a.msgpack', content))
    assert list(entries) == ['params/w']
    wanted = {f'about/{name}': value for name, value in plain.items() if name not in ('nothing', 'empty', 'nested')}
    assert extras == wanted | {'about/nested/note': 'n', 'about/nested/deeper/0/x': 1, 'about/nested/deeper/1/x': 2}


def test_numbers_as_keys_and_many_of_them(tmp_path):
    many = {0: {i: np.full(1, i) for i in range(300)}, 1: {i: i for i in range(70_000)}}
    entries, extras = msgpack.read(write(tmp_path / 'a', serialization.msgpack_serialize(many)))
    assert list(entries) == [f'0/{i}' for i in range(300)]
    assert entries['0/299'].read().tolist() == [299]
    assert extras == {f'1/{i}': i for i in range(70_000)}


def test_names_of_types_as_byte_strings(tmp_path):
    # As msgpack was written before it told texts from bytes.
    old = official.packb(([2], b'bfloat16', b'\x80\x3f\x00\x40'), use_bin_type=False)
    content = official.packb({b'params': {b'w': official.ExtType(1, old)}}, use_bin_type=True)
    entries, _ = msgpack.read(write(tmp_path / 'a', content))
    assert entries['params/w'].read().tolist() == [1, 2]


def test_opening_does_not_read_arrays(tmp_path):
    size = 3 << 30
    head = official.packb(([size], 'uint8'))[1:]
    inner = b'\x93' + head + b'\xc6' + size.to_bytes(4, 'big')
    path = write(tmp_path / 'a', b'\x81\xa1w\xc9' + (len(inner) + size).to_bytes(4, 'big') + b'\x01' + inner)
    with path.open('r+b') as file:
        file.truncate(path.stat().st_size + size)  # a hole: no disk is taken
    entries, _ = msgpack.read(path)
    assert entries['w'].shape == (size,)


def packed(shape, dtype, data):
    return official.ExtType(1, official.packb((shape, dtype, data), use_bin_type=True))


def pieces(**change):
    table = {'__msgpack_chunked_array__': True, 'shape': {'0': 2}, 'chunks': {'0': packed([2], 'int8', b'ab')}}
    return {'w': table | change}


@pytest.mark.parametrize(
    ('value', 'text'),
    [
        ({'w': packed([2], 'float32', bytes(7))}, 'does not take 7 bytes'),
        ({'w': packed([-2], 'float32', b'')}, 'something else than sizes'),
        ({'w': packed([0, 1 << 62], 'float32', b'')}, 'larger than any memory'),
        ({'w': packed({'0': 2}, 'float32', bytes(8))}, 'no list of at most 32 sizes'),
        ({'w': packed([2], 'object', bytes(16))}, "of 'object', not of numbers"),
        ({'w': packed([2], 'str32', bytes(8))}, "of 'str32', not of numbers"),
        ({'w': packed([2], 3, bytes(8))}, 'of 3, not of numbers'),
        ({'w': packed([2], 'float32', 8)}, 'begins no value that belongs there'),
        ({'w': official.ExtType(1, b'\x92\x01\x02')}, 'no triple of shape, dtype and data'),
        ({'w': official.ExtType(3, packed([1], 'int8', b'a').data)}, 'is an array'),
        ({'w': official.ExtType(1, packed([1], 'int8', b'a').data + b'x')}, 'another length than it names'),
        ({'w': official.ExtType(2, official.packb((1.0,)))}, 'no pair of numbers'),
        ({'w': official.ExtType(7, b'abc')}, 'extension of type 7'),
        ({'w': 'x' * (2 << 20)}, 'a text of 2097152 bytes'),
        (pieces(shape={'0': 3}), 'do not make up its size'),
        (pieces(shape={'1': 2}), 'lacks shape or pieces'),
        (pieces(chunks={}), 'lacks shape or pieces'),
        (pieces(chunks={'0': 3}), 'no arrays of one dtype'),
        (pieces(chunks={'0': packed([1], 'int8', b'a'), '1': packed([1], 'uint8', b'a')}), 'no arrays of one dtype'),
        ({'a/b': packed([1], 'int8', b'a'), 'a': {'b': packed([1], 'int8', b'a')}}, "'a/b' stands in it twice"),
        ({True: 1}, 'is no name'),
        ([1, 2], 'holds a single list'),
        (packed([1], 'int8', b'a'), 'holds a single array'),
    ],
)
def test_values_that_flax_does_not_write(tmp_path, value, text):
    path = write(tmp_path / 'a', official.packb(value, use_bin_type=True))
    with pytest.raises(ReadError, match=text) as caught:
        msgpack.read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ('content', 'text'),
    [
        (b'\x82\xa1a\x01\xa1a\x02', "'a' stands twice in one map"),
        (b'\x81\xa1a\x91' + b'\x91' * 200 + b'\x01', 'more than 64 containers'),
        (b'\x81\xa1a\xc1', 'begins no value that belongs there'),
        (b'\x81\xa1a\xa2\xff\xfe', 'not in UTF-8'),
        (b'\x81\xa1a\xdd\xff\xff\xff\xff', 'more than 2000000 values'),
        (b'\xdf\xff\xff\xff\xff', 'more than 2000000 values'),
        (b'\x81\xa1a\xc6\x00\x00\x00\x10abc', 'ends 13 bytes before the end of a value'),
        (b'\x80x', '1 bytes follow after its end'),
        (b'', 'ends 1 bytes before the end of a value'),
    ],
)
def test_bytes_that_are_no_msgpack(tmp_path, content, text):
    with pytest.raises(ReadError, match=text):
        msgpack.read(write(tmp_path / 'a', content))


def test_every_truncation_is_seen(tmp_path):
    content = serialization.msgpack_serialize(tree())
    for length in range(len(content)):
        with pytest.raises(ReadError, match='before the end of a value'):
            msgpack.read(write(tmp_path / 'a', content[:length]))
    with pytest.raises(ReadError, match='2 bytes follow after its end'):
        msgpack.read(write(tmp_path / 'a', content + b'ab'))


def test_a_file_that_became_shorter(tmp_path):
    path = write(tmp_path / 'a', serialization.msgpack_serialize({'w': np.ones(1000)}))
    entries, _ = msgpack.read(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ReadError, match='ends 9 bytes before the end of a tensor'):
        entries['w'].read()
    path.unlink()
    with pytest.raises(ReadError, match='No such file'):
        entries['w'].read()
