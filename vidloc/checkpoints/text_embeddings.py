"""Files with the embeddings that a text tower gave for the names of classes.

An `.npz` has `names` [M], strings, and `embeddings` [M, E], floats. A safetensors file has the tensor `embeddings`, and
`names` in its metadata, a JSON list. What a file is, is seen by its content; other arrays in it are left aside.
"""

import collections
import difflib
import json
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from vidloc.checkpoints.readers import npz, safetensors, signatures
from vidloc.checkpoints.readers.weights import Entry, ReadError

NAMES = 1 << 26  # bytes of all the names
SHOWN = 4
_WANTED = 'Save names=np.array(names, dtype=str) and embeddings, floats of [names, width], with numpy.savez'
_WHERE = {'npz': 'strings `names`', 'safetensors': 'a JSON list `names` in its metadata'}


def width(path: str | os.PathLike[str]) -> int:
    """E, from the header of the file alone. Raises ReadError."""
    return _opened(path)[0].shape[1]


def read(path: str | os.PathLike[str], classes: Sequence[str]) -> np.ndarray:
    """[C, E] float32: of each class, in their order, the embedding, scaled to length 1.

    A class has the embedding of its name, or else of the name that is the same but for case, spaces and underscores.
    The order of the file does not matter, nor what it has for other names. Raises ReadError with all classes that have
    no embedding, more than one, the one of another class, or one that is not finite or zero.
    """
    entry, names = _opened(path)
    rows, problems = _rows(names, classes)
    chosen = np.zeros((len(classes), entry.shape[1]))
    found = entry.read()
    for i, row in rows.items():
        chosen[i] = found[row].astype(np.float64)
    with np.errstate(over='ignore', invalid='ignore'):
        length = np.linalg.norm(chosen, axis=1)  # [C]
    problems |= {i: f'that of {classes[i]!r} is not finite' for i in rows if not np.isfinite(length[i])}
    problems |= {i: f'that of {classes[i]!r} is zero' for i in rows if length[i] == 0}
    if problems:
        told = [problems[i] for i in sorted(problems)]
        more = f'; and {len(told) - SHOWN} more' if len(told) > SHOWN else ''
        raise ReadError(
            path,
            f'{len(told)} of {len(classes)} classes have no embedding in it to be compared with: '
            f'{"; ".join(told[:SHOWN])}{more}',
            'Each class of the task needs one, under its name',
        )
    return (chosen / length[:, None]).astype(np.float32)


def _opened(path: str | os.PathLike[str]) -> tuple[Entry, list[str]]:
    """The embeddings [M, E], not yet read, and the M names. Raises ReadError."""
    kind = signatures.recognise(path)
    if kind == 'npz':
        entries, notes = npz.read(path, text=NAMES)
    elif kind == 'safetensors':
        entries, notes = safetensors.read(path)
    else:
        raise ReadError(path, f'it is a {kind} file; text embeddings are read from .npz and .safetensors', _WANTED)
    names = _names(path, kind, notes)
    if 'embeddings' not in entries:
        raise ReadError(path, f'it has no array `embeddings`, but {", ".join(sorted(entries)) or "none"}', _WANTED)
    entry = entries['embeddings']
    if entry.dtype.kind in 'biuc':
        raise ReadError(path, f'its embeddings are {entry.dtype}, not floats', _WANTED)
    if len(entry.shape) != 2 or entry.shape[0] != len(names) or not entry.shape[1]:
        raise ReadError(path, f'it has {len(names)} names for embeddings of the shape {list(entry.shape)}', _WANTED)
    return entry, names


def _names(path: str | os.PathLike[str], kind: str, notes: dict[str, Any]) -> list[str]:
    if 'names' not in notes:
        raise ReadError(path, f'it has no names of its embeddings ({_WHERE[kind]})', _WANTED)
    names = notes['names']
    try:
        names = json.loads(names) if kind == 'safetensors' else names
        if isinstance(names, list):
            names = [name.decode() if isinstance(name, bytes) else name for name in names]
    except (ValueError, TypeError, RecursionError) as error:
        raise ReadError(path, f'its names cannot be read ({error})', _WANTED) from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ReadError(path, 'its names are no list of strings', _WANTED)
    return names


def _rows(names: Sequence[str], classes: Sequence[str]) -> tuple[dict[int, int], dict[int, str]]:
    """({number of a class: its row}, {number of a class: what is wrong} of the others)."""
    exact, loose = collections.defaultdict(list), collections.defaultdict(list)
    for row, name in enumerate(names):
        exact[name].append(row)
        loose[_plain(name)].append(row)
    same = set(classes)
    rows, problems, owners = {}, {}, {}
    for i, name in enumerate(classes):
        # A name that another class has as it is, is that class's.
        found = exact[name] if name in exact else [row for row in loose[_plain(name)] if names[row] not in same]
        if not found:
            close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            problems[i] = f'{name!r} is not among its {len(names)} names' + (f' (like {close[0]!r}?)' if close else '')
        elif len(found) > 1:
            problems[i] = f'{name!r} has {len(found)}: ' + ', '.join(repr(names[row]) for row in found[:SHOWN])
        elif found[0] in owners:
            problems[i] = f'{name!r} would have that of {owners[found[0]]!r}, {names[found[0]]!r}'
        else:
            rows[i], owners[found[0]] = found[0], name
    return rows, problems


def _plain(name: str) -> str:
    return re.sub(r'[\s_]+', '', name).casefold()
