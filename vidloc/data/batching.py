"""Samples of one source to a batch of static shape."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Sample = Mapping[str, np.ndarray]
# {name: (shape of one example or row, type)}
Arrays = Mapping[str, tuple[tuple[int, ...], Any]]

# What the pipeline knows of every example, whatever its source: one value each.
MARKS = {
    'seed': np.uint32,
    'example_id': np.int32,
    'example_valid': np.bool_,
    'replaced': np.bool_,
    'broken_id': np.int32,
}


@dataclasses.dataclass(frozen=True)
class Layout:
    """The arrays of one example, without its marks.

    fields: those of one shape. rows: those with a row for each of a varying number of things, by the shape of a row;
    a batch holds `limit` rows of them, and `mask` says which are real. what: what the rows are, and limit_name: the
    field of the view that sets the limit, for errors.
    """

    fields: Arrays
    rows: Arrays = dataclasses.field(default_factory=dict)
    limit: int = 0
    mask: str = ''
    what: str = ''
    limit_name: str = ''

    def batch(self, size: int) -> dict[str, tuple[tuple[int, ...], Any]]:
        """{name: (shape, type)} of a batch of `size` examples."""
        arrays = {name: ((size,), kind) for name, kind in MARKS.items()}
        arrays |= {name: ((size, *shape), kind) for name, (shape, kind) in self.fields.items()}
        arrays |= {name: ((size, self.limit, *shape), kind) for name, (shape, kind) in self.rows.items()}
        return arrays | ({self.mask: ((size, self.limit), np.bool_)} if self.rows else {})

    def empty(self) -> dict[str, np.ndarray]:
        """The arrays of an example that is not there: zeros, and no rows."""
        arrays = {name: np.zeros(shape, kind) for name, (shape, kind) in self.fields.items()}
        return arrays | {name: np.zeros((0, *shape), kind) for name, (shape, kind) in self.rows.items()}


def clip_fields(frames: int, size: tuple[int, int]) -> dict[str, tuple[tuple[int, ...], Any]]:
    """The fields of an example that is a clip of `frames` frames of `size` (H, W)."""
    return {'video': ((frames, *size, 3), np.uint8), 'frame_valid': ((frames,), np.bool_)}


def pad_rows(rows: Sequence[np.ndarray], limit: int) -> tuple[np.ndarray, np.ndarray]:
    """[n_i, ...] arrays -> ([B, limit, ...] padded with zeros, bool [B, limit]: which rows are real).

    Raises ValueError if an n_i exceeds the limit: rows are never cut.
    """
    padded = np.zeros((len(rows), limit, *rows[0].shape[1:]), rows[0].dtype)
    mask = np.zeros((len(rows), limit), np.bool_)
    for place, row in enumerate(rows):
        if len(row) > limit:
            raise ValueError(f'example {place} holds {len(row)} rows, the limit is {limit}.')
        padded[place, : len(row)] = row
        mask[place, : len(row)] = True
    return padded, mask


def collate(
    samples: Sequence[Sample], layout: Layout, *, size: int | None = None, source: str = 'batch'
) -> dict[str, np.ndarray]:
    """Stacks B samples of one source: its marks and the arrays of its layout -> the arrays of layout.batch(B).

    size: B, if there may be fewer samples: the last is repeated, with example_valid False. source: what to call these
    samples in an error. Raises ValueError: more rows than the limit, fields missing, unknown or of another shape, none
    or too many samples.
    """
    size = len(samples) if size is None else size
    if not samples or len(samples) > size:
        raise ValueError(f'{source}: {len(samples)} samples do not make a batch of {size}.')
    for sample in samples:
        _check(sample, layout, source)
    filled = [*samples, *[{**samples[-1], 'example_valid': False}] * (size - len(samples))]
    batch = {name: np.array([sample[name] for sample in filled], kind) for name, kind in MARKS.items()}
    for name, (_, kind) in layout.fields.items():
        batch[name] = np.stack([np.asarray(sample[name], kind) for sample in filled])
    for name, (_, kind) in layout.rows.items():
        values = [np.asarray(sample[name], kind) for sample in filled]
        batch[name], batch[layout.mask] = pad_rows(values, layout.limit)
    return batch


def _check(sample: Sample, layout: Layout, source: str) -> None:
    """Raises ValueError unless the sample has the arrays of the layout, and marks."""
    wanted = MARKS.keys() | layout.fields.keys() | layout.rows.keys()
    if wrong := sorted(wanted ^ sample.keys()):
        raise ValueError(f'{source}: {_example(sample)} lacks or should not have {", ".join(wrong)}.')
    counts = {name: len(sample[name]) for name in layout.rows}
    if len(set(counts.values())) > 1:
        raise ValueError(f'{source}: {_example(sample)} has fields of differing numbers of {layout.what}: {counts}.')
    count = max(counts.values(), default=0)
    if count > layout.limit:
        raise ValueError(
            f'{source}: {_example(sample)} holds {count} {layout.what}, {layout.limit_name} is {layout.limit}; '
            f'{layout.what} are never cut: set {layout.limit_name} of {source} to at least {count}.'
        )
    expected = {name: shape for name, (shape, _) in layout.fields.items()}
    expected |= {name: (count, *shape) for name, (shape, _) in layout.rows.items()}
    for name, shape in expected.items():
        if np.shape(sample[name]) != shape:
            raise ValueError(
                f'{source}: {name} is {list(np.shape(sample[name]))} in {_example(sample)}, its view says {list(shape)}'
            )


def _example(sample: Sample) -> str:
    return f'example {sample.get("example_id", "without an id")}'
