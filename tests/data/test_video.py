"""Frames carry their number in large blocks, so that it is checked which frame came, not assumed."""

import dataclasses
import gc
import io
import os
import pathlib
import re
import struct
import threading
from fractions import Fraction

import av
import numpy as np
import PIL.Image
import pytest

from vidloc.data import encode, video

FRAMES, RATE = 100, 30
BITS, BLOCK = 10, 16
HEIGHT, WIDTH = 64, 96


def picture(number: int) -> np.ndarray:
    """[64, 96, 3]: a moving texture above, the bits of `number` as 2 x 5 blocks below."""
    y, x = np.mgrid[:32, :WIDTH]
    texture = 128 + 60 * np.sin((x + 2 * number) / 5) * np.cos((y - number) / 7)
    frame = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    frame[:32] = texture[..., None]
    for bit in range(BITS):
        row, column = divmod(bit, 5)
        top, left = 32 + row * BLOCK, 8 + column * BLOCK
        frame[top : top + BLOCK, left : left + BLOCK] = 235 if number >> bit & 1 else 20
    return frame


def barcodes(frames: np.ndarray) -> np.ndarray:
    """The numbers of frames [T, 64, 96, 3]; -1 where a block is neither dark nor bright."""
    numbers = np.zeros(len(frames), int)
    for bit in range(BITS):
        row, column = divmod(bit, 5)
        top, left = 32 + row * BLOCK, 8 + column * BLOCK
        level = frames[:, top + 4 : top + 12, left + 4 : left + 12].mean((1, 2, 3))
        numbers = np.where(np.abs(level - 128) < 50, -(10**6), numbers + ((level > 128) << bit))
    return np.maximum(numbers, -1)


@dataclasses.dataclass(frozen=True)
class Kind:
    """How to write a test file; offset of the first frame and gaps (repeated) in ticks of time_base."""

    suffix: str
    codec: str = 'libx264'
    options: tuple[tuple[str, str], ...] = ()
    time_base: Fraction = Fraction(1, 90000)
    gaps: tuple[int, ...] = (3000,)
    offset: int = 0
    container: tuple[tuple[str, str], ...] = ()
    gop: int = 30
    frames: int = FRAMES


X264 = (('preset', 'veryfast'), ('crf', '20'))
COUNTED = {'time_base': Fraction(1, RATE), 'gaps': (1,), 'gop': 15}
KINDS = {
    'mpeg4 avi': Kind('.avi', 'mpeg4', (('q', '3'),), **COUNTED),
    'mpeg4 avi b-frames': Kind('.avi', 'mpeg4', (('q', '3'), ('bf', '2')), **COUNTED),
    'h264 avi b-frames': Kind('.avi', options=X264, **COUNTED),
    'vp9 webm': Kind('.webm', 'libvpx-vp9', (('deadline', 'realtime'), ('cpu-used', '8')), gop=40),
    'h264 mkv offset': Kind('.mkv', options=X264, offset=5 * 90000 + 37),
    'h264 open-gop mp4': Kind('.mp4', options=(*X264, ('x264-params', 'open-gop=1:bframes=3:scenecut=0'))),
    'h264 vfr mp4': Kind('.mp4', options=X264, gaps=(3000, 1500, 9000, 3003, 700)),
    'h264 ts': Kind('.ts', options=X264),
    'h264 mp4 offset': Kind('.mp4', options=X264, offset=90000),
    'h264 mp4 gop 250': Kind('.mp4', options=X264, gop=250, frames=300),
    'h264 mp4 b-frames': Kind('.mp4', options=(*X264, ('bf', '3'))),
    'h264 mp4 fragments': Kind('.mp4', options=X264, container=(('movflags', 'frag_keyframe+empty_moov'),)),
    'h264 mp4 intra refresh': Kind('.mp4', options=(*X264, ('x264-params', 'intra-refresh=1:bframes=0'))),
    'h264 flv': Kind('.flv', options=X264),
    'hevc mp4': Kind('.mp4', 'libx265', (('preset', 'ultrafast'), ('x265-params', 'log-level=none'))),
    'mpeg2 mpg': Kind('.mpg', 'mpeg2video', (('q', '3'), ('bf', '2')), **COUNTED),
    'wmv': Kind('.wmv', 'wmv2', (('q', '3'),), **COUNTED),
}


