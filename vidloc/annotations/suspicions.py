"""Annotations that can be read and yet look wrong: what their numbers say together, not one row."""

import os
import pathlib
import re
import statistics
from collections.abc import Mapping, Sequence

from vidloc.annotations import clip_names
from vidloc.annotations.records import Problem, VideoRecord

# AVA annotates the actions 1 to 80; its evaluation leaves these out (ava_action_list_v2.2_for_activitynet_2019.pbtxt
# lists the other 60).
AVA_LAST = 80
AVA_UNEVALUATED = frozenset((2, 16, 18, 19, 21, 23, 25, 31, 32, 33, 35, 39, 40, 42, 44, 50, 53, 55, 71, 75))
# A list of fewer classes with an id of 80 is somebody's own.
AVA_LIKE = 40
# Statistics of fewer boxes say nothing.
ENOUGH = 50
WIDE_SHARE = 0.6
SHOWN = 5


def label_map_version(path: str | os.PathLike, classes: Mapping[int, str]) -> list[Problem]:
    """Problems of AVA's label map: the list of 80 where 60 are evaluated, or ids of another version."""
    if len(classes) < AVA_LIKE or max(classes) != AVA_LAST:
        return []
    problems = []
    extra = sorted(AVA_UNEVALUATED & classes.keys())
    if extra:
        message = f'the list has {len(classes)} classes; {len(extra)} of them are not evaluated ({_some(extra)})'
        fix = 'Published frame mAP is over 60 classes: use the list "for_activitynet" of this version to evaluate.'
        line = line_of(path, f'id: {extra[0]}')
        problems.append(Problem('label-map-unevaluated', os.fspath(path), line, message, fix, 'warning'))
    lacking = sorted(set(range(1, AVA_LAST + 1)) - AVA_UNEVALUATED - classes.keys())
    if lacking:
        message = f'{len(lacking)} ids that AVA evaluates are not in the list ({_some(lacking)})'
        fix = 'Use the list that belongs to this version of the annotations.'
        problems.append(Problem('label-map-version', os.fspath(path), None, message, fix, 'warning'))
    return problems


def of_boxes(path: str | os.PathLike, records: Sequence[VideoRecord]) -> list[Problem]:
    """A warning if most boxes are wider than tall: people are not, so that x and y may have changed places."""
    sizes = [
        (person.box[2] - person.box[0], person.box[3] - person.box[1]) for record in records for person in record.boxes
    ]
    wide = sum(width > height for width, height in sizes)
    if len(sizes) < ENOUGH or wide < WIDE_SHARE * len(sizes):
        return []
    width, height = (statistics.median(values) for values in zip(*sizes, strict=True))
    message = (
        f'{wide} of {len(sizes)} boxes are wider than tall (in [0,1]; the median box is {width:.3f} wide, '
        f'{height:.3f} tall)'
    )
    fix = 'If these people stand or sit, x and y are swapped: the columns are x1,y1,x2,y2, x divided by the width.'
    line = line_of(path, next(record.video for record in records if record.boxes))
    return [Problem('box-x-y-swapped', os.fspath(path), line, message, fix, 'warning')]


def of_class_indices(path: str | os.PathLike, classes: Sequence[str], absent: Sequence[str]) -> list[Problem]:
    """A warning if the first class alone has no example: the labels may count from 1."""
    if len(classes) < 3 or list(absent) != [classes[0]]:
        return []
    message = f'no clip has the label 0 ({classes[0]}), and all others occur'
    fix = f'Labels count from 0 to {len(classes) - 1}; if yours count from 1, take 1 off.'
    return [Problem('label-index-offset', os.fspath(path), line_of(path, ' 1'), message, fix, 'warning')]


def of_detections(detected: Mapping[str, Sequence[VideoRecord]], truth: Sequence[VideoRecord]) -> list[Problem]:
    """Problems of person detections {file: records} that do not meet the annotated keyframes."""
    keyframes = {record.video: {round(person.time, 6) for person in record.boxes} for record in truth}
    keyframes = {video: times for video, times in keyframes.items() if times}
    problems, met = [], {video: set() for video in keyframes}
    for file, records in detected.items():
        boxes = {record.video: {round(person.time, 6) for person in record.boxes} for record in records}
        boxes = {video: times for video, times in boxes.items() if times}
        problems += _elsewhere(file, boxes, keyframes)
        for video in keyframes.keys() & boxes.keys():
            met[video] |= keyframes[video] & boxes[video]
    total, found = sum(map(len, keyframes.values())), sum(map(len, met.values()))
    if detected and not problems and found < total / 2:
        message = f'{total - found} of {total} keyframes with true boxes have no detection in these files'
        fix = 'They cannot be found in evaluation: check that these are all the detections.'
        problems.append(Problem('keyframe-without-detection', next(iter(detected)), None, message, fix, 'warning'))
    return problems


