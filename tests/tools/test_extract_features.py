"""tools/extract_features.py as a user runs it."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from vidloc.data import encode

ROOT = pathlib.Path(__file__).parents[2]
SETTINGS = ('--set', 'heads=2', 'grid=(2,3,3)', '--clip_frames', 4, '--size', 12, '--dtype', 'float32')


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    path = ROOT / 'tests' / 'checkpoints' / 'toy_weights.py'
    spec = importlib.util.spec_from_file_location('toy_weights', path)
    toys = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(toys)
    return toys.write(tmp_path_factory.mktemp('weights'), 'videomae_original')[1]


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp('videos')
    (folder / 'more').mkdir()
    rng = np.random.default_rng(0)
    for name, count in (('one', 9), ('more/v_two', 12)):
        encode.write_video(folder / f'{name}.mp4', rng.integers(0, 255, (count, 16, 16, 3)).astype(np.uint8), fps=10)
    return folder


@pytest.fixture
def run(run_tool, weights, videos):
    """(more arguments, folder of videos=) -> what the tool did"""
    return lambda *more, folder=videos: run_tool(
        'extract_features', '--weights', weights, '--videos', folder, *SETTINGS, *more
    )


def test_as_a_program_on_two_devices_and_once_more_for_nothing(run, weights, videos, tmp_path):
    command = ['--weights', weights, '--videos', videos, *SETTINGS, '--stride', 1, '--layers', '--batch', 2]
    done = subprocess.run(
        [sys.executable, 'tools/extract_features.py', *map(str, command), '--out', str(tmp_path / 'out')],
        cwd=ROOT,
        env=os.environ | {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': '--xla_force_host_platform_device_count=2'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert '2 videos written' in done.stdout and '11 vectors of width 32' in done.stdout and 'videos/s' in done.stdout
    again = run('--stride', 1, '--layers', '--batch', 1, '--out', tmp_path / 'out')
    assert again.returncode == 0 and '0 videos written' in again.stdout and '2 were there' in again.stdout
    alone = run('--stride', 1, '--layers', '--batch', 1, '--out', tmp_path / 'alone')
    assert alone.returncode == 0, alone.stderr
    for name, tokens in (('one', 5), ('v_two', 6)):
        found, expected = (np.load(tmp_path / folder / f'{name}.npz') for folder in ('out', 'alone'))
        assert found['last'].shape == (tokens, 32) and found['layers'].shape == (3, tokens, 32)
        for part in ('last', 'layers'):
            np.testing.assert_allclose(found[part], expected[part], atol=2e-5)
    other = run('--stride', 2, '--layers', '--out', tmp_path / 'out')
    assert (
        other.returncode == 2 and 'holds other features: span 1 there, 2 here; stride 2 there, 4 here' in other.stderr
    )


def test_the_videos_of_annotations_missing_and_broken_ones(run, videos, tmp_path):
    entry = {'subset': 'train', 'duration': 1.2, 'annotations': [{'label': 'run', 'segment': [0.1, 0.9]}]}
    (tmp_path / 'listed.json').write_text(json.dumps({'database': dict.fromkeys(('two', 'bad', 'gone'), entry)}))
    folder = tmp_path / 'videos'
    folder.mkdir()
    (folder / 'v_two.mp4').write_bytes((videos / 'more' / 'v_two.mp4').read_bytes())
    (folder / 'v_bad.mp4').write_bytes(b'nothing of a video')
    more = ('--annotations', tmp_path / 'listed.json', '--prefix', 'v_', '--mode', 'clips', '--every', 4, '--batch', 1)
    more = (*more, '--out', tmp_path / 'out')
    done = run(*more, folder=folder)
    assert done.returncode == 1 and f'1 videos are not in {folder}: gone' in done.stdout
    assert 'left out: bad: ' in done.stdout and '1 videos written' in done.stdout
    assert np.load(tmp_path / 'out' / 'two.npy').shape == (3, 32)
    assert {path.name for path in (tmp_path / 'out').glob('[!.]*')} == {'two.npy', 'features.json'}
    again = run(*more, '--shard', '2/2', folder=folder)
    assert '0 videos written' in again.stdout and '1 were there' in again.stdout


@pytest.mark.parametrize(
    ('more', 'said'),
    [
        (('--mode', 'clips', '--stride', 2), '--stride has no meaning here'),
        (('--every', 2), '--every has no meaning here'),
        (('--rate', 5, '--stride', 2), '--stride has no meaning here'),
        (('--size', 12, 12, 12), 'one number, or height and width'),
        (('--compute', 'int8'), 'compute is'),
        (('--clip_frames', 3), 'do not split into tubelets'),
        (('--annotations', 'gone.json'), 'gone.json'),
    ],
)
def test_what_does_not_fit_ends_with_one_text(run, tmp_path, more, said):
    done = run('--out', tmp_path / 'out', *more)
    assert done.returncode == 2 and done.stderr.startswith('extract_features: ') and said in done.stderr
    assert not (tmp_path / 'out').exists()


def test_folders_without_videos_or_with_two_of_one_name_are_refused(run, videos, tmp_path):
    done = run('--out', tmp_path / 'out', folder=tmp_path / 'gone')
    assert done.returncode == 2 and 'there is no such folder' in done.stderr
    (tmp_path / 'videos' / 'a').mkdir(parents=True)
    done = run('--out', tmp_path / 'out', folder=tmp_path / 'videos')
    assert done.returncode == 2 and 'there are no videos' in done.stderr
    for place in ('one.mp4', 'a/one.mkv'):
        (tmp_path / 'videos' / place).write_bytes(b'')
    done = run('--out', tmp_path / 'out', folder=tmp_path / 'videos')
    assert done.returncode == 2 and 'have one name' in done.stderr
