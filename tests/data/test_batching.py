import numpy as np
import pytest

from vidloc.data import batching

CLIP = {'video': ((4, 8, 12, 3), np.uint8), 'frame_valid': ((4,), np.bool_)}
PLAIN = batching.Layout(CLIP | {'labels': ((5,), np.float32)})
BOXES = batching.Layout(
    CLIP,
    rows={
        'boxes': ((4,), np.float32),
        'source_boxes': ((4,), np.float32),
        'box_scores': ((), np.float32),
        'labels': ((5,), np.float32),
    },
    limit=6,
    mask='box_mask',
    what='boxes',
    limit_name='max_boxes',
)
SCHEMA = {
    'video': (np.uint8, (3, 4, 8, 12, 3)),
    'frame_valid': (np.bool_, (3, 4)),
    'seed': (np.uint32, (3,)),
    'example_id': (np.int32, (3,)),
    'example_valid': (np.bool_, (3,)),
    'replaced': (np.bool_, (3,)),
    'broken_id': (np.int32, (3,)),
}
DETECTION = SCHEMA | {
    'boxes': (np.float32, (3, 6, 4)),
    'source_boxes': (np.float32, (3, 6, 4)),
    'box_scores': (np.float32, (3, 6)),
    'box_mask': (np.bool_, (3, 6)),
    'labels': (np.float32, (3, 6, 5)),
}


def sample(number: int, boxes: int | None = None) -> dict:
    """Types are those that loaders happen to give: Python numbers and float64."""
    rng = np.random.default_rng(number)
    common = {
        'video': rng.integers(0, 256, (4, 8, 12, 3), dtype=np.uint8),
        'frame_valid': np.ones(4, bool),
        'seed': 2**32 - 1 - number,
        'example_id': number,
        'example_valid': True,
        'replaced': False,
        'broken_id': -1,
    }
    if boxes is None:
        return common | {'labels': rng.random(5)}
    return common | {
        'boxes': rng.random((boxes, 4)),
        'source_boxes': rng.random((boxes, 4)),
        'box_scores': np.ones(boxes),
        'labels': rng.random((boxes, 5)),
    }


def schema(batch: dict) -> dict:
    return {name: (value.dtype.type, value.shape) for name, value in batch.items()}


def test_schema_of_both_kinds_of_batch():
    plain = batching.collate([sample(i) for i in range(3)], PLAIN)
    assert schema(plain) == SCHEMA | {'labels': (np.float32, (3, 5))}
    assert schema(batching.collate([sample(i, i) for i in range(3)], BOXES)) == DETECTION


def test_values_are_kept_and_the_rest_is_masked():
    samples = [sample(0, 6), sample(1, 0), sample(2, 2)]
    batch = batching.collate(samples, BOXES)
    assert batch['box_mask'].sum(1).tolist() == [6, 0, 2]
    for i, one in enumerate(samples):
        count = len(one['boxes'])
        np.testing.assert_array_equal(batch['video'][i], one['video'])
        for name in ('boxes', 'source_boxes', 'box_scores', 'labels'):
            np.testing.assert_allclose(batch[name][i, :count], one[name], rtol=1e-6)
            assert not batch[name][i, count:].any()
    assert batch['seed'].tolist() == [2**32 - 1, 2**32 - 2, 2**32 - 3]


def test_a_short_batch_is_filled_with_repeats_that_do_not_count():
    batch = batching.collate([sample(0, 1), sample(1, 2)], BOXES, size=3)
    assert schema(batch) == DETECTION
    assert batch['example_valid'].tolist() == [True, True, False]
    assert batch['example_id'].tolist() == [0, 1, 1]
    np.testing.assert_array_equal(batch['video'][2], batch['video'][1])


def test_boxes_are_never_cut():
    message = 'street: example 4 holds 7 boxes, max_boxes is 6; .* set max_boxes of street to at least 7'
    with pytest.raises(ValueError, match=message):
        batching.collate([sample(3, 2), sample(4, 7)], BOXES, source='street')
    with pytest.raises(ValueError, match='example 1 holds 3 rows, the limit is 2'):
        batching.pad_rows([np.zeros((1, 4)), np.zeros((3, 4))], 2)


def test_pad_rows_pads_rows_of_any_shape():
    padded, mask = batching.pad_rows([np.ones((1, 4), np.float32), np.zeros((0, 4), np.float32)], 2)
    assert padded.dtype == np.float32 and padded.shape == (2, 2, 4)
    assert mask.tolist() == [[True, False], [False, False]]
    assert padded.sum() == 4


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            {'video': np.zeros((4, 8, 13, 3), np.uint8)},
            r'video is \[4, 8, 13, 3\] in example 1, its view says \[4, 8, 12, 3\]',
        ),
        ({'extra': 1}, 'example 1 lacks or should not have extra'),
        ({'box_scores': np.ones(3)}, 'example 1 has fields of differing numbers of boxes'),
    ],
)
def test_samples_that_do_not_fit_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        batching.collate([sample(0, 2), sample(1, 2) | change], BOXES)


def test_missing_fields_and_wrong_counts_are_refused():
    short = sample(1)
    del short['seed']
    with pytest.raises(ValueError, match='example 1 lacks or should not have seed'):
        batching.collate([sample(0), short], PLAIN)
    with pytest.raises(ValueError, match='0 samples do not make a batch of 2'):
        batching.collate([], PLAIN, size=2)
    with pytest.raises(ValueError, match='3 samples do not make a batch of 2'):
        batching.collate([sample(i) for i in range(3)], PLAIN, size=2)


@pytest.mark.parametrize(('layout', 'boxes'), [(PLAIN, None), (BOXES, 2)])
def test_a_layout_tells_the_batch_and_fills_what_is_not_there(layout, boxes):
    batch = batching.collate([sample(0, boxes), sample(1, boxes)], layout)
    assert {name: (value.shape, value.dtype.type) for name, value in batch.items()} == layout.batch(2)
    marks = {name: sample(0)[name] for name in batching.MARKS}
    filled = batching.collate([layout.empty() | marks], layout)
    assert not any(filled[name].any() for name in (*layout.fields, *layout.rows))
