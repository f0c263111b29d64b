"""LoRA and augmented features from the config to the step: what trains, what it costs, and on eight devices."""

import dataclasses
import functools
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from vidloc import build
from vidloc import config as config_lib
from vidloc import workdir as workdir_lib
from vidloc.config import ConfigError
from vidloc.models import film, flops, lora, sizes, videomae
from vidloc.tasks import group_relative
from vidloc.train import sharding, trainable
from vidloc.train import state as state_lib
from vidloc.train import step as step_lib

# The base is as it was; LoRA, the augmentation and the head train.
FROZEN = ((r'backbone/.*/lora_[ab]', 1.0, False), ('backbone/.*', None, False), *build.TRAIN_ALL)
BACKBONE = {'kind': 'videomae', 'width': 16, 'mlp': 24, 'heads': 2, 'layers': 3, 'grid': (2, 2, 2), 'patch': (8, 8)}
VIVIT = {name: value for name, value in BACKBONE.items() if name != 'layers'} | {'kind': 'vivit'}
STREET = {'kind': 'action_detection', 'classes': ('walk', 'run', 'wave'), 'head': {'kind': 'roi', 'size': (2, 2)}}
STUDIO = {'kind': 'classification', 'classes': ('a', 'b')}
BOXES = {'task': 'street', 'format': 'ava', 'frames': 4, 'size': (16, 16), 'max_boxes': 3}
CLIPS = {'task': 'studio', 'format': 'clips', 'frames': 4, 'size': (16, 16)}
GIVEN = {
    'name': 'few',
    'backbone': BACKBONE,
    'lora': {'rank': 2, 'layers': (-1, -1)},
    'film': {'kind': 'learned', 'count': 2, 'embedding': 4, 'std': 0.1},
    'tasks': {'street': STREET},
    'sources': {'street': BOXES},
    'optimizer': {'kind': 'adamw', 'weight_decay': 0.05},
    'schedule': {'rate': 0.01, 'kind': 'constant'},
    'trainable': FROZEN,
    'train': {'batch_size': 8},
}


def recipe(**parts):
    """As small as can be: LoRA on the last of three layers, two copies made in front of it."""
    return build.config(**{**GIVEN, **parts})


def a_batch(experiment):
    rng = np.random.default_rng(0)
    batch = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in experiment.abstract_batches['street'].items()}
    batch['video'] = rng.integers(0, 256, batch['video'].shape, dtype=np.uint8)
    batch['frame_valid'][:] = batch['example_valid'][:] = True
    corners = rng.uniform(0, 0.4, (*batch['boxes'].shape[:2], 2))
    batch['boxes'] = np.concatenate([corners, corners + 0.5], axis=-1).astype(np.float32)
    batch['box_mask'][:, 0] = batch['box_mask'][::2, 1] = True
    batch['labels'] = rng.integers(0, 2, batch['labels'].shape).astype(batch['labels'].dtype)
    return batch


def step_of(experiment, **options):
    """(abstract state, abstract frozen part, the step)"""
    optimizer = experiment.optimizer(10, 0)
    trained, frozen = experiment.partition.split(experiment.abstract_params)
    create = functools.partial(state_lib.create, optimizer=optimizer, tasks=experiment.tasks, seed=0)
    train_step = step_lib.make_train_step(experiment.apply, experiment.tasks, optimizer, **options)
    return jax.eval_shape(create, trained), jax.eval_shape(experiment.kept, frozen), train_step


