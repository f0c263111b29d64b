"""A paper's claims, measured: a plan that fits into so many minutes, a file for each finished cell, a table.

A cell is one arm with one seed. What is planned is written down before the first cell; a later start in the same
folder follows that plan and trains only what is missing.
"""

import dataclasses
import io
import itertools
import json
import pathlib
import platform
import re
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

import jax
import ml_collections
import numpy as np

from vidloc import config as config_lib
from vidloc import workdir
from vidloc.checkpoints import store
from vidloc.experiments import cofinetuning, outcome, workbench
from vidloc.synthetic import export

Say = Callable[[str], None]
# Part of the minutes that a plan fills; the rest is for a machine that slows down.
FILLED = 0.93
# What a forward pass takes of a step's time.
FORWARD = 0.35
# A length of training at which times are worked out before the length is known.
UNIT = 10**6


class ClaimsError(ValueError):
    """A study cannot start or go on; the text says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Study:
    """setting: what the arms share; arms: what is trained, in this order; claims: what is compared."""

    setting: cofinetuning.Setting
    arms: tuple[cofinetuning.Arm, ...]
    claims: tuple[cofinetuning.Claim, ...]


STUDIES = {'cofinetuning': Study(cofinetuning.SETTING, cofinetuning.ARMS, cofinetuning.CLAIMS)}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is going to be trained, and how long that should take.

    request: what the user asked for. total: updates of the weighted arm of all sources. updates: {source: updates in
    every weighted arm that uses it}. pace: {source: [seconds a step, seconds to compile it]}. sources: size and hash
    of the examples of all splits. config: every setting that matters, flat.
    """

    request: dict[str, Any]
    arms: list[str]
    total: int
    updates: dict[str, int]
    pace: dict[str, list[float]]
    minutes: float
    sources: dict[str, Any]
    config: dict[str, Any]
    shares: dict[str, float]
    machine: dict[str, Any]


def prepare(study: Study, recipe: pathlib.Path, data: pathlib.Path, say: Say) -> workbench.Workbench:
    """The demo's model on the data of a folder, which is rendered (size small, seed 0) if it is not there.

    Raises ConfigError, MocapStreetError, and what opening the data raises.
    """
    if not (data / 'mocapstreet.json').exists():
        say(f'rendering MocapStreet (size small) into {data}')
        export.make(data, 'small', 0, None)
    return bench_of(study, config_lib.load(f'{recipe}:{data}'))


def bench_of(study: Study, config: ml_collections.ConfigDict) -> workbench.Workbench:
    """The workbench of a study; config: the demo's, to which the study's setting is applied."""
    return workbench.Workbench(study.setting.applied(config), cofinetuning.BOXES, study.setting.shares)


def measure(
    study: Study, bench: workbench.Workbench, out: pathlib.Path, *, minutes: float, steps: int | None, say: Say
) -> str:
    """Trains what is missing in `out`, writes claims.md and claims.json there, and returns the text of the former.

    minutes: for one start, the first of which plans for as many updates as fit; steps: updates of the longest arm in
    place of that. A cell that would end after the minutes are over is not begun; the next start does. Raises
    ClaimsError, Diverged.
    """
    started = time.monotonic()
    setting = study.setting
    request = {'minutes': minutes, 'steps': steps, 'seeds': list(setting.seeds)}
    plan = _plan(study, bench, out, request, started)
    say(_described(study, bench, plan, out))

    rate = 1.0  # how much longer cells take than planned
    spent = expected = 0.0
    for seed, arm in itertools.product(setting.seeds, study.arms):
        if _finished(out, study, arm, seed):
            continue
        estimate = seconds(plan, bench, study, arm)
        if time.monotonic() - started + estimate * rate > 60 * minutes:
            say(f'{minutes:g} minutes are over: start again to train the rest')
            break
        began = time.monotonic()
        cell = _train(study, bench, plan, out, arm, seed)
        took = time.monotonic() - began
        spent, expected = spent + took, expected + estimate
        rate = max(1.0, spent / expected)
        say(f'seed {seed}, {arm.name}: {cell["steps"]} steps, {took:.0f} s; {outcome.one_line(cell["metrics"])}')

    cells = [
        json.loads(_path(out, arm, seed).read_text(encoding='utf-8'))
        for seed, arm in itertools.product(setting.seeds, study.arms)
        if _finished(out, study, arm, seed)
    ]
    summed = outcome.summed_up(study.claims, [arm.name for arm in study.arms], cells, setting.seeds)
    text = outcome.markdown(summed, dataclasses.asdict(plan))
    store.write_json(out / 'claims.json', {'plan': dataclasses.asdict(plan), 'cells': cells, **summed})
    store.write_atomically(out / 'claims.md', [text.encode()])
    return text


