"""A run from start to end: train (or resume), evaluate, describe. The order of what is done is the order of reading."""

import dataclasses
import logging
import math
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
from flax import traverse_util

from vidloc import build, parameters, settling, supply, texts, transfer, watching
from vidloc import config as config_lib
from vidloc import workdir as workdir_lib
from vidloc.annotations import records
from vidloc.checkpoints import frozen as frozen_lib
from vidloc.checkpoints import store as store_lib
from vidloc.data import pipeline, readiness, sources
from vidloc.models import flops, layers
from vidloc.report import results
from vidloc.train import evaluate as evaluate_lib
from vidloc.train import loop, sharding, step, writer
from vidloc.train import state as state_lib
from vidloc.workdir import RunError


@dataclasses.dataclass(frozen=True)
class Length:
    """How long a run is, and which source is drawn when."""

    schedule: np.ndarray
    total: int
    warmup: int
    batch_sizes: tuple[int, ...]


def length(config: ml_collections.ConfigDict, opened: Mapping[str, sources.Source]) -> Length:
    """Steps from epochs of the summed sizes (or as given), warm-up likewise. Raises RunError."""
    sizes = {name: len(source) for name, source in opened.items()}
    if config.train.batch_size < 1 or config.train.accumulate < 1:
        raise RunError('train.batch_size and train.accumulate must be at least 1')
    batch_sizes = {name: source.view.batch_size or config.train.batch_size for name, source in opened.items()}
    mix = config_lib.make(build.SECTIONS['mixture'], config.mixture)
    try:
        epoch = mix.steps_per_epoch(sizes, batch_sizes)
    except ValueError as error:
        raise RunError(str(error)) from error
    total = config.train.steps or math.ceil(config.train.epochs * epoch)
    if total < 1:
        raise RunError('the run has no steps; set train.steps or train.epochs')
    uneven = {name: size for name, size in batch_sizes.items() if size % config.train.accumulate}
    if uneven:
        raise RunError(f'train.accumulate={config.train.accumulate} does not divide the batch sizes {uneven}')
    warmup = config.schedule.warmup_steps or round(config.schedule.warmup_epochs * epoch)
    if warmup > total:
        raise RunError(f'the warm-up of {warmup} steps is longer than the run of {total}')
    return Length(mix.schedule(sizes, total, config.seed), total, warmup, tuple(batch_sizes.values()))


