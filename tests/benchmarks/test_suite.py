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


def test_the_evaluation_of_tables_like_those_of_ava_is_measured_in_a_process_of_its_own(monkeypatch):
    size = {'videos': 2, 'seconds': 10, 'annotated': 15, 'boxes': 31, 'labels': 80}
    monkeypatch.setattr(suite, 'AVA_SIZE', size)
    rows = list(suite.ava_evaluation())
    assert [row['case'] for row in rows] == ['evaluate.py ava, official', 'evaluate.py ava, slowfast']
    for row in rows:
        assert (row['detections'], row['ground_truth']) == (2 * 10 * 2 * 60, 80)
        assert row['cpu_s'] > 0 and row['max_rss_mb'] > 10 and 0 < row['frame_map'] < 1
