import numpy as np
import pytest

from vidloc.data import mixture

PAPER = {'k400': 240_000, 'mit': 800_000, 'ssv2': 220_000, 'ava': 184_000}


def test_weighted_has_the_shares_of_the_sizes():
    # Facts: sizes 240k, 800k, 220k and 184k give AVA 12.7 % of the steps.
    mix = mixture.Mixture('weighted')
    assert mix.shares(PAPER)['ava'] == pytest.approx(0.1274, abs=1e-4)
    drawn = np.bincount(mix.schedule(PAPER, 100_000, seed=3), minlength=4) / 100_000
    expected = np.array(list(mix.shares(PAPER).values()))
    # Four standard errors of a multinomial share.
    assert np.all(np.abs(drawn - expected) < 4 * np.sqrt(expected * (1 - expected) / 100_000))


def test_alternating_takes_turns():
    steps = mixture.Mixture('alternating').schedule(PAPER, 9, seed=0)
    assert steps.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0]


def test_explicit_follows_the_weights():
    mix = mixture.Mixture('explicit', {'a': 3, 'b': 1})
    drawn = np.bincount(mix.schedule({'b': 10, 'a': 10}, 40_000, seed=1))
    assert mix.shares({'b': 10, 'a': 10}) == {'b': 0.25, 'a': 0.75}
    assert drawn[1] / 40_000 == pytest.approx(0.75, abs=0.01)


def test_schedule_is_a_function_of_the_seed_and_can_be_extended():
    mix = mixture.Mixture('weighted')
    short, long = mix.schedule(PAPER, 100, seed=5), mix.schedule(PAPER, 1000, seed=5)
    assert np.array_equal(short, long[:100])
    assert not np.array_equal(long, mix.schedule(PAPER, 1000, seed=6))


@pytest.mark.parametrize(
    ('mix', 'sizes', 'word'),
    [
        (mixture.Mixture('random'), {'a': 1}, 'strategy'),
        (mixture.Mixture('explicit', {'a': 1.0}), {'a': 1, 'b': 1}, 'weights'),
        (mixture.Mixture('explicit', {'a': 1.0, 'b': 0.0}), {'a': 1, 'b': 1}, 'positive'),
        (mixture.Mixture('weighted'), {'a': 1, 'b': 0}, 'b'),
    ],
)
def test_impossible_mixtures_are_refused(mix, sizes, word):
    with pytest.raises(ValueError, match=word):
        mix.shares(sizes)


def test_epoch_is_the_sum_of_the_sizes():
    batch_sizes = dict.fromkeys(PAPER, 128)
    assert mixture.Mixture('weighted').steps_per_epoch(PAPER, batch_sizes) == pytest.approx(sum(PAPER.values()) / 128)
    uneven = mixture.Mixture('explicit', {'a': 1, 'b': 1}).steps_per_epoch({'a': 100, 'b': 300}, {'a': 10, 'b': 30})
    assert uneven == pytest.approx(400 / 20)


def test_visits_count_earlier_steps_of_the_same_source():
    assert mixture.visits(np.array([0, 1, 0, 0, 1]), 2).tolist() == [0, 0, 1, 2, 1]


def test_permutation_covers_every_example_and_changes_by_epoch():
    first, second = (mixture.permutation((1, 2), epoch, 50) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(50))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, mixture.permutation((1, 2), 0, 50))
