"""Starting a run from the backbone of an earlier one: the transfer of pretraining and fine-tuning."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
from flax import traverse_util

from vidloc import build
from vidloc.checkpoints import frozen as frozen_lib
from vidloc.checkpoints import store as store_lib
from vidloc.config import ConfigError
from vidloc.models import layers

ROOT = 'backbone/'
SHOWN = 5


def read_backbone(init_from: str) -> tuple[dict[str, np.ndarray], int]:
    """({canonical name: array} of the backbone of another run, the step it was trained to).

    init_from: `WORKDIR` for its newest usable checkpoint, or `WORKDIR@best`, `WORKDIR@1000`. Where the run kept an
    average of its parameters, that is what is read. Raises ConfigError or CheckpointError.
    """
    place, _, which = init_from.partition('@')
    workdir = pathlib.Path(place)
    path = workdir / 'config.json'
    if not path.is_file():
        raise ConfigError(
            f'init_from: {init_from!r} is no workdir of a run ({path} is not there); give the workdir of the run to '
            'start from, which must have been trained first'
        )
    config = ml_collections.ConfigDict(json.loads(path.read_text(encoding='utf-8')))
    # The run's own class names: its class lists may have moved since, and heads are not read anyway.
    for name, task in json.loads((workdir / 'model.json').read_text(encoding='utf-8'))['tasks'].items():
        config.tasks[name].classes = tuple(task['classes'])
    experiment = build.experiment(config)
    trained, frozen = experiment.partition.split(experiment.abstract_params)
    stored, mark = frozen_lib.read_frozen(workdir / 'frozen.safetensors') if frozen else ({}, None)
    policy = store_lib.Policy(best=config.checkpoint.best or None)
    store = store_lib.Store(workdir / 'checkpoints', policy, fingerprint=mark, read_only=True)
    kind = 'ema' if config.train.ema else 'params'
    state, step = store.restore({kind: trained}, store.select(which) if which else None, partial=True)
    found = traverse_util.flatten_dict(layers.to_canonical(jax.tree.map(np.asarray, state[kind])), sep='/')
    found |= stored
    return {name: value for name, value in found.items() if name.startswith(ROOT)}, step


def into(found: Mapping[str, np.ndarray], shapes: Any) -> dict[str, np.ndarray]:
    """{run name: array} of the backbone of a model whose parameters in run form look like `shapes`.

    Raises ConfigError unless every array is used and every parameter of the backbone filled, with all differences.
    """
    filled, wanted = {}, set()
    leaves = traverse_util.flatten_dict(shapes, sep='/')
    problems = []
    for name, names in layers.canonical_names(shapes).items():
        if not name.startswith(ROOT):
            continue
        wanted |= set(names)
        missing = [each for each in names if each not in found]
        problems += [f'{each}: not in the run that init_from names' for each in missing]
        if missing:
            continue
        parts = [found[each] for each in names]
        value = parts[0] if names == (name,) else np.stack(parts)  # [...] or [L, ...]
        if value.shape != leaves[name].shape:
            problems.append(f'{name}: {list(value.shape)} there, {list(leaves[name].shape)} here')
        filled[name] = value
    problems += [f'{name}: only in the run that init_from names' for name in sorted(found.keys() - wanted)]
    if problems:
        more = f'\n  and {len(problems) - SHOWN} more' if len(problems) > SHOWN else ''
        raise ConfigError(
            'init_from: the backbone of that run is not of this shape; use the same backbone, frames and size:\n  '
            + '\n  '.join(problems[:SHOWN])
            + more
        )
    return filled
