"""Frame mAP at IoU 0.5 as AVA measures it, by the rules of the official program and by those of SlowFast.

Everything works on columns (dicts of equally long arrays): video, timestamp, x1, y1, x2, y2, action_id and, for
detections, score. A ground-truth row with action_id -1 only says that its keyframe is annotated.

official: activitynet/ActivityNet, Evaluation/get_ava_performance.py. A keyframe counts if any ground-truth row
names it, also one of an unlisted class; detections elsewhere are ignored. At most 50 detections a keyframe over all
classes. Within a keyframe the best score chooses first.
slowfast: facebookresearch/SlowFast, slowfast/utils/ava_eval_helper.py. Keyframes are whole seconds; rows without a
box are skipped; no limit; file order decides who chooses first; detections on keyframes without truth are false.

Both: a detection takes the truth with the largest IoU (the first of equals) if that is at least 0.5 and free, else
it is false. Ties: within a keyframe the earlier row chooses first; for the precision curve, rows are put in order of
keyframe (first appearance), then choice, sorted by rising score with a stable sort, and reversed.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from vidloc.metrics.average_precision import average_precision

Columns = Mapping[str, np.ndarray]
IOU = 0.5
KEYFRAME_LIMIT = 50
PROTOCOLS = ('official', 'slowfast')
BOX = ('x1', 'y1', 'x2', 'y2')


@dataclasses.dataclass(frozen=True)
class AvaResult:
    """mean: over the classes that have ground truth (NaN if none has). per_class: {id: AP or NaN}.

    counts: keyframes, ground_truth (rows of listed classes), detections (rows given), scored (rows that took
    part); other_class, off_keyframe (not annotated or excluded; slowfast scores the former as false), over_limit
    and degenerate are what was met on the way, each among the rows that the one before left.
    positives: {id: ground-truth rows}.
    """

    mean: float
    per_class: Mapping[int, float]
    counts: Mapping[str, int]
    positives: Mapping[int, int]


@dataclasses.dataclass(frozen=True)
class Matches:
    """The detections that take part, and whether each is right.

    ids [C]: the classes, rising. row [M]: rows of the detections table, in the order of choice. position [M]: the
    place of a row's class in `ids`. score [M] float64, hit [M] bool. positives [C]: ground-truth rows of each class.
    counts: as in AvaResult.
    """

    ids: np.ndarray
    row: np.ndarray
    position: np.ndarray
    score: np.ndarray
    hit: np.ndarray
    positives: np.ndarray
    counts: Mapping[str, int]

    def by_class(self) -> list[np.ndarray]:
        """For each class, which of the M it has: in the order of falling score that the precision curve takes."""
        grouped = np.argsort(self.position.astype(np.int32), kind='stable')
        ends = np.cumsum(np.bincount(self.position, minlength=len(self.ids)))
        falling = []
        for place in range(len(self.ids)):
            mine = grouped[ends[place - 1] if place else 0 : ends[place]]
            falling.append(mine[np.argsort(self.score[mine], kind='stable')[::-1]])
        return falling


def frame_ap(
    ground_truth: Columns,
    detections: Columns,
    classes: Mapping[int, str],
    *,
    protocol: str = 'official',
    excluded: Columns | None = None,
) -> AvaResult:
    """Average precision per class at IoU 0.5; arguments and errors as of `match`."""
    return summarise(match(ground_truth, detections, classes, protocol=protocol, excluded=excluded))


def summarise(matches: Matches) -> AvaResult:
    """Average precision per class from matched detections."""
    per_class, positives = {}, {}
    for number, amount, mine in zip(matches.ids.tolist(), matches.positives, matches.by_class(), strict=True):
        positives[number] = int(amount)
        per_class[number] = average_precision(matches.hit[mine], positives[number])
    values = [value for value in per_class.values() if not np.isnan(value)]
    return AvaResult(float(np.mean(values)) if values else float('nan'), per_class, matches.counts, positives)


def match(
    ground_truth: Columns,
    detections: Columns,
    classes: Mapping[int, str],
    *,
    protocol: str = 'official',
    excluded: Columns | None = None,
) -> Matches:
    """Finds the right detections at IoU 0.5 by the rules of a protocol.

    classes: {id: name}; other ids are not evaluated. excluded: columns video and timestamp of keyframes that are
    removed from both sides. Raises ValueError for an unknown protocol, for scores and truth boxes that are not
    finite, and for truth boxes with corners swapped.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f'protocol {protocol!r} is none of {", ".join(PROTOCOLS)}')
    ids = np.array(sorted(classes), dtype=np.int64)
    keys = Keyframes(ground_truth, detections, excluded, whole_seconds=protocol == 'slowfast')
    truth_class = positions(ground_truth['action_id'], ids)
    if protocol == 'slowfast':
        annotated = np.asarray(ground_truth['action_id']) >= 0
    else:
        annotated = np.ones(len(truth_class), bool)
    annotated &= ~keys.excluded[keys.truth]
    truth = _Truth(ground_truth, keys.truth, truth_class, np.flatnonzero(annotated & (truth_class >= 0)), len(ids))

    found_class = positions(detections['action_id'], ids)
    counts = {
        'keyframes': len(np.unique(keys.truth[annotated])),
        'ground_truth': len(truth.row),
        'detections': len(found_class),
        'other_class': int(np.sum(found_class < 0)),
    }
    on_keyframe = np.zeros(keys.count, bool)
    on_keyframe[keys.truth[annotated]] = True
    listed, off = found_class >= 0, ~on_keyframe[keys.found]
    counts['off_keyframe'] = int(np.sum(listed & off))
    rows = np.flatnonzero(listed & ~(off if protocol == 'official' else keys.excluded[keys.found]))
    score = np.asarray(detections['score'], np.float64)
    if not np.isfinite(score).all():
        raise ValueError(f'{np.sum(~np.isfinite(score))} detections have a score that is not finite')
    key = _by_first_appearance(keys.found[rows], keys.count)  # [M]
    if protocol == 'official':
        order = _by_keyframe_and_score(key, score[rows])
    else:
        order = np.argsort(key, kind='stable')
    rows, key = rows[order], key[order]
    before = len(rows)
    if protocol == 'official':
        rows = rows[_within_limit(key, rows, score, found_class, detections)]
    counts['over_limit'] = before - len(rows)
    wide = np.asarray(detections['x2'])[rows] > np.asarray(detections['x1'])[rows]
    high = np.asarray(detections['y2'])[rows] > np.asarray(detections['y1'])[rows]
    before, rows = len(rows), rows[wide & high]
    counts['degenerate'] = before - len(rows)
    counts['scored'] = len(rows)

    cell = keys.found[rows] * len(ids) + found_class[rows]
    hits = truth.hits(cell, {name: np.asarray(detections[name], np.float64)[rows] for name in BOX}, keys.count)
    return Matches(ids, rows, found_class[rows], score[rows], hits, truth.positives, counts)


