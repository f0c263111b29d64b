"""A search over settings: cells are trained rung by rung, each in a workdir of its own below OUT, and ranked.

A cell is finished when its cell.json is there; what is missing is trained, and a cell that was begun goes on from its
checkpoint. Any number of processes may work in one OUT: each takes cells that no other one is at.
"""

import math
import os
import signal
import time
from collections.abc import Mapping
from typing import Any, Self

from vidloc.experiments import sweep_outcome
from vidloc.experiments.sweep_outcome import Found
from vidloc.experiments.sweep_plan import CELL, Cell, Plan, Say, SweepError
from vidloc.experiments.sweep_trainer import Trainer
from vidloc.train import loop, writer

# Seconds between two looks at what other processes have finished.
LOOK = 2.0


def measure(trainer: Trainer, say: Say, *, retry_failed: bool = False) -> str:
    """Trains what is missing of the trainer's plan, files results.json and results.md, returns the text of the latter.

    A trial that fails is told, and the others go on. retry_failed: cells that failed are trained again. Raises
    SweepError, and what the trainer raises; exits with 143 after SIGTERM or SIGINT.
    """
    plan, out = trainer.plan, trainer.out
    found = sweep_outcome.read(plan, out)
    if retry_failed:
        for cell in [cell for cell in found if found[cell]['failed']]:
            (out / cell.folder / CELL).unlink(missing_ok=True)
            del found[cell]
    say(described(plan, found))
    for cell in found:
        with trainer.claimed(cell) as mine:
            if mine:
                trainer.tidy(cell)  # A kill may have come before it was done.
    found = _trained(trainer, found, say)
    text = sweep_outcome.write(plan, found, out)
    now = sweep_outcome.stage(plan, found)
    if not sweep_outcome.ranking(plan, now):
        raise SweepError(
            f'all trials failed, the first one so: {now.scores[0][0].failed}\n'
            f'{out / sweep_outcome.TEXT} has all; if the settings are not at fault, --retry-failed trains them again'
        )
    return text


def described(plan: Plan, found: Found) -> str:
    """The plan, for the user: trainings and steps of each rung, beside those of all trials in full."""
    size = 'drawn from ranges' if math.isinf(plan.size) else f'of {int(plan.size):,} in the grid'
    cells = plan.repeats * sum(rung.trials for rung in plan.rungs)
    every = len(plan.points) * plan.repeats * plan.full
    rungs = [
        f'  rung {number}: {rung.trials} trials'
        + (f' x {plan.repeats} folds and seeds' if plan.repeats > 1 else '')
        + f', {rung.steps:,} steps each'
        for number, rung in enumerate(plan.rungs)
    ]
    first = (
        f'{len(plan.points)} trials {size}: {cells} trainings, {plan.steps:,} steps (all trials in full: {every:,}); '
        f'{len(found)} trainings are there'
    )
    return '\n'.join([first, *rungs])


def _trained(trainer: Trainer, found: Found, say: Say) -> Found:
    """The finished cells, once all are."""
    plan, out = trainer.plan, trainer.out
    pace, waiting = _Pace(), False
    with _Stops() as stops:
        while cells := sweep_outcome.pending(plan, found):
            took = False
            for cell in cells:
                if cell not in sweep_outcome.pending(plan, found):
                    continue  # Another fold or seed of its trial failed.
                with trainer.claimed(cell) as mine:
                    if not mine:
                        continue
                    if not trainer.finished(cell):
                        seconds = trainer.finish(cell, sweep_outcome.parameters(found, cell.trial))
                        pace.add(seconds, plan.rungs[cell.rung].steps)
                    trainer.tidy(cell)
                took, waiting = True, False
                found = sweep_outcome.read(plan, out, found)
                sweep_outcome.write(plan, found, out)
                say(_said(plan, cell, found[cell]) + pace.left(sweep_outcome.steps_left(plan, found)))
                if stops.seen():
                    raise SystemExit(loop.EXIT_STOPPED)
            if not took:
                if not waiting:
                    say(f'waiting for {cells[0].folder}, which another process trains')
                waiting = True
                time.sleep(LOOK)
                found = sweep_outcome.read(plan, out, found)
    return found


def _said(plan: Plan, cell: Cell, found: Mapping[str, Any]) -> str:
    """A finished cell in some words."""
    settings = ', '.join(f'{field}={text}' for field, text in found['settings'].items())
    value = found['figures'].get(plan.request.metric)
    if found['failed']:
        told = f'failed: {sweep_outcome.short(found["failed"])}'
    else:
        told = f'{plan.request.metric} {"is no number" if value is None else f"{value:.4f}"}, {found["seconds"]:.0f} s'
    return f'{cell.folder}: {settings}: {told}'


class _Pace:
    """How fast the cells of this process were, whole ones alone."""

    def __init__(self):
        self._seconds, self._steps = 0.0, 0

    def add(self, seconds: float | None, steps: int) -> None:
        """A cell that took so long; None: it was begun earlier, or failed."""
        if seconds is not None:
            self._seconds, self._steps = self._seconds + seconds, self._steps + steps

    def left(self, steps: int) -> str:
        """How long so many steps will take, for one process."""
        if not self._steps or not steps:
            return ''
        return f'; {steps:,} steps to go, about {writer.duration(steps * self._seconds / self._steps)}'


class _Stops:
    """Notices SIGTERM and SIGINT even while a training has handlers of its own.

    A training acts on them between two steps; of one that comes after its last step it takes note and ends as usual.
    """

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        # Python writes the number of every signal that has a handler of Python's into it.
        self._before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._before)
        os.close(self._read)
        os.close(self._write)

    def seen(self) -> bool:
        """Whether one came since the last call."""
        try:
            numbers = os.read(self._read, 4096)
        except BlockingIOError:
            return False
        return not {signal.SIGTERM, signal.SIGINT}.isdisjoint(numbers)
