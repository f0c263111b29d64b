"""Temporal localisation: memory, FLOPs and time of LoSA's training step and of ActionFormer's, as their configs say.

Memory is XLA's plan from shapes alone, for this machine's processor or, where the compiler for GPUs is installed, for
one that is not there. Written figures were measured elsewhere, on an idle machine with 2 CPU cores of this kind; they
say something only about such a machine. `matmul_gflops`: see backbones.py.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vidloc.benchmarks import backbones
from vidloc.benchmarks.training_step import (
    FLOAT32,
    TARGETS,
    WITHOUT,
    Setting,
    Step,
    build_step,
    gigabytes,
    lacking,
    median_ratio,
    on_device,
    planned,
    turns,
)
from vidloc.data.window_source import WindowExample
from vidloc.models import flops, losa
from vidloc.models.features import Features
from vidloc.train import state as state_lib
from vidloc.train import step as step_lib
from vidloc.train import trainable

REPEATS = 5
FRAMES = (288, 576, 1152, 2304)
POLICIES = ('store', 'remat_adapters', 'remat_clips')  # models/clip_loop.py; the first is what the others are held to
SPAN = (576, 2304)  # frames, of the growth
PAPER_GB = 40.6  # LoSA's paper: a step of VideoMAEv2 g at 576 frames on a GPU
WRITTEN = {'train step': 1.90, 'forward': 0.63, 'one video': 0.33}  # public ActionFormer, torch 2.13, 2 threads

Row = dict[str, Any]


def thumos(model: str, frames: int, side: int, *changes: tuple[str, Any]) -> Setting:
    """configs/losa_thumos.py with batches of one window; the points of a short one are those that the head needs."""
    spec = f'configs/losa_thumos.py:{model},frames={max(frames, 576)},side={side}'
    one = (('sources.thumos.batch_size', 1), ('train.batch_size', 1), ('sources.thumos.frames', frames))
    return Setting(spec, (*one, *changes))


# Two windows of 2,304 vectors of 2,048 channels, 20 classes.
FEATURES = Setting('configs/actionformer.py:thumos')
# 8 clips; with full attention 128 points fit the six levels of the head, which would outweigh the rest with more.
SMALL = thumos(
    'videomae-S',
    128,
    112,
    ('sources.thumos.grid', 128),
    ('tasks.thumos.head.max_length', 128),
    ('tasks.thumos.head.windows', (1,)),
    *FLOAT32,
)


def losa_cases() -> dict[str, Callable[[], Iterator[Row]]]:
    """Memory of one step of LoSA beside VideoMAEv2 g, its FLOPs and parameters, and the time of a small one."""
    sizes = {frames: thumos('videomae-g', frames, 224) for frames in FRAMES}
    cases: dict[str, Callable[[], Iterator[Row]]] = {
        'parameters': functools.partial(parameters, sizes[576]),
        'flops 576': functools.partial(operations, sizes[576]),
    }
    for target in ('cpu', *TARGETS):
        without = WITHOUT if target == 'cpu' else ''
        for policy, lengths in (('remat_clips', FRAMES), ('remat_adapters', FRAMES[:2]), ('store', FRAMES[:2])):
            for frames in lengths:
                setting, name = keeping(sizes[frames], policy), f'memory {target} {policy} {frames}'
                cases[name] = functools.partial(memory, setting, target, without)
                if without and policy == 'remat_clips':
                    cases[f'{name} with all passes'] = functools.partial(memory, setting, target, '')
        cases[f'memory {target} remat_clips 576 in float32'] = functools.partial(
            memory, sizes[576].but(*FLOAT32), target, without
        )
        cases[f'growth {target}'] = functools.partial(
            growth, {frames: keeping(sizes[frames], 'remat_clips') for frames in SPAN}, target, without
        )
    cases['small step'] = functools.partial(policies, SMALL)
    if jax.default_backend() == 'gpu':
        cases['run remat_clips 576'] = functools.partial(measured, sizes[576])
    return cases


def keeping(setting: Setting, policy: str) -> Setting:
    """With another policy for what the backward pass keeps."""
    return setting.but(('clips.memory', policy))


def memory(setting: Setting, target: str, without: str) -> Iterator[Row]:
    """What XLA plans for one step, or why it could not be compiled."""
    row: Row = {'target': target, 'without_pass': without, 'paper_gb_at_576': PAPER_GB}
    missing = lacking(target)
    yield row | ({'not_compiled': missing} if missing else planned(setting, target, without))


def growth(settings: dict[int, Setting], target: str, without: str) -> Iterator[Row]:
    """Bytes a frame, from the shortest window to the longest, beside the reduced features of all tapped layers."""
    row: Row = {'target': target, 'without_pass': without}
    if missing := lacking(target):
        yield row | {'not_compiled': missing}
        return
    low, high = min(settings), max(settings)
    model = build_step(settings[low]).experiment.model
    each = len(model.side.tapped()) * model.side.adapter_width * 4 * model.side.tokens / model.clips.frames
    plans = [planned(settings[frames], target, without) for frames in (low, high)]
    for name in ('temp', 'arguments'):
        row[f'{name}_bytes_a_frame'] = 1e9 * (plans[1][f'{name}_gb'] - plans[0][f'{name}_gb']) / (high - low)
    ratio = row['temp_bytes_a_frame'] / each
    yield row | {'frames': [low, high], 'reduced_bytes_a_frame': each, 'ratio_temp_to_reduced': ratio}


def parameters(setting: Setting) -> Iterator[Row]:
    """Numbers of those that train, part by part."""
    experiment = build_step(setting).experiment
    trained, frozen = experiment.partition.split(experiment.abstract_params)
    parts = losa.parts(trained['side'])
    (head,) = (tree for root, tree in trained.items() if root.startswith('heads_'))
    row: Row = {'trainable': _size(trained), 'frozen': _size(frozen), 'head': _size(head), 'side': sum(parts.values())}
    yield row | {f'side_{part}': count for part, count in parts.items()}


def _size(tree: Any) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def operations(setting: Setting) -> Iterator[Row]:
    """TFLOP of one step by policy; then of its parts in one forward pass over all clips."""
    counts = {}
    for policy in POLICIES:
        built = build_step(keeping(setting, policy))
        counts[policy] = flops.count(built.function, *built.arguments)
        ratio = counts[policy] / counts[POLICIES[0]]
        yield {'of': f'step, {policy}', 'tflop': counts[policy] / 1e12, 'ratio_to_store': ratio}
    for part, count in _forward(build_step(setting)).items():
        yield {'of': f'forward, {part}', 'tflop': count / 1e12}


def _forward(built: Step) -> dict[str, int]:
    experiment, batch = built.experiment, built.arguments[2][built.task]
    model, shapes = experiment.model, experiment.abstract_params
    size, frames, *picture = batch['video'].shape
    clips = model.clips.count(frames)
    clip = jax.ShapeDtypeStruct((size, model.clips.frames, *picture), jnp.float32)
    valid = jax.ShapeDtypeStruct(clip.shape[:2], bool)

    def backbone(params: Any, clip: jax.Array, valid: jax.Array) -> jax.Array:
        return model.backbone.apply({'params': params}, clip, valid, train=False).grid

    def whole(params: Any, batch: Any) -> Any:
        return experiment.apply(params, {built.task: batch}, train=False, rngs={})

    grid = jax.eval_shape(backbone, shapes['backbone'], clip, valid)
    (stacked,) = shapes['side']['reduce'].values()
    layer = {'reduce': jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), stacked)}
    tokens = clips * grid.shape[1]
    fused = jax.ShapeDtypeStruct((size, tokens, 1, 1, grid.shape[-1]), jnp.float32)
    seen = jax.ShapeDtypeStruct((size, tokens), bool)

    def head(params: Any, batch: Any, fused: jax.Array, seen: jax.Array) -> Any:
        return whole(params, batch | {'features': Features(fused, seen)})

    parts = {
        'backbone': clips * flops.count(backbone, shapes['backbone'], clip, valid),
        'reductions': clips * len(model.side.tapped()) * flops.count(model.side.reduce, layer, grid),
        'head': flops.count(head, shapes, batch, fused, seen),
    }
    return parts | {'adapters and fusion': flops.count(whole, shapes, batch) - sum(parts.values())}


def policies(setting: Setting) -> Iterator[Row]:
    """Time of a step by policy, taken in turns; `ratio_seconds` is the median over the rounds of it / that of store."""
    rows, runs = {}, {}
    for policy in POLICIES:
        built = build_step(keeping(setting, policy))
        rows[policy] = {'policy': policy, 'tflop': flops.count(built.function, *built.arguments) / 1e12}
        rows[policy] |= gigabytes(built.compiled)
        runs[policy] = built.runner()
    times = turns(runs, REPEATS)
    for policy, row in rows.items():
        ratios = {name: median_ratio(times[policy], times[POLICIES[0]], name) for name in ('seconds', 'cpu_s')}
        yield row | backbones.summary(times[policy]) | {f'ratio_{name}': ratio for name, ratio in ratios.items()}


def measured(setting: Setting) -> Iterator[Row]:
    """Steps at full size on this device: time, and the most memory that was in use, where the device tells."""
    yield {'paper_gb_at_576': PAPER_GB} | on_device(setting, REPEATS)


def actionformer_cases() -> dict[str, Callable[[], Iterator[Row]]]:
    """ActionFormer on features: a training step, a forward pass, and a video to its segments."""
    return {
        'train step': functools.partial(train_step, FEATURES),
        'forward': functools.partial(forward, FEATURES),
        'one video': functools.partial(one_video, FEATURES),
    }


def train_step(setting: Setting) -> Iterator[Row]:
    """The whole step: loss, gradients, clipping, AdamW and averaged weights."""
    built = build_step(setting)
    row: Row = {'trainable': built.experiment.partition.total(trainable=True)} | gigabytes(built.compiled)
    row['gflop'] = flops.count(built.function, *built.arguments) / 1e9
    yield row | _beside_written('train step', built.runner())


def forward(setting: Setting) -> Iterator[Row]:
    """The network on the batch of a training step."""
    built = build_step(setting)
    state, frozen = built.begin()
    params, batches = trainable.merge(state.params, frozen), {built.task: jax.device_put(built.batch())}

    def outputs(params: Any, batches: Any) -> Any:
        return built.experiment.apply(params, batches, train=True, rngs={'dropout': jax.random.key(0)})

    compiled = jax.jit(outputs).lower(params, batches).compile()
    row = {'gflop': flops.count(outputs, params, batches) / 1e9}
    yield row | _beside_written('forward', lambda: jax.block_until_ready(compiled(params, batches)))


def one_video(setting: Setting) -> Iterator[Row]:
    """A window of a training step's length to its segments in seconds; random weights leave suppression much to do."""
    built = build_step(setting)
    state, frozen = built.begin()
    predict = step_lib.make_predict_step(built.experiment.apply, built.experiment.tasks)
    batches = {built.task: {name: jax.device_put(values[:1]) for name, values in built.batch().items()}}
    weights, task = state_lib.weights(state), built.experiment.tasks[built.task]
    seconds = batches[built.task]['grid_valid'].shape[1] * STEP
    places = {'video': 'video', 'path': 'video', 'time': 0.0, 'limit': seconds, 'rate': 1 / STEP, 'lead': 0.0}
    examples = [WindowExample(grid_start=0.0, grid_step=STEP, **places)]

    def network() -> dict[str, np.ndarray]:
        return jax.device_get(predict(weights, frozen, batches)[built.task])

    def segments(predictions: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        collector = task.collector(examples)
        collector.add(np.zeros(1, int), np.ones(1, bool), predictions)
        return collector.detections()

    predictions = network()
    parts = turns({'network and decode': network, 'suppression': lambda: segments(predictions)}, REPEATS)
    row: Row = {'candidates': int(predictions['valid'].sum()), 'segments': len(segments(predictions)['score'])}
    row |= {
        f'{part}, {name}': value for part, times in parts.items() for name, value in backbones.summary(times).items()
    }
    yield row | _beside_written('one video', lambda: segments(network()))


STEP = 4 / 30  # seconds from one point of the grid to the next


def _beside_written(name: str, run: Callable[[], Any]) -> Row:
    """Times of calls, the figure that was written of the public code, and their ratio."""
    product = backbones.product()
    times = turns({'ours': run, 'product': product}, REPEATS)
    gflops = 2 * backbones.SIDE**3 / min(each['cpu_s'] for each in times['product']) / 1e9
    row = {'matmul_gflops': gflops} | backbones.summary(times['ours'])
    written = WRITTEN[name]
    return row | {'written_seconds': written, 'ratio_seconds': row['median_seconds'] / written}
