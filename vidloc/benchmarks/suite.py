"""Time, memory and FLOPs of the parts that are supposed to be fast; each benchmark gives one row a case.

Wall time is noisy on shared machines: rows of one call are to be compared with each other, as ratios, not with other
machines'. cpu_ms counts all threads of this process.
"""

import dataclasses
import json
import os
import pathlib
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from typing import Any

import numpy as np

REPEATS = 9
# AVA's validation set: videos, their keyframes, those with truth, and what is in them.
AVA_SIZE = {'videos': 64, 'seconds': 897, 'annotated': 45_696, 'boxes': 91_775, 'labels': 229_800}


def measure(work: Callable[[], Any], repeats: int | None = None) -> dict[str, float]:
    """Median wall and mean CPU milliseconds of REPEATS calls of `work` (or so many), after one to warm up."""
    repeats = repeats or REPEATS
    work()
    walls, before = [], cpu_seconds()
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        walls.append(time.perf_counter() - start)
    return {'wall_ms': 1e3 * statistics.median(walls), 'cpu_ms': 1e3 * (cpu_seconds() - before) / repeats}


def timed(work: Callable[[], Any]) -> dict[str, float]:
    """Wall and CPU seconds of one call."""
    start, before = time.perf_counter(), cpu_seconds()
    work()
    return {'seconds': time.perf_counter() - start, 'cpu_s': cpu_seconds() - before}


def cpu_seconds() -> float:
    """Of all threads of this process, up to now."""
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


def ava_evaluation() -> Iterator[dict[str, Any]]:
    """tools/evaluate.py on files of the size of AVA's validation set: CPU seconds and memory, reading included.

    57,408 keyframes with two detected people and 60 classes (6,888,960 rows); 45,696 of the keyframes have 91,775
    true boxes with 229,800 labels. Each case is a process of its own, so that nothing else counts.
    """
    from vidloc.annotations import ava_table, label_map

    with tempfile.TemporaryDirectory() as folder:
        files = {name: f'{folder}/{name}' for name in ('truth.csv', 'detections.csv', 'actions.pbtxt')}
        truth, found = _validation_tables(np.random.default_rng(0))
        label_map.write_label_map(files['actions.pbtxt'], {i: f'action {i}' for i in range(1, 61)})
        ava_table.write_ava_table(files['truth.csv'], truth)
        ava_table.write_ava_table(files['detections.csv'], found)
        rows = {'detections': len(found['video']), 'ground_truth': len(truth['video'])}
        del truth, found
        for protocol in ('official', 'slowfast'):
            command = [sys.executable, str(pathlib.Path(__file__).parents[2] / 'tools' / 'evaluate.py'), 'ava']
            command += ['--ground_truth', files['truth.csv'], '--predictions', files['detections.csv']]
            command += ['--label_map', files['actions.pbtxt'], '--protocol', protocol]
            yield {'case': f'evaluate.py ava, {protocol}', **rows, **_child(command)}


