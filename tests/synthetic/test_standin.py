"""The stand-in has the layouts of the real sets, reads back as what it is, and depends on its seed alone."""

import collections
import hashlib
import re

import numpy as np
import pytest

from vidloc.annotations import ava, class_list, kinetics, moments, proposals, something
from vidloc.data import video
from vidloc.synthetic import standin, standin_names

# Smaller than any size that the tool offers.
FEW = standin.Size((48, 64), 48, {'ava': (1, 1), 'kinetics': (4, 3), 'moments': (6, 1), 'something': (8, 2)})
LABELS = 'ava/ava_action_list_v2.2_for_activitynet_2019.pbtxt'


@pytest.fixture(scope='module')
def make(tmp_path_factory):
    def make(seed):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(standin.SIZES, 'few', FEW)
            patch.setattr(standin, 'SCENES', (6, 5))
            return standin.make(tmp_path_factory.mktemp('data') / 'sets', 'few', seed)

    return make


@pytest.fixture(scope='module')
def made(make):
    return make(3)


def files(root):
    paths = (path for path in sorted(root.rglob('*')) if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_the_same_seed_gives_the_same_files_and_another_one_others(make, made):
    again, other = make(3), make(4)
    assert files(made) == files(again)
    assert not {'ava/ava_train_v2.2.csv', 'ava/kinetics_val_v1.0.csv'} & {
        name for name, digest in files(other).items() if files(made).get(name) == digest
    }
    assert not list(made.parent.glob('.*'))


def test_what_is_there_is_used_or_left_alone(made, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(standin.SIZES, 'few', FEW)
        before = files(made)
        assert standin.make(made, 'few', 3) == made and files(made) == before
        with pytest.raises(standin.StandinError, match='left alone'):
            standin.make(made, 'few', 4)
    (tmp_path / 'own').mkdir()
    (tmp_path / 'own' / 'thesis.txt').write_text('x')
    with pytest.raises(standin.StandinError, match='something else'):
        standin.make(tmp_path / 'own')
    with pytest.raises(standin.StandinError, match='tiny, small'):
        standin.make(tmp_path / 'new', 'huge')
    assert not (tmp_path / 'new').exists()


def test_the_action_list_is_that_of_ava():
    # Gu et al. 2018: 14 poses, 49 manipulations of objects, 17 interactions; 60 of them are evaluated.
    assert list(standin_names.AVA) == list(range(1, 81)) and len(set(standin_names.AVA.values())) == 80
    assert len(standin_names.EVALUATED) == 60
    known = {1: 'bend/bow (at the waist)', 12: 'stand', 17: 'carry/hold (an object)', 64: 'fight/hit (a person)'}
    known |= {14: 'walk', 63: 'write', 74: 'listen to (a person)', 80: 'watch (a person)'}
    assert {number: standin_names.AVA[number] for number in known} == known


@pytest.mark.parametrize('split', standin.SPLITS)
def test_ava_reads_back_and_its_detections_find_it(made, split):
    folder = made / 'ava'
    excluded = folder / f'ava_{split}_excluded_timestamps_v2.2.csv'
    included = folder / 'ava_included_timestamps_v2.2.txt'
    rows = (folder / f'ava_{split}_v2.2.csv').read_text().splitlines()
    assert all(re.fullmatch(r'[\w-]{11},09\d\d(,[01]\.\d{3}){4},\d{1,2},\d+', row) for row in rows)
    read = ava.read_ava([folder / f'ava_{split}_v2.2.csv'], made / LABELS, excluded, included)
    assert [len(record.keyframes) for record in read] == [
        len({row.split(',')[1] for row in rows if row.startswith(record.video)}) for record in read
    ]
    # Between two scenes nobody is annotated: that second is among the excluded ones.
    assert ava.read_excluded(excluded)['timestamp'].tolist() == [906.0]
    boxes = folder / 'person_box_67091280_iou90'
    tail = '_include_negative_v2.2' if split == 'train' else ''
    found = ava.read_detections(boxes / f'ava_detection_{split}_boxes_and_labels{tail}.csv', made / LABELS, included)
    assert any(person.labels for record in found for person in record.boxes) == (split == 'train')
    pickled = proposals.read_proposals(folder / f'ava_dense_proposals_{split}.FAIR.recall_93.9.pkl', included)
    assert [len(record.boxes) for record in pickled] == [len(record.boxes) for record in found]
    near = [
        person.box
        for person in found[0].boxes
        if any(
            other.time == person.time and np.abs(np.subtract(other.box, person.box)).max() < 0.1
            for other in read[0].boxes
        )
    ]
    assert len(near) > 0.5 * len(found[0].boxes)


def test_boxes_hold_people_where_the_movie_shows_them(made):
    """Clock, file and boxes belong together: inside a box the picture moves more than beside all boxes."""
    (record,) = ava.read_ava([made / 'ava/ava_train_v2.2.csv'], made / LABELS)
    inside, outside = [], []
    path = made / f'ava/videos/{record.video}.mp4'
    for time in record.keyframes:
        frames = video.read_frames(path, np.array([time - 0.25, time + 0.25]) - 900.0).astype(np.float32)
        moved = np.abs(frames[1] - frames[0]).mean(axis=-1)  # [H, W]
        mask = np.zeros(moved.shape, bool)
        for person in record.boxes:
            if person.time == time:
                x1, y1, x2, y2 = np.multiply(person.box, [64, 48, 64, 48]).round().astype(int)
                mask[y1:y2, x1:x2] = True
        inside.append(moved[mask].mean())
        outside.append(moved[~mask].mean())
    assert np.mean(inside) > 4 * np.mean(outside)


def test_ava_kinetics_has_both_kinds_of_rows_on_the_clock_of_the_whole_video(made):
    rows = [row.split(',') for row in (made / 'ava/kinetics_train_v1.0.csv').read_text().splitlines()]
    assert {len(row) for row in rows} == {2, 7}
    assert any(float(row[1]) % 1 for row in rows)
    for split in standin.SPLITS:
        read = ava.read_ava([made / f'ava/kinetics_{split}_v1.0.csv'], made / LABELS)
        spans = {}
        for path in (made / 'k700' / split).rglob('*.mp4'):
            name, start, end = re.fullmatch(r'(.+)_(\d{6})_(\d{6})', path.stem).groups()
            spans[name] = (int(start), int(end))
        assert {record.video for record in read} == set(spans)
        for record in read:
            (time,) = record.keyframes
            assert spans[record.video][0] < time < spans[record.video][1]


@pytest.mark.parametrize('version', ['k400', 'k700'])
def test_kinetics_lists_name_clips_that_are_there(made, version):
    classes = class_list.read_class_list(made / version / 'annotations/train.csv')
    for split in standin.SPLITS:
        clips = kinetics.read_kinetics(made / version / f'annotations/{split}.csv', classes, split)
        there = {path.stem for path in (made / version / split).rglob('*.mp4')}
        assert clips and {clip.video for clip in clips} <= there
    folders = {path.parent.name for path in (made / version / 'train').rglob('*.mp4')}
    assert folders == ({'train'} if version == 'k400' else {*classes, 'unlabelled'})


def test_moments_and_something_read_back(made):
    names = class_list.read_class_list(made / 'mit/moments_categories.txt')
    clips = moments.read_moments(made / 'mit/trainingSet.csv', names)
    assert {clip.labels[0].label for clip in clips} == set(names)
    assert all((made / 'mit/training' / clip.path).is_file() for clip in clips)
    names = class_list.read_class_list(made / 'ssv2/labels/labels.json')
    clips = something.read_something(made / 'ssv2/labels/train.json', names)
    assert collections.Counter(clip.labels[0].label for clip in clips) == collections.Counter(names)
    path = made / f'ssv2/20bn-something-something-v2/{clips[0].video}.webm'
    assert path.read_bytes()[:4] == b'\x1aE\xdf\xa3'  # EBML, the container of WebM
    assert len(video.index_video(path).times) == standin.SOMETHING_SECONDS * standin.SOMETHING_FPS


@pytest.mark.parametrize('number', [0, 1])
def test_sides_of_something_are_true(made, number):
    """The place where the picture moves goes to the right for `left to right`, and back for the other."""
    template, _, side = standin_names.SOMETHING[number]
    path = made / f'ssv2/20bn-something-something-v2/{1000 + number}.webm'
    frames = video.read_frames(path, np.arange(4, 33) / standin.SOMETHING_FPS).astype(np.float32)  # [T, H, W, 3]
    columns = frames.std(axis=1).mean(axis=-1)  # [T, W]
    weight = np.clip(columns - np.median(columns, axis=1, keepdims=True), 0.0, None)
    centre = (weight * np.arange(48)).sum(axis=1) / weight.sum(axis=1)
    assert template.endswith('left to right' if side > 0 else 'right to left')
    assert np.sign(np.polyfit(np.arange(len(centre)), centre, 1)[0]) == side
