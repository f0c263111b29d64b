"""Videos against what annotations say of them; tests/tools/test_check_data.py has more, as a user meets it."""

import os

import numpy as np
import pytest
from PIL import Image

from vidloc.annotations.records import ClipLabel, VideoRecord
from vidloc.data import presence


def codes(found):
    """Without the files that are equal: all rectangles are."""
    found = [problem for problem in found.problems if problem.code != 'video-duplicate']
    return [(problem.code, os.path.basename(problem.file)) for problem in found]


def test_good_videos_and_their_numbers(rectangles):
    seen = []
    found = presence.check_videos(
        {'train.csv': rectangles.keyframes(3), 'more.csv': rectangles.keyframes(4)},
        {'train.csv': rectangles.folder, 'more.csv': str(rectangles.folder)},
        decode=True,
        seen=lambda done, total: seen.append((done, total)),
    )
    assert codes(found) == []
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]  # once each, although two files name three of them
    assert found.summary == {
        'videos_opened': 4,
        'videos_that_fail': 0,
        'video_seconds': {'least': 2.0, 'median': 2.0, 'most': 2.0},
        'frame_rates': {'8': 4},
        'frame_sizes': {'64x48': 4},
    }


def test_many_problems_of_one_kind_are_counted(tmp_path):
    records = [VideoRecord(f'v{i:03d}') for i in range(presence.KEPT + 30)]
    found = presence.check_videos({'a': records}, {'a': tmp_path})
    assert len(found.problems) == presence.KEPT + 1
    assert found.problems[-1].code == 'video-missing' and found.problems[-1].message.startswith('30 more')


def test_a_folder_that_lacks_does_not_hide_another(rectangles, tmp_path):
    found = presence.check_videos(
        {'a': rectangles.keyframes(1), 'b': rectangles.keyframes(1, name='w')},
        {'a': tmp_path / 'gone', 'b': rectangles.folder},
    )
    assert codes(found) == [('video-folder-missing', 'gone'), ('video-missing', 'w00.mp4')]


def test_a_file_that_was_cut_short(rectangles, tmp_path):
    path = rectangles.write(tmp_path / 'v00.mp4')
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 400])
    found = presence.check_videos({'a': [VideoRecord('v00')]}, {'a': tmp_path})
    assert codes(found) == [('video-cut-short', 'v00.mp4')]
    assert 'frames that its header promises' in found.problems[0].message


def test_parts_of_videos(rectangles):
    fits, late = ClipLabel('walk', 0.5, 1.5), ClipLabel('walk', 30.0, 60.0)
    records = [VideoRecord('v00', labels=(fits,)), VideoRecord('v01', labels=(fits, late))]
    found = presence.check_videos({'a': records}, {'a': rectangles.folder})
    assert codes(found) == [('segment-beyond-video', 'v01.mp4')]
    assert '1 segments, such as 30 to 60 s' in found.problems[0].message


def test_takes_of_one_video_share_its_keyframes(rectangles, tmp_path):
    for name in ('k_000010_000012', 'k_000030_000032'):
        rectangles.write(tmp_path / f'{name}.mp4')
    good = VideoRecord('k', keyframes=(11.0, 31.5))
    assert codes(presence.check_videos({'a': [good]}, {'a': tmp_path})) == []
    rectangles.write(tmp_path / 'l_000010_000020.mp4')
    bad = VideoRecord('l', keyframes=(18.0,))
    found = presence.check_videos({'a': [bad]}, {'a': tmp_path})
    assert codes(found) == [('keyframe-beyond-video', 'l_000010_000020.mp4')]
    found = presence.check_videos({'a': [VideoRecord('k', keyframes=(11.0, 20.0))]}, {'a': tmp_path})
    assert codes(found) == [('keyframe-beyond-video', 'k_000010_000012.mp4')]
    assert '1 of 2 keyframes, such as 20 s, are in no clip (10 to 12, 30 to 32 s)' in found.problems[0].message


def test_takes_of_one_video_share_its_labels(rectangles, tmp_path):
    for name in ('k_000010_000012', 'k_000030_000032'):
        rectangles.write(tmp_path / f'{name}.mp4')

    def check(*spans):
        labels = tuple(ClipLabel('walk', *span) for span in spans)
        return presence.check_videos({'a': [VideoRecord('k', labels=labels)]}, {'a': tmp_path})

    assert codes(check((10.5, 11.5), (30.0, 32.0), (11.0, 31.0))) == []
    found = check((10.5, 11.5), (20.0, 21.0), (31.0, 40.0))
    assert codes(found) == [('segment-beyond-video', 'k_000010_000012.mp4')]
    assert '2 segments, such as 20 to 21 s, are not in clips (10 to 12, 30 to 32 s)' in found.problems[0].message
    rectangles.write(tmp_path / 'l_000010_000020.mp4')
    found = presence.check_videos({'a': [VideoRecord('l', labels=(ClipLabel('walk', 15, 18),))]}, {'a': tmp_path})
    assert codes(found) == [('segment-beyond-video', 'l_000010_000020.mp4')]


def test_files_of_one_size_that_begin_alike_are_not_equal(rectangles, tmp_path):
    data = rectangles.write(tmp_path / 'a.mp4').read_bytes()
    data += (1 << 21).to_bytes(4) + b'free' + bytes((1 << 21) - 9)  # what players pass over
    for name, end in (('a', b'1'), ('b', b'2'), ('c', b'2')):
        (tmp_path / f'{name}.mp4').write_bytes(data + end)
    records = {name: [VideoRecord(name)] for name in 'abc'}
    found = presence.check_videos(records, dict.fromkeys('abc', tmp_path))
    assert codes(found) == [('video-content-in-two-files', 'c.mp4')]
    assert f'the same as {tmp_path}/b.mp4' in found.problems[0].message


def test_a_clip_from_the_first_second_keeps_its_clock(rectangles, tmp_path):
    rectangles.write(tmp_path / 'k_000000_000002.mp4')
    record = VideoRecord('k', keyframes=(1.0,))
    assert codes(presence.check_videos({'a': [record]}, {'a': tmp_path}, start=900.0)) == []


def test_no_problem_is_told_twice_and_lengths_that_differ_in_one_are_that_one(tmp_path):
    for name, count in (('a', 16), ('b', 16), ('c', 40)):
        (tmp_path / name).mkdir()
        for i in range(count):
            Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / name / f'{i}.png')
    records = [VideoRecord(name, duration=2.0) for name in 'abc']
    found = presence.check_videos({'x': records, 'y': records}, dict.fromkeys('xy', tmp_path), frame_rate=8.0)
    assert codes(found) == [('duration-differs', 'c')]


def test_an_impossible_rate(tmp_path):
    (tmp_path / 'a').mkdir()
    Image.new('RGB', (2, 2)).save(tmp_path / 'a' / '1.png')
    with pytest.raises(ValueError, match='frame_rate is -1'):
        presence.check_videos({'x': []}, {'x': tmp_path}, frame_rate=-1.0)


def test_files_are_looked_for_under_the_name_that_records_give_them(rectangles, tmp_path):
    rectangles.write(tmp_path / 'v_a.mp4')
    assert codes(presence.check_videos({'a': [VideoRecord('a', stem='v_a')]}, {'a': tmp_path})) == []
    lost = presence.check_videos({'a': [VideoRecord('b', stem='v_b')]}, {'a': tmp_path})
    assert codes(lost) == [('video-missing', 'v_b.mp4')]
