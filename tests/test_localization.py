"""The temporal recipes from config to step: what starts where, what trains, what it costs; and a run on real files."""

import functools
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from vidloc import build, run
from vidloc import config as config_lib
from vidloc.annotations import activitynet
from vidloc.annotations.records import Segment, VideoRecord
from vidloc.config import ConfigError
from vidloc.data import encode

CONFIGS = pathlib.Path(__file__).parent.parent / 'configs'
FRAMES, RATE = 32, 8.0
FROZEN = (('backbone/.*', None, False), *build.TRAIN_ALL)


def recipe(side='losa', *, folder=pathlib.Path('none'), fields=(), **sections):
    """A LoSA as small as can be: four layers, clips of 8 frames, a pyramid of two levels."""

    def windows(subset):
        return {
            'task': 'acts', 'format': 'activitynet', 'annotations': (str(folder / 'truth.json'),), 'subset': subset,
            'videos': str(folder), 'frames': FRAMES, 'rate': RATE, 'size': (16, 16), 'max_segments': 8, 'batch_size': 2,
        }  # fmt: skip

    head = {
        'width': 16,
        'heads': 2,
        'stem': 1,
        'levels': 2,
        'windows': (5,),
        'ranges': ((0, 8), (8, 1000)),
        'max_length': 32,
    }
    return build.config(
        name='acts',
        backbone={'kind': 'videomae', 'width': 16, 'mlp': 24, 'heads': 2, 'layers': 4, 'grid': (4, 2, 2),
                  'patch': (8, 8)},
        side={'kind': side, **({'adapter_width': 8, 'heads': 2} if side == 'losa' else {}), **dict(fields)},
        tasks={'acts': {'kind': 'temporal_localization', 'classes': ('clap', 'jump'), 'head': head}},
        sources={'acts': windows('training')},
        eval_sources={'acts': windows('validation')},
        optimizer={'kind': 'adamw', 'weight_decay': 0.05},
        trainable=FROZEN,
        **{'clips': {'frames': 8}, 'train': {'steps': 2, 'ema': 0.9}, 'eval': {'batch_size': 2}, **sections},
    )  # fmt: skip


@functools.cache
def built(side='losa', **changes):
    """changes: sections as pairs, which can be remembered."""
    return build.experiment(recipe(side, **{name: dict(pairs) for name, pairs in changes.items()}))


def a_batch(experiment):
    rng = np.random.default_rng(0)
    batch = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in experiment.abstract_batches['acts'].items()}
    batch['video'] = rng.integers(0, 256, batch['video'].shape, dtype=np.uint8)
    for name in ('frame_valid', 'grid_valid', 'example_valid'):
        batch[name][:] = True
    batch['segments'][:, :2] = [[4, 9], [10, 30]]
    batch['segment_labels'][:, 1] = 1
    batch['segment_mask'][:, :2] = True
    return jax.tree.map(jnp.asarray, batch)


@functools.cache
def start(side):
    return jax.jit(built(side).init)(jax.random.key(0))


def test_at_the_start_adapters_change_nothing():
    """With gates of 0 and a projection that averages, the head sees the very features that it sees alone."""
    batch = {'acts': a_batch(built())}
    alone = {name: tree for name, tree in start('losa').items() if name != 'side'}
    outputs = [
        jax.jit(functools.partial(built(side).apply, batches=batch, train=False, rngs={}))(params)['acts']
        for side, params in (('losa', start('losa')), ('none', alone), ('ladder', {**start('ladder'), **alone}))
    ]
    for other in outputs[1:]:
        for one, another in zip(jax.tree.leaves(outputs[0]), jax.tree.leaves(other), strict=True):
            np.testing.assert_array_equal(one, another)


def test_at_the_start_only_gates_projection_and_head_have_slopes():
    experiment, params = built(), start('losa')
    trained, frozen = experiment.partition.split(params)
    assert set(frozen) == {'backbone'} and set(trained) == {'side', 'heads_acts'}
    batch, task = a_batch(experiment), experiment.tasks['acts']

    def loss(trained):
        outputs = experiment.apply(
            {**trained, **frozen}, {'acts': batch}, train=True, rngs={'dropout': jax.random.key(1)}
        )
        return task.loss(outputs['acts'], batch, train=True).sum

    slopes = traverse_util.flatten_dict(jax.jit(jax.grad(loss))(trained), sep='/')
    moving = {name for name, slope in slopes.items() if np.any(slope)}
    still = {name for name in slopes if name.startswith('side/') and not re.search('gate$|projection', name)}
    assert not still & moving
    assert {name for name in slopes if re.search('gate$|projection', name)} <= moving
    # Keys' biases have no slope: softmax does not see them. Drop path's scales and all else of the head do.
    head = {name for name in slopes if name.startswith('heads_') and not re.search('key(_norm)?/bias$', name)}
    assert head <= moving


