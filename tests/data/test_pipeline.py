import dataclasses
import shutil

import numpy as np
import pytest

from vidloc.annotations import records as rec
from vidloc.data import clips, mixture, pipeline, sources

BATCHES = (4, 6)


def make_plan(two, *, rows=((0, 4), (0, 6)), first_step=0, seed=3, steps=12):
    sizes = {source.name: len(source) for source in two}
    schedule = mixture.Mixture().schedule(sizes, steps, seed)
    return pipeline.Plan(tuple(two), schedule, BATCHES, rows, seed, first_step)


def read(plan, **loading):
    return list(pipeline.train_batches(plan, pipeline.Loading(**loading)))


def assert_equal(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def evaluation(source, rows):
    return pipeline.eval_batches(pipeline.EvalPlan(source, 4, rows), pipeline.Loading())


def cut(path):
    path.write_bytes(path.read_bytes()[:200])


@pytest.fixture
def two(rectangles):
    """Two sources of differing shapes, with all augmentation on."""
    small = rectangles.keyframes(7)
    return (
        rectangles.source(rectangles.folder, 10, name='street'),
        rectangles.source(rectangles.folder, 10, name='yard', records=small, size=(16, 16)),
    )


@pytest.fixture
def broken(rectangles, tmp_path):
    """(train) -> a source of ten videos of which v02 and v05 cannot be read."""
    folder = tmp_path / 'videos'
    shutil.copytree(rectangles.folder, folder)
    cut(folder / 'v02.mp4')
    cut(folder / 'v05.mp4')
    return lambda train: rectangles.source(folder, 10, train=train)


def test_a_plan_is_rebuilt_at_any_step(two):
    whole = read(make_plan(two))
    assert [int(batch['step']) for batch in whole] == list(range(12))
    assert {int(batch['source']) for batch in whole} == {0, 1}
    for first in (1, 5, 11):
        assert_equal(read(make_plan(two, first_step=first)), whole[first:])
    assert read(make_plan(two, first_step=12)) == []


def test_the_rows_of_hosts_make_the_batch_of_one_host(two):
    whole = read(make_plan(two))
    parts = [read(make_plan(two, rows=rows)) for rows in (((0, 2), (0, 3)), ((2, 4), (3, 6)))]
    joined = [
        {
            name: first[name] if name in ('step', 'source') else np.concatenate([first[name], second[name]])
            for name in first
        }
        for first, second in zip(*parts, strict=True)
    ]
    assert_equal(joined, whole)


@pytest.fixture
def mixed(rectangles):
    """(alpha) -> two sources of clips with all augmentation on, the first one mixed."""
    labels = ('walk', 'wave', 'talk')
    records = [
        rec.VideoRecord(f'v{i:02d}', path=f'v{i:02d}.mp4', labels=(rec.ClipLabel(labels[i % 3]),)) for i in range(10)
    ]

    def make(alpha, train=True):
        view = clips.Clips(videos=str(rectangles.folder), frames=2, rate=8.0, size=(16, 16), rand_augment=(1, 9.0))
        return tuple(
            clips.ClipSource(name, dataclasses.replace(view, mixup=mixup), records, labels, train=train)
            for name, mixup in (('studio', alpha), ('yard', 0.0))
        )

    return make


def test_threads_and_workers_change_nothing(two, mixed):
    both = (two[0], mixed(0.4)[0])
    whole = read(make_plan(both), threads=1)
    assert {int(batch['source']) for batch in whole} == {0, 1}
    assert_equal(read(make_plan(both), threads=4, prefetch=8), whole)
    assert_equal(read(make_plan(both), workers=2, prefetch=2), whole)


def test_mixed_clips_do_not_depend_on_hosts(mixed):
    two = mixed(0.4)
    whole = read(make_plan(two, steps=8))
    shares = np.concatenate([batch['labels'].max(axis=1) for batch in whole if batch['source'] == 0])
    assert (shares < 0.999).any() and (shares >= 0.5 - 1e-6).all()
    assert all((batch['labels'].max(axis=1) == 1).all() for batch in whole if batch['source'] == 1)
    parts = [read(make_plan(two, rows=rows, steps=8)) for rows in (((0, 2), (0, 3)), ((2, 4), (3, 6)))]
    joined = [
        {name: one[name] if one[name].ndim == 0 else np.concatenate([one[name], other[name]]) for name in one}
        for one, other in zip(*parts, strict=True)
    ]
    assert_equal(joined, whole)
    assert_equal(read(make_plan(two, steps=8, first_step=5)), whole[5:])
    plain = read(make_plan(mixed(0.0), steps=8))
    for batch, other in zip(whole, plain, strict=True):
        np.testing.assert_array_equal(batch['example_id'], other['example_id'])
        assert np.array_equal(batch['video'], other['video']) == (batch['source'] == 1)


def test_pairs_are_never_divided_between_hosts(mixed):
    for rows in (((0, 3), (0, 6)), ((1, 4), (0, 6))):
        with pytest.raises(sources.DataError, match=r'source studio: mixup mixes pairs .* make the batch size even'):
            make_plan(mixed(0.4), rows=rows)
        make_plan(mixed(0.0), rows=rows)


def test_nothing_is_mixed_in_evaluation(mixed):
    source = mixed(0.4, train=False)[0]
    for batch in evaluation(source, (0, 3)):
        assert set(batch['labels'][batch['example_valid']].ravel()) == {0.0, 1.0}


def test_an_epoch_takes_each_example_once(two):
    plan = make_plan(two, steps=40)
    for number, source in enumerate(two):
        drawn = [plan[i] for i in range(len(plan)) if plan[i][1] == number]
        ids = np.concatenate([examples for *_, examples in drawn])
        epochs = np.concatenate([epochs for _, _, epochs, _ in drawn])
        for epoch in range(epochs[-1]):
            assert sorted(ids[epochs == epoch]) == list(range(len(source)))
        assert len({tuple(ids[epochs == epoch]) for epoch in range(epochs[-1])}) > 1


def test_another_epoch_is_augmented_differently_and_another_seed_too(two):
    load = pipeline.Load(two, seed=3)
    same = (0, 0, np.array([0, 1]), np.array([4, 4]))
    batch = load(same)
    assert np.any(batch['video'][0] != batch['video'][1])
    assert batch['seed'][0] != batch['seed'][1]
    assert np.any(pipeline.Load(two, seed=4)(same)['video'] != batch['video'])
    assert_equal([load(same)], [batch])


def test_a_broken_video_is_replaced_by_a_seeded_other_one(broken):
    load = pipeline.Load((broken(train=True),), seed=3)
    planned = (0, 0, np.zeros(10, int), np.arange(10))
    batch = load(planned)
    np.testing.assert_array_equal(np.flatnonzero(batch['replaced']), [2, 5])
    np.testing.assert_array_equal(batch['broken_id'], np.where(batch['replaced'], np.arange(10), -1))
    assert np.all(batch['example_valid'])
    whole = ~batch['replaced']
    np.testing.assert_array_equal(batch['example_id'][whole], np.arange(10)[whole])
    assert not set(batch['example_id']) & {2, 5}
    assert np.all(batch['video'].reshape(10, -1).std(axis=1) > 0)
    assert_equal([load(planned)], [batch])
    stand_ins = {tuple(load((0, 0, np.full(2, epoch), np.array([2, 5])))['example_id']) for epoch in range(8)}
    assert len(stand_ins) > 1


def test_why_a_video_is_broken_is_told_in_words(broken):
    source = broken(train=True)
    assert 'v02.mp4' in pipeline.reason(source, 2)
    assert 'now and then' in pipeline.reason(source, 0)


def test_nothing_but_broken_videos_stops_at_once(rectangles, tmp_path):
    folder = tmp_path / 'videos'
    source = rectangles.source(folder, 3)
    for path in folder.glob('*.mp4'):
        cut(path)
    plan = pipeline.Plan((source,), np.zeros(5, int), (2,), ((0, 2),), seed=0)
    with pytest.raises(pipeline.BrokenData, match=r'source street: 9 examples in a row .*v0\d\.mp4'):
        read(plan)


def test_evaluation_reads_all_in_order_and_leaves_broken_ones_invalid(broken):
    batches = list(evaluation(broken(train=False), (0, 4)))
    assert [batch['video'].shape for batch in batches] == [(4, 2, 24, 32, 3)] * 3
    joined = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    np.testing.assert_array_equal(joined['example_id'], np.arange(12))
    np.testing.assert_array_equal(np.flatnonzero(~joined['example_valid']), [2, 5, 10, 11])
    np.testing.assert_array_equal(joined['broken_id'][joined['broken_id'] >= 0], [2, 5])
    assert not joined['replaced'].any() and not joined['box_mask'][~joined['example_valid']].any()
    np.testing.assert_array_equal(joined['box_mask'].sum(axis=1)[joined['example_valid']], 2)


def test_the_rows_of_hosts_make_the_evaluation_batch(two):
    evaluated = [list(evaluation(two[0], rows)) for rows in ((0, 4), (0, 2), (2, 4))]
    joined = [
        {name: np.concatenate([one[name], other[name]]) for name in one}
        for one, other in zip(*evaluated[1:], strict=True)
    ]
    assert_equal(joined, evaluated[0])
