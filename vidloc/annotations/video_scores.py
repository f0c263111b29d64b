"""Class scores of whole videos from another classifier, in JSON."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from vidloc.annotations import rows
from vidloc.annotations.records import Problem

_LARGEST = 1e30
_FIX = 'Expected {"results": {video: [a score for each class]}, "class": [names]} or {video: [{"label", "score"}]}.'


def read_video_scores(
    path: str | os.PathLike, classes: Sequence[str], *, notes: list[Problem] | None = None
) -> dict[str, np.ndarray]:
    """{video: scores [C] float64, 0 or more}, C in the order of `classes`.

    Two layouts, each with "results" around it or without:
    - {video: [score, ...]}, as the CUHK classifier's file for ActivityNet has it: the scores follow the names under
      "class" (or "classes") beside "results"; without names they must be as many as `classes`, and follow those;
    - {video: [{"label": name, "score": number}, ...]}: a class that a video does not name has 0; of one that is named
      twice the larger counts.
    Classes that are not among `classes` are left out (warning). Scores above 1 stay as they are (warning).
    Raises AnnotationError with every error found.
    """
    findings = rows.Findings(path)
    root = rows.json_root(rows.read_text(path, findings), findings)
    results = root.get('results', root) if isinstance(root, dict) else None
    if not isinstance(results, dict) or not results:
        findings.stop('json-layout', None, 'there are no videos', _FIX)
    columns = _columns(root, classes, findings) if results is not root else list(range(len(classes)))
    reader = _Rows(classes, columns, findings)
    found = {video: reader.scores(video, values) for video, values in results.items()}
    reader.judge()
    findings.finish(notes)
    return found


def _columns(root: dict[str, Any], classes: Sequence[str], findings: rows.Findings) -> list[int | None]:
    """For each score of a row, the index of its class; None where the task does not have it."""
    names = root.get('class', root.get('classes'))
    if names is None:
        return list(range(len(classes)))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        findings.stop('json-layout', None, '"class" is no list of names', _FIX)
    if len(set(names)) < len(names):
        findings.stop('label-twice', None, '"class" has a name twice', 'Give each class one column.')
    lacking = [name for name in classes if name not in set(names)]
    if lacking:
        message = f'{len(lacking)} of the {len(classes)} classes have no scores, such as {rows.shown(lacking[0])}'
        findings.add('label-missing', None, message, rows.nearest(lacking[0], names))
    extra = [name for name in names if name not in set(classes)]
    if extra:
        message = f'{len(extra)} classes of the file are not among those wanted, such as {rows.shown(extra[0])}'
        findings.warn('label-unknown', None, message, 'Their scores are left out.')
    index = {name: i for i, name in enumerate(classes)}
    return [index.get(name) for name in names]


class _Rows:
    """Reads the scores of one video after another."""

    def __init__(self, classes: Sequence[str], columns: Sequence[int | None], findings: rows.Findings):
        self.classes = classes
        self.index = {name: i for i, name in enumerate(classes)}
        self.length = len(columns)
        self.taken = np.array([i for i, column in enumerate(columns) if column is not None], np.int64)
        self.placed = np.array([column for column in columns if column is not None], np.int64)
        self.findings = findings
        self.unknown: dict[str, None] = {}
        self.known = False
        self.above = 0

    def scores(self, video: str, values: Any) -> np.ndarray:
        """[C]; zeros after a problem."""
        scores = np.zeros(len(self.classes))
        if not isinstance(values, list) or not values:
            self._wrong('json-layout', video, 'has no list of scores', _FIX)
        elif all(isinstance(entry, dict) for entry in values):
            self._entries(video, values, scores)
        elif not all(_is_number(value) for value in values):
            self._wrong('score-not-a-number', video, 'has a score that is not a finite number', _FIX)
        elif len(values) != self.length:
            message = f'has {len(values)} scores for {self.length} classes'
            self._wrong('scores-length', video, message, 'Put the names of the columns under "class" beside "results".')
        else:
            scores[self.placed] = np.array(values, np.float64)[self.taken]
            self.known = True
        if scores.min(initial=0.0) < 0:
            self._wrong('score-negative', video, 'has a score below 0', 'Write probabilities, not logits.')
        self.above += scores.max(initial=0.0) > 1
        return scores

    def judge(self) -> None:
        """Says what is wrong with, or odd about, the file as a whole."""
        if self.unknown:
            first = next(iter(self.unknown))
            message = f'{len(self.unknown)} labels are not among the classes, such as {rows.shown(first)}'
            fix = rows.nearest(first, self.classes)
            self.findings.add('label-unknown', None, message, fix, 'warning' if self.known else 'error')
        if self.above:
            message = f'{self.above} videos have scores above 1, so they are no probabilities'
            fix = 'They are used as they are; fused scores can then be above 1 too, which does not matter for ranking.'
            self.findings.warn('score-above-one', None, message, fix)

    def _entries(self, video: str, values: list[dict], scores: np.ndarray) -> None:
        for entry in values:
            label, score = entry.get('label'), entry.get('score')
            if not isinstance(label, str) or not _is_number(score):
                self._wrong('json-layout', video, 'has an entry without a label and a score', _FIX)
            elif label in self.index:
                scores[self.index[label]] = max(scores[self.index[label]], score) if score >= 0 else score
                self.known = True
            else:
                self.unknown[label] = None

    def _wrong(self, code: str, video: str, message: str, fix: str) -> None:
        self.findings.add(code, None, f'{rows.shown(video)} {message}', fix)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST
