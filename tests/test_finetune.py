"""configs/finetune.py from a file as it was published: what is read, what is new, and that going on reads nothing."""

import json
import pathlib
import shutil

import jax
import ml_collections
import numpy as np
import pytest
from flax import traverse_util

from vidloc import build, config, run, transfer
from vidloc.checkpoints import frozen, importer, store
from vidloc.data import sources
from vidloc.models import layers

CASE = pathlib.Path(__file__).parent / 'reference/backbones/vjepa2_d12_two_heads'
RECIPE = pathlib.Path(__file__).parent.parent / 'configs/finetune.py'
# The sizes of that case: two layers, two heads of 12, patches of 4 pixels, one layer in the pooler.
SIZES = {
    'backbone.width': 24, 'backbone.mlp': 96, 'backbone.heads': 2, 'backbone.layers': 2, 'backbone.patch': '(4,4)',
    'tasks.clips.head.heads': 2, 'tasks.clips.head.layers': 1, 'train.steps': 2, 'schedule.rate': 0.0,
    'train.batch_size': 4, 'eval.batch_size': 4, 'loading.workers': 0,
    'schedule.warmup_epochs': 0.0,
}  # fmt: skip


def flags(**changes):
    return [f'--config.{key}={value}' for key, value in (SIZES | changes).items()]


@pytest.fixture(scope='module')
def data(mocapstreet, tmp_path_factory):
    """Four of the studio's classes as DIR/<split>/<class>/<video>."""
    out = tmp_path_factory.mktemp('clips')
    names = (mocapstreet / 'studio/classes.txt').read_text().split('\n')
    for split in ('train', 'val'):
        for line in (mocapstreet / f'studio/{split}.txt').read_text().splitlines():
            path, label = line.rsplit(' ', 1)
            if int(label) < 4:
                folder = out / split / names[int(label)]
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(mocapstreet / 'studio' / path, folder)
    return out


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """A copy of the case that the tests may take away."""
    folder = tmp_path_factory.mktemp('weights') / 'vjepa2'
    folder.mkdir()
    for name in ('model.safetensors', 'config.json'):
        shutil.copy(CASE / name, folder)
    return folder


def spec(data, weights, *words):
    return ','.join([f'{RECIPE}:vjepa2-L,weights={weights},data={data},frames=4,side=16', *words])


def test_a_run_begins_with_the_weights_and_goes_on_without_them(program, data, weights, tmp_path):
    workdir = tmp_path / 'run'
    first = program.run(spec(data, weights), workdir, *flags())
    assert first.process.returncode == 0, first.err
    assert 'preprocess.mean (123.675, 116.28, 103.53), as the weights' in first.out, first.out
    # What is frozen is what the file says, bit by bit; its first projection, by hand.
    stored, _ = frozen.read_frozen(workdir / 'frozen.safetensors')
    source = safetensors(weights / 'model.safetensors')
    kernel = source['vjepa2.encoder.layer.1.attention.query.weight'].T.reshape(24, 2, 12)
    np.testing.assert_array_equal(stored['backbone/encoder/block_01/attn/query/kernel'], kernel)
    assert all(name.startswith('backbone/') for name in stored)
    prepared = json.loads((workdir / 'config.json').read_text())['preprocess']
    assert len(prepared['mean']) == 3
    # The file knows three classes: its pooler is taken, the output is new.
    assert 'the output of clips is new: the file knows 3 classes, the task 4' in first.out
    state = trained(workdir)
    query = source['pooler.query_tokens']
    np.testing.assert_array_equal(state['heads_clips/pooler/query'], query)
    assert state['heads_clips/output/kernel'].shape == (24, 4)
    weights.rename(weights.with_name('elsewhere'))
    try:
        again = program.run(spec(data, weights), workdir, *flags(**{'train.steps': 3}))
    finally:
        weights.with_name('elsewhere').rename(weights)
    assert again.process.returncode == 0, again.err
    assert 'used' not in again.out


def safetensors(path):
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], 'little')
    header = json.loads(raw[8 : 8 + length])
    header.pop('__metadata__', None)
    start = 8 + length
    return {
        name: np.frombuffer(raw[start + a : start + b], np.float32).reshape(entry['shape'])
        for name, entry in header.items()
        for a, b in [entry['data_offsets']]
    }


def trained(workdir):
    """{canonical name: array} of what trains, at the newest checkpoint."""
    made = build.experiment(stored_config(workdir))
    shapes, _ = made.partition.split(made.abstract_params)
    _, mark = frozen.read_frozen(workdir / 'frozen.safetensors')
    kept = store.Store(workdir / 'checkpoints', store.Policy(best='eval/clips/top1'), fingerprint=mark, read_only=True)
    state, _ = kept.restore({'params': shapes}, None, partial=True)
    canonical = layers.to_canonical(jax.tree.map(np.asarray, state['params']))
    return traverse_util.flatten_dict(canonical, sep='/')


