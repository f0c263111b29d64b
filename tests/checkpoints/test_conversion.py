"""Damaged, incomplete and hostile files: an error that says what is wrong, nothing run, nothing half imported."""

import json
import os
import pathlib
import pickle
import zipfile

import numpy as np
import pytest

from vidloc.checkpoints import conversion, inflation
from vidloc.checkpoints.families import FamilyError
from vidloc.checkpoints.importer import ImportFailed
from vidloc.checkpoints.readers.weights import ReadError

REFERENCE = pathlib.Path(__file__).parents[1] / 'reference'
GRID = {'heads': 2, 'grid': (2, 3, 3)}


@pytest.fixture
def refused(toys, tmp_path):
    """(path, or change of the arrays of a VideoMAE file; error) -> its text; nothing may be left behind"""

    def check(source, error):
        if callable(source):
            _, arrays = toys.arrays('videomae_original')
            source(arrays)
            source = toys.write_safetensors(tmp_path / 'file.safetensors', arrays)
        before = sorted(tmp_path.iterdir())
        with pytest.raises(error) as caught:
            conversion.convert(source, tmp_path / 'out', overrides=GRID)
        assert sorted(tmp_path.iterdir()) == before
        return str(caught.value)

    return check


@pytest.mark.parametrize('share', [0.001, 0.3, 0.999])
def test_cut_off(refused, toys, tmp_path, share):
    _, path = toys.write(tmp_path, 'videomae_original')
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert str(path) in refused(path, ReadError)


def test_wrong_shapes(refused):
    def change(arrays):
        for i in range(3):
            arrays[f'blocks.{i}.mlp.fc2.weight'] = np.zeros((32, 40), np.float32)

    text = refused(change, ImportFailed)
    assert 'backbone/encoder/block_{00..02}/mlp/fc2/kernel: [32, 40] in the file, [48, 32] in the model' in text


def test_a_layer_that_is_missing(refused):
    def change(arrays):
        for name in [name for name in arrays if name.startswith('blocks.1.')]:
            del arrays[name]

    assert 'nothing of layer 1' in refused(change, FamilyError)


def test_a_layer_too_many(refused, tmp_path):
    config = {'model_type': 'videomae', 'num_attention_heads': 2, 'num_hidden_layers': 2}
    (tmp_path / 'config.json').write_text(json.dumps(config))
    assert 'the weights have 3 layers' in refused(lambda arrays: None, FamilyError)


def test_an_array_of_a_layer_too_many(refused):
    def change(arrays):
        arrays['blocks.3.mlp.fc1.bias'] = np.zeros(48, np.float32)

    assert 'backbone/encoder/block_03/* (14 names)' in refused(change, ImportFailed)


class Hostile:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_pickle_that_would_run_a_command(refused, tmp_path):
    path, mark = tmp_path / 'hostile.pt', tmp_path / 'it_ran'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', pickle.dumps({'model': Hostile(f'touch {mark}')}))
        archive.writestr('archive/version', '3')
    assert 'system' in refused(path, ReadError)
    assert not mark.exists()


def test_a_file_of_old_pytorch(refused):
    text = refused(REFERENCE / 'torch_zip' / 'legacy.pt', ReadError)
    assert 'legacy.pt' in text


def test_objects_in_npz(refused, toys, tmp_path):
    mark = tmp_path / 'it_ran'
    _, arrays = toys.image_arrays('augreg')
    arrays['cls'] = np.array([Hostile(f'touch {mark}')], dtype=object)
    np.savez(tmp_path / 'vit.npz', **arrays)
    assert 'cls' in refused(tmp_path / 'vit.npz', ReadError)
    assert not mark.exists()


def test_another_family(refused, toys, tmp_path):
    arrays = {
        'transformer.wte.weight': np.zeros((7, 8), np.float32),
        'transformer.h.0.ln_1.bias': np.zeros(8, np.float32),
    }
    text = refused(toys.write_safetensors(tmp_path / 'text.safetensors', arrays), FamilyError)
    assert 'V-JEPA 2' in text and 'VideoMAE' in text


def test_images_need_to_be_told_what_they_become(refused, toys, tmp_path):
    _, arrays = toys.image_arrays('augreg')
    np.savez(tmp_path / 'vit.npz', **arrays)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ImportFailed, match='--into'):
        conversion.convert(tmp_path / 'vit.npz', tmp_path / 'out')
    with pytest.raises(inflation.InflationError, match='frames 5, which is no multiple of 2'):
        conversion.convert(tmp_path / 'vit.npz', tmp_path / 'out', into=conversion.Target('vivit', frames=5))
    assert sorted(tmp_path.iterdir()) == before
