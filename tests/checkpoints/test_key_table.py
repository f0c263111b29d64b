"""The table of what became of every array, as text."""

from vidloc.checkpoints import key_table
from vidloc.checkpoints.key_table import Row


def test_layers_with_the_same_names_become_a_range():
    names = [f'a/block_{i:02d}/x' for i in (0, 1, 2, 7)] + ['b', 'c.3.w']
    assert key_table.grouped(names) == [('a/block_{00..02,07}/x', 4), ('b', 1), ('c.3.w', 1)]


def test_many_names_of_a_layer_become_one_line():
    names = [f'layer.{i}.{leaf}' for i in (4, 10) for leaf in 'abcd'] + ['layer.5.a']
    assert key_table.grouped(names) == [('layer.5.a', 1), ('layer.{4,10}.* (4 names)', 8)]


def test_differences_are_cut_and_counted():
    rows = [Row('unused', f'{chr(97 + i % 26)}{chr(97 + i // 26)}', shape=(i,)) for i in range(100)]
    lines = key_table.differences([*rows, Row('used', 'fine'), Row('missing', 'let pass', allowed=True)]).splitlines()
    assert len(lines) == key_table.LINES
    assert lines[0] == 'unused (no parameter for an array), 100:'
    assert lines[-1] == f'... and {101 - key_table.LINES + 1} lines more'


def test_what_is_left_out_is_named_by_its_first_part():
    names = ['head/kernel', 'head/bias', 'pre_logits/kernel', 'pre_logits/bias', 'alone']
    text = key_table.text([Row('ignored', name, note='the classifier') for name in names])
    assert 'alone, head/*, pre_logits/*: the classifier (5 arrays' in text
    many = key_table.text([Row('ignored', f'{letter}.w', note='odd') for letter in 'abcdefghi'])
    assert 'a.w, b.w, c.w, d.w, e.w, f.w, and 3 more: odd' in many


def test_counts():
    rows = [Row('used', 'a'), Row('used', 'b'), Row('missing', 'c', allowed=True), Row('missing', 'd')]
    assert key_table.counts(rows) == {'used': 2, 'missing': 1, 'allowed': 1}
