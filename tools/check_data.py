"""Checks annotations and, if their folder is named, videos: exit 0, or 1 with the list of problems.

python tools/check_data.py --format ava --annotations train.csv val.csv --labels actions.pbtxt --videos DIR
"""

import argparse
import dataclasses
import json
import sys

from vidloc.annotations import check


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--format', required=True, choices=check.FORMATS)
    parser.add_argument('--annotations', required=True, nargs='+', help='one file for each split')
    parser.add_argument('--labels', help='label map (.pbtxt) for ava and ava_detections, else one class name a line')
    parser.add_argument('--subset', help='activitynet: check only the videos of this subset')
    parser.add_argument('--videos', help='folder of the videos; without it only the annotations are checked')
    parser.add_argument('--start', type=float, default=0.0, help="annotations' time of the files' first frame, seconds")
    parser.add_argument('--json', action='store_true', help='print one JSON object instead of text')
    options = parser.parse_args(arguments)
    try:
        report = check.check(options.format, options.annotations, labels=options.labels, subset=options.subset)
    except ValueError as error:
        print(f'check_data: {error}', file=sys.stderr)
        return 2
    problems = list(report.problems)
    if options.videos is not None:
        problems += _videos(report, options.videos, options.start)
    errors = sum(problem.severity == 'error' for problem in problems)
    if options.json:
        found = [dataclasses.asdict(problem) for problem in problems]
        print(json.dumps({'ok': not errors, 'errors': errors, 'problems': found, 'summary': report.summary}))
    else:
        print(check.describe(report.summary))
        for problem in problems:
            print(f'{problem.severity}: {problem}')
        print(f'{errors} errors, {len(problems) - errors} warnings')
    return 1 if errors else 0


def _videos(report: check.Report, folder: str, start: float) -> list:
    """Opens each video once, although several files may name it."""
    import tqdm

    from vidloc.data import presence

    records = {(record.video, path): record for path, found in report.records.items() for record in found}
    with tqdm.tqdm(total=len(records), desc='videos', disable=not sys.stderr.isatty()) as bar:
        return presence.check_videos(list(records.values()), folder, start=start, seen=lambda name: bar.update())


if __name__ == '__main__':
    sys.exit(main())
