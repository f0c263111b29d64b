import numpy as np
import pytest

from vidloc.data import mixup


def batch(rows=6, seed=0, classes=5):
    rng = np.random.default_rng(seed)
    return {
        'video': rng.integers(0, 256, (rows, 3, 4, 5, 3), dtype=np.uint8),
        'frame_valid': np.ones((rows, 3), bool),
        'labels': np.eye(classes, dtype=np.float32)[rng.integers(0, classes, rows)],
        'seed': rng.integers(0, 2**32, rows, dtype=np.uint32),
        'example_id': np.arange(rows, dtype=np.int32),
    }


def share(before, after, row):
    """Of the row's own example, read off its labels (which must differ from its neighbour's)."""
    return float(after['labels'][row][before['labels'][row].argmax()])


def test_pictures_and_labels_are_mixed_in_the_same_share():
    before = batch()
    before['labels'] = np.eye(6, dtype=np.float32)
    kept = {name: value.copy() for name, value in before.items()}
    after = mixup.mix(before, 0.8)
    for row in range(6):
        own, other = row, row ^ 1
        part = share(before, after, row)
        assert 0 < part < 1
        exact = part * before['video'][own].astype(float) + (1 - part) * before['video'][other]
        assert after['video'].dtype == np.uint8
        assert np.abs(after['video'][row] - exact).max() <= 0.5 + 1e-3
        np.testing.assert_allclose(after['labels'][row].sum(), 1, rtol=1e-6)
        assert share(before, after, other) == pytest.approx(part)
    np.testing.assert_array_equal(after['example_id'], before['example_id'])
    np.testing.assert_array_equal(after['seed'], before['seed'])
    for name, value in kept.items():
        np.testing.assert_array_equal(before[name], value)


def test_a_pair_does_not_depend_on_the_rest_of_the_batch():
    before = batch()
    whole = mixup.mix(before, 0.3)
    part = mixup.mix({name: value[2:4] for name, value in before.items()}, 0.3)
    for name, value in part.items():
        np.testing.assert_array_equal(value, whole[name][2:4])


def test_other_seeds_give_other_shares_and_equal_labels_stay_as_they_are():
    before = batch()
    before['labels'][:] = np.eye(5, dtype=np.float32)[2]
    after = mixup.mix(before, 0.3)
    np.testing.assert_array_equal(after['labels'], before['labels'])
    other = mixup.mix(before | {'seed': before['seed'] + 1}, 0.3)
    assert np.any(other['video'] != after['video'])


def test_shares_follow_the_beta_distribution():
    rows = 4000
    before = batch(rows)
    before['video'] = np.zeros((rows, 1, 1, 1, 3), np.uint8)
    before['frame_valid'] = np.ones((rows, 1), bool)
    before['labels'] = np.tile(np.eye(2, dtype=np.float32), (rows // 2, 1))
    shares = mixup.mix(before, 0.3)['labels'][::2, 0]
    assert abs(shares.mean() - 0.5) < 0.03
    assert shares.var() == pytest.approx(0.25 / (2 * 0.3 + 1), rel=0.05)


def test_a_frame_is_valid_where_both_are():
    before = batch(4)
    before['frame_valid'][0, 2] = False
    before['frame_valid'][3, 1:] = False
    np.testing.assert_array_equal(mixup.mix(before, 0.3)['frame_valid'], [[1, 1, 0], [1, 1, 0], [1, 0, 0], [1, 0, 0]])


@pytest.mark.parametrize(('rows', 'alpha'), [(3, 0.3), (4, 0.0), (4, np.inf)])
def test_what_cannot_be_mixed_is_refused(rows, alpha):
    with pytest.raises(ValueError, match='rows must be even'):
        mixup.mix(batch(rows), alpha)
