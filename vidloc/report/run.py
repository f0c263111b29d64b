"""A run on disk: config, metrics and evaluations of a workdir, read and checked.

W/config.json is needed; W/metrics.jsonl (format: vidloc/train/writer.py), W/eval/<source>.json,
W/environment.json and W/model.json may be absent. Every fault is a RunError that names the file and what to do.
"""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from vidloc.metrics.error_analysis import KINDS


class RunError(ValueError):
    """A folder is no run, or one of its files is not as it should be; the text fits on one line."""


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
    classifications: tuple[Classification, ...]
    unions: tuple[Union, ...]
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
    config = _read_object(workdir / 'config.json')
    name = config['name'] if 'name' in config else workdir.resolve().name
    detections, classifications, unions = [], [], []
    for path in sorted((workdir / 'eval').glob('*.json')):
        data = _read_object(path)
        kind = _field(path, data, 'kind', str)
        if kind == 'detection':
            detections.append(_detection(path, data))
        elif kind == 'classification':
            classifications.append(_classification(path, data))
        elif kind == 'union':
            unions.append(_union(path, data))
        else:
            raise RunError(f'{path}: kind is {kind!r}; detection, classification and union are known.')
    metrics = workdir / 'metrics.jsonl'
    return Run(
        workdir=workdir,
        name=str(name),
        config=config,
        metrics=tuple(read_metrics(metrics)) if metrics.exists() else (),
        detections=tuple(detections),
        classifications=tuple(classifications),
        unions=tuple(unions),
        environment=_read_optional(workdir / 'environment.json'),
        model=_read_optional(workdir / 'model.json'),
    )


def read_metrics(path: str | os.PathLike) -> list[dict[str, float]]:
    """The logged values by step: one dict a step in rising order, with `step` and all names logged at it.

    Where a step and a name occur twice (the run went on from a checkpoint before them), the last line counts.
    "nan", "inf" and "-inf" come back as floats. A last line without its newline that is no whole object is
    left out: the run is writing it, or was killed there.

    Raises:
      RunError: another line is not as vidloc/train/writer.py writes it.
      OSError: the file cannot be read.
    """
    path = pathlib.Path(path)
    text = path.read_bytes().decode('utf-8', errors='replace')
    steps: dict[int, dict[str, float]] = {}
    lines = text.split('\n')
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            step = entry.pop('step')
            values = {name: float(value) for name, value in entry.items()}
            if isinstance(step, bool) or not isinstance(step, int):
                raise ValueError('the step is no whole number')
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if number == len(lines):
                break
            raise RunError(
                f'{path}:{number}: no line of metrics (a JSON object with `step` and numbers); delete it.'
            ) from error
        steps.setdefault(step, {'step': step}).update(values)
    return [steps[step] for step in sorted(steps)]


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


def _read_object(path: pathlib.Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding='utf-8'))
    except (ValueError, RecursionError) as error:
        raise RunError(f'{path}: this is not valid JSON ({error}); write it again or delete it.') from error
    if not isinstance(data, dict):
        raise RunError(f'{path}: this is a JSON {type(data).__name__}, not an object.')
    return data


def _read_optional(path: pathlib.Path) -> dict[str, Any] | None:
    return _read_object(path) if path.exists() else None


def _field(path: pathlib.Path, data: Mapping[str, Any], key: str, kind: type) -> Any:
    """data[key], checked to be of `kind` (a float may be written as an int; bool is no number)."""
    if key not in data:
        raise RunError(f'{path}: the key `{key}` is missing; evaluate the run again.')
    value = data[key]
    allowed = (int, float) if kind is float else kind
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise RunError(f'{path}: `{key}` is {value!r:.60}, which is no {kind.__name__}.')
    return value


def _score(path: pathlib.Path, key: str, value: Any) -> float | None:
    """A number or None; a number that is not finite counts as unknown too."""
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return None if value is None or not math.isfinite(value) else float(value)
    raise RunError(f'{path}: `{key}` holds {value!r:.60}, which is neither a number nor null.')


def _scores(path: pathlib.Path, data: Mapping[str, Any], key: str, needed: tuple[str, ...] = ()) -> dict:
    values = _field(path, data, key, dict)
    missing = [name for name in needed if name not in values]
    if missing:
        raise RunError(f'{path}: `{key}` says nothing of {", ".join(missing[:3])}; evaluate the run again.')
    return {name: _score(path, key, value) for name, value in values.items()}


def _classes(path: pathlib.Path, data: Mapping[str, Any]) -> tuple[str, ...]:
    classes = _field(path, data, 'classes', list)
    if not classes or not all(isinstance(name, str) for name in classes) or len(set(classes)) < len(classes):
        raise RunError(f'{path}: `classes` must be a list of different names, at least one.')
    return tuple(classes)


def _metrics(path: pathlib.Path, data: Mapping[str, Any], main: str) -> dict[str, float | None]:
    metrics = _scores(path, data, 'metrics')
    if main not in metrics:
        raise RunError(f'{path}: `metrics` has no `{main}`; evaluate the run again.')
    return metrics


