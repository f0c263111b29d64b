"""The training step of a config with one task: its shapes, its plan of memory, and running it on noise."""

import dataclasses
import functools
import importlib.util
import pathlib
import shutil
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.experimental import topologies

from vidloc import build
from vidloc import config as config_lib
from vidloc.benchmarks import backbones, suite
from vidloc.train import state as state_lib
from vidloc.train import step as step_lib

ROOT = pathlib.Path(__file__).parents[2]
# Devices that need not be there.
TARGETS = {'a100': pathlib.Path(__file__).parent / 'targets' / 'a100_40gb.txtpb'}
# On CPUs it takes float32 copies of the frozen bfloat16 weights out of the loop over layers: of all layers at once.
WITHOUT = 'while-loop-invariant-code-motion'
FLOAT32 = (('precision.compute', 'float32'), ('precision.frozen', 'float32'))
SEGMENTS = 20  # annotated in each window of noise


@dataclasses.dataclass(frozen=True)
class Setting:
    """A config, and what is changed in it: (('train.batch_size', 1), ...)."""

    spec: str
    changes: tuple[tuple[str, Any], ...] = ()

    def but(self, *changes: tuple[str, Any]) -> 'Setting':
        """With more changes."""
        return Setting(self.spec, (*self.changes, *changes))

    def config(self) -> ml_collections.ConfigDict:
        """Raises ConfigError, and AttributeError or KeyError for a field that does not exist."""
        config = config_lib.load(f'{ROOT}/{self.spec}')
        for path, value in self.changes:
            *groups, field = path.split('.')
            functools.reduce(lambda node, name: node[name], groups, config)[field] = value
        return config


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """function(state, frozen, {task: batch}) and the shapes of its arguments."""

    experiment: build.Experiment
    optimizer: Any
    function: Any
    arguments: tuple[Any, Any, Any]

    @property
    def task(self) -> str:
        (name,) = self.arguments[2]
        return name

    def batch(self) -> dict[str, np.ndarray]:
        """Of noise, with SEGMENTS random segments in each window of a temporal task, and people in all boxes of a
        keyframe, of one class in four."""
        rng = np.random.default_rng(0)
        shapes = self.arguments[2][self.task]
        batch = {name: np.zeros(each.shape, each.dtype) for name, each in shapes.items()}
        for name in ('example_valid', 'grid_valid', 'frame_valid', 'sequence_valid', 'box_mask'):
            if name in batch:
                batch[name][:] = True
        if 'boxes' in batch:
            corners = np.sort(rng.random((*batch['box_mask'].shape, 2, 2), np.float32), axis=-2)  # least and most x, y
            batch['boxes'][:] = batch['source_boxes'][:] = corners.reshape(batch['boxes'].shape)
            batch['labels'][:] = rng.random(batch['labels'].shape) < 0.25
        else:
            size, most, _ = batch['segments'].shape
            batch['segment_mask'][:, :SEGMENTS] = True
            batch['segments'][:] = np.sort(rng.uniform(0, batch['grid_valid'].shape[1] - 1, (size, most, 2)), axis=-1)
            batch['segment_labels'][:] = rng.integers(0, len(self.experiment.tasks[self.task].classes), (size, most))
        if 'video' in batch:
            batch['video'] = rng.integers(0, 256, batch['video'].shape, np.uint8)
        else:
            batch['sequence'] = rng.standard_normal(batch['sequence'].shape, np.float32)
        return batch

    def begin(self) -> tuple[Any, Any]:
        """(state, frozen parameters) of a run from scratch."""
        # It runs once, and takes longer to compile well than to run.
        init = jax.jit(self.experiment.init, compiler_options={'xla_backend_optimization_level': 0})
        trained, frozen = self.experiment.partition.split(init(jax.random.key(0)))
        make = jax.jit(lambda params: state_lib.create(params, self.optimizer, self.experiment.tasks, seed=0))
        return make(trained), jax.jit(self.experiment.kept)(frozen)

    @functools.cached_property
    def compiled(self) -> Any:
        """The function, for this machine."""
        return self.function.lower(*self.arguments).compile()

    def runner(self) -> Callable[[], None]:
        """Takes a step, and the next one from where that led. Raises RuntimeError if the loss is not finite."""
        state, frozen = self.begin()
        states, batches = [state], {self.task: jax.device_put(self.batch())}

        def run() -> None:
            state, logged = jax.block_until_ready(self.compiled(states.pop(), frozen, batches))
            states.append(state)
            if not logged['finite']:
                raise RuntimeError('the loss is not finite: the step was not taken, and its time says nothing')

        return run


