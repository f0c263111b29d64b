"""A trained run, or weights that can be imported, as a folder that Hugging Face's transformers loads; an adapter alone
as a file, or as a folder that PEFT loads."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from flax import traverse_util

from vidloc import trained
from vidloc.checkpoints import adapters, exporter, frozen, importer
from vidloc.config import ConfigError
from vidloc.models import lora, preprocess

FILM = 'film'  # a root of the parameters
Parts = tuple[dict[str, Any], exporter.Model, tuple[str, ...]]


def of_run(workdir: str | os.PathLike[str], which: str = '', task: str = '') -> Parts:
    """(parameters, what they are, notes) of a checkpoint; which: see trained.read_run.

    LoRA is merged. task: whose head and input; '' where the run has one task alone. Raises ConfigError,
    CheckpointError.
    """
    run = trained.read_run(workdir, which)
    task = _task(run, task)
    _, frames, *_ = run.experiment.abstract_batches[task]['video'].shape
    view = next(view for view in run.experiment.config.sources.values() if view.task == task)
    notes = (f'step {run.step}; trained on clips of {frames} frames, {view.rate:g} a second',)
    if run.experiment.model.preprocess.difference:
        notes += ('the input is differences of frames: what transformers prepares has to be subtracted',)
    if run.experiment.change.rank:
        notes += (f'{adapters.described(run.experiment.change)} is merged into the matrices that it changes',)
    if FILM in {name.split('/')[0] for name in run.params}:
        notes += ('FiLM augments features in training alone; its parameters are left out',)
    tree = traverse_util.unflatten_dict(lora.merged(run.params, run.experiment.change), sep='/')
    return {'backbone': tree['backbone'], 'head': tree[f'heads_{task}']}, _model(run, task), notes


def adapter_of_run(workdir: str | os.PathLike[str], which: str = '') -> tuple[adapters.Adapter, tuple[str, ...]]:
    """(all that trained in a run, notes); which: see trained.read_run. Raises ConfigError, CheckpointError."""
    run = trained.read_run(workdir, which)
    trains = _trained(run)
    mark = frozen.fingerprint({name: value for name, value in run.params.items() if name not in trains})
    if mark is None:
        raise ConfigError(
            f'{workdir}: all of this run trains, and there is no frozen part that an adapter would go on top of; '
            'tools/export_checkpoint.py writes it whole'
        )
    classes = {name: tuple(task.classes) for name, task in run.experiment.tasks.items()}
    params = {name: run.params[name] for name in sorted(trains)}
    return adapters.Adapter(params, run.experiment.change, mark, classes), (f'step {run.step}',)


def peft_of_run(
    workdir: str | os.PathLike[str], which: str = '', task: str = ''
) -> tuple[adapters.Adapter, exporter.Model, tuple[str, ...]]:
    """(the LoRA of a run, under 'backbone' and 'head', what it is of, notes), as peft.write takes them.

    which: see trained.read_run. task: whose head; '' where the run has one task alone, or no head has LoRA. Raises
    ConfigError, CheckpointError.
    """
    run = trained.read_run(workdir, which)
    experiment = run.experiment
    owned = [name for name in run.params if name.endswith(lora.LEAVES)]
    heads = any(name.startswith('heads_') for name in owned)
    task = _task(run, task if task or heads else next(iter(experiment.tasks)))
    roots = {'backbone': 'backbone', f'heads_{task}': 'head'}
    taken = {name: roots[name.split('/')[0]] for name in owned if name.split('/')[0] in roots}
    left = _trained(run) - taken.keys()
    if others := sorted(name for name in left if name.startswith('backbone/')):
        raise ConfigError(
            f"{workdir}: more of the backbone trained than LoRA ({others[0]}), for which PEFT's layout has no place; "
            'without --peft all of it is written'
        )
    params = {f'{root}/{name.partition("/")[2]}': run.params[name] for name, root in taken.items()}
    notes = (f'step {run.step}',)
    if left:
        names = ', '.join(sorted({name.split('/')[0] for name in left}))
        notes += (f"{names} of the run are left out: PEFT's layout holds LoRA alone",)
    adapter = adapters.Adapter(params, experiment.change, None, base=experiment.config.init_from)
    return adapter, _model(run, task), notes


def _trained(run: trained.Trained) -> set[str]:
    """Canonical names of what trained."""
    return {each for leaf in run.experiment.partition.leaves.values() if leaf.trainable for each in leaf.names}


def _task(run: trained.Trained, task: str) -> str:
    """The task that is asked for. Raises ConfigError."""
    tasks = run.experiment.tasks
    if task not in tasks and (task or len(tasks) > 1):
        raise ConfigError(f'--task {task!r}: the tasks of this run are {", ".join(tasks)}')
    return task or next(iter(tasks))


def _model(run: trained.Trained, task: str) -> exporter.Model:
    experiment, config = run.experiment, run.experiment.config
    _, frames, height, width, _ = experiment.abstract_batches[task]['video'].shape
    prepare = experiment.model.preprocess
    return exporter.Model(
        backbone=_fields(config.backbone.kind, experiment.model.backbone),
        head=_fields(config.tasks[task].head.kind, experiment.model.heads[task]),
        labels=tuple(experiment.tasks[task].classes),
        mean=tuple(prepare.mean or preprocess.MIDDLE),
        std=tuple(prepare.std or preprocess.MIDDLE),
        size=(height, width),
        frames=frames,
    )


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
