"""Where a run starts from: pretrained weights as they are published, or the backbone of an earlier run, and an adapter
that was trained beside them on top.

What a run starts from is read once, when it begins; a run that goes on never reads it. LoRA is in no such weights: it
starts new, or as in the adapter.
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from flax import traverse_util

from vidloc import build, texts, trained
from vidloc import config as config_lib
from vidloc.checkpoints import actionformer, adapters, families, frozen, importer, peft
from vidloc.checkpoints.readers import weights as weights_lib
from vidloc.config import ConfigError
from vidloc.models import layers, lora, text_similarity

ROOT = 'backbone/'
# What is of the classes, in each kind of head.
OUTPUTS = ('head/output/', 'head/classify/output/', f'head/{text_similarity.NAME}/')
UNTOLD = ('heads', 'windows', 'ranges', 'positions', 'max_length')  # of a model, by its weights
SHOWN = 5


def split(init_from: str) -> tuple[str, str]:
    """`WORKDIR@best` -> ('WORKDIR', 'best'); a path that exists as it is has no second part."""
    if os.path.exists(init_from):
        return init_from, ''
    place, _, which = init_from.rpartition('@')
    return (place, which) if place else (init_from, '')


def recognise(config: ml_collections.ConfigDict) -> tuple[weights_lib.Weights, families.Found]:
    """The weights that init_from names, and what they are. Raises ConfigError, ReadError or FamilyError."""
    if not pathlib.Path(config.init_from).exists():
        raise ConfigError(
            f'init_from: nothing at {config.init_from!r}; give a weights file or its folder, or the workdir of a run, '
            'which must have been trained first. Nothing is downloaded: what is on a hub has to be fetched before'
        )
    which = config.weights.which
    try:
        return importer.read(config.init_from, which=which)
    except families.FamilyError:
        # Where nothing beside the weights tells what they do not, the config is believed.
        return importer.read(config.init_from, which=which, overrides=_believed(config))


def _believed(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """What the config says of what weights do not tell: the head that starts from the file, before it the backbone."""
    task = config.weights.head
    parts = [config_lib.choose(config.tasks, task, 'weights.head').head] if task else []
    values = [{name: part[name] for name in UNTOLD if name in part} for part in (*parts, config.backbone)]
    return {name: config_lib.plain(value) for part in values for name, value in part.items()}


def begin(experiment: build.Experiment) -> tuple[dict[str, np.ndarray], str]:
    """({run-form name: array} of everything that init_from and weights.adapter give the model, what to say about it).

    Raises ConfigError, CheckpointError, ReadError, FamilyError, ImportFailed or AdapterError.
    """
    config = experiment.config
    if not config.init_from:
        raise ConfigError(
            'weights.adapter goes on top of the weights that it was trained beside: name them by init_from'
        )
    place, which = split(config.init_from)
    if trained.is_workdir(place):
        run = trained.read_run(place, which)
        found = into(backbone_of(run), experiment.abstract_params)
        merged = ', its LoRA merged' if run.experiment.change.rank else ''
        fresh = '' if config.weights.adapter else '; heads are new'
        said = f'backbone of {config.init_from}, trained for {run.step} steps{merged}{fresh}'
    else:
        found, said = _from_weights(experiment)
    if config.weights.adapter:
        added, told = _from_adapter(experiment, found)
        return found | added, f'{said}\n{told}'
    return found, f'{said}\nLoRA is new' if experiment.change.rank else said


def _from_weights(experiment: build.Experiment) -> tuple[dict[str, np.ndarray], str]:
    config = experiment.config
    weights, found = recognise(config)
    parameters = _without_lora(experiment.abstract_params)
    roots = {}  # of the model: of the file
    if any(name.startswith(ROOT) for name in parameters):
        importer.check_kind(weights, found, config_lib.plain(config.backbone), config.weights.allow)
        roots['backbone'] = 'backbone'
    elif not config.weights.head:
        raise ConfigError(
            f'init_from: the backbone of kind {config.backbone.kind!r} has no parameters to start from a file; name '
            f'the task whose head does, --config.weights.head={next(iter(config.tasks))}'
        )
    allow, said = config.weights.allow, [f'weights: {config.init_from}']
    if config.weights.head:
        task = config_lib.choose(config.tasks, config.weights.head, 'weights.head')
        if found.head is None:
            said.append('the file has no head: heads are new')
        elif task.head.kind != found.head['kind']:
            raise ConfigError(
                f'weights.head: the file has a head of kind {found.head["kind"]!r}, task {config.weights.head} one of '
                f'kind {task.head.kind!r}; use that kind, or weights.head="" for a new head'
            )
        else:
            if found.backbone is None or found.backbone['width'] == config.backbone.width:
                # A file of another size is said to be that by the plan; its head would be beside the point.
                said += _check_head(config.weights.head, task.head, found, allow)
            roots[f'heads_{config.weights.head}'] = 'head'
    shapes = {
        name.replace(root, roots[root], 1): leaf
        for name, leaf in parameters.items()
        if (root := name.split('/')[0]) in roots
    }
    why = _other_classes(experiment, found) if 'head' in roots.values() else ''
    if why:
        said.append(why)
        shapes = {name: leaf for name, leaf in shapes.items() if not name.startswith(OUTPUTS)}
        mine = [
            full
            for source, full in found.names.items()
            if any(rule.canonical.startswith(OUTPUTS) for rule in found.layout.leaves(source))
        ]
        allow = '|'.join([*([f'(?:{allow})'] if allow else []), *map(re.escape, mine)])
    canonical = {
        each: leaf.shape if names == (name,) else leaf.shape[1:]
        for name, names in layers.canonical_names(traverse_util.unflatten_dict(shapes, sep='/')).items()
        for leaf in [shapes[name]]
        for each in names
    }
    backbone = config_lib.plain(config.backbone)
    planned = importer.plan(weights, found, canonical, allow=allow, inflate=config.weights.inflate, backbone=backbone)
    said.append(planned.table)
    # What has no array at all starts as in a new model; a stack of which some layers have none needs their start.
    tree = traverse_util.unflatten_dict(shapes, sep='/')
    some = {
        name: shapes[name]
        for name, names in layers.canonical_names(tree).items()
        if any(each in planned.fill for each in names)
    }
    back = {mine: root for root, mine in roots.items()}

    def start(names: Sequence[str]) -> dict[str, np.ndarray]:
        made = traverse_util.flatten_dict(jax.jit(experiment.init)(jax.random.key(config.seed)), sep='/')
        return {name: np.asarray(made[_rooted(name, back)]) for name in names}

    filled = importer.fill(planned, traverse_util.unflatten_dict(some, sep='/'), start)
    if 'head' in roots.values() and not why:
        order, note = _order(experiment, found)
        said.append(note)
        for name in [name for name in filled if name.startswith(OUTPUTS)]:
            filled[name] = filled[name][..., order]
    return {_rooted(name, back): value for name, value in filled.items()}, '\n'.join(said)


def _check_head(name: str, given: ml_collections.ConfigDict, found: families.Found, allow: str) -> list[str]:
    """What to say about a head of which the weights do not tell all.

    Raises ConfigError where the head of a task means something else by the same parameters.
    """
    said = []
    for field, value in found.head.items():
        place = f'tasks.{name}.head.{field}'
        ours = config_lib.plain(given[field]) if field in given else value
        if ours == value or field in actionformer.free(found.head) or (allow and re.fullmatch(allow, place)):
            continue
        if field not in found.guessed:
            raise ConfigError(
                f'{place} is {ours!r}, the file has {value!r}: set --config.{place}={value}, or let it pass '
                'with weights.allow'
            )
        said.append(f'{place} is {ours!r}, as the config says; nothing in or beside the file tells it')
    return said


def _rooted(name: str, roots: Mapping[str, str]) -> str:
    root, slash, rest = name.partition('/')
    return roots[root] + slash + rest


def _other_classes(experiment: build.Experiment, found: families.Found) -> str:
    """Why the output of the file's head is not for the classes and the output of the task; '' if it is."""
    name = experiment.config.weights.head
    classes = tuple(experiment.tasks[name].classes)
    count = (found.head or {'classes': 0})['classes']
    if name in texts.files(experiment.config):
        return f'the output of {name} is new: it compares with text embeddings, which the file does not'
    if count != len(classes):
        return f'the output of {name} is new: the file knows {count} classes, the task {len(classes)}'
    if found.labels is not None and sorted(found.labels) != sorted(classes):
        other = next(label for label in found.labels if found.labels.count(label) > classes.count(label))
        return f'the output of {name} is new: the file has {count} other classes, such as {other!r}'
    return ''


