import numpy as np
import pytest

from vidloc.annotations import records as rec
from vidloc.data import clips as clip_data
from vidloc.data import pipeline, sources, video
from vidloc.models import classification_head
from vidloc.tasks import classification

CLASSES = ('walk', 'wave', 'talk')


def clips(folder, records, *, train=True, classes=CLASSES, **view):
    fields = {'frames': 4, 'rate': 8.0, 'size': (48, 64), 'scale': (1.0, 1.0), 'flip': 0.0}
    return clip_data.ClipSource(
        'studio', clip_data.Clips(videos=str(folder), **{**fields, **view}), records, classes, train=train
    )


def whole(name, label='wave'):
    return rec.VideoRecord(name, path=f'{name}.mp4', labels=(rec.ClipLabel(label),))


def columns_of(frames, channel):
    """First and last column of [T, H, W, 3] in which a colour of the rectangles is strong."""
    strong = np.flatnonzero((frames[0, :-6, :, channel] > 150).any(axis=0))
    return (int(strong[0]), int(strong[-1])) if len(strong) else None


def darkest(frames):
    """The shade that tells the time, of each frame."""
    return frames[:, -2:, :, 0].mean(axis=(1, 2))


def test_clips_start_anywhere_in_training_and_in_the_middle_in_evaluation(rectangles):
    records = [rec.VideoRecord('v00', path='v00.mp4', labels=(rec.ClipLabel('wave'),))]
    source = clips(rectangles.folder, records)
    middle = source.load(0, None)
    assert middle['labels'].tolist() == [0.0, 1.0, 0.0]
    # 16 frames, 4 of them: the middle four are 6 to 9
    np.testing.assert_allclose(middle['video'][:, -2:, :, 0].mean(axis=(1, 2)), [60, 70, 80, 90], atol=4)
    firsts = [source.load(0, np.random.default_rng(seed))['video'][0, -2:, :, 0].mean() for seed in range(40)]
    assert min(firsts) < 25 and max(firsts) > 95


def test_a_part_of_a_video_can_be_a_clip(rectangles):
    labels = (rec.ClipLabel('walk', 0.0, 0.5), rec.ClipLabel('talk', 1.5, 2.0))
    source = clips(rectangles.folder, [rec.VideoRecord('v01', path='v01.mp4', labels=labels)])
    shades = [source.load(i, None)['video'][:, -2:, :, 0].mean(axis=(1, 2)) for i in range(2)]
    np.testing.assert_allclose(shades, [[0, 10, 20, 30], [120, 130, 140, 150]], atol=6)
    assert source.truth()['label'].tolist() == [0, 2]
    np.testing.assert_array_equal(source.label_counts(), [1, 0, 1])


def test_a_video_that_cannot_be_read_raises_a_video_error(rectangles, tmp_path):
    path = rectangles.write(tmp_path / 'v00.mp4')
    source = clips(tmp_path, [rec.VideoRecord('v00', path='v00.mp4', labels=(rec.ClipLabel('walk'),))])
    path.write_bytes(b'')
    with pytest.raises(video.VideoError, match=r'v00\.mp4'):
        source.load(0, None)


