"""Trains the cells of a sweep, each in a workdir of its own, and files what came of them in cell.json."""

import contextlib
import dataclasses
import fcntl
import math
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections

from vidloc import build, run, workdir
from vidloc import config as config_lib
from vidloc.checkpoints import store
from vidloc.experiments.sweep_plan import CELL, Cell, Plan, SweepError
from vidloc.report import fields
from vidloc.report import run as report
from vidloc.train import writer

LOG = 'log.txt'
# The machine's faults, not those of a trial's settings: they end the sweep, which goes on when they are mended.
MACHINE = (OSError, store.CheckpointError)
# Removed when a cell is finished: all that is large.
LARGE = ('checkpoints', 'frozen.safetensors')


def parameters(config: ml_collections.ConfigDict) -> int:
    """How many train. Raises ConfigError."""
    return build.experiment(config).partition.total(trainable=True)


@dataclasses.dataclass(frozen=True)
class Trainer:
    """Trains cells of `plan` below `out`.

    faults: errors that a user can cause; a cell in which one occurs has failed. train(config, workdir): leaves a
    metrics.jsonl there. count(config): of the parameters that train. keep_checkpoints: those of finished cells stay.
    """

    plan: Plan
    out: pathlib.Path
    faults: tuple[type[Exception], ...]
    train: Callable[[ml_collections.ConfigDict, pathlib.Path], Any] = run.train
    count: Callable[[ml_collections.ConfigDict], int] = parameters
    keep_checkpoints: bool = False

    def finish(self, cell: Cell, counted: int | None) -> float | None:
        """Trains a cell and writes its cell.json. Returns its seconds if it did all of it and did not fail.

        counted: the parameters that train, if they are known. Raises SweepError, the machine's faults, and what is none
        of `faults`.
        """
        folder = self.out / cell.folder
        begun = (folder / 'config.json').exists()
        began, failed = time.monotonic(), ''
        try:
            config = self.plan.cell_config(cell)
            counted = self.count(config) if counted is None else counted
            with (folder / LOG).open('a', encoding='utf-8') as log, contextlib.redirect_stdout(log):
                self.train(config, folder)
        except MACHINE:
            raise
        except self.faults as error:
            if begun and isinstance(error, workdir.RunError):
                raise  # It does not go on because data or code changed, not because of its settings.
            failed = str(error)
        except jax.errors.JaxRuntimeError as error:
            if not out_of_memory(error):
                raise
            failed = f'out of memory: {str(error).splitlines()[0]}'
        seconds = time.monotonic() - began
        # Programs are compiled for each cell; nobody calls them again.
        jax.clear_caches()
        steps, figures = _figures(folder)
        metric = self.plan.request.metric
        if not failed and metric not in figures:
            raise SweepError(
                f'--metric {metric}: {folder} has no such figure; {config_lib.nearest(metric, figures)}. '
                'The same command with another --metric goes on'
            )
        found = {
            'settings': self.plan.points[cell.trial],
            'failed': failed,
            'steps': steps,
            'seconds': round(seconds, 1),
            'parameters_trainable': counted,
            'figures': figures,
        }
        store.write_json(folder / CELL, found)
        return None if begun or failed else seconds

    def finished(self, cell: Cell) -> bool:
        """Whether the cell is filed, by whichever process."""
        return (self.out / cell.folder / CELL).exists()

    def tidy(self, cell: Cell) -> None:
        """Removes what is large of a finished cell."""
        if self.keep_checkpoints:
            return
        for path in (self.out / cell.folder / name for name in LARGE):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def claimed(self, cell: Cell) -> Iterator[bool]:
        """Whether this process may work at the cell, whose folder is made; no other one may until the end.

        The lock goes with its process, however that ends.
        """
        folder = self.out / cell.folder
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / '.lock').open('w') as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):  # The second is what some systems say.
                yield False
                return
            yield True


def out_of_memory(error: jax.errors.JaxRuntimeError) -> bool:
    """Whether the device had too little memory, which a trial's settings may be the reason of."""
    return 'RESOURCE_EXHAUSTED' in str(error)


def _figures(folder: pathlib.Path) -> tuple[int, dict[str, float | None]]:
    """(last step in metrics.jsonl, what was logged at it; None for what is not finite); 0 steps without the file."""
    path = folder / writer.METRICS_FILE
    if not path.exists():
        return 0, {}
    try:
        rows = report.read_metrics(path)
    except fields.RunError as error:
        raise SweepError(str(error)) from error
    last = rows[-1] if rows else {'step': 0}
    values = {name: value if math.isfinite(value) else None for name, value in last.items() if name != 'step'}
    return int(last['step']), values
