"""The command line: python -m vidloc.main --config=configs/X.py[:ARGUMENT] [--workdir=W] [--config.a.b=V] [--mode=]."""

import json
import os
import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from vidloc import config as config_lib

MODES = ('train', 'eval', 'describe')

_CONFIG = config_flags.DEFINE_config_file('config', None, 'The recipe: configs/X.py, or configs/X.py:ARGUMENT.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Where the run lives; default runs/<config>[-<argument>].')
_MODE = flags.DEFINE_enum('mode', 'train', MODES, 'What to do.')
_COORDINATOR = flags.DEFINE_string('coordinator', None, 'host:port of process 0, when no launcher tells.')
_PROCESSES = flags.DEFINE_integer('processes', None, 'Number of processes, when no launcher tells.')
_PROCESS = flags.DEFINE_integer('process', None, 'Number of this process, from 0.')


def default_workdir(spec: str) -> str:
    """runs/<config>[-<argument>] of `path.py[:argument]`."""
    path, _, argument = spec.partition(':')
    safe = ''.join(c if c.isalnum() or c in '._' else '-' for c in argument)
    return str(pathlib.Path('runs') / (pathlib.Path(path).stem + (f'-{safe}' if safe else '')))


def config_spec(arguments: list[str]) -> str | None:
    """The value of --config among raw arguments."""
    for i, argument in enumerate(arguments):
        name, sign, value = argument.lstrip('-').partition('=')
        if argument.startswith('-') and name == 'config':
            return value if sign else (arguments[i + 1] if i + 1 < len(arguments) else None)
    return None


def fail(error: Exception) -> None:
    """One readable text and exit code 2."""
    print(f'vidloc: {error}', file=sys.stderr)
    sys.exit(2)


def user_errors() -> tuple[type[Exception], ...]:
    """Errors whose text is for the user; anything else is a bug and keeps its traceback."""
    from vidloc import workdir
    from vidloc.annotations import records
    from vidloc.checkpoints import adapters, families, importer, store
    from vidloc.checkpoints.readers import weights
    from vidloc.data import pipeline, sources, video
    from vidloc.train import loop, sharding

    return (
        config_lib.ConfigError,
        records.AnnotationError,
        sources.DataError,
        pipeline.BrokenData,
        video.VideoError,
        workdir.RunError,
        store.CheckpointError,
        adapters.AdapterError,
        weights.ReadError,
        families.FamilyError,
        importer.ImportFailed,
        loop.Diverged,
        loop.TooManyBroken,
        sharding.ShardingError,
        OSError,
    )


def main(_: list[str]) -> None:
    """Runs the mode; called by absl with the flags parsed."""
    from vidloc import run
    from vidloc.train import sharding

    if not flags.FLAGS['verbosity'].present:
        # orbax and grain tell every rename at the level of information.
        logging.set_verbosity(logging.WARNING)
    try:
        sharding.initialise_distributed(
            coordinator=_COORDINATOR.value, processes=_PROCESSES.value, process=_PROCESS.value
        )
        spec = config_spec(sys.argv[1:])
        workdir = _WORKDIR.value or default_workdir(spec)
        if _MODE.value == 'describe':
            description, table = run.describe(_CONFIG.value)
            print(table)
            print(json.dumps(description))
            return
        figures = run.train(_CONFIG.value, workdir) if _MODE.value == 'train' else run.evaluate(_CONFIG.value, workdir)
    except user_errors() as error:
        fail(error)
    import jax

    if jax.process_index() == 0:
        for name, value in figures.items():
            print(f'{name} {value:.4f}')
        print(f'workdir {workdir}')


def cli() -> None:
    """Checks the config and its overrides in words before absl sees them, then runs."""
    arguments = sys.argv[1:]
    spec = config_spec(arguments)
    if spec is None and not any(argument.lstrip('-').startswith('help') for argument in arguments):
        fail(config_lib.ConfigError('which recipe? give --config=configs/X.py (see configs/)'))
    os.environ.setdefault('GRPC_VERBOSITY', 'ERROR')
    try:
        if spec is not None:
            config_lib.check_overrides(config_lib.load(spec), arguments)
    except config_lib.ConfigError as error:
        fail(error)
    app.run(main)


if __name__ == '__main__':
    cli()
