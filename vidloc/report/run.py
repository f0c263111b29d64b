"""A run on disk: config, metrics and evaluations of a workdir, read and checked.

W/config.json is needed; W/metrics.jsonl, W/warnings.jsonl (formats: vidloc/train/writer.py), W/eval/<source>.json,
W/environment.json and W/model.json may be absent. Every fault is a RunError that names the file and what to do.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from vidloc.metrics.error_analysis import KINDS
from vidloc.report import fields
from vidloc.report.fields import RunError
from vidloc.report.segment_run import Segments, read_segments


@dataclasses.dataclass(frozen=True)
class Errors:
    """Where average precision is lost (metrics/error_analysis.py says by which rules); None where nothing is known.

    people: different true boxes, of which the share `missed` has no detected box. bound: AP of a perfect classifier on
    the detected boxes. confusion[i][j]: true labels of class i that went to class j, in the order of the result's
    `classes`. kinds: {class: {kind: detections}}. precision: {class: precision at even recalls from 0 to 1}.
    """

    people: int
    missed: float | None
    missed_per_class: Mapping[str, float | None]
    bound: float | None
    bound_per_class: Mapping[str, float | None]
    confusion: tuple[tuple[float, ...], ...]
    kinds: Mapping[str, Mapping[str, int]]
    precision: Mapping[str, tuple[float | None, ...]]


@dataclasses.dataclass(frozen=True)
class Detection:
    """What a run measured on a source of boxes (W/eval/<source>.json of kind `detection`).

    An AP is None where the validation truth has no box of the class. `prior_map` and `prior_per_class` are the scores
    of predicting each class's training frequency for every box. `prevalence` is a class's share of the validation
    truth boxes, `train_count` its labels in training, unless `counted_in` is `evaluation`: the training data were not
    there, and labels, groups and prior are of the evaluated data. Paths are as the file gives them; `ground_truth` may
    be several files, whose figures stand in `parts` ({part: {class: AP}}) and in `metrics` as `<part>/<name>`.
    `video_start`: seconds at which each video file starts on the annotation's clock; `frame_rate`: of extracted
    pictures. `boxes`: what the classifier was given, `truth` or `detections`. `group_limits`: a class with fewer
    training labels than the first is tail, with more than the second head. `action_groups`: kinds of actions, {} where
    none are known.
    """

    source: str
    task: str
    step: int
    metrics: Mapping[str, float | None]
    classes: tuple[str, ...]
    per_class: Mapping[str, float | None]
    parts: Mapping[str, Mapping[str, float | None]]
    prevalence: Mapping[str, float | None]
    train_count: Mapping[str, float | None]
    counted_in: str
    prior_map: float | None
    prior_per_class: Mapping[str, float | None]
    groups: Mapping[str, tuple[str, ...]]
    group_map: Mapping[str, float | None]
    group_limits: tuple[int, int]
    action_groups: Mapping[str, tuple[str, ...]]
    errors: Errors
    ground_truth: tuple[str, ...]
    excluded: str
    label_map: str
    boxes: str
    videos: str
    detections: str
    keyframes: int
    video_start: float
    frame_rate: float

    MAIN = 'frame_map@0.5'
    SLOWFAST = 'frame_map_slowfast@0.5'


@dataclasses.dataclass(frozen=True)
class Classification:
    """What a run measured on a source of clips (kind `classification`).

    confusion[i][j]: clips of class i that were taken for class j, in the order of `classes`.
    """

    source: str
    step: int
    metrics: Mapping[str, float | None]
    classes: tuple[str, ...]
    per_class: Mapping[str, float | None]
    chance: float
    confusion: tuple[tuple[int, ...], ...]

    MAIN = 'top1'


@dataclasses.dataclass(frozen=True)
class Warned:
    """What a run warned of while it trained: at which step, of what (`<task>/<sign>`), and in which words."""

    step: int
    sign: str
    text: str


@dataclasses.dataclass(frozen=True)
class Union:
    """What a run measured on several sources of boxes together (kind `union`); members: their names."""

    source: str
    step: int
    metrics: Mapping[str, float | None]
    members: tuple[str, ...]

    MAIN = Detection.MAIN


@dataclasses.dataclass(frozen=True)
class Run:
    """All that a page needs of a workdir; `name` is the config's, or the folder's where it has none."""

    workdir: pathlib.Path
    name: str
    config: Mapping[str, Any]
    metrics: tuple[Mapping[str, float], ...]
    detections: tuple[Detection, ...]
    segments: tuple[Segments, ...]
    classifications: tuple[Classification, ...]
    unions: tuple[Union, ...]
    warnings: tuple[Warned, ...]
    environment: Mapping[str, Any] | None
    model: Mapping[str, Any] | None


def read_run(workdir: str | os.PathLike) -> Run:
    """Reads a workdir.

    Raises:
      RunError: it is no workdir, or a file in it is damaged.
    """
    workdir = pathlib.Path(workdir)
    if not workdir.is_dir():
        raise RunError(f'{workdir}: there is no such folder; give the workdir of a run (runs/<config>).')
    if not (workdir / 'config.json').is_file():
        raise RunError(f'{workdir}: this is not the workdir of a run, for it has no config.json.')
    config = fields.read_object(workdir / 'config.json')
    name = config['name'] if 'name' in config else workdir.resolve().name
    found = _results(workdir / 'eval')
    metrics, warnings = workdir / 'metrics.jsonl', workdir / 'warnings.jsonl'
    return Run(
        workdir=workdir,
        name=str(name),
        config=config,
        metrics=tuple(read_metrics(metrics)) if metrics.exists() else (),
        detections=tuple(found['detection']),
        segments=tuple(found['segments']),
        classifications=tuple(found['classification']),
        unions=tuple(found['union']),
        warnings=tuple(read_warnings(warnings)) if warnings.exists() else (),
        environment=fields.read_optional(workdir / 'environment.json'),
        model=fields.read_optional(workdir / 'model.json'),
    )


def _results(folder: pathlib.Path) -> dict[str, list]:
    """{kind: results} of the JSON files of a folder, but for those that a result names as its truth or detections."""
    readers = {
        'detection': _detection,
        'segments': read_segments,
        'classification': _classification,
        'union': _union,
    }
    found: dict[str, list] = {kind: [] for kind in readers}
    named: set[str] = set()
    # A result's own files have longer names than it, so that they come after it.
    for path in sorted(folder.glob('*.json'), key=lambda path: (len(path.name), path.name)):
        if f'eval/{path.name}' in named:
            continue
        data = fields.read_object(path)
        kind = fields.field(path, data, 'kind', str)
        if kind not in readers:
            raise RunError(f'{path}: kind is {kind!r}; {", ".join(readers)} are known.')
        found[kind].append(readers[kind](path, data))
        named |= {data[key] for key in ('truth', 'detections') if isinstance(data.get(key), str)}
    return {kind: sorted(results, key=lambda result: result.source) for kind, results in found.items()}


def read_metrics(path: str | os.PathLike) -> list[dict[str, float]]:
    """The logged values by step: one dict a step in rising order, with `step` and all names logged at it.

    Where a step and a name occur twice (the run went on from a checkpoint before them), the last line counts.
    "nan", "inf" and "-inf" come back as floats. A last line without its newline that is no whole object is
    left out: the run is writing it, or was killed there.

    Raises:
      RunError: another line is not as vidloc/train/writer.py writes it.
      OSError: the file cannot be read.
    """
    steps: dict[int, dict[str, float]] = {}
    lines = fields.read_lines(pathlib.Path(path), _figures, 'metrics (a JSON object with `step` and numbers)')
    for step, values in lines:
        steps.setdefault(step, {'step': step}).update(values)
    return [steps[step] for step in sorted(steps)]


def _figures(entry: dict[str, Any]) -> tuple[int, dict[str, float]]:
    step = fields.whole(entry.pop('step'))
    return step, {name: float(value) for name, value in entry.items()}


def read_warnings(path: str | os.PathLike) -> list[Warned]:
    """What a run warned of, in order of its steps; of a step and sign that occur twice the last line counts.

    Raises:
      RunError: a line is not as vidloc/train/writer.py writes it.
      OSError: the file cannot be read.
    """
    what = 'warnings (a JSON object with `step`, `sign` and `text`)'
    found = fields.read_lines(pathlib.Path(path), _warned, what)
    last = {(warned.step, warned.sign): warned for warned in found}
    return sorted(last.values(), key=lambda warned: warned.step)


def _warned(entry: dict[str, Any]) -> Warned:
    return Warned(fields.whole(entry['step']), str(entry['sign']), str(entry['text']))


def series(metrics: tuple[Mapping[str, float], ...] | list[dict[str, float]]) -> dict[str, list[tuple]]:
    """{name: [(step, value), ...]} in the order of first appearance."""
    result: dict[str, list[tuple]] = {}
    for row in metrics:
        for name, value in row.items():
            if name != 'step':
                result.setdefault(name, []).append((row['step'], value))
    return result


def flat(tree: Mapping[str, Any] | None, prefix: str = '') -> dict[str, str]:
    """A JSON tree as {dotted name: text of the value}; lists of plain values stay one value."""
    result: dict[str, str] = {}
    for key, value in (tree or {}).items():
        if isinstance(value, Mapping) and value:
            result.update(flat(value, f'{prefix}{key}.'))
        else:
            result[f'{prefix}{key}'] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return result


def _detection(path: pathlib.Path, data: Mapping[str, Any]) -> Detection:
    classes = fields.classes(path, data)
    texts = ('source', 'task', 'counted_in', 'excluded', 'label_map', 'boxes', 'videos', 'detections')
    per_class = ('per_class', 'prevalence', 'train_count', 'prior_per_class')
    limits = fields.list_of(path, data, 'group_limits', int)
    if len(limits) != 2:
        raise RunError(f'{path}: `group_limits` must be two numbers.')
    parts = fields.field(path, data, 'parts', dict)
    return Detection(
        classes=classes,
        groups=_groups(path, data, 'groups', classes),
        action_groups=_groups(path, data, 'action_groups', classes),
        group_map=fields.scores(path, data, 'group_map'),
        group_limits=limits,
        metrics=fields.metrics(path, data, Detection.MAIN),
        parts={part: fields.scores(path, _part(path, values), 'per_class', classes) for part, values in parts.items()},
        prior_map=fields.score(path, 'prior_map', data.get('prior_map')),
        video_start=fields.field(path, data, 'video_start', float),
        frame_rate=fields.field(path, data, 'frame_rate', float),
        errors=_errors(path, fields.field(path, data, 'analysis', dict), classes),
        ground_truth=fields.list_of(path, data, 'ground_truth', str),
        **{key: fields.field(path, data, key, str) for key in texts},
        **{key: fields.scores(path, data, key, classes) for key in per_class},
        **{key: fields.field(path, data, key, int) for key in ('step', 'keyframes')},
    )


def _part(path: pathlib.Path, values: Any) -> Mapping[str, Any]:
    if not isinstance(values, dict):
        raise RunError(f'{path}: each of `parts` must be an object; evaluate the run again.')
    return values


def _errors(path: pathlib.Path, data: Mapping[str, Any], classes: tuple[str, ...]) -> Errors:
    kinds, precision = fields.field(path, data, 'kinds', dict), fields.field(path, data, 'precision', dict)
    if not all(name in kinds and name in precision for name in classes):
        raise RunError(f'{path}: `kinds` and `precision` must have every class; evaluate the run again.')
    return Errors(
        people=fields.field(path, data, 'people', int),
        missed=fields.score(path, 'missed', data.get('missed')),
        bound=fields.score(path, 'bound', data.get('bound')),
        missed_per_class=fields.scores(path, data, 'missed_per_class', classes),
        bound_per_class=fields.scores(path, data, 'bound_per_class', classes),
        confusion=fields.square(path, data, len(classes), (int, float)),
        kinds={name: _counts(path, kinds, name) for name in classes},
        precision={name: fields.list_of(path, precision, name, (int, float, type(None))) for name in classes},
    )


def _counts(path: pathlib.Path, kinds: Mapping[str, Any], name: str) -> dict[str, int]:
    numbers = fields.field(path, kinds, name, dict)
    return {kind: fields.field(path, numbers, kind, int) for kind in KINDS}


def _groups(path: pathlib.Path, data: Mapping[str, Any], key: str, classes: tuple[str, ...]) -> dict:
    groups = {}
    for group, names in fields.field(path, data, key, dict).items():
        if not isinstance(names, list) or not set(names) <= set(classes):
            raise RunError(f'{path}: the group `{group}` must be a list of names that `classes` has.')
        groups[group] = tuple(names)
    return groups


def _classification(path: pathlib.Path, data: Mapping[str, Any]) -> Classification:
    classes = fields.classes(path, data)
    return Classification(
        source=fields.field(path, data, 'source', str),
        step=fields.field(path, data, 'step', int),
        metrics=fields.metrics(path, data, Classification.MAIN),
        classes=classes,
        per_class=fields.scores(path, data, 'per_class', classes),
        chance=float(fields.field(path, data, 'chance', float)),
        confusion=fields.square(path, data, len(classes), int),
    )


def _union(path: pathlib.Path, data: Mapping[str, Any]) -> Union:
    return Union(
        source=fields.field(path, data, 'source', str),
        step=fields.field(path, data, 'step', int),
        metrics=fields.metrics(path, data, Union.MAIN),
        members=fields.list_of(path, data, 'members', str),
    )