def begun(experiment):
    """(state, frozen part) with all leaves random: after some training, say."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        return (path[-1].key == 'scale') + rng.normal(0, 0.2, leaf.shape).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(draw, experiment.abstract_params)
    trained, frozen = experiment.partition.split(params)
    return state_lib.create(trained, experiment.optimizer(10, 0), experiment.tasks, seed=0), frozen


def flat(tree):
    return traverse_util.flatten_dict(tree, sep='/')


def fields_of(kind):
    return {field.name for field in dataclasses.fields(kind)} - {'parent', 'name', 'width'}


def test_every_field_stands_in_the_config_and_what_is_set_arrives():
    config = recipe(tasks={'street': STREET, 'studio': STUDIO}, sources={'street': BOXES, 'studio': CLIPS})
    groups = {
        'lora': (config.lora, fields_of(lora.Lora)),
        'film': (config.film, fields_of(film.Film) | {'kind'}),
        'tasks.street.group': (config.tasks.street.group, fields_of(group_relative.GroupRelative)),
        'tasks.studio.group': (config.tasks.studio.group, fields_of(group_relative.GroupRelative)),
    }
    for path, (group, fields) in groups.items():
        assert set(group) == fields, path
        config_lib.check_overrides(config, [f'--config.{path}.{field}=1' for field in fields])
    assert set(recipe(film={'kind': 'noise'}).film) == fields_of(film.Noise) | {'kind'}
    assert set(build.config(**{name: part for name, part in GIVEN.items() if name != 'film'}).film) == {'kind'}

    config.tasks.studio.group.sensitivity = 0.3
    config.lora.alpha, config.film.teacher, config.film.after = 4.0, 'unadapted', 0
    experiment = build.experiment(config)
    assert [experiment.tasks[name].group.sensitivity for name in ('street', 'studio')] == [1.0, 0.3]
    assert experiment.model.backbone.lora.scale == 2.0
    made = experiment.model.film
    assert (made.teacher, made.width, made.after, made.count) == ('unadapted', 16, 0, 2)
    # Layers behind the copies, and those with LoRA, stand in stacks of their own.
    assert experiment.segments['backbone/encoder'] == ((0, 0), (1, 1), (2, 2))
    stored = build.completed(json.loads(workdir_lib.as_json(config)))
    assert workdir_lib.as_json(stored) == workdir_lib.as_json(config)


def test_augmentation_is_switched_on_by_one_word():
    """--config.film.kind=learned in a config without: the fields that it then lacks have their defaults."""
    config = recipe(film={'kind': 'none'})
    config.film.kind = 'learned'
    made = build.experiment(config).model.film
    assert (made.count, made.embedding, made.after) == (8, 128, 1)


@pytest.mark.parametrize(
    ('parts', 'words'),
    [
        ({'lora': {'rnak': 4}}, "lora.rnak: there is no such field; did you mean 'rank'"),
        ({'film': {'kind': 'learnd'}}, "film.kind: there is no 'learnd'; did you mean 'learned'"),
        ({'film': {'kind': 'learned', 'cuont': 4}}, "film.cuont: there is no such field; did you mean 'count'"),
        ({'film': {'kind': 'noise', 'embedding': 4}}, 'film.embedding: there is no such field'),
        ({'film': {'kind': 'none', 'count': 4}}, "film: kind 'none' has no field 'count'"),
        (
            {'tasks': {'street': {**STREET, 'group': {'entrpy': 0.1}}}},
            "tasks.street.group.entrpy: there is no such field; did you mean 'entropy'",
        ),
        ({'lora': {'rank': 2, 'layers': (1, 3)}}, 'lora.layers (1, 3): the layers are 0 to 2'),
        ({'lora': {'rank': 2, 'on': ('proj',)}}, "lora.on has 'proj'; known: query, key, value, out, fc1, fc2"),
        (
            {'lora': {'rank': 2, 'where': ('heads',)}, 'film': {'kind': 'none'}},
            "lora.where=('heads',): none of it has blocks with ('query', 'value')",
        ),
        ({'lora': {'rank': 0}}, 'film.after: there is no layer in front of the first with LoRA; name the layer'),
        ({'lora': {'rank': 2}}, 'film.after: there is no layer in front of the first with LoRA; name the layer'),
        ({'film': {'kind': 'learned', 'after': 3}}, 'film.after is 3; the layers are 0 to 2'),
        ({'film': {'kind': 'noise', 'count': 0}}, 'film.count is 0; it must be at least 1'),
        (
            {'film': {'kind': 'learned', 'after': 0, 'teacher': 'unadapted'}, 'lora': {'rank': 0}},
            "film.teacher='unadapted' is the backbone without its LoRA, and it has none",
        ),
        ({'clips': {'frames': 2}}, 'film needs a backbone that sees a whole video and nothing beside it'),
        (
            {'tasks': {'street': {**STREET, 'group': {'sensitivity': 0.0}}}},
            'group.sensitivity 0.0 and group.eps 1e-06 must be above 0',
        ),
        # What only a pass in training shows.
        ({'backbone': {**BACKBONE, 'taps': (0,)}}, 'layers cannot be tapped where features are augmented'),
        (
            {
                'backbone': {**VIVIT, 'spatial_layers': 2, 'temporal_layers': 1, 'temporal_on': 'rois'},
                'film': {'kind': 'learned', 'after': 2},
            },
            "film behind layer [2]: with temporal_on='rois' there are those from 0 to 1",
        ),
    ],
)
def test_what_does_not_exist_or_does_not_fit_is_said_in_one_line(parts, words):
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        build.experiment(recipe(**parts))
    assert '\n' not in str(caught.value)


def test_a_task_without_a_loss_for_copies_cannot_have_them():
    head = {'width': 16, 'heads': 2, 'stem': 1, 'levels': 2, 'windows': (5,), 'ranges': ((0, 8), (8, 1000)),
            'max_length': 32}  # fmt: skip
    acts = {'kind': 'temporal_localization', 'classes': ('clap',), 'head': head}
    windows = {'task': 'acts', 'format': 'activitynet', 'frames': 32, 'rate': 8.0, 'size': (16, 16), 'max_segments': 8}
    with pytest.raises(ConfigError, match="film: task 'acts' has no loss for augmented features"):
        build.experiment(recipe(tasks={'acts': acts}, sources={'acts': windows}))


def adapted(experiment):
    """The modules with LoRA, as canonical names."""
    names = [name for leaf in experiment.partition.leaves.values() for name in leaf.names]
    return {name.rpartition('/')[0] for name in names if name.endswith(lora.LEAVES)}


@pytest.mark.parametrize('where', [('heads',), ('backbone', 'heads')])
def test_lora_is_where_it_is_asked_for_in_stacks_of_its_own(where):
    studio = {**STUDIO, 'head': {'kind': 'attentive', 'heads': 2, 'layers': 1}}
    experiment = build.experiment(
        recipe(
            lora={'rank': 2, 'on': ('query',), 'layers': (1, -1), 'where': where},
            film={'kind': 'none'},
            tasks={'studio': studio},
            sources={'studio': CLIPS},
            trainable=build.TRAIN_ALL,
        )
    )
    wanted = {f'heads_studio/pooler/{block}/attn/query' for block in ('self/block_00', 'cross')}
    if 'backbone' in where:
        wanted |= {f'backbone/encoder/block_0{i}/attn/query' for i in (1, 2)}
    assert adapted(experiment) == wanted
    assert experiment.segments['backbone/encoder'] == (((0, 0), (1, 2)) if 'backbone' in where else ((0, 2),))


@functools.cache
def built():
    return build.experiment(recipe())


@functools.cache
def stepped(accumulate=1):
    """(state, frozen part, metrics) after one step of eight examples; there is no dropout anywhere."""
    experiment = built()
    _, _, train_step = step_of(experiment, accumulate=accumulate)
    state, frozen = begun(experiment)
    state, metrics = train_step(state, frozen, {'street': a_batch(experiment)})
    return jax.device_get((state, frozen, metrics))


def test_a_step_moves_lora_augmentation_and_head_and_nothing_else():
    before, frozen_before = begun(built())
    state, frozen, metrics = stepped()
    assert bool(metrics['finite']) and set(before.params) == {'backbone', 'film', 'heads_street'}
    moved = {name for name, leaf in flat(state.params).items() if np.all(leaf != flat(before.params)[name])}
    block = 'backbone/encoder/blocks_02_02/attn'
    wanted = {f'{block}/{part}/{leaf}' for part in ('query', 'value') for leaf in lora.LEAVES}
    wanted |= {'film/table', 'film/generator/kernel', 'film/generator/bias'}
    wanted |= {'heads_street/output/kernel', 'heads_street/output/bias'}
    # What a checkpoint holds: these, and their two moments.
    assert moved == set(flat(state.params)) == wanted
    moments = [leaf for leaf in jax.tree.leaves(state.opt) if np.ndim(leaf)]
    assert len(moments) == 2 * len(wanted)
    jax.tree.map(np.testing.assert_array_equal, frozen, frozen_before)
    assert not any(name.endswith(lora.LEAVES) or name.startswith('film') for name in flat(frozen))


def test_accumulation_changes_nothing():
    (once, _, one), (parts, _, other) = stepped(), stepped(8)
    assert float(other['loss']) == pytest.approx(float(one['loss']), rel=1e-5)
    assert float(other['gradient_norm']) == pytest.approx(float(one['gradient_norm']), rel=1e-5)
    assert told(other) == pytest.approx(told(one), rel=1e-4, abs=1e-5)
    for found, want in zip(moments(parts), moments(once), strict=True):
        np.testing.assert_allclose(found, want, atol=1e-5 * np.abs(want).max())


def test_frozen_kernels_in_bfloat16_and_adapters_in_float32():
    experiment = dataclasses.replace(built(), config=recipe(precision={'frozen': 'bfloat16'}))
    state, frozen, train_step = step_of(experiment)
    kinds = {name.rpartition('/')[2]: leaf.dtype for name, leaf in flat(frozen).items()}
    assert kinds['kernel'] == jnp.bfloat16 and kinds['bias'] == jnp.float32 and not set(kinds) & set(lora.LEAVES)
    after, _ = jax.eval_shape(train_step, state, frozen, experiment.abstract_batches)
    assert {leaf.dtype for leaf in jax.tree.leaves((state.params, after.params))} == {jnp.dtype('float32')}


WIDTH, MLP, RANK, ROWS, TOKENS = 32, 64, 2, 4, 4 * 4 * 4


@functools.cache
def planned(prefix, suffix, copies, first=None):
    """A model of `prefix` frozen layers, copies, and `suffix` layers with LoRA (which may begin at `first`)."""
    return build.experiment(
        recipe(
            backbone={**BACKBONE, 'layers': prefix + suffix, 'width': WIDTH, 'mlp': MLP},
            lora={'rank': RANK, 'layers': (prefix if first is None else first, -1)},
            film={'kind': 'learned', 'count': copies, 'embedding': 4, 'after': prefix - 1},
            sources={'street': {**BOXES, 'frames': 8, 'size': (32, 32)}},
            train={'batch_size': ROWS},
        )
    )


def operations(*sizes):
    """Of a whole step."""
    experiment = planned(*sizes)
    state, frozen, train_step = step_of(experiment)
    return flops.count(train_step, state, frozen, experiment.abstract_batches)


# Of one layer and all examples: products with kernels, attention's own, and LoRA's of query and value.
PRODUCTS = 2 * ROWS * TOKENS * (4 * WIDTH**2 + 2 * WIDTH * MLP)
MIXING = 2 * 2 * ROWS * TOKENS**2 * WIDTH
ADAPTER = 2 * 2 * ROWS * TOKENS * 2 * WIDTH * RANK
EMBEDDING = 2 * ROWS * TOKENS * (2 * 8 * 8 * 3) * WIDTH
# Backward: a product for every kernel, two for each of those of the attention, and two for each of LoRA's.
BEHIND = 2 * PRODUCTS + 3 * MIXING + 3 * ADAPTER


def test_what_a_step_computes_is_the_frozen_layers_once_and_those_behind_for_every_version():
    base = operations(2, 2, 2)
    # Forward alone, for the examples alone.
    assert operations(10, 2, 2) - base == 8 * (PRODUCTS + MIXING)
    assert operations(2, 3, 2) - base == (1 + 2) * BEHIND
    # Beside the layers and the embedding there are only the head and the generator.
    rest = base - 2 * (PRODUCTS + MIXING) - 2 * (1 + 2) * BEHIND - EMBEDDING
    assert 0 < rest < 0.005 * base
    # With LoRA on all layers those in front run backward, too.
    assert operations(10, 2, 2, 0) - operations(10, 2, 2) > 9 * (PRODUCTS + 2 * MIXING)


def kept(*sizes):
    """Temporary bytes of the gradient, by XLA's own count."""
    experiment = planned(*sizes)
    state, frozen, _ = step_of(experiment)
    task, batches = experiment.tasks['street'], experiment.abstract_batches

    def loss(params, frozen, batches):
        rngs = {'dropout': jax.random.key(0)}
        outputs = experiment.apply(trainable.merge(params, frozen), batches, train=True, rngs=rngs)
        return task.loss(outputs['street'], batches['street'], train=True).sum

    compiled = jax.jit(jax.grad(loss)).lower(state.params, frozen, batches).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_does_not_grow_with_the_layers_in_front():
    """A layer that is kept keeps at least what its norms and products take: float32, of four examples."""
    layer = 4 * ROWS * TOKENS * (4 * WIDTH + MLP)
    few, many, all_of_them = kept(2, 2, 2), kept(10, 2, 2), kept(10, 2, 2, 0)
    assert many - few < layer
    assert all_of_them - many > 10 * layer


