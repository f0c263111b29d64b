import re

import pytest

from vidloc.report import films, timeline_plots
from vidloc.report.timelines import Lane, Piece, Timeline

FILM = films.Film('film_01.mp4', 10.0, 80.0, 64, 48, b'\xff\xd8', 15.0)
LANE = Lane(
    'a "lane"',
    (Piece(10.0, 20.0),),
    (Piece(40.0, 50.0, 0.2, False), Piece(11.0, 21.0, 0.8, True)),
    (Piece(12.0, 22.0, 0.4, True),),
)


def timeline(**change):
    given = {'video': '<v>', 'place': 'median', 'ap': 0.5, 'other_ap': 0.25, 'seconds': 100.0, 'lanes': (LANE,)}
    return Timeline(**(given | {'film': FILM} | change))


def test_pieces_lie_where_they_are_in_time_wrong_ones_on_top_and_faint_by_score():
    drawn = timeline_plots.film(timeline(), names=('', ''))
    pieces = re.findall(
        r'<i class="([a-z ]+)" style="left:([0-9.]+)%;width:([0-9.]+)%(?:;--strength:([0-9.]+))?"', drawn
    )
    assert pieces == [
        ('true', '10.00', '10.00', ''),
        ('guess', '11.00', '10.00', '1.00'),
        ('guess wrong', '40.00', '10.00', '0.51'),
    ]
    assert 'title="predicted: a &quot;lane&quot; 0.20, wrong, 40.0 to 50.0 s"' in drawn
    assert 'data-seconds="100.000"' in drawn and 'data-start="10.000" data-moment="15.000"' in drawn
    assert 'median, AP 0.50<' in drawn and '<v>' not in drawn and 'a "lane"' not in drawn


def test_a_second_run_has_a_band_of_its_own():
    drawn = timeline_plots.film(timeline(), names=('this run', 'head <only>'))
    assert drawn.count('class="band"') == 3 and 'class="other"' in drawn
    assert 'median, AP 0.50 (head &lt;only&gt;: 0.25)' in drawn and 'data-said="head &lt;only&gt;: a' in drawn
    assert 'bands from above: true, this run, head &lt;only&gt;' in timeline_plots.keys('head <only>')


def test_without_a_video_the_lanes_and_the_reason_are_there():
    drawn = timeline_plots.film(timeline(film=None, problem='<gone>', hidden=('x', 'y')), names=('', ''))
    assert 'No video: &lt;gone&gt;' in drawn and '<video' not in drawn and 'class="lane"' in drawn
    assert 'Also there: <b>x</b> and <b>y</b>.' in drawn
    assert 'true at 10.0-20.0 s, predicted at 40.0-50.0 s, 11.0-21.0 s' in drawn


def test_of_many_classes_without_a_lane_some_are_named():
    drawn = timeline_plots.film(timeline(hidden=tuple(f'c{i}' for i in range(13))), names=('', ''))
    assert '<b>c9</b> and 3 more classes' in drawn and 'c10' not in drawn


def test_a_video_with_nothing_says_so():
    assert 'Nothing is true here' in timeline_plots.film(timeline(lanes=()), names=('', ''))


@pytest.mark.parametrize(
    ('time', 'text'), [(0.0, '0 s'), (7.5, '7.5 s'), (60.0, '1:00'), (125.0, '2:05'), (3600.0, '60:00')]
)
def test_times_are_written_as_on_a_clock_from_a_minute_on(time, text):
    assert timeline_plots.clock(time) == text
