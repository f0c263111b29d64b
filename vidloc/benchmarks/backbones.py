"""Time, memory and FLOPs of the video backbones at full size, beside public implementations.

Written figures are those of the public implementations on an idle machine with 2 CPU cores: they say something only
about such a machine. `matmul_gflops` is what this one gave, while the case ran, in a product of two float32
matrices, per second of CPU time. Another implementation runs in turns with ours, and `peer_ratio` (ours / theirs)
says more than either time: the models of transformers where torch is installed, and a ViViT from stock layers.
"""

import contextlib
import dataclasses
import importlib.util
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from vidloc.benchmarks import suite
from vidloc.models import attentive_pooler, classification_head, flops, sizes, videomae, vivit, vjepa2

REPEATS = 3
CLASSES = 400
FAMILIES = {'vivit': vivit.ViViT, 'videomae': videomae.VideoMAE, 'vjepa2': vjepa2.VJepa2}
# (sizes of the backbone, policy) -> the head of the published classifier.
HEADS: dict[str, Callable[[dict[str, Any], dict[str, Any]], nn.Module]] = {
    'vivit': lambda values, policy: classification_head.ClassificationHead(CLASSES),
    'videomae': lambda values, policy: classification_head.ClassificationHead(CLASSES, norm=True),
    'vjepa2': lambda values, policy: attentive_pooler.AttentiveHead(CLASSES, values['heads'], **policy),
}
# Dense bfloat16 products a second, by what the name of the device begins with (NVIDIA's data sheets, SXM forms).
PEAKS = {'NVIDIA A100': 312e12, 'NVIDIA H100': 989e12, 'NVIDIA H200': 989e12, 'NVIDIA B200': 2250e12}


class Classifier(nn.Module):
    """A backbone and a head on a video without padding."""

    backbone: nn.Module
    head: nn.Module

    def __call__(self, video: jax.Array, *, train: bool) -> jax.Array:
        valid = jnp.ones(video.shape[:2], bool)
        return self.head(self.backbone(video, valid, train=train), {}, train=train)


@dataclasses.dataclass(frozen=True)
class Case:
    """A model of a published size on a clip.

    modes: {what is run: {a public figure's name: it}}; peer: the module and arguments of a process that runs the
    same in another implementation (PEERS).
    fields: of the backbone, beside its size.
    """

    family: str
    size: str
    frames: int
    side: int
    modes: dict[str, dict[str, float]]
    peer: tuple[str, ...] = ()
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)

    def video(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((1, self.frames, self.side, self.side, 3), jnp.float32)

    def model(self, **policy: Any) -> Classifier:
        """policy: remat, kernel, dtype."""
        values = sizes.SIZES[self.family][self.size] | self.fields | policy
        return Classifier(FAMILIES[self.family](**values), HEADS[self.family](values, policy))


CASES = (
    Case(
        'vivit',
        'B',
        32,
        224,
        {'forward': {'seconds': 1.85}, 'train step': {'seconds': 8.88, 'cpu_s': 14.7, 'temp_mib': 3985.0}},
        ('vidloc.benchmarks.linen_peer',),
        {'temporal_on': 'rois'},
    ),
    Case(
        'videomae',
        'B',
        16,
        224,
        {'forward': {'seconds': 1.81}, 'forward and backward': {'seconds': 5.84}},
        ('vidloc.benchmarks.torch_peer', 'videomae'),
    ),
    Case('vjepa2', 'L', 16, 256, {'forward': {'seconds': 9.5}}, ('vidloc.benchmarks.torch_peer', 'vjepa2')),
)
# 9,216 and 18,432 tokens, of which one map of attention would be 7.5 and 29.9 GB.
LONG = tuple(Case('vjepa2', 'g', frames, 384, {'forward': {}}) for frames in (32, 64))
GPU_CASES = (
    Case('vjepa2', 'L', 16, 256, {}),
    Case('vjepa2', 'g', 64, 384, {}),
    Case('videomae', 'g', 16, 224, {}),
    Case('vivit', 'L-4', 32, 224, {}, fields={'temporal_on': 'rois'}),
)


def rows() -> Iterator[dict[str, Any]]:
    """One row a model and mode, then the long videos, then, on a GPU, how much of it is used."""
    for case in CASES:
        yield from _beside_public(case)
    yield _planned(CASES[0], 'train step', 'full')
    yield _planned(CASES[0], 'train step', 'dots')
    yield from _long()
    if jax.default_backend() == 'gpu':
        for case in GPU_CASES:
            yield _utilisation(case)


def _label(case: Case, mode: str) -> str:
    return f'{case.family} {case.size} {case.frames}x{case.side}x{case.side}, {mode}'


def _function(model: Classifier, mode: str) -> Callable[..., Any]:
    """'forward': (params, video) -> logits; 'forward and backward': -> gradients; 'train step':
    ((params, momentum), video) -> (the same, loss): gradients, clipped to norm 1, and SGD with momentum."""
    if mode == 'forward':
        return lambda params, video: model.apply({'params': params}, video, train=False)

    def loss(params: Any, video: jax.Array) -> jax.Array:
        logits = model.apply({'params': params}, video, train=True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.zeros(len(logits), int)).mean()

    if mode == 'forward and backward':
        return jax.grad(loss)

    def step(state: Any, video: jax.Array) -> Any:
        params, moments = state
        value, gradient = jax.value_and_grad(loss)(params, video)
        updates, moments = OPTIMIZER.update(gradient, moments)
        return (optax.apply_updates(params, updates), moments), value

    return step


OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1e-3, momentum=0.9))


