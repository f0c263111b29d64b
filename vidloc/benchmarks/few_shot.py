"""Group Relative Augmentation: memory, FLOPs and time of its training step by the number of augmented copies, N.

Memory is XLA's plan from shapes alone, as in localization.py. N = 0 is LoRA without augmentation. Behind the augmented
layer a step works on 1 + N sequences in place of one, so its cost is that of the layers before and (1 + N) times that
of the layers behind.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
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
from vidloc.models import flops, sizes
from vidloc.train import trainable

REPEATS = 9
COPIES = (0, 4, 8, 10)
ON_ALL_LAYERS = (0, 8)  # of them, those that are timed with LoRA on all layers, too
REMATS = ('none', 'full')
RECIPE = 'configs/mocapstreet_gra.py:data/mocapstreet-small'
# VideoMAEv2 g on a clip of 16 frames of 224 x 224, 2,048 tokens; four people, and the 60 classes of AVA's evaluation.
GIANT = sizes.SIZES['videomae']['g']
LARGE = (
    *((f'backbone.{field}', value) for field, value in GIANT.items()),
    ('backbone.tubelet', 2),
    ('backbone.final_norm', False),
    ('lora.layers', (30, -1)),
    ('tasks.street.class_list', ''),
    ('tasks.street.num_classes', 60),
    ('tasks.street.head.size', (7, 7)),
    ('sources.street.frames', 16),
    ('sources.street.size', (224, 224)),
    ('sources.street.max_boxes', 4),
    ('sources.street.batch_size', 1),
    ('train.batch_size', 1),
    ('precision.compute', 'bfloat16'),
    ('precision.frozen', 'bfloat16'),
    ('precision.unroll', 1),
)

Row = dict[str, Any]


def large(copies: int, *changes: tuple[str, Any]) -> Setting:
    """The recipe with VideoMAEv2 g: LoRA of rank 16 on the last ten of its 40 layers, copies made in front of them."""
    table = (('film.embedding', 128),) if copies else ()
    return Setting(f'{RECIPE},rank=16,{augmented(copies)}', (*LARGE, *table, *changes))


def small(copies: int, *changes: tuple[str, Any]) -> Setting:
    """The recipe as it trains on CPUs: 8 layers, LoRA on the last two, copies made in front of them."""
    return Setting(f'{RECIPE},{augmented(copies)}', (('precision.unroll', 1), *changes))


def everywhere(setting: Setting) -> Setting:
    """With LoRA on all layers. Where copies are made stays."""
    config = setting.config()
    last = (('film.after', config.lora.layers[0] - 1),) if config.film.kind != 'none' else ()
    return setting.but(('lora.layers', (0, -1)), *last)


def augmented(copies: int) -> str:
    """The recipe's words for so many copies."""
    return f'gra,N={copies}' if copies else 'lora'


def cases() -> dict[str, Callable[[], Iterator[Row]]]:
    """Parameters, FLOPs, what the backward pass keeps and the memory of a step beside VideoMAEv2 g, and the time of a
    small one."""
    settings = {copies: large(copies) for copies in COPIES}
    cases: dict[str, Callable[[], Iterator[Row]]] = {
        'parameters': functools.partial(parameters, settings),
        'flops': functools.partial(operations, settings),
        'kept': functools.partial(kept, settings | {'all layers, 0': everywhere(settings[0])}),
    }
    for target in ('cpu', *TARGETS):
        without = WITHOUT if target == 'cpu' else ''
        for remat in REMATS:
            rematerialised = {copies: one.but(('precision.remat', remat)) for copies, one in settings.items()}
            for copies, one in rematerialised.items():
                name = f'memory {target} {remat} {copies}'
                cases[name] = functools.partial(memory, one, target, without)
                if target == 'cpu':
                    cases[f'{name} in float32'] = functools.partial(memory, one.but(*FLOAT32), target, without)
            name = f'memory {target} {remat} 0 with LoRA on all layers'
            cases[name] = functools.partial(memory, everywhere(rematerialised[0]), target, without)
            cases[f'growth {target} {remat}'] = functools.partial(growth, rematerialised, target, without)
        if without:
            cases[f'memory {target} none 0 with all passes'] = functools.partial(memory, settings[0], target, '')
    cases['small step'] = functools.partial(steps, {copies: small(copies) for copies in COPIES}, ON_ALL_LAYERS)
    if jax.default_backend() == 'gpu':
        cases |= {f'run {copies}': functools.partial(measured, one) for copies, one in settings.items()}
    return cases


def parameters(settings: dict[int, Setting]) -> Iterator[Row]:
    """Numbers of those that train, part by part."""
    for copies, setting in settings.items():
        experiment = build_step(setting).experiment
        trained, frozen = experiment.partition.split(experiment.abstract_params)
        parts = {'lora': trained.get('backbone', {}), 'film': trained.get('film', {})}
        parts['head'] = {root: tree for root, tree in trained.items() if root.startswith('heads_')}
        counts = {part: _size(tree) for part, tree in parts.items()}
        yield {'copies': copies, 'trainable': _size(trained), 'frozen': _size(frozen)} | counts


