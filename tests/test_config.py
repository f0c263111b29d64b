import json
import pathlib
import subprocess
import sys

import pytest

from vidloc import build, run, workdir
from vidloc import config as config_lib

ROOT = pathlib.Path(__file__).parent.parent
VIVIT = {'kind': 'vivit', 'width': 16, 'mlp': 32, 'heads': 2, 'spatial_layers': 1, 'temporal_layers': 1}
SMALL = {
    'name': 'small',
    'backbone': {**VIVIT, 'grid': (2, 2, 2), 'patch': (8, 8)},
    'tasks': {'street': {'kind': 'action_detection', 'classes': ('walk', 'run')}},
    'sources': {'street': {'task': 'street', 'format': 'ava', 'frames': 4, 'size': (16, 16)}},
    'optimizer': {'kind': 'sgd'},
}


def test_the_schedule_of_a_run_has_every_field_of_the_config():
    rates = {'rate': 0.5, 'kind': 'linear', 'end': 0.25, 'warmup_from_zero': True}
    schedule = build.experiment(build.config(**SMALL, schedule=rates)).optimizer(10, 3).schedule
    assert {name: getattr(schedule, name) for name in rates} == rates
    assert (schedule.total, schedule.warmup) == (10, 3)


def changed(**parts) -> dict:
    return {**SMALL, **parts}


def test_config_is_filled_with_every_field_of_the_chosen_parts():
    config = build.config(**SMALL)
    assert config.backbone.drop_path == 0.0
    assert config.sources.street.match_iou == 0.75
    assert config.tasks.street.head.pool == 'max'
    assert config.schedule.rate == 0.1
    assert config.loading.workers == 0


@pytest.mark.parametrize(
    ('parts', 'words'),
    [
        ({'backbone': {**SMALL['backbone'], 'drop_paht': 0.1}}, ('backbone.drop_paht', "'drop_path'")),
        ({'backbone': {'kind': 'vivvit'}}, ('backbone.kind', "'vivit'")),
        ({'backbone': VIVIT}, ('backbone', 'grid')),
        ({'optimizer': {'kind': 'sgd', 'momentun': 0.9}}, ('optimizer.momentun', "'momentum'")),
        ({'optimizer': {}}, ('optimizer', 'adamw, sgd')),
        ({'trian': {'epochs': 1}}, ('trian', "'train'")),
        ({'train': {'epoch': 1}}, ('train.epoch', "'epochs'")),
        ({'sources': {'street': {'task': 'stret', 'format': 'ava'}}}, ('sources.street.task', "'street'")),
        ({'sources': {'street': {'task': 'street', 'format': 'avaa'}}}, ('sources.street.format', "'ava'")),
        ({'tasks': {'street': {'kind': 'detection'}}}, ('tasks.street.kind', "'action_detection'")),
    ],
)
def test_what_does_not_exist_is_named_with_its_nearest(parts, words):
    with pytest.raises(config_lib.ConfigError) as caught:
        build.config(**changed(**parts))
    text = str(caught.value)
    assert '\n' not in text
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ('unions', 'words'),
    [
        ({'both': ('street', 'stret')}, "eval.unions.both: 'stret' .* did you mean 'street'"),
        ({'street': ('street',)}, 'a name that none of them has'),
        ({'none': ()}, 'eval.unions.none: give it evaluation sources'),
        ({'both': ('street', 'studio')}, 'boxes of one task, not of street, studio'),
        ({'both': ('studio',)}, 'boxes of one task, not of studio'),
    ],
)
def test_sources_that_cannot_be_scored_together_are_refused(unions, words):
    tasks = {**SMALL['tasks'], 'studio': {'kind': 'classification', 'classes': ('a', 'b')}}
    clips = {'task': 'studio', 'format': 'clips', 'frames': 4, 'size': (16, 16)}
    sources = {**SMALL['sources'], 'studio': clips}
    parts = changed(tasks=tasks, sources=sources, eval_sources=sources)
    run.check_evaluation(build.config(**parts, eval={'unions': {'both': ('street',)}}))
    with pytest.raises(workdir.RunError, match=words):
        run.check_evaluation(build.config(**parts, eval={'unions': unions}))


