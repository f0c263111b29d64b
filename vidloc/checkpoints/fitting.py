"""What a file holds against what a model needs: positions to another grid, settings, and every difference."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vidloc.checkpoints import native
from vidloc.checkpoints.key_table import WRONG, Row
from vidloc.checkpoints.leaves import Leaf, Shape
from vidloc.models import positions

# Encoder with learned positions -> the axes of the backbone's grid that they are for.
POSITIONS = {'encoder': slice(0, 3), 'spatial': slice(1, 3), 'temporal': slice(0, 1)}
# Families whose own code resizes learned positions in another way than positions.resize.
OTHERWISE = {
    # OpenGVLab/InternVideo, InternVideo2/multi_modality/models/backbones/internvideo2/pos_embed.py
    'internvideo2': '; its own code does it with centres at halves, bicubically in each frame',
}
# Fields of a backbone that do not say what its parameters mean.
FREE = frozenset(
    [
        *('kind', 'grid', 'cls', 'temporal_on', 'hierarchical', 'taps', 'dropout', 'drop_path', 'rescale'),
        *('segments', 'remat', 'unroll', 'kernel', 'dtype', 'tubelet_init'),
        *('position_init', 'position_std', 'position_amplitude', 'temporal_position_std'),
    ]
)
# Family -> parameters that are zero in all layers, each kind of them, only where a reader lost them.
NEVER_ZERO = {
    'videomae': (
        re.compile(r'backbone/encoder/block_\d+/attn/(query|value)/bias'),
        'biases would stay zero, as in files that transformers 5 wrote while it lost them: take the original file',
    )
}


def fit_positions(
    family: str,
    filling: Mapping[str, Leaf],
    shapes: Mapping[str, Shape],
    grid: Sequence[int] | None,
    wanted: Sequence[int] | None,
) -> tuple[dict[str, Leaf], list[Row]]:
    """Positions of the grid (t, h, w) -> those of the grid that is wanted; CLS tokens are dropped or start at zero.

    Returns the parameters and rows for what is dropped. What cannot be resized is left as it is.
    """
    filling, rows = dict(filling), []
    other = OTHERWISE.get(family, '')
    for stack, axes in POSITIONS.items():
        name, token = f'backbone/{stack}/position', f'backbone/{stack}/cls'
        if name not in filling or name not in shapes or not grid or not wanted:
            continue
        leaf = filling[name]
        old, new = tuple(grid[axes]), tuple(wanted[axes])
        had, has = leaf.shape[1] - math.prod(old), shapes[name][1] - math.prod(new)
        if not {had, has} <= {0, 1}:
            continue
        if token in filling and token not in shapes:
            gone = filling.pop(token)
            note = 'the CLS token, which the model does not have'
            rows.append(Row('ignored', gone.sources[0], gone.sources, None, gone.source_shape, note=note))
        if token in shapes and token not in filling:
            zeros = np.zeros((1, 1, leaf.shape[2]), np.float32)
            filling[token] = Leaf(zeros.shape, zeros.copy, (), (), 'zeros: the file has no CLS token', 'initialised')
        if (old, had) == (new, has):
            continue
        notes = [f'resized from the grid {old} to {new}, linearly with corners on corners{other}'] if old != new else []
        if had and not has:
            notes.append('without the place of the CLS token')
        if has and not had:
            notes.append('a place for the CLS token, zero, in front')
        shape = (1, has + math.prod(new), leaf.shape[2])
        filling[name] = leaf.made(
            shape,
            lambda x, had=had, has=has, old=old, new=new: _resized(np.asarray(x, np.float32), old, new, had, has),
            ', '.join(notes),
        )
    return filling, rows


def _resized(x: np.ndarray, old: tuple[int, ...], new: tuple[int, ...], had: int, has: int) -> np.ndarray:
    """[1, had + old tokens, D] -> [1, has + new tokens, D]"""
    x = x[:, 1:] if had and not has else x
    x = np.asarray(positions.resize(x, old, new, cls=bool(had and has)))
    return np.pad(x, ((0, 0), (1, 0), (0, 0))) if has and not had else x


def settings(own: Mapping[str, Any] | None, backbone: Mapping[str, Any], shapes: Mapping[str, Shape]) -> list[Row]:
    """Rows for fields that say another thing in the file than in the model, such as the epsilon of norms."""
    if own is None:
        return []
    module = native.BACKBONES[backbone['kind']]
    learned = any(f'backbone/{stack}/position' in shapes for stack in POSITIONS)
    rows = []
    for name, value in own.items():
        ours = backbone[name] if name in backbone else getattr(module, name, None)
        free = name in FREE and (name != 'grid' or learned)
        if not free and native.plain(value) != native.plain(ours):
            note = f'{native.plain(value)!r} in the file, {native.plain(ours)!r} in the model'
            rows.append(Row('different', f'backbone.{name}', note=note))
    return rows


def lost(family: str, filling: Mapping[str, Leaf], rows: Sequence[Row]) -> list[Row]:
    """The rows, and further ones for parameters that are zero in all layers and must not be."""
    if family not in NEVER_ZERO:
        return list(rows)
    regex, note = NEVER_ZERO[family]
    kinds: dict[str, list[str]] = {}
    for name in filling:
        if match := regex.fullmatch(name):
            kinds.setdefault(match[1], []).append(name)
    found = [
        replace(row, note=note)
        if row.kind == 'missing' and (match := regex.fullmatch(row.name)) and match[1] not in kinds
        else row
        for row in rows
    ]
    for names in kinds.values():
        if not any(np.any(filling[name].read()) for name in names):
            found += [Row('different', name, filling[name].sources, note=note) for name in names]
    return found


def compare(
    filling: Mapping[str, Leaf],
    shapes: Mapping[str, Shape],
    rows: Sequence[Row],
    fresh: Callable[[str], str],
) -> list[Row]:
    """The whole table: the rows there are, and one for every parameter and every array that is left.

    fresh: (name) -> why a parameter has no source and needs none, '' if it does.
    """
    found = [
        Row('initialised', row.name, (), row.shape, note=why)
        if row.kind == 'missing' and (why := fresh(row.name))
        else row
        for row in rows
    ]
    named = {row.name for row in found if row.kind in ('missing', 'mismatched', 'initialised')}
    for name, shape in shapes.items():
        leaf = filling.get(name)
        if leaf is not None:
            kind = leaf.kind if leaf.shape == shape else 'mismatched'
            note = '' if kind == 'mismatched' else leaf.note
            found.append(Row(kind, name, leaf.sources, shape, leaf.source_shape if leaf.sources else None, note=note))
        elif name not in named:
            why = fresh(name)
            found.append(Row('initialised' if why else 'missing', name, (), shape, note=why))
    left = {}
    for name, leaf in filling.items():
        if name not in shapes:
            left |= dict.fromkeys(leaf.sources, leaf.source_shape)
    return found + [Row('unused', source, (source,), None, shape) for source, shape in left.items()]


def let_pass(rows: Sequence[Row], allow: re.Pattern[str] | None) -> list[Row]:
    """Differences whose parameter, array or setting the regex matches as a whole are allowed."""
    if allow is None:
        return list(rows)
    return [
        replace(row, allowed=True)
        if row.kind in WRONG and any(allow.fullmatch(name) for name in (row.name, *row.sources))
        else row
        for row in rows
    ]
