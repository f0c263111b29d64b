"""MOMA-LRG's anns.json and its splits: read, refused, written, checked and opened for training and evaluation."""

import copy
import json

import numpy as np
import pytest

from tools import check_data, prepare_data
from vidloc import build, supply
from vidloc.annotations import ava, formats, label_map, moma, moma_splits
from vidloc.annotations.records import AnnotationError, PersonBox, VideoRecord
from vidloc.data import encode, keyframes, sources


def actor(identity, *bbox):
    return {'id': identity, 'class_name': 'player', 'bbox': list(bbox)}


def act(name, source, target=None):
    return {'class_name': name, 'source_id': source} | ({} if target is None else {'target_id': target})


def moment(sub, time, actors=(), **lists):
    empty = ('objects', 'relationships', 'attributes', 'transitive_actions', 'intransitive_actions')
    return {'id': f'{sub}_{time * 1e6:.0f}', 'time': time, 'actors': list(actors)} | {key: [] for key in empty} | lists


def activity(video, *subs, start=0.0, end=9.0):
    return {
        'file_name': f'{video}.mp4',
        'num_frames': 300,
        'width': 200,
        'height': 100,
        'duration': 10.0,
        'activity': {
            'id': video,
            'class_name': 'basketball game',
            'start_time': start,
            'end_time': end,
            'sub_activities': list(subs),
        },
    }


def sub_activity(name, start, end, *moments):
    times = {'start_time': start, 'end_time': end}
    return {'id': name, 'class_name': 'throw', **times, 'higher_order_interactions': list(moments)}


def lrg():
    """Two activities; in the first, one sub-activity ends at 4 s, where the next one begins."""
    throws = moment(
        '00010',
        3.0,
        [actor('A', 20, 10, 60, 80), actor('B', 100, 0, 100, 100)],
        objects=[actor('1', 0, 0, 10, 10)],
        transitive_actions=[act('throwing', 'A', '1'), act('throwing', 'A', 'B'), act('hitting', '1', 'B')],
        intransitive_actions=[act('jumping', 'A'), act('running', 'B')],
        attributes=[act('standing', 'A')],
        relationships=[act('behind', 'A', 'B')],
    )
    last = moment('00010', 4.0, [actor('A', 20, 10, 60, 80)], intransitive_actions=[act('jumping', 'A')])
    first = moment('00011', 4.0, [actor('A', 40, 10, 60, 80)])
    game = activity(
        '-49z-lj8eYQ', sub_activity('00010', 3.0, 4.0, throws, last), sub_activity('00011', 4.0, 5.0, first), start=2.0
    )
    walk = moment('00020', 1.5, [actor('AB', 0, 0, 50, 50)], intransitive_actions=[act('running', 'AB')])
    return [game, activity('second', sub_activity('00020', 1.0, 2.0, walk, moment('00020', 2.0)))]


def written(folder, entries, name='anns.json'):
    path = folder / name
    path.write_text(json.dumps(entries, indent=1))
    return path


@pytest.fixture
def anns(tmp_path):
    return written(tmp_path, lrg())


@pytest.fixture
def splits(tmp_path):
    moma_splits.write_split(tmp_path / 'standard.json', {'train': ['-49z-lj8eYQ'], 'val': [], 'test': ['second']})
    return tmp_path / 'standard.json'


def test_people_boxes_and_actions(anns):
    notes = []
    game, second = moma.read_moma(anns, notes=notes)
    assert (game.video, game.duration, game.keyframes, game.subset, game.stem) == (
        '-49z-lj8eYQ', 10.0, (3.0, 4.0), None, None
    )  # fmt: skip
    assert game.boxes == (
        PersonBox(3.0, (0.1, 0.1, 0.4, 0.9), ('jumping', 'throwing'), None, '00010/A'),
        PersonBox(3.0, (0.5, 0.0, 1.0, 1.0), ('running',), None, '00010/B'),
        PersonBox(4.0, (0.2, 0.1, 0.5, 0.9), (), None, '00011/A'),  # of the sub-activity that begins there
    )
    assert second.keyframes == (1.5, 2.0) and [person.time for person in second.boxes] == [1.5]
    assert [(note.code, note.severity) for note in notes] == [('moment-twice', 'warning')]


