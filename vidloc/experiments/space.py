"""The space of settings that a sweep searches: values and ranges of config fields, and the points drawn from it."""

import dataclasses
import itertools
import math
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from vidloc import config as config_lib
from vidloc.config import ConfigError

Point = dict[str, str]  # {field: text of its value, as after --config.FIELD=}
RANGE = re.compile(r'([^,\s]+?)\.\.([^,\s]+)')
# So many draws in a row that were there already end the drawing.
REPEATS = 1000


@dataclasses.dataclass(frozen=True)
class Values:
    """A list to choose from."""

    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def draw(self, source: random.Random) -> str:
        """One of them, all alike."""
        return self.texts[int(source.random() * len(self.texts))]


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from low to high, 0 < low < high, log-uniform; whole: only whole numbers, both ends among them."""

    low: float
    high: float
    whole: bool = False

    def draw(self, source: random.Random) -> str:
        """A number of at most four digits, or a whole one."""
        top = self.high + 1 if self.whole else self.high
        drawn = self.low * (top / self.low) ** source.random()
        if self.whole:
            return str(min(int(drawn), int(self.high)))
        return repr(min(max(float(f'{drawn:.4g}'), self.low), self.high))


@dataclasses.dataclass(frozen=True)
class Space:
    """{field of the config: what it may be}, in the order given."""

    fields: Mapping[str, Values | Range]

    @property
    def size(self) -> float:
        """Points of the grid; infinite if a field has a range."""
        ranges = any(isinstance(choice, Range) for choice in self.fields.values())
        return math.inf if ranges else math.prod(len(choice) for choice in self.fields.values())


def parsed(config: ml_collections.ConfigDict, texts: Sequence[str]) -> Space:
    """The space of texts such as 'schedule.rate=1e-4,3e-4', 'backbone.grid=(2,4),(4,4)' or 'schedule.rate=1e-5..1e-2'.

    Values are read as --config.FIELD=VALUE reads them; commas inside brackets or quotes part nothing. Raises
    ConfigError for a field that the config does not have, for what is no value of its type, and for one given twice.
    """
    fields: dict[str, Values | Range] = {}
    for text in texts:
        key, _, given = text.partition('=')
        if not given:
            raise ConfigError(f'--set {text}: write FIELD=VALUE,VALUE,... or FIELD=LOW..HIGH')
        if key in fields:
            raise ConfigError(f'--set {key} is there twice; give all its values at once')
        config_lib.check_field(config, key, f'--set {key}')
        current = config_lib.flatten(config).get(key)
        number = isinstance(current, int | float) and not isinstance(current, bool)
        ends = RANGE.fullmatch(given) if number else None
        fields[key] = _range(config, key, ends.groups()) if ends else _values(config, key, given)
    return Space(fields)


def trials(space: Space, count: int | None, seed: int) -> tuple[Point, ...]:
    """At most `count` different points: the whole grid in its order if it is no larger, else a random part.

    With a range among the fields all are drawn. The same arguments give the same points, and a smaller count the first
    of them. count: None for the whole grid. Raises ConfigError for a range without a count.
    """
    if count is None and math.isinf(space.size):
        raise ConfigError('a range among the --set has no end of values: say with --trials how many to draw')
    source = random.Random(seed)
    names = list(space.fields)
    if math.isinf(space.size):
        return _drawn(space, count, source)
    options = [choice.texts for choice in space.fields.values()]
    if count is None or count >= space.size:
        return tuple(dict(zip(names, texts, strict=True)) for texts in itertools.product(*options))
    return tuple(_point(space, number) for number in _numbers(int(space.size), count, source))


def _drawn(space: Space, count: int, source: random.Random) -> tuple[Point, ...]:
    found: dict[tuple[str, ...], None] = {}
    repeats = 0
    while len(found) < count and repeats < REPEATS:
        texts = tuple(choice.draw(source) for choice in space.fields.values())
        repeats = repeats + 1 if texts in found else 0
        found[texts] = None
    return tuple(dict(zip(space.fields, texts, strict=True)) for texts in found)


def _numbers(size: int, count: int, source: random.Random) -> list[int]:
    """The first `count` of 0 to size - 1 in random order, without a list of all, which may be far too many."""
    found, moved = [], {}
    for first in range(count):
        other = first + int(source.random() * (size - first))
        found.append(moved.get(other, other))
        moved[other] = moved.get(first, first)
    return found


def _point(space: Space, number: int) -> Point:
    """Of a grid, in the order of itertools.product: the last field changes first."""
    point = {}
    for name, choice in reversed(space.fields.items()):
        number, place = divmod(number, len(choice))
        point[name] = choice.texts[place]
    return {name: point[name] for name in space.fields}


def _values(config: ml_collections.ConfigDict, key: str, given: str) -> Values:
    texts = _parts(key, given)
    read: list[Any] = []
    for text in texts:
        value = config_lib.flatten(config_lib.overridden(config, key, text, f'--set {key}'))[key]
        if value in read:
            raise ConfigError(f'--set {key}={given}: {value!r} is there twice')
        read.append(value)
    return Values(texts)


def _range(config: ml_collections.ConfigDict, key: str, ends: tuple[str, str]) -> Range:
    low, high = (config_lib.flatten(config_lib.overridden(config, key, end, f'--set {key}'))[key] for end in ends)
    if not 0 < low < high < math.inf:
        raise ConfigError(
            f'--set {key}={"..".join(ends)}: a range is searched in logarithms and needs 0 < LOW < HIGH; '
            'else give a list of values'
        )
    return Range(float(low), float(high), whole=isinstance(low, int))


def _parts(key: str, given: str) -> tuple[str, ...]:
    """The text, parted at the commas that are outside of all brackets and quotes."""
    parts, depth, quote = [''], 0, ''
    for sign in given:
        if quote:
            quote = '' if sign == quote else quote
        elif sign in '\'"':
            quote = sign
        elif sign in '([{':
            depth += 1
        elif sign in ')]}':
            depth -= 1
        elif sign == ',' and not depth:
            parts.append('')
            continue
        parts[-1] += sign
    if depth or quote:
        raise ConfigError(f'--set {key}={given}: a bracket or a quotation mark has no partner')
    return tuple(part.strip() for part in parts)
