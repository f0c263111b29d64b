"""Truth that several tests read."""

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
