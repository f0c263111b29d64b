"""The only decoder: frames at given times, exactly, from local files that nobody vouches for.

Time runs in seconds from the first displayed frame. The frame shown at t is the last one that starts at or
before t. Frames are found by their presentation timestamps (pts), never by counting or by t * rate: a pass
over the packets, without decoding, lists them; a read seeks to the keyframe before, decodes, and takes a
frame only if its pts is the one looked for. Where seeking lands wrong, the file is decoded from its start.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vidloc.data.container import Limits, Source, VideoError, opened, source_name, too_long
from vidloc.data.timeline import Timeline

__all__ = ['Limits', 'Source', 'Timeline', 'VideoError', 'VideoIndex', 'index_video', 'read_frames']

# Done to each frame [H, W, 3] as soon as it is decoded: gives uint8 [H', W', 3], the same size for all of a video.
Each = Callable[[np.ndarray], np.ndarray]

# A keyframe further ahead than this many frames is reached by seeking, a nearer one by decoding on.
SEEK_AHEAD = 12
# Seeking that lands too late is tried again from earlier keyframes, up to this many.
MAX_BACK = 7


@dataclasses.dataclass(frozen=True, eq=False)
class VideoIndex(Timeline):
    """A timeline with the looks of the frames: width and height as displayed (after rotation), in pixels.

    pixel_aspect: width of a pixel by its height. Frames are not stretched by it; boxes in [0,1] need not be.
    codec: FFmpeg's name.
    """

    width: int
    height: int
    pixel_aspect: Fraction
    codec: str


def index_video(source: Source, limits: Limits | None = None) -> VideoIndex:
    """Lists the frames of a video: one pass over its packets and one decoded frame.

    Args:
      source: a path, or the bytes of a file.
      limits: what the file may ask for; None for the defaults.

    Raises:
      VideoError: not a readable local video, or beyond the limits.
    """
    limits = limits or Limits()
    with opened(source, limits) as (container, stream):
        timeline = _packet_timeline(container, stream, limits, source_name(source))
        pixel_aspect, codec = stream.sample_aspect_ratio or Fraction(1), stream.codec_context.name
    if timeline is None:
        timeline = _decoded_timeline(source, limits)
    with opened(source, limits) as (container, stream):
        frame = next((frame for _, frame, _ in _decoded(container, stream) if frame is not None), None)
    if frame is None:
        raise VideoError(f'{source_name(source)}: no frame could be decoded; the file is damaged, fetch it again.')
    height, width, _ = _upright(np.empty((frame.height, frame.width, 3), np.uint8), frame).shape
    fields = {field.name: getattr(timeline, field.name) for field in dataclasses.fields(Timeline)}
    return VideoIndex(**fields, height=height, width=width, pixel_aspect=pixel_aspect, codec=codec)


def read_frames(
    source: Source,
    times: np.ndarray,
    *,
    index: Timeline | None = None,
    limits: Limits | None = None,
    each: Each | None = None,
) -> np.ndarray:
    """The frames shown at `times`, uint8 [T, H, W, 3] RGB, upright as a player shows them.

    Safe to call from several threads. A frame is converted once, however often it is asked for. Times before
    the first and after the last frame give that frame.

    Args:
      source: a path, or the bytes of a file.
      times: float64 [T], seconds, in any order, T >= 1.
      index: of index_video, of the same file; saves a pass over the whole file. One made while the file was
        whole also tells of later holes: Matroska and transport streams hide them, which makes the frame before
        a hole look like a long one.
      limits: what the file may ask for; None for the defaults.
      each: what is done to a frame before the next one is decoded, such as making it smaller; it must keep nothing of
        the array it is given. So one frame of full size is in memory, however many are asked for.

    Raises:
      VideoError: not a readable local video, beyond the limits, or damaged where it is asked for.
      ValueError: `times` is not a vector of finite numbers.
    """
    limits = limits or Limits()
    times = np.asarray(times, np.float64)
    if times.ndim != 1 or not len(times) or not np.isfinite(times).all():
        raise ValueError(f'{source_name(source)}: times must be one or more finite seconds, not {times!r}.')
    with opened(source, limits) as (container, stream):
        timeline = index or _packet_timeline(container, stream, limits, source_name(source))
        if timeline is not None and len(timeline.keyframes):
            clip = _Clip(timeline, times, source_name(source), each)
            _fill_by_seeking(container, stream, timeline, clip)
            if not clip.todo:
                return clip.frames
    if timeline is None:
        timeline = _decoded_timeline(source, limits)
    clip = _Clip(timeline, times, source_name(source), each)
    seen, damaged = _fill_from_start(source, limits, clip)
    if clip.todo and seen and not damaged and index is None:
        # The packets were sound but not what is shown (hidden frames, for one): the decoded are true.
        timeline = Timeline(
            np.asarray(seen, np.int64),
            timeline.keyframes[:0],
            timeline.time_base,
            timeline.last_ticks,
            timeline.missing,
        )
        clip = _Clip(timeline, times, source_name(source), each)
        _fill_from_start(source, limits, clip)
    if clip.todo:
        first = (min(clip.todo) - int(timeline.pts[0])) * float(timeline.time_base)
        raise VideoError(
            f'{source_name(source)}: {len(clip.todo)} of {len(clip.slots)} frames asked for, '
            f'the first at {first:.3f} s, '
            f'cannot be decoded ({len(seen)} of {len(timeline.pts)} frames of the file can); it is damaged'
            f'{"" if index is None else ", or not the file that the index was made of"}: '
            'fetch it again or leave it out.'
        )
    return clip.frames


class _Clip:
    """The pictures of one call: `slots` maps a pts to its places in `frames`, `todo` holds those to come."""

    def __init__(self, timeline: Timeline, times: np.ndarray, name: str, each: Each | None):
        end = timeline.duration + timeline.tolerance
        if timeline.missing and times.max() > end:
            raise VideoError(
                f'{name}: cut short: {timeline.missing} of {timeline.missing + len(timeline.pts)} frames are '
                f'missing, from {timeline.duration:.3f} s on, and {times.max():.3f} s was asked for; '
                'fetch the file again.'
            )
        self.name = name
        self.frames: np.ndarray | None = None
        self.slots: dict[int, list[int]] = {}
        for slot, pts in enumerate(timeline.pts[timeline.frames_at(times)].tolist()):
            self.slots.setdefault(pts, []).append(slot)
        self.todo = sorted(self.slots, reverse=True)
        self._length, self._each = len(times), each
        self._shape: tuple[int, ...] | None = None  # of frames as decoded
        self._converter = VideoReformatter()

    def take(self, pts: int, frame: av.VideoFrame) -> None:
        """Puts the decoded frame wherever it is asked for."""
        # One thread: slicing a picture of this size costs many times what converting it does.
        rgb = self._converter.reformat(frame, format='rgb24', threads=1)
        plane = rgb.planes[0]
        picture = np.frombuffer(plane, np.uint8).reshape(rgb.height, plane.line_size)[:, : 3 * rgb.width]
        picture = _upright(picture.reshape(rgb.height, rgb.width, 3), frame)  # [H, W, 3]
        if self._shape is None:
            self._shape = picture.shape
        if picture.shape != self._shape:
            raise VideoError(
                f'{self.name}: the size changes within the video, from {_size(self._shape)} to '
                f'{_size(picture.shape)} pixels; encode it again with one size.'
            )
        if self._each is not None:
            picture = self._each(picture)  # [H', W', 3]
        if self.frames is None:
            self.frames = np.empty((self._length, *picture.shape), np.uint8)
        self.frames[self.slots[pts]] = picture
        if self.todo[-1] == pts:
            self.todo.pop()
        else:
            self.todo.remove(pts)


def _fill_by_seeking(container, stream, timeline: Timeline, clip: _Clip) -> None:
    """Takes what can be found from the keyframes; leaves the rest in clip.todo where the file surprises."""
    back = 0
    while clip.todo:
        key = max(timeline.keyframe_before(clip.todo[-1]) - back, 0)
        try:
            container.seek(int(timeline.keyframes[key]), stream=stream)
        except av.error.FFmpegError:
            return
        late = True
        for pts, frame, intact in _decoded(container, stream):
            if pts is None or pts < clip.todo[-1]:
                late = False
                continue
            if pts > clip.todo[-1] or not intact:
                break
            late = False
            clip.take(pts, frame)
            if not clip.todo:
                return
            ahead = timeline.keyframes[timeline.keyframe_before(clip.todo[-1])]
            if np.searchsorted(timeline.pts, ahead) - np.searchsorted(timeline.pts, pts) > SEEK_AHEAD:
                back = 0
                break
        else:
            return
        if late and key > 0 and back < MAX_BACK:
            # Transport streams have no table to seek by and are entered late: try further ahead of the frame.
            back = 2 * back + 1
        elif late or not intact or pts > clip.todo[-1]:
            return


def _fill_from_start(source: Source, limits: Limits, clip: _Clip | None) -> tuple[list[int], bool]:
    """Decodes from the first packet until the clip is full: (pts of sound frames, was any unsound)."""
    seen: list[int] = []
    damaged, last = False, None
    with opened(source, limits) as (container, stream):
        step, counted = _frame_ticks(stream), _in_decoding_order(container, stream)
        for pts, frame, intact in _decoded(container, stream):
            damaged |= not intact
            if frame is None:
                continue
            if last is None:
                last = 0 if pts is None else pts
            else:
                last = last + step if pts is None or pts <= last or counted else pts
            if not intact:
                continue
            seen.append(last)
            if len(seen) > limits.max_frames:
                raise VideoError(too_long(source_name(source), limits))
            if clip is not None and last in clip.slots:
                clip.take(last, frame)
                if not clip.todo:
                    break
    return seen, damaged


def _decoded(container, stream) -> Iterator[tuple[int | None, av.VideoFrame | None, bool]]:
    """(pts, frame, whether it is sound) in the order shown, from where the container stands.

    A packet that fails gives (None, None, False). What follows it up to the next keyframe was predicted from
    pictures that are wrong, though the decoder says nothing: it is not sound either.
    """
    damaged, start, boundary = False, None, None
    bad: set[int] = set()
    for packet in _packets(container, stream):
        if packet is None:
            yield None, None, False
            return
        frames, failed = [], packet.is_corrupt
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            failed = True
        pts = packet.pts
        if start is None:
            start = pts
        # Pictures shown before the keyframe that decoding began with may lack what they are predicted from.
        if failed and (pts is None or pts >= start):
            damaged = True
            yield None, None, False
        elif packet.is_keyframe and damaged:
            damaged, boundary = False, pts
        if pts is not None and (damaged or (boundary is not None and pts < boundary)):
            bad.add(pts)
        for frame in frames:
            shown = frame.pts if frame.pts is not None else frame.dts
            yield shown, frame, not (frame.is_corrupt or shown in bad or (damaged and pts is None))


def _packets(container, stream) -> Iterator[av.Packet | None]:
    """The packets that carry data, then the empty one that flushes the decoder; None where reading fails."""
    try:
        for packet in container.demux(stream):
            # An empty packet within the stream repeats a picture; a decoder would take it for the end.
            if packet.size or packet.dts is None:
                yield packet
    except (av.error.FFmpegError, IndexError):
        # PyAV raises IndexError for a packet of a stream that turned up after the header, by damage.
        yield None


def _packet_timeline(container, stream, limits: Limits, name: str) -> Timeline | None:
    """The timeline from the packets alone, from where the container stands; None if they do not tell."""
    pts, keyframes, count, unread, told = [], [], 0, False, True
    disordered = _in_decoding_order(container, stream)
    for packet in _packets(container, stream):
        if packet is None:
            unread = True
        elif packet.size:
            count += 1
            if count > limits.max_frames:
                raise VideoError(too_long(name, limits))
            if packet.pts is None or disordered:
                told = False
                break
            if packet.is_keyframe and not packet.is_discard:
                keyframes.append(packet.pts)
            # Before the first keyframe nothing can be decoded; discarded packets are decoded, not shown.
            if keyframes and not packet.is_discard:
                pts.append(packet.pts)
    if not count:
        raise VideoError(f'{name}: its video stream holds no frames; the file is empty or cut short.')
    ordered = np.unique(np.asarray(pts, np.int64))
    if not told or not keyframes or len(ordered) != len(pts):
        return None
    # Pictures shown before the very first keyframe have nothing to be predicted from.
    ordered = ordered[ordered >= keyframes[0]]
    step = _frame_ticks(stream)
    timeline = Timeline(ordered, np.unique(np.asarray(keyframes, np.int64)), stream.time_base, step, 0)
    if timeline.duration > limits.max_seconds:
        raise VideoError(too_long(name, limits))
    missing = _missing(container, stream, count, int(ordered[-1]) + step)
    return dataclasses.replace(timeline, missing=max(missing, int(unread)))


def _missing(container, stream, count: int, end: int) -> int:
    """Frames that the header promises beyond the `count` read, the last of which ends at `end`."""
    if 'mp4' in container.format.name:
        return max(len(stream.index_entries) - count, 0)
    promised = stream.duration or 0
    if tag := re.fullmatch(r'(\d+):(\d\d):(\d\d\.\d+)', stream.metadata.get('DURATION', '')):
        hours, minutes, seconds = (Fraction(part) for part in tag.groups())
        promised = (hours * 3600 + minutes * 60 + seconds) / stream.time_base
    elif stream.start_time:
        promised += stream.start_time
    # Half a second of grace: these durations are rounded, and some muxers count the sound's.
    late = promised - end
    return round(late / _frame_ticks(stream)) if late * stream.time_base > Fraction(1, 2) else 0


def _decoded_timeline(source: Source, limits: Limits) -> Timeline:
    """The timeline from decoding everything, for containers that do not store when frames are shown."""
    seen, _ = _fill_from_start(source, limits, None)
    if not seen:
        raise VideoError(f'{source_name(source)}: no frame could be decoded; the file is damaged, fetch it again.')
    with opened(source, limits) as (_, stream):
        return Timeline(np.asarray(seen, np.int64), np.empty(0, np.int64), stream.time_base, _frame_ticks(stream), 0)


def _in_decoding_order(container, stream) -> bool:
    """Whether what passes for pts numbers the packets as stored: AVI, made before pictures were reordered.

    FFmpeg mends that for older codecs. Such videos have a constant rate, so that counting is exact.
    """
    reordered = stream.codec_context.has_b_frames and stream.codec_context.name in ('h264', 'hevc')
    return container.format.name == 'avi' and bool(reordered)


def _frame_ticks(stream) -> int:
    """The usual length of a frame in units of the stream's time base."""
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    return max(round(1 / (rate * stream.time_base)), 1)


def _upright(picture: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """The picture [h, w, 3] turned and mirrored as its display matrix says, [H, W, 3]."""
    matrix = frame.side_data.get('DISPLAYMATRIX')
    if matrix is None:
        return picture
    # Row vectors: x' = a x + c y, y' = b x + d y, with a, b, c, d at 0, 1, 3, 4 (16.16 fixed point).
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        picture, across, down = picture.swapaxes(0, 1), c, b
    else:
        across, down = a, d
    return picture[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]


def _size(shape: tuple[int, ...]) -> str:
    return f'{shape[1]}x{shape[0]}'
