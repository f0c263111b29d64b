"""Where average precision is lost: at people not found, people found twice or beside them, or taken for something else.

All of it is on boxes at IoU 0.5 and on annotated keyframes only, for tables of columns as in metrics/ava.py. Rules:

- A true person (a different box on a keyframe) is *found* if some detected box has an IoU of at least 0.5 with it.
- The *bound* of a class is its AP if each detected box were scored by someone who sees the truth: the share of its
  labels whose person is what some detected box of the keyframe overlaps most among the people of that class, at 0.5 or
  more. No classifier on these boxes can do better. The limit of detections a keyframe is not applied.
- *Confusion*: each found person is judged by the detected box that overlaps it most (the first of equals), whose
  classes are sorted by score (the first class of equals). A person with k true classes has k places: true classes in
  the first k places are right. Each true class that is not there is spread evenly over the wrong classes that are, so
  that a row sums to the labels of the class on found people. A class without a score takes no place.
- *Kinds* of detections: of each class, the N best scored that take part in the official evaluation, where N is its
  number of true labels (Hoiem et al., Diagnosing error in object detectors, 2012): `right`; `duplicate` (IoU of 0.5
  with a person of the class whom a better one has, or who is not the one it overlaps most); `wrong class` (IoU of 0.5
  with a person who is not of the class); `wrong place` (best IoU with any person 0.1 to 0.5); `background` (below).
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from vidloc.metrics import ava

KINDS = ('right', 'duplicate', 'wrong class', 'wrong place', 'background')
NEAR = 0.1  # the least IoU of a box that is meant for a person, but in the wrong place
RECALLS = 41  # points of a precision curve, at even recalls from 0 to 1


@dataclasses.dataclass(frozen=True)
class Analysis:
    """What is lost and where; {id: value} per class, NaN where the class has no truth.

    people: different true boxes; missed: the share of them that is not found (NaN without any). missed_per_class:
    the share of a class's labels on people who are not found. bound: mean of bound_per_class. ids [C]: the classes,
    rising. confusion [C, C]: labels of class i (row) that went to class j (column), the diagonal is right.
    kinds: {id: {kind: detections}}. precision: {id: [RECALLS]}, the best precision at a recall of at least k / 40.
    """

    people: int
    missed: float
    missed_per_class: Mapping[int, float]
    bound: float
    bound_per_class: Mapping[int, float]
    ids: np.ndarray
    confusion: np.ndarray
    kinds: Mapping[int, Mapping[str, int]]
    precision: Mapping[int, np.ndarray]


def analyse(truth: ava.Columns, detections: ava.Columns, matches: ava.Matches) -> Analysis:
    """truth, detections: columns without excluded keyframes; matches: what metrics.ava.match finds in them."""
    scene = _Scene(truth, detections, matches.ids)
    found = np.zeros(len(scene.labels), bool)
    found[scene.true[scene.overlap >= ava.IOU]] = True
    positives = scene.labels.sum(axis=0)  # [C]
    lost = scene.labels[~found].sum(axis=0)
    bound = _shares(scene.reachable(), positives)
    with_truth = bound[~np.isnan(bound)]
    ids = matches.ids.tolist()
    return Analysis(
        people=len(found),
        missed=float(np.mean(~found)) if len(found) else float('nan'),
        missed_per_class=dict(zip(ids, _shares(lost, positives).tolist(), strict=True)),
        bound=float(with_truth.mean()) if len(with_truth) else float('nan'),
        bound_per_class=dict(zip(ids, bound.tolist(), strict=True)),
        ids=matches.ids,
        confusion=_confusion(scene),
        kinds=_kinds(scene, matches),
        precision=precision_curves(matches),
    )


def precision_curves(matches: ava.Matches) -> dict[int, np.ndarray]:
    """{id: [RECALLS] the best precision at each recall or a larger one, 0 where none is reached, NaN without truth}.

    This is the curve under which average_precision takes the area.
    """
    levels = np.arange(RECALLS) / (RECALLS - 1)
    curves = {}
    for number, positives, mine in zip(matches.ids.tolist(), matches.positives, matches.by_class(), strict=True):
        hits = matches.hit[mine]
        curve = np.full(RECALLS, np.nan if positives == 0 else 0.0)
        steps = np.flatnonzero(hits)
        if positives and len(steps):
            precision = np.arange(1, len(steps) + 1) / (steps + 1)
            envelope = np.maximum.accumulate(precision[::-1])[::-1]
            # The first true positive at which each recall is reached; level 0 is reached by the first.
            place = np.maximum(np.ceil(levels * positives - 1e-9).astype(np.int64), 1) - 1
            reached = place < len(steps)
            curve[reached] = envelope[place[reached]]
        curves[number] = curve
    return curves


class _Scene:
    """True people, detected boxes and the pairs of them that share a keyframe.

    labels [P, C] int: how often each true person has each class. score [D, C]: of each detected box, -inf where there
    is none. person [M]: the detected box of each row of the detections, -1 for none. Pairs, [K] each: found, true and
    their overlap (IoU), sorted by found, then true.
    """

    def __init__(self, truth: ava.Columns, detections: ava.Columns, ids: np.ndarray):
        keys = ava.Keyframes(truth, detections, None, whole_seconds=False)
        first, person = ava.different_boxes(truth, keys.truth)
        place = ava.positions(truth['action_id'], ids)
        labelled = (place >= 0) & (person >= 0)
        cells = person[labelled] * len(ids) + place[labelled]
        self.labels = np.bincount(cells, minlength=len(first) * len(ids)).reshape(len(first), len(ids))
        self.ids = ids

        annotated = np.zeros(keys.count, bool)
        annotated[keys.truth] = True
        place = ava.positions(detections['action_id'], ids)
        taking = annotated[keys.found] & (place >= 0)
        for low, high in (('x1', 'x2'), ('y1', 'y2')):
            taking &= np.asarray(detections[high]) > np.asarray(detections[low])
        rows = np.flatnonzero(taking)
        mine = {name: np.asarray(detections[name])[rows] for name in ava.BOX}
        boxes, local = ava.different_boxes(mine, keys.found[rows])
        self.person = np.full(len(place), -1)
        self.person[rows] = local
        scores = np.asarray(detections['score'], np.float64)[rows]
        rising = np.argsort(scores, kind='stable')  # of rows that repeat a box and a class the best one stays
        self.score = np.full((len(boxes), len(ids)), -np.inf)
        self.score[local[rising], place[rows][rising]] = scores[rising]

        self.found, self.true = _pairs(keys.found[rows[boxes]], keys.truth[first], keys.count)
        self.overlap = ava.box_iou(
            {name: mine[name][boxes][self.found].astype(np.float64) for name in ava.BOX},
            {name: np.asarray(truth[name], np.float64)[first][self.true] for name in ava.BOX},
        )

    def reachable(self) -> np.ndarray:
        """[C] people of each class whom a detected box overlaps most among those of the class, at 0.5 or more."""
        reached = np.zeros(len(self.ids), np.int64)
        for position in range(len(self.ids)):
            of_class = np.flatnonzero(self.labels[self.true, position] > 0)
            best = of_class[_best_of_groups(self.found[of_class], self.overlap[of_class])]
            reached[position] = len(np.unique(self.true[best[self.overlap[best] >= ava.IOU]]))
        return reached


def _pairs(found_key: np.ndarray, true_key: np.ndarray, keyframes: int) -> tuple[np.ndarray, np.ndarray]:
    """([K] places in found_key, [K] places in true_key) of equal keys."""
    order = np.argsort(true_key, kind='stable')
    amount = np.bincount(true_key, minlength=keyframes)
    begin = np.cumsum(amount) - amount
    repeats = amount[found_key]
    found = np.repeat(np.arange(len(found_key)), repeats)
    offset = np.cumsum(repeats) - repeats
    true = order[np.arange(len(found)) - np.repeat(offset - begin[found_key], repeats)]
    return found, true


def _best_of_groups(group: np.ndarray, value: np.ndarray) -> np.ndarray:
    """The place of the largest value of each group, the first of equals."""
    order = np.lexsort((-value, group))
    return order[np.flatnonzero(np.diff(group[order], prepend=-1))]


def _shares(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where there is no whole."""
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _confusion(scene: _Scene) -> np.ndarray:
    """float64 [C, C], by the rule above."""
    classes = len(scene.ids)
    table = np.zeros((classes, classes))
    close = np.flatnonzero(scene.overlap >= ava.IOU)
    judged = close[_best_of_groups(scene.true[close], scene.overlap[close])]
    truth = scene.labels[scene.true[judged]] > 0  # [J, C]
    score = scene.score[scene.found[judged]]
    order = np.argsort(-score, axis=1, kind='stable')
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(classes)[None], axis=1)
    named = (rank < truth.sum(axis=1, keepdims=True)) & np.isfinite(score)
    table[np.arange(classes), np.arange(classes)] = (truth & named).sum(axis=0)
    missing, wrong = truth & ~named, named & ~truth
    amount = wrong.sum(axis=1)
    some = amount > 0
    return table + missing[some].T.astype(np.float64) @ (wrong[some] / amount[some, None])


