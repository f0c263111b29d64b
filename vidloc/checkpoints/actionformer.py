"""The sizes of an ActionFormer head: from its arrays, the settings beside them, or the published recipes."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from vidloc.checkpoints import overrides as overrides_lib
from vidloc.checkpoints import preprocessing
from vidloc.checkpoints.containers import FamilyError, Place
from vidloc.checkpoints.layouts import actionformer as layout
from vidloc.checkpoints.readers import recipe
from vidloc.checkpoints.sheet import Sheet

FAMILY = layout.LAYOUT.family
LAYER_SCALE = 1e-4  # what learned scales of residuals start at; the weights replace it, and only whether it is 0 counts
_OVERLAPPING = ((0, 4), (2, 8), (4, 16), (8, 32), (16, 64), (32, 10000))


def _ranges(levels: int) -> tuple[tuple[int, int], ...]:
    """The usual ranges of so many levels."""
    ends = [0, *(4 * 2**level for level in range(levels - 1)), 10000]
    return tuple(itertools.pairwise(ends))


# What arrays do not tell. (width, levels, numbers of classes, () for any) -> whose recipe, and the fields by it:
# happyharrycn/actionformer_release, configs/.
_RECIPES: tuple[tuple[tuple[int, int, tuple[int, ...]], str, Mapping[str, Any]], ...] = (
    (
        (512, 6, (97, 300)),
        'EPIC-Kitchens',
        {'heads': 4, 'windows': (9,), 'ranges': _OVERLAPPING, 'positions': False, 'max_length': 2304},
    ),
    (
        (512, 6, ()),
        'THUMOS-14',
        {'heads': 4, 'windows': (19,), 'ranges': _ranges(6), 'positions': False, 'max_length': 2304},
    ),
    (
        (256, 6, ()),
        'ActivityNet',
        {'heads': 4, 'windows': (7, 7, 7, 7, 7, -1), 'ranges': _ranges(6), 'positions': True, 'max_length': 192},
    ),
)
# Our fields -> those of the public code's settings.
_SETTINGS = {
    'heads': 'n_head',
    'windows': 'n_mha_win_size',
    'ranges': 'regression_range',
    'positions': 'use_abs_pe',
    'max_length': 'max_seq_len',
}
_EXAMPLES = {'heads': 4, 'windows': (19,), 'positions': False, 'max_length': 2304}


def of_its_levels(place: Place, path: str) -> Place:
    """The place with a layout of as many levels as its pyramid has. Raises FamilyError for a gap among them."""
    return dataclasses.replace(place, layout=layout.of_levels(_count(place, path, 'reg_head.scale')))


@dataclasses.dataclass(frozen=True)
class Head:
    """head: {'kind': 'actionformer', all that decides what it computes}. notes, guessed: see families.Found."""

    head: dict[str, Any]
    notes: tuple[str, ...]
    guessed: tuple[str, ...]


def head_of(sheet: Sheet) -> Head:
    """The sizes of the head of a file; no array is read.

    What the arrays leave open is taken from overrides, else from the settings beside the weights (see readers.recipe),
    else from the published recipe for a head of this width and depth, which a note names.
    Raises FamilyError: what is not known and how to give it, or what does not belong together; ReadError for settings
    beside the weights that cannot be read.
    """
    place, path = sheet.place, sheet.path
    levels = _count(place, path, 'reg_head.scale')
    branches = _count(place, path, 'backbone.branch')
    if branches + 1 != levels:
        raise FamilyError(
            f'{path}: there are {branches} layers that halve the sequence and {levels} levels of the pyramid, which '
            f'must be one more; the file is damaged or incomplete'
        )
    kernel, inputs, width = sheet.shape('head/embed/conv_0/kernel', 3)
    *_, classes = sheet.shape('head/classify/output/kernel', 3)
    if any(name.startswith('backbone.proj.') for name in place.names):
        raise FamilyError(f'{path}: it joins features of several kinds (backbone.proj); vidloc has heads over one kind')
    read = {
        'classes': classes,
        'inputs': inputs,
        'width': width,
        'stem': _count(place, path, 'backbone.stem'),
        'levels': levels,
        'embed_layers': _count(place, path, 'backbone.embd'),
        'head_layers': _count(place, path, 'cls_head.head') + 1,
        'embed_norm': sheet.has('head/embed/norm_0/scale'),
        'kernel': kernel,
        'relative': sheet.has('head/stem_0/attn/position') or sheet.has('head/branch_0/attn/position'),
        'neck': 'fpn' if sheet.has('head/neck/lateral_0/kernel') else 'identity',
        'layer_scale': LAYER_SCALE if sheet.has('head/stem_0/gamma1') or sheet.has('head/branch_0/gamma1') else 0.0,
    }
    given, guessed, notes = _given(sheet, read)
    head = {'kind': FAMILY, **read, **_checked(given, read, path)}
    return Head(head, (*_of_containers(place), *notes), guessed)


def free(head: Mapping[str, Any]) -> tuple[str, ...]:
    """Fields of a head of any kind that do not say what its parameters mean: where they start, how far it is padded."""
    if head['kind'] != FAMILY:
        return ()
    start = ('layer_scale',) if head['layer_scale'] else ()
    return start if head['positions'] else (*start, 'max_length')


def divisor(windows: Sequence[int], levels: int) -> int:
    """What the public inference makes lengths beyond max_length a multiple of.

    The most that a level asks for: its stride times twice the reach of its window, its stride for full attention.
    """
    strides = [2**level for level in range(levels)]
    each = windows if len(windows) > 1 else tuple(windows) * levels
    return max(
        stride * (window // 2) * 2 if window > 1 else stride for stride, window in zip(strides, each, strict=True)
    )


def _count(place: Place, path: str, stem: str) -> int:
    """Of how many numbered modules `stem`.0, `stem`.1, ... there are arrays. Raises FamilyError for a gap."""
    numbers = {
        int(number)
        for name in place.names
        if name.startswith(f'{stem}.') and (number := name[len(stem) + 1 :].partition('.')[0]).isdecimal()
    }
    if missing := [i for i in range(len(numbers)) if i not in numbers]:
        raise FamilyError(
            f'{path}: there are {len(numbers)} of {stem}, but nothing of number {", ".join(map(str, missing[:8]))}; '
            f'the file is damaged or incomplete'
        )
    return len(numbers)


def _given(sheet: Sheet, read: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...], list[str]]:
    """(the fields that arrays do not tell, those that are from a recipe, notes on where they are from)."""
    found = recipe.read(sheet.path)
    settings, file = ({}, '') if found is None else found
    _check_settings(settings, read, sheet.path, file)
    key = (read['width'], read['levels'])
    published = [
        (name, fields)
        for (width, levels, classes), name, fields in _RECIPES
        if key == (width, levels) and (not classes or read['classes'] in classes)
    ]
    whose, fields = published[0] if published else ('', {})
    values, guessed, unknown = {}, [], []
    for name, theirs in _SETTINGS.items():
        if name in sheet.overrides:
            values[name] = sheet.overrides[name]
        elif theirs in settings:
            values[name] = settings[theirs]
        elif name in fields:
            values[name] = fields[name]
            guessed.append(name)
        else:
            unknown.append(name)
    if unknown:
        shown = {name: _ranges(read['levels']) if name == 'ranges' else _EXAMPLES[name] for name in unknown}
        raise FamilyError(
            f'{sheet.path}: the arrays of an ActionFormer do not tell its {", ".join(unknown)}, no {recipe.PRINTED} of '
            f'its training lies beside it, and no published one has width {key[0]} and {key[1]} levels. Put that file '
            f'there, or give them, such as: {overrides_lib.examples(shown)}'
        )
    told = [name for name, theirs in _SETTINGS.items() if theirs in settings and name not in sheet.overrides]
    notes = [f'{", ".join(told)}: as {file} beside it says'] if told else []
    notes += [f'{name} {values[name]}, as given' for name in _SETTINGS if name in sheet.overrides]
    if guessed:
        shown = ', '.join(f'{name} {values[name]}' for name in guessed)
        notes.append(
            f'the arrays do not tell {shown}: taken from the published recipe for {whose}, by the width of {key[0]}. '
            f'If the training was another, put its {recipe.PRINTED} beside the file or give them (--set, overrides)'
        )
    return values, tuple(guessed), notes


def _check_settings(settings: Mapping[str, Any], read: Mapping[str, Any], path: str, file: str) -> None:
    """Raises FamilyError where the settings beside the weights are of another model, or one that we have not."""
    arch = [read['embed_layers'], read['stem'], read['levels'] - 1]
    same = {'input_dim': read['inputs'], 'num_classes': read['classes'], 'embd_dim': read['width']}
    same |= {'backbone_arch': arch, 'fpn_type': read['neck']}
    for key, value in same.items():
        said = settings.get(key, value)
        if (list(said) if isinstance(said, tuple) else said) != value:
            raise FamilyError(
                f'{path}: the weights have {key} {value!r}, {file} beside them says {said!r}; they do not belong '
                f'together: name the file of these settings, or move them away'
            )
    if settings.get('scale_factor', 2) != 2:
        raise FamilyError(f'{path}: its levels differ by a factor of {settings["scale_factor"]!r}; vidloc has 2')


def _checked(given: Mapping[str, Any], read: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The fields that were given, in our form. Raises FamilyError for those that make no sense."""
    levels = read['levels']
    heads = preprocessing.whole(given['heads'], 'the number of heads', path)
    if read['width'] % heads:
        raise FamilyError(f'{path}: width {read["width"]} cannot be split into {heads} heads')
    windows = given['windows']
    windows = tuple(windows) if isinstance(windows, list | tuple) else (windows,)
    if not all(isinstance(window, int) for window in windows) or len(windows) not in (1, levels):
        raise FamilyError(f'{path}: windows are {windows}; one whole number, or one for each of {levels} levels')
    windows = windows[:1] if len(set(windows)) == 1 else windows
    try:
        ranges = tuple((low, high) for low, high in given['ranges'])
        sound = len(ranges) == levels and all(0 <= low < high for low, high in ranges)
    except (TypeError, ValueError):
        sound = False
    if not sound:
        raise FamilyError(
            f'{path}: ranges are {given["ranges"]!r}; they are (low, high) of each of {levels} levels, low below high'
        )
    if not isinstance(given['positions'], bool):
        raise FamilyError(f'{path}: positions is {given["positions"]!r}; it must be True or False')
    length = preprocessing.whole(given['max_length'], 'max_length', path)
    if length % divisor(windows, levels):
        raise FamilyError(
            f'{path}: max_length is {length}; with windows {windows} and {levels} levels it must be a multiple of '
            f'{divisor(windows, levels)}'
        )
    return {'heads': heads, 'windows': windows, 'ranges': ranges, 'positions': given['positions'], 'max_length': length}


def _of_containers(place: Place) -> list[str]:
    if layout.AVERAGE in place.prefix and any('state_dict/' in other for other in place.others):
        return [
            f'{layout.AVERAGE}: the averaged weights, the only ones that the public evaluation reads; '
            'which="state_dict" reads the others'
        ]
    return []
