import re

from vidloc.report import segment_plots

CHART = segment_plots.Chart(
    'length',
    (
        segment_plots.Column('S', '≤ 3', 0.4, 7, 0.1),
        segment_plots.Column('L', '> 3', None, 0),
    ),
)


def test_columns_stand_on_one_scale_and_say_their_numbers():
    drawn = segment_plots.charts([CHART], score='mAP', level=0.2)
    assert re.findall(r'height:([0-9.]+)%', drawn) == ['100.00', '0.00']
    assert 'class="level" style="bottom:50.00%"' in drawn
    assert '<b>40.0</b>' in drawn and '<b>–</b>' in drawn and 'class="none"' in drawn
    assert 'aria-label="mAP by length: S (≤ 3) 40.0, L (&gt; 3) –"' in drawn
    assert '<td>≤ 3</td><td>7</td><td>40.0</td>' in drawn and 'second' not in drawn


def test_a_second_run_stands_beside_with_its_own_line():
    drawn = segment_plots.charts([CHART], score='missed', shares=True, level=0.2, other_level=0.3, names=('a', '<b>'))
    assert re.findall(r'height:([0-9.]+)%', drawn) == ['100.00', '25.00', '0.00', '0.00']
    assert drawn.count('class="level') == 2 and 'level second' in drawn
    assert '<b>40 %</b>' in drawn and '<td>10 %</td>' in drawn
    assert '&lt;b&gt;' in drawn and 'missed, <b>' not in drawn


def test_a_profile_is_cut_by_shares_and_ends_with_the_last_block_that_has_any():
    blocks = [{'right': 0.25, 'wrong': 0.75}, {'right': 0.0, 'wrong': 1.0}, {'right': None, 'wrong': None}]
    drawn = segment_plots.profile(blocks)
    assert re.findall(r'<i class="(k\d)" style="left:([0-9.]+)%;width:([0-9.]+)%"', drawn) == [
        ('k0', '0.00', '25.00'),
        ('k1', '25.00', '75.00'),
        ('k1', '0.00', '100.00'),
    ]
    assert '>1G<' in drawn and '>2G<' in drawn and '>3G<' not in drawn
    assert 'in the first: right 25 %, wrong 75 %' in drawn
