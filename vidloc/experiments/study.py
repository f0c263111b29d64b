"""A paper's claims, measured: a plan that fits into so many minutes, a file for each finished cell, a table.

A cell is one arm with one seed. What is planned is written down before the first cell; a later start in the same
folder follows that plan and trains only what is missing.
"""

import dataclasses
import itertools
import json
import pathlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, Self

from vidloc.checkpoints import store
from vidloc.experiments import outcome
from vidloc.experiments import plan as plan_lib

Say = Callable[[str], None]
Plan = Mapping[str, Any]  # what plan.json holds
# Part of the minutes that a plan fills; the rest is for a machine that slows down.
FILLED = 0.93
# What a forward pass takes of a step's time.
FORWARD = 0.35


class ClaimsError(ValueError):
    """A study cannot start or go on; the text says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Request:
    """minutes: for one start, the first of which plans for as many updates as fit. steps: updates of the longest arm in
    place of that, if given. seeds: of the cells of each arm."""

    minutes: float
    steps: int | None
    seeds: tuple[int, ...]


class Arm(Protocol):
    """What is trained once for each seed."""

    @property
    def name(self) -> str: ...


class Study(Protocol):
    """What is compared. `bench`: what prepare made, with which the study measures and trains.

    arms: in the order in which they are trained.
    """

    @property
    def arms(self) -> Sequence[Any]: ...
    @property
    def claims(self) -> Sequence[outcome.Claim]: ...
    @property
    def seeds(self) -> tuple[int, ...]: ...

    def with_seeds(self, count: int) -> Self:
        """The same study with seeds 0 to count - 1."""

    def prepare(self, configs: pathlib.Path, data: pathlib.Path, out: pathlib.Path, say: Say) -> Any:
        """The bench; configs: the folder of recipes. Makes the data that are not there."""

    def agreed(self, bench: Any) -> dict[str, Any]:
        """What must be the same at every start in one folder, as JSON has it."""

    def planned(self, bench: Any, request: Request, started: float) -> dict[str, Any]:
        """The rest of the plan: at least 'minutes' that it takes. started: time.monotonic(). Raises ClaimsError."""

    def described(self, bench: Any, plan: Plan) -> list[str]:
        """The plan for people, lines on what all arms share."""

    def each(self, bench: Any, plan: Plan, arm: Any) -> str:
        """The plan for people, what is trained in an arm."""

    def seconds(self, bench: Any, plan: Plan, arm: Any) -> float:
        """How long a cell of the arm should take, without compiling."""

    def complete(self, path: pathlib.Path, arm: Any) -> bool:
        """Whether the other files of a cell whose figures are at `path` are there."""

    def train(self, bench: Any, plan: Plan, arm: Any, seed: int, path: Callable[[Any], pathlib.Path]) -> dict[str, Any]:
        """Trains and evaluates one cell: at least 'steps' and 'metrics' {name: share of 1}.

        path(arm): where the cell's figures, and those of other arms of the seed, are filed.
        """

    def headline(self, metrics: Mapping[str, float]) -> str:
        """The figures of a cell in a line."""

    def text(self, summed: Mapping[str, Any], plan: Plan) -> str:
        """claims.md."""


def measure(study: Study, bench: Any, out: pathlib.Path, *, minutes: float, steps: int | None, say: Say) -> str:
    """Trains what is missing in `out`, writes claims.md and claims.json there, and returns the text of the former.

    minutes, steps: see Request. A cell that would end after the minutes are over is not begun; the next start does.
    Raises ClaimsError, and what the study raises.
    """
    started = time.monotonic()
    plan = _plan(study, bench, out, Request(minutes, steps, study.seeds), started)
    say(_described(study, bench, plan, out))

    rate = 1.0  # how much longer cells take than planned
    spent = expected = 0.0
    for seed, arm in itertools.product(study.seeds, study.arms):
        if finished(study, out, arm, seed):
            continue
        estimate = study.seconds(bench, plan, arm)
        if time.monotonic() - started + estimate * rate > 60 * minutes:
            say(f'{minutes:g} minutes are over: start again to train the rest')
            break
        began = time.monotonic()
        found = study.train(bench, plan, arm, seed, lambda other, seed=seed: cell_path(out, other, seed))
        cell = {'arm': arm.name, 'seed': seed, **found}
        store.write_json(cell_path(out, arm, seed), cell)
        took = time.monotonic() - began
        spent, expected = spent + took, expected + estimate
        rate = max(1.0, spent / expected)
        say(f'seed {seed}, {arm.name}: {cell["steps"]} steps, {took:.0f} s; {study.headline(cell["metrics"])}')

    cells = [
        json.loads(cell_path(out, arm, seed).read_text(encoding='utf-8'))
        for seed, arm in itertools.product(study.seeds, study.arms)
        if finished(study, out, arm, seed)
    ]
    summed = outcome.summed_up(study.claims, [arm.name for arm in study.arms], cells, study.seeds)
    text = study.text(summed, plan)
    store.write_json(out / 'claims.json', {'plan': plan, 'cells': cells, **summed})
    store.write_atomically(out / 'claims.md', [text.encode()])
    return text


def cell_path(out: pathlib.Path, arm: Arm, seed: int) -> pathlib.Path:
    """The cell's file: 'studio > yard' of seed 0 is cells/0/studio_then_yard.json."""
    words = arm.name.replace('>', 'then').replace('+', 'and')
    return out / 'cells' / str(seed) / f'{re.sub("[^a-z0-9]+", "_", words)}.json'


def finished(study: Study, out: pathlib.Path, arm: Arm, seed: int) -> bool:
    """Whether the cell is filed, with all that belongs to it."""
    path = cell_path(out, arm, seed)
    return path.exists() and study.complete(path, arm)


def _plan(study: Study, bench: Any, out: pathlib.Path, request: Request, started: float) -> Plan:
    """The plan that `out` holds, if it is the one that is asked for; else a new one, written there."""
    now = {'request': dataclasses.asdict(request), 'arms': [arm.name for arm in study.arms], **study.agreed(bench)}
    now = json.loads(json.dumps(now))  # JSON has no tuples
    path = out / 'plan.json'
    if path.exists():
        there = json.loads(path.read_text(encoding='utf-8'))
        differing = plan_lib.differing(there, now)
        if differing:
            raise ClaimsError(
                f'{out} holds a study with another plan; take another --out, or the same settings:\n'
                + '\n'.join(f'  {text}' for text in differing.values())
            )
        return there
    plan = now | study.planned(bench, request, started) | {'machine': plan_lib.machine()}
    store.write_json(path, plan)
    return json.loads(json.dumps(plan))


def _described(study: Study, bench: Any, plan: Plan, out: pathlib.Path) -> str:
    """The plan, for the user: what is shared, arms with their seconds, and the time of all."""
    lines = [
        f'{len(study.arms)} arms x {len(study.seeds)} seeds, about {plan["minutes"]:g} minutes '
        f'({plan["request"]["minutes"]:g} allowed a start), into {out}',
        *(f'  {line}' for line in study.described(bench, plan)),
    ]
    for arm in study.arms:
        done = sum(finished(study, out, arm, seed) for seed in study.seeds)
        found = f'; {done} of {len(study.seeds)} done' if done else ''
        seconds = study.seconds(bench, plan, arm)
        lines.append(f'  {arm.name!r}: {study.each(bench, plan, arm)}, {seconds:.0f} s a run{found}')
    return '\n'.join(lines)
