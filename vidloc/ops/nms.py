"""Non-maximum suppression of segments on the host, in NumPy, over all classes at once.

Order and arithmetic are those of the public C++ (happyharrycn/actionformer_release, libs/utils/csrc/nms_cpu.cpp and
libs/utils/nms.py), ties included; all is computed in the precision of the segments that come in.
"""

import dataclasses

import numpy as np

from vidloc.ops import segments as segment_ops

METHODS = ('soft', 'hard', 'none')
EXTRA = 1e-6  # added to lengths, in the unit of the segments, so that empty ones divide
LEAST_SIGMA = 0.02  # below, the factor of equal segments would be 0 in float32
_VOTING = 1 << 20  # entries of a table of IoUs that are held at a time
_TIDY = 8  # rounds after which what has been dropped is cleared away, if that is worth it


@dataclasses.dataclass(frozen=True)
class Rule:
    """What happens to the candidates of one video.

    method: 'soft' multiplies the scores of neighbours by exp(-IoU^2 / sigma) (Bodla et al. 2017, equation 3) and
    drops those below min_score, except that what was picked stays; 'hard' drops scores of at most min_score, then
    neighbours with an IoU of `iou` or more; 'none' only sorts. limit: most segments of a class, and most of all.
    per_class: each class for itself; else all together, and then a voting of more than 0 moves each segment to the
    mean, weighted by score * IoU, of all candidates whose IoU with it is at least that.
    """

    method: str = 'soft'
    sigma: float = 0.5
    iou: float = 0.1
    min_score: float = 0.001
    limit: int = 200
    per_class: bool = True
    voting: float = 0.7

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f'nms method {self.method!r} is not one of {", ".join(METHODS)}')
        if self.limit < 1:
            raise ValueError(f'nms needs a limit of 1 or more segments, got {self.limit}')
        if self.method == 'soft' and not self.sigma >= LEAST_SIGMA:
            raise ValueError(
                f'soft nms needs a sigma of {LEAST_SIGMA} or more, got {self.sigma}; use hard nms for less'
            )


