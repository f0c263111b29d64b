"""Folders of extracted pictures stand in for the videos they come from."""

import dataclasses
import os
import pickle
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from vidloc.annotations import records as rec
from vidloc.data import container, footage, frame_folders, keyframes, sources, video

RATE = 8.0
CLASSES = ('walk', 'wave', 'talk')


def shade(i):
    return np.full((8, 12, 3), (i, 2 * i, 255 - i), np.uint8)


def extract(folder, count, *, pattern='img_{:05d}.png', first=1, leave_out=()):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        if first + i not in leave_out:
            Image.fromarray(shade(i)).save(folder / pattern.format(first + i))
    return folder


def shades(frames):
    return frames[:, 0, 0, 0].tolist()


def opened(folder, rate=RATE):
    found = footage.open_footage(str(folder), rate)
    assert isinstance(found, frame_folders.FrameFolders)
    return found


def take(folder, video_name, path=None):
    return [each.key for each in opened(folder).takes(rec.VideoRecord(video_name, path=path))]


def test_extracted_frames_are_those_of_the_video(rectangles, tmp_path):
    path = rectangles.write(tmp_path / 'files' / 'v.mp4')
    index = video.index_video(path)
    (tmp_path / 'frames' / 'v').mkdir(parents=True)
    for i, frame in enumerate(video.read_frames(path, index.times)):
        Image.fromarray(frame).save(tmp_path / 'frames' / 'v' / f'v_{i + 1:06d}.png')
    record = rec.VideoRecord('v')
    files, folders = footage.open_footage(str(tmp_path / 'files')), opened(tmp_path / 'frames')
    (file,), (folder,) = files.takes(record), folders.takes(record)
    one, other = files.timeline(file.key), folders.timeline(folder.key)
    np.testing.assert_allclose(one.times, other.times)
    assert one.duration == other.duration == 2.0
    # Between frames, at their very start, out of order, twice, and beyond both ends.
    times = np.array([0.99, 0.0, 1.0, 3 / 8, 3 / 8 + 0.12, -5.0, 77.0, 0.99])
    np.testing.assert_array_equal(files.read(file.key, times), folders.read(folder.key, times))


def test_a_source_reads_the_same_batches_from_both(rectangles, tmp_path):
    files = rectangles.folder
    for i in range(2):
        folder = tmp_path / f'v{i:02d}'
        folder.mkdir()
        frames = video.read_frames(files / f'v{i:02d}.mp4', np.arange(16) / 8)
        for number, frame in enumerate(frames):
            Image.fromarray(frame).save(folder / f'img_{number:05d}.png')
    records = rectangles.keyframes(2)
    one = rectangles.source(files, 2, records=records)
    view = dataclasses.replace(one.view, videos=str(tmp_path), frame_rate=8.0)
    other = keyframes.KeyframeSource('street', view, records, CLASSES, train=True)
    for i in range(2):
        a, b = (source.load(i, np.random.default_rng(5)) for source in (one, other))
        np.testing.assert_array_equal(a['video'], b['video'])
        np.testing.assert_array_equal(a['boxes'], b['boxes'])


@pytest.mark.parametrize(
    ('pattern', 'first'),
    [('vid_{:06d}.png', 1), ('img_{:05d}.png', 0), ('{}.png', 7), ('x1_{:03d}.PNG', 998), ('{:05d}.png', 27000)],
)
def test_the_first_number_is_time_zero(tmp_path, pattern, first):
    folder = str(extract(tmp_path / 'v', 5, pattern=pattern, first=first))
    found = opened(tmp_path)
    assert shades(found.read(folder, np.arange(5) / RATE)) == [0, 1, 2, 3, 4]
    assert found.timeline(folder).duration == 5 / RATE


def test_jpeg_and_a_rate_that_is_no_whole_number(tmp_path):
    extract(tmp_path / 'v', 3, pattern='v_{:06d}.jpg')
    found = opened(tmp_path, 29.97)
    assert found.timeline(str(tmp_path / 'v')).duration == pytest.approx(3 / 29.97)
    assert found.read(str(tmp_path / 'v'), np.zeros(1)).shape == (1, 8, 12, 3)


def test_how_a_record_finds_its_folder(tmp_path):
    extract(tmp_path / 'plain', 1)
    extract(tmp_path / 'class' / 'inner', 1)
    extract(tmp_path / 'a_b-c_000010_000020', 1)
    assert take(tmp_path, 'plain') == [str(tmp_path / 'plain')]
    assert take(tmp_path, 'inner') == take(tmp_path, 'x', 'class/inner.mp4') == [str(tmp_path / 'class/inner')]
    assert take(tmp_path, 'x', 'class/inner') == [str(tmp_path / 'class/inner')]
    assert take(tmp_path, 'gone') == take(tmp_path, 'x', '../plain') == take(tmp_path, 'x', str(tmp_path)) == []
    (clip,) = opened(tmp_path).takes(rec.VideoRecord('a_b-c'))
    assert (clip.start, clip.end) == (10.0, 20.0)


def test_flow_and_other_files_are_passed_over(tmp_path):
    folder = extract(tmp_path / 'v', 3)
    extract(folder, 2, pattern='flow_x_{:05d}.png')
    extract(folder, 2, pattern='flow_y_{:05d}.png')
    (folder / 'Thumbs.db').write_bytes(b'')
    assert shades(opened(tmp_path).read(str(folder), np.arange(3) / RATE)) == [0, 1, 2]


