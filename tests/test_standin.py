"""docs/ava.md on the stand-in: made, checked, trained a few steps, and its csv scored."""

import csv
import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
RECIPE = 'configs/cofinetune_ava.py'
LABELS = 'ava/ava_action_list_v2.2_for_activitynet_2019.pbtxt'


def tool(name, *arguments):
    """Exit code of a tool, run in this process, which spares the start of Python with its libraries."""
    spec = importlib.util.spec_from_file_location(f'tool_{name}', ROOT / 'tools' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main([str(argument) for argument in arguments])


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp('data') / 'standin'
    command = [sys.executable, 'tools/make_standin.py', '--out', str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, str(out)), done.stderr
    assert sum(path.stat().st_size for path in out.rglob('*') if path.is_file()) < 20e6
    assert 'These are not the data sets' in (out / 'README.md').read_text(encoding='utf-8')
    return out


@pytest.fixture(scope='module')
def trained(program, data, tmp_path_factory):
    """Boxes of AVA-Kinetics and clips of Something-Something: two tasks, every kind of file but one."""
    run = program.run(
        f'{RECIPE}:tiny,ava_kinetics,ssv2,data={data}',
        tmp_path_factory.mktemp('runs') / 'run',
        '--config.mixture.strategy=alternating',
        '--config.train.steps=3',
        '--config.schedule.warmup_steps=1',
    )
    assert run.process.returncode == 0, run.err
    return run


@pytest.mark.parametrize(
    ('form', 'annotations', 'labels', 'videos', 'more'),
    [
        ('ava', ('ava/ava_train_v2.2.csv', 'ava/ava_val_v2.2.csv'), LABELS, 'ava/videos', ('--start', '900')),
        ('ava', ('ava/kinetics_val_v1.0.csv',), LABELS, 'k700/val', ()),
        ('kinetics', ('k400/annotations/val.csv',), 'k400/annotations/train.csv', 'k400/val', ()),
        ('kinetics', ('k700/annotations/val.csv',), 'k700/annotations/train.csv', 'k700/val', ()),
        ('moments', ('mit/validationSet.csv',), 'mit/moments_categories.txt', 'mit/validation', ()),
        (
            'something',
            ('ssv2/labels/train.json', 'ssv2/labels/validation.json'),
            'ssv2/labels/labels.json',
            'ssv2/20bn-something-something-v2',
            (),
        ),
    ],
)
def test_the_check_finds_nothing_wrong(data, capsys, form, annotations, labels, videos, more):
    paths = [data / path for path in annotations]
    where = ('--labels', data / labels, '--videos', data / videos)
    assert tool('check_data', '--format', form, '--annotations', *paths, *where, *more, '--workers', 0) == 0
    assert '0 errors' in capsys.readouterr().out


def test_the_check_finds_the_wrong_clock(data, capsys):
    where = ('--labels', data / LABELS, '--videos', data / 'ava/videos')
    assert tool('check_data', '--format', 'ava', '--annotations', data / 'ava/ava_val_v2.2.csv', *where) == 1
    out = capsys.readouterr().out
    assert 'timestamp-offset' in out and 'time_offset=900' in out


def test_all_sources_are_trained_and_each_part_is_evaluated(trained):
    (last,) = [line for line in trained.lines() if 'eval/ava/frame_map@0.5' in line]
    assert {'eval/kinetics_boxes/frame_map@0.5', 'eval/ssv2/top1'} <= last.keys()
    steps = json.loads((trained.workdir / 'environment.json').read_text())['source_steps']
    assert steps == {'ava': 1, 'kinetics_boxes': 1, 'ssv2': 1}


def test_both_parts_are_scored_together_and_apart(trained, data, capsys):
    parts = {'ava': 'ava/ava_val_v2.2.csv', 'kinetics_boxes': 'ava/kinetics_val_v1.0.csv'}
    both = trained.workdir / 'eval/ava_kinetics_detections.csv'
    numbers = {int(row[6]) for row in csv.reader(both.open())}
    assert len(numbers) == 60 and max(numbers) == 80
    truths = [str(data / path) for path in parts.values()]
    excluded = data / 'ava/ava_val_excluded_timestamps_v2.2.csv'
    assert (
        tool(
            *('evaluate', 'ava', '--ground_truth', ','.join(truths), '--predictions', both),
            *('--label_map', data / LABELS, '--excluded', excluded),
        )
        == 0
    )
    scored = json.loads(capsys.readouterr().out)
    (last,) = [line for line in trained.lines() if 'eval/ava/frame_map@0.5' in line]
    for name, path in zip(parts, truths, strict=True):
        # What the run reports of a part is what its csv scores.
        assert scored['parts'][path]['frame_map@0.5'] == pytest.approx(last[f'eval/{name}/frame_map@0.5'], abs=1e-9)
    assert scored['frame_map@0.5'] == pytest.approx(last['eval/ava_kinetics/frame_map@0.5'], abs=1e-9)
    assert 0 < scored['frame_map@0.5'] < 1


def test_a_set_with_too_few_classes_is_refused_without_the_word_tiny(program, data, tmp_path):
    done = program.run(f'{RECIPE}:k400,data={data}', tmp_path / 'run')
    assert done.process.returncode == 2
    assert 'num_classes is 400' in done.err and 'Traceback' not in done.err
