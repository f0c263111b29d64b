"""Ground truth as columns: nothing is dropped, subsets are found as they are written, faults are named."""

import gc
import json

import numpy as np
import pytest

from vidloc.annotations.records import AnnotationError
from vidloc.annotations.segment_table import read_blocked, read_segment_table


def entry(*segments, subset='validation', **more):
    rows = [{'label': label, 'segment': [start, end]} for start, end, label in segments]
    return {'subset': subset, 'annotations': rows, **more}


@pytest.fixture
def file(tmp_path):
    def write(database):
        path = tmp_path / 'g.json'
        path.write_text(json.dumps({'database': database}))
        return path

    return write


DATABASE = {
    'b': entry((1, 2, 'run'), (1, 2, 'run'), (5, 5, 'jump'), (9, 8, 'run'), duration=12.5),
    'a': entry((0, 3, 'jump')),
    'none': entry(),
    'train': entry((0, 1, 'swim'), subset='training'),
}


def test_everything_is_kept_in_the_order_of_the_file(file):
    table = read_segment_table(file(DATABASE), 'validation')
    assert table.classes == ('jump', 'run', 'swim') and table.videos == ('b', 'a', 'none') and table.blocked == 0
    assert table.columns['video'].tolist() == ['b', 'b', 'b', 'b', 'a']
    assert table.columns['label'].tolist() == [1, 1, 0, 1, 0]
    assert table.columns['start'].tolist() == [1.0, 1.0, 5.0, 9.0, 0.0]
    assert table.columns['end'].tolist() == [2.0, 2.0, 5.0, 8.0, 3.0]
    assert table.columns['duration'][:4].tolist() == [12.5] * 4 and np.isnan(table.columns['duration'][4])
    assert len(read_segment_table(file(DATABASE)).columns['video']) == 6
    assert gc.isenabled()


def test_blocked_videos_are_left_out(file):
    table = read_segment_table(file(DATABASE), 'validation', {'b', 'train', 'elsewhere'})
    assert table.videos == ('a', 'none') and table.blocked == 1
    assert table.columns['video'].tolist() == ['a']
    assert read_segment_table(file(DATABASE), 'training', {'train'}).columns['label'].dtype == np.int64


def test_subset_in_other_letters_is_noted(file):
    notes = []
    database = {'a': entry((0, 3, 'jump'), subset='Test'), 'b': entry(subset='Validation')}
    table = read_segment_table(file(database), 'test', notes=notes)
    assert table.videos == ('a',)
    assert [note.code for note in notes] == ['subset-case']
    assert "'Test' (1 videos), 'Validation' (1 videos)" in notes[0].fix
    both = {'a': entry(subset='test'), 'b': entry(subset='Test')}
    notes.clear()
    assert read_segment_table(file(both), 'test', notes=notes).videos == ('a',) and not notes
    with pytest.raises(AnnotationError, match='subset-unknown'):
        read_segment_table(file(both), 'TEST')


def test_unknown_subset_names_those_found(file):
    with pytest.raises(AnnotationError) as caught:
        read_segment_table(file(DATABASE), 'testing')
    assert "'training' (1 videos), 'validation' (3 videos)" in str(caught.value)
    with pytest.raises(AnnotationError, match='Found: none'):
        read_segment_table(file({'a': {'annotations': []}}), 'testing')


@pytest.mark.parametrize(
    ('fault', 'code'),
    [
        (entry(duration=0), 'duration-invalid'),
        (entry(duration='12'), 'duration-invalid'),
        (entry((0, None, 'run')), 'segment-not-a-number'),
        (entry((0, float('nan'), 'run')), 'segment-not-a-number'),
        (entry((0, '3', 'run')), 'segment-not-a-number'),
        (entry((0, 1, '')), 'label-missing'),
        (entry((0, 1, 3)), 'label-missing'),
        (entry() | {'annotations': [[0, 1]]}, 'segment-not-a-number'),
        (entry() | {'annotations': {}}, 'json-layout'),
        ([], 'json-layout'),
    ],
)
def test_faults(file, fault, code):
    with pytest.raises(AnnotationError) as caught:
        read_segment_table(file({'a': entry((0, 1, 'run')), 'v': fault}), 'validation')
    (problem,) = caught.value.problems
    assert problem.code == code and "'v'" in problem.message
    # A video of another subset may have what it likes in its segments.
    if isinstance(fault, dict) and code != 'json-layout':
        assert read_segment_table(file({'a': entry(), 'v': fault | {'subset': 'other'}}), 'validation').videos == ('a',)


@pytest.mark.parametrize('text', ['["a b", "c"]', '{"a b": 1, "c": 2}', 'a b\n\nc\n'])
def test_blocked_lists(tmp_path, text):
    (tmp_path / 'b').write_text(text)
    assert read_blocked(tmp_path / 'b') == ('a b', 'c')


@pytest.mark.parametrize(('text', 'code'), [('["a", 3]', 'json-layout'), ('["a"', 'json-syntax'), ('', 'file-empty')])
def test_blocked_lists_that_are_none(tmp_path, text, code):
    (tmp_path / 'b').write_text(text)
    with pytest.raises(AnnotationError, match=code):
        read_blocked(tmp_path / 'b')
