"""Importing weights once, into a folder of our own that configs name."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from vidloc.checkpoints import converted, importer, inflation, key_table, native


@dataclasses.dataclass(frozen=True)
class Target:
    """What an image model becomes: see inflation.backbone_of. size: height and width in pixels, None: as it was."""

    kind: str
    frames: int = 32
    tubelet: int = 2
    temporal_layers: int = 4
    size: tuple[int, int] | None = None
    inflate: str = 'central'


@dataclasses.dataclass(frozen=True)
class Conversion:
    """table: what became of every array. config: the lines that a config needs."""

    table: str
    config: str


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    which: str = '',
    allow: str = '',
    overrides: Mapping[str, Any] | None = None,
    into: Target | None = None,
) -> Conversion:
    """Imports `source`, as importer.load does, and writes it to the new folder `out`.

    into: for a model of images. Raises ReadError, FamilyError, ImportFailed, InflationError, FileExistsError, OSError.
    """
    converted.check_free(out)
    weights, found = importer.read(source, which=which, overrides=overrides)
    target = found
    if into is not None:
        if found.family != importer.IMAGE:
            raise inflation.InflationError(f'{weights.path} is a model of videos ({found.family}): into is for images')
        sizes = {'size': into.size, 'frames': into.frames, 'tubelet': into.tubelet}
        sizes['temporal_layers'] = into.temporal_layers
        backbone = inflation.backbone_of(found.backbone, into.kind, **sizes)
        target = dataclasses.replace(found, family=into.kind, backbone=backbone)
    shapes = importer.own_shapes(weights, target)
    planned = importer.plan(
        weights, found, shapes, allow=allow, inflate=into.inflate if into else 'central', backbone=target.backbone
    )
    converted.write(
        out,
        planned.fill,
        target,
        source=weights.path,
        counts=key_table.counts(planned.rows),
        initialised=planned.initialised,
    )
    return Conversion(planned.table, config_lines(target.backbone, target.head, out))


def config_lines(
    backbone: Mapping[str, Any] | None, head: Mapping[str, Any] | None, path: str | os.PathLike[str]
) -> str:
    """Arguments of build.config for weights at `path`; defaults of the modules are left out."""
    lines = []
    if backbone is not None:
        lines.append(f'backbone={_without_defaults(backbone, native.BACKBONES)},')
        lines.append(f'init_from={os.fspath(path)!r},')
    if head is not None:
        over = '' if 'inputs' not in head else f', over features of width {head["inputs"]}'
        values = {name: value for name, value in head.items() if name not in ('classes', 'inputs')}
        given = _without_defaults(values, native.HEADS)
        if over:
            lines.append(f"init_from={os.fspath(path)!r}, weights={{'head': TASK}},")
        lines.append(f'# a task with its head: head={given}, {head["classes"]} classes{over}')
    return '\n'.join(lines)


def _without_defaults(values: Mapping[str, Any], kinds: Mapping[str, Any]) -> dict[str, Any]:
    fields = {field.name: field.default for field in dataclasses.fields(kinds[values['kind']])}
    given = {name: native.plain(value) for name, value in values.items()}
    return {name: value for name, value in given.items() if name == 'kind' or fields[name] != value}
