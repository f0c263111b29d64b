"""Writes a trained run, or weights that were imported, as a folder that Hugging Face's transformers loads.

  python tools/export_checkpoint.py WORKDIR --out DIR [--task TASK] [--checkpoint best]
  python tools/export_checkpoint.py WEIGHTS --out DIR

A head that the family does not have in transformers (boxes) is left out: DIR then holds the bare backbone.
"""

import argparse
import os
import sys

from vidloc import export, trained
from vidloc.checkpoints import exporter, overrides, store
from vidloc.config import ConfigError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', help='the workdir of a run, or a weights file or folder')
    parser.add_argument('--out', required=True, help='the folder to write; it must be new or empty')
    parser.add_argument('--task', default='', help='of a run with several tasks: whose head and input')
    parser.add_argument('--checkpoint', default='latest', help='of a run: latest, best or a step')
    parser.add_argument('--which', default='', help='of a weights file with several parts: which of them')
    parser.add_argument('--set', nargs='+', default=(), metavar='NAME=VALUE', help='sizes that weights do not tell')
    options = parser.parse_args(arguments)
    try:
        if not os.path.exists(options.source):
            raise ConfigError(f'nothing at {options.source!r}')
        if trained.is_workdir(options.source):
            params, model, notes = export.of_run(options.source, options.checkpoint, options.task)
        else:
            given = overrides.parse(options.set)
            params, model, notes = export.of_weights(options.source, options.which, given)
        done = exporter.export(options.out, params, model)
    except (ValueError, store.CheckpointError, OSError) as error:
        print(f'export_checkpoint: {error}', file=sys.stderr)
        return 2
    print(f'{options.out}: {done.architecture} of transformers')
    for note in (*notes, *done.notes):
        print(f'note: {note}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
