import json
import pickle

import numpy as np
import pytest

from vidloc.annotations import records as rec
from vidloc.data import feature_files, feature_windows, pipeline, readiness, sources, video

CLASSES = ('jump', 'run')
WIDTH = 3


def vectors(count, width=WIDTH):
    """Vector k is k in its first number, and its others tell their place."""
    found = np.tile(np.arange(width, dtype=np.float32) / 8, (count, 1))
    found[:, 0] = np.arange(count)
    return found


def record(video_name, *segments, fps=30.0, **fields):
    return rec.VideoRecord(video_name, segments=tuple(rec.Segment(*each) for each in segments), fps=fps, **fields)


# 100 vectors of 16 frames, every 4th frame, at 30 a second: (99 * 4 + 16) / 30 = 13.73 s.
LONG = record('long', (1.0, 2.0, 'run'), (9.0, 9.6, 'jump'), duration=14.0)
SHORT = record('short', (0.5, 2.0, 'run'), duration=3.0)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('features')
    np.save(folder / 'long.npy', vectors(100))
    np.save(folder / 'short.npy', vectors(20).astype(np.float16))
    return folder


def source(folder, records=(LONG, SHORT), *, train=False, **view):
    fields = {'width': WIDTH, 'length': 32, 'stride': 4.0, 'span': 16.0, 'max_segments': 4}
    view = feature_windows.FeatureWindows(features=str(folder), **{**fields, **view})
    return feature_windows.FeatureSource('thumos', view, records, CLASSES, train=train)


def seconds(opened, number, sample):
    example = opened.examples[number]
    return example.grid_start + example.grid_step * sample['segments'].astype(np.float64)


def test_test_windows_are_where_actionformer_has_the_vectors(folder):
    opened = source(folder)
    assert [example.video for example in opened.examples] == ['long'] * 6 + ['short']
    firsts = []
    for number, example in enumerate(opened.examples):
        sample = opened.load(number, None)
        size = int(sample['sequence_valid'].sum())
        first = int(sample['sequence'][0, 0])
        np.testing.assert_array_equal(sample['sequence'][:size], vectors(100)[first : first + size])
        assert not sample['sequence'][size:].any() and sample['sequence'].dtype == np.float32
        assert (
            sample['grid_valid'].tolist() == sample['sequence_valid'].tolist() == [True] * size + [False] * (32 - size)
        )
        places = example.grid_start + example.grid_step * np.arange(32)
        np.testing.assert_allclose(places, ((first + np.arange(32)) * 4 + 8) / 30, rtol=0, atol=1e-12)
        firsts.append(first)
    by_time = sorted(zip([example.time for example in opened.examples[:6]], firsts, strict=False))
    assert [first for _, first in by_time] == [0, 16, 32, 48, 64, 68]
    assert [example.limit for example in opened.examples] == [14.0] * 6 + [3.0]
    np.testing.assert_allclose(seconds(opened, 6, opened.load(6, None)), [[0.5, 2.0]], atol=1e-6)


def test_more_points_than_vectors(folder):
    opened = source(folder, upsample=2)
    example, sample = opened.examples[6], opened.load(6, None)
    assert sample['grid_valid'].tolist() == [True] * 40 + [False] * 24
    assert example.grid_step == pytest.approx(4 / 60)
    assert example.grid_start == pytest.approx((8 + (0.25 - 0.5) * 4) / 30)
    np.testing.assert_allclose(seconds(opened, 6, sample), [[0.5, 2.0]], atol=1e-6)


def test_training_windows_keep_actions_by_actionformers_rule(folder):
    opened, firsts = source(folder, train=True), set()
    travelled = pickle.loads(pickle.dumps(opened))  # noqa: S301
    for seed in range(60):
        sample = opened.load(0, np.random.default_rng(seed))
        again = travelled.load(0, np.random.default_rng(seed))
        assert all(np.array_equal(sample[key], again[key]) for key in sample)
        first = int(sample['sequence'][0, 0])
        firsts.add(first)
        expected = []
        for start, end, label in ((1.0, 2.0, 1), (9.0, 9.6, 0)):
            start, end = (30 * time / 4 - 2 for time in (start, end))  # feature grid
            low, high = max(start, first - 2.0), min(end, first + 32 + 2.0)  # feat_offset = 0.5 * 16 / 4
            if high - low >= 0.5 * (end - start):
                expected.append((low - first, high - first, label))
        assert expected
        found = np.column_stack([sample['segments'], sample['segment_labels']])
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert len(firsts) > 25 and min(firsts) < 5 and max(firsts) > 60


