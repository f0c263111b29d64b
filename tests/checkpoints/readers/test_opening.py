"""What a file or folder is, is seen by its content; what is no file of weights is named."""

import gzip
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import serialization

from vidloc.checkpoints.readers.opening import open_weights
from vidloc.checkpoints.readers.weights import ReadError


def safetensors(path, value=1.0, names=('w',)):
    header = {name: {'dtype': 'F32', 'shape': [1], 'data_offsets': [4 * i, 4 * i + 4]} for i, name in enumerate(names)}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack('<Q', len(text)) + text + struct.pack('<f', value) * len(names))
    return path


def msgpack(path, value=1.0):
    path.write_bytes(serialization.msgpack_serialize({'params': {'w': np.full(1, value, np.float32)}}))
    return path


def npz(path, value=1.0):
    with path.open('wb') as file:
        np.savez(file, w=np.full(1, value, np.float32))
    return path


def torch(path, value=1.0):
    """A state dict {'w': [value]}, written opcode by opcode as torch.save does."""
    name = path.stem
    stream = (
        b'\x80\x02}q\x00X\x01\x00\x00\x00wq\x01ctorch._utils\n_rebuild_tensor_v2\nq\x02((X\x07\x00\x00\x00storageq\x03'
        b'ctorch\nFloatStorage\nq\x04X\x01\x00\x00\x000q\x05X\x03\x00\x00\x00cpuq\x06K\x01tq\x07QK\x00K\x01\x85q\x08K\x01'
        b'\x85q\t\x89ccollections\nOrderedDict\nq\n)Rq\x0btq\x0cRq\rs.'
    )
    with zipfile.ZipFile(path, 'w') as file:
        file.writestr(f'{name}/data.pkl', stream)
        file.writestr(f'{name}/byteorder', 'little')
        file.writestr(f'{name}/data/0', struct.pack('<f', value))
        file.writestr(f'{name}/version', '3\n')
    return path


WRITERS = {'safetensors': safetensors, 'msgpack': msgpack, 'npz': npz, 'torch': torch}


@pytest.mark.parametrize('kind', WRITERS)
def test_a_file_is_known_by_its_content(tmp_path, kind):
    opened = open_weights(WRITERS[kind](tmp_path / 'weights', 2.5))
    assert opened.format == kind
    assert opened.path == str(tmp_path / 'weights')
    assert opened.config is None and opened.preprocessor is None
    ((name, entry),) = opened.entries.items()
    assert name == ('params/w' if kind == 'msgpack' else 'w')
    assert (entry.shape, entry.dtype, entry.read().tolist()) == ((1,), np.float32, [2.5])


def test_nothing_heavy_is_loaded():
    program = (
        'import sys; from vidloc.checkpoints.readers import opening; '
        'heavy = {"jax", "flax", "torch", "safetensors", "orbax", "tensorstore"}; '
        'print(sorted(heavy & set(sys.modules)))'
    )
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True)
    assert done.stdout == '[]\n'


def test_tables_beside_a_file_and_in_a_folder(tmp_path):
    safetensors(tmp_path / 'model.safetensors')
    (tmp_path / 'config.json').write_text('{"model_type": "videomae"}')
    (tmp_path / 'preprocessor_config.json').write_text('{"size": 224}')
    for path in (tmp_path, tmp_path / 'model.safetensors'):
        opened = open_weights(path)
        assert opened.config == {'model_type': 'videomae'}
        assert opened.preprocessor == {'size': 224}
        assert 'chosen' not in opened.extras
    (tmp_path / 'video_preprocessor_config.json').write_text('{"size": 256}')
    assert open_weights(tmp_path).preprocessor == {'size': 256}


@pytest.mark.parametrize(
    ('text', 'wrong'), [(b'{"a":', 'it is no JSON'), (b'[1]', 'no table'), (b'\xff', 'it is no JSON')]
)
def test_damaged_tables(tmp_path, text, wrong):
    safetensors(tmp_path / 'model.safetensors')
    (tmp_path / 'config.json').write_bytes(text)
    with pytest.raises(ReadError, match=rf'config\.json: .*{wrong}'):
        open_weights(tmp_path)


