"""Tools run in this process, which spares the seconds that each start of Python with its libraries takes."""

import importlib.util
import pathlib
import types

import pytest

TOOLS = pathlib.Path(__file__).parents[2] / 'tools'


@pytest.fixture
def run_tool(capsys):
    """(name of the tool, arguments) -> namespace with returncode, stdout and stderr."""

    def run(name, *arguments):
        spec = importlib.util.spec_from_file_location(f'tool_{name}', TOOLS / f'{name}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        code = module.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return types.SimpleNamespace(returncode=code, stdout=out, stderr=err)

    return run
