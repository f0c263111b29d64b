import pathlib

import pytest

from vidloc import build, supply
from vidloc import config as config_lib

RECIPE = pathlib.Path(__file__).parents[1] / 'configs/mocapstreet_losa.py'


def load(*words, folder='data'):
    return config_lib.load(','.join([f'{RECIPE}:{folder}', *words]))


@pytest.mark.parametrize(
    ('words', 'text'),
    [
        (('lsoa',), "did you mean 'losa'"),
        (('gate=on',), "did you mean 'gate=one'"),
        (('head', 'full'), 'name one method'),
        (('full', 'no-long'), "'full' has no 'no-long'"),
        (('ladder', 'gate=one'), "'ladder' has no 'gate=one'"),
        (('full', 'cached=features'), 'not cached'),
        (('pretrain', 'cached=features'), 'not cached'),
    ],
)
def test_words_that_mean_nothing_are_refused(words, text):
    with pytest.raises(config_lib.ConfigError, match=text):
        load(*words)


@pytest.mark.parametrize(
    ('word', 'fields'),
    [
        ('no-long', {'long': False, 'short': True}),
        ('no-short', {'long': True, 'short': False}),
        ('no-fusion', {'fusion': 'add', 'gating': 'none'}),
        ('gate=cosine', {'gating': 'cosine', 'fusion': 'project'}),
        ('layers=deep', {'layers': (3, 4)}),
        ('layers=shallow', {'layers': (0, 1)}),
        ('pool', {'spatial': 'pool'}),
    ],
)
def test_parts_of_losa_are_left_out_by_words(word, fields):
    plain, without = load('losa').side, load('losa', word).side
    assert {name: without[name] for name in fields} == fields
    changed = {name for name in plain if plain[name] != without[name]}
    assert changed and changed <= set(fields)


@pytest.mark.parametrize(
    ('words', 'trains'),
    [
        (('pretrain',), {'backbone', 'heads_studio', 'heads_yard'}),
        (('head',), {'heads_untrimmed'}),
        (('losa',), {'side', 'heads_untrimmed'}),
        (('ladder',), {'side', 'heads_untrimmed'}),
        (('full',), {'backbone', 'heads_untrimmed'}),
        (('losa', 'layers=deep', 'cached=features'), {'side', 'heads_untrimmed'}),
    ],
)
def test_methods_train_what_they_say(words, trains):
    experiment = build.experiment(load(*words, 'tiny'))
    trained, _ = experiment.partition.split(experiment.abstract_params)
    assert set(trained) == trains


def test_a_run_starts_from_the_pretrained_backbone_that_is_named():
    assert load('head', 'from=runs/other').init_from == 'runs/other'
    assert load('head').init_from == 'runs/mocapstreet-pretrain'
    assert load('head', 'cached=features').init_from == '' and load('pretrain').init_from == ''
    before, after = load('pretrain').backbone, load('full').backbone
    assert config_lib.plain(before) == config_lib.plain(after)


def test_missing_videos_are_said_with_the_command_that_makes_them(tmp_path):
    config = load('head', 'tiny', folder=tmp_path / 'none')
    tasks = build.experiment(config).tasks
    with pytest.raises(build.sources.DataError, match=r'--size tiny --untrimmed'):
        supply.open_sources(config, tasks, train=True)