def test_shards_of_both_kinds(tmp_path):
    first, second = tmp_path / 'first', tmp_path / 'second'
    first.mkdir()
    second.mkdir()
    safetensors(first / 'model-00001-of-00002.safetensors', 1, ['a'])
    safetensors(first / 'model-00002-of-00002.safetensors', 2, ['b'])
    index = {'weight_map': {'a': 'model-00001-of-00002.safetensors', 'b': 'model-00002-of-00002.safetensors'}}
    (first / 'model.safetensors.index.json').write_text(json.dumps(index))
    torch(second / 'pytorch_model-00001-of-00001.bin', 3)
    index = {'weight_map': {'w': 'pytorch_model-00001-of-00001.bin'}}
    (second / 'pytorch_model.bin.index.json').write_text(json.dumps(index))
    opened = open_weights(first)
    assert {name: entry.read().tolist() for name, entry in opened.entries.items()} == {'a': [1], 'b': [2]}
    assert opened.format == 'safetensors'
    assert 'chosen' not in opened.extras
    opened = open_weights(second / 'pytorch_model.bin.index.json')
    assert {name: entry.read().tolist() for name, entry in opened.entries.items()} == {'w': [3]}
    assert opened.format == 'torch'
    (first / 'model.safetensors.index.json').unlink()
    with pytest.raises(ReadError, match=r'it holds 2 parts of a model .* without the index that joins them'):
        open_weights(first)
    (first / 'model-00002-of-00002.safetensors').unlink()
    with pytest.raises(ReadError, match=r'it holds 1 part of a model .* without the index that joins them'):
        open_weights(first)


def test_an_index_that_names_another_index(tmp_path):
    (tmp_path / 'a.index.json').write_text(json.dumps({'weight_map': {'w': 'a.index.json'}}))
    with pytest.raises(ReadError, match='an index names it as a file of weights, and it is JSON'):
        open_weights(tmp_path / 'a.index.json')


def test_what_is_taken_first_in_a_folder(tmp_path):
    npz(tmp_path / 'other.npz', 1)
    torch(tmp_path / 'optimizer.pt', 0)
    assert open_weights(tmp_path).entries['w'].read().tolist() == [1]
    assert 'chosen' not in open_weights(tmp_path).extras
    torch(tmp_path / 'pytorch_model.bin', 2)
    opened = open_weights(tmp_path)
    assert opened.entries['w'].read().tolist() == [2]
    assert opened.extras['chosen'] == 'pytorch_model.bin, not other.npz'
    safetensors(tmp_path / 'model.safetensors', 3)
    opened = open_weights(tmp_path)
    assert opened.entries['w'].read().tolist() == [3]
    assert opened.extras['chosen'] == 'model.safetensors, not pytorch_model.bin, other.npz'
    assert opened.path == str(tmp_path / 'model.safetensors')


def test_two_files_of_one_kind(tmp_path):
    npz(tmp_path / 'a.npz')
    npz(tmp_path / 'b.npz')
    with pytest.raises(ReadError, match=r'it holds several files of weights: a\.npz, b\.npz\. Name one of them'):
        open_weights(tmp_path)


def test_the_newest_checkpoint_of_scenic(tmp_path):
    for step in (9, 100, 20):
        msgpack(tmp_path / f'checkpoint_{step}', step)
    opened = open_weights(tmp_path)
    assert opened.entries['params/w'].read().tolist() == [100]
    assert opened.extras['chosen'] == 'checkpoint_100, the newest of 3'
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / 'checkpoint_200', {'params': {'w': jnp.full(1, 200.0)}})
    opened = open_weights(tmp_path)
    assert (opened.format, opened.entries['params/w'].read().tolist()) == ('orbax', [200])


