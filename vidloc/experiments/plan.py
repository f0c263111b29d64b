"""What a plan on disk and one that is asked for have in common, and the machine that a plan was made on."""

import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import jax

from vidloc import config as config_lib


def differing(there: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """{key: what stands there and what is asked for now} of all that `now` has and the plan `there` has otherwise."""
    before = config_lib.flatten({key: there.get(key) for key in now} if there else {})
    after = config_lib.flatten(now)
    return {
        key: f'{key}: {before.get(key)!r} there, {after.get(key)!r} now'
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    }


def machine() -> dict[str, str]:
    """Devices and versions, for the record."""
    return {
        'devices': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
        'machine': platform.machine(),
        'python': platform.python_version(),
        **{package: metadata.version(package) for package in ('jax', 'flax', 'numpy')},
    }
