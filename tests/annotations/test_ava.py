"""AVA ground truth, label maps and detections: what rows mean."""

import pytest

from vidloc.annotations import ava, formats
from vidloc.annotations.records import AnnotationError, PersonBox, VideoRecord


@pytest.fixture
def label_map(tmp_path):
    ava.write_label_map(tmp_path / 'map.pbtxt', {1: 'stand', 3: 'talk', 5: 'run'})
    return tmp_path / 'map.pbtxt'


def _read(tmp_path, label_map, text, **options):
    (tmp_path / 'a.csv').write_text(text)
    return ava.read_ava([tmp_path / 'a.csv'], label_map, **options)


def test_rows_with_the_same_box_are_one_person(tmp_path, label_map):
    text = 'v,0902,0.1,0.2,0.3,0.4,1,7\nv,902.0,0.1,0.2,0.3,0.5,5,8\nv,902,0.100,0.2,0.3,0.4,3,7\n'
    (record,) = _read(tmp_path, label_map, text)
    assert record.boxes == (
        PersonBox(902.0, (0.1, 0.2, 0.3, 0.4), ('stand', 'talk'), None, '7'),
        PersonBox(902.0, (0.1, 0.2, 0.3, 0.5), ('run',), None, '8'),
    )
    assert record.keyframes == (902.0,)


def test_rows_of_two_seven_and_eight_columns(tmp_path, label_map):
    text = 'b,0904\na,12.5,0.1,0.2,0.3,0.4,1\nb,0902,0.1,0.2,0.3,0.4,5,2\nb,0903,,,,,,\nb,0905,0.1,0.2,0.3,0.4,,\n'
    first, second = _read(tmp_path, label_map, text)
    assert first == VideoRecord('a', keyframes=(12.5,), boxes=(PersonBox(12.5, (0.1, 0.2, 0.3, 0.4), ('stand',)),))
    assert second.keyframes == (902.0, 903.0, 904.0, 905.0)
    assert [(person.time, person.labels, person.track) for person in second.boxes] == [
        (902.0, ('run',), '2'),
        (905.0, (), None),
    ]


def test_excluded_keyframes_are_left_out(tmp_path, label_map):
    (tmp_path / 'x.csv').write_text('v,902\nw,0902\nelse,5\n')
    text = 'v,0902,0.1,0.2,0.3,0.4,1,7\nv,0903,0.1,0.2,0.3,0.4,1,7\nw,0902\n'
    (record,) = _read(tmp_path, label_map, text, excluded=tmp_path / 'x.csv')
    assert (record.video, record.keyframes, len(record.boxes)) == ('v', (903.0,), 1)
    columns = ava.read_excluded(tmp_path / 'x.csv')
    assert columns['video'].tolist() == ['else', 'v', 'w'] and columns['timestamp'].tolist() == [5.0, 902.0, 902.0]


def test_ids_outside_the_list_of_60_are_dropped_and_counted(tmp_path, label_map):
    notes = []
    text = 'v,0902,0.1,0.2,0.3,0.4,1,7\nv,0903,0.1,0.2,0.3,0.4,80,7\nv,0904,0.1,0.2,0.3,0.4,1,7\n'
    (record,) = _read(tmp_path, label_map, text, notes=notes)
    assert record.keyframes == (902.0, 903.0, 904.0)
    assert [person.labels for person in record.boxes] == [('stand',), (), ('stand',)]
    assert [problem.code for problem in notes] == ['action-outside-label-map']
    assert '1 labels with 1 ids' in notes[0].message


def test_several_files_make_one_list(tmp_path, label_map):
    (tmp_path / 'a.csv').write_text('b,0902,0.1,0.2,0.3,0.4,1,7\n')
    (tmp_path / 'k.csv').write_text('a,12.25,0.1,0.2,0.3,0.4,1\n')
    records = ava.read_ava([tmp_path / 'a.csv', tmp_path / 'k.csv'], label_map)
    assert [record.video for record in records] == ['a', 'b']