@functools.lru_cache(maxsize=16)
def build_step(setting: Setting) -> Step:
    """As vidloc.run makes it. Nothing is computed."""
    config = setting.config()
    experiment = build.experiment(config)
    optimizer = experiment.optimizer(1000, 50)
    trained, frozen = experiment.partition.split(experiment.abstract_params)
    state = jax.eval_shape(lambda params: state_lib.create(params, optimizer, experiment.tasks, seed=0), trained)
    function = step_lib.make_train_step(
        experiment.apply,
        experiment.tasks,
        optimizer,
        accumulate=config.train.accumulate,
        log_gradient_norm=config.log.gradient_norm,
    )
    shapes = (state, jax.eval_shape(experiment.kept, frozen), experiment.abstract_batches)
    return Step(experiment, optimizer, function, shapes)


@functools.cache
def planned(setting: Setting, target: str = 'cpu', without: str = '') -> dict[str, float]:
    """What one step needs by XLA's analysis, in GB of 1e9 bytes, and the seconds that compiling it took.

    target: 'cpu' or one of TARGETS (see `lacking`). without: a pass of XLA that is left out, '' for none.
    total_gb: arguments + outputs - aliased + temp.
    """
    built = build_step(setting)
    arguments = built.arguments
    if target != 'cpu':
        place = jax.sharding.SingleDeviceSharding(_device(target))
        arguments = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), arguments)
    lowered, kept = built.function.lower(*arguments), []
    options = {'xla_disable_hlo_passes': without} if without else None
    spent = suite.timed(lambda: kept.append(lowered.compile(compiler_options=options)))
    return gigabytes(kept[0]) | {'compile_s': spent['seconds']}


def gigabytes(compiled: Any) -> dict[str, float]:
    """The parts of a compiled program's memory, and their total."""
    plan = compiled.memory_analysis()
    parts = {
        'arguments_gb': plan.argument_size_in_bytes,
        'outputs_gb': plan.output_size_in_bytes,
        'aliased_gb': plan.alias_size_in_bytes,
        'temp_gb': plan.temp_size_in_bytes,
    }
    total = sum(parts.values()) - 2 * parts['aliased_gb']
    return {name: size / 1e9 for name, size in (parts | {'total_gb': total}).items()}


def turns(runs: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[dict[str, float]]]:
    """Seconds of so many calls of each, in turns, after one to warm up."""
    for run in runs.values():
        run()
    times: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name].append(suite.timed(run))
    return times


def median_ratio(ours: list[dict[str, float]], theirs: list[dict[str, float]], name: str) -> float:
    """The median over the rounds of ours / theirs."""
    return statistics.median(a[name] / b[name] for a, b in zip(ours, theirs, strict=True))


def on_device(setting: Setting, repeats: int) -> dict[str, Any]:
    """Steps on this device: time, and the most memory that was in use (None where the device does not tell)."""
    built = build_step(setting)
    times = turns({'step': built.runner()}, repeats)['step']
    device = jax.devices()[0]
    used = (device.memory_stats() or {}).get('peak_bytes_in_use')
    row = {'device': device.device_kind, 'peak_gb': used / 1e9 if used else None}
    return row | gigabytes(built.compiled) | backbones.summary(times)


def lacking(target: str) -> str:
    """What is missing to compile for a target, in words; '' if nothing is."""
    if target == 'cpu':
        return ''
    if not any(importlib.util.find_spec(f'jax_cuda{version}_plugin') for version in (12, 13)):
        return 'the packages jax-cuda12-plugin and jax-cuda12-pjrt are not installed'
    return '' if shutil.which('ptxas') else 'there is no ptxas on PATH; the package nvidia-cuda-nvcc-cu12 has one'


@functools.cache
def _device(target: str) -> Any:
    text = TARGETS[target].read_text()
    return topologies.get_topology_desc(platform='cuda', topology='1x1x1', target_config=text).devices[0]
