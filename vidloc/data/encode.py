"""The only encoder: frames to H.264 in mp4 that browsers play."""

import os
import pathlib
import threading
from collections.abc import Iterable, Mapping
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from PIL import Image

# A rate written as a float is taken as the nearest fraction with at most this denominator: NTSC's 1001.
MAX_RATE_DENOMINATOR = 1001


def write_video(
    path: str | os.PathLike,
    frames: Iterable[np.ndarray] | np.ndarray,
    fps: float | Fraction,
    *,
    crf: float = 18.0,
    gop: int = 30,
    preset: str = 'veryfast',
    threads: int = 1,
    metadata: Mapping[str, str] | None = None,
) -> int:
    """Writes an mp4 file (H.264, yuv420p, index in front) and returns the number of frames.

    The file appears under its name only when it is complete; on any error nothing is left behind. With
    `threads=1` the same frames give the same bytes for the same library versions; other counts may not.

    4:2:0 pictures have even sides. Frames with an odd side are resized to the next even size: that keeps
    every point at its place in [0,1] of the frame, which padding would not.

    Args:
      path: the file to write, ending in .mp4; its folder must exist.
      frames: uint8 [T, H, W, 3], or an iterable of uint8 [H, W, 3] of one size (read lazily).
      fps: frames a second; a float becomes the nearest fraction with a denominator of at most 1001.
      crf: x264's constant quality, 0 (lossless in yuv420p) to 51 (worst).
      gop: the most frames between two keyframes; short ones make random access cheap.
      preset: x264's trade of time for size.
      threads: of x264.
      metadata: container tags, such as title or comment.

    Raises:
      ValueError: no frame, frames of other shape, type or of differing sizes, or options out of range.
      OSError: the file cannot be written.
    """
    path = pathlib.Path(path)
    if path.suffix.lower() != '.mp4':
        raise ValueError(f'{path}: only mp4 is written; let the name end in .mp4.')
    rate = Fraction(fps).limit_denominator(MAX_RATE_DENOMINATOR) if np.isfinite(float(fps)) else Fraction(0)
    if rate <= 0:
        raise ValueError(f'{path}: fps is {fps}; it must be positive and at least 1/{MAX_RATE_DENOMINATOR}.')
    if not 0 <= crf <= 51 or gop < 1 or threads < 1:
        raise ValueError(f'{path}: crf={crf} must be in [0, 51], gop={gop} and threads={threads} at least 1.')
    if not path.parent.is_dir():
        raise FileNotFoundError(f'{path}: the folder {path.parent} does not exist; create it first.')
    # An absolute name begins with '/', so FFmpeg never reads a protocol out of it.
    partial = pathlib.Path(os.path.abspath(path.parent)) / (
        f'.{path.name}.{os.getpid()}.{threading.get_ident()}.partial'
    )
    # x264's tree of macroblocks reads past small pictures where the processor has AVX-512: other bytes at every call.
    options = {'crf': str(crf), 'preset': preset, 'mbtree': '0'}
    try:
        count = _encode(path, partial, frames, rate, gop, threads, options, dict(metadata or {}))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return count


def _encode(path, partial, frames, rate, gop, threads, options, metadata) -> int:
    """Writes `partial`; `path` is for messages only."""
    count, shape, stream = 0, None, None
    # One for all frames: making a scaler costs more than converting a small picture.
    scaler = VideoReformatter()
    with av.open(str(partial), 'w', format='mp4', options={'movflags': '+faststart'}) as container:
        container.metadata.update(metadata)
        for frame in frames:
            frame = np.asarray(frame)
            if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
                raise ValueError(
                    f'{path}: frame {count} is {frame.dtype} {list(frame.shape)}; frames are uint8 [height, width, 3].'
                )
            if stream is None:
                shape = frame.shape
                height, width = shape[0] + shape[0] % 2, shape[1] + shape[1] % 2
                stream = container.add_stream('libx264', rate=rate, options=options)
                stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'
                # Tagged, because players guess the matrix of untagged files from the picture's size.
                stream.codec_context.colorspace = Colorspace.ITU601
                stream.codec_context.color_range = ColorRange.MPEG
                stream.codec_context.gop_size = gop
                stream.codec_context.thread_count = threads
            if frame.shape != shape:
                raise ValueError(
                    f'{path}: frame {count} is {list(frame.shape)} but the first is {list(shape)}; '
                    'all frames of a video have one size.'
                )
            if (height, width) != shape[:2]:
                frame = np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))
            picture = scaler.reformat(
                av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format='rgb24'),
                format='yuv420p',
                dst_colorspace=Colorspace.ITU601,
                dst_color_range=ColorRange.MPEG,
                threads=1,
            )
            picture.pts, picture.time_base = count, 1 / rate
            container.mux(stream.encode(picture))
            count += 1
        if stream is None:
            raise ValueError(f'{path}: there is no frame to write.')
        container.mux(stream.encode(None))
    return count