@pytest.mark.parametrize(
    'text',
    [
        'item {\n  name: "stand"\n  id: 1\n}\nitem {\n  name: "talk to (e.g., self)"\n  id: 80\n}\n',
        'label {\n  name: "stand"\n  label_id: 1\n  label_type: PERSON_MOVEMENT\n}\n'
        'label {\n  name: "talk to (e.g., self)"\n  label_id: 80\n  label_type: PERSON_INTERACTION\n}\n',
        '# a list\nitem { name: "stand" id: 1 } item { id: 80 name: \'talk to (e.g., self)\' }',
        '\ufeffitem {\r\n  name: "stand"\r\n  id: 1\r\n}\r\nitem{name:"talk to (e.g., self)" id:80}\r\n',
    ],
)
def test_label_map_styles(tmp_path, text):
    path = tmp_path / 'map.pbtxt'
    path.write_bytes(text.encode())
    assert ava.read_label_map(path) == {1: 'stand', 80: 'talk to (e.g., self)'}


def test_written_label_map_suits_the_official_parser(label_map):
    lines = label_map.read_text().splitlines()
    assert [line for line in lines if line.startswith('  name:') or line.startswith('  id:')][:2] == [
        '  name: "stand"',
        '  id: 1',
    ]


def test_written_timestamps(tmp_path):
    people = tuple(PersonBox(time, (0.1, 0.2, 0.3, 0.4), ('run',)) for time in (2.0, 902.0, 902.5, 1e-7 + 3, 12345.0))
    record = VideoRecord('v', keyframes=tuple(person.time for person in people), boxes=people)
    ava.write_ava(tmp_path / 'a.csv', [record], {5: 'run'})
    times = [line.split(',')[1] for line in (tmp_path / 'a.csv').read_text().splitlines()]
    assert times == ['0002', '3.0000001', '0902', '902.5', '12345']


def test_detections_merge_labels_of_one_box(tmp_path, label_map):
    (tmp_path / 'd.csv').write_text(
        'v,0902,0.1,0.2,0.3,0.4,1,0.9\nv,0902,0.1,0.2,0.3,0.4,3,0.9\nv,0902,0.5,0.2,0.7,0.4,,0.25\nv,0903\n'
    )
    (record,) = ava.read_detections(tmp_path / 'd.csv', label_map)
    assert record.keyframes == (902.0, 903.0)
    assert record.boxes == (
        PersonBox(902.0, (0.1, 0.2, 0.3, 0.4), ('stand', 'talk'), 0.9),
        PersonBox(902.0, (0.5, 0.2, 0.7, 0.4), (), 0.25),
    )


@pytest.mark.parametrize(
    'person',
    [
        PersonBox(1.0, (0.1, 0.2, 0.3, 0.4), ('unknown',)),
        PersonBox(1.0, (0.3, 0.2, 0.1, 0.4), ('run',)),
        PersonBox(1.0, (10, 20, 30, 40), ('run',)),
        PersonBox(1.0, (0.1, 0.2, float('nan'), 0.4), ('run',)),
        PersonBox(-1.0, (0.1, 0.2, 0.3, 0.4), ('run',)),
        PersonBox(1.0, (0.1, 0.2, 0.3, 0.4), ('run',), None, 'a\nb'),
    ],
)
def test_writers_refuse_what_readers_would(tmp_path, person):
    record = VideoRecord('v', keyframes=(person.time,), boxes=(person,))
    with pytest.raises(ValueError):
        ava.write_ava(tmp_path / 'a.csv', [record], {5: 'run'})
    assert list(tmp_path.iterdir()) == []


def test_detections_without_score_are_refused(tmp_path):
    record = VideoRecord('v', keyframes=(1.0,), boxes=(PersonBox(1.0, (0.1, 0.2, 0.3, 0.4)),))
    with pytest.raises(ValueError, match='needs a score'):
        ava.write_detections(tmp_path / 'd.csv', [record])


