"""Writes W/report/index.html, the page of a run: python tools/report.py W [--compare W2] [--videos DIR] [--out DIR]."""

import argparse
import sys

from vidloc.report.action_groups import GroupError
from vidloc.report.page import write_page
from vidloc.report.run import RunError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('workdir', help='of the run: runs/<config>')
    parser.add_argument('--compare', metavar='W2', help='the workdir of a second run to show beside it')
    parser.add_argument('--groups', metavar='CSV', help='rows of a class and its kind of action, for means over them')
    parser.add_argument('--videos', metavar='DIR', help='videos for the timelines of sources of features')
    parser.add_argument('--out', metavar='DIR', help='the folder for the page; default: W/report')
    arguments = parser.parse_args()
    try:
        print(write_page(arguments.workdir, arguments.out, arguments.compare, arguments.groups, arguments.videos))
    except (RunError, GroupError, OSError) as error:
        print(f'report: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