def train(config: ml_collections.ConfigDict, workdir: str | pathlib.Path) -> dict[str, float]:
    """Trains in `workdir`, from its last checkpoint if it has one; returns the last evaluation.

    A run that has all its steps is left as it is.

    Raises ConfigError, DataError, AnnotationError, RunError, CheckpointError, Diverged, TooManyBroken: with texts for
    the user.
    """
    started = time.time()
    workdir = pathlib.Path(workdir)
    lead = jax.process_index() == 0
    config, settled = settling.settle(config, workdir)
    mesh = sharding.make_mesh(data=config.mesh.data, fsdp=config.mesh.fsdp)
    experiment = build.experiment(config)
    opened = supply.open_sources(config, experiment.tasks, train=True)
    check_evaluation(config)
    evaluated = supply.open_sources(config, experiment.tasks, train=False)
    check_data(opened, evaluated, config)
    check_scoring(experiment, evaluated)
    workdir_lib.check(workdir, config, experiment, opened)
    plan = length(config, opened)
    rows = tuple(sharding.process_rows(mesh, size) for size in plan.batch_sizes)
    reading = pipeline.Plan(tuple(opened.values()), plan.schedule, plan.batch_sizes, rows, config.seed)
    optimizer = experiment.optimizer(plan.total, plan.warmup)
    if lead:
        print(parameters.overview(experiment.partition), flush=True)
        print('\n'.join(line for line in (summary(config, opened, evaluated, plan, mesh), settled) if line), flush=True)

    begin = start(experiment, optimizer, opened, mesh, workdir)
    if lead:
        # Not before: weights that do not fit must not leave a config that the next, corrected start would have to keep.
        workdir_lib.write(workdir, config, experiment, opened)
    predict = step.make_predict_step(experiment.apply, experiment.tasks)
    last = begin.store.metrics(begin.step)

    def evaluate(state: state_lib.TrainState, done: int) -> dict[str, float]:
        last.clear()
        weights = state_lib.weights(state)
        last.update(evaluate_all(experiment, evaluated, opened, predict, weights, begin.frozen, mesh, workdir, done))
        return dict(last)

    names = list(opened)
    watch = loop.unwatched
    if lead:
        drawn = np.bincount(plan.schedule, minlength=len(opened)) * plan.batch_sizes
        watch = watching.watch(experiment, opened, drawn, plan.warmup, workdir, begin.step)
    with writer.Writer(workdir, enabled=lead) as log, begin.store:
        if begin.step >= plan.total:
            if lead:
                print(
                    f'already trained: step {begin.step} of {plan.total}. More train.steps or train.epochs train on, '
                    '--mode=eval evaluates again',
                    flush=True,
                )
            if evaluated and not last:
                # It was stopped while it evaluated its last step.
                log.scalars(begin.step, evaluate(begin.state, begin.step))
                log.warnings(begin.step, watch(begin.step, last))
                begin.store.save(begin.step, begin.state, last)
            if lead and not (workdir / workdir_lib.ENVIRONMENT).exists():
                workdir_lib.note_environment(workdir, mesh, plan.schedule, names, time.time() - started)
            return last
        loading = config_lib.make(build.SECTIONS['loading'], config.loading)
        batches = pipeline.train_batches(dataclasses.replace(reading, first_step=begin.step), loading)
        loop.Fit(
            train_step=step.make_train_step(
                experiment.apply,
                experiment.tasks,
                optimizer,
                accumulate=config.train.accumulate,
                log_gradient_norm=config.log.gradient_norm,
                shardings=(sharding.parameter_shardings(mesh, begin.state), sharding.replicated(mesh)),
            ),
            batches=batches,
            sources=[(name, config.sources[name].task) for name in names],
            total_steps=plan.total,
            rhythm=config_lib.make(build.SECTIONS['log'], config.log),
            place=lambda batch: sharding.global_batch(mesh, batch),
            evaluate=evaluate,
            store=begin.store,
            writer=log,
            progress=writer.Progress(plan.total, begin.step, enabled=lead),
            name_example=lambda number, i: opened[names[number]].examples[i].path,
            why_broken=lambda number, i: pipeline.reason(opened[names[number]], i),
            watch=watch,
        ).run(begin.state, begin.frozen, begin.step)
    if lead:
        workdir_lib.note_environment(workdir, mesh, plan.schedule, names, time.time() - started)
    return last


def evaluate(config: ml_collections.ConfigDict, workdir: str | pathlib.Path) -> dict[str, float]:
    """Evaluates the checkpoint that config.eval.checkpoint names; raises as train does."""
    workdir = pathlib.Path(workdir)
    config, _ = settling.settle(config, workdir)
    mesh = sharding.make_mesh(data=config.mesh.data, fsdp=config.mesh.fsdp)
    experiment = build.experiment(config)
    check_evaluation(config)
    evaluated = supply.open_sources(config, experiment.tasks, train=False)
    workdir_lib.check_classes(workdir, experiment)
    check_scoring(experiment, evaluated)
    opened: dict[str, sources.Source] = {}
    for name in config.sources:
        try:
            opened |= supply.open_sources(config, experiment.tasks, train=True, only=(name,))
        except (sources.DataError, records.AnnotationError) as error:
            logging.warning('%s is not there to count its labels: %s', name, error)
    # The shape of the state does not depend on the length of the run.
    begin = start(experiment, experiment.optimizer(1, 0), opened, mesh, workdir, read_only=True)
    predict = step.make_predict_step(experiment.apply, experiment.tasks)
    weights = state_lib.weights(begin.state)
    figures = evaluate_all(experiment, evaluated, opened, predict, weights, begin.frozen, mesh, workdir, begin.step)
    with writer.Writer(workdir, enabled=jax.process_index() == 0) as log:
        log.scalars(begin.step, figures)
    return figures


