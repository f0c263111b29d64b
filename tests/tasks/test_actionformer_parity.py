"""The task around the ActionFormer head against numbers of the public code (tests/reference/actionformer)."""

import functools
import importlib.util
import json
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from vidloc.models import actionformer
from vidloc.ops import points as point_ops
from vidloc.tasks import segment_targets
from vidloc.tasks.temporal_localization import TemporalLocalization
from vidloc.train import optimizer as optimizer_lib
from vidloc.train import state as state_lib
from vidloc.train import step as step_lib
from vidloc.train import trainable

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / 'reference/actionformer'
TAG = 'thumos_small_win5'
spec = importlib.util.spec_from_file_location('actionformer_names', ROOT / 'models/actionformer_names.py')
actionformer_names = importlib.util.module_from_spec(spec)
spec.loader.exec_module(actionformer_names)

LEVELS, CLASSES, LENGTH = 4, 5, 128
HEAD = actionformer.ActionFormer(
    classes=CLASSES,
    inputs=32,
    width=64,
    levels=LEVELS,
    windows=(5,),
    ranges=((0, 4), (4, 8), (8, 16), (16, 10000)),
    layer_scale=0.0,
    drop_path=0.0,
)
TASK = TemporalLocalization(classes=tuple('abcde'), head_module=HEAD)


def read(name):
    with np.load(FOLDER / f'{TAG}_{name}.npz') as file:
        return dict(file)


def parameters(name):
    return {'heads_tal': actionformer_names.tree(read(name))}


def apply(params, batches, *, train, rngs):
    batch = batches['tal']
    return {
        'tal': HEAD.apply(
            {'params': params['heads_tal']},
            batch['sequence'],
            batch['grid_valid'],
            train=train,
            rngs=rngs,
            method='run',
        )
    }


@pytest.fixture(scope='module')
def arrays():
    return read('io')


@pytest.fixture(scope='module')
def meta():
    return json.loads((FOLDER / f'{TAG}_meta.json').read_text())


@pytest.fixture(scope='module')
def batch(arrays):
    """Two videos; the second has fewer features, and rows of segments are left over in both."""
    limit = 8
    segments = np.zeros((2, limit, 2), np.float32)
    labels, mask = np.zeros((2, limit), np.int32), np.zeros((2, limit), bool)
    for b in range(2):
        count = len(arrays[f'labels_{b}'])
        segments[b, :count], labels[b, :count] = arrays[f'segments_{b}'], arrays[f'labels_{b}']
        mask[b, :count] = True
    return {
        'sequence': arrays['input'].transpose(0, 2, 1),  # [B, C, T] -> [B, T, C]
        'grid_valid': arrays['mask'][:, 0],
        'segments': segments,
        'segment_labels': labels,
        'segment_mask': mask,
        'example_valid': np.ones(2, bool),
    }


@pytest.fixture(scope='module')
def predictions(outputs, batch):
    return jax.device_get(jax.jit(TASK.decode)(outputs, batch))


@pytest.fixture(scope='module')
def outputs(arrays):
    """What the public network says, in the form of our outputs."""

    def joined(name):
        return np.concatenate([arrays[f'{name}_{i}'] for i in range(LEVELS)], axis=-1)  # [B, C, P]

    return actionformer.Outputs(
        logits=jnp.asarray(joined('cls_logits').transpose(0, 2, 1)),
        distances=jnp.asarray(joined('offsets').transpose(0, 2, 1)),
        valid=jnp.asarray(joined('mask')[:, 0]),
    )


def test_targets(arrays, batch):
    points = point_ops.points(LENGTH, HEAD.ranges)
    rows = (batch[name] for name in ('segments', 'segment_labels', 'segment_mask'))
    assign = functools.partial(segment_targets.assign, points, classes=CLASSES, radius=1.5)
    found = jax.jit(assign)(*rows)
    for b in range(2):
        np.testing.assert_array_equal(found.classes[b], arrays[f'gt_cls_{b}'])
        positive = arrays[f'gt_cls_{b}'].any(axis=1)
        assert 0 < positive.sum() < len(positive)
        np.testing.assert_array_equal(found.offsets[b][positive], arrays[f'gt_offsets_{b}'][positive])


def test_losses_and_normalizer(batch, outputs, meta):
    weight, state = jax.jit(TASK.weight)(batch, TASK.init_state())
    assert float(weight) == float(state) == pytest.approx(meta['loss_normalizer_after_one_step'], rel=1e-6)
    loss = jax.jit(functools.partial(TASK.loss, train=True))(outputs, batch)
    assert float(loss.logs['positives'][0]) == meta['num_positive']
    expected = meta['losses']
    assert float(loss.logs['classification'][0] / weight) == pytest.approx(expected['cls_loss'], rel=1e-5)
    assert float(loss.logs['regression'][0] / weight) == pytest.approx(expected['reg_loss'], rel=1e-5)
    assert float(loss.sum / weight) == pytest.approx(expected['final_loss'], rel=1e-5)


