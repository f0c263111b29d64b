"""Kinetics, Moments in Time, Something-Something, UCF-101, folders: published layouts, and round trips."""

import dataclasses
import json

import pytest

from vidloc.annotations import class_list, folders, formats, kinetics, moments, something, ucf101
from vidloc.annotations.records import AnnotationError, ClipLabel, VideoRecord

SEEDS = range(15)
CLASSES = ('air drumming', 'zumba', 'tying knot (not on a tie)', "massaging person's head", 'comma, and', 'schlürfen')
IDS = ('-5KQ66BBWC4', '_dbcJuKJQNs', '0a_b-c', 'with space', 'ümlaut', 'a,b', '---QUuC4vJs')


def _label(made, most=1):
    return tuple(ClipLabel(name) for name in made.rng.permutation(CLASSES)[:most].tolist())


def _codes(call):
    with pytest.raises(AnnotationError) as raised:
        call()
    return [problem.code for problem in raised.value.problems]


@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize('labelled', [True, False])
def test_kinetics_round_trip(generate, tmp_path, seed, labelled):
    made = generate(seed)
    records = []
    for name in sorted(IDS):
        start = int(made.rng.integers(0, 990000))
        subset = [None, 'train', 'validate'][made.rng.integers(3)]
        labels = _label(made, 1 + int(made.rng.integers(2))) if labelled else ()
        video = f'{name}_{start:06d}_{start + int(made.rng.integers(1, 9999)):06d}'
        records.append(VideoRecord(video, subset=subset, labels=labels))
    kinetics.write_kinetics(tmp_path / 'k.csv', records)
    assert kinetics.read_kinetics(tmp_path / 'k.csv', CLASSES) == sorted(records, key=lambda record: record.video)


@pytest.mark.parametrize('seed', SEEDS)
def test_moments_round_trip(generate, tmp_path, seed):
    made = generate(seed)
    records = []
    for number in range(6):
        label = _label(made)
        path = f'{label[0].label}/getty-{IDS[number]}_{number}.mp4'
        records.append(VideoRecord(path, path=path, labels=label))
    records.sort(key=lambda record: record.video)
    moments.write_moments(tmp_path / 'm.csv', records)
    notes = []
    assert moments.read_moments(tmp_path / 'm.csv', CLASSES, notes=notes) == records
    assert notes == []


@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize('labelled', [True, False])
def test_something_round_trip(generate, tmp_path, seed, labelled):
    made = generate(seed)
    ids = sorted(str(number) for number in made.rng.choice(220847, 8, replace=False))
    records = [VideoRecord(name, labels=_label(made) if labelled else ()) for name in ids]
    something.write_something(tmp_path / 's.json', records)
    assert something.read_something(tmp_path / 's.json', CLASSES) == records


@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize('numbers', [True, False])
def test_ucf101_round_trip(generate, tmp_path, seed, numbers):
    made = generate(seed)
    records = []
    for number in range(6):
        label = _label(made)
        path = f'{label[0].label}/v_{number}.avi'
        records.append(VideoRecord(path, path=path, labels=label))
    records.sort(key=lambda record: record.video)
    ucf101.write_ucf101(tmp_path / 'u.txt', records, CLASSES, numbers=numbers)
    assert ucf101.read_ucf101(tmp_path / 'u.txt', CLASSES) == records


@pytest.mark.parametrize('subset', [None, 'train'])
@pytest.mark.parametrize('seed', range(3))
def test_folders_round_trip(generate, tmp_path, seed, subset):
    made = generate(seed)
    records = []
    for number in range(6):
        label = _label(made)
        parts = [*([subset] if subset else []), label[0].label, f'{IDS[number]}.mp4']
        (tmp_path / 'raw').mkdir(exist_ok=True)
        (tmp_path / 'raw' / f'{number}.mp4').write_bytes(bytes([number]))
        records.append(VideoRecord('/'.join(parts), path='/'.join(parts), subset=subset, labels=label))
    for record in records:
        place = tmp_path / 'raw' / record.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(record.path.encode())
    folders.write_folders(tmp_path / 'out', records, tmp_path / 'raw')
    found = folders.read_folders(tmp_path / 'out', CLASSES, subset)
    assert found == sorted(records, key=lambda record: record.video)
    assert all((tmp_path / 'out' / record.path).read_bytes() == record.path.encode() for record in found)


