"""The validator: problems of several files, and the summary."""

import json

import pytest

from vidloc.annotations import ava, check


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
    text = check.describe(report.summary)
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


@pytest.mark.parametrize(
    ('name', 'text', 'labels'),
    [
        ('ava_detections', 'v,0902,0.1,0.2,0.3,0.4,,0.5\n', None),
        ('clips', 'a.mp4 0\n', 'walk\n'),
        (
            'activitynet',
            '{"database": {"v": {"subset": "a", "annotations": [{"segment": [1, 2], "label": "walk"}]}}}',
            'walk\n',
        ),
        ('table', 'video,start,end,label\nv,1,2,walk\n', None),
    ],
)
def test_every_format(tmp_path, name, text, labels):
    (tmp_path / 'file').write_text(text)
    if labels is not None:
        (tmp_path / 'classes.txt').write_text(labels)
    report = check.check(name, [tmp_path / 'file'], labels=labels and tmp_path / 'classes.txt')
    assert report.problems == () and report.summary[str(tmp_path / 'file')]['videos'] == 1


def test_wrong_use():
    with pytest.raises(ValueError, match='unknown format'):
        check.check('avi', ['x'])
    with pytest.raises(ValueError, match='needs the classes'):
        check.check('ava', ['x'])
    with pytest.raises(ValueError, match='no subsets'):
        check.check('table', ['x'], subset='training')
