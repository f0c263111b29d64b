"""What a config leaves open and files decide: colours of the input, epsilons of norms, widths of text embeddings.

A field is open while it has its default. It is filled in before anything is built, from the run in the workdir if
there is one, else from what init_from names (widths: from the files of embeddings), so that W/config.json says what
was used and a run that goes on reads none of them.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np

from vidloc import build, texts, trained, transfer
from vidloc import config as config_lib
from vidloc.models import preprocess

COLOURS = ('preprocess.mean', 'preprocess.std')
EPSILONS = ('eps', 'norm_eps')


def settle(config: ml_collections.ConfigDict, workdir: str | os.PathLike[str]) -> tuple[ml_collections.ConfigDict, str]:
    """(the config with what it leaves open filled in, what to say about it).

    A value that the config sets stays, and is said where the weights expect another one.
    Raises ConfigError, ReadError or FamilyError.
    """
    fields = _fields(config)
    stored = pathlib.Path(workdir) / 'config.json'
    if stored.is_file():
        known, source = config_lib.flatten(json.loads(stored.read_text(encoding='utf-8'))), ('', '')
    else:
        known, source = _known(config) if config.init_from else ({}, ('', ''))
    values = config_lib.flatten(config)
    said, settled = [], dict(texts.open_widths(config, known))
    for name, default in fields.items():
        expected = known.get(name)
        if expected is None or _same(expected, values[name]):
            continue
        if _same(values[name], default):
            settled[name] = tuple(expected) if isinstance(expected, list | tuple) else expected
            said.append(f'{name} {_text(expected)}, as {_whose(name, source)}')
        else:
            said.append(f'{name} {_text(values[name])}, as the config says; {_whose(name, source)}: {_text(expected)}')
    if settled:
        config = config.copy_and_resolve_references()
        with config.unlocked():
            config.update_from_flattened_dict(settled)
        config.lock()
    return config, '\n'.join(said) if source[0] else ''


def _fields(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """{name of a field that weights may settle: its default}"""
    fields: dict[str, Any] = dict.fromkeys(COLOURS, ())
    parts = {'backbone': build.BACKBONES[config.backbone.kind].defaults()}
    if task := config.weights.head:
        head = config_lib.choose(config.tasks, task, 'weights.head').head
        parts[f'tasks.{task}.head'] = build.HEADS[head.kind].defaults()
    for place, defaults in parts.items():
        fields |= {f'{place}.{name}': defaults[name] for name in EPSILONS if name in defaults}
    return fields


def _known(config: ml_collections.ConfigDict) -> tuple[dict[str, Any], tuple[str, str]]:
    """({field: value} of what init_from names, (how to speak of it, where its colours are written))"""
    place, _ = transfer.split(config.init_from)
    if trained.is_workdir(place):
        known = config_lib.flatten(json.loads((pathlib.Path(place) / 'config.json').read_text(encoding='utf-8')))
        # Heads of another run are not taken; colours that it left open were these.
        known = {name: value for name, value in known.items() if not name.startswith('tasks.')}
        for name in COLOURS:
            known[name] = known.get(name) or preprocess.MIDDLE
        return known, (f'the run in {place}', '')
    _, found = transfer.recognise(config)
    prepare = found.preprocessing  # None: of a head over features
    known = {} if prepare is None else dict(zip(COLOURS, (prepare.mean, prepare.std), strict=True))
    known |= _prefixed('backbone', found.backbone)
    if config.weights.head:
        known |= _prefixed(f'tasks.{config.weights.head}.head', found.head)
    return known, ('the weights', prepare.source if prepare else '')


def _whose(name: str, source: tuple[str, str]) -> str:
    who, where = source
    return f'{who} ({where})' if where and name in COLOURS else who


def _prefixed(place: str, values: Mapping[str, Any] | None) -> dict[str, Any]:
    return {f'{place}.{name}': value for name, value in (values or {}).items()}


def _same(one: Any, other: Any) -> bool:
    one, other = np.asarray(one, float), np.asarray(other, float)
    return one.shape == other.shape and np.allclose(one, other, rtol=1e-6, atol=0.0)


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return '(' + ', '.join(f'{float(x):.6g}' for x in value) + ')'
    return f'{float(value):g}'
