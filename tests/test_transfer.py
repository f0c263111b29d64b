"""Pretraining, then a run that starts from its backbone, through the program and by its parts."""

import jax
import numpy as np
import pytest
from flax import traverse_util

from vidloc import build, config, transfer


def changed(tiny_run, **backbone):
    recipe = config.load(tiny_run('street', 'unscored'))
    with recipe.unlocked():
        recipe.backbone.update(backbone)
    return build.experiment(recipe).abstract_params


@pytest.fixture(scope='module')
def first(program, tiny_run, tmp_path_factory):
    run = program.run(
        tiny_run('street', 'unscored'), tmp_path_factory.mktemp('runs') / 'first', '--config.train.steps=2'
    )
    assert run.process.returncode == 0, run.err
    return run.workdir


def test_a_run_starts_from_the_backbone_and_reads_it_only_once(program, tiny_run, first, tmp_path):
    still = (
        '--config.schedule.rate=0.0',
        '--config.schedule.warmup_steps=1',
        '--config.seed=7',
        '--config.train.ema=0.0',
    )
    run = program.run(
        tiny_run('unscored'), tmp_path / 'run', f'--config.init_from={first}', '--config.train.steps=1', *still
    )
    assert run.process.returncode == 0, run.err
    assert f'backbone of {first}, trained for 2 steps' in run.out
    # The first run kept an average, the second did not move: its parameters are that average.
    given, step = transfer.read_backbone(str(first))
    begun, _ = transfer.read_backbone(str(run.workdir))
    assert step == 2 and given.keys() == begun.keys()
    for name, value in given.items():
        np.testing.assert_array_equal(value, begun[name], err_msg=name)
    fresh = build.experiment(config.load(tiny_run('unscored'))).init(jax.random.key(7))
    assert any(
        not np.array_equal(value, given[name])
        for name, value in flat(fresh).items()
        if name in given and value.ndim > 1
    )
    again = program.run(tiny_run('unscored'), run.workdir, '--config.init_from=gone', '--config.train.steps=2', *still)
    assert again.process.returncode == 0 and 'backbone of' not in again.out, again.err


def flat(tree):
    from vidloc.models import layers

    return {
        name: np.asarray(value)
        for name, value in traverse_util.flatten_dict(layers.to_canonical(tree), sep='/').items()
    }


def test_no_run_to_start_from_is_told_before_anything_is_written(program, tiny_run, tmp_path):
    run = program.run(tiny_run('unscored'), tmp_path / 'run', f'--config.init_from={tmp_path / "gone"}')
    assert run.process.returncode == 2 and 'is no workdir of a run' in run.err
    assert 'Traceback' not in run.err


def test_another_size_is_refused_with_what_differs(tiny_run, first):
    found, _ = transfer.read_backbone(f'{first}@latest')
    with pytest.raises(config.ConfigError, match=r'backbone/.*\[.*there, .* here'):
        transfer.into(found, changed(tiny_run, mlp=64))
    with pytest.raises(config.ConfigError, match=r'spatial/block_01/.*not in the run'):
        transfer.into(found, changed(tiny_run, spatial_layers=2))
    extra = {**found, 'backbone/spatial/block_05/norm/scale': np.zeros(16)}
    with pytest.raises(config.ConfigError, match='block_05/norm/scale: only in the run'):
        transfer.into(extra, changed(tiny_run))
