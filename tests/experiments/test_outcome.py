import pytest

from vidloc.experiments import cofinetuning, outcome

CLAIM = cofinetuning.Claim('1a', cofinetuning.MAP, 'both', 'one', (23.4, 25.2))


def cells(better, than):
    pairs = (('both', better), ('one', than))
    return [
        {'arm': arm, 'seed': seed, 'metrics': {cofinetuning.MAP: value}}
        for arm, values in pairs
        for seed, value in values.items()
    ]


@pytest.mark.parametrize(
    ('better', 'than', 'verdict'),
    [
        ({0: 0.3, 1: 0.41, 2: 0.5}, {0: 0.2, 1: 0.3, 2: 0.4}, outcome.HOLDS),
        ({0: 0.2, 1: 0.3, 2: 0.4}, {0: 0.3, 1: 0.41, 2: 0.5}, outcome.REVERSED),
        ({0: 0.1, 1: 0.5, 2: 0.3}, {0: 0.2, 1: 0.3, 2: 0.4}, outcome.UNRESOLVED),
        ({0: 0.4}, {0: 0.1}, outcome.UNRESOLVED),
        ({0: 0.4}, {1: 0.1}, outcome.NOT_RUN),
    ],
)
def test_verdicts(better, than, verdict):
    summed = outcome.summed_up([CLAIM], ['both', 'one'], cells(better, than), (0, 1, 2))
    assert summed['claims'][0]['verdict'] == verdict


def test_seeds_are_paired_and_the_lonely_left_out():
    summed = outcome.summed_up([CLAIM], ['both', 'one'], cells({1: 0.5, 0: 0.3}, {0: 0.2, 1: 0.1, 2: 0.9}), (0, 1, 2))
    row = summed['claims'][0]
    assert row['seeds'] == [0, 1] and row['difference'] == pytest.approx(0.25)
    assert summed['arms']['one'][cofinetuning.MAP]['mean'] == pytest.approx(0.4)


def test_text_has_a_row_for_every_arm_and_claim_with_as_many_cells_as_titles():
    summed = outcome.summed_up([CLAIM], ['both', 'one', 'none'], cells({0: 0.5, 1: 0.6}, {0: 0.2, 1: 0.1}), (0, 1))
    extra = {'memory': {'both': '3 MB'}}
    rows = [
        line.split('|')
        for line in outcome.markdown(summed, 'setting', 'reading', [cofinetuning.MAP], extra).splitlines()
        if line.startswith('|')
    ]
    arms, claims = rows[:5], rows[5:]
    assert len({len(row) for row in arms}) == 1 and len({len(row) for row in claims}) == 1
    assert [row[1].strip() for row in arms[2:]] == ['both', 'one', 'none']
    assert [row[4].strip() for row in arms] == ['memory', '---', '3 MB', '', '']
    assert arms[2][3].strip() == '55.0 ± 7.1' and arms[4][2].strip() == outcome.NOT_RUN
    # Differences 30 and 50 points: 40 +- 6.314 * 14.14 / sqrt(2).
    assert claims[2][-4].strip() == '+40.0 ± 63.1' and claims[2][-2].strip() == outcome.UNRESOLVED
