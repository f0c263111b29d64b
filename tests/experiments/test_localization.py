import dataclasses
import json
import pathlib
import shutil

import pytest

from vidloc.experiments import localization, study
from vidloc.experiments.localization import ARMS, CLAIMS, MAP, Arm
from vidloc.experiments.localization_study import MEGABYTES, Localization
from vidloc.experiments.outcome import Claim
from vidloc.experiments.trainer import PROBED
from vidloc.synthetic import export

CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'
# Of one method and one length, that of a measurement, so that all share what is compiled.
HEAD, AGAIN = Arm('head only', ('head',)), Arm('head only, short', ('head',), short=True)
SETTING = dataclasses.replace(localization.SETTING, seeds=(0, 1), short=1.0)
STEPS = PROBED + 1
STUDY = Localization(SETTING, (HEAD, AGAIN), (Claim('3a', MAP, AGAIN.name, HEAD.name, (69.6, 71.0)),), words=('tiny',))


def test_arms_have_names_of_their_own_and_claims_compare_arms_of_one_length():
    lengths = {arm.name: arm.short for arm in ARMS}
    assert len(lengths) == len(ARMS)
    for claim in CLAIMS:
        assert lengths[claim.better] == lengths[claim.than], claim
        assert claim.metric in localization.metrics()


def test_short_arms_have_their_share_of_updates():
    short = dataclasses.replace(HEAD, short=True)
    assert [localization.updates(arm, 100, localization.SETTING) for arm in (HEAD, short)] == [100, 25]
    assert localization.updates(short, 1, localization.SETTING) == 1


# Training, extracting and measuring, each compiled anew: a minute and a half.
@pytest.fixture(scope='module')
def finished(mocapstreet, tmp_path_factory):
    """(folder, bench, what was said, text) of a finished study, everything before it included."""
    data, out, said = tmp_path_factory.mktemp('untrimmed') / 'data', tmp_path_factory.mktemp('losa') / 'out', []
    shutil.copytree(mocapstreet, data)
    export.make(data, 'tiny', 0, long=True)
    bench = STUDY.prepare(CONFIGS, data, out, said.append)
    text = study.measure(STUDY, bench, out, minutes=1000, steps=STEPS, say=said.append)
    return out, bench, said, text


@pytest.mark.slow
def test_every_cell_is_filed_with_its_cost(finished):
    out, _, said, text = finished
    plan = json.loads((out / 'plan.json').read_text())
    assert plan['total'] == STEPS and plan['minutes'] > 0
    assert set(plan['cost']) == {'head, stored', 'head, pictures'}
    # From pictures there is a backbone too.
    assert plan['cost']['head, pictures']['bytes'] > plan['cost']['head, stored']['bytes']
    cells = json.loads((out / 'claims.json').read_text())['cells']
    assert [(cell['seed'], cell['arm'], cell['steps']) for cell in cells] == [
        (seed, arm.name, STEPS) for seed in (0, 1) for arm in (HEAD, AGAIN)
    ]
    for cell in cells:
        assert 0 <= cell['metrics'][MAP] <= 1 and cell['metrics'][MEGABYTES] > 0
        assert [loss for loss in cell['losses'] if loss is not None]
    # What is called otherwise and is the same comes to the same.
    assert cells[0]['losses'] == cells[1]['losses'] and cells[0]['metrics'][MAP] == cells[1]['metrics'][MAP]
    assert any('2 arms x 2 seeds' in line and 'ms a step' in line for line in said)
    rows = [line.split('|') for line in text.splitlines() if line.startswith('|')]
    assert len({len(row) for row in rows[:4]}) == 1 and 'MB, pictures' in text
    assert f'| 3a | {MAP} | head only, short | head only | 71.0 | 69.6 | +1.4 |' in text


@pytest.mark.slow
def test_a_lost_cell_is_trained_again_to_the_same_figures_and_no_other(finished):
    out, bench, _, _ = finished
    lost = study.cell_path(out, HEAD, 1)
    kept = {path: path.stat().st_mtime_ns for path in (out / 'cells').rglob('*.json') if path != lost}
    before = json.loads(lost.read_text())
    lost.unlink()
    study.measure(STUDY, bench, out, minutes=1000, steps=STEPS, say=[].append)
    after = json.loads(lost.read_text())
    assert after['losses'] == before['losses'] and after['metrics'][MAP] == before['metrics'][MAP]
    assert kept == {path: path.stat().st_mtime_ns for path in kept}


@pytest.mark.slow
def test_seeds_start_differently_from_one_backbone(finished):
    out, _, _, _ = finished
    losses = [json.loads(study.cell_path(out, HEAD, seed).read_text())['losses'] for seed in (0, 1)]
    assert losses[0] != losses[1]
    assert (out / 'backbone/config.json').exists() and len(list((out / 'features').glob('*.npz'))) == 10


@pytest.mark.slow
def test_other_plans_and_too_few_minutes_are_refused(finished, tmp_path):
    out, bench, _, _ = finished
    with pytest.raises(study.ClaimsError, match=r'request\.steps: 5 there, 6 now'):
        study.measure(STUDY, bench, out, minutes=1000, steps=STEPS + 1, say=[].append)
    with pytest.raises(study.ClaimsError, match=r'too few for .*: give more --minutes'):
        study.measure(STUDY, bench, tmp_path, minutes=1e-4, steps=None, say=[].append)