@pytest.mark.parametrize(
    ('seen', 'words'),
    [
        ({'shot': 'street'}, "eval.seen: 'shot' .* did you mean 'shots'"),
        ({'shots': 'stret'}, "eval.seen: 'stret' .* did you mean 'street'"),
        ({'shots': 'studio'}, 'another source of its task'),
        ({'street': 'street'}, 'another source of its task'),
        ({'shots': 'street', 'more': 'street'}, 'one source of training data, not with several'),
    ],
)
def test_pairs_of_seen_and_unseen_data_must_be_of_one_task(seen, words):
    tasks = {**SMALL['tasks'], 'studio': {'kind': 'classification', 'classes': ('a', 'b')}}
    street = SMALL['sources']['street']
    clips = {'task': 'studio', 'format': 'clips', 'frames': 4, 'size': (16, 16)}
    scored = {'street': street, 'shots': street, 'more': street, 'studio': clips}
    parts = changed(tasks=tasks, sources={'street': street, 'studio': clips}, eval_sources=scored)
    run.check_evaluation(build.config(**parts, eval={'seen': {'shots': 'street'}}))
    with pytest.raises(workdir.RunError, match=words):
        run.check_evaluation(build.config(**parts, eval={'seen': seen}))


def test_gaps_are_of_what_both_sources_of_a_pair_have():
    metrics = {'shots': {'map': 0.75, 'part/map': 0.5}, 'street': {'map': 0.25, 'top1': 0.5}, 'studio': {'top1': 0.5}}
    assert run.gaps({'shots': 'street'}, metrics) == {'eval/street/gap/map': 0.5}
    assert run.gaps({}, metrics) == {}


@pytest.mark.parametrize(
    ('override', 'words'),
    [
        ('--config.trian.epochs=3', ('trian', "'train'")),
        ('--config.train.epoch=3', ('train', "'epochs'")),
        ('--config.sources.stret.videos=x', ('sources', "'street'")),
        ('--config.backbone.width.x=3', ('config.backbone.width is a value',)),
    ],
)
def test_misspelt_overrides_name_the_nearest(override, words):
    with pytest.raises(config_lib.ConfigError) as caught:
        config_lib.check_overrides(build.config(**SMALL), ['--workdir=x', override])
    assert all(word in str(caught.value) for word in words), caught.value


def test_right_overrides_pass():
    config_lib.check_overrides(build.config(**SMALL), ['--config=x.py', '--config.train.epochs=3', '-v', '1'])


def test_flatten_and_plain_are_inverse_enough_to_compare_configs():
    flat = config_lib.flatten(build.config(**SMALL))
    assert flat['backbone.grid'] == (2, 2, 2)
    assert flat['eval_sources'] == {}
    assert flat['sources.street.task'] == 'street'


def test_a_task_without_a_source_is_refused():
    tasks = {**SMALL['tasks'], 'clips': {'kind': 'classification', 'num_classes': 3}}
    with pytest.raises(config_lib.ConfigError, match=r'tasks\.clips.*no source'):
        build.experiment(build.config(**changed(tasks=tasks)))


def test_freezing_table_sets_the_boundaries_of_the_stacked_layers():
    backbone = {**SMALL['backbone'], 'spatial_layers': 3}
    table = (('backbone/spatial/block_0[01]/.*', None, False), ('.*', 1.0, True))
    experiment = build.experiment(build.config(**changed(backbone=backbone, trainable=table)))
    assert experiment.segments['backbone/spatial'] == ((0, 1), (2, 2))
    frozen = experiment.partition.total() - experiment.partition.total(trainable=True)
    # A block of width 16 and mlp 32: two norms, four square maps with biases, two mlp maps with biases.
    assert frozen == 2 * (2 * 32 + 4 * (16 * 16 + 16) + 2 * 16 * 32 + 32 + 16)


def test_a_table_that_matches_nothing_is_refused_in_words():
    with pytest.raises(config_lib.ConfigError, match='wins no leaf'):
        build.experiment(build.config(**changed(trainable=(('bakcbone/.*', None, False), ('.*', 1.0, True)))))


