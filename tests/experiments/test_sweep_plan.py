import dataclasses
import json
import math
import pathlib
import shlex

import pytest

from vidloc import config as config_lib
from vidloc.config import ConfigError
from vidloc.experiments import sweep_plan
from vidloc.experiments.sweep_plan import Cell, Request, SweepError

RECIPE = f'{pathlib.Path(__file__).parents[1] / "tiny_run.py"}:data,street'
MAP = 'eval/street/frame_map@0.5'
REQUEST = Request(RECIPE, ('schedule.rate=1e-3,1e-2,1e-1', 'backbone.grid=(2,4,6),(2,2,3)'), MAP)


def changed(**values):
    return dataclasses.replace(REQUEST, **values)


def test_cells_are_trials_times_folds_times_seeds():
    plan = sweep_plan.planned(changed(folds=2, fold_fields=('sources.street.max_boxes',), seeds=(3, 5)))
    assert plan.cells(0, (4,)) == tuple(Cell(4, 0, fold, seed) for fold in (0, 1) for seed in (3, 5))
    assert str(plan.cells(0, (4,))[-1].folder) == 'trial_004/rung_0/fold_1_seed_5'
    assert plan.repeats == 4 and plan.steps == 6 * 4 * 5  # tiny_run has 5 steps
    alone = sweep_plan.planned(REQUEST)
    assert str(alone.cells(0, (0,))[0].folder) == 'trial_000/rung_0/run' and alone.repeats == 1


def test_a_cell_has_the_settings_of_its_trial_fold_seed_and_rung_and_nothing_else():
    request = changed(
        steps=400,
        budget=40,
        eta=3,
        folds=3,
        fold_fields=('sources.street.max_boxes', 'sources.truth.max_boxes'),
        seeds=(7,),
        overrides=('schedule.warmup_steps=50', 'train.ema=0.5'),
    )
    plan = sweep_plan.planned(request)
    assert [(rung.steps, rung.trials) for rung in plan.rungs] == [(40, 6), (120, 2), (400, 1)]
    config = plan.cell_config(Cell(3, 1, fold=2, seed=7))
    before, after = config_lib.flatten(config_lib.load(RECIPE)), config_lib.flatten(config)
    assert {key: value for key, value in after.items() if value != before[key]} == {
        'schedule.rate': 1e-2,
        'backbone.grid': (2, 2, 3),
        'sources.street.max_boxes': 2,
        'sources.truth.max_boxes': 2,
        'seed': 7,
        'train.ema': 0.5,
        'train.steps': 120,
        'schedule.warmup_steps': 15,  # 50 * 120 / 400
    }
    assert config.is_locked
    assert plan.cell_config(Cell(3, 2)).schedule.warmup_steps == 50


@pytest.mark.parametrize(
    ('override', 'steps', 'epochs'), [('schedule.warmup_steps=1', 1, 0.0), ('schedule.warmup_epochs=0.8', 0, 0.2)]
)
def test_the_warm_up_of_a_short_rung(override, steps, epochs):
    overrides = ('schedule.warmup_steps=0', override) if 'epochs' in override else (override,)
    plan = sweep_plan.planned(changed(steps=400, budget=100, eta=6, overrides=overrides))
    rates = plan.cell_config(Cell(0, 0)).schedule
    assert (rates.warmup_steps, rates.warmup_epochs) == (steps, pytest.approx(epochs))


def test_the_command_line_trains_what_the_last_rung_trained():
    request = changed(steps=400, seeds=(1, 2), overrides=('train.ema=0.5', 'eval.unions={"all": ("street",)}'))
    plan = sweep_plan.planned(request)
    words = shlex.split(plan.command(5))
    assert words[:4] == ['python', '-m', 'vidloc.main', f'--config={RECIPE}']
    config = config_lib.load(RECIPE)
    for word in words[4:]:
        field, _, text = word.removeprefix('--config.').partition('=')
        config = config_lib.overridden(config, field, text, word)
    cell = plan.cell_config(Cell(5, 0))
    assert config_lib.flatten(config) == config_lib.flatten(cell)