def test_parameters_of_the_paper_on_a_giant_of_40_layers():
    """10 layers x query and value x rank x (1408 + 1408); a table of 10 x 128 and a linear map to 2 x 1408."""
    giant = videomae.VideoMAE(**sizes.SIZES['videomae']['g'])
    clip = jnp.zeros((1, 2, 14, 14, 3)), jnp.ones((1, 2), bool)
    late, everywhere = (30, -1), (0, -1)
    counts = (4, late, 225_280), (8, late, 450_560), (20, late, 1_126_400), (16, everywhere, 3_604_480)
    for rank, span, count in counts:
        model = giant.clone(lora=lora.Lora(rank=rank, layers=span))
        shapes = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), *clip)['params']
        assert sum(x.size for name, x in flat(shapes).items() if name.endswith(lora.LEAVES)) == count
    experiment = build.experiment(
        recipe(
            backbone={'kind': 'videomae', **sizes.SIZES['videomae']['g']},
            lora={'rank': 16, 'layers': (30, -1)},
            film={'kind': 'learned', 'count': 10},
            sources={'street': {**BOXES, 'size': (28, 28)}},
        )
    )
    assert experiment.model.film.after == 29
    found = {}
    for name, leaf in experiment.partition.leaves.items():
        if leaf.trainable:
            root = name.partition('/')[0]
            found[root] = found.get(root, 0) + int(np.prod(leaf.shape))
    assert found == {'backbone': 901_120, 'film': 364_544, 'heads_street': (1408 + 1) * 3}


