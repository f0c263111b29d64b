"""Running a model over all examples of a source: batches in, detections out."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from vidloc.tasks import base

# What the host needs of a batch to file its predictions.
FILED = ('example_id', 'example_valid')


def predict(
    predict_step: Callable[[Any, Mapping[str, base.Batch]], Mapping[str, Mapping[str, Any]]],
    params: Any,
    task: str,
    batches: Iterable[Mapping[str, np.ndarray]],
    collector: base.Collector,
    *,
    place: Callable[[Any], Any],
    to_host: Callable[[Any], Any],
) -> tuple[dict[str, np.ndarray], list[int]]:
    """(detections as the collector makes them, ids of the examples that could not be read).

    place puts a process's rows on the mesh, to_host brings whole arrays back to every process, so each process ends
    with the same detections.
    """
    unread: list[int] = []
    for batch in batches:
        arrays = place(batch)
        predictions = predict_step(params, {task: arrays})[task]
        fetched = to_host({'predictions': predictions, **{name: arrays[name] for name in (*FILED, 'broken_id')}})
        collector.add(fetched['example_id'], fetched['example_valid'], fetched['predictions'])
        unread += [int(i) for i in fetched['broken_id'] if i >= 0]
    return collector.detections(), unread