def test_a_short_sequence_is_cropped(folder):
    opened = source(folder, train=True)
    sizes = {int(opened.load(1, np.random.default_rng(seed))['sequence_valid'].sum()) for seed in range(40)}
    assert sizes == {18, 19, 20}
    whole = source(folder, train=True, crop=(1.0, 1.0)).load(1, np.random.default_rng(0))
    np.testing.assert_allclose(whole['segments'], [[0.5 * 7.5 - 2, 2.0 * 7.5 - 2]], atol=1e-5)


def test_resizing_is_linear_and_keeps_time(folder):
    opened = source(folder, mode='resize', length=64)
    assert len(opened) == 2
    for number, count in enumerate((100, 20)):
        sample, example = opened.load(number, None), opened.examples[number]
        places = np.clip((np.arange(64) + 0.5) * count / 64 - 0.5, 0, count - 1)
        expected = np.interp(places, np.arange(count), np.arange(count))
        np.testing.assert_allclose(sample['sequence'][:, 0], expected, rtol=1e-6)
        assert sample['grid_valid'].all()
        # libs/datasets/anet.py: feat_stride = num_frames = ((T - 1) * stride + span) / length, in frames
        stride = ((count - 1) * 4 + 16) / 64
        assert example.grid_step == pytest.approx(stride / 30, rel=1e-13)
        assert example.grid_start == pytest.approx(0.5 * stride / 30, rel=1e-13)
    np.testing.assert_allclose(seconds(opened, 1, opened.load(1, None)), [[0.5, 2.0]], atol=1e-6)
    cropped = source(folder, mode='resize', length=64, train=True, crop=(0.5, 0.5)).load(0, np.random.default_rng(0))
    assert cropped['sequence_valid'].sum() == 32 and not cropped['sequence'][32:].any()


def test_vectors_without_a_stride_lie_over_the_whole_video(folder):
    opened = source(folder, mode='resize', stride=0.0, span=-1.0)
    for number, duration in enumerate((14.0, 3.0)):
        example = opened.examples[number]
        assert (example.grid_start, example.grid_step) == pytest.approx((duration / 64, duration / 32), rel=1e-13)
    with pytest.raises(sources.DataError, match=r'durations of 1 videos are not known \(long\); add "duration"'):
        source(folder, [record('long', (1.0, 2.0, 'run'))], mode='resize', stride=0.0, span=-1.0)


@pytest.mark.parametrize('seed', range(3))
def test_segments_and_seconds_are_a_round_trip(folder, seed):
    rng = np.random.default_rng(seed)
    for fps in (25.0, 29.97, 30.0):
        start = float(rng.uniform(0.4, 1.0))
        end = start + float(rng.uniform(0.05, 1.0))
        for view in ({}, {'mode': 'resize'}, {'upsample': 4}):
            opened = source(folder, [record('short', (start, end, 'run'), fps=fps)], **view)
            np.testing.assert_allclose(seconds(opened, 0, opened.load(0, None)), [[start, end]], rtol=0, atol=1e-6)


def npz(path, packed=False, **arrays):
    (np.savez_compressed if packed else np.savez)(path, **arrays)


@pytest.mark.parametrize('packed', [False, True])
def test_files_of_the_extraction_have_layers(tmp_path, packed):
    layers = np.stack([vectors(40) + 100 * i for i in range(4)])
    npz(tmp_path / 'v_long_x.npz', packed, last=vectors(40), layers=layers.astype(np.float16))
    opened = source(tmp_path, [LONG], prefix='v_', suffix='_x', layers=4, train=True)
    sample = opened.load(0, np.random.default_rng(0))
    first = int(sample['sequence'][0, 0])
    assert sample['layers'].shape == (4, 32, 3) and sample['layers'].dtype == np.float32
    np.testing.assert_allclose(sample['layers'], layers[:, first : first + 32], rtol=1e-3)
    resized = source(tmp_path, [LONG], prefix='v_', suffix='_x', layers=4, mode='resize').load(0, None)
    np.testing.assert_allclose(resized['layers'][2], resized['sequence'] + 200, rtol=1e-3)
    layout = opened.view.layout(2)
    assert layout.fields['layers'] == ((4, 32, 3), np.float32)
    with pytest.raises(video.VideoError, match=r'layers is \[4, 40, 3\], not \[5, T, D\]'):
        source(tmp_path, [LONG], prefix='v_', suffix='_x', layers=5).load(0, None)


