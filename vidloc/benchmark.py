"""Time, memory and FLOPs of the parts that are supposed to be fast; each benchmark gives one row a case.

Wall time is noisy on shared machines: rows of one call are to be compared with each other, as ratios, not with other
machines'. cpu_ms counts all threads of this process.
"""

import json
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

import numpy as np

REPEATS = 9


def measure(work: Callable[[], Any], repeats: int | None = None) -> dict[str, float]:
    """Median wall and mean CPU milliseconds of REPEATS calls of `work` (or so many), after one to warm up."""
    repeats = repeats or REPEATS
    work()
    walls, before = [], _cpu_seconds()
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        walls.append(time.perf_counter() - start)
    return {'wall_ms': 1e3 * statistics.median(walls), 'cpu_ms': 1e3 * (_cpu_seconds() - before) / repeats}


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def render() -> Iterator[dict[str, Any]]:
    """Frames of MocapStreet, a second of CPU time."""
    from vidloc.synthetic import export

    for name in ('street', 'studio'):
        frames = 0

        def work(name: str = name) -> None:
            nonlocal frames
            frames = len(export.draw('small', 0, name, 'train', 0)[0])

        row = measure(work)
        yield {'case': f'render {name}', 'frames': frames, 'frames_per_cpu_second': 1e3 * frames / row['cpu_ms'], **row}


def decode() -> Iterator[dict[str, Any]]:
    """8 frames of a 32-frame file of 96 x 64, and of a 300-frame file of 320 x 240 with short and long GOPs."""
    from vidloc.data import encode, video

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for frames, height, width, gop in ((32, 64, 96, 8), (300, 240, 320, 30), (300, 240, 320, 250)):
            path = f'{folder}/{frames}_{gop}.mp4'
            picture = rng.integers(0, 255, (height // 8, width // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
            encode.write_video(path, (np.roll(picture, i, axis=1) for i in range(frames)), 30, gop=gop)
            times = (frames // 2 + np.arange(8)) / 30
            index = video.index_video(path)
            case = f'decode 8 of {frames} frames {width}x{height} gop {gop}'
            yield {'case': case, **measure(lambda path=path, times=times: video.read_frames(path, times))}
            yield {
                'case': f'{case}, indexed',
                **measure(lambda path=path, times=times, index=index: video.read_frames(path, times, index=index)),
            }


def step() -> Iterator[dict[str, Any]]:
    """A train step of the demo's model, layers scanned one by one and written out."""
    import jax

    from vidloc import build, run
    from vidloc import config as config_lib
    from vidloc.models import flops
    from vidloc.train import state as state_lib
    from vidloc.train import step as step_lib

    for unroll in (1, 3):
        config = config_lib.load('configs/mocapstreet.py')
        config.precision.unroll = unroll
        experiment = build.experiment(config)
        optimizer = experiment.optimizer(1000, 50)
        trained, frozen = experiment.partition.split(jax.jit(experiment.init)(jax.random.key(0)))
        for task, shapes in experiment.abstract_batches.items():
            state = state_lib.create(jax.tree.map(np.asarray, trained), optimizer, experiment.tasks, seed=0)
            train_step = step_lib.make_train_step(experiment.apply, experiment.tasks, optimizer)
            batch = {name: np.ones(shape.shape, shape.dtype) for name, shape in shapes.items()}
            compiled = train_step.lower(state, frozen, {task: batch}).compile()
            states = [jax.tree.map(jax.numpy.asarray, state)]

            def work(compiled=compiled, states=states, frozen=frozen, task=task, batch=batch) -> None:
                new, logged = compiled(states.pop(), frozen, {task: batch})
                jax.block_until_ready(logged)
                states.append(new)

            yield {
                'case': f'train step {task}, unroll {unroll}',
                'flops': flops.count(train_step, state, frozen, {task: batch}),
                'memory_bytes': run.memory(compiled),
                **measure(work),
            }


def evaluate() -> Iterator[dict[str, Any]]:
    """Frame mAP on tables of the size of AVA's validation set: 6.9 million detections on 57,408 keyframes."""
    from vidloc.metrics import ava

    rng = np.random.default_rng(0)
    keyframes, per_keyframe, classes = 57_408, 2, 60
    video = np.repeat(np.array([f'video{i:02d}' for i in range(64)], dtype=object), keyframes // 64)
    timestamp = np.tile(np.arange(902.0, 902.0 + keyframes // 64), 64)
    rows = np.repeat(np.arange(keyframes), per_keyframe)  # one a person
    corner = rng.uniform(0, 0.5, (len(rows), 2))
    size = rng.uniform(0.1, 0.5, (len(rows), 2))
    box = np.concatenate([corner, corner + size], axis=1)

    def columns(people: np.ndarray, jitter: float) -> dict[str, np.ndarray]:
        moved = box[people] + rng.normal(0, jitter, (len(people), 4)) * 0.1
        values = {'video': video[rows[people]], 'timestamp': timestamp[rows[people]]}
        return values | {name: moved[:, axis] for axis, name in enumerate(('x1', 'y1', 'x2', 'y2'))}

    truth = columns(np.repeat(np.arange(len(rows)), 2), 0.0)
    truth['action_id'] = rng.integers(1, classes + 1, len(truth['video']))
    found = columns(np.repeat(np.arange(len(rows)), classes), 0.0)
    found['action_id'] = np.tile(np.arange(1, classes + 1), len(rows))
    found['score'] = rng.random(len(found['video']))
    names = {i: str(i) for i in range(1, classes + 1)}
    for protocol in ava.PROTOCOLS:
        row = measure(lambda protocol=protocol: ava.frame_ap(truth, found, names, protocol=protocol), repeats=1)
        yield {'case': f'frame mAP, {protocol}', 'detections': len(found['video']), **row}


BENCHMARKS = {'render': render, 'decode': decode, 'step': step, 'evaluate': evaluate}


def report(name: str) -> Iterator[str]:
    """One JSON object a line: the case, its figures, hardware and versions."""
    packages = {package: metadata.version(package) for package in ('jax', 'numpy', 'av')}
    machine = {'machine': platform.machine(), 'python': platform.python_version(), **packages}
    for row in BENCHMARKS[name]():
        figures = {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}
        yield json.dumps({'benchmark': name, **figures, **machine})
