"""Whether the videos that annotations name are there, open, and are as long as the annotations say."""

import collections
import dataclasses
import hashlib
import os
import pathlib
import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence

from vidloc.annotations import summary as summary_lib
from vidloc.annotations.clip_names import clip_name
from vidloc.annotations.records import Problem, VideoRecord
from vidloc.data import catalogue, footage, frame_folders, opening

SLACK = 0.05  # seconds by which a time may lie beyond the last frame's end: containers round their timestamps
LATE = 1.0  # seconds by which the end of a segment may lie beyond it
# Where films that are cut to their annotated part start: AVA's at second 900, or files that were not cut.
STARTS = (0.0, 900.0)
HEAD = 1 << 16  # bytes by which files of one size are told apart before all of them are read
KEPT = 100  # problems of one kind that are listed
SPREAD = 0.02  # share by which lengths may differ from what the annotations say

# {key of a piece: (annotation file, record, piece) of all who need it}
Places = dict[str, list[tuple[str, VideoRecord, catalogue.Take]]]


@dataclasses.dataclass(frozen=True)
class Presence:
    """problems: all that was found. summary: numbers of the videos that were opened, ready for JSON."""

    problems: tuple[Problem, ...]
    summary: dict


def check_videos(
    records: Mapping[str, Sequence[VideoRecord]],
    folders: Mapping[str, str | os.PathLike],
    *,
    start: float = 0.0,
    frame_rate: float = frame_folders.FRAME_RATE,
    decode: bool = False,
    workers: int = 0,
    timeout: float = 60.0,
    seen: Callable[[int, int], None] = lambda done, total: None,
) -> Presence:
    """Problems of the videos: missing, outside of their folder, named twice, not readable, of another length, equal.

    records: {annotation file: its records}. folders: {annotation file: the folder of its videos}. start: the
    annotations' time, in seconds, of each file's first frame (900 for AVA cut to its middle 15 minutes). frame_rate: of
    extracted pictures. Opens each video once, without decoding all of it; decode: a few frames at its start, middle and
    end too. workers, timeout: see opening.open_all. seen: called with (videos opened, of how many).
    Raises ValueError for an impossible frame rate, ChildProcessError.
    """
    problems: dict[Problem, None] = {}  # in order, each once
    found: dict[str, footage.Footage] = {}
    places: dict[str, Places] = {}
    for folder in dict.fromkeys(map(os.fspath, folders.values())):
        try:
            found[folder] = footage.open_footage(folder, frame_rate)
        except FileNotFoundError:
            fix = 'Name the folder that holds the videos.'
            problems[Problem('video-folder-missing', folder, None, 'there is no such folder', fix)] = None
            continue
        mine = {file: listed for file, listed in records.items() if os.fspath(folders[file]) == folder}
        places[folder], wrong = _places(found[folder], mine, folder)
        problems.update(dict.fromkeys(wrong))
    total = sum(map(len, places.values()))
    done = iter(range(1, total + 1))
    everything: dict[str, opening.Opened] = {}
    uses: dict[str, set[str]] = {}
    for folder, pieces in places.items():
        opened = opening.open_all(
            found[folder],
            list(pieces),
            decode=decode,
            workers=workers,
            timeout=timeout,
            seen=lambda: seen(next(done), total),
        )
        for key, result in opened.items():
            problems.update(dict.fromkeys(_of_file(found[folder], key, result)))
        good = {key for key, result in opened.items() if result.duration}
        read = [(record, take, opened[key]) for key, each in pieces.items() if key in good for _, record, take in each]
        problems.update(dict.fromkeys(_of_lengths(read, found[folder], start)))
        if isinstance(found[folder], footage.VideoFiles):
            uses |= {key: {file for file, _, _ in pieces[key]} for key in pieces if key in good}
        everything |= opened
    problems.update(dict.fromkeys(_equal_files(uses)))
    return Presence(tuple(_capped(list(problems), ', '.join(found))), _summary(everything))


def _places(
    found: footage.Footage, records: Mapping[str, Sequence[VideoRecord]], folder: str
) -> tuple[Places, list[Problem]]:
    """Which pieces are to be opened, for whom; and what is wrong with finding them."""
    places: Places = collections.defaultdict(list)
    problems = []
    for file, listed in records.items():
        for record in listed:
            takes, wrong = _find(found, record, folder)
            problems += wrong
            for take in takes:
                places[take.key].append((file, record, take))
    return places, problems