def _validation_tables(rng: np.random.Generator) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(truth, detections): columns as annotations/ava_table.py has them, in the counts that ava_evaluation names."""
    videos, seconds, annotated, boxes, labels = AVA_SIZE.values()
    classes = 60
    keyframes = videos * seconds
    corner = rng.uniform(0, 0.5, (keyframes, 2, 2))
    box = np.concatenate([corner, corner + rng.uniform(0.1, 0.5, (keyframes, 2, 2))], axis=-1)  # [K, 2, 4]
    names = np.repeat(np.array([f'video{i:02d}' for i in range(videos)], dtype=object), seconds)
    times = np.tile(np.arange(902.0, 902.0 + seconds), videos)

    def columns(keyframe: np.ndarray, corners: np.ndarray, action: np.ndarray, score: np.ndarray) -> dict:
        values = {'video': names[keyframe], 'timestamp': times[keyframe], 'action_id': action, 'score': score}
        return values | {name: corners[:, axis].round(6) for axis, name in enumerate(('x1', 'y1', 'x2', 'y2'))}

    people = np.arange(boxes) % (2 * annotated)  # the last few stand where the first ones do, a little aside
    shift = np.where(np.arange(boxes) < 2 * annotated, 0.0, 0.02)
    keyframe = np.sort(rng.permutation(keyframes)[:annotated])[people // 2]
    labelled = np.sort(np.concatenate([np.arange(boxes), rng.integers(0, boxes, labels - boxes)]))
    true_box = box[keyframe, people % 2] + shift[:, None] + rng.normal(0, 0.02, (boxes, 4))
    true_box[:, 2:] = np.maximum(true_box[:, 2:], true_box[:, :2] + 0.01)
    # A few of 60 classes have most of the labels.
    action = np.minimum(rng.geometric(0.08, len(labelled)), classes)
    keyframe = keyframe[labelled]
    order = np.argsort(keyframe, kind='stable')
    truth = columns(keyframe[order], true_box[labelled][order], action[order], np.ones(labels))
    person = np.repeat(np.arange(2 * keyframes), classes)
    number = np.tile(np.arange(1, classes + 1), 2 * keyframes)
    found = columns(person // 2, box.reshape(-1, 4)[person], number, rng.random(len(person)))
    return truth, found


def _child(command: list[str]) -> dict[str, Any]:
    """{frame_map, cpu_s, max_rss_mb} of a process that prints an evaluation."""
    with tempfile.TemporaryFile() as printed:
        child = os.posix_spawn(
            command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, printed.fileno(), 1)]
        )
        _, status, used = os.wait4(child, 0)
        if status:
            raise RuntimeError(f'{" ".join(command)} ended with {os.waitstatus_to_exitcode(status)}')
        printed.seek(0)
        figure = json.load(printed)['frame_map@0.5']
    kilobytes = used.ru_maxrss / (1 if sys.platform == 'linux' else 1024)  # macOS counts bytes
    return {'frame_map': figure, 'cpu_s': used.ru_utime + used.ru_stime, 'max_rss_mb': kilobytes / 1024}


def load() -> Iterator[dict[str, Any]]:
    """Clips of 16 frames in 2 s, read for training: from files, from the set prepared of them, and that encoded again.

    Short: 80 files of 10 s, each read once; long: clips of one film of 3 minutes; all 320 x 240 at 30 fps with a
    keyframe every 250 frames. cpu_ms is for one clip, with threads only: that of workers is not this process's.
    """
    import shutil

    from vidloc.annotations import records as rec
    from vidloc.data import encode, part, pipeline, prepare, transcode

    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (30, 40, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    loadings = (pipeline.Loading(threads=1), pipeline.Loading(threads=2), pipeline.Loading(workers=2))
    with tempfile.TemporaryDirectory() as folder:
        for kind, names, seconds in (('short', [f'{i:02d}' for i in range(80)], 10), ('long', ['film'], 180)):
            stores = {store: f'{folder}/{kind} {store}' for store in ('files', 'prepared', 'encoded again')}
            os.mkdir(stores['files'])
            first, *others = (f'{stores["files"]}/{name}.mp4' for name in names)
            frames = (np.roll(picture, 3 * i, axis=1) for i in range(30 * seconds))
            encode.write_video(first, frames, 30, gop=250, crf=23)
            for other in others:
                shutil.copy(first, other)
            labels = [rec.ClipLabel('a', i * 2.2, i * 2.2 + 2.0) for i in range(80)] if len(names) == 1 else None
            records = [rec.VideoRecord(name, labels=tuple(labels or [rec.ClipLabel('a')])) for name in names]
            for store, smaller in (('prepared', None), ('encoded again', transcode.Transcode(240))):
                options = part.Options(transcode=smaller)
                prepare.write(stores[store], prepare.plan(records, stores['files'], options))
            for loading in loadings:
                how = f'{loading.workers} workers' if loading.workers else f'{loading.threads} threads'
                for store, videos in stores.items():
                    yield {'case': f'load {kind}, {store}, {how}', **_loaded(videos, records, loading)}


def _loaded(videos: str, records: list, loading: Any) -> dict[str, float]:
    """{clips_per_second, cpu_ms a clip} of 8 batches of 8 clips, after 2 in which everything starts."""
    from vidloc.data import clips, footage, pipeline

    footage.indexed.cache_clear()
    view = clips.Clips(videos=videos, frames=16, rate=8.0, size=(112, 112))
    source = clips.ClipSource('clips', view, records, ('a',), train=True)
    plan = pipeline.Plan((source,), np.zeros(10, int), (8,), ((0, 8),), seed=0)
    batches = pipeline.train_batches(plan, dataclasses.replace(loading, prefetch=2))
    for _ in range(2):
        next(batches)
    start, before = time.perf_counter(), cpu_seconds()
    read = sum(len(batch['video']) for batch in batches)
    figures = {'clips_per_second': read / (time.perf_counter() - start)}
    return figures if loading.workers else figures | {'cpu_ms': 1e3 * (cpu_seconds() - before) / read}


def backbones() -> Iterator[dict[str, Any]]:
    """Published backbones at full size, beside public implementations."""
    from vidloc.benchmarks import backbones as models

    yield from models.rows()


def losa_cases() -> 'Cases':
    """LoSA's training step, see localization.py."""
    from vidloc.benchmarks import localization

    return localization.losa_cases()


