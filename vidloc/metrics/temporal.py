"""mAP of temporal segments as ActivityNet, OpenTAD and ActionFormer measure it, and recall of the best k times G.

Everything works on columns (dicts of equally long arrays): video, start, end (seconds), label and, for detections,
score. Where the public programs differ the rule is OpenTAD's (sming256/OpenTAD, opentad/evaluations/mAP.py; the others:
activitynet/ActivityNet, Evaluation/eval_detection.py, and happyharrycn/actionformer_release, libs/utils/metrics.py):

- Ground truth of no length is dropped; of two ground truths of a video and class whose starts and ends both lie within
  1e-3 s the later row is dropped (against a row that was kept). Detections of classes without ground truth are ignored.
- Per class, video and threshold: detections choose by falling score (of equal scores the earlier row), each among the
  ground truths of its video and class the free one with the largest tIoU (of equals the later row), if that is at least
  the threshold. Others are false, also in videos without ground truth, and in videos that nobody listed.
- A union of no length, as of a detection that ends before it starts, makes a tIoU of 0.
- AP is the area under the precision envelope; the mean goes over the classes that have ground truth.
"""

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from vidloc.metrics.average_precision import average_precision

Columns = Mapping[str, np.ndarray]
THUMOS = (0.3, 0.4, 0.5, 0.6, 0.7)
ACTIVITYNET = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
SAME = 1e-3  # seconds: ground truths of a class this near at both ends are one
RECALL_AT = (1, 5)
BLOCK = 1 << 22  # pairs of a detection and a ground truth that are looked at together
LEAST_UNION = 1e-8  # seconds


