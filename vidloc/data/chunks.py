"""Long videos cut at keyframes without encoding anything again, so that a clip is read without reading the whole.

A chunk holds the packets from one keyframe on, up to the last that its frames need; each frame of it is bit for bit
the frame of the whole video. Where that cannot be had (packets that do not tell when they are shown, codecs that no
container here takes, streams that do not start afresh at what is marked as a keyframe) Uncuttable is raised.
"""

import dataclasses
import io
from collections.abc import Iterator, Sequence

import av
import numpy as np

from vidloc.data import video
from vidloc.data.container import Limits, VideoError, opened
from vidloc.data.timeline import Timeline

# What chunks are written as: the first keeps the ticks of time exactly, the second takes nearly every codec.
CONTAINERS = ('mp4', 'matroska')
# Frames of each chunk that are decoded and compared with those of the whole video.
COMPARED = 6


class Uncuttable(ValueError):
    """This video cannot be cut so that its frames stay what they are; the text says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """Frames [first, stop) of a timeline; `first` is a keyframe."""

    first: int
    stop: int


@dataclasses.dataclass(frozen=True, slots=True)
class Chunk:
    """A file of its own that shows the frames of `span`, the first of them at `base` ticks of the video's time base."""

    span: Span
    base: int
    content: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class _Packet:
    pts: int
    duration: int
    is_keyframe: bool
    data: bytes


def spans(index: Timeline, seconds: float, overlap: float) -> tuple[Span, ...]:
    """Where to cut: each span is about `seconds` long and goes on `overlap` seconds into the next one.

    So whatever is shown within `overlap` seconds lies within one span. A span is longer where keyframes are far apart;
    there is one span only if the video is no longer than `seconds` or cannot be entered in its middle.
    """
    keyframes = np.searchsorted(index.pts, index.keyframes)
    if index.duration <= seconds or not len(keyframes):
        return (Span(0, len(index.pts)),)
    starts = [0]
    for frame in keyframes.tolist():
        late = index.times[frame] - index.times[starts[-1]] >= seconds
        if late and index.times[-1] - index.times[frame] > overlap:
            starts.append(frame)
    ends = index.times[starts[1:]] + overlap + index.tolerance
    stops = np.searchsorted(index.times, ends, side='right').tolist()
    return tuple(Span(first, stop) for first, stop in zip(starts, [*stops, len(index.pts)], strict=True))


def chunk_timeline(index: Timeline, span: Span, base: int) -> Timeline:
    """The timeline of a chunk, as video.read_frames needs it."""
    first, last = int(index.pts[span.first]), int(index.pts[span.stop - 1])
    inside = index.keyframes[(index.keyframes >= first) & (index.keyframes <= last)]
    pts = index.pts[span.first : span.stop]
    return Timeline(pts - first + base, inside - first + base, index.time_base, index.last_ticks, 0)


def cut(path: str, index: video.VideoIndex, wanted: Sequence[Span], limits: Limits | None = None) -> Iterator[Chunk]:
    """The chunks of a file, one by one: no more is held in memory than the chunks that overlap.

    Each is checked before it comes: its own list of frames is that part of the whole's, and COMPARED of its frames,
    the first and the last among them, are bit for bit the same.

    Args:
      path: the file.
      index: of video.index_video, of this file.
      wanted: of `spans`.

    Raises:
      Uncuttable: what cannot be cut exactly.
      VideoError: the file cannot be read.
    """
    limits = limits or Limits()
    if index.missing:
        raise Uncuttable(f'{index.missing} frames that its header promises are missing')
    with opened(path, limits) as (container, stream):
        for span, packets in _gathered(container, stream, index, wanted):
            yield _chunk(path, stream, index, span, packets, limits)


