"""How often each class occurs: head, mid and tail classes, and the baseline that predicts nothing but frequency.

Tables are dicts of columns, as in metrics/ava.py.
"""

from collections.abc import Mapping

import numpy as np

from vidloc.metrics import ava


def label_counts(columns: ava.Columns, classes: Mapping[int, str]) -> dict[int, int]:
    """{id: number of rows} of each class, such as the labels of a training set."""
    values, counts = np.unique(np.asarray(columns['action_id']), return_counts=True)
    found = dict(zip(values.tolist(), counts.tolist(), strict=True))
    return {number: found.get(number, 0) for number in classes}


def groups(counts: Mapping[int, int], *, head: int = 10_000, tail: int = 1_000) -> dict[str, tuple[int, ...]]:
    """{'head' | 'mid' | 'tail': ids}: more than `head` training labels, fewer than `tail`, and the rest.

    Arnab et al., Beyond transfer learning: co-finetuning for action localisation, 2022, table 9.
    """
    if head < tail:
        raise ValueError(f'head ({head}) must not be below tail ({tail})')
    return {
        'head': tuple(number for number, count in counts.items() if count > head),
        'mid': tuple(number for number, count in counts.items() if tail <= count <= head),
        'tail': tuple(number for number, count in counts.items() if count < tail),
    }


def group_means(per_class: Mapping[int, float], members: Mapping[str, tuple[int, ...]]) -> dict[str, float]:
    """{group: mean AP of its classes that have ground truth}, NaN where none has."""
    means = {}
    for group, numbers in members.items():
        values = [per_class[number] for number in numbers if number in per_class and not np.isnan(per_class[number])]
        means[group] = float(np.mean(values)) if values else float('nan')
    return means


def prevalence(columns: ava.Columns, classes: Mapping[int, str]) -> dict[int, float]:
    """{id: the share of the people (different boxes on a keyframe) that do this}; NaN without people."""
    total = len(ava.people(columns))
    counts = label_counts(columns, classes)
    return {number: counts[number] / total if total else float('nan') for number in classes}


def prior_columns(boxes: ava.Columns, frequency: Mapping[int, float]) -> dict[str, np.ndarray]:
    """Detections of a baseline that never looks: every class on each different box, scored by its frequency.

    boxes: columns, of which action ids and scores are not read. frequency: {id: score}, such as the prevalence in
    the training set. Returns columns of P * C rows.
    """
    rows = ava.people(boxes)
    numbers = np.array(list(frequency), dtype=np.int64)
    copied = ('video', 'timestamp', *ava.BOX)
    columns = {name: np.repeat(np.asarray(boxes[name])[rows], len(numbers)) for name in copied}
    columns['action_id'] = np.tile(numbers, len(rows))
    columns['score'] = np.tile(np.array(list(frequency.values()), dtype=np.float64), len(rows))
    return columns
