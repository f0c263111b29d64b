"""Config -> Experiment: plain dicts of factories, and the only place that knows them all by name."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import traverse_util

from vidloc import config as config_lib
from vidloc import settings
from vidloc.annotations import ava, class_list, formats
from vidloc.config import ConfigError, Part
from vidloc.data import clips, keyframes, mixture, pipeline, sources
from vidloc.models import (
    attention,
    attentive_pooler,
    classification_head,
    internvideo2,
    layers,
    localizer,
    preprocess,
    projector_head,
    roi_head,
    videomae,
    vivit,
    vivit_joint,
    vjepa2,
)
from vidloc.tasks import action_detection, base, classification
from vidloc.train import layer_decay, loop, optimizer, trainable

POLICY = ('dtype', 'remat', 'unroll', 'segments', 'kernel')
DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}

BACKBONES = {
    'vivit': Part(vivit.ViViT, POLICY),
    'vivit_joint': Part(vivit_joint.JointViViT, POLICY),
    'videomae': Part(videomae.VideoMAE, POLICY),
    'vjepa2': Part(vjepa2.VJepa2, POLICY),
    'internvideo2': Part(internvideo2.InternVideo2, POLICY),
}
HEADS = {
    'roi': Part(roi_head.RoiHead, ('classes', 'encoder')),
    'linear': Part(classification_head.ClassificationHead, ('classes',)),
    'attentive': Part(attentive_pooler.AttentiveHead, ('classes', *POLICY)),
    'projector': Part(projector_head.ProjectorHead, ('classes',)),
}


@dataclasses.dataclass(frozen=True)
class TaskPart:
    """A kind of task, with the view of the data it needs and the head it has unless a config says otherwise."""

    part: Part
    head: str
    view: Part
    source: Callable[..., sources.Source]


TASKS = {
    'action_detection': TaskPart(
        Part(action_detection.ActionDetection, ('classes', 'head_module')),
        'roi',
        Part(keyframes.Keyframes),
        keyframes.KeyframeSource,
    ),
    'classification': TaskPart(
        Part(classification.Classification, ('classes', 'head_module')),
        'linear',
        Part(clips.Clips),
        clips.ClipSource,
    ),
}
FORMATS = {
    'ava': Part(formats.AvaFiles),
    'clips': Part(formats.ClipFiles),
    'kinetics': Part(formats.KineticsFiles),
    'moments': Part(formats.MomentsFiles),
    'something': Part(formats.SomethingFiles),
    'ucf101': Part(formats.UcfFiles),
    'folders': Part(formats.FolderFiles),
    'activitynet': Part(formats.ActivityNetFiles),
    'table': Part(formats.TableFiles),
}
OPTIMIZERS = {'sgd': Part(optimizer.SGD), 'adamw': Part(optimizer.AdamW)}

# Nothing frozen; biases, norms, positions and tokens do not decay.
TRAIN_ALL = (
    (rf'.*/{trainable.PLAIN}', 1.0, False),
    (r'.*', 1.0, True),
)


SECTIONS = {
    'preprocess': Part(preprocess.Preprocess),
    'mixture': Part(mixture.Mixture),
    'schedule': Part(settings.Rates),
    'train': Part(settings.Training),
    'eval': Part(settings.Evaluation),
    'checkpoint': Part(settings.Keeping),
    'log': Part(loop.Rhythm),
    'mesh': Part(settings.MeshShape),
    'loading': Part(pipeline.Loading),
    'precision': Part(settings.Precision),
    'weights': Part(settings.Weights),
}


def config(
    *,
    name: str,
    backbone: Mapping[str, Any],
    tasks: Mapping[str, Mapping[str, Any]],
    sources: Mapping[str, Mapping[str, Any]],
    eval_sources: Mapping[str, Mapping[str, Any]] | None = None,
    optimizer: Mapping[str, Any],
    trainable: Sequence[tuple[str, float | None, bool]] = TRAIN_ALL,
    seed: int = 0,
    init_from: str = '',
    hint: str = '',
    **sections: Mapping[str, Any],
) -> ml_collections.ConfigDict:
    """A config with every field of the chosen parts filled in. Raises ConfigError for what does not exist.

    backbone: {'kind': key of BACKBONES, field: value}. tasks: {task: {'kind', 'classes' | 'class_list' |
    'num_classes', 'head': {'kind', ...}, fields}}. sources, eval_sources: {source: {'task', 'format', fields of the
    format and of the task's view}}; an evaluated source has the name of the source it belongs to, if it has one.
    trainable: the freezing table (train/trainable.py). init_from: pretrained weights, or the workdir of an earlier
    run, to start from (transfer.py); '' starts from scratch. hint: said when data are missing: how to get them.
    sections: any of SECTIONS.
    """
    for key in sections:
        config_lib.choose(SECTIONS, key, 'config')
    filled_tasks = {task: _task(given, f'tasks.{task}') for task, given in tasks.items()}
    filled = {
        'name': name,
        'seed': seed,
        'init_from': init_from,
        'hint': hint,
        'backbone': _chosen(BACKBONES, backbone, 'backbone'),
        'tasks': filled_tasks,
        'sources': {key: _source(given, filled_tasks, f'sources.{key}') for key, given in sources.items()},
        'eval_sources': {
            key: _source(given, filled_tasks, f'eval_sources.{key}') for key, given in (eval_sources or {}).items()
        },
        'optimizer': _chosen(OPTIMIZERS, optimizer, 'optimizer'),
        'trainable': tuple(tuple(rule) for rule in trainable),
    }
    for key, part in SECTIONS.items():
        filled[key] = config_lib.fill(part, sections.get(key, {}), key)
    # convert_dict stays on, so that every group can be overridden field by field; locked, so that typos are found.
    return ml_collections.ConfigDict(filled).lock()


def layerwise(backbone: Mapping[str, Any], decay: float) -> tuple[tuple[str, float | None, bool], ...]:
    """A freezing table for `config`: everything trains, deeper layers slower (train/layer_decay.py).

    backbone: as for `config`. Raises ConfigError.
    """
    chosen = _chosen(BACKBONES, backbone, 'backbone')
    try:
        module = config_lib.make(BACKBONES[chosen['kind']], chosen)
        return layer_decay.table(module.stacks(), decay, names=backbone_shapes(backbone).keys())
    except ValueError as error:
        raise ConfigError(f'layer-wise decay: {error}') from error


def backbone_shapes(backbone: Mapping[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
    """{canonical name: shape and dtype} of a backbone's parameters. Raises ConfigError and ValueError."""
    chosen = _chosen(BACKBONES, backbone, 'backbone')
    module = config_lib.make(BACKBONES[chosen['kind']], chosen)
    # No parameter's shape depends on the video; one tubelet row of patches will do.
    rows, columns = (2 * side for side in chosen['patch'])
    frames = 2 * chosen['tubelet']
    video, valid = jnp.zeros((1, frames, rows, columns, 3)), jnp.ones((1, frames), bool)
    run = jax.eval_shape(lambda key: module.init(key, video, valid, train=False), jax.random.key(0))['params']
    return traverse_util.flatten_dict({'backbone': layers.to_canonical(run)}, sep='/')


def _chosen(parts: Mapping[str, Part], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    if 'kind' not in given:
        raise ConfigError(f'{where}: which kind? known: {", ".join(sorted(parts))}')
    part = config_lib.choose(parts, given['kind'], f'{where}.kind')
    rest = {key: value for key, value in given.items() if key != 'kind'}
    return {'kind': given['kind']} | config_lib.fill(part, rest, where)


def _task(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    kind = config_lib.choose(TASKS, given.get('kind', ''), f'{where}.kind')
    names = {'classes': (), 'class_list': '', 'num_classes': 0}
    rest = {key: value for key, value in given.items() if key not in ('kind', 'head')}
    head = {'kind': kind.head} | dict(given.get('head', {}))
    filled = config_lib.fill(kind.part, rest, where, extra=names)
    return {'kind': given['kind']} | filled | {'head': _chosen(HEADS, head, f'{where}.head')}


def _source(given: Mapping[str, Any], tasks: Mapping[str, Any], where: str) -> dict[str, Any]:
    task = config_lib.choose(tasks, given.get('task', ''), f'{where}.task')
    form = config_lib.choose(FORMATS, given.get('format', ''), f'{where}.format')
    view = TASKS[task['kind']].view
    rest = {key: value for key, value in given.items() if key not in ('task', 'format')}
    head = {'task': given['task'], 'format': given['format']}
    return head | config_lib.fill(view, rest, where, extra=form.defaults())


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment:
    """What a config alone determines.

    model: the Localizer. tasks: {name: task}. abstract_batches: {task: batch of ShapeDtypeStructs}.
    abstract_params: run form. partition: which of them train. segments: how layers are stacked.
    """

    config: ml_collections.ConfigDict
    model: localizer.Localizer
    tasks: dict[str, base.Task]
    abstract_batches: dict[str, dict[str, jax.ShapeDtypeStruct]]
    abstract_params: Any
    partition: trainable.Partition
    segments: dict[str, Any]

    def init(self, key: jax.Array) -> Any:
        """All parameters, run form; pure, to be compiled."""
        return localizer.init(self.model, key, self.abstract_batches)

    def apply(self, params: Any, batches: Mapping[str, base.Batch], *, train: bool, rngs: Mapping[str, Any]) -> Any:
        """{task: batch} -> {task: outputs}."""
        return self.model.apply({'params': params}, batches, train=train, rngs=rngs)

    def optimizer(self, total_steps: int, warmup_steps: int) -> optimizer.Optimizer:
        """The optimiser for a run of a known length."""
        chosen, train, rates = self.config.optimizer, self.config.train, self.config.schedule
        try:
            schedule = optimizer.Schedule(
                rate=rates.rate, total=total_steps, warmup=warmup_steps, kind=rates.kind, end=rates.end
            )
        except ValueError as error:
            raise ConfigError(f'schedule: {error}') from error
        return optimizer.Optimizer(
            rule=config_lib.make(OPTIMIZERS[chosen.kind], chosen),
            schedule=schedule,
            rates=self.partition.rates(),
            decay=self.partition.decay(),
            clip=train.clip_norm or None,
            ema=train.ema or None,
            update_idle_heads=train.update_idle_heads,
        )


def experiment(config: ml_collections.ConfigDict) -> Experiment:
    """Model, tasks and freezing from the config; opens no file but existing class lists. Raises ConfigError."""
    table = config_lib.plain(config.trainable)
    try:
        # The freezing table decides which layers are stacked together, and its patterns are matched against the
        # parameters of the model as it would be without any boundary.
        tasks, model = _model(config, {})
        batches = abstract_batches(config, tasks)
        segments = trainable.boundaries(table, _abstract_params(model, batches))
        tasks, model = _model(config, segments)
        params = _abstract_params(model, batches)
        partition = trainable.resolve(table, params)
    except (ValueError, TypeError) as error:
        raise ConfigError(f'config {config.name!r} cannot be built: {error}') from error
    return Experiment(config, model, tasks, batches, params, partition, segments)


def _abstract_params(model: localizer.Localizer, batches: Mapping[str, Any]) -> Any:
    return jax.eval_shape(lambda key: localizer.init(model, key, batches), jax.random.key(0))


def _model(
    config: ml_collections.ConfigDict, segments: Mapping[str, Any]
) -> tuple[dict[str, base.Task], localizer.Localizer]:
    backbone_part = BACKBONES[config.backbone.kind]
    policy = _policy(config)
    backbone = config_lib.make(backbone_part, config.backbone, **policy, segments=_own(segments, 'backbone/'))
    tasks = {name: _make_task(name, values, backbone, policy, segments) for name, values in config.tasks.items()}
    heads = {name: task.head() for name, task in tasks.items()}
    prepare = config_lib.make(SECTIONS['preprocess'], config.preprocess)
    return tasks, localizer.Localizer(backbone=backbone, heads=heads, preprocess=prepare)


def _policy(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """How the same function is computed: fields that every backbone, and a head with blocks of its own, has."""
    precision = config.precision
    dtype = config_lib.choose(DTYPES, precision.compute, 'precision.compute')
    kernel = precision.attention
    if kernel == 'auto':
        takes = attention.fused(config.backbone.width, config.backbone.heads, dtype)
        kernel = 'cudnn' if takes and jax.default_backend() == 'gpu' else 'xla'
    return {'dtype': dtype, 'remat': precision.remat, 'unroll': precision.unroll, 'kernel': kernel}


def _own(segments: Mapping[str, Any], root: str) -> dict[str, Any]:
    """The segments of the stacks under `root`, by the last part of their names."""
    return {path.rpartition('/')[2]: runs for path, runs in segments.items() if path.startswith(root)}


def _make_task(
    name: str,
    values: ml_collections.ConfigDict,
    backbone: nn.Module,
    policy: Mapping[str, Any],
    segments: Mapping[str, Any],
) -> base.Task:
    classes = class_names(name, values)
    part = HEADS[values.head.kind]
    inside = 'temporal' in values.head and values.head.temporal == 'encoder'
    if inside and not hasattr(backbone, 'encode_time'):
        raise ConfigError(
            f"tasks.{name}.head.temporal='encoder' needs a backbone with a temporal encoder of its own, such as "
            f"vivit; {type(backbone).__name__} has none: use 'mean' or 'max'"
        )
    known = policy | {
        'classes': len(classes),
        'segments': _own(segments, f'heads_{name}/'),
        # The same instance as the Localizer's, so that the parameters are shared.
        'encoder': backbone if inside else None,
    }
    head = config_lib.make(part, values.head, **{field: known[field] for field in part.supplied})
    return config_lib.make(TASKS[values.kind].part, values, classes=classes, head_module=head)


def class_names(name: str, values: ml_collections.ConfigDict) -> tuple[str, ...]:
    """The ordered class names of a task: from the config, else from its class list, else numbered."""
    classes = tuple(values.classes)
    if not classes and values.class_list and os.path.isfile(values.class_list):
        classes = class_list.read_class_list(values.class_list)
    if classes and values.num_classes not in (0, len(classes)):
        raise ConfigError(
            f'tasks.{name}: num_classes is {values.num_classes}, '
            f'but {values.class_list or "classes"} has {len(classes)}'
        )
    if not classes and not values.num_classes:
        raise ConfigError(f'tasks.{name}: set classes, class_list or num_classes; {values.class_list!r} is no file')
    return classes or tuple(f'class {i}' for i in range(values.num_classes))


def abstract_batches(
    config: ml_collections.ConfigDict, tasks: Mapping[str, base.Task]
) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """{task: batch} with the shapes of the first source that feeds the task. Raises ConfigError if none does."""
    batches = {}
    for name, task in tasks.items():
        views = [view for view in config.sources.values() if view.task == name]
        if not views:
            raise ConfigError(f'tasks.{name}: no source has task={name!r}; its head would never be trained')
        batches[name] = abstract_batch(views[0], len(task.classes), views[0].batch_size or config.train.batch_size)
    return batches


def abstract_batch(view: ml_collections.ConfigDict, classes: int, size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a source's batch, as data.batching.collate makes it."""

    def of(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((size, *shape), dtype)

    batch = {
        'video': of((view.frames, *view.size, 3), jnp.uint8),
        'frame_valid': of((view.frames,), jnp.bool_),
        'seed': of((), jnp.uint32),
        'example_id': of((), jnp.int32),
        'example_valid': of((), jnp.bool_),
        'replaced': of((), jnp.bool_),
        'broken_id': of((), jnp.int32),
        'labels': of((classes,), jnp.float32),
    }
    if 'max_boxes' in view:
        boxes = view.max_boxes
        batch |= {
            'boxes': of((boxes, 4), jnp.float32),
            'source_boxes': of((boxes, 4), jnp.float32),
            'box_mask': of((boxes,), jnp.bool_),
            'box_scores': of((boxes,), jnp.float32),
            'labels': of((boxes, classes), jnp.float32),
        }
    return batch


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
    views = config.sources if train else config.eval_sources
    views = {name: view for name, view in views.items() if only is None or name in only}
    missing = [line for name, view in views.items() for line in _missing(name, view, train)]
    if missing:
        raise sources.DataError('\n'.join(['data are missing:', *missing, *([config.hint] if config.hint else [])]))
    opened = {}
    for name, view in views.items():
        task = config.tasks[view.task]
        classes = tasks[view.task].classes
        if task.class_list and not os.path.isfile(task.class_list):
            raise sources.DataError(f'tasks.{view.task}.class_list: no file {task.class_list!r}. {config.hint}')
        records = config_lib.make(FORMATS[view.format], view).read()
        _check_labels(name, records, classes)
        kind = TASKS[task.kind]
        if not train and kind.source is keyframes.KeyframeSource:
            _check_action_list(name, view, classes)
        opened[name] = kind.source(name, config_lib.make(kind.view, view), records, classes, train=train)
    return opened


def has_boxes(config: ml_collections.ConfigDict, task: str) -> bool:
    """Whether the sources of a task are keyframes with boxes."""
    return TASKS[config.tasks[task].kind].source is keyframes.KeyframeSource


def _missing(name: str, view: ml_collections.ConfigDict, train: bool) -> list[str]:
    group = 'sources' if train else 'eval_sources'
    lines = []
    form = config_lib.make(FORMATS[view.format], view)
    for field, paths in form.files().items():
        where = f'  {group}.{name}.{field} (format {view.format!r})'
        if not paths or not all(paths):
            lines.append(f'{where}: not set')
        lines += [f'{where}: nothing at {path!r}' for path in paths if path and not os.path.exists(path)]
    if not os.path.isdir(view.videos):
        lines.append(f'  {group}.{name}.videos: no folder {view.videos!r}')
    return lines


def _check_action_list(name: str, view: ml_collections.ConfigDict, classes: Sequence[str]) -> None:
    """The action list of an evaluated source says which classes are scored and their ids; the task must have them."""
    if 'labels' not in view:
        raise sources.DataError(f'eval_sources.{name}: boxes are evaluated with an action list; use format ava')
    unknown = sorted(set(ava.read_label_map(view.labels).values()) - set(classes))
    if unknown:
        raise sources.DataError(
            f'eval_sources.{name}.labels: {view.labels} has {len(unknown)} classes that task {view.task} lacks, such '
            f'as {unknown[0]!r}; name a list of no more than the classes of tasks.{view.task}.class_list'
        )


def _check_labels(name: str, records: Sequence[Any], classes: Sequence[str]) -> None:
    known = set(classes)
    for record in records:
        found = [label for person in record.boxes for label in person.labels] + [item.label for item in record.labels]
        for label in found:
            if label not in known:
                raise sources.DataError(
                    f'source {name}: {record.video} has the label {label!r}, which is not among the {len(known)} '
                    f'classes of its task; {config_lib.nearest(label, known)}'
                )


def start_biases(experiment: Experiment, opened: Mapping[str, sources.Source]) -> dict[str, np.ndarray]:
    """{canonical name: [C]} of the output biases that start at the training log-odds (train.log_odds_bias)."""
    if not experiment.config.train.log_odds_bias:
        return {}
    biases = {}
    for source in opened.values():
        task = experiment.config.sources[source.name].task
        if isinstance(source, keyframes.KeyframeSource):
            share = np.clip(source.label_share(), 1e-3, 1 - 1e-3)
            biases[f'heads_{task}/output/bias'] = np.log(share / (1 - share)).astype(np.float32)
    return biases