def test_kinetics_as_published(tmp_path):
    path = tmp_path / 'k.csv'
    path.write_text(
        'label,youtube_id,time_start,time_end,split,is_cc\n'
        'abseiling,-3B32lodo2M,59,69,val,0\n"air drumming",_dbcJuKJQNs,40.0,50.0,val,1\nzumba,abc,0,10,train,0\n'
    )
    notes = []
    found = formats.KineticsFiles((str(path),), subset='val').read()
    assert found == [
        VideoRecord('-3B32lodo2M_000059_000069', subset='val', labels=(ClipLabel('abseiling'),)),
        VideoRecord('_dbcJuKJQNs_000040_000050', subset='val', labels=(ClipLabel('air drumming'),)),
    ]
    assert class_list.read_class_list(path) == ('abseiling', 'air drumming', 'zumba')
    (tmp_path / 'names.txt').write_text('abseiling\nair_drumming\nzumba\n')
    spelt = kinetics.read_kinetics(path, tmp_path / 'names.txt', notes=notes)
    assert [record.labels[0].label for record in spelt] == ['abseiling', 'air_drumming', 'zumba'] and notes == []


def test_kinetics_test_list_has_no_labels(tmp_path):
    (tmp_path / 'test.csv').write_text('youtube_id,time_start,time_end,split\n--6bJUbfpnQ,17,27,test\n')
    assert kinetics.read_kinetics(tmp_path / 'test.csv') == [VideoRecord('--6bJUbfpnQ_000017_000027', subset='test')]


KINETICS = 'label,youtube_id,time_start,time_end,split\n'


@pytest.mark.parametrize(
    ('text', 'code'),
    [
        ('abseiling,x,59,69,val\n', 'header-missing'),
        ('label,youtube_id,time_start,duration\nzumba,x,1,2\n', 'header-missing'),
        (KINETICS, 'file-empty'),
        (KINETICS + 'zumba,x,59,69\n', 'column-count'),
        (KINETICS + 'zumba,#NAME?,59,69,val\n', 'id-spoilt'),
        (KINETICS + 'zumba,x,69,59,val\n', 'clip-order'),
        (KINETICS + 'zumba,x,5.5,15,val\n', 'time-not-whole'),
        (KINETICS + 'zumba,x,59,,val\n', 'timestamp-not-a-number'),
        (KINETICS + 'zumba,a/b,59,69,val\n', 'video-path-refused'),
        (KINETICS + 'zumba,..\\b,59,69,val\n', 'video-path-refused'),
        (KINETICS + ',x,59,69,val\n', 'label-missing'),
        (KINETICS + 'zunba,x,59,69,val\n', 'label-unknown'),
        (KINETICS + 'zumba,x,59,69,val\nzumba,x,59,69,train\n', 'clip-in-two-splits'),
        (KINETICS + 'zumba,x,59,69,train\n', 'subset-unknown'),
    ],
)
def test_kinetics_traps(tmp_path, text, code):
    (tmp_path / 'k.csv').write_text(text)
    assert _codes(lambda: kinetics.read_kinetics(tmp_path / 'k.csv', CLASSES, 'val')) == [code]


def test_kinetics_warnings(tmp_path):
    (tmp_path / 'k.csv').write_text(KINETICS + 2 * 'zumba,x,59,69,val\n' + 'schlürfen,x,59,69,val\n')
    notes = []
    (record,) = kinetics.read_kinetics(tmp_path / 'k.csv', notes=notes)
    assert record.labels == (ClipLabel('zumba'), ClipLabel('schlürfen'))
    assert [(note.code, note.line) for note in notes] == [('duplicate-row', 3), ('clip-two-labels', 4)]


