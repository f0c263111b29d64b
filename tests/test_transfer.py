"""Pretraining, then a run that starts from its backbone, through the program and by its parts."""

import json
import pathlib
import shutil

import jax
import ml_collections
import numpy as np
import pytest
from flax import traverse_util

from vidloc import build, config, run, settling, transfer
from vidloc.checkpoints import store
from vidloc.models import layers


def changed(tiny_run, **backbone):
    recipe = config.load(tiny_run('street', 'unscored'))
    with recipe.unlocked():
        recipe.backbone.update(backbone)
    return build.experiment(recipe).abstract_params


@pytest.fixture(scope='module')
def first(tiny_run, tmp_path_factory):
    """The workdir of a run at step 2, and its backbone {canonical name: array}: the average, twice the parameters."""
    folder = tmp_path_factory.mktemp('runs') / 'first'
    experiment = build.experiment(config.load(tiny_run('street', 'unscored')))
    folder.mkdir()
    store.write_json(folder / 'config.json', json.loads(experiment.config.to_json_best_effort()))
    tasks = {name: {'classes': list(task.classes)} for name, task in experiment.tasks.items()}
    store.write_json(folder / 'model.json', {'tasks': tasks})
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), experiment.abstract_params)
    average = jax.tree.map(lambda leaf: 2 * leaf, params)
    with store.Store(folder / 'checkpoints') as checkpoints:
        checkpoints.save(2, {'params': params, 'ema': average}, {})
    return folder, {name: value for name, value in flat(average).items() if name.startswith('backbone/')}


def test_a_run_starts_from_the_backbone_and_reads_it_only_once(program, tiny_run, first, tmp_path, capsys):
    workdir, average = first
    # At a rate of zero it stays what it began with.
    still = ('--config.schedule.rate=0.0', '--config.schedule.warmup_steps=1', '--config.train.ema=0.0')
    recipe = tiny_run('street', 'unscored')
    done = program.run(recipe, tmp_path / 'run', f'--config.init_from={workdir}', '--config.train.steps=1', *still)
    assert done.process.returncode == 0, done.err
    assert f'backbone of {workdir}, trained for 2 steps' in done.out
    begun, _ = transfer.read_backbone(str(done.workdir))
    assert begun.keys() == average.keys()
    for name, value in average.items():
        np.testing.assert_array_equal(begun[name], value, err_msg=name)
    going_on = config_of(done.workdir)
    with going_on.unlocked():
        going_on.init_from = 'gone'
    run.train(going_on, done.workdir)
    said = capsys.readouterr().out
    assert 'already trained' in said and 'backbone of' not in said


def config_of(workdir):
    return ml_collections.ConfigDict(json.loads((workdir / 'config.json').read_text()))


def flat(tree):
    return {
        name: np.asarray(value)
        for name, value in traverse_util.flatten_dict(layers.to_canonical(tree), sep='/').items()
    }


