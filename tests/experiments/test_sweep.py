"""The order of trainings, failures and results with trainings that are pretended, then one sweep as it is."""

import contextlib
import dataclasses
import json
import pathlib
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import pytest

from vidloc import workdir
from vidloc.checkpoints import store
from vidloc.experiments import sweep, sweep_plan, sweep_trainer
from vidloc.experiments.sweep_plan import Request, SweepError
from vidloc.experiments.sweep_trainer import Trainer
from vidloc.train import loop, writer

ROOT = pathlib.Path(__file__).parents[2]
RECIPE = f'{ROOT / "tests/tiny_run.py"}:data,street'
MAP = 'eval/street/frame_map@0.5'
RATES = '0.1,0.3,0.2,0.4,0.6,0.5'
REQUEST = Request(RECIPE, (f'schedule.rate={RATES}',), MAP, steps=90, budget=10, eta=3)
FAULTS = (loop.Diverged, workdir.RunError, store.CheckpointError, OSError)


def changed(**values):
    return dataclasses.replace(REQUEST, **values)


class Pretended:
    """Leaves what a training leaves; the better the higher the rate. raised: {place among the trainings: error}."""

    def __init__(self, raised=None):
        self.raised = raised or {}
        self.seen = []

    def __call__(self, config, folder):
        self.seen.append((config.schedule.rate, config.train.steps, config.seed))
        (folder / 'config.json').write_text('{}')
        for large in ('checkpoints/90/state', 'frozen.safetensors'):
            (folder / large).parent.mkdir(parents=True, exist_ok=True)
            (folder / large).write_text('large')
        print('a table of parameters')
        error = self.raised.get(len(self.seen) - 1)
        figures = {MAP: config.schedule.rate + 0.01 * config.seed, 'train/loss': 1 - config.schedule.rate}
        steps = 3 if error else config.train.steps
        (folder / 'metrics.jsonl').write_text(writer.json_line(steps, figures) + '\n')
        if error:
            raise error


def measured(out, request=REQUEST, train=None, keep_checkpoints=False, retry_failed=False):
    said = []
    plan = sweep_plan.settled(sweep_plan.planned(request), out, said.append)
    trainer = Trainer(plan, out, FAULTS, train or Pretended(), lambda config: 11_326, keep_checkpoints)
    sweep.measure(trainer, said.append, retry_failed=retry_failed)
    return json.loads((out / 'results.json').read_text()), said


def test_the_best_go_on_to_longer_trainings_from_the_start(tmp_path):
    train = Pretended()
    found, said = measured(tmp_path, train=train)
    short = [(rate, 10, 0) for rate in (0.1, 0.3, 0.2, 0.4, 0.6, 0.5)]
    assert train.seen == [*short, (0.6, 30, 0), (0.5, 30, 0), (0.6, 90, 0)]
    assert found['finished'] and found['best']['settings'] == {'schedule.rate': '0.6'}
    assert found['ranking'] == [4, 5, 3, 1, 2, 0]
    assert found['steps'] == {
        'trained': 6 * 10 + 2 * 30 + 90,
        'planned': 210,
        'all_trials_in_full': 540,
        'whole_grid_in_full': 540,
    }
    assert [trial['status'] for trial in found['trials']][3:] == [
        'stopped after 10 steps',
        'trained in full',
        'stopped after 30 steps',
    ]
    assert '6 trials of 6 in the grid: 9 trainings, 210 steps (all trials in full: 540)' in said[0]
    assert 'to go, about' in said[1] and '200 steps to go' in said[1]


