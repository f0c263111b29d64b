"""Entries of the JSON files of a workdir, read and checked: every fault is a RunError that names file and entry."""

import json
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any


class RunError(ValueError):
    """A folder is no run, or one of its files is not as it should be; the text fits on one line."""


def read_object(path: pathlib.Path) -> dict[str, Any]:
    """The object that is all of a JSON file."""
    try:
        data = json.loads(path.read_text(encoding='utf-8'))
    except (ValueError, RecursionError) as error:
        raise RunError(f'{path}: this is not valid JSON ({error}); write it again or delete it.') from error
    if not isinstance(data, dict):
        raise RunError(f'{path}: this is a JSON {type(data).__name__}, not an object.')
    return data


def read_optional(path: pathlib.Path) -> dict[str, Any] | None:
    """The object of a file that may be absent."""
    return read_object(path) if path.exists() else None


def read_lines(path: pathlib.Path, parse: Callable[[dict[str, Any]], Any], what: str) -> list:
    """parse(object) of every line of a file that a run appends to. what: a line is, in an error.

    A last line without its newline that is no whole object is left out: the run is writing it, or was killed there.
    `parse` raises ValueError, TypeError or KeyError for an object that is none of what is wanted.
    """
    text = path.read_bytes().decode('utf-8', errors='replace')
    lines, found = text.split('\n'), []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(parse(json.loads(line)))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if number == len(lines):
                break
            raise RunError(f'{path}:{number}: no line of {what}; delete it.') from error
    return found


def whole(value: Any) -> int:
    """A step. Raises ValueError for what is no whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError('the step is no whole number')
    return value


def field(path: pathlib.Path, data: Mapping[str, Any], key: str, kind: type) -> Any:
    """data[key], checked to be of `kind` (a float may be written as an int; bool is no number)."""
    if key not in data:
        raise RunError(f'{path}: the key `{key}` is missing; evaluate the run again.')
    value = data[key]
    allowed = (int, float) if kind is float else kind
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise RunError(f'{path}: `{key}` is {value!r:.60}, which is no {kind.__name__}.')
    return value


def score(path: pathlib.Path, key: str, value: Any) -> float | None:
    """A number or None; a number that is not finite counts as unknown too."""
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return None if value is None or not math.isfinite(value) else float(value)
    raise RunError(f'{path}: `{key}` holds {value!r:.60}, which is neither a number nor null.')


def scores(path: pathlib.Path, data: Mapping[str, Any], key: str, needed: tuple[str, ...] = ()) -> dict:
    """data[key] as {name: number or None}, with all the names of `needed`."""
    values = field(path, data, key, dict)
    missing = [name for name in needed if name not in values]
    if missing:
        raise RunError(f'{path}: `{key}` says nothing of {", ".join(missing[:3])}; evaluate the run again.')
    return {name: score(path, key, value) for name, value in values.items()}


def classes(path: pathlib.Path, data: Mapping[str, Any]) -> tuple[str, ...]:
    """data['classes']: at least one, all different."""
    classes = field(path, data, 'classes', list)
    if not classes or not all(isinstance(name, str) for name in classes) or len(set(classes)) < len(classes):
        raise RunError(f'{path}: `classes` must be a list of different names, at least one.')
    return tuple(classes)


def metrics(path: pathlib.Path, data: Mapping[str, Any], main: str) -> dict[str, float | None]:
    """data['metrics'], among them `main`."""
    metrics = scores(path, data, 'metrics')
    if main not in metrics:
        raise RunError(f'{path}: `metrics` has no `{main}`; evaluate the run again.')
    return metrics


def list_of(path: pathlib.Path, data: Mapping[str, Any], key: str, kind: Any) -> tuple:
    """data[key]: a list of at least one value, all of `kind`."""
    values = field(path, data, key, list)
    if not values or not all(isinstance(value, kind) and not isinstance(value, bool) for value in values):
        raise RunError(f'{path}: `{key}` is {values!r:.60}, which is not as an evaluation writes it.')
    return tuple(values)


def square(path: pathlib.Path, data: Mapping[str, Any], size: int, kind: Any) -> tuple[tuple, ...]:
    """data['confusion']: `size` rows of as many numbers of `kind`."""
    confusion = field(path, data, 'confusion', list)
    square = len(confusion) == size and all(
        isinstance(row, list) and len(row) == size and all(isinstance(n, kind) and n >= 0 for n in row)
        for row in confusion
    )
    if not square:
        raise RunError(f'{path}: `confusion` must be {size} rows of {size} counts.')
    return tuple(tuple(row) for row in confusion)
