"""The benchmark of augmented features at toy size: figures that belong together, and those that can be told by hand."""

import dataclasses

import jax
import numpy as np
import pytest

from vidloc.benchmarks import few_shot as bench
from vidloc.benchmarks import training_step

# 48 tokens in 8 layers, three of them with LoRA: no axis of a batch is as long as a scan of 5 or 3 layers.
WIDTH, MLP, LAYERS, FIRST, RANK, TABLE, BATCH = 16, 32, 8, 5, 16, 32, 4
TOKENS, PIXELS = 2 * 4 * 6, 4 * 16 * 16 * 3  # of a clip, of a tubelet
TOY = (
    ('backbone.width', WIDTH),
    ('backbone.mlp', MLP),
    ('backbone.heads', 2),
    ('backbone.layers', LAYERS),
    ('backbone.patch', (16, 16)),
    ('backbone.grid', (2, 4, 6)),
    ('lora.layers', (FIRST, -1)),
)


@pytest.fixture(scope='module')
def toys():
    return {copies: bench.small(copies, *TOY) for copies in (0, 2)}


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    monkeypatch.setattr(bench, 'REPEATS', 1)


def test_no_copies_are_lora_alone(toys):
    rows = {row['copies']: row for row in bench.parameters(toys)}
    generator = (TABLE + 1) * 2 * WIDTH
    for copies, row in rows.items():
        assert row['lora'] == (LAYERS - FIRST) * 2 * RANK * 2 * WIDTH
        assert row['film'] == (copies * TABLE + generator if copies else 0)
        assert row['trainable'] == row['lora'] + row['film'] + row['head']
    experiment = training_step.build_step(toys[0]).experiment
    assert experiment.model.film is None and 'film' not in experiment.abstract_params
    assert len({row['frozen'] for row in rows.values()}) == 1


def test_operations_are_those_before_and_as_many_as_sequences_behind(toys, monkeypatch):
    monkeypatch.setattr(bench, 'REMATS', ('none',))
    rows = {row['copies']: row for row in bench.operations(toys)}
    before, behind = rows[0]['before_tflop'], rows[0]['behind_tflop']
    for copies, row in rows.items():
        assert row['forward, tflop'] == pytest.approx(before + (1 + copies) * behind, rel=1e-9)
        assert row['forward, share_before'] == pytest.approx(before / row['forward, tflop'])
    layer = 2 * TOKENS * (4 * WIDTH**2 + 2 * WIDTH * MLP) + 4 * TOKENS**2 * WIDTH
    film = 2 * TABLE * 2 * WIDTH
    assert 1e12 * before == pytest.approx(BATCH * (2 * TOKENS * PIXELS * WIDTH + FIRST * layer) - film, rel=1e-6)
    assert 1 < 1e12 * behind / (BATCH * (LAYERS - FIRST) * layer) < 1.5
    # The backward pass stops at the augmented layer: a step, too, is what comes before and (1 + N) times the rest.
    alone, copied = (rows[copies]['step remat none, tflop'] - before for copies in (0, 2))
    assert copied / alone == pytest.approx(3, rel=0.02) and alone > 2 * behind


def test_nothing_is_kept_of_the_layers_before(toys):
    found = {copies: bench.residuals(training_step.build_step(setting)) for copies, setting in toys.items()}
    assert all(kept['layers 0 to 4'] == 0 < kept['layers 5 to 7'] for kept in found.values())
    assert found[2]['layers 5 to 7'] == pytest.approx(3 * found[0]['layers 5 to 7'], rel=0.05)
    everywhere = bench.residuals(training_step.build_step(bench.everywhere(toys[2])))
    assert everywhere['layers 0 to 4'] > 0 and everywhere['layers 5 to 7'] == found[2]['layers 5 to 7']


def test_with_remat_the_inputs_of_layers_are_kept(toys, monkeypatch):
    monkeypatch.setattr(bench, 'REMATS', ('full',))
    (row,) = bench.kept({2: toys[2]})
    assert row['of'] == '2, remat full' and row['layers 0 to 4_mb'] == 0
    inputs = (LAYERS - FIRST) * (1 + 2) * BATCH * TOKENS * WIDTH * 4
    assert row['layers 5 to 7_mb'] == pytest.approx(inputs / 1e6, rel=0.05)


