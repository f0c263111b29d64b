"""ActivityNet's JSON as ActionFormer and OpenTAD hand it around."""

import json

import pytest

from tools import check_data
from vidloc.annotations import activitynet, class_list, formats
from vidloc.annotations.records import AnnotationError, Segment, VideoRecord


def annotation(start, end, label, **more):
    return {'segment': [start, end], 'label': label, **more}


def actionformer():
    """THUMOS as ActionFormer has it."""
    dive = [annotation(1.5, 3.25, 'CliffDiving', label_id=1), annotation(1.5, 3.25, 'Diving', label_id=0)]
    return {
        'video_validation_1': {'subset': 'Validation', 'duration': 9.5, 'fps': 29.97, 'annotations': dive},
        'video_validation_2': {'subset': 'Validation', 'duration': 4.0, 'fps': 30.0, 'annotations': []},
        'video_test_1': {'subset': 'Test', 'duration': 7.0, 'fps': 25, 'annotations': dive[1:]},
    }


def opentad():
    """THUMOS as OpenTAD has it."""
    return {
        video: {
            'subset': {'Validation': 'training', 'Test': 'validation'}[entry['subset']],
            'duration': entry['duration'],
            'frame': 100,
            'annotations': [{key: each[key] for key in ('segment', 'label')} for each in entry['annotations']],
        }
        for video, entry in actionformer().items()
    }


def written(path, database, **more):
    path.write_text(json.dumps({'version': 'Thumos14-30fps', 'database': database, **more}))
    return str(path)


def videos(records):
    return [record.video for record in records]


def test_both_worlds_give_the_same_records(tmp_path):
    one = activitynet.read_activitynet(written(tmp_path / 'a.json', actionformer()), 'Validation')
    other = activitynet.read_activitynet(written(tmp_path / 'b.json', opentad()), 'training')
    assert videos(one) == videos(other) == ['video_validation_1', 'video_validation_2']
    assert [record.segments for record in one] == [record.segments for record in other]
    assert set(one[0].segments) == {Segment(1.5, 3.25, 'CliffDiving'), Segment(1.5, 3.25, 'Diving')}
    assert one[1].segments == ()  # a video without actions is kept
    assert [record.fps for record in one] == [29.97, 30.0] and other[0].fps is None


def test_a_subset_is_taken_in_another_case_only_if_none_is_called_so(tmp_path):
    path, notes = written(tmp_path / 'a.json', actionformer()), []
    assert videos(activitynet.read_activitynet(path, 'validation', notes=notes)) == [
        'video_validation_1',
        'video_validation_2',
    ]
    assert [note.code for note in notes] == ['subset-case'] and "'Validation'" in notes[0].message
    both, notes = actionformer(), []
    both['video_test_1']['subset'] = 'validation'
    path = written(tmp_path / 'b.json', both)
    assert videos(activitynet.read_activitynet(path, 'validation', notes=notes)) == ['video_test_1']
    assert not notes
    with pytest.raises(AnnotationError, match=r"Found: 'validation' \(1\), 'Validation' \(2\)"):
        activitynet.read_activitynet(path, 'VALIDATION')


def test_the_other_worlds_subset_is_refused_with_the_names_there_are(tmp_path):
    with pytest.raises(AnnotationError, match=r"'training'.*Found: 'Test' \(1\), 'Validation' \(2\)"):
        activitynet.read_activitynet(written(tmp_path / 'a.json', actionformer()), 'training')


@pytest.mark.parametrize(
    'content', ['["video_validation_1", "x"]', '{"video_validation_1": "gone"}', 'video_validation_1\n\nx\n']
)
def test_blocked_videos_are_left_out_and_counted(tmp_path, content, caplog):
    path, blocked = written(tmp_path / 'a.json', actionformer()), tmp_path / 'blocked.json'
    blocked.write_text(content)
    files = formats.ActivityNetFiles(annotations=(path,), subset='Validation', blocked=str(blocked))
    assert files.files() == {'annotations': (path,), 'blocked': (str(blocked),)}
    assert videos(files.read()) == ['video_validation_2']
    assert '1 of 2 videos are blocked (video_validation_1)' in caplog.text


