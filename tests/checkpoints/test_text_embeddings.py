"""Files of text embeddings: both formats, names that are matched, and what is refused."""

import json

import ml_dtypes
import numpy as np
import pytest

from vidloc.checkpoints import frozen, text_embeddings
from vidloc.checkpoints.readers.weights import ReadError

NAMES = ('wave', 'Clean_And  Jerk', 'sit', 'stand (up)', 'nobody asks for this')
VECTORS = np.random.default_rng(0).normal(size=(5, 3))
VECTORS[4] = np.nan


def npz(path, names=NAMES, vectors=VECTORS, **more):
    np.savez(path, names=np.array(names), embeddings=vectors, **more)
    return path


def safetensors(path, names=NAMES, vectors=VECTORS, metadata=None):
    notes = {'names': json.dumps(names)} if metadata is None else metadata
    frozen.write_safetensors(path, {'embeddings': (vectors.shape, vectors.dtype, lambda: vectors)}, notes)
    return path


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize('dtype', [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize('write', [npz, safetensors])
def test_each_class_has_the_vector_of_its_name(write, dtype, tmp_path):
    path = write(tmp_path / 'without_a_suffix.npz', vectors=VECTORS.astype(dtype))
    assert text_embeddings.width(path) == 3
    found = text_embeddings.read(path, ('stand (up)', 'wave', 'clean and jerk'))
    assert found.dtype == np.float32 and found.flags.c_contiguous
    np.testing.assert_allclose(found, unit(VECTORS[[3, 0, 1]]), atol=2e-2 if dtype == ml_dtypes.bfloat16 else 2e-3)
    if dtype == np.float64:
        np.testing.assert_allclose(found, unit(VECTORS[[3, 0, 1]]), rtol=1e-6)


def test_lengths_do_not_matter_however_large(tmp_path):
    path = npz(tmp_path / 'a.npz', ('a', 'b'), np.array([[3e60, 4e60], [3e-60, 4e-60]]))
    np.testing.assert_allclose(text_embeddings.read(path, ('a', 'b')), [[0.6, 0.8]] * 2, rtol=1e-6)


def test_many_long_names_and_names_of_bytes(tmp_path):
    names = [f'{i:04d} {"x" * 200}' for i in range(700)]  # 560,000 bytes in the file
    vectors = np.random.default_rng(0).normal(size=(700, 2))
    np.testing.assert_allclose(
        text_embeddings.read(npz(tmp_path / 'a.npz', names, vectors), names), unit(vectors), 1e-5
    )
    path = npz(tmp_path / 'b.npz', ['höhe'.encode(), b'a'], vectors[:2])
    np.testing.assert_allclose(text_embeddings.read(path, ('a', 'höhe')), unit(vectors[[1, 0]]), 1e-5)


def test_the_exact_name_wins_over_another_spelling(tmp_path):
    path = npz(tmp_path / 'a.npz', ('Wave', 'wave', 'S i t'), VECTORS[:3])
    found = text_embeddings.read(path, ('wave', 'Wave', 'sit'))
    np.testing.assert_allclose(found, unit(VECTORS[[1, 0, 2]]), rtol=1e-6)


def test_all_classes_that_do_not_fit_are_said_at_once(tmp_path):
    vectors = np.array([[1.0, 2], [3, 4], [np.inf, 1], [0, 0], [5, 6]])
    path = npz(tmp_path / 'a.npz', ('wave', 'wave', 'far', 'nothing', 'one_way'), vectors)
    for classes, said in (
        (('one way',), None),
        (('sit',), "1 of 1 classes .*'sit' is not among its 5 names"),
        (
            ('noting', 'wave', 'far', 'nothing'),
            "4 of 4 .*'noting' is not .*like 'nothing'.*'wave' has 2: 'wave', 'wave'",
        ),
        (('far', 'nothing', 'one_way'), "2 of 3 .*that of 'far' is not finite; that of 'nothing' is zero"),
        (('one way', 'oneway'), "1 of 2 .*'oneway' would have that of 'one way', 'one_way'"),
        (tuple('abcdef'), 'and 2 more'),
    ):
        if said is None:
            text_embeddings.read(path, classes)
            continue
        with pytest.raises(ReadError, match=said) as caught:
            text_embeddings.read(path, classes)
        assert str(path) in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('names', 'vectors', 'said'),
    [
        (NAMES[:4], VECTORS, r'4 names for embeddings of the shape \[5, 3\]'),
        (NAMES, VECTORS[:, 0], r'5 names for embeddings of the shape \[5\]'),
        (NAMES, VECTORS[:, :0], r'shape \[5, 0\]'),
        (NAMES, np.ones((5, 3), np.int32), 'embeddings are int32, not floats'),
        ('wave', VECTORS[:1], 'no list of strings'),
    ],
)
@pytest.mark.parametrize('write', [npz, safetensors])
def test_other_shapes_and_kinds_are_refused(write, names, vectors, said, tmp_path):
    with pytest.raises(ReadError, match=said):
        text_embeddings.width(write(tmp_path / 'a.npz', names, vectors))


def test_other_files_are_refused_and_nothing_is_unpickled(tmp_path):
    np.savez(tmp_path / 'a.npz', names=np.array(['wave', 1], dtype=object), embeddings=VECTORS[:2])
    np.savez(tmp_path / 'b.npz', embeddings=VECTORS)
    np.savez(tmp_path / 'c.npz', names=np.array(NAMES), vectors=VECTORS)
    (tmp_path / 'd.npz').write_bytes(b'\x82\xa1a\x01\xa1b\x02')
    (tmp_path / 'weights').write_bytes(b'\x82\xa1a\x01\xa1b\x02')
    safetensors(tmp_path / 'e', metadata={})
    safetensors(tmp_path / 'f', metadata={'names': '["wave"'})
    safetensors(tmp_path / 'g', metadata={'names': '{"wave": 0}'})
    for name, said in (
        ('a.npz', 'Python objects'),
        ('b.npz', 'no names of its embeddings .strings `names`'),
        ('c.npz', 'no array `embeddings`, but vectors'),
        ('d.npz', 'damaged'),
        ('weights', 'a msgpack file; text embeddings are read from .npz and .safetensors'),
        ('e', 'a JSON list `names` in its metadata'),
        ('f', 'names cannot be read'),
        ('g', 'no list of strings'),
        ('missing.npz', 'No such file'),
        ('', 'cannot be read'),
    ):
        with pytest.raises(ReadError, match=said) as caught:
            text_embeddings.width(tmp_path / name)
        assert '\n' not in str(caught.value)
