"""What can be read and is still wrong gives its own warning, and what is right gives none."""

import numpy as np
import pytest

from vidloc.annotations import ava, check, clips
from vidloc.annotations.suspicions import AVA_UNEVALUATED

EVALUATED = sorted(set(range(1, 81)) - AVA_UNEVALUATED)


@pytest.fixture
def codes(tmp_path):
    """(format, {file name: text}, options) -> {code: problem}, without classes that lack examples."""

    def run(name, files, **options):
        for file, text in files.items():
            (tmp_path / file).write_text(text)
        report = check.check(name, [tmp_path / file for file in files], **options)
        assert len({problem.code for problem in report.problems}) == len(report.problems)
        return {problem.code: problem for problem in report.problems if problem.code != 'class-without-example'}

    return run


def label_map(path, ids):
    ava.write_label_map(path, {number: f'action {number}' for number in ids})
    return path


def people(order, count=60):
    """Rows of standing people, whose columns come in `order` of x1, y1, x2, y2."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(count):
        x, y = rng.uniform(0, 0.3, 2)
        box = (x, y, x + rng.uniform(0.1, 0.2), y + rng.uniform(0.3, 0.6))
        rows.append(','.join(['v', str(902 + i), *(f'{box[at]:.3f}' for at in order), '1', '0']))
    return '\n'.join(rows) + '\n'


def test_x_and_y_swapped(tmp_path, codes):
    labels = label_map(tmp_path / 'map.pbtxt', (1,))
    assert not codes('ava', {'good.csv': people((0, 1, 2, 3))}, labels=labels)
    found = codes('ava', {'bad.csv': people((1, 0, 3, 2))}, labels=labels)
    problem = found['box-x-y-swapped']
    assert (problem.severity, problem.line) == ('warning', 1)
    assert '60 of 60 boxes are wider than tall' in problem.message
    assert not codes('ava', {'few.csv': people((1, 0, 3, 2), count=20)}, labels=labels)


def test_x_and_y_swapped_in_detections(tmp_path, codes):
    labels = label_map(tmp_path / 'map.pbtxt', (1,))
    for order, wrong in (((0, 1, 2, 3), []), ((1, 0, 3, 2), ['box-x-y-swapped'])):
        (tmp_path / 'boxes.csv').write_text(people(order).replace(',1,0\n', ',,0.9\n'))
        found = codes('ava', {'good.csv': people((0, 1, 2, 3))}, labels=labels, detections=[tmp_path / 'boxes.csv'])
        assert list(found) == wrong
        assert all(problem.file == str(tmp_path / 'boxes.csv') for problem in found.values())


def test_the_lists_of_60_and_80_classes(tmp_path, codes):
    row = {'a.csv': 'v,0902,0.1,0.2,0.3,0.4,1,7\n'}
    assert not codes('ava', row, labels=label_map(tmp_path / '60.pbtxt', EVALUATED))
    problem = codes('ava', row, labels=label_map(tmp_path / '80.pbtxt', range(1, 81)))['label-map-unevaluated']
    assert '80 classes; 20 of them are not evaluated (2, 16, 18, 19, 21, ...)' in problem.message
    assert (problem.severity, problem.line) == ('warning', 7)
    other = label_map(tmp_path / 'other.pbtxt', sorted({*EVALUATED, 2} - {4, 5}))
    found = codes('ava', row, labels=other)
    assert set(found) == {'label-map-unevaluated', 'label-map-version'}
    assert '(4, 5)' in found['label-map-version'].message
    # A list of somebody's own is not AVA's, whatever its ids.
    assert not codes('ava', row, labels=label_map(tmp_path / 'own.pbtxt', (1, 2, 16, 80)))


def test_labels_that_count_from_one(tmp_path, codes):
    clips.write_class_list(tmp_path / 'classes.txt', ('walk', 'run', 'jump'))
    labels = tmp_path / 'classes.txt'
    problem = codes('clips', {'one.txt': 'a.mp4 2\nb.mp4 1\n'}, labels=labels)['label-index-offset']
    assert problem.severity == 'warning' and problem.line == 2 and '(walk)' in problem.message
    assert not codes('clips', {'zero.txt': 'a.mp4 0\nb.mp4 1\n'}, labels=labels)
    assert not codes('clips', {'names.txt': 'a.mp4 run\n'}, labels=labels)


HEADER = 'label,youtube_id,time_start,time_end,split\n'


def test_a_class_that_only_validation_has(codes):
    files = {
        'train.csv': f'{HEADER}walk,a,0,10,t\nrun,b,0,10,t\n',
        'val.csv': f'{HEADER}walk,c,0,10,v\nrunn,d,0,10,v\n',
    }
    problem = codes('kinetics', files)['class-without-training']
    assert problem.severity == 'warning' and problem.line == 3 and '(runn)' in problem.message


def test_clips_of_one_video_in_two_splits(codes):
    files = {'train.csv': f'{HEADER}walk,a_-b,0,10,t\n', 'val.csv': f'{HEADER}walk,c,0,10,v\nwalk,a_-b,30,40,v\n'}
    problem = codes('kinetics', files)['clips-of-one-video-in-two-files']
    assert problem.severity == 'warning' and problem.line == 3
    assert 'a_-b_000000_000010 and a_-b_000030_000040' in problem.message
    files = {'train.csv': f'{HEADER}walk,a_-b,0,10,t\n', 'val.csv': f'{HEADER}walk,a_-b,0,10,v\n'}
    assert codes('kinetics', files)['video-in-two-files'].severity == 'error'


def test_the_line_is_that_of_the_whole_name(tmp_path, codes):
    row = ',0902,0.1,0.2,0.3,0.4,1,7\n'
    files = {'train.csv': f'v1{row}', 'val.csv': f'v10{row}-v1{row}v1{row}'}
    assert codes('ava', files, labels=label_map(tmp_path / 'map.pbtxt', (1,)))['video-in-two-files'].line == 3


def test_clips_of_a_group_of_ucf101_in_two_splits(tmp_path, codes):
    (tmp_path / 'classInd.txt').write_text('1 Walk\n2 Run\n')
    options = {'labels': tmp_path / 'classInd.txt'}
    train = 'Walk/v_Walk_g08_c01.avi 1\nRun/v_Run_g09_c02.avi 2\n'
    files = {'train.txt': train, 'test.txt': 'Walk/v_Walk_g01_c01.avi\nRun/v_Run_g08_c02.avi\n'}
    assert not codes('ucf101', files, **options)
    files['test.txt'] += 'Walk/v_Walk_g08_c04.avi\n'
    found = codes('ucf101', files, **options)
    assert list(found) == ['clips-of-one-video-in-two-files']
    (problem,) = found.values()
    assert (problem.severity, problem.line) == ('warning', 3)
    assert 'Walk/v_Walk_g08_c01.avi and Walk/v_Walk_g08_c04.avi' in problem.message


TRUTH = 'v,0902,0.1,0.2,0.3,0.4,1,7\nv,0903,0.1,0.2,0.3,0.4,1,7\nw,0902,0.1,0.2,0.3,0.4,1,7\n'
DETECTIONS = [
    ('v,0902,0.1,0.2,0.3,0.4,,0.9\nw,0902,0.1,0.2,0.3,0.4,,0.9\n', None, None),
    ('v,0902\n', 'no-box', None),
    ('x,0902,0.1,0.2,0.3,0.4,,0.9\n', 'detections-of-other-videos', 1),
    ('x,0002,0.1,0.2,0.3,0.4,,0.9\nv,0002,0.1,0.2,0.3,0.4,,0.9\n', 'timestamp-offset', 2),
    ('w,0902,0.1,0.2,0.3,0.4,,0.9\n', 'keyframe-without-detection', None),
]


@pytest.mark.parametrize(('text', 'code', 'line'), DETECTIONS)
def test_detections_against_the_truth(tmp_path, codes, text, code, line):
    (tmp_path / 'boxes.csv').write_text(text)
    labels = label_map(tmp_path / 'map.pbtxt', (1,))
    found = codes('ava', {'truth.csv': TRUTH}, labels=labels, detections=[tmp_path / 'boxes.csv'])
    assert list(found) == ([] if code is None else [code])
    if code:
        assert (found[code].file, found[code].line) == (str(tmp_path / 'boxes.csv'), line)


def test_detections_of_several_splits_count_together(tmp_path, codes):
    (tmp_path / 'one.csv').write_text('v,0902,0.1,0.2,0.3,0.4,,0.9\n')
    (tmp_path / 'two.csv').write_text('w,0902,0.1,0.2,0.3,0.4,,0.9\n')
    labels = label_map(tmp_path / 'map.pbtxt', (1,))
    detections = [tmp_path / 'one.csv', tmp_path / 'two.csv']
    assert not codes('ava', {'truth.csv': TRUTH}, labels=labels, detections=detections)
