"""What a user says about weights that neither they nor the files beside them tell, or that these tell wrong."""

import ast
from collections.abc import Iterable, Mapping
from typing import Any

from vidloc.checkpoints.containers import FamilyError

NAMES = (
    *('heads', 'grid', 'size', 'frames', 'stride', 'mean', 'std'),
    *('windows', 'ranges', 'positions', 'max_length'),
)


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of {name: value}. Raises FamilyError for names that are none of NAMES."""
    if unknown := sorted(set(given) - set(NAMES)):
        raise FamilyError(f'overrides has {", ".join(unknown)}; it can have {", ".join(NAMES)}')
    return dict(given)


def parse(texts: Iterable[str]) -> dict[str, Any]:
    """['heads=16', 'grid=(8,14,14)'], as given on a command line -> {name: value}. Raises FamilyError."""
    given = {}
    for text in texts:
        name, sign, value = text.partition('=')
        if not sign:
            raise FamilyError(f'{text!r} is not NAME=VALUE, as in heads=16')
        try:
            given[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError) as error:
            raise FamilyError(f'{text!r}: a value is a number, or several in brackets, as in grid=(8,14,14)') from error
    return checked(given)


def example(name: str, value: Any) -> str:
    """How a user gives it."""
    return examples({name: value})


def examples(values: Mapping[str, Any]) -> str:
    """How a user gives several."""
    typed = {name: repr(value).replace(' ', '') for name, value in values.items()}
    quoted = (f'{name}={each}' if each.isalnum() else f"{name}='{each}'" for name, each in typed.items())
    return f'--set {" ".join(quoted)} for the tools, overrides={dict(values)!r} in Python'