def _size(tree: Any) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def operations(settings: dict[int, Setting]) -> Iterator[Row]:
    """TFLOP of a forward pass and of a step, and the share of what comes before the augmented layer in both.

    behind: of one sequence behind that layer, forward, as the passes with few and many copies tell. Nothing before it
    has a backward pass.
    """
    forward = {copies: flops.count(*_forward(build_step(setting))) for copies, setting in settings.items()}
    least, most = min(settings), max(settings)
    behind = (forward[most] - forward[least]) / (most - least)
    before = forward[least] - (1 + least) * behind
    for copies, setting in settings.items():
        row: Row = {'copies': copies, 'before_tflop': before / 1e12, 'behind_tflop': behind / 1e12}
        row |= _share('forward', forward[copies], before)
        for remat in REMATS:
            built = build_step(setting.but(('precision.remat', remat)))
            row |= _share(f'step remat {remat}', flops.count(built.function, *built.arguments), before)
        yield row


def _share(what: str, count: int, before: float) -> Row:
    return {f'{what}, tflop': count / 1e12, f'{what}, share_before': before / count}


def _forward(built: Step) -> tuple[Any, ...]:
    """(function, its arguments) of a forward pass in training."""
    experiment = built.experiment

    def outputs(params: Any, batches: Any) -> Any:
        return experiment.apply(params, batches, train=True, rngs={})

    return outputs, experiment.abstract_params, built.arguments[2]


def kept(settings: dict[Any, Setting]) -> Iterator[Row]:
    """Megabytes that the forward pass keeps for the backward one, by the layers they are of, before any compiler.

    What has a parameter's shape is not counted: it is that parameter.
    """
    for case, setting in settings.items():
        for remat in REMATS:
            found = residuals(build_step(setting.but(('precision.remat', remat))))
            megabytes = {f'{where}_mb': size / 1e6 for where, size in found.items()}
            yield {'of': f'{case}, remat {remat}', **megabytes}


def residuals(built: Step) -> dict[str, int]:
    """{'layers 0 to 29': bytes kept of them, ..., 'else': bytes}; of layers that run in one scan they are stacked.

    They are told apart by the length of that first axis; the few numbers of the head that N copies have are counted
    among the layers where N is such a length. Raises ValueError where two scans are equally long.
    """
    experiment, (state, frozen, batches) = built.experiment, built.arguments
    task = experiment.tasks[built.task]
    ((_, runs),) = experiment.segments.items()
    lengths = {last + 1 - first: f'layers {first} to {last}' for first, last in runs}
    if len(lengths) < len(runs):
        raise ValueError(f'the scans {runs} are equally long: what is kept of which cannot be told')

    def backward(trained: Any, frozen: Any, batches: Any) -> Any:
        def loss(trained: Any) -> jax.Array:
            outputs = experiment.apply(trainable.merge(trained, frozen), batches, train=True, rngs={})
            return task.loss(outputs[built.task], batches[built.task], train=True).sum

        return jax.vjp(loss, trained)[1]

    given = {(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves((state.params, frozen))}
    found = dict.fromkeys([*lengths.values(), 'else'], 0)
    for leaf in jax.tree.leaves(jax.eval_shape(backward, state.params, frozen, batches)):
        if (leaf.shape, leaf.dtype) not in given:
            found[lengths.get(next(iter(leaf.shape), 0), 'else')] += leaf.size * leaf.dtype.itemsize
    return found


def memory(setting: Setting, target: str, without: str) -> Iterator[Row]:
    """What XLA plans for one step, or why it could not be compiled."""
    row: Row = {'target': target, 'without_pass': without}
    missing = lacking(target)
    yield row | ({'not_compiled': missing} if missing else planned(setting, target, without))


def growth(settings: dict[int, Setting], target: str, without: str) -> Iterator[Row]:
    """Megabytes a copy, from the fewest copies to the most, beside what the backward pass keeps of one."""
    row: Row = {'target': target, 'without_pass': without}
    if missing := lacking(target):
        yield row | {'not_compiled': missing}
        return
    few, many = min(settings), max(settings)
    plans = [planned(settings[copies], target, without) for copies in (few, many)]
    keep = [sum(residuals(build_step(settings[copies])).values()) for copies in (few, many)]
    row |= {'copies': [few, many], 'temp_mb_a_copy': 1e3 * (plans[1]['temp_gb'] - plans[0]['temp_gb']) / (many - few)}
    row['kept_mb_a_copy'] = (keep[1] - keep[0]) / 1e6 / (many - few)
    yield row | {'ratio_temp_to_kept': row['temp_mb_a_copy'] / row['kept_mb_a_copy']}


def steps(settings: dict[int, Setting], on_all_layers: tuple[int, ...]) -> Iterator[Row]:
    """Time of a step by copies and by the layers with LoRA, taken in turns; `ratio_seconds` is the median over the
    rounds of it / that of the first of the settings."""
    given = {('last quarter', copies): setting for copies, setting in settings.items()}
    given |= {('all', copies): everywhere(settings[copies]) for copies in on_all_layers}
    rows, runs = {}, {}
    for (layers, copies), setting in given.items():
        built, name = build_step(setting), f'{layers}, {copies}'
        rows[name] = {'lora': layers, 'copies': copies}
        rows[name] |= {'gflop': flops.count(built.function, *built.arguments) / 1e9} | gigabytes(built.compiled)
        runs[name] = built.runner()
    times = turns(runs, REPEATS)
    first = next(iter(rows))
    for name, row in rows.items():
        ratios = {f'ratio_{of}': median_ratio(times[name], times[first], of) for of in ('seconds', 'cpu_s')}
        ratios['ratio_gflop'] = row['gflop'] / rows[first]['gflop']
        yield row | backbones.summary(times[name]) | ratios


def measured(setting: Setting) -> Iterator[Row]:
    """Steps at full size on this device."""
    yield on_device(setting, REPEATS)
