"""What the finished cells of a sweep say: which trials go on, how they rank, results.json and results.md."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from vidloc.checkpoints import store
from vidloc.experiments import halving, statistics
from vidloc.experiments.sweep_plan import CELL, Cell, Plan

Found = Mapping[Cell, Mapping[str, Any]]  # what cell.json holds, of the finished cells
RESULTS, TEXT = 'results.json', 'results.md'
# Characters of a failure's reason in a table; results.json has all of it.
REASON = 100


@dataclasses.dataclass(frozen=True)
class Score:
    """A trial in a rung. mean, spread: of the metric over its cells, once all are there and none failed; spread is the
    sample standard deviation, None for one cell. failed: why it has no score and never will."""

    done: int
    mean: float | None = None
    spread: float | None = None
    failed: str = ''


@dataclasses.dataclass(frozen=True)
class Stage:
    """How far a sweep is. scores: by rung, {trial: its score}, of the rungs that were begun; others of the plan were
    left out or are still to come. rung: the one that is not complete, None if nothing is left to train."""

    scores: Mapping[int, Mapping[int, Score]]
    rung: int | None


def read(plan: Plan, out: pathlib.Path, known: Found | None = None) -> dict[Cell, Mapping[str, Any]]:
    """The finished cells below `out`; known: those that were read before."""
    found = dict(known or {})
    for rung in range(len(plan.rungs)):
        for cell in plan.cells(rung, range(len(plan.points))):
            path = out / cell.folder / CELL
            if cell not in found and path.exists():
                found[cell] = json.loads(path.read_text(encoding='utf-8'))
    return found


def stage(plan: Plan, found: Found) -> Stage:
    """What the finished cells decide; the same whatever the order in which they were trained."""
    scores: dict[int, dict[int, Score]] = {}
    trials: tuple[int, ...] = tuple(range(len(plan.points)))
    last = len(plan.rungs) - 1
    for rung in range(len(plan.rungs)):
        if rung < last and len(trials) == 1:
            continue  # nothing to decide: others failed
        scores[rung] = {trial: _score(plan, found, rung, trial) for trial in trials}
        if any(score.mean is None and not score.failed for score in scores[rung].values()):
            return Stage(scores, rung)
        means = {trial: score.mean for trial, score in scores[rung].items()}
        trials = halving.promote(means, plan.request.eta, larger=plan.request.larger)
        if not trials:
            break
    return Stage(scores, None)


def pending(plan: Plan, found: Found) -> tuple[Cell, ...]:
    """The cells to be trained now: those that are missing in the incomplete rung, but of trials that failed in it."""
    now = stage(plan, found)
    if now.rung is None:
        return ()
    alive = [trial for trial, score in now.scores[now.rung].items() if not score.failed]
    return tuple(cell for cell in plan.cells(now.rung, sorted(alive)) if cell not in found)


def steps_left(plan: Plan, found: Found) -> int:
    """Steps of the cells that are still to be trained, if none of them fails."""
    now = stage(plan, found)
    if now.rung is None:
        return 0
    later = sum(rung.steps * rung.trials for rung in plan.rungs[now.rung + 1 :])
    return plan.rungs[now.rung].steps * len(pending(plan, found)) + plan.repeats * later


def _score(plan: Plan, found: Found, rung: int, trial: int) -> Score:
    cells = [cell for cell in plan.cells(rung, (trial,)) if cell in found]
    for cell in cells:
        if found[cell]['failed']:
            return Score(len(cells), failed=found[cell]['failed'])
        if found[cell]['figures'][plan.request.metric] is None:
            return Score(len(cells), failed=f'{plan.request.metric} is no number in {cell.folder}')
    if len(cells) < plan.repeats:
        return Score(len(cells))
    values = [found[cell]['figures'][plan.request.metric] for cell in cells]
    return Score(len(cells), math.fsum(values) / len(values), statistics.spread(values) if len(values) > 1 else None)


def ranking(plan: Plan, now: Stage) -> tuple[int, ...]:
    """The trials with a score that failed in no rung, best first: those of a later rung before the others."""
    failed = {trial for scores in now.scores.values() for trial, score in scores.items() if score.failed}
    order: list[int] = []
    for rung in sorted(now.scores, reverse=True):
        means = {trial: score.mean for trial, score in now.scores[rung].items() if trial not in (*failed, *order)}
        order += halving.ranked(means, larger=plan.request.larger)
    return tuple(order)


def parameters(found: Found, trial: int) -> int | None:
    """How many train in a trial, if one of its cells says it."""
    counts = (cell['parameters_trainable'] for key, cell in found.items() if key.trial == trial)
    return next((count for count in counts if count is not None), None)


def summed_up(plan: Plan, found: Found) -> dict[str, Any]:
    """results.json: trials with their scores, the ranking, the best one with its command line, and steps."""
    now = stage(plan, found)
    order = ranking(plan, now)
    trials = [_trial(plan, found, now, trial) for trial in range(len(plan.points))]
    best = None
    if order:
        rung = max(rung for rung in now.scores if now.scores[rung].get(order[0], Score(0)).mean is not None)
        best = {
            'trial': order[0],
            'settings': plan.points[order[0]],
            'steps': plan.rungs[rung].steps,
            'score': now.scores[rung][order[0]].mean,
            'spread': now.scores[rung][order[0]].spread,
            'command': plan.command(order[0]),
        }
    every = plan.repeats * plan.full
    return {
        'metric': plan.request.metric,
        'larger_is_better': plan.request.larger,
        'finished': now.rung is None,
        'trials': trials,
        'ranking': list(order),
        'best': best,
        'steps': {
            'trained': sum(cell['steps'] for cell in found.values()),
            'planned': plan.steps,
            'all_trials_in_full': len(plan.points) * every,
            'whole_grid_in_full': None if math.isinf(plan.size) else int(plan.size) * every,
        },
        'seconds': sum(cell['seconds'] for cell in found.values()),
    }


def _trial(plan: Plan, found: Found, now: Stage, trial: int) -> dict[str, Any]:
    rungs, status = [], 'not begun'
    for rung in sorted(now.scores):
        if trial not in now.scores[rung]:
            continue
        score, steps = now.scores[rung][trial], plan.rungs[rung].steps
        cells = {
            cell.repeat: found[cell]['figures'].get(plan.request.metric) if cell in found else None
            for cell in plan.cells(rung, (trial,))
        }
        rungs.append({'rung': rung, 'steps': steps, **dataclasses.asdict(score), 'cells': cells})
        if score.failed:
            status = 'failed'
        elif score.mean is None:
            status = f'{score.done} of {plan.repeats} cells at {steps} steps' if score.done or rung else 'not begun'
        else:
            status = 'trained in full' if rung == len(plan.rungs) - 1 else f'stopped after {steps} steps'
    if rungs and rungs[-1]['rung'] == now.rung and rungs[-1]['mean'] is not None:
        status = f'waits for the others at {rungs[-1]["steps"]} steps'
    return {
        'trial': trial,
        'settings': plan.points[trial],
        'rungs': rungs,
        'parameters_trainable': parameters(found, trial),
        'status': status,
        'failed': next((each['failed'] for each in rungs if each['failed']), ''),
    }


def text(plan: Plan, summed: Mapping[str, Any]) -> str:
    """results.md: every trial in a row, best first; steps; the best one's command line."""
    request, best = plan.request, summed['best']
    fields = list(plan.points[0])
    shown = sorted({rung['rung'] for trial in summed['trials'] for rung in trial['rungs']})
    repeats = [
        f'{request.folds} folds' if request.folds else '',
        f'seeds {", ".join(map(str, request.seeds))}' if request.seeds else '',
    ]
    over = ' and '.join(part for part in repeats if part)
    titles = ['trial', *fields, *(f'{plan.rungs[rung].steps} steps' for rung in shown), 'trained parameters', 'status']
    lines = [
        f'{request.metric} of {request.recipe}, {"larger" if request.larger else "smaller"} is better'
        + (f'; mean and sample standard deviation over {over}' if over else '')
        + '.',
        '' if summed['finished'] else '\nNot finished: the same command goes on.\n',
        _row(titles),
        _row(['---'] * len(titles)),
    ]
    rest = [trial['trial'] for trial in summed['trials'] if trial['trial'] not in summed['ranking']]
    for number in (*summed['ranking'], *rest):
        trial = summed['trials'][number]
        scores = {rung['rung']: _score_text(rung) for rung in trial['rungs']}
        count = trial['parameters_trainable']
        status = trial['status'] + (f': {short(trial["failed"])}' if trial['failed'] else '')
        cells = [str(number), *(trial['settings'][field] for field in fields)]
        lines.append(_row([*cells, *(scores.get(rung, '') for rung in shown), f'{count:,}' if count else '', status]))
    lines += ['', _steps_text(summed['steps'])]
    if best:
        told = f'Best is trial {best["trial"]}, by its score after {best["steps"]} steps.'
        lines += ['', f'{told} This trains it in full, on all that the recipe has:', '', f'    {best["command"]}']
    return '\n'.join(lines) + '\n'


