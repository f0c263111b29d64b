"""Config -> Experiment: plain dicts of factories, and the only place that knows them all by name."""

import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
from flax import traverse_util

from vidloc import adaptation, settings, texts
from vidloc import config as config_lib
from vidloc.annotations import class_list, formats
from vidloc.config import ConfigError, Part
from vidloc.data import clips, feature_windows, keyframes, mixture, pipeline, sources, windows
from vidloc.models import (
    actionformer,
    attention,
    attentive_pooler,
    classification_head,
    clip_loop,
    film,
    internvideo2,
    ladder,
    layers,
    localizer,
    lora,
    losa,
    precomputed,
    preprocess,
    projector_head,
    roi_head,
    videomae,
    vivit,
    vivit_joint,
    vjepa2,
)
from vidloc.tasks import action_detection, base, classification, group_relative, temporal_localization
from vidloc.train import layer_decay, loop, optimizer, trainable

POLICY = ('dtype', 'remat', 'unroll', 'segments', 'kernel', 'lora')
DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}

BACKBONES = {
    'vivit': Part(vivit.ViViT, POLICY),
    'vivit_joint': Part(vivit_joint.JointViViT, POLICY),
    'videomae': Part(videomae.VideoMAE, POLICY),
    'vjepa2': Part(vjepa2.VJepa2, POLICY),
    'internvideo2': Part(internvideo2.InternVideo2, POLICY),
    'features': Part(precomputed.Precomputed),
}
# Beside the backbone, which they leave as it is.
BESIDE = ('width', 'depth', 'tokens', 'dtype', 'memory')
SIDES = {'none': None, 'losa': Part(losa.LoSA, BESIDE), 'ladder': Part(ladder.Ladder, BESIDE)}
# Inside the backbone, in training.
FILMS = {'none': None, 'learned': Part(film.Film, ('width',)), 'noise': Part(film.Noise, ('width',))}
HEADS = {
    'roi': Part(roi_head.RoiHead, ('classes', 'encoder')),
    'linear': Part(classification_head.ClassificationHead, ('classes',)),
    'attentive': Part(attentive_pooler.AttentiveHead, ('classes', *POLICY)),
    'projector': Part(projector_head.ProjectorHead, ('classes',)),
    'actionformer': Part(actionformer.ActionFormer, ('classes', 'inputs', 'dtype')),
}


@dataclasses.dataclass(frozen=True)
class View:
    """One way to cut examples from a data set. folder: the field that names the folder of its videos or features."""

    part: Part
    source: Callable[..., sources.Source]
    folder: str = 'videos'


