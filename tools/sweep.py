"""Searches settings of a recipe: trains it with each of them, in rungs of successive halving, and ranks them.

python tools/sweep.py --config=configs/X.py:ARGUMENT --metric eval/held/frame_map@0.5 --out runs/sweep
    --set schedule.rate=1e-4,3e-4,1e-3 --set train.ema=0,0.99 --budget 200 --halve 3
python tools/sweep.py --best --out runs/sweep

Prints the plan first. Stopped, it goes on where it was when started again; started several times, the processes share
the work. docs/sweep.md has more.
"""

import argparse
import json
import os
import pathlib
import sys

from absl import logging

from vidloc import main as program
from vidloc.experiments import sweep, sweep_outcome, sweep_plan, sweep_trainer
from vidloc.experiments.sweep_plan import Request, SweepError

NEEDED = {'config': 'recipe', 'set': 'settings', 'metric': 'metric'}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument('--config', dest='recipe', help='configs/X.py or configs/X.py:ARGUMENT')
    parser.add_argument(
        '--set',
        dest='settings',
        action='append',
        default=[],
        metavar='FIELD=VALUES',
        help='V,V,... to choose from, or LOW..HIGH to draw from in logarithms; once for each field',
    )
    parser.add_argument(
        '--override', dest='overrides', action='append', default=[], metavar='FIELD=VALUE', help='for all trials'
    )
    parser.add_argument('--metric', help='figure of the last step in metrics.jsonl, such as eval/held/frame_map@0.5')
    parser.add_argument('--smaller-is-better', dest='larger', action='store_false')
    parser.add_argument('--trials', type=_count, help='at most so many, drawn at random (default: the whole grid)')
    parser.add_argument('--seed', type=int, default=Request.seed, help='of that drawing (default: %(default)s)')
    parser.add_argument('--steps', type=_count, help="of a whole training (default: the config's train.steps)")
    parser.add_argument('--budget', type=_count, help='steps of the first rung')
    parser.add_argument(
        '--halve',
        dest='eta',
        type=_count,
        default=Request.eta,
        help='of so many trials one goes on, to so many times the steps; 1, the default: all are trained in full',
    )
    parser.add_argument('--folds', type=_count, default=Request.folds, help='trainings of a trial, scored by the mean')
    parser.add_argument(
        '--fold-fields', type=_fields, default=Request.fold_fields, help='FIELD,...: set to 0, 1, ... in the folds'
    )
    parser.add_argument(
        '--seeds', type=_numbers, default=Request.seeds, help='S,S,...: likewise for the seed of the run'
    )
    parser.add_argument('--out', type=pathlib.Path, required=True, help='folder of the trainings and the results')
    parser.add_argument('--keep-checkpoints', action='store_true', help='of finished trainings, too')
    parser.add_argument('--retry-failed', action='store_true', help='train again what failed')
    parser.add_argument('--best', action='store_true', help='only print the command line of the best trial in --out')
    asked = vars(parser.parse_args(arguments))
    out, keep, retry, best = (asked.pop(name) for name in ('out', 'keep_checkpoints', 'retry_failed', 'best'))
    if not best and (missing := [f'--{name}' for name, key in NEEDED.items() if not asked[key]]):
        parser.error(f'{", ".join(missing)} must be given')
    # orbax and grain tell every rename at the level of information.
    logging.set_verbosity(logging.WARNING)
    os.environ.setdefault('GRPC_VERBOSITY', 'ERROR')
    faults = program.user_errors()
    try:
        if best:
            print(_best(out))
            return 0
        request = Request(**{name: tuple(value) if isinstance(value, list) else value for name, value in asked.items()})
        plan = sweep_plan.settled(sweep_plan.planned(request), out, _say)
        trainer = sweep_trainer.Trainer(plan, out, faults, keep_checkpoints=keep)
        print(sweep.measure(trainer, _say, retry_failed=retry))
    except (SweepError, *faults) as error:
        print(f'sweep: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f'sweep: interrupted; the same command goes on from {out}', file=sys.stderr)
        return 130
    return 0


def _best(out: pathlib.Path) -> str:
    path = out / sweep_outcome.RESULTS
    if not path.exists():
        raise SweepError(f'{path} is not there: no training of a sweep in {out} is finished')
    found = json.loads(path.read_text(encoding='utf-8'))
    if found['best'] is None:
        raise SweepError(f'{path}: no trial has a score')
    if not found['finished']:
        print('sweep: the sweep is not finished; this is the best so far', file=sys.stderr)
    return found['best']['command']


def _say(text: str) -> None:
    print(text, flush=True)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'{text} is not above 0')
    return number


def _fields(text: str) -> tuple[str, ...]:
    return tuple(text.split(','))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(','))


if __name__ == '__main__':
    sys.exit(main())