def test_the_table_and_the_files_that_stay(tmp_path):
    measured(tmp_path)
    lines = (tmp_path / 'results.md').read_text().splitlines()
    row = next(i for i, line in enumerate(lines) if line.startswith('| trial'))
    assert lines[row] == '| trial | schedule.rate | 10 steps | 30 steps | 90 steps | trained parameters | status |'
    assert lines[row + 2] == '| 4 | 0.6 | 0.6000 | 0.6000 | 0.6000 | 11,326 | trained in full |'
    assert lines[row + 4] == '| 3 | 0.4 | 0.4000 |  |  | 11,326 | stopped after 10 steps |'
    command = sweep_plan.planned(REQUEST).command(4)
    assert lines[-1].strip() == command and command.endswith('--config.schedule.rate=0.6 --config.train.steps=90')
    cell = tmp_path / 'trial_004/rung_2/run'
    kept = {path.name for path in cell.iterdir()}
    assert kept == {'.lock', 'cell.json', 'config.json', 'log.txt', 'metrics.jsonl'}
    assert (cell / 'log.txt').read_text() == 'a table of parameters\n'


def test_checkpoints_stay_if_asked_for_and_go_when_it_is_asked_for_no_more(tmp_path):
    large = tmp_path / 'trial_000/rung_0/run/checkpoints/90/state'
    measured(tmp_path, keep_checkpoints=True)
    assert large.exists()
    measured(tmp_path)
    assert not large.exists()


def test_folds_and_seeds_are_averaged(tmp_path):
    fields = ('sources.street.max_boxes', 'eval_sources.street.max_boxes')
    request = changed(
        settings=('schedule.rate=0.1,0.2',), eta=1, budget=None, folds=2, fold_fields=fields, seeds=(0, 4)
    )
    train = Pretended()
    found, _ = measured(tmp_path, request, train)
    assert train.seen == [(rate, 90, seed) for rate in (0.1, 0.2) for _ in (0, 1) for seed in (0, 4)]
    rung = found['trials'][1]['rungs'][0]
    assert rung['mean'] == pytest.approx(0.22) and rung['spread'] == pytest.approx(0.04 / 3**0.5)
    assert list(rung['cells']) == ['fold_0_seed_0', 'fold_0_seed_4', 'fold_1_seed_0', 'fold_1_seed_4']
    text = (tmp_path / 'results.md').read_text()
    assert '0.2200 ± 0.0231' in text and 'over 2 folds and seeds 0, 4' in text
    assert 'max_boxes' not in found['best']['command'] and 'seed' not in found['best']['command']


def test_smaller_may_be_better(tmp_path):
    found, _ = measured(tmp_path, changed(metric='train/loss', larger=False))
    assert found['best']['settings'] == {'schedule.rate': '0.6'}
    found, _ = measured(tmp_path / 'other', changed(metric='train/loss'))
    assert found['best']['settings'] == {'schedule.rate': '0.1'}


def test_a_failed_trial_is_told_and_its_other_cells_are_not_trained(tmp_path):
    train = Pretended({8: loop.Diverged('the loss | is\nnot finite')})  # the first seed of rate 0.6
    found, said = measured(tmp_path, changed(seeds=(0, 1)), train)
    assert (0.6, 10, 1) not in train.seen
    failed = found['trials'][4]
    assert failed['status'] == 'failed' and failed['failed'] == 'the loss | is\nnot finite'
    assert 'failed: the loss / is not finite |' in (tmp_path / 'results.md').read_text()
    assert any('schedule.rate=0.6: failed: ' in text for text in said)
    assert found['best']['settings'] == {'schedule.rate': '0.5'} and found['ranking'] == [5, 3, 1, 2, 0]
    assert found['steps']['trained'] == 10 * 10 + 3 + 4 * 30 + 2 * 90
    again = Pretended()
    measured(tmp_path, changed(seeds=(0, 1)), again)
    assert not again.seen
    found, _ = measured(tmp_path, changed(seeds=(0, 1)), again, retry_failed=True)
    assert again.seen[:2] == [(0.6, 10, 0), (0.6, 10, 1)] and found['best']['settings'] == {'schedule.rate': '0.6'}


def test_a_trial_that_fails_late_is_not_the_best(tmp_path):
    found, _ = measured(tmp_path, train=Pretended({8: loop.Diverged('late')}))
    assert found['finished'] and found['ranking'] == [5, 3, 1, 2, 0]
    assert found['best']['trial'] == 5 and found['best']['steps'] == 30