def test_a_list_that_blocks_everything_is_refused(tmp_path):
    path = written(tmp_path / 'a.json', actionformer())
    with pytest.raises(AnnotationError, match='every video is blocked'):
        activitynet.read_activitynet(path, 'Test', blocked=('video_test_1',))


def test_a_prefix_is_that_of_files_not_of_videos(tmp_path):
    files = formats.ActivityNetFiles(annotations=(written(tmp_path / 'a.json', actionformer()),), prefix='v_')
    record = files.read()[0]
    assert (record.video, record.path, record.stem) == ('video_test_1', None, 'v_video_test_1')


def test_fps_is_written_and_read(tmp_path):
    records = [VideoRecord('v', subset='s', duration=2.5, fps=29.97, segments=(Segment(0.125, 1.0, 'a'),))]
    activitynet.write_activitynet(tmp_path / 'a.json', records)
    assert activitynet.read_activitynet(tmp_path / 'a.json') == records
    with pytest.raises(ValueError, match='0 frames a second cannot be written'):
        activitynet.write_activitynet(tmp_path / 'b.json', [VideoRecord('v', fps=0)])


def test_ids_that_contradict_each_other_or_the_classes_are_noticed(tmp_path):
    database = actionformer()
    path = written(tmp_path / 'a.json', database)
    assert told(path) == told(path, ('Diving', 'CliffDiving')) == []
    assert told(path, ('CliffDiving', 'Diving')) == [
        "'Diving' has the id 0, but is 1 in the list of classes",
        "'CliffDiving' has the id 1, but is 0 in the list of classes",
    ]
    database['video_test_1']['annotations'] = [
        annotation(0, 1, 'Diving', label_id=7),
        annotation(0, 1, 'x', label_id=1),
    ]
    assert told(written(tmp_path / 'b.json', database)) == [
        "the id 1 is that of 'x' and of 'CliffDiving'",
        "'Diving' has the ids 7 and 0",
    ]


def told(path, classes=None):
    notes = []
    activitynet.read_activitynet(path, classes=classes, notes=notes)
    return [note.message for note in notes if note.code == 'label-id']


def test_classes_are_in_the_order_of_their_ids_or_of_their_names(tmp_path):
    database = actionformer()
    assert activitynet.class_order(written(tmp_path / 'a.json', database)) == ('Diving', 'CliffDiving')
    assert activitynet.class_order(written(tmp_path / 'b.json', opentad())) == ('CliffDiving', 'Diving')
    for entry in database.values():
        for each in entry['annotations']:
            each['label_id'] += 1  # a gap: they cannot be the places in a list
    assert activitynet.class_order(written(tmp_path / 'c.json', database)) == ('CliffDiving', 'Diving')


def test_the_tool_checks_and_writes_the_list_of_classes(tmp_path, capsys):
    path, labels = written(tmp_path / 'a.json', actionformer()), tmp_path / 'classes.txt'
    (tmp_path / 'blocked.txt').write_text('video_test_1')
    arguments = ['--format', 'activitynet', '--annotations', path, '--write_labels', str(labels)]
    assert check_data.main([*arguments, '--blocked', str(tmp_path / 'blocked.txt')]) == 0
    assert '1 of 3 videos are blocked' in capsys.readouterr().out
    assert class_list.read_class_list(labels) == ('Diving', 'CliffDiving')
    assert check_data.main(['--format', 'table', '--annotations', path, '--prefix', 'v_']) == 2
    assert 'format table has no prefix' in capsys.readouterr().err


def test_the_tool_writes_the_list_of_classes_of_a_table(tmp_path, capsys):
    path, labels = tmp_path / 'train.csv', tmp_path / 'classes.txt'
    path.write_text('video,start,end,label\na,1,2,run\na,3,4,jump\nb,,,indoors\n')
    assert check_data.main(['--format', 'table', '--annotations', str(path), '--write_labels', str(labels)]) == 0
    assert class_list.read_class_list(labels) == ('jump', 'run')
    path.write_text('video,start,end,label\nb,,,indoors\n')
    assert check_data.main(['--format', 'table', '--annotations', str(path), '--write_labels', str(labels)]) == 2
    assert 'no segments with labels' in capsys.readouterr().err
