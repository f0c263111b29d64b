"""The freezing table: which leaves train, at which rate, with or without decay. Freezing is decided here
alone.

A table is a sequence of (pattern, rate, decay) rows. A row's pattern must match a leaf's whole canonical name
(re.fullmatch, so `backbone/.*` and never half a name); the first row that matches wins; rate None freezes,
else it multiplies the learning rate. Every leaf must match a row and every row must win at least one leaf.
Leaves that a run is given to keep, such as the embeddings of texts, train only by a row of their own (`keeping`).
"""

import dataclasses
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from vidloc.models import layers

# Leaves without weight decay, by the last part of their name: biases, norms, scales, gates, positions, learned tokens.
PLAIN = r'(bias|scale|gamma[12]?|cls|position|query|(\w+_)?gate|(image|video)_modality)'
_STACKED = re.compile(r'(.*)/blocks_(\d+)_\d+/(.*)')


class TableError(ValueError):
    """The table does not fit the parameters; the text lists every difference."""


class Rule(NamedTuple):
    """One row: a pattern over canonical names, a rate multiplier (None: frozen), weight decay or not."""

    pattern: str
    rate: float | None
    decay: bool


Table = Sequence[Rule | tuple[str, float | None, bool]]


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A leaf of the run form; names, rules: canonical names and their rows, one a layer if stacked."""

    name: str
    shape: tuple[int, ...]
    names: tuple[str, ...]
    rules: tuple[Rule, ...]

    @property
    def trainable(self) -> bool:
        return self.rules[0].rate is not None

    @property
    def rate(self) -> Any:
        """float, or float32 [L, 1, ...] where the layers of a stacked leaf differ."""
        return self._spread([rule.rate for rule in self.rules], np.float32)

    @property
    def decay(self) -> Any:
        """bool, or bool [L, 1, ...] where the layers of a stacked leaf differ."""
        return self._spread([rule.decay for rule in self.rules], np.bool_)

    def _spread(self, values: list[Any], dtype: Any) -> Any:
        if len(set(values)) == 1:
            return values[0]
        return np.array(values, dtype).reshape(-1, *[1] * (len(self.shape) - 1))  # [L, 1, ...]


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the parameter table.

    trainable: '-' if frozen, 'yes', or 'x' and the rate where it is not 1, the least and the largest of its layers.
    rule: the patterns that won; of more than three the first and the last.
    """

    name: str
    shape: str
    size: int
    trainable: str
    rule: str


