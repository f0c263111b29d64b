"""What an evaluation leaves in a workdir: W/eval/<source>.json, and detections in the official csv.

The page is drawn from these files (report/run.py reads them), and others' tools can score the csv.
"""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from vidloc.annotations import ava_table, label_map
from vidloc.data import keyframes, sources
from vidloc.metrics import ava, classification


@dataclasses.dataclass(frozen=True)
class Scored:
    """One evaluated source.

    training: the source of the same name that was trained on, or None. detections: the task's columns. metrics:
    what the task's score returned. files: the config of the source (annotations, labels, videos, ...). head, tail:
    thresholds on training labels (metrics/ava.py).
    """

    source: sources.Source
    training: sources.Source | None
    detections: Mapping[str, np.ndarray]
    metrics: Mapping[str, float]
    step: int
    files: Mapping[str, Any]
    head: int
    tail: int


def write(workdir: str | os.PathLike, scored: Scored) -> pathlib.Path:
    """Writes the result of a source and returns the path of its JSON."""
    folder = pathlib.Path(workdir) / 'eval'
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(scored.source, keyframes.KeyframeSource):
        content = detection(scored)
        _write_detections(folder / f'{scored.source.name}_detections.csv', scored)
    else:
        content = clips(scored)
    path = folder / f'{scored.source.name}.json'
    partial = path.with_suffix('.partial')
    partial.write_text(json.dumps(_finite(content), indent=1), encoding='utf-8')
    os.replace(partial, path)
    return path


def detection(scored: Scored) -> dict[str, Any]:
    """The content of a detection source's JSON; per class by name, NaN where there is nothing to score."""
    source = scored.source
    classes = dict(enumerate(source.classes))
    truth = source.truth()
    result = ava.frame_ap(truth, scored.detections, classes)
    share = ava.prevalence(truth, classes)
    trained = scored.training
    counts = dict(enumerate((trained or source).label_counts().tolist()))
    frequency = dict(enumerate((trained or source).label_share().tolist()))
    prior = ava.frame_ap(truth, ava.prior_columns(scored.detections, frequency), classes)
    members = ava.groups(counts, head=scored.head, tail=scored.tail)
    return {
        'kind': 'detection',
        'source': source.name,
        'step': scored.step,
        'metrics': dict(scored.metrics),
        'classes': list(source.classes),
        'per_class': _named(classes, result.per_class),
        'prevalence': _named(classes, share),
        'train_count': _named(classes, counts),
        'prior_map': prior.mean,
        'prior_per_class': _named(classes, prior.per_class),
        'groups': {group: [classes[i] for i in numbers] for group, numbers in members.items()},
        'group_map': ava.group_means(result.per_class, members),
        'ground_truth': scored.files['annotations'][0],
        'label_map': scored.files['labels'],
        'videos': scored.files['videos'],
        'video_start': float(scored.files['time_offset']),
        'detections': f'eval/{source.name}_detections.csv',
        'examples': len(source),
        'keyframes': result.counts['keyframes'],
        'counts': dict(result.counts),
    }


def clips(scored: Scored) -> dict[str, Any]:
    """The content of a clip source's JSON."""
    truth = scored.source.truth()
    scores = classification.aligned(scored.detections, truth)
    accuracy = classification.per_class_accuracy(scores, truth['label'])
    return {
        'kind': 'classification',
        'source': scored.source.name,
        'step': scored.step,
        'metrics': dict(scored.metrics),
        'classes': list(scored.source.classes),
        'per_class': dict(zip(scored.source.classes, accuracy.tolist(), strict=True)),
        'chance': 1.0 / len(scored.source.classes),
        'confusion': classification.confusion(scores, truth['label']).tolist(),
        'examples': len(scored.source),
    }


def _write_detections(path: pathlib.Path, scored: Scored) -> None:
    """Class indices become the ids of the label map."""
    ids = {name: number for number, name in label_map.read_label_map(scored.files['labels']).items()}
    known = np.array([ids[name] for name in scored.source.classes])
    columns = dict(scored.detections)
    columns['action_id'] = known[columns['action_id']]
    ava_table.write_ava_table(path, columns)


def _named(classes: Mapping[int, str], values: Mapping[int, float]) -> dict[str, float]:
    return {name: values[number] for number, name in classes.items()}


def _finite(value: Any) -> Any:
    """JSON has no NaN: null stands for it."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
