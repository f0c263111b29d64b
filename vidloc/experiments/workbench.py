"""One model, its data in memory and its compiled steps, for many short trainings."""

import functools
import math
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
from flax import traverse_util

from vidloc import build, supply
from vidloc.data import pipeline, sources
from vidloc.experiments.remembered import Remembered
from vidloc.metrics import ava, frequency
from vidloc.train import evaluate as evaluate_lib
from vidloc.train import state as state_lib
from vidloc.train import step, trainable

# The training videos of the boxes, seen as validation videos are: how much is learnt by heart.
SEEN = 'seen'
LOADING = pipeline.Loading(threads=1)
# Steps that may be under way at once: what they wait for stays in memory.
AHEAD = 16
TENTHS = 10


class Diverged(RuntimeError):
    """A loss or gradient was not finite."""


class Workbench:
    """Trains and evaluates from one config; a program is compiled once for each task and length of a training.

    boxes: the detection source, whose task's classes are reported in groups too. shares: part of the training videos
    of each source that a seed's trainings use. Raises what build raises. One device.
    """

    def __init__(self, config: ml_collections.ConfigDict, boxes: str, shares: Mapping[str, float]):
        config = config.copy_and_resolve_references()
        with config.unlocked():
            config.eval_sources[SEEN] = config.sources[boxes].copy_and_resolve_references()
            config.eval_sources[SEEN].boxes = config.eval_sources[boxes].boxes
        self.config, self.boxes, self.shares = config, boxes, shares
        self.experiment = build.experiment(config)
        self.opened = supply.open_sources(config, self.experiment.tasks, train=True)
        self.evaluated = supply.open_sources(config, self.experiment.tasks, train=False)
        for source in (*self.opened.values(), *self.evaluated.values()):
            source.footage = Remembered(source.footage)
        # Both look at the same files.
        self.evaluated[SEEN].footage = self.opened[boxes].footage
        counts = dict(enumerate(self.opened[boxes].label_counts().tolist()))
        self.groups = frequency.groups(counts, head=config.eval.head, tail=config.eval.tail)
        self._data: dict[int, dict[str, sources.Source]] = {}
        self._compiled: dict[tuple[int, int], tuple[Any, Any]] = {}
        self._predict = step.make_predict_step(self.experiment.apply, self.experiment.tasks)

    def data(self, seed: int) -> dict[str, sources.Source]:
        """The training sources of a seed: shares of the videos, drawn at random."""
        if seed not in self._data:
            self._data[seed] = {name: part(source, self.shares[name], seed) for name, source in self.opened.items()}
        return self._data[seed]

    def start(self, seed: int) -> dict[str, np.ndarray]:
        """Fresh parameters {name in run form: array} of all tasks."""
        params = traverse_util.flatten_dict(self._init(jax.random.key(seed)), sep='/')
        return {**jax.device_get(params), **supply.start_biases(self.experiment, self.data(seed))}

    def renewed(self, params: Mapping[str, np.ndarray], names: Iterable[str], seed: int) -> dict[str, np.ndarray]:
        """The parameters with fresh heads of the tasks of the sources `names`, as `start` makes them."""
        heads = tuple(f'heads_{self.config.sources[name].task}/' for name in names)
        fresh = {name: value for name, value in self.start(seed).items() if name.startswith(heads)}
        return {**params, **fresh}

    @functools.cached_property
    def _init(self) -> Any:
        return jax.jit(self.experiment.init)

    def _programs(self, total: int, warmup: int) -> tuple[Any, Any]:
        """(params, seed -> state), (train step) of a training of `total` steps."""
        if (total, warmup) not in self._compiled:
            optimizer = self.experiment.optimizer(total, warmup)
            make = jax.jit(lambda params, seed: state_lib.create(params, optimizer, self.experiment.tasks, seed=seed))
            train_step = step.make_train_step(self.experiment.apply, self.experiment.tasks, optimizer)
            self._compiled[total, warmup] = make, train_step
        return self._compiled[total, warmup]

    def train(
        self, params: Mapping[str, np.ndarray], names: tuple[str, ...], schedule: np.ndarray, warmup: float, seed: int
    ) -> tuple[dict[str, np.ndarray], dict[str, list[float]]]:
        """(parameters after the schedule, {source: its mean loss in each tenth of the training}).

        names: sources; schedule [steps]: index of the source at each step; warmup: share of the steps. The losses are
        without their scale, NaN for a tenth without a step of the source. Raises Diverged.
        """
        total = len(schedule)
        make, train_step = self._programs(total, max(1, round(warmup * total)))
        trained, frozen = self.experiment.partition.split(traverse_util.unflatten_dict(dict(params), sep='/'))
        state, logged = make(trained, np.uint32(seed)), []
        for name, batch in self._batches(names, schedule, seed):
            task = self.config.sources[name].task
            state, figures = train_step(state, frozen, {task: batch})
            logged.append((name, figures['logs'][task]['loss'], figures['finite']))
            if len(logged) >= AHEAD:
                jax.block_until_ready(logged[-AHEAD][1])
        logged = jax.device_get(logged)
        bad = [i for i, (_, _, finite) in enumerate(logged) if not finite]
        if bad:
            raise Diverged(f'the loss was not finite at step {bad[0]} of {total} on {" + ".join(names)}')
        params = traverse_util.flatten_dict(jax.device_get(trainable.merge(state.params, frozen)), sep='/')
        return params, {name: _tenths(logged, name) for name in names}

    def _batches(
        self, names: tuple[str, ...], schedule: np.ndarray, seed: int
    ) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        chosen = tuple(self.data(seed)[name] for name in names)
        sizes = tuple(self.config.sources[name].batch_size for name in names)
        plan = pipeline.Plan(chosen, schedule, sizes, tuple((0, size) for size in sizes), seed)
        for batch in pipeline.train_batches(plan, LOADING):
            number = int(batch.pop('source'))
            batch.pop('step')
            yield names[number], batch

    def evaluate(self, params: Mapping[str, np.ndarray], names: tuple[str, ...], seed: int) -> dict[str, float]:
        """{source/metric: value} of the validation videos of `names`; with boxes also of their training videos.

        Figures that are not defined, such as that of a group without true boxes, are left out.
        """
        tree = traverse_util.unflatten_dict({k: jax.numpy.asarray(v) for k, v in params.items()}, sep='/')
        trained, frozen = self.experiment.partition.split(tree)
        figures = {}
        for name in (*names, SEEN) if self.boxes in names else names:
            source, truth = self.evaluated[name], self.evaluated[name].truth()
            if name == SEEN:
                videos = {example.video for example in self.data(seed)[self.boxes].examples}
                source = restricted(source, videos)
                here = np.isin(truth['video'].astype(str), sorted(videos))
                truth = {column: values[here] for column, values in truth.items()}
            task = self.experiment.tasks[self.config.eval_sources[name].task]
            size = self.config.eval.batch_size
            found, _ = evaluate_lib.predict(
                lambda weights, batches: self._predict(weights, frozen, batches),
                trained,
                self.config.eval_sources[name].task,
                pipeline.eval_batches(pipeline.EvalPlan(source, size, (0, size)), LOADING),
                task.collector(source.examples),
                place=lambda batch: batch,
                to_host=jax.device_get,
            )
            figures |= {f'{name}/{metric}': value for metric, value in task.score(found, truth).items()}
            if name == self.boxes:
                per_class = ava.frame_ap(truth, found, dict(enumerate(task.classes))).per_class
                means = frequency.group_means(per_class, self.groups)
                figures |= {f'{name}/{group}': value for group, value in means.items()}
        return {metric: value for metric, value in figures.items() if math.isfinite(value)}

    def pace(self, names: Iterable[str], steps: int = 8) -> dict[str, tuple[float, float]]:
        """{source: (seconds a step, seconds to compile it)}, measured on zeros."""
        trained, frozen = self.experiment.partition.split(traverse_util.unflatten_dict(self.start(0), sep='/'))
        make, train_step = self._programs(steps + 1, 1)
        measured = {}
        for name in names:
            task = self.config.sources[name].task
            shapes = self.experiment.abstract_batches[task]
            batch = {key: np.zeros(leaf.shape, leaf.dtype) for key, leaf in shapes.items()}
            state, times = make(trained, np.uint32(0)), [time.perf_counter()]
            for _ in range(steps + 1):
                state, figures = train_step(state, frozen, {task: batch})
                jax.block_until_ready(figures)
                times.append(time.perf_counter())
            each = float(np.mean(np.diff(times)[1:]))
            measured[name] = each, max(0.0, times[1] - times[0] - each)
        return measured


def part(source: sources.Source, share: float, seed: int) -> sources.Source:
    """The source with a random share of its videos, at least one; the same for the same seed."""
    videos = sorted({example.video for example in source.examples})
    count = max(1, round(share * len(videos)))
    chosen = np.random.default_rng([seed, zlib.crc32(source.name.encode())]).permutation(len(videos))[:count]
    return restricted(source, {videos[i] for i in chosen})


def restricted(source: sources.Source, videos: set[str]) -> sources.Source:
    """The source with the examples of some videos; its truth stays that of all."""
    fewer = object.__new__(type(source))  # not copy.copy, which leaves behind what loader workers do not need
    vars(fewer).update(vars(source))
    # Examples are a list or a table, which is made from one.
    fewer.examples = type(source.examples)([example for example in source.examples if example.video in videos])
    return fewer


def _tenths(logged: list[tuple[str, Any, Any]], name: str) -> list[float]:
    """The mean loss of a source in each tenth of the steps."""
    sums = np.zeros((TENTHS, 2))
    for i, (source, (loss, weight), _) in enumerate(logged):
        if source == name:
            sums[i * TENTHS // len(logged)] += float(loss) / float(weight), 1.0
    return [total / count if count else math.nan for total, count in sums.tolist()]
