"""What a weight file holds, from its names and shapes; no tensor of a model is read, and no jax is loaded."""

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Any

from vidloc.checkpoints import converted, families, key_maps, key_table
from vidloc.checkpoints.readers import opening
from vidloc.checkpoints.readers.weights import Weights
from vidloc.models import sizes

LINES = 60
LABELS = 5


class Unknown(ValueError):
    """A file that can be read, and whose family is not known. about: what is known of it."""

    def __init__(self, text: str, about: dict[str, Any]) -> None:
        super().__init__(text)
        self.about = about


def describe(
    path: str | os.PathLike[str], *, which: str = '', overrides: Mapping[str, Any] | None = None, names: bool = False
) -> dict[str, Any]:
    """A JSON-ready description; names: with every array. Raises ReadError; Unknown where the family is not known."""
    if converted.is_converted(path):
        weights, found = converted.read(path, which=which, overrides=overrides)
        return _file(weights, names) | _model(weights, found)
    weights = opening.open_weights(path)
    about = _file(weights, names)
    try:
        return about | _model(weights, families.recognise(weights, which=which, overrides=overrides or {}))
    except families.FamilyError as error:
        raise Unknown(str(error), about | {'tree': _tree(weights)}) from error


def text(about: Mapping[str, Any]) -> str:
    """The description for people."""
    dtypes = ', '.join(f'{count} {name}' for name, count in about['dtypes'].items())
    lines = [f'file          {about["path"]}', f'format        {about["format"]}, {about["arrays"]} arrays ({dtypes})']
    if 'family' in about:
        lines += [f'family        {about["family"]}: {about["layout"]}']
        lines += [f'size          {about["size"]} (configs/finetune.py:{about["size"]})'] if about['size'] else []
        lines += [f'prefix        {about["prefix"]!r}'] if about['prefix'] else []
        for part in ('backbone', 'head'):
            if about[part] is not None:
                sizes = ', '.join(f'{name}={value}' for name, value in about[part].items())
                lines.append(f'{part:13s} {sizes}')
        counts = ', '.join(f'{part} {count:,}' for part, count in about['parameters'].items())
        lines.append(f'parameters    {counts}')
        lines += [f'left out      {count:,} values: {why}' for why, count in about['left_out'].items()]
        lines += [f'preprocessing {_preprocessing(about["preprocessing"])}'] if about['preprocessing'] else []
        labels = about['labels'] or ()
        more = ', ...' if len(labels) > LABELS else ''
        lines.append(
            f'labels        {len(labels)}: {", ".join(labels[:LABELS])}{more}' if labels else 'labels        none'
        )
        lines += [f'note          {note}' for note in about['notes']]
    if 'tree' in about:
        lines += ['arrays', *(f'  {line}' for line in about['tree'])]
    if 'names' in about:
        lines += [f'  {name} {shape} {dtype}' for name, (shape, dtype) in about['names'].items()]
    return '\n'.join(lines)


def _file(weights: Weights, names: bool) -> dict[str, Any]:
    dtypes: dict[str, int] = {}
    for entry in weights.entries.values():
        dtypes[entry.dtype.name] = dtypes.get(entry.dtype.name, 0) + 1
    about = {'path': weights.path, 'format': weights.format, 'arrays': len(weights.entries), 'dtypes': dtypes}
    if names:
        about['names'] = {name: [list(each.shape), each.dtype.name] for name, each in weights.entries.items()}
    return about


def _model(weights: Weights, found: families.Found) -> dict[str, Any]:
    counts: dict[str, int] = {}
    left_out: dict[str, int] = {}
    for source, full in found.names.items():
        rules = found.layout.leaves(source)
        for rule in rules:
            if rule.source == source:
                root = rule.canonical.split('/')[0]
                counts[root] = counts.get(root, 0) + _size(weights, found, rule)
        if not rules:
            why = found.layout.why_ignored(source) or 'arrays of which nothing is known'
            left_out[why] = left_out.get(why, 0) + math.prod(weights.entries[full].shape)
    others = sum(math.prod(weights.entries[full].shape) for full in weights.entries.keys() - found.names.values())
    if others:
        left_out['other parts of the file'] = others
    return {
        'family': found.family,
        'layout': found.layout.name,
        'size': published(found.backbone),
        'prefix': found.prefix,
        'backbone': found.backbone,
        'head': found.head,
        'parameters': counts,
        'left_out': left_out,
        'preprocessing': found.preprocessing and dataclasses.asdict(found.preprocessing),
        'labels': found.labels,
        'notes': list(found.notes),
    }


def published(backbone: Mapping[str, Any] | None) -> str | None:
    """'vjepa2-L': the published model of these sizes, whatever its grid; None if there is none."""
    if backbone is None or backbone['kind'] not in sizes.SIZES:
        return None
    fields = {name: value for name, value in backbone.items() if name != 'grid'}
    # A size of V-JEPA 2.1 has the fields of one of V-JEPA 2, and further ones.
    fitting = [
        (len(size), name)
        for name, size in sizes.SIZES[backbone['kind']].items()
        if all(fields.get(field) == value for field, value in size.items() if field != 'grid')
    ]
    return f'{backbone["kind"]}-{max(fitting)[1]}' if fitting else None


def _size(weights: Weights, found: families.Found, rule: key_maps.Rule) -> int:
    """Parameters that a rule makes of its sources; of a file that does not fit, the values of the first."""
    shapes = [weights.entries[found.names[name]].shape for name in rule.sources if name in found.names]
    layers = shapes[0][0] if rule.stacked and shapes[0] else 1
    try:
        return layers * math.prod(key_maps.natural_shape(rule, *shapes))
    except key_maps.FormError:
        return math.prod(shapes[0])


def _tree(weights: Weights) -> list[str]:
    lines = [label for label, _ in key_table.grouped(weights.entries)]
    return lines if len(lines) <= LINES else [*lines[: LINES - 1], f'... and {len(lines) - LINES + 1} lines more']


def _preprocessing(values: Mapping[str, Any]) -> str:
    mean, std = (' '.join(f'{value:g}' for value in values[name]) for name in ('mean', 'std'))
    size = ' x '.join(map(str, values['size']))
    return (
        f'{values["frames"]} frames, every {values["stride"]}, of {size} pixels; mean {mean}, std {std} '
        f'({values["source"]})'
    )
