"""Renders MocapStreet, the built-in data set, into a directory.

python tools/make_mocapstreet.py --out data/mocapstreet --size small --seed 0
"""

import argparse
import pathlib
import sys

from vidloc.synthetic import export


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=pathlib.Path, required=True, help='directory to make')
    parser.add_argument(
        '--size', choices=tuple(export.SIZES), default='small', help='tiny: tests, small: the demo, bench: experiments'
    )
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--workers', type=int, help='processes (default: one a core)')
    parser.add_argument(
        '--untrimmed',
        action='store_true',
        help='long videos for temporal localization too; they are added to a directory that has the rest',
    )
    parser.add_argument('--force', action='store_true', help='make it again if it is there already')
    arguments = parser.parse_args()
    try:
        out = export.make(
            arguments.out,
            arguments.size,
            arguments.seed,
            arguments.workers,
            long=arguments.untrimmed,
            force=arguments.force,
        )
    except (export.MocapStreetError, OSError) as error:
        print(f'make_mocapstreet: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('make_mocapstreet: interrupted; nothing is left behind.', file=sys.stderr)
        return 130
    print(out)
    return 0


if __name__ == '__main__':
    sys.exit(main())