def _detection(path: pathlib.Path, data: Mapping[str, Any]) -> Detection:
    classes = _classes(path, data)
    texts = ('source', 'task', 'counted_in', 'excluded', 'label_map', 'boxes', 'videos', 'detections')
    per_class = ('per_class', 'prevalence', 'train_count', 'prior_per_class')
    limits = _list_of(path, data, 'group_limits', int)
    if len(limits) != 2:
        raise RunError(f'{path}: `group_limits` must be two numbers.')
    parts = _field(path, data, 'parts', dict)
    return Detection(
        classes=classes,
        groups=_groups(path, data, 'groups', classes),
        action_groups=_groups(path, data, 'action_groups', classes),
        group_map=_scores(path, data, 'group_map'),
        group_limits=limits,
        metrics=_metrics(path, data, Detection.MAIN),
        parts={part: _scores(path, _part(path, values), 'per_class', classes) for part, values in parts.items()},
        prior_map=_score(path, 'prior_map', data.get('prior_map')),
        video_start=_field(path, data, 'video_start', float),
        frame_rate=_field(path, data, 'frame_rate', float),
        errors=_errors(path, _field(path, data, 'analysis', dict), classes),
        ground_truth=_list_of(path, data, 'ground_truth', str),
        **{key: _field(path, data, key, str) for key in texts},
        **{key: _scores(path, data, key, classes) for key in per_class},
        **{key: _field(path, data, key, int) for key in ('step', 'keyframes')},
    )


def _part(path: pathlib.Path, values: Any) -> Mapping[str, Any]:
    if not isinstance(values, dict):
        raise RunError(f'{path}: each of `parts` must be an object; evaluate the run again.')
    return values


def _errors(path: pathlib.Path, data: Mapping[str, Any], classes: tuple[str, ...]) -> Errors:
    kinds, precision = _field(path, data, 'kinds', dict), _field(path, data, 'precision', dict)
    if not all(name in kinds and name in precision for name in classes):
        raise RunError(f'{path}: `kinds` and `precision` must have every class; evaluate the run again.')
    return Errors(
        people=_field(path, data, 'people', int),
        missed=_score(path, 'missed', data.get('missed')),
        bound=_score(path, 'bound', data.get('bound')),
        missed_per_class=_scores(path, data, 'missed_per_class', classes),
        bound_per_class=_scores(path, data, 'bound_per_class', classes),
        confusion=_square(path, data, len(classes), (int, float)),
        kinds={name: _counts(path, kinds, name) for name in classes},
        precision={name: _list_of(path, precision, name, (int, float, type(None))) for name in classes},
    )


def _counts(path: pathlib.Path, kinds: Mapping[str, Any], name: str) -> dict[str, int]:
    numbers = _field(path, kinds, name, dict)
    return {kind: _field(path, numbers, kind, int) for kind in KINDS}


def _groups(path: pathlib.Path, data: Mapping[str, Any], key: str, classes: tuple[str, ...]) -> dict:
    groups = {}
    for group, names in _field(path, data, key, dict).items():
        if not isinstance(names, list) or not set(names) <= set(classes):
            raise RunError(f'{path}: the group `{group}` must be a list of names that `classes` has.')
        groups[group] = tuple(names)
    return groups


def _list_of(path: pathlib.Path, data: Mapping[str, Any], key: str, kind: Any) -> tuple:
    values = _field(path, data, key, list)
    if not values or not all(isinstance(value, kind) and not isinstance(value, bool) for value in values):
        raise RunError(f'{path}: `{key}` is {values!r:.60}, which is not as an evaluation writes it.')
    return tuple(values)


def _square(path: pathlib.Path, data: Mapping[str, Any], size: int, kind: Any) -> tuple[tuple, ...]:
    confusion = _field(path, data, 'confusion', list)
    square = len(confusion) == size and all(
        isinstance(row, list) and len(row) == size and all(isinstance(n, kind) and n >= 0 for n in row)
        for row in confusion
    )
    if not square:
        raise RunError(f'{path}: `confusion` must be {size} rows of {size} counts.')
    return tuple(tuple(row) for row in confusion)


def _classification(path: pathlib.Path, data: Mapping[str, Any]) -> Classification:
    classes = _classes(path, data)
    return Classification(
        source=_field(path, data, 'source', str),
        step=_field(path, data, 'step', int),
        metrics=_metrics(path, data, Classification.MAIN),
        classes=classes,
        per_class=_scores(path, data, 'per_class', classes),
        chance=float(_field(path, data, 'chance', float)),
        confusion=_square(path, data, len(classes), int),
    )


def _union(path: pathlib.Path, data: Mapping[str, Any]) -> Union:
    return Union(
        source=_field(path, data, 'source', str),
        step=_field(path, data, 'step', int),
        metrics=_metrics(path, data, Union.MAIN),
        members=_list_of(path, data, 'members', str),
    )