def _find(found: footage.Footage, record: VideoRecord, folder: str) -> tuple[tuple[catalogue.Take, ...], list[Problem]]:
    """(takes that may be opened, problems of finding them)."""
    takes, pictures = found.takes(record), isinstance(found, frame_folders.FrameFolders)
    if not takes:
        name = record.path or f'{record.stem or record.video}{"" if pictures else ".mp4"}'
        fix = "Get the video, take it out of the annotations, or train with missing='leave_out'."
        return (), [Problem('video-missing', os.path.join(folder, name), None, 'the video is not there', fix)]
    problems = []
    if isinstance(found, footage.VideoFiles):
        root = pathlib.Path(folder).resolve()
        outside = [take.key for take in takes if not pathlib.Path(take.key).resolve().is_relative_to(root)]
        if outside:
            fix = 'Links may not lead out of the folder of videos.'
            return (), [Problem('video-path-refused', outside[0], None, f'the file lies outside of {folder}', fix)]
    if isinstance(found, (footage.VideoFiles, frame_folders.FrameFolders)):
        same = found.catalogue.same_name(record)
        if len(same) > 1:
            message = f'{len(same)} files are called {record.stem or record.video}; this one is read'
            problems.append(Problem('video-ambiguous', takes[0].key, None, message, 'Keep one of them.', 'warning'))
    return takes, problems + _between(record, takes)


def _between(record: VideoRecord, takes: Sequence[catalogue.Take]) -> list[Problem]:
    """Moments that no piece says it holds; none where a piece does not say."""
    if not all(map(_timed, takes)):
        return []
    problems = []
    spans = ', '.join(f'{take.start:g} to {take.end:g}' for take in takes[:3])
    fix = 'Clips hold the seconds in their names; get those that are annotated.'
    between = [time for time in record.keyframes if not any(take.start <= time <= take.end for take in takes)]
    if between:
        message = (
            f'{len(between)} of {len(record.keyframes)} keyframes, such as {between[0]:g} s, are in no clip ({spans} s)'
        )
        problems.append(Problem('keyframe-beyond-video', takes[0].key, None, message, fix))
    apart = [
        (a, b)
        for a, b in _spans(record)
        if not any(take.start <= a < take.end for take in takes)
        or not any(take.start < b <= take.end + LATE for take in takes)
    ]
    if apart:
        message = f'{len(apart)} segments, such as {apart[0][0]:g} to {apart[0][1]:g} s, are not in clips ({spans} s)'
        problems.append(Problem('segment-beyond-video', takes[0].key, None, message, fix))
    return problems


def _spans(record: VideoRecord) -> list[tuple[float, float]]:
    """From when to when each segment and each label with times is."""
    spans = [(segment.start, segment.end) for segment in record.segments]
    return spans + [(a.start, a.end) for a in record.labels if a.start is not None and a.end is not None]


def _of_file(found: footage.Footage, key: str, opened: opening.Opened) -> list[Problem]:
    """What is wrong with one file, whatever is said about it."""
    if opened.code:
        fix = 'Fetch or encode it again; in training it would be skipped.'
        return [Problem(opened.code, key, None, opened.problem.removeprefix(f'{key}: '), fix)]
    problems = []
    if opened.lacking:
        message = f'{opened.lacking} frames that its header promises are not in the file'
        fix = 'It was cut short: fetch it again.'
        problems.append(Problem('video-cut-short', key, None, message, fix, 'warning'))
    if isinstance(found, frame_folders.FrameFolders):
        first = frame_folders.series(key, found.limits).first
        if first > 1:
            message = f'the first picture has the number {first}; it is taken as the first frame'
            fix = 'If those before it are lost, all boxes are late: extract it again.'
            problems.append(Problem('frames-start-late', key, None, message, fix, 'warning'))
    clip = clip_name(os.path.basename(catalogue.stem(key)))
    if clip and opened.duration > clip[2] - clip[1] + 1.0:
        message = f'its name says {clip[2] - clip[1]:g} s, it has {opened.duration:.3f} s'
        fix = 'Cut it to the seconds in its name, or check the frame rate of the pictures.'
        problems.append(Problem('clip-longer-than-name', key, None, message, fix, 'warning'))
    return problems


Read = tuple[VideoRecord, catalogue.Take, opening.Opened]


def _of_lengths(read: Sequence[Read], found: footage.Footage, start: float) -> list[Problem]:
    """Times of the annotations against what the files hold; one problem where all are wrong in the same way."""
    pictures = isinstance(found, frame_folders.FrameFolders)
    beyond = [problem for each in read for problem in _beyond(*each, start)]
    offset = _offset(read, start) if beyond else None
    problems = [offset] if offset else beyond
    ratios = [record.duration / opened.duration for record, _, opened in read if record.duration]
    ratio = statistics.median(ratios) if ratios else 1.0
    alike = all(abs(each / ratio - 1) < SPREAD for each in ratios)
    if pictures and ratios and alike and abs(ratio - 1) > SPREAD:
        record, take, opened = next(each for each in read if each[0].duration)
        rate = opened.rate / ratio
        message = (
            f'the annotations say {record.duration:g} s, the pictures are {opened.duration:.3f} s at {opened.rate:g} '
            f'a second; so it is in all {len(ratios)} videos'
        )
        fix = f'They were perhaps extracted at {rate:.4g} a second: give that frame rate.'
        return [*problems, Problem('frame-rate-differs', take.key, None, message, fix)]
    for record, take, opened in read:
        length = opened.duration
        if record.duration is not None and abs(record.duration - length) > max(1.0, SPREAD * length):
            message = f'the annotations say {record.duration:g} s, the file has {length:.3f} s'
            fix = 'Check that this is the version of the video that was annotated.'
            problems.append(Problem('duration-differs', take.key, None, message, fix, 'warning'))
    return problems


