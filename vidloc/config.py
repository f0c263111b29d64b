"""Filling and checking configs: every field of a chosen part, with the default that stands in its dataclass."""

import dataclasses
import difflib
import importlib.util
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

# Fields that flax adds to every module; nobody configures them.
MODULE_FIELDS = ('parent', 'name')


# Stands for the value of a field that has no default.
REQUIRED = object()


class ConfigError(ValueError):
    """A config says something that does not exist or does not fit; one line."""


@dataclasses.dataclass(frozen=True)
class Part:
    """Something that a config may choose: a dataclass or Flax module, and the fields that build supplies itself."""

    make: Any
    supplied: tuple[str, ...] = ()

    def defaults(self) -> dict[str, Any]:
        """{field: default} of everything a config may set; REQUIRED where it has to."""
        values = {}
        for field in dataclasses.fields(self.make):
            if field.name in (*MODULE_FIELDS, *self.supplied) or not field.init:
                continue
            if field.default_factory is not dataclasses.MISSING:
                values[field.name] = field.default_factory()
            else:
                values[field.name] = REQUIRED if field.default is dataclasses.MISSING else field.default
        return values


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt word: the most similar known one, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f'did you mean {close[0]!r}?' if close else f'known: {", ".join(known)}'


def choose(parts: Mapping[str, Any], kind: str, where: str) -> Any:
    """parts[kind], or a ConfigError that names the nearest."""
    if kind not in parts:
        raise ConfigError(f'{where}: there is no {kind!r}; {nearest(str(kind), parts)}')
    return parts[kind]


def fill(part: Part, given: Mapping[str, Any], where: str, *, extra: Mapping[str, Any] | None = None) -> dict:
    """Defaults of `part` (and `extra` keys with theirs), overridden by `given`; unknown keys are a ConfigError."""
    values = dict(extra or {}) | part.defaults()
    for key, value in given.items():
        if key not in values:
            raise ConfigError(f'{where}.{key}: there is no such field; {nearest(key, values)}')
        values[key] = value
    missing = [key for key, value in values.items() if value is REQUIRED]
    if missing:
        raise ConfigError(f'{where} needs a value for {", ".join(missing)}')
    return values


def make(part: Part, values: Mapping[str, Any], **supplied: Any) -> Any:
    """The part with the config's values; keys of the config that are not its fields are left aside.

    A field that the config of an earlier version does not have keeps its default: it was not there to be changed.
    """
    fields = part.defaults()
    return part.make(**{key: plain(values.get(key, fields[key])) for key in fields}, **supplied)


def plain(value: Any) -> Any:
    """ConfigDicts to dicts and lists to tuples, so that dataclasses and modules stay hashable."""
    if isinstance(value, ml_collections.ConfigDict | Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return tuple(plain(inner) for inner in value)
    return value


def flatten(value: Any, prefix: str = '') -> dict[str, Any]:
    """{'a.b.c': value} of nested mappings; an empty mapping is a leaf."""
    value = plain(value)
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= flatten(inner, f'{prefix}.{key}' if prefix else str(key))
    return flat


def load(spec: str) -> ml_collections.ConfigDict:
    """The config of `path.py` or `path.py:argument`. Raises ConfigError in one line."""
    path, _, argument = spec.partition(':')
    if not pathlib.Path(path).is_file():
        raise ConfigError(f'--config: no file {path!r}')
    module_spec = importlib.util.spec_from_file_location('vidloc_config', path)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    if not hasattr(module, 'get_config'):
        raise ConfigError(f'--config: {path} has no function get_config')
    return module.get_config(argument) if argument else module.get_config()


def check_overrides(config: ml_collections.ConfigDict, arguments: Iterable[str]) -> None:
    """Raises ConfigError for the first --config.a.b=... that the config does not have."""
    for argument in arguments:
        if argument.lstrip('-').startswith('config.'):
            key = argument.lstrip('-')[len('config.') :].split('=', 1)[0]
            check_field(config, key, f'--config.{key}')


def check_field(config: ml_collections.ConfigDict, key: str, said: str) -> None:
    """Raises ConfigError if the config has no field `key`, such as a.b.c; said: how the user asked for it."""
    node: Any = config
    done = 'config'
    for word in key.split('.'):
        name = word.split('[', 1)[0]
        if not isinstance(node, ml_collections.ConfigDict) or name not in node:
            known = list(node) if isinstance(node, ml_collections.ConfigDict) else []
            everywhere = flatten(config)
            hint = nearest(name, known) if known else f'{done} is a value, not a group'
            close = difflib.get_close_matches(key, everywhere, n=1, cutoff=0.7)
            if close and known and 'did you mean' not in hint:
                hint = f'did you mean {close[0]!r}?'
            raise ConfigError(f'{said}: {done} has no {name!r}; {hint}')
        node, done = node[name], f'{done}.{name}'


def overridden(config: ml_collections.ConfigDict, key: str, text: str, said: str) -> ml_collections.ConfigDict:
    """A copy with the field `key` set as --config.KEY=TEXT sets it; said: how the user asked for it.

    Raises ConfigError for what is not a field, and for a text that is no value of its type.
    """
    check_field(config, key, said)
    if key not in flatten(config):
        raise ConfigError(f'{said}: name one whole field, not a group of fields or a part of one')
    changed = config.copy_and_resolve_references()
    node, alone = changed, ml_collections.ConfigDict()
    *groups, name = key.split('.')
    for group in groups:
        node = node[group]
    # The flag takes a config of this field alone; of a whole one it would write out all fields.
    alone[name] = node[name]
    arguments = ['', f'--config.{name}={text}']
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict('config', alone, flag_values=values, sys_argv=arguments)
        values(arguments)
        node[name] = alone[name]
    except (flags.Error, ValueError, TypeError) as error:
        why = ' '.join(str(error).split()).removeprefix(f'flag {arguments[1]}: ')
        raise ConfigError(f'{said}={text}: {why}') from error
    return changed