def write(plan: Plan, found: Found, out: pathlib.Path) -> str:
    """Writes OUT/results.json and OUT/results.md; returns the text of the latter."""
    summed = summed_up(plan, found)
    told = text(plan, summed)
    store.write_json(out / RESULTS, summed)
    store.write_atomically(out / TEXT, [told.encode()])
    return told


def short(reason: str) -> str:
    """The begin of a reason, in one line that fits into a table."""
    line = ' '.join(reason.replace('|', '/').split())
    return line if len(line) <= REASON else line[:REASON].rstrip() + ' ...'


def _steps_text(steps: Mapping[str, int | None]) -> str:
    grid = steps['whole_grid_in_full']
    return (
        f'{steps["trained"]:,} steps trained of {steps["planned"]:,} planned; all trials in full would take '
        f'{steps["all_trials_in_full"]:,}'
        + (f', the whole grid {grid:,}.' if grid not in (None, steps['all_trials_in_full']) else '.')
    )


def _score_text(rung: Mapping[str, Any]) -> str:
    if rung['mean'] is None:
        return ''
    return f'{rung["mean"]:.4f}' + ('' if rung['spread'] is None else f' ± {rung["spread"]:.4f}')


def _row(cells: list[str]) -> str:
    return f'| {" | ".join(cells)} |'
