"""A trained run, or weights that can be imported, as a folder that Hugging Face's transformers loads."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from flax import traverse_util

from vidloc import trained
from vidloc.checkpoints import exporter, importer
from vidloc.config import ConfigError
from vidloc.models import preprocess

Parts = tuple[dict[str, Any], exporter.Model, tuple[str, ...]]


def of_run(workdir: str | os.PathLike[str], which: str = '', task: str = '') -> Parts:
    """(parameters, what they are, notes) of a checkpoint; which: see trained.read_run.

    task: whose head and input; '' where the run has one task alone. Raises ConfigError, CheckpointError.
    """
    run = trained.read_run(workdir, which)
    experiment, config = run.experiment, run.experiment.config
    if task not in experiment.tasks and (task or len(experiment.tasks) > 1):
        raise ConfigError(f'--task {task!r}: the tasks of this run are {", ".join(experiment.tasks)}')
    task = task or next(iter(experiment.tasks))
    _, frames, height, width, _ = experiment.abstract_batches[task]['video'].shape
    prepare = experiment.model.preprocess
    view = next(view for view in config.sources.values() if view.task == task)
    notes = (f'step {run.step}; trained on clips of {frames} frames, {view.rate:g} a second',)
    if prepare.difference:
        notes += ('the input is differences of frames: what transformers prepares has to be subtracted',)
    model = exporter.Model(
        backbone=_fields(config.backbone.kind, experiment.model.backbone),
        head=_fields(config.tasks[task].head.kind, experiment.model.heads[task]),
        labels=tuple(experiment.tasks[task].classes),
        mean=tuple(prepare.mean or preprocess.MIDDLE),
        std=tuple(prepare.std or preprocess.MIDDLE),
        size=(height, width),
        frames=frames,
    )
    tree = traverse_util.unflatten_dict(run.params, sep='/')
    return {'backbone': tree['backbone'], 'head': tree[f'heads_{task}']}, model, notes


def of_weights(path: str, which: str = '', overrides: Mapping[str, Any] | None = None) -> Parts:
    """(parameters, what they are, notes) of a weights file.

    which, overrides: see families.recognise. Raises ReadError, FamilyError, ImportFailed, ExportError.
    """
    imported = importer.load(path, which=which, overrides=overrides)
    if imported.backbone is None:
        raise exporter.ExportError(f'{path} holds a head alone, without a backbone')
    found, prepare = imported.found, imported.preprocessing
    model = exporter.Model(
        backbone=_fields(found.backbone['kind'], imported.backbone),
        head=None if imported.head is None else _fields(found.head['kind'], imported.head),
        labels=imported.labels,
        mean=prepare.mean,
        std=prepare.std,
        size=prepare.size,
        frames=prepare.frames,
    )
    return imported.params, model, ()


def _fields(kind: str, module: nn.Module) -> dict[str, Any]:
    """{'kind': ..., every field of the module}."""
    names = (field.name for field in dataclasses.fields(module))
    return {'kind': kind} | {name: getattr(module, name) for name in names if name not in ('parent', 'name')}