def _shapes(model: Classifier, mode: str, video: jax.ShapeDtypeStruct) -> Any:
    """Of what the function of `mode` takes first."""
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(video.shape), train=False)['params'])
    return (params, jax.eval_shape(OPTIMIZER.init, params)) if mode == 'train step' else params


def _compile(case: Case, mode: str, **policy: Any) -> tuple[Any, Any, dict[str, Any]]:
    """(the compiled function, the shapes of its first argument, {flops, temp_mib})."""
    model, video = case.model(**policy), case.video()
    function, shapes = _function(model, mode), _shapes(model, mode, video)
    compiled = jax.jit(function, donate_argnums=0 if mode == 'train step' else ()).lower(shapes, video).compile()
    planned = compiled.memory_analysis().temp_size_in_bytes
    return compiled, shapes, {'flops': flops.count(function, shapes, video), 'temp_mib': planned / 2**20}


def _runner(case: Case, mode: str, compiled: Any, shapes: Any) -> Callable[[], None]:
    """Runs it once on random numbers; a train step goes on from the state that the last one gave."""
    rng = np.random.default_rng(0)

    def fill(shape: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.asarray(0.02 * rng.standard_normal(shape.shape, np.float32), shape.dtype)

    kept, video = [jax.tree.map(fill, shapes)], fill(case.video())

    def run() -> None:
        result = jax.block_until_ready(compiled(kept[0], video))
        if mode == 'train step':
            kept[0] = result[0]

    return run


def summary(times: list[dict[str, float]]) -> dict[str, float]:
    seconds = [one['seconds'] for one in times]
    median = statistics.median(seconds)
    return {'seconds': min(seconds), 'median_seconds': median, 'cpu_s': min(one['cpu_s'] for one in times)}


def _beside_public(case: Case) -> Iterator[dict[str, Any]]:
    with _peer(case.peer) as peer:
        for mode, public in case.modes.items():
            compiled, shapes, row = _compile(case, mode)
            run, multiply = _runner(case, mode, compiled, shapes), product()
            run()
            if peer:
                peer.run(mode)
            ours, theirs, products = [], [], []
            for _ in range(REPEATS):
                products.append(suite.timed(multiply)['cpu_s'])
                ours.append(suite.timed(run))
                if peer:
                    theirs.append(peer.run(mode))
            row |= {'matmul_gflops': 2 * SIDE**3 / min(products) / 1e9} | summary(ours)
            row |= {f'public_{name}': figure for name, figure in public.items()}
            row |= {f'ratio_{name}': row[name] / figure for name, figure in public.items()}
            if peer:
                row |= {f'peer_{name}': figure for name, figure in summary(theirs).items()} | peer.versions
                pairs = list(zip(ours, theirs, strict=True))
                row |= {f'peer_ratio_{name}': statistics.median(a[name] / b[name] for a, b in pairs) for name in _BOTH}
            yield {'case': _label(case, mode), 'remat': 'none', **row}


_BOTH = ('seconds', 'cpu_s')
# Module of another implementation: the packages that it needs.
PEERS = {'vidloc.benchmarks.torch_peer': ('torch', 'transformers'), 'vidloc.benchmarks.linen_peer': ('flax',)}
SIDE = 2048


def product() -> Callable[[], Any]:
    """A product of two matrices of SIDE x SIDE, to know what the machine gives at the moment."""
    matrix = jnp.ones((SIDE, SIDE))
    multiply = jax.jit(jnp.matmul)
    jax.block_until_ready(multiply(matrix, matrix))
    return lambda: jax.block_until_ready(multiply(matrix, matrix))


@dataclasses.dataclass(frozen=True)
class _Peer:
    process: subprocess.Popen
    versions: dict[str, str]

    def run(self, mode: str) -> dict[str, float]:
        self.process.stdin.write(f'{mode}\n')
        self.process.stdin.flush()
        return _answer(self.process)


def _answer(process: subprocess.Popen) -> dict[str, Any]:
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f'{" ".join(process.args)} ended with {process.wait()}; what it said stands above')
    return json.loads(line)


