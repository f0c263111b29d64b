"""The look before training: what it refuses, what it only says, and what it must not mind."""

import dataclasses
import shutil

import pytest

from vidloc.annotations import records as rec
from vidloc.data import clips, keyframes, readiness

CLASSES = ('walk', 'wave', 'talk')


def boxes(folder, records, *, train=True, name='street', classes=CLASSES, **view):
    fields = {'frames': 2, 'rate': 8.0, 'size': (24, 32), 'max_boxes': 4, 'boxes': 'truth'}
    given = keyframes.Keyframes(videos=str(folder), **{**fields, **view})
    return keyframes.KeyframeSource(name, given, records, classes, train=train)


def labelled(folder, names, *, train=True, label='walk', **view):
    records = [
        rec.VideoRecord(name, path=f'{name}.mp4' if '/' in name else None, labels=(rec.ClipLabel(label),))
        for name in names
    ]
    given = clips.Clips(videos=str(folder), frames=2, rate=8.0, size=(24, 32), **view)
    return clips.ClipSource('clips', given, records, CLASSES, train=train)


def codes(problems):
    return [(problem.code, problem.severity) for problem in problems]


@pytest.fixture
def halves(rectangles):
    """Ten videos, half for training, half for evaluation."""
    records = rectangles.keyframes(10)
    return records[:5], records[5:]


def test_good_sources_have_no_problem(rectangles, halves):
    street = {'street': boxes(rectangles.folder, halves[0])}
    val = {'street': boxes(rectangles.folder, halves[1], train=False)}
    assert readiness.quick(street, val) == []


def test_a_video_in_training_and_evaluation_is_an_error(rectangles):
    records = rectangles.keyframes(6)
    street, val = boxes(rectangles.folder, records[:4]), boxes(rectangles.folder, records[2:], train=False)
    (problem,) = readiness.quick({'street': street}, {'other': val})
    assert codes([problem]) == [('video-in-two-sources', 'error')]
    assert '2 videos' in problem.message and 'v02, v03' in problem.message
    assert str(problem).startswith('sources.street and eval_sources.other: ')


def test_shots_may_be_evaluated_themselves_and_held_out_ones_share_nothing(rectangles):
    records = rectangles.keyframes(4)
    shots = {'street': boxes(rectangles.folder, records, shots=3)}
    seen = {'seen': boxes(rectangles.folder, records, train=False, shots=3)}
    (problem,) = readiness.quick(shots, seen)
    assert codes([problem]) == [('video-in-two-sources', 'warning')] and 'shots that were learned' in problem.fix
    view = {'shots': 3, 'folds': 3, 'fold': 1}
    held_out = {'held_out': boxes(rectangles.folder, records, train=False, **view)}
    assert readiness.quick({'street': boxes(rectangles.folder, records, **view)}, held_out) == []
    assert codes(readiness.quick(shots, held_out)) == [('video-in-two-sources', 'error')]


def test_what_is_meant_to_be_of_training_data_may_be(rectangles):
    records = rectangles.keyframes(6)
    street, val = boxes(rectangles.folder, records[:4]), boxes(rectangles.folder, records[2:], train=False)
    assert readiness.quick({'street': street}, {'other': val}, seen=('other',)) == []
    assert codes(readiness.quick({'street': street}, {'other': val}, seen=('street',)))


def test_tasks_of_other_classes_may_share_videos(rectangles):
    records = rectangles.keyframes(2)
    val = boxes(rectangles.folder, records, train=False, classes=(*CLASSES, 'run'))
    assert readiness.quick({'a': boxes(rectangles.folder, records)}, {'b': val}) == []