def test_views_are_spread_over_time_and_along_the_longer_side(rectangles):
    source = clips(rectangles.folder, [whole('v00')], train=False, cover=True, size=(48, 48), test_views=(3, 3))
    assert len(source) == 9
    assert sorted(example.view for example in source.examples) == list(range(9))
    for number, example in enumerate(source.examples):
        sample = source.load(number, None)
        first = 10 * (0, 6, 12)[example.view // 3]
        np.testing.assert_allclose(darkest(sample['video']), first + 10 * np.arange(4), atol=4)
        left = (0, 8, 16)[example.view % 3]  # of 64 columns 48 are seen
        red, blue = columns_of(sample['video'], 0), columns_of(sample['video'], 2)
        np.testing.assert_allclose(red, (max(6 - left, 0), 21 - left), atol=1.1)
        np.testing.assert_allclose(blue, (40 - left, min(55 - left, 47)), atol=1.1)
    assert source.load(0, None)['labels'].tolist() == [0.0, 1.0, 0.0]


def test_a_test_zoom_crops_both_sides(rectangles):
    source = clips(rectangles.folder, [whole('v00')], train=False, cover=True, test_scale=2.0, test_views=(1, 2))
    left, right = (source.load(i, None)['video'] for i in range(2))
    # Of the picture at twice its size the left and the right half are seen, of the height the middle.
    assert columns_of(left, 0) is not None and columns_of(left, 2) is None
    assert columns_of(right, 2) is not None and columns_of(right, 0) is None
    np.testing.assert_allclose(columns_of(left, 0), (12, 43), atol=2.1)


def test_one_view_is_the_middle_with_the_key_it_always_had(rectangles):
    source = clips(rectangles.folder, [whole('v00')], train=False)
    assert [example.key for example in source.examples] == ['v00|0.000000|0']
    np.testing.assert_allclose(darkest(source.load(0, None)['video']), [60, 70, 80, 90], atol=4)
    # Views belong to evaluation.
    assert len(clips(rectangles.folder, [whole('v00')], cover=True, test_views=(4, 3))) == 1


def test_scores_of_views_become_one_row_a_clip(rectangles):
    labels = (rec.ClipLabel('walk', 0.0, 1.0), rec.ClipLabel('talk', 1.0, 2.0))
    records = [rec.VideoRecord('v00', path='v00.mp4', labels=labels), whole('v01'), whole('v02', 'talk')]
    source = clips(rectangles.folder, records, train=False, cover=True, frames=2, size=(16, 16), test_views=(2, 3))
    assert len(source) == 4 * 6
    truth = source.truth()
    assert list(zip(truth['video'], truth['time'], truth['label'], strict=True)) == [
        ('v00', 0.0, 0),
        ('v00', 1.0, 2),
        ('v01', 0.0, 1),
        ('v02', 0.0, 2),
    ]
    np.testing.assert_array_equal(source.label_counts(), [1, 1, 2])
    np.testing.assert_allclose(source.label_share(), [0.25, 0.25, 0.5])
    task = classification.Classification(CLASSES, classification_head.ClassificationHead(classes=3))
    collector = task.collector(source.examples)
    rng, given = np.random.default_rng(0), {}
    for batch in pipeline.eval_batches(pipeline.EvalPlan(source, 5, (0, 5)), pipeline.Loading()):
        scores = rng.random((5, 1, 3)).astype(np.float32) + 9 * batch['labels'][:, None]
        collector.add(batch['example_id'], batch['example_valid'], {'scores': scores})
        for i in np.flatnonzero(batch['example_valid']):
            example = source.examples[int(batch['example_id'][i])]
            given.setdefault((example.video, example.time), []).append(scores[i, 0])
    found = collector.detections()
    assert [len(views) for views in given.values()] == [6] * 4
    assert list(zip(found['video'], found['time'], strict=True)) == list(given)
    np.testing.assert_allclose(found['scores'], [np.mean(views, axis=0) for views in given.values()], rtol=1e-5)
    assert task.score(found, truth)['top1'] == 1.0


def test_covering_crops_at_a_random_place_in_training(rectangles):
    source = clips(rectangles.folder, [whole('v00')], cover=True, size=(32, 32), scale=(1.0, 1.4))
    places = set()
    for seed in range(20):
        frames = source.load(0, np.random.default_rng(seed))['video']
        assert frames.shape == (4, 32, 32, 3)
        places.add((columns_of(frames, 0), columns_of(frames, 2)))
    assert len(places) > 10


def test_a_class_with_a_side_is_not_mirrored(rectangles):
    def red_is_left(label, **view):
        source = clips(rectangles.folder, [whole('v00', label)], classes=(label,), flip=1.0, **view)
        return columns_of(source.load(0, np.random.default_rng(0))['video'], 0)[0] < 32

    assert not red_is_left('Pushing [something]')
    assert not red_is_left('leftovers being eaten')
    assert red_is_left('Pushing something from left to right')
    assert not red_is_left('Pushing something from left to right', flip_sided=True)


def test_random_augmentation_comes_with_training_and_holds_for_all_frames(rectangles):
    records = [whole('v00')]
    plain = clips(rectangles.folder, records, rate=1e6)  # four times the same frame
    strong = clips(rectangles.folder, records, rate=1e6, rand_augment=(3, 9))
    changed = 0
    for seed in range(12):
        frames = strong.load(0, np.random.default_rng(seed))['video']
        assert (frames == frames[:1]).all()
        changed += np.any(frames != plain.load(0, np.random.default_rng(seed))['video'])
    assert changed > 6
    np.testing.assert_array_equal(strong.load(0, None)['video'], plain.load(0, None)['video'])


@pytest.mark.parametrize(
    ('view', 'said'),
    [
        ({'test_views': (1, 3)}, r'set cover=True or test_views=\(1, 1\)'),
        ({'test_views': (0, 1)}, 'whole numbers of at least 1'),
        ({'test_views': (2.0, 1)}, 'whole numbers of at least 1'),
        ({'test_views': 3}, r'test_views is \(temporal, spatial\)'),
        ({'rand_augment': (2,)}, r'rand_augment is \(layers, magnitude\)'),
        ({'rand_augment': (2, 31.0)}, '0 to 30'),
        ({'rand_augment': (2, 'strong')}, '0 to 30'),
        ({'rand_augment': (-1, 9.0)}, 'leaves it out'),
        ({'mixup': -0.1}, 'alpha of its Beta'),
        ({'mixup': float('nan')}, 'alpha of its Beta'),
        ({'cover': True, 'scale': (0.65, 1.1)}, r'scale=\(0.65, 1.1\) would not; .* at least 1'),
        ({'scale': (0.0, 1.1)}, 'must be positive'),
    ],
)
def test_fields_without_sense_are_refused(rectangles, view, said):
    with pytest.raises(sources.DataError, match=f'source studio: .*{said}'):
        clips(rectangles.folder, [whole('v00')], **view)


def test_the_zoom_that_counts_is_that_of_the_split(rectangles):
    records = [whole('v00')]
    clips(rectangles.folder, records, train=False, cover=True, scale=(0.65, 1.1))
    with pytest.raises(sources.DataError, match=r'test_scale=0\.9 would not'):
        clips(rectangles.folder, records, train=False, cover=True, test_scale=0.9)
    with pytest.raises(sources.DataError, match='test_scale is 0'):
        clips(rectangles.folder, records, train=False, test_scale=0.0)


@pytest.mark.parametrize(
    ('label', 'firsts'),
    [
        (rec.ClipLabel('walk'), [0, 5, 10, 15 - 8, 20 - 8]),
        (rec.ClipLabel('walk', 0.5, 2.5), [4, 7, 10, 13 - 8, 16 - 8]),
        (rec.ClipLabel('walk', 1.0), [8, 11, 14 - 8, 17 - 8, 20 - 8]),
    ],
)
def test_a_clip_over_several_files_is_read_from_the_one_that_shows_it(rectangles, tmp_path, label, firsts):
    # Three seconds of 8 frames each in two files: frames 0 to 15, and 8 to 23.
    for name in ('v_000000_000002', 'v_000001_000003'):
        rectangles.write(tmp_path / f'{name}.mp4')
    record = rec.VideoRecord('v', labels=(label,))
    source = clips(tmp_path, [record], train=False, test_views=(5, 1))
    shades = [darkest(source.load(i, None)['video']) for i in range(5)]
    np.testing.assert_allclose(shades, [[10 * (first + i) for i in range(4)] for first in firsts], atol=6)
    assert source.truth()['time'].tolist() == [label.start or 0.0]


def test_a_clip_of_a_whole_video_is_found_in_the_file_that_holds_it(rectangles, tmp_path):
    rectangles.write(tmp_path / 'v_000010_000012.mp4')
    record = rec.VideoRecord('v', labels=(rec.ClipLabel('walk', 10.0, 10.5), rec.ClipLabel('talk', 11.5, 12.0)))
    source = clips(tmp_path, [record])
    shades = [darkest(source.load(i, None)['video']) for i in range(2)]
    np.testing.assert_allclose(shades, [[0, 10, 20, 30], [120, 130, 140, 150]], atol=6)
    assert source.truth()['time'].tolist() == [10.0, 11.5]


def named(rectangles):
    """Ten clips, six of which walk, and one of which talks."""
    labels = ['walk'] * 6 + ['wave'] * 3 + ['talk']
    return [whole(f'v{number:02d}', label) for number, label in enumerate(labels)]


def test_shots_are_so_many_clips_of_every_class(rectangles):
    source = clips(rectangles.folder, named(rectangles), shots=2)
    np.testing.assert_array_equal(source.label_counts(), [2, 2, 1])
    content = source.shots.content()
    assert content['per_class'] == {'walk': 2, 'wave': 2, 'talk': 1} and content['short'] == {'talk': 1}
    assert [row[0] for row in content['chosen']] == sorted(source.truth()['video'])
    assert content['chosen'][-1] == ['v09', None, None, ['talk']]
    views = {'train': False, 'cover': True, 'test_views': (2, 3), 'frames': 2}
    evaluated = clips(rectangles.folder, named(rectangles)[::-1], shots=2, **views)
    assert evaluated.shots.content()['chosen'] == content['chosen'] and len(evaluated) == 5 * 6
    other = clips(rectangles.folder, named(rectangles), shots=2, shots_seed=1)
    assert other.fingerprint() != source.fingerprint()
    assert clips(rectangles.folder, named(rectangles)).shots is None


def test_shots_tell_the_parts_of_one_video_apart(rectangles):
    labels = tuple(rec.ClipLabel('walk', start, start + 0.25) for start in (0.0, 0.5, 1.0, 1.5))
    records = [rec.VideoRecord('v00', path='v00.mp4', labels=labels)]
    starts = {tuple(clips(rectangles.folder, records, shots=2, shots_seed=seed).truth()['time']) for seed in range(9)}
    assert len(starts) > 3 and all(len(each) == 2 for each in starts)


def test_folds_of_clips_hold_out_videos(rectangles):
    held_out = []
    for fold in range(2):
        view = {'shots': 3, 'folds': 2, 'fold': fold}
        training, evaluated = (
            clips(rectangles.folder, named(rectangles), train=train, **view) for train in (True, False)
        )
        assert not set(training.truth()['video']) & set(evaluated.truth()['video'])
        assert len(training) + len(evaluated) == 7
        held_out += list(evaluated.truth()['video'])
    assert len(held_out) == len(set(held_out)) == 7
    with pytest.raises(sources.DataError, match='source studio: folds is 2, but folds are of the shots'):
        clips(rectangles.folder, named(rectangles), folds=2)
