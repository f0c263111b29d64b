"""Whether the videos that annotations name are there, open, and are as long as the annotations say."""

import os
import pathlib
from collections.abc import Callable, Sequence

from vidloc.annotations import rows
from vidloc.annotations.records import Problem, VideoRecord
from vidloc.data import video

SLACK = 0.05  # seconds by which a time may lie beyond the last frame's end: containers round their timestamps


def check_videos(
    records: Sequence[VideoRecord],
    folder: str | os.PathLike,
    *,
    start: float = 0.0,
    seen: Callable[[str], None] = lambda name: None,
) -> list[Problem]:
    """Problems of the videos below `folder`: missing, outside of it, named twice, not readable, too short.

    start: the annotations' time, in seconds, of each file's first frame (900 for AVA cut to its middle 15 minutes).
    seen: called with the name of each video, for a progress line. Opens every file once, without decoding it whole.
    """
    root = pathlib.Path(folder)
    if not root.is_dir():
        fix = 'Name the folder that holds the videos.'
        return [Problem('video-folder-missing', os.fspath(folder), None, 'there is no such folder', fix)]
    stems: dict[str, list[pathlib.Path]] = {}
    for parent, _, names in os.walk(root):
        for name in sorted(names):
            path = pathlib.Path(parent, name)
            if path.suffix.lower() in rows.VIDEO_SUFFIXES:
                stems.setdefault(path.stem, []).append(path)
    problems = []
    for record in records:
        problems += _check_one(record, root, stems, start)
        seen(record.video)
    return problems


def _check_one(
    record: VideoRecord, root: pathlib.Path, stems: dict[str, list[pathlib.Path]], start: float
) -> list[Problem]:
    found = [root / record.path] if record.path is not None else stems.get(record.video, [])
    found = [path for path in found if path.is_file()]
    if not found:
        name = record.path or f'{record.video}.mp4'
        fix = 'Get the video, or take it out of the annotations.'
        return [Problem('video-missing', os.fspath(root / name), None, 'the video is not there', fix)]
    path, where = found[0], os.fspath(found[0])
    if not path.resolve().is_relative_to(root.resolve()):
        fix = 'Links may not lead out of the folder of videos.'
        return [Problem('video-path-refused', where, None, f'the file lies outside of {root}', fix)]
    problems = []
    if len(found) > 1:
        message = f'{len(found)} files are called {record.video}; this one is read'
        problems.append(Problem('video-ambiguous', where, None, message, 'Keep one of them.', 'warning'))
    try:
        duration = video.index_video(where).duration
    except video.VideoError as error:
        fix = 'Fetch or encode it again; in training it would be skipped.'
        return [*problems, Problem('video-unreadable', where, None, str(error), fix)]
    problems += _too_short(record, where, duration, start)
    if record.duration is not None and abs(record.duration - duration) > max(1.0, 0.02 * duration):
        message = f'the annotations say {record.duration:g} s, the file has {duration:.3f} s'
        fix = 'Check that this is the version of the video that was annotated.'
        problems.append(Problem('duration-differs', where, None, message, fix, 'warning'))
    return problems


def _too_short(record: VideoRecord, where: str, duration: float, start: float) -> list[Problem]:
    problems = []
    end = start + duration + SLACK
    beyond = [time for time in record.keyframes if time > end or time < start]
    if beyond:
        message = (
            f'{len(beyond)} of {len(record.keyframes)} keyframes, such as {beyond[0]:g} s, are outside the video '
            f'({start:g} to {start + duration:.3f} s)'
        )
        fix = 'Check the video and its start: files cut from a longer film need the time of their first frame.'
        problems.append(Problem('keyframe-beyond-video', where, None, message, fix))
    late = [segment for segment in record.segments if segment.start >= end or segment.end > end + 1.0]
    if late:
        message = f'{len(late)} segments, such as {late[0].start:g} to {late[0].end:g} s, leave the {duration:.3f} s'
        fix = 'Check that times are seconds, not frames, and belong to this version of the video.'
        problems.append(Problem('segment-beyond-video', where, None, message, fix))
    return problems