@dataclasses.dataclass(frozen=True)
class SegmentResult:
    """thresholds [k]. mean: float64 [k] over the classes that have ground truth (NaN if none has); average: its mean.

    per_class: {id: float64 [k]}, NaN without ground truth. recall: {k: float64 [number of thresholds]}: of each class
    the share of ground truths that one of the best k * G detections of its video and class reaches, where G counts the
    ground truths there; mean over the classes that have ground truth.
    counts: videos (listed, else those with ground truth), videos_with_ground_truth, ground_truths (evaluated),
    predictions (rows given), duplicate_ground_truths and empty_ground_truths (dropped), predictions_ignored (their
    class has no ground truth), predictions_elsewhere (false: in a video without ground truth; among those not ignored).
    """

    thresholds: tuple[float, ...]
    mean: np.ndarray
    average: float
    per_class: Mapping[int, np.ndarray]
    recall: Mapping[int, np.ndarray]
    counts: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class SegmentMatches:
    """Which detection takes which ground truth.

    ids [C]: the classes, rising. truth_row [G]: the evaluated rows of the truth; truth_place [G]: the place of the
    class of each in `ids`. row [M]: the rows of the detections that take part, by class, then falling score; place [M]:
    as truth_place; score [M] float64. video [M] and truth_video [G]: numbers of the videos, the same on both sides.
    taken [M, k] int64: at each threshold the ground truth (place in truth_row) that a detection takes, or -1.
    reached {n: float64 [G]}: the largest tIoU of each ground truth with one of the best n * G detections, 0 below the
    least threshold. counts: as in SegmentResult.
    """

    ids: np.ndarray
    thresholds: tuple[float, ...]
    truth_row: np.ndarray
    truth_place: np.ndarray
    truth_video: np.ndarray
    row: np.ndarray
    place: np.ndarray
    video: np.ndarray
    score: np.ndarray
    taken: np.ndarray
    reached: Mapping[int, np.ndarray]
    counts: Mapping[str, int]

    def positives(self) -> np.ndarray:
        """[C] evaluated ground truths of each class."""
        return np.bincount(self.truth_place, minlength=len(self.ids))

    def of_class(self) -> list[slice]:
        """For each class, which of the M are its detections; they stand in order of falling score."""
        ends = np.cumsum(np.bincount(self.place, minlength=len(self.ids))).tolist()
        return [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def segment_ap(
    truth: Columns,
    detections: Columns,
    classes: Mapping[int, str],
    thresholds: Sequence[float] = THUMOS,
    *,
    videos: Collection[str] | None = None,
) -> SegmentResult:
    """Average precision per class and threshold, and recall; arguments and errors as of `match`."""
    return summarise(match(truth, detections, classes, thresholds, videos=videos))


def summarise(matches: SegmentMatches) -> SegmentResult:
    """Average precision and recall from matched detections."""
    positives, hits = matches.positives(), np.asfortranarray(matches.taken >= 0)  # [M, k]
    steps = range(len(matches.thresholds))
    table = np.array(
        [
            [average_precision(hits[mine, step], int(amount)) for step in steps]
            for mine, amount in zip(matches.of_class(), positives, strict=True)
        ]
    ).reshape(len(matches.ids), len(matches.thresholds))  # [C, k]
    with_truth = positives > 0
    recall = {}
    for times, overlap in matches.reached.items():
        reaching = [matches.truth_place[overlap >= least] for least in matches.thresholds]
        found = np.array([np.bincount(places, minlength=len(positives)) for places in reaching])  # [k, C]
        recall[times] = _mean(found[:, with_truth] / positives[with_truth])
    mean = _mean(table[with_truth].T)
    return SegmentResult(
        thresholds=matches.thresholds,
        mean=mean,
        average=float(mean.mean()),
        per_class=dict(zip(matches.ids.tolist(), table, strict=True)),
        recall=recall,
        counts=matches.counts,
    )


def match(
    truth: Columns,
    detections: Columns,
    classes: Mapping[int, str],
    thresholds: Sequence[float],
    *,
    videos: Collection[str] | None = None,
) -> SegmentMatches:
    """Finds which detections are right at each threshold by the rules above.

    classes: {id: name}, which labels are. videos: names of all videos evaluated, for the counts. Raises ValueError for
    thresholds outside (0, 1], truth of an unknown class, and times and scores that are not finite.
    """
    levels = tuple(float(level) for level in thresholds)
    if not levels or not all(0 < level <= 1 for level in levels):
        raise ValueError(f'thresholds of tIoU lie above 0 and not above 1, not {list(thresholds)}')
    truth = {name: np.asarray(truth[name]) for name in ('video', 'start', 'end', 'label')}
    found = {name: np.asarray(detections[name]) for name in ('video', 'start', 'end', 'label', 'score')}
    for what, table in (('ground truth', truth), ('detection', found)):
        for name in set(table) & {'start', 'end', 'score'}:
            table[name] = table[name].astype(np.float64)
            if not np.isfinite(table[name]).all():
                raise ValueError(f'the {name} of {np.sum(~np.isfinite(table[name]))} rows of {what} is not finite')
    ids = np.array(sorted(classes), dtype=np.int64)
    truth_place = _places(truth['label'], ids)
    if (truth_place < 0).any():
        raise ValueError(f'a ground truth has the label {truth["label"][np.argmin(truth_place)]}, which is no class')
    names: dict[str, int] = {}
    truth_video, video = _numbers(truth['video'], names), _numbers(found['video'], names)

    rows, empty, duplicates = different(truth)
    truth_place, truth_video = truth_place[rows], truth_video[rows]
    positives = np.bincount(truth_place, minlength=len(ids))
    place = _places(found['label'], ids)
    order = np.flatnonzero((place >= 0) & (positives[place] > 0)) if len(ids) else np.zeros(0, np.int64)
    order = order[np.argsort(-found['score'][order], kind='stable')]
    order = order[np.argsort(place[order].astype(np.int32), kind='stable')]  # [M]: by class, then falling score
    place, video = place[order], video[order]
    annotated = np.zeros(len(names) + 1, bool)
    annotated[truth_video] = True
    counts = {
        'videos': int(annotated.sum()) if videos is None else len(set(videos)),
        'videos_with_ground_truth': int(annotated.sum()),
        'ground_truths': len(rows),
        'predictions': len(found['score']),
        'duplicate_ground_truths': duplicates,
        'empty_ground_truths': empty,
        'predictions_ignored': len(found['score']) - len(order),
        'predictions_elsewhere': int(np.sum(~annotated[video])),
    }

    cells, truth_cell = np.unique(truth_video * max(len(ids), 1) + truth_place, return_inverse=True)
    cell = _places(video * max(len(ids), 1) + place, cells)
    segments, true = (_pick(table, which) for table, which in ((found, order), (truth, rows)))
    kept = [
        (detection[overlap >= min(levels)], other[overlap >= min(levels)], overlap[overlap >= min(levels)])
        for detection, other, overlap in overlaps(segments, cell, true, truth_cell)
    ]
    detection, other, overlap = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    by_choice = np.lexsort((-overlap, detection))
    detection, other, overlap = detection[by_choice], other[by_choice], overlap[by_choice]
    taken = np.full((len(order), len(levels)), -1)
    for step, level in enumerate(levels):
        enough = overlap >= level
        takers, targets = _choose(detection[enough], other[enough], len(rows))
        taken[takers, step] = targets

    amount = np.bincount(truth_cell, minlength=len(cells))
    rank = _rank(cell)
    reached = {}
    for times in RECALL_AT:
        allowed = rank[detection] < times * amount[truth_cell[other]]
        reached[times] = np.zeros(len(rows))
        np.maximum.at(reached[times], other[allowed], overlap[allowed])
    return SegmentMatches(
        ids, levels, rows, truth_place, truth_video, order, place, video, found['score'][order], taken, reached, counts
    )


def tiou(start: np.ndarray, end: np.ndarray, other_start: np.ndarray, other_end: np.ndarray) -> np.ndarray:
    """float64 [K] overlap over union of K pairs; operations and order are OpenTAD's, so that 0.5 is the same 0.5."""
    shared = np.maximum(np.minimum(end, other_end) - np.maximum(start, other_start), 0.0)
    union = (other_end - other_start) + (end - start) - shared
    return shared / np.maximum(union, LEAST_UNION)


def overlaps(
    segments: tuple[np.ndarray, np.ndarray], key: np.ndarray, true: tuple[np.ndarray, np.ndarray], true_key: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """All pairs of a detection and a ground truth with equal keys (from 0; -1 for none), some at a time.

    segments, true: (start, end) [M] and [G]. Yields (detection, truth, tIoU), [K] each, at least once: by detection,
    then from the last ground truth to the first.
    """
    order = np.argsort(true_key, kind='stable')[::-1]  # of each key the later rows first
    amount = np.bincount(true_key, minlength=int(key.max(initial=0)) + 1)
    begin = len(order) - np.cumsum(amount)
    repeats = np.where(key >= 0, amount[key], 0)
    total = np.cumsum(repeats)
    first = 0
    while True:
        past = total[first - 1] if first else 0
        last = max(int(np.searchsorted(total, past + BLOCK, side='right')), min(first + 1, len(key)))
        detection = np.repeat(np.arange(first, last), repeats[first:last])  # [K]
        offset = total[first:last] - repeats[first:last] - past
        other = order[np.arange(len(detection)) - np.repeat(offset - begin[key[first:last]], repeats[first:last])]
        yield detection, other, tiou(*(times[detection] for times in segments), *(times[other] for times in true))
        first = last
        if first >= len(key):
            return


def _choose(detection: np.ndarray, other: np.ndarray, truths: int) -> tuple[np.ndarray, np.ndarray]:
    """(takers, what they take) when detections choose one after the other; pairs by detection, then preference.

    Deferred acceptance instead of a loop over detections: all ask for the best that is left to them at once, and a
    ground truth keeps the earliest that ever asked. As all ground truths prefer the same order, there is one stable
    outcome, and it is that of choosing in turn (Gale and Shapley, 1962).
    """
    holder = np.full(truths, np.iinfo(np.int64).max)
    while True:
        first = np.flatnonzero(np.diff(detection, prepend=-1))
        asking, wanted = detection[first], other[first]
        holder[wanted[::-1]] = asking[::-1]  # the last write, of the earliest detection, stays
        if (holder[wanted] == asking).all():
            return asking, wanted
        hopeful = detection <= holder[other]
        detection, other = detection[hopeful], other[hopeful]


def different(truth: Columns) -> tuple[np.ndarray, int, int]:
    """(rows of the truth that are evaluated, rising; number of rows without length; number that repeat another)."""
    start, end = (np.asarray(truth[name], np.float64) for name in ('start', 'end'))
    cell = cells(_numbers(truth['video'], {}), truth['label'])
    rows = np.flatnonzero(end - start > 0)
    empty = len(start) - len(rows)
    order = rows[np.lexsort((start[rows], cell[rows]))]
    near = (np.diff(cell[order]) == 0) & (np.diff(start[order]) <= SAME)
    suspects = np.isin(cell[rows], np.unique(cell[order[1:][near]]))
    dropped = []
    kept: dict[int, list[int]] = {}
    for row in rows[suspects].tolist():
        earlier = kept.setdefault(int(cell[row]), [])
        if any(abs(start[row] - start[k]) <= SAME and abs(end[row] - end[k]) <= SAME for k in earlier):
            dropped.append(row)
        else:
            earlier.append(row)
    return rows[~np.isin(rows, dropped)], empty, len(dropped)


def cells(video: np.ndarray, label: np.ndarray) -> np.ndarray:
    """[M] int64 that are equal where video (a number from 0) and label are."""
    different_labels, place = np.unique(np.asarray(label), return_inverse=True)
    return video * max(len(different_labels), 1) + place


def _places(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """[M] int64: the place of each value in the sorted `known`, -1 where it is none of them."""
    values = np.asarray(values).astype(np.int64)
    if len(known) == 0:
        return np.full(len(values), -1)
    place = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return np.where(known[place] == values, place, -1)


def _numbers(video: np.ndarray, names: dict[str, int]) -> np.ndarray:
    """[M] int64 number of each video; new names go to `names`."""
    texts = np.asarray(video, dtype=object).tolist()
    for name in dict.fromkeys(texts):
        names.setdefault(name, len(names))
    return np.fromiter(map(names.__getitem__, texts), np.int64, len(texts))


def _pick(table: Columns, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return table['start'][rows], table['end'][rows]


def _rank(cell: np.ndarray) -> np.ndarray:
    """[M] how many earlier ones have the same cell."""
    order = np.argsort(cell, kind='stable')
    start = np.flatnonzero(np.diff(cell[order], prepend=-2))
    rank = np.empty(len(cell), np.int64)
    rank[order] = np.arange(len(cell)) - np.repeat(start, np.diff(start, append=len(cell)))
    return rank


def _mean(table: np.ndarray) -> np.ndarray:
    """[k] of [k, classes]; NaN without classes."""
    return table.mean(axis=1) if table.shape[1] else np.full(table.shape[0], np.nan)
