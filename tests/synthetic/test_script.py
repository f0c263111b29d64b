import collections
import itertools

import numpy as np
import pytest

from vidloc.synthetic import script


@pytest.fixture(scope='module')
def scripts():
    return [script.draw_script(4.0, np.random.default_rng(seed)) for seed in range(1500)]


def test_steps_follow_each_other_without_holes(scripts):
    for steps in scripts:
        assert steps[0].start <= 0.4 and steps[-1].end >= 4.0
        for one, following in itertools.pairwise(steps):
            assert one.end == following.start


def test_somebody_always_does_something_known(scripts):
    seen = collections.Counter()
    for steps in scripts:
        for time in (0.0, 1.0, 2.0, 3.0, 3.9):
            labels = script.labels_at(steps, time)
            assert len(labels) == len(set(labels)) > 0
            seen.update(labels)
    assert set(seen) == set(script.STREET_CLASSES)


def test_labels_have_a_long_tail(scripts):
    counts = collections.Counter(label for steps in scripts for label in script.labels_at(steps, 2.0))
    shares = sorted((count / len(scripts) for count in counts.values()), reverse=True)
    assert shares[0] > 0.2 and shares[1] > 0.15
    assert sum(share < 0.06 for share in shares) >= 6
    assert shares[-1] > 0.008


def test_two_labels_can_hold_at_once(scripts):
    together = {script.labels_at(steps, 2.0) for steps in scripts}
    assert {('stand', 'wave'), ('walk', 'wave'), ('stand', 'clap')} <= together


def test_spans_and_labels_agree(scripts):
    for steps in scripts[:300]:
        spans = script.spans(steps, 4.0)
        for time in np.linspace(0.05, 3.95, 40):
            if any(abs(time - edge) < 1e-6 for start, end, _ in spans for edge in (start, end)):
                continue
            inside = {label for start, end, label in spans if start <= time <= end}
            assert inside == set(script.labels_at(steps, time))


def test_takes_that_are_played_once_are_cut_to_their_core():
    step = script.draw_step('cartwheel', 1.0, 1.25, np.random.default_rng(0))
    first, last = script.ACTIONS['cartwheel'].core[0]
    assert step.core[1] - step.core[0] == pytest.approx((last - first) / 1.25)
    assert step.labels(step.start) == ('stand',)
    assert step.labels((step.core[0] + step.core[1]) / 2) == ('cartwheel',)
