"""Weights in a folder of our own: the same bits, whole or not at all."""

import hashlib
import json
import shutil

import jax
import numpy as np
import pytest

from vidloc.checkpoints import conversion, converted, importer
from vidloc.checkpoints.readers.weights import ReadError

HEADS = {'heads': 2}


@pytest.fixture
def folder(toys, tmp_path):
    """(path of a file, the folder that it was converted to)"""
    _, path = toys.write(tmp_path, 'vjepa2_official')
    out = tmp_path / 'made' / 'converted'
    conversion.convert(path, out, overrides=HEADS)
    return path, out


@pytest.fixture
def small_groups(monkeypatch):
    monkeypatch.setattr(converted, 'GROUP', 20_000)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)
    return jax.tree.structure(a) == jax.tree.structure(b)


def test_the_same_parameters_to_the_bit(toys, folder):
    path, out = folder
    direct, again = importer.load(path, overrides=HEADS), importer.load(out)
    assert same(direct.params, again.params)
    assert again.backbone == direct.backbone
    assert again.family == 'vjepa2' and again.preprocessing == direct.preprocessing
    weights, found = importer.read(out)
    plan = importer.plan(weights, found, importer.own_shapes(weights, found))
    for name, array in toys.arrays('vjepa2_official')[0].items():
        np.testing.assert_array_equal(plan.fill[name](), array)
    assert not plan.initialised


def test_what_was_settled_when_it_was_imported_is_not_chosen_again(folder):
    _, out = folder
    with pytest.raises(ReadError, match='which and heads cannot be chosen any more'):
        importer.read(out, which='encoder', overrides=HEADS)


def test_many_parameters_are_written_in_groups(small_groups, folder):
    path, out = folder
    assert len(list(out.glob('params_*'))) > 2
    assert same(importer.load(path, overrides=HEADS).params, importer.load(out).params)
    shutil.rmtree(out / 'params_001')
    with pytest.raises(ReadError, match='does not list'):
        importer.read(out)


def test_the_fingerprint_does_not_depend_on_groups(toys, folder, small_groups):
    path, out = folder
    conversion.convert(path, out.with_name('again'), overrides=HEADS)
    marks = {converted.describe(each)['fingerprint'] for each in (out, out.with_name('again'))}
    assert len(marks) == 1
    _, other = toys.write(out.parent, 'vjepa2_official', seed=1)
    conversion.convert(other, out.with_name('other'), overrides=HEADS)
    assert converted.describe(out.with_name('other'))['fingerprint'] not in marks


def test_with_a_head_and_labels(toys, tmp_path):
    (tmp_path / 'source').mkdir()
    _, path = toys.write(tmp_path / 'source', 'videomae_hf')
    labels = {str(i): f'class {i}' for i in range(5)}
    config = {'model_type': 'videomae', 'num_attention_heads': 2, 'id2label': labels, 'num_frames': 4, 'image_size': 12}
    (tmp_path / 'source' / 'config.json').write_text(json.dumps(config))
    done = conversion.convert(path, tmp_path / 'out')
    model = importer.load(tmp_path / 'out')
    assert model.labels == tuple(labels.values())
    assert model.found.head == importer.load(path).found.head
    assert same(model.params, importer.load(path).params)
    assert f'init_from={str(tmp_path / "out")!r}' in done.config
    assert "'kind': 'videomae', 'width': 32" in done.config and "'kernel'" not in done.config


def test_what_is_not_in_an_image_model_is_not_in_the_folder_either(toys, tmp_path):
    _, arrays = toys.image_arrays('augreg')
    np.savez(tmp_path / 'vit.npz', **arrays)
    target = conversion.Target('vivit', frames=4, temporal_layers=1)
    conversion.convert(tmp_path / 'vit.npz', tmp_path / 'out', into=target)
    model = importer.load(tmp_path / 'out')
    assert model.family == 'vivit'
    fresh = {row.name for row in model.rows if row.kind == 'initialised'}
    assert fresh and all(name.startswith('backbone/temporal/') for name in fresh)
    assert same(model.params, importer.load(tmp_path / 'vit.npz', into=model.found.backbone).params)


