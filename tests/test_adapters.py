"""A run with LoRA from published weights on: how it starts, what is taken of it, and its adapter."""

import contextlib
import dataclasses
import importlib.util
import io
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from vidloc import build, config, run, transfer
from vidloc.checkpoints import adapters, importer, store
from vidloc.inference import encoder
from vidloc.models import layers, lora
from vidloc.train import sharding

HERE = pathlib.Path(__file__).parent
CLASSES = ('wave', 'jump', 'fall', 'walk', 'sit')
CHANGE = {
    'rank': 2, 'alpha': 4.0, 'on': ('query', 'value', 'fc1'), 'where': ('backbone', 'heads'), 'layers': (-2, -1),
}  # fmt: skip
KERNEL = 'backbone/encoder/block_02/attn/query/kernel'
COLOURS = {'mean': (127.5,) * 3, 'std': (127.5,) * 3}


def module_of(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def toys():
    return module_of(HERE / 'checkpoints/toy_weights.py')


@pytest.fixture
def tool(capsys):
    """(name of a tool, arguments) -> (exit code, what it said)"""

    def call(name, *arguments):
        code = module_of(HERE.parent / f'tools/{name}.py').main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out + err

    return call


def recipe(init_from, *, change=CHANGE, film='learned'):
    """V-JEPA 2 of three layers, of which the last two have LoRA, and its pooler; all else of the backbone is frozen."""
    adapted = (('backbone/.*/lora_[ab]', 1.0, False),) if change else ()
    return build.config(
        name='adapted',
        backbone={'kind': 'vjepa2', 'width': 32, 'mlp': 48, 'heads': 2, 'layers': 3, 'patch': (4, 4)},
        film={'kind': film} | ({'count': 2, 'embedding': 4, 'after': 0} if film != 'none' else {}),
        tasks={
            'clips': {
                'kind': 'classification',
                'classes': CLASSES,
                'head': {'kind': 'attentive', 'heads': 2, 'layers': 1},
            }
        },
        sources={'clips': {'task': 'clips', 'format': 'folders', 'frames': 4, 'rate': 8.0, 'size': (12, 12)}},
        optimizer={'kind': 'adamw'},
        preprocess=COLOURS,
        lora=change,
        trainable=(*adapted, ('backbone/.*', None, False), ('.*', 1.0, True)),
        init_from=str(init_from),
    )


def plain(init_from):
    """The same without LoRA and FiLM."""
    return recipe(init_from, change={}, film='none')


def write(toys, path, seed=0):
    """(canonical parameters, path) of a file as Hugging Face has them."""
    layout, backbone, head, _ = toys.MODELS['vjepa2_hf']
    params = toys.parameters(backbone, head | {'layers': 1}, seed)
    names = {name: layout.base + name if name.startswith('encoder') else name for name in toys.sources(layout, params)}
    found = {names[name]: value for name, value in toys.sources(layout, params).items()}
    return params, toys.write_safetensors(path, found)


def flat(tree):
    return traverse_util.flatten_dict(layers.to_canonical(jax.tree.map(np.asarray, tree)), sep='/')


def canonical(found):
    """{run name: array} as {canonical name: array}"""
    return flat(traverse_util.unflatten_dict(found, sep='/'))


@dataclasses.dataclass(frozen=True)
class Run:
    """weights: the file it began with, and its parameters. new, params: canonical ones before and after training."""

    workdir: pathlib.Path
    weights: pathlib.Path
    source: dict[str, Any]
    experiment: build.Experiment
    new: dict[str, Any]
    params: dict[str, Any]


@pytest.fixture(scope='module')
def done(toys, tmp_path_factory):
    """A run that began as runs do, and whose trainable part was then moved."""
    folder = tmp_path_factory.mktemp('runs')
    source, weights = write(toys, folder / 'weights.safetensors')
    workdir = folder / 'run'
    experiment = build.experiment(recipe(weights))
    mesh = sharding.make_mesh()
    begun = run.start(experiment, experiment.optimizer(2, 1), {}, mesh, workdir)
    rng = np.random.default_rng(0)
    moved = jax.tree.map(lambda leaf: leaf + rng.normal(0, 0.3, leaf.shape).astype(np.float32), begun.state.params)
    with begun.store as checkpoints:
        checkpoints.save(2, begun.state.replace(params=moved), {})
    store.write_json(workdir / 'config.json', json.loads(experiment.config.to_json_best_effort()))
    store.write_json(workdir / 'model.json', {'tasks': {'clips': {'classes': list(CLASSES)}}})
    still = flat(begun.frozen)
    return Run(workdir, weights, source, experiment, still | flat(begun.state.params), still | flat(moved))


@pytest.fixture(scope='module')
def exported(done, tmp_path_factory):
    """(the adapter of the run as a file, the same for PEFT, what the tool said)"""
    folder = tmp_path_factory.mktemp('adapters')
    main = module_of(HERE.parent / 'tools/export_adapter.py').main
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main([str(done.workdir), '--out', str(folder / 'ours.safetensors')]) == 0
        assert main([str(done.workdir), '--out', str(folder / 'peft'), '--peft']) == 0
    return folder / 'ours.safetensors', folder / 'peft', said.getvalue()


def begin(done, init_from=None, **weights):
    """What the run would begin with."""
    changed = done.experiment.config.copy_and_resolve_references()
    changed.init_from = str(init_from or done.weights)
    changed.weights.update({name: str(value) for name, value in weights.items()})
    return transfer.begin(dataclasses.replace(done.experiment, config=changed))


def test_beside_the_weights_of_a_file_lora_starts_new(done):
    changed = {name for name in done.new if name.endswith(lora.LEAVES)}
    assert len(changed) == 2 * 3 * (2 + 1 + 1)  # A and B of three layers, in two blocks and in both of the pooler
    assert not [name for name in changed if 'encoder/block_00' in name]
    for name in changed:
        assert np.any(done.new[name]) == name.endswith('lora_a'), name
    kept = {name for name in done.new if name.startswith('backbone/')} - changed
    assert kept == {name for name in done.source if name.startswith('backbone/')}
    for name in kept:
        np.testing.assert_array_equal(done.new[name], done.source[name], err_msg=name)


def test_all_that_is_frozen_comes_from_the_file(done):
    """So that it goes to the device as it is kept there, and nothing of it is initialised."""
    _, still = done.experiment.partition.split(done.experiment.abstract_params)
    found, said = transfer.begin(done.experiment)
    assert found.keys() == traverse_util.flatten_dict(still, sep='/').keys()
    assert 'LoRA is new' in said


def test_a_head_of_the_file_has_new_lora(done):
    found, said = begin(done, head='clips')
    found = canonical(found)
    assert {name.replace('heads_clips', 'head') for name in found} == done.source.keys()
    for name, value in found.items():
        np.testing.assert_array_equal(value, done.source[name.replace('heads_clips', 'head')], err_msg=name)
    assert 'LoRA is new' in said


def test_another_run_takes_the_backbone_merged(done):
    merged = lora.merged(done.params, lora.Lora(**CHANGE))
    found, said = transfer.begin(build.experiment(plain(done.workdir)))
    found = canonical(found)
    assert found.keys() == {name for name in done.source if name.startswith('backbone/')}
    for name, value in found.items():
        np.testing.assert_array_equal(value, merged[name], err_msg=name)
    assert 'trained for 2 steps, its LoRA merged; heads are new' in said
    # In a model with LoRA, whose layers are stacked in other segments, that starts new.
    again = canonical(transfer.into(found, done.experiment.abstract_params))
    assert again.keys() == found.keys()
    np.testing.assert_array_equal(again[KERNEL], merged[KERNEL])
    assert not np.array_equal(merged[KERNEL], done.source[KERNEL])


def test_its_features_are_those_of_the_model_with_lora(done, tool, tmp_path):
    opened = encoder.open_encoder(done.workdir)
    video = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 4, 12, 12, 3)), jnp.uint8)
    valid = jnp.ones((2, 4), bool)
    model = done.experiment.model
    params = layers.to_run(traverse_util.unflatten_dict(done.params, sep='/'), done.experiment.segments)['backbone']

    @jax.jit
    def unmerged(params, video):
        shown = model.preprocess(video, valid, jnp.zeros(2, jnp.uint32), train=False)
        return jnp.mean(model.backbone.apply({'params': params}, shown, valid, train=False).grid, axis=(2, 3))

    last, *_ = jax.jit(lambda params: opened.encode(params, video, valid, with_layers=False))(opened.params)
    np.testing.assert_allclose(last, unmerged(params, video), atol=1e-5, rtol=1e-5)
    plain = jax.tree_util.tree_map_with_path(lambda path, x: 0 * x if path[-1].key == 'lora_b' else x, params)
    assert np.abs(last - unmerged(plain, video)).max() > 1e-2
    # Merged once more by the other way out, as transformers' files.
    code, said = tool('export_checkpoint', done.workdir, '--out', tmp_path / 'plain')
    assert code == 0 and 'LoRA of rank 2, alpha 4, on query, value, fc1 of layers 1 to 2 and heads is merged' in said
    assert 'FiLM augments features in training alone; its parameters are left out' in said
    assert encoder.open_encoder(tmp_path / 'plain').fingerprint == opened.fingerprint
    merged = lora.merged(done.params, lora.Lora(**CHANGE))
    found = flat(importer.load(tmp_path / 'plain').params)
    for name in ('head/pooler/cross/attn/query/kernel', 'head/output/bias'):
        np.testing.assert_array_equal(found[name], merged[name.replace('head', 'heads_clips', 1)])


