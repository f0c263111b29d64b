import hashlib
import pickle

import numpy as np
import pytest

from vidloc.annotations import records as rec
from vidloc.data import keyframes, sources

CLASSES = ('walk', 'wave', 'talk')


def seen_box(frame, colour):
    """Bounding box (pixels) of what has this colour in a frame [H, W, 3], None if nothing has."""
    near = np.abs(frame.astype(int) - np.array(colour)).max(axis=-1) < 110
    rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) if len(rows) else None


def person(box, *labels, time=1.0, score=None):
    return rec.PersonBox(time, box, labels, score)


def record(*people, name='v00', keyframes=(1.0,)):
    return rec.VideoRecord(name, keyframes=keyframes, boxes=people)


@pytest.mark.parametrize('seed', range(20))
def test_boxes_stay_on_the_people(rectangles, seed):
    """Zoom, shift and mirror: what the box holds is what it held in the file."""
    source = rectangles.source(rectangles.folder, 1, size=(96, 96), box_jitter=0.0, frames=1)
    sample = source.load(0, np.random.default_rng(seed))
    colours = {(1.0, 0.0, 0.0): rectangles.red, (0.0, 1.0, 1.0): rectangles.blue}
    assert 1 <= len(sample['boxes']) <= 2
    for box, original, labels in zip(sample['boxes'], sample['source_boxes'], sample['labels'], strict=True):
        colour = colours[tuple(labels.tolist())]
        np.testing.assert_allclose(seen_box(sample['video'][0], colour), box * 96, atol=1.6)
        np.testing.assert_allclose(original, rectangles.box_of(colour), atol=1e-6)


def test_the_random_view_uses_its_whole_range(rectangles):
    source = rectangles.source(rectangles.folder, 1, size=(96, 96), box_jitter=0.0, frames=1)
    samples = [source.load(0, np.random.default_rng(seed)) for seed in range(60)]
    widths = [np.ptp(sample['boxes'][0][[0, 2]]) for sample in samples if len(sample['boxes']) == 2]
    full = np.ptp(np.array(rectangles.box_of(rectangles.red))[[0, 2]])
    assert min(widths) < 0.75 * full and max(widths) > full
    both = [sample['boxes'] for sample in samples if len(sample['boxes']) == 2]
    mirrored = [boxes[0, 0] > boxes[1, 0] for boxes in both]
    assert 0.2 < np.mean(mirrored) < 0.8


def test_box_jitter_moves_boxes_a_little_and_source_boxes_not(rectangles):
    plain = {'size': rectangles.size, 'scale': (1.0, 1.0), 'flip': 0.0}
    source = rectangles.source(rectangles.folder, 1, box_jitter=0.15, **plain)
    expected = np.array([rectangles.box_of(colour) for colour in (rectangles.red, rectangles.blue)])
    sides = np.tile(expected[:, 2:] - expected[:, :2], 2)
    moves = []
    for seed in range(30):
        sample = source.load(0, np.random.default_rng(seed))
        moves.append((sample['boxes'] - expected) / sides)
        np.testing.assert_allclose(sample['source_boxes'], expected, atol=1e-6)
    assert np.abs(moves).max() <= 0.15 + 1e-5
    assert np.abs(moves).max() > 0.13 and abs(np.mean(moves)) < 0.03


def test_without_randomness_nothing_is_augmented(rectangles):
    source = rectangles.source(rectangles.folder, 1, size=rectangles.size)
    one, other = source.load(0, None), source.load(0, None)
    np.testing.assert_array_equal(one['video'], other['video'])
    np.testing.assert_array_equal(one['boxes'], one['source_boxes'])


def test_the_keyframe_is_in_the_middle_of_the_clip(rectangles):
    record_at = record(person((0.1, 0.1, 0.5, 0.5), 'walk'))
    source = rectangles.source(rectangles.folder, 1, records=[record_at], size=rectangles.size, frames=4)
    shades = source.load(0, None)['video'][:, -2:, :, 0].mean(axis=(1, 2))
    np.testing.assert_allclose(shades, [60, 70, 80, 90], atol=4)  # frame i is 10 i; one second is frame 8
    late = rectangles.source(rectangles.folder, 1, records=[record_at], size=rectangles.size, frames=4, time_offset=0.5)
    np.testing.assert_allclose(late.load(0, None)['video'][:, -2:, :, 0].mean(axis=(1, 2)), shades - 40, atol=4)


def test_truth_keeps_keyframes_without_boxes(rectangles):
    source = rectangles.source(rectangles.folder, 2)
    truth = source.truth()
    assert len(source) == 2  # nothing to train on at 1.5 s
    empty = truth['action_id'] == -1
    assert sorted(truth['timestamp'][empty]) == [1.0, 1.0, 1.5, 1.5]
    assert np.isnan(truth['x1'][empty]).all()
    np.testing.assert_array_equal(source.label_counts(), [2, 2, 2])
    np.testing.assert_allclose(source.label_share(), [0.5, 0.5, 0.5])


