"""Making prepared sets: stopped, shared out, with broken videos, with changed minds."""

import pathlib
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction

import av
import numpy as np
import pytest

from vidloc.annotations import records as rec
from vidloc.data import part, prepare, prepared, transcode, video, video_table

ROOT = pathlib.Path(__file__).parents[2]
PATIENCE = 120


@pytest.fixture
def folder(rectangles, tmp_path):
    return pathlib.Path(shutil.copytree(rectangles.folder, tmp_path / 'videos'))


@pytest.fixture
def planned(folder, rectangles):
    """(options of the set) -> plan of ten videos."""

    def make(records=None, **options):
        return prepare.plan(records or rectangles.keyframes(10), str(folder), part.Options(**options))

    return make


def content(manifest):
    """Of records the order of fields differs from process to process, so that their files are told by their sizes."""
    return [file['records'] for file in manifest['files']], [column['sha256'] for column in manifest['index']]


def test_it_goes_on_where_it_was_killed(folder, planned, tmp_path):
    whole = prepare.write(tmp_path / 'whole', planned())
    lines = ''.join(f'v{i:02d}.mp4 walk\n' for i in range(10))
    (tmp_path / 'train.txt').write_text(lines)
    (tmp_path / 'classes.txt').write_text('walk\n')
    out, parts = tmp_path / 'out', tmp_path / 'out' / 'parts'
    tool = [sys.executable, str(ROOT / 'tools' / 'prepare_data.py'), '--format', 'clips', '--out', str(out)]
    tool += ['--annotations', str(tmp_path / 'train.txt'), '--labels', str(tmp_path / 'classes.txt')]
    tool += ['--videos', str(folder)]
    process = subprocess.Popen(tool, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        for _ in range(PATIENCE * 1000):
            if len(list(parts.glob('*.json'))) >= 2:
                break
            assert process.poll() is None, process.communicate()
            time.sleep(0.001)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    done = {path.name: path.stat().st_mtime_ns for path in parts.glob('*.json')}
    assert 2 <= len(done) < len(whole['files']) and not (out / 'manifest.json').exists()
    with pytest.raises(prepared.PreparedError, match=r'not complete, \d of 10 parts are missing: \d'):
        prepared.PreparedVideos(str(out))
    # As a process that was killed in the middle of a part leaves it.
    (parts / '00009-scratch').mkdir(exist_ok=True)
    (parts / '00009-00.array_record').write_bytes(b'half a file')
    kept = {path: path.stat().st_ino for path in parts.glob('*.array_record') if f'{path.name[:5]}.json' in done}
    again = subprocess.run(tool, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    names = {file['name'] for file in prepared.read_manifest(out)['files']}
    assert set(kept.values()) <= {(out / name).stat().st_ino for name in names}
    assert prepared.verify(out) == [] and not parts.exists()
    assert len(names) == len(whole['files'])
    assert again.stdout.splitlines()[-1].startswith('use it with --config.sources.NAME.videos=')
    table = [video_table.VideoTable.load(each / 'index') for each in (out, tmp_path / 'whole')]
    assert [table[0].index(i).pts.tolist() for i in range(10)] == [table[1].index(i).pts.tolist() for i in range(10)]


def test_machines_share_the_work_and_the_last_one_joins(planned, rectangles, tmp_path):
    some = planned(rectangles.keyframes(5))
    alone = prepare.write(tmp_path / 'alone', some)
    out = tmp_path / 'out'
    assert prepare.write(out, some, machine=3, machines=3) is None
    assert prepare.write(out, some, machine=1, machines=3) is None
    with pytest.raises(prepared.PreparedError, match=r'2 of 5 parts are missing: 1, 4 \(those of --shard 2/3\)'):
        prepared.PreparedVideos(str(out))
    with pytest.raises(prepared.PreparedError, match='--shard 2/3'):
        prepare.join(out)
    together = prepare.write(out, some, machine=2, machines=3)
    assert content(together) == content(alone)
    # What machines with disks of their own wrote is copied together.
    apart = [tmp_path / f'apart{i}' for i in (1, 2)]
    for number, each in enumerate(apart, 1):
        assert prepare.write(each, some, machine=number, machines=2) is None
    shutil.copytree(apart[1], apart[0], dirs_exist_ok=True)
    assert content(prepare.join(apart[0])) == content(alone)
    assert prepare.join(apart[0]) == prepared.read_manifest(apart[0])


def test_processes_change_nothing(planned, rectangles, tmp_path):
    seen, some = [], planned(rectangles.keyframes(3))
    parallel = prepare.write(tmp_path / 'two', some, workers=2, seen=seen.append)
    assert content(parallel) == content(prepare.write(tmp_path / 'one', some))
    assert sum(seen) == some.size


def test_joining_can_be_stopped_anywhere(planned, rectangles, tmp_path, monkeypatch):
    some = planned(rectangles.keyframes(3))
    expected = content(prepare.write(tmp_path / 'whole', some))
    out = tmp_path / 'out'

    def stop(*_):
        raise KeyboardInterrupt

    for place in ('os.replace', 'vidloc.data.video_set.write_description', 'vidloc.data.prepare.write_text'):
        prepare.begin(out, some)
        for each in some.parts:
            part.write_part(out, some.source, each, some.options)
        with monkeypatch.context() as patched:
            patched.setattr(place, stop)
            with pytest.raises(KeyboardInterrupt):
                prepare.join(out)
        assert not (out / 'manifest.json').exists()
    assert content(prepare.join(out)) == expected


def test_something_else_in_the_same_folder_is_refused(planned, folder, rectangles, tmp_path):
    out = tmp_path / 'out'
    prepare.begin(out, planned())
    with pytest.raises(prepared.PreparedError, match=r'chunk_seconds: 60\.0 before, 5 now'):
        prepare.write(out, planned(chunk_seconds=5))
    with pytest.raises(prepared.PreparedError, match=r'transcode: None before, \{.short_side.: 256'):
        prepare.write(out, planned(transcode=transcode.Transcode()))
    with pytest.raises(prepared.PreparedError, match=r'10 videos of .* 9 of .*v09\.mp4 \(\d+ -> not there\)'):
        prepare.write(out, planned(rectangles.keyframes(9)))
    other = [rec.VideoRecord(f'v{i:02d}') for i in range(10)]
    with pytest.raises(prepared.PreparedError, match='annotations of the same videos differ'):
        prepare.write(out, planned(other))
    with (folder / 'v03.mp4').open('ab') as file:
        file.write(b'more')
    with pytest.raises(prepared.PreparedError, match=r'v03\.mp4 \(\d+ -> \d+\)'):
        prepare.write(out, planned())
    assert list((out / 'parts').iterdir()) == []
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'thesis.tex').write_text('words')
    with pytest.raises(prepared.PreparedError, match=r'holds thesis\.tex; name a new or empty folder'):
        prepare.write(tmp_path / 'full', planned())


def test_a_broken_video_is_left_out_with_the_reason(planned, folder, tmp_path):
    (folder / 'v02.mp4').write_bytes(b'')
    (folder / 'v05.mp4').write_bytes((folder / 'v05.mp4').read_bytes()[:300])
    manifest = prepare.write(tmp_path / 'out', planned())
    assert [each['name'] for each in manifest['failed']] == ['v02.mp4', 'v05.mp4']
    assert (
        'is empty (0 bytes)' in manifest['failed'][0]['reason']
        and 'holds no video stream' in manifest['failed'][1]['reason']
    )
    assert manifest['counts']['videos'] == 8 and manifest['counts']['failed'] == 2
    packed = prepared.PreparedVideos(str(tmp_path / 'out'))
    assert packed.takes(rec.VideoRecord('v02')) == ()
    (take,) = packed.takes(rec.VideoRecord('v03'))
    expected = video.read_frames(folder / 'v03.mp4', np.array([1.0]))
    np.testing.assert_array_equal(packed.read(take.key, np.array([1.0])), expected)


def test_nothing_to_prepare(planned, folder, tmp_path):
    with pytest.raises(prepared.PreparedError, match=r'none of the 1 videos .*first: gone'):
        planned([rec.VideoRecord('gone')])
    with pytest.raises(prepared.PreparedError, match='no folder of videos'):
        prepare.plan([rec.VideoRecord('a')], str(tmp_path / 'none'), part.Options())
    (folder / 'v00.mp4').write_bytes(b'')
    with pytest.raises(prepared.PreparedError, match=r'none of the videos can be prepared; .*v00\.mp4.*empty'):
        prepare.write(tmp_path / 'out', planned([rec.VideoRecord('v00')]))
    assert planned([rec.VideoRecord('v01'), rec.VideoRecord('gone')]).missing == ('gone',)


def test_a_long_video_that_cannot_be_cut_is_kept_whole(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (60, 32, 48, 3), np.uint8)
    with av.open(str(tmp_path / 'a.avi'), 'w') as container:
        stream = container.add_stream('libx264', rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, 'yuv420p'
        stream.codec_context.gop_size = 10
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24').reformat(format='yuv420p')))
        container.mux(stream.encode(None))
    wanted = prepare.plan([rec.VideoRecord('a')], str(tmp_path), part.Options(chunk_seconds=2.0, overlap=1.0))
    manifest = prepare.write(tmp_path / 'out', wanted)
    assert manifest['counts']['long_but_kept_whole'] == 1 and manifest['counts']['records'] == 1
    assert manifest['kept_whole'][0]['name'] == 'a.avi' and manifest['kept_whole'][0]['reason']
    packed = prepared.PreparedVideos(str(tmp_path / 'out'))
    times = np.array([0.0, 2.5, 5.9])
    np.testing.assert_array_equal(packed.read('0:a.avi', times), video.read_frames(tmp_path / 'a.avi', times))


def test_files_are_not_larger_than_they_may_be(folder, tmp_path):
    content = (folder / 'v00.mp4').read_bytes()
    for i in range(10):
        # Bytes after the end of a video do no harm; these make it large.
        (folder / f'v{i:02d}.mp4').write_bytes(content + bytes(700_000 if i else 3_000_000))
    wanted = prepare.plan([rec.VideoRecord(f'v{i:02d}') for i in range(10)], str(folder), part.Options(file_mb=1))
    one = prepare.Plan(
        wanted.source, wanted.options, (part.Part(0, sum((each.videos for each in wanted.parts), ())),), ()
    )
    manifest = prepare.write(tmp_path / 'out', one)
    assert [file['records'] for file in manifest['files']] == [1] * 10
    packed = prepared.PreparedVideos(str(tmp_path / 'out'))
    for i in range(10):
        (take,) = packed.takes(rec.VideoRecord(f'v{i:02d}'))
        assert packed.read(take.key, np.array([0.5])).shape == (1, 48, 64, 3)


def uneven(path, gaps):
    """A video of 96 x 64 whose frames, grey of a level that tells their number, are gaps / 100 s apart."""
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=25, options={'crf': '10'})
        stream.width, stream.height, stream.pix_fmt = 96, 64, 'yuv420p'
        stream.codec_context.time_base = Fraction(1, 100)
        for number, start in enumerate(np.concatenate([[0], np.cumsum(gaps)]).tolist()):
            picture = np.full((64, 96, 3), 8 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format='rgb24').reformat(format='yuv420p')
            frame.pts, frame.time_base = start, Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_encoding_again_keeps_constant_rates_and_resamples_others(tmp_path):
    folder = tmp_path / 'videos'
    folder.mkdir()
    uneven(folder / 'even.mkv', [4] * 19)
    uneven(folder / 'uneven.mp4', [4] * 10 + [12] * 9)
    smaller = transcode.Transcode(short_side=32, gop=5, crf=8)
    options = part.Options(transcode=smaller)
    wanted = prepare.plan([rec.VideoRecord('even'), rec.VideoRecord('uneven')], str(folder), options)
    manifest = prepare.write(tmp_path / 'out', wanted)
    assert manifest['same_as_files'] is False and manifest['counts']['resampled'] == 1
    assert manifest['options']['transcode'] == {'short_side': 32, 'gop': 5, 'crf': 8}
    packed = prepared.PreparedVideos(str(tmp_path / 'out'))
    keys = [packed.takes(rec.VideoRecord(name))[0].key for name in ('even', 'uneven')]
    even, resampled = map(packed.timeline, keys)
    np.testing.assert_allclose(even.times, np.arange(20) * 0.04, atol=1e-6)
    assert (even.width, even.height) == (48, 32) and np.diff(even.keyframes).max() <= 5 * even.last_ticks
    np.testing.assert_allclose(np.diff(resampled.times), 0.04, atol=1e-3)
    for key, name in zip(keys, ('even.mkv', 'uneven.mp4'), strict=True):
        times = packed.timeline(key).times[:-1]
        shown = packed.read(key, times).mean((1, 2, 3))
        np.testing.assert_allclose(shown, video.read_frames(folder / name, times).mean((1, 2, 3)), atol=3)