def test_kinetics_refuses_to_write_what_it_could_not_read(tmp_path):
    clip = VideoRecord('a_000001_000011', labels=(ClipLabel('zumba'),))
    for records in (
        [dataclasses.replace(clip, video='a_1_11')],
        [dataclasses.replace(clip, video='a_000011_000001')],
        [clip, dataclasses.replace(clip, video='b_000001_000011', labels=())],
        [dataclasses.replace(clip, labels=(ClipLabel(' '),))],
    ):
        with pytest.raises(ValueError):
            kinetics.write_kinetics(tmp_path / 'k.csv', records)
    assert not (tmp_path / 'k.csv').exists()


def test_moments_as_published(tmp_path):
    (tmp_path / 'moments_categories.txt').write_text('clapping,0\nblocking,1\nplaying+music,2\n')
    (tmp_path / 'm.csv').write_text(
        'blocking/getty-karate-video-id635808620_4.mp4,blocking,3,0\nplaying+music/yt-5of6ffo6-Bw_205.mp4,playing+music,4,1\n'
    )
    found = formats.MomentsFiles((str(tmp_path / 'm.csv'),), str(tmp_path / 'moments_categories.txt')).read()
    assert [(record.path, record.labels[0].label) for record in found] == [
        ('blocking/getty-karate-video-id635808620_4.mp4', 'blocking'),
        ('playing+music/yt-5of6ffo6-Bw_205.mp4', 'playing+music'),
    ]
    assert class_list.read_class_list(tmp_path / 'moments_categories.txt') == ('clapping', 'blocking', 'playing+music')


@pytest.mark.parametrize(
    ('text', 'code'),
    [
        ('zumba/a.mp4,zumba,3\n', 'column-count'),
        ('zumba/a.mp4,zumba,3,x\n', 'count-not-a-number'),
        ('zumba/a.mp4,,3,0\n', 'label-missing'),
        ('zumba/a.mp4,zunba,3,0\n', 'label-unknown'),
        ('0-3-6/a.mp4,12,54,7,9\n', 'label-is-number'),
        ('/zumba/a.mp4,zumba,3,0\n', 'video-path-refused'),
    ],
)
def test_moments_traps(tmp_path, text, code):
    (tmp_path / 'm.csv').write_text(text)
    assert _codes(lambda: moments.read_moments(tmp_path / 'm.csv', CLASSES)) == [code]


def test_moments_folder_of_another_name(tmp_path):
    (tmp_path / 'm.csv').write_text('other/a.mp4,zumba,3,0\n')
    notes = []
    (record,) = moments.read_moments(tmp_path / 'm.csv', notes=notes)
    assert record.labels == (ClipLabel('zumba'),) and [note.code for note in notes] == ['label-differs-from-folder']


def test_something_as_published(tmp_path):
    names = {'Approaching something with your camera': '0', 'Holding something next to something': '1'}
    (tmp_path / 'labels.json').write_text(json.dumps(names))
    clips = [
        {
            'id': '78687',
            'label': 'holding potato next to vicks vaporub bottle',
            'template': 'Holding [something] next to [something]',
            'placeholders': ['potato', 'vicks vaporub bottle'],
        },
        {'id': '42', 'label': 'x', 'template': 'Approaching [something] with your camera', 'placeholders': ['x']},
    ]
    (tmp_path / 'train.json').write_text(json.dumps(clips))
    found = formats.SomethingFiles((str(tmp_path / 'train.json'),), str(tmp_path / 'labels.json')).read()
    assert found == [
        VideoRecord('42', labels=(ClipLabel('Approaching something with your camera'),)),
        VideoRecord('78687', labels=(ClipLabel('Holding something next to something'),)),
    ]
    assert class_list.read_class_list(tmp_path / 'labels.json') == tuple(names)
    (tmp_path / 'test.json').write_text('[{"id": "7"}, {"id": 5}]')
    assert something.read_something(tmp_path / 'test.json') == [VideoRecord('5'), VideoRecord('7')]
    (tmp_path / 'test-answers.csv').write_text('7;Holding something next to something\n')
    assert something.read_something(tmp_path / 'test-answers.csv', tmp_path / 'labels.json') == [
        VideoRecord('7', labels=(ClipLabel('Holding something next to something'),))
    ]


