"""tools/check_data.py as a user runs it, with real videos."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from vidloc.annotations import ava
from vidloc.data import encode

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def run(run_tool):
    return lambda *arguments: run_tool('check_data', *arguments)


@pytest.fixture
def folder(tmp_path):
    """Two videos of 2 s, annotations that fit them, and a label map."""
    frames = np.random.default_rng(0).integers(0, 255, (16, 32, 48, 3), np.uint8)
    for name in ('a', 'sub/b'):
        (tmp_path / 'videos' / name).parent.mkdir(parents=True, exist_ok=True)
        encode.write_video(tmp_path / 'videos' / f'{name}.mp4', frames, 8.0)
    ava.write_label_map(tmp_path / 'map.pbtxt', {1: 'walk'})
    (tmp_path / 'train.csv').write_text('a,0001,0.1,0.2,0.3,0.4,1,0\n')
    (tmp_path / 'val.csv').write_text('b,0001,0.1,0.2,0.3,0.4,1,0\nb,0002\n')
    return tmp_path


@pytest.fixture
def check(run, folder):
    files = ('--annotations', folder / 'train.csv', folder / 'val.csv', '--labels', folder / 'map.pbtxt')
    return lambda *more: run('--format', 'ava', *files, '--videos', folder / 'videos', *more)


def test_good_data_in_a_process_of_its_own(folder):
    files = ('--annotations', folder / 'train.csv', folder / 'val.csv', '--labels', folder / 'map.pbtxt')
    command = [sys.executable, ROOT / 'tools' / 'check_data.py', '--format', 'ava', *files]
    command += ['--videos', folder / 'videos']
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '0 errors, 0 warnings' in done.stdout and 'walk' in done.stdout


def test_json(folder, check):
    (folder / 'train.csv').write_text('a,0001,0.1,0.2,0.3,1.4,1,0\n')
    done = check('--json')
    result = json.loads(done.stdout)
    assert done.returncode == 1 and result['ok'] is False and result['errors'] == 1
    (problem,) = result['problems']
    assert problem['code'] == 'box-not-normalised' and problem['line'] == 1
    assert problem['file'] == str(folder / 'train.csv') and problem['fix']
    assert result['summary'][str(folder / 'val.csv')]['keyframes'] == 2


def test_what_can_be_wrong_with_videos(folder, check):
    (folder / 'videos' / 'broken.mp4').write_bytes(b'not a video')
    (folder / 'outside.mp4').write_bytes((folder / 'videos' / 'a.mp4').read_bytes())
    (folder / 'videos' / 'link.mp4').symlink_to(folder / 'outside.mp4')
    (folder / 'videos' / 'sub' / 'a.mp4').write_bytes((folder / 'videos' / 'a.mp4').read_bytes())
    lines = ['a,0901', 'b,0001', 'broken,0001', 'gone,0001', 'link,0001']
    (folder / 'train.csv').write_text(''.join(f'{line},0.1,0.2,0.3,0.4,1,0\n' for line in lines))
    done = check('--json')
    codes = {problem['code'] for problem in json.loads(done.stdout)['problems']}
    assert done.returncode == 1
    assert codes == {
        'keyframe-beyond-video',
        'video-unreadable',
        'video-missing',
        'video-path-refused',
        'video-ambiguous',
        'video-in-two-files',
    }


def test_start_of_cut_films(folder, check):
    (folder / 'train.csv').write_text('a,0901,0.1,0.2,0.3,0.4,1,0\n')
    (folder / 'val.csv').write_text('b,0902,0.1,0.2,0.3,0.4,1,0\n')
    assert check().returncode == 1
    assert check('--start', 900).returncode == 0


def test_segments_beyond_the_video(folder, run):
    entry = {'duration': 2.0, 'annotations': [{'segment': [1, 1.5], 'label': 'walk'}]}
    late = {'duration': 60, 'annotations': [{'segment': [50, 55], 'label': 'walk'}]}
    (folder / 's.json').write_text(json.dumps({'database': {'a': entry, 'b': late}}))
    done = run('--format', 'activitynet', '--annotations', folder / 's.json', '--videos', folder / 'videos', '--json')
    problems = json.loads(done.stdout)['problems']
    assert [problem['code'] for problem in problems] == ['segment-beyond-video', 'duration-differs']


def test_wrong_use(folder, run):
    done = run('--format', 'ava', '--annotations', folder / 'train.csv')
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    done = run('--format', 'table', '--annotations', folder / 'none.csv', '--videos', folder / 'none')
    assert done.returncode == 1 and 'file-missing' in done.stdout and 'video-folder-missing' in done.stdout
