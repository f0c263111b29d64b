"""A run that was trained: its model and its parameters, as another program needs them."""

import dataclasses
import json
import os
import pathlib

import jax
import numpy as np
from flax import traverse_util

from vidloc import build
from vidloc.checkpoints import frozen as frozen_lib
from vidloc.checkpoints import store as store_lib
from vidloc.models import layers


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """experiment: model, tasks and config of the run. params: {canonical name: array}, the frozen ones among them; the
    average where the run kept one. step: of the checkpoint that was read."""

    experiment: build.Experiment
    params: dict[str, np.ndarray]
    step: int


def is_workdir(place: str | os.PathLike[str]) -> bool:
    """Whether a path is the workdir of a run of ours, and not a folder of weights."""
    folder = pathlib.Path(place)
    return (folder / 'config.json').is_file() and (folder / 'model.json').is_file()


def read_run(place: str | os.PathLike[str], which: str = '') -> Trained:
    """place: a workdir. which: '' for the newest usable checkpoint, 'latest', 'best' or a step.

    Raises ConfigError or CheckpointError.
    """
    workdir = pathlib.Path(place)
    config = build.completed(json.loads((workdir / 'config.json').read_text(encoding='utf-8')))
    # The run's own class names: its class lists may have moved since.
    for name, task in json.loads((workdir / 'model.json').read_text(encoding='utf-8'))['tasks'].items():
        config.tasks[name].classes = tuple(task['classes'])
    experiment = build.experiment(config)
    trained, frozen = experiment.partition.split(experiment.abstract_params)
    stored, mark = frozen_lib.read_frozen(workdir / 'frozen.safetensors') if frozen else ({}, None)
    policy = store_lib.Policy(best=config.checkpoint.best or None)
    store = store_lib.Store(workdir / 'checkpoints', policy, fingerprint=mark, read_only=True)
    kind = 'ema' if config.train.ema else 'params'
    state, step = store.restore({kind: trained}, store.select(which) if which else None, partial=True)
    params = traverse_util.flatten_dict(layers.to_canonical(jax.tree.map(np.asarray, state[kind])), sep='/')
    return Trained(experiment, params | stored, step)