def describe(config: ml_collections.ConfigDict) -> tuple[dict[str, Any], str]:
    """(parameters, FLOPs and memory of a step; the parameter table), from shapes alone: nothing is computed."""
    experiment = build.experiment(config)
    optimizer = experiment.optimizer(1, 0)
    trained, frozen = experiment.partition.split(experiment.abstract_params)
    frozen = jax.eval_shape(experiment.kept, frozen)
    state = jax.eval_shape(lambda params: state_lib.create(params, optimizer, experiment.tasks, seed=0), trained)
    train_step = step.make_train_step(
        experiment.apply,
        experiment.tasks,
        optimizer,
        accumulate=config.train.accumulate,
        log_gradient_norm=config.log.gradient_norm,
    )
    counts, memory_bytes = {}, {}
    for task, batch in experiment.abstract_batches.items():
        counts[task] = flops.count(train_step, state, frozen, {task: batch})
        memory_bytes[task] = memory(train_step.lower(state, frozen, {task: batch}).compile())
    figures = {
        'parameters_total': experiment.partition.total(),
        'parameters_trainable': experiment.partition.total(trainable=True),
        'parameters_by_kind': parameters.by_kind(experiment.partition),
        'rules': experiment.partition.counts(),
        'flops_per_step': counts,
        'memory_bytes': memory_bytes,
    }
    return figures, parameters.overview(experiment.partition)


def memory(compiled: jax.stages.Compiled) -> int:
    """Bytes that a compiled step needs on a device: arguments, results and what is alive in between."""
    analysis = compiled.memory_analysis()
    needed = analysis.argument_size_in_bytes + analysis.output_size_in_bytes + analysis.temp_size_in_bytes
    return needed - analysis.alias_size_in_bytes


def in_run_form(stored: Mapping[str, np.ndarray], shapes: Any) -> dict[str, Any]:
    """{canonical name: array} -> a tree like `shapes`, which holds only some of the layers of a stack."""
    flat = {}
    for name, names in layers.canonical_names(shapes).items():
        flat[name] = stored[name] if names == (name,) else np.stack([stored[each] for each in names])
    return traverse_util.unflatten_dict(flat, sep='/')


@dataclasses.dataclass(frozen=True)
class Start:
    """Where a run begins: its state, the frozen parameters beside it, its checkpoints, and the steps done."""

    state: state_lib.TrainState
    frozen: Any
    store: store_lib.Store
    step: int


def start(
    experiment: build.Experiment,
    optimizer: Any,
    opened: Mapping[str, sources.Source],
    mesh: jax.sharding.Mesh,
    workdir: pathlib.Path,
    *,
    read_only: bool = False,
) -> Start:
    """From the newest usable checkpoint of `workdir`, or from scratch if it has none (read_only: an error then).

    read_only: for evaluation; reads the checkpoint that config.eval.checkpoint names.
    """
    config = experiment.config
    keep = config.checkpoint
    policy = store_lib.Policy(keep=keep.latest, every=keep.every, best=keep.best or None)
    folder, frozen_file = workdir / 'checkpoints', workdir / 'frozen.safetensors'
    trained_shapes, frozen_shapes = experiment.partition.split(experiment.abstract_params)

    if read_only or store_lib.Store(folder, policy).steps():
        stored, mark = frozen_lib.read_frozen(frozen_file) if frozen_shapes else ({}, None)
        frozen = sharding.place(mesh, experiment.kept(in_run_form(stored, frozen_shapes)))
        store = store_lib.Store(folder, policy, fingerprint=mark, read_only=read_only)
        shapes = jax.eval_shape(
            lambda params: state_lib.create(params, optimizer, experiment.tasks, seed=config.seed), trained_shapes
        )
        target = jax.tree.map(
            lambda leaf, to: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=to),
            shapes,
            sharding.parameter_shardings(mesh, shapes),
        )
        state, done = store.restore(target, store.select(config.eval.checkpoint) if read_only else None)
        return Start(state, frozen, store, done)

    given = dict(supply.start_biases(experiment, opened))
    given |= texts.embeddings(config, {name: task.classes for name, task in experiment.tasks.items()})
    if config.init_from or config.weights.adapter:
        found, said = transfer.begin(experiment)
        given |= found
        if jax.process_index() == 0:
            print(said, flush=True)

    # Frozen leaves that all come from a file go from the host to the device once, as they are kept there: a backbone
    # of a billion parameters in float32 would need more memory than its training.
    wanted = traverse_util.flatten_dict(frozen_shapes, sep='/')
    loaded = {}
    if wanted.keys() <= given.keys():
        loaded = {name: np.asarray(given.pop(name)).astype(leaf.dtype) for name, leaf in wanted.items()}

    def make(key: jax.Array, given: Mapping[str, jax.Array]) -> tuple[state_lib.TrainState, Any]:
        params = traverse_util.flatten_dict(experiment.init(key), sep='/')
        params |= {name: value.astype(params[name].dtype) for name, value in given.items()}
        trained, frozen = experiment.partition.split(traverse_util.unflatten_dict(params, sep='/'))
        return state_lib.create(trained, optimizer, experiment.tasks, seed=config.seed), {} if loaded else frozen

    state, frozen = sharding.initialise(mesh, make, jax.random.key(config.seed), given)
    whole = traverse_util.unflatten_dict(loaded, sep='/') if loaded else sharding.to_host(frozen)
    canonical = traverse_util.flatten_dict(layers.to_canonical(whole), sep='/')
    mark = frozen_lib.fingerprint(canonical)
    if jax.process_index() == 0:
        frozen_lib.write_frozen(frozen_file, canonical)
    frozen = sharding.place(mesh, experiment.kept(whole)) if loaded else jax.jit(experiment.kept)(frozen)
    return Start(state, frozen, store_lib.Store(folder, policy, fingerprint=mark), 0)


