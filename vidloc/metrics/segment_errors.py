"""What is wrong with detected temporal segments, as DETAD tells it (LoSA's figures S3 and S4 are made so).

Alwassel, Caba Heilbron, Escorcia and Ghanem, Diagnosing error in temporal action detectors, 2018; HumamAlwassel/DETAD,
src/action_detector_diagnosis.py and the three programs beside it. All figures are means over the thresholds of tIoU.

- AP_N is average precision as if each class had N instances: the ground truths over the classes that have any.
- *Characteristics* of a ground truth: coverage (its length over the video's duration), length in seconds, and instances
  (ground truths of its class in its video). Bins are closed on the right; the first one on the left too. Ground truths
  longer than their video are left out.
- *Sensitivity*: AP_N of a bin's ground truths, with the detections that take none or, at every threshold, one of the
  bin. A class without ground truth in the bin does not count.
- *Missed*: the share of a bin's ground truths that no detection takes. A detection at which the normalised precision
  has fallen to `least_precision` or below finds nothing.
- *Kinds* of the best 10 G detections of each class (G its ground truths), by the ground truth of any class in the
  video that overlaps them most: `double detection` (tIoU at the threshold or above, of the class), `wrong label` (of
  another), `localization` and `confusion` (the same with tIoU from 0.1 to the threshold), `background` (below, or none
  there). *Profile*: shares of kinds among the best G of each class, the second best G, ...; *gains*: by what mAP_N
  rises when all detections of a kind are taken out.

Where the public program stumbles we do not: a class without detections has AP_N 0, detections of unknown classes are
ignored, every detection in a video without ground truth is background, equal scores keep the order of the rows, and
ground truths given twice count once, as in the mAP.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from vidloc.metrics import temporal
from vidloc.metrics.average_precision import average_precision, normalised_precision

KINDS = ('true positive', 'double detection', 'wrong label', 'localization', 'confusion', 'background')
CHARACTERISTICS = ('coverage', 'length', 'instances')


@dataclasses.dataclass(frozen=True)
class Bins:
    """Bins of one characteristic: bin i holds what is above edges[i] and not above edges[i + 1]."""

    of: str
    edges: tuple[float, ...]
    names: tuple[str, ...] = ('XS', 'S', 'M', 'L', 'XL')

    def __post_init__(self):
        if self.of not in CHARACTERISTICS:
            raise ValueError(f'{self.of!r} is none of {", ".join(CHARACTERISTICS)}')
        if len(set(self.names)) != len(self.names) or len(self.edges) != len(self.names) + 1:
            raise ValueError(f'{len(self.edges)} edges of {self.of} need {len(self.edges) - 1} different names')
        if not all(low < high for low, high in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError(f'the edges of {self.of} must rise: {self.edges}')

    def place(self, values: np.ndarray) -> np.ndarray:
        """[M] int64 bin of each value, -1 where there is none (also for NaN)."""
        place = np.searchsorted(self.edges, values, side='left') - 1
        place[values == self.edges[0]] = 0
        return np.where((place >= 0) & (place < len(self.names)), place, -1)


@dataclasses.dataclass(frozen=True)
class Settings:
    """thresholds of tIoU; bins of some or all characteristics; `near`: least tIoU that is more than background."""

    thresholds: tuple[float, ...]
    bins: tuple[Bins, ...]
    near: float = 0.1
    blocks: int = 10
    least_precision: float = 0.05


THUMOS = Settings(
    thresholds=(0.5,),
    bins=(
        Bins('coverage', (0.0, 0.02, 0.04, 0.06, 0.08, 1.0)),
        Bins('length', (0.0, 3.0, 6.0, 12.0, 18.0, float('inf'))),
        Bins('instances', (-1.0, 1.0, 40.0, 80.0, float('inf')), ('XS', 'S', 'M', 'L')),
    ),
)
ACTIVITYNET = Settings(
    thresholds=temporal.ACTIVITYNET,
    bins=(
        Bins('coverage', (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        Bins('length', (0.0, 30.0, 60.0, 120.0, 180.0, float('inf'))),
        Bins('instances', (-1.0, 1.0, 4.0, 8.0, float('inf')), ('XS', 'S', 'M', 'L')),
    ),
)
SETTINGS = {'thumos': THUMOS, 'activitynet': ACTIVITYNET}


@dataclasses.dataclass(frozen=True)
class SegmentErrors:
    """base: mAP_N of all detections; limited: of the best 10 G of each class. instances: N.

    kinds {kind: share of the best 10 G}; profile [blocks, kinds] float64, rows in order of the blocks, NaN where no
    class has so many detections; profile_sizes [blocks]; gains {kind without the first: difference to `limited`}.
    sensitivity, missed {characteristic: {bin: value, NaN without ground truth}}; sizes {characteristic: {bin: ground
    truths}}. counts: ground_truths, longer_than_video (left out), without_duration (in no bin of coverage).
    """

    settings: Settings
    base: float
    limited: float
    instances: float
    kinds: Mapping[str, float]
    profile: np.ndarray
    profile_sizes: np.ndarray
    gains: Mapping[str, float]
    sensitivity: Mapping[str, Mapping[str, float]]
    missed: Mapping[str, Mapping[str, float]]
    sizes: Mapping[str, Mapping[str, int]]
    counts: Mapping[str, int]


def analyse(
    truth: temporal.Columns, detections: temporal.Columns, classes: Mapping[int, str], settings: Settings
) -> SegmentErrors:
    """truth, detections, classes: as of metrics.temporal.match; truth has the column `duration` too (seconds or NaN).

    Raises ValueError as match does, and if no ground truth is left.
    """
    scene = _Scene(truth, detections, classes, settings)
    kind, limited = _kinds(scene)
    rank, amount = _ranks(scene)
    profile, sizes = [], []
    for block in range(settings.blocks):
        of_block = kind[limited & (rank // amount == block)]
        profile.append(_shares(of_block))
        sizes.append(len(of_block))
    best = _mean_ap(scene, limited[:, None])
    return SegmentErrors(
        settings=settings,
        base=_mean_ap(scene, np.ones((len(rank), 1), bool)),
        limited=best,
        instances=scene.normal,
        kinds=dict(zip(KINDS, _shares(kind[limited]).tolist(), strict=True)),
        profile=np.array(profile),
        profile_sizes=np.array(sizes),
        gains={
            name: _mean_ap(scene, limited[:, None] & (kind != code)) - best
            for code, name in enumerate(KINDS)
            if code > 0
        },
        sensitivity={bins.of: _sensitivity(scene, bins) for bins in settings.bins},
        missed=_missed(scene),
        sizes={
            bins.of: {name: int(np.sum(scene.bin[bins.of] == place)) for place, name in enumerate(bins.names)}
            for bins in settings.bins
        },
        counts=scene.counts,
    )


class _Scene:
    """The matched detections and what the ground truths are like.

    positives [C'], slices [C']: of the classes that have ground truth. bin {characteristic: [G]}; normal: N.
    """

    def __init__(self, truth, detections, classes, settings):
        rows, _, _ = temporal.different(truth)
        truth = {name: np.asarray(truth[name])[rows] for name in ('video', 'start', 'end', 'label', 'duration')}
        length = truth['end'].astype(np.float64) - truth['start']
        coverage = length / truth['duration'].astype(np.float64)
        pairs = list(zip(truth['video'].tolist(), truth['label'].tolist(), strict=True))
        totals: dict = {}
        for pair in pairs:
            totals[pair] = totals.get(pair, 0) + 1
        instances = np.array([totals[pair] for pair in pairs], np.float64)
        fits = ~(coverage > 1)
        if not fits.any():
            raise ValueError('no ground truth fits into the duration of its video')
        self.truth = {name: values[fits] for name, values in truth.items()}
        self.settings = settings
        self.found = {name: np.asarray(detections[name]) for name in ('start', 'end')}
        self.matches = temporal.match(self.truth, detections, classes, settings.thresholds)
        measured = {'coverage': coverage[fits], 'length': length[fits], 'instances': instances[fits]}
        self.bin = {bins.of: bins.place(measured[bins.of]) for bins in settings.bins}
        self.hits = self.matches.taken >= 0  # [M, k]
        positives = self.matches.positives()
        self.positives = positives[positives > 0]
        self.slices = [mine for mine, some in zip(self.matches.of_class(), positives > 0, strict=True) if some]
        self.normal = len(self.truth['label']) / len(self.positives)
        self.counts = {
            'ground_truths': int(fits.sum()),
            'longer_than_video': int(np.sum(~fits)),
            'without_duration': int(np.isnan(coverage).sum()),
        }


def _mean_ap(scene: _Scene, keep: np.ndarray) -> float:
    """Mean of AP_N over classes and thresholds of the detections in keep [M, k or 1]."""
    keep = np.broadcast_to(keep, scene.hits.shape)
    return float(
        np.mean(
            [
                average_precision(scene.hits[mine, step][keep[mine, step]], int(amount), normal=scene.normal)
                for mine, amount in zip(scene.slices, scene.positives, strict=True)
                for step in range(scene.hits.shape[1])
            ]
        )
    )


def _ranks(scene: _Scene) -> tuple[np.ndarray, np.ndarray]:
    """[M] the place of each detection in its class, from 0; [M] the ground truths of the class."""
    sizes = [mine.stop - mine.start for mine in scene.slices]
    rank = np.concatenate([np.arange(size) for size in sizes])
    return rank, np.repeat(scene.positives, sizes)


def _kinds(scene: _Scene) -> tuple[np.ndarray, np.ndarray]:
    """([M, k] place in KINDS of each detection; [M] whether it is among the best of its class)."""
    rank, amount = _ranks(scene)
    limited = rank < scene.settings.blocks * amount
    matches = scene.matches
    segments = tuple(scene.found[name][matches.row] for name in ('start', 'end'))
    true = tuple(scene.truth[name] for name in ('start', 'end'))
    key = np.where(limited, matches.video, -1)
    largest, same = np.zeros(len(key)), np.zeros(len(key), bool)
    for detection, other, overlap in temporal.overlaps(segments, key, true, matches.truth_video):
        start = np.flatnonzero(np.diff(detection, prepend=-1))
        if len(start) == 0:
            continue
        best = np.maximum.reduceat(overlap, start)
        size = np.diff(start, append=len(detection))
        equal = np.flatnonzero(overlap == np.repeat(best, size))
        # Pairs go from the last ground truth to the first: of equals the first is wanted.
        nearest = other[equal[np.searchsorted(equal, start + size) - 1]]
        largest[detection[start]] = best
        same[detection[start]] = matches.truth_place[nearest] == matches.place[detection[start]]
    kind = np.full(scene.hits.shape, KINDS.index('background'))
    for step, level in enumerate(scene.settings.thresholds):
        near = (largest >= scene.settings.near) & (largest < level)
        kind[near & same, step] = KINDS.index('localization')
        kind[near & ~same, step] = KINDS.index('confusion')
        kind[(largest >= level) & same, step] = KINDS.index('double detection')
        kind[(largest >= level) & ~same, step] = KINDS.index('wrong label')
    kind[scene.hits] = KINDS.index('true positive')
    return kind, limited


def _shares(kind: np.ndarray) -> np.ndarray:
    """float64 [kinds] of [M, k]; NaN without any."""
    if kind.size == 0:
        return np.full(len(KINDS), np.nan)
    return np.bincount(kind.ravel(), minlength=len(KINDS)) / kind.size


def _sensitivity(scene: _Scene, bins: Bins) -> dict[str, float]:
    place, taken = scene.bin[bins.of], scene.matches.taken
    values = {}
    for number, name in enumerate(bins.names):
        mine = place == number  # [G]
        keep = ((taken < 0) | mine[taken]).all(axis=1)  # [M]
        positives = np.bincount(scene.matches.truth_place[mine], minlength=len(scene.matches.ids))
        found = [
            average_precision(scene.hits[of_class, step][keep[of_class]], int(amount), normal=scene.normal)
            for of_class, amount in zip(scene.matches.of_class(), positives, strict=True)
            if amount > 0
            for step in range(taken.shape[1])
        ]
        values[name] = float(np.mean(found)) if found else float('nan')
    return values


def _missed(scene: _Scene) -> dict[str, dict[str, float]]:
    taken, floor = scene.matches.taken, scene.settings.least_precision
    missed = np.ones((len(scene.truth['label']), taken.shape[1]), bool)  # [G, k]
    for mine, amount in zip(scene.slices, scene.positives, strict=True):
        for step in range(taken.shape[1]):
            precise = normalised_precision(scene.hits[mine, step], int(amount), scene.normal) > floor
            missed[taken[mine, step][precise & scene.hits[mine, step]], step] = False
    values = {}
    for bins in scene.settings.bins:
        members = [scene.bin[bins.of] == number for number in range(len(bins.names))]
        shares = [float(missed[mine].mean()) if mine.any() else float('nan') for mine in members]
        values[bins.of] = dict(zip(bins.names, shares, strict=True))
    return values