def seconds(plan: Plan, bench: workbench.Workbench, study: Study, arm: cofinetuning.Arm) -> float:
    """How long an arm should take, without compiling."""
    return _training(arm, plan.updates, plan.pace) + _evaluation(bench, study, arm, plan.pace)


def _training(arm: cofinetuning.Arm, counts: Mapping[str, int], pace: Mapping[str, Any]) -> float:
    return sum(steps * pace[name][0] for name, steps in cofinetuning.taken(arm, counts).items())


def _evaluation(bench: workbench.Workbench, study: Study, arm: cofinetuning.Arm, pace: Mapping[str, Any]) -> float:
    total = 0.0
    for name in cofinetuning.needed(arm, study.arms):
        examples = len(bench.evaluated[name])
        if name == bench.boxes:
            examples += round(len(bench.evaluated[workbench.SEEN]) * bench.shares[name])
        total += FORWARD * examples / bench.config.sources[name].batch_size * pace[name][0]
    return total


def _plan(study: Study, bench: workbench.Workbench, out: pathlib.Path, request: dict[str, Any], started: float) -> Plan:
    """The plan that `out` holds, if it is the one that is asked for; else a new one, written there."""
    now = {
        'request': request,
        'arms': [arm.name for arm in study.arms],
        'sources': {
            f'{split}.{name}': source.fingerprint()
            for split, opened in (('train', bench.opened), ('val', bench.evaluated))
            for name, source in opened.items()
        },
        'config': json.loads(
            json.dumps({k: v for k, v in config_lib.flatten(bench.config).items() if not workdir.may_change(k)})
        ),
        'shares': dict(study.setting.shares),
    }
    path = out / 'plan.json'
    if path.exists():
        there = json.loads(path.read_text(encoding='utf-8'))
        differing = _differing(there, now)
        if differing:
            raise ClaimsError(
                f'{out} holds a study with another plan; take another --out, or the same settings:\n'
                + '\n'.join(differing)
            )
        return Plan(**there)
    # By shares, not by what a seed happens to draw, so that all seeds have the same lengths.
    sizes = {name: max(1, round(study.setting.shares[name] * len(source))) for name, source in bench.opened.items()}
    many = cofinetuning.updates(UNIT, sizes)
    used = dict.fromkeys(name for arm in study.arms for name in arm.sources)
    pace = {name: list(each) for name, each in bench.pace(used).items()}
    seeds = len(study.setting.seeds)
    fixed = time.monotonic() - started + seeds * sum(_evaluation(bench, study, arm, pace) for arm in study.arms)
    fixed += sum(pace[name][1] for _, name in _programs(study, many))
    each = seeds * sum(_training(arm, many, pace) for arm in study.arms) / UNIT
    total = request['steps'] or int((60 * request['minutes'] * FILLED - fixed) / each)
    try:
        counts = cofinetuning.updates(max(total, 0), sizes)
    except ValueError as error:
        raise ClaimsError(
            f'{error}; {seeds} seeds of {len(study.arms)} arms take about {fixed / 60:.0f} minutes here for compiling '
            'and evaluating alone: give more --minutes (or --steps), or fewer --seeds'
        ) from error
    plan = Plan(
        total=total,
        updates=counts,
        pace=pace,
        minutes=round((fixed + total * each) / 60, 1),
        machine={
            'devices': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
            'machine': platform.machine(),
            'python': platform.python_version(),
            **{package: metadata.version(package) for package in ('jax', 'flax', 'numpy')},
        },
        **now,
    )
    store.write_json(path, dataclasses.asdict(plan))
    return plan