@pytest.mark.parametrize(
    ('name', 'text', 'code'),
    [
        ('s.json', '{"zumba": "0"}', 'json-layout'),
        ('s.json', '[', 'json-syntax'),
        ('s.json', '[]', 'file-empty'),
        ('s.json', '[{"template": "zumba"}]', 'json-layout'),
        ('s.json', '[{"id": "1", "label": "zumba"}]', 'template-missing'),
        ('s.json', '[{"id": "1", "template": 3}]', 'label-missing'),
        ('s.json', '[{"id": "1", "template": "[zunba]"}]', 'label-unknown'),
        ('s.json', '[{"id": "1", "template": "zumba"}, {"id": "1", "template": "schlürfen"}]', 'clip-two-labels'),
        ('s.json', '[{"id": "1", "template": "zumba"}, {"id": "2"}]', 'label-missing'),
        ('s.json', '[{"id": "../1", "template": "zumba"}]', 'video-path-refused'),
        ('s.csv', '1,zumba\n', 'label-missing'),
    ],
)
def test_something_traps(tmp_path, name, text, code):
    (tmp_path / name).write_text(text)
    assert _codes(lambda: something.read_something(tmp_path / name, CLASSES)) == [code]


@pytest.mark.parametrize(
    ('label', 'expected'),
    [
        ('Pulling something from left to right', True),
        ('Turning the camera right while filming something', True),
        ('turn_left', True),
        ('TurnLeft', True),
        ('LEFT', True),
        ('Putting something upright on the table', False),
        ('brightening', False),
        ('eating leftovers', False),
        ('', False),
    ],
)
def test_sided(label, expected):
    assert something.sided(label) is expected


def test_ucf101_as_published(tmp_path):
    (tmp_path / 'classInd.txt').write_text('1 ApplyEyeMakeup\r\n2 ApplyLipstick\r\n')
    (tmp_path / 'trainlist01.txt').write_text('ApplyLipstick/v_ApplyLipstick_g08_c01.avi 2\n')
    (tmp_path / 'testlist01.txt').write_text('ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi\n')
    lists = (str(tmp_path / 'trainlist01.txt'), str(tmp_path / 'testlist01.txt'))
    found = formats.UcfFiles(lists, str(tmp_path / 'classInd.txt')).read()
    assert [(record.path, record.labels[0].label) for record in found] == [
        ('ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi', 'ApplyEyeMakeup'),
        ('ApplyLipstick/v_ApplyLipstick_g08_c01.avi', 'ApplyLipstick'),
    ]


@pytest.mark.parametrize(
    ('text', 'code'),
    [
        ('zumba/a.avi 0\n', 'label-index-out-of-range'),
        ('zumba/a.avi 7\n', 'label-index-out-of-range'),
        ('zumba/a.avi 1\n', 'label-differs-from-folder'),
        ('zunba/a.avi\n', 'label-unknown'),
        ('a.avi 2\n', 'label-unknown'),
        ('../zumba/a.avi 2\n', 'video-path-refused'),
    ],
)
def test_ucf101_traps(tmp_path, text, code):
    (tmp_path / 'u.txt').write_text(text)
    assert _codes(lambda: ucf101.read_ucf101(tmp_path / 'u.txt', CLASSES)) == [code]


