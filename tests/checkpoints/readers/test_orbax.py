"""Folders of orbax, in every form that it writes, and of vidloc's own store; damage is named."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from vidloc.checkpoints import store
from vidloc.checkpoints.readers import orbax
from vidloc.checkpoints.readers.weights import ReadError


def tree():
    return {
        'params': {
            'enc.x': {'kernel': jnp.arange(12, dtype=jnp.bfloat16).reshape(3, 4)},
            'a/b': np.arange(6.0).reshape(2, 3),
            'zeros': np.zeros((2, 2), np.float32),
            'layers': [np.ones(2, np.int8), {'k': jnp.float32(3)}],
            'none': None,
            'empty': {},
        },
        'step': jnp.array(3, jnp.int32),
        'rate': 0.5,
    }


ARRAYS = {
    'params/enc.x/kernel': tree()['params']['enc.x']['kernel'],
    'params/a/b': tree()['params']['a/b'],
    'params/zeros': tree()['params']['zeros'],
    'params/layers/0': tree()['params']['layers'][0],
    'params/layers/1/k': tree()['params']['layers'][1]['k'],
    'step': tree()['step'],
}


def check(entries):
    assert entries.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        found = entries[name].read()
        assert found.dtype == entries[name].dtype == array.dtype
        assert found.shape == entries[name].shape == array.shape
        np.testing.assert_array_equal(found, np.asarray(array))
        assert found.flags.owndata and found.flags.c_contiguous and found.flags.writeable


@pytest.fixture(scope='module')
def standard(tmp_path_factory):
    folder = tmp_path_factory.mktemp('orbax') / 'standard'
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder, tree())
    return folder


def test_standard(standard):
    entries, extras = orbax.read(standard)
    check(entries)
    assert extras == {'rate': 0.5}
    assert orbax.is_checkpoint(standard)


@pytest.mark.parametrize('database', [True, False])
@pytest.mark.parametrize('zarr3', [True, False])
def test_pytree(tmp_path, database, zarr3):
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=database, use_zarr3=zarr3)
    with ocp.Checkpointer(handler) as checkpointer:
        checkpointer.save(tmp_path / 'pytree', {**tree(), 'name': 'ViT'})
    entries, extras = orbax.read(tmp_path / 'pytree')
    check(entries)
    assert extras == {'rate': 0.5, 'name': 'ViT'}


def test_steps_of_a_manager(tmp_path):
    with ocp.CheckpointManager(tmp_path / 'run') as manager:
        for step in (9, 10):
            manager.save(step, args=ocp.args.StandardSave({'w': jnp.full(3, step)}))
    entries, extras = orbax.read(tmp_path / 'run')
    assert entries['w'].read().tolist() == [10, 10, 10]
    assert extras['chosen'].startswith('step 10, the newest of 9, 10')
    entries, extras = orbax.read(tmp_path / 'run' / '9')
    assert entries['w'].read().tolist() == [9, 9, 9]
    assert extras == {}


def test_a_step_of_several_items(tmp_path):
    save = ocp.args.StandardSave
    with ocp.CheckpointManager(tmp_path / 'run') as manager:
        items = {
            'params': save({'w': jnp.ones(3)}),
            'ema': save({'w': jnp.zeros(3)}),
            'about': ocp.args.JsonSave({'a': 1}),
        }
        manager.save(1, args=ocp.args.Composite(**items))
    entries, extras = orbax.read(tmp_path / 'run')
    assert {name: entry.read().tolist() for name, entry in entries.items()} == {
        'ema/w': [0, 0, 0],
        'params/w': [1, 1, 1],
    }
    assert extras == {'about': {'a': 1}}


def test_our_own_checkpoints(tmp_path):
    state = {'params': {'block_00': {'w': np.arange(3, dtype=np.float32)}}, 'step': np.array(5)}
    with store.Store(tmp_path / 'checkpoints', fingerprint='abc') as ours:
        ours.save(5, state, {'map': 0.25})
    for folder in (tmp_path / 'checkpoints', tmp_path / 'checkpoints' / '5', tmp_path / 'checkpoints' / '5' / 'state'):
        entries, _ = orbax.read(folder)
        assert {name: entry.read().tolist() for name, entry in entries.items()} == {
            'params/block_00/w': [0, 1, 2],
            'step': 5,
        }
    assert orbax.read(tmp_path / 'checkpoints')[1]['about']['metrics'] == {'map': 0.25}


def changed(folder, change):
    metadata = json.loads((folder / '_METADATA').read_text())
    change(metadata)
    (folder / '_METADATA').write_text(json.dumps(metadata))


def rename(metadata, key):
    leaf = next(iter(metadata['tree_metadata'].values()))
    leaf['key_metadata'] = [{'key': key, 'key_type': 2}]


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (lambda metadata: metadata.pop('tree_metadata'), 'not described as orbax does'),
        (lambda metadata: metadata['tree_metadata'].update(x=3), 'not described as orbax does'),
        (lambda metadata: rename(metadata, '../../elsewhere'), 'is no name'),
        (lambda metadata: rename(metadata, 'elsewhere'), "'elsewhere' in this checkpoint of orbax cannot be read"),
        (lambda metadata: metadata['tree_metadata'].update(x=metadata['tree_metadata']["('step',)"]), 'one name'),
        (lambda metadata: metadata.update(use_zarr3=True), 'cannot be read'),
    ],
)
def test_damaged_descriptions(standard, tmp_path, change, text):
    folder = shutil.copytree(standard, tmp_path / 'a')
    changed(folder, change)
    with pytest.raises(ReadError, match=text) as caught:
        orbax.read(folder)
    assert str(folder) in str(caught.value)
    assert 'tensorstore_spec' not in str(caught.value)


def test_missing_and_damaged_files(standard, tmp_path):
    folder = shutil.copytree(standard, tmp_path / 'a')
    (folder / '_METADATA').write_text('{')
    with pytest.raises(ReadError, match='it is no JSON of orbax'):
        orbax.read(folder)
    (folder / '_METADATA').unlink()
    with pytest.raises(ReadError, match='it is no checkpoint of orbax'):
        orbax.read(folder)
    assert not orbax.is_checkpoint(folder)
    folder = shutil.copytree(standard, tmp_path / 'b')
    shutil.rmtree(folder / 'd')
    with pytest.raises(ReadError, match='cannot be read'):
        orbax.read(folder)
    unfinished = shutil.copytree(standard, tmp_path / 'c.orbax-checkpoint-tmp-1')
    with pytest.raises(ReadError, match='never came to its end'):
        orbax.read(unfinished)


def test_a_block_that_is_missing_is_not_zeros(tmp_path):
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False)) as checkpointer:
        checkpointer.save(tmp_path / 'a', {'w': np.ones((2, 3)), 'zeros': np.zeros(3)})
    entries, _ = orbax.read(tmp_path / 'a')
    (tmp_path / 'a' / 'w' / '0.0').unlink()
    with pytest.raises(ReadError, match="'w' in this checkpoint of orbax cannot be read"):
        entries['w'].read()
    assert entries['zeros'].read().tolist() == [0, 0, 0]


def test_a_shape_beyond_memory(tmp_path):
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False)) as checkpointer:
        checkpointer.save(tmp_path / 'a', {'w': np.ones(3)})
    description = tmp_path / 'a' / 'w' / '.zarray'
    description.write_text(json.dumps(json.loads(description.read_text()) | {'shape': [1 << 50]}))
    with pytest.raises(ReadError, match="'w' in this checkpoint of orbax cannot be read: Unable to allocate"):
        orbax.read(tmp_path / 'a')[0]['w'].read()