def test_frozen_matrices_take_half_the_memory_in_bfloat16():
    experiment = build.experiment(recipe(precision={'frozen': 'bfloat16'}))
    _, frozen = experiment.partition.split(experiment.abstract_params)
    kept = traverse_util.flatten_dict(jax.eval_shape(experiment.kept, frozen), sep='/')
    kinds = {name.rpartition('/')[2]: leaf.dtype for name, leaf in kept.items()}
    assert kinds == {'kernel': jnp.bfloat16, 'bias': jnp.float32, 'scale': jnp.float32}
    assert jax.eval_shape(built().kept, frozen) == frozen


def test_layers_without_adapters_stand_in_stacks_of_their_own():
    experiment = build.experiment(recipe(fields=(('layers', (1,)),)))
    assert experiment.segments['backbone/encoder'] == ((0, 0), (1, 1), (2, 2), (3, 3))
    assert experiment.model.side.tapped() == (1, 3)
    assert built().segments['backbone/encoder'] == ((0, 3),)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'clips': {'frames': 0}}, "side='losa' needs clips.frames, a multiple of the tubelet"),
        ({'clips': {'frames': 12}}, 'a video of 32 frames does not split into clips of 12'),
        ({'fields': {'layerz': (1,)}}, "side.layerz: there is no such field; did you mean 'layers'"),
        ({'side': 'lora'}, "side.kind: there is no 'lora'; did you mean 'losa'"),
    ],
)
def test_sides_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        build.experiment(recipe(**changes))


def test_a_side_leaves_the_backbone_as_it_is():
    config = recipe()
    config.trainable = build.TRAIN_ALL
    with pytest.raises(ConfigError, match='must freeze it'):
        build.experiment(config)


@pytest.mark.parametrize(
    ('spec', 'total', 'trained'),
    [
        # 1,011.6 M of the backbone; LoSA's 142,941,262 with 204,800 of depthwise convolutions and 272,384 of norms.
        ('losa_thumos.py', 1_183_294_954, 171_687_018),
        ('losa_thumos.py:head', 1_039_876_508, 28_268_572),
        ('losa_activitynet.py:videomae-B,head,scores=scores.json', None, 7_140_105),
        ('actionformer.py', 29_251_612, 29_251_612),
        ('actionformer.py:activitynet', 7_096_528, 7_096_528),
        ('actionformer.py:activitynet,scores=scores.json', 6_943_497, 6_943_497),
    ],
)
def test_recipes_have_the_published_sizes(spec, total, trained):
    partition = build.experiment(config_lib.load(f'{CONFIGS}/{spec}')).partition
    assert partition.total(trainable=True) == trained
    assert total is None or partition.total() == total


