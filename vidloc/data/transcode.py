"""Videos encoded again, smaller and with keyframes close together: quick to read, but not the same pictures."""

import dataclasses
import os
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from vidloc.data import encode, video

# Frames are decoded so many bytes at a time.
BATCH_BYTES = 256 << 20


@dataclasses.dataclass(frozen=True)
class Transcode:
    """short_side: pixels of the shorter side, never enlarged. gop: frames between keyframes. crf: see encode."""

    short_side: int = 256
    gop: int = 30
    crf: float = 23.0

    def write(self, path: str | os.PathLike, source: str, index: video.VideoIndex) -> bool:
        """Writes `source` to `path` (.mp4); returns whether it was resampled.

        Frames at a constant rate keep their times, to the precision of the source's timestamps. Others are resampled
        at the rate that their usual distance gives: the frame shown at k / rate seconds.

        Raises:
          video.VideoError: the source cannot be decoded, or not be encoded again.
        """
        import av

        try:
            return self._write(path, source, index)
        except av.error.FFmpegError as error:
            raise video.VideoError(f'{source}: cannot be encoded again ({error}).') from error

    def _write(self, path: str | os.PathLike, source: str, index: video.VideoIndex) -> bool:
        rate = constant_rate(index)
        times = index.times
        if rate is None:
            gap = float(np.median(np.diff(index.times)))
            rate = Fraction(1 / gap).limit_denominator(encode.MAX_RATE_DENOMINATOR)
            times = np.arange(max(1, round(index.duration * rate))) / float(rate)
            encode.write_video(path, self._frames(source, index, times), rate, crf=self.crf, gop=self.gop)
            return True
        encode.write_video(path, self._frames(source, index, times), rate, crf=self.crf, gop=self.gop)
        return False

    def _frames(self, source: str, index: video.VideoIndex, times: np.ndarray) -> Iterator[np.ndarray]:
        from PIL import Image

        width, height = self._size(index.width, index.height)
        batch = max(1, BATCH_BYTES // (3 * index.width * index.height))
        for begin in range(0, len(times), batch):
            for frame in video.read_frames(source, times[begin : begin + batch], index=index):
                if frame.shape[:2] != (height, width):
                    frame = np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))
                yield frame

    def _size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height), both even, of the same shape as far as that goes."""
        scale = min(1.0, self.short_side / min(width, height))
        return tuple(max(2, 2 * round(side * scale / 2)) for side in (width, height))


def constant_rate(index: video.VideoIndex) -> Fraction | None:
    """Frames a second, if each frame starts within a tick of where that rate puts it; else None."""
    count = len(index.pts)
    if count == 1:
        return Fraction(1 / index.duration).limit_denominator(encode.MAX_RATE_DENOMINATOR)
    rate = Fraction((count - 1) / float(index.times[-1])).limit_denominator(encode.MAX_RATE_DENOMINATOR)
    if rate <= 0:
        return None
    apart = np.abs(index.times - np.arange(count) / float(rate)).max()
    return rate if apart <= max(float(index.time_base), 1e-3) else None