def suppress(
    segments: np.ndarray, scores: np.ndarray, labels: np.ndarray, rule: Rule
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Segments [N, 2] (start, end), scores [N], labels [N] int -> those left, [M, 2], [M], [M], by falling score."""
    groups = labels if rule.per_class else np.zeros_like(labels)
    if rule.method == 'none':
        kept = np.arange(len(scores))
        left = scores
    elif rule.method == 'soft':
        kept, left = soft(segments, scores, groups, sigma=rule.sigma, min_score=rule.min_score, limit=rule.limit)
    else:
        kept = hard(segments, scores, groups, iou=rule.iou, min_score=rule.min_score, limit=rule.limit)
        left = scores[kept]
    found = segments[kept]
    order = np.argsort(-left, kind='stable')[: rule.limit]
    found, left, kept = found[order], left[order], kept[order]
    if rule.method != 'none' and not rule.per_class and rule.voting > 0:
        found = vote(found, segments, scores, iou=rule.voting)
    return found, left, labels[kept]


def soft(
    segments: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    *,
    sigma: float,
    min_score: float,
    limit: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian soft NMS of segments [N, 2], scores [N] (0 or more), groups [N]: (indices [M], decayed scores [M]).

    Group by group in rising order, within a group in the order of picking, at most `limit` of each.
    """
    found, left = [np.zeros(0, np.int64)], [np.zeros(0, scores.dtype)]
    for members in _batches(groups):
        indices, decayed, tied = _soft(segments, scores, members, sigma, min_score, limit)
        found.append(indices)
        left.append(decayed)
        for group in tied:
            indices, decayed = _soft_in_order(segments, scores, members[group], sigma, min_score, limit)
            found.append(indices)
            left.append(decayed)
    indices = np.concatenate(found)
    order = np.argsort(groups[indices], kind='stable')
    return indices[order], np.concatenate(left)[order]


def _batches(groups: np.ndarray) -> list[list[np.ndarray]]:
    """The members of the groups, in sets of groups of which the largest has at most four times the smallest's."""
    order = np.argsort(groups, kind='stable')
    cuts = np.flatnonzero(np.diff(groups[order])) + 1
    members = sorted(np.split(order, cuts), key=len, reverse=True) if len(order) else []
    batches: list[list[np.ndarray]] = []
    for each in members:
        if not batches or 4 * len(each) < len(batches[-1][0]):
            batches.append([])
        batches[-1].append(each)
    return batches


def _soft(
    segments: np.ndarray, scores: np.ndarray, members: list[np.ndarray], sigma: float, min_score: float, limit: int
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """soft() of some groups at once, members[g] their indices: each round takes the best segment of every group.

    (indices [M], scores [M], the groups that were given up). What is below min_score may stay where it is: when it is
    the best, its group is done. Only where two segments are equally good does the order of places matter; such a group
    is given up.
    """
    table, index = _table(segments, scores, members)  # [4, G, N], [G, N]
    who = rows = np.arange(len(members))
    rounds, tied = [], []
    for i in range(min(limit, index.shape[1])):
        best = table[3].argmax(axis=1)  # [G]
        picked = table[:, rows, best]  # [4, G]
        done = (picked[3] < min_score) & (i > 0)
        finished = np.count_nonzero(done)
        if finished == len(rows):
            break
        if finished:
            picked[3, done] = np.nan
        same = table[3] == picked[3][:, None]
        twice = np.count_nonzero(same) > len(rows) - finished
        if twice or 2 * finished >= len(rows):
            if twice:
                several = np.count_nonzero(same, axis=1) > 1
                tied.extend(who[several].tolist())
                done |= several
            who, picked, best = who[~done], picked[:, ~done], best[~done]
            table, index, rows = table[:, ~done], index[~done], np.arange(len(who))
            if not len(who):
                break
        rounds.append((who, index[rows, best], picked[3]))
        table[3] *= _factors(picked[:3, :, None], table[:3], sigma)
        table[3, rows, best] = -np.inf
        if i % _TIDY == _TIDY - 1:
            table, index = _tidied(table, index, min_score)
    who, indices, left = (np.concatenate(parts) for parts in zip(*rounds, strict=True)) if rounds else 3 * (rows[:0],)
    kept = ~np.isnan(left) & ~np.isin(who, tied)
    who, indices, left = who[kept], indices[kept], left[kept]
    order = np.argsort(who, kind='stable')
    return indices[order], left[order], tied


def _table(segments: np.ndarray, scores: np.ndarray, members: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Start, end, length and score [4, G, N], index [G, N]; what fills a row overlaps nothing and scores -inf."""
    shape = (len(members), max(len(each) for each in members))
    index = np.zeros(shape, np.int64)
    table = np.empty((4, *shape), np.result_type(segments, scores))
    table[:] = np.array([np.inf, -np.inf, 1, -np.inf])[:, None, None]
    for group, each in enumerate(members):
        index[group, : len(each)] = each
        table[:, group, : len(each)] = _columns(segments, scores, each)
    return table, index


def _columns(segments: np.ndarray, scores: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Start, end, length and score, [4, n]."""
    start, end = segments[members].T
    return np.stack([start, end, end - start + segments.dtype.type(EXTRA), scores[members]])


def _factors(picked: np.ndarray, others: np.ndarray, sigma: float) -> np.ndarray:
    """exp(-IoU^2 / sigma) of segments with others, [...]; both given as start, end and length, [3, ...]."""
    shared = np.minimum(others[1], picked[1])
    shared -= np.maximum(others[0], picked[0])
    np.maximum(shared, 0, out=shared)
    union = others[2] + picked[2]
    union -= shared
    shared /= union
    shared *= shared
    shared /= -sigma
    return np.exp(shared, out=shared)


def _tidied(table: np.ndarray, index: np.ndarray, min_score: float) -> tuple[np.ndarray, np.ndarray]:
    """The table and index without what is below min_score, if that halves them or more."""
    alive = table[3] >= min_score
    width = max(1, int(np.count_nonzero(alive, axis=1).max()))
    if 2 * width > index.shape[1]:
        return table, index
    order = np.argsort(~alive, axis=1, kind='stable')[:, :width]
    return np.take_along_axis(table, order[None], axis=2), np.take_along_axis(index, order, axis=1)


def _soft_in_order(
    segments: np.ndarray, scores: np.ndarray, members: np.ndarray, sigma: float, min_score: float, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """soft() of one group, with the places of the public code: (indices [M], scores [M]).

    Round i exchanges the first of the largest scores with what is at place i. Then the places from i + 1 on that
    fall below min_score are filled, the first first, with what stays, the last first.
    """
    table, index = _columns(segments, scores, members), members.copy()
    i = 0
    while i < min(limit, len(index)):
        best = i + table[3, i:].argmax()
        swap = [best, i]
        table[:, [i, best]], index[[i, best]] = table[:, swap], index[swap]
        table[3, i + 1 :] *= _factors(table[:3, i, None], table[:3, i + 1 :], sigma)
        stays = np.flatnonzero(table[3, i + 1 :] >= min_score) + i + 1
        count = i + 1 + len(stays)
        holes = np.setdiff1d(np.arange(i + 1, count), stays)
        moved = stays[stays >= count][::-1]
        table[:, holes], index[holes] = table[:, moved], index[moved]
        table, index = table[:, :count], index[:count]
        i += 1
    return index[:i], table[3, :i]


def hard(
    segments: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    *,
    iou: float,
    min_score: float,
    limit: int,
) -> np.ndarray:
    """Hard NMS of segments [N, 2], scores [N], groups [N]: indices [M], group by group, by falling score."""
    found = []
    order = np.argsort(-scores, kind='stable')
    if min_score > 0:
        order = order[scores[order] > min_score]
    for group in np.unique(groups[order]):
        waiting, count = order[groups[order] == group], 0
        while len(waiting) and count < limit:
            first, waiting = waiting[0], waiting[1:]
            found.append(first)
            count += 1
            waiting = waiting[_iou(segments[first], segments[waiting]) < iou]
    return np.array(found, np.int64)


def _iou(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """one [2], others [N, 2] -> [N]; EXTRA is added to lengths."""
    shared = np.maximum(np.minimum(one[1], others[:, 1]) - np.maximum(one[0], others[:, 0]), 0)
    return shared / ((one[1] - one[0] + EXTRA) + (others[:, 1] - others[:, 0] + EXTRA) - shared)


def vote(picked: np.ndarray, segments: np.ndarray, scores: np.ndarray, *, iou: float) -> np.ndarray:
    """Segments [M, 2] moved to the mean, weighted by score * IoU, of those of `segments` [N, 2] with that IoU or more.

    scores: [N]. One that nothing reaches (it is empty) stays.
    """
    moved = np.array(picked)
    step = max(1, _VOTING // max(len(segments), 1))
    for first in range(0, len(picked), step):
        part = picked[first : first + step]
        overlap = segment_ops.iou(part, segments)  # [m, N]
        weights = np.where(overlap >= iou, overlap * scores, 0)
        total = weights.sum(axis=1, keepdims=True)
        mean = weights @ segments / np.where(total > 0, total, 1)
        moved[first : first + step] = np.where(total > 0, mean, part)
    return moved
