"""python tools/benchmark.py NAME: time, memory, FLOPs, hardware and versions, one JSON object a line."""

import argparse

from vidloc.benchmarks import suite


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('name', choices=sorted(suite.BENCHMARKS))
    for line in suite.report(parser.parse_args().name):
        print(line, flush=True)


if __name__ == '__main__':
    main()
