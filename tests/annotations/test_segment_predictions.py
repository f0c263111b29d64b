"""Predicted segments: what is written comes back, and every kind of fault is named with its place."""

import json

import numpy as np
import pytest

from vidloc.annotations.records import AnnotationError
from vidloc.annotations.segment_predictions import read_segment_predictions, write_segment_predictions

CLASSES = ('run', 'high jump')


def prediction(label='run', score=0.5, segment=(1.0, 2.5), **more):
    return {'label': label, 'score': score, 'segment': list(segment), **more}


@pytest.fixture
def file(tmp_path):
    def write(results, **more):
        path = tmp_path / 'p.json'
        path.write_text(json.dumps({'version': 'x', 'results': results, 'external_data': {}, **more}))
        return path

    return write


def test_columns_in_the_order_of_the_file(file):
    results = {
        'b': [prediction(), prediction('high jump', 1, (0, 3)), prediction('swim', -2.5e-7, (-1.25, 9), model='m')],
        'empty': [],
        'a/b.mp4': [prediction(score=12)],
    }
    columns = read_segment_predictions(file(results, other=[1]), CLASSES)
    assert columns['video'].tolist() == ['b', 'b', 'b', 'a/b.mp4'] and columns['video'].dtype == object
    assert columns['label'].tolist() == [0, 1, -1, 0] and columns['label'].dtype == np.int64
    assert columns['start'].tolist() == [1.0, 0.0, -1.25, 1.0] and columns['start'].dtype == np.float64
    assert columns['end'].tolist() == [2.5, 3.0, 9.0, 2.5]
    assert columns['score'].tolist() == [0.5, 1.0, -2.5e-7, 12.0] and columns['score'].dtype == np.float64


def test_no_predictions(file):
    columns = read_segment_predictions(file({'v': []}), CLASSES)
    assert {name: values.dtype.kind for name, values in columns.items()} == {
        'video': 'O',
        'start': 'f',
        'end': 'f',
        'label': 'i',
        'score': 'f',
    }
    assert all(len(values) == 0 for values in columns.values())
    assert len(read_segment_predictions(file({}), CLASSES)['score']) == 0


@pytest.mark.parametrize('classes', [CLASSES, {0: 'run', 1: 'high jump'}])
def test_what_is_written_comes_back(tmp_path, classes):
    random = np.random.default_rng(0)
    start = random.uniform(-1, 100, 50)
    columns = {
        'video': np.repeat(np.array(['v_é', 'a', 'c "quoted"', 'd', 'e'], object), 10),
        'start': start,
        'end': start + random.exponential(5, 50),
        'label': random.integers(0, 2, 50),
        'score': random.random(50) ** 20,
    }
    path = tmp_path / 'new' / 'p.json'
    write_segment_predictions(path, columns, classes)
    assert set(json.loads(path.read_text('utf-8'))) == {'version', 'results', 'external_data'}
    back = read_segment_predictions(path, CLASSES)
    assert all(back[name].tolist() == columns[name].tolist() for name in columns)
    assert [entry.name for entry in path.parent.iterdir()] == ['p.json']


@pytest.mark.parametrize(
    ('change', 'says'),
    [
        ({'score': float('nan')}, 'finite'),
        ({'start': float('-inf')}, 'finite'),
        ({'end': 0.5}, 'ends before'),
        ({'end': float('nan')}, 'ends before'),
        ({'label': 7}, r'\[7\] have no name'),
        ({'video': '../v'}, 'leaves the folder'),
    ],
)
def test_what_no_reader_would_take_is_not_written(tmp_path, change, says):
    row = {'video': 'v', 'start': 1.0, 'end': 2.0, 'label': 0, 'score': 0.5} | change
    columns = {name: np.array([value], object if name == 'video' else None) for name, value in row.items()}
    with pytest.raises(ValueError, match=says):
        write_segment_predictions(tmp_path / 'p.json', columns, CLASSES)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('fault', 'code'),
    [
        (prediction(label=None), 'label-missing'),
        (prediction(label=3), 'label-missing'),
        (prediction(label=' '), 'label-missing'),
        ({'score': 0.5, 'segment': [1, 2]}, 'label-missing'),
        ({'label': 'run', 'segment': [1, 2]}, 'score-not-a-number'),
        (prediction(score='0.5'), 'score-not-a-number'),
        (prediction(score=True), 'score-not-a-number'),
        (prediction(score=[0.5]), 'score-not-a-number'),
        (prediction(score=float('nan')), 'not-finite'),
        (prediction(score=float('inf')), 'not-finite'),
        (prediction(score=10**400), 'not-finite'),
        ({'label': 'run', 'score': 0.5}, 'segment-not-a-number'),
        (prediction(segment=(1.0,)), 'segment-not-a-number'),
        (prediction(segment=(1, 2, 3)), 'segment-not-a-number'),
        (prediction(segment=(1, None)), 'segment-not-a-number'),
        (prediction(segment=('1', '2')), 'segment-not-a-number'),
        (prediction(segment=(1, float('nan'))), 'segment-not-a-number'),
        (prediction(segment=(0, 1e9)), 'segment-not-a-number'),
        (prediction() | {'segment': '12'}, 'segment-not-a-number'),
        (prediction() | {'segment': 5}, 'segment-not-a-number'),
        (prediction(segment=(2, 1)), 'segment-order'),
        ([0.5, 1, 2], 'json-layout'),
        ('run', 'json-layout'),
        (None, 'json-layout'),
    ],
)
def test_faults_are_named_with_their_place(file, fault, code):
    with pytest.raises(AnnotationError) as caught:
        read_segment_predictions(file({'u': [prediction()], 'v': [prediction(), fault]}), CLASSES)
    (problem,) = caught.value.problems
    assert problem.code == code
    assert "prediction 1 of 'v'" in problem.message and '\n' not in str(problem)


def test_several_faults_are_all_named(file):
    with pytest.raises(AnnotationError) as caught:
        read_segment_predictions(file({'u': [prediction(score='x')], 'v': {}, '../w': [prediction(label=1)]}), CLASSES)
    codes = [problem.code for problem in caught.value.problems]
    assert sorted(codes) == ['json-layout', 'label-missing', 'score-not-a-number', 'video-path-refused']


def test_segments_that_end_before_they_start_may_be_kept(file):
    columns = read_segment_predictions(file({'v': [prediction(segment=(2, 1))]}), CLASSES, keep_inverted=True)
    assert (columns['start'].tolist(), columns['end'].tolist()) == ([2.0], [1.0])
    with pytest.raises(AnnotationError, match='score'):
        read_segment_predictions(file({'v': [prediction(segment=(2, 1), score='x')]}), CLASSES, keep_inverted=True)


@pytest.mark.parametrize(
    ('text', 'code'),
    [
        ('', 'file-empty'),
        ('{"results": {"v": [', 'json-syntax'),
        ('[]', 'json-layout'),
        ('{"results": []}', 'json-layout'),
        ('{"database": {}}', 'json-layout'),
        ('{"results": {"v": [], "v": []}}', 'json-duplicate-key'),
        ('[' * 100_000, 'json-syntax'),
    ],
)
def test_files_that_are_something_else(tmp_path, text, code):
    (tmp_path / 'p.json').write_text(text)
    with pytest.raises(AnnotationError) as caught:
        read_segment_predictions(tmp_path / 'p.json', CLASSES)
    assert [problem.code for problem in caught.value.problems] == [code]
