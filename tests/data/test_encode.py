import itertools
import pathlib
from fractions import Fraction

import av
import numpy as np
import pytest

from vidloc.data import encode, video


def clip(frames: int, height: int = 48, width: int = 80) -> np.ndarray:
    """[T, H, W, 3]: flat colours that change slowly, which compression keeps."""
    level = np.linspace(40, 200, frames)[:, None, None, None] + np.array([0, 20, 40])
    return np.broadcast_to(level, (frames, height, width, 3)).astype(np.uint8)


def test_what_is_written_is_read_back(tmp_path):
    frames = clip(20)
    assert encode.write_video(tmp_path / 'a.mp4', frames, 8) == 20
    index = video.index_video(tmp_path / 'a.mp4')
    np.testing.assert_allclose(index.times, np.arange(20) / 8)
    back = video.read_frames(tmp_path / 'a.mp4', index.times)
    assert np.abs(back.astype(int) - frames).max() <= 4


def test_browsers_can_play_it(tmp_path):
    encode.write_video(tmp_path / 'a.mp4', clip(20), Fraction(30000, 1001), gop=5, metadata={'title': 'T'})
    content = (tmp_path / 'a.mp4').read_bytes()
    assert content.index(b'moov') < content.index(b'mdat')
    with av.open(str(tmp_path / 'a.mp4')) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ('h264', 'yuv420p')
        assert stream.average_rate == Fraction(30000, 1001)
        assert container.metadata['title'] == 'T'
        packets = [packet for packet in container.demux(stream) if packet.size]
        keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
    assert keys[0] == 0 and max(np.diff([*keys, 20])) <= 5


def test_the_same_frames_give_the_same_bytes(tmp_path):
    encode.write_video(tmp_path / 'a.mp4', clip(12), 25.0)
    encode.write_video(tmp_path / 'b.mp4', iter(clip(12)), Fraction(25))
    assert (tmp_path / 'a.mp4').read_bytes() == (tmp_path / 'b.mp4').read_bytes()


def test_odd_sizes_keep_every_point_at_its_place(tmp_path):
    frames = np.zeros((3, 47, 79, 3), np.uint8)
    frames[:, :, 40:] = 255
    encode.write_video(tmp_path / 'odd.mp4', frames, 10)
    back = video.read_frames(tmp_path / 'odd.mp4', [0.0])[0]
    assert back.shape == (48, 80, 3)
    edge = np.argmax(back[24, :, 0] > 127) / 80
    assert abs(edge - 40 / 79) < 1 / 79


@pytest.mark.parametrize(
    ('frames', 'fps', 'options', 'message'),
    [
        ([], 10, {}, 'there is no frame to write'),
        ([clip(1)[0], clip(1, 32)[0]], 10, {}, r'frame 1 is \[32, 80, 3\] but the first is \[48, 80, 3\]'),
        (clip(2) / 255, 10, {}, r'frame 0 is float64 \[48, 80, 3\]; frames are uint8'),
        (clip(2)[..., 0], 10, {}, r'frame 0 is uint8 \[48, 80\]'),
        (clip(2), 0, {}, 'fps is 0; it must be positive'),
        (clip(2), float('nan'), {}, 'fps is nan'),
        (clip(2), 10, {'crf': 52}, 'crf=52 must be in'),
        (clip(2), 10, {'gop': 0}, 'gop=0'),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path, frames, fps, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        encode.write_video(tmp_path / 'a.mp4', frames, fps, **options)
    assert str(caught.value).startswith(str(tmp_path / 'a.mp4'))
    assert list(tmp_path.iterdir()) == []


def test_a_failure_keeps_the_file_that_was_there(tmp_path):
    encode.write_video(tmp_path / 'a.mp4', clip(5), 10)
    before = (tmp_path / 'a.mp4').read_bytes()

    def failing():
        yield from clip(5)
        raise RuntimeError('the renderer broke')

    with pytest.raises(RuntimeError, match='the renderer broke'):
        encode.write_video(tmp_path / 'a.mp4', failing(), 10)
    assert (tmp_path / 'a.mp4').read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / 'a.mp4']


def test_the_file_appears_only_when_complete(tmp_path):
    path = tmp_path / 'a.mp4'
    seen = []
    frames = ((seen.append(path.exists()), frame)[1] for frame in clip(5))
    encode.write_video(path, frames, 10)
    assert seen == [False] * 5 and path.exists()


def test_other_names_and_missing_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r'only mp4 is written'):
        encode.write_video(tmp_path / 'a.avi', clip(1), 10)
    with pytest.raises(FileNotFoundError, match='does not exist; create it first'):
        encode.write_video(tmp_path / 'none' / 'a.mp4', clip(1), 10)


def test_a_name_like_a_protocol_is_a_plain_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    encode.write_video('http:a.mp4', itertools.islice(clip(4), 3), 10)
    assert len(video.index_video(pathlib.Path('http:a.mp4')).pts) == 3
