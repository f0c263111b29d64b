"""What weight files call each parameter, as rules that are read in both directions (the tables: layouts.py).

A rule ties one canonical leaf (`backbone/encoder/block_03/attn/query/kernel`) to one array of a file
(`blocks.3.attn.qkv.weight`) and says how the one becomes the other. A layout is the rules of one kind of file.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterable, Sequence

import numpy as np


class FormError(ValueError):
    """An array cannot become the leaf that its rule names; the text says what has which shape."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """canonical <-> source; `{i}` stands for a layer in both (in the canonical name two digits behind `block_`).

    form: 'same': the same axes.
      'flat': [n] <-> a leaf with the same values in several axes (biases by head).
      'linear': a torch matrix [out, in] <-> a kernel [*in, *out] with `inputs` axes of inputs.
      'conv': a torch filter [D, C, (t), h, w] or [D, C, t] <-> a kernel [(t), h, w, C, D] or [t, C, D].
      'pointwise': a torch filter of length one [out, in, 1] <-> a kernel [in, out].
      'channels': one value for each channel of a sequence, [1, D, 1] <-> [D].
      'levels': a number for each level, each an array of its own (), `source` and then `beside` <-> [levels].
      'positions': positions of space [1, s, D], and in `beside` of time [1, t, D] and of the CLS token [1, 1, D] -> the
      leaf [1, 1 + t s, D]: the CLS token first, then the sum of both for each token.
    part: (k, n): the leaf is the k-th of n equal pieces of the source, along its first axis.
    beside: further arrays of the file that the form takes.
    stacked: the source has the layers on its first axis; `layer` picks one.
    layer: the number that stands for `{i}`, in a rule of one leaf (see Layout.bind); None in a table.
    """

    canonical: str
    source: str
    form: str = 'same'
    part: tuple[int, int] = (0, 1)
    inputs: int = 1
    beside: tuple[str, ...] = ()
    stacked: bool = False
    layer: int | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """All arrays of the file that the leaf is made of: `source`, then `beside`."""
        return (self.source, *self.beside)


def natural_shape(rule: Rule, *shapes: Sequence[int]) -> tuple[int, ...]:
    """The shape of the leaf before axes are split into heads, from those of `rule.sources` in the file.

    'linear': [in, out]; 'flat': [n]; most others: the shape itself. Raises FormError if they do not suit the form.
    """
    if len(shapes) != len(rule.sources):
        raise FormError(f'{rule.canonical} is made of {", ".join(rule.sources)}; {len(shapes)} of them are given')
    shape = tuple(shapes[0])
    wrong = FormError(f'{rule.source} has the shape {shape}, which is none for {rule.canonical}')
    if rule.stacked:
        if not shape or (rule.layer is not None and rule.layer >= shape[0]):
            raise wrong
        shape = shape[1:]
    index, count = rule.part
    if count > 1:
        if not shape or shape[0] % count or index >= count:
            raise FormError(f'{rule.source} has the shape {shape}, which is not {count} equal pieces')
        shape = (shape[0] // count, *shape[1:])
    if rule.form == 'same':
        return shape
    if rule.form == 'flat' and len(shape) == 1:
        return shape
    if rule.form == 'linear' and len(shape) == 2:
        return shape[::-1]
    if rule.form == 'conv' and len(shape) in (3, 4, 5):
        return (*shape[2:], shape[1], shape[0])
    if rule.form == 'pointwise' and len(shape) == 3 and shape[2] == 1:
        return (shape[1], shape[0])
    if rule.form == 'channels' and len(shape) == 3 and shape[::2] == (1, 1):
        return (shape[1],)
    if rule.form == 'levels' and all(tuple(each) == () for each in shapes):
        return (len(shapes),)
    if rule.form == 'positions':
        times, token = (tuple(other) for other in shapes[1:])
        same = {axes[::2] for axes in (shape, times, token) if len(axes) == 3}
        if len(shape) == len(times) == len(token) == 3 and len(same) == 1 and token[1] == 1:
            return (1, 1 + shape[1] * times[1], shape[2])
    raise wrong


def apply(rule: Rule, array: np.ndarray, shape: Sequence[int], *beside: np.ndarray) -> np.ndarray:
    """The array that the file holds as `rule.source` -> the leaf of this shape, of the same dtype.

    The result may be a view. beside: the arrays of `rule.beside`, in that order. Raises FormError where the leaf cannot
    have this shape; see natural_shape for what a file holds.
    """
    shape = tuple(shape)
    natural = natural_shape(rule, array.shape, *(other.shape for other in beside))
    fits = natural == shape
    if rule.form == 'flat':
        fits = natural == (math.prod(shape),)
    if rule.form == 'linear':
        fits = natural == (math.prod(shape[: rule.inputs]), math.prod(shape[rule.inputs :]))
    if not fits:
        raise FormError(f'{rule.source} {array.shape} gives {natural}, and {rule.canonical} has the shape {shape}')
    if rule.stacked:
        if rule.layer is None:
            raise FormError(f'{rule.canonical}: no layer of {rule.source} is picked')
        array = array[rule.layer]
    index, count = rule.part
    if count > 1:
        piece = len(array) // count
        array = array[index * piece : (index + 1) * piece]
    if rule.form == 'linear':
        array = array.T  # [out, in] -> [in, out]
    if rule.form == 'conv':
        array = np.moveaxis(array, (1, 0), (-2, -1))  # [D, C, (t), h, w] -> [(t), h, w, C, D]
    if rule.form == 'pointwise':
        array = array[:, :, 0].T  # [out, in, 1] -> [in, out]
    if rule.form == 'levels':
        array = np.stack([array, *beside])  # () of each level -> [levels]
    if rule.form == 'positions':
        times, token = beside
        grid = times[:, :, None] + array[:, None]  # [1, t, s, D]
        array = np.concatenate([token, grid.reshape(1, -1, array.shape[-1])], axis=1)  # [1, 1 + t s, D]
    return array.reshape(shape)


def invert(rule: Rule, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Leaves -> the array that a file holds as `rule.source`, in C order and of their dtype.

    parts: the leaves of all the rules with this source: by layer if it is stacked, by `part` if there are several.
    Raises FormError for a wrong number of leaves, and for 'positions' and 'levels', which are of several arrays.
    """
    expected = 'one for each layer' if rule.stacked else rule.part[1]
    if not parts or (not rule.stacked and len(parts) != expected):
        raise FormError(f'{rule.source} is made of {expected} leaves, {len(parts)} are given')
    if rule.beside:
        how = 'the sum' if rule.form == 'positions' else 'the list'
        raise FormError(f'{rule.source} cannot be told from {rule.canonical}, which is {how} of {rule.sources}')
    arrays = [_inverted(rule, part) for part in parts]
    whole = np.stack(arrays) if rule.stacked else arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    return np.ascontiguousarray(whole)


