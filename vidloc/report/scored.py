"""One evaluated source with what was found on it, as it is handed to what writes results down."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vidloc.data import sources

# (detections, truth) -> {name: value}: the `score` of a task.
Score = Callable[[Mapping[str, np.ndarray], Mapping[str, np.ndarray]], Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class Scored:
    """One evaluated source.

    training: the source that was trained on, or None: labels are then counted in `source`. detections: the task's
    columns. metrics: as `measure` returned them. files: the config of the source (annotations, labels, videos, ...).
    head, tail: thresholds on training labels (metrics/ava.py).
    """

    source: sources.Source
    training: sources.Source | None
    detections: Mapping[str, np.ndarray]
    metrics: Mapping[str, float]
    step: int
    files: Mapping[str, Any]
    head: int
    tail: int
