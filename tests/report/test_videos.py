import dataclasses
import hashlib

import av
import numpy as np
import pytest

from vidloc.annotations.records import AnnotationError
from vidloc.data import footage
from vidloc.report import run, videos


@pytest.fixture(scope='module')
def made(workdir, tmp_path_factory):
    folder = tmp_path_factory.mktemp('page')
    return folder, videos.annotated(run.read_run(workdir).detections[0], workdir, folder, 1)


def test_the_rule_that_picks_looks_at_names_only():
    names = [f'v{i:03d}' for i in range(40)]
    picked = videos.chosen(names)
    assert picked == videos.chosen(names[::-1]) and len(picked) == 6
    digests = sorted(hashlib.sha256(name.encode()).hexdigest() for name in names)
    assert [hashlib.sha256(name.encode()).hexdigest() for name in picked] == digests[:6]
    assert videos.chosen(['only']) == ['only']


def test_the_videos_are_h264_that_browsers_play(made):
    folder, clips = made
    assert [clip.file for clip in clips] == [f'video_{i:02d}.mp4' for i in range(1, 7)]
    for clip in clips:
        data = (folder / clip.file).read_bytes()
        assert data.index(b'moov') < data.index(b'mdat')
        with av.open(str(folder / clip.file)) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ('h264', 'yuv420p')
            assert (stream.width, stream.height) == (clip.width, clip.height)
            assert sum(1 for _ in container.decode(stream)) == 16
        assert clip.seconds == 2.0 and clip.keyframes == (1.0,) and not clip.problem
        assert clip.poster_url.startswith('data:image/jpeg;base64,') and clip.poster[:2] == b'\xff\xd8'


def test_the_timeline_holds_the_truth_and_the_best_scores(made, workdir):
    _, clips = made
    rows = (workdir / 'eval' / 'street_detections.csv').read_text().splitlines()
    truth = (workdir / 'data' / 'truth.csv').read_text().splitlines()
    for clip in clips:
        classes = run.read_run(workdir).detections[0].classes
        true = {classes[int(row.split(',')[6]) - 1] for row in truth if row.startswith(clip.name)}
        assert {name for name, spans in clip.rows if spans[0].truth} == true
        for name, (span,) in clip.rows:
            number = str(classes.index(name) + 1)
            cells = [row.split(',') for row in rows if row.startswith(clip.name)]
            best = max(float(cell[7]) for cell in cells if cell[6] == number)
            assert span.score == pytest.approx(best) and (span.start, span.end) == (0.0, 2.0)


def test_a_missing_and_a_damaged_video_are_said_and_the_others_shown(run_writer, tmp_path):
    workdir = run_writer(tmp_path / 'run', videos=3)
    (workdir / 'data' / 'videos' / 'v000.mp4').unlink()
    (workdir / 'data' / 'videos' / 'v001.mp4').write_bytes(b'not a video')
    clips = {c.name: c for c in videos.annotated(run.read_run(workdir).detections[0], workdir, tmp_path, 5)}
    assert clips['v000'].file is None and 'v000' in clips['v000'].problem
    assert clips['v001'].file is None and 'v001.mp4' in clips['v001'].problem
    assert clips['v002'].file is not None
    assert sorted(path.name for path in tmp_path.glob('*.mp4')) == [clips['v002'].file]


def test_a_file_that_starts_later_on_the_annotations_clock_shows_the_same_frames(run_writer, tmp_path):
    workdir = run_writer(tmp_path / 'run', videos=1)
    plain = run.read_run(workdir).detections[0]
    for file in (workdir / 'data' / 'truth.csv', workdir / 'eval' / 'street_detections.csv'):
        file.write_text(file.read_text().replace('v000,1,', 'v000,0901,'))
    shifted = dataclasses.replace(plain, video_start=900.0)
    (clip,) = videos.annotated(shifted, workdir, tmp_path, 1)
    assert clip.keyframes == (1.0,) and clip.rows[0][1][0].score is not None
    (clip,) = videos.annotated(plain, workdir, tmp_path, 2)
    assert clip.file is None and '`time_offset`' in clip.problem


def test_a_clip_of_kinetics_starts_where_its_name_says(run_writer, tmp_path):
    workdir = run_writer(tmp_path / 'run', videos=1)
    folder = workdir / 'data' / 'videos'
    (folder / 'v000.mp4').rename(folder / 'v000_000040_000050.mp4')
    for file in (workdir / 'data' / 'truth.csv', workdir / 'eval' / 'street_detections.csv'):
        file.write_text(file.read_text().replace('v000,1,', 'v000,41.5,'))
    result = dataclasses.replace(run.read_run(workdir).detections[0], video_start=900.0)
    (clip,) = videos.annotated(result, workdir, tmp_path, 1)
    assert clip.keyframes == (1.5,) and clip.rows[0][1][0].score is not None and not clip.problem