def test_arrays_are_found_by_key_and_only_mapped(tmp_path, folder):
    npz(tmp_path / 'long.npz', other=vectors(4), feats=vectors(50))
    opened = source(tmp_path, [LONG])
    assert opened.load(0, None)['sequence'][31, 0] == 31
    files = feature_files.FeatureFiles(str(tmp_path))
    assert isinstance(files.vectors(str(tmp_path / 'long.npz')), np.memmap)
    assert isinstance(files.vectors(str(folder / 'long.npy')), np.memmap)
    with pytest.raises(video.VideoError, match="no array 'rgb' or 'last', but 'other', 'feats'; name the right one"):
        feature_files.FeatureFiles(str(tmp_path), key='rgb').vectors(str(tmp_path / 'long.npz'))
    named = source(tmp_path, [LONG], suffix='.npz')
    assert named.load(0, None)['sequence_valid'].all()


def test_what_the_folder_says_fills_the_config(tmp_path):
    np.save(tmp_path / 'long.npy', vectors(40))
    # 39 * 8 + 16 frames, 24 a second, are 13.7 s.
    said = {'stride': 8, 'span': 16, 'rate': 24, 'mode': 'window', 'width': 3, 'layers': 0, 'weights': 'a' * 64}
    (tmp_path / 'features.json').write_text(json.dumps(said | {'frames_per_clip': 16}))
    example = source(tmp_path, [record('long', (1.0, 2.0, 'run'), fps=None)], stride=0.0, span=-1.0).examples[0]
    assert (example.grid_start, example.grid_step) == pytest.approx((8 / 24, 8 / 24))
    with pytest.raises(sources.DataError, match=r'stride is 4, features.json says 8; .*stride, span and rate out'):
        source(tmp_path, [LONG])
    with pytest.raises(sources.DataError, match=r'width is 5, features.json says 3'):
        source(tmp_path, [LONG], stride=0.0, width=5)
    with pytest.raises(sources.DataError, match=r'span is 4, features.json says 16'):
        source(tmp_path, [LONG], stride=0.0, span=4.0)
    (tmp_path / 'features.json').write_text(json.dumps(said | {'span': 0, 'rate': 0}))  # a vector is of one frame
    example = source(tmp_path, [LONG], stride=0.0, span=-1.0).examples[0]
    assert (example.grid_start, example.grid_step) == pytest.approx((0.0, 8 / 30))
    (tmp_path / 'features.json').write_text(json.dumps(said | {'mode': 'resize'}))
    with pytest.raises(sources.DataError, match=r"mode is 'window', but these vectors lie evenly over whole videos"):
        source(tmp_path, [LONG], stride=8.0)
    whole = source(tmp_path, [LONG], stride=0.0, span=-1.0, mode='resize').examples[0]
    assert whole.grid_step == pytest.approx(14.0 / 32)
    for text in ('{', '[]', json.dumps({'stride': 'four'}), json.dumps({'rate': -1})):
        (tmp_path / 'features.json').write_text(text)
        with pytest.raises(sources.DataError, match=r'features\.json: .*extract the features again'):
            source(tmp_path, [LONG])


def test_a_stride_that_is_not_that_of_the_features_is_noticed(folder, caplog):
    source(folder)
    assert not caplog.records
    source(folder, stride=2.0)
    assert 'the features cover 55 % of what videos last; check the three' in caplog.text


def test_what_nobody_says_is_asked_for(folder):
    with pytest.raises(sources.DataError, match='set stride and span'):
        source(folder, stride=0.0)
    with pytest.raises(sources.DataError, match='set stride and span'):
        source(folder, span=-1.0)
    with pytest.raises(sources.DataError, match='set span too'):
        source(folder, span=-1.0, mode='resize')
    unsaid = [record('long', (1.0, 2.0, 'run'), fps=None)]
    with pytest.raises(sources.DataError, match=r'frame rates of 1 videos are not known \(long\); set rate to'):
        source(folder, unsaid)
    assert source(folder, unsaid, rate=30.0).examples[0].limit == pytest.approx((99 * 4 + 16) / 30)


