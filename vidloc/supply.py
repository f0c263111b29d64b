"""The data of a config: its sources, opened and checked against what the tasks are."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from vidloc import build, texts
from vidloc import config as config_lib
from vidloc.annotations import ava
from vidloc.data import keyframes, sources
from vidloc.tasks import base


def open_sources(
    config: ml_collections.ConfigDict,
    tasks: Mapping[str, base.Task],
    *,
    train: bool,
    only: Sequence[str] | None = None,
) -> dict[str, sources.Source]:
    """{name: Source} of the training or the evaluation sources, or `only` some of them, in the order of the config.

    Raises sources.DataError (one text for all that is missing) or records.AnnotationError.
    """
    asked = config.sources if train else config.eval_sources
    asked = {name: source for name, source in asked.items() if only is None or name in only}
    missing = [line for name, source in asked.items() for line in _missing(config, name, source, train)]
    if missing:
        raise sources.DataError('\n'.join(['data are missing:', *missing, *([config.hint] if config.hint else [])]))
    opened = {}
    for name, source in asked.items():
        task = config.tasks[source.task]
        classes = tasks[source.task].classes
        if task.class_list and not os.path.isfile(task.class_list):
            raise sources.DataError(f'tasks.{source.task}.class_list: no file {task.class_list!r}. {config.hint}')
        records = config_lib.make(build.FORMATS[source.format], source).read()
        _check_labels(name, records, classes, build.TASKS[task.kind].truth)
        view = build.view_of(config, source)
        if not train and view.source is keyframes.KeyframeSource:
            _check_action_list(name, source, classes)
        opened[name] = view.source(name, config_lib.make(view.part, source), records, classes, train=train)
    return opened


def has_boxes(config: ml_collections.ConfigDict, task: str) -> bool:
    """Whether the sources of a task are keyframes with boxes."""
    return any(view.source is keyframes.KeyframeSource for view in build.TASKS[config.tasks[task].kind].views.values())


def _missing(config: ml_collections.ConfigDict, name: str, view: ml_collections.ConfigDict, train: bool) -> list[str]:
    folder = build.view_of(config, view).folder
    group = 'sources' if train else 'eval_sources'
    lines = []
    form = config_lib.make(build.FORMATS[view.format], view)
    for field, paths in form.files().items():
        where = f'  {group}.{name}.{field} (format {view.format!r})'
        if not paths or not all(paths):
            lines.append(f'{where}: not set')
        lines += [f'{where}: nothing at {path!r}' for path in paths if path and not os.path.exists(path)]
    if not os.path.isdir(view[folder]):
        lines.append(f'  {group}.{name}.{folder}: no folder {view[folder]!r}')
    return lines


def _check_action_list(name: str, view: ml_collections.ConfigDict, classes: Sequence[str]) -> None:
    """The action list of an evaluated source says which classes are scored and their ids; the task must have them."""
    if 'labels' not in view:
        raise sources.DataError(f'eval_sources.{name}: boxes are evaluated with an action list; use format ava or moma')
    if not view.labels:
        raise sources.DataError(
            f'eval_sources.{name}.labels: not set; boxes are evaluated with an action list (.pbtxt), which '
            'tools/check_data.py --write_labels FILE writes'
        )
    unknown = sorted(set(ava.read_label_map(view.labels).values()) - set(classes))
    if unknown:
        raise sources.DataError(
            f'eval_sources.{name}.labels: {view.labels} has {len(unknown)} classes that task {view.task} lacks, such '
            f'as {unknown[0]!r}; name a list of no more than the classes of tasks.{view.task}.class_list'
        )


def _check_labels(name: str, records: Sequence[Any], classes: Sequence[str], truth: Sequence[str]) -> None:
    known = set(classes)
    for record in records:
        found = [label for person in record.boxes for label in person.labels] if 'boxes' in truth else []
        found += [item.label for group in ('labels', 'segments') if group in truth for item in getattr(record, group)]
        for label in found:
            if label not in known:
                raise sources.DataError(
                    f'source {name}: {record.video} has the label {label!r}, which is not among the {len(known)} '
                    f'classes of its task; {config_lib.nearest(label, known)}'
                )


def start_biases(experiment: build.Experiment, opened: Mapping[str, sources.Source]) -> dict[str, np.ndarray]:
    """{canonical name: [C]} of the output biases that start at the training log-odds (train.log_odds_bias)."""
    if not experiment.config.train.log_odds_bias:
        return {}
    biases = {}
    for source in opened.values():
        task = experiment.config.sources[source.name].task
        if isinstance(source, keyframes.KeyframeSource):
            share = np.clip(source.label_share(), 1e-3, 1 - 1e-3)
            biases[f'{texts.output(experiment.config, task)}/bias'] = np.log(share / (1 - share)).astype(np.float32)
    return biases
