"""Weights from anywhere into a model of ours: completely, or with every difference named.

`plan` decides from names and shapes alone which array fills which parameter, `fill` reads them one at a time into
arrays in run form, `load` does both for a model of the file's own sizes.
"""

import dataclasses
import functools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from flax import traverse_util

from vidloc.checkpoints import converted, description, families, fitting, inflation, key_table, leaves, native
from vidloc.checkpoints.imported import Imported, ImportFailed
from vidloc.checkpoints.key_table import Row
from vidloc.checkpoints.leaves import Leaf, Shape
from vidloc.checkpoints.readers import opening
from vidloc.checkpoints.readers.weights import Weights
from vidloc.models import layers

__all__ = ['IMAGE', 'ImportFailed', 'Imported', 'Plan', 'check_kind', 'fill', 'load', 'own_shapes', 'plan', 'read']
IMAGE = 'image_vit'


@dataclasses.dataclass(frozen=True)
class Plan:
    """fill: {canonical name: reads this parameter, float32}, in the order of the file; ImportFailed if it holds numbers
    that are not finite. initialised: names without a source, which start as in a new model. rows: the whole table.
    """

    fill: dict[str, Callable[[], np.ndarray]]
    initialised: tuple[str, ...]
    rows: tuple[Row, ...]
    heading: str

    @property
    def table(self) -> str:
        return f'{self.heading}\n{key_table.text(self.rows)}'


def read(
    path: str | os.PathLike[str], *, which: str = '', overrides: Mapping[str, Any] | None = None
) -> tuple[Weights, families.Found]:
    """Opens weights of any kind, ours (converted.write) among them, and recognises them; no tensor is read.

    Raises ReadError, FamilyError.
    """
    if converted.is_converted(path):
        return converted.read(path, which=which, overrides=overrides)
    weights = opening.open_weights(path)
    return weights, families.recognise(weights, which=which, overrides=overrides or {})


def plan(
    weights: Weights,
    found: families.Found,
    shapes: Mapping[str, Shape],
    *,
    allow: str = '',
    inflate: str = 'central',
    backbone: Mapping[str, Any] | None = None,
) -> Plan:
    """How the model with the parameters `shapes` {canonical name: shape} is filled from the file.

    The roots in `shapes` ('backbone', 'head') are what is asked for. backbone: {'kind': ..., its fields} of that model,
    when it is not the file's own: positions are resized to its grid, a CLS token is dropped or starts at zero,
    images are inflated (`inflate`: 'central' or 'mean'). allow: regex; a difference is let pass if it matches the whole
    name of the array in the file, of the parameter, or of the setting ('backbone.eps').
    Raises ImportFailed with all the differences.
    """
    return _plan(weights, found, shapes, own_shapes(weights, found), allow, inflate, backbone)


def _plan(
    weights: Weights,
    found: families.Found,
    shapes: Mapping[str, Shape],
    expected: Mapping[str, Shape],
    allow: str,
    inflate: str,
    backbone: Mapping[str, Any] | None,
) -> Plan:
    """`plan`, given the shapes that the file's own model has."""
    try:
        allowed = re.compile(allow) if allow else None
    except re.error as error:
        raise ImportFailed(f'allow={allow!r} is no regular expression: {error}') from error
    roots = tuple(dict.fromkeys(name.split('/')[0] for name in shapes))
    own = found.backbone
    backbone = own if backbone is None else backbone
    image = found.family == IMAGE
    if 'backbone' in roots:
        check_kind(weights, found, backbone, allow)
    held = leaves.of_file(weights, found, expected, roots)
    filling, rows = dict(held.leaves), list(held.rows)
    if 'backbone' in roots:
        grid = (own or {}).get('grid')
        if image:
            try:
                filling = inflation.to_video(filling, own, backbone, shapes, inflate)
            except inflation.InflationError as error:
                raise ImportFailed(f'{weights.path}: {error}') from error
            rows = [dataclasses.replace(row, name=inflation.renamed(row.name, backbone['kind'])) for row in rows]
            grid = (backbone['grid'][0], *grid[1:])
        filling, dropped = fitting.fit_positions(found.family, filling, shapes, grid, backbone.get('grid'))
        rows += dropped + ([] if image else fitting.settings(own, backbone, shapes))
    fresh = _fresh(found, backbone)
    rows = fitting.compare(filling, shapes, fitting.lost(found.family, filling, rows), fresh)
    rows = fitting.let_pass(rows, allowed)
    if any(row.wrong for row in rows):
        raise ImportFailed(
            f'{weights.path} ({found.layout.name}) is not exactly this model:\n{key_table.differences(rows)}\n'
            f'Nothing was loaded{_sizes(own, backbone)}. Differences pass if a regular expression (allow) matches the '
            'whole name.',
            rows,
        )
    filled = {name: leaf for name, leaf in filling.items() if shapes.get(name) == leaf.shape}
    readers = {name: _reader(leaf, name, weights.path, allowed) for name, leaf in filled.items()}
    fresh_names = tuple(sorted(shapes.keys() - filled.keys()))
    return Plan(readers, fresh_names, tuple(rows), _heading(weights, found, filled))