def test_detections_without_labels_take_those_of_the_truth_they_match(rectangles):
    truth = person((0.1, 0.1, 0.5, 0.5), 'walk')
    near = person((0.12, 0.1, 0.5, 0.5), score=0.9)
    far = person((0.6, 0.6, 0.9, 0.9), score=0.8)
    faint = person((0.1, 0.1, 0.5, 0.5), score=0.3)
    given = [record(truth, near, far, faint)]
    source = rectangles.source(rectangles.folder, 1, records=given, boxes='detections')
    sample = source.load(0, None)
    np.testing.assert_allclose(sample['box_scores'], [0.9, 0.8])
    np.testing.assert_array_equal(sample['labels'], [[1, 0, 0], [0, 0, 0]])
    both = rectangles.source(rectangles.folder, 1, records=given, boxes='both').load(0, None)
    np.testing.assert_allclose(both['box_scores'], [1.0, 0.9, 0.8])
    strict = rectangles.source(rectangles.folder, 1, records=given, boxes='detections', match_iou=0.99)
    assert not strict.load(0, None)['labels'].any()
    # Only what a person drew counts as truth.
    np.testing.assert_array_equal(source.label_counts(), [1, 0, 0])


def test_a_box_that_is_drawn_and_detected_is_one_person(rectangles):
    box = (0.1, 0.1, 0.5, 0.5)
    given = [record(person(box, 'walk'), person(box, 'talk', score=0.9), person((0.6, 0.6, 0.9, 0.9), score=0.8))]
    source = rectangles.source(rectangles.folder, 1, records=given, boxes='both')
    sample = source.load(0, None)
    np.testing.assert_allclose(sample['box_scores'], [1.0, 0.8])
    np.testing.assert_array_equal(sample['labels'], [[1, 0, 1], [0, 0, 0]])
    np.testing.assert_array_equal(source.label_counts(), [1, 0, 0])


def test_too_many_boxes_name_the_source(rectangles):
    crowd = [record(*(person((0.1, 0.1, 0.5, 0.5), 'walk') for _ in range(5)))]
    with pytest.raises(sources.DataError, match=r'source street: v00 has 5 boxes at 1 s, .*sources\.street\.max_boxes'):
        rectangles.source(rectangles.folder, 1, records=crowd)


def test_missing_videos_are_listed(rectangles):
    records = rectangles.keyframes(10) + rectangles.keyframes(7, name='lost')
    with pytest.raises(sources.DataError, match=r'7 of 17 videos are not in .*lost00, lost01.* and 2 more') as caught:
        rectangles.source(rectangles.folder, 10, records=records)
    assert str(rectangles.folder) in str(caught.value)


def test_a_missing_folder_says_which_setting_to_give(rectangles, tmp_path):
    with pytest.raises(sources.DataError, match=r'--config\.sources\.street\.videos=DIR.*v00\.mp4'):
        keyframes.KeyframeSource(
            'street', keyframes.Keyframes(videos=str(tmp_path / 'no')), rectangles.keyframes(1), CLASSES, train=True
        )


def test_a_keyframe_in_no_clip_of_its_video_is_missing(rectangles, tmp_path, caplog):
    """One clip of a video is there, another one is not: its keyframes must not be read from the end of the first."""
    rectangles.write(tmp_path / 'film_000010_000012.mp4')
    box = (0.1, 0.1, 0.5, 0.5)
    people = (person(box, 'walk', time=11.0), person(box, 'wave', time=31.0), person(box, time=31.0, score=0.9))
    given = [record(*people, name='film', keyframes=(11.0, 31.0))]
    with pytest.raises(sources.DataError, match=r'1 keyframes are in no clip .*film at 31 s; .*leave_out'):
        rectangles.source(tmp_path, 0, records=given)
    found = rectangles.source(tmp_path, 0, records=given, missing='leave_out', train=False)
    assert [example.time for example in found.examples] == [11.0]
    assert sorted(set(found.truth()['timestamp'])) == [11.0]
    assert found.left_out == ('film',) and 'film at 31 s' in caplog.text


