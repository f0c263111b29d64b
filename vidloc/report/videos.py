"""Annotated validation videos: which ones, what is drawn on them, and the mp4 files beside the page."""

import base64
import dataclasses
import hashlib
import io
import itertools
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from vidloc.annotations import ava, ava_table, label_map
from vidloc.annotations.records import VideoRecord
from vidloc.data import encode, footage, video
from vidloc.report import draw
from vidloc.report.plots import Span
from vidloc.report.run import Detection

SHOWN = 6
# A long video is cut: this many seconds, from one second before its first keyframe.
MAX_SECONDS = 12.0
MAX_FPS = 15.0
# Frames of a film are large: so many bytes of them are held at a time.
HELD = 1 << 28
# A box is labelled with its best class, and with the second best where that has at least this score.
SECOND_LABEL = 0.3
# The timeline of a video shows at most so many classes.
TIMELINE_ROWS = 8

RULE = (
    f'The {SHOWN} videos come first when the names of all validation videos are sorted by their SHA-256; '
    'how well they came out plays no part.'
)


@dataclasses.dataclass(frozen=True)
class Annotated:
    """One video of the page. `file` is None where it could not be made, and `problem` says why.

    start: seconds of the video that the cut begins at; all times below count from it.
    poster: JPEG bytes of the annotated frame at the first keyframe.
    rows: per class its spans, for the timeline.
    """

    name: str
    file: str | None = None
    problem: str = ''
    poster: bytes = b''
    width: int = 0
    height: int = 0
    start: float = 0.0
    seconds: float = 0.0
    keyframes: tuple[float, ...] = ()
    rows: tuple[tuple[str, tuple[Span, ...]], ...] = ()

    @property
    def poster_url(self) -> str:
        return 'data:image/jpeg;base64,' + base64.b64encode(self.poster).decode('ascii')


def chosen(names: Sequence[str]) -> list[str]:
    """The first SHOWN names in the order of the SHA-256 of their UTF-8 bytes."""
    return sorted(names, key=lambda name: hashlib.sha256(name.encode('utf-8')).digest())[:SHOWN]


def annotated(result: Detection, workdir: pathlib.Path, folder: pathlib.Path, first: int) -> list[Annotated]:
    """Draws the chosen videos of a source into `folder` as video_<first>.mp4 and so on.

    A video that is missing or damaged comes back with its problem instead of a file.

    Raises:
      AnnotationError, OSError: the ground truth, the label map or the detections cannot be read.
    """
    labels = _found(result.label_map, workdir)
    truth = [_found(path, workdir) for path in result.ground_truth]
    excluded = _found(result.excluded, workdir) if result.excluded else None
    records = {r.video: r for r in ava.read_ava(truth, labels, excluded)}
    names = chosen(list(records))
    guesses = _predictions(workdir / result.detections, label_map.read_label_map(labels), names)
    where = _found(result.videos, workdir)
    if not os.path.isdir(where):
        return [Annotated(name, problem=f'the folder of videos, {where}, is not there') for name in names]
    films = footage.open_footage(where, result.frame_rate)
    clips = []
    for number, name in enumerate(names, first):
        takes = films.takes(records[name])
        try:
            if not takes:
                raise video.VideoError(f'no video of the name {name} in {where}')
            take = _take_of(takes, records[name].keyframes[0], result.video_start)
            clips.append(_draw_video(films, take, records[name], guesses[name], folder, number))
        except (video.VideoError, OSError) as error:
            clips.append(Annotated(name, problem=str(error)))
    return clips


def _take_of(takes: Sequence[footage.Take], time: float, start: float) -> footage.Take:
    """The piece that holds the moment, or else comes nearest; `start` is when files begin whose names do not say."""
    if len(takes) == 1 and not takes[0].start:
        return dataclasses.replace(takes[0], start=start)
    return min(takes, key=lambda take: max(take.start - time, time - take.end, 0.0))


def _found(path: str, workdir: pathlib.Path) -> str:
    """`path` as given, or below the workdir where only that exists (a run moved with its data)."""
    inside = workdir / path
    return str(inside) if not os.path.exists(path) and inside.exists() else path


