"""One model with one task and its compiled steps, for many short trainings."""

import dataclasses
import functools
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from vidloc import build, run
from vidloc.data import pipeline, sources
from vidloc.experiments.workbench import AHEAD, LOADING, TENTHS, Diverged
from vidloc.train import evaluate as evaluate_lib
from vidloc.train import state as state_lib
from vidloc.train import step

PROBED = 4  # steps that are timed


@dataclasses.dataclass(frozen=True)
class Cost:
    """Seconds of a step, of compiling it and the prediction, and of an evaluation of one source without its scoring.

    bytes: of a step: arguments, results, what is in between.
    """

    step: float
    compiling: float
    bytes: int
    evaluation: float


@dataclasses.dataclass(frozen=True)
class Trained:
    """weights: what is evaluated; frozen: the rest. step, bytes: as in Cost. losses: the mean loss of each tenth of the
    steps, None for a tenth without a step."""

    weights: Any
    frozen: Any
    step: float
    bytes: int
    losses: list[float | None]


@dataclasses.dataclass(eq=False)
class Trainer:
    """experiment: of one task. warmup: share of a training. One device; programs are compiled once for each length."""

    experiment: build.Experiment
    task: str
    batch_size: int
    warmup: float
    _programs: dict[int, tuple[Any, Any]] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def _init(self) -> Any:
        return jax.jit(self.experiment.init)

    @functools.cached_property
    def _predict(self) -> Any:
        return step.make_predict_step(self.experiment.apply, self.experiment.tasks)

    @property
    def trainable(self) -> int:
        """Parameters that train."""
        return self.experiment.partition.total(trainable=True)

    def train(self, source: sources.Source, given: Mapping[str, np.ndarray], steps: int, seed: int) -> Trained:
        """given: parameters to start from {run name: array}; the others start by the seed. Raises Diverged."""
        state, frozen, program = self._begun(given, steps, seed)
        logged, times = [], [time.perf_counter()]
        for batch in self._batches(source, steps, seed):
            state, figures = program(state, frozen, {self.task: batch})
            logged.append((figures['logs'][self.task]['loss'], figures['finite']))
            jax.block_until_ready(logged[max(0, len(logged) - AHEAD)])
            times.append(time.perf_counter())
        logged = jax.device_get(logged)
        bad = [i for i, (_, finite) in enumerate(logged) if not finite]
        if bad:
            raise Diverged(f'the loss was not finite at step {bad[0]} of {steps} on {source.name}')
        jax.block_until_ready(state)
        losses = [float(total / weight) for (total, weight), _ in logged]
        return Trained(
            weights=state_lib.weights(state),
            frozen=frozen,
            step=(time.perf_counter() - times[0]) / steps,
            bytes=run.memory(program),
            losses=_tenths(losses),
        )

    def _begun(self, given: Mapping[str, np.ndarray], steps: int, seed: int) -> tuple[Any, Any, Any]:
        """(state, frozen parameters, compiled step) of a training."""
        experiment = self.experiment
        params = traverse_util.flatten_dict(jax.device_get(self._init(jax.random.key(seed))), sep='/') | dict(given)
        trained, frozen = experiment.partition.split(traverse_util.unflatten_dict(params, sep='/'))
        frozen = jax.device_put(experiment.kept(frozen))
        if steps not in self._programs:
            optimizer = experiment.optimizer(steps, max(1, round(self.warmup * steps)))
            make = jax.jit(lambda params, seed: state_lib.create(params, optimizer, experiment.tasks, seed=seed))
            train_step = step.make_train_step(experiment.apply, experiment.tasks, optimizer)
            shapes = jax.eval_shape(make, trained, np.uint32(seed)), frozen, experiment.abstract_batches
            self._programs[steps] = make, train_step.lower(*shapes).compile()
        make, program = self._programs[steps]
        state = make(trained, np.uint32(seed))
        return state, frozen, program

    def _batches(self, source: sources.Source, steps: int, seed: int) -> Iterator[dict[str, np.ndarray]]:
        size = self.batch_size
        plan = pipeline.Plan((source,), np.zeros(steps, np.int32), (size,), ((0, size),), seed)
        wanted = self.experiment.abstract_batches[self.task]
        for batch in pipeline.train_batches(plan, LOADING):
            yield {name: batch[name] for name in wanted}

    def evaluate(self, source: sources.Source, weights: Any, frozen: Any) -> dict[str, float]:
        """{metric: value} of all examples; figures that are not defined are left out."""
        task, size = self.experiment.tasks[self.task], self.experiment.config.eval.batch_size
        found, _ = evaluate_lib.predict(
            lambda params, batches: self._predict(params, frozen, batches),
            weights,
            self.task,
            pipeline.eval_batches(pipeline.EvalPlan(source, size, (0, size)), LOADING),
            task.collector(source.examples),
            place=lambda batch: batch,
            to_host=jax.device_get,
        )
        figures = task.score(found, source.truth())
        return {metric: value for metric, value in figures.items() if math.isfinite(value)}

    def cost(self, source: sources.Source, val: sources.Source, given: Mapping[str, np.ndarray]) -> Cost:
        """Measured in a few steps, and in the evaluation of one batch."""
        began = time.perf_counter()
        state, frozen, program = self._begun(given, PROBED + 1, 0)
        compiling = time.perf_counter() - began
        times = []
        for batch in self._batches(source, PROBED + 1, 0):
            began = time.perf_counter()
            state, _ = program(state, frozen, {self.task: batch})
            jax.block_until_ready(state)
            times.append(time.perf_counter() - began)
        size = self.experiment.config.eval.batch_size
        batch = next(iter(pipeline.eval_batches(pipeline.EvalPlan(val, size, (0, size)), LOADING)))
        taken = []
        for _ in range(2):  # The first one compiles.
            began = time.perf_counter()
            jax.block_until_ready(self._predict(state_lib.weights(state), frozen, {self.task: batch}))
            taken.append(time.perf_counter() - began)
        return Cost(
            step=float(np.mean(times[1:])),
            compiling=compiling + taken[0] - taken[1],
            bytes=run.memory(program),
            evaluation=taken[1] * math.ceil(len(val) / size),
        )


def _tenths(losses: list[float]) -> list[float | None]:
    """The mean of each tenth."""
    parts = np.array_split(np.array(losses), TENTHS)
    return [float(part.mean()) if len(part) else None for part in parts]
