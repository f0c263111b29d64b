import json

import pytest

from vidloc.benchmarks import suite


@pytest.mark.parametrize('name', ['decode', 'render'])
def test_every_line_is_an_object_with_case_figures_and_versions(name, monkeypatch):
    monkeypatch.setattr(suite, 'REPEATS', 2)
    lines = [json.loads(line) for line in suite.report(name)]
    assert len({line['case'] for line in lines}) == len(lines) >= 2
    for line in lines:
        assert line['benchmark'] == name
        assert line['cpu_ms'] > 0 and line['wall_ms'] > 0
        assert {'jax', 'numpy', 'av', 'python', 'machine'} <= line.keys()


def test_cases_are_chosen_by_name_or_by_how_they_begin():
    cases = dict.fromkeys(['memory cpu 576', 'memory cpu 576 in float32', 'memory cpu 5760', 'step'])
    names = lambda *only: list(suite.chosen(cases, only))  # noqa: E731
    assert names() == list(cases)
    assert names('memory cpu 576') == ['memory cpu 576']
    assert names('step', 'memory cpu') == list(cases)
    assert names('memory cpu 576 in') == ['memory cpu 576 in float32']
    with pytest.raises(ValueError, match="begins with 'mem'; the cases are memory cpu 576,"):
        names('mem')


def test_only_runs_the_chosen_case_and_says_what_cannot_be_chosen(monkeypatch):
    monkeypatch.setitem(suite.CASES, 'toys', lambda: {'a': lambda: iter([{'x': 1.23456}]), 'b': lambda: iter([{}, {}])})
    lines = [json.loads(line) for line in suite.report('toys', ['a'])]
    assert [(line['case'], line['x']) for line in lines] == [('a', 1.235)]
    assert len(list(suite.report('toys'))) == 3
    with pytest.raises(ValueError, match='decode has no cases to choose from; losa'):
        list(suite.report('decode', ['a']))


def test_the_evaluation_of_tables_like_those_of_ava_is_measured_in_a_process_of_its_own(monkeypatch):
    size = {'videos': 2, 'seconds': 10, 'annotated': 15, 'boxes': 31, 'labels': 80}
    monkeypatch.setattr(suite, 'AVA_SIZE', size)
    rows = list(suite.ava_evaluation())
    assert [row['case'] for row in rows] == ['evaluate.py ava, official', 'evaluate.py ava, slowfast']
    for row in rows:
        assert (row['detections'], row['ground_truth']) == (2 * 10 * 2 * 60, 80)
        assert row['cpu_s'] > 0 and row['max_rss_mb'] > 10 and 0 < row['frame_map'] < 1