def _differing(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What of the plan to be made is not in the one that is there, one line each."""
    before = config_lib.flatten({key: there.get(key) for key in now} if there else {})
    after = config_lib.flatten(now)
    return [
        f'  {key}: {before.get(key)!r} there, {after.get(key)!r} now'
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def _programs(study: Study, counts: Mapping[str, int]) -> set[tuple[int, str]]:
    """(length, source) of every step that is compiled."""
    taken = [cofinetuning.taken(arm, counts) for arm in study.arms]
    return {(sum(each.values()), name) for each in taken for name in each}


def _described(study: Study, bench: workbench.Workbench, plan: Plan, out: pathlib.Path) -> str:
    """The plan, for the user: arms with their updates and seconds, and the time of all."""
    lines = [
        f'{len(study.arms)} arms x {len(study.setting.seeds)} seeds, about {plan.minutes:g} minutes '
        f'({plan.request["minutes"]:g} allowed a start), into {out}'
    ]
    for name, (each, compiling) in plan.pace.items():
        lines.append(
            f'  {name}: {1e3 * each:.0f} ms a step of {bench.config.sources[name].batch_size} examples, '
            f'{compiling:.0f} s to compile; {round(plan.shares[name] * len(bench.opened[name]))} examples, '
            f'{plan.updates[name]} updates'
        )
    for arm in study.arms:
        taken = ', '.join(f'{count} {name}' for name, count in cofinetuning.taken(arm, plan.updates).items())
        start = f' from the weights of {arm.after!r}' if arm.after else ''
        done = sum(_finished(out, study, arm, seed) for seed in study.setting.seeds)
        found = f'; {done} of {len(study.setting.seeds)} done' if done else ''
        lines.append(f'  {arm.name!r}: {taken} updates{start}, {seconds(plan, bench, study, arm):.0f} s a run{found}')
    return '\n'.join(lines)


def _train(
    study: Study, bench: workbench.Workbench, plan: Plan, out: pathlib.Path, arm: cofinetuning.Arm, seed: int
) -> dict[str, Any]:
    """Trains, evaluates and files one cell; its weights too, if another arm starts from them."""
    began = time.monotonic()
    if arm.after:
        before = next(other for other in study.arms if other.name == arm.after)
        with np.load(_path(out, before, seed).with_suffix('.npz')) as file:
            params = bench.renewed(dict(file), arm.sources, seed)
    else:
        params = bench.start(seed)
    schedule = cofinetuning.schedule(arm, plan.updates, seed)
    params, losses = bench.train(params, arm.sources, schedule, study.setting.warmup, seed)
    trained = time.monotonic() - began
    figures = bench.evaluate(params, cofinetuning.needed(arm, study.arms), seed)
    cell = {
        'arm': arm.name,
        'seed': seed,
        'steps': len(schedule),
        'updates': cofinetuning.taken(arm, plan.updates),
        'seconds': {'training': round(trained, 1), 'evaluating': round(time.monotonic() - began - trained, 1)},
        'metrics': figures,
        'losses': {name: [value if np.isfinite(value) else None for value in each] for name, each in losses.items()},
    }
    path = _path(out, arm, seed)
    if _started_from(study, arm):
        buffer = io.BytesIO()
        np.savez(buffer, **params)
        store.write_atomically(path.with_suffix('.npz'), [buffer.getvalue()])
    store.write_json(path, cell)
    return cell


def _started_from(study: Study, arm: cofinetuning.Arm) -> bool:
    return any(other.after == arm.name for other in study.arms)


def _path(out: pathlib.Path, arm: cofinetuning.Arm, seed: int) -> pathlib.Path:
    """The cell's file: 'studio > yard' of seed 0 is cells/0/studio_then_yard.json."""
    words = arm.name.replace('>', 'then').replace('+', 'and')
    return out / 'cells' / str(seed) / f'{re.sub("[^a-z0-9]+", "_", words)}.json'


def _finished(out: pathlib.Path, study: Study, arm: cofinetuning.Arm, seed: int) -> bool:
    path = _path(out, arm, seed)
    return path.exists() and (not _started_from(study, arm) or path.with_suffix('.npz').exists())
