"""Adapters: what of a run was trained, in a file of its own, to go on top of the weights that it was trained beside.

One safetensors file of the trainable parameters under their canonical names (LoRA, FiLM, heads). Its notes say what
LoRA it is, the classes, and the fingerprint of the frozen part (frozen.py) without which the parameters mean nothing.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from vidloc.checkpoints import frozen, key_table
from vidloc.checkpoints.leaves import Shape
from vidloc.checkpoints.readers import safetensors
from vidloc.models import lora as lora_lib
from vidloc.models.lora import Lora

FORMAT = 1
SHOWN = 8
# What two LoRA must have in common: the rest is of training alone.
COMMON = ('rank', 'alpha', 'on', 'where', 'layers')
_NOTES = ('format', 'fingerprint', 'lora', 'classes')


class AdapterError(ValueError):
    """An adapter cannot be written, read, or used on this model: why, and what to do."""


@dataclasses.dataclass(frozen=True, eq=False)
class Adapter:
    """params: {canonical name: float32 array}. lora: its layers counted from the first; rank 0: there is none.

    fingerprint: of the parameters beside which it was trained; None: nothing tells. classes: {task: names in order}.
    base: what the file calls the weights that it belongs to, where it says no more; '' else.
    """

    params: Mapping[str, np.ndarray]
    lora: Lora
    fingerprint: str | None
    classes: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    base: str = ''

    @property
    def told(self) -> str:
        """What it is, for the user: 'LoRA of rank 8 on query, value of layers 2 to 3; film, heads_clips'."""
        parts = sorted({name.split('/')[0] for name in self.params if not _is_lora(name)})
        return '; '.join(part for part in (described(self.lora), ', '.join(parts)) if part)


def described(lora: Lora) -> str:
    """A LoRA in words; '' where there is none."""
    if not lora.rank:
        return ''
    first, last = lora.layers
    blocks = f'layer {first}' if first == last else f'layers {first} to {last}'
    places = [blocks] if 'backbone' in lora.where else []
    places += ['heads'] if 'heads' in lora.where else []
    return f'LoRA of rank {lora.rank}, alpha {lora.alpha:g}, on {", ".join(lora.on)} of {" and ".join(places)}'


def write(path: str | os.PathLike[str], adapter: Adapter) -> None:
    """Writes one file; its name must be new. Raises AdapterError, store.CheckpointError, OSError."""
    path = pathlib.Path(path)
    if path.exists():
        raise AdapterError(f'{path} is there already: name a new file')
    notes = {
        'format': str(FORMAT),
        'fingerprint': adapter.fingerprint,
        'lora': json.dumps(dataclasses.asdict(adapter.lora)),
        'classes': json.dumps(dict(adapter.classes)),
    }
    arrays = {name: np.asarray(adapter.params[name], np.float32) for name in sorted(adapter.params)}
    frozen.write_safetensors(
        path, {name: (array.shape, array.dtype, lambda array=array: array) for name, array in arrays.items()}, notes
    )


def read(path: str | os.PathLike[str]) -> Adapter:
    """A file by `write`. Raises AdapterError, ReadError."""
    entries, notes = safetensors.read(path)
    if missing := [name for name in _NOTES if name not in notes]:
        raise AdapterError(
            f'{path} is no adapter by tools/export_adapter.py: its notes lack {", ".join(missing)}. Of an adapter by '
            'PEFT name the folder'
        )
    try:
        if int(notes['format']) > FORMAT:
            raise AdapterError(f'{path} is of format {notes["format"]}, newer than this vidloc ({FORMAT}) reads')
        lora = Lora(**{name: _plain(value) for name, value in json.loads(notes['lora']).items()})
        classes = {task: tuple(names) for task, names in json.loads(notes['classes']).items()}
    except (TypeError, AttributeError, ValueError) as error:
        if isinstance(error, AdapterError):
            raise
        raise AdapterError(f'{path} is damaged: its notes cannot be read ({error})') from error
    params = {name: np.asarray(entry.read(), np.float32) for name, entry in entries.items()}
    return finite(path, Adapter(params, lora, notes['fingerprint'], classes))


def finite(path: str | os.PathLike[str], adapter: Adapter) -> Adapter:
    """The adapter, all of whose numbers are finite. Raises AdapterError."""
    if wrong := [name for name, value in adapter.params.items() if not np.isfinite(value).all()]:
        raise AdapterError(f'{path}: {_listed(wrong)} holds numbers that are not finite; the training diverged')
    return adapter


def check(
    path: str | os.PathLike[str],
    adapter: Adapter,
    *,
    shapes: Mapping[str, Shape],
    wanted: Collection[str],
    lora: Lora,
    classes: Mapping[str, tuple[str, ...]],
) -> None:
    """Raises AdapterError, with all the differences, unless the adapter is exactly for the model.

    shapes: {canonical name: shape} of all its parameters; wanted: names that have no other start. lora: the model's,
    its layers counted from the first. classes: {task: names in order}.
    """
    wrong = [
        f'task {task}: {_other_classes(names, classes[task])}'
        for task, names in adapter.classes.items()
        if task in classes and classes[task] != names
    ]
    leaves = _other_leaves(adapter.params, shapes, wanted)
    # Where nothing but the names tells what it is on, the names decide.
    if others := _other_lora(adapter.lora, lora, COMMON if adapter.fingerprint or leaves else ('alpha',)):
        # Nearly every name or shape differs then, which would say no more.
        leaves = [f'set {", ".join(others)}']
    if wrong := wrong + leaves:
        shown = [*wrong[:SHOWN], *([f'and {len(wrong) - SHOWN} more'] if len(wrong) > SHOWN else [])]
        raise AdapterError(f'{path}, {adapter.told}, is not for this model:\n  ' + '\n  '.join(shown))


def _other_lora(theirs: Lora, ours: Lora, fields: Iterable[str]) -> list[str]:
    """What has to be set for ours to be theirs."""
    if not theirs.rank or not ours.rank:
        fields = () if theirs.rank == ours.rank else fields if theirs.rank else ('rank',)
    else:
        fields = [name for name in fields if _unordered(theirs, name) != _unordered(ours, name)]
    # Layers are those of the backbone.
    return [
        f'lora.{name}={getattr(theirs, name)!r}' for name in fields if name != 'layers' or 'backbone' in theirs.where
    ]


def _unordered(lora: Lora, name: str) -> Any:
    value = getattr(lora, name)
    return sorted(value) if name in ('on', 'where') else value


def _other_leaves(params: Mapping[str, np.ndarray], shapes: Mapping[str, Shape], wanted: Collection[str]) -> list[str]:
    wrong = [f'{label}: not in it' for label, _ in key_table.grouped(set(wanted) - set(params))]
    wrong += [f'{label}: only in it' for label, _ in key_table.grouped(set(params) - set(shapes))]
    return wrong + [
        f'{name}: {list(value.shape)} in it, {list(shapes[name])} here'
        for name, value in params.items()
        if name in shapes and value.shape != tuple(shapes[name])
    ]


def _other_classes(theirs: tuple[str, ...], ours: tuple[str, ...]) -> str:
    if len(theirs) != len(ours):
        return f'{len(theirs)} classes in it, {len(ours)} here'
    place = next(i for i, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a != b)
    return f'class {place} is {theirs[place]!r} in it and {ours[place]!r} here'


def _is_lora(name: str) -> bool:
    return name.rpartition('/')[2] in lora_lib.LEAVES


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _listed(names: Iterable[str]) -> str:
    return ', '.join(label for label, _ in key_table.grouped(names)[:SHOWN])
