import dataclasses
import json
import pathlib

import numpy as np
import pytest

from vidloc import config as config_lib
from vidloc.experiments import cofinetuning, study
from vidloc.experiments.cofinetuning_study import Cofinetuning

ROOT = pathlib.Path(__file__).parents[2]
# One stage alone, and one of two sources that starts from it. No more of them: compiling is most of the time.
BOTH = 'studio > studio + street'
ARMS = (
    cofinetuning.Arm('studio', ('studio',)),
    cofinetuning.Arm(BOTH, ('studio', 'street'), after='studio'),
)
CLAIMS = (cofinetuning.Claim('1a', 'studio/top1', BOTH, 'studio', (74.9, 76.2)),)
SETTING = dataclasses.replace(
    cofinetuning.SETTING,
    shares={'street': 0.3, 'studio': 0.5, 'yard': 0.5},
    batch_sizes={'street': 2, 'studio': 2, 'yard': 2},
    seeds=(0, 1),
)
STUDY = Cofinetuning(SETTING, ARMS, CLAIMS)


@pytest.fixture(scope='module')
def bench(mocapstreet):
    """The demo with a model as small as can be; what it has compiled serves all tests."""
    config = config_lib.load(f'{ROOT}/configs/mocapstreet.py:{mocapstreet},tiny')
    config.backbone.update(
        {'width': 8, 'mlp': 8, 'heads': 1, 'spatial_layers': 1, 'patch': (16, 16), 'grid': (2, 4, 6)}
    )
    config.tasks.street.head.size = (1, 1)
    config.precision.unroll, config.preprocess.brightness = 1, 0.0
    for view in (*config.sources.values(), *config.eval_sources.values()):
        view.frames = 4
    return STUDY.bench(config)


@pytest.fixture(scope='module')
def finished(bench, tmp_path_factory):
    """(folder of a finished study, what it said, its text)."""
    out, said = tmp_path_factory.mktemp('claims') / 'study', []
    text = study.measure(STUDY, bench, out, minutes=1000, steps=12, say=said.append)
    return out, said, text


def again(out, bench, said=None, **asked):
    say = (said if said is not None else []).append
    return study.measure(STUDY, bench, out, **{'minutes': 1000, 'steps': 12, 'say': say} | asked)


def test_every_cell_is_filed_with_its_updates(finished):
    out, said, text = finished
    plan = json.loads((out / 'plan.json').read_text())
    assert sum(plan['updates'].values()) == plan['total'] == 12
    cells = json.loads((out / 'claims.json').read_text())['cells']
    assert [(cell['seed'], cell['arm']) for cell in cells] == [(seed, arm.name) for seed in (0, 1) for arm in ARMS]
    for cell in cells:
        assert cell['updates'] == {name: plan['updates'][name] for name in cell['updates']}
        assert cell['steps'] == sum(cell['updates'].values())
    assert 0 <= cells[1]['metrics']['street/frame_map@0.5'] <= 1
    # What was trained on first is evaluated too.
    assert 'studio/top1' in cells[1]['metrics'] and 'yard/top1' not in cells[1]['metrics']
    assert 'ms a step' in said[0] and '2 arms x 2 seeds' in said[0]
    assert f'| 1a | studio/top1 | {BOTH} | studio | 76.2 | 74.9 | +1.3 |' in text


def test_a_lost_cell_is_trained_again_to_the_same_figures_and_no_other(finished, bench):
    out, _, _ = finished
    lost = out / 'cells/1/studio_then_studio_and_street.json'
    kept = {path: path.stat().st_mtime_ns for path in (out / 'cells').rglob('*.json') if path != lost}
    before = json.loads(lost.read_text())
    lost.unlink()
    said = []
    again(out, bench, said)
    after = json.loads(lost.read_text())
    assert after['metrics'] == before['metrics'] and after['losses'] == before['losses']
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    assert [line for line in said if line.startswith('seed')] == [said[1]]


def test_another_plan_in_the_same_folder_is_refused(finished, bench):
    out, _, _ = finished
    with pytest.raises(study.ClaimsError, match=r'request\.steps: 12 there, 13 now'):
        again(out, bench, steps=13)
    with pytest.raises(study.ClaimsError, match=r'request\.minutes: 1000 there, 1001 now'):
        again(out, bench, minutes=1001)


def test_what_does_not_fit_into_the_minutes_is_not_run(finished, bench, tmp_path):
    plan = json.loads((finished[0] / 'plan.json').read_text())
    plan['request']['minutes'] = 1e-4
    (tmp_path / 'plan.json').write_text(json.dumps(plan))
    said = []
    text = again(tmp_path, bench, said, minutes=1e-4)
    assert 'start again' in said[-1]
    assert text.count('not run') == len(ARMS) + len(CLAIMS)
    assert not list(tmp_path.rglob('cells/*/*.json'))


def test_too_few_minutes_to_plan_for_are_refused(bench, tmp_path):
    alone = dataclasses.replace(STUDY, arms=ARMS[:1], claims=())
    with pytest.raises(study.ClaimsError, match=r'too few for .*: give more --minutes'):
        study.measure(alone, bench, tmp_path, minutes=1e-4, steps=None, say=[].append)


def test_a_stage_begins_where_the_one_before_ended_with_new_heads_of_its_own(finished, bench):
    out, _, _ = finished
    with np.load(out / 'cells/0/studio.npz') as file:
        stored = dict(file)
    assert not (out / 'cells/0/studio_then_studio_and_street.npz').exists()
    fresh = bench.start(0)
    begun = bench.renewed(stored, ('studio',), 0)
    changed = {name for name, value in fresh.items() if not np.array_equal(value, stored[name])}
    assert any(name.startswith('heads_studio/') for name in changed)
    assert any(name.startswith('backbone/') for name in changed)
    assert not any(name.startswith(('heads_street/', 'heads_yard/')) for name in changed)
    for name, value in begun.items():
        np.testing.assert_array_equal(value, (fresh if name.startswith('heads_studio/') else stored)[name])
