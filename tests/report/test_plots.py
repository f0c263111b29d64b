import itertools
import math
import re
import xml.etree.ElementTree as ET

import pytest

from vidloc.report import plots


def parsed(markup):
    """The markup as XML, which it also is: all tags closed and all attributes quoted."""
    return ET.fromstring(f'<root>{markup}</root>')


def test_bars_stand_to_scale_with_their_marks_and_a_table():
    entries = [
        plots.Bar('walk', 0.8, 0.4, 'head', 0.7, (('labels', '900'),)),
        plots.Bar('<b>', 0.1, 0.2, 'tail', None, (('labels', '4'),)),
        plots.Bar('sit', None, 0.0, '', None, (('labels', '2'),)),
    ]
    markup = plots.bars(entries, score='AP', mark='prevalence', group_style={'head': 0, 'tail': 2}, other='second')
    root = parsed(markup)
    fills = [i.get('style') for i in root.iter('i') if i.get('class', '').startswith('fill')]
    assert fills == ['width:100.00%', 'width:12.50%', 'width:0.00%']
    marks = [i.get('style') for i in root.iter('i') if i.get('class') == 'mark']
    assert marks == ['left:50.00%', 'left:25.00%', 'left:0.00%']
    assert [i.get('style') for i in root.iter('i') if i.get('class') == 'other'] == ['left:87.50%']
    rows = [[''.join(cell.itertext()) for cell in row] for row in root.iter('tr')]
    assert rows[0] == ['class', 'group', 'AP', 'prevalence', 'AP, second', 'difference', 'labels']
    assert rows[1] == ['walk', 'head', '0.800', '0.400', '0.700', '+0.100', '900']
    assert rows[2] == ['<b>', 'tail', '0.100', '0.200', '–', '–', '4']
    label = next(div.get('aria-label') for div in root.iter('div') if div.get('role') == 'img')
    assert 'from <b> 0.100 to walk 0.800' in label


def test_a_curve_goes_up_when_the_value_does_and_counts_what_is_not_finite():
    markup = plots.curve('train/<loss>', [(0, 0.0), (50, math.nan), (100, 1.0)], [(0, 1.0), (100, 0.0)])
    root = parsed(markup)
    second, first = [
        [tuple(map(float, point.split(','))) for point in line.get('points').split()] for line in root.iter('polyline')
    ]
    assert first[0][0] < first[-1][0] and first[0][1] > first[-1][1]
    assert second[0][1] < second[-1][1]
    assert '1 values that are not finite' in markup
    assert next(root.iter('svg')).get('aria-label').startswith('train/<loss> over steps 0 to 100')
    rows = [[cell.text for cell in row] for row in root.iter('tr')]
    assert ['100', '1'] in rows


@pytest.mark.parametrize('points', [[(5, 2.0)], [(5, 0.0)], [(1, 3.0), (2, 3.0)], [(1, -1e-9), (2, 1e9)]])
def test_curves_of_one_point_or_one_value_are_drawn(points):
    root = parsed(plots.curve('x', points))
    places = [float(n) for c in root.iter('circle') for n in (c.get('cx'), c.get('cy'))]
    assert len(places) == 2 * len(points) and all(0 <= n <= 360 for n in places)


def test_a_curve_without_a_finite_value_says_so():
    assert 'No finite value' in plots.curve('x', [(1, math.nan)])


def test_many_points_are_averaged_in_runs_that_lose_none():
    points = [(i, float(i)) for i in range(1, 1001)]
    shown, size = plots.averaged(points)
    assert size == 13 and len(shown) == 77 <= plots.CURVE_POINTS
    assert shown[0] == (13, 7.0) and shown[-1][0] == 1000
    assert plots.averaged(points[:80]) == (points[:80], 1)


@pytest.mark.parametrize(('low', 'high'), [(0, 1), (0.013, 0.0131), (-3, 17), (0, 0), (5, 5), (-2, -2), (1e-9, 1e9)])
def test_ticks_are_round_even_and_enclose_the_data(low, high):
    found = plots.ticks(low, high)
    assert found[0] <= low + 1e-12 and found[-1] >= high * (1 - 1e-12) and 2 <= len(found) <= 8
    steps = [b - a for a, b in itertools.pairwise(found)]
    assert steps == pytest.approx([steps[0]] * len(steps))
    assert float(f'{steps[0]:.2g}') == pytest.approx(steps[0])


def test_confusion_shades_by_the_share_of_the_row_and_names_the_worst():
    markup = plots.confusion(['a', '<b>'], [[9, 1], [6, 2]])
    root = parsed(markup)
    shares = [td.get('style') for td in root.iter('td')]
    assert shares == ['--s:0.900', '--s:0.100', '--s:0.750', '--s:0.250']
    assert [td.get('class') for td in root.iter('td')] == ['diagonal strong', '', '', 'diagonal']
    assert '&lt;b&gt; taken for a, 6 clips' in markup
    assert '·' in plots.confusion(['a', 'b'], [[0, 0], [0, 4]])


def test_a_confusion_of_many_classes_becomes_a_list_of_the_most_frequent():
    n = plots.MATRIX_CLASSES + 1
    counts = [[(7 if j == i + 1 else 1) if j > i else 50 for j in range(n)] for i in range(n)]
    for i in range(n):
        counts[i][:i] = [0] * i
    markup = plots.confusion([f'c{i:02d}' for i in range(n)], counts)
    rows = [[cell.text for cell in row] for row in parsed(markup).iter('tr')]
    assert len(rows) == 1 + plots.CONFUSIONS_LISTED
    assert rows[1] == ['c00', 'c01', '7', '8 %'] and 'class="confusion"' not in markup


def test_a_confusion_of_spread_labels_is_read_in_whole_numbers():
    root = parsed(plots.confusion(['a', 'b'], [[3.0, 1.5], [0.33, 0.0]], unit='labels'))
    assert [td.text for td in root.iter('td')] == ['3', '2', '·', '·']
    assert 'b taken for a' not in ''.join(root.itertext())
    assert 'a taken for b, 2 labels' in ''.join(root.itertext())


def test_a_timeline_places_truth_and_scores():
    spans = [plots.Span(0.0, 1.5, True, 0.8), plots.Span(1.5, 3.0, False, 0.05), plots.Span(3.0, 4.0, False, None)]
    root = parsed(plots.timeline([('<walk>', spans)], 4.0, [1.0, 2.0, 4.0]))
    pieces = {i.get('class'): i.get('style') for i in root.iter('i') if i.get('class')}
    assert pieces == {'true': 'left:0.00%;width:37.50%', 'guess': 'left:0.00%;width:37.50%;height:40%'}
    assert [i.get('style') for i in root.iter('i') if not i.get('class')] == [
        'left:25.00%',
        'left:50.00%',
        'left:100.00%',
    ]
    assert '<walk> true at 0.0-1.5 s' in next(root.iter('div')).get('aria-label')


def test_the_smaller_of_two_bars_is_to_scale():
    styles = re.findall(r'width:([\d.]+)%', plots.versus(0.3, 0.1, 'chance'))
    assert styles == ['100.00', '33.33']
    assert re.findall(r'width:([\d.]+)%', plots.versus(None, None, 'chance')) == ['0.00', '0.00']