def _predictions(path, classes: dict[int, str], names: Sequence[str]) -> dict[str, dict[float, list]]:
    """{video: {timestamp: [(box, ((class, score), ...) best first)]}} of the named videos."""
    table = ava_table.read_ava_table(path)
    result = {}
    for name in names:
        people: dict[float, dict[tuple, list]] = {}
        for i in np.flatnonzero((table['video'] == name) & np.isin(table['action_id'], list(classes))):
            box = tuple(float(table[side][i]) for side in ('x1', 'y1', 'x2', 'y2'))
            label = classes[int(table['action_id'][i])]
            labels = people.setdefault(round(float(table['timestamp'][i]), 3), {}).setdefault(box, [])
            labels.append((label, float(table['score'][i])))
        result[name] = {
            time: [(box, tuple(sorted(labels, key=lambda label: -label[1]))) for box, labels in boxes.items()]
            for time, boxes in people.items()
        }
    return result


def _draw_video(
    films: footage.Footage, take: footage.Take, record: VideoRecord, guesses, folder: pathlib.Path, number: int
) -> Annotated:
    shown = films.timeline(take.key)
    late = max(0.0, next((t for t in record.keyframes if t >= take.start), take.start) - take.start - 1.0)
    begin = late if shown.duration > MAX_SECONDS else 0.0
    seconds = min(shown.duration - begin, MAX_SECONDS)
    keyframes = []
    scores: list[dict[str, float]] = []
    for time in record.keyframes:
        at = time - take.start - begin
        if not 0 <= at <= seconds:
            continue
        people = [
            draw.Person(person.box, tuple((label, None) for label in person.labels))
            for person in record.boxes
            if person.time == time
        ]
        found = guesses.get(round(time, 3), [])
        keyframes.append(draw.Keyframe(round(at, 3), tuple(people), tuple(draw.Person(b, _best(s)) for b, s in found)))
        best: dict[str, float] = {}
        for label, score in (pair for _, labels in found for pair in labels):
            best[label] = max(score, best[label]) if label in best else score
        scores.append(best)
    if not keyframes:
        raise video.VideoError(
            f'{take.key}: none of its keyframes lies within the {shown.duration:.1f} s of the file; '
            'set the `time_offset` of its source.'
        )
    fps = min(len(shown.pts) / shown.duration, MAX_FPS)
    times = np.arange(max(1, round(seconds * fps))) / fps
    first = int(np.argmin(np.abs(times - keyframes[0].time)))
    frame = films.read(take.key, begin + times[first : first + 1])[0]
    poster = draw.draw_frame(frame, keyframes[0], time=float(times[first]))
    held = max(1, HELD // frame.nbytes)
    parts = (films.read(take.key, begin + times[i : i + held]) for i in range(0, len(times), held))
    file = folder / f'video_{number:02d}.mp4'
    encode.write_video(file, draw.annotate(itertools.chain.from_iterable(parts), times, keyframes), fps, crf=20)
    buffer = io.BytesIO()
    Image.fromarray(poster).save(buffer, 'JPEG', quality=82)
    return Annotated(
        name=record.video,
        file=file.name,
        poster=buffer.getvalue(),
        width=poster.shape[1],
        height=poster.shape[0],
        start=begin,
        seconds=len(times) / fps,
        keyframes=tuple(keyframe.time for keyframe in keyframes),
        rows=_rows(keyframes, scores, len(times) / fps),
    )


def _best(labels: tuple[tuple[str, float], ...]) -> tuple[tuple[str, float], ...]:
    """The labels to write on a box: the best, and the second best from SECOND_LABEL on."""
    return labels[:1] + tuple(label for label in labels[1:2] if label[1] >= SECOND_LABEL)


def _rows(keyframes: Sequence[draw.Keyframe], scores: Sequence[dict[str, float]], seconds: float):
    """Spans of the classes that are true or drawn at some keyframe, true ones first, as they appear."""
    true = [label for k in keyframes for person in k.truth for label, _ in person.labels]
    drawn = [label for k in keyframes for person in k.predicted for label, _ in person.labels]
    names = list(dict.fromkeys([*true, *drawn]))[:TIMELINE_ROWS]
    where = draw.spans([keyframe.time for keyframe in keyframes], seconds)
    rows = []
    for name in names:
        row = []
        for keyframe, best, (start, end) in zip(keyframes, scores, where, strict=True):
            truth = any(name == label for person in keyframe.truth for label, _ in person.labels)
            row.append(Span(start, end, truth, best.get(name)))
        rows.append((name, tuple(row)))
    return tuple(rows)
