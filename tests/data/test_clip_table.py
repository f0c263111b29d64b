import copy
import pickle

import numpy as np

from vidloc.data import clip_table


def examples(count):
    return [
        clip_table.ClipExample(
            video=f'v{i:06d}',
            path=f'/data/clips of é/{"a" if i % 2 else "b"}/v{i:06d}_000010_000020.mp4',
            time=10.0 + i / 7,
            start=10.0,
            duration=i / 3,
            view=i % 12,
            label=i % 400,
        )
        for i in range(count)
    ]


def test_a_table_is_the_list_it_was_made_of():
    rows = examples(50)
    table = clip_table.ClipTable(rows)
    assert len(table) == 50 and list(table) == rows
    assert table[-1] == rows[-1] and table[3:7] == rows[3:7] and table[np.int64(8)] == rows[8]
    assert [row.key for row in table] == [row.key for row in rows]
    again = copy.deepcopy(table)
    assert list(again) == rows and again.labels.dtype == np.int32


def test_texts_may_be_anything_that_a_file_can_be_called():
    for texts in (['a', 'ab', 'a', ''], ['x\udce9.mp4', 'x\u4e2d.mp4', 'xy'], ['same', 'same'], ['one'], []):
        assert list(clip_table.Texts(texts)) == texts


def test_a_clip_travels_light():
    table = clip_table.ClipTable(examples(10_000))
    assert len(pickle.dumps(table)) < 90 * 10_000