def _kinds(scene: _Scene, matches: ava.Matches) -> dict[int, dict[str, int]]:
    """{id: {kind: number}} of the best N detections of each class."""
    classes, boxes = len(scene.ids), len(scene.score)
    nearest = np.zeros(boxes)
    np.maximum.at(nearest, scene.found, scene.overlap)
    close = np.flatnonzero(scene.overlap >= ava.IOU)
    on_class = np.zeros((boxes, classes), bool)
    np.logical_or.at(on_class, scene.found[close], scene.labels[scene.true[close]] > 0)
    kinds = {}
    for position, mine in enumerate(matches.by_class()):
        top = mine[: matches.positives[position]]
        right = matches.hit[top]
        person = scene.person[matches.row[top]]
        duplicate = ~right & on_class[person, position]
        wrong_class = ~right & ~duplicate & (nearest[person] >= ava.IOU)
        wrong_place = ~right & (nearest[person] < ava.IOU) & (nearest[person] >= NEAR)
        background = ~right & (nearest[person] < NEAR)
        sums = (int(flags.sum()) for flags in (right, duplicate, wrong_class, wrong_place, background))
        kinds[int(scene.ids[position])] = dict(zip(KINDS, sums, strict=True))
    return kinds


def sums(kinds: Mapping[int, Mapping[str, int]], ids: Sequence[int]) -> dict[str, int]:
    """{kind: detections} of several classes together."""
    return {kind: sum(kinds[number][kind] for number in ids) for kind in KINDS}
