"""The one training loop: batches in, checkpoints and figures out. It knows tasks only as names."""

import collections
import dataclasses
import logging
import math
import signal
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from vidloc.train import state as state_lib
from vidloc.train import writer as writer_lib

# A step's result is looked at only when this many later steps are under way, so the host never waits for the device.
LAG = 2
# The share of unreadable examples is judged once this many were drawn.
JUDGED_AFTER = 20
# So many are named in an error.
SHOWN = 10
EXIT_STOPPED = 143


@dataclasses.dataclass(frozen=True)
class Rhythm:
    """When the loop does what, in steps; 0 means never but at the end.

    log: averaged training figures. evaluate: all evaluation sources. save: a checkpoint (one is also written before
    every evaluation, whose figures are added to it). broken_share: the run stops when surely more than this share of
    the examples is unreadable. gradient_norm: whether it is logged; without clipping (train.clip_norm=0)
    that keeps all gradients in memory at once.
    """

    log: int = 50
    evaluate: int = 0
    save: int = 1000
    broken_share: float = 0.2
    gradient_norm: bool = True


class Diverged(RuntimeError):
    """A loss or gradient is not finite."""


class TooManyBroken(RuntimeError):
    """More examples than allowed cannot be read."""


class Store(Protocol):
    """What the loop needs of checkpoints.store."""

    def save(self, step: int, state: Any, metrics: Mapping[str, float]) -> None: ...

    def wait(self) -> None: ...


class StopSignal:
    """Remembers SIGTERM and SIGINT; with several processes, all stop at the same step."""

    def __init__(self):
        self.requested = False
        self._before = {}

    def __enter__(self) -> 'StopSignal':
        if jax.process_count() == 1:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: Any) -> None:
        self.requested = True

    def at(self, step: int) -> bool:
        """Whether to stop before `step`; a collective when there are several processes."""
        if jax.process_count() == 1:
            return self.requested
        from jax.experimental import multihost_utils

        return multihost_utils.reached_preemption_sync_point(step)


@dataclasses.dataclass
class Averages:
    """Sums (sum, weight) pairs over steps and divides once."""

    sums: dict[str, list[float]] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(lambda: [0.0, 0.0])
    )

    def add(self, name: str, total: float, weight: float) -> None:
        self.sums[name][0] += total
        self.sums[name][1] += weight

    def take(self) -> dict[str, float]:
        """{name: average} since the last call."""
        averages = {name: total / weight for name, (total, weight) in self.sums.items() if weight > 0}
        self.sums.clear()
        return averages


def unwatched(step: int, figures: Mapping[str, float]) -> Mapping[str, str]:
    """For Fit.watch: nothing is warned of."""
    del step, figures
    return {}


