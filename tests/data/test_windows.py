import dataclasses
import pickle
from fractions import Fraction

import numpy as np
import pytest

from vidloc.annotations import records as rec
from vidloc.data import batching, encode, footage, pipeline, prepare, readiness, sources, video, windows
from vidloc.data import part as part_lib

CLASSES = ('jump', 'run')
NTSC = Fraction(30000, 1001)
RATES = {'a': 25, 'b': NTSC, 'c': 30}
FRAMES = {'a': 60, 'b': 61, 'c': 24}
SHADE = 4  # of grey, from one frame to the next


def write(path, count, fps, size=(32, 48)):
    """A video whose frames tell their number by their grey; its left half is darker."""
    frames = np.zeros((count, *size, 3), np.uint8)
    frames += (SHADE * np.arange(count, dtype=np.uint8))[:, None, None, None]
    frames[:, :, : size[1] // 2] //= 2
    encode.write_video(path, frames, fps, crf=4, gop=12)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('videos')
    for name, fps in RATES.items():
        write(folder / f'{name}.mp4', FRAMES[name], fps)
    return folder


def record(video, *segments, **fields):
    return rec.VideoRecord(video, segments=tuple(rec.Segment(*segment) for segment in segments), **fields)


RECORDS = [
    record('a', (0.2, 0.9, 'run'), (1.5, 1.9, 'jump')),
    record('b', (0.4, 1.2, 'run')),
    record('c', (0.1, 0.7, 'jump')),
]


def source(folder, records=RECORDS, *, train=False, classes=CLASSES, **view):
    fields = {'frames': 8, 'stride': 4, 'size': (16, 24), 'max_segments': 4, 'area': (1.0, 1.0), 'ratio': (1.5, 1.5)}
    fields |= {'flip': 0.0}
    return windows.WindowSource(
        'street', windows.Windows(videos=str(folder), **{**fields, **view}), records, classes, train=train
    )


def numbers(sample):
    """The frame that each picture of a sample shows."""
    shades = sample['video'][:, :, 18:].mean(axis=(1, 2, 3))
    return (shades / SHADE).round().astype(int).tolist()


def of(opened, video):
    return [i for i, example in enumerate(opened.examples) if example.video == video]


def test_every_fourth_frame_of_each_videos_own_rate(folder):
    opened = source(folder)
    for name, fps in RATES.items():
        first = of(opened, name)[0]
        sample, example = opened.load(first, None), opened.examples[first]
        size = sample['frame_valid'].sum()
        assert numbers(sample)[:size] == [4 * i for i in range(size)]
        assert numbers(sample)[size:] == [numbers(sample)[size - 1]] * (8 - size)
        # Point i is at frame 4 i.
        places = example.grid_start + example.grid_step * np.arange(8)
        np.testing.assert_allclose(places, 4 * np.arange(8) / float(fps), rtol=0, atol=1e-9)
        assert example.limit == pytest.approx(FRAMES[name] / float(fps), abs=1e-9)


def test_test_windows_cover_the_video_and_the_last_ends_with_it(folder):
    opened = source(folder)
    # 60 frames are 15 positions, 61 are 16, 24 are 6, which is one padded window.
    firsts = {
        name: [round(opened.examples[i].time * float(RATES[name]) / 4) for i in of(opened, name)] for name in 'abc'
    }
    assert firsts == {'a': [0, 4, 7], 'b': [0, 4, 8], 'c': [0]}
    last = opened.load(of(opened, 'b')[-1], None)
    assert numbers(last) == [32, 36, 40, 44, 48, 52, 56, 60] and last['frame_valid'].all()
    short = opened.load(of(opened, 'c')[0], None)
    assert short['frame_valid'].tolist() == short['grid_valid'].tolist() == [True] * 6 + [False] * 2
    assert len({example.key for example in opened.examples}) == len(opened) == 7
    assert [len(of(source(folder, overlap=0.0), name)) for name in 'abc'] == [2, 2, 1]


def test_segments_are_on_the_grid_of_their_window(folder):
    opened = source(folder, grid=4)
    number = of(opened, 'a')[1]  # from position 4, at 0.64 s, to position 12, at 1.92 s
    sample, example = opened.load(number, None), opened.examples[number]
    seconds = example.grid_start + example.grid_step * sample['segments'].astype(np.float64)
    # Of the run 0.26 of 0.7 s are in the window, less than half.
    np.testing.assert_allclose(seconds, [[1.5, 1.9]], atol=1e-6)
    assert sample['segment_labels'].tolist() == [0]
    kept = source(folder, grid=4, keep=0.3).load(number, None)
    seconds = example.grid_start + example.grid_step * kept['segments'].astype(np.float64)
    np.testing.assert_allclose(seconds, [[0.64, 0.9], [1.5, 1.9]], atol=1e-6)
    assert kept['segments'].dtype == np.float32 and kept['segment_labels'].tolist() == [1, 0]


@pytest.mark.parametrize('mode', ['window', 'resize'])
@pytest.mark.parametrize('points', [0, 4])
def test_segments_and_seconds_are_a_round_trip(folder, mode, points):
    rng = np.random.default_rng(0)
    for _ in range(20):
        start = float(rng.uniform(0, 0.5))
        end = start + float(rng.uniform(0.05, 0.3))
        opened = source(folder, [record('c', (start, end, 'run'))], mode=mode, grid=points)
        sample, example = opened.load(0, None), opened.examples[0]
        seconds = example.grid_start + example.grid_step * sample['segments'].astype(np.float64)
        np.testing.assert_allclose(seconds, [[start, end]], rtol=0, atol=1e-6)


def test_a_training_window_keeps_an_action_and_is_a_function_of_the_seed(folder):
    opened, firsts = source(folder, train=True), set()
    travelled = pickle.loads(pickle.dumps(opened))  # noqa: S301
    assert len(opened) == 3
    for seed in range(30):
        sample = opened.load(0, np.random.default_rng(seed))
        again = travelled.load(0, np.random.default_rng(seed))
        assert sample.keys() == again.keys()
        assert all(np.array_equal(sample[key], again[key]) for key in sample)
        shown = numbers(sample)
        assert np.diff(shown).tolist() == [4] * 7 and sample['frame_valid'].all()
        firsts.add(shown[0] // 4)
        begin = shown[0] / 25
        segments = begin + sample['segments'] * 4 / 25
        assert len(segments) and (segments >= begin - 1e-5).all() and (segments <= begin + 8 * 4 / 25 + 1e-5).all()
        for (start, end), label in zip(segments, sample['segment_labels'], strict=True):
            low, high = {1: (0.2, 0.9), 0: (1.5, 1.9)}[int(label)]
            assert end - start >= 0.5 * (high - low) - 1e-5
            np.testing.assert_allclose((start, end), np.clip((low, high), begin, begin + 1.28), atol=1e-5)
    assert firsts == set(range(8))


def test_a_short_video_is_cropped_in_training(folder):
    opened = source(folder, train=True, crop=(0.5, 0.7))
    seen = set()
    for seed in range(30):
        sample = opened.load(2, np.random.default_rng(seed))
        size = int(sample['frame_valid'].sum())
        assert numbers(sample)[:size] == [numbers(sample)[0] + 4 * i for i in range(size)]
        seen.add((numbers(sample)[0], size))
    assert seen <= {(4 * first, size) for size in (3, 4) for first in range(4)} and len(seen) > 4


def test_resizing_spreads_frames_over_the_whole_video(folder):
    opened = source(folder, mode='resize', grid=4)
    assert len(opened) == 3
    for name, fps in RATES.items():
        number = of(opened, name)[0]
        sample, example = opened.load(number, None), opened.examples[number]
        assert numbers(sample) == [int(FRAMES[name] * (i + 0.5) / 8) for i in range(8)]
        duration = FRAMES[name] / float(fps)
        assert (example.grid_start, example.grid_step) == pytest.approx((duration / 8, duration / 4))
        assert sample['frame_valid'].all() and sample['grid_valid'].all()
    cropped = source(folder, mode='resize', train=True, crop=(0.5, 0.5)).load(0, np.random.default_rng(1))
    first = numbers(cropped)[0]
    assert cropped['frame_valid'].tolist() == [True] * 4 + [False] * 4
    place = next(i for i in range(8) if int(60 * (i + 0.5) / 8) == first)
    assert numbers(cropped)[:4] == [int(60 * (place + i + 0.5) / 8) for i in range(4)]
    step = 2.4 / 8
    segments = (place + 0.5) * step + cropped['segments'] * step
    for (start, end), label in zip(segments, cropped['segment_labels'], strict=True):
        low, high = {1: (0.2, 0.9), 0: (1.5, 1.9)}[int(label)]
        np.testing.assert_allclose((start, end), np.clip((low, high), place * step, (place + 4) * step), atol=1e-5)


def test_what_annotations_say_is_not_looked_up(folder, monkeypatch):
    said = [dataclasses.replace(each, fps=25.0, duration=2.0) for each in RECORDS[:1]]
    monkeypatch.setattr(footage, 'indexed', lambda path: pytest.fail(f'{path} was opened'))
    opened = source(folder, said)
    assert [example.rate for example in opened.examples] == [25 / 4] * 3
    assert {example.limit for example in opened.examples} == {2.0}
    assert source(folder, [dataclasses.replace(RECORDS[0], duration=2.0)], rate=5.0).examples[0].rate == 5.0


def test_a_video_shorter_than_its_annotations_say_has_padding(folder):
    said = [dataclasses.replace(RECORDS[2], fps=30.0, duration=3.0)]  # it has 0.8 s
    opened = source(folder, said)
    assert len(opened) == 5
    sizes = [int(opened.load(i, None)['frame_valid'].sum()) for i in range(5)]
    assert sizes == [6, 2, 1, 1, 1]
    assert source(folder, said, train=True, crop=(1.0, 1.0)).load(0, np.random.default_rng(0))['frame_valid'].sum() == 6


def test_augmentation_is_the_same_for_all_frames(tmp_path):
    frames = np.zeros((12, 40, 60, 3), np.uint8)
    frames[:, :, :, 0], frames[:, :, :, 1] = np.linspace(0, 250, 60), np.linspace(0, 250, 40)[:, None]
    encode.write_video(tmp_path / 'v.mp4', frames, 12, crf=1)
    view = {'size': (16, 16), 'stride': 1, 'frames': 12, 'crop': (1.0, 1.0)}
    records = [record('v', (0.0, 1.0, 'run'))]
    wide = source(tmp_path, records, train=True, area=(0.2, 0.6), ratio=(0.75, 4 / 3), flip=0.5, **view)
    mirrored, spans = 0, set()
    for seed in range(20):
        sample = wide.load(0, np.random.default_rng(seed))
        drift = np.abs(sample['video'].astype(int) - sample['video'][:1])
        assert drift.max() <= 6  # the encoder's
        red, green = (sample['video'][0, :, :, i].astype(int) for i in range(2))
        across, down = red[8, -1] - red[8, 0], green[-1, 8] - green[0, 8]
        mirrored += across < 0
        share = abs(across) * down / (250 * 250) * (16 / 15) ** 2
        assert 0.15 < share < 0.66
        spans.add((round(abs(across) / 20), round(down / 20)))
    assert 3 < mirrored < 17 and len(spans) > 10
    strong = source(tmp_path, records, train=True, rand_augment=(2, 9), **view)
    plain = source(tmp_path, records, train=True, **view)
    changed = 0
    for seed in range(8):
        sample = strong.load(0, np.random.default_rng(seed))['video']
        assert np.abs(sample.astype(int) - sample[:1]).max() <= 60
        changed += not np.array_equal(sample, plain.load(0, np.random.default_rng(seed))['video'])
    assert changed > 4


def test_evaluation_covers_the_input_or_shows_the_whole_picture(folder):
    covered = source(folder, size=(16, 16)).load(0, None)['video']
    whole = source(folder, size=(16, 16), cover=False).load(0, None)['video']
    assert (covered[7, 0] > 0).all() and (whole[7, 0] == 0).all() and (whole[7, 8, -1] > 0).all()


def test_truth_and_counts_are_of_all_videos(folder):
    opened = source(folder, [*RECORDS, record('d')], missing='leave_out')
    truth = opened.truth()
    rows = list(zip(truth['video'], truth['start'], truth['end'], truth['label'], strict=True))
    assert rows == [('a', 0.2, 0.9, 1), ('a', 1.5, 1.9, 0), ('b', 0.4, 1.2, 1), ('c', 0.1, 0.7, 0)]
    assert truth['label'].dtype == np.int64 and truth['start'].dtype == np.float64
    assert opened.label_counts().tolist() == [2, 2]
    assert opened.left_out == ('d',)


def test_missing_videos_are_named_and_a_prefix_is_suggested(folder, tmp_path):
    lost = [record(f'x{i}', (0.0, 1.0, 'run')) for i in range(7)]
    with pytest.raises(sources.DataError, match=r'7 of 10 videos are not in .*: x0, x1, x2, x3, x4 and 2 more'):
        source(folder, [*RECORDS, *lost])
    write(tmp_path / 'v_abc.mp4', 8, 8)
    with pytest.raises(sources.DataError, match="v_abc is there: format activitynet takes prefix='v_'"):
        source(tmp_path, [record('abc', (0.0, 0.5, 'run'))])
    opened = source(tmp_path, [record('abc', (0.0, 0.5, 'run'), stem='v_abc')])
    assert opened.examples[0].video == 'abc' and opened.load(0, None)['frame_valid'].sum() == 2


def test_videos_without_segments_are_for_evaluation_unless_asked_for(folder):
    records = [RECORDS[0], record('b')]
    assert {example.video for example in source(folder, records).examples} == {'a', 'b'}
    assert [example.video for example in source(folder, records, train=True).examples] == ['a']
    empty = source(folder, records, train=True, empty=True)
    assert [example.video for example in empty.examples] == ['a', 'b']
    assert empty.load(1, np.random.default_rng(0))['segments'].shape == (0, 2)
    for each in ({}, {'empty': True}):
        with pytest.raises(sources.DataError, match='of 1 videos none can be learned from: 1 have no segment'):
            source(folder, [record('b')], train=True, **each)
    with pytest.raises(sources.DataError, match=r'street: .*none can be learned from'):
        source(folder, [record('b', (70.0, 71.0, 'run'))], train=True)  # beyond its end


def test_actions_too_long_for_any_window_are_told_of(folder, caplog):
    records = [RECORDS[0], record('b', (0.0, 2.0, 'run'))]
    view = {'frames': 4, 'train': True}
    assert [example.video for example in source(folder, records, **view).examples] == ['a']
    assert 'of 1 videos no window holds a share of 0.5 of a segment (b)' in caplog.text
    assert len(source(folder, records, keep=0.2, **view).examples) == 2


def test_segments_that_end_late_are_cut_in_training_and_told_of(folder, caplog):
    opened = source(folder, [record('c', (0.4, 1.5, 'run'), (0.9, 1.5, 'jump'))], train=True, crop=(1.0, 1.0))
    assert '1 videos have segments that end after the video (c)' in caplog.text
    sample = opened.load(0, np.random.default_rng(0))
    np.testing.assert_allclose(sample['segments'], [[0.4 * 7.5, 0.8 * 7.5]], atol=1e-5)
    assert opened.truth()['end'].tolist() == [1.5, 1.5]


def test_a_video_that_cannot_be_read_is_an_example_that_fails(folder, tmp_path):
    write(tmp_path / 'a.mp4', 60, 25)
    (tmp_path / 'b.mp4').write_bytes(b'no video')
    for train in (False, True):
        opened = source(tmp_path, RECORDS[:2], train=train)
        (number,) = of(opened, 'b')
        with pytest.raises(video.VideoError, match=r'b\.mp4'):
            opened.load(number, None)
    batches = list(
        pipeline.eval_batches(pipeline.EvalPlan(source(tmp_path, RECORDS[:2]), 2, (0, 2)), pipeline.Loading())
    )
    assert [batch['example_valid'].tolist() for batch in batches] == [[True, True], [True, False]]
    assert batches[1]['broken_id'].tolist() == [-1, 3]


def test_batches_have_the_arrays_of_the_layout(folder):
    opened = source(folder, train=True, grid=4)
    layout = opened.view.layout(2)
    assert layout.fields['grid_valid'] == ((4,), np.bool_) and isinstance(layout, batching.Layout)
    plan = pipeline.Plan((opened,), np.zeros(3, int), (2,), ((0, 2),), seed=1)
    for loading in (pipeline.Loading(), pipeline.Loading(workers=1)):
        batches = list(pipeline.train_batches(plan, loading))
        assert len(batches) == 3
        shapes = {name: (batches[0][name].shape, batches[0][name].dtype) for name in layout.batch(2)}
        assert shapes == {name: (shape, np.dtype(kind)) for name, (shape, kind) in layout.batch(2).items()}
        assert batches[0]['segment_mask'].any(axis=1).all()


def test_more_segments_than_rows_are_refused_before_training(folder):
    many = [record('a', *((0.1 * i, 0.1 * i + 0.05, 'run') for i in range(20)))]
    with pytest.raises(sources.DataError, match='a window of a may hold 14 segments, max_segments is 4'):
        source(folder, many, train=True)
    assert source(folder, many, train=True, max_segments=14).examples


def test_a_prepared_set_in_chunks_shows_the_same_frames(tmp_path):
    (tmp_path / 'raw').mkdir()
    write(tmp_path / 'raw' / 'a.mp4', 63, 25)
    records = RECORDS[:1]
    options = part_lib.Options(chunk_seconds=0.9, overlap=0.2)
    manifest = prepare.write(tmp_path / 'set', prepare.plan(records, str(tmp_path / 'raw'), options))
    assert manifest['counts']['cut_into_chunks'] == 1
    raw, prepared = (source(tmp_path / folder, records, train=True, rate=5.0) for folder in ('raw', 'set'))
    for seed in range(3):
        one, other = (each.load(0, np.random.default_rng(seed)) for each in (raw, prepared))
        assert all(np.array_equal(one[key], other[key]) for key in one)


def test_frames_of_full_size_are_not_kept(tmp_path):
    import tracemalloc

    write(tmp_path / 'v.mp4', 48, 24, size=(360, 640))
    opened = source(tmp_path, [record('v', (0.0, 1.0, 'run'))], frames=48, stride=1)
    opened.load(0, None)  # modules and the index of the file
    tracemalloc.start()
    opened.load(0, None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # One picture is 0.7 MB, 48 of them 33 MB.
    assert peak < 4e6


def test_training_is_told_of_videos_that_do_not_fit(folder, tmp_path):
    good = source(folder, train=True)
    assert not [each for each in readiness.quick({'street': good}, {}) if each.severity == 'error']
    late = [record(name, (40.0, 41.0, 'run'), duration=60.0) for name in 'abc']
    problems = readiness.quick({'street': source(folder, late, train=True)}, {})
    assert ('segment-beyond-video', 'error') in {(each.code, each.severity) for each in problems}
    assert 'class-without-example' in {each.code for each in problems}
    shared = readiness.quick({'street': good}, {'street': source(folder, RECORDS[:1])})
    assert 'video-in-two-sources' in {each.code for each in shared}


@pytest.mark.parametrize(
    ('view', 'said'),
    [
        ({'mode': 'crop'}, "mode is 'crop'; known: window, resize"),
        ({'keep': 0.0}, 'keep is 0.0'),
        ({'tries': 0}, 'tries is 0'),
        ({'crop': (1.0, 0.9)}, r'crop is \(1.0, 0.9\)'),
        ({'crop': 0.9}, 'crop is 0.9'),
        ({'overlap': 1.0}, 'overlap is 1.0'),
        ({'frames': 0}, 'frames is 0'),
        ({'rate': -1.0}, 'rate is -1.0'),
        ({'area': (0.0, 1.0)}, r'area is \(0.0, 1.0\)'),
        ({'ratio': (2.0, 1.0)}, r'ratio is \(2.0, 1.0\)'),
        ({'rand_augment': (2, 31.0)}, '0 to 30'),
        ({'missing': 'skip'}, "missing is 'skip'"),
    ],
)
def test_fields_without_sense_are_refused(folder, view, said):
    with pytest.raises(sources.DataError, match=f'source street: .*{said}'):
        source(folder, **view)


def test_unknown_labels_are_refused(folder):
    with pytest.raises(sources.DataError, match=r"a has the label 'jmp'.*did you mean 'jump'"):
        source(folder, [record('a', (0.0, 1.0, 'jmp'))])
    with pytest.raises(sources.DataError, match='a is annotated twice'):
        source(folder, [RECORDS[0], RECORDS[0]])


def test_clips_of_a_video_are_no_whole_video(tmp_path):
    write(tmp_path / 'v_000010_000012.mp4', 16, 8)
    with pytest.raises(sources.DataError, match=r'are there as clips of them \(v\)'):
        source(tmp_path, [record('v', (0.0, 1.0, 'run'))])
