"""The validator: problems of several files, and the summary."""

import json

import pytest

from vidloc import build
from vidloc.annotations import ava, check, class_list, proposals, summary
from vidloc.annotations.records import PersonBox, VideoRecord


@pytest.fixture
def label_map(tmp_path):
    ava.write_label_map(tmp_path / 'map.pbtxt', {1: 'stand', 3: 'talk', 5: 'run'})
    return tmp_path / 'map.pbtxt'


def test_summary(tmp_path, label_map):
    path = tmp_path / 'a.csv'
    path.write_text('v,0902,0.1,0.2,0.3,0.4,1,7\nv,0902,0.1,0.2,0.3,0.4,5,7\nv,0902,0.5,0.2,0.7,0.4,1,8\nw,0903\n')
    report = check.check('ava', [path], labels=label_map)
    counts = report.summary[str(path)]
    assert (counts['videos'], counts['keyframes'], counts['boxes']) == (2, 2, 2)
    assert counts['boxes_per_keyframe'] == {'0': 1, '2': 1}
    assert counts['classes'] == {'stand': 2, 'run': 1}
    assert counts['classes_without_example'] == ['talk']
    assert report.errors == 0
    assert [problem.code for problem in report.problems] == ['class-without-example']
    assert json.loads(json.dumps(report.summary)) == report.summary
    text = summary.describe(report.summary)
    assert 'stand' in text and '#' * 40 in text


def test_a_video_in_two_files_is_an_error(tmp_path, label_map):
    for name in ('train', 'val'):
        (tmp_path / f'{name}.csv').write_text(f'shared,0902,0.1,0.2,0.3,0.4,1,7\n{name},0902,0.1,0.2,0.3,0.4,1,7\n')
    report = check.check('ava', [tmp_path / 'train.csv', tmp_path / 'val.csv'], labels=label_map)
    (problem,) = [problem for problem in report.problems if problem.severity == 'error']
    assert problem.code == 'video-in-two-files' and 'shared' in problem.message
    assert problem.file == str(tmp_path / 'val.csv')


def test_one_broken_file_does_not_hide_another(tmp_path, label_map):
    (tmp_path / 'bad.csv').write_text('v;0902\n')
    (tmp_path / 'good.csv').write_text('v,0902,0.1,0.2,0.3,0.4,1,7\n')
    report = check.check('ava', [tmp_path / 'bad.csv', tmp_path / 'good.csv'], labels=label_map)
    assert list(report.records) == [str(tmp_path / 'good.csv')]
    assert report.errors == 1 and report.problems[0].code == 'semicolon-separated'


FORMATS = {
    'ava_detections': ('v,0902,0.1,0.2,0.3,0.4,,0.5\n', None),
    'clips': ('a.mp4 0\n', 'walk\n'),
    'kinetics': ('label,youtube_id,time_start,time_end,split\nwalk,v,0,10,train\n', None),
    'moments': ('walk/v.mp4,walk,3,0\n', 'walk,0\n'),
    'something': ('[{"id": "1", "template": "walk"}]', '["walk"]'),
    'ucf101': ('walk/v_walk_g01_c01.avi 1\n', '1 walk\n'),
    'activitynet': (
        '{"database": {"v": {"subset": "a", "annotations": [{"segment": [1, 2], "label": "walk"}]}}}',
        'walk\n',
    ),
    'moma': (
        '[{"trim_video_id": "v", "frame_timestamp": 1, "frame_dim": {"width": 9, "height": 9}, '
        '"annotation": {"actors": [], "atomic_actions": []}}]',
        None,
    ),
    'table': ('video,start,end,label\nv,1,2,walk\n', None),
}


@pytest.mark.parametrize('name', FORMATS)
def test_every_format_of_text(tmp_path, name):
    text, labels = FORMATS[name]
    (tmp_path / 'file').write_text(text)
    classes = None
    if labels is not None:
        classes = tmp_path / ('classes.json' if labels.startswith('[') else 'classes.txt')
        classes.write_text(labels)
    report = check.check(name, [tmp_path / 'file'], labels=classes)
    assert report.problems == () and report.summary[str(tmp_path / 'file')]['videos'] == 1


def test_folders_and_proposals(tmp_path):
    (tmp_path / 'set' / 'walk').mkdir(parents=True)
    (tmp_path / 'set' / 'walk' / 'a.mp4').touch()
    person = PersonBox(902.0, (0.1, 0.2, 0.3, 0.4), (), 0.5)
    path = tmp_path / 'boxes.pkl'
    proposals.write_proposals(path, [VideoRecord('v', keyframes=(902.0,), boxes=(person,))])
    for name, file in (('folders', tmp_path / 'set'), ('proposals', path), ('ava_detections', path)):
        report = check.check(name, [file])
        assert report.problems == () and report.summary[str(file)]['videos'] == 1


def test_every_format_of_a_config_can_be_checked():
    assert set(build.FORMATS) <= set(check.FORMATS)
    assert set(FORMATS) | {'ava', 'folders', 'proposals'} == set(check.FORMATS)
    assert {name: part.make for name, part in build.FORMATS.items()} == check.FILES


def test_subset_that_selects_nothing_lists_those_there(tmp_path):
    (tmp_path / 'k.csv').write_text('label,youtube_id,time_start,time_end,split\nwalk,v,0,10,validate\n')
    (problem,) = check.check('kinetics', [tmp_path / 'k.csv'], subset='val').problems
    assert problem.code == 'subset-unknown' and "'validate'" in problem.fix


def test_wrong_use():
    with pytest.raises(ValueError, match='unknown format'):
        check.check('avi', ['x'])
    for name in ('ava', 'clips', 'ucf101'):
        with pytest.raises(ValueError, match='needs the classes'):
            check.check(name, ['x'])
    for name, options in [
        ('table', {'subset': 'training'}),
        ('clips', {'labels': 'l', 'excluded': 'x'}),
        ('kinetics', {'detections': ['x']}),
        ('something', {'included': 'x'}),
        ('proposals', {'labels': 'x'}),
        ('ava_detections', {'split': 'x'}),
        ('kinetics', {'first': 2.0}),
    ]:
        with pytest.raises(ValueError, match=f'format {name} has no'):
            check.check(name, ['x'], **options)


def test_a_file_named_twice_is_read_once(tmp_path, label_map):
    (tmp_path / 'a.csv').write_text('v,0902,0.1,0.2,0.3,0.4,1,7\n')
    report = check.check('ava', [tmp_path / 'a.csv', tmp_path / 'a.csv'], labels=label_map)
    assert report.errors == 0 and len(report.records) == 1


def test_long_summaries_are_cut(tmp_path):
    names = [f'class {i:03d}' for i in range(90)]
    class_list.write_class_list(tmp_path / 'classes.txt', [*names, *(f'none {i}' for i in range(25))])
    lines = [f'{i}_{j}.mp4 {i}\n' for i in range(90) for j in range(90 - i)]
    (tmp_path / 'list.txt').write_text(''.join(lines))
    text = summary.describe(check.check('clips', [tmp_path / 'list.txt'], labels=tmp_path / 'classes.txt').summary)
    assert '... 40 more classes ...' in text and 'class 000' in text and 'class 089' in text and 'class 050' not in text
    assert '25: none 0, none 1' in text and text.endswith('and 5 more')
