import numpy as np
import pytest

from vidloc.experiments import cofinetuning

COUNTS = {'street': 5, 'studio': 8, 'yard': 15}
BY_NAME = {arm.name: arm for arm in cofinetuning.ARMS}


def along(arm):
    """Updates of each source in an arm and in all those it starts from."""
    total = dict.fromkeys(COUNTS, 0)
    while arm is not None:
        for name, count in cofinetuning.taken(arm, COUNTS).items():
            total[name] += count
        arm = BY_NAME[arm.after] if arm.after else None
    return total


@pytest.mark.parametrize('claim', [claim for claim in cofinetuning.CLAIMS if claim.table in ('1a', '2')], ids=str)
def test_compared_arms_have_the_same_updates_of_the_sources_they_share(claim):
    better, than = along(BY_NAME[claim.better]), along(BY_NAME[claim.than])
    assert all(better[name] == than[name] for name in COUNTS if better[name] and than[name])
    if claim.metric == cofinetuning.MAP:
        assert better == than


def test_alternating_has_as_many_updates_in_all_and_equal_shares():
    weighted = cofinetuning.taken(BY_NAME['studio + yard + street'], COUNTS)
    alternating = cofinetuning.taken(BY_NAME['studio + yard + street, alternating'], COUNTS)
    assert weighted == COUNTS
    assert sum(alternating.values()) == sum(weighted.values())
    assert max(alternating.values()) - min(alternating.values()) <= 1


def test_arms_stand_after_those_they_start_from():
    names = [arm.name for arm in cofinetuning.ARMS]
    assert all(names.index(arm.after) < names.index(arm.name) for arm in cofinetuning.ARMS if arm.after)


def test_claims_compare_arms_that_are_trained_on_what_is_measured():
    for claim in cofinetuning.CLAIMS:
        for name in (claim.better, claim.than):
            assert claim.metric.split('/')[0] in cofinetuning.needed(BY_NAME[name], cofinetuning.ARMS)


def test_schedule_is_decided_by_the_seed():
    arm = BY_NAME['studio + yard + street']
    first = cofinetuning.schedule(arm, COUNTS, 3)
    np.testing.assert_array_equal(first, cofinetuning.schedule(arm, COUNTS, 3))
    assert not np.array_equal(first, cofinetuning.schedule(arm, COUNTS, 4))


def test_updates_follow_the_sizes_and_add_up():
    assert cofinetuning.updates(10, {'a': 100, 'b': 201, 'c': 33}) == {'a': 3, 'b': 6, 'c': 1}
    assert sum(cofinetuning.updates(101, {'a': 7, 'b': 11, 'c': 5}).values()) == 101
    with pytest.raises(ValueError, match='too few'):
        cofinetuning.updates(10, {'a': 1000, 'b': 1})