def test_what_is_written_beside_the_parameters(toys, folder):
    path, out = folder
    about = converted.describe(out)
    assert about['source'] == {'name': path.name, 'sha256': hashlib.sha256(path.read_bytes()).hexdigest()}
    assert about['table'] == {'used': len(toys.arrays('vjepa2_official')[1]) + 3 * 2 * 2}
    assert about['format'] == 1 and len(about['fingerprint']) == 64
    assert about['parameters'].keys() == toys.arrays('vjepa2_official')[0].keys()


def test_a_folder_that_is_there_is_left_alone(folder):
    path, out = folder
    before = sorted(out.rglob('*'))
    with pytest.raises(FileExistsError, match='is there already'):
        conversion.convert(path, out, overrides=HEADS)
    assert sorted(out.rglob('*')) == before
    empty = out.parent / 'empty'
    empty.mkdir()
    conversion.convert(path, empty, overrides=HEADS)
    assert converted.is_converted(empty)


def test_nothing_is_left_of_an_import_that_fails(toys, tmp_path):
    _, arrays = toys.arrays('vjepa2_official')
    arrays['blocks.2.mlp.fc2.bias'][:] = np.nan
    path = toys.write_safetensors(tmp_path / 'nan.safetensors', arrays)
    with pytest.raises(importer.ImportFailed, match='not finite'):
        conversion.convert(path, tmp_path / 'out', overrides=HEADS)
    assert [entry.name for entry in tmp_path.iterdir()] == ['nan.safetensors']


def test_nothing_is_left_where_the_disk_refuses(toys, folder, monkeypatch):
    from vidloc.checkpoints import store

    def refuse(path, value):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(store, 'write_json', refuse)
    path, out = folder
    with pytest.raises(OSError, match='No space left'):
        conversion.convert(path, out.with_name('second'), overrides=HEADS)
    assert [entry.name for entry in out.parent.iterdir()] == [out.name]


def block(out, name):
    """A file with the values of a parameter."""
    return next(path for path in (out / 'params_000' / name.replace('/', '.')).iterdir() if path.name[0].isdecimal())


def test_a_changed_number_is_seen(folder):
    _, out = folder
    array = importer.read(out)[0].entries['backbone/norm/scale'].read()
    array[3] += 1
    import tensorstore

    spec = {'driver': 'zarr', 'kvstore': {'driver': 'file', 'path': f'{out}/params_000/backbone.norm.scale/'}}
    tensorstore.open(spec, open=True).result().write(array).result()
    with pytest.raises(ReadError, match='backbone/norm/scale is not what was written'):
        importer.load(out)


def test_a_lost_block_is_not_taken_for_zeros(folder):
    _, out = folder
    block(out, 'backbone/norm/scale').unlink()
    with pytest.raises(ReadError, match='backbone/norm/scale'):
        importer.load(out)


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (lambda about: about.update(format=2), 'newer than this vidloc'),
        (lambda about: about['parameters'].pop('backbone/norm/scale'), 'does not list the parameters that are there'),
        (lambda about: about['parameters'].update({'backbone/norm/scale': [[7], 0]}), 'it was written with'),
        (lambda about: about.pop('backbone'), 'it lacks backbone'),
        (lambda about: about.clear(), 'it is damaged'),
    ],
)
def test_a_damaged_description_is_named(folder, change, said):
    _, out = folder
    about = json.loads((out / converted.ABOUT).read_text())
    change(about)
    (out / converted.ABOUT).write_text(json.dumps(about))
    with pytest.raises(ReadError, match=said):
        importer.read(out)


def test_a_shortened_description_is_named(folder):
    _, out = folder
    (out / converted.ABOUT).write_text('{"format": 1')
    with pytest.raises(ReadError, match='it is damaged'):
        importer.load(out)
