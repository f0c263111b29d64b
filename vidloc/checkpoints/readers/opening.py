"""Opens any file or folder of weights: what it is, is seen by its content. Without jax and without torch."""

import json
import os
import pathlib
import re
from typing import Any

from vidloc.checkpoints.readers import msgpack, npz, orbax, safetensors, shards, signatures, torch_zip
from vidloc.checkpoints.readers.weights import AGAIN, Entry, ReadError, Weights, unreadable

CONFIG = 1 << 24  # bytes of a description that is read
_READERS = {'safetensors': safetensors.read, 'torch': torch_zip.read, 'msgpack': msgpack.read, 'npz': npz.read}
# In a folder: what is taken before what. Two files of one row are ambiguous.
_PREFERRED = tuple(
    re.compile(pattern)
    for pattern in (
        r'model\.safetensors',
        r'model\.safetensors\.index\.json',
        r'.+\.safetensors\.index\.json',
        r'.+\.safetensors',
        r'pytorch_model\.bin',
        r'pytorch_model\.bin\.index\.json',
        r'flax_model\.msgpack',
        r'checkpoint_\d+',
        r'checkpoint',
        r'epoch_\d+\.pth\.tar',
        r'.+\.(npz|msgpack|pt|pth|pth\.tar|bin|ckpt|pkl)',
    )
)
_STEPS = re.compile(r'checkpoint_(\d+)|epoch_(\d+)\.pth\.tar')  # of Scenic, of ActionFormer: the newest is taken
_SHARD = re.compile(r'.+-\d{5}-of-(\d{5})\.(safetensors|bin)')
_TRAINING = re.compile(r'(training_args|optimizer|scheduler|scaler|rng_state.*)\.(bin|pt|pth)')  # no weights
_REMOTE = re.compile(r'[a-z0-9]+://')
_WINDOWS = re.compile(r'[A-Za-z]:\\|\\\\|[^/]*\\')
_WORKDIR = ('config.json', 'model.json', 'frozen.safetensors')
_UNFINISHED = re.compile(r'.+\.(incomplete|part|partial|crdownload|download|aria2|tmp)')
_FETCH = 'fetch the file first (`hf download`, wget, gsutil) and name it'


def open_weights(path: str | os.PathLike[str]) -> Weights:
    """Opens a file or a folder of weights without reading the tensors; raises ReadError.

    A folder may be one of Hugging Face (model.safetensors, its index and shards, pytorch_model.bin), one with
    checkpoint_<step> files of Scenic (the newest is opened) or a checkpoint of orbax, those of vidloc included. If
    a file was chosen out of several, extras['chosen'] says which and why. config.json and
    (video_)preprocessor_config.json are read from the folder, or from beside the file.
    """
    given = pathlib.Path(path)
    try:
        _check_there(given, os.fspath(path))
        folder = given if given.is_dir() else given.parent
        chosen, why = _choose(given) if given.is_dir() else (given, '')
        kind, entries, extras = _read(chosen)
        config = _description(folder / 'config.json')
        preprocessor = _description(folder / 'video_preprocessor_config.json')
        if preprocessor is None:
            preprocessor = _description(folder / 'preprocessor_config.json')
    except OSError as error:
        raise unreadable(given, error) from error
    if not entries:
        raise ReadError(chosen, f'it is a sound {kind} file without a single tensor', 'Name the file of weights')
    if why:
        extras = {**extras, 'chosen': why}
    return Weights(str(chosen), kind, entries, extras, config, preprocessor)


def _check_there(path: pathlib.Path, given: str) -> None:
    if not path.exists():
        fix = 'Check the path'
        if _REMOTE.match(given):
            fix = f'Nothing is downloaded here: {_FETCH}'
        elif len(path.parts) == 2 and not path.is_absolute():
            fix = f'Check the path; if it is the name of a model on a hub: nothing is downloaded here, {_FETCH}'
        elif _WINDOWS.match(given) and os.sep == '/':
            fix = 'It is a path of Windows; name the file as this system does (under WSL: /mnt/c/...)'
        raise ReadError(given, 'there is no such file or folder', fix)
    if not path.is_dir() and not path.is_file():
        raise ReadError(given, 'it is neither a file nor a folder', 'Name a file of weights')
    if path.is_file() and (match := _SHARD.fullmatch(path.name)) and int(match[1]) > 1:
        fix = 'Name the folder, or the file in it whose name ends in .index.json'
        raise ReadError(given, f'it is one of the {int(match[1])} parts of a model', fix)


