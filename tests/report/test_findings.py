import dataclasses

import pytest

from vidloc.report import findings, run


def test_classes_are_sorted_by_whether_they_beat_the_rule():
    scores = {'a': 0.151, 'b': 0.149, 'c': None, 'd': 0.9, 'e': 0.2, 'f': 0.0, 'g': 0.0, 'h': 0.5}
    baselines = {'a': 0.1, 'b': 0.1, 'c': 0.1, 'd': 0.1, 'e': 0.0, 'f': 0.3, 'g': 0.0, 'h': None}
    found = findings.learning(scores, baselines)
    assert found.learned == ('a', 'e', 'd')
    assert found.not_learned == ('f', 'g', 'b')
    assert found.unknown == ('c', 'h')


@pytest.mark.parametrize(
    ('value', 'baseline', 'expected'), [(0.3, 0.1, 3.0), (None, 0.1, None), (0.3, None, None), (0.3, 0.0, None)]
)
def test_a_ratio_needs_both_and_a_positive_baseline(value, baseline, expected):
    assert findings.ratio(value, baseline) == (None if expected is None else pytest.approx(expected))


def test_the_best_classes_are_left_out_with_their_baselines(workdir):
    result = run.read_run(workdir).detections[0]
    names = tuple('abcdefg')
    ap = dict(zip(names, (0.9, 0.1, 0.8, 0.3, 0.7, 0.6, None), strict=True))
    prior = dict(zip(names, (0.5, 0.02, 0.4, 0.06, 0.3, 0.2, 0.1), strict=True))
    changed = dataclasses.replace(result, classes=names, per_class=ap, prior_per_class=prior)
    assert findings.without_best(changed) == pytest.approx((0.2, 0.04))
    assert findings.without_best(dataclasses.replace(changed, classes=names[:5])) is None


def test_config_entries_that_differ(workdir):
    one = run.read_run(workdir)
    two = dataclasses.replace(one, config={'name': one.config['name'], 'mixture': {'street': 1.0}, 'more': True})
    assert findings.differences(one, two) == [
        ('rate', '0.0012', None),
        ('mixture.street', '0.6', '1.0'),
        ('more', None, 'true'),
    ]
    assert findings.differences(one, one) == []


@pytest.mark.parametrize(
    ('here', 'there', 'expected', 'claims'),
    [
        ({'street': 600, 'yard': 400}, {'street': 600}, 'what co-finetuning changed', True),
        ({'street': 600, 'yard': 400}, {'street': 600, 'yard': 0}, 'what co-finetuning changed', True),
        ({'street': 600, 'yard': 400}, {'street': 1000}, 'unequal steps', False),
        ({'street': 600, 'yard': 400}, {'street': 600, 'yard': 400}, 'not a run with and one without', False),
        ({'street': 600}, {'street': 600}, 'not a run with and one without', False),
        ({'street': 600}, {'street': 600, 'yard': 400}, 'not a run with and one without', False),
        ({'street': 600}, None, 'not recorded', False),
        (None, {'street': 600}, 'not recorded', False),
        ({'yard': 600}, {'street': 600}, 'not recorded', False),
    ],
)
def test_only_a_run_on_the_boxes_alone_with_equal_steps_shows_what_cofinetuning_does(
    workdir, here, there, expected, claims
):
    read = run.read_run(workdir)
    pair = [
        dataclasses.replace(read, environment=None if steps is None else {'source_steps': steps})
        for steps in (here, there)
    ]
    sentence = findings.pairing(*pair, 'street')
    assert expected in sentence
    assert ('co-finetuning' in sentence) == claims


def test_a_mean_is_over_the_classes_with_a_score():
    scores = {'a': 0.2, 'b': None, 'c': 0.4}
    assert findings.mean(scores, ['a', 'b', 'c', 'other']) == pytest.approx(0.3)
    assert findings.mean(scores, ['b']) is None and findings.mean(scores, []) is None


def test_true_boxes_are_of_the_same_task_and_truth(workdir):
    read = run.read_run(workdir)
    result = read.detections[0]
    truth = dataclasses.replace(result, source='street_truth', boxes='truth')
    for others, expected in (
        ([truth], truth),
        ([], None),
        ([dataclasses.replace(truth, ground_truth=('other.csv',))], None),
        ([dataclasses.replace(truth, task='other')], None),
        ([dataclasses.replace(truth, excluded='some.csv')], None),
        ([dataclasses.replace(truth, boxes='both')], None),
    ):
        changed = dataclasses.replace(read, detections=(result, *others))
        assert findings.with_true_boxes(result, changed) is expected
    assert findings.with_true_boxes(truth, dataclasses.replace(read, detections=(truth,))) is None
