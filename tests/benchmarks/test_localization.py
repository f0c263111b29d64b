"""The benchmark of temporal localisation at toy size: every kind of row, with figures that belong together."""

import numpy as np
import pytest

from vidloc.benchmarks import localization as bench
from vidloc.benchmarks import training_step

# A pyramid of two levels with full attention takes any even number of points.
HEAD = (
    ('width', 8),
    ('heads', 1),
    ('stem', 1),
    ('embed_layers', 1),
    ('head_layers', 2),
    ('levels', 2),
    ('windows', (1,)),
    ('ranges', ((0, 4), (4, 10_000))),
)
BACKBONE = (('width', 16), ('mlp', 16), ('heads', 2), ('layers', 2))


def head(task, points):
    return tuple((f'tasks.{task}.head.{field}', value) for field, value in (*HEAD, ('max_length', points)))


def toy(frames):
    """Clips of 4 frames, so 2 tokens in time."""
    changes = (
        *((f'backbone.{field}', value) for field, value in BACKBONE),
        ('side.adapter_width', 8),
        ('clips.frames', 4),
        ('sources.thumos.grid', frames),
        *bench.FLOAT32,
    )
    return bench.thumos('videomae-S', frames, 32, *head('thumos', frames), *changes)


@pytest.fixture(scope='module')
def short():
    return toy(8)


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    monkeypatch.setattr(bench, 'REPEATS', 1)
    monkeypatch.setattr(bench.backbones, 'SIDE', 32)


@pytest.mark.slow
def test_memory_is_the_sum_of_its_parts_and_without_a_compiler_the_row_says_so(short, monkeypatch):
    (row,) = bench.memory(short, 'cpu', bench.WITHOUT)
    total = row['arguments_gb'] + row['outputs_gb'] - row['aliased_gb'] + row['temp_gb']
    assert row['total_gb'] == pytest.approx(total)
    assert 0 < row['aliased_gb'] <= row['outputs_gb'] < row['arguments_gb'] and row['temp_gb'] > 0
    monkeypatch.setattr(training_step.importlib.util, 'find_spec', lambda name: None)
    for rows in (bench.memory(short, 'a100', ''), bench.growth({8: short, 16: short}, 'a100', '')):
        (row,) = rows
        assert 'jax-cuda12-plugin' in row['not_compiled'] and row.keys().isdisjoint({'total_gb', 'temp_bytes_a_frame'})


@pytest.mark.slow
def test_growth_is_that_of_the_plans_by_the_frame(short):
    (row,) = bench.growth({8: short, 16: toy(16)}, 'cpu', bench.WITHOUT)
    # 2 layers x 8 channels x 4 bytes, a token every 2 frames.
    assert row['reduced_bytes_a_frame'] == 2 * 8 * 4 / 2
    assert row['ratio_temp_to_reduced'] == pytest.approx(row['temp_bytes_a_frame'] / 32)
    # A frame of uint8 is an argument.
    assert row['arguments_bytes_a_frame'] >= 32 * 32 * 3
    assert row['frames'] == [8, 16]


def test_parameters_by_part(short):
    (row,) = bench.parameters(short)
    assert row['side'] == sum(count for name, count in row.items() if name.startswith('side_'))
    assert row['trainable'] == row['side'] + row['head'] and row['side_gates'] == 2 * 1
    assert row['frozen'] > 2 * 2 * 16 * 16


@pytest.mark.slow
def test_operations_of_policies_and_parts(short):
    rows = {row['of']: row for row in bench.operations(short)}
    store, adapters, clips = (rows[f'step, {policy}'] for policy in ('store', 'remat_adapters', 'remat_clips'))
    assert 1 == store['ratio_to_store'] < adapters['ratio_to_store'] < clips['ratio_to_store'] < 2.2
    parts = {name: row['tflop'] for name, row in rows.items() if name.startswith('forward')}
    assert parts.keys() == {f'forward, {part}' for part in ('backbone', 'reductions', 'adapters and fusion', 'head')}
    assert all(count > 0 for count in parts.values())
    # remat_clips runs the backbone again.
    again = clips['tflop'] - adapters['tflop']
    assert again == pytest.approx(parts['forward, backbone'], rel=0.3)


@pytest.mark.slow
def test_steps_are_timed_in_turns_and_alone(short, monkeypatch):
    monkeypatch.setattr(bench, 'POLICIES', ('remat_clips',))
    (turn,) = bench.policies(short)
    assert turn['policy'] == 'remat_clips' and turn['ratio_seconds'] == turn['ratio_cpu_s'] == 1
    assert turn['seconds'] > 0 and turn['total_gb'] > 0 and turn['tflop'] > 0
    (row,) = bench.measured(bench.keeping(short, 'remat_clips'))
    assert row['median_seconds'] > 0 and row['temp_gb'] == turn['temp_gb'] and row['device']


@pytest.mark.slow
def test_actionformer_beside_the_written_figures():
    setting = bench.FEATURES.but(
        ('sources.thumos.length', 32),
        ('sources.thumos.width', 16),
        ('backbone.width', 16),
        *head('thumos', 32),
    )
    (step,), (forward,), (video,) = bench.train_step(setting), bench.forward(setting), bench.one_video(setting)
    for row, written in ((step, 1.90), (forward, 0.63), (video, 0.33)):
        assert row['ratio_seconds'] == pytest.approx(row['median_seconds'] / written) and row['matmul_gflops'] > 0
    assert step['gflop'] > 2 * forward['gflop'] > 0
    # Both levels: 48 points, 20 classes.
    assert 0 < video['segments'] <= video['candidates'] <= 48 * 20
    assert step['trainable'] == training_step.build_step(setting).experiment.partition.total(trainable=True)


def test_noise_has_segments_in_order_and_no_padding(short):
    batch = training_step.build_step(short).batch()
    assert batch['segment_mask'].sum() == training_step.SEGMENTS
    assert (batch['segments'][..., 0] <= batch['segments'][..., 1]).all() and batch['segments'].max() <= 7
    assert batch['frame_valid'].all() and batch['grid_valid'].all() and batch['video'].dtype == np.uint8


def test_a_field_that_does_not_exist_is_refused():
    with pytest.raises((AttributeError, KeyError)):
        training_step.Setting('configs/actionformer.py:thumos', (('train.batchsize', 1),)).config()


def test_cases_can_be_listed_without_building_anything():
    memory = [case for case in bench.losa_cases() if case.startswith('memory cpu remat_clips')]
    assert len(memory) == 2 * len(bench.FRAMES) + 1
    assert bench.actionformer_cases().keys() == bench.WRITTEN.keys()