def make(name: str, folder) -> tuple[str, np.ndarray]:
    """Writes a file of that kind: (path, second at which each frame starts)."""
    kind = KINDS[name]
    path = folder / (name.replace(' ', '_') + kind.suffix)
    gaps = np.resize(kind.gaps, kind.frames)
    starts = np.concatenate([[0], np.cumsum(gaps)[:-1]])
    with av.open(str(path), 'w', options=dict(kind.container)) as container:
        stream = container.add_stream(kind.codec, rate=RATE, options=dict(kind.options))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, 'yuv420p'
        stream.codec_context.gop_size = kind.gop
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = kind.time_base
        for number, start in enumerate(starts):
            frame = av.VideoFrame.from_ndarray(picture(number), format='rgb24').reformat(format='yuv420p')
            frame.pts, frame.time_base = int(start) + kind.offset, kind.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return str(path), starts * float(kind.time_base)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('videos')


@pytest.fixture(scope='module')
def plain(folder) -> str:
    """60 frames at 30 Hz, a keyframe every 12."""
    path = folder / 'plain.mp4'
    encode.write_video(path, [picture(number) for number in range(60)], RATE, gop=12)
    return str(path)


@pytest.mark.parametrize('name', KINDS)
def test_every_clip_holds_exactly_the_frames_asked_for(name, folder):
    path, starts = make(name, folder)
    content = pathlib.Path(path).read_bytes()
    index = video.index_video(path)
    assert (index.width, index.height, index.missing) == (WIDTH, HEIGHT, 0)
    # Matroska, FLV and ASF round times to 1 ms: the first frame's and this one's.
    np.testing.assert_allclose(index.times, starts, atol=1.01e-3)
    rng = np.random.default_rng(0)
    for stride in (1, 2, 7, 30):
        numbers = rng.integers(-5, len(starts)) + stride * np.arange(6)
        numbers = np.clip(numbers, 0, len(starts) - 1)
        for source, known in ((path, None), (content, index)):
            shown = video.read_frames(source, starts[numbers], index=known)
            np.testing.assert_array_equal(barcodes(shown), numbers)


def test_frames_are_those_of_plain_decoding_bit_for_bit(plain):
    with av.open(plain) as container:
        frames = [frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)]
    order = np.random.default_rng(1).permutation(60)
    np.testing.assert_array_equal(video.read_frames(plain, order / RATE), np.stack(frames)[order])


def test_a_frame_is_shown_until_the_next_one_starts(plain):
    times = np.array([0.0, 0.9 / RATE, 1 / RATE, 1.99 / RATE, 2 / RATE - 1e-9, 31.5 / RATE])
    np.testing.assert_array_equal(barcodes(video.read_frames(plain, times)), [0, 0, 1, 1, 2, 31])


def test_times_outside_give_the_first_and_last_frame(plain):
    times = np.array([-3.0, -1e-9, 2.0, 1e6])
    np.testing.assert_array_equal(barcodes(video.read_frames(plain, times)), [0, 0, 59, 59])


def test_the_time_of_a_frame_gives_that_frame_for_any_rate(tmp_path):
    for rate in (8, 23.976, Fraction(30000, 1001), 59.94, 120):
        path = tmp_path / 'rate.mp4'
        encode.write_video(path, [picture(number) for number in range(40)], rate)
        index = video.index_video(path)
        np.testing.assert_array_equal(index.frames_at(index.times), np.arange(40))
        exact = Fraction(rate).limit_denominator(1001)
        np.testing.assert_array_equal(index.frames_at([float(n / exact) for n in range(40)]), np.arange(40))
        assert index.duration == pytest.approx(40 / float(exact))