@contextlib.contextmanager
def _peer(command: tuple[str, ...]) -> Iterator[_Peer | None]:
    """Another implementation in a process of its own; None if there is none or what it needs is not installed."""
    if not command or not all(importlib.util.find_spec(package) for package in PEERS[command[0]]):
        yield None
        return
    command = (sys.executable, '-m', *command)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield _Peer(process, _answer(process))


def _planned(case: Case, mode: str, remat: str) -> dict[str, Any]:
    """What XLA plans with remat, beside the public figure; nothing is run."""
    _, _, row = _compile(case, mode, remat=remat)
    public = case.modes[mode]['temp_mib']
    ratio = {'public_temp_mib': public, 'ratio_temp_mib': row['temp_mib'] / public}
    return {'case': f'{_label(case, mode)}, planned', 'remat': remat, **row, **ratio}


def _long() -> Iterator[dict[str, Any]]:
    """Long videos: all layers planned, two of them run."""
    for case in LONG:
        for mode in ('forward', 'forward and backward'):
            for dtype in (jnp.float32, jnp.bfloat16):
                _, _, row = _compile(case, mode, remat='full', dtype=dtype)
                yield {'case': f'{_label(case, mode)}, planned', 'remat': 'full', 'dtype': jnp.dtype(dtype).name, **row}
        short = dataclasses.replace(case, fields={'layers': 2})
        compiled, shapes, row = _compile(short, 'forward')
        yield {
            'case': f'{_label(case, "forward")}, 2 layers and the head',
            **row,
            **suite.timed(_runner(short, 'forward', compiled, shapes)),
        }


def _utilisation(case: Case) -> dict[str, Any]:
    """Forward and backward pass in bfloat16: FLOPs of the model (three times those of its forward pass, whatever is
    computed again) a second, and as a part of what the device can do."""
    device = jax.devices()[0].device_kind
    kernel = 'cudnn'
    model, video = case.model(), case.video()
    work = 3 * flops.count(_function(model, 'forward'), _shapes(model, 'forward', video), video)
    compiled, shapes, row = _compile(case, 'forward and backward', remat='full', kernel=kernel, dtype=jnp.bfloat16)
    run = _runner(case, 'forward and backward', compiled, shapes)
    run()
    times = summary([suite.timed(run) for _ in range(REPEATS)])
    peak = next((peak for name, peak in PEAKS.items() if device.startswith(name)), None)
    rate = work / times['seconds']
    used = {'flops_per_second': rate, 'utilisation': rate / peak if peak else None, 'kernel': kernel}
    label = _label(case, 'forward and backward, bfloat16')
    return {'case': label, 'remat': 'full', 'device': device, 'model_flops': work, **used, **row, **times}