def test_no_run_to_start_from_is_told_before_anything_is_written(tiny_run, tmp_path):
    recipe = config.load(tiny_run('street', 'unscored'))
    with recipe.unlocked():
        recipe.init_from = str(tmp_path / 'gone')
    with pytest.raises(config.ConfigError, match=r'init_from: nothing at .*gone.*Nothing is downloaded'):
        run.train(recipe, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_another_size_is_refused_with_what_differs(tiny_run, first):
    found, step = transfer.read_backbone(*transfer.split(f'{first[0]}@latest'))
    assert step == 2
    with pytest.raises(config.ConfigError, match=r'backbone/.*\[.*there, .* here'):
        transfer.into(found, changed(tiny_run, mlp=64))
    with pytest.raises(config.ConfigError, match=r'spatial/block_01/.*not in the run'):
        transfer.into(found, changed(tiny_run, spatial_layers=2))
    extra = {**found, 'backbone/spatial/block_05/norm/scale': np.zeros(16)}
    with pytest.raises(config.ConfigError, match='block_05/norm/scale: only in the run'):
        transfer.into(extra, changed(tiny_run))


def test_a_path_with_an_at_sign_stays_whole(tmp_path):
    odd = tmp_path / 'a@b'
    odd.mkdir()
    assert transfer.split(str(odd)) == (str(odd), '')
    assert transfer.split(f'{odd}@best') == (str(odd), 'best')


def image_vit(path, width=16, layers=1):
    """An ImageNet ViT as augreg's npz, with patches of 8 pixels and 4 x 4 positions."""
    rng = np.random.default_rng(0)
    heads = 2
    shapes = {
        'cls': (1, 1, width),
        'embedding/kernel': (8, 8, 3, width),
        'embedding/bias': (width,),
        'Transformer/posembed_input/pos_embedding': (1, 17, width),
        'Transformer/encoder_norm/scale': (width,),
        'Transformer/encoder_norm/bias': (width,),
        'pre_logits/kernel': (width, width),
        'pre_logits/bias': (width,),
        'head/kernel': (width, 7),
        'head/bias': (7,),
    }
    for i in range(layers):
        block = f'Transformer/encoderblock_{i}'
        for norm in ('LayerNorm_0', 'LayerNorm_2'):
            shapes |= {f'{block}/{norm}/{leaf}': (width,) for leaf in ('scale', 'bias')}
        for name in ('query', 'key', 'value'):
            shapes[f'{block}/MultiHeadDotProductAttention_1/{name}/kernel'] = (width, heads, width // heads)
            shapes[f'{block}/MultiHeadDotProductAttention_1/{name}/bias'] = (heads, width // heads)
        shapes[f'{block}/MultiHeadDotProductAttention_1/out/kernel'] = (heads, width // heads, width)
        shapes[f'{block}/MultiHeadDotProductAttention_1/out/bias'] = (width,)
        shapes |= {
            f'{block}/MlpBlock_3/Dense_0/kernel': (width, 2 * width),
            f'{block}/MlpBlock_3/Dense_0/bias': (2 * width,),
            f'{block}/MlpBlock_3/Dense_1/kernel': (2 * width, width),
            f'{block}/MlpBlock_3/Dense_1/bias': (width,),
        }
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    np.savez(path, **arrays)
    return arrays


@pytest.mark.parametrize('inflate', ['central', 'mean'])
def test_a_run_starts_from_an_image_model(tiny_run, tmp_path, inflate):
    path = tmp_path / 'ViT-S_8.npz'
    arrays = image_vit(path)
    recipe = config.load(tiny_run('street', 'unscored'))
    with recipe.unlocked():
        recipe.init_from, recipe.weights.inflate = str(path), inflate
    recipe, said = settling.settle(recipe, tmp_path / 'run')
    assert (
        tuple(recipe.preprocess.mean) == (127.5,) * 3
        and 'preprocess.mean (127.5, 127.5, 127.5), as the weights' in said
    )
    found, table = transfer.begin(build.experiment(recipe))
    kernel = arrays['embedding/kernel']
    expected = np.stack([0 * kernel, kernel]) if inflate == 'central' else np.stack([kernel / 2] * 2)
    np.testing.assert_array_equal(found['backbone/embedding/kernel'], expected)
    block = found['backbone/spatial/blocks_00_00/mlp/fc1/kernel']
    np.testing.assert_array_equal(block[0], arrays['Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel'])
    # This model has no CLS token, and 4 x 6 places: positions lose the token's, corners stay.
    places = found['backbone/spatial/position'].reshape(4, 6, 16)
    source = arrays['Transformer/posembed_input/pos_embedding'][0, 1:].reshape(4, 4, 16)
    np.testing.assert_allclose(places[::3, ::5], source[::3, ::3], atol=1e-6)
    assert not [name for name in found if 'temporal' in name]
    assert 'backbone/temporal' in table and 'pre_logits' in table and 'backbone/spatial/position' in table


# A head alone, for a backbone that has run already.

HEADS = pathlib.Path(__file__).parent / 'reference' / 'actionformer' / 'thumos_small_win5_state_dict.npz'
SMALL = {
    'width': 64, 'levels': 4, 'windows': (5,), 'ranges': ((0, 4), (4, 8), (8, 16), (16, 10000)), 'layer_scale': 0.0,
}  # fmt: skip


@pytest.fixture
def over_features(tmp_path):
    """(names of the classes, what differs in the head, weights) -> (settled config, its experiment)"""

    def make(names='abcde', head=(), which='find', weights=HEADS):
        (tmp_path / 'classes.txt').write_text('\n'.join(names) + '\n')
        recipe = build.config(
            name='head',
            backbone={'kind': 'features', 'width': 32},
            tasks={
                'find': {
                    'kind': 'temporal_localization',
                    'class_list': str(tmp_path / 'classes.txt'),
                    'num_classes': len(names),
                    'head': SMALL | dict(head),
                }
            },
            sources={
                'clips': {
                    'task': 'find',
                    'view': 'features',
                    'format': 'activitynet',
                    'features': 'gone',
                    'annotations': ('gone',),
                    'length': 96,
                    'width': 32,
                }
            },
            optimizer={'kind': 'adamw'},
            train={'steps': 2},
            init_from=str(weights),
            weights={'head': which},
        )
        return settling.settle(recipe, tmp_path / 'run')[0]

    return make


def test_a_head_over_features_starts_from_a_public_one(over_features):
    found, said = transfer.begin(build.experiment(over_features()))
    assert len(found) == 156 and '156 used' in said and 'does not name its 5 classes' in said
    arrays = np.load(HEADS)
    np.testing.assert_array_equal(found['heads_find/classify/output/bias'], arrays['cls_head.cls_head.conv.bias'])
    assert found['heads_find/regress/scale'].tolist() == [arrays[f'reg_head.scale.{i}.scale'] for i in range(4)]
    found, said = transfer.begin(build.experiment(over_features('abc')))
    assert len(found) == 154 and 'the output of find is new: the file knows 5 classes, the task 3' in said


def test_a_head_that_means_something_else_is_refused(over_features, tmp_path):
    with pytest.raises(config.ConfigError, match=r'head\.windows is \(3,\), the file has \(5,\)'):
        transfer.begin(build.experiment(over_features(head={'windows': (3,)})))
    with pytest.raises(config.ConfigError, match=r'has no parameters .*--config\.weights\.head=find'):
        transfer.begin(build.experiment(over_features(which='')))
    # Where nothing beside the file tells, the config is believed.
    alone = shutil.copy(HEADS, tmp_path / 'alone.npz')
    found, said = transfer.begin(build.experiment(over_features(head={'windows': (3,)}, weights=alone)))
    assert len(found) == 156 and 'windows (3,), as given' in said
