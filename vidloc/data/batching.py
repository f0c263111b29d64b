"""Samples of one source to a batch of static shape."""

from collections.abc import Mapping, Sequence

import numpy as np

Sample = Mapping[str, np.ndarray]

# Every batch has these.
FIELDS = {
    'video': np.uint8,
    'frame_valid': np.bool_,
    'seed': np.uint32,
    'example_id': np.int32,
    'example_valid': np.bool_,
    'replaced': np.bool_,
    'broken_id': np.int32,
    'labels': np.float32,
}
# One row a box; a batch of boxes has these too, and its labels are one row a box.
BOX_FIELDS = {'boxes': np.float32, 'source_boxes': np.float32, 'box_scores': np.float32}


def pad_boxes(rows: Sequence[np.ndarray], max_boxes: int) -> tuple[np.ndarray, np.ndarray]:
    """[n_i, ...] arrays -> ([B, N, ...] padded with zeros, bool [B, N]: which rows are boxes).

    Raises ValueError if an n_i exceeds N = max_boxes: boxes are never cut.
    """
    padded = np.zeros((len(rows), max_boxes, *rows[0].shape[1:]), rows[0].dtype)
    mask = np.zeros((len(rows), max_boxes), np.bool_)
    for place, row in enumerate(rows):
        if len(row) > max_boxes:
            raise ValueError(f'row {place} holds {len(row)} boxes, max_boxes is {max_boxes}.')
        padded[place, : len(row)] = row
        mask[place, : len(row)] = True
    return padded, mask


def collate(
    samples: Sequence[Sample], max_boxes: int | None = None, *, size: int | None = None, source: str = 'batch'
) -> dict[str, np.ndarray]:
    """Stacks B samples of one source.

    Args:
      samples: each with video [T,H,W,3], frame_valid [T], the scalars seed, example_id, example_valid,
        replaced and broken_id, and labels [C]; with `max_boxes` also boxes [n,4], source_boxes [n,4],
        box_scores [n], and labels [n,C].
      max_boxes: the static number of boxes N; None for samples without boxes.
      size: B, if there may be fewer samples: the last is repeated, with example_valid False.
      source: what to call these samples in an error.

    Returns:
      video uint8 [B,T,H,W,3], frame_valid bool [B,T], seed uint32 [B], example_id int32 [B], example_valid
      bool [B], replaced bool [B], broken_id int32 [B], labels float32 [B,C]; with boxes these are float32
      [B,N,C], with boxes and source_boxes float32 [B,N,4], box_scores float32 [B,N], box_mask bool [B,N].

    Raises:
      ValueError: more boxes than N, fields missing, unknown or of differing shapes, none or too many samples.
    """
    size = len(samples) if size is None else size
    if not samples or len(samples) > size:
        raise ValueError(f'{source}: {len(samples)} samples do not make a batch of {size}.')
    fields = FIELDS if max_boxes is None else FIELDS | BOX_FIELDS
    for sample in samples:
        if wrong := sorted(fields.keys() ^ sample.keys()):
            raise ValueError(f'{source}: {_example(sample)} lacks or should not have {", ".join(wrong)}.')
        counts = {name: len(sample[name]) for name in (*BOX_FIELDS, 'labels')} if max_boxes is not None else {}
        if len(set(counts.values())) > 1:
            raise ValueError(f'{source}: {_example(sample)} has fields of differing numbers of boxes: {counts}.')
        if counts and counts['boxes'] > max_boxes:
            raise ValueError(
                f'{source}: {_example(sample)} holds {counts["boxes"]} boxes, max_boxes is {max_boxes}; boxes are '
                f'never cut: set max_boxes of {source} to at least {counts["boxes"]}.'
            )
    filled = [*samples, *[{**samples[-1], 'example_valid': False}] * (size - len(samples))]
    batch = {}
    for name, kind in fields.items():
        values = [np.asarray(sample[name], kind) for sample in filled]
        if max_boxes is not None and name in (*BOX_FIELDS, 'labels'):
            batch[name], batch['box_mask'] = pad_boxes(values, max_boxes)
            continue
        if odd := [i for i, value in enumerate(values) if value.shape != values[0].shape]:
            raise ValueError(
                f'{source}: {name} is {list(values[odd[0]].shape)} in {_example(filled[odd[0]])} but '
                f'{list(values[0].shape)} in {_example(filled[0])}; all samples of a batch have one shape.'
            )
        batch[name] = np.stack(values)
    return batch


def _example(sample: Sample) -> str:
    return f'example {sample.get("example_id", "without an id")}'
