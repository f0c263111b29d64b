"""What an evaluation of boxes at keyframes leaves: average precisions, their loss, and detections in the official csv.

Which classes of a task are scored is decided by the action list of the evaluated source (`labels`): a model of 80
classes is scored on the 60 of AVA's official list, and the others take no part, nor of the limit of detections a
keyframe. A source with several ground-truth files (AVA-Kinetics) is scored as a whole and file by file. Ground truth of
another format than the official csv is written down in it, so that others' tools, and the page, can read it.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vidloc.annotations import ava_table, label_map
from vidloc.annotations.ava import write_ava
from vidloc.annotations.records import PersonBox, VideoRecord
from vidloc.data import sources
from vidloc.metrics import ava, error_analysis, frequency
from vidloc.report import action_groups
from vidloc.report.scored import Score, Scored

COLUMNS = frozenset({'video', 'timestamp', *ava.BOX, 'action_id'})


def measure(
    score: Score, source: sources.Source, detections: Mapping[str, np.ndarray], files: Mapping[str, Any]
) -> dict[str, float]:
    """What `score` says of all of the source, and {part/name: value} of each of its parts; see results.measure."""
    truth = source.truth()
    found = ava.of_classes(detections, listed(source, files['labels']))
    figures = dict(score(found, truth))
    for part, true in parts(truth, _official(files)).items():
        values = score(ava.of_part(found, true, truth), true)
        figures |= {f'{part}/{name}': value for name, value in values.items()}
    return figures


def together(members: Sequence[Scored]) -> dict[str, np.ndarray]:
    """The detections of several sources of one task as one table."""
    return ava.join([ava.of_classes(m.detections, listed(m.source, m.files['labels'])) for m in members])


def listed(source: sources.Source, labels: str) -> dict[int, str]:
    """{index: name} of the source's classes that the action list `labels` (a label map) has."""
    names = set(label_map.read_label_map(labels).values())
    return {index: name for index, name in enumerate(source.classes) if name in names}


def parts(truth: ava.Columns, annotations: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    """{part: rows of `truth` on the keyframes that its file names}, {} of a source with fewer than two files.

    annotations: ground truth in the official csv.

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


def content(scored: Scored) -> dict[str, Any]:
    """The content of the source's JSON; per class by name, NaN where there is nothing to score."""
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
            for part, true in parts(truth, _official(files)).items()
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
        'ground_truth': list(_official(files)) or [f'eval/{source.name}_truth.csv'],
        'excluded': files.get('excluded', ''),
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


def write_detections(folder: pathlib.Path, name: str, scored: Scored) -> None:
    """Writes <name>_detections.csv in the official layout, and <name>_truth.csv if the truth is in no such file."""
    write_found(folder, name, scored)
    if not _official(scored.files):
        _write_truth(folder / f'{name}_truth.csv', scored)


def write_found(folder: pathlib.Path, name: str, scored: Scored) -> None:
    """Writes <name>_detections.csv in the official layout.

    Class indices become the ids of the label map; classes that it does not have are left out.
    """
    classes = listed(scored.source, scored.files['labels'])
    ids = {name: number for number, name in label_map.read_label_map(scored.files['labels']).items()}
    known = np.full(len(scored.source.classes), -1)
    known[list(classes)] = [ids[name] for name in classes.values()]
    columns = ava.of_classes(scored.detections, classes)
    columns['action_id'] = known[columns['action_id']]
    ava_table.write_ava_table(folder / f'{name}_detections.csv', columns)


def _write_truth(path: pathlib.Path, scored: Scored) -> None:
    """Keyframes, and people with those of their labels that the action list has."""
    names = listed(scored.source, scored.files['labels'])
    truth = scored.source.truth()
    keyframes: dict[str, set[float]] = {}
    people: dict[str, dict[tuple, list[str]]] = {}  # {video: {(time, box): labels}}
    corners = np.stack([truth[side] for side in ava.BOX], axis=1).tolist()  # [M, 4]
    rows = zip(truth['video'].tolist(), truth['timestamp'].tolist(), corners, truth['action_id'].tolist(), strict=True)
    for video, time, box, action in rows:
        keyframes.setdefault(video, set()).add(time)
        if action in names:
            people.setdefault(video, {}).setdefault((time, tuple(box)), []).append(names[action])
    records = [
        VideoRecord(
            video,
            keyframes=tuple(sorted(times)),
            boxes=tuple(PersonBox(time, box, tuple(labels)) for (time, box), labels in people.get(video, {}).items()),
        )
        for video, times in keyframes.items()
    ]
    write_ava(path, records, label_map.read_label_map(scored.files['labels']))


def _official(files: Mapping[str, Any]) -> tuple[str, ...]:
    """The ground truth of a source in the official csv: its annotations, if they are of the format that leaves
    keyframes out by another such file."""
    return tuple(files['annotations']) if 'excluded' in files else ()


def _named(classes: Mapping[int, str], values: Mapping[int, Any]) -> dict[str, Any]:
    return {name: values[number] for number, name in classes.items()}