def evaluate_all(
    experiment, evaluated, opened, predict, params, frozen, mesh, workdir: pathlib.Path, done: int
) -> dict[str, float]:
    """Scores every evaluation source and writes W/eval/<source>*; returns {eval/<source>/<name>: value}."""
    config, figures, scored = experiment.config, {}, {}
    loading = config_lib.make(build.SECTIONS['loading'], config.loading)
    size = -(-config.eval.batch_size // mesh.size) * mesh.size
    for name, source in evaluated.items():
        task_name = config.eval_sources[name].task
        task = experiment.tasks[task_name]
        plan = pipeline.EvalPlan(source, size, sharding.process_rows(mesh, size))
        found, unread = evaluate_lib.predict(
            lambda weights, batches: predict(weights, frozen, batches),
            params,
            task_name,
            pipeline.eval_batches(plan, loading),
            task.collector(source.examples),
            place=lambda batch: sharding.global_batch(mesh, batch),
            to_host=sharding.to_host,
        )
        for i in sorted(set(unread))[:5]:
            logging.warning('not evaluated %s: %s', source.examples[i].path, pipeline.reason(source, i))
        files = config_lib.plain(config.eval_sources[name])
        scores = results.measure(task.score, source, found, files)
        figures |= {f'eval/{name}/{metric}': value for metric, value in scores.items()}
        if unread:
            broken = {(source.examples[i].video, source.examples[i].time) for i in unread}
            figures[f'eval/{name}/unread'] = float(len(broken))
        if source.left_out:
            figures[f'eval/{name}/left_out_videos'] = float(len(source.left_out))
        scored[name] = results.Scored(
            source=source,
            training=training_of(name, task_name, config, opened),
            detections=found,
            metrics=scores,
            step=done,
            files=files,
            head=config.eval.head,
            tail=config.eval.tail,
        )
        if jax.process_index() == 0:
            results.write(workdir, scored[name])
    figures |= gaps(config.eval.seen, {name: each.metrics for name, each in scored.items()})
    for name, members in config.eval.unions.items():
        task = experiment.tasks[config.eval_sources[members[0]].task]
        together = [scored[member] for member in members]
        scores = results.measure_union(task.score, together)
        figures |= {f'eval/{name}/{metric}': value for metric, value in scores.items()}
        if jax.process_index() == 0:
            results.write_union(workdir, name, together, scores)
    return figures


def gaps(seen: Mapping[str, str], metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """{eval/<source>/gap/<metric>: by how much the source of training data that it is compared with is better}.

    seen: see settings.Evaluation. metrics: {source: {metric: value}}; of a pair those are compared that both have.
    """
    found = {}
    for learned, held in seen.items():
        ahead, behind = metrics[learned], metrics[held]
        both = (metric for metric in behind if metric in ahead)
        found |= {f'eval/{held}/gap/{metric}': ahead[metric] - behind[metric] for metric in both}
    return found


def training_of(
    name: str, task: str, config: ml_collections.ConfigDict, opened: Mapping[str, sources.Source]
) -> sources.Source | None:
    """The training source that an evaluated one belongs to: of its name, else the first of its task."""
    of_task = (source for key, source in opened.items() if config.sources[key].task == task)
    return opened[name] if name in opened else next(of_task, None)


def check_data(
    opened: Mapping[str, sources.Source],
    evaluated: Mapping[str, sources.Source],
    config: ml_collections.ConfigDict,
) -> None:
    """The quick part of tools/check_data.py: raises RunError with all errors, logs the warnings."""
    problems = readiness.quick(opened, evaluated, seed=config.seed, seen=tuple(config.eval.seen))
    errors = [str(problem) for problem in problems if problem.severity == 'error']
    if errors:
        raise RunError('the data are not fit to train on (tools/check_data.py tells all):\n' + '\n'.join(errors))
    for problem in problems:
        logging.warning('%s', problem)


def check_scoring(experiment: build.Experiment, evaluated: Mapping[str, sources.Source]) -> None:
    """Reads now what tasks need to file predictions (scores of videos, say). Raises RunError, AnnotationError."""
    for name, source in evaluated.items():
        try:
            experiment.tasks[experiment.config.eval_sources[name].task].collector(source.examples)
        except records.AnnotationError:
            raise
        except ValueError as error:
            raise RunError(f'eval_sources.{name}: {error}') from error


def check_evaluation(config: ml_collections.ConfigDict) -> None:
    """Raises RunError for settings that would fail only after the training, when it evaluates."""
    if config.eval.batch_size < 1:
        raise RunError(f'eval.batch_size is {config.eval.batch_size}; it must be at least 1')
    if config.eval.head < config.eval.tail:
        raise RunError(f'eval.head ({config.eval.head}) must not be below eval.tail ({config.eval.tail})')
    for pair in config.eval.seen.items():
        for name in pair:
            if name not in config.eval_sources:
                hint = config_lib.nearest(name, config.eval_sources)
                raise RunError(f'eval.seen: {name!r} is no evaluation source; {hint}')
        if pair[0] == pair[1] or len({config.eval_sources[name].task for name in pair}) > 1:
            raise RunError(f'eval.seen.{pair[0]}: compare it with another source of its task, not with {pair[1]!r}')
        if list(config.eval.seen.values()).count(pair[1]) > 1:
            raise RunError(f'eval.seen: {pair[1]!r} can be compared with one source of training data, not with several')
    for name, members in config.eval.unions.items():
        where = f'eval.unions.{name}'
        if unknown := sorted(set(members) - set(config.eval_sources)):
            hint = config_lib.nearest(unknown[0], config.eval_sources)
            raise RunError(f'{where}: {unknown[0]!r} is no evaluation source; {hint}')
        if name in config.eval_sources or not members:
            raise RunError(f'{where}: give it evaluation sources, and a name that none of them has')
        tasks = sorted({config.eval_sources[member].task for member in members})
        if len(tasks) > 1 or not supply.has_boxes(config, tasks[0]):
            raise RunError(f'{where}: its sources must be boxes of one task, not of {", ".join(tasks)}')


def summary(
    config: ml_collections.ConfigDict,
    opened: Mapping[str, sources.Source],
    evaluated: Mapping[str, sources.Source],
    plan: Length,
    mesh: jax.sharding.Mesh,
) -> str:
    """What is about to be trained on, and which few samples, for the log."""
    lines = [f'{plan.total} steps ({plan.warmup} of warm-up) on {mesh.size} {jax.devices()[0].device_kind} device(s)']
    drawn = np.bincount(plan.schedule, minlength=len(opened))
    for (name, source), size, steps in zip(opened.items(), plan.batch_sizes, drawn, strict=True):
        lines.append(
            f'  {name}: task {config.sources[name].task}, {len(source)} examples, {len(source.classes)} classes, '
            f'batches of {size}, {steps} steps ({steps / max(plan.total, 1):.1%})'
        )
    for group, those in (('sources', opened), ('eval_sources', evaluated)):
        few = {name: source.shots for name, source in those.items() if source.shots is not None}
        lines += [f'  {group}.{name}: {shots.line()}' for name, shots in few.items()]
    return '\n'.join(lines)