def test_of_clips_that_overlap_the_one_with_more_around_the_keyframe_is_read(rectangles, tmp_path):
    for name in ('film_000000_000002.mp4', 'film_000001_000003.mp4'):
        rectangles.write(tmp_path / name)
    box = (0.1, 0.1, 0.5, 0.5)
    people = [person(box, 'walk', time=time) for time in (0.5, 1.25, 1.75, 2.5)]
    given = [record(*people, name='film', keyframes=(0.5, 1.25, 1.75, 2.5))]
    found = rectangles.source(tmp_path, 0, records=given)
    assert [example.start for example in found.examples] == [0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize('records', [[], [rec.VideoRecord('v00', keyframes=(1.0,))]])
def test_no_example_is_an_error(rectangles, records):
    with pytest.raises(sources.DataError, match='source street: no example is left'):
        rectangles.source(rectangles.folder, 1, records=records)


def test_an_unknown_choice_of_boxes_is_an_error(rectangles):
    with pytest.raises(sources.DataError, match="'guess'; known: truth, detections, both"):
        rectangles.source(rectangles.folder, 1, boxes='guess')


def test_the_fingerprint_follows_the_examples(rectangles):
    one = rectangles.source(rectangles.folder, 3)
    again = rectangles.source(rectangles.folder, 3, records=rectangles.keyframes(3)[::-1], size=(16, 16))
    fewer = rectangles.source(rectangles.folder, 3, records=rectangles.keyframes(2))
    assert one.fingerprint() == again.fingerprint() and one.fingerprint()['size'] == 3
    assert one.fingerprint() != fewer.fingerprint()


def test_a_source_travels_light(rectangles):
    """Workers hold all examples: columns, whose pickle grows by what a keyframe says, not by objects for it."""
    people = tuple(person((0.1, 0.1, 0.5, 0.5), 'walk', time=float(time)) for time in range(2000))
    given = [record(*people, keyframes=tuple(float(time) for time in range(2000)))]
    source = rectangles.source(rectangles.folder, 1, records=given)
    assert len(pickle.dumps(source)) < 160 * 2000


LEFT, MIDDLE, RIGHT = (0.0, 0.1, 0.2, 0.9), (0.4, 0.1, 0.6, 0.9), (0.8, 0.1, 1.0, 0.9)


def crowd(count=4):
    """`count` videos, three keyframes each with three people; near each a detection, and one of nobody."""
    records = []
    for number in range(count):
        people = []
        for time in (0.5, 1.0, 1.5):
            people += [person(LEFT, 'walk', time=time), person(MIDDLE, 'wave', 'talk', time=time)]
            people += [person(RIGHT, time=time), person((0.25, 0.1, 0.3, 0.3), time=time, score=0.9)]
            people += [person((x, 0.1, x + 0.2, 0.88), time=time, score=0.8) for x in (0.0, 0.4, 0.8)]
        records.append(record(*people, name=f'v{number:02d}', keyframes=(0.5, 1.0, 1.5)))
    return records


def few(rectangles, *, records=None, **view):
    fields = {'shots': 2, 'max_boxes': 8}
    return rectangles.source(rectangles.folder, 4, records=crowd() if records is None else records, **fields | view)


def rows_of(truth):
    """{(video, time, box): classes} of the people in a truth."""
    found = {}
    for row in zip(*(truth[name] for name in ('video', 'timestamp', 'x1', 'y1', 'x2', 'y2', 'action_id')), strict=True):
        if row[-1] >= 0:
            found.setdefault((row[0], float(row[1]), tuple(float(side) for side in row[2:6])), set()).add(int(row[-1]))
    return found


@pytest.mark.parametrize('train', [True, False])
def test_shots_leave_nothing_but_the_people_drawn(rectangles, train):
    """Neither examples nor truth know of others, so figures of such a source are of its shots alone."""
    source = few(rectangles, train=train)
    people = rows_of(source.truth())
    assert len(people) == 4 and sorted(map(sorted, people.values())) == [[0], [0], [1, 2], [1, 2]]
    shown = {
        (example.video, example.time, tuple(box)): set(np.flatnonzero(labels).tolist())
        for example in source.examples
        for box, labels in zip(example.boxes.tolist(), example.labels, strict=True)
    }
    assert shown == people
    truth = source.truth()
    marks = truth['action_id'] == -1
    keyframes = set(zip(truth['video'][marks], truth['timestamp'][marks], strict=True))
    assert keyframes == {(video, time) for video, time, _ in people} and len(source) == len(keyframes)
    np.testing.assert_array_equal(source.label_counts(), [2, 2, 2])
    chosen = source.shots.content()['chosen']
    assert {(row[0], row[1], tuple(row[2:6])): {CLASSES.index(label) for label in row[6]} for row in chosen} == people


def test_the_draw_is_of_the_annotations_and_of_nothing_else(rectangles):
    """Methods that are compared see the same people, whatever their clips and boxes are."""
    chosen = few(rectangles).shots.content()['chosen']
    for view in (
        {'frames': 4, 'rate': 2.0, 'size': (16, 16), 'time_offset': 0.0, 'flip': 0.0},
        {'boxes': 'detections', 'match_iou': 0.6, 'threshold': 0.1},
        {'boxes': 'both', 'train': False},
        {'records': crowd()[::-1]},
    ):
        assert few(rectangles, **view).shots.content()['chosen'] == chosen
    assert few(rectangles, shots_seed=1).shots.content()['chosen'] != chosen
    assert len(few(rectangles, shots=3).shots.held) == 6


@pytest.mark.parametrize('train', [True, False])
def test_of_detections_those_stay_that_stand_for_the_people_drawn(rectangles, train):
    source = few(rectangles, boxes='detections', train=train)
    shown = [
        (example.video, example.time, round(float(box[0]), 3), labels.tolist(), float(score))
        for example in source.examples
        for box, labels, score in zip(example.boxes, example.labels, example.scores, strict=True)
    ]
    labels_at = {0.0: [1, 0, 0], 0.4: [0, 1, 1]}
    expected = [(video, time, box[0], labels_at[box[0]]) for video, time, box in rows_of(source.truth())]
    assert sorted(row[:4] for row in shown) == sorted(expected)
    assert all(score == pytest.approx(0.8) for *_, score in shown)
    both = few(rectangles, boxes='both', train=train)
    assert sum(len(example.boxes) for example in both.examples) == 2 * len(expected)


def test_a_shot_that_no_detection_shows_is_not_learned_but_counts_in_evaluation(rectangles):
    records = crowd()
    blind = [
        rec.VideoRecord(
            each.video,
            keyframes=each.keyframes,
            boxes=tuple(box for box in each.boxes if box.score is None or box.box[0] != 0.0),
        )
        for each in records
    ]
    training = few(rectangles, records=blind, boxes='detections')
    np.testing.assert_array_equal(training.label_counts(), [0, 2, 2])
    content = training.shots.content()
    assert content['lost'] == 2 and content['per_class'] == {'walk': 0, 'wave': 2, 'talk': 2}
    assert content['short'] == {} and '2 more were drawn but cannot be shown' in training.shots.line()
    evaluated = few(rectangles, records=blind, boxes='detections', train=False)
    np.testing.assert_array_equal(evaluated.label_counts(), [2, 2, 2])
    assert sum(len(example.boxes) for example in evaluated.examples) == 2


def test_folds_hold_out_videos_of_the_shots(rectangles):
    everything = rows_of(few(rectangles, shots=6).truth())
    held_out = {}
    for fold in range(2):
        view = {'shots': 6, 'folds': 2, 'fold': fold}
        training, evaluated = (rows_of(few(rectangles, train=train, **view).truth()) for train in (True, False))
        assert not {video for video, *_ in training} & {video for video, *_ in evaluated}
        assert training | evaluated == everything and training and evaluated
        held_out |= evaluated
    assert held_out == everything


def test_shots_in_videos_that_are_not_there_are_lost_and_told(rectangles):
    records = crowd(4)
    gone = [rec.VideoRecord(f'gone{each.video}', keyframes=each.keyframes, boxes=each.boxes) for each in records]
    with pytest.raises(sources.DataError, match='videos are not in'):
        few(rectangles, records=records + gone, shots=12)
    source = few(rectangles, records=records + gone, shots=12, missing='leave_out')
    content = source.shots.content()
    assert content['lost'] > 0 and content['lost'] + len(content['chosen']) == 24
    assert {row[0] for row in content['chosen']} <= {each.video for each in records}
    assert rows_of(source.truth()).keys() == {(row[0], row[1], tuple(row[2:6])) for row in content['chosen']}
    # Videos without a shot need not be there.
    spare = [rec.VideoRecord('spare', keyframes=(1.0,), boxes=(person(LEFT, time=1.0),))]
    assert few(rectangles, records=records + spare).shots.content()['lost'] == 0


def test_the_fingerprint_tells_other_shots_of_the_same_keyframes(rectangles):
    people = [person((x, 0.1, x + 0.1, 0.9), 'walk') for x in (0.0, 0.3, 0.6)]
    marks = {
        few(rectangles, records=[record(*people)], shots=1, shots_seed=seed).fingerprint()['sha256']
        for seed in range(9)
    }
    assert len(marks) == 3
    plain = few(rectangles, records=[record(*people)], shots=0)
    keys = [example.key for example in plain.examples]
    assert plain.shots is None
    assert plain.fingerprint() == {'size': 1, 'sha256': hashlib.sha256('\n'.join(keys).encode()).hexdigest()}


def test_numbers_of_shots_without_sense_are_refused(rectangles):
    with pytest.raises(sources.DataError, match='source street: fold is 2; folds=2 are numbered 0 to 1'):
        few(rectangles, folds=2, fold=2)
    with pytest.raises(sources.DataError, match='source street: the shots lie in 1 videos, too few for 2 folds'):
        few(rectangles, records=crowd(1), folds=2)
