"""Person boxes as mmaction2 hands them around: a pickled dict, `"video,0902" -> float array [n, 5]`.

The columns are x1, y1, x2, y2 in [0,1] and the score; the number after the comma is the second. The pickle is read by
plain_pickle.py, which runs nothing. Layout: open-mmlab/mmaction2, mmaction/datasets/ava_dataset.py and
tools/data/ava/fetch_ava_proposals.sh. Two habits of mmaction2 are not followed: where a keyframe is missing it takes
the whole frame with score 1, and where no box reaches the threshold it takes the best one. Here a keyframe that is
missing has no detections, and thresholds are for those who use the records.
"""

import os
import pathlib
import pickle
from collections.abc import Iterable, Mapping

import numpy as np

from vidloc import plain_pickle
from vidloc.annotations import ava, rows
from vidloc.annotations.records import PersonBox, Problem, VideoRecord

LARGEST = 4 << 30  # bytes
MOST_BOXES = 50_000_000
_FIX = 'Expected a dict of "video,0902" and arrays of n rows x1,y1,x2,y2,score, all in [0,1].'


def read_proposals(
    path: str | os.PathLike,
    included: str | os.PathLike | None = None,
    *,
    notes: list[Problem] | None = None,
) -> list[VideoRecord]:
    """Records whose boxes have a score and no labels, sorted by video; each key is a keyframe, with or without boxes.

    Equal rows of one keyframe are one box. included: text file of the seconds that may be keyframes.
    Raises AnnotationError with every error found; a pickle that asks for more than plain data is `pickle-refused`,
    and nothing in it is run.
    """
    findings = rows.Findings(path)
    frames = _frames(path, findings)
    allowed = None if included is None else ava.read_included(included)
    videos: dict[str, dict[float, tuple[PersonBox, ...]]] = {}
    count = 0
    for key, value in frames.items():
        place = _place(key, findings)
        rows_of_frame = _rows(key, value, findings)
        if place is None or rows_of_frame is None:
            continue
        video, time = place
        if allowed is not None and time not in allowed:
            findings.add(*ava.not_included(f'the key {rows.shown(key)}', None))
            continue
        if time in videos.setdefault(video, {}):
            message = f'{rows.shown(key)} is there twice, written in another way'
            findings.add('proposals-twice', None, message, 'Give each keyframe one key.')
        count += len(rows_of_frame)
        if count > MOST_BOXES:
            findings.stop('file-too-large', None, f'more than {MOST_BOXES} boxes', 'Leave out boxes of low score.')
        if len(set(rows_of_frame)) < len(rows_of_frame):
            findings.warn('duplicate-row', None, f'{rows.shown(key)} has equal boxes', 'They are counted once.')
        people = (PersonBox(time, row[:4], (), row[4]) for row in dict.fromkeys(rows_of_frame))
        videos[video][time] = tuple(people)
    findings.finish(notes)
    return [
        VideoRecord(
            video,
            keyframes=tuple(sorted(times)),
            boxes=tuple(box for time in sorted(times) for box in times[time]),
        )
        for video, times in sorted(videos.items())
    ]


def write_proposals(path: str | os.PathLike, records: Iterable[VideoRecord]) -> None:
    """Writes all keyframes and their boxes, float64 and so exact; labels and tracks have no place here.

    NumPy 1 and 2 can read the file. Raises ValueError for boxes without a score, and for boxes and names that no
    reader would take.
    """
    frames: dict[str, np.ndarray] = {}
    for record in sorted(records, key=lambda record: record.video):
        video = rows.safe_name(record.video)
        people: dict[float, list[list[float]]] = {time: [] for time in record.keyframes}
        for person in record.boxes:
            if person.score is None or not 0 <= person.score <= 1:
                raise ValueError(f'{video}: the box at {person.time} s needs a score in [0,1], not {person.score}')
            rows.box_texts(person.box, f'{video} at {person.time}')
            people.setdefault(person.time, []).append([*person.box, person.score])
        for time, boxes in sorted(people.items()):
            key = f'{video},{rows.time_text(time)}'
            if key in frames:
                raise ValueError(f'{video} is there twice')
            frames[key] = np.array(boxes, np.float64).reshape(-1, 5)
    data = pickle.dumps(frames, protocol=3)
    # NumPy 2 says numpy._core, which older versions lack; they all know numpy.core. The name is written only once.
    data = data.replace(b'cnumpy._core.multiarray\n', b'cnumpy.core.multiarray\n', 1)
    rows.write_bytes(path, data)


