"""Weights in several files with an index, as Hugging Face writes large models: `*.index.json`, {name: file}."""

import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

from vidloc.checkpoints.readers.weights import Entry, ReadError, unreadable

INDEX = 1 << 26  # bytes of an index that are read


def files(path: str | os.PathLike[str]) -> dict[str, str]:
    """{tensor's name: name of its file} of an index; raises ReadError if it is none."""
    path = pathlib.Path(path)
    fix = 'Download the index again, or name one file of weights'
    try:
        if path.stat().st_size > INDEX:
            raise ReadError(path, f'an index of more than {INDEX} bytes is none', fix)
        index = json.loads(path.read_bytes())
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise ReadError(path, f'it is no JSON ({error})', fix) from error
    named = index.get('weight_map') if isinstance(index, dict) else None
    if not isinstance(named, dict) or not named or not all(isinstance(file, str) for file in named.values()):
        raise ReadError(path, 'it is JSON without a `weight_map` from tensors to files, so no index of weights', fix)
    for file in sorted(set(named.values())):
        if file in ('', '.', '..') or '/' in file or '\\' in file or '\0' in file:
            raise ReadError(path, f'it names {file!r}, which is no file beside it', fix)
    return named


def read(
    path: str | os.PathLike[str], read_file: Callable[[pathlib.Path], tuple[dict[str, Entry], dict[str, Any]]]
) -> tuple[dict[str, Entry], dict[str, Any]]:
    """({name: Entry}, extras) of all files that an index names, each opened by `read_file`; raises ReadError.

    Every file must be there and hold what the index says. extras: `metadata` of the index, and `not in the
    index`, the tensors that only the files name, where there are any.
    """
    path = pathlib.Path(path)
    named = files(path)
    names = sorted(set(named.values()))
    if missing := [file for file in names if not (path.parent / file).is_file()]:
        raise ReadError(
            path,
            f'{len(missing)} of the {len(names)} files it names are not beside it: {", ".join(missing[:5])}',
            'Download all of them into one folder',
        )
    opened = {file: read_file(path.parent / file)[0] for file in names}
    if lost := [name for name, file in named.items() if name not in opened[file]]:
        raise ReadError(
            path,
            f'{len(lost)} tensors are not in the files it names, the first is {lost[0]!r} in {named[lost[0]]}',
            'Index and files are of different models: download them again together',
        )
    extras = {'metadata': json.loads(path.read_bytes()).get('metadata', {})}
    if unlisted := sorted({name for entries in opened.values() for name in entries} - named.keys()):
        extras['not in the index'] = unlisted
    return {name: opened[file][name] for name, file in named.items()}, extras
