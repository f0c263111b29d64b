"""Predicted temporal segments, in ActivityNet's JSON: `{"results": {video: [{"label", "score", "segment"}]}}`.

Layout: activitynet/ActivityNet, Evaluation/README; its program wants the keys `version` and `external_data` too, which
are written and not asked for.
"""

import itertools
import json
import os
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from vidloc.annotations import rows, segment_table

Rows = tuple[list[str], list[float], list[float], list[str], list[float]]


def read_segment_predictions(
    path: str | os.PathLike, classes: Sequence[str], *, keep_inverted: bool = False
) -> dict[str, np.ndarray]:
    """Columns video object (str), start, end (seconds) float64, label int64, score float64, in the order of the file.

    label: the place in `classes`, -1 for the name of another class. Unknown keys are skipped. Raises AnnotationError,
    with video and place in its list, for what has no label, for scores and times that are no finite numbers and,
    unless keep_inverted, for segments that end before they start.
    """
    findings = rows.Findings(path)
    results = segment_table.read_object(path, 'results', findings)
    for video in results:
        rows.video_name(video, None, findings)
    try:
        columns = _fast(results, classes)
    except (TypeError, LookupError, OverflowError):  # what is not as it should be is found row by row
        columns = None
    if columns is None or findings.problems or not (keep_inverted or (columns['start'] <= columns['end']).all()):
        columns = _columns(*_slow(results, keep_inverted, findings), classes)
    findings.finish(None)
    return columns


def write_segment_predictions(
    path: str | os.PathLike, columns: Mapping[str, np.ndarray], classes: Mapping[int, str] | Sequence[str]
) -> None:
    """Writes detections (video, start, end, label int, score); numbers are exact, rows of a video keep their order.

    classes: the name of each label. Raises ValueError for values that no reader would take.
    """
    start, end, score = (np.asarray(columns[name], np.float64) for name in ('start', 'end', 'score'))
    if not (np.isfinite(score).all() and (np.abs(start) <= rows.TIME_LIMIT).all()):
        raise ValueError('scores and times must be finite, times in seconds')
    if not ((start <= end) & (end <= rows.TIME_LIMIT)).all():
        raise ValueError('a segment ends before it starts, or its times are not seconds')
    labels = np.asarray(columns['label']).tolist()
    names = dict(classes) if isinstance(classes, Mapping) else dict(enumerate(classes))
    unknown = sorted(set(labels) - set(names))
    if unknown or any(rows.label_problem(name) for name in names.values()):
        raise ValueError(f'the labels {unknown} have no name' if unknown else 'the name of a class cannot be written')
    results: dict[str, list] = {}
    values = zip(
        np.asarray(columns['video']).tolist(), start.tolist(), end.tolist(), labels, score.tolist(), strict=True
    )
    for video, first, last, label, confidence in values:
        results.setdefault(video, []).append({'label': names[label], 'score': confidence, 'segment': [first, last]})
    for video in results:
        rows.safe_name(video)
    document = {'version': 'vidloc', 'external_data': {}, 'results': results}
    rows.write_text(path, json.dumps(document, ensure_ascii=False, allow_nan=False) + '\n')


def _fast(results: dict, classes: Sequence[str]) -> dict[str, np.ndarray] | None:
    """The columns, or None or an error if anything is not as it should be (but segments may be inverted)."""
    lists = list(results.values())
    if not set(map(type, lists)) <= {list}:
        return None
    found = list(itertools.chain.from_iterable(lists))
    label = [prediction['label'] for prediction in found]
    score = [prediction['score'] for prediction in found]
    segment = [prediction['segment'] for prediction in found]
    start, end = [times[0] for times in segment], [times[1] for times in segment]
    kinds = set(map(type, start)) | set(map(type, end)) | set(map(type, score))
    if not (kinds <= {float, int} and set(map(type, segment)) <= {list} and set(map(len, segment)) <= {2}):
        return None
    if not set(map(type, label)) <= {str} or any(rows.label_problem(name) for name in set(label)):
        return None
    video = np.repeat(np.array([*results, None], dtype=object)[:-1], [len(entries) for entries in lists])
    columns = _columns(video, start, end, label, score, classes)
    times = np.maximum(np.abs(columns['start']), np.abs(columns['end']))
    return columns if np.isfinite(columns['score']).all() and (times <= rows.TIME_LIMIT).all() else None


def _columns(
    video: Sequence[str],
    start: list[float],
    end: list[float],
    label: list[str],
    score: list[float],
    classes: Sequence[str],
) -> dict[str, np.ndarray]:
    return {
        'video': np.array(video, dtype=object),
        'start': np.array(start, np.float64),
        'end': np.array(end, np.float64),
        'label': segment_table.label_numbers(label, classes),
        'score': np.array(score, np.float64),
    }


def _slow(results: dict, keep_inverted: bool, findings: rows.Findings) -> Rows:
    """Prediction by prediction: collects what is wrong."""
    found: Rows = ([], [], [], [], [])
    for video, entries in results.items():
        if not isinstance(entries, list):
            message = f'the results of {rows.shown(video)} are no list'
            findings.add('json-layout', None, message, 'Expected [{"label", "score", "segment"}, ...].')
            continue
        for index, entry in enumerate(entries):
            where = f'prediction {index} of {rows.shown(video)}'
            if not isinstance(entry, dict):
                findings.add('json-layout', None, f'{where} is no object', 'Expected {"label", "score", "segment"}.')
                continue
            row = _row(entry, where, keep_inverted, findings)
            if row is not None:
                for column, value in zip(found, (video, *row), strict=True):
                    column.append(value)
    return found


def _row(
    entry: dict, where: str, keep_inverted: bool, findings: rows.Findings
) -> tuple[float, float, str, float] | None:
    label, score, times = (entry.get(name) for name in ('label', 'score', 'segment'))
    if not isinstance(label, str) or rows.label_problem(label):
        fix = 'Give each prediction a "label": the name of its class.'
        findings.add('label-missing', None, f'the label of {where} is {rows.shown(str(label))}', fix)
        return None
    if type(score) not in (int, float):
        message = f'the score of {where} is {rows.shown(str(score))}'
        findings.add('score-not-a-number', None, message, 'Give each prediction a "score": a number.')
        return None
    if not abs(score) <= sys.float_info.max:  # an int may be larger
        message = f'the score of {where} is {rows.shown(str(score))}'
        findings.add('not-finite', None, message, 'Only finite scores can be sorted.')
        return None
    start, end = map(segment_table.seconds, times) if isinstance(times, list) and len(times) == 2 else (None, None)
    if start is None or end is None:
        message = f'the segment of {where} is {rows.shown(str(times))}'
        findings.add('segment-not-a-number', None, message, 'Expected "segment": [start, end], finite seconds.')
        return None
    if end < start and not keep_inverted:
        message = f'{where} ends at {end:g} s, before its start {start:g} s'
        findings.add('segment-order', None, message, 'Give start, then end.')
        return None
    return start, end, label, float(score)