def test_features_of_another_shape_are_refused(tmp_path):
    np.save(tmp_path / 'long.npy', vectors(40).T)
    with pytest.raises(
        sources.DataError, match=r'long.npy: .*these are \[3, 40\]; .*they are \[D, T\], transpose them'
    ):
        source(tmp_path, [LONG])
    np.save(tmp_path / 'long.npy', vectors(40, width=7))
    with pytest.raises(sources.DataError, match=r'are \[T, 3\] by the config, these are \[40, 7\]; set width'):
        source(tmp_path, [LONG])


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        (b'', 'cannot be read as features'),
        (b'no array', 'cannot be read as features'),
        (np.ones((4, 3), np.int64), 'floating-point numbers, these are int64'),
        (np.ones(5, np.float32), r'features are \[T, D\], these are \[5\]'),
        (np.ones((0, 3), np.float32), r'these are \[0, 3\]'),
        (np.array([{}]), 'cannot be read as features'),
    ],
)
def test_files_that_hold_something_else_fail_alone(folder, tmp_path, content, said):
    np.save(tmp_path / 'short.npy', vectors(20))
    if isinstance(content, bytes):
        (tmp_path / 'long.npy').write_bytes(content)
    else:
        np.save(tmp_path / 'long.npy', content, allow_pickle=True)
    for train in (True, False):
        opened = source(tmp_path, train=train)
        assert len(opened) == 2
        with pytest.raises(video.VideoError, match=rf'long\.npy: .*{said}'):
            opened.load(0, None)


@pytest.mark.parametrize('cut', [0.3, 0.9])
def test_files_cut_short_and_values_that_are_none(tmp_path, cut):
    for suffix in ('.npy', '.npz'):
        path = tmp_path / f'long{suffix}'
        np.save(path, vectors(40)) if suffix == '.npy' else npz(path, feats=vectors(40))
        path.write_bytes(path.read_bytes()[: int(cut * path.stat().st_size)])
        with pytest.raises(video.VideoError, match='cannot be read as features'):
            source(tmp_path, [LONG], suffix=suffix).load(0, None)
    broken = vectors(40)
    broken[3, 1] = np.nan
    np.save(tmp_path / 'long.npy', broken)
    with pytest.raises(video.VideoError, match='not finite'):
        source(tmp_path, [LONG]).load(0, None)


def test_missing_files_are_named(folder, tmp_path):
    lost = [record(f'x{i}', (0.0, 1.0, 'run')) for i in range(6)]
    with pytest.raises(sources.DataError, match=r'6 of 8 feature files .*: x0.npy, x1.npy, .* and 1 more; extract'):
        source(folder, [LONG, SHORT, *lost])
    opened = source(folder, [LONG, SHORT, *lost], missing='leave_out')
    assert len(opened.left_out) == 6 and set(opened.truth()['video']) == {'long', 'short'}
    np.save(tmp_path / 'v_long.npy', vectors(40))
    with pytest.raises(sources.DataError, match='none can be learned from: 0 have no segment, of 1 no window holds'):
        source(folder, [record('long', (30.0, 31.0, 'run'), duration=60.0)], train=True)
    with pytest.raises(sources.DataError, match=r"v_long.npy is there: set prefix='v_'"):
        source(tmp_path, [LONG])
    with pytest.raises(sources.DataError, match=r'no folder of features at .*; set .*holds VIDEO.npy'):
        source(tmp_path / 'nowhere')


def test_batches_and_readiness(folder):
    opened, evaluated = source(folder, train=True, upsample=2), source(folder, upsample=2)
    plan = pipeline.Plan((opened,), np.zeros(2, int), (2,), ((0, 2),), seed=1)
    layout = opened.view.layout(2).batch(2)
    for batch in pipeline.train_batches(plan, pipeline.Loading()):
        shapes = {name: (batch[name].shape, batch[name].dtype) for name in layout}
        assert shapes == {name: (shape, np.dtype(kind)) for name, (shape, kind) in layout.items()}
    batches = list(pipeline.eval_batches(pipeline.EvalPlan(evaluated, 4, (0, 4)), pipeline.Loading()))
    assert [batch['example_valid'].sum() for batch in batches] == [4, 3]
    assert opened.label_counts().tolist() == [1, 2]
    assert readiness.quick({'thumos': opened}, {}) == []
    codes = {each.code for each in readiness.quick({'thumos': opened}, {'thumos': evaluated})}
    assert codes == {'video-in-two-sources'}
    late = source(folder, [record('long', (30.0, 31.0, 'run'), duration=60.0)])
    assert {each.code for each in readiness.quick({'thumos': late}, {})} >= {'segment-beyond-video'}


@pytest.mark.parametrize(
    ('view', 'said'),
    [
        ({'width': 0}, 'width is 0'),
        ({'length': 0}, '.*length 0'),
        ({'upsample': 2, 'mode': 'resize'}, "upsample is 2, but mode 'resize'"),
        ({'layers': -1}, 'layers is -1'),
        ({'stride': -4.0}, 'stride is -4.0'),
        ({'mode': 'slide'}, "mode is 'slide'"),
    ],
)
def test_fields_without_sense_are_refused(folder, view, said):
    with pytest.raises(sources.DataError, match=f'source thumos: {said}'):
        source(folder, **view)