def _order(experiment: build.Experiment, found: families.Found) -> tuple[list[int], str]:
    """(for each class of the task its number in the file, what to say about it), given as many and the same classes."""
    name = experiment.config.weights.head
    classes = tuple(experiment.tasks[name].classes)
    same = list(range(len(classes)))
    if found.labels is None:
        shown = ', '.join(classes[:SHOWN]) + (', ...' if len(classes) > SHOWN else '')
        return same, f'the file does not name its {len(classes)} classes: they are taken to be, in this order, {shown}'
    if found.labels == classes:
        return same, f'the output of {name} is that of the file'
    # Of classes with the same name the first stays the first.
    numbers = sorted(range(len(classes)), key=lambda i: (found.labels[i], i))
    places = sorted(range(len(classes)), key=lambda i: (classes[i], i))
    order = [number for _, number in sorted(zip(places, numbers, strict=True))]
    return order, f'the output of {name} is that of the file, its classes put in the order of the task'


def read_backbone(place: str, which: str = '') -> tuple[dict[str, np.ndarray], int]:
    """({canonical name: array} of the backbone of another run, the step it was trained to); see trained.read_run."""
    run = trained.read_run(place, which)
    return backbone_of(run), run.step


def backbone_of(run: trained.Trained) -> dict[str, np.ndarray]:
    """{canonical name: array} of the backbone of a run, its LoRA merged."""
    own = {name: value for name, value in run.params.items() if name.startswith(ROOT)}
    return lora.merged(own, run.experiment.change)