def test_which_lists_are_actions_is_chosen(anns):
    game = moma.read_moma(anns, actions=('attributes', 'relationships'))[0]
    assert [person.labels for person in game.boxes] == [('standing', 'behind'), (), ()]
    assert moma.class_names(anns) == ('jumping', 'running', 'throwing')
    assert moma.class_names(anns, ('attributes',)) == ('standing',)
    for wrong in ('atomic_actions', 'actors'):
        with pytest.raises(AnnotationError, match=r'actions-unknown.*intransitive_actions'):
            moma.read_moma(anns, actions=(wrong,))


def test_actions_outside_of_the_list_are_dropped_and_counted(anns):
    notes = []
    game = moma.read_moma(anns, classes=('running', 'throwing'), notes=notes)[0]
    assert [person.labels for person in game.boxes] == [('throwing',), ('running',), ()]
    assert [note.code for note in notes] == ['moment-twice', 'action-outside-label-map']
    assert "2 actions of 1 classes outside the list of classes were dropped ('jumping')" in notes[1].message
    with pytest.raises(AnnotationError, match='wrong-label-map'):
        moma.read_moma(anns, classes=('walking',))


def test_clips_of_activities_begin_at_their_start(anns):
    game, second = moma.read_moma(anns, clips='activity')
    assert (game.keyframes, game.duration) == ((1.0, 2.0), 7.0)
    assert [person.time for person in game.boxes] == [1.0, 1.0, 2.0]
    assert second.keyframes == (1.5, 2.0)
    with pytest.raises(AnnotationError, match='clips-unknown'):
        moma.read_moma(anns, clips='sub_activity')


def test_a_file_may_be_called_other_than_its_activity(tmp_path):
    entries = lrg()
    entries[0]['file_name'] = 'a.b.mp4'
    assert moma.read_moma(written(tmp_path, entries))[0].stem == 'a.b'
    assert moma.read_moma(written(tmp_path, entries), clips='activity')[0].stem is None


def test_splits(anns, splits, tmp_path):
    (train,) = moma.read_moma(anns, splits, 'train')
    assert (train.video, train.subset) == ('-49z-lj8eYQ', 'train')
    assert [record.subset for record in moma.read_moma(anns, splits)] == ['train', 'test']
    (tmp_path / 'test.txt').write_text('second\n')
    assert [record.video for record in moma.read_moma(anns, tmp_path / 'test.txt')] == ['second']
    for subset, text in (('val', 'no video is named'), ('few', "Found: 'train', 'val', 'test'")):
        with pytest.raises(AnnotationError, match=text):
            moma.read_moma(anns, splits, subset)
    with pytest.raises(AnnotationError, match='split-missing'):
        moma.read_moma(anns, subset='train')
    with pytest.raises(AnnotationError, match='no subset'):
        moma.read_moma(anns, tmp_path / 'test.txt', 'test')


@pytest.mark.parametrize(
    ('text', 'code'),
    [
        ('[]', 'json-layout'),
        ('{"train": "x"}', 'json-layout'),
        ('{"train": [1]}', 'json-layout'),
        ('{"train": ["second"], "test": ["second"]}', 'split-duplicate'),
        ('{"train": ["gone"]}', 'split-unknown'),
    ],
)
def test_splits_that_do_not_fit_are_refused(anns, tmp_path, text, code):
    (tmp_path / 's.json').write_text(text)
    with pytest.raises(AnnotationError) as caught:
        moma.read_moma(anns, tmp_path / 's.json')
    assert caught.value.problems[0].code == code and caught.value.problems[0].file == str(tmp_path / 's.json')


def test_videos_of_a_split_that_are_not_annotated_are_told(anns, tmp_path):
    notes = []
    moma_splits.write_split(tmp_path / 's.json', {'train': ['second', 'gone']})
    assert len(moma.read_moma(anns, tmp_path / 's.json', notes=notes)) == 1
    assert [note.code for note in notes] == ['split-unknown'] and '(gone)' in notes[0].message


def place(entries, *path):
    for key in path:
        entries = entries[key]
    return entries