def check_kind(weights: Weights, found: families.Found, backbone: Mapping[str, Any] | None, allow: str = '') -> None:
    """Raises ImportFailed if the file has no backbone (and nothing may be missing), or one of another kind."""
    own = found.backbone
    if backbone is None or backbone['kind'] == IMAGE or (own is None and not allow):
        raise ImportFailed(f'{weights.path}: {_no_backbone(found)}')
    if own is not None and found.family != IMAGE and own['kind'] != backbone['kind']:
        raise ImportFailed(
            f'{weights.path} holds a backbone of kind {own["kind"]!r}, and the model has one of kind '
            f'{backbone["kind"]!r}: name the other file, or set the backbone to {_called(own)}'
        )


def _called(own: Mapping[str, Any]) -> str:
    word = description.published(own)
    return f'{dict(own)!r}' if word is None else f'{word} (configs/finetune.py:{word})'


def _sizes(own: Mapping[str, Any] | None, backbone: Mapping[str, Any] | None) -> str:
    """What to say where the file is of another published size."""
    words = [None if each is None else description.published(each) for each in (own, backbone)]
    return (
        '' if words[0] in (None, words[1]) else f'; the file is of the size {words[0]} (configs/finetune.py:{words[0]})'
    )


def own_shapes(weights: Weights, found: families.Found) -> dict[str, Shape]:
    """{canonical name: shape} of the model that the file says it is of. Raises ImportFailed for sizes of no model."""
    try:
        if found.family == IMAGE:
            return _image_shapes(weights, found)
        return native.own_shapes(found.backbone, found.head, native.head_width(weights, found))
    except native.SizeError as error:
        raise ImportFailed(f'{weights.path}: {error}') from error


def _image_shapes(weights: Weights, found: families.Found) -> dict[str, Shape]:
    """An image ViT is a joint one over one frame, whose filter has no axis of time."""
    sizes = {name: value for name, value in found.backbone.items() if name not in ('kind', 'cls')}
    shapes = native.own_shapes({'kind': 'vivit_joint', **sizes}, None)
    shapes['backbone/embedding/kernel'] = shapes['backbone/embedding/kernel'][1:]
    if not found.backbone['cls']:
        tokens, width = shapes['backbone/encoder/position'][1:]
        shapes['backbone/encoder/position'] = (1, tokens - 1, width)
        if not any(rule.source in found.names for rule in found.layout.bind('backbone/encoder/cls')):
            del shapes['backbone/encoder/cls']
    return shapes


def _fresh(found: families.Found, backbone: Mapping[str, Any] | None) -> Callable[[str], str]:
    """(name of a parameter) -> why it has no source and needs none, '' if it does."""
    if isinstance(found.layout, converted.Canonical):
        names = frozenset(found.layout.initialised)
        return lambda name: 'the imported weights had nothing for it' if name in names else ''
    if found.family != IMAGE or backbone is None or backbone['kind'] not in inflation.FRESH:
        return lambda name: ''
    regex, why = inflation.FRESH[backbone['kind']]
    return lambda name: why if regex.fullmatch(name) else ''


def _no_backbone(found: families.Found) -> str:
    if found.family == IMAGE:
        return (
            'a model of images needs to be told what it becomes: into={"kind": "vivit" or "vivit_joint", ...} '
            '(tools/import_checkpoint.py: --into)'
        )
    return 'it holds a head without a backbone: name a file with the backbone; no run starts from a head alone'


