"""What an evaluation leaves in a workdir: W/eval/<source>.json, and detections in the official csv.

The page is drawn from these files (report/run.py reads them), and others' tools can score the csv.

Which classes of a task are scored is decided by the action list of the evaluated source (`labels`): a model of 80
classes is scored on the 60 of AVA's official list, and the others take no part, nor of the limit of detections a
keyframe. A source with several ground-truth files (AVA-Kinetics) is scored as a whole and file by file.
"""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vidloc.annotations import ava_table, label_map
from vidloc.data import keyframes, sources
from vidloc.metrics import ava, classification, error_analysis, frequency
from vidloc.report import action_groups


@dataclasses.dataclass(frozen=True)
class Scored:
    """One evaluated source.

    training: the source that was trained on, or None: labels are then counted in `source`. detections: the task's
    columns. metrics: as `measure` returned them. files: the config of the source (annotations, labels, videos, ...).
    head, tail: thresholds on training labels (metrics/ava.py).
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
    return _write_json(folder / f'{scored.source.name}.json', content)


def _write_json(path: pathlib.Path, content: Mapping[str, Any]) -> pathlib.Path:
    partial = path.with_suffix('.partial')
    partial.write_text(json.dumps(_finite(content), indent=1), encoding='utf-8')
    os.replace(partial, path)
    return path


def measure(
    score: Callable[[Mapping[str, np.ndarray], Mapping[str, np.ndarray]], Mapping[str, float]],
    source: sources.Source,
    detections: Mapping[str, np.ndarray],
    files: Mapping[str, Any],
) -> dict[str, float]:
    """{name: value}: what a task's `score` says of a source, and {part/name: value} of each of its parts.

    detections, files: as in Scored.
    """
    truth = source.truth()
    if not isinstance(source, keyframes.KeyframeSource):
        return dict(score(detections, truth))
    found = ava.of_classes(detections, listed(source, files['labels']))
    figures = dict(score(found, truth))
    for part, true in parts(truth, files['annotations']).items():
        values = score(ava.of_part(found, true, truth), true)
        figures |= {f'{part}/{name}': value for name, value in values.items()}
    return figures


def measure_union(
    score: Callable[[Mapping[str, np.ndarray], Mapping[str, np.ndarray]], Mapping[str, float]],
    members: Sequence[Scored],
) -> dict[str, float]:
    """{name: value}: what `score` says of several box sources of one task together, as AVA-Kinetics is scored."""
    return dict(score(_together(members), ava.join([member.source.truth() for member in members])))


def write_union(
    workdir: str | os.PathLike, name: str, members: Sequence[Scored], metrics: Mapping[str, float]
) -> pathlib.Path:
    """Writes W/eval/<name>_detections.csv with the detections of all members; returns the path of W/eval/<name>.json.

    metrics: as `measure_union` returned them.
    """
    folder = pathlib.Path(workdir) / 'eval'
    detections = folder / f'{name}_detections.csv'
    _write_detections(detections, dataclasses.replace(members[0], detections=_together(members)))
    content = {
        'kind': 'union',
        'source': name,
        'step': members[0].step,
        'metrics': dict(metrics),
        'members': [member.source.name for member in members],
        'detections': f'eval/{detections.name}',
    }
    return _write_json(folder / f'{name}.json', content)


def _together(members: Sequence[Scored]) -> dict[str, np.ndarray]:
    return ava.join([ava.of_classes(m.detections, listed(m.source, m.files['labels'])) for m in members])


def listed(source: sources.Source, labels: str) -> dict[int, str]:
    """{index: name} of the source's classes that the action list `labels` (a label map) has."""
    names = set(label_map.read_label_map(labels).values())
    return {index: name for index, name in enumerate(source.classes) if name in names}


