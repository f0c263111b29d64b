import xml.etree.ElementTree as ET

import pytest

from vidloc.report import class_plots
from vidloc.report.class_plots import Class, Precision


def parsed(markup):
    """The markup as XML, which it also is: all tags closed and all attributes quoted."""
    return ET.fromstring(f'<root>{markup}</root>')


def pieces(root, name):
    return [i.get('style') for i in root.iter('i') if i.get('class', '').split()[:1] == [name]]


def test_differences_stand_on_both_sides_of_zero():
    entries = [
        Class('<walk>', 0.5, 10_000, 'head', 0.2),
        Class('run', 0.3, 100, 'tail', 0.4),
        Class('sit', None, 1, 'tail', 0.4),
        Class('lie', 0.3, None, '', None),
    ]
    root = parsed(class_plots.differences(entries, score='AP', other='<two>', group_style={'head': 0, 'tail': 2}))
    assert pieces(root, 'fill') == ['left:25.00%;width:75.00%', 'left:0.00%;width:25.00%']
    assert pieces(root, 'zero') == ['left:25.00%'] * 4
    often = [span[0].get('style') for span in root.iter('span') if span.get('class') == 'often']
    assert often == ['width:100.00%', 'width:50.00%', 'width:0.00%', 'width:0.00%']
    rows = [[''.join(cell.itertext()) for cell in row] for row in root.iter('tr')]
    assert rows[0] == ['class', 'group', 'training labels', 'AP', 'AP, <two>', 'difference']
    assert rows[1] == ['<walk>', 'head', '1e+04', '0.500', '0.200', '+0.300']
    assert rows[4] == ['lie', '–', '–', '0.300', '–', '–']
    label = next(div.get('aria-label') for div in root.iter('div') if div.get('role') == 'img')
    assert label == 'Difference of AP to <two>: higher in 1 of 2 classes'


def test_equal_runs_have_no_bars():
    root = parsed(class_plots.differences([Class('a', 0.5, 5, '', 0.5)], score='AP', other='b', group_style={}))
    assert pieces(root, 'fill') == ['left:0.00%;width:0.00%']


def test_dots_stand_by_frequency_and_score():
    entries = [Class('<a>', 0.0, 10, 'tail'), Class('b', 0.5, 100, 'tail'), Class('c', 1.0, 1000, 'head')]
    entries += [Class('unknown', None, 50), Class('never', 0.3, 0)]
    markup = class_plots.by_frequency(entries, score='AP', group_style={'head': 0, 'tail': 2}, limits=(30, 5000))
    root = parsed(markup)
    dots = [(g.get('class'), g[0].text, float(g[1].get('cx')), float(g[1].get('cy'))) for g in root.iter('g')]
    assert [dot[0] for dot in dots] == ['dot g2', 'dot g2', 'dot g0']
    assert dots[0][1] == '<a>: 0.000, 10 training labels'
    assert dots[0][2] < dots[1][2] < dots[2][2] and dots[0][3] > dots[1][3] > dots[2][3]
    assert dots[1][2] - dots[0][2] == pytest.approx(dots[2][2] - dots[1][2], abs=0.2)
    (limit,) = [line for line in root.iter('line') if line.get('class') == 'limit']  # the other is off the axis
    assert dots[0][2] < float(limit.get('x1')) < dots[1][2]
    assert class_plots.by_frequency(entries[:1], score='AP', group_style={}, limits=(1, 2)) == ''


def test_precision_curves_fall_to_the_right_and_the_rest_is_folded(monkeypatch):
    monkeypatch.setattr(class_plots, 'CURVES_SHOWN', 1)
    falling = [1.0, 0.75, 0.5, 0.25, 0.0]
    entries = [
        Precision('<a>', 0.5, falling, [1.0] * 5),
        Precision('b', 0.1, falling),
        Precision('c', None, [None] * 5),
    ]
    root = parsed(class_plots.precision_curves(entries, score='AP'))
    lines = list(root.iter('polyline'))
    assert [line.get('class') for line in lines] == ['line second', 'line', 'line']
    points = [tuple(map(float, pair.split(','))) for pair in lines[1].get('points').split()]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted(y for _, y in points) and points[0] == (4.0, 4.0)
    assert 'The other 1 classes' in ''.join(root.itertext())
    rows = [[cell.text for cell in row] for row in root.iter('tr')]
    assert rows[1] == ['<a>', '0.500', '1.00', '0.75', '0.50', '0.25', '0.00'] and len(rows) == 3


def test_shares_are_stacked():
    rows = [('<all>', {'right': 1, 'wrong': 3}), ('none', {'right': 0, 'wrong': 0})]
    root = parsed(class_plots.stacked(rows, label='class'))
    styles = [(i.get('class'), i.get('style')) for i in root.iter('i') if i.get('style')]
    assert styles == [('k0', 'left:0.00%;width:25.00%'), ('k1', 'left:25.00%;width:75.00%')]
    cells = [[cell.text for cell in row] for row in root.iter('tr')]
    assert cells == [['class', 'right', 'wrong'], ['<all>', '1', '3'], ['none', '0', '0']]


def test_levels_share_a_scale():
    root = parsed(class_plots.levels([('this <run>', 0.25), ('bound', 1.0), ('unknown', None)], label='mAP'))
    assert pieces(root, 'fill') == ['width:25.00%', 'width:100.00%', 'width:0.00%']
    assert root[0].get('aria-label') == 'mAP: this <run> 0.250; bound 1.000; unknown –'