def positions(action_id: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """[M] int64: the place of each id in the sorted `ids`, -1 where it is none of them."""
    action_id = np.asarray(action_id, np.int64)
    if len(ids) == 0:
        return np.full(len(action_id), -1)
    place = np.minimum(np.searchsorted(ids, action_id), len(ids) - 1)
    return np.where(ids[place] == action_id, place, -1)


class Keyframes:
    """Numbers the keyframes of all tables alike: equal video and equal time to a microsecond (or whole second)."""

    def __init__(self, truth: Columns, found: Columns, excluded: Columns | None, *, whole_seconds: bool):
        tables = [truth, found] if excluded is None else [truth, found, excluded]
        videos: dict[str, int] = {}
        unit = 1 if whole_seconds else 1_000_000
        pairs = []
        for table in tables:
            names = np.asarray(table['video'], dtype=object).tolist()
            for name in dict.fromkeys(names):
                videos.setdefault(name, len(videos))
            code = np.fromiter(map(videos.__getitem__, names), np.int64, len(names))
            time = np.asarray(table['timestamp'], np.float64)
            ticks = np.floor(time).astype(np.int64) if whole_seconds else np.rint(time * unit).astype(np.int64)
            pairs.append((code, ticks))
        low = min((int(ticks.min()) for _, ticks in pairs if len(ticks)), default=0)
        span = max((int(ticks.max()) for _, ticks in pairs if len(ticks)), default=0) - low + 1
        joined = [code * span + (ticks - low) for code, ticks in pairs]
        # Rows of one keyframe mostly follow each other: only the first of each run has to be looked up.
        starts = [np.flatnonzero(np.diff(values, prepend=-1)) for values in joined]
        different, place = np.unique(
            np.concatenate([values[start] for values, start in zip(joined, starts, strict=True)]),
            return_inverse=True,
        )
        numbers, offset = [], 0
        for values, start in zip(joined, starts, strict=True):
            lengths = np.diff(start, append=len(values))
            numbers.append(np.repeat(place[offset : offset + len(start)], lengths))
            offset += len(start)
        self.count = len(different)
        self.truth, self.found = numbers[:2]
        self.excluded = np.zeros(self.count, bool)
        if excluded is not None:
            self.excluded[numbers[2]] = True


def _by_first_appearance(key: np.ndarray, count: int) -> np.ndarray:
    """[M] the same keyframes numbered in the order in which they first appear."""
    first = np.full(count, len(key))
    first[key[::-1]] = np.arange(len(key))[::-1]  # the last write, of the earliest row, stays
    rank = np.empty(count, np.int64)
    rank[np.argsort(first, kind='stable')] = np.arange(count)
    return rank[key]


def _by_keyframe_and_score(key: np.ndarray, score: np.ndarray) -> np.ndarray:
    """[M] the order of np.lexsort((-score, key)), file order among equals, and quicker where keyframes are alike.

    Keyframes that hold about as many rows each make a table, whose rows are sorted one by one: near in memory.
    """
    order = np.argsort(key, kind='stable')  # mostly sorted already
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    sizes = np.diff(starts, append=len(key))
    width = sizes.max(initial=0)
    if width * len(starts) > 2 * len(key):
        return np.lexsort((-score, key))
    there = np.arange(width) < sizes[:, None]  # [keyframes, width]
    table = np.full(there.shape, np.inf)
    table[there] = -score[order]
    return order[(np.argsort(table, axis=1, kind='stable') + starts[:, None])[there]]


def _within_limit(
    key: np.ndarray, rows: np.ndarray, score: np.ndarray, found_class: np.ndarray, detections: Columns
) -> np.ndarray:
    """bool [M]: which rows, sorted by (key, falling score), a heap of KEYFRAME_LIMIT entries a key would hold.

    A row enters a full heap only with a score above the smallest entry, in whose place it comes; entries are ordered
    by (score, id, y1, x1, y2, x2). So all rows above the limit's score stay. Of those with just this score only the
    ones that came among the first KEYFRAME_LIMIT rows of that score or more got in, and later, larger scores drove
    out the smallest of them.
    """
    keep = np.ones(len(key), bool)
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    sizes = np.diff(starts, append=len(key))
    for start, size in zip(starts[sizes > KEYFRAME_LIMIT], sizes[sizes > KEYFRAME_LIMIT], strict=True):
        ordered = score[rows[start : start + size]]
        edge = ordered[KEYFRAME_LIMIT - 1]
        reaching = int(np.searchsorted(-ordered, -edge, side='right'))
        keep[start + reaching : start + size] = False
        if reaching == KEYFRAME_LIMIT:
            continue
        above = int(np.searchsorted(-ordered, -edge, side='left'))
        arrival = np.argsort(np.argsort(rows[start : start + reaching]))  # place among them in the file
        tied = np.arange(above, reaching)
        entered = tied[arrival[above:] < KEYFRAME_LIMIT]
        mine = rows[start + entered]
        x1, y1, x2, y2 = (np.asarray(detections[name])[mine] for name in BOX)
        smallest = np.lexsort((x2, y2, x1, y1, found_class[mine]))
        stay = entered[smallest[len(entered) - (KEYFRAME_LIMIT - above) :]]
        keep[start + tied] = False
        keep[start + stay] = True
    return keep


class _Truth:
    """Ground-truth boxes sorted by cell (keyframe, class), in file order within one."""

    def __init__(self, columns: Columns, key: np.ndarray, cls: np.ndarray, rows: np.ndarray, classes: int):
        cell = key[rows] * classes + cls[rows]
        order = np.argsort(cell, kind='stable')
        self.row, self.cell, self.classes = rows[order], cell[order], classes
        self.box = {name: np.asarray(columns[name], np.float64)[self.row] for name in BOX}
        self.positives = np.bincount(cls[rows], minlength=classes)
        if not all(np.isfinite(values).all() for values in self.box.values()):
            raise ValueError('a ground-truth box is not finite')
        if (self.box['x2'] < self.box['x1']).any() or (self.box['y2'] < self.box['y1']).any():
            raise ValueError('a ground-truth box has its second corner left of or above the first')

    def hits(self, cell: np.ndarray, box: Columns, keyframes: int) -> np.ndarray:
        """bool [M]: whether each detection, in the order of choice, takes a truth box."""
        amount = np.bincount(self.cell, minlength=keyframes * self.classes)  # truth boxes in each cell
        begin = np.cumsum(amount) - amount
        chosen = np.flatnonzero(amount[cell])
        repeats = amount[cell[chosen]]
        detection = np.repeat(chosen, repeats)  # [K] pairs of a detection and a truth box of its cell
        offset = np.cumsum(repeats) - repeats
        truth = np.arange(len(detection)) - np.repeat(offset - begin[cell[chosen]], repeats)
        overlap = box_iou({name: box[name][detection] for name in BOX}, {name: self.box[name][truth] for name in BOX})
        hits = np.zeros(len(cell), bool)
        if len(detection) == 0:
            return hits
        best = np.maximum.reduceat(overlap, offset)  # [number of chosen]
        equal = np.flatnonzero(overlap == np.repeat(best, repeats))
        first = equal[np.searchsorted(equal, offset)]  # the first truth box with the largest overlap
        enough = np.flatnonzero(best >= IOU)
        _, taker = np.unique(truth[first[enough]], return_index=True)  # the first detection that wants it
        hits[chosen[enough[taker]]] = True
        return hits


def box_iou(first: Columns, second: Columns) -> np.ndarray:
    """[K] float64; the operations and their order are those of the official program, so that 0.5 is the same 0.5."""
    height = np.maximum(0.0, np.minimum(first['y2'], second['y2']) - np.maximum(first['y1'], second['y1']))
    width = np.maximum(0.0, np.minimum(first['x2'], second['x2']) - np.maximum(first['x1'], second['x1']))
    shared = height * width
    area_first = (first['y2'] - first['y1']) * (first['x2'] - first['x1'])
    area_second = (second['y2'] - second['y1']) * (second['x2'] - second['x1'])
    return shared / (area_first + area_second - shared)


def join(tables: Sequence[Columns]) -> dict[str, np.ndarray]:
    """The rows of several tables one after the other."""
    return {name: np.concatenate([np.asarray(table[name]) for table in tables]) for name in tables[0]}


def on_videos_of(columns: Columns, other: Columns) -> dict[str, np.ndarray]:
    """The rows whose video is one of `other`."""
    wanted = set(other['video'].tolist())
    keep = np.fromiter((name in wanted for name in columns['video'].tolist()), bool, len(columns['video']))
    return {name: np.asarray(values)[keep] for name, values in columns.items()}


def of_part(detections: Columns, part: Columns, whole: Columns) -> dict[str, np.ndarray]:
    """The detections to score a part of the truth with: on its videos, but not where only the rest is annotated.

    part: rows of `whole`, all of some keyframes.
    """
    mine = on_videos_of(detections, part)
    there = on_videos_of(whole, part)
    if len(there['video']) == len(part['video']):
        return mine
    keys = Keyframes(part, mine, there, whole_seconds=False)
    of_rest = keys.excluded  # here: what the whole annotates
    of_rest[keys.truth] = False
    keep = ~of_rest[keys.found]
    return mine if keep.all() else {name: values[keep] for name, values in mine.items()}


def of_classes(columns: Columns, classes: Mapping[int, str]) -> dict[str, np.ndarray]:
    """The rows whose action is one of `classes`."""
    keep = np.isin(np.asarray(columns['action_id']), np.array(list(classes), dtype=np.int64))
    if keep.all():
        return dict(columns)
    return {name: np.asarray(values)[keep] for name, values in columns.items()}


def people(columns: Columns) -> np.ndarray:
    """int64 [P]: the first row of each different box on each keyframe, in file order; rows without a box are none."""
    nothing = {'video': np.array([], object), 'timestamp': np.array([])}
    return different_boxes(columns, Keyframes(columns, nothing, None, whole_seconds=False).truth)[0]


def different_boxes(columns: Columns, key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(first row of each different box of a keyframe, in file order [P]; for each row, which of the P it has [M]).

    key [M]: the keyframe of each row. Rows without a box (NaN) are none of them: -1.
    """
    columns = [np.asarray(columns[name], np.float64) for name in BOX]
    rows = np.flatnonzero(~np.isnan(np.sum(columns, axis=0)))
    person = np.full(len(key), -1)
    if len(rows) == 0:
        return rows, person
    # The rows of one person mostly follow each other: only the first of each run is sorted.
    changes = np.zeros(len(rows), bool)
    changes[0] = True
    for column in (key, *columns):
        values = column[rows]
        changes[1:] |= values[1:] != values[:-1]
    start = np.flatnonzero(changes)
    table = np.stack([column[rows[start]] for column in (key, *columns)], axis=1)  # [runs, 5]
    _, first, place = np.unique(table, axis=0, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    person[rows] = np.repeat(rank[place.reshape(-1)], np.diff(start, append=len(rows)))
    return rows[start[np.sort(first)]], person
