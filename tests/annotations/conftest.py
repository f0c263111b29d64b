"""Generated records: what the formats can hold, with awkward names and numbers."""

import dataclasses

import numpy as np
import pytest

from vidloc.annotations.records import ClipLabel, PersonBox, Segment, VideoRecord

CLASSES = ('walk', 'ride a bike', 'say "hello"', 'back\\slash', 'comma, and', 'schlürfen', "one's own")
VIDEOS = ('-5KQ66BBWC4', 'abc_000001_000011', 'a,b', 'with space', 'ümlaut', '"quoted"', 'folder/inner', '0', 'x.y')


@dataclasses.dataclass(frozen=True)
class Generator:
    """Records drawn from a seeded generator."""

    rng: np.random.Generator

    def number(self, low: float, high: float) -> float:
        value = float(self.rng.uniform(low, high))
        return [value, round(value, 3), float(np.float32(value)), round(value, 1)][self.rng.integers(4)]

    def box(self) -> tuple[float, float, float, float]:
        x1, y1 = self.number(0, 0.5), self.number(0, 0.5)
        return x1, y1, x1 + self.number(0.1, 0.4), y1 + self.number(0.1, 0.4)

    def labels(self, most: int) -> tuple[str, ...]:
        return tuple(self.rng.permutation(CLASSES)[: self.rng.integers(most + 1)].tolist())

    def times(self) -> list[float]:
        count = self.rng.integers(1, 6)
        drawn = [
            float(self.rng.integers(0, 2000)) if self.rng.random() < 0.6 else self.number(0, 2000) for _ in range(count)
        ]
        return sorted(set(drawn))

    def videos(self) -> list[str]:
        return sorted(self.rng.permutation(VIDEOS)[: self.rng.integers(1, 6)].tolist())

    def people(self, times: list[float], *, scores: bool, tracks: bool) -> tuple[PersonBox, ...]:
        people = []
        for time in times:
            for number in range(self.rng.integers(0, 4)):
                score = self.number(0, 1) if scores else None
                track = f'p{number}' if tracks and self.rng.random() < 0.7 else None
                people.append(PersonBox(time, self.box(), self.labels(3), score, track))
        return tuple(people)

    def boxes(self, *, scores: bool, tracks: bool) -> list[VideoRecord]:
        records = []
        for video in self.videos():
            times = self.times()
            people = self.people(times, scores=scores, tracks=tracks)
            records.append(VideoRecord(video, keyframes=tuple(times), boxes=people))
        return records

    def segments(self) -> tuple[Segment, ...]:
        drawn = set()
        for _ in range(self.rng.integers(0, 5)):
            start = self.number(0, 100)
            drawn.add(Segment(start, start + self.number(0.5, 20), CLASSES[self.rng.integers(len(CLASSES))]))
        return tuple(sorted(drawn, key=lambda segment: (segment.start, segment.end)))

    def clips(self) -> list[VideoRecord]:
        paths = [f'{video}.mp4' for video in self.rng.permutation(VIDEOS)[: self.rng.integers(1, 8)].tolist()]
        return [
            VideoRecord(path, path=path, labels=(ClipLabel(CLASSES[self.rng.integers(len(CLASSES))]),))
            for path in paths
        ]


@pytest.fixture
def generate():
    """seed -> Generator"""
    return lambda seed: Generator(np.random.default_rng(seed))
