import numpy as np
import pytest

from vidloc.benchmarks import segment_scoring as bench


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(bench, 'SIZES', {'thumos': (6, 30, 3, 5), 'activitynet': (9, 10, 4, 2)})
    monkeypatch.setattr(bench, 'WRITTEN_SUPPRESSION', {60: 2.0})
    monkeypatch.setattr(bench, 'REPEATS', 1)


def test_every_case_gives_a_row():
    rows = {case: list(rows()) for case, rows in bench.cases().items()}
    whats = [f'{what} {name}' for name in bench.SIZES for what in ('reading', 'scoring', 'errors')]
    assert list(rows) == [*whats, 'suppression 60']
    assert all(row['cpu_ms'] > 0 and row['wall_ms'] > 0 for (row,) in rows.values())
    (scored,), (suppressed,) = rows['scoring thumos'], rows['suppression 60']
    assert 0.1 < scored['average_map'] < 0.9 and scored['rows_found'] == 6 * 30
    assert scored['ratio_cpu'] == pytest.approx(scored['cpu_ms'] / 21_000)
    assert 0 < suppressed['kept'] <= 60 and suppressed['ratio_cpu'] == pytest.approx(suppressed['cpu_ms'] / 2)


def test_a_scene_can_have_ties():
    truth, found = bench.scene(6, 30, 3, 5, seed=0, decimals=1)
    assert len(np.unique(found['score'])) < 12 and (found['start'] % 10 == 0).all() and (truth['end'] % 10 == 0).all()