@dataclasses.dataclass
class Fit:
    """Everything the loop works with; run() is the loop.

    train_step(state, frozen, {task: batch}) -> (state, metrics). batches: dicts as data.pipeline.train_batches gives.
    sources: (name, task) by number. place: a process's rows to the mesh. evaluate(state, step) -> figures.
    name_example(source number, id) -> text; why_broken(source number, id) -> text. watch(step, figures) is shown all
    figures that are logged, and gives {what is wrong: what to say of it}.
    """

    train_step: Callable[[Any, Any, Mapping[str, Any]], tuple[Any, Mapping[str, Any]]]
    batches: Iterable[dict[str, np.ndarray]]
    sources: list[tuple[str, str]]
    total_steps: int
    rhythm: Rhythm
    place: Callable[[Any], Any]
    evaluate: Callable[[state_lib.TrainState, int], dict[str, float]]
    store: Store
    writer: writer_lib.Writer
    progress: writer_lib.Progress
    name_example: Callable[[int, int], str]
    why_broken: Callable[[int, int], str]
    watch: Callable[[int, Mapping[str, float]], Mapping[str, str]] = unwatched

    def run(self, state: state_lib.TrainState, frozen: Any, first_step: int) -> state_lib.TrainState:
        """Trains from first_step to total_steps and returns the last state.

        Raises Diverged, TooManyBroken; exits with 143 after SIGTERM or SIGINT, once a checkpoint is written.
        """
        self._averages, self._pending = Averages(), collections.deque()
        self._broken: dict[tuple[int, int], None] = {}
        self._drawn = self._replaced = 0
        saved = first_step
        with StopSignal() as stop:
            for batch in self.batches:
                step = int(batch.pop('step'))
                if stop.at(step):
                    self._settle(0)
                    if step > saved:
                        self.store.save(step, state, {})
                    self.store.wait()
                    self.progress.close()
                    logging.warning('stopped by a signal after step %d; the same command goes on from there', step)
                    raise SystemExit(EXIT_STOPPED)
                number = int(batch.pop('source'))
                self._name_broken(number, batch['broken_id'])
                ids, task = batch['example_id'], self.sources[number][1]
                placed = self.place(batch)
                replaced = _count(placed['replaced'])
                state, metrics = self.train_step(state, frozen, {task: placed})
                self._pending.append((step, number, ids, {**metrics, 'replaced': replaced}))
                self._settle(LAG)
                done = step + 1
                last = done == self.total_steps
                if _due(done, self.rhythm.log) or last:
                    self._settle(0)
                    self._log(done, self._averages.take())
                evaluated: dict[str, float] = {}
                if _due(done, self.rhythm.evaluate) or last:
                    self._settle(0)
                    # Before the evaluation, which may take long or fail; the figures are added to it.
                    self.store.save(done, state, {})
                    evaluated = self.evaluate(state, done)
                    self._log(done, evaluated)
                    self.writer.flush()
                if evaluated or _due(done, self.rhythm.save) or last:
                    self._settle(0)
                    self.store.save(done, state, evaluated)
                    saved = done
        self.store.wait()
        self.progress.close()
        return state

    def _log(self, step: int, figures: Mapping[str, float]) -> None:
        self.writer.scalars(step, figures)
        warnings = self.watch(step, figures)
        if warnings:
            self.progress.close()
            self.writer.warnings(step, warnings)

    def _settle(self, lag: int) -> None:
        """Fetches the results of all but the newest `lag` steps; raises Diverged at the first that is not finite."""
        while len(self._pending) > lag:
            step, number, ids, metrics = self._pending.popleft()
            values = jax.device_get(metrics)
            name, task = self.sources[number]
            if not values['finite']:
                self.store.wait()
                self.progress.close()
                examples = ', '.join(self.name_example(number, int(i)) for i in ids)
                norm = f', gradient norm {float(values["gradient_norm"]):g}' if 'gradient_norm' in values else ''
                raise Diverged(
                    f'the loss or its gradient is not finite at step {step} (source {name}, task {task}, loss '
                    f'{float(values["loss"]):g}{norm}); '
                    f'examples: {examples}. '
                    'The parameters were not changed by this step and the last checkpoint is intact. Start again in a '
                    'new --workdir with a lower '
                    'schedule.rate, a longer warm-up or train.clip_norm.'
                )
            self._judge_broken(int(values['replaced']), len(ids) * jax.process_count())
            averages = self._averages
            for key in ('loss', 'gradient_norm', 'rate'):
                if key in values:
                    averages.add(f'train/{key}', float(values[key]), 1.0)
            for logged, parts in values['logs'].items():
                for key, (total, weight) in parts.items():
                    averages.add(f'train/{logged}/{key}', float(total), float(weight))
            for other, (source, _) in enumerate(self.sources):
                averages.add(f'train/share/{source}', float(other == number), 1.0)
            shown = {'loss': float(values['loss'])}
            self.progress.update(step + 1, len(ids) * jax.process_count(), shown)

    def _name_broken(self, number: int, broken: np.ndarray) -> None:
        """Warns of each unreadable example once, in the process that tried to read it."""
        for example in broken[broken >= 0]:
            key = (number, int(example))
            if key not in self._broken:
                self._broken[key] = None
                logging.warning('skipped %s: %s', self.name_example(*key), self.why_broken(*key))

    def _judge_broken(self, replaced: int, drawn: int) -> None:
        """replaced of drawn rows of one global batch; raises TooManyBroken once they are more than the allowed share.

        The counts are those of all processes, so that all of them stop at the same step.
        """
        self._drawn += drawn
        self._replaced += replaced
        self._averages.add('train/replaced', replaced, drawn)
        if self._drawn >= JUDGED_AFTER and self._replaced > allowed(self.rhythm.broken_share, self._drawn):
            self.store.wait()
            self.progress.close()
            named = '; '.join(self.name_example(*key) for key in list(self._broken)[:SHOWN])
            more = f' and {len(self._broken) - SHOWN} more' if len(self._broken) > SHOWN else ''
            raise TooManyBroken(
                f'{self._replaced} of the {self._drawn} examples drawn so far cannot be read, more than the allowed '
                f'{self.rhythm.broken_share:.0%}: {named or "those that other processes named"}{more}. Mend or remove '
                'these files (tools/check_data.py lists all), or raise log.broken_share.'
            )


@jax.jit
def _count(marks: jax.Array) -> jax.Array:
    """marks bool [B] over the mesh -> how many of the global batch are set, on every process."""
    return jnp.sum(marks)


def allowed(share: float, drawn: int) -> float:
    """share of drawn, and three standard deviations: a run below its share does not stop by an unlucky draw."""
    return share * drawn + 3.0 * math.sqrt(share * (1.0 - share) * drawn)


def _due(done: int, every: int) -> bool:
    return every > 0 and done % every == 0