CONFIGS = sorted(path.name for path in (ROOT / 'configs').glob('*.py'))


@pytest.mark.parametrize('name', CONFIGS)
def test_every_config_loads_builds_and_says_what_it_is(name):
    path = ROOT / 'configs' / name
    config = config_lib.load(str(path))
    experiment = build.experiment(config)
    assert experiment.partition.total(trainable=True) > 0
    assert set(experiment.tasks) == set(config.tasks)
    text = path.read_text(encoding='utf-8')
    assert 'Paper:' in text
    assert 'python -m vidloc.main --config=configs/' + name in text


def main(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, '-m', 'vidloc.main', *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_command_line_without_data_says_what_it_looked_for_and_how_to_get_there():
    done = main('--config=configs/cofinetune_ava.py:data=/nowhere', '--workdir=/nowhere/run')
    assert done.returncode == 2
    assert 'Traceback' not in done.stderr
    for words in ('/nowhere/ava/videos', "format 'ava'", 'sources.k400.annotations', 'make_standin.py'):
        assert words in done.stderr


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ((), '--config'),
        (('--config=configs/nothing.py',), 'configs/nothing.py'),
        (('--config=configs/mocapstreet.py', '--config.train.stps=3'), "'steps'"),
    ],
)
def test_wrong_command_lines_get_one_line(arguments, words):
    done = main(*arguments)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert words in done.stderr


def test_describe_needs_no_data_and_ends_with_one_json_object(tmp_path):
    done = main('--config=tests/tiny_run.py:/nowhere', '--mode=describe', f'--workdir={tmp_path / "run"}')
    assert done.returncode == 0, done.stderr
    assert 'backbone/spatial' in done.stdout
    told = json.loads(done.stdout.strip().splitlines()[-1])
    experiment = build.experiment(config_lib.load(f'{ROOT}/tests/tiny_run.py:/nowhere'))
    assert told['parameters_total'] == experiment.partition.total()
    assert told['parameters_trainable'] == sum(told['rules'].values())
    assert told['parameters_by_kind'].keys() == {'lora', 'film', 'heads', 'other'}
    assert told['parameters_trainable'] == sum(told['parameters_by_kind'].values())
    assert 'Trainable by kind' not in done.stdout  # there is neither LoRA nor FiLM
    assert set(told['flops_per_step']) == set(told['memory_bytes']) == set(experiment.tasks)
    # Parameters, their two moments or traces and the batch are the least that a step needs.
    assert all(value > 4 * told['parameters_trainable'] for value in told['memory_bytes'].values())
    assert all(value > told['parameters_total'] for value in told['flops_per_step'].values())
    assert not (tmp_path / 'run').exists()


def test_a_field_set_by_name_is_read_as_main_reads_it_and_the_config_stays():
    config = build.config(**SMALL)
    before = config_lib.flatten(config)
    for key, text, value in [
        ('backbone.grid', '(4,4,4)', (4, 4, 4)),
        ('backbone.grid', '4', (4,)),
        ('train.epochs', '3', 3.0),
        ('train.log_odds_bias', 'true', True),
        ('optimizer.kind', 'a,b', 'a,b'),
    ]:
        changed = config_lib.flatten(config_lib.overridden(config, key, text, f'--set {key}'))
        assert changed == before | {key: value}
    assert config_lib.flatten(config) == before


@pytest.mark.parametrize(
    ('key', 'text', 'words'),
    [
        ('train.epoch', '3', "^--set train.epoch: .* did you mean 'epochs'"),
        ('train.steps', '3.5', '^--set train.steps=3.5: invalid literal'),
        ('train', '{}', '^--set train: name one whole field'),
        ('backbone.grid[0]', '3', 'name one whole field'),
    ],
)
def test_what_is_no_field_or_no_value_of_it_is_refused(key, text, words):
    with pytest.raises(config_lib.ConfigError, match=words):
        config_lib.overridden(build.config(**SMALL), key, text, f'--set {key}')
