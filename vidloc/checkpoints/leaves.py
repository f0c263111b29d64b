"""The parameters that a weight file holds, under their canonical names, before any of them is read."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from vidloc.checkpoints import families, key_maps
from vidloc.checkpoints.key_table import Row
from vidloc.checkpoints.readers.weights import Entry, Weights

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A parameter. read() gives an array of this shape, in the type of the file; it may be a view of what was read.

    sources: full names of the arrays it is made of; source_shape: of the first. note: how it was made, if not simply
    copied; kind: the row it gets in the table.
    """

    shape: Shape
    read: Callable[[], np.ndarray]
    sources: tuple[str, ...]
    source_shape: Shape
    note: str = ''
    kind: str = 'used'

    def made(self, shape: Shape, change: Callable[[np.ndarray], np.ndarray], note: str) -> 'Leaf':
        """This one as `change` makes it."""
        note = f'{self.note}; {note}' if self.note else note
        read = self.read
        return dataclasses.replace(self, shape=shape, read=lambda: change(read()), note=note, kind='reshaped')


@dataclasses.dataclass(frozen=True)
class Held:
    """leaves: {canonical name: Leaf}, in the order of the file. rows: what is no leaf, and why."""

    leaves: dict[str, Leaf]
    rows: tuple[Row, ...]


def of_file(weights: Weights, found: families.Found, expected: Mapping[str, Shape], roots: Iterable[str]) -> Held:
    """What the file holds of the parameters `expected` {canonical name: shape of the file's own model}.

    roots: the parts of the model that are asked for ('backbone', 'head'); arrays of others are not missed.
    """
    roots = tuple(roots)
    shared = _Shared(weights.entries)
    leaves, rows = {}, []
    used: dict[str, set[tuple[int, int]]] = {}
    for name, shape in expected.items():
        if name.split('/')[0] not in roots:
            continue
        choices = found.layout.bind(name)
        rule = next((each for each in choices if all(source in found.names for source in each.sources)), None)
        if rule is None:
            rows.append(Row('missing', name, choices[0].sources if choices else (), shape))
            continue
        for source in rule.sources:
            used.setdefault(source, set()).add(_piece(rule))
        full = tuple(found.names[source] for source in rule.sources)
        entries = [weights.entries[each] for each in full]
        if (wrong := _misfit(rule, entries, shape)) is not None:
            rows.append(Row('mismatched', name, full, shape, entries[0].shape, note=wrong))
            continue
        leaves[name] = Leaf(shape, shared.reader(rule, full, shape), full, entries[0].shape)
    rows += _unused(weights, found, used, roots)
    place = {name: i for i, name in enumerate(weights.entries)}
    in_order = sorted(leaves, key=lambda name: place[leaves[name].sources[0]])
    return Held({name: leaves[name] for name in in_order}, tuple(rows))


def _piece(rule: key_maps.Rule) -> tuple[int, int]:
    """Which part of its source a rule takes, and which layer."""
    return (rule.part[0], rule.layer if rule.stacked and rule.layer is not None else 0)


def _misfit(rule: key_maps.Rule, entries: list[Entry], shape: Shape) -> str | None:
    """What forbids that the rule makes a leaf of this shape ('': the shapes), None if nothing; no tensor is read."""
    for entry in entries:
        # Floats of machine learning, such as bfloat16, are of NumPy's kind V.
        if entry.dtype.kind not in 'fV' or entry.dtype.names is not None:
            return f'{entry.dtype} is no type of a parameter'
    # One number, repeated: arrays of any size that take no memory.
    stand_ins = [np.broadcast_to(np.zeros((), np.float32), entry.shape) for entry in entries]
    try:
        made = key_maps.apply(rule, stand_ins[0], shape, *stand_ins[1:])
    except key_maps.FormError as error:
        return str(error) if rule.beside else ''
    return None if made.shape == tuple(shape) else ''


def _unused(
    weights: Weights, found: families.Found, used: Mapping[str, set[tuple[int, int]]], roots: tuple[str, ...]
) -> list[Row]:
    rows = []
    for source, full in found.names.items():
        entry = weights.entries[full]
        size = int(np.prod(entry.shape, dtype=np.int64)) * entry.dtype.itemsize
        rules = found.layout.leaves(source)
        row = Row('unused', full, (full,), None, entry.shape, size)
        if source in used:
            if left := _left(rules, used[source], entry.shape):
                rows.append(dataclasses.replace(row, note=f'only a part of it is used; {left} of its parts are not'))
        elif rules and not (parts := {rule.canonical.split('/')[0] for rule in rules}) & set(roots):
            rows.append(dataclasses.replace(row, kind='elsewhere', note=f'the {min(parts)} was not asked for'))
        elif not rules and (why := found.layout.why_ignored(source)) is not None:
            rows.append(dataclasses.replace(row, kind='ignored', note=why))
        else:
            rows.append(row)
    read = set(found.names.values())
    for full, entry in weights.entries.items():
        if full not in read:
            size = int(np.prod(entry.shape, dtype=np.int64)) * entry.dtype.itemsize
            note = f'beside what is read, in {re.split(r"[/.]", full)[0]}'
            rows.append(Row('elsewhere', full, (full,), None, entry.shape, size, note))
    return rows


def _left(rules: tuple[key_maps.Rule, ...], used: set[tuple[int, int]], shape: Shape) -> int:
    """How many parts of an array are not used."""
    parts = {rule.part for rule in rules}
    count = max((n for _, n in parts), default=1)
    stacked = any(rule.stacked for rule in rules)
    every = {(k, i) for k in range(count) for i in range(shape[0] if stacked else 1)}
    return len(every - used)


class _Shared:
    """Reads arrays; one that several leaves are parts of is kept until another such one is read."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self._entries = entries
        self._kept: tuple[str, np.ndarray] | None = None

    def _array(self, name: str, shared: bool) -> np.ndarray:
        if not shared:
            return self._entries[name].read()
        if self._kept is None or self._kept[0] != name:
            self._kept = None  # Let go of it before the next is read.
            self._kept = (name, self._entries[name].read())
        return self._kept[1]

    def reader(self, rule: key_maps.Rule, names: tuple[str, ...], shape: Shape) -> Callable[[], np.ndarray]:
        shared = rule.stacked or rule.part[1] > 1

        def read() -> np.ndarray:
            arrays = [self._array(name, shared and i == 0) for i, name in enumerate(names)]
            return key_maps.apply(rule, arrays[0], shape, *arrays[1:])

        return read