def _read(path: pathlib.Path) -> tuple[str, dict[str, Entry], dict[str, Any]]:
    """(format, entries, extras) of a file, an index or a folder of orbax."""
    if path.is_dir():
        return 'orbax', *orbax.read(path)
    kind = signatures.recognise(path)
    if kind != 'index':
        return kind, *_READERS[kind](path)
    entries, extras = shards.read(path, _read_shard)
    return signatures.recognise(path.parent / min(shards.files(path).values())), entries, extras


def _read_shard(path: pathlib.Path) -> tuple[dict[str, Entry], dict[str, Any]]:
    kind = signatures.recognise(path)
    if kind == 'index':
        raise ReadError(path, 'an index names it as a file of weights, and it is JSON', AGAIN)
    return _READERS[kind](path)


def _choose(folder: pathlib.Path) -> tuple[pathlib.Path, str]:
    """(what to open in a folder, why if there was a choice); raises ReadError."""
    if orbax.is_checkpoint(folder):
        return folder, ''
    if all((folder / name).is_file() for name in _WORKDIR):
        fix = 'init_from of a config takes it as it is; tools/export_checkpoint.py makes weights of it'
        raise ReadError(folder, 'it is the workdir of a run of vidloc, and no folder of weights', fix)
    # A folder among them can only be a checkpoint of orbax that Scenic or Flax named.
    names = sorted(
        entry.name for entry in folder.iterdir() if entry.is_file() or (entry.is_dir() and _STEPS.fullmatch(entry.name))
    )
    rows = [[name for name in names if pattern.fullmatch(name)] for pattern in _PREFERRED]
    candidates = list(dict.fromkeys(name for row in rows for name in row if not _TRAINING.fullmatch(name)))
    if not candidates:
        raise _nothing(folder)
    row = [name for name in next(row for row in rows if candidates[0] in row) if name in candidates]
    if steps := {int(match[1] or match[2]): name for name in row if (match := _STEPS.fullmatch(name))}:
        newest = steps[max(steps)]
        why = f'{newest}, the newest of {len(steps)}' if len(steps) > 1 else ''
        return folder / newest, why
    if all(_SHARD.fullmatch(name) for name in row):
        parts = f'{len(row)} part{"s" if len(row) > 1 else ""} of a model ({row[0]})'
        fix = 'Download the file whose name ends in .index.json, and the parts that it names, into this folder'
        raise ReadError(folder, f'it holds {parts} without the index that joins them', fix)
    if len(row) > 1:
        raise ReadError(folder, f'it holds several files of weights: {", ".join(row)}', 'Name one of them')
    others = [name for name in candidates[1:] if not _SHARD.fullmatch(name)]
    return folder / row[0], f'{row[0]}, not {", ".join(others)}' if others else ''


def _nothing(folder: pathlib.Path) -> ReadError:
    """Why there is nothing to open in a folder."""
    names = sorted(entry.name for entry in folder.iterdir())
    if 'saved_model.pb' in names or 'tf_model.h5' in names or any('.data-0000' in name for name in names):
        return ReadError(
            folder,
            'it is a model of TensorFlow, which is not read here',
            'Take the PyTorch, safetensors, npz or Flax file of the same model',
        )
    if unfinished := [name for name in names if _UNFINISHED.fullmatch(name)]:
        fix = 'Wait until the download has ended, or start it again'
        return ReadError(folder, f'it holds no weights, but a download that has not ended: {unfinished[0]}', fix)
    there = f'It holds {", ".join(names[:8])}{", ..." if len(names) > 8 else ""}' if names else 'It is empty'
    return ReadError(folder, f'no weights were found in this folder. {there}', 'Name the file or folder with them')


def _description(path: pathlib.Path) -> dict[str, Any] | None:
    """A JSON table beside the weights, None if there is none."""
    if not path.is_file():
        return None
    fix = 'Download it again, or move it away if it does not belong to the weights'
    if path.stat().st_size > CONFIG:
        raise ReadError(path, f'it is longer than {CONFIG} bytes', fix)
    try:
        table = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ReadError(path, f'it is no JSON ({error})', fix) from error
    if not isinstance(table, dict):
        raise ReadError(path, 'it is JSON, but no table', fix)
    return table
