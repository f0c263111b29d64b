import json

import pytest

from vidloc import benchmark


@pytest.mark.parametrize('name', ['decode', 'render'])
def test_every_line_is_an_object_with_case_figures_and_versions(name, monkeypatch):
    monkeypatch.setattr(benchmark, 'REPEATS', 2)
    lines = [json.loads(line) for line in benchmark.report(name)]
    assert len({line['case'] for line in lines}) == len(lines) >= 2
    for line in lines:
        assert line['benchmark'] == name
        assert line['cpu_ms'] > 0 and line['wall_ms'] > 0
        assert {'jax', 'numpy', 'av', 'python', 'machine'} <= line.keys()
