import dataclasses
import json
import pathlib

import pytest

from vidloc import config as config_lib
from vidloc.experiments import few_shot, study
from vidloc.experiments.few_shot import ARMS, CLAIMS, LEARNT, MAP, Arm
from vidloc.experiments.few_shot_study import PARAMETERS, FewShot
from vidloc.experiments.outcome import Claim
from vidloc.experiments.trainer import PROBED

CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'
LORA, FEWER = Arm('lora, K = 3', ('lora', 'rank=2'), 3), Arm('lora, K = 1', ('lora', 'rank=2'), 1)
SETTING = dataclasses.replace(few_shot.SETTING, seeds=(0, 1))
STEPS = PROBED + 1
STUDY = FewShot(SETTING, (LORA, FEWER), (Claim('shots', MAP, LORA.name, FEWER.name),), words=('tiny',))


def test_arms_have_names_of_their_own_and_claims_compare_arms_that_learn_from_the_same_people():
    shots = {arm.name: arm.shots for arm in ARMS}
    assert len(shots) == len(ARMS)
    for claim in CLAIMS:
        assert shots[claim.better] == shots[claim.than], claim
        assert claim.metric in few_shot.metrics()


def test_every_arm_is_a_recipe_and_takes_the_shots_of_the_seed():
    for arm in ARMS:
        words = ','.join([f'{CONFIGS / "mocapstreet_gra.py"}:data', *arm.recipe, f'shots={arm.shots}'])
        config = few_shot.SETTING.applied(config_lib.load(words), 7)
        shown = config.sources.street
        assert (shown.shots, shown.shots_seed, config.eval_sources.seen.shots_seed) == (arm.shots, 7, 7)
        assert config.backbone.kind == arm.model


# Training and measuring, each compiled anew.
@pytest.fixture(scope='module')
def finished(mocapstreet, tmp_path_factory):
    """(folder, bench, what was said, text) of a finished study, pretraining included."""
    out, said = tmp_path_factory.mktemp('gra') / 'out', []
    bench = STUDY.prepare(CONFIGS, mocapstreet, out, said.append)
    text = study.measure(STUDY, bench, out, minutes=1000, steps=STEPS, say=said.append)
    return out, bench, said, text


@pytest.mark.slow
def test_every_cell_is_filed_with_its_shots(finished):
    out, _, said, text = finished
    plan = json.loads((out / 'plan.json').read_text())
    assert plan['total'] == STEPS and set(plan['cost']) == {'videomae, lora, rank=2'}
    cells = json.loads((out / 'claims.json').read_text())['cells']
    assert [(cell['seed'], cell['arm']) for cell in cells] == [
        (seed, arm.name) for seed in (0, 1) for arm in (LORA, FEWER)
    ]
    for cell, count in zip(cells, (3, 1, 3, 1), strict=True):
        drawn = cell['shots']
        enough = {name: n for name, n in drawn['per_class'].items() if name not in drawn['short']}
        assert enough and min(enough.values()) >= count
        assert 0 <= cell['metrics'][MAP] <= 1 and 0 <= cell['metrics'][LEARNT] <= 1
        assert cell['metrics'][PARAMETERS] > 0
    assert cells[0]['metrics'] != cells[2]['metrics']  # other people, another start
    assert any('2 arms x 2 seeds' in line for line in said)
    assert f'| shots | {MAP} | {LORA.name} | {FEWER.name} |' in text


@pytest.mark.slow
def test_a_lost_cell_is_trained_again_to_the_same_figures(finished):
    out, bench, _, _ = finished
    lost = study.cell_path(out, LORA, 1)
    before = json.loads(lost.read_text())
    lost.unlink()
    study.measure(STUDY, bench, out, minutes=1000, steps=STEPS, say=[].append)
    after = json.loads(lost.read_text())
    assert after['losses'] == before['losses'] and after['metrics'][MAP] == before['metrics'][MAP]
