"""Opens video files that nobody vouches for: local files only, known formats only, within limits."""

import contextlib
import dataclasses
import errno
import io
import os
import re
import stat
from collections.abc import Iterator

import av
from av.stream import Disposition

Source = str | os.PathLike | bytes

# What may be opened. Playlists (HLS, DASH, concat) are not here: they name other files and hosts.
FORMATS = 'mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,flv,asf,ogg'
# `word:` at the start of a name is a protocol to FFmpeg; one letter would be a drive.
PROTOCOL = re.compile(r'[A-Za-z][A-Za-z0-9+.,-]+:')


class VideoError(ValueError):
    """A video that cannot be read: which one, what is wrong with it, what to do."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a file may ask for; larger ones are refused before memory is spent on them.

    max_pixels: width times height of a frame. max_frames, max_seconds: length of the video stream.
    max_streams: streams of all kinds in the file.
    """

    max_pixels: int = 8192 * 4320
    max_frames: int = 1_000_000
    max_seconds: float = 12 * 3600.0
    max_streams: int = 64


@contextlib.contextmanager
def opened(source: Source, limits: Limits) -> Iterator[tuple]:
    """(container, video stream), checked against the limits; FFmpeg's own errors become VideoErrors."""
    name = source_name(source)
    try:
        container = av.open(
            _readable(source),
            metadata_errors='replace',
            options={
                'format_whitelist': FORMATS,
                'protocol_whitelist': 'file',
                'max_streams': str(limits.max_streams + 1),
                'max_pixels': str(limits.max_pixels),
            },
        )
    except (av.error.FFmpegError, ValueError, OSError) as error:
        if isinstance(error, VideoError):
            raise
        raise VideoError(f'{name}: {_refusal(_head(source), error)}') from error
    with container:
        stream = _video_stream(container, limits, name, source)
        try:
            yield container, stream
        except av.error.FFmpegError as error:
            raise VideoError(f'{name}: cannot be read ({error}); it is damaged, fetch it again.') from error


def _video_stream(container, limits: Limits, name: str, source: Source):
    """The stream to read, made ready to decode in this thread only."""
    if len(container.streams) > limits.max_streams:
        raise VideoError(f'{name}: holds more than {limits.max_streams} streams, the limit.')
    pictures = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not pictures:
        kinds = sorted({stream.type for stream in container.streams})
        if not kinds:
            raise VideoError(f'{name}: {_refusal(_head(source), None)}')
        raise VideoError(f'{name}: holds no video stream, only {", ".join(kinds)}.')
    best = container.streams.best('video')
    stream = best if best in pictures else pictures[0]
    if stream.codec_context is None:
        raise VideoError(f'{name}: its video codec is not known to this FFmpeg; encode it again as H.264.')
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > limits.max_pixels:
        raise VideoError(
            f'{name}: frames of {width}x{height} pixels exceed the limit of {limits.max_pixels}; '
            'make it smaller or raise Limits.max_pixels.'
        )
    if width * height <= 0:
        raise VideoError(f'{name}: the size of its frames cannot be told; the file is damaged or cut short.')
    seconds = (stream.duration or 0) * (stream.time_base or 0)
    if seconds > limits.max_seconds or stream.frames > limits.max_frames:
        raise VideoError(too_long(name, limits))
    # explode: a decoder that meets damage says so, instead of painting over it.
    stream.codec_context.options = {'max_pixels': str(limits.max_pixels), 'err_detect': 'explode'}
    stream.codec_context.thread_count = 1
    stream.codec_context.thread_type = 'NONE'
    return stream


def _readable(source: Source):
    """What av.open takes: a path that can only be a local file to FFmpeg, or a file object."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return io.BytesIO(source)
    path = os.fspath(source)
    name = source_name(source)
    if '\0' in path:
        raise VideoError(f'{name}: the name holds a NUL character; correct the list it comes from.')
    try:
        status = os.stat(path)
    except OSError as error:
        if PROTOCOL.match(path):
            raise VideoError(f'{name}: only local files are read, no URLs; fetch it first.') from error
        raise VideoError(f'{name}: {error.strerror}; check the path.') from error
    if stat.S_ISDIR(status.st_mode):
        raise VideoError(f'{name}: is a folder; name a video file.')
    if not stat.S_ISREG(status.st_mode):
        raise VideoError(f'{name}: is a device or pipe; name a video file.')
    # An absolute name begins with '/', so FFmpeg never reads a protocol out of it.
    return os.path.abspath(path)


def _head(source: Source) -> bytes:
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source[:4096])
    with open(source, 'rb') as file:
        return file.read(4096)


def _refusal(head: bytes, error: Exception | None) -> str:
    """What is wrong with a file that cannot be opened, from how it begins."""
    start = head.removeprefix(b'\xef\xbb\xbf').lstrip()
    if not head:
        return 'is empty (0 bytes); fetch it again.'
    if start.startswith((b'#EXTM3U', b'ffconcat', b'<?xml', b'<MPD')):
        return 'is a playlist that names other files or hosts; never followed; give the video itself.'
    if start.startswith((b'\x89PNG', b'\xff\xd8\xff', b'GIF8', b'BM')) or head[8:12] == b'WEBP':
        return 'is an image; a video file is needed.'
    if head[4:8] in (b'ftyp', b'moov', b'mdat', b'free', b'skip', b'wide'):
        if isinstance(error, MemoryError | OSError) and getattr(error, 'errno', None) == errno.ENOMEM:
            return 'its header asks for more streams or memory than allowed; leave it out.'
        return 'its mp4 index (moov) is missing or damaged: cut short or never finished; fetch it again.'
    if all(byte in b'\t\n\r' or 32 <= byte < 127 for byte in head):
        return 'is text, not a video; perhaps an error page was saved in its place, fetch it again.'
    reason = f' ({error})' if error else ''
    return f'is not a video that can be read here{reason}; formats: {FORMATS}.'


def source_name(source: Source) -> str:
    """What to call a source in a message: its path, or how many bytes it is."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f'<video of {len(source)} bytes>'
    return os.fspath(source).replace('\0', '\\0')


def too_long(name: str, limits: Limits) -> str:
    """The message for a video beyond the limits of length."""
    return (
        f'{name}: longer than the limit of {limits.max_frames} frames or {limits.max_seconds:g} s; '
        'cut it or raise Limits.max_frames and max_seconds.'
    )