def actionformer_cases() -> 'Cases':
    """ActionFormer on features, see localization.py."""
    from vidloc.benchmarks import localization

    return localization.actionformer_cases()


def gra_cases() -> 'Cases':
    """Few shots with augmented features, see few_shot.py."""
    from vidloc.benchmarks import few_shot

    return few_shot.cases()


def temporal_cases() -> 'Cases':
    """Scoring of segments, see segment_scoring.py."""
    from vidloc.benchmarks import segment_scoring

    return segment_scoring.cases()


Cases = dict[str, Callable[[], Iterator[dict[str, Any]]]]
# Those whose cases can be run one by one: {case: its rows}.
CASES = {'losa': losa_cases, 'actionformer': actionformer_cases, 'temporal': temporal_cases, 'gra': gra_cases}
BENCHMARKS = {
    'backbones': backbones,
    'render': render,
    'decode': decode,
    'step': step,
    'evaluate': evaluate,
    'ava_evaluation': ava_evaluation,
    'load': load,
}


def chosen(cases: Cases, only: Sequence[str]) -> Cases:
    """Those that `only` names, or that begin with words that name none, as 'memory cpu' does; () are all.

    Raises ValueError for words that no case begins with.
    """
    found = set() if only else set(cases)
    for words in only:
        fits = {words} & cases.keys() or {case for case in cases if case.startswith(f'{words} ')}
        if not fits:
            raise ValueError(f'no case begins with {words!r}; the cases are {", ".join(cases)}')
        found |= fits
    return {case: rows for case, rows in cases.items() if case in found}


def _rows(name: str, only: Sequence[str]) -> Iterator[dict[str, Any]]:
    if name in CASES:
        for case, rows in chosen(CASES[name](), only).items():
            for row in rows():
                yield {'case': case, **row}
        return
    if only:
        raise ValueError(f'the benchmark {name} has no cases to choose from; {", ".join(CASES)} have')
    yield from BENCHMARKS[name]()


def report(name: str, only: Sequence[str] = ()) -> Iterator[str]:
    """One JSON object a line: the case, its figures, hardware and versions. only: see `chosen`; raises ValueError."""
    packages = {package: metadata.version(package) for package in ('jax', 'numpy', 'av')}
    machine = {'machine': platform.machine(), 'python': platform.python_version(), **packages}
    for row in _rows(name, only):
        figures = {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}
        yield json.dumps({'benchmark': name, **figures, **machine})
