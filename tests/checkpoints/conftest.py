"""The maker of small weight files, which several tests of this folder share."""

import importlib.util
import pathlib

import pytest


@pytest.fixture(scope='session')
def toys():
    """The module toy_weights.py."""
    spec = importlib.util.spec_from_file_location('toy_weights', pathlib.Path(__file__).with_name('toy_weights.py'))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
