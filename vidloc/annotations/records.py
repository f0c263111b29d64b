"""Records: what every annotation format is read into. Times in seconds, boxes xyxy in [0,1] of the displayed frame."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class PersonBox:
    """One person at one moment.

    time: seconds on the clock of the annotation (AVA counts from the start of the movie).
    box: (x1, y1, x2, y2) in [0,1], y down.
    labels: class names that hold for this person now; empty means that none of the classes does.
    score: a detector's confidence; None when a person drew the box.
    track: identity within the video, if known.
    """

    time: float
    box: tuple[float, float, float, float]
    labels: tuple[str, ...] = ()
    score: float | None = None
    track: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Segment:
    """An action from `start` to `end`, in seconds."""

    start: float
    end: float
    label: str


@dataclasses.dataclass(frozen=True, slots=True)
class ClipLabel:
    """A label of a whole clip, or of `start` to `end` seconds of it when they are given."""

    label: str
    start: float | None = None
    end: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class VideoRecord:
    """All that one split of a data set says about one video.

    video: the name that the annotations use.
    path: the file relative to the folder of videos, where the format names one; else None and the file is
      looked for as `video` with any known extension.
    stem: what the file is called, without its extension, where that is neither `path` nor the video's name.
    fps: frames a second of the video, where the annotations say.
    keyframes: the annotated moments, sorted; those without boxes are listed too, for they count in evaluation.
    boxes, segments, labels: sorted by time.
    """

    video: str
    path: str | None = None
    subset: str | None = None
    duration: float | None = None
    keyframes: tuple[float, ...] = ()
    boxes: tuple[PersonBox, ...] = ()
    segments: tuple[Segment, ...] = ()
    labels: tuple[ClipLabel, ...] = ()
    stem: str | None = None
    fps: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a file: what, where, and what to do about it."""

    code: str
    file: str
    line: int | None
    message: str
    fix: str
    severity: str = 'error'

    def __str__(self) -> str:
        where = self.file if self.line is None else f'{self.file}:{self.line}'
        return f'{where}: {self.message} [{self.code}] {self.fix}'


class AnnotationError(ValueError):
    """Raised by a strict reader; `problems` holds every finding, the text shows the first few."""

    SHOWN = 5

    def __init__(self, problems: list[Problem] | tuple[Problem, ...]):
        self.problems = tuple(problems)
        lines = [str(problem) for problem in self.problems[: self.SHOWN]]
        if len(self.problems) > self.SHOWN:
            lines.append(f'... and {len(self.problems) - self.SHOWN} more')
        super().__init__('\n'.join(lines))