def _gathered(container, stream, index: Timeline, wanted: Sequence[Span]) -> Iterator[tuple[Span, list[_Packet]]]:
    """(span, its packets in the order of decoding): from its keyframe on, until no frame of it is still to come."""
    waiting, gathering = list(wanted), []
    for packet in container.demux(stream):
        if not packet.size:
            continue
        if packet.pts is None or packet.is_corrupt:
            raise Uncuttable('a packet is damaged or does not tell when it is shown')
        if waiting and packet.is_keyframe and packet.pts == index.pts[waiting[0].first]:
            gathering.append((waiting.pop(0), []))
        if not gathering:
            continue
        if packet.is_discard:
            raise Uncuttable('its header hides frames in its middle')
        copy = _Packet(packet.pts, packet.duration or index.last_ticks, bool(packet.is_keyframe), bytes(packet))
        for _, packets in gathering:
            packets.append(copy)
        while gathering and _complete(index, *gathering[0]):
            yield gathering.pop(0)
    if waiting or gathering:
        raise Uncuttable('its packets are not those of its list of frames')


def _complete(index: Timeline, span: Span, packets: list[_Packet]) -> bool:
    """Whether all frames of the span are there; counted only when there may be enough of them."""
    frames = index.pts[span.first : span.stop]
    return len(packets) >= len(frames) and sum(frames[0] <= packet.pts <= frames[-1] for packet in packets) == len(
        frames
    )


def _chunk(path: str, stream, index: video.VideoIndex, span: Span, packets: list[_Packet], limits: Limits) -> Chunk:
    reasons = []
    for form in CONTAINERS:
        try:
            content = _mux(form, stream, packets)
            return _checked(path, content, index, span, limits)
        except (av.error.FFmpegError, VideoError, Uncuttable, ValueError) as error:
            reasons.append(f'{form}: {error}')
    raise Uncuttable('; '.join(reasons))


def _mux(form: str, template, packets: list[_Packet]) -> bytes:
    """A file of these packets, the first of which to be shown is so at tick 0.

    That may be a picture before the keyframe: some come after it in the file, and decoders miss those left out.
    """
    if template.time_base.numerator != 1:
        raise Uncuttable(f'its tick is {template.time_base} s')
    pts = np.array([packet.pts for packet in packets], np.int64)
    pts -= pts.min()
    # Decoding times as late as they may be: in order, and none after its picture is shown.
    dts = np.sort(pts)
    dts -= (dts - pts).max()
    file = io.BytesIO()
    options = {'video_track_timescale': str(template.time_base.denominator)} if form == 'mp4' else {}
    with av.open(file, 'w', format=form, options=options) as out:
        stream = out.add_stream_from_template(template, opaque=True)
        stream.time_base = template.time_base
        for source, shown, decoded in zip(packets, pts.tolist(), dts.tolist(), strict=True):
            packet = av.Packet(source.data)
            packet.stream, packet.time_base = stream, template.time_base
            packet.pts, packet.dts, packet.duration = shown, decoded, source.duration
            packet.is_keyframe = source.is_keyframe
            out.mux_one(packet)
    return file.getvalue()


def _checked(path: str, content: bytes, index: video.VideoIndex, span: Span, limits: Limits) -> Chunk:
    """The chunk, if it shows what the file shows. Raises Uncuttable, VideoError."""
    own = video.index_video(content, limits)
    if own.time_base != index.time_base:
        raise Uncuttable(f'its ticks of {index.time_base} s become {own.time_base} s')
    base = int(own.pts[0])
    expected = chunk_timeline(index, span, base)
    within = slice(0, len(expected.pts))
    keyframes = own.keyframes[own.keyframes <= expected.pts[-1]]
    if not (np.array_equal(own.pts[within], expected.pts) and np.array_equal(keyframes, expected.keyframes)):
        raise Uncuttable('frames are shown at other times than in the whole')
    if (own.width, own.height, own.pixel_aspect) != (index.width, index.height, index.pixel_aspect):
        raise Uncuttable(f'{index.width}x{index.height} pixels become {own.width}x{own.height}, or of another shape')
    picked = np.unique(np.linspace(0, len(expected.pts) - 1, COMPARED).round().astype(int))
    whole = video.read_frames(path, index.times[span.first + picked], index=index, limits=limits)
    if not np.array_equal(video.read_frames(content, expected.times[picked], index=expected, limits=limits), whole):
        raise Uncuttable('frames look different from those of the whole')
    return Chunk(span, base, content)