def _tree(root, *files):
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b'')


def test_folders_as_they_are(tmp_path):
    _tree(tmp_path, 'val/zumba/b.mp4', 'val/air_drumming/a.MP4', 'val/zumba/.hidden.mp4', 'val/readme.txt', '.git/x')
    notes = []
    found = folders.read_folders(tmp_path, CLASSES, 'val', notes=notes)
    assert found == [
        VideoRecord('val/air_drumming/a.MP4', 'val/air_drumming/a.MP4', 'val', labels=(ClipLabel('air drumming'),)),
        VideoRecord('val/zumba/b.mp4', 'val/zumba/b.mp4', 'val', labels=(ClipLabel('zumba'),)),
    ]
    assert [note.code for note in notes] == ['file-not-a-video']
    assert formats.FolderFiles((str(tmp_path),), subset='val').read()[0].labels == (ClipLabel('air_drumming'),)


@pytest.mark.parametrize(
    ('files', 'subset', 'code'),
    [
        (['train/zumba/a.mp4'], None, 'folder-too-deep'),
        (['train/zumba/a.mp4'], 'val', 'subset-unknown'),
        (['train/zumba/a.mp4'], '..', 'subset-unknown'),
        (['a.mp4', 'zumba/b.mp4'], None, 'video-without-class'),
        (['zunba/b.mp4'], None, 'label-unknown'),
        (['zumba/b.txt'], None, 'file-empty'),
    ],
)
def test_folders_traps(tmp_path, files, subset, code):
    _tree(tmp_path, *files)
    assert code in _codes(lambda: folders.read_folders(tmp_path, (*CLASSES, 'train') if subset else CLASSES, subset))


def test_folder_missing(tmp_path):
    assert _codes(lambda: folders.read_folders(tmp_path / 'none')) == ['folder-missing']


def test_two_clips_of_one_name_are_not_laid_out(tmp_path):
    records = [VideoRecord(path, path=path, labels=(ClipLabel('zumba'),)) for path in ('a/x.mp4', 'b/x.mp4')]
    with pytest.raises(ValueError, match='would both be'):
        folders.write_folders(tmp_path / 'out', records, tmp_path)
    assert not (tmp_path / 'out').exists()


GOOD = {
    'k.csv': KINETICS + ''.join(f'zumba,id{row},{row},{row + 10},train\n' for row in range(6)),
    'm.csv': ''.join(f'zumba/{row}.mp4,zumba,3,{row}\n' for row in range(6)),
    's.json': json.dumps([{'id': str(row), 'template': '[zumba]', 'placeholders': []} for row in range(6)]),
    'u.txt': ''.join(f'zumba/{row}.avi 2\n' for row in range(6)),
}
READERS = {
    'k.csv': kinetics.read_kinetics,
    'm.csv': moments.read_moments,
    's.json': something.read_something,
    'u.txt': ucf101.read_ucf101,
}
SNIPPETS = (b',', b'"', b'\n', b'nan', b'1e999', b'[', b'}', b'null', b'..', b'/', b'\\', b'\x00', b'\xff', b'9' * 500)


@pytest.mark.parametrize('name', GOOD)
def test_damaged_files_are_read_or_refused(tmp_path, name, generate):
    rng = generate(len(GOOD[name])).rng
    (tmp_path / name).write_text(GOOD[name])
    assert len(READERS[name](tmp_path / name, CLASSES)) == 6
    refused = 0
    for _ in range(120):
        data = bytearray(GOOD[name].encode())
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(len(data)))
            data[at : at + int(rng.integers(0, 9))] = SNIPPETS[rng.integers(len(SNIPPETS))]
        (tmp_path / name).write_bytes(bytes(data))
        try:
            READERS[name](tmp_path / name, CLASSES)
        except AnnotationError as error:
            refused += 1
            assert all(problem.message and problem.fix and problem.code for problem in error.problems)
    assert 10 < refused <= 120
