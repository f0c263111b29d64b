"""The frozen part: round trip, fingerprint, refusals."""

import ml_dtypes
import numpy as np
import pytest

from vidloc.checkpoints import frozen
from vidloc.checkpoints.store import CheckpointError


def arrays():
    return {
        'backbone/block_00/w': np.arange(6, dtype=np.float32).reshape(2, 3),
        'backbone/block_01/w': np.arange(4).astype(ml_dtypes.bfloat16),
        'backbone/scalar': np.array(2, np.int32),
        'backbone/none': np.zeros((0, 3), np.float16),
    }


def test_round_trip(tmp_path):
    path = tmp_path / 'run' / 'frozen'
    mark = frozen.write_frozen(path, arrays())
    found, read_mark = frozen.read_frozen(path)
    assert mark == read_mark == frozen.fingerprint(arrays())
    assert found.keys() == arrays().keys()
    for name, array in arrays().items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape


@pytest.mark.parametrize(
    'change',
    [
        lambda a: {**a, 'backbone/scalar': np.array(3, np.int32)},
        lambda a: {**a, 'backbone/scalar': np.array([2], np.int32)},
        lambda a: {**a, 'backbone/scalar': np.array(2, np.uint32)},
        lambda a: {('other' if name == 'backbone/scalar' else name): value for name, value in a.items()},
    ],
)
def test_fingerprint_sees_name_shape_type_and_bytes(change):
    assert frozen.fingerprint(change(arrays())) != frozen.fingerprint(arrays())
    assert frozen.fingerprint(dict(reversed(arrays().items()))) == frozen.fingerprint(arrays())


def test_nothing_frozen_writes_nothing(tmp_path):
    assert frozen.write_frozen(tmp_path / 'frozen', {}) is None
    assert not (tmp_path / 'frozen').exists()


def test_a_file_that_is_there_must_be_the_same(tmp_path):
    path = tmp_path / 'frozen'
    mark = frozen.write_frozen(path, arrays())
    before = path.stat().st_mtime_ns
    assert frozen.write_frozen(path, arrays()) == mark
    assert path.stat().st_mtime_ns == before
    with pytest.raises(CheckpointError, match='another frozen part'):
        frozen.write_frozen(path, {'a': np.zeros(1, np.float32)})


@pytest.mark.parametrize('keep', [0, 5, 100, -1])
def test_a_damaged_file_is_named(tmp_path, keep):
    path = tmp_path / 'frozen'
    frozen.write_frozen(path, arrays())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match='frozen is damaged'):
        frozen.read_frozen(path)


def test_a_flipped_bit_and_a_missing_file_are_named(tmp_path):
    path = tmp_path / 'frozen'
    frozen.write_frozen(path, arrays())
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match='fingerprint'):
        frozen.read_frozen(path)
    with pytest.raises(CheckpointError, match='missing'):
        frozen.read_frozen(tmp_path / 'nothing')
