"""python tools/benchmark.py NAME: time, memory, FLOPs, hardware and versions, one JSON object a line.

losa, actionformer, temporal and gra have cases that can be run one by one, by their names or how those begin:

  python tools/benchmark.py losa --only 'memory cpu remat_clips 576' parameters
  python tools/benchmark.py losa --list
"""

import argparse
import sys

from vidloc.benchmarks import suite


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('name', choices=sorted([*suite.BENCHMARKS, *suite.CASES]))
    parser.add_argument('--only', nargs='+', default=(), metavar='CASE', help='of those that --list shows')
    parser.add_argument('--list', action='store_true', help='print the cases and run none')
    options = parser.parse_args(arguments)
    if options.list:
        print('\n'.join(suite.CASES[options.name]() if options.name in suite.CASES else ('it has no cases to choose',)))
        return 0
    try:
        for line in suite.report(options.name, options.only):
            print(line, flush=True)
    except ValueError as error:
        print(f'benchmark: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