@pytest.mark.parametrize(
    ('word', 'message'),
    [
        ('no-longs', "there is no word 'no-longs'; did you mean 'no-long'?"),
        ('losa,head', 'losa and head: name one method'),
        ('head,no-long', "no-long says nothing to the method 'head'"),
        ('layers=9-3', 'layers=9-3 is not as layers=15-20+35-39'),
        ('frames=many', 'frames=many is no whole number above 0'),
        ('no-fusion,gate=one', 'no-fusion and gate=one both say what gating is; name one'),
        ('gate=one,gate=random', 'gate=one and gate=random both say what gating is'),
        ('own,rate=fast', 'rate=fast is no number from 0 on'),
        ('csv', 'csv is for own videos: say own,csv'),
    ],
)
def test_words_that_mean_nothing_are_refused(word, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        config_lib.load(f'{CONFIGS}/losa_thumos.py:{word}')


def test_words_set_the_fields_of_the_ablations():
    loaded = config_lib.load(f'{CONFIGS}/losa_thumos.py:videomae-B,no-short,gate=one,layers=2-3+11-11,short-keys=clip')
    side = loaded.side
    assert (side.short, side.long, side.gating, side.short_keys) == (False, True, 'one', 'clip')
    assert tuple(side.layers) == (1, 2, 10)
    assert loaded.name.endswith('layers2_3_11')


@pytest.fixture(scope='module')
def acts(tmp_path_factory):
    """Three videos of 6 seconds in which a square is bright while it claps and large while it jumps."""
    folder = tmp_path_factory.mktemp('acts')
    records = []
    for number in range(3):
        rng = np.random.default_rng(number)
        frames = rng.integers(60, 90, (48, 24, 24, 3), dtype=np.uint8)
        first, second = 4 + 4 * number, 26 + 4 * number
        frames[first : first + 12, 8:16, 8:16] = 250
        frames[second : second + 8, 2:22, 2:22] = 180
        encode.write_video(folder / f'v{number}.mp4', frames, RATE)
        segments = (
            Segment(first / RATE, (first + 12) / RATE, 'clap'), Segment(second / RATE, (second + 8) / RATE, 'jump'),
        )  # fmt: skip
        subset = 'training' if number < 2 else 'validation'
        records.append(VideoRecord(f'v{number}', subset=subset, duration=6.0, fps=RATE, segments=segments))
    activitynet.write_activitynet(folder / 'truth.json', records)
    return folder


def test_a_run_from_videos_to_a_page_of_results(acts, tmp_path):
    config = recipe(folder=acts, precision={'frozen': 'bfloat16'})
    figures = run.train(config, tmp_path)
    assert {'eval/acts/map@0.3', 'eval/acts/average_map'} <= set(figures)
    result = json.loads((tmp_path / 'eval/acts.json').read_text())
    assert result['kind'] == 'segments'
    written = json.loads((tmp_path / 'eval/acts_detections.json').read_text())['results']
    assert set(written) == {'v2'}
    assert all(
        0 <= start < end <= 6.0 for found in written.values() for start, end in (row['segment'] for row in found)
    )
    # What was frozen is kept as it was before it was cast, and the same weights give the same figures again.
    assert run.evaluate(config, tmp_path) == pytest.approx(figures)


def test_own_videos_need_a_folder_and_no_recipe_of_their_own(tmp_path):
    (tmp_path / 'classes.txt').write_text('clap\njump\n')
    loaded = config_lib.load(f'{CONFIGS}/losa_thumos.py:own,csv,data={tmp_path},rate=8,videomae-S')
    source, evaluated = loaded.sources.own, loaded.eval_sources.own
    assert (source.annotations, evaluated.annotations) == ((f'{tmp_path}/train.csv',), (f'{tmp_path}/val.csv',))
    assert (source.rate, source.format, source.videos) == (8.0, 'table', f'{tmp_path}/videos')
    assert build.class_names('own', loaded.tasks.own) == ('clap', 'jump')
    loaded = config_lib.load(f'{CONFIGS}/losa_thumos.py:own,data={tmp_path}')
    assert [group.own.subset for group in (loaded.sources, loaded.eval_sources)] == ['training', 'validation']


def test_a_run_from_own_features_and_tables(tmp_path):
    rng = np.random.default_rng(0)
    for split, videos in (('train', ('a', 'b')), ('val', ('c',))):
        rows = [
            f'{video},{start},{start + 2},{label}' for video in videos for start, label in ((1, 'clap'), (5, 'jump'))
        ]
        (tmp_path / f'{split}.csv').write_text('\n'.join(['video,start,end,label', *rows, '']))
    (tmp_path / 'classes.txt').write_text('clap\njump\n')
    (tmp_path / 'features').mkdir()
    for video in 'abc':
        np.save(tmp_path / f'features/{video}.npy', rng.normal(size=(32, 6)).astype(np.float16))
    said = {'stride': 2, 'span': 1, 'rate': 8.0, 'width': 6}
    (tmp_path / 'features/features.json').write_text(json.dumps(said))
    config = config_lib.load(f'{CONFIGS}/actionformer.py:own,csv,data={tmp_path},width=6,length=576')
    for group in (config.sources, config.eval_sources):
        group.own.length = 32
    small = {'width': 16, 'heads': 2, 'stem': 1, 'levels': 2, 'windows': (5,), 'ranges': ((0, 8), (8, 1000))}
    config.tasks.own.head.update(small | {'max_length': 32})
    config.train.update({'steps': 1})
    config.schedule.update({'warmup_epochs': 0.0})
    run.train(config, tmp_path / 'run')
    given = json.loads((tmp_path / 'run/model.json').read_text())['preprocessing']['inputs']['own']
    assert (given['width'], given['length'], given['mode']) == (6, 32, 'window')
    truth = json.loads((tmp_path / 'run/eval/own_truth.json').read_text())['database']
    assert truth['c']['subset'] == 'validation' and len(truth['c']['annotations']) == 2


def test_what_scoring_needs_is_read_before_anything_is_trained(acts, tmp_path):
    scores = tmp_path / 'scores.json'
    scores.write_text(json.dumps({'results': {'other': [0.5, 0.5]}}))
    config = recipe(folder=acts)
    config.tasks.acts.external_scores = str(scores)
    with pytest.raises(ValueError, match='v2'):
        run.train(config, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_outputs_of_a_head_in_bfloat16_are_not_rounded():
    experiment = built(precision=(('compute', 'bfloat16'),))
    outputs = jax.jit(functools.partial(experiment.apply, batches={'acts': a_batch(experiment)}, train=False, rngs={}))(
        jax.jit(experiment.init)(jax.random.key(0))
    )['acts']
    for leaf in (outputs.logits, outputs.distances):
        assert leaf.dtype == jnp.float32
        assert np.any(leaf != leaf.astype(jnp.bfloat16).astype(jnp.float32))