@pytest.mark.parametrize(
    ('values', 'words'),
    [
        ({'recipe': 'none.py'}, "--config: no file 'none.py'"),
        ({'settings': ()}, 'what is to be searched'),
        ({'settings': ('schedule.rat=1',)}, "did you mean 'rate'"),
        ({'settings': ('schedule.rate=1e-5..1e-2',)}, '--trials'),
        ({'settings': ('train.steps=1,2',)}, 'use --steps'),
        ({'settings': ('seed=1,2',)}, 'use --seeds'),
        ({'overrides': ('schedule.rate=1',)}, 'both --set and --override'),
        ({'overrides': ('schedule.knd=linear',)}, "--override schedule.knd: .* did you mean 'kind'"),
        ({'overrides': ('seed',)}, 'write FIELD=VALUE'),
        ({'overrides': ('train.ema=0', 'train.ema=1')}, 'train.ema is there twice'),
        ({'overrides': ('train.steps=7',), 'steps': 8}, 'both --steps and --override'),
        ({'overrides': ('seed=7',), 'seeds': (8,)}, 'both --seeds and --override'),
        ({'overrides': ('train.steps=0',)}, 'counts in epochs'),
        ({'seeds': (8, 8)}, 'a seed twice'),
        ({'folds': 2}, 'belong together'),
        ({'fold_fields': ('sources.street.max_boxes',)}, 'belong together'),
        ({'folds': 2, 'fold_fields': ('sources.street.fld',)}, '--fold-fields sources.street.fld'),
        ({'folds': 2, 'fold_fields': ('sources.street.boxes.x',)}, 'is a value, not a group'),
        ({'folds': 2, 'fold_fields': ('schedule.rate',)}, 'set in another way'),
        ({'metric': 'frame_map@0.5'}, 'name a figure of metrics.jsonl'),
        ({'metric': 'eval/stret/frame_map@0.5'}, "there is no 'stret'; did you mean 'street'"),
        ({'eta': 2}, 'needs --budget'),
        ({'budget': 9, 'eta': 2}, '--budget 9 is more than the 5 steps'),
    ],
)
def test_a_request_that_cannot_be_is_refused_in_one_line(values, words):
    with pytest.raises(ConfigError, match=words) as caught:
        sweep_plan.planned(changed(**values))
    assert '\n' not in str(caught.value)


def test_another_plan_in_the_same_folder_is_refused_with_what_differs(tmp_path):
    told = []
    first = sweep_plan.settled(sweep_plan.planned(changed(trials=4, seed=1)), tmp_path, told.append)
    again = sweep_plan.settled(sweep_plan.planned(changed(trials=4, seed=1)), tmp_path, told.append)
    assert again.points == first.points and not told
    before = (tmp_path / 'sweep.json').read_bytes()
    other = changed(trials=4, seed=2, overrides=('optimizer.b2=0.9', 'log.log=7'))
    with pytest.raises(SweepError) as caught:
        sweep_plan.settled(sweep_plan.planned(other), tmp_path, told.append)
    assert 'seed: 1 there, 2 now' in str(caught.value)
    assert 'config.optimizer.b2: 0.999 there, 0.9 now' in str(caught.value)
    assert 'config.log.log' not in str(caught.value)
    assert (tmp_path / 'sweep.json').read_bytes() == before


def test_the_points_that_were_planned_count_and_other_versions_are_told(tmp_path):
    plan = sweep_plan.planned(changed(trials=2))
    sweep_plan.settled(plan, tmp_path, print)
    there = json.loads((tmp_path / 'sweep.json').read_text())
    there['points'].reverse()
    there['machine']['jax'] = '0.1'
    (tmp_path / 'sweep.json').write_text(json.dumps(there))
    told = []
    again = sweep_plan.settled(plan, tmp_path, told.append)
    assert again.points == plan.points[::-1]
    assert len(told) == 1 and "jax: '0.1' there" in told[0]


def test_the_metric_may_change_until_a_cell_is_finished(tmp_path):
    sweep_plan.settled(sweep_plan.planned(changed(metric='eval/street/frame_mop')), tmp_path, print)
    sweep_plan.settled(sweep_plan.planned(changed(metric='train/loss', larger=False)), tmp_path, print)
    assert json.loads((tmp_path / 'sweep.json').read_text())['metric'] == 'train/loss'
    cell = tmp_path / Cell(0, 0).folder / sweep_plan.CELL
    cell.parent.mkdir(parents=True)
    cell.write_text('{}')
    with pytest.raises(SweepError, match="metric: 'train/loss' there"):
        sweep_plan.settled(sweep_plan.planned(REQUEST), tmp_path, print)


def test_a_grid_tells_its_size():
    assert sweep_plan.planned(changed(trials=2)).size == 6
    assert math.isinf(sweep_plan.planned(changed(settings=('train.ema=0.1..0.9',), trials=2)).size)