def _elsewhere(file: str, boxes: Mapping[str, set[float]], keyframes: Mapping[str, set[float]]) -> list[Problem]:
    """The problem of one file of detections that meets no keyframe at all; both arguments are {video: times}."""
    if not boxes:
        return [Problem('no-box', file, None, 'there is no box in the file', 'Check how the detector was run.')]
    common = sorted(keyframes.keys() & boxes.keys())
    if keyframes and not common:
        message = f'no annotated video has a detection; detections are of {min(boxes)}, the truth of {min(keyframes)}'
        fix = 'Name the detections of this split, with the names of videos written the same way.'
        return [Problem('detections-of-other-videos', file, line_of(file, min(boxes)), message, fix)]
    if common and not any(keyframes[video] & boxes[video] for video in common):
        video = common[0]
        message = (
            f'no detection is at the time of an annotated keyframe; in {video} they are at {_span(boxes[video])}, '
            f'the truth at {_span(keyframes[video])}'
        )
        fix = 'Both count seconds from the start of the whole film: AVA goes from 902 to 1798, not from 2 to 898.'
        return [Problem('timestamp-offset', file, line_of(file, video), message, fix)]
    return []


def shared(videos: Mapping[str, Mapping[str, str]]) -> list[Problem]:
    """Problems of files that have videos in common: the same one, or clips of one video.

    videos: {file: {identity of a video: its name}}.
    """
    paths = list(videos)
    sources = {path: {_source(name): name for name in videos[path].values()} for path in paths}
    problems = []
    for second in range(len(paths)):
        for first in range(second):
            one, other = paths[first], paths[second]
            common = sorted(videos[other][key] for key in videos[one].keys() & videos[other].keys())
            if common:
                message = f'{len(common)} videos are also in {one} ({_some(common)})'
                fix = 'Training and validation must not share a video: take it out of one of them.'
                line = line_of(other, common[0]) or line_of(other, _source(common[0]))
                problems.append(Problem('video-in-two-files', other, line, message, fix))
            theirs = {_source(name) for name in common}
            clips = sorted(
                key
                for key in (sources[one].keys() & sources[other].keys()) - theirs
                if {sources[one][key], sources[other][key]} != {key}  # one of the two is a clip
            )
            if clips:
                pairs = [f'{sources[one][key]} and {sources[other][key]}' for key in clips]
                message = f'{len(clips)} videos have other clips in {one} ({_some(pairs)})'
                fix = 'Clips of one video show the same people and place: keep them in one split.'
                line = line_of(other, sources[other][clips[0]]) or line_of(other, clips[0])
                problems.append(Problem('clips-of-one-video-in-two-files', other, line, message, fix, 'warning'))
    return problems


def _source(name: str) -> str:
    """The whole video that a name belongs to: itself, or what clip_names.whole says of a clip."""
    stem = pathlib.PurePosixPath(name)
    bare = stem.stem if len(stem.suffix) in (4, 5) else stem.name
    return clip_names.whole(bare) or name


def line_of(path: str | os.PathLike, text: str) -> int | None:
    """The first line of a text file that holds `text`, from 1; None if there is none or it is no such file.

    A line in which it is a part of a longer name (`v1` of `v10`) is taken only if it nowhere stands alone.
    """
    alone = re.compile(('' if text[:1].isspace() else r'(?<![\w-])') + re.escape(text) + r'(?![\w-])')
    within = None
    try:
        with open(path, encoding='utf-8', errors='replace') as file:
            for number, line in enumerate(file, 1):
                if text in line:
                    if alone.search(line):
                        return number
                    within = within or number
    except OSError:
        return None
    return within


def _span(times: set[float]) -> str:
    return f'{min(times):g} to {max(times):g} s'


def _some(values: Sequence) -> str:
    return ', '.join(map(str, values[:SHOWN])) + (', ...' if len(values) > SHOWN else '')
