"""What a sweep trains: its trials, its rungs, and the config of every cell, which is one training.

A cell is a trial in a rung, with a fold and a seed. What is planned is written to OUT/sweep.json before the first cell;
a later start in the same folder follows it.
"""

import dataclasses
import itertools
import json
import pathlib
import shlex
from collections.abc import Callable, Iterable

import ml_collections

from vidloc import config as config_lib
from vidloc.checkpoints import store
from vidloc.config import ConfigError
from vidloc.experiments import halving
from vidloc.experiments import plan as plan_lib
from vidloc.experiments import space as space_lib
from vidloc.experiments.space import Point

Say = Callable[[str], None]
PLAN, CELL = 'sweep.json', 'cell.json'
STEPS = 'train.steps'
# Fields that a sweep sets by itself, and what to use in their place.
OWN = {STEPS: '--steps', 'train.epochs': '--steps', 'seed': '--seeds'}
# What may differ between two starts: rhythm and machine, not what is learned or measured.
MAY_CHANGE = ('log.', 'checkpoint.', 'mesh.', 'loading.', 'hint', 'name')
# What may differ as long as no cell is finished.
UNTIL_FINISHED = {'metric', 'larger'}


class SweepError(ValueError):
    """A sweep cannot start or go on; the text says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Request:
    """What is searched, and how; names as in tools/sweep.py.

    recipe: as for vidloc.main --config. settings: the space, texts as space.parsed takes them. metric: a name in
    metrics.jsonl, read at the last step; larger: whether larger is better. overrides: 'a.b=v' for all trials. trials:
    at most so many (None: the grid), drawn with `seed`. steps: of a whole training (None: the config's). budget, eta:
    see halving.rungs. folds: each cell is trained so many times with fold_fields set to 0, 1, ... (0: once, without).
    seeds: of the runs (empty: the config's).
    """

    recipe: str
    settings: tuple[str, ...]
    metric: str
    larger: bool = True
    overrides: tuple[str, ...] = ()
    trials: int | None = None
    seed: int = 0
    steps: int | None = None
    budget: int | None = None
    eta: int = 1
    folds: int = 0
    fold_fields: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training; numbers from 0. fold, seed: None where the config's own is kept."""

    trial: int
    rung: int
    fold: int | None = None
    seed: int | None = None

    @property
    def repeat(self) -> str:
        """Its name among the cells of the trial in the rung, such as fold_0_seed_1."""
        parts = {'fold': self.fold, 'seed': self.seed}
        return '_'.join(f'{name}_{number}' for name, number in parts.items() if number is not None) or 'run'

    @property
    def folder(self) -> pathlib.Path:
        """Its workdir, below that of the sweep."""
        return pathlib.Path(f'trial_{self.trial:03d}', f'rung_{self.rung}', self.repeat)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A request with all that follows from it. config: the recipe's, with the overrides for all trials.

    points: the settings of each trial. size: points of the whole grid, infinite where a field has a range.
    """

    request: Request
    config: ml_collections.ConfigDict
    points: tuple[Point, ...]
    rungs: tuple[halving.Rung, ...]
    size: float

    @property
    def repeats(self) -> int:
        """Cells of a trial in a rung: folds times seeds."""
        return len(self.cells(0, (0,)))

    @property
    def full(self) -> int:
        """Steps of a whole training."""
        return self.rungs[-1].steps

    @property
    def steps(self) -> int:
        """Of all rungs, if no trial fails."""
        return self.repeats * sum(rung.steps * rung.trials for rung in self.rungs)

    def cells(self, rung: int, trials: Iterable[int]) -> tuple[Cell, ...]:
        """Those of the trials in a rung, trial by trial."""
        folds = range(self.request.folds) if self.request.folds else (None,)
        numbered = itertools.product(trials, folds, self.request.seeds or (None,))
        return tuple(Cell(trial, rung, fold, seed) for trial, fold, seed in numbered)

    def cell_config(self, cell: Cell) -> ml_collections.ConfigDict:
        """The config that the cell trains with. Its warm-up is that part of its steps that it is of a whole training's.

        Raises ConfigError.
        """
        steps = self.rungs[cell.rung].steps
        config = _changed(self.config, self.points[cell.trial])
        rates = config.schedule
        values = {STEPS: str(steps)}
        if rates.warmup_steps:
            # Not 0, which would mean warmup_epochs.
            values['schedule.warmup_steps'] = str(max(1, round(rates.warmup_steps * steps / self.full)))
        else:
            values['schedule.warmup_epochs'] = repr(rates.warmup_epochs * steps / self.full)
        if cell.fold is not None:
            values |= dict.fromkeys(self.request.fold_fields, str(cell.fold))
        if cell.seed is not None:
            values['seed'] = str(cell.seed)
        return _changed(config, values)

    def command(self, trial: int) -> str:
        """The command line that trains a trial in full, on all folds."""
        request = self.request
        texts = [*request.overrides, *(f'{field}={text}' for field, text in self.points[trial].items())]
        if request.steps is not None:
            texts.append(f'{STEPS}={request.steps}')
        words = [f'--config={request.recipe}', *(f'--config.{text}' for text in texts)]
        return shlex.join(['python', '-m', 'vidloc.main', *words])


def planned(request: Request) -> Plan:
    """The plan of a request, from its config alone. Raises ConfigError for what does not exist or go together."""
    config = config_lib.load(request.recipe)
    fixed: dict[str, str] = {}
    for text in request.overrides:
        field, sign, value = text.partition('=')
        if not sign:
            raise ConfigError(f'--override {text}: write FIELD=VALUE')
        if field in fixed:
            raise ConfigError(f'--override {field} is there twice')
        config = config_lib.overridden(config, field, value, f'--override {field}')
        fixed[field] = value
    space = space_lib.parsed(config, request.settings)
    _check_fields(request, config, space, fixed)
    _check_metric(request.metric, config)
    full = request.steps or config.train.steps
    if not full:
        raise ConfigError('the config counts in epochs (train.steps is 0): give the length of a training with --steps')
    points = space_lib.trials(space, request.trials, request.seed)
    rungs = halving.rungs(len(points), full, budget=request.budget, eta=request.eta)
    return Plan(request, config, points, rungs, space.size)


def settled(plan: Plan, out: pathlib.Path, say: Say) -> Plan:
    """The plan that `out` holds, if it is what is asked for; else this one, written there. Raises SweepError."""
    flat = config_lib.flatten(plan.config)
    kept = {key: value for key, value in flat.items() if not key.startswith(MAY_CHANGE)}
    now = json.loads(json.dumps(dataclasses.asdict(plan.request) | {'config': kept}))  # JSON has no tuples
    path = out / PLAN
    if path.exists():
        there = json.loads(path.read_text(encoding='utf-8'))
        differing = plan_lib.differing(there, now)
        if differing and (differing.keys() - UNTIL_FINISHED or any(out.glob(f'trial_*/rung_*/*/{CELL}'))):
            raise SweepError(
                f'{out} holds a sweep with another plan; take another --out, or the same settings:\n'
                + '\n'.join(f'  {text}' for text in differing.values())
            )
        for text in plan_lib.differing(there['machine'], plan_lib.machine()).values():
            say(f'not as when the sweep began: {text}')
        plan = dataclasses.replace(plan, points=tuple(there['points']))
        if not differing:
            return plan
    rungs = [dataclasses.asdict(rung) for rung in plan.rungs]
    store.write_json(path, now | {'points': list(plan.points), 'rungs': rungs, 'machine': plan_lib.machine()})
    return plan


def _changed(config: ml_collections.ConfigDict, values: Point) -> ml_collections.ConfigDict:
    for field, text in values.items():
        config = config_lib.overridden(config, field, text, f'--set {field}')
    return config


def _check_fields(
    request: Request, config: ml_collections.ConfigDict, space: space_lib.Space, fixed: Iterable[str]
) -> None:
    """Raises ConfigError for a field that is set in two ways, or that the sweep sets by itself."""
    if not space.fields:
        raise ConfigError('what is to be searched? give --set FIELD=VALUE,VALUE,...')
    for field in space.fields:
        if field in OWN:
            raise ConfigError(f'--set {field}: a sweep sets it by itself; use {OWN[field]}')
        if field in fixed:
            raise ConfigError(f'{field} has both --set and --override')
    if request.steps is not None and STEPS in fixed:
        raise ConfigError(f'{STEPS} has both --steps and --override')
    if request.seeds and 'seed' in fixed:
        raise ConfigError('seed has both --seeds and --override')
    if len(set(request.seeds)) < len(request.seeds):
        raise ConfigError('--seeds has a seed twice')
    if bool(request.folds) != bool(request.fold_fields):
        raise ConfigError('--folds and --fold-fields belong together: how many folds, and the fields that number them')
    for field in request.fold_fields:
        if field in space.fields or field in fixed or field in OWN:
            raise ConfigError(f'--fold-fields {field}: the field is set in another way, too')
        config_lib.overridden(config, field, '0', f'--fold-fields {field}')


def _check_metric(metric: str, config: ml_collections.ConfigDict) -> None:
    """Raises ConfigError for a metric of a source that is not evaluated; its last part is known after a training."""
    room, _, rest = metric.partition('/')
    if room not in ('eval', 'train') or not rest:
        raise ConfigError(f'--metric {metric}: name a figure of metrics.jsonl, such as eval/SOURCE/frame_map@0.5')
    if room == 'eval':
        evaluated = (*config.eval_sources, *config.eval.unions)
        config_lib.choose(dict.fromkeys(evaluated), rest.partition('/')[0], f'--metric {metric}')
