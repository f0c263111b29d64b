"""Every frame of every chunk is compared with the whole video's, for the kinds of files that make cutting hard."""

import dataclasses
import itertools
import pathlib
import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from vidloc.data import chunks, video

HEIGHT, WIDTH, RATE, FRAMES = 48, 80, 24, 84
TEXTURE = np.random.default_rng(0).integers(40, 215, (HEIGHT // 8, 40, 3), np.uint8).repeat(8, 0).repeat(8, 1)


@dataclasses.dataclass(frozen=True)
class Kind:
    """How a file is written; offset and gaps in ticks of 1/24000 s; cut: whether it can be cut exactly."""

    suffix: str = '.mp4'
    codec: str = 'libx264'
    options: tuple[tuple[str, str], ...] = (('preset', 'veryfast'), ('bf', '3'))
    gop: int = 12
    offset: int = 0
    gaps: tuple[int, ...] = (1000,)
    turned: int = 0
    hidden: int = 0
    cut: bool = True


PLAIN = (('preset', 'ultrafast'),)
OPEN = 'open-gop=1:bframes=3:scenecut=0'
KINDS = {
    'mp4': Kind(),
    'mp4 gop 250': Kind(gop=250, cut=False),
    'mp4 no b-frames': Kind(options=PLAIN),
    'mp4 offset': Kind(offset=48017),
    'mp4 vfr': Kind(gaps=(1000, 500, 3000, 1001, 237)),
    'mp4 turned': Kind(turned=90),
    'mp4 edit list': Kind(hidden=5),
    'mp4 open gop': Kind(options=(('preset', 'veryfast'), ('x264-params', OPEN))),
    'mp4 open gop, many references': Kind(options=(('preset', 'slow'), ('x264-params', OPEN)), cut=False),
    'ts intra refresh': Kind('.ts', options=(*PLAIN, ('x264-params', 'intra-refresh=1')), cut=False),
    'hevc': Kind(codec='libx265', options=(('preset', 'ultrafast'), ('x265-params', 'log-level=none'))),
    'mpeg4 mp4': Kind(codec='mpeg4', options=(('q', '3'), ('bf', '2'))),
    'mkv': Kind(suffix='.mkv'),
    'mkv offset vfr': Kind(suffix='.mkv', offset=9999, gaps=(1000, 500, 3000, 1001, 237)),
    'vp9 webm': Kind(suffix='.webm', codec='libvpx-vp9', options=(('deadline', 'realtime'), ('cpu-used', '8'))),
    'vp8 webm': Kind(suffix='.webm', codec='libvpx', options=(('deadline', 'realtime'), ('cpu-used', '8'))),
    'ts': Kind(suffix='.ts'),
    'mpeg4 avi': Kind(suffix='.avi', codec='mpeg4', options=(('q', '3'),)),
    'mpeg4 avi b-frames': Kind(suffix='.avi', codec='mpeg4', options=(('q', '3'), ('bf', '2'))),
    'h264 avi': Kind(suffix='.avi', cut=False),
    'wmv': Kind(suffix='.wmv', codec='wmv2', options=(('q', '3'),), cut=False),
}


def write(path, kind, frames=FRAMES):
    """A texture that moves, so that no two frames are alike."""
    starts = np.concatenate([[0], np.cumsum(np.resize(kind.gaps, frames))[:-1]]) + kind.offset
    counted = path.suffix in ('.avi', '.wmv')
    time_base = Fraction(1, RATE) if counted else Fraction(1, 24000)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(kind.codec, rate=RATE, options=dict(kind.options))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, 'yuv420p'
        stream.codec_context.gop_size, stream.codec_context.thread_count = kind.gop, 1
        stream.codec_context.time_base = time_base
        if kind.turned:
            stream.set_display_rotation(kind.turned)
        for number, start in enumerate(starts.tolist()):
            picture = np.roll(TEXTURE, (number, 3 * number), axis=(0, 1))[:, :WIDTH]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format='rgb24')
            frame = frame.reformat(format='yuv420p')
            frame.pts, frame.time_base = number if counted else start, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    if kind.hidden:
        content = bytearray(path.read_bytes())
        at = content.index(b'elst') + 16  # version and flags, count, duration, then the first time that is shown
        (shown,) = struct.unpack_from('>i', content, at)
        struct.pack_into('>i', content, at, shown + kind.hidden * 1000)
        path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize('name', KINDS)
def test_chunks_show_exactly_what_the_whole_shows_or_are_not_made(name, tmp_path):
    kind = KINDS[name]
    path = write(tmp_path / f'video{kind.suffix}', kind)
    index = video.index_video(path)
    spans = chunks.spans(index, 1.0, 0.5)
    if not kind.cut:
        if len(spans) > 1:
            with pytest.raises(chunks.Uncuttable):
                list(chunks.cut(path, index, spans))
        return
    assert len(spans) > 2
    whole = video.read_frames(path, index.times, index=index)
    for span, chunk in zip(spans, chunks.cut(path, index, spans), strict=True):
        own = chunks.chunk_timeline(index, chunk.span, chunk.base)
        assert chunk.span == span
        np.testing.assert_allclose(own.times, index.times[span.first : span.stop] - index.times[span.first], atol=1e-9)
        shown = video.read_frames(chunk.content, own.times, index=own)
        np.testing.assert_array_equal(shown, whole[span.first : span.stop])
        assert len(chunk.content) < 0.8 * pathlib.Path(path).stat().st_size


def test_spans_begin_at_keyframes_and_hold_every_clip_of_the_overlap(tmp_path):
    index = video.index_video(write(tmp_path / 'a.mp4', Kind()))
    for seconds, overlap in ((0.7, 0.3), (1.0, 0.5), (1.0, 2.0)):
        spans = chunks.spans(index, seconds, overlap)
        assert spans[0].first == 0 and spans[-1].stop == FRAMES
        assert set(index.pts[[span.first for span in spans]]) <= set(index.keyframes)
        for start in np.arange(0, index.times[-1], 0.013):
            first, last = index.frames_at(np.array([start, start + overlap]))
            assert any(span.first <= first and last < span.stop for span in spans)
        for earlier, later in itertools.pairwise(spans):
            assert index.times[later.first] - index.times[earlier.first] >= seconds
            assert later.stop > earlier.stop


def test_short_videos_are_one_span(tmp_path):
    index = video.index_video(write(tmp_path / 'a.mp4', Kind()))
    assert chunks.spans(index, 3.5, 0.5) == (chunks.Span(0, FRAMES),)


def test_a_video_that_was_cut_short_is_not_made_into_chunks(tmp_path):
    path = pathlib.Path(write(tmp_path / 'a.mkv', Kind()))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    index = video.index_video(path)
    with pytest.raises(chunks.Uncuttable, match='frames that its header promises are missing'):
        list(chunks.cut(str(path), index, chunks.spans(index, 0.5, 0.2)))


def test_a_file_that_is_not_that_of_the_index_is_not_made_into_chunks(tmp_path):
    index = video.index_video(write(tmp_path / 'a.mp4', Kind()))
    other = write(tmp_path / 'b.mp4', Kind(gop=9))
    with pytest.raises(chunks.Uncuttable):
        list(chunks.cut(other, index, chunks.spans(index, 1.0, 0.5)))
