"""Finding the files of videos."""

import os
import pickle

import numpy as np
import pytest
from PIL import Image

from vidloc.annotations import records as rec
from vidloc.data import footage, video


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'')


def takes(folder, name, path=None):
    """[(path relative to the folder, start, end)]"""
    found = footage.open_footage(str(folder)).takes(rec.VideoRecord(name, path=path))
    return [(os.path.relpath(take.key, folder), take.start, take.end) for take in found]


def paths(folder, name, path=None):
    return [found[0] for found in takes(folder, name, path)]


WHOLE = (0.0, float('inf'))


def test_videos_are_found_by_name_at_any_depth_with_any_extension(tmp_path):
    touch(tmp_path, 'a.mp4', 'sub/deep/b.MKV', 'c.part1.webm', 'notes.txt', '-5KQ66BBWC4.mkv', 'x.y')
    assert takes(tmp_path, 'a') == [('a.mp4', *WHOLE)]
    assert paths(tmp_path, 'b') == ['sub/deep/b.MKV']
    assert paths(tmp_path, 'sub/deep/b') == ['sub/deep/b.MKV']
    assert paths(tmp_path, 'c.part1') == ['c.part1.webm']
    assert paths(tmp_path, '-5KQ66BBWC4') == ['-5KQ66BBWC4.mkv']
    assert paths(tmp_path, 'a.mp4') == ['a.mp4']
    for name in ('notes', 'x.y', 'c', 'A', ''):
        assert takes(tmp_path, name) == []


def test_a_path_is_only_that_file(tmp_path):
    touch(tmp_path, 'in/a.mp4', 'a.mp4', 'in/b.webm')
    touch(tmp_path.parent, 'outside.mp4')
    assert takes(tmp_path, 'a', 'in/a.mp4') == [('in/a.mp4', *WHOLE)]
    assert paths(tmp_path, 'a', './in//a.mp4') == ['in/a.mp4']
    for path in ('b.webm', '../outside.mp4', 'in/../../outside.mp4', str(tmp_path / 'a.mp4'), 'a.mp4\0', ''):
        assert takes(tmp_path, 'a', path) == [], path


def test_the_first_of_several_files_of_one_name_is_read(tmp_path):
    touch(tmp_path, 'z/a.mp4', 'b/a.mp4', 'a.webm', 'b/c.mp4', 'a2/c.mp4')
    assert paths(tmp_path, 'a') == ['a.webm']
    assert paths(tmp_path, 'c') == ['a2/c.mp4']
    catalogue = footage.open_footage(str(tmp_path)).catalogue
    assert catalogue.same_name(rec.VideoRecord('a')) == ('a.webm', 'b/a.mp4', 'z/a.mp4')


def test_kinetics_clips_are_takes_of_the_whole_video(tmp_path):
    touch(tmp_path, 'train/_-x_1_000020_000030.mp4', '_-x_1_000004_000014.mkv', 'other_000004_000014.mp4')
    assert takes(tmp_path, '_-x_1') == [
        ('_-x_1_000004_000014.mkv', 4.0, 14.0),
        ('train/_-x_1_000020_000030.mp4', 20.0, 30.0),
    ]
    assert takes(tmp_path, '_-x') == []
    # By its own name a clip is a video whose clock starts with the file.
    assert takes(tmp_path, 'other_000004_000014') == [('other_000004_000014.mp4', *WHOLE)]


def test_ids_that_look_like_the_end_of_a_clip_name(tmp_path):
    touch(
        tmp_path, '000001_000002_000003_000013.mp4', 'y_000010_000010.mp4', 'z_000020_000010.mp4', 'w_00001_00002.mp4'
    )
    assert takes(tmp_path, '000001_000002') == [('000001_000002_000003_000013.mp4', 3.0, 13.0)]
    for name in ('000001', 'y', 'z', 'w'):
        assert takes(tmp_path, name) == []


def test_a_whole_video_goes_before_its_clips(tmp_path):
    touch(tmp_path, 'a.mp4', 'a_000001_000011.mp4')
    assert takes(tmp_path, 'a') == [('a.mp4', *WHOLE)]


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    root = tmp_path / 'videos'
    touch(root, 'real/deep/a.mp4', 'other/b.mp4')
    touch(tmp_path, 'elsewhere/c.mp4')
    (root / 'alias').symlink_to(root / 'real')
    (root / 'real' / 'up').symlink_to(root)
    (root / 'other' / 'self').symlink_to(root / 'other')
    (root / 'far').symlink_to(tmp_path / 'elsewhere')
    (root / 'nowhere').symlink_to(tmp_path / 'gone')
    assert paths(root, 'c') == ['far/c.mp4']
    # Both ways to a file hold: lists name one or the other.
    assert paths(root, 'a', 'real/deep/a.mp4') == ['real/deep/a.mp4']
    assert paths(root, 'a', 'alias/deep/a.mp4') == ['alias/deep/a.mp4']
    assert len(footage.open_footage(str(root)).catalogue.paths) < 20