def _frames(path: str | os.PathLike, findings: rows.Findings) -> Mapping[str, object]:
    try:
        size = os.path.getsize(path)
        if size > LARGEST:
            findings.stop('file-too-large', None, f'the file has {size} bytes', 'Leave out boxes of low score.')
        data = pathlib.Path(path).read_bytes()
    except FileNotFoundError:
        findings.stop('file-missing', None, 'the file does not exist', 'Check the path.')
    except (OSError, ValueError) as error:
        findings.stop('file-unreadable', None, f'the file cannot be read: {error}', 'Check path and permissions.')
    if not data:
        findings.stop('file-empty', None, 'the file is empty', 'Check that it was copied completely.')
    try:
        frames = plain_pickle.loads(data)
    except plain_pickle.PickleError as error:
        if error.refused:
            message = f'the pickle holds {error}; nothing of it was run'
            findings.stop('pickle-refused', None, message, 'Only texts, numbers, lists, dicts and arrays are read.')
        findings.stop('pickle-broken', None, f'this is no pickle: {error}', 'Check that it was copied completely.')
    if not isinstance(frames, dict):
        findings.stop('proposals-layout', None, f'the pickle is no dict but a {type(frames).__name__}', _FIX)
    if not frames:
        findings.stop('file-empty', None, 'the dict has no keyframe', 'Check how the file was made.')
    return frames


def _place(key: str, findings: rows.Findings) -> tuple[str, float] | None:
    video, mark, second = key.rpartition(',')
    if not mark:
        findings.add('proposals-layout', None, f'the key {rows.shown(key)} is not "video,second"', _FIX)
        return None
    time = rows.timestamp(second, None, findings, f'the second of the key {rows.shown(key)}')
    if time is None or rows.video_name(video, None, findings) is None:
        return None
    return video, time


def _rows(key: str, value: object, findings: rows.Findings) -> list[tuple[float, ...]] | None:
    """(x1, y1, x2, y2, score) of each box on a keyframe, or None after a problem."""
    where = f'the keyframe {rows.shown(key)}'
    if isinstance(value, (list, tuple)):
        value = _as_array(value)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in 'fiu' or value.ndim > 2:
        findings.add('proposals-layout', None, f'{where} has no array of numbers', _FIX)
        return None
    if value.size == 0:
        return []
    if value.ndim != 2 or value.shape[1] != 5:
        message = f'the array of {where} has the shape {list(value.shape)}, not [n, 5]'
        findings.add('proposals-layout', None, message, _FIX)
        return None
    array = value.astype(np.float64)
    boxes, scores = array[:, :4], array[:, 4]
    good = np.isfinite(array).all() and boxes.min() >= 0 and array.max() <= 1 and scores.min() >= 0
    found = list(map(tuple, array.tolist()))
    if good and (boxes[:, 2:] > boxes[:, :2]).all():
        return found
    bad = [row for row in found if not _row_is_good(row, where, findings)]
    return None if bad else found


def _as_array(value: list | tuple) -> object:
    """Rows of numbers as an array [n, 5]; anything else as it is."""
    rows_of_numbers = all(
        isinstance(row, (list, tuple))
        and len(row) == 5
        and all(type(number) in (int, float) and abs(number) < 1e9 for number in row)
        for row in value
    )
    return np.array(value, np.float64).reshape(-1, 5) if rows_of_numbers else value


def _row_is_good(row: tuple[float, ...], where: str, findings: rows.Findings) -> bool:
    if not np.isfinite(row).all():
        findings.add('not-finite', None, f'{where} has a number that is not finite', 'Remove the box.')
        return False
    problem = rows.box_problem(row[:4])
    text = ','.join(f'{value:g}' for value in row[:4])
    if problem is not None:
        findings.add(problem[0], None, f'the box {text} of {where} {problem[1]}', problem[2])
        return False
    if not 0 <= row[4] <= 1:
        findings.add('score-out-of-range', None, f'{where} has the score {row[4]:g}', 'Scores lie in [0,1].')
        return False
    if min(row[:4]) < 0 or max(row[:4]) > 1:
        message = f'the box {text} of {where} leaves [0,1] a little'
        findings.warn('box-leaves-frame', None, message, 'It is kept as it is; clip it if that is a rounding error.')
    return True