def eight():
    """The step of `stepped` on a mesh of 4 x 2 devices."""
    experiment = built()
    mesh = sharding.make_mesh(fsdp=2)
    state, frozen = (sharding.place(mesh, tree) for tree in begun(experiment))
    shardings = sharding.parameter_shardings(mesh, state), sharding.replicated(mesh)
    _, _, train_step = step_of(experiment, shardings=shardings)
    batch = {'street': sharding.global_batch(mesh, a_batch(experiment))}
    state, metrics = train_step(state, frozen, batch)
    return {'figures': told(metrics), 'moments': [np.asarray(leaf).tolist() for leaf in moments(state)]}


def told(metrics):
    logs = {name: float(value / weight) for name, (value, weight) in metrics['logs']['street'].items()}
    return {'loss': float(metrics['loss']), 'norm': float(metrics['gradient_norm']), **logs}


def moments(state):
    """The first ones of AdamW, a tenth of the gradients, by name."""
    return [leaf for group in sorted(state.opt) for leaf in jax.tree.leaves(state.opt[group][0].mu)]


def test_eight_devices_make_the_step_of_one():
    environment = {
        **os.environ,
        'JAX_PLATFORMS': 'cpu',
        'XLA_FLAGS': '--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0',
        'PYTHONPATH': str(pathlib.Path(__file__).parents[1]),
    }
    command = [sys.executable, __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    state, _, metrics = stepped()
    assert found['figures'] == pytest.approx(told(metrics), rel=1e-5, abs=1e-5)
    assert 'weighted_copies' in found['figures']
    for one, other in zip(moments(state), found['moments'], strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5 * np.abs(one).max())


if __name__ == '__main__':
    print(json.dumps(eight()))
