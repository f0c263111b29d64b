"""tools/export_checkpoint.py: runs with several tasks, and weights files."""

import json
import pathlib

import jax
import numpy as np
import pytest
from flax import traverse_util

from vidloc import build
from vidloc.checkpoints import frozen, importer, store
from vidloc.models import layers

CASES = pathlib.Path(__file__).parents[1] / 'reference/backbones'
CLASSES = ('wave', 'jump')


def recipe():
    clip = {'frames': 4, 'rate': 8.0, 'size': (8, 8)}
    return build.config(
        name='export',
        backbone={
            'kind': 'videomae', 'width': 12, 'mlp': 20, 'layers': 2, 'heads': 2, 'grid': (2, 2, 2), 'patch': (4, 4),
        },
        tasks={
            'clips': {
                'kind': 'classification',
                'classes': CLASSES,
                'head': {'kind': 'linear', 'norm': True, 'norm_eps': 1e-5},
            },
            'street': {'kind': 'action_detection', 'classes': ('walk',), 'head': {'kind': 'roi', 'size': (2, 2)}},
        },
        sources={
            'clips': {'task': 'clips', 'format': 'folders', **clip},
            'street': {'task': 'street', 'format': 'ava', 'max_boxes': 2, **clip},
        },
        optimizer={'kind': 'adamw'},
        preprocess={'mean': (10.0, 20.0, 30.0), 'std': (40.0, 50.0, 60.0)},
        trainable=((r'backbone/(embedding|encoder/block_00)/.*', None, False), (r'.*', 1.0, True)),
        checkpoint={'best': 'eval/clips/top1'},
        train={'ema': 0.9},
    )  # fmt: skip


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    """The workdir of a run with checkpoints at steps 1 (the best) and 2, and the canonical parameters of step 2."""
    folder = tmp_path_factory.mktemp('run')
    config = recipe()
    experiment = build.experiment(config)
    store.write_json(folder / 'config.json', json.loads(config.to_json_best_effort()))
    tasks = {name: {'classes': list(task.classes)} for name, task in experiment.tasks.items()}
    store.write_json(folder / 'model.json', {'tasks': tasks})
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), experiment.abstract_params)
    trained, still = experiment.partition.split(params)
    flat = traverse_util.flatten_dict(layers.to_canonical(still), sep='/')
    mark = frozen.write_frozen(folder / 'frozen.safetensors', flat)
    with store.Store(folder / 'checkpoints', fingerprint=mark) as checkpoints:
        for step, factor, score in ((1, 2.0, 0.9), (2, 1.0, 0.5)):
            average = jax.tree.map(lambda leaf, factor=factor: leaf * factor, trained)
            zeros = jax.tree.map(np.zeros_like, trained)
            checkpoints.save(step, {'params': zeros, 'ema': average}, {'eval/clips/top1': score})
    return folder, traverse_util.flatten_dict(layers.to_canonical(params), sep='/')


def exported(out):
    """(what the importer finds in the folder, its canonical parameters)"""
    found = importer.load(out)
    return found, traverse_util.flatten_dict(layers.to_canonical(found.params), sep='/')


def test_a_run(workdir, run_tool, tmp_path):
    folder, params = workdir
    done = run_tool('export_checkpoint', folder, '--out', tmp_path / 'out', '--task', 'clips')
    assert done.returncode == 0, done.stderr
    assert 'VideoMAEForVideoClassification' in done.stdout
    assert 'step 2; trained on clips of 4 frames, 8 a second' in done.stdout
    found, arrays = exported(tmp_path / 'out')
    assert found.labels == CLASSES
    np.testing.assert_allclose(found.preprocessing.mean, (10, 20, 30))
    np.testing.assert_allclose(found.preprocessing.std, (40, 50, 60))
    assert found.preprocessing.size == (8, 8) and found.preprocessing.frames == 4
    assert len(arrays) > 20
    for name, value in arrays.items():
        root, _, rest = name.partition('/')
        expected = params[f'heads_clips/{rest}' if root == 'head' else name]
        np.testing.assert_array_equal(value, expected, err_msg=name)


def test_a_head_for_boxes_and_another_checkpoint(workdir, run_tool, tmp_path):
    folder, params = workdir
    out = tmp_path / 'out'
    done = run_tool('export_checkpoint', folder, '--out', out, '--task', 'street', '--checkpoint', 'best')
    assert done.returncode == 0, done.stderr
    assert 'VideoMAEModel' in done.stdout and "ours of kind 'roi'" in done.stdout and 'step 1;' in done.stdout
    found, arrays = exported(out)
    assert found.head is None and found.labels is None
    still, moved = 'backbone/encoder/block_00/attn/out/kernel', 'backbone/encoder/block_01/attn/out/kernel'
    np.testing.assert_array_equal(arrays[still], params[still])
    np.testing.assert_array_equal(arrays[moved], 2 * params[moved])


@pytest.mark.parametrize(
    ('arguments', 'text'),
    [
        ((), "--task '': the tasks of this run are clips, street"),
        (('--task', 'studio'), "--task 'studio': the tasks of this run are clips, street"),
        (('--task', 'clips', '--checkpoint', '7'), "no checkpoint '7'"),
    ],
)
def test_what_a_run_does_not_have(workdir, run_tool, tmp_path, arguments, text):
    done = run_tool('export_checkpoint', workdir[0], '--out', tmp_path / 'out', *arguments)
    assert done.returncode == 2 and text in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / 'out').exists()


def test_weights(run_tool, tmp_path):
    done = run_tool('export_checkpoint', CASES / 'videomae_b', '--out', tmp_path / 'out')
    assert done.returncode == 0, done.stderr
    given, found = (exported(path)[1] for path in (CASES / 'videomae_b', tmp_path / 'out'))
    assert given.keys() == found.keys()
    for name, value in given.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    again = run_tool('export_checkpoint', CASES / 'videomae_b', '--out', tmp_path / 'out')
    assert again.returncode == 2 and 'is there already' in again.stderr
    gone = run_tool('export_checkpoint', tmp_path / 'gone', '--out', tmp_path / 'other')
    assert gone.returncode == 2 and 'nothing at' in gone.stderr