def _timed(take: catalogue.Take) -> bool:
    """Whether the name of a piece says from when to when it goes."""
    return take.end < float('inf')


def _beyond(record: VideoRecord, take: catalogue.Take, opened: opening.Opened, start: float) -> list[Problem]:
    problems = []
    first = take.start if _timed(take) else start
    end = first + opened.duration + SLACK
    # A video of several clips has keyframes in each of them, not all in one.
    mine = [time for time in record.keyframes if not _timed(take) or take.start <= time <= take.end]
    outside = [time for time in mine if time > end or time < first]
    if outside:
        message = (
            f'{len(outside)} of {len(mine)} keyframes, such as {outside[0]:g} s, are outside the video '
            f'({first:g} to {first + opened.duration:.3f} s)'
        )
        fix = (
            'Check the video, its start (files cut from a longer film need the time of their first frame) and, of '
            'pictures, the frame rate.'
        )
        problems.append(Problem('keyframe-beyond-video', take.key, None, message, fix))
    # Of its segments, a piece is asked for the part that it says it holds.
    times = [(a, b) for a, b in _spans(record) if not _timed(take) or take.start <= a < take.end]
    late = [(a, b) for a, b in times if a >= end or min(b, take.end) > end + LATE]
    if late:
        message = f'{len(late)} segments, such as {late[0][0]:g} to {late[0][1]:g} s, leave the {opened.duration:.3f} s'
        fix = 'Check that times are seconds, not frames, and belong to this version of the video.'
        problems.append(Problem('segment-beyond-video', take.key, None, message, fix))
    return problems


def _offset(read: Sequence[Read], start: float) -> Problem | None:
    """One problem in place of many: with another start of the files every keyframe would be in its video."""
    timed = [each for each in read if each[0].keyframes and not _timed(each[1])]
    for other in STARTS:
        if other != start and timed and not any(_beyond(*each, other) for each in timed):
            record, take, opened = timed[0]
            message = (
                f'the keyframes of {record.video} are at {record.keyframes[0]:g} to {record.keyframes[-1]:g} s, its '
                f'file is said to go from {start:g} to {start + opened.duration:.3f} s; all {len(timed)} videos fit if '
                f'their files start at {other:g} s'
            )
            fix = f'Give {other:g} as the start of the files (time_offset={other:g} in a config).'
            return Problem('timestamp-offset', take.key, None, message, fix)
    return None


def _equal_files(uses: Mapping[str, set[str]]) -> list[Problem]:
    """Files with the same content under two names. uses: {path: annotation files that name it}."""
    alike = _groups(_groups([list(uses)], os.path.getsize), _head)
    alike = _groups(alike, _digest)  # few are left: films that begin alike, such as black, may be of one size
    problems = []
    for first, *others in alike:
        for path in others:
            if any(a != b for a in uses[first] for b in uses[path]) and not uses[first] & uses[path]:
                message = f'the file is the same as {first}, which {", ".join(sorted(uses[first]))} names'
                fix = 'Training and validation must not share a video: take it out of one of them.'
                problems.append(Problem('video-content-in-two-files', path, None, message, fix))
            else:
                message = f'the file is the same as {first}'
                problems.append(Problem('video-duplicate', path, None, message, 'Keep one of them.', 'warning'))
    return problems


def _groups(groups: Sequence[Sequence[str]], key: Callable[[str], Hashable]) -> list[list[str]]:
    """Each group split into those of one key; a path that is left alone is dropped."""
    found = []
    for group in groups:
        parts: dict[Hashable, list[str]] = collections.defaultdict(list)
        for path in group:
            parts[key(path)].append(path)
        found += [part for part in parts.values() if len(part) > 1]
    return found


def _head(path: str) -> bytes:
    with open(path, 'rb') as file:
        return file.read(HEAD)


def _digest(path: str) -> bytes:
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').digest()


def _capped(problems: Sequence[Problem], folder: str) -> list[Problem]:
    """The first KEPT of each kind; the others are counted."""
    counts: collections.Counter = collections.Counter()
    kept = []
    for problem in problems:
        counts[problem.code, problem.severity] += 1
        if counts[problem.code, problem.severity] <= KEPT:
            kept.append(problem)
    for (code, severity), count in counts.items():
        if count > KEPT:
            message = f'{count - KEPT} more problems of this kind'
            kept.append(Problem(code, folder, None, message, 'They are as the ones listed.', severity))
    return kept


def _summary(opened: Mapping[str, opening.Opened]) -> dict:
    good = [each for each in opened.values() if not each.code]
    rates = collections.Counter(f'{each.rate:.4g}' for each in good if each.rate)
    sizes = collections.Counter(f'{each.size[1]}x{each.size[0]}' for each in good if each.size)
    return {
        'videos_opened': len(good),
        'videos_that_fail': len(opened) - len(good),
        'video_seconds': summary_lib.spread([each.duration for each in good]),
        'frame_rates': dict(rates.most_common(8)),
        'frame_sizes': dict(sizes.most_common(8)),
    }