def test_the_newest_epoch_of_actionformer(tmp_path):
    for epoch in (5, 34, 30):
        torch(tmp_path / f'epoch_{epoch:03d}.pth.tar', epoch)
    opened = open_weights(tmp_path)
    assert opened.path == str(tmp_path / 'epoch_034.pth.tar')
    assert opened.extras['chosen'] == 'epoch_034.pth.tar, the newest of 3'


def test_the_file_of_the_model_zoo(tmp_path):
    msgpack(tmp_path / 'checkpoint', 3)
    opened = open_weights(tmp_path)
    assert (opened.format, opened.entries['params/w'].read().tolist()) == ('msgpack', [3])


def test_a_folder_of_orbax(tmp_path):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / 'run', {'w': jnp.ones(1)})
    (tmp_path / 'run' / 'config.json').write_text('{"kind": "vivit"}')
    opened = open_weights(tmp_path / 'run')
    assert (opened.format, opened.path, opened.config) == ('orbax', str(tmp_path / 'run'), {'kind': 'vivit'})
    assert opened.entries['w'].read().tolist() == [1]


def archive(*names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as file:
        for name in names:
            file.writestr(name, 'x')
    return buffer.getvalue()


def tar(*names):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w') as file:
        for name in names:
            file.addfile(tarfile.TarInfo(name), io.BytesIO())
    return buffer.getvalue()


def array():
    buffer = io.BytesIO()
    np.save(buffer, np.ones(3))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ('content', 'text'),
    [
        (b'', 'it is empty'),
        (bytes(1000), 'its first 512 bytes are zeros'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n', 'git lfs pull'),
        (b'\n<!DOCTYPE html><html>', 'a web page'),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied", 'a web page'),
        (array(), r'a single NumPy array \(\.npy\)'),
        (b'\x89HDF\r\n\x1a\n' + bytes(90), 'a HDF5 file'),
        (b'GGUF\x03\0\0\0', 'a GGUF file'),
        (b'\x08\x01\x12\x99\x01', 'a TensorFlow SavedModel'),
        (b'\x08\x08\x12\x07pytorch\x1a\x051.0.0', 'an ONNX model'),
        (b'\x1c\0\0\0TFL3' + bytes(90), 'a TensorFlow Lite model'),
        (b'\0' * 3 + b'key' + bytes(90) + bytes.fromhex('57fb808b247547db'), 'a part of a TensorFlow checkpoint'),
        (b'model_checkpoint_path: "model.ckpt-100"\n', 'a part of a TensorFlow checkpoint'),
        (gzip.compress(b'abc', mtime=0), 'packed with gzip'),
        (tar('model/weights.pt'), 'a tar archive'),
        (archive('a.txt', 'b/c.safetensors'), r'a zip archive of 2 files \(a.txt, b/c.safetensors, ...\)'),
        (archive('saved_model.pb', 'variables/variables.index'), 'a packed TensorFlow SavedModel'),
        (archive('a.npy', 'b')[:-30], 'begins as a zip archive .* is cut off or damaged'),
        (archive(), 'without a single tensor'),
        (b'\x80', 'without a single tensor'),
        (b'\x82\xa1a\x01\xa1b\x02', 'without a single tensor'),
        (b'\x81\xa1', 'no sound msgpack file of Flax'),
        (b'{"model_type": "videomae"}', 'without a `weight_map`'),
        (b'some notes about the weights', "begins with b'some notes about', which no known file"),
        (b'\x10\0\0\0\0\0\0\0{', 'it is a damaged safetensors file: its header takes 16 bytes'),
    ],
)
def test_files_that_are_something_else(tmp_path, content, text):
    path = tmp_path / 'model.pth'
    path.write_bytes(content)
    with pytest.raises(ReadError, match=text) as caught:
        open_weights(path)
    assert str(path) in str(caught.value)


class Marks:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_pickles_are_never_run(tmp_path, protocol):
    path = tmp_path / 'model.pth'
    path.write_bytes(pickle.dumps({'w': Marks(tmp_path / 'ran')}, protocol))
    with pytest.raises(ReadError, match=r'model\.pth: it is a pickle'):
        open_weights(path)
    assert not (tmp_path / 'ran').exists()


def test_what_the_first_versions_of_torch_wrote(tmp_path):
    path = tmp_path / 'model.pth'
    # The magic number that torch.save wrote before it wrote archives (torch/serialization.py, MAGIC_NUMBER).
    path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2))
    with pytest.raises(ReadError, match='torch'):
        open_weights(path)
    path.write_bytes(tar('sys_info', 'pickle', 'storages'))
    with pytest.raises(ReadError, match='torch'):
        open_weights(path)


