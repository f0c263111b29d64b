"""Class lists of every data set, read by one function."""

import json

import pytest

from vidloc.annotations import ava, class_list
from vidloc.annotations.records import AnnotationError

CLASSES = ('walk', 'ride a bike', 'say "hello"', 'comma, and', 'schlürfen', "one's own")


@pytest.mark.parametrize('style', ['lines', 'class_ind', 'categories', 'json'])
def test_round_trip(tmp_path, style):
    path = tmp_path / ('classes.json' if style == 'json' else 'classes.txt')
    class_list.write_class_list(path, CLASSES, style)
    assert class_list.read_class_list(path) == CLASSES
    assert class_list.names(path) == class_list.names(CLASSES) == CLASSES


def test_a_style_that_would_be_read_as_another_is_not_written(tmp_path):
    for name, style in (('a.txt', 'json'), ('a.json', 'lines'), ('a.txt', 'yaml')):
        with pytest.raises(ValueError):
            class_list.write_class_list(tmp_path / name, CLASSES, style)
    with pytest.raises(ValueError, match='cannot be the name'):
        class_list.write_class_list(tmp_path / 'a.txt', ('12',), 'class_ind')
    with pytest.raises(ValueError, match='each name once'):
        class_list.write_class_list(tmp_path / 'a.txt', ('a', 'a'), 'categories')


def test_label_map(tmp_path):
    ava.write_label_map(tmp_path / 'a.pbtxt', {3: 'c', 1: 'a', 80: 'z'})
    assert class_list.read_class_list(tmp_path / 'a.pbtxt') == ('a', 'c', 'z')


@pytest.mark.parametrize(
    ('name', 'text', 'expected'),
    [
        ('a.txt', 'b\na\n', ('b', 'a')),
        ('a.txt', '2 a\n1 b c\n', ('b c', 'a')),
        ('a.txt', '0 a\n1 b\n', ('a', 'b')),
        ('a.txt', '1 a\nb\n', ('1 a', 'b')),
        ('a.txt', 'a,1\nb,0\n', ('b', 'a')),
        ('a.txt', 'run, fast\nwalk\n', ('run, fast', 'walk')),
        ('a.json', '{"a": "1", "b": "0"}', ('b', 'a')),
        ('a.json', '{"a": 0, "\\"b c\\"": 1}', ('a', 'b c')),
        ('a.json', '{"0": "b", "1": "a"}', ('b', 'a')),
        ('a.json', '["b", "a"]', ('b', 'a')),
        ('a.csv', 'id,name\n1,a\n0,b\n', ('b', 'a')),
        ('a.csv', 'label,youtube_id,time_start,time_end,split\nb,x,0,1,t\na,y,0,1,t\nb,z,0,1,t\n', ('a', 'b')),
        ('a.csv', 'b\na\n', ('b', 'a')),
    ],
)
def test_styles(tmp_path, name, text, expected):
    (tmp_path / name).write_text(text)
    assert class_list.read_class_list(tmp_path / name) == expected


@pytest.mark.parametrize(
    ('name', 'text', 'code'),
    [
        ('a.txt', '1 a\n3 b\n', 'class-index'),
        ('a.txt', '2 a\n3 b\n', 'class-index'),
        ('a.txt', '1 a\n1 b\n', 'class-index'),
        ('a.txt', 'a,0\na,1\n', 'class-name-duplicate'),
        ('a.txt', '', 'file-empty'),
        ('a.json', '{"a": "0", "a": "1"}', 'class-name-duplicate'),
        ('a.json', '{"a": "0", "b": null}', 'class-list-layout'),
        ('a.json', '[{"id": "1", "template": "x"}]', 'class-list-layout'),
        ('a.json', '{}', 'file-empty'),
        ('a.json', '{', 'json-syntax'),
        ('a.json', '["12"]', 'class-name'),
        ('a.csv', 'id,name\nx,a\n', 'class-list-layout'),
        ('a.csv', 'label,split\na\n', 'column-count'),
    ],
)
def test_broken_lists(tmp_path, name, text, code):
    (tmp_path / name).write_text(text)
    with pytest.raises(AnnotationError) as raised:
        class_list.read_class_list(tmp_path / name)
    (problem,) = raised.value.problems
    assert problem.code == code and problem.file == str(tmp_path / name) and problem.fix


def test_random_bytes_are_read_or_refused(tmp_path, generate):
    rng = generate(3).rng
    good = {'a.json': json.dumps({name: str(i) for i, name in enumerate(CLASSES)}), 'a.csv': 'id,name\n0,a\n1,b\n'}
    refused = 0
    for name, text in good.items():
        for _ in range(80):
            data = bytearray(text.encode())
            for _ in range(3):
                data[rng.integers(len(data))] = rng.integers(256)
            (tmp_path / name).write_bytes(bytes(data))
            try:
                class_list.read_class_list(tmp_path / name)
            except AnnotationError:
                refused += 1
    assert refused > 80


def test_spellings():
    found = class_list.spellings(('air drumming', 'a_b', 'a b'))
    assert found['air_drumming'] == 'air drumming' and found['a_b'] == 'a_b' and found['a b'] == 'a b'
