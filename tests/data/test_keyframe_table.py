import copy
import pickle

import numpy as np

from vidloc.data import keyframe_table


def examples(count):
    rng = np.random.default_rng(0)
    return [
        keyframe_table.KeyframeExample(
            video=f'v{i // 900:06d}',
            path=f'/data/films of é/v{i // 900:06d}.mp4',
            time=902.0 + i % 900,
            start=900.0,
            boxes=rng.random((1 + i % 4, 4)),
            scores=rng.random(1 + i % 4).astype(np.float32),
            labels=rng.integers(0, 2, (1 + i % 4, 60)).astype(np.uint8),
        )
        for i in range(count)
    ]


def assert_same(one, other):
    assert (one.key, one.path, one.start, one.duration) == (other.key, other.path, other.start, other.duration)
    for name in ('boxes', 'scores', 'labels'):
        mine, theirs = getattr(one, name), getattr(other, name)
        np.testing.assert_array_equal(mine, theirs)
        assert mine.dtype == theirs.dtype


def test_a_table_is_the_list_it_was_made_of():
    rows = examples(50)
    table = keyframe_table.KeyframeTable(rows)
    assert len(table) == 50
    for one, other in zip(
        [*table, *table[3:7], table[-1], table[np.int64(8)]], [*rows, *rows[3:7], rows[-1], rows[8]], strict=True
    ):
        assert_same(one, other)
    for one, other in zip(copy.deepcopy(table), rows, strict=True):
        assert_same(one, other)


def test_a_keyframe_travels_light():
    """Little more than its boxes and labels: 2.5 boxes a keyframe here, of 96 bytes each."""
    assert len(pickle.dumps(keyframe_table.KeyframeTable(examples(5000)))) < (2.5 * 96 + 80) * 5000