def test_a_run_starts_from_an_adapter_on_top_of_its_weights(done, exported):
    found, said = begin(done, adapter=exported[0])
    found = canonical(found)
    assert found.keys() == done.params.keys()
    for name, value in found.items():
        np.testing.assert_array_equal(value, done.params[name], err_msg=name)
    assert f'adapter: {exported[0]}, LoRA of rank 2, alpha 4, on query, value, fc1 of layers 1 to 2 and heads' in said
    assert 'film, heads_clips' in said and 'is new' not in said


def test_a_run_starts_from_the_lora_of_peft(done, exported):
    found, said = begin(done, adapter=exported[1])
    found = canonical(found)
    assert {name for name in done.params if name.endswith(lora.LEAVES)} < found.keys()
    for name, value in found.items():
        np.testing.assert_array_equal(value, done.params[name], err_msg=name)
    assert not [name for name in found if name.startswith(('film', 'heads')) and not name.endswith(lora.LEAVES)]
    assert (
        f'PEFT does not tell the weights that it was trained beside (base_model_name_or_path: {done.weights})' in said
    )


def test_an_adapter_for_another_model_is_refused(toys, done, exported, tmp_path):
    _, others = write(toys, tmp_path / 'others.safetensors', seed=1)
    with pytest.raises(adapters.AdapterError, match=r'trained beside other .* than init_from=.*others.* gives'):
        begin(done, others, adapter=exported[0])
    with pytest.raises(config.ConfigError, match=r"weights.adapter: nothing at '.*gone'"):
        begin(done, adapter=tmp_path / 'gone')
    # Which LoRA it is, is told in a config's words.
    experiment = build.experiment(recipe(done.weights, change=CHANGE | {'alpha': 8.0, 'layers': (-1, -1)}))
    for path in exported[:2]:
        with pytest.raises(
            adapters.AdapterError, match=r'is not for this model:\n  set lora.alpha=4.0, lora.layers=\(1, 2\)$'
        ):
            begin(dataclasses.replace(done, experiment=experiment), adapter=path)


def test_an_adapter_without_weights_is_refused_before_anything_is_written(done, exported, tmp_path):
    changed = done.experiment.config.copy_and_resolve_references()
    changed.init_from, changed.weights.adapter = '', str(exported[0])
    experiment = dataclasses.replace(done.experiment, config=changed)
    with pytest.raises(config.ConfigError, match='name them by init_from'):
        run.start(experiment, experiment.optimizer(2, 1), {}, sharding.make_mesh(), tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_what_the_tool_says(done, exported, tool, tmp_path):
    ours, peft, said = exported
    assert (
        f'{ours}: LoRA of rank 2, alpha 4, on query, value, fc1 of layers 1 to 2 and heads; film, heads_clips' in said
    )
    assert f'{peft}: LoRA of rank 2' in said and said.count('note: step 2') == 2
    assert 'note: modules are those of VJEPA2ForVideoClassification' in said
    assert "film, heads_clips of the run are left out: PEFT's layout holds LoRA alone" in said
    code, said = tool('export_adapter', done.weights, '--out', tmp_path / 'no')
    assert code == 2 and 'is no workdir of a run' in said
