"""Scores predictions against ground truth and prints one JSON object; faults are one line and exit code 2.

python tools/evaluate.py ava --ground_truth val.csv --predictions detections.csv --label_map actions.pbtxt
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping

import numpy as np

from vidloc.annotations import ava as files
from vidloc.annotations.records import AnnotationError
from vidloc.metrics import ava, frequency


class _Fault(ValueError):
    """What is wrong with the input as a whole."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    _add_ava(commands)
    options = parser.parse_args(arguments)
    try:
        result = options.run(options)
    except AnnotationError as error:
        first = error.problems[0]
        more = f' (and {len(error.problems) - 1} more problems)' if len(error.problems) > 1 else ''
        print(f'evaluate: {first}{more}', file=sys.stderr)
        return 2
    except (_Fault, OSError) as error:
        print(f'evaluate: {error}', file=sys.stderr)
        return 2
    print(json.dumps(result, allow_nan=False))
    return 0


def _add_ava(commands) -> None:
    parser = commands.add_parser('ava', help='frame mAP at IoU 0.5 of person boxes with actions')
    parser.add_argument('--ground_truth', required=True, help='csv files, separated by commas')
    columns = 'video,timestamp,x1,y1,x2,y2,action_id,score'
    parser.add_argument('--predictions', required=True, help=f'csv files, separated by commas; columns {columns}')
    parser.add_argument('--label_map', required=True, help='pbtxt; its classes are evaluated')
    parser.add_argument('--excluded', help='csv of keyframes to leave out: video,timestamp')
    parser.add_argument('--protocol', default='official', choices=ava.PROTOCOLS)
    parser.add_argument('--train', help='csv of the training labels: adds the means over head, mid and tail classes')
    parser.add_argument('--head', type=int, default=10_000, help='head classes have more training labels')
    parser.add_argument('--tail', type=int, default=1_000, help='tail classes have fewer training labels')
    parser.set_defaults(run=_run_ava)


def _run_ava(options: argparse.Namespace) -> dict:
    if options.head < options.tail:
        raise _Fault(f'--head ({options.head}) must not be below --tail ({options.tail})')
    paths = _paths('--ground_truth', options.ground_truth)
    predicted = _paths('--predictions', options.predictions)
    classes = files.read_label_map(options.label_map)
    excluded = files.read_excluded(options.excluded) if options.excluded else None
    parts = {path: files.read_ava_table(path, scores=False) for path in paths}
    training = files.read_ava_table(options.train, scores=False) if options.train else None
    predictions = _joined([files.read_ava_table(path) for path in predicted])
    settings = {'protocol': options.protocol, 'excluded': excluded}
    truth = _joined(list(parts.values()))
    whole = ava.frame_ap(truth, predictions, classes, **settings)
    if not whole.counts['ground_truth']:
        raise _Fault(f'{options.ground_truth}: no label is of a class in {options.label_map}')
    if whole.counts['other_class'] == whole.counts['detections']:
        raise _Fault(f'{options.predictions}: no prediction is of a class in {options.label_map}')
    if whole.counts['other_class'] + whole.counts['off_keyframe'] == whole.counts['detections']:
        raise _Fault(
            f'{options.predictions}: no prediction is on a keyframe of the ground truth; predictions are on '
            f'{_key(predictions)}, the truth is on {_key(truth)}: compare names and timestamps'
        )
    result = _described(whole, classes)
    result['protocol'] = options.protocol
    if len(parts) > 1:
        result['parts'] = {
            path: _described(ava.frame_ap(part, ava.of_part(predictions, part, truth), classes, **settings), classes)
            for path, part in parts.items()
        }
    if training is not None:
        members = frequency.groups(frequency.label_counts(training, classes), head=options.head, tail=options.tail)
        means = frequency.group_means(whole.per_class, members)
        result['groups'] = {
            group: {'frame_map@0.5': _plain(means[group]), 'classes': [classes[number] for number in members[group]]}
            for group in members
        }
    return result


def _paths(option: str, text: str) -> list[str]:
    paths = [path for path in text.split(',') if path]
    if not paths or len({os.path.realpath(path) for path in paths}) < len(paths):
        raise _Fault(f'{option} {text!r} must name different csv files, separated by commas')
    return paths


def _joined(tables: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The rows of all; a single table, which may be large, is not copied."""
    return tables[0] if len(tables) == 1 else ava.join(tables)


def _described(result: ava.AvaResult, classes: Mapping[int, str]) -> dict:
    return {
        'frame_map@0.5': _plain(result.mean),
        'per_class': {name: _plain(result.per_class[number]) for number, name in classes.items()},
        'counts': dict(result.counts),
    }


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else value


def _key(columns: ava.Columns) -> str:
    return f'{columns["video"][0]} at {columns["timestamp"][0]:g} s' if len(columns['video']) else 'nothing'


if __name__ == '__main__':
    sys.exit(main())