def _inverted(rule: Rule, part: np.ndarray) -> np.ndarray:
    if rule.form == 'flat':
        return part.reshape(-1)
    if rule.form == 'linear':
        return part.reshape(math.prod(part.shape[: rule.inputs]), -1).T  # [in, out] -> [out, in]
    if rule.form == 'conv':
        return np.moveaxis(part, (-1, -2), (0, 1))  # [(t), h, w, C, D] -> [D, C, (t), h, w]
    if rule.form == 'pointwise':
        return part.T[:, :, None]  # [in, out] -> [out, in, 1]
    if rule.form == 'channels':
        return part[None, :, None]  # [D] -> [1, D, 1]
    return part


@dataclasses.dataclass(frozen=True)
class Layout:
    """One kind of weight file.

    telling: source names that such a file has, absent: names that it has not (`{i}`: in any layer).
    preferred: containers whose weights are taken before those of others (averages, where evaluation uses them).
    filter_axes: of the array of the first convolution: 5 for tubelets, 4 for patches of an image.
    ignored: (regex of source names, why): dropped, and reported.
    base: what stands before the backbone's names in files of this kind that have a head ('vjepa2.'); bare ones lack it.
    """

    name: str
    family: str
    rules: tuple[Rule, ...]
    telling: tuple[str, ...]
    absent: tuple[str, ...] = ()
    preferred: tuple[str, ...] = ()
    filter_axes: int = 5
    ignored: tuple[tuple[str, str], ...] = ()
    base: str = ''

    def bind(self, canonical: str) -> tuple[Rule, ...]:
        """The rules of one leaf, their layer filled in (more than one: alternatives); () if such files lack it."""
        found = []
        for rule in self._by_canonical.get(name_key(canonical), ()):
            if match := _pattern(rule.canonical).fullmatch(canonical):
                found.append(_filled(rule, match))
        return tuple(found)

    def leaves(self, source: str) -> tuple[Rule, ...]:
        """The rules that read this array, their layer filled in (not that of stacked ones); () if none does."""
        found = []
        for rule in self._by_source.get(name_key(source), ()):
            matches = (_pattern(name).fullmatch(source) for name in rule.sources)
            if match := next(filter(None, matches), None):
                found.append(rule if rule.stacked else _filled(rule, match))
        return tuple(found)

    def why_ignored(self, source: str) -> str | None:
        """Why an array of this name is dropped; None if it is not."""
        return next((why for regex, why in self.ignored if re.search(regex, source)), None)

    @functools.cached_property
    def _by_canonical(self) -> dict[str, list[Rule]]:
        return _grouped((name_key(rule.canonical), rule) for rule in self.rules)

    @functools.cached_property
    def _by_source(self) -> dict[str, list[Rule]]:
        return _grouped((key, rule) for rule in self.rules for key in dict.fromkeys(map(name_key, rule.sources)))


def _grouped(pairs: Iterable[tuple[str, Rule]]) -> dict[str, list[Rule]]:
    groups: dict[str, list[Rule]] = {}
    for key, rule in pairs:
        groups.setdefault(key, []).append(rule)
    return groups


def _filled(rule: Rule, match: re.Match[str]) -> Rule:
    number = match.groupdict().get('i')
    if number is None:
        return rule
    layer = int(number)
    source = rule.source.replace('{i}', str(layer))
    canonical = rule.canonical.replace('block_{i}', f'block_{layer:02d}').replace('{i}', str(layer))
    return dataclasses.replace(rule, canonical=canonical, source=source, layer=layer)


def name_key(name: str) -> str:
    """The name with `#` for every number: the same for a template as for the names that it stands for."""
    return re.sub(r'\d+|\{i\}', '#', name)


def stands_for(template: str, name: str) -> bool:
    """Whether the template, with a layer for `{i}`, is this name."""
    return _pattern(template).fullmatch(name) is not None


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    """Layers are plain numbers; more than four digits are none."""
    return re.compile(re.escape(template).replace(r'\{i\}', r'(?P<i>\d{1,4})'))
