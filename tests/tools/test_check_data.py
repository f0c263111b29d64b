"""tools/check_data.py as a user runs it, with real videos."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from vidloc.annotations import ava
from vidloc.data import encode

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def run(run_tool):
    return lambda *arguments: run_tool('check_data', '--workers', 0, *arguments)


@pytest.fixture
def folder(tmp_path):
    """Two videos of 2 s, annotations that fit them, and a label map."""
    for seed, name in enumerate(('a', 'sub/b')):
        frames = np.random.default_rng(seed).integers(0, 255, (16, 32, 48, 3), np.uint8)
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
    command += ['--videos', folder / 'videos', '--decode', '--workers', '1']
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '0 errors, 0 warnings' in done.stdout and 'walk' in done.stdout


def test_whoever_reads_may_stop(folder):
    (folder / 'list.txt').write_text(''.join(f'{i}.mp4 {i}\n' for i in range(3000)))
    (folder / 'classes.txt').write_text(''.join(f'class {i}\n' for i in range(3000)))
    tool = f'{sys.executable} {ROOT}/tools/check_data.py --format clips --json'
    command = f'{tool} --annotations {folder}/list.txt --labels {folder}/classes.txt | head -c 10'
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.stdout == '{"ok": tru' and done.stderr == ''


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


def codes(done):
    return [problem['code'] for problem in json.loads(done.stdout)['problems']]


def test_one_offset_is_told_once(folder, check):
    (folder / 'train.csv').write_text('a,0901,0.1,0.2,0.3,0.4,1,0\n')
    (folder / 'val.csv').write_text('b,0902,0.1,0.2,0.3,0.4,1,0\n')
    done = check('--json')
    (problem,) = json.loads(done.stdout)['problems']
    assert problem['code'] == 'timestamp-offset' and 'all 2 videos fit' in problem['message']
    assert 'time_offset=900' in problem['fix']
    (folder / 'train.csv').write_text('a,0001,0.1,0.2,0.3,0.4,1,0\n')
    (folder / 'val.csv').write_text('b,0002,0.1,0.2,0.3,0.4,1,0\n')
    (problem,) = json.loads(check('--json', '--start', 900).stdout)['problems']
    assert (
        problem['code'] == 'timestamp-offset' and 'start of the files' in problem['fix'] and '0 s' in problem['message']
    )


def test_detections_that_count_from_zero(folder, run):
    (folder / 'truth.csv').write_text('a,0902,0.1,0.2,0.3,0.4,1,0\na,0903,0.1,0.2,0.3,0.4,1,0\n')
    (folder / 'boxes.csv').write_text('c,0002,0.1,0.2,0.3,0.4,,0.9\na,0002,0.1,0.2,0.3,0.4,,0.9\n')
    files = ('--format', 'ava', '--annotations', folder / 'truth.csv', '--labels', folder / 'map.pbtxt', '--json')
    (problem,) = json.loads(run(*files, '--detections', folder / 'boxes.csv').stdout)['problems']
    assert (problem['code'], problem['file'], problem['line']) == ('timestamp-offset', str(folder / 'boxes.csv'), 2)
    assert '2 to 2 s, the truth at 902 to 903 s' in problem['message']


def test_equal_files_within_and_across_splits(folder, check):
    videos = folder / 'videos'
    for name in ('a2', 'b2'):
        (videos / f'{name}.mp4').write_bytes((videos / 'a.mp4').read_bytes())
    (folder / 'train.csv').write_text('a,0001,0.1,0.2,0.3,0.4,1,0\na2,0001,0.1,0.2,0.3,0.4,1,0\n')
    assert codes(check('--json')) == ['video-duplicate']
    (folder / 'train.csv').write_text('a,0001,0.1,0.2,0.3,0.4,1,0\n')
    (folder / 'val.csv').write_text('b2,0001,0.1,0.2,0.3,0.4,1,0\n')
    assert codes(check('--json')) == ['video-content-in-two-files']


def test_damage_within_a_video_needs_decoding(folder, check):
    path = folder / 'videos' / 'a.mp4'
    data = bytearray(path.read_bytes())
    at = data.index(b'mdat') + (len(data) - data.index(b'mdat')) * 2 // 3
    data[at : at + 3000] = bytes(3000)
    path.write_bytes(data)
    assert codes(check('--json', '--decode')) == ['video-damaged']


def write_pictures(folder, count, leave_out=(), first=1):
    folder.mkdir(parents=True)
    for i in range(first, first + count):
        if i not in leave_out:
            Image.fromarray(np.full((4, 6, 3), i % 256, np.uint8)).save(folder / f'img_{i:05d}.jpg')


def test_folders_of_pictures(folder, run):
    pictures = folder / 'pictures'
    write_pictures(pictures / 'a', 16)
    write_pictures(pictures / 'b', 16, leave_out=(5,))
    write_pictures(pictures / 'c', 16, first=9)
    write_pictures(pictures / 'd', 8)
    lines = [f'{name},0001.5,0.1,0.2,0.3,0.4,1,0\n' for name in 'abcde']
    (folder / 'train.csv').write_text(''.join(lines))
    files = ('--format', 'ava', '--annotations', folder / 'train.csv', '--labels', folder / 'map.pbtxt', '--json')
    done = run(*files, '--videos', pictures, '--frame_rate', 8)
    problems = {problem['code']: problem for problem in json.loads(done.stdout)['problems']}
    assert {code: pathlib.Path(each['file']).name for code, each in problems.items()} == {
        'frames-missing': 'b',
        'frames-start-late': 'c',
        'keyframe-beyond-video': 'd',
        'video-missing': 'e',
    }
    assert 'img_00005.jpg is missing' in problems['frames-missing']['message']


def test_pictures_of_another_rate(folder, run):
    for name in ('a', 'b'):
        write_pictures(folder / 'pictures' / name, 50)
    database = {name: {'duration': 2.0, 'annotations': [{'segment': [0, 1], 'label': 'walk'}]} for name in 'ab'}
    (folder / 's.json').write_text(json.dumps({'database': database}))
    files = ('--format', 'activitynet', '--annotations', folder / 's.json', '--videos', folder / 'pictures', '--json')
    (problem,) = json.loads(run(*files).stdout)['problems']
    assert problem['code'] == 'frame-rate-differs' and 'at 25 a second' in problem['fix']
    assert run(*files, '--frame_rate', 25).returncode == 0


def test_clips_of_kinetics(folder, run):
    videos = folder / 'videos'
    (videos / 'sub' / 'b.mp4').rename(videos / 'sub' / '-x_1_000010_000012.mp4')
    (videos / 'a.mp4').rename(videos / '-x_1_000020_000021.mp4')
    for name, start, end in (('train', 10, 12), ('val', 20, 21)):
        text = f'label,youtube_id,time_start,time_end,split\nwalk,-x_1,{start},{end},{name}\n'
        (folder / f'{name}.csv').write_text(text)
    files = ('--format', 'kinetics', '--annotations', folder / 'train.csv', folder / 'val.csv', '--json')
    assert codes(run(*files, '--videos', videos)) == ['clips-of-one-video-in-two-files']
    encode.write_video(videos / '-x_1_000030_000031.mp4', np.zeros((40, 32, 48, 3), np.uint8), 8.0)
    (folder / 'val.csv').write_text((folder / 'val.csv').read_text().replace('20,21', '30,31'))
    assert codes(run(*files, '--videos', videos)) == ['clips-of-one-video-in-two-files', 'clip-longer-than-name']
    # As AVA-Kinetics names them: by the whole video, on its clock.
    (folder / 'train.csv').write_text('-x_1,11.5,0.1,0.2,0.3,0.4,1\n')
    labels = ('--labels', folder / 'map.pbtxt', '--videos', videos)
    assert run('--format', 'ava', '--annotations', folder / 'train.csv', *labels).returncode == 0


def test_a_folder_of_videos_for_each_split(folder, run):
    for split in ('train', 'val'):
        for label in ('walk', 'run'):
            path = folder / 'sets' / split / label / '1.mp4'
            path.parent.mkdir(parents=True)
            shade = 40 * len(list((folder / 'sets').rglob('*.mp4')))
            encode.write_video(path, np.full((8, 32, 48, 3), shade, np.uint8), 8.0)
    sets = (folder / 'sets' / 'train', folder / 'sets' / 'val')
    done = run('--format', 'folders', '--annotations', *sets, '--videos', *sets, '--json')
    assert done.returncode == 0 and codes(done) == []
    assert json.loads(done.stdout)['videos']['videos_opened'] == 4
    done = run('--format', 'folders', '--annotations', *sets, '--videos', *sets, *sets)
    assert done.returncode == 2 and '4 folders for 2 annotations' in done.stderr


@pytest.mark.parametrize('more', [('--start', 'nan'), ('--timeout', '-1'), ('--format', 'avi')])
def test_usage(folder, run, more):
    with pytest.raises(SystemExit) as stopped:
        run('--format', 'table', '--annotations', folder / 'x.csv', *more)
    assert stopped.value.code == 2


def test_impossible_settings(folder, check):
    for more in (('--workers', -1), ('--frame_rate', 0)):
        (folder / 'pictures' / 'a').mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (4, 4)).save(folder / 'pictures' / 'a' / '1.png')
        done = check('--videos', folder / 'pictures', *more)
        assert done.returncode == 2 and done.stderr.startswith('check_data: ')


def test_wrong_use(folder, run):
    done = run('--format', 'ava', '--annotations', folder / 'train.csv')
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    done = run('--format', 'table', '--annotations', folder / 'none.csv', '--videos', folder / 'none')
    assert done.returncode == 1 and 'file-missing' in done.stdout and 'video-folder-missing' in done.stdout