def test_a_name_helps_where_the_first_bytes_are_damaged(tmp_path):
    for name, text in (
        ('a.safetensors', 'damaged safetensors'),
        ('a.npz', r'damaged \.npz'),
        ('a.msgpack', 'no sound'),
    ):
        (tmp_path / name).write_bytes(b'\xff' * 100)
        with pytest.raises(ReadError, match=text):
            open_weights(tmp_path / name)
    (tmp_path / 'a.data-00000-of-00001').write_bytes(b'\xff' * 100)
    with pytest.raises(ReadError, match='a part of a TensorFlow checkpoint'):
        open_weights(tmp_path / 'a.data-00000-of-00001')


def test_paths_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ('https://host/model.safetensors', 'facebook/vjepa2-vitl-fpc64-256'):
        with pytest.raises(ReadError, match=f'^{path}: there is no such file.*othing is downloaded here.*fetch'):
            open_weights(path)
    for path in (r'C:\Users\me\model.safetensors', r'weights\model.safetensors'):
        with pytest.raises(ReadError, match='a path of Windows'):
            open_weights(path)
    with pytest.raises(ReadError, match=r'there is no such file or folder\. Check the path'):
        open_weights(tmp_path / 'missing')
    with pytest.raises(ReadError, match='File name too long'):
        open_weights('a' * 5000)
    os.mkfifo(tmp_path / 'pipe')
    with pytest.raises(ReadError, match='neither a file nor a folder'):
        open_weights(tmp_path / 'pipe')


def test_a_part_of_a_model_is_not_the_model(tmp_path):
    safetensors(tmp_path / 'model-00001-of-00002.safetensors', 1, ['a'])
    with pytest.raises(ReadError, match=r'one of the 2 parts.*index\.json'):
        open_weights(tmp_path / 'model-00001-of-00002.safetensors')
    safetensors(tmp_path / 'model-00001-of-00001.safetensors', 1, ['a'])
    assert open_weights(tmp_path / 'model-00001-of-00001.safetensors').entries.keys() == {'a'}


def test_the_workdir_of_a_run(tmp_path):
    for name in ('config.json', 'model.json', 'frozen.safetensors'):
        (tmp_path / name).write_bytes(b'{}')
    with pytest.raises(ReadError, match=r'the workdir of a run.*tools/export_checkpoint\.py'):
        open_weights(tmp_path)


def test_a_download_that_has_not_ended(tmp_path):
    (tmp_path / 'model.safetensors.incomplete').write_bytes(b'x')
    with pytest.raises(ReadError, match=r'has not ended: model\.safetensors\.incomplete\. Wait'):
        open_weights(tmp_path)


def test_folders_without_weights(tmp_path):
    with pytest.raises(ReadError, match=r'no weights were found in this folder\. It is empty'):
        open_weights(tmp_path)
    (tmp_path / 'snapshots').mkdir()
    (tmp_path / 'notes.txt').write_text('x')
    with pytest.raises(ReadError, match=r'It holds notes\.txt, snapshots'):
        open_weights(tmp_path)
    (tmp_path / 'saved_model.pb').write_bytes(b'\x08\x01')
    with pytest.raises(ReadError, match='a model of TensorFlow'):
        open_weights(tmp_path)
