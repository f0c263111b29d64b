"""Labelled clips, as Kinetics, Moments in Time and Something-Something have them, cut into examples."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from vidloc.annotations import records as rec
from vidloc.data import sources, transforms


@dataclasses.dataclass(frozen=True)
class Clips:
    """How labelled clips become examples; fields as in Keyframes.

    In training the clip of frames / rate seconds starts anywhere in the video, in evaluation it is the middle one.
    """

    videos: str = ''
    frames: int = 32
    rate: float = 15.0
    size: tuple[int, int] = (224, 224)
    scale: tuple[float, float] = (0.65, 1.1)
    flip: float = 0.5
    missing: str = 'refuse'
    batch_size: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClipExample(sources.Example):
    """label: index of the class."""

    label: int


class ClipSource(sources.Source):
    """Clips with one label each."""

    def __init__(
        self,
        name: str,
        view: Clips,
        records: Sequence[rec.VideoRecord],
        classes: Sequence[str],
        *,
        train: bool,
    ):
        index = {label: i for i, label in enumerate(classes)}
        footage, takes, left_out = sources.locate(name, view, records)
        examples = []
        for record in records:
            for label in record.labels if record.video in takes else ():
                start = label.start or 0.0
                examples.append(
                    ClipExample(
                        video=record.video,
                        path=takes[record.video][0].key,
                        time=start,
                        duration=0.0 if label.end is None else label.end - start,
                        label=index[label.label],
                    )
                )
        super().__init__(name, view, classes, examples, footage, left_out, train=train)

    def load(self, number: int, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
        """video [T,H,W,3] uint8, frame_valid [T], labels [C]. rng None: the middle of the clip, no augmentation."""
        example, view = self.examples[number], self.view
        length = example.duration or self.footage.timeline(example.path).duration - example.time
        spare = max(0.0, length - view.frames / view.rate)
        start = example.time + spare * (0.5 if rng is None else rng.random())
        times = start + np.arange(view.frames) / view.rate
        frames, placement = self._frames(example.path, times, rng)
        if rng is not None and rng.random() < view.flip:
            frames, placement = transforms.flip(frames, placement)
        labels = np.zeros(len(self.classes), np.float32)
        labels[example.label] = 1.0
        return {'video': frames, 'frame_valid': np.ones(view.frames, bool), 'labels': labels}

    def truth(self) -> dict[str, np.ndarray]:
        """Columns video, time (start of the clip) and label (class index)."""
        return {
            'video': np.array([example.video for example in self.examples], dtype=object),
            'time': np.array([example.time for example in self.examples]),
            'label': np.array([example.label for example in self.examples]),
        }

    def label_counts(self) -> np.ndarray:
        """[C] int64: clips of each class."""
        return np.bincount([example.label for example in self.examples], minlength=len(self.classes))

    def label_share(self) -> np.ndarray:
        """[C] float64."""
        return self.label_counts() / len(self.examples)
