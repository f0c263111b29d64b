"""Error analysis of temporal segments: the public program's numbers, and scenes that can be told by looking."""

import dataclasses

import numpy as np
import pytest

from vidloc.metrics import segment_errors, temporal

NAMES = {
    'True Positive': 'true positive',
    'Double Detection Err': 'double detection',
    'Wrong Label Err': 'wrong label',
    'Localization Err': 'localization',
    'Confusion Err': 'confusion',
    'Background Err': 'background',
}
CLASSES = {0: 'run', 1: 'jump', 2: 'swim'}


def columns(rows, *names):
    kinds = {'video': object, 'label': np.int64}
    return {name: np.array([row[i] for row in rows], kinds.get(name, np.float64)) for i, name in enumerate(names)}


def analyse(truth, found, settings=segment_errors.THUMOS):
    true = columns(truth, 'video', 'start', 'end', 'label', 'duration')
    return segment_errors.analyse(true, columns(found, 'video', 'start', 'end', 'label', 'score'), CLASSES, settings)


@pytest.mark.parametrize('least_precision', [0.0, 0.05])
def test_public_program(segment_case, least_precision):
    case, truth, found, classes = segment_case('detad_r01_random_12v_4c')
    settings = dataclasses.replace(segment_errors.THUMOS, least_precision=least_precision)
    result, expected = segment_errors.analyse(truth, found, classes, settings), case['expected']
    for bins in settings.bins:
        edges = [float(edge) for edge in case['bins'][bins.of.replace('instances', 'num-instances')]['edges']]
        assert list(bins.edges) == edges
    assert result.base == pytest.approx(expected['base_average_mAP_N'], abs=1e-9)
    assert result.limited == pytest.approx(expected['fp_base_average_mAP_N'], abs=1e-9)
    assert result.instances == expected['average_num_instance_per_class_N']
    for theirs, ours in (('coverage', 'coverage'), ('length', 'length'), ('num-instances', 'instances')):
        sensitivity = {bin: value for bin, value in result.sensitivity[ours].items() if not np.isnan(value)}
        public = expected['sensitivity_average_mAP_N'][theirs]
        assert sensitivity == pytest.approx({bin: value for bin, value in public.items() if value is not None})
        missed = {bin: value for bin, value in result.missed[ours].items() if not np.isnan(value)}
        assert missed == pytest.approx(expected['false_negative_fraction'][theirs], abs=1e-9)
        assert set(result.missed[ours]) == set(public) == set(result.sizes[ours])
    for theirs, ours in NAMES.items():
        assert result.kinds[ours] == pytest.approx(expected['fp_error_type_fraction_all'][theirs], abs=1e-9)
        block = [expected['fp_profile_kG'][str(number + 1)][theirs] for number in range(10)]
        np.testing.assert_allclose(result.profile[:, segment_errors.KINDS.index(ours)], block, atol=1e-9)
    gains = {NAMES[name]: gain for name, gain in expected['fp_average_mAP_gain_after_removing'].items()}
    assert result.gains == pytest.approx(gains, abs=1e-9)


def test_kinds_one_by_one():
    truth = [('v', 0, 10, 0, 100), ('v', 50, 60, 1, 100), *(('w', 20 * i, 20 * i + 5, 0, 100) for i in range(4))]
    found = [
        ('v', 0, 10, 0, 0.9),
        ('v', 0, 9, 0, 0.8),  # again
        ('v', 50, 60, 0, 0.7),  # a jump
        ('v', 0, 30, 0, 0.6),  # tIoU 1/3
        ('v', 55, 70, 0, 0.5),  # 1/4 of a jump
        ('v', 80, 90, 0, 0.4),
        ('x', 0, 10, 0, 0.3),  # nothing is there
        ('x', 0, 10, 0, 0.2),
        ('v', 0, 10, 2, 0.9),  # a class without ground truth
    ]
    result = analyse(truth, found)
    assert result.kinds == pytest.approx(
        {
            'true positive': 1 / 8,
            'double detection': 1 / 8,
            'wrong label': 1 / 8,
            'localization': 1 / 8,
            'confusion': 1 / 8,
            'background': 3 / 8,
        }
    )
    # Five ground truths of the class: five detections in the first block, three in the second.
    assert result.profile_sizes.tolist() == [5, 3, *[0] * 8]
    assert result.profile[0].tolist() == [0.2] * 5 + [0.0]
    assert result.profile[1].tolist() == [0.0] * 5 + [1.0]
    assert np.isnan(result.profile[2:]).all()
    assert set(result.gains.values()) == {0.0}  # the one right detection comes first anyway


def test_gain_is_what_the_kind_costs():
    truth = [('v', 0, 10, 0, 100)]
    result = analyse(truth, [('v', 0, 30, 0, 0.9), ('v', 0, 10, 0, 0.8)])
    # N = 1: the normalised precision is 1 / (1 + 1) behind one false detection.
    assert result.base == result.limited == pytest.approx(0.5)
    assert result.gains['localization'] == pytest.approx(0.5)
    assert {gain for kind, gain in result.gains.items() if kind != 'localization'} == {0.0}


def test_only_the_best_ten_times_g_have_a_kind():
    found = [('v', 50, 60, 0, 0.9 - 0.01 * i) for i in range(12)] + [('v', 0, 10, 0, 0.1)]
    result = analyse([('v', 0, 10, 0, 100)], found)
    assert result.kinds['background'] == 1.0 and result.limited == 0.0
    assert result.base == pytest.approx(1 / 13)


