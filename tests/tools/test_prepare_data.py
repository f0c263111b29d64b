"""tools/prepare_data.py as a user runs it, with real videos."""

import json
import shutil

import numpy as np
import pytest

from vidloc.annotations import ava
from vidloc.data import encode, prepared


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """Three videos of 2 s and one of 6 s, two splits and a label map."""
    folder = tmp_path_factory.mktemp('source')
    frames = np.random.default_rng(0).integers(0, 255, (48, 32, 48, 3), np.uint8)
    (folder / 'videos').mkdir()
    for name in ('a', 'b', 'c'):
        encode.write_video(folder / 'videos' / f'{name}.mp4', frames[:16], 8.0)
    encode.write_video(folder / 'videos' / 'film.mp4', frames, 8.0, gop=8)
    ava.write_label_map(folder / 'map.pbtxt', {1: 'walk'})
    (folder / 'train.csv').write_text(''.join(f'{name},0001,0.1,0.2,0.3,0.4,1,0\n' for name in ('a', 'b', 'film')))
    (folder / 'val.csv').write_text('c,0001,0.1,0.2,0.3,0.4,1,0\ngone,0002\n')
    return folder


@pytest.fixture
def run(run_tool, source, tmp_path):
    """(more options) -> what the tool gave, the set being in tmp_path / 'set'."""
    files = ('--annotations', source / 'train.csv', source / 'val.csv', '--labels', source / 'map.pbtxt')
    usual = ('--format', 'ava', *files, '--videos', source / 'videos', '--out', tmp_path / 'set')
    return lambda *more: run_tool('prepare_data', *usual, *more)


def test_a_set_is_made_checked_and_not_made_again(run, run_tool, tmp_path):
    done = run('--chunk_seconds', 2, '--overlap', 1)
    assert done.returncode == 0 and done.stderr == ''
    lines = done.stdout.splitlines()
    assert (
        lines[0].startswith('4 videos, ') and lines[1].startswith('1 videos are not in ') and lines[1].endswith('gone')
    )
    assert '1 long ones cut into chunks, 0 long ones kept whole' in lines[2]
    out = tmp_path / 'set'
    assert lines[3] == f'use it with --config.sources.NAME.videos={out} --config.eval_sources.NAME.videos={out}'
    stamp = (out / 'manifest.json').stat().st_mtime_ns
    assert run('--chunk_seconds', 2, '--overlap', 1).stdout.splitlines()[2:] == lines[2:]
    assert (out / 'manifest.json').stat().st_mtime_ns == stamp
    verified = run_tool('prepare_data', '--verify', out)
    assert verified.returncode == 0 and verified.stdout == 'all is as written\n'
    path = next(out.glob('*00001-of-*'))
    path.write_bytes(path.read_bytes()[:-1] + b'x')
    verified = run_tool('prepare_data', '--verify', out)
    assert verified.returncode == 1 and verified.stdout.startswith(f'{path}: its bytes are not those')
    other = run('--chunk_seconds', 2, '--overlap', 1.5)
    assert other.returncode == 2 and 'overlap: 1.0 before, 1.5 now' in other.stderr


def test_shards(run, run_tool, tmp_path):
    first = run('--shard', '2/2')
    assert first.returncode == 0 and '2 of 3 parts are missing: 0, 2 (those of --shard 1/2)' in first.stdout
    early = run_tool('prepare_data', '--join', tmp_path / 'set')
    assert early.returncode == 2 and '--shard 1/2' in early.stderr
    assert 'use it with' in run('--shard', '1/2').stdout
    assert prepared.read_manifest(tmp_path / 'set')['counts']['videos'] == 4


def test_broken_videos_make_the_exit_code_1(run, run_tool, source, tmp_path):
    shutil.copytree(source / 'videos', tmp_path / 'videos')
    (tmp_path / 'videos' / 'b.mp4').write_bytes(b'<html>not found</html>')
    done = run('--videos', tmp_path / 'videos')
    assert done.returncode == 1
    assert f'left out: b.mp4: {tmp_path}/videos/b.mp4: is text, not a video' in done.stdout
    assert '1 videos were left out' in done.stdout and 'use it with' in done.stdout


def test_encoding_again_is_said(run, tmp_path):
    done = run('--transcode', '--short_side', 16, '--gop', 4, '--crf', 30)
    assert done.returncode == 0 and 'batches are not those of the files; 0 videos were resampled' in done.stdout
    manifest = json.loads((tmp_path / 'set' / 'manifest.json').read_text())
    assert manifest['options']['transcode'] == {'short_side': 16, 'gop': 4, 'crf': 30}
    packed = prepared.PreparedVideos(str(tmp_path / 'set'))
    assert packed.read('0:a.mp4', np.array([0.5])).shape == (1, 16, 24, 3)


def test_wrong_use(run, run_tool, source, tmp_path):
    def said(*arguments, tool=run):
        done = tool(*arguments)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done
        return done.stderr

    assert 'needs --annotations, --videos, --out' in said('prepare_data', '--format', 'ava', tool=run_tool)
    assert 'format ava needs --labels' in said('--labels', '')
    assert 'format ava has no --subset' in said('--subset', 'train')
    assert 'no folder of videos' in said('--videos', tmp_path / 'none')
    assert 'file-missing' in said('--annotations', tmp_path / 'none.csv')
    assert 'are seconds, above 0' in said('--overlap', 0)
    assert 'is not 1 or more' in said('--workers', 0)
    assert 'holds no prepared set' in said('prepare_data', '--verify', source, tool=run_tool)
    for text in ('3/2', '0/2', '1'):
        with pytest.raises(SystemExit, match='2'):
            run('--shard', text)
