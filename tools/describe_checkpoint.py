"""Prints what a file or folder of weights holds: family, sizes, preprocessing, labels; reads no tensor of a model.

python tools/describe_checkpoint.py model.safetensors [--json] [--names]
python tools/describe_checkpoint.py checkpoint.pth --set heads=16
"""

import argparse
import json
import sys

from vidloc.checkpoints import description, overrides


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', help='a file or folder: safetensors, .pt, .pth, .bin, npz, msgpack or orbax')
    parser.add_argument('--which', default='', help="what to look at in a file with several models, such as 'encoder'")
    parser.add_argument('--set', nargs='+', default=(), metavar='NAME=VALUE', help='sizes that the file does not tell')
    parser.add_argument('--json', action='store_true', help='print one JSON object')
    parser.add_argument('--names', action='store_true', help='with the name, shape and type of every array')
    options = parser.parse_args(arguments)
    try:
        given = overrides.parse(options.set)
        about = description.describe(options.source, which=options.which, overrides=given, names=options.names)
        wrong = None
    except description.Unknown as error:
        about, wrong = error.about, error
    except (ValueError, OSError) as error:
        print(f'describe_checkpoint: {error}', file=sys.stderr)
        return 2
    print(json.dumps(about) if options.json else description.text(about))
    if wrong is not None:
        print(f'describe_checkpoint: {wrong}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