def test_names_alone_prove_nothing_but_equal_files_do(rectangles, tmp_path):
    for split in ('train', 'val', 'copy'):
        (tmp_path / split / 'walk').mkdir(parents=True)
    rectangles.write(tmp_path / 'train/walk/1.mp4')
    rectangles.write(tmp_path / 'val/walk/1.mp4', seconds=1)
    shutil.copy(tmp_path / 'train/walk/1.mp4', tmp_path / 'copy/walk/1.mp4')
    training = {'clips': labelled(tmp_path / 'train', ['walk/1'])}
    absent = ('class-without-example', 'warning')
    found = readiness.quick(training, {'clips': labelled(tmp_path / 'val', ['walk/1'], train=False)})
    assert codes(found) == [('video-name-in-two-sources', 'warning'), absent]
    found = readiness.quick(training, {'clips': labelled(tmp_path / 'copy', ['walk/1'], train=False)})
    assert codes(found) == [('video-in-two-sources', 'error'), absent]


def test_clips_of_one_video_are_told(rectangles, tmp_path):
    for name in ('a-_b_000001_000003', 'a-_b_000011_000013', 'c_000001_000003'):
        rectangles.write(tmp_path / f'{name}.mp4')
    training = {'clips': labelled(tmp_path, ['a-_b_000001_000003', 'c_000001_000003'])}
    found = readiness.quick(training, {'clips': labelled(tmp_path, ['a-_b_000011_000013'], train=False)})
    assert codes(found)[0] == ('clips-of-one-video-in-two-sources', 'warning')
    assert 'a-_b)' in found[0].message
    for name in ('v_Walk_g08_c01', 'v_Walk_g08_c02', 'v_Walk_g01_c01'):
        rectangles.write(tmp_path / f'{name}.mp4')
    training = {'clips': labelled(tmp_path, ['v_Walk_g08_c01'])}
    for other, told in (('v_Walk_g08_c02', True), ('v_Walk_g01_c01', False)):
        found = codes(readiness.quick(training, {'clips': labelled(tmp_path, [other], train=False)}))
        assert (('clips-of-one-video-in-two-sources', 'warning') in found) is told


class Numbered:
    """Footage whose keys, like those of prepared sets, are no paths."""

    def __init__(self, footage, folder):
        self.inner, self.folder = footage, folder

    def timeline(self, key):
        return self.inner.timeline(key.partition(':')[2])

    def read(self, key, times):
        if self.folder == 'refuses':
            raise ValueError(f'{key}: the frames do not lie within one chunk')
        return self.inner.read(key.partition(':')[2], times)


def numbered(source, folder):
    source.footage = Numbered(source.footage, folder)
    source.examples = [dataclasses.replace(each, path=f'0:{each.path}') for each in source.examples]
    return source


def test_keys_belong_to_their_folder(rectangles):
    records = rectangles.keyframes(2)
    one, other = (numbered(boxes(rectangles.folder, records, train=i == 0), f'set{i}') for i in range(2))
    assert codes(readiness.quick({'a': one}, {'b': other})) == [('video-name-in-two-sources', 'warning')]
    assert codes(readiness.quick({'a': one}, {'b': one})) == [('video-in-two-sources', 'error')]
    (problem,) = readiness.quick({'a': numbered(boxes(rectangles.folder, records), 'refuses')}, {})
    assert problem.code == 'videos-unreadable' and 'within one chunk' in problem.message


def test_all_sampled_videos_broken_is_an_error_and_some_a_warning(rectangles, tmp_path):
    records = rectangles.keyframes(4)
    for i in range(4):
        rectangles.write(tmp_path / f'v{i:02d}.mp4')
    source = boxes(tmp_path, records)
    (tmp_path / 'v01.mp4').write_bytes(b'')
    (problem,) = readiness.quick({'street': source}, {})
    assert codes([problem]) == [('videos-unreadable', 'warning')] and '1 of 4' in problem.message
    for i in range(4):
        (tmp_path / f'v{i:02d}.mp4').write_bytes(b'no')
    (problem,) = readiness.quick({}, {'street': source})
    assert codes([problem]) == [('videos-unreadable', 'error')]
    assert problem.file == 'eval_sources.street' and 'v00.mp4' in problem.message