def parts(truth: ava.Columns, annotations: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    """{part: rows of `truth` on the keyframes that its file names}, {} of a source with one file.

    A part is called like its file without the suffix, and after its folder too where two files have one name.
    """
    if len(annotations) < 2:
        return {}
    paths = [pathlib.PurePath(path) for path in annotations]
    stems = [path.stem for path in paths]
    names = [path.stem if stems.count(path.stem) == 1 else f'{path.parent.name}_{path.stem}' for path in paths]
    result = {}
    for name, path in zip(names, annotations, strict=True):
        keys = ava.Keyframes(truth, ava_table.read_ava_table(path, scores=False), None, whole_seconds=False)
        mine = np.isin(keys.truth, keys.found)
        result[name] = {column: values[mine] for column, values in truth.items()}
    return result


def detection(scored: Scored) -> dict[str, Any]:
    """The content of a detection source's JSON; per class by name, NaN where there is nothing to score."""
    source, files = scored.source, scored.files
    classes = listed(source, files['labels'])
    truth = source.truth()
    found = ava.of_classes(scored.detections, classes)
    matches = ava.match(truth, found, classes)
    result = ava.summarise(matches)
    trained = scored.training or source
    counts = {i: n for i, n in enumerate(trained.label_counts().tolist()) if i in classes}
    shares = {i: share for i, share in enumerate(trained.label_share().tolist()) if i in classes}
    prior = ava.frame_ap(truth, frequency.prior_columns(found, shares), classes)
    members = frequency.groups(counts, head=scored.head, tail=scored.tail)
    kinds = action_groups.of_label_map(label_map.read_label_map(files['labels']))
    return {
        'kind': 'detection',
        'source': source.name,
        'task': files['task'],
        'step': scored.step,
        'metrics': dict(scored.metrics),
        'classes': list(classes.values()),
        'per_class': _named(classes, result.per_class),
        'parts': {
            part: _part(true, ava.of_part(found, true, truth), classes)
            for part, true in parts(truth, files['annotations']).items()
        },
        'prevalence': _named(classes, frequency.prevalence(truth, classes)),
        'train_count': _named(classes, counts),
        'counted_in': 'evaluation' if scored.training is None else 'training',
        'prior_map': prior.mean,
        'prior_per_class': _named(classes, prior.per_class),
        'groups': {group: [classes[i] for i in numbers] for group, numbers in members.items()},
        'group_map': frequency.group_means(result.per_class, members),
        'group_limits': [scored.tail, scored.head],
        'action_groups': action_groups.among(kinds, list(classes.values())),
        'analysis': _analysis(error_analysis.analyse(truth, found, matches), classes),
        'ground_truth': list(files['annotations']),
        'excluded': files['excluded'],
        'label_map': files['labels'],
        'boxes': files['boxes'],
        'videos': files['videos'],
        'video_start': float(files['time_offset']),
        'frame_rate': float(files['frame_rate']),
        'detections': f'eval/{source.name}_detections.csv',
        'examples': len(source),
        'keyframes': result.counts['keyframes'],
        'counts': dict(result.counts),
    }


def _part(truth: ava.Columns, found: ava.Columns, classes: Mapping[int, str]) -> dict[str, Any]:
    result = ava.frame_ap(truth, found, classes)
    return {'per_class': _named(classes, result.per_class), 'counts': dict(result.counts)}


def _analysis(found: error_analysis.Analysis, classes: Mapping[int, str]) -> dict[str, Any]:
    """The error analysis by class name; numbers that are only drawn are rounded."""
    return {
        'people': found.people,
        'missed': found.missed,
        'missed_per_class': _named(classes, found.missed_per_class),
        'bound': found.bound,
        'bound_per_class': _named(classes, found.bound_per_class),
        'confusion': found.confusion.round(2).tolist(),
        'kinds': _named(classes, found.kinds),
        'precision': {name: found.precision[i].round(4).tolist() for i, name in classes.items()},
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
        'examples': len(truth['label']),
    }


def _write_detections(path: pathlib.Path, scored: Scored) -> None:
    """Class indices become the ids of the label map; classes that it does not have are left out."""
    classes = listed(scored.source, scored.files['labels'])
    ids = {name: number for number, name in label_map.read_label_map(scored.files['labels']).items()}
    known = np.full(len(scored.source.classes), -1)
    known[list(classes)] = [ids[name] for name in classes.values()]
    columns = ava.of_classes(scored.detections, classes)
    columns['action_id'] = known[columns['action_id']]
    ava_table.write_ava_table(path, columns)


def _named(classes: Mapping[int, str], values: Mapping[int, Any]) -> dict[str, Any]:
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
