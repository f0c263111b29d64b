"""The loop with a real step, store, writer and progress line around a linear model."""

import dataclasses
import io
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.checkpoints import store as store_lib
from vidloc.tasks import base
from vidloc.train import loop, optimizer, state, step, trainable, writer


@dataclasses.dataclass(frozen=True)
class Regression:
    scale: float = 1.0

    def init_state(self):
        return ()

    def weight(self, batch, state):
        return jnp.float32(len(batch['y'])), state

    def loss(self, outputs, batch, *, train):
        each = jnp.square(outputs - batch['y'])
        return base.LossOutput(sum=jnp.sum(each), logs={'far': (jnp.sum(each > 1.0), jnp.float32(len(each)))})


TASKS = {'a': Regression(), 'b': Regression()}
SOURCES = [('first', 'a'), ('second', 'b')]
ROWS = 4
RHYTHM = loop.Rhythm(log=4, evaluate=6, save=5)


def batches(steps, first_step=0, *, broken=(), spoilt=None, signal_at=None):
    """A pure function of the step, as the pipeline's. broken: (step, row); spoilt: the step whose input is NaN."""
    for i in range(first_step, steps):
        if i == signal_at:
            os.kill(os.getpid(), signal.SIGTERM)
        rng = np.random.default_rng(i)
        x = rng.normal(size=(ROWS, 3)).astype(np.float32)
        if i == spoilt:
            x[1, 1] = np.nan
        replaced = np.array([(i, row) in broken for row in range(ROWS)])
        ids = (np.arange(ROWS) + ROWS * i).astype(np.int32) % 20
        yield {
            'x': x,
            'y': x.sum(axis=1),
            'example_id': ids,
            'replaced': replaced,
            'broken_id': np.where(replaced, ids, -1).astype(np.int32),
            'step': np.int64(i),
            'source': np.int64(i % 2),
        }


def apply(params, given, *, train, rngs):
    return {task: batch['x'] @ params['backbone']['w'] * params[f'heads_{task}']['w'] for task, batch in given.items()}


@dataclasses.dataclass
class Run:
    """One start in a workdir."""

    workdir: object
    steps: int = 12
    rhythm: loop.Rhythm = RHYTHM

    def __post_init__(self):
        self.store = store_lib.Store(self.workdir / 'checkpoints', store_lib.Policy(keep=10))
        self.evaluated = []
        self.screen = io.StringIO()

    def evaluate(self, now, done):
        self.evaluated.append(done)
        return {'eval/first/error': float(np.abs(now.params['backbone']['w'] - 1).sum())}

    def go(self, *, watch=loop.unwatched, **options):
        """The last state; raises what the loop raises."""
        params = {'backbone': {'w': jnp.zeros(3)}, 'heads_a': {'w': jnp.ones(())}, 'heads_b': {'w': jnp.ones(())}}
        partition = trainable.resolve((('.*', 1.0, False),), params)
        rule = optimizer.Optimizer(
            optimizer.SGD(0.9), optimizer.Schedule(rate=0.02, total=100), partition.rates(), partition.decay()
        )
        begin = state.create(params, rule, TASKS, seed=0)
        first = 0
        if self.store.steps():
            begin, first = self.store.restore(jax.eval_shape(lambda: begin))
            begin = jax.tree.map(jnp.asarray, begin)
        with writer.Writer(self.workdir, enabled=True) as log, self.store:
            return loop.Fit(
                train_step=step.make_train_step(apply, TASKS, rule),
                batches=batches(self.steps, first, **options),
                sources=SOURCES,
                total_steps=self.steps,
                rhythm=self.rhythm,
                place=lambda batch: jax.tree.map(jnp.asarray, batch),
                evaluate=self.evaluate,
                store=self.store,
                writer=log,
                progress=writer.Progress(self.steps, first, stream=self.screen),
                name_example=lambda number, i: f'{SOURCES[number][0]}/{i}.mp4',
                why_broken=lambda number, i: 'cut off',
                watch=watch,
            ).run(begin, {}, first)

    def lines(self):
        return [json.loads(line) for line in (self.workdir / 'metrics.jsonl').read_text().splitlines()]


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def test_the_rhythm(run):
    last = run.go()
    assert int(last.step) == 12
    assert [line['step'] for line in run.lines() if 'train/loss' in line] == [4, 8, 12]
    assert [line['step'] for line in run.lines() if 'eval/first/error' in line] == run.evaluated == [6, 12]
    assert run.store.steps() == [5, 6, 10, 12]  # at each save, and after each evaluation
    assert run.store.metrics(12) == {'eval/first/error': run.lines()[-1]['eval/first/error']}
    assert run.store.metrics(10) == {}
    assert 'step 12/12' in run.screen.getvalue()


