"""The examples of a clip source as columns: every loader worker holds all of them, and there may be millions."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np

from vidloc.data import sources


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClipExample(sources.Example):
    """label: index of the class."""

    label: int


class Texts(Sequence[str]):
    """Strings, end to end in one block of bytes, without the start that all of them share."""

    def __init__(self, texts: Iterable[str]):
        texts = list(texts)
        first, last = min(texts, default=''), max(texts, default='')
        shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
        self._prefix = first[:shared]
        # File names need not be UTF-8; Python hands such bytes on as surrogates.
        parts = [text[shared:].encode('utf-8', 'surrogateescape') for text in texts]
        self._ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        self._block = b''.join(parts)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        start = int(self._ends[index - 1]) if index else 0
        return self._prefix + self._block[start : int(self._ends[index])].decode('utf-8', 'surrogateescape')


class ClipTable(Sequence[ClipExample]):
    """A sequence of ClipExamples, made when they are asked for.

    labels int32 [M], views int16 [M], times, starts and durations float64 [M]; videos, paths: [M] strings.
    """

    def __init__(self, examples: Sequence[ClipExample]):
        self.videos = Texts(example.video for example in examples)
        self.paths = Texts(example.path for example in examples)
        self.times = np.array([example.time for example in examples], np.float64)
        self.starts = np.array([example.start for example in examples], np.float64)
        self.durations = np.array([example.duration for example in examples], np.float64)
        self.labels = np.array([example.label for example in examples], np.int32)
        self.views = np.array([example.view for example in examples], np.int16)

    def __len__(self) -> int:
        return len(self.labels)

    @overload
    def __getitem__(self, index: int) -> ClipExample: ...

    @overload
    def __getitem__(self, index: slice) -> list[ClipExample]: ...

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        row = range(len(self))[index]
        return ClipExample(
            video=self.videos[row],
            path=self.paths[row],
            time=float(self.times[row]),
            start=float(self.starts[row]),
            duration=float(self.durations[row]),
            view=int(self.views[row]),
            label=int(self.labels[row]),
        )
