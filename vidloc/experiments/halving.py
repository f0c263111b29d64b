"""Successive halving: many trials for few steps, the best of them for more, and so on.

Jamieson and Talwalkar 2016, Non-stochastic best arm identification and hyperparameter optimization; Li et al. 2018,
Hyperband, section 3: with a factor eta, rung r has steps budget * eta**r, and the best 1 / eta of its trials go on.
Here every rung is a training from the start, since a schedule belongs to the length of its training.
"""

import dataclasses
import math
from collections.abc import Mapping

from vidloc.config import ConfigError


@dataclasses.dataclass(frozen=True)
class Rung:
    """So many trials, each trained for so many steps."""

    steps: int
    trials: int


def rungs(trials: int, full: int, *, budget: int | None = None, eta: int = 1) -> tuple[Rung, ...]:
    """The rungs of so many trials, the last with `full` steps.

    budget: steps of the first rung. eta: 1 for no halving, one rung. Rungs in which a single trial would be left have
    nothing to decide; all but the last are left out. Raises ConfigError for numbers that do not go together.
    """
    if eta == 1:
        if budget is not None:
            raise ConfigError('--budget belongs to halving (--halve 2 or more); without it --steps is the length')
        return (Rung(full, trials),)
    if budget is None:
        raise ConfigError(f'--halve {eta} needs --budget, the steps of the first rung')
    if budget > full:
        raise ConfigError(f'--budget {budget} is more than the {full} steps of a whole training')
    found = []
    while trials > 1 and budget < full:
        found.append(Rung(budget, trials))
        budget, trials = budget * eta, kept(trials, eta)
    return (*found, Rung(full, trials))


def kept(trials: int, eta: int) -> int:
    """How many of so many trials go on: 1 / eta of them, rounded down, but at least one."""
    return max(1, trials // eta)


def promote(scores: Mapping[int, float | None], eta: int, *, larger: bool = True) -> tuple[int, ...]:
    """The numbers of the trials that go on, best first; none only if no trial has a score.

    scores: {number of a trial: its score}; a trial without one (None, or not finite) counts but never goes on.
    larger: whether larger scores are better.
    """
    return ranked(scores, larger=larger)[: kept(len(scores), eta)]


def ranked(scores: Mapping[int, float | None], *, larger: bool = True) -> tuple[int, ...]:
    """The numbers of the trials that have a score, best first; of equal ones the smaller number."""
    sign = -1 if larger else 1
    known = {number: score for number, score in scores.items() if score is not None and math.isfinite(score)}
    return tuple(sorted(known, key=lambda number: (sign * known[number], number)))