def test_a_metric_that_is_no_number_is_a_failure(tmp_path):
    train = Pretended()
    figures = writer.json_line(90, {MAP: float('nan')}) + '\n'

    def without(config, folder):
        train(config, folder)
        if config.schedule.rate == 0.6:
            (folder / 'metrics.jsonl').write_text(figures)

    found, _ = measured(tmp_path, train=without)
    assert found['trials'][4]['failed'] == f'{MAP} is no number in trial_004/rung_0/run'
    assert found['best']['trial'] == 5


def test_if_all_fail_the_first_reason_is_told(tmp_path):
    train = Pretended({i: loop.Diverged(f'reason {i}') for i in range(6)})
    with pytest.raises(SweepError, match='all trials failed, the first one so: reason 0'):
        measured(tmp_path, train=train)
    assert len(train.seen) == 6 and (tmp_path / 'results.md').exists()


@pytest.mark.parametrize('error', [OSError('disk full'), store.CheckpointError('torn'), KeyError('a bug')])
def test_faults_of_machine_and_program_end_the_sweep_and_are_no_failures(tmp_path, error):
    with pytest.raises(type(error)):
        measured(tmp_path, train=Pretended({2: error}))
    assert len(list(tmp_path.glob('trial_*/rung_0/run/cell.json'))) == 2
    found, _ = measured(tmp_path)
    assert found['finished'] and not any(trial['failed'] for trial in found['trials'])


def test_a_cell_that_may_not_go_on_ends_the_sweep_but_one_that_cannot_begin_has_failed(tmp_path):
    def refused(config, folder):
        raise workdir.RunError('other data')

    with pytest.raises(SystemExit):
        measured(tmp_path, train=Pretended({0: SystemExit(143)}))
    with pytest.raises(workdir.RunError, match='other data'):
        measured(tmp_path, train=refused)
    with pytest.raises(SweepError, match='all trials failed'):
        measured(tmp_path / 'other', train=refused)


def test_too_little_memory_is_a_failure_of_the_trial(tmp_path):
    def greedy(config, folder):
        if config.schedule.rate == 0.6:
            jax.block_until_ready(jnp.zeros(1 << 50, jnp.uint8))
        Pretended()(config, folder)

    found, _ = measured(tmp_path, train=greedy)
    assert found['trials'][4]['failed'].startswith('out of memory: RESOURCE_EXHAUSTED')
    assert found['best']['trial'] == 5
    assert not sweep_trainer.out_of_memory(jax.errors.JaxRuntimeError('INTERNAL: bug'))


def test_an_unknown_metric_is_told_after_the_first_training_and_can_be_mended(tmp_path):
    train = Pretended()
    with pytest.raises(SweepError, match=f"did you mean '{MAP}'"):
        measured(tmp_path, changed(metric='eval/street/frame_mop@0.5'), train)
    assert len(train.seen) == 1
    assert measured(tmp_path)[0]['finished']


def test_stopped_after_any_training_it_goes_on_and_ends_alike(tmp_path):
    request = changed(seeds=(0, 1))
    whole, _ = measured(tmp_path / 'whole', request)
    starts, finished = 0, False
    while not finished:
        starts += 1
        with contextlib.suppress(SystemExit):
            # Each start finishes one training and ends within the next.
            measured(tmp_path / 'parts', request, Pretended({1: SystemExit(143)}))
        found = json.loads((tmp_path / 'parts/results.json').read_text())
        finished = found['finished']
    assert starts == 6 * 2 + 2 * 2 + 2
    assert found | {'seconds': 0} == whole | {'seconds': 0}


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_last_step_of_a_training_ends_the_sweep_behind_it(tmp_path, number):
    train = Pretended()

    def signalled(config, folder):
        train(config, folder)
        with loop.StopSignal():  # As a training does, which looks at it before a step and not after the last.
            signal.raise_signal(number)

    for count in (1, 2):
        with pytest.raises(SystemExit) as stopped:
            measured(tmp_path, train=signalled)
        assert stopped.value.code == 143 and len(train.seen) == count
    assert signal.set_wakeup_fd(-1) == -1


