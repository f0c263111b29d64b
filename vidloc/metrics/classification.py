"""Metrics of one label an example: top-k, per-class and mean class accuracy, confusion matrix."""

from collections.abc import Mapping

import numpy as np


def _checked(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(f'scores must be [M, C] and labels [M], not {scores.shape} and {labels.shape}')
    if len(labels) and (labels.min() < 0 or labels.max() >= scores.shape[1]):
        raise ValueError(f'labels go from {labels.min()} to {labels.max()}, but there are {scores.shape[1]} classes')
    if np.isnan(scores).any() or (scores == np.inf).any():
        raise ValueError('scores must not be NaN or +inf')
    return scores, labels.astype(np.int64)


def _predicted(scores: np.ndarray) -> np.ndarray:
    """[M] the best class, the first of equals; -1 for a row of only -inf, which says that nothing was predicted."""
    if scores.shape[1] == 0 or len(scores) == 0:
        return np.full(len(scores), -1)
    return np.where(np.isneginf(scores).all(axis=1), -1, np.argmax(scores, axis=1))


def top_k(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """The share of the examples whose label is among the k best classes; NaN without examples.

    scores: [M, C], larger is better, a row of -inf was not predicted and counts as wrong. labels: int [M].
    Ties count against the label: constant scores are right for no k below C.
    """
    scores, labels = _checked(scores, labels)
    if not 1 <= k <= scores.shape[1]:
        raise ValueError(f'k is {k}, but there are {scores.shape[1]} classes')
    if len(labels) == 0:
        return float('nan')
    mine = scores[np.arange(len(labels)), labels]
    rank = np.sum(scores >= mine[:, None], axis=1)  # [M, C] -> [M], 1 for the best
    return float(np.mean((rank <= k) & ~np.isneginf(mine)))


def confusion(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """int64 [C, C]: examples of class i (row) whose best score is class j (column); unpredicted ones are in none."""
    scores, labels = _checked(scores, labels)
    predicted = _predicted(scores)
    classes = scores.shape[1]
    known = predicted >= 0
    flat = np.bincount(labels[known] * classes + predicted[known], minlength=classes * classes)
    return flat.reshape(classes, classes)


def per_class_accuracy(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """float64 [C]: the share of each class's examples with the right best class; NaN for a class without examples."""
    scores, labels = _checked(scores, labels)
    totals = np.bincount(labels, minlength=scores.shape[1])
    right = np.bincount(labels[_predicted(scores) == labels], minlength=scores.shape[1])
    return np.where(totals > 0, right / np.maximum(totals, 1), np.nan)


def mean_class_accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """The mean of per_class_accuracy over the classes that have examples; NaN if none has."""
    each = per_class_accuracy(scores, labels)
    return float(np.mean(each[~np.isnan(each)])) if not np.isnan(each).all() else float('nan')


def aligned(predictions: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray]) -> np.ndarray:
    """float64 [M, C]: the scores of each clip of `truth`, in its order; -inf where nothing was predicted.

    Both have columns video and time (the start of the clip in seconds, to a microsecond); predictions have scores.
    """
    row = {key: i for i, key in enumerate(_keys(predictions))}
    scores = np.full((len(truth['video']), predictions['scores'].shape[1]), -np.inf)
    for i, key in enumerate(_keys(truth)):
        if key in row:
            scores[i] = predictions['scores'][row[key]]
    return scores


def _keys(columns: Mapping[str, np.ndarray]) -> list[tuple[str, float]]:
    return [(video, round(float(time), 6)) for video, time in zip(columns['video'], columns['time'], strict=True)]
