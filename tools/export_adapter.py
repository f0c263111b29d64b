"""Writes what was trained in a run as a file of its own, to go on top of the weights that the run began with.

  python tools/export_adapter.py WORKDIR --out FILE [--checkpoint best]
  python tools/export_adapter.py WORKDIR --out FOLDER --peft [--task TASK] [--checkpoint best]

FILE is in the safetensors format and holds all that trained: LoRA, FiLM, heads. It belongs to the frozen part of the
run, by fingerprint. FOLDER is for Hugging Face's PEFT and holds LoRA alone. Both start a run:
--config.init_from=WEIGHTS --config.weights.adapter=FILE. LoRA merged into plain weights: tools/export_checkpoint.py.
"""

import argparse
import os
import sys

from vidloc import export, trained
from vidloc.checkpoints import adapters, peft, store
from vidloc.config import ConfigError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('workdir', help='of a run')
    parser.add_argument('--out', required=True, help='the file, or with --peft the folder, to write; it must be new')
    parser.add_argument('--peft', action='store_true', help="write LoRA in the layout of Hugging Face's PEFT")
    parser.add_argument('--task', default='', help='with --peft, of a run with LoRA in several heads: whose head')
    parser.add_argument('--checkpoint', default='latest', help='latest, best or a step')
    options = parser.parse_args(arguments)
    try:
        if not trained.is_workdir(options.workdir):
            raise ConfigError(f'{options.workdir!r} is no workdir of a run')
        if options.peft:
            adapter, model, notes = export.peft_of_run(options.workdir, options.checkpoint, options.task)
            notes += peft.write(options.out, adapter, model)
            size = os.path.getsize(os.path.join(options.out, peft.WEIGHTS))
        else:
            adapter, notes = export.adapter_of_run(options.workdir, options.checkpoint)
            adapters.write(options.out, adapter)
            size = os.path.getsize(options.out)
    except (ValueError, store.CheckpointError, OSError) as error:
        print(f'export_adapter: {error}', file=sys.stderr)
        return 2
    print(f'{options.out}: {adapter.told} ({size / 1e6:.3g} MB)')
    for note in notes:
        print(f'note: {note}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
