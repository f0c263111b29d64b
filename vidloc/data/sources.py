"""Sources: one data set on disk as a table of examples with random access.

A view says how examples are cut from records and videos (its fields are what a config may set); a source is a
view applied to the records of one split (data/keyframes.py, data/clips.py). Loading is a pure function of (example,
random generator).
"""

import copy
import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from vidloc.annotations import records as rec
from vidloc.data import footage as footage_lib

SHOWN = 5
# What becomes of records whose video is not there.
MISSING = ('refuse', 'leave_out')


class DataError(ValueError):
    """The data on disk do not fit the config; the text says what, where and what to do."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One row of a source's table.

    time: the keyframe in seconds on the annotation's clock, or the start of a clip. path: the key of its footage, which
    begins at `start` on the same clock. duration: of the clip in seconds, 0 if it is the whole file. view: which of
    several views of one example.
    """

    video: str
    path: str
    time: float
    start: float = 0.0
    duration: float = 0.0
    view: int = 0

    @property
    def key(self) -> str:
        return f'{self.video}|{self.time:.6f}|{self.view}'


class Source:
    """Random access to the examples of one split, ordered by key; subclasses say what an example is.

    left_out: the videos that are not there, or of which an annotated moment is not, and that the view leaves out.
    Subclasses may keep a `_truth` for scoring, which stays behind when a source travels to a loader worker. shots: what
    was drawn for a source that is restricted to a few samples (kshot.Shots), None for others. beyond: code and advice
    of the problem that moments() lie outside of the file.
    """

    shots: Any = None

    beyond = (
        'keyframe-beyond-video',
        'Times are seconds; set time_offset where files start later than the film, and check frame_rate.',
    )

    def __init__(
        self,
        name: str,
        view: Any,
        classes: Sequence[str],
        examples: list[Any],
        footage: footage_lib.Footage,
        left_out: Sequence[str] = (),
        *,
        train: bool,
    ):
        self.name, self.view, self.classes, self.train = name, view, tuple(classes), train
        self.footage, self.left_out = footage, tuple(left_out)
        self.examples = sorted(examples, key=lambda example: example.key)
        if not self.examples:
            raise DataError(f'source {name}: no example is left; check the annotations, subset and thresholds')

    def __len__(self) -> int:
        return len(self.examples)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != '_truth'}

    def moments(self, numbers: Sequence[int]) -> list[float]:
        """Seconds on the annotation's clock that the files of these examples, all of one video, must hold."""
        return [self.examples[number].time for number in numbers]

    def extent(self, number: int) -> tuple[float, float, float]:
        """(begin, end) of an example's file on the annotation's clock, its frames a second, 0 if it has none.

        Raises video.VideoError.
        """
        example = self.examples[number]
        timeline = self.footage.timeline(example.path)
        rate = 1 / float(np.median(np.diff(timeline.times))) if len(timeline.pts) > 1 else 0.0
        return example.start, example.start + timeline.duration, rate

    def probe(self, number: int) -> None:
        """Reads an example, or a part of it that tells whether it can be read. Raises video.VideoError."""
        self.load(number, None)

    def fingerprint(self) -> dict[str, int | str]:
        """Size and sha256 of the ordered example keys, and of the shots if there are any (W/data.json)."""
        lines = [example.key for example in self.examples]
        if self.shots is not None:
            lines += self.shots.keys()
        digest = hashlib.sha256('\n'.join(lines).encode())
        return {'size': len(self.examples), 'sha256': digest.hexdigest()}


def locate(
    name: str, view: Any, records: Sequence[rec.VideoRecord], *, clip: float | None = None
) -> tuple[footage_lib.Footage, dict[str, tuple[footage_lib.Take, ...]], tuple[str, ...]]:
    """(footage of view.videos, {video: its takes}, videos left out).

    clip: seconds that one chunk of a prepared set should hold; frames / rate of the view if not given. Raises DataError
    that names the folder and the first missing videos, unless view.missing is 'leave_out'.
    """
    if view.missing not in MISSING:
        raise DataError(f'source {name}: missing is {view.missing!r}; known: {", ".join(MISSING)}')
    try:
        footage = footage_lib.open_footage(view.videos, view.frame_rate)
    except FileNotFoundError as error:
        raise DataError(
            f'source {name}: no folder of videos at {view.videos or "(not set)"!r}; '
            f'set --config.sources.{name}.videos=DIR to the folder that holds {_wanted(records)}'
        ) from error
    except ValueError as error:
        raise DataError(f'source {name}: {error}') from error
    if (length := view.frames / view.rate if clip is None else clip) > footage.longest_clip:
        logging.warning(
            'source %s: clips of %.2f s are put together from several chunks of %s, which is slow; prepare it again '
            'with --overlap %.2f or more',
            *(name, length, view.videos, length),
        )
    takes = {record.video: footage.takes(record) for record in records}
    missing = [record.path or record.stem or record.video for record in records if not takes[record.video]]
    if missing:
        text = f'source {name}: {len(missing)} of {len(records)} videos are not in {view.videos}: {some(missing)}'
        if hint := _prefix_hint(footage, records, takes):
            text = f'{text} ({hint})'
        if view.missing == 'refuse':
            raise DataError(
                f"{text}; get them, take them out of the annotations, or set missing='leave_out' to go on without them"
            )
        logging.warning('%s; left out', text)
    found = {video: pieces for video, pieces in takes.items() if pieces}
    # A copy knows the folder alone: the names of a million files are not needed any more.
    return copy.copy(footage), found, tuple(record.video for record in records if not takes[record.video])


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
    return f'{", ".join(names[:SHOWN])}{more}'


def _prefix_hint(
    footage: footage_lib.Footage, records: Sequence[rec.VideoRecord], takes: dict[str, tuple[footage_lib.Take, ...]]
) -> str:
    """What to set if files are called like ActivityNet's, `v_` before the name, and the annotations are not."""
    lacking = next((record for record in records if not takes[record.video] and record.path is None), None)
    if lacking is None or lacking.stem is not None:
        return ''
    prefixed = dataclasses.replace(lacking, stem=f'v_{lacking.video}')
    return f"v_{lacking.video} is there: format activitynet takes prefix='v_'" if footage.takes(prefixed) else ''


def _wanted(records: Sequence[rec.VideoRecord]) -> str:
    names = [record.path or f'{record.stem or record.video}.mp4' for record in records[:2]]
    return ', '.join([*names, '...']) if records else 'them'
