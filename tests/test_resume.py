"""A run that is killed again and again, against one that nobody disturbed: the same bits.

The undisturbed run compiles its programs, the others load them compiled: that does not change a bit either.
"""

import json
import os
import re
import shutil
import signal

import jax
import numpy as np
import pytest

from vidloc.checkpoints import store

STEPS, SAVE = 24, 4
LENGTH = (f'--config.train.steps={STEPS}', f'--config.log.save={SAVE}')


def arrays(workdir, step=STEPS):
    import orbax.checkpoint as ocp

    return ocp.PyTreeCheckpointer().restore(workdir / 'checkpoints' / str(step) / 'state')


def logged(run):
    return [line for line in run.lines() if 'train/loss' in line]


def saved(workdir):
    return max(int(entry.name) for entry in (workdir / 'checkpoints').glob('[0-9]*') if entry.name.isdecimal())


def being_saved(workdir):
    return list((workdir / 'checkpoints').glob('*.orbax-checkpoint-tmp*'))


def damage(folder):
    """Changes one byte in the middle of the largest file below `folder`."""
    path = max((path for path in folder.rglob('*') if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.fixture(scope='module')
def undisturbed(program, tiny_run, tmp_path_factory):
    run = program.run(tiny_run('street'), tmp_path_factory.mktemp('runs') / 'undisturbed', *LENGTH)
    assert run.process.returncode == 0, run.err
    return run


@pytest.fixture(scope='module')
def story(program, tiny_run, undisturbed, tmp_path_factory):
    """The same run in one workdir, started eight times; {what happened: its process}."""
    workdir = tmp_path_factory.mktemp('runs') / 'disturbed'
    random = np.random.default_rng(0)
    # One step out of each part of the run.
    kill_at = [int(random.integers(low, low + 4)) for low in (2, 6, 13, 17, 20)]
    runs = {}

    def start(name, *flags):
        runs[name] = program.start(tiny_run('street'), workdir, *LENGTH, *flags)
        return runs[name]

    def kill(number, *flags):
        run = start(f'killed {number}', *flags)
        run.until_step(kill_at[number])
        assert run.kill() == -signal.SIGKILL, run.err

    kill(0)
    kill(1)
    run = start('stopped')
    run.until_step(10)
    run.exit_code = run.kill(signal.SIGTERM)
    run.saved = saved(workdir)
    kill(2, '--config.checkpoint.latest=4')
    kill(3, '--config.checkpoint.latest=4')
    damaged = saved(workdir)
    damage(workdir / 'checkpoints' / str(damaged))
    run = start('killed in a save')
    run.damaged = damaged
    run.until(lambda: run.lines() and being_saved(workdir))
    assert run.kill() == -signal.SIGKILL, run.err
    run.partial = being_saved(workdir)
    kill(4)
    run = start('last')
    assert run.end() == 0, run.err
    return runs


def test_the_same_bits_as_without_disturbance(undisturbed, story):
    expected, found = arrays(undisturbed.workdir), arrays(story['last'].workdir)
    assert len(jax.tree.leaves(expected)) > 100  # parameters, their average, two moments
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_the_same_figures_at_every_step_of_every_start(undisturbed, story):
    expected = {line['step']: line for line in logged(undisturbed)}
    assert sorted(expected) == list(range(1, STEPS + 1))
    text = (story['last'].workdir / 'metrics.jsonl').read_text(encoding='utf-8')
    lines = [json.loads(line) for line in text.splitlines()]
    again = [line for line in lines if 'train/loss' in line]
    assert {line['step'] for line in again} == set(expected)
    assert len(again) > len(expected)  # some steps were done twice
    for line in again:
        assert line == expected[line['step']]
    assert lines[-1] == undisturbed.lines()[-1]
    assert 'eval/street/frame_map@0.5' in lines[-1]


def test_each_start_goes_on_from_the_newest_checkpoint(story):
    for name, run in story.items():
        first = logged(run)[0]['step'] - 1
        assert first % SAVE == 0 or first == story['stopped'].saved, name
    firsts = [logged(run)[0]['step'] for run in story.values()]
    assert firsts[0] == 1 and firsts == sorted(firsts) and firsts[-1] > 1


def test_sigterm_saves_and_nothing_is_lost(story):
    stopped, after = story['stopped'], story['killed 2']
    assert stopped.exit_code == 143
    assert stopped.saved == logged(stopped)[-1]['step']
    assert logged(after)[0]['step'] == stopped.saved + 1
    assert f'stopped by a signal after step {stopped.saved}' in stopped.err
    assert 'Traceback' not in stopped.err


def test_one_kill_was_inside_a_save(story):
    run = story['killed in a save']
    assert run.partial
    unfinished = {int(re.match(r'\d+', folder.name)[0]) for folder in run.partial}
    assert logged(story['killed 4'])[0]['step'] - 1 < min(unfinished)
    assert not being_saved(run.workdir)


def test_a_damaged_checkpoint_is_put_aside_with_a_warning(story):
    run = story['killed in a save']
    assert f'checkpoint {run.damaged}' in run.err and 'checksum' in run.err
    assert (run.workdir / 'checkpoints' / f'damaged_{run.damaged}').is_dir()
    assert logged(run)[0]['step'] - 1 < run.damaged


def test_what_may_change_is_told(story):
    assert 'checkpoint.latest: 2 -> 4' in story['killed 2'].err
    assert 'changed since' not in story['killed 3'].err


def test_another_config_in_the_same_workdir_is_refused(program, tiny_run, undisturbed):
    before = (undisturbed.workdir / 'config.json').read_bytes()
    flags = ('--config.optimizer.b2=0.9', '--config.seed=5', '--config.log.log=2')
    run = program.run(tiny_run('street'), undisturbed.workdir, *LENGTH, *flags)
    assert run.process.returncode == 2
    assert 'Traceback' not in run.err
    assert 'optimizer.b2: 0.999 there, 0.9 now' in run.err and 'seed: 0 there, 5 now' in run.err
    assert 'log.log' not in run.err and 'another --workdir' in run.err
    assert (undisturbed.workdir / 'config.json').read_bytes() == before


def test_other_data_in_the_same_workdir_are_refused(program, tiny_run, undisturbed, mocapstreet, tmp_path):
    truth = (mocapstreet / 'street/ava_train.csv').read_text().splitlines()
    fewer = tmp_path / 'ava_train.csv'
    fewer.write_text('\n'.join(truth[: len(truth) // 2]) + '\n')
    flag = f'--config.sources.truth.annotations=("{fewer}",)'
    run = program.run(tiny_run('street'), undisturbed.workdir, *LENGTH, flag)
    assert run.process.returncode == 2
    assert 'other examples of truth' in run.err and 'Traceback' not in run.err


def test_a_finished_run_says_so_and_changes_nothing(program, tiny_run, undisturbed):
    kept = ('metrics.jsonl', 'environment.json', 'eval/street.json')
    before = [(undisturbed.workdir / name).read_bytes() for name in kept]
    run = program.run(tiny_run('street'), undisturbed.workdir, *LENGTH)
    assert run.process.returncode == 0, run.err
    assert f'already trained: step {STEPS} of {STEPS}' in run.out
    expected = undisturbed.lines()[-1]['eval/street/frame_map@0.5']
    assert f'eval/street/frame_map@0.5 {expected:.4f}' in run.out
    assert [(undisturbed.workdir / name).read_bytes() for name in kept] == before


def test_a_run_stopped_in_its_last_evaluation_evaluates(program, tiny_run, undisturbed, tmp_path):
    workdir = shutil.copytree(undisturbed.workdir, tmp_path / 'copy')
    os.remove(workdir / 'eval/street.json')
    before = workdir / 'checkpoints' / str(STEPS)
    with store.Store(workdir / 'checkpoints') as checkpoints:
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arrays(workdir))
        state, _ = checkpoints.restore(shapes)
        shutil.rmtree(before)
    with store.Store(workdir / 'checkpoints') as checkpoints:
        checkpoints.save(STEPS, state, {})
    run = program.run(tiny_run('street'), workdir, *LENGTH)
    assert run.process.returncode == 0, run.err
    assert run.lines() == [undisturbed.lines()[-1]]
    assert json.loads((workdir / 'eval/street.json').read_text())['step'] == STEPS
    assert 'eval/street/frame_map@0.5' in store.Store(workdir / 'checkpoints').metrics(STEPS)


def test_evaluation_never_refuses(program, tiny_run, undisturbed, tmp_path):
    workdir = shutil.copytree(undisturbed.workdir, tmp_path / 'copy')
    os.remove(workdir / 'eval/street.json')
    run = program.run(tiny_run('street'), workdir, *LENGTH, '--mode=eval', '--config.schedule.rate=7')
    assert run.process.returncode == 0, run.err
    assert run.lines() == [undisturbed.lines()[-1]]
    assert json.loads((workdir / 'eval/street.json').read_text())['step'] == STEPS


def test_evaluation_counts_labels_of_the_training_data_that_are_there(program, tiny_run, undisturbed, tmp_path):
    workdir = shutil.copytree(undisturbed.workdir, tmp_path / 'copy')
    before = json.loads((workdir / 'eval/street.json').read_text())
    run = program.run(tiny_run('street'), workdir, *LENGTH, '--mode=eval', '--config.sources.truth.videos=gone')
    assert run.process.returncode == 0, run.err
    assert 'truth is not there to count its labels' in run.err and 'Traceback' not in run.err
    after = json.loads((workdir / 'eval/street.json').read_text())
    assert after['counted_in'] == before['counted_in'] == 'training' and after['train_count'] == before['train_count']


def test_evaluation_without_a_checkpoint_is_an_error_in_words(program, tiny_run, tmp_path):
    run = program.run(tiny_run('street'), tmp_path / 'nothing', '--mode=eval')
    assert run.process.returncode == 2
    assert 'no checkpoint in' in run.err and 'Traceback' not in run.err


def test_the_mixture_is_noted(undisturbed):
    noted = json.loads((undisturbed.workdir / 'environment.json').read_text())['source_steps']
    drawn = [line['train/share/street'] for line in logged(undisturbed)]
    assert noted == {'street': int(sum(drawn)), 'truth': STEPS - int(sum(drawn))}
    # weighted: as many keyframes with boxes as with true boxes, so about half each; 4 deviations are 9.8
    assert abs(noted['street'] - STEPS / 2) < 9.8
