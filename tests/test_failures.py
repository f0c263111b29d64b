"""What goes wrong in a run is told in words, and what was good stays."""

import json

import jax
import numpy as np
import pytest


def checkpoint(workdir, step):
    import orbax.checkpoint as ocp

    return ocp.PyTreeCheckpointer().restore(workdir / 'checkpoints' / str(step) / 'state')


def test_a_loss_that_is_not_finite_stops_the_run(program, tiny_run, tmp_path):
    # At this rate the first update already leaves the range of float32.
    flags = ('--config.schedule.rate=1e38', '--config.schedule.warmup_steps=1', '--config.log.save=1')
    run = program.run(tiny_run('street', 'unscored'), tmp_path / 'run', *flags)
    assert run.process.returncode == 2
    assert 'Traceback' not in run.err
    said = run.err[run.err.index('vidloc: ') :]
    assert 'not finite at step 1 (source ' in said and 'task street' in said
    assert said.count('.mp4') == 8 and '/street/train/' in said
    assert [line['step'] for line in run.lines()] == [1]
    good = checkpoint(tmp_path / 'run', 1)
    assert int(good['step']) == 1
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(good['params']))
    assert [entry.name for entry in (tmp_path / 'run/checkpoints').iterdir()] == ['1']


@pytest.fixture(scope='module')
def scratched(program, tiny_run, broken_copy, tmp_path_factory):
    """Co-finetuning, the sources in turn, with a few broken videos; the last two steps have checkpoints."""
    folder = tmp_path_factory.mktemp('scratched')
    data, cut = broken_copy(folder / 'data', 0.1)
    flags = ('--config.mixture.strategy=alternating', '--config.train.steps=14', '--config.log.evaluate=14')
    flags += ('--config.log.save=13',)
    run = program.run(tiny_run(folder=data), folder / 'run', *flags)
    run.cut = cut
    return run


def test_a_run_skips_a_few_broken_videos_and_tells(scratched):
    assert scratched.process.returncode == 0, scratched.err
    replaced = [line['train/replaced'] for line in scratched.lines() if 'train/replaced' in line]
    assert len(replaced) == 14
    assert 0 < max(replaced) <= 1
    named = [path for path in scratched.cut if f'skipped {path}: ' in scratched.err]
    assert named
    for path in named:
        assert scratched.err.count(f'skipped {path}: ') <= 6  # once an example, never once a step
    assert 'Traceback' not in scratched.err


def test_a_head_that_is_not_in_the_batch_does_not_move(scratched):
    before, after = (checkpoint(scratched.workdir, step) for step in (13, 14))
    # Of the sources in turn the second, studio, is drawn at the last step.
    assert scratched.lines()[-2]['train/share/studio'] == 1
    for part in ('params', 'ema', 'opt'):
        same = jax.tree.map(np.array_equal, before[part], after[part])
        assert all(jax.tree.leaves(same['heads_street'])), part
        assert not any(jax.tree.leaves(same['heads_studio'])), part


def test_alternating_takes_the_sources_in_turn(scratched):
    shares = [line['train/share/street'] for line in scratched.lines() if 'train/loss' in line]
    assert shares == [1, 0] * 7
    noted = json.loads((scratched.workdir / 'environment.json').read_text())
    assert noted['source_steps'] == {'street': 7, 'studio': 7}
