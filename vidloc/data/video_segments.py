"""The annotated segments of the videos of a split, as columns."""

import difflib
from collections.abc import Sequence

import numpy as np

from vidloc.annotations import records as rec
from vidloc.data import sources


class VideoSegments:
    """Every segment of every video, as annotated.

    videos: names, sorted. truth(): the columns of all of them; within(video, limit): those of one. Raises DataError
    for a label that is not among the classes.
    """

    def __init__(self, name: str, records: Sequence[rec.VideoRecord], classes: Sequence[str]):
        index = {label: i for i, label in enumerate(classes)}
        ordered = sorted(records, key=lambda record: record.video)
        self.videos = tuple(record.video for record in ordered)
        if len(set(self.videos)) < len(ordered):
            twice = next(a for a, b in zip(self.videos, self.videos[1:], strict=False) if a == b)
            raise sources.DataError(f'source {name}: {twice} is annotated twice; keep one of the two')
        for record in ordered:
            unknown = next((segment.label for segment in record.segments if segment.label not in index), None)
            if unknown is not None:
                near = difflib.get_close_matches(unknown, classes, n=1, cutoff=0.5)
                hint = f'did you mean {near[0]!r}?' if near else f'known: {", ".join(list(classes)[:5])}, ...'
                raise sources.DataError(
                    f'source {name}: {record.video} has the label {unknown!r}, which is not among the {len(index)} '
                    f'classes of its task; {hint}'
                )
        segments = [segment for record in ordered for segment in record.segments]
        self._times = np.array([(each.start, each.end) for each in segments], np.float64).reshape(-1, 2)
        self._labels = np.array([index[each.label] for each in segments], np.int64)
        ends = np.cumsum([0, *(len(record.segments) for record in ordered)]).tolist()
        self._rows = {video: slice(*ends[i : i + 2]) for i, video in enumerate(self.videos)}

    def within(self, video: str, limit: float) -> tuple[np.ndarray, np.ndarray]:
        """(seconds [n, 2] cut to 0 and the video's end, labels [n]); what lies wholly beyond the end is left out."""
        rows = self._rows[video]
        times = np.clip(self._times[rows], 0.0, limit)
        real = times[:, 1] > times[:, 0]
        return times[real], self._labels[rows][real]

    def beyond(self, video: str, limit: float) -> int:
        """How many segments of the video end after its end, by more than a rounding."""
        return int((self._times[self._rows[video]][:, 1] > limit + 1e-3).sum())

    def truth(self) -> dict[str, np.ndarray]:
        """Columns video (object), start, end (float64 seconds, as annotated), label (int64 class index)."""
        counts = [self._rows[video].stop - self._rows[video].start for video in self.videos]
        return {
            'video': np.repeat(np.array(self.videos, dtype=object), counts),
            'start': self._times[:, 0].copy(),
            'end': self._times[:, 1].copy(),
            'label': self._labels.copy(),
        }
