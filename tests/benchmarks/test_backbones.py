"""The benchmark of backbones at toy size: every kind of row, with figures that belong together."""

import jax
import pytest

from vidloc.benchmarks import backbones as bench

TOY = {'width': 16, 'mlp': 16, 'heads': 1, 'layers': 1, 'grid': (1, 2, 2)}
MODES = {'forward': {'seconds': 2.0}, 'train step': {'seconds': 4.0, 'temp_mib': 0.5}}
CASE = bench.Case('videomae', 'B', 2, 32, MODES, fields=TOY)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(bench, 'REPEATS', 2)
    monkeypatch.setattr(bench, 'SIDE', 64)


def test_rows_beside_public_figures():
    rows = [*bench._beside_public(CASE), bench._planned(CASE, 'train step', 'full')]
    names = ['forward', 'train step', 'train step, planned']
    assert [row['case'] for row in rows] == [f'videomae B 2x32x32, {name}' for name in names]
    assert [row['remat'] for row in rows] == ['none', 'none', 'full']
    forward, step = rows[:2]
    for row in (forward, step):
        assert row['median_seconds'] >= row['seconds'] > 0 and row['matmul_gflops'] > 0
        assert row['ratio_seconds'] == pytest.approx(row['seconds'] / row['public_seconds'])
    assert step['flops'] > 2 * forward['flops'] > 0
    for row in rows[1:]:
        assert row['ratio_temp_mib'] == pytest.approx(row['temp_mib'] / 0.5)


def test_the_use_of_a_device_is_three_forward_passes_a_second(monkeypatch):
    kind = jax.devices()[0].device_kind
    monkeypatch.setattr(bench, 'PEAKS', {kind: 1e12})
    row = bench._utilisation(CASE)
    assert row['flops_per_second'] == pytest.approx(row['model_flops'] / row['seconds'])
    assert row['utilisation'] == pytest.approx(row['flops_per_second'] / 1e12) and row['kernel'] == 'cudnn'
