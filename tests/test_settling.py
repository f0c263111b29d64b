"""What weights settle, what a config keeps, and that a run that goes on asks nobody."""

import json
import pathlib
import shutil

import pytest

from vidloc import config, settling

CASES = pathlib.Path(__file__).parent / 'reference/backbones'
RECIPE = pathlib.Path(__file__).parent.parent / 'configs/finetune.py'


@pytest.fixture
def recipe(tmp_path):
    """Of VideoMAE from a file of Hugging Face, whose epsilons are 1e-12 and 1e-5."""
    folder = tmp_path / 'weights'
    folder.mkdir()
    for name in ('model.safetensors', 'config.json'):
        shutil.copy(CASES / 'videomae_b' / name, folder)
    return config.load(f'{RECIPE}:videomae-B,weights={folder},data={tmp_path}')


def test_open_fields_are_those_of_the_weights(recipe, tmp_path):
    settled, said = settling.settle(recipe, tmp_path / 'run')
    assert settled.backbone.eps == 1e-12 and settled.tasks.clips.head.norm_eps == 1e-5
    assert tuple(settled.preprocess.mean) == (123.675, 116.28, 103.53)
    assert 'backbone.eps 1e-12, as the weights' in said and len(said.splitlines()) == 4
    assert recipe.backbone.eps == 1e-6  # the config that was given is another one
    with pytest.raises(AttributeError):
        settled.backbone.epsilon = 1.0


def test_what_the_config_says_stays_and_is_said(recipe, tmp_path):
    with recipe.unlocked():
        recipe.backbone.eps, recipe.preprocess.std = 1e-3, (1.0, 2.0, 3.0)
    settled, said = settling.settle(recipe, tmp_path / 'run')
    assert settled.backbone.eps == 1e-3 and tuple(settled.preprocess.std) == (1.0, 2.0, 3.0)
    assert 'backbone.eps 0.001, as the config says; the weights: 1e-12' in said


def test_a_run_that_goes_on_asks_its_workdir_alone(recipe, tmp_path):
    workdir = tmp_path / 'run'
    workdir.mkdir()
    stored = {'preprocess': {'mean': [1.0, 2.0, 3.0], 'std': [4.0, 5.0, 6.0]}, 'backbone': {'eps': 1e-4}}
    (workdir / 'config.json').write_text(json.dumps(stored))
    shutil.rmtree(recipe.init_from)
    settled, said = settling.settle(recipe, workdir)
    assert tuple(settled.preprocess.mean) == (1.0, 2.0, 3.0) and settled.backbone.eps == 1e-4 and not said


def test_without_weights_nothing_changes(tmp_path):
    recipe = config.load(f'{RECIPE}:videomae-B,data={tmp_path}')
    assert settling.settle(recipe, tmp_path / 'run') == (recipe, '')
