"""What an evaluation of segments leaves: average precisions, where they are lost, and truth and detections as JSON.

W/eval/<source>_truth.json and W/eval/<source>_detections.json are in ActivityNet's layouts, so that others' tools score
the one against the other, and the page draws timelines when the annotations are elsewhere.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vidloc.annotations import activitynet, segment_predictions
from vidloc.annotations.records import Segment, VideoRecord
from vidloc.data import frame_folders, sources
from vidloc.metrics import segment_errors, temporal
from vidloc.report import timelines
from vidloc.report.scored import Score, Scored

COLUMNS = frozenset({'video', 'start', 'end', 'label'})
# The name of a task's metric at one threshold starts so; the threshold follows.
AT = 'map@'
# Names of fitted bins, by how many there are.
BIN_NAMES = {1: ('all',), 2: ('S', 'L'), 3: ('S', 'M', 'L'), 4: ('XS', 'S', 'M', 'L'), 5: ('XS', 'S', 'M', 'L', 'XL')}
FITTED = 'fitted'
# What others' evaluation scripts look for.
SUBSET = 'validation'


def measure(
    score: Score, source: sources.Source, detections: Mapping[str, np.ndarray], files: Mapping[str, Any]
) -> dict[str, float]:
    """See results.measure."""
    return dict(score(detections, source.truth()))


def write_detections(folder: pathlib.Path, name: str, scored: Scored) -> None:
    """Writes <name>_detections.json and, beside it, <name>_truth.json with the durations of the videos."""
    classes, truth, seconds = scored.source.classes, scored.source.truth(), durations(scored.source)
    segment_predictions.write_segment_predictions(folder / f'{name}_detections.json', scored.detections, classes)
    segments: dict[str, list[Segment]] = {video: [] for video in [*truth['video'].tolist(), *seconds]}
    for video, start, end, label in zip(
        *(truth[key].tolist() for key in ('video', 'start', 'end', 'label')), strict=True
    ):
        segments[video].append(Segment(start, end, classes[label]))
    records = [
        VideoRecord(video, subset=SUBSET, duration=seconds.get(video), segments=tuple(rows))
        for video, rows in segments.items()
    ]
    activitynet.write_activitynet(folder / f'{name}_truth.json', records)


def durations(source: sources.Source) -> dict[str, float]:
    """{video: seconds} of the videos that have examples."""
    return {example.video: float(example.limit) for example in source.examples}


def content(scored: Scored) -> dict[str, Any]:
    """The content of the source's JSON; per class by name, NaN where there is nothing to score."""
    source, files = scored.source, scored.files
    names, truth, found = source.classes, source.truth(), scored.detections
    classes, seconds = dict(enumerate(names)), durations(source)
    thresholds = [float(name.removeprefix(AT)) for name in scored.metrics if name.startswith(AT)]
    videos = sorted({*truth['video'].tolist(), *seconds})
    result = temporal.segment_ap(truth, found, classes, thresholds, videos=videos)
    points = timelines.operating_points(temporal.match(truth, found, classes, (timelines.TIOU,)))
    trained = scored.training or source
    # A source of features needs no videos; its timelines are shown without.
    films = {'videos': '', 'frame_rate': frame_folders.FRAME_RATE} | files
    own = np.bincount(truth['label'], minlength=len(names)).tolist()
    return {
        'kind': 'segments',
        'source': source.name,
        'task': files['task'],
        'step': scored.step,
        'metrics': dict(scored.metrics),
        'classes': list(names),
        'thresholds': thresholds,
        'per_class': {name: result.per_class[i].tolist() for i, name in enumerate(names)},
        'recall': {f'{times} x': values.tolist() for times, values in result.recall.items()},
        'truth_count': dict(zip(names, own, strict=True)),
        'train_count': dict(zip(names, np.asarray(trained.label_counts()).tolist(), strict=True)),
        'counted_in': 'evaluation' if scored.training is None else 'training',
        'counts': {**result.counts, 'left_out_videos': len(source.left_out)},
        'operating': {
            name: None if points[i] is None else {key: getattr(points[i], key) for key in points[i].__match_args__}
            for i, name in enumerate(names)
        },
        'ranked': timelines.ranked(truth, found),
        'analysis': analysis(truth, found, classes, seconds, thresholds),
        'videos': films['videos'],
        'frame_rate': float(films['frame_rate']),
        'truth': f'eval/{source.name}_truth.json',
        'detections': f'eval/{source.name}_detections.json',
        'examples': len(source),
    }