@dataclasses.dataclass(frozen=True)
class TaskPart:
    """A kind of task, the head it has unless a config says otherwise, and its views, by name, the usual one first.

    truth: what of a record its classes are the labels of. groups: its fields that are groups of settings.
    """

    part: Part
    head: str
    views: Mapping[str, View]
    truth: tuple[str, ...]
    groups: Mapping[str, Part] = dataclasses.field(default_factory=dict)

    def filled(self, given: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The groups of a task with every field of theirs."""
        return {
            name: config_lib.fill(part, given.get(name, {}), f'{where}.{name}') for name, part in self.groups.items()
        }


AUGMENTED = {'group': Part(group_relative.GroupRelative)}


TASKS = {
    'action_detection': TaskPart(
        Part(action_detection.ActionDetection, ('classes', 'head_module', *AUGMENTED)),
        'roi',
        {'keyframes': View(Part(keyframes.Keyframes), keyframes.KeyframeSource)},
        ('boxes', 'labels'),
        AUGMENTED,
    ),
    'classification': TaskPart(
        Part(classification.Classification, ('classes', 'head_module', *AUGMENTED)),
        'linear',
        {'clips': View(Part(clips.Clips), clips.ClipSource)},
        ('boxes', 'labels'),
        AUGMENTED,
    ),
    'temporal_localization': TaskPart(
        Part(temporal_localization.TemporalLocalization, ('classes', 'head_module')),
        'actionformer',
        {
            'windows': View(Part(windows.Windows), windows.WindowSource),
            'features': View(Part(feature_windows.FeatureWindows), feature_windows.FeatureSource, 'features'),
        },
        ('segments',),
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
    'moma': Part(formats.MomaFiles),
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
    'lora': adaptation.LORA,
    'clips': Part(clip_loop.Clips),
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
    side: Mapping[str, Any] | None = None,
    film: Mapping[str, Any] | None = None,
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

    backbone: {'kind': key of BACKBONES, field: value}. side: {'kind': key of SIDES, fields}, an adapter beside the
    backbone, which must then be frozen by the table. film: {'kind': key of FILMS, fields}, augmentation of features in
    training. tasks: {task: {'kind', 'classes' | 'class_list' | 'num_classes', 'head': {'kind', ...}, fields, and
    'group': {fields} of the loss of augmented features}}. sources, eval_sources: {source: {'task', 'format', fields of
    the format and of the task's view}}, and 'view' where the task has several; an evaluated source has the name of the
    source it belongs to, if it has one.
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
        'side': _chosen(SIDES, side or {'kind': 'none'}, 'side'),
        'film': _chosen(FILMS, film or {'kind': 'none'}, 'film'),
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


def completed(stored: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """The config of a run, as its W/config.json holds it; what later versions added has its default."""
    later = {key: part.defaults() | dict(stored.get(key, {})) for key, part in SECTIONS.items()}
    tasks = {
        name: {**task, **TASKS[task['kind']].filled(task, f'tasks.{name}')} for name, task in stored['tasks'].items()
    }
    return ml_collections.ConfigDict(
        {'side': {'kind': 'none'}, 'film': {'kind': 'none'}, **stored, **later, 'tasks': tasks}
    )


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
    video, valid = _glance(chosen)
    run = jax.eval_shape(lambda key: module.init(key, video, valid, train=False), jax.random.key(0))['params']
    return traverse_util.flatten_dict({'backbone': layers.to_canonical(run)}, sep='/')


def _glance(backbone: Mapping[str, Any]) -> tuple[jax.Array, jax.Array]:
    """The least video for a backbone, and its valid frames: no parameter's shape depends on it."""
    rows, columns = (2 * side for side in backbone['patch'])
    frames = 2 * backbone['tubelet']
    return jnp.zeros((1, frames, rows, columns, 3)), jnp.ones((1, frames), bool)


def _chosen(parts: Mapping[str, Part], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    if 'kind' not in given:
        raise ConfigError(f'{where}: which kind? known: {", ".join(sorted(parts))}')
    part = config_lib.choose(parts, given['kind'], f'{where}.kind')
    rest = {key: value for key, value in given.items() if key != 'kind'}
    if part is None:
        if rest:
            raise ConfigError(f'{where}: kind {given["kind"]!r} has no field {sorted(rest)[0]!r}')
        return {'kind': given['kind']}
    return {'kind': given['kind']} | config_lib.fill(part, rest, where)


def _task(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    kind = config_lib.choose(TASKS, given.get('kind', ''), f'{where}.kind')
    names = {'classes': (), 'class_list': '', 'num_classes': 0}
    rest = {key: value for key, value in given.items() if key not in ('kind', 'head', *kind.groups)}
    head = {'kind': kind.head} | dict(given.get('head', {}))
    filled = config_lib.fill(kind.part, rest, where, extra=names) | kind.filled(given, where)
    return {'kind': given['kind']} | filled | {'head': _chosen(HEADS, head, f'{where}.head')}


def _source(given: Mapping[str, Any], tasks: Mapping[str, Any], where: str) -> dict[str, Any]:
    task = config_lib.choose(tasks, given.get('task', ''), f'{where}.task')
    form = config_lib.choose(FORMATS, given.get('format', ''), f'{where}.format')
    views = TASKS[task['kind']].views
    rest = {key: value for key, value in given.items() if key not in ('task', 'format', 'view')}
    head = {'task': given['task'], 'format': given['format']}
    usual, *others = views
    if others or 'view' in given:
        head['view'] = given.get('view', usual)
    view = config_lib.choose(views, head.get('view', usual), f'{where}.view')
    return head | config_lib.fill(view.part, rest, where, extra=form.defaults())


def view_of(config: ml_collections.ConfigDict, source: ml_collections.ConfigDict) -> View:
    """The view of a source of the config."""
    views = TASKS[config.tasks[source.task].kind].views
    return views[source.view if 'view' in source else next(iter(views))]


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

    @property
    def change(self) -> lora.Lora:
        """The LoRA of the model, its layers counted from the first; rank 0: there is none."""
        made = config_lib.make(adaptation.LORA, self.config.lora)
        if made.rank and 'backbone' in made.where:
            made = dataclasses.replace(made, layers=made.span(sum(self.model.backbone.stacks().values())))
        return made

    def kept(self, frozen: Any) -> Any:
        """The frozen leaves as they stand on the device: matrices in precision.frozen. Arrays in, arrays out."""
        dtype = config_lib.choose(DTYPES, self.config.precision.frozen, 'precision.frozen')
        if dtype == jnp.float32:
            return frozen
        plain = re.compile(rf'(.*/)?{trainable.PLAIN}')
        flat = traverse_util.flatten_dict(frozen, sep='/')
        cast = {name: leaf if plain.fullmatch(name) else leaf.astype(dtype) for name, leaf in flat.items()}
        return traverse_util.unflatten_dict(cast, sep='/')

    def apply(self, params: Any, batches: Mapping[str, base.Batch], *, train: bool, rngs: Mapping[str, Any]) -> Any:
        """{task: batch} -> {task: outputs}."""
        return self.model.apply({'params': params}, batches, train=train, rngs=rngs)

    def optimizer(self, total_steps: int, warmup_steps: int) -> optimizer.Optimizer:
        """The optimiser for a run of a known length."""
        chosen, train, rates = self.config.optimizer, self.config.train, self.config.schedule
        try:
            schedule = optimizer.Schedule(
                rate=rates.rate,
                total=total_steps,
                warmup=warmup_steps,
                kind=rates.kind,
                end=rates.end,
                warmup_from_zero=rates.warmup_from_zero,
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
    """Model, tasks and freezing from the config; opens no file but existing class lists, and those of text embeddings
    whose width the config does not say. Raises ConfigError.

    Text embeddings stay as they are given unless a row of the freezing table is meant for them alone.
    """
    table = config_lib.plain(config.trainable)
    try:
        # The freezing table, and the layers that adapters change or tap, decide which layers are stacked together; the
        # table's patterns are matched against the parameters of the model as it would be without its boundaries.
        tasks, model = _model(config, {})
        tasks, model = _model(config, adaptation.parted(model))
        batches = abstract_batches(config, tasks)
        params = _abstract_params(model, batches)
        adaptation.check(config, params)
        table = trainable.keeping(table, params, texts.leaves(config).values())
        segments = trainable.boundaries(table, params)
        tasks, model = _model(config, segments)
        params = _abstract_params(model, batches)
        partition = trainable.resolve(table, params)
        model = model.clone(still=_still(partition))
        if model.side is not None and not model.still:
            raise ConfigError(
                f'side={config.side.kind!r} leaves the backbone as it is; the table `trainable` must freeze it: '
                "begin it with ('backbone/.*', None, False)"
            )
        if model.film is not None:
            adaptation.trace(model, params, batches)
    except (ValueError, TypeError) as error:
        raise ConfigError(f'config {config.name!r} cannot be built: {error}') from error
    return Experiment(config, model, tasks, batches, params, partition, segments)


def _abstract_params(model: localizer.Localizer, batches: Mapping[str, Any]) -> Any:
    return jax.eval_shape(lambda key: localizer.init(model, key, batches), jax.random.key(0))


def _still(partition: trainable.Partition) -> bool:
    """Whether nothing of the backbone trains."""
    return not any(leaf.trainable for name, leaf in partition.leaves.items() if name.startswith('backbone/'))


def _model(
    config: ml_collections.ConfigDict, segments: Mapping[str, Any]
) -> tuple[dict[str, base.Task], localizer.Localizer]:
    backbone_part = BACKBONES[config.backbone.kind]
    policy, change = _policy(config), adaptation.change(config)
    inside = change if change and 'backbone' in change.where else None
    supplied = policy | {'segments': _own(segments, 'backbone/'), 'lora': inside}
    backbone = config_lib.make(backbone_part, config.backbone, **{key: supplied[key] for key in backbone_part.supplied})
    known = policy | {
        'inputs': _inputs(config, backbone),
        'lora': change if change and 'heads' in change.where else None,
    }
    tasks = {name: _make_task(name, values, backbone, known, segments) for name, values in config.tasks.items()}
    heads = {name: task.head() for name, task in tasks.items()}
    prepare = config_lib.make(SECTIONS['preprocess'], config.preprocess)
    loop = config_lib.make(SECTIONS['clips'], config.clips)
    side = adaptation.side(SIDES[config.side.kind], config, backbone, loop, policy['dtype'])
    augmenting = adaptation.film(FILMS[config.film.kind], config, backbone, side, _without_group(config))
    return tasks, localizer.Localizer(backbone, heads, prepare, side, loop, film=augmenting)


def _without_group(config: ml_collections.ConfigDict) -> list[str]:
    """The tasks whose loss does not take augmented features."""
    return [name for name, task in config.tasks.items() if 'group' not in TASKS[task.kind].groups]


def _inputs(config: ml_collections.ConfigDict, backbone: nn.Module) -> int:
    """Channels of what the backbone gives."""
    if config.backbone.kind == 'features':
        return backbone.width
    video, valid = _glance(config.backbone)
    key = jax.random.key(0)
    grid = jax.eval_shape(lambda: backbone.init_with_output(key, video, valid, train=False)[0].grid)
    return grid.shape[-1]


def _policy(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """How the same function is computed: fields that every backbone, and a head with blocks of its own, has."""
    precision = config.precision
    dtype = config_lib.choose(DTYPES, precision.compute, 'precision.compute')
    kernel = precision.attention
    if kernel == 'auto':
        takes = 'heads' in config.backbone and attention.fused(config.backbone.width, config.backbone.heads, dtype)
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
    # Proposals tell something from nothing, whatever it is.
    agnostic = 'proposals' in values and values.proposals
    known = policy | {
        'classes': 1 if agnostic else len(classes),
        'segments': _own(segments, f'heads_{name}/'),
        # The same instance as the Localizer's, so that the parameters are shared.
        'encoder': backbone if inside else None,
    }
    chosen = {**values.head, 'text_width': texts.width(name, values.head)}
    head = config_lib.make(part, chosen, **{field: known[field] for field in part.supplied})
    kind = TASKS[values.kind]
    groups = {name: config_lib.make(inner, values.get(name, {})) for name, inner in kind.groups.items()}
    return config_lib.make(kind.part, values, classes=classes, head_module=head, **groups)


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
        feeding = [source for source in config.sources.values() if source.task == name]
        if not feeding:
            raise ConfigError(f'tasks.{name}: no source has task={name!r}; its head would never be trained')
        size = feeding[0].batch_size or config.train.batch_size
        batches[name] = abstract_batch(config, feeding[0], len(task.classes), size)
    return batches


def abstract_batch(
    config: ml_collections.ConfigDict, source: ml_collections.ConfigDict, classes: int, size: int
) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a source's batch, as data.batching.collate makes it."""
    view = config_lib.make(view_of(config, source).part, source)
    return {name: jax.ShapeDtypeStruct(shape, kind) for name, (shape, kind) in view.layout(classes).batch(size).items()}