def test_a_bin_is_blind_to_what_others_take():
    # Length: the first is XS, the second L.
    truth = [('v', 0, 2, 0, 100), ('v', 20, 36, 0, 100), ('w', 0, 2, 1, 100)]
    found = [('v', 20, 36, 0, 0.9), ('v', 80, 90, 0, 0.8), ('v', 0, 2, 0, 0.7)]
    result = analyse(truth, found)
    normal = 3 / 2
    # A class without detections counts 0 where it has ground truth, here among the short ones.
    assert result.sensitivity['length']['XS'] == pytest.approx((normal / (normal + 1) + 0.0) / 2)
    assert result.sensitivity['length']['L'] == pytest.approx(1.0)
    assert np.isnan(result.sensitivity['length']['M'])
    assert result.missed['length'] == pytest.approx(
        {'XS': 0.5, 'S': np.nan, 'M': np.nan, 'L': 0.0, 'XL': np.nan}, nan_ok=True
    )
    assert result.sizes['length'] == {'XS': 2, 'S': 0, 'M': 0, 'L': 1, 'XL': 0}
    assert result.sizes['instances'] == {'XS': 1, 'S': 2, 'M': 0, 'L': 0}


def test_what_is_found_among_too_many_others_counts_as_missed():
    found = [('v', 50, 60, 0, 0.9 - 0.001 * i) for i in range(19)] + [('v', 0, 10, 0, 0.1)]
    truth = [('v', 0, 10, 0, 100)]
    assert analyse(truth, found).missed['length']['M'] == 1.0  # 1 / 20 is not above 0.05
    assert analyse(truth, found[1:]).missed['length']['M'] == 0.0


def test_thresholds_are_averaged():
    settings = dataclasses.replace(segment_errors.ACTIVITYNET, thresholds=(0.5, 0.75))
    result = analyse([('v', 0, 10, 0, 100)], [('v', 0, 6, 0, 0.9)], settings)
    assert result.base == 0.5
    assert result.kinds['true positive'] == result.kinds['localization'] == 0.5
    assert result.missed['coverage']['XS'] == 0.5
    assert segment_errors.ACTIVITYNET.thresholds == temporal.ACTIVITYNET


def test_what_another_bin_takes_at_any_threshold_is_not_held_against_a_bin():
    settings = dataclasses.replace(segment_errors.THUMOS, thresholds=(0.5, 0.75))
    truth = [('v', 0, 2, 0, 100), ('v', 20, 36, 0, 100)]
    # The better one has tIoU 0.625 with the long ground truth: false at 0.75, but not of the short ones.
    result = analyse(truth, [('v', 20, 30, 0, 0.9), ('v', 0, 2, 0, 0.8)], settings)
    assert result.sensitivity['length']['XS'] == 1.0
    assert result.sensitivity['length']['L'] == pytest.approx(0.5)


def test_kinds_at_the_threshold_and_of_equal_overlaps():
    truth = [('v', 0, 10, 0, 100), ('v', 10, 20, 1, 100)]
    # The last one lies half on either; the first row decides whose it is.
    found = [('v', 0, 10, 0, 0.9), ('v', 0, 5, 0, 0.8), ('v', 5, 15, 0, 0.7)]
    kinds = analyse(truth, found).kinds
    assert [kinds[kind] for kind in ('true positive', 'double detection', 'localization')] == [1 / 3] * 3


def test_longer_than_the_video_and_without_duration():
    truth = [('v', 0, 11, 0, 10), ('v', 1, 9, 0, 10), ('w', 0, 4, 0, np.nan)]
    result = analyse(truth, [])
    assert result.counts == {'ground_truths': 2, 'longer_than_video': 1, 'without_duration': 1}
    assert result.sizes['coverage'] == {'XS': 0, 'S': 0, 'M': 0, 'L': 0, 'XL': 1}
    assert result.sizes['instances'] == {'XS': 1, 'S': 1, 'M': 0, 'L': 0}
    assert result.base == 0.0 and np.isnan(result.kinds['background'])
    with pytest.raises(ValueError, match='no ground truth fits'):
        analyse(truth[:1], [])


def test_bins():
    bins = segment_errors.Bins('length', (0, 3, 6, float('inf')), ('short', 'middle', 'long'))
    values = np.array([-1, 0, 0.1, 3, 3.1, 6, 7, float('inf'), float('nan')])
    assert bins.place(values).tolist() == [-1, 0, 0, 0, 1, 1, 2, 2, -1]
    own = segment_errors.Settings((0.5,), (bins,))
    assert analyse([('v', 0, 5, 0, 10)], [], own).sizes == {'length': {'short': 0, 'middle': 1, 'long': 0}}


@pytest.mark.parametrize(
    ('of', 'edges', 'names'),
    [
        ('width', (0, 1), ('a',)),
        ('length', (0, 1), ('a', 'b')),
        ('length', (0, 0), ('a',)),
        ('length', (0, 1, 2), 'aa'),
    ],
)
def test_bins_that_make_no_sense(of, edges, names):
    with pytest.raises(ValueError):
        segment_errors.Bins(of, edges, tuple(names))