HOI = (0, 'activity', 'sub_activities', 0, 'higher_order_interactions', 0)
# (where, key, new value or None to remove it, code, the text that stands in the line of the problem)
FAULTS = [
    ((0,), 'activity', None, 'key-missing', '{'),
    ((0,), 'width', '200', 'value-invalid', '{'),
    ((0,), 'height', 0, 'size-invalid', '{'),
    ((0,), 'duration', True, 'value-invalid', '{'),
    ((0,), 'file_name', '../x.mp4', 'video-path-refused', '{'),
    ((0, 'activity'), 'id', '/etc/passwd', 'video-path-refused', '{'),
    ((0, 'activity'), 'id', 'second', 'id-duplicate', '{'),
    ((0, 'activity'), 'sub_activities', {}, 'value-invalid', '{'),
    ((0, 'activity', 'sub_activities'), 1, 'x', 'json-layout', '{'),
    ((0, 'activity', 'sub_activities', 0), 'start_time', None, 'key-missing', '"00010"'),
    ((0, 'activity', 'sub_activities', 1), 'id', '00010', 'id-duplicate', '{'),
    (HOI[:-1], 0, None, 'json-layout', '"00010"'),
    (HOI, 'time', float('nan'), 'value-invalid', '"00010_3000000"'),
    (HOI, 'time', -1.0, 'timestamp-negative', '"00010_3000000"'),
    (HOI, 'time', 4.0, 'moment-duplicate', '"00010_4000000"'),
    (HOI, 'id', '00010_4000000', 'id-duplicate', '"00010"'),
    (HOI, 'actors', [None], 'json-layout', '"00010_3000000"'),
    (HOI, 'intransitive_actions', None, 'key-missing', '"00010_3000000"'),
    (HOI, 'intransitive_actions', [act('jumping', 'C')], 'actor-unknown', '"00010_3000000"'),
    (HOI, 'intransitive_actions', [{'source_id': 'A'}], 'key-missing', '"00010_3000000"'),
    (HOI, 'intransitive_actions', [act(' ', 'A')], 'label-name', '"00010_3000000"'),
    ((*HOI, 'actors', 1), 'id', 'A', 'actor-duplicate', '"00010_3000000"'),
    ((*HOI, 'actors', 1), 'id', '1', 'actor-duplicate', '"00010_3000000"'),
    ((*HOI, 'actors', 1), 'bbox', [1, 2, 3], 'box-layout', '"00010_3000000"'),
    ((*HOI, 'actors', 1), 'bbox', [1, 2, '3', 4], 'value-invalid', '"00010_3000000"'),
    ((*HOI, 'actors', 1), 'bbox', [1, 2, 0, 4], 'box-empty', '"00010_3000000"'),
    ((*HOI, 'actors', 1), 'bbox', [1, 2, 10, -4], 'box-empty', '"00010_3000000"'),
    ((*HOI, 'actors', 1), 'bbox', [100, 0, 110, 100], 'box-beyond-frame', '"00010_3000000"'),
    ((*HOI, 'actors', 1), 'bbox', [-10, 0, 50, 100], 'box-beyond-frame', '"00010_3000000"'),
]


@pytest.mark.parametrize(('path', 'key', 'value', 'code', 'line'), FAULTS)
def test_faults_have_a_code_a_place_and_an_advice(tmp_path, path, key, value, code, line):
    entries = copy.deepcopy(lrg())
    holder = place(entries, *path)
    if value is None and isinstance(holder, dict):
        del holder[key]
    else:
        holder[key] = value
    file = written(tmp_path, entries)
    with pytest.raises(AnnotationError) as caught:
        moma.read_moma(file)
    problem = caught.value.problems[0]
    assert (problem.code, problem.file) == (code, str(file)), problem
    assert line in file.read_text().splitlines()[problem.line - 1]
    assert problem.fix.endswith(('.', '?', '}')) and '\n' not in str(problem)


@pytest.mark.parametrize(
    ('text', 'code', 'line'),
    [
        ('', 'file-empty', None),
        ('[]', 'file-empty', None),
        ('{"a": 1}', 'json-layout', 1),
        ('[3]', 'json-layout', 1),
        ('[\n{"a": 1},\n{"a": 1,', 'json-syntax', 3),
        ('[\n{}\n', 'json-syntax', 3),
        ('[{}]\nx', 'json-syntax', 1),
        ('[' + 10_000 * '[', 'json-syntax', 1),
        ('[{"activity": {"id": "a", "id": "b"}}]', 'json-duplicate-key', 1),
    ],
)
def test_files_that_are_no_such_list(tmp_path, text, code, line):
    (tmp_path / 'anns.json').write_text(text)
    with pytest.raises(AnnotationError) as caught:
        moma.read_moma(tmp_path / 'anns.json')
    assert (code, line) in [(problem.code, problem.line) for problem in caught.value.problems]


def test_what_can_be_kept_is_a_warning(tmp_path):
    entries, notes = lrg(), []
    place(entries, *HOI)['actors'][1]['bbox'] = [100, 0, 101, 100]
    place(entries, *HOI)['time'] = 8.0
    game = moma.read_moma(written(tmp_path, entries), notes=notes)[0]
    assert game.keyframes == (4.0, 8.0) and game.boxes[2].box == (0.5, 0.0, 1.005, 1.0)
    assert [note.code for note in notes] == ['moment-outside', 'box-leaves-frame', 'moment-twice']