def _without_lora(shapes: Any) -> dict[str, Any]:
    """{run name: leaf} of a tree in run form."""
    leaves = traverse_util.flatten_dict(shapes, sep='/')
    return {name: leaf for name, leaf in leaves.items() if not name.endswith(lora.LEAVES)}


def into(found: Mapping[str, np.ndarray], shapes: Any) -> dict[str, np.ndarray]:
    """{run name: array} of the backbone of a model whose parameters in run form look like `shapes`, without its LoRA.

    Raises ConfigError unless every array is used and every parameter of the backbone filled, with all differences.
    """
    filled, wanted = {}, set()
    leaves = _without_lora(shapes)
    problems = []
    for name, names in layers.canonical_names(traverse_util.unflatten_dict(leaves, sep='/')).items():
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


def _from_adapter(experiment: build.Experiment, found: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], str]:
    """({run name: array} that weights.adapter gives, on top of what was found, what to say about it)."""
    path = experiment.config.weights.adapter
    if not os.path.exists(path):
        raise ConfigError(f'weights.adapter: nothing at {path!r}')
    given = _in_peft(experiment) if os.path.isdir(path) else adapters.read(path)
    names = layers.canonical_names(experiment.abstract_params)
    shapes = _canonical(experiment.abstract_params)
    held = _canonical(traverse_util.unflatten_dict(dict(found), sep='/'))
    alone = given.fingerprint is None
    # Of a file of ours all that trains and that the weights do not have, of PEFT's, which has nothing else, LoRA.
    wanted = {
        each
        for name, leaf in experiment.partition.leaves.items()
        for each in leaf.names
        if (name.endswith(lora.LEAVES) if alone else leaf.trainable and each not in held)
    }
    adapters.check(
        path,
        given,
        shapes={name: tuple(leaf.shape) for name, leaf in shapes.items()},
        wanted=wanted,
        lora=experiment.change,
        classes={name: tuple(task.classes) for name, task in experiment.tasks.items()},
    )
    said = f'adapter: {path}, {given.told}'
    if alone:
        said += f'; PEFT does not tell the weights that it was trained beside (base_model_name_or_path: {given.base})'
    elif _fingerprint(experiment, held, shapes, given.params) != given.fingerprint:
        raise adapters.AdapterError(
            f'{path} was trained beside other parameters than init_from={experiment.config.init_from} gives: name the '
            'weights that its run began with, and the same frames and size, since positions are resized to them'
        )
    either = held | dict(given.params)
    return {
        name: either[name] if each == (name,) else np.stack([either[one] for one in each])
        for name, each in names.items()
        if any(one in given.params for one in each)
    }, said


def _in_peft(experiment: build.Experiment) -> adapters.Adapter:
    """The adapter of a folder of PEFT's, its `head` being that of the one task whose head has LoRA."""
    config = experiment.config
    given = peft.read(config.weights.adapter, config.backbone.kind)
    if not any(name.startswith('head/') for name in given.params):
        return given
    tasks = sorted({name.split('/')[0] for name in experiment.partition.leaves if name.endswith(lora.LEAVES)})
    tasks = [f'heads_{config.weights.head}'] if config.weights.head else [name for name in tasks if name != 'backbone']
    if len(tasks) != 1:
        raise ConfigError(
            f'weights.adapter: LoRA of one head is in it, and here {len(tasks)} heads have some; name the '
            'task by weights.head'
        )
    params = {_rooted(name, {'head': tasks[0], 'backbone': 'backbone'}): value for name, value in given.params.items()}
    return dataclasses.replace(given, params=params)


def _fingerprint(
    experiment: build.Experiment,
    held: Mapping[str, np.ndarray],
    shapes: Mapping[str, jax.ShapeDtypeStruct],
    adapter: Mapping[str, np.ndarray],
) -> str | None:
    """Of all the parameters that are not in an adapter, as they would start; see frozen.fingerprint."""
    rest = {name: leaf for name, leaf in shapes.items() if name not in adapter}
    new = {}
    if not rest.keys() <= held.keys():
        new = _canonical(jax.tree.map(np.asarray, jax.jit(experiment.init)(jax.random.key(experiment.config.seed))))
    return frozen.fingerprint({name: (new | held)[name].astype(leaf.dtype, copy=False) for name, leaf in rest.items()})


def _canonical(tree: Any) -> dict[str, Any]:
    """{canonical name: leaf} of a tree in run form."""
    return traverse_util.flatten_dict(layers.to_canonical(tree), sep='/')
