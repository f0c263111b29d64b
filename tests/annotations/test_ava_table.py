"""AVA csv as columns: every row in its place, at any mix of widths."""

import numpy as np
import pytest

from vidloc.annotations import ava_table

TEXT = 'v,0902,0.1,0.2,0.3,0.4,1,0.5\n"a,b",903.25,0.5,0.25,1e-1,0.75,80,-2\nv,904,0.1,0.2,0.3,0.4,7,3\n'


def _assert_equal(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
        assert first[name].dtype == second[name].dtype


def test_columns(tmp_path):
    (tmp_path / 'd.csv').write_text(TEXT)
    columns = ava_table.read_ava_table(tmp_path / 'd.csv')
    assert columns['video'].tolist() == ['v', 'a,b', 'v']
    assert columns['timestamp'].tolist() == [902.0, 903.25, 904.0]
    assert columns['x2'].tolist() == [0.3, 0.1, 0.3]
    assert columns['action_id'].tolist() == [1, 80, 7]
    assert columns['score'].tolist() == [0.5, -2.0, 3.0]


def test_ground_truth_with_rows_of_all_widths(tmp_path):
    text = 'v,0901\n\nv,0902,0.1,0.2,0.3,0.4,1,person A\nw,0903,0.1,0.2,0.3,0.4,2\nv,0904\nv,0905,0.1,0.2,0.3,0.4,,3\n'
    (tmp_path / 'g.csv').write_text(text)
    columns = ava_table.read_ava_table(tmp_path / 'g.csv', scores=False)
    assert columns['timestamp'].tolist() == [901.0, 902.0, 903.0, 904.0, 905.0]
    assert columns['action_id'].tolist() == [-1, 1, 2, -1, -1]
    assert columns['score'].tolist() == [1.0] * 5
    assert np.isnan(columns['x1']).tolist() == [True, False, False, True, False]


@pytest.mark.parametrize('seed', range(5))
def test_fast_reading_equals_row_by_row(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(ava_table, 'BLOCK', 256)
    rng = np.random.default_rng(seed)
    lines = []
    for row in range(200):
        width = rng.choice([2, 7, 8], p=[0.1, 0.2, 0.7]) if seed else 8
        fields = [
            f'v{row % 7}',
            str(900 + row / 4),
            '0.1',
            '0.2',
            '0.3',
            repr(0.4 + rng.random() / 2),
            str(1 + row % 9),
            '0.5',
        ]
        lines.append(','.join(fields[:width]) + '\n' + ('\n' if rng.random() < 0.1 else ''))
    path = tmp_path / 'g.csv'
    path.write_text(''.join(lines))
    fast = ava_table.read_ava_table(path, scores=False)
    spaced = tmp_path / 'spaced.csv'
    spaced.write_text(''.join(lines).replace(',', ', '))  # pyarrow takes no spaces: read row by row
    _assert_equal(fast, ava_table.read_ava_table(spaced, scores=False))
    assert fast['timestamp'].tolist() == [900 + row / 4 for row in range(200)]


@pytest.mark.parametrize('names', [('a', 'b', 'c'), ('a', 'b"c', 'd,e')])
def test_written_columns_are_read_again_exactly(tmp_path, names):
    rng = np.random.default_rng(0)
    columns = {name: rng.random(50) for name in (*ava_table.BOX, 'score')}
    columns['video'] = np.array([names[row % 3] for row in range(50)], dtype=object)
    columns['timestamp'] = np.round(rng.uniform(0, 2000, 50), 2)
    columns['timestamp'][:20] = np.arange(900, 920)
    columns['action_id'] = rng.integers(1, 81, 50).astype(np.int32)
    ava_table.write_ava_table(tmp_path / 'd.csv', columns)
    _assert_equal({name: columns[name] for name in ava_table.COLUMNS}, ava_table.read_ava_table(tmp_path / 'd.csv'))
    assert (tmp_path / 'd.csv').read_text().startswith('a,0900,' if names[1] == 'b' else '"a","0900",')


@pytest.mark.parametrize(('name', 'value'), [('score', np.nan), ('x1', np.inf), ('action_id', 0), ('timestamp', -1.0)])
def test_writing_refuses_what_reading_would(tmp_path, name, value):
    columns = {column: np.array([0.5]) for column in (*ava_table.BOX, 'score', 'timestamp')}
    columns |= {'video': np.array(['v'], object), 'action_id': np.array([3])}
    columns[name] = np.array([value])
    with pytest.raises(ValueError):
        ava_table.write_ava_table(tmp_path / 'd.csv', columns)