def test_a_folder_that_cannot_be_listed_is_reported(tmp_path, monkeypatch, caplog):
    touch(tmp_path, 'a.mp4', 'closed/b.mp4')
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith('closed'):
            raise PermissionError(13, 'Permission denied', str(path))
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', refuse)
    found = footage.VideoFiles(str(tmp_path))
    assert found.takes(rec.VideoRecord('a')) and not found.takes(rec.VideoRecord('b'))
    assert 'closed cannot be listed: Permission denied' in caplog.text


def test_reading_and_what_it_costs_to_send(rectangles):
    found = footage.open_footage(str(rectangles.folder))
    (take,) = found.takes(rec.VideoRecord('v03'))
    assert len(pickle.dumps(found)) < 500
    again = pickle.loads(pickle.dumps(found))  # noqa: S301
    assert again.timeline(take.key).duration == 2.0
    np.testing.assert_array_equal(again.read(take.key, np.array([0.5])), video.read_frames(take.key, np.array([0.5])))


def test_a_missing_file_is_a_video_error(tmp_path):
    found = footage.VideoFiles(str(tmp_path))
    with pytest.raises(video.VideoError, match=r'gone\.mp4: No such file'):
        found.timeline(str(tmp_path / 'gone.mp4'))
    with pytest.raises(video.VideoError, match=r'gone\.mp4: No such file'):
        found.read(str(tmp_path / 'gone.mp4'), np.zeros(1))


@pytest.mark.parametrize('folder', ['', 'gone', 'file.mp4', 'a\0b'])
def test_no_folder(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, 'file.mp4')
    with pytest.raises(FileNotFoundError):
        footage.open_footage(folder)


def test_posters_beside_videos_are_no_frames(tmp_path):
    touch(tmp_path, 'class/a_01.mp4', 'class/b_01.mp4')
    for name in ('a_01', 'b_01'):
        Image.new('RGB', (4, 4)).save(tmp_path / 'class' / f'{name}.jpg')
    assert isinstance(footage.open_footage(str(tmp_path)), footage.VideoFiles)
    Image.new('RGB', (4, 4)).save(tmp_path / 'cover1.jpg')
    assert paths(tmp_path, 'a_01') == ['class/a_01.mp4']


def test_an_empty_folder_holds_no_video(tmp_path):
    assert takes(tmp_path, 'a') == []


def test_every_kind_of_footage_does_something_to_each_frame(rectangles, tmp_path):
    times = np.array([0.9, 0.1, 0.9, 1.5])
    for i in range(16):
        (tmp_path / 'frames' / 'v').mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 12, 3), (i, 2 * i, 255 - i), np.uint8)).save(
            tmp_path / 'frames' / 'v' / f'v_{i:03d}.png'
        )
    rectangles.write(tmp_path / 'films' / 'v.mp4')
    for folder in ('films', 'frames'):
        found = footage.open_footage(str(tmp_path / folder), 8.0)
        (take,) = found.takes(rec.VideoRecord('v'))
        whole, calls = found.read(take.key, times), []

        def halved(frame, calls=calls):
            calls.append(frame.shape)
            return frame[::2, ::2]

        np.testing.assert_array_equal(found.read(take.key, times, halved), whole[:, ::2, ::2])
        assert calls == 3 * [whole.shape[1:]]  # a frame that is shown twice is made once


def test_a_file_may_be_called_otherwise_than_its_video(tmp_path):
    touch(tmp_path, 'v_a.mp4', 'sub/v_b.webm', 'c.mp4')
    found = footage.open_footage(str(tmp_path))
    assert [take.key for take in found.takes(rec.VideoRecord('a', stem='v_a'))] == [str(tmp_path / 'v_a.mp4')]
    assert [take.key for take in found.takes(rec.VideoRecord('b', stem='v_b'))] == [str(tmp_path / 'sub/v_b.webm')]
    assert found.takes(rec.VideoRecord('c', stem='v_c')) == ()