def test_candidates(arrays, predictions):
    for b in range(2):
        found = {name: values[b][predictions['valid'][b]] for name, values in predictions.items()}
        np.testing.assert_array_equal(found['labels'], arrays[f'prenms_labels_{b}'])
        np.testing.assert_allclose(found['scores'], arrays[f'prenms_scores_{b}'], atol=1e-5)
        np.testing.assert_allclose(found['segments'], arrays[f'prenms_segments_{b}'], atol=1e-4)


@pytest.mark.parametrize('multiple', [1.0, 37.5])
def test_detections(arrays, predictions, multiple):
    """In seconds, as in the public code's grid units: the unit does not matter, not even one 37.5 times as large."""
    fps, stride, span, duration = 30 / multiple, 4, 16, 60 * multiple
    examples = [
        types.SimpleNamespace(video=f'v{b}', grid_start=0.5 * span / fps, grid_step=stride / fps, limit=duration)
        for b in range(2)
    ]
    collector = TASK.collector(examples)
    collector.add(np.arange(2), np.ones(2, bool), predictions)
    found = collector.detections()
    for b in range(2):
        rows = found['video'] == f'v{b}'
        np.testing.assert_array_equal(found['label'][rows], arrays[f'det_labels_{b}'])
        np.testing.assert_allclose(found['score'][rows], arrays[f'det_scores_{b}'], atol=1e-5)
        ends = np.stack([found['start'][rows], found['end'][rows]], axis=1) / multiple
        np.testing.assert_allclose(ends, arrays[f'det_segments_{b}'], atol=1e-4)


def test_twelve_steps_of_training(batch):
    told = json.loads((FOLDER / f'{TAG}_train12.json').read_text())
    start = parameters('state_dict')
    tree = jax.tree.map(jnp.asarray, start)
    partition = trainable.resolve(((rf'.*/{trainable.PLAIN}', 1.0, False), ('.*', 1.0, True)), tree)
    decayed = {name for name, leaf in partition.leaves.items() if leaf.decay is True}
    assert decayed == {f'heads_tal/{actionformer_names.name(name)}' for name in told['weight_decay_params']}

    optimizer = optimizer_lib.Optimizer(
        rule=optimizer_lib.AdamW(weight_decay=0.05),
        schedule=optimizer_lib.Schedule(rate=1e-3, total=12, warmup=4, end=1e-8, warmup_from_zero=True),
        rates=partition.rates(),
        decay=partition.decay(),
        clip=1.0,
        ema=0.999,
    )
    tasks = {'tal': TASK}
    step = step_lib.make_train_step(apply, tasks, optimizer)
    state = state_lib.create(tree, optimizer, tasks, seed=0)
    for expected in told['log']:
        state, metrics = step(state, {}, {'tal': batch})
        weight = float(state.tasks['tal'])
        logs = metrics['logs']['tal']
        assert weight == pytest.approx(expected['loss_normalizer'], rel=1e-6)
        assert float(metrics['rate']) == pytest.approx(expected['lr_used'], abs=1e-9)
        assert float(metrics['gradient_norm']) == pytest.approx(expected['grad_norm_before_clip'], rel=1e-3)
        assert float(logs['classification'][0]) / weight == pytest.approx(expected['cls_loss'], rel=1e-3)
        assert float(logs['regression'][0]) / weight == pytest.approx(expected['reg_loss'], rel=1e-3)
        assert float(metrics['loss']) == pytest.approx(expected['final_loss'], rel=1e-3)
    noise = ('key/bias', 'key_norm/bias')  # their gradient is 0 but for rounding, which Adam makes steps of
    for found, name in ((state.params, 'after12_state_dict'), (state.ema, 'after12_ema_state_dict')):
        expected = traverse_util.flatten_dict(parameters(name), sep='/')
        before = traverse_util.flatten_dict(start, sep='/')
        for key, value in traverse_util.flatten_dict(found, sep='/').items():
            np.testing.assert_allclose(value, expected[key], atol=1e-3, err_msg=key)
            if not key.endswith(noise):
                moved = np.abs(expected[key] - before[key]).max()
                np.testing.assert_allclose(value, expected[key], atol=0.1 * moved, err_msg=f'{key}: as it moved')