def test_keyframes_off_the_included_list_are_refused(tmp_path, label_map):
    (tmp_path / 'i.txt').write_text('0902\n0903\n\n904\n')
    assert ava.read_included(tmp_path / 'i.txt') == {902.0, 903.0, 904.0}
    text = 'v,0902,0.1,0.2,0.3,0.4,1,7\nv,0904\n'
    (record,) = _read(tmp_path, label_map, text, included=tmp_path / 'i.txt')
    assert record.keyframes == (902.0, 904.0)
    with pytest.raises(AnnotationError) as raised:  # times from the start of the 15 minutes
        _read(tmp_path, label_map, text + 'v,0002,0.1,0.2,0.3,0.4,1,7\n', included=tmp_path / 'i.txt')
    (problem,) = raised.value.problems
    assert (problem.code, problem.line) == ('timestamp-not-included', 3)
    (tmp_path / 'd.csv').write_text('v,0902,0.1,0.2,0.3,0.4,,0.5\nv,0905,0.1,0.2,0.3,0.4,,0.5\n')
    with pytest.raises(AnnotationError) as raised:
        ava.read_detections(tmp_path / 'd.csv', included=tmp_path / 'i.txt')
    assert [problem.line for problem in raised.value.problems] == [2]


@pytest.mark.parametrize('text', ['', 'v,0902\n', '0902,0903\n', '09:02\n'])
def test_broken_lists_of_included_seconds(tmp_path, text):
    (tmp_path / 'i.txt').write_text(text)
    with pytest.raises(AnnotationError):
        ava.read_included(tmp_path / 'i.txt')


LISTS = {
    '60 classes': ('item {{\n  name: "{name}"\n  id: {id}\n}}\n', (1, 3, 80), 1),
    '80 classes': (
        'label {{\n  name: "{name}"\n  label_id: {id}\n  label_type: PERSON_MOVEMENT\n}}\n',
        (1, 2, 3, 80),
        0,
    ),
}


@pytest.mark.parametrize('style', LISTS)
def test_files_as_published(tmp_path, style):
    """AVA of either version, its two lists, and AVA-Kinetics beside it, read as one set."""
    form, ids, dropped = LISTS[style]
    (tmp_path / 'list.pbtxt').write_text(''.join(form.format(name=f'action {id}', id=id) for id in ids))
    (tmp_path / 'ava.csv').write_text(
        '-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,80,1\n-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,2,1\n'
        '-5KQ66BBWC4,0903,0.077,0.151,0.283,0.811,1,1\n'
    )
    (tmp_path / 'kinetics.csv').write_text('-_a1b2c3d4e,2.5,0.1,0.2,0.3,0.4,3\nZZ0abcdefg_,117.033333\n')
    (tmp_path / 'excluded.csv').write_text('-5KQ66BBWC4,0903\n')
    (tmp_path / 'boxes.csv').write_text('-5KQ66BBWC4,902,0.1,0.2,0.3,0.4,,0.93\n-_a1b2c3d4e,2.5,0.1,0.2,0.3,0.4,,0.3\n')
    found = formats.AvaFiles(
        annotations=(str(tmp_path / 'ava.csv'), str(tmp_path / 'kinetics.csv')),
        labels=str(tmp_path / 'list.pbtxt'),
        detections=(str(tmp_path / 'boxes.csv'),),
        excluded=str(tmp_path / 'excluded.csv'),
    ).read()
    assert [(record.video, record.keyframes) for record in found] == [
        ('-5KQ66BBWC4', (902.0,)),
        ('-_a1b2c3d4e', (2.5,)),
        ('ZZ0abcdefg_', (117.033333,)),
    ]
    truth, detection = found[0].boxes
    assert truth.labels == ('action 80', 'action 2')[: 2 - dropped] and truth.track == '1'
    assert detection.score == 0.93
    assert found[1].boxes[0].labels == ('action 3',) and found[1].boxes[0].track is None
