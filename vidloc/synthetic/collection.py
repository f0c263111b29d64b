"""The sets of MocapStreet, their sizes, and how any one of their videos is drawn."""

import dataclasses

import numpy as np

from vidloc.annotations.records import ClipLabel, VideoRecord
from vidloc.synthetic import detections, street, untrimmed, upstream

SETS = ('street', 'studio', 'yard')
# The set that is made only when asked for.
UNTRIMMED = 'untrimmed'
STREAMS = (*SETS, UNTRIMMED)
SPLITS = ('train', 'val')
SUBSETS = {'train': 'training', 'val': 'validation'}


@dataclasses.dataclass(frozen=True)
class Size:
    """street, clip, long: what videos look like (long: the untrimmed ones, None without); ..._videos: how many
    (train, val), clips for each set.
    """

    street: street.Stage
    street_videos: tuple[int, int]
    clip: upstream.ClipStage
    clip_videos: tuple[int, int]
    long: untrimmed.Stage | None = None
    long_videos: tuple[int, int] = (0, 0)

    def videos(self, name: str) -> tuple[int, int]:
        """How many videos a set has, (train, val)."""
        return {'street': self.street_videos, UNTRIMMED: self.long_videos}.get(name, self.clip_videos)

    def fps(self, name: str) -> int:
        """Frames a second of a set."""
        return {'street': self.street, UNTRIMMED: self.long}.get(name, self.clip).fps


SIZES = {
    'tiny': Size(
        street.Stage(64, 96, 8, 3, 'plain'),
        (28, 10),
        upstream.ClipStage(48, 8, 8),
        (40, 10),
        untrimmed.Stage(48, 64, 8, (11, 13), 'plain'),
        (6, 4),
    ),
    'small': Size(
        street.Stage(64, 96, 8, 4, 'plain'),
        (1200, 200),
        upstream.ClipStage(48, 8, 8),
        (2100, 300),
        untrimmed.Stage(48, 64, 8, (40, 60), 'plain'),
        (120, 60),
    ),
    'bench': Size(
        street.Stage(128, 192, 12, 10, 'hard'), (2000, 300), upstream.ClipStage(96, 16, 12, hard=True), (4000, 500)
    ),
}


def stream(seed: int, name: str, split: str, number: int) -> np.random.SeedSequence:
    """The random stream of one video, shared with no other."""
    return np.random.SeedSequence([seed, STREAMS.index(name), SPLITS.index(split), number])


def clip_classes(name: str) -> tuple[str, ...]:
    """The classes of a set of clips, in order."""
    return tuple(upstream.CLIP_SETS[name].classes)


def draw(
    size: str, seed: int, name: str, split: str, number: int
) -> tuple[np.ndarray, VideoRecord, VideoRecord | None]:
    """One video of a size: frames uint8 [T, H, W, 3], its truth, and simulated detections (street alone, else None)."""
    own = stream(seed, name, split, number)
    if name == UNTRIMMED:
        video = untrimmed.draw(f'untrimmed_{split}_{number:05d}', SIZES[size].long, own)
        return video.frames, dataclasses.replace(video.truth, subset=SUBSETS[split]), None
    if name == 'street':
        scene, detector = own.spawn(2)
        video = street.draw(f'street_{split}_{number:05d}', SIZES[size].street, scene)
        truth = dataclasses.replace(video.truth, subset=SUBSETS[split])
        return video.frames, truth, detections.detect(truth, split == 'train', detector)
    classes = clip_classes(name)
    label = classes[number % len(classes)]
    frames = upstream.draw(upstream.CLIP_SETS[name], label, SIZES[size].clip, own)
    path = f'videos/{split}_{number:05d}.mp4'
    truth = VideoRecord(path, path=path, subset=SUBSETS[split], labels=(ClipLabel(label),))
    return frames, truth, None