def _heading(weights: Weights, found: families.Found, filled: Mapping[str, Leaf]) -> str:
    sources = {source for leaf in filled.values() for source in leaf.sources}
    dtypes: dict[str, int] = {}
    for source in sources:
        name = weights.entries[source].dtype.name
        dtypes[name] = dtypes.get(name, 0) + 1
    lines = [f'{weights.path}: {found.layout.name} ({weights.format}), {len(sources)} of {len(weights.entries)} arrays']
    if found.prefix:
        lines.append(f'prefix {found.prefix!r}')
    if casts := [f'{count} of {name}' for name, count in sorted(dtypes.items()) if name != 'float32']:
        lines.append(f'parameters become float32: {", ".join(casts)}')
    return '\n'.join([*lines, *found.notes])


def _reader(leaf: Leaf, name: str, path: str, allowed: re.Pattern[str] | None) -> Callable[[], np.ndarray]:
    passes = allowed is not None and any(allowed.fullmatch(each) for each in (name, *leaf.sources))

    def make() -> np.ndarray:
        with np.errstate(over='ignore'):
            array = np.asarray(leaf.read(), np.float32)
        if not passes and not (finite := np.isfinite(array)).all():
            raise ImportFailed(
                f'{path}: {", ".join(leaf.sources)} (for {name}) has {array.size - int(finite.sum())} numbers of '
                f'{array.size} that are not finite in float32; the file is damaged, or the training diverged'
            )
        return array

    return make


def fill(
    planned: Plan, shapes: Any, initial: Callable[[Sequence[str]], Mapping[str, np.ndarray]] | None = None
) -> dict[str, np.ndarray]:
    """{run-form name: array} of a model whose parameters in run form look like `shapes`; each is allocated once.

    initial: gives the arrays of these run-form names as a new model has them; needed where a parameter is initialised.
    Raises ImportFailed for numbers that are not finite.
    """
    flat = traverse_util.flatten_dict(shapes, sep='/')
    out = {name: np.empty(leaf.shape, np.float32) for name, leaf in flat.items()}
    places, fresh = {}, []
    for name, names in layers.canonical_names(shapes).items():
        for i, each in enumerate(names):
            places[each] = out[name] if names == (name,) else out[name][i]
        if any(each not in planned.fill for each in names):
            fresh.append(name)
    if fresh:
        if initial is None:
            raise ImportFailed(f'{", ".join(fresh)} have no source and no start')
        for name, array in initial(fresh).items():
            out[name][...] = array
    for name, make in planned.fill.items():
        if name in places:
            places[name][...] = make()
    return out


def load(
    path: str | os.PathLike[str],
    *,
    which: str = '',
    allow: str = '',
    overrides: Mapping[str, Any] | None = None,
    segments: Mapping[str, layers.Segments] | None = None,
    into: Mapping[str, Any] | None = None,
    inflate: str = 'central',
) -> Imported:
    """Reads weights into a model of their own sizes, or, given `into`, a backbone of these fields and sizes.

    path: file or folder, of any format that readers.opening knows, or written by converted.write.
    which, overrides: see families.recognise. allow, inflate: see plan. segments: {'backbone/encoder': ...}, as
    layers.to_run takes them. into: {'kind': ..., fields}; needed for image models, see inflation.backbone_of.
    Raises ReadError, FamilyError, ImportFailed; what they say is for the user.
    """
    weights, own = read(path, which=which, overrides=overrides)
    found = own if into is None else dataclasses.replace(own, backbone=dict(into))
    if found.backbone is not None and found.backbone['kind'] == IMAGE:
        raise ImportFailed(f'{weights.path}: {_no_backbone(found)}')
    width = native.head_width(weights, found)
    try:
        modules = native.make_modules(found.backbone, found.head, segments or {})
        shapes = native.abstract_params(modules, width)
    except native.SizeError as error:
        raise ImportFailed(f'{weights.path}: {error}') from error
    wanted = native.canonical_shapes(shapes)
    expected = wanted if into is None else own_shapes(weights, own)
    planned = _plan(weights, own, wanted, expected, allow, inflate, found.backbone)
    flat = fill(planned, shapes, functools.partial(native.start, modules, width))
    params = traverse_util.unflatten_dict(flat, sep='/')
    return Imported(found, modules.get('backbone'), modules.get('head'), params, planned.rows, planned.table)