@pytest.mark.parametrize('turn', [90, 180, 270])
@pytest.mark.parametrize('mirror', [False, True])
def test_frames_come_as_a_player_shows_them(tmp_path, turn, mirror):
    path = tmp_path / 'turned.mp4'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, 'yuv420p'
        stream.set_display_rotation(turn, hflip=mirror)
        for number in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format='rgb24')))
        container.mux(stream.encode(None))
    shown = video.read_frames(path, np.arange(5) / RATE)
    index = video.index_video(path)
    assert shown.shape[1:3] == (index.height, index.width)
    if mirror:
        shown = shown[:, :, ::-1]
    # The rotation is counter-clockwise, so turning back clockwise gives the stored picture.
    np.testing.assert_array_equal(barcodes(np.rot90(shown, -turn // 90, (1, 2))), np.arange(5))


def test_threads_may_read_at_the_same_time(plain):
    index, failures = video.index_video(plain), []

    def read(seed):
        numbers = np.random.default_rng(seed).integers(0, 60, 8)
        if not (barcodes(video.read_frames(plain, numbers / RATE, index=index)) == numbers).all():
            failures.append(seed)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_symlinks_and_names_like_protocols_are_plain_files(plain, tmp_path, monkeypatch):
    (tmp_path / 'link.mp4').symlink_to(plain)
    (tmp_path / 'concat:a.mp4').symlink_to(plain)
    monkeypatch.chdir(tmp_path)
    for name in ('link.mp4', 'concat:a.mp4', pathlib.Path('link.mp4')):
        assert len(video.index_video(name).pts) == 60


def test_one_frame_is_a_video(tmp_path):
    encode.write_video(tmp_path / 'one.mp4', [picture(7)], 25)
    np.testing.assert_array_equal(barcodes(video.read_frames(tmp_path / 'one.mp4', [0.0, 3.0])), [7, 7])


def test_times_must_be_finite_and_there(plain):
    for times in ([], [[0.0]], [np.nan], [np.inf]):
        with pytest.raises(ValueError, match='times must be'):
            video.read_frames(plain, np.array(times))


def _sound(path):
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('aac', rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format='fltp', layout='mono')
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _no_frames(path):
    with av.open(str(path), 'w', options={'movflags': 'empty_moov+frag_keyframe'}) as container:
        stream = container.add_stream('libx264', rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, 'yuv420p'
        container.start_encoding()


def _many_streams(path):
    with av.open(str(path), 'w') as container:
        streams = [container.add_stream('mpeg4', rate=RATE) for _ in range(70)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 16, 16, 'yuv420p'
        for stream in streams:
            container.mux(stream.encode(av.VideoFrame(16, 16, 'yuv420p')))
            container.mux(stream.encode(None))


def _png(path):
    with open(path, 'wb') as file:
        PIL.Image.fromarray(picture(0)).save(file, 'png')


BROKEN = {
    'missing': ('gone.mp4', lambda path: None, 'No such file.*check the path'),
    'folder': ('dir.mp4', lambda path: path.mkdir(), 'is a folder; name a video file'),
    'pipe': ('pipe.mp4', os.mkfifo, 'is a device or pipe'),
    'empty': ('empty.mp4', lambda path: path.write_bytes(b''), r'is empty \(0 bytes\); fetch'),
    'text': ('text.mp4', lambda path: path.write_text('<html>404 not found</html>' * 99), 'is text, not a video'),
    'hls': ('hls.mp4', lambda path: path.write_text('#EXTM3U\n#EXTINF:1,\nplain.mp4\n'), 'is a playlist'),
    'concat': ('cat.mp4', lambda path: path.write_text("ffconcat version 1.0\nfile 'plain.mp4'\n"), 'is a playlist'),
    'dash': ('dash.mp4', lambda path: path.write_text('<?xml version="1.0"?><MPD></MPD>'), 'is a playlist'),
    'image': ('png.mp4', _png, 'is an image; a video'),
    'noise': ('noise.mp4', lambda path: path.write_bytes(np.random.default_rng(0).bytes(9999)), 'is not a video'),
    'sound only': ('sound.mp4', _sound, 'holds no video stream, only audio'),
    'no frames': ('none.mp4', _no_frames, 'holds no frames'),
    'streams mp4': ('streams.mp4', _many_streams, 'asks for more streams'),
    'streams mkv': ('streams.mkv', _many_streams, 'more than 64 streams'),
}


@pytest.mark.parametrize('name', BROKEN)
def test_what_is_not_a_video_says_so(name, tmp_path):
    file, spoil, message = BROKEN[name]
    spoil(tmp_path / file)
    for read in (video.index_video, lambda path: video.read_frames(path, np.zeros(1))):
        with pytest.raises(video.VideoError, match=message) as caught:
            read(tmp_path / file)
        assert str(caught.value).startswith(str(tmp_path / file))


@pytest.mark.parametrize(
    'name',
    [
        'http://localhost:1/a.mp4',
        'HTTPS://localhost:1/a.mp4',
        'concat:a.mp4|b.mp4',
        'file:a.mp4',
        'tcp://localhost:1',
        'subfile,,start,0,end,9,,:a.mp4',
        'data:video/mp4;base64,AAAA',
    ],
)
def test_only_local_files_are_read(name):
    with pytest.raises(video.VideoError, match='only local files are read'):
        video.index_video(name)


def test_a_nul_in_the_name_is_refused():
    with pytest.raises(video.VideoError, match=r'a\\0b.mp4: the name holds a NUL'):
        video.index_video('a\0b.mp4')


def test_a_playlist_of_an_existing_video_is_not_followed_from_bytes_either(plain):
    for text in (f'#EXTM3U\n#EXTINF:1,\n{plain}\n', f"ffconcat version 1.0\nfile '{plain}'\n"):
        with pytest.raises(video.VideoError, match=r'<video of \d+ bytes>: is a playlist'):
            video.index_video(text.encode())


@pytest.mark.parametrize(
    ('limits', 'message'),
    [
        (video.Limits(max_pixels=64 * 64), 'frames of 96x64 pixels exceed the limit of 4096'),
        (video.Limits(max_frames=59), 'longer than the limit of 59 frames'),
        (video.Limits(max_seconds=1.9), 'longer than the limit .*1.9 s'),
    ],
)
def test_limits_are_kept(plain, limits, message):
    with pytest.raises(video.VideoError, match=message):
        video.index_video(plain, limits)
    with pytest.raises(video.VideoError, match=message):
        video.read_frames(plain, np.zeros(1), limits=limits)


def test_frame_limit_holds_without_a_header_that_tells(folder):
    path, _ = make('h264 ts', folder)
    with pytest.raises(video.VideoError, match='longer than the limit of 90 frames'):
        video.index_video(path, video.Limits(max_frames=90))


def test_a_header_that_promises_a_billion_frames_is_refused(plain):
    content = bytearray(pathlib.Path(plain).read_bytes())
    # One size for all samples, a billion of them, in one chunk, of one duration.
    struct.pack_into('>II', content, content.index(b'stsz') + 8, 1, 10**9)
    struct.pack_into('>I', content, content.index(b'stsc') + 16, 10**9)
    struct.pack_into('>I', content, content.index(b'stts') + 12, 10**9)
    with pytest.raises(video.VideoError, match='longer than the limit'):
        video.index_video(bytes(content))


def test_a_file_without_its_index_says_so(folder):
    path, _ = make('h264 mp4 b-frames', folder)
    content = pathlib.Path(path).read_bytes()
    with pytest.raises(video.VideoError, match=r'index \(moov\) is missing or damaged.*fetch it again'):
        video.index_video(content[: len(content) // 2])


def test_a_file_cut_short_gives_its_intact_part_and_says_what_is_missing(plain):
    content = pathlib.Path(plain).read_bytes()
    cut = content[: len(content) * 6 // 10]
    index = video.index_video(cut)
    there = len(index.pts)
    assert 10 < there < 50 and there + index.missing == 60
    intact = np.arange(there - 5)
    for known in (index, None):
        np.testing.assert_array_equal(barcodes(video.read_frames(cut, intact / RATE, index=known)), intact)
        with pytest.raises(video.VideoError, match=f'cut short: {index.missing} of 60 frames are missing'):
            video.read_frames(cut, np.array([0.0, 55 / RATE]), index=known)


@pytest.mark.parametrize('name', ['h264 mp4 gop 250', 'hevc mp4', 'h264 mkv offset', 'h264 mp4 b-frames'])
def test_a_hole_in_the_payload_never_gives_a_wrong_frame(name, folder):
    path, starts = make(name, folder)
    # Matroska has no table of frames: only an index made while the file was whole tells that some are gone.
    index = video.index_video(path) if name == 'h264 mkv offset' else None
    content = bytearray(pathlib.Path(path).read_bytes())
    hole, size = len(content) * 3 // 10, len(content) // 8
    content[hole : hole + size] = bytes(size)
    outcomes = []
    for number in range(0, len(starts), len(starts) // 15):
        try:
            frames = video.read_frames(bytes(content), starts[[number]], index=index)
            outcomes.append(bool(barcodes(frames)[0] == number))
        except video.VideoError as error:
            assert re.search('damaged|cut short', str(error))
            outcomes.append(None)
    assert None in outcomes and outcomes[0] is True and False not in outcomes


def test_an_index_of_another_file_is_noticed(plain, folder):
    index = video.index_video(plain)
    other = dataclasses.replace(index, pts=index.pts + 7, keyframes=index.keyframes + 7)
    with pytest.raises(video.VideoError, match='not the file that the index was made of'):
        video.read_frames(plain, index.times[[40]], index=other)


def test_a_size_that_changes_is_refused(tmp_path):
    parts = [io.BytesIO(), io.BytesIO()]
    for part, size in zip(parts, (64, 96), strict=True):
        with av.open(part, 'w', format='mpegts') as container:
            stream = container.add_stream('mpeg2video', rate=RATE)
            stream.width, stream.height, stream.pix_fmt = size, 64, 'yuv420p'
            for number in range(20):
                frame = av.VideoFrame.from_ndarray(np.full((64, size, 3), 90, np.uint8), format='rgb24')
                frame.pts = number + (20 if size == 96 else 0)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    with pytest.raises(video.VideoError, match='size changes within the video, from 64x64 to 96x64'):
        video.read_frames(b''.join(part.getvalue() for part in parts), np.array([0.0, 38 / RATE]))


def test_opening_a_video_many_times_keeps_the_memory(plain):
    def resident() -> int:
        gc.collect()
        return int(pathlib.Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')

    times = np.arange(8) / RATE
    for _ in range(50):
        video.read_frames(plain, times)
    before = resident()
    for _ in range(300):
        video.read_frames(plain, times)
    assert resident() - before < 4 * 2**20