def test_all_ground_truth_files_are_read_and_excluded_keyframes_are_not_drawn(run_writer, tmp_path):
    workdir = run_writer(tmp_path / 'run', videos=2, seconds=4)
    rows = (workdir / 'data' / 'truth.csv').read_text().splitlines(keepends=True)
    for name in ('v000', 'v001'):
        (workdir / 'data' / f'{name}.csv').write_text(''.join(row for row in rows if row.startswith(name)))
    (workdir / 'data' / 'excluded.csv').write_text('v000,2\n')
    result = dataclasses.replace(
        run.read_run(workdir).detections[0],
        ground_truth=('data/v000.csv', 'data/v001.csv'),
        excluded='data/excluded.csv',
    )
    clips = {clip.name: clip for clip in videos.annotated(result, workdir, tmp_path, 1)}
    assert clips['v000'].keyframes == (1.0, 3.0) and clips['v001'].keyframes == (1.0, 2.0, 3.0)


def test_a_folder_of_videos_that_is_gone_is_said(run_writer, tmp_path):
    workdir = run_writer(tmp_path / 'run', videos=2)
    result = dataclasses.replace(run.read_run(workdir).detections[0], videos='data/gone')
    clips = videos.annotated(result, workdir, tmp_path, 1)
    assert len(clips) == 2 and all('data/gone' in clip.problem and clip.file is None for clip in clips)


def test_frames_that_are_read_in_parts_give_the_same_video(run_writer, tmp_path, monkeypatch):
    workdir = run_writer(tmp_path / 'run', videos=1)
    (result,) = run.read_run(workdir).detections
    read, asked = footage.VideoFiles.read, []

    def counted(self, key, times):
        asked.append(len(times))
        return read(self, key, times)

    monkeypatch.setattr(footage.VideoFiles, 'read', counted)
    for name in ('one', 'two'):
        (tmp_path / name).mkdir()
    (whole,) = videos.annotated(result, workdir, tmp_path / 'one', 1)
    assert asked == [1, 16]
    monkeypatch.setattr(videos, 'HELD', 5 * 64 * 96 * 3)
    (parts,) = videos.annotated(result, workdir, tmp_path / 'two', 1)
    assert asked[2:] == [1, 5, 5, 5, 1]
    assert parts == whole
    assert (tmp_path / 'two' / parts.file).read_bytes() == (tmp_path / 'one' / whole.file).read_bytes()


def test_a_long_video_is_cut_around_its_first_keyframes(run_writer, tmp_path, monkeypatch):
    monkeypatch.setattr(videos, 'MAX_SECONDS', 2.0)
    workdir = run_writer(tmp_path / 'run', videos=1, seconds=6)
    truth = workdir / 'data' / 'truth.csv'
    truth.write_text('\n'.join(row for row in truth.read_text().splitlines() if row.split(',')[1] in '345') + '\n')
    (clip,) = videos.annotated(run.read_run(workdir).detections[0], workdir, tmp_path, 1)
    assert (clip.start, clip.seconds, clip.keyframes) == (2.0, 2.0, (1.0, 2.0))
    with av.open(str(tmp_path / clip.file)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 16


def test_the_drawn_video_has_the_boxes_where_the_files_say(made, workdir):
    folder, clips = made
    from vidloc.data import video
    from vidloc.report import draw

    clip = clips[0]
    row = next(
        r.split(',') for r in (workdir / 'data' / 'truth.csv').read_text().splitlines() if r.startswith(clip.name)
    )
    frame = video.read_frames(str(folder / clip.file), np.array([1.0]))[0].astype(int)
    width, height = draw.canvas_size(96, 64)
    strip = clip.height - height
    x1, y1, _, y2 = (float(value) for value in row[2:6])
    line = frame[strip + round(y1 * height) + 8 : strip + round(y2 * height) - 8, round(x1 * width)]
    assert line.min() > 170


def test_detections_that_cannot_be_read_raise(run_writer, tmp_path):
    workdir = run_writer(tmp_path / 'run', videos=1)
    (workdir / 'eval' / 'street_detections.csv').write_text('v000,1,0.1\n')
    with pytest.raises(AnnotationError, match='street_detections'):
        videos.annotated(run.read_run(workdir).detections[0], workdir, tmp_path, 1)