def test_scans_of_one_length_are_refused(toys):
    built = training_step.build_step(toys[2])
    experiment = dataclasses.replace(built.experiment, segments={'backbone/encoder': ((0, 3), (4, 7))})
    with pytest.raises(ValueError, match='equally long'):
        bench.residuals(dataclasses.replace(built, experiment=experiment))


def test_memory_grows_by_the_copy(toys, monkeypatch):
    temp = {copies: next(bench.memory(setting, 'cpu', bench.WITHOUT))['temp_gb'] for copies, setting in toys.items()}
    (row,) = bench.growth(toys, 'cpu', bench.WITHOUT)
    assert row['copies'] == [0, 2] and row['temp_mb_a_copy'] == pytest.approx(1e3 * (temp[2] - temp[0]) / 2)
    assert 0.5 < row['ratio_temp_to_kept'] < 2
    # What does not grow is the video in float32; the five layers before, if they were kept, would add a third of it.
    video = BATCH * TOKENS * PIXELS * 4
    assert 1e9 * temp[0] - 1e6 * row['temp_mb_a_copy'] < 1.2 * video
    monkeypatch.setattr(training_step.importlib.util, 'find_spec', lambda name: None)
    for rows in (bench.memory(toys[2], 'a100', ''), bench.growth(toys, 'a100', '')):
        (row,) = rows
        assert 'jax-cuda12-plugin' in row['not_compiled'] and row.keys().isdisjoint({'temp_gb', 'temp_mb_a_copy'})


@pytest.mark.slow
def test_steps_are_timed_in_turns(toys):
    rows = list(bench.steps(toys, (0, 2)))
    assert [(row['lora'], row['copies']) for row in rows] == [
        (layers, copies) for layers in ('last quarter', 'all') for copies in (0, 2)
    ]
    assert rows[0]['ratio_seconds'] == rows[0]['ratio_gflop'] == 1
    assert all(row['seconds'] > 0 and row['total_gb'] > 0 for row in rows)
    quarter, everywhere = rows[1], rows[3]
    assert everywhere['gflop'] > quarter['gflop'] > rows[0]['gflop']
    assert everywhere['temp_gb'] > quarter['temp_gb']
    (row,) = bench.measured(toys[0])
    assert row['median_seconds'] > 0 and row['temp_gb'] == rows[0]['temp_gb'] and row['device']


def test_noise_has_people_in_all_boxes(toys):
    batch = training_step.build_step(toys[2]).batch()
    assert batch['box_mask'].all() and batch['example_valid'].all()
    assert (batch['boxes'][..., :2] <= batch['boxes'][..., 2:]).all() and batch['boxes'].max() <= 1
    assert set(np.unique(batch['labels'])) == {0, 1} and batch['video'].dtype == np.uint8


def test_the_large_model_is_that_of_the_paper_in_size():
    """VideoMAEv2 g: 40 layers, 1,408 channels, 2,048 tokens; LoRA of rank 16 on queries and values of the last ten."""
    built = training_step.build_step(bench.large(10))
    experiment = built.experiment
    assert experiment.segments == {'backbone/encoder': ((0, 29), (30, 39))}
    (row,) = bench.parameters({10: bench.large(10)})
    assert (row['lora'], row['film'], row['head']) == (10 * 2 * 16 * 2 * 1408, 10 * 128 + 129 * 2816, 1409 * 60)
    video = experiment.abstract_batches['street']['video']
    assert video.shape == (1, 16, 224, 224, 3)
    assert experiment.model.film.after == 29 and experiment.model.backbone.grid == (8, 16, 16)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(built.arguments[1])} == {'bfloat16', 'float32'}


def test_cases_can_be_listed_without_building_anything():
    cases = bench.cases()
    for target in ('cpu', 'a100'):
        for remat in bench.REMATS:
            assert cases.keys() >= {f'memory {target} {remat} {copies}' for copies in (0, 4, 8, 10)}
    assert {'parameters', 'flops', 'kept', 'small step', 'memory cpu full 8 in float32'} <= cases.keys()
