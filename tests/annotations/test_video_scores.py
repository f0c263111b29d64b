import json

import numpy as np
import pytest

from vidloc.annotations.records import AnnotationError
from vidloc.annotations.video_scores import read_video_scores

CLASSES = ('run', 'jump', 'sit')


def read(tmp_path, content, notes=None):
    path = tmp_path / 'scores.json'
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding='utf-8')
    return read_video_scores(path, CLASSES, notes=notes)


def check(found, expected):
    assert sorted(found) == sorted(expected)
    for video, scores in expected.items():
        assert found[video].dtype == np.float64
        np.testing.assert_array_equal(found[video], scores)


def test_lists_follow_the_names_in_the_file(tmp_path):
    content = {'results': {'a': [0.1, 0.2, 0.3], 'b': [1, 0, 0]}, 'class': ['sit', 'run', 'jump']}
    check(read(tmp_path, content), {'a': [0.2, 0.3, 0.1], 'b': [0, 0, 1]})
    content['classes'] = content.pop('class')
    check(read(tmp_path, content), {'a': [0.2, 0.3, 0.1], 'b': [0, 0, 1]})


@pytest.mark.parametrize('wrapped', [True, False])
def test_lists_without_names_follow_the_classes(tmp_path, wrapped):
    videos = {'a': [0.1, 0.2, 0.3]}
    check(read(tmp_path, {'results': videos} if wrapped else videos), videos)


@pytest.mark.parametrize('wrapped', [True, False])
def test_entries_of_label_and_score(tmp_path, wrapped):
    entries = [{'label': 'sit', 'score': 0.5}, {'label': 'run', 'score': 0.25}, {'label': 'sit', 'score': 0.75}]
    videos = {'a': entries, 'b': entries[1:2]}
    expected = {'a': [0.25, 0, 0.75], 'b': [0.25, 0, 0]}
    check(read(tmp_path, {'results': videos} if wrapped else videos), expected)


def test_scores_above_one_stay_and_are_told(tmp_path):
    notes = []
    check(
        read(tmp_path, {'a': [0.1, 7.5, 0.3], 'b': [0.1, 0.2, 0.3]}, notes),
        {'a': [0.1, 7.5, 0.3], 'b': [0.1, 0.2, 0.3]},
    )
    assert [(note.code, note.severity) for note in notes] == [('score-above-one', 'warning')]
    assert '1 videos have scores above 1' in notes[0].message


def test_classes_that_are_not_wanted_are_left_out_and_told(tmp_path):
    notes = []
    content = {'results': {'a': [0.1, 0.2, 0.3, 0.4]}, 'class': ['sit', 'swim', 'run', 'jump']}
    check(read(tmp_path, content, notes), {'a': [0.3, 0.4, 0.1]})
    entries = [{'label': 'swim', 'score': 0.9}, {'label': 'run', 'score': 0.8}]
    check(read(tmp_path, {'a': entries}, notes), {'a': [0.8, 0, 0]})
    assert [note.code for note in notes] == ['label-unknown', 'label-unknown']
    assert all("'swim'" in note.message for note in notes)


@pytest.mark.parametrize(
    ('content', 'code', 'told'),
    [
        ('[1, 2]', 'json-layout', 'no videos'),
        ('{}', 'json-layout', 'no videos'),
        ('{"results": []}', 'json-layout', 'no videos'),
        ('{"a": [0.1', 'json-syntax', 'not JSON'),
        ({'a': 0.5}, 'json-layout', "'a' has no list"),
        ({'a': []}, 'json-layout', "'a' has no list"),
        ({'a': [0.1, 0.2]}, 'scores-length', "'a' has 2 scores for 3 classes"),
        ({'a': [0.1, 'x', 0.2]}, 'score-not-a-number', "'a'"),
        ({'a': [0.1, True, 0.2]}, 'score-not-a-number', "'a'"),
        ('{"a": [0.1, NaN, 0.2]}', 'score-not-a-number', "'a'"),
        ('{"a": [0.1, 1e999, 0.2]}', 'score-not-a-number', "'a'"),
        ({'a': [0.1, 10**400, 0.2]}, 'score-not-a-number', "'a'"),
        ({'a': [0.1, -3.0, 0.2]}, 'score-negative', 'not logits'),
        ({'a': [{'label': 'run', 'score': -3.0}]}, 'score-negative', 'not logits'),
        ({'a': [{'label': 'run'}]}, 'json-layout', 'without a label and a score'),
        ({'a': [{'label': 'runn', 'score': 0.5}]}, 'label-unknown', "Did you mean 'run'"),
        ({'results': {'a': [0.1, 0.2]}, 'class': ['run', 'jump']}, 'label-missing', "'sit'"),
        ({'results': {'a': [0.1] * 4}, 'class': ['run', 'jump', 'sit', 'sit']}, 'label-twice', 'twice'),
        ({'results': {'a': [0.1] * 3}, 'class': [1, 2, 3]}, 'json-layout', 'list of names'),
    ],
)
def test_files_that_are_wrong(tmp_path, content, code, told):
    with pytest.raises(AnnotationError) as caught:
        read(tmp_path, content)
    assert code in [problem.code for problem in caught.value.problems]
    assert told in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(AnnotationError, match='does not exist'):
        read_video_scores(tmp_path / 'none.json', CLASSES)
