"""What an evaluation leaves in a workdir: W/eval/<source>.json, and detections in the layout of others' tools.

The page is drawn from these files (report/run.py reads them). A source is of the kind that the columns of its truth
make it: boxes at keyframes (box_results.py), segments (segment_results.py) or clips (clip_results.py).
"""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vidloc.data import sources
from vidloc.metrics import ava
from vidloc.report import box_results, clip_results, segment_results
from vidloc.report.scored import Score, Scored

# Each has COLUMNS, measure, content and write_detections; the first whose columns a truth has is its kind.
KINDS = (box_results, segment_results, clip_results)


def kind_of(truth: Mapping[str, np.ndarray]) -> Any:
    """The module of KINDS that a truth is for. Raises ValueError for columns that none knows."""
    for kind in KINDS:
        if truth.keys() >= kind.COLUMNS:
            return kind
    raise ValueError(f'no results are known of a truth with the columns {", ".join(truth)}')


def measure(
    score: Score, source: sources.Source, detections: Mapping[str, np.ndarray], files: Mapping[str, Any]
) -> dict[str, float]:
    """{name: value}: what a task's `score` says of a source, and {part/name: value} of each of its parts.

    detections, files: as in Scored.
    """
    return kind_of(source.truth()).measure(score, source, detections, files)


def write(workdir: str | os.PathLike, scored: Scored) -> pathlib.Path:
    """Writes the result of a source and returns the path of its JSON."""
    folder = pathlib.Path(workdir) / 'eval'
    folder.mkdir(parents=True, exist_ok=True)
    kind = kind_of(scored.source.truth())
    kind.write_detections(folder, scored.source.name, scored)
    return _write_json(folder / f'{scored.source.name}.json', kind.content(scored))


def measure_union(score: Score, members: Sequence[Scored]) -> dict[str, float]:
    """{name: value}: what `score` says of several box sources of one task together, as AVA-Kinetics is scored."""
    return dict(score(box_results.together(members), ava.join([member.source.truth() for member in members])))


def write_union(
    workdir: str | os.PathLike, name: str, members: Sequence[Scored], metrics: Mapping[str, float]
) -> pathlib.Path:
    """Writes W/eval/<name>_detections.csv with the detections of all members; returns the path of W/eval/<name>.json.

    metrics: as `measure_union` returned them.
    """
    folder = pathlib.Path(workdir) / 'eval'
    joined = dataclasses.replace(members[0], detections=box_results.together(members))
    box_results.write_found(folder, name, joined)
    content = {
        'kind': 'union',
        'source': name,
        'step': members[0].step,
        'metrics': dict(metrics),
        'members': [member.source.name for member in members],
        'detections': f'eval/{name}_detections.csv',
    }
    return _write_json(folder / f'{name}.json', content)


def _write_json(path: pathlib.Path, content: Mapping[str, Any]) -> pathlib.Path:
    partial = path.with_suffix('.partial')
    partial.write_text(json.dumps(_finite(content), indent=1), encoding='utf-8')
    os.replace(partial, path)
    return path


def _finite(value: Any) -> Any:
    """JSON has no NaN: null stands for it."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
