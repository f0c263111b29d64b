"""Scoring temporal segments: reading, mAP, error analysis, suppression, at the sizes of THUMOS-14 and ActivityNet-1.3.

Written figures are CPU-milliseconds of public programs (ActionFormer's evaluator in one process, its C++ suppression in
one thread) on a shared machine with 2 CPU cores of this kind.
"""

import functools
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from vidloc.annotations import segment_predictions
from vidloc.benchmarks import suite
from vidloc.metrics import segment_errors, temporal
from vidloc.ops import nms

Row = dict[str, Any]
# Of scene(): videos, predictions in each, classes, and about how many segments in each.
SIZES = {'thumos': (212, 200, 20, 16), 'activitynet': (4926, 100, 200, 2)}
THRESHOLDS = {'thumos': temporal.THUMOS, 'activitynet': temporal.ACTIVITYNET}
WRITTEN_SCORING = {'thumos': 21_000.0, 'activitynet': 268_900.0}
# Candidates of one video over 20 classes: CPU-milliseconds.
WRITTEN_SUPPRESSION = {2_000: 1.3, 12_000: 15.0, 40_000: 109.0}
REPEATS = 5


def scene(
    videos: int, each: int, classes: int, truths: int, seed: int, *, decimals: int | None = None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Columns of truth and detections (metrics/temporal.py), most of which are a truth moved, in videos of 240 s.

    each: detections of a video. truths: about as many segments a video. decimals: of the scores, with times in whole
    tens of seconds, so that there are ties; None: none.
    """
    random = np.random.default_rng(seed)
    amount = random.integers(1, 2 * truths, videos)
    video = np.repeat(np.arange(videos), amount)
    names = np.array([f'v_{number:07d}' for number in range(videos)], object)
    start = random.uniform(0, 180, len(video))
    truth = {
        'video': names[video],
        'start': start,
        'end': start + random.uniform(2, 60, len(video)),
        'label': random.integers(0, classes, (videos, 2))[video, random.integers(0, 2, len(video))],
    }
    video = np.repeat(np.arange(videos), each)
    origin = (np.cumsum(amount) - amount)[video] + (random.random(len(video)) * amount[video]).astype(int)
    moved = random.normal(0, 0.15, (2, len(video))) * (truth['end'] - truth['start'])[origin]
    ends = np.sort([truth['start'][origin] + moved[0], truth['end'][origin] + moved[1]], axis=0)
    other = random.random(len(video)) < 0.4
    found = {
        'video': names[video],
        'start': ends[0],
        'end': ends[1],
        'label': np.where(other, random.integers(0, classes, len(video)), truth['label'][origin]),
        'score': random.random(len(video)),
    }
    if decimals is not None:
        found['score'] = found['score'].round(decimals)
        for columns in (truth, found):
            columns['start'], columns['end'] = columns['start'].round(-1), columns['end'].round(-1)
    return truth, found


def candidates(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Segments [N, 2] of 2 to 40 s in 200 s, which overlap a lot, scores [N] that all differ, labels [N]."""
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 200, count)
    segments = np.stack([start, start + rng.uniform(2, 40, count)], axis=1)
    return segments, rng.uniform(0.002, 1, count), rng.integers(0, classes, count)


def cases() -> dict[str, Callable[[], Iterator[Row]]]:
    """Reading, mAP and error analysis at two sizes, and soft suppression of one video."""
    found: dict[str, Callable[[], Iterator[Row]]] = {}
    for name in SIZES:
        for what in (reading, scoring, errors):
            found[f'{what.__name__} {name}'] = functools.partial(what, name)
    for count in WRITTEN_SUPPRESSION:
        found[f'suppression {count}'] = functools.partial(suppression, count)
    return found


def reading(name: str) -> Iterator[Row]:
    """A file of predictions in ActivityNet's layout."""
    _, found = scene(*SIZES[name], seed=0)
    classes = _classes(name)
    with tempfile.TemporaryDirectory() as folder:
        path = f'{folder}/predictions.json'
        segment_predictions.write_segment_predictions(path, found, classes)
        work = functools.partial(segment_predictions.read_segment_predictions, path, list(classes.values()))
        yield _sizes(found=found) | suite.measure(work, REPEATS)


def scoring(name: str) -> Iterator[Row]:
    """mAP at all thresholds of the data set, and recall."""
    truth, found = scene(*SIZES[name], seed=0)
    work = functools.partial(temporal.segment_ap, truth, found, _classes(name), THRESHOLDS[name])
    row = _sizes(truth=truth, found=found) | {'average_map': work().average} | suite.measure(work, REPEATS)
    written = WRITTEN_SCORING[name]
    yield row | {'written_cpu_ms': written, 'ratio_cpu': row['cpu_ms'] / written}


def errors(name: str) -> Iterator[Row]:
    """Kinds of errors, sensitivity and what was missed."""
    truth, found = scene(*SIZES[name], seed=0)
    truth['duration'] = np.full(len(truth['start']), 240.0)
    work = functools.partial(segment_errors.analyse, truth, found, _classes(name), segment_errors.SETTINGS[name])
    yield _sizes(truth=truth, found=found) | suite.measure(work, REPEATS)


def suppression(count: int, classes: int = 20) -> Iterator[Row]:
    """Soft suppression within classes, as after the network of ActionFormer's recipe for THUMOS-14."""
    segments, scores, labels = candidates(count, classes)
    work = functools.partial(nms.suppress, segments, scores, labels, nms.Rule())
    row = {'candidates': count, 'kept': len(work()[1])} | suite.measure(work, REPEATS)
    written = WRITTEN_SUPPRESSION[count]
    yield row | {'written_cpu_ms': written, 'ratio_cpu': row['cpu_ms'] / written}


def _classes(name: str) -> dict[int, str]:
    return {number: f'class {number}' for number in range(SIZES[name][2])}


def _sizes(**columns: dict[str, np.ndarray]) -> Row:
    return {f'rows_{name}': len(each['start']) for name, each in columns.items()}