def test_moments_outside_of_most_videos_are_an_error(rectangles, halves):
    offset = boxes(rectangles.folder, halves[0], time_offset=900.0)
    (problem,) = readiness.quick({'street': offset}, {})
    assert codes([problem]) == [('keyframe-beyond-video', 'error')]
    assert (
        '5 of 5' in problem.message
        and 'v00 is annotated at 1 to 1 s, its file goes from 900 to 902 s' in problem.message
    )
    late = [dataclasses.replace(halves[0][0], keyframes=(9.0,), boxes=(rec.PersonBox(9.0, (0, 0, 1, 1), CLASSES),))]
    (problem,) = readiness.quick({'street': boxes(rectangles.folder, [*late, *halves[0][1:]])}, {})
    assert codes([problem]) == [('keyframe-beyond-video', 'warning')] and '1 of 5' in problem.message


def test_a_class_without_example_counts_all_sources_of_its_task(rectangles, halves):
    walk = [rec.VideoRecord('v00', keyframes=(1.0,), boxes=(rec.PersonBox(1.0, (0, 0, 1, 1), ('walk',)),))]
    talk = [rec.VideoRecord('v01', keyframes=(1.0,), boxes=(rec.PersonBox(1.0, (0, 0, 1, 1), ('talk',)),))]
    one, other = boxes(rectangles.folder, walk), boxes(rectangles.folder, talk)
    (problem,) = readiness.quick({'one': one, 'other': other}, {})
    assert codes([problem]) == [('class-without-example', 'warning')]
    assert (
        problem.file == 'sources.one, sources.other'
        and '1 of 3 classes' in problem.message
        and '(wave)' in problem.message
    )


def test_clips_of_more_frames_than_the_video_has(rectangles, halves):
    (problem,) = readiness.quick({'street': boxes(rectangles.folder, halves[0], rate=15.0)}, {})
    assert codes([problem]) == [('rate-above-video', 'warning')]
    assert 'take 15 frames a second, v00 has 8' in problem.message


def test_only_a_seeded_sample_is_opened(rectangles, tmp_path, monkeypatch):
    monkeypatch.setattr(readiness, 'SAMPLE', 3)
    rectangles.write(tmp_path / 'v.mp4')
    for i in range(12):
        shutil.copy(tmp_path / 'v.mp4', tmp_path / f'v{i:02d}.mp4')
    opened = []

    class Counting(type(boxes(tmp_path, rectangles.keyframes(1)))):
        def load(self, index, rng):
            opened.append(self.examples[index].video)
            return super().load(index, rng)

    view = keyframes.Keyframes(videos=str(tmp_path), frames=2, rate=8.0, size=(24, 32), boxes='truth')
    source = Counting('street', view, rectangles.keyframes(12), CLASSES, train=True)
    assert readiness.quick({'street': source}, {}) == []
    first, opened[:] = sorted(opened), []
    assert readiness.quick({'street': source}, {}) == []
    assert sorted(opened) == first and len(set(first)) == 3
    opened.clear()
    readiness.quick({'street': source}, {}, seed=1)
    assert sorted(opened) != first


def test_large_files_are_sampled_less(rectangles, tmp_path, monkeypatch):
    """Of ten broken videos only those are opened that may be read: two, or as many as the bytes allow."""
    for i in range(10):
        (tmp_path / f'v{i:02d}.mp4').write_bytes(b'x' * 1000)
    source = boxes(tmp_path, rectangles.keyframes(10))
    for limit, opened in ((500, 2), (5500, 5), (100_000, 10)):
        monkeypatch.setattr(readiness, 'SAMPLE_BYTES', limit)
        (problem,) = readiness.quick({'street': source}, {})
        assert f'{opened} of {opened}' in problem.message or f'all {opened}' in problem.message, problem.message
