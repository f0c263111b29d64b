"""Scores predictions against ground truth and prints one JSON object; faults are one line and exit code 2.

python tools/evaluate.py ava --ground_truth val.csv --predictions detections.csv --label_map actions.pbtxt
python tools/evaluate.py temporal --ground_truth activity_net.json --predictions predictions.json --tiou anet
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from vidloc.annotations import ava as files
from vidloc.annotations import segment_predictions, segment_table
from vidloc.annotations.records import AnnotationError
from vidloc.metrics import ava, frequency, segment_errors, temporal

TIOU = {'thumos': temporal.THUMOS, 'anet': temporal.ACTIVITYNET, 'activitynet': temporal.ACTIVITYNET}


class _Fault(ValueError):
    """What is wrong with the input as a whole."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    _add_ava(commands)
    _add_temporal(commands)
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


def _add_temporal(commands) -> None:
    parser = commands.add_parser('temporal', help='mAP of temporal segments at several tIoU')
    parser.add_argument('--ground_truth', required=True, help='ActivityNet JSON: database, subset, annotations')
    parser.add_argument('--predictions', required=True, help='ActivityNet JSON: results, label, score, segment')
    parser.add_argument('--subset', default='validation', help="which videos of the ground truth; '' for all")
    parser.add_argument(
        '--tiou', default='thumos', help='thumos (0.3,0.4,0.5,0.6,0.7), anet (0.5 to 0.95 by 0.05) or such a list'
    )
    parser.add_argument('--blocked', help='videos to leave out: a JSON list, or one a line')
    parser.add_argument('--errors', choices=sorted(segment_errors.SETTINGS), help='adds what is wrong, by these bins')
    parser.set_defaults(run=_run_temporal)


def _run_temporal(options: argparse.Namespace) -> dict:
    thresholds = _thresholds(options.tiou)
    blocked = set(segment_table.read_blocked(options.blocked)) if options.blocked else set()
    notes: list = []
    table = segment_table.read_segment_table(options.ground_truth, options.subset or None, blocked, notes=notes)
    truth, classes = table.columns, dict(enumerate(table.classes))
    if not (truth['end'] > truth['start']).any():
        raise _Fault(f'{options.ground_truth}: no segments in the {len(table.videos)} videos of {_of(options.subset)}')
    found = segment_predictions.read_segment_predictions(options.predictions, table.classes, keep_inverted=True)
    given = len(found['score'])
    videos = found['video'].tolist()
    allowed = np.fromiter((video not in blocked for video in videos), bool, given)
    found = {name: values[allowed] for name, values in found.items()}
    _check_names(options, table, found)
    result = temporal.segment_ap(truth, found, classes, thresholds, videos=table.videos)
    inverted = int(np.sum(found['end'] < found['start']))
    counts = {
        **result.counts,
        'blocked_videos': table.blocked,
        'predictions_blocked': given - len(found['score']),
        'predictions_inverted': inverted,
    }
    for problem in notes:
        print(f'evaluate: note: {problem}', file=sys.stderr)
    print(f'evaluate: {_sentence(counts)}', file=sys.stderr)
    if inverted:
        print(f'evaluate: note: {inverted} predictions end before they start and count as false', file=sys.stderr)
    described = {
        'average_map': result.average,
        'map': _by_threshold(thresholds, result.mean),
        'recall@1x': _by_threshold(thresholds, result.recall[1]),
        'recall@5x': _by_threshold(thresholds, result.recall[5]),
        'per_class': {name: _plain(result.per_class[number].mean()) for number, name in classes.items()},
        'per_class_map': {name: _by_threshold(thresholds, result.per_class[i]) for i, name in classes.items()},
        'counts': counts,
    }
    if options.errors:
        settings = segment_errors.SETTINGS[options.errors]
        try:
            errors = segment_errors.analyse(truth, found, classes, settings)
        except ValueError as error:
            raise _Fault(f'{options.ground_truth}: {error}') from None
        described['errors'] = _described_errors(errors)
    return described


def _thresholds(text: str) -> tuple[float, ...]:
    if text in TIOU:
        return TIOU[text]
    try:
        levels = tuple(float(part) for part in text.split(','))
    except ValueError:
        levels = ()
    if not levels or not all(0 < level <= 1 for level in levels) or len(set(levels)) < len(levels):
        raise _Fault(f'--tiou {text!r} is none of {", ".join(TIOU)} and no list such as 0.3,0.5 above 0 and up to 1')
    return levels


def _check_names(options: argparse.Namespace, table: segment_table.SegmentTable, found: temporal.Columns) -> None:
    """Predictions of which nothing can be right are of another data set, or their names are written otherwise."""
    if len(found['score']) == 0:
        return
    if (found['label'] < 0).all():
        raise _Fault(
            f'{options.predictions}: no prediction is of a class of the ground truth, which are '
            f'{", ".join(map(repr, table.classes[:5]))}{", ..." if len(table.classes) > 5 else ""}'
        )
    known, there = set(table.videos), list(dict.fromkeys(found['video'].tolist()))
    if known.isdisjoint(there):
        raise _Fault(
            f'{options.predictions}: no prediction is on a video of {_of(options.subset)}; predictions are on '
            f'{there[0]!r}, the truth is on {table.videos[0]!r}: compare names (perhaps v_ before them) and subset'
        )


def _of(subset: str) -> str:
    return f'the subset {subset!r}' if subset else 'the file'


def _sentence(counts: Mapping[str, int]) -> str:
    text = (
        f'{counts["videos"]} videos, {counts["videos_with_ground_truth"]} of them with ground truth, '
        f'{counts["ground_truths"]} ground truths, {counts["predictions"]} predictions'
    )
    more = {
        'duplicate_ground_truths': 'ground truths given twice count once',
        'empty_ground_truths': 'ground truths without length are left out',
        'blocked_videos': 'videos are blocked',
        'predictions_blocked': 'predictions are on blocked videos',
        'predictions_ignored': 'predictions are of classes without ground truth and ignored',
        'predictions_elsewhere': 'predictions are in videos without ground truth and false',
    }
    return '; '.join([text, *(f'{counts[name]} {what}' for name, what in more.items() if counts[name])])


def _by_threshold(thresholds: Sequence[float], values: np.ndarray) -> dict[str, float | None]:
    return {str(level): _plain(float(value)) for level, value in zip(thresholds, values, strict=True)}


def _described_errors(errors: segment_errors.SegmentErrors) -> dict:
    def plain(table: Mapping[str, Mapping[str, float]]) -> dict:
        return {of: {name: _plain(value) for name, value in values.items()} for of, values in table.items()}

    return {
        'tiou': list(errors.settings.thresholds),
        'map_n': errors.base,
        'n': errors.instances,
        'sensitivity': plain(errors.sensitivity),
        'missed': plain(errors.missed),
        'ground_truths': {of: dict(sizes) for of, sizes in errors.sizes.items()},
        'map_n_limited': errors.limited,
        'kinds': {kind: _plain(share) for kind, share in errors.kinds.items()},
        'profile': [
            {
                'predictions': int(size),
                **{kind: _plain(value) for kind, value in zip(segment_errors.KINDS, row, strict=True)},
            }
            for size, row in zip(errors.profile_sizes, errors.profile.tolist(), strict=True)
        ],
        'gains': dict(errors.gains),
        'counts': dict(errors.counts),
    }


if __name__ == '__main__':
    sys.exit(main())