@dataclasses.dataclass(frozen=True, eq=False)
class Partition:
    """A table's verdict on a tree in run form. leaves: {run name: Leaf}, sorted."""

    table: tuple[Rule, ...]
    leaves: Mapping[str, Leaf]

    def split(self, params: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """(trainable, frozen): nested dicts that share no leaf; params: arrays or ShapeDtypeStructs."""
        flat = traverse_util.flatten_dict(params, sep='/')
        if flat.keys() != self.leaves.keys():
            raise TableError(
                'the parameters are not those the table was resolved on: '
                f'missing {_listed(self.leaves.keys() - flat.keys())}; '
                f'new {_listed(flat.keys() - self.leaves.keys())}'
            )
        parts: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
        for name, value in flat.items():
            parts[0 if self.leaves[name].trainable else 1][name] = value
        trainable, frozen = (traverse_util.unflatten_dict(part, sep='/') for part in parts)
        return trainable, frozen

    def rates(self) -> dict[str, Any]:
        """Rate multipliers, a tree like the trainable leaves."""
        return self._trainable({name: leaf.rate for name, leaf in self.leaves.items() if leaf.trainable})

    def decay(self) -> dict[str, Any]:
        """Decay masks, a tree like the trainable leaves."""
        return self._trainable({name: leaf.decay for name, leaf in self.leaves.items() if leaf.trainable})

    def _trainable(self, flat: dict[str, Any]) -> dict[str, Any]:
        return traverse_util.unflatten_dict(flat, sep='/')

    def rows(self) -> list[Row]:
        """The parameter table, a row for each leaf of the run form."""
        return [
            Row(
                name=leaf.name,
                shape=str(leaf.shape),
                size=_size(leaf),
                trainable=_told(leaf.rules),
                rule=_patterns(leaf.rules),
            )
            for leaf in self.leaves.values()
        ]

    def counts(self) -> dict[str, int]:
        """{pattern: trainable parameters under it}, in the table's order; 0 for frozen rows."""
        counts = {rule.pattern: 0 for rule in self.table}
        for leaf in self.leaves.values():
            for rule in leaf.rules:
                counts[rule.pattern] += _size(leaf) // len(leaf.rules) if rule.rate is not None else 0
        return counts

    def by_kind(self, patterns: Mapping[str, str]) -> dict[str, int]:
        """{kind: trainable parameters whose canonical names match its pattern, and none before it}, and 'other'."""
        counts = dict.fromkeys((*patterns, 'other'), 0)
        for leaf in self.leaves.values():
            for name in leaf.names if leaf.trainable else ():
                kind = next((kind for kind, pattern in patterns.items() if re.fullmatch(pattern, name)), 'other')
                counts[kind] += _size(leaf) // len(leaf.names)
        return counts

    def total(self, *, trainable: bool = False) -> int:
        """Number of parameters, all or only the trainable ones."""
        return sum(_size(leaf) for leaf in self.leaves.values() if leaf.trainable or not trainable)

    def overview(self) -> str:
        """The table as text, with totals: what is printed at the start of a run."""
        from clu import parameter_overview

        columns = [field.name for field in dataclasses.fields(Row)]
        table = parameter_overview.make_table(self.rows(), column_names=columns)
        return f'{table}\nTotal: {self.total():,} -- trainable: {self.total(trainable=True):,}'


def resolve(table: Table, tree: Any) -> Partition:
    """Applies a table to a tree in run form (arrays or ShapeDtypeStructs).

    Raises TableError listing: leaves without a row, rows without a leaf, patterns that do not compile or
    stand twice, and stacked leaves whose layers are partly frozen (with the layers between which the stack
    has to be split).
    """
    rules = _rules(table)
    leaves = _assign(rules, tree)
    mixed = []
    for leaf in leaves.values():
        frozen = [rule.rate is None for rule in leaf.rules]
        cuts = [i for i in range(1, len(frozen)) if frozen[i] != frozen[i - 1]]
        if cuts:
            mixed += [f'{leaf.name}: split between {leaf.names[i - 1]} and {leaf.names[i]}' for i in cuts]
    if mixed:
        raise TableError(
            'layers of one stacked leaf are partly frozen; build the stack with trainable.boundaries:\n  '
            + '\n  '.join(mixed)
        )
    return Partition(rules, leaves)


def keeping(table: Table, tree: Any, given: Iterable[str]) -> tuple[Rule, ...]:
    """The table, with rows in front that freeze what was given to a model and is not to be learned by accident.

    given: canonical names of leaves. One of them trains only by a row that is meant for such leaves, that is, wins no
    others: `heads_.*/text/embedding`, say, and not `.*`.
    tree: in run form. Raises TableError if the table does not fit it.
    """
    rules, given = _rules(table), sorted(given)
    won: dict[Rule, list[str]] = {rule: [] for rule in rules}
    for leaf in _assign(rules, tree).values():
        for name, rule in zip(leaf.names, leaf.rules, strict=True):
            won[rule].append(name)
    general = [names for rule, names in won.items() if rule.rate is not None and not set(names) <= set(given)]
    stay = [name for name in given if any(name in names for names in general)]
    return (*(Rule(re.escape(name), None, False) for name in stay), *rules)


def boundaries(table: Table, tree: Any) -> dict[str, tuple[tuple[int, int], ...]]:
    """{stack: ((first, last), ...)}: the segments in which no stacked leaf is partly frozen, both ends
    included.

    tree: in run form with any segments (one a stack, say); their own boundaries are kept. Two neighbouring
    layers stay together when the table freezes the same of their leaves; rates may differ, those are vectors.
    """
    frozen: dict[tuple[str, int], dict[str, list[bool]]] = {}
    for leaf in _assign(_rules(table), tree).values():
        if match := _STACKED.fullmatch(leaf.name):
            verdicts = [rule.rate is None for rule in leaf.rules]
            frozen.setdefault((match[1], int(match[2])), {})[match[3]] = verdicts
    segments: dict[str, list[tuple[int, int]]] = {}
    for (stack, first), leaves in sorted(frozen.items()):
        each = list(zip(*(leaves[rest] for rest in sorted(leaves)), strict=True))  # one tuple of verdicts a layer
        starts = [0, *(i for i in range(1, len(each)) if each[i] != each[i - 1]), len(each)]
        segments.setdefault(stack, []).extend((first + a, first + b - 1) for a, b in itertools.pairwise(starts))
    return {stack: tuple(found) for stack, found in segments.items()}


def merge(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """One nested dict from several that share no leaf (the inverse of Partition.split)."""
    merged: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            if key in merged and isinstance(value, Mapping) and isinstance(merged[key], Mapping):
                merged[key] = merge(merged[key], value)
            elif key in merged:
                raise ValueError(f'both parts hold {key!r}')
            else:
                merged[key] = value
    return merged


def _rules(table: Table) -> tuple[Rule, ...]:
    rules = tuple(Rule(*row) for row in table)
    wrong = []
    for i, rule in enumerate(rules):
        try:
            re.compile(rule.pattern)
        except re.error as error:
            wrong.append(f'row {i}: {rule.pattern!r} is not a regular expression ({error})')
        if any(rule.pattern == other.pattern for other in rules[:i]):
            wrong.append(f'row {i}: {rule.pattern!r} stands twice')
    if wrong:
        raise TableError('freezing table:\n  ' + '\n  '.join(wrong))
    return rules


def _assign(rules: Sequence[Rule], tree: Any) -> dict[str, Leaf]:
    compiled = [re.compile(rule.pattern) for rule in rules]
    leaves, unmatched, hit = {}, [], set()
    canonical_names = layers.canonical_names(tree)
    for name, value in sorted(traverse_util.flatten_dict(tree, sep='/').items()):
        won = []
        for canonical in canonical_names[name]:
            index = next((i for i, pattern in enumerate(compiled) if pattern.fullmatch(canonical)), None)
            if index is None:
                unmatched.append(canonical)
            else:
                hit.add(index)
                won.append(rules[index])
        leaves[name] = Leaf(name, tuple(value.shape), canonical_names[name], tuple(won))
    wrong = [f'no row matches {name}' for name in unmatched]
    wrong += [f'row {i} {rule.pattern!r} wins no leaf' for i, rule in enumerate(rules) if i not in hit]
    if wrong:
        raise TableError('freezing table:\n  ' + '\n  '.join(wrong))
    return leaves


def _told(rules: Sequence[Rule]) -> str:
    rates = sorted({rule.rate for rule in rules if rule.rate is not None})
    if not rates:
        return '-'
    if rates == [1.0]:
        return 'yes'
    return 'x' + ' to '.join(f'{rate:.2g}' for rate in dict.fromkeys((rates[0], rates[-1])))


def _patterns(rules: Sequence[Rule]) -> str:
    patterns = list(dict.fromkeys(rule.pattern for rule in rules))
    if len(patterns) > 3:
        patterns = [patterns[0], f'{len(patterns) - 2} more', patterns[-1]]
    return ' | '.join(patterns)


def _size(leaf: Leaf) -> int:
    return int(np.prod(leaf.shape, dtype=np.int64))


def _listed(names: Iterable[str]) -> str:
    names = sorted(names)
    return ', '.join(names[:8]) + (f' and {len(names) - 8} more' if len(names) > 8 else '') if names else 'none'