def made(seed=0):
    """Records with corners on whole pixels of 640 x 360."""
    rng = np.random.default_rng(seed)
    records = []
    for number, video in enumerate(('-a_b', 'ümlaut', 'with space')):
        times = sorted({round(float(value), 6) for value in rng.uniform(0, 20, 4)})
        people = []
        for time in times[:-1]:
            for identity in 'AB'[: rng.integers(0, 3)]:
                x, y, w, h = rng.integers(0, 300), rng.integers(0, 200), rng.integers(1, 300), rng.integers(1, 150)
                labels = tuple(rng.permutation(['run', 'say "hello"', 'hit'])[: rng.integers(0, 4)].tolist())
                box = (x / 640, y / 360, (x + w) / 640, (y + h) / 360)
                people.append(PersonBox(time, box, tuple(sorted(labels)), None, f'{number:05d}/{identity}'))
        records.append(VideoRecord(video, duration=25.5, keyframes=tuple(times), boxes=tuple(people)))
    return sorted(records, key=lambda record: record.video)


@pytest.mark.parametrize('seed', range(8))
def test_what_is_written_is_read_back_the_same(tmp_path, seed):
    records = made(seed)
    moma.write_moma(tmp_path / 'a.json', records, size=(640, 360))
    assert moma.read_moma(tmp_path / 'a.json') == records
    moma.write_moma(tmp_path / 'b.json', records, size=(640, 360), transitive=('hit',))
    again = moma.read_moma(tmp_path / 'b.json')
    assert [sorted(p.labels) for r in again for p in r.boxes] == [sorted(p.labels) for r in records for p in r.boxes]
    assert [r.keyframes for r in moma.read_moma(tmp_path / 'b.json', actions=('attributes',))] == [
        r.keyframes for r in records
    ]


def test_people_without_a_track_get_ids(tmp_path):
    people = (PersonBox(1.0, (0.0, 0.0, 0.5, 0.5), ('run',)), PersonBox(1.0, (0.5, 0.5, 1.0, 1.0)))
    moma.write_moma(tmp_path / 'a.json', [VideoRecord('v', keyframes=(1.0,), boxes=people)])
    (record,) = moma.read_moma(tmp_path / 'a.json')
    assert [person.track for person in record.boxes] == ['v/A', 'v/B'] and record.duration == 2.0
    assert [(person.box, person.labels) for person in record.boxes] == [(p.box, p.labels) for p in people]


@pytest.mark.parametrize(
    ('person', 'said'),
    [
        (PersonBox(1.0, (0.5, 0.1, 0.2, 0.3)), 'second corner'),
        (PersonBox(1.0, (0.1, 0.1, 0.2, 0.3), (' run',)), 'cannot be the name'),
        (PersonBox(1.0, (0.1, 0.1, 0.2, 0.3), (), None, 'A'), 'no <sub-activity>/<actor>'),
        (PersonBox(-1.0, (0.1, 0.1, 0.2, 0.3)), 'cannot be written'),
    ],
)
def test_what_no_reader_would_take_is_not_written(tmp_path, person, said):
    with pytest.raises(ValueError, match=said):
        moma.write_moma(tmp_path / 'a.json', [VideoRecord('v', keyframes=(), boxes=(person,))])
    assert not (tmp_path / 'a.json').exists()


@pytest.fixture
def folder(tmp_path, anns, splits):
    """The annotations with their videos of 10 s."""
    for name in ('-49z-lj8eYQ', 'second'):
        frames = np.random.default_rng(len(name)).integers(0, 255, (40, 50, 100, 3), np.uint8)
        (tmp_path / 'raw').mkdir(exist_ok=True)
        encode.write_video(tmp_path / 'raw' / f'{name}.mp4', frames, 4.0)
    return tmp_path


