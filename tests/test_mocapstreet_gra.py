"""configs/mocapstreet_gra.py from the pretraining to the page, at the size of the test suite."""

import json
import pathlib

import numpy as np
import pytest

from vidloc import config as config_lib
from vidloc import run
from vidloc.checkpoints import frozen
from vidloc.data import sources
from vidloc.report.page import write_page
from vidloc.trained import read_run

RECIPE = pathlib.Path(__file__).parent.parent / 'configs/mocapstreet_gra.py'
SHOTS = 3


@pytest.fixture(scope='module')
def runs(mocapstreet, tmp_path_factory):
    """(workdir of the pretraining, workdir of the few shots, config and figures of these)."""
    folder = tmp_path_factory.mktemp('gra')
    before = config_lib.load(f'{RECIPE}:{mocapstreet},pretrain,tiny')
    with before.unlocked():
        before.eval_sources = {}
    run.train(before, folder / 'pretrain')
    config = config_lib.load(f'{RECIPE}:{mocapstreet},tiny,shots={SHOTS},from={folder / "pretrain"}')
    return folder / 'pretrain', folder / 'few', config, run.train(config, folder / 'few')


def test_the_pretrained_backbone_stays_as_it_is_beside_what_learns(runs):
    before, after, _, _ = runs
    pretrained = read_run(before).params
    stored, _ = frozen.read_frozen(after / 'frozen.safetensors')
    backbone = {name for name in pretrained if name.startswith('backbone/')}
    assert backbone and backbone == stored.keys()
    for name in backbone:
        np.testing.assert_array_equal(stored[name], pretrained[name], err_msg=name)
    few = read_run(after).params
    assert {name.split('/')[0] for name in few.keys() - stored.keys()} == {'backbone', 'film', 'heads_street'}
    changed = [name for name in few if name.endswith('lora_b')]
    # Of queries and values of the last layer of four; it starts at 0.
    assert changed == [f'backbone/encoder/block_03/attn/{part}/lora_b' for part in ('query', 'value')]
    assert all(np.abs(few[name]).max() > 0 for name in changed)


def test_the_loss_is_that_of_copies_too_and_is_logged_term_by_term(runs):
    _, after, config, _ = runs
    lines = [json.loads(line) for line in (after / 'metrics.jsonl').read_text().splitlines()]
    told = next(line for line in lines if 'train/street/original' in line)
    group = config.tasks.street.group
    assert told['train/street/loss'] == pytest.approx(
        told['train/street/original']
        + told['train/street/weighted_copies']
        + group.distillation * told['train/street/distillation']
        + group.entropy * told['train/street/copies_entropy'],
        rel=1e-4,
    )
    assert [f'train/street/gamma/{i:02d}' in told for i in range(5)] == [True] * 4 + [False]


def test_the_shots_are_written_down_and_evaluated_beside_the_validation_set(runs):
    _, after, _, figures = runs
    drawn = json.loads((after / 'shots.json').read_text())['street']
    assert drawn['shots'] == SHOTS and len(drawn['chosen']) < drawn['available']
    for name, count in drawn['per_class'].items():
        assert count >= SHOTS or count == drawn['short'][name], name
    gap = figures['eval/seen/frame_map@0.5'] - figures['eval/street/frame_map@0.5']
    assert figures['eval/street/gap/frame_map@0.5'] == pytest.approx(gap)


def test_the_page_shows_both(runs, tmp_path):
    _, after, _, figures = runs
    page = pathlib.Path(write_page(after, tmp_path)).read_text(encoding='utf-8')
    for source in ('street', 'seen'):
        assert f'{figures[f"eval/{source}/frame_map@0.5"]:.3f}' in page


def test_missing_data_are_said_with_the_command_that_makes_them(tmp_path, runs):
    config = config_lib.load(f'{RECIPE}:{tmp_path / "none"},tiny,from={runs[0]}')
    with pytest.raises(sources.DataError, match=r'make_mocapstreet\.py --out .*none --size tiny'):
        run.train(config, tmp_path / 'run')
