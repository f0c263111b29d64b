"""What the numbers of a run say: pure rules, each stated on the page where its result stands."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from vidloc.report.run import Detection, Run, flat

# A class counts as learned when its score is at least this many times its baseline.
LEARNED_RATIO = 1.5
# The classes that are left out to see whether a few easy ones carry the mean.
BEST_LEFT_OUT = 4


def ratio(value: float | None, baseline: float | None) -> float | None:
    """value / baseline, None where one is unknown or the baseline is not positive."""
    if value is None or baseline is None or baseline <= 0:
        return None
    return value / baseline


def mean(scores: Mapping[str, float | None], names: Sequence[str]) -> float | None:
    """The mean over those of `names` that have a score, None if none has."""
    known = [scores[name] for name in names if name in scores and scores[name] is not None]
    return math.fsum(known) / len(known) if known else None


@dataclasses.dataclass(frozen=True)
class Learning:
    """Classes by what can be said of them, each in the order of their score, lowest first.

    learned, not_learned: against LEARNED_RATIO times the baseline, and not 0; unknown: no score (no validation truth)
    or no baseline.
    """

    learned: tuple[str, ...]
    not_learned: tuple[str, ...]
    unknown: tuple[str, ...]


def learning(scores: Mapping[str, float | None], baselines: Mapping[str, float | None]) -> Learning:
    """Sorts the classes of `scores` by whether they beat LEARNED_RATIO times their baseline."""
    pairs = {name: (value, baselines[name]) for name, value in scores.items()}
    known = sorted((name for name in pairs if None not in pairs[name]), key=lambda name: scores[name])
    # The baseline of a rare class is 0 where the limit of detections a keyframe leaves no place for it.
    learned = tuple(name for name in known if 0 < pairs[name][0] >= LEARNED_RATIO * pairs[name][1])
    return Learning(
        learned=learned,
        not_learned=tuple(name for name in known if name not in learned),
        unknown=tuple(name for name in pairs if None in pairs[name]),
    )


def without_best(result: Detection) -> tuple[float, float] | None:
    """Mean AP and mean baseline AP without the BEST_LEFT_OUT best classes; None if fewer than two are left."""
    scored = [
        (result.per_class[name], result.prior_per_class[name])
        for name in result.classes
        if result.per_class[name] is not None and result.prior_per_class[name] is not None
    ]
    rest = sorted(scored, reverse=True)[BEST_LEFT_OUT:]
    if len(rest) < 2:
        return None
    return math.fsum(score for score, _ in rest) / len(rest), math.fsum(prior for _, prior in rest) / len(rest)


def differences(run: Run, other: Run) -> list[tuple[str, str | None, str | None]]:
    """Config entries in which two runs differ: (dotted name, value here, value there), None where absent."""
    here, there = flat(run.config), flat(other.config)
    names = [*here, *(name for name in there if name not in here)]
    rows = [(n, here.get(n), there.get(n)) for n in names]
    return [row for row in rows if row[1] != row[2]]


def source_steps(run: Run) -> dict[str, int] | None:
    """{source: steps taken on it} from environment.json, None where the run did not write it."""
    if run.environment is None or 'source_steps' not in run.environment:
        return None
    return {name: int(count) for name, count in run.environment['source_steps'].items()}


def pairing(run: Run, other: Run, source: str) -> str:
    """What a comparison of two runs on the boxes of `source` can mean, as one sentence.

    Only a second run trained on `source` alone, with the same number of steps on it, isolates what the other
    sources of the first run bring.
    """
    here, there = source_steps(run), source_steps(other)
    if here is None or there is None or source not in here or source not in there:
        return (
            'The number of training steps on each source is not recorded for both runs, '
            'so the difference cannot be put down to one cause.'
        )
    if here[source] != there[source]:
        return (
            f'This run took {here[source]} steps on {source}, the other {there[source]}: '
            'with unequal steps the difference cannot be put down to the other sources.'
        )
    others_here = [name for name, steps in here.items() if name != source and steps > 0]
    others_there = [name for name, steps in there.items() if name != source and steps > 0]
    if others_here and not others_there:
        return (
            f'Both took {here[source]} steps on {source}. This run also trained on {", ".join(others_here)}, '
            'the other on nothing else: the difference is what co-finetuning changed in this pair of runs. '
            'One pair says nothing of the spread between seeds.'
        )
    return f'Both took {here[source]} steps on {source}; they are not a run with and one without other sources.'


def with_true_boxes(result: Detection, run: Run) -> Detection | None:
    """The run's result on true boxes in place of detected ones: of the same task and ground truth, None without."""
    if result.boxes == 'truth':
        return None

    def same(other: Detection) -> bool:
        pairs = ((result.task, other.task), (result.ground_truth, other.ground_truth))
        more = ((result.excluded, other.excluded), (result.classes, other.classes))
        return other.boxes == 'truth' and all(mine == its for mine, its in (*pairs, *more))

    return next((other for other in run.detections if same(other)), None)