def test_the_tools_check_write_the_action_list_and_prepare(folder, capsys):
    files = ['--format', 'moma', '--annotations', str(folder / 'anns.json')]
    videos = ['--videos', str(folder / 'raw')]
    split = ['--split', str(folder / 'standard.json')]
    actions, labels = ['--workers', '0', '--write_labels'], str(folder / 'actions.pbtxt')
    assert check_data.main([*files, *videos, *split, '--subset', 'test', *actions, labels]) == 0
    assert '0 errors, 0 warnings' in capsys.readouterr().out
    assert label_map.read_label_map(labels) == {1: 'jumping', 2: 'running', 3: 'throwing'}  # of all subsets
    assert check_data.main([*files, *videos, '--labels', labels, '--workers', '0']) == 0
    assert 'throwing' in (out := capsys.readouterr().out) and 'moment-twice' in out
    # Files of activities are 7 s and 9 s.
    assert check_data.main([*files, *videos, '--clips', 'activity', '--workers', '0', '--json']) == 0
    problems = json.loads(capsys.readouterr().out)['problems']
    assert [problem['code'] for problem in problems] == ['moment-twice', 'duration-differs']
    assert check_data.main([*files, '--actions', 'attributes', '--labels', labels]) == 1
    assert "none of the 1 actions is in the list of classes ('standing')" in capsys.readouterr().out
    assert check_data.main(['--format', 'table', '--annotations', 'x', *split]) == 2
    assert 'format table has no split' in capsys.readouterr().err
    assert prepare_data.main([*files, *videos, '--out', str(folder / 'prepared')]) == 0


def view_of(folder, **more):
    view = {
        'task': 'people',
        'format': 'moma',
        'annotations': (str(folder / 'anns.json'),),
        'labels': str(folder / 'actions.pbtxt'),
        'split': str(folder / 'standard.json'),
        'videos': str(folder / 'raw'),
        'boxes': 'truth',
        'frames': 2,
        'rate': 4.0,
        'size': (16, 32),
        'max_boxes': 4,
    }
    return view | more


def config_of(folder, train, evaluate):
    return build.config(
        name='moma',
        backbone={
            'kind': 'vivit', 'width': 8, 'mlp': 8, 'heads': 2, 'spatial_layers': 1, 'temporal_layers': 1,
            'grid': (1, 2, 4), 'patch': (8, 8), 'tubelet': 2,
        },
        tasks={'people': {'kind': 'action_detection', 'class_list': str(folder / 'actions.pbtxt'), 'num_classes': 3}},
        sources={'moma': train},
        eval_sources={'moma': evaluate},
        optimizer={'kind': 'sgd'},
    )  # fmt: skip


class Task:
    classes = ('jumping', 'running', 'throwing')


def test_a_config_opens_sources_for_training_and_evaluation(folder):
    ava.write_label_map(folder / 'actions.pbtxt', dict(enumerate(Task.classes, 1)))
    config = config_of(folder, view_of(folder, subset='train'), view_of(folder, subset='test'))
    opened = supply.open_sources(config, {'people': Task}, train=True)['moma']
    assert isinstance(opened, keyframes.KeyframeSource) and len(opened) == 2
    sample = opened.load(0, None)
    assert sample['labels'].tolist() == [[1, 0, 1], [0, 1, 0]] and sample['video'].shape == (2, 16, 32, 3)
    np.testing.assert_allclose(sample['source_boxes'][0], (0.1, 0.1, 0.4, 0.9), atol=1e-6)
    assert opened.label_counts().tolist() == [1, 1, 1]
    truth = supply.open_sources(config, {'people': Task}, train=False)['moma'].truth()
    assert truth['timestamp'].tolist() == [1.5, 2.0, 1.5] and truth['action_id'].tolist() == [-1, -1, 1]
    config = config_of(folder, view_of(folder), view_of(folder, labels=''))
    with pytest.raises(sources.DataError, match=r'labels: not set.*--write_labels'):
        supply.open_sources(config, {'people': Task}, train=False)
    config = config_of(folder, view_of(folder), view_of(folder, split=str(folder / 'gone.json')))
    with pytest.raises(sources.DataError, match=r'split .*nothing at'):
        supply.open_sources(config, {'people': Task}, train=False)


def test_detections_go_to_the_moments_that_are_annotated(anns, tmp_path):
    found = PersonBox(1.5, (0.0, 0.0, 0.3, 0.5), (), 0.9)
    ava.write_detections(tmp_path / 'boxes.csv', [VideoRecord('second', keyframes=(1.5,), boxes=(found,))])
    form = formats.MomaFiles((str(anns),), detections=(str(tmp_path / 'boxes.csv'),))
    assert form.files() == {'annotations': (str(anns),), 'detections': (str(tmp_path / 'boxes.csv'),)}
    game, second = form.read()
    assert all(person.score is None for person in game.boxes)
    assert [person.score for person in second.boxes] == [None, 0.9]
