"""The examples of a keyframe source as columns: every loader worker holds all of them, and there are hundreds of
thousands, each with boxes and labels of its own."""

import dataclasses
from collections.abc import Sequence
from typing import overload

import numpy as np

from vidloc.data import sources
from vidloc.data.clip_table import Texts


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KeyframeExample(sources.Example):
    """boxes float64 [N, 4], scores float32 [N] (1 for boxes drawn by a person), labels uint8 [N, C]."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


class KeyframeTable(Sequence[KeyframeExample]):
    """A sequence of KeyframeExamples, at least one, made when they are asked for; their arrays are views of columns.

    times, starts float64 [M]; ends int64 [M]: where the boxes of each example end in boxes float64 [K, 4], scores
    float32 [K] and labels uint8 [K, C]; videos, paths: [M] strings.
    """

    def __init__(self, examples: Sequence[KeyframeExample]):
        self.videos = Texts(example.video for example in examples)
        self.paths = Texts(example.path for example in examples)
        self.times = np.array([example.time for example in examples], np.float64)
        self.starts = np.array([example.start for example in examples], np.float64)
        self.ends = np.cumsum([len(example.boxes) for example in examples], dtype=np.int64)
        self.boxes = np.concatenate([example.boxes for example in examples])
        self.scores = np.concatenate([example.scores for example in examples])
        self.labels = np.concatenate([example.labels for example in examples])

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> KeyframeExample: ...

    @overload
    def __getitem__(self, index: slice) -> list[KeyframeExample]: ...

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        row = range(len(self))[index]
        own = slice(int(self.ends[row - 1]) if row else 0, int(self.ends[row]))
        return KeyframeExample(
            video=self.videos[row],
            path=self.paths[row],
            time=float(self.times[row]),
            start=float(self.starts[row]),
            boxes=self.boxes[own],
            scores=self.scores[own],
            labels=self.labels[own],
        )