def test_timelines_open_no_picture(tmp_path):
    (tmp_path / 'v').mkdir()
    for i in range(4):
        (tmp_path / 'v' / f'{i}.jpg').write_bytes(b'')
    assert opened(tmp_path).timeline(str(tmp_path / 'v')).duration == 0.5


def test_a_gap_names_the_missing_files(tmp_path):
    folder = str(extract(tmp_path / 'v', 12, leave_out=(3, 5, 6)))
    with pytest.raises(video.VideoError, match=r'img_00003\.png, img_00005\.png, img_00006\.png are missing'):
        opened(tmp_path).timeline(folder)
    folder = str(extract(tmp_path / 'w', 30, leave_out=range(2, 30)))
    with pytest.raises(video.VideoError, match=r'img_00006\.png and 23 more are missing'):
        opened(tmp_path).read(folder, np.zeros(1))


def test_what_is_no_series_says_so(tmp_path):
    extract(tmp_path / 'two', 2)
    extract(tmp_path / 'two', 2, pattern='other_{}.png')
    extract(tmp_path / 'digits', 2, pattern='{:03d}.png')
    extract(tmp_path / 'digits', 2, pattern='{:02d}.png', first=2)
    found = opened(tmp_path)
    for name, text in [('two', r'img_#\.png \(2\), other_#\.png \(2\)'), ('digits', r'2 digits, but 001\.png is not')]:
        with pytest.raises(video.VideoError, match=text):
            found.timeline(str(tmp_path / name))
    with pytest.raises(video.VideoError, match=r'gone: No such file'):
        found.timeline(str(tmp_path / 'gone'))


def _bomb(path):
    """A PNG of 100000 x 100000 pixels in 60 bytes."""

    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    header = struct.pack('>IIBBBBB', 100_000, 100_000, 8, 2, 0, 0, 0)
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(b'')))


@pytest.mark.parametrize('damage', ['empty', 'cut', 'text', 'gif', 'bomb', 'large', 'deep', 'size', 'pipe', 'gone'])
def test_hostile_pictures_are_video_errors(tmp_path, damage):
    folder = extract(tmp_path / 'v', 3)
    path = folder / 'img_00002.png'
    whole = path.read_bytes()
    found = opened(tmp_path)
    found.timeline(str(folder))
    path.unlink()
    if damage == 'empty':
        path.write_bytes(b'')
    elif damage == 'cut':
        path.write_bytes(whole[:45])
    elif damage == 'text':
        path.write_text('not found')
    elif damage == 'gif':
        Image.fromarray(shade(1)).save(path, format='GIF')
    elif damage == 'bomb':
        _bomb(path)
    elif damage == 'large':
        path.write_bytes(whole)
        found = frame_folders.FrameFolders(str(tmp_path), RATE, container.Limits(max_pixels=90))
    elif damage == 'deep':
        Image.fromarray(np.full((8, 12), 40_000, np.uint16)).save(path)
    elif damage == 'size':
        Image.fromarray(shade(1)[:4]).save(path)
    elif damage == 'pipe':
        os.mkfifo(path)
    with pytest.raises(video.VideoError, match='img_0000'):
        found.read(str(folder), np.array([0.0, 0.125]))


def test_damaged_bytes_are_read_or_refused(tmp_path):
    folder = extract(tmp_path / 'v', 1)
    Image.fromarray(shade(9)).save(tmp_path / 'a.jpg')
    rng, refused = np.random.default_rng(0), 0
    for whole in ((folder / 'img_00001.png').read_bytes(), (tmp_path / 'a.jpg').read_bytes()):
        for _ in range(150):
            data = bytearray(whole)
            for at in rng.integers(len(data), size=3):
                data[at] = rng.integers(256)
            (folder / 'img_00001.png').write_bytes(data)
            try:
                assert opened(tmp_path).read(str(folder), np.zeros(1)).dtype == np.uint8
            except video.VideoError:
                refused += 1
    assert 30 < refused < 300


def test_orientation_is_that_of_a_viewer(tmp_path):
    folder = extract(tmp_path / 'v', 1)
    picture = np.zeros((8, 12, 3), np.uint8)
    picture[:, :4] = 200
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    Image.fromarray(picture).save(folder / 'img_00001.png', exif=exif)
    np.testing.assert_array_equal(opened(tmp_path).read(str(folder), np.zeros(1))[0], np.rot90(picture, -1))


def test_too_many_pictures_are_refused(tmp_path):
    folder = extract(tmp_path / 'v', 3)
    found = frame_folders.FrameFolders(str(tmp_path), RATE, container.Limits(max_frames=2))
    with pytest.raises(video.VideoError, match='holds 3 pictures, the limit is 2'):
        found.timeline(str(folder))


def test_it_is_small_when_pickled(tmp_path):
    folder = extract(tmp_path / 'v', 2)
    found = opened(tmp_path)
    found.takes(rec.VideoRecord('v'))
    assert len(pickle.dumps(found)) < 1000
    again = pickle.loads(pickle.dumps(found))  # noqa: S301
    assert shades(again.read(str(folder), np.array([0.2]))) == [1]


@pytest.mark.parametrize('rate', [0.0, -1.0, float('nan'), float('inf')])
def test_an_impossible_rate_names_the_source(rectangles, tmp_path, rate):
    extract(tmp_path / 'v00', 2)
    view = keyframes.Keyframes(videos=str(tmp_path), frame_rate=rate)
    with pytest.raises(sources.DataError, match=r'source street: frame_rate is'):
        keyframes.KeyframeSource('street', view, rectangles.keyframes(1), CLASSES, train=True)
