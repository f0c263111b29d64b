"""What an evaluation of clips leaves: accuracies and confusions."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from vidloc.data import sources
from vidloc.metrics import classification
from vidloc.report.scored import Score, Scored

COLUMNS = frozenset({'label'})


def measure(
    score: Score, source: sources.Source, detections: Mapping[str, np.ndarray], files: Mapping[str, Any]
) -> dict[str, float]:
    """See results.measure."""
    return dict(score(detections, source.truth()))


def content(scored: Scored) -> dict[str, Any]:
    """The content of a clip source's JSON."""
    truth = scored.source.truth()
    scores = classification.aligned(scored.detections, truth)
    accuracy = classification.per_class_accuracy(scores, truth['label'])
    return {
        'kind': 'classification',
        'source': scored.source.name,
        'step': scored.step,
        'metrics': dict(scored.metrics),
        'classes': list(scored.source.classes),
        'per_class': dict(zip(scored.source.classes, accuracy.tolist(), strict=True)),
        'chance': 1.0 / len(scored.source.classes),
        'confusion': classification.confusion(scores, truth['label']).tolist(),
        'examples': len(truth['label']),
    }


def write_detections(folder: pathlib.Path, name: str, scored: Scored) -> None:
    """Nothing: what was found in a clip is a score a class, and no file of others' holds that."""
