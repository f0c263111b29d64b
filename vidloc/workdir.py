"""What a run keeps in its workdir beside checkpoints: config, model, data, shots and environment, each .json."""

import json
import logging
import pathlib
import platform
import time
from collections.abc import Mapping, Sequence
from importlib import metadata

import jax
import ml_collections
import numpy as np

from vidloc import build
from vidloc import config as config_lib
from vidloc.checkpoints import store as store_lib
from vidloc.data import sources

# What may change between two starts in one workdir. The rest is what the run is.
MAY_CHANGE = (
    'eval.',
    'log.',
    'checkpoint.',
    'mesh.',
    'loading.',
    'train.epochs',
    'train.steps',
    'hint',
    'init_from',
    'weights.',
    'name',
)
PATHS = (
    'videos',
    'features',
    'annotations',
    'labels',
    'detections',
    'excluded',
    'included',
    'blocked',
    'split',
    'external_scores',
    'class_list',
    'text',
)
# Of a view, what the model must be given: frames, or feature vectors.
INPUT = ('frames', 'rate', 'stride', 'size', 'mode', 'width', 'length', 'upsample', 'layers')
ENVIRONMENT = 'environment.json'
PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy', 'av')


class RunError(ValueError):
    """A run cannot start or go on; the text says why and what to do."""


def check(
    workdir: pathlib.Path,
    config: ml_collections.ConfigDict,
    experiment: build.Experiment,
    opened: Mapping[str, sources.Source],
) -> None:
    """Raises RunError when the workdir holds another run: other settings or other data."""
    path = workdir / 'config.json'
    if path.exists():
        before = config_lib.flatten(build.completed(json.loads(path.read_text(encoding='utf-8'))))
        now = config_lib.flatten(json.loads(as_json(config)))
        differing = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        groups = {key.rpartition('.')[0] for key in before}
        # A field that its group did not have when the run began came with a later version of the code.
        new = {key for key in now.keys() - before.keys() if key.rpartition('.')[0] in groups}
        refused = [key for key in differing if key not in new and not may_change(key)]
        if refused:
            lines = [f'  {key}: {before.get(key)!r} there, {now.get(key)!r} now' for key in refused]
            raise RunError(
                f'{workdir} holds a run with another config; take another --workdir, or the same settings:\n'
                + '\n'.join(lines)
            )
        for key in differing:
            logging.warning('changed since the run began: %s: %r -> %r', key, before.get(key), now.get(key))
    check_classes(workdir, experiment)
    path = workdir / 'data.json'
    if path.exists():
        before = json.loads(path.read_text(encoding='utf-8'))
        now = {name: source.fingerprint() for name, source in opened.items()}
        changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        if changed:
            raise RunError(
                f'{workdir} was trained on other examples of {", ".join(changed)} (see data.json there: size and hash '
                'of the example keys); restore the data, or take another --workdir'
            )


def check_classes(workdir: pathlib.Path, experiment: build.Experiment) -> None:
    """Raises RunError when the workdir's run has other classes, or the same in another order: heads know numbers."""
    path = workdir / 'model.json'
    if not path.exists():
        return
    before = json.loads(path.read_text(encoding='utf-8'))['tasks']
    for name, task in experiment.tasks.items():
        if name in before and before[name]['classes'] != list(task.classes):
            raise RunError(
                f'{workdir}: the classes of task {name} were others, or in another order, when the run began (see '
                'model.json there); restore the class list, or take another --workdir'
            )


def may_change(key: str) -> bool:
    """Whether a config entry may differ when a run goes on: rhythm, places and length, not what is learned."""
    return key.startswith(MAY_CHANGE) or key.split('.')[-1] in PATHS


def as_json(config: ml_collections.ConfigDict) -> str:
    """The config as JSON text; tuples become lists."""
    return json.dumps(config_lib.plain(config), indent=1)


def write(
    workdir: pathlib.Path,
    config: ml_collections.ConfigDict,
    experiment: build.Experiment,
    opened: Mapping[str, sources.Source],
) -> None:
    """W/config.json, W/model.json, W/data.json; W/shots.json if samples were drawn for a source."""
    workdir.mkdir(parents=True, exist_ok=True)
    prepare = config.preprocess
    views = {config.sources[name].task: source.view for name, source in opened.items()}
    model = {
        'tasks': {
            name: {'classes': list(task.classes), 'max_boxes': getattr(views[name], 'max_boxes', None)}
            for name, task in experiment.tasks.items()
        },
        'preprocessing': {
            **config_lib.plain(prepare),
            'layout': 'BTHWC uint8 RGB',
            'inputs': {
                name: {field: config_lib.plain(getattr(view, field)) for field in INPUT if hasattr(view, field)}
                for name, view in views.items()
            },
        },
    }
    data = {name: source.fingerprint() for name, source in opened.items()}
    store_lib.write_json(workdir / 'config.json', json.loads(as_json(config)))
    store_lib.write_json(workdir / 'model.json', model)
    store_lib.write_json(workdir / 'data.json', data)
    if shots := {name: source.shots.content() for name, source in opened.items() if source.shots is not None}:
        store_lib.write_json(workdir / 'shots.json', shots)


def note_environment(
    workdir: pathlib.Path, mesh: jax.sharding.Mesh, schedule: np.ndarray, names: Sequence[str], seconds: float
) -> None:
    """W/environment.json: when, on what and with which versions; seconds are those of this start alone."""
    packages = {name: metadata.version(name) for name in PACKAGES}
    drawn = np.bincount(schedule, minlength=len(names))
    store_lib.write_json(
        workdir / ENVIRONMENT,
        {
            'finished': time.strftime('%Y-%m-%d %H:%M', time.localtime()),
            'source_steps': dict(zip(names, drawn.tolist(), strict=True)),
            'python': platform.python_version(),
            'machine': platform.machine(),
            'devices': f'{mesh.size} x {jax.devices()[0].device_kind}',
            'processes': jax.process_count(),
            'seconds': round(seconds, 1),
            'packages': packages,
        },
    )