def test_a_cell_that_another_process_trains_is_left_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, 'LOOK', 0.01)
    cell = tmp_path / 'trial_000/rung_0/run'
    cell.mkdir(parents=True)
    code = (
        'import fcntl, sys; file = open(sys.argv[1], "w"); fcntl.lockf(file, fcntl.LOCK_EX); '
        'print("held", flush=True); sys.stdin.read()'
    )
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True}
    other = subprocess.Popen([sys.executable, '-c', code, str(cell / '.lock')], **pipes)
    assert other.stdout.readline() == 'held\n'
    train, said = Pretended(), []

    def say(text):
        said.append(text)
        if text.startswith('waiting'):
            other.communicate()  # It ends, and its lock with it.

    plan = sweep_plan.planned(changed(eta=1, budget=None))
    sweep.measure(Trainer(plan, tmp_path, FAULTS, train, lambda config: 1), say)
    assert [rate for rate, _, _ in train.seen] == [0.3, 0.2, 0.4, 0.6, 0.5, 0.1]
    assert sum(text == 'waiting for trial_000/rung_0/run, which another process trains' for text in said) == 1


@pytest.fixture(scope='module')
def real(program, tiny_run, tmp_path_factory):
    """Two trials in two rungs, killed in the second training and started again: (folder, killed, its steps, second)."""
    out = tmp_path_factory.mktemp('sweep')
    # What is searched is a matter of the data, so that one program serves both trials.
    words = [f'--config={tiny_run("street")}', '--set', 'sources.street.box_jitter=0.0,0.2', f'--metric={MAP}']
    words += ['--budget=2', '--halve=2', '--steps=4', '--override', 'log.save=1', f'--out={out}']

    def start():
        pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
        command = [sys.executable, str(ROOT / 'tools/sweep.py'), *words]
        return subprocess.Popen(command, cwd=ROOT, env={**program.environment, 'PYTHONPATH': str(ROOT)}, **pipes)

    process = start()
    cell = out / 'trial_001/rung_0/run'
    while not (cell / 'checkpoints/1').exists():
        if process.poll() is not None:
            pytest.fail(f'ended before it was killed: {process.communicate()}')
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    first = (out / 'trial_000/rung_0/run/metrics.jsonl').read_bytes()
    second = start()
    second.out, second.err = second.communicate(timeout=300)
    return out, first, second


def test_a_real_sweep_that_was_killed_goes_on(real):
    out, first, process = real
    assert process.returncode == 0, process.err
    assert 'Traceback' not in process.err
    assert (out / 'trial_000/rung_0/run/metrics.jsonl').read_bytes() == first
    lines = (out / 'trial_001/rung_0/run/metrics.jsonl').read_text().splitlines()
    steps = [json.loads(line)['step'] for line in lines]
    assert steps[-1] == 2 and steps.count(1) == 1  # It went on from its first checkpoint.
    found = json.loads((out / 'results.json').read_text())
    assert found['finished'] and found['steps']['trained'] == found['steps']['planned'] == 8
    assert [len(trial['rungs']) for trial in found['trials']].count(2) == 1
    assert all(trial['parameters_trainable'] == 11_326 for trial in found['trials'])
    assert not list(out.rglob('checkpoints')) and not list(out.rglob('*.tmp'))
    assert process.out.strip().splitlines()[-1].strip() == found['best']['command']


def test_the_last_rung_of_a_real_sweep_is_a_training_of_its_own(real):
    out, _, _ = real
    (last,) = out.glob('trial_*/rung_1/run')
    lines = [json.loads(line) for line in (last / 'metrics.jsonl').read_text().splitlines()]
    assert [line['step'] for line in lines if 'train/loss' in line] == [1, 2, 3, 4]
    found = json.loads((out / 'results.json').read_text())
    assert lines[-1][MAP] == found['best']['score']
    trained = json.loads((last / 'config.json').read_text())
    assert trained['train']['steps'] == 4 and trained['schedule']['warmup_steps'] == 2
    short = json.loads((out / 'trial_000/rung_0/run/config.json').read_text())
    assert short['train']['steps'] == 2 and short['schedule']['warmup_steps'] == 1
