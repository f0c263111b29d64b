import math

import pytest

from vidloc.metrics import ava, frequency


def test_groups_and_their_means():
    counts = {1: 10_001, 2: 10_000, 3: 1_000, 4: 999, 5: 0}
    members = frequency.groups(counts)
    assert members == {'head': (1,), 'mid': (2, 3), 'tail': (4, 5)}
    means = frequency.group_means({1: 0.5, 2: 0.25, 3: math.nan, 4: math.nan, 5: math.nan}, members)
    assert means['head'] == 0.5 and means['mid'] == 0.25 and math.isnan(means['tail'])
    assert frequency.groups({1: 5, 2: 2}, head=4, tail=3) == {'head': (1,), 'mid': (), 'tail': (2,)}
    with pytest.raises(ValueError, match='below'):
        frequency.groups(counts, head=1, tail=2)


def test_prevalence_and_label_counts(few):
    columns = few
    assert frequency.label_counts(columns, {1: 'a', 2: 'b', 3: 'c'}) == {1: 1, 2: 2, 3: 0}
    assert frequency.prevalence(columns, {1: 'a', 2: 'b', 3: 'c'}) == {1: 1 / 3, 2: 2 / 3, 3: 0.0}


def test_prior_predicts_every_class_for_every_person(few):
    columns = frequency.prior_columns(few, {1: 0.25, 2: 0.5})
    assert columns['video'].tolist() == ['b', 'b', 'a', 'a', 'a', 'a']
    assert columns['action_id'].tolist() == [1, 2] * 3
    assert columns['score'].tolist() == [0.25, 0.5] * 3
    result = ava.frame_ap(few, columns, {1: 'a', 2: 'b'})
    assert result.counts['scored'] == 6 and 0 < result.mean < 1