def changed(recipe, values):
    with recipe.unlocked():
        recipe.update_from_flattened_dict(values | {'backbone.patch': (4, 4)})
    return recipe


def stored_config(workdir):
    return ml_collections.ConfigDict(json.loads((workdir / 'config.json').read_text()))


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'backbone.heads': 4}, 'heads'),
        ({'backbone.layers': 3}, r'block_02'),
        ({'backbone.width': 48}, r'48'),
        ({'tasks.clips.head.layers': 2}, r'head.layers is 2, the file has 1'),
        ({'tasks.clips.head.eps': 1e-3}, r'head.eps is 0.001, the file has 1e-06'),
        ({'backbone.eps': 1e-3}, r'backbone.eps'),
        ({'weights.head': 'other'}, 'other'),
    ],
)
def test_what_does_not_fit_is_said_and_nothing_is_written(data, weights, tmp_path, change, said):
    recipe = changed(config.load(spec(data, weights)), SIZES | change)
    with pytest.raises((config.ConfigError, importer.ImportFailed), match=said):
        run.train(recipe, tmp_path / 'run')
    # Nor a config, which a second start with other settings would have to keep.
    assert not [path for path in (tmp_path / 'run').rglob('*') if path.is_file()]


@pytest.mark.parametrize(
    ('labels', 'order', 'said'),
    [
        (('c', 'a', 'b'), (1, 2, 0), 'put in the order of the task'),
        (('a', 'b', 'c'), (0, 1, 2), 'is that of the file'),
        (None, (0, 1, 2), 'does not name its 3 classes'),
        (('a', 'b', 'd'), None, "other classes, such as 'd'"),
    ],
)
def test_the_output_of_the_file_is_put_in_the_order_of_the_classes(data, weights, tmp_path, labels, order, said):
    for name in ('model.safetensors', 'config.json'):
        shutil.copy(weights / name, tmp_path)
    about = json.loads((tmp_path / 'config.json').read_text())
    about |= {'id2label': {str(i): label for i, label in enumerate(labels or ('LABEL_0', 'LABEL_1', 'LABEL_2'))}}
    (tmp_path / 'config.json').write_text(json.dumps(about))
    recipe = changed(config.load(spec(data, tmp_path)), SIZES | {'tasks.clips.classes': ('a', 'b', 'c')})
    given, text = transfer.begin(build.experiment(recipe))
    assert said in text
    if order is None:
        assert 'heads_clips/output/kernel' not in given
        return
    kernel = safetensors(tmp_path / 'model.safetensors')['classifier.weight'].T  # [D, C]
    np.testing.assert_array_equal(given['heads_clips/output/kernel'], kernel[:, list(order)])


@pytest.mark.parametrize(
    ('argument', 'said'),
    [
        ('vjepa2-Q', "did you mean 'vjepa2-"),
        ('vjepa2-L,videomae-B', 'name one model'),
        ('vjepa2-L,all,last=2', 'exclude each other'),
        ('vjepa2-L,last=two', 'no number of blocks'),
        ('vjepa2-L,frames=four', 'no whole number'),
        ('vjepa2-L,side=0', 'no whole number'),
        ('vjepa2-L,rate=fast', 'no number above 0'),
        ('vjepa2-L,last=99,weights=x', 'has 24 blocks'),
        ('vjepa2-L,head', 'add weights=PATH'),
    ],
)
def test_words_that_make_no_sense_are_refused(data, argument, said):
    with pytest.raises(config.ConfigError, match=said):
        config.load(f'{RECIPE}:{argument}' + ('' if 'data=' in argument else f',data={data}'))


@pytest.mark.parametrize(('model', 'heads'), [('vjepa2-g', 22), ('internvideo2-B', 16), ('internvideo2-6B', 16)])
def test_heads_have_as_many_attention_heads_as_the_published_ones(data, model, heads):
    assert config.load(f'{RECIPE}:{model},data={data}').tasks.clips.head.heads == heads


@pytest.mark.parametrize(
    ('model', 'words'),
    [
        ('vjepa2-L', 'last=2'),
        ('vjepa2-B-2.1', 'all'),
        ('videomae-g', 'all'),
        ('vivit-B', 'last=2'),
        ('vivit_joint-B', 'head'),
        ('internvideo2-1B', 'head'),
    ],
)
def test_every_model_can_be_described(data, model, words):
    made = build.experiment(config.load(f'{RECIPE}:{model},{words},weights=x,data={data}'))
    backbone = [leaf for name, leaf in made.partition.leaves.items() if name.startswith('backbone')]
    assert any(leaf.trainable for leaf in backbone) == (words != 'head')
    assert all(leaf.trainable for leaf in backbone) == (words == 'all')


def test_missing_clips_are_said_before_anything_is_written(tmp_path):
    recipe = config.load(f'{RECIPE}:videomae-S,data={tmp_path / "nowhere"}')
    with pytest.raises(sources.DataError, match=r'(?s)nothing at .*nowhere/train.*clips lie as'):
        run.train(recipe, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()
