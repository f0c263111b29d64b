"""Checks annotations and, if their folder is named, videos: exit 0, or 1 with the list of problems.

python tools/check_data.py --format ava --annotations train.csv val.csv --labels actions.pbtxt --videos DIR
python tools/check_data.py --format folders --annotations DIR/train DIR/val --videos DIR/train DIR/val --decode
"""

import argparse
import dataclasses
import json
import math
import os
import sys

from vidloc.annotations import activitynet, check, class_list, label_map, moma, summary
from vidloc.data import opening, presence
from vidloc.data.frame_folders import FRAME_RATE


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument('--format', required=True, choices=check.FORMATS)
    found.add_argument(
        '--annotations', required=True, nargs='+', help='one file for each split, that for training first'
    )
    found.add_argument('--labels', help='label map (.pbtxt) for ava and ava_detections, else the list of classes')
    found.add_argument(
        '--write_labels',
        metavar='FILE',
        help='activitynet, moma, table: write the classes, by label_id if there are any; .pbtxt: as an action list',
    )
    found.add_argument('--subset', help='activitynet, kinetics, folders, moma: check only the videos of this subset')
    found.add_argument('--excluded', help='ava: csv of keyframes to leave out')
    found.add_argument('--included', help='ava: text file of the seconds that may be keyframes')
    found.add_argument('--blocked', help='activitynet: file of the videos to leave out')
    found.add_argument('--prefix', default='', help='activitynet: what file names have before a video, such as v_')
    found.add_argument('--split', help='moma: file of splits')
    found.add_argument('--actions', nargs='+', default=(), help='moma: lists whose entries are actions')
    found.add_argument('--clips', default='', help='moma: activity, where files are those of activities')
    found.add_argument('--first', type=float, help="moma 1.0: frame_timestamp of a video's first frame")
    found.add_argument('--detections', nargs='+', default=(), help='ava, moma: person boxes, csv or pickle (.pkl)')
    found.add_argument('--videos', nargs='+', help='folder of the videos, one for all or one for each annotations')
    found.add_argument(
        '--start', type=_seconds, default=0.0, help="annotations' time of the files' first frame, seconds"
    )
    found.add_argument('--frame_rate', type=float, default=FRAME_RATE, help='of videos in folders of pictures')
    found.add_argument('--decode', action='store_true', help='decode frames at start, middle and end of each video')
    found.add_argument('--workers', type=int, help='processes that open videos; 0: none, and no limit of time')
    found.add_argument('--timeout', type=_seconds, default=60.0, help='seconds that opening a video may take')
    found.add_argument('--json', action='store_true', help='print one JSON object instead of text')
    return found


def _seconds(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise argparse.ArgumentTypeError(f'{text} is no number of seconds from 0')
    return value


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        report = check.check(
            options.format,
            options.annotations,
            labels=options.labels,
            subset=options.subset,
            excluded=options.excluded,
            included=options.included,
            detections=options.detections,
            blocked=options.blocked,
            prefix=options.prefix,
            split=options.split,
            actions=options.actions,
            clips=options.clips,
            first=options.first,
        )
        if options.write_labels:
            _write_labels(report, options)
        videos = presence.Presence((), {}) if options.videos is None else _videos(report, options)
    except (ValueError, ChildProcessError) as error:
        print(f'check_data: {error}', file=sys.stderr)
        return 2
    problems = [*report.problems, *videos.problems]
    errors = sum(problem.severity == 'error' for problem in problems)
    if options.json:
        found = [dataclasses.asdict(problem) for problem in problems]
        result = {'ok': not errors, 'errors': errors, 'problems': found, 'summary': report.summary}
        print(json.dumps(result | {'videos': videos.summary}))
        return 1 if errors else 0
    say(summary.describe(report.summary))
    if videos.summary:
        say(summary.describe({', '.join(options.videos): videos.summary}))
    for problem in sorted(problems, key=lambda problem: problem.severity == 'error'):
        say(f'{problem.severity}: {problem}')
    say(f'{errors} errors, {len(problems) - errors} warnings')
    return 1 if errors else 0


def _write_labels(report: check.Report, options: argparse.Namespace) -> None:
    """The classes of the segments, or actions, in the first file, which is for training. Raises ValueError."""
    first = options.annotations[0]
    if options.format == 'activitynet':
        classes = activitynet.class_order(first)
    elif options.format == 'moma':
        classes = moma.class_names(first, options.actions)
    elif options.format == 'table':
        classes = sorted({segment.label for record in report.records.get(first, ()) for segment in record.segments})
    else:
        raise ValueError(f'--write_labels is for formats activitynet, moma and table, not {options.format}')
    if not classes:
        what = 'actions' if options.format == 'moma' else 'segments with labels'
        raise ValueError(f'--write_labels: there are no {what} in {first}')
    if options.write_labels.lower().endswith('.pbtxt'):
        label_map.write_label_map(options.write_labels, dict(enumerate(classes, 1)))
        return
    style = 'json' if options.write_labels.lower().endswith('.json') else 'lines'
    class_list.write_class_list(options.write_labels, classes, style)


def say(text: str) -> None:
    """Prints what the terminal can show; names in data sets may hold anything."""
    encoding = sys.stdout.encoding or 'utf-8'
    print(text.encode(encoding, 'backslashreplace').decode(encoding))


def _videos(report: check.Report, options: argparse.Namespace) -> presence.Presence:
    import tqdm

    workers = opening.processes() if options.workers is None else options.workers
    if workers < 0:
        raise ValueError(f'--workers is {workers}; it is a number of processes from 0')
    names = list(dict.fromkeys(options.annotations))
    folders = options.videos * len(names) if len(options.videos) == 1 else options.videos
    if len(folders) != len(names):
        raise ValueError(
            f'--videos names {len(folders)} folders for {len(names)} annotations; name one, or one for each'
        )
    with tqdm.tqdm(desc='videos', disable=not sys.stderr.isatty()) as bar:

        def seen(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return presence.check_videos(
            report.records,
            dict(zip(names, folders, strict=True)),
            start=options.start,
            frame_rate=options.frame_rate,
            decode=options.decode,
            workers=workers,
            timeout=options.timeout,
            seen=seen,
        )


if __name__ == '__main__':
    try:
        found = main()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        found = 1
    sys.exit(found)
