import itertools
import math
import random

import pytest

from vidloc.config import ConfigError
from vidloc.experiments import halving
from vidloc.experiments.halving import Rung


def test_rungs_of_the_paper():
    # Li et al. 2018, table 1, s = 4: 81 configurations, eta 3, from 1 unit to 81.
    assert halving.rungs(81, 81, budget=1, eta=3) == (Rung(1, 81), Rung(3, 27), Rung(9, 9), Rung(27, 3), Rung(81, 1))


@pytest.mark.parametrize(
    ('trials', 'full', 'budget', 'eta', 'rungs'),
    [
        (12, 1800, 200, 3, [(200, 12), (600, 4), (1800, 1)]),
        (12, 500, 200, 3, [(200, 12), (500, 4)]),
        (4, 10_000, 10, 4, [(10, 4), (10_000, 1)]),
        (2, 1000, 10, 3, [(10, 2), (1000, 1)]),
        (5, 100, 100, 2, [(100, 5)]),
        (1, 100, 10, 2, [(100, 1)]),
        (5, 100, None, 1, [(100, 5)]),
    ],
)
def test_rungs(trials, full, budget, eta, rungs):
    assert [(rung.steps, rung.trials) for rung in halving.rungs(trials, full, budget=budget, eta=eta)] == rungs


def test_rungs_grow_to_the_full_length_and_never_train_more_than_all_in_full():
    draw = random.Random(0)
    for _ in range(500):
        trials, full, eta = draw.randint(1, 200), draw.randint(1, 5000), draw.randint(2, 5)
        rungs = halving.rungs(trials, full, budget=draw.randint(1, full), eta=eta)
        steps, counts = [rung.steps for rung in rungs], [rung.trials for rung in rungs]
        assert steps == sorted(set(steps)) and steps[-1] == full
        assert counts[0] == trials and all(count > 1 for count in counts[:-1])
        assert all(later == max(1, sooner // eta) for sooner, later in itertools.pairwise(counts))


@pytest.mark.parametrize(
    ('budget', 'eta', 'words'),
    [(200, 1, '--budget belongs to halving'), (None, 3, 'needs --budget'), (101, 2, 'more than the 100 steps')],
)
def test_numbers_that_do_not_go_together_are_refused(budget, eta, words):
    with pytest.raises(ConfigError, match=words):
        halving.rungs(5, 100, budget=budget, eta=eta)


def test_the_best_go_on_and_of_equal_ones_the_first():
    scores = {7: 0.3, 2: 0.9, 5: 0.3, 1: 0.3, 4: 0.1, 0: 0.2}
    assert halving.promote(scores, 2) == (2, 1, 5)
    assert halving.promote(scores, 3, larger=False) == (4, 0)
    assert halving.promote(scores, 10) == (2,)


def test_what_has_no_score_counts_but_never_goes_on():
    scores = {0: None, 1: 0.2, 2: math.nan, 3: math.inf, 4: -math.inf, 5: 0.1}
    assert halving.promote(scores, 2) == (1, 5)
    assert halving.promote(scores, 3, larger=False) == (5, 1)
    assert halving.promote({0: None, 1: math.nan}, 2) == ()


def test_promotion_does_not_depend_on_the_order_of_the_scores():
    draw = random.Random(1)
    for _ in range(200):
        scores = {number: draw.choice([None, 0.1, 0.2, draw.random()]) for number in range(draw.randint(1, 12))}
        eta, larger = draw.randint(1, 4), draw.random() < 0.5
        going = halving.promote(scores, eta, larger=larger)
        mixed = draw.sample(sorted(scores), len(scores))
        assert halving.promote({number: scores[number] for number in mixed}, eta, larger=larger) == going
        sign = 1 if larger else -1
        left = [sign * score for number, score in scores.items() if score is not None and number not in going]
        assert all(sign * scores[number] >= other for number in going for other in left)
        known = sum(score is not None for score in scores.values())
        assert len(going) == min(known, max(1, len(scores) // eta))