@pytest.mark.parametrize('rhythm', [loop.Rhythm(log=0, evaluate=0, save=0), loop.Rhythm(log=100, save=100)])
def test_at_the_end_all_is_done_once(tmp_path, rhythm):
    run = Run(tmp_path, rhythm=rhythm)
    run.go()
    assert [line['step'] for line in run.lines()] == [12, 12]
    assert run.evaluated == run.store.steps() == [12]


def test_what_watches_sees_what_is_logged_and_its_warnings_are_kept(run, caplog):
    shown = []

    def watch(step, figures):
        shown.append({'step': step, **figures})
        return {'a/slow': f'slow at {step}'} if step == 8 or 'eval/first/error' in figures else {}

    run.go(watch=watch)
    assert shown == run.lines()
    kept = [json.loads(line) for line in (run.workdir / 'warnings.jsonl').read_text().splitlines()]
    assert kept == [{'step': at, 'sign': 'a/slow', 'text': f'slow at {at}'} for at in (6, 8, 12)]
    assert [record.getMessage() for record in caplog.records] == [f'step {at}: slow at {at}' for at in (6, 8, 12)]


def test_figures_are_averages_over_the_steps_since_the_last_line(tmp_path):
    every, fourth = Run(tmp_path / 'every', rhythm=loop.Rhythm(log=1)), Run(tmp_path / 'fourth')
    every.go()
    fourth.go()
    each = [line for line in every.lines() if 'train/loss' in line]
    line = fourth.lines()[0]
    assert line['train/loss'] == pytest.approx(np.mean([one['train/loss'] for one in each[:4]]))
    assert line['train/a/loss'] == pytest.approx(np.mean([each[0]['train/a/loss'], each[2]['train/a/loss']]))
    assert line['train/share/first'] == line['train/share/second'] == 0.5
    assert line['train/a/far'] == pytest.approx(np.mean([each[0]['train/a/far'], each[2]['train/a/far']]))
    assert 'train/b/loss' not in each[0] and each[0]['train/share/first'] == 1


def test_a_stopped_run_goes_on_at_that_step_to_the_same_bits(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    whole, parts = Run(tmp_path / 'whole'), Run(tmp_path / 'parts')
    expected = whole.go()
    with pytest.raises(SystemExit) as stopped:
        parts.go(signal_at=7)
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert parts.store.steps() == [5, 6, 7]
    again = Run(tmp_path / 'parts')
    found = again.go()
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert again.evaluated == [12]


def test_a_loss_that_is_not_finite_names_step_source_and_examples(run):
    with pytest.raises(loop.Diverged) as caught:
        run.go(spoilt=7)
    text = str(caught.value)
    assert 'at step 7 (source second, task b' in text
    for i in range(28, 32):
        assert f'second/{i % 20}.mp4' in text
    assert run.store.steps() == [5, 6]
    good, _ = run.store.restore(jax.eval_shape(lambda: {'params': {'backbone': {'w': jnp.zeros(3)}}}), partial=True)
    assert np.all(np.isfinite(good['params']['backbone']['w']))
    assert [line['step'] for line in run.lines() if 'train/loss' in line] == [4]


def test_too_many_unreadable_examples_stop_the_run(run, caplog):
    half = [(i, row) for i in range(12) for row in (0, 1)]
    with pytest.raises(loop.TooManyBroken) as caught:
        run.go(broken=half)
    text = str(caught.value)
    # 20 are drawn after 5 steps, and half of that is beyond doubt
    assert '10 of the 20 examples' in text and '20%' in text
    assert 'first/0.mp4; first/1.mp4; second/4.mp4' in text
    assert 'skipped first/0.mp4: cut off' in caplog.text


def test_a_few_unreadable_examples_are_counted_and_each_named_once(run, caplog):
    again = [(0, 0), (10, 0), (3, 2)]  # steps 0 and 10 draw the same examples
    run.go(broken=again)
    assert caplog.text.count('skipped first/0.mp4: cut off') == 1
    assert caplog.text.count('skipped second/14.mp4: cut off') == 1
    shares = [line['train/replaced'] for line in run.lines() if 'train/loss' in line]
    assert shares == pytest.approx([2 / 16, 0, 1 / 16])


def test_the_allowed_share_is_not_passed_by_an_unlucky_draw():
    """One in ten is broken: of many runs hardly any sees so many that it would stop at one in five."""
    draws = np.random.default_rng(0).random((2000, 500)) < 0.1
    drawn = np.arange(1, 501)
    limit = np.array([loop.allowed(0.2, int(n)) for n in drawn])
    assert np.mean(np.any((draws.cumsum(axis=1) > limit) & (drawn >= loop.JUDGED_AFTER), axis=1)) < 0.002
    # and three in ten stop it in the end
    draws = np.random.default_rng(1).random((200, 2000)) < 0.3
    assert np.all(draws.sum(axis=1) > loop.allowed(0.2, 2000))
