"""Truth that several tests read."""

import json
import pathlib

import numpy as np
import pytest


@pytest.fixture
def few():
    """Columns of three people, one of them twice and one who does nothing listed, and a keyframe without anybody."""
    names = ('video', 'timestamp', 'x1', 'y1', 'x2', 'y2', 'action_id')
    rows = [
        ('b', 1.0, 0.1, 0.1, 0.5, 0.5, 1),
        ('b', 1.0, 0.1, 0.1, 0.5, 0.5, 2),
        ('a', 1.0, 0.1, 0.1, 0.5, 0.5, 2),
        ('a', 2.0, 0.1, 0.1, 0.5, 0.5, -1),
        ('a', 3.0, np.nan, np.nan, np.nan, np.nan, -1),
    ]
    kinds = (object, float, float, float, float, float, int)
    return {name: np.array([row[place] for row in rows], kinds[place]) for place, name in enumerate(names)}


@pytest.fixture
def segment_case():
    """(name of a file of tests/reference/temporal_eval) -> its content, truth, detections and classes."""

    def load(name):
        folder = pathlib.Path(__file__).parents[1] / 'reference' / 'temporal_eval'
        case = json.loads((folder / f'{name}.json').read_text())
        database, results = case['ground_truth']['database'], case['predictions']['results']
        truth = [(video, row) for video, entry in database.items() for row in entry['annotations']]
        found = [(video, row) for video, rows in results.items() for row in rows]
        places = {label: place for place, label in enumerate(dict.fromkeys(row['label'] for _, row in truth))}

        def columns(rows):
            values = zip(*((video, *row['segment'], places[row['label']]) for video, row in rows), strict=True)
            kinds = (object, np.float64, np.float64, np.int64)
            names = ('video', 'start', 'end', 'label')
            return {name: np.array(column, kind) for name, column, kind in zip(names, values, kinds, strict=True)}

        durations = [row['length'] / row['coverage'] if 'coverage' in row else np.nan for _, row in truth]
        return (
            case,
            columns(truth) | {'duration': np.array(durations)},
            columns(found) | {'score': np.array([row['score'] for _, row in found])},
            {place: label for label, place in places.items()},
        )

    return load
