"""Makes a small directory in the layout of AVA, AVA-Kinetics, Kinetics, Moments in Time and Something-Something v2.

python tools/make_standin.py --out data/standin --size tiny --seed 0
"""

import argparse
import pathlib
import sys

from vidloc.synthetic import standin


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=pathlib.Path, required=True, help='directory to make')
    parser.add_argument('--size', choices=tuple(standin.SIZES), default='tiny', help='how many videos, and how large')
    parser.add_argument('--seed', type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        out = standin.make(options.out, options.size, options.seed)
    except (standin.StandinError, OSError) as error:
        print(f'make_standin: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('make_standin: interrupted; nothing is left behind.', file=sys.stderr)
        return 130
    print(out)
    return 0


if __name__ == '__main__':
    sys.exit(main())