def analysis(
    truth: temporal.Columns,
    found: temporal.Columns,
    classes: Mapping[int, str],
    seconds: Mapping[str, float],
    thresholds: Sequence[float],
) -> dict[str, Any] | None:
    """Where precision is lost (metrics/segment_errors.py), None without a true segment that fits into its video."""
    with_durations = {
        **truth,
        'duration': np.array([seconds.get(video, np.nan) for video in truth['video'].tolist()], np.float64),
    }
    measured = characteristics(with_durations)
    if not len(measured['length']):
        return None
    chosen, settings = settings_for(measured, thresholds)
    errors = segment_errors.analyse(with_durations, found, classes, settings)
    return {
        'bins': chosen,
        'thresholds': list(settings.thresholds),
        'map': errors.base,
        'profile': [dict(zip(segment_errors.KINDS, row, strict=True)) for row in errors.profile.tolist()],
        'impact': dict(errors.gains),
        'counts': dict(errors.counts),
        'characteristics': {
            bins.of: [
                {
                    'name': name,
                    'low': bins.edges[i],
                    'high': bins.edges[i + 1],
                    'segments': errors.sizes[bins.of][name],
                    'map': errors.sensitivity[bins.of][name],
                    'missed': errors.missed[bins.of][name],
                }
                for i, name in enumerate(bins.names)
            ]
            for bins in settings.bins
        },
    }


def characteristics(truth: temporal.Columns) -> dict[str, np.ndarray]:
    """{characteristic: [G]} of the true segments that have a length and are not longer than their video."""
    length = truth['end'] - truth['start']
    coverage = length / truth['duration']
    pairs = list(zip(truth['video'].tolist(), truth['label'].tolist(), strict=True))
    totals: dict = {}
    for pair in pairs:
        totals[pair] = totals.get(pair, 0) + 1
    fits = (length > 0) & ~(coverage > 1)
    values = {
        'coverage': coverage,
        'length': length,
        'instances': np.array([totals[pair] for pair in pairs], np.float64),
    }
    return {name: column[fits] for name, column in values.items()}


def settings_for(
    measured: Mapping[str, np.ndarray], thresholds: Sequence[float]
) -> tuple[str, segment_errors.Settings]:
    """(name, settings): the first of the public ones whose every bin holds a true segment; else bins of equal shares.

    measured: as of `characteristics`.
    """
    for name, settings in segment_errors.SETTINGS.items():
        held = (np.unique(bins.place(measured[bins.of])) for bins in settings.bins)
        if all(
            set(range(len(bins.names))) <= set(places.tolist())
            for bins, places in zip(settings.bins, held, strict=True)
        ):
            return name, settings
    bins = [_fitted(name, measured[name]) for name in segment_errors.CHARACTERISTICS]
    levels = (timelines.TIOU,) if timelines.TIOU in thresholds else tuple(thresholds)
    return FITTED, segment_errors.Settings(levels, tuple(one for one in bins if one is not None))


def _fitted(of: str, values: np.ndarray) -> segment_errors.Bins | None:
    """Up to five bins that hold about as many each, at edges of two digits; None where nothing is known."""
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    inner = {float(f'{edge:.2g}') for edge in np.quantile(known, (0.2, 0.4, 0.6, 0.8), method='lower').tolist()}
    inner = sorted(edge for edge in inner if known.min() <= edge < known.max() and edge > 0)
    last = 1.0 if of == 'coverage' else float('inf')
    edges = (0.0, *(edge for edge in inner if edge < last), last)
    return segment_errors.Bins(of, edges, BIN_NAMES[len(edges) - 1])
