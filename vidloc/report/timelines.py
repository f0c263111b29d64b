"""What the timelines of a page show: which videos, and the true and predicted segments of each, by class."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from vidloc.annotations import activitynet, segment_predictions
from vidloc.annotations.records import VideoRecord
from vidloc.data import footage, video
from vidloc.metrics import temporal
from vidloc.report import films
from vidloc.report.segment_run import Operating, Segments

# The tIoU at which a detection counts as right, videos are ranked and the least score of a class is chosen.
TIOU = 0.5
# A video shows at most so many classes.
LANES = 8
PLACES = ('best', 'upper quarter', 'median', 'lower quarter', 'worst')

RULE = (
    'Videos are ranked by the AP at a tIoU of 0.5 of all their detections in one ranking, whatever the class (of equal '
    'ones the name decides); these are the best, the worst and those at even places between them. A detection is drawn '
    'from the score on at which its class has the best F1 over all validation videos: the score is chosen on the '
    'videos that are shown.'
)


@dataclasses.dataclass(frozen=True)
class Piece:
    """A segment on a timeline, in seconds. score, right: of a prediction; right: whether it takes a true segment."""

    start: float
    end: float
    score: float | None = None
    right: bool | None = None


@dataclasses.dataclass(frozen=True)
class Lane:
    """What is true of a class, what this run predicts, and what a second run does."""

    name: str
    truth: tuple[Piece, ...]
    guesses: tuple[Piece, ...]
    others: tuple[Piece, ...] = ()


@dataclasses.dataclass(frozen=True)
class Timeline:
    """One video. place: where it stands in the ranking. ap, other_ap: of this run and of a second one on it.

    hidden: classes, true or predicted, that find no lane. film: None where there is no video, and problem says why.
    """

    video: str
    place: str
    ap: float | None
    other_ap: float | None
    seconds: float
    lanes: tuple[Lane, ...]
    hidden: tuple[str, ...] = ()
    film: films.Film | None = None
    problem: str = ''


def chosen(ranked: Mapping[str, float | None]) -> list[tuple[str, str]]:
    """(place, video) from best to worst: at even places of the ranking; all videos where they are few."""
    order = sorted(ranked, key=lambda name: (-(ranked[name] or 0.0), name))
    if len(order) < len(PLACES):
        return [(f'{number} of {len(order)}', name) for number, name in enumerate(order, 1)]
    last = len(PLACES) - 1
    return [(place, order[i * (len(order) - 1) // last]) for i, place in enumerate(PLACES)]


def timelines(
    result: Segments,
    workdir: pathlib.Path,
    folder: pathlib.Path,
    first: int,
    twin: Segments | None = None,
    other: pathlib.Path | None = None,
) -> list[Timeline]:
    """Timelines of the chosen videos; their films are brought to `folder` as film_<first> and so on.

    twin, other: a second run's result on the same source and its workdir.
    Raises AnnotationError, OSError: the truth or the detections cannot be read.
    """
    picked = chosen(result.ranked)
    records = {record.video: record for record in activitynet.read_activitynet(workdir / result.truth)}
    names = [name for _, name in picked if name in records]
    shown = _guesses(result, workdir / result.detections, records, names)
    beside = _guesses(twin, other / twin.detections, records, names) if twin is not None else {}
    opened, problem = _footage(result, workdir)
    drawn = []
    for number, (place, name) in enumerate(((p, n) for p, n in picked if n in records), first):
        record, film, why = records[name], None, problem
        if opened is not None:
            try:
                film = films.bring(opened, record, folder, number, _moment(record))
            except (video.VideoError, OSError) as error:
                why = str(error)
        lanes = _lanes(record, shown[name], beside[name] if beside else {})
        ends = [piece.end for lane in lanes for pieces in (lane.truth, lane.guesses, lane.others) for piece in pieces]
        seconds = record.duration or (film.start + film.seconds if film is not None else max(ends, default=1.0))
        drawn.append(
            Timeline(
                video=name,
                place=place,
                ap=result.ranked[name],
                other_ap=twin.ranked.get(name) if twin is not None else None,
                seconds=seconds,
                lanes=tuple(lanes[:LANES]),
                hidden=tuple(lane.name for lane in lanes[LANES:]),
                film=film,
                problem=why,
            )
        )
    return drawn


def _footage(result: Segments, workdir: pathlib.Path) -> tuple[footage.Footage | None, str]:
    """The source's videos, or why there are none."""
    if not result.videos:
        return None, 'the source has no folder of videos'
    inside = workdir / result.videos
    where = str(inside) if not os.path.exists(result.videos) and inside.exists() else result.videos
    if not os.path.isdir(where):
        return None, f'the folder of videos, {where}, is not there'
    try:
        return footage.open_footage(where, result.frame_rate), ''
    except (ValueError, OSError) as error:
        return None, str(error)


def _moment(record: VideoRecord) -> float:
    """The middle of the first true segment."""
    first = next(iter(record.segments), None)
    return (first.start + first.end) / 2 if first is not None else 0.0


def _guesses(
    result: Segments, path: pathlib.Path, records: Mapping[str, VideoRecord], names: Sequence[str]
) -> dict[str, dict[str, tuple[Piece, ...]]]:
    """{video: {class: its pieces by time}} of the named videos, from the least score of each class on."""
    columns = segment_predictions.read_segment_predictions(path, result.classes)
    wanted = set(names)
    shown = np.array([name in wanted for name in columns['video'].tolist()], bool)
    mine = np.flatnonzero(shown & (columns['label'] >= 0))
    found = {name: values[mine] for name, values in columns.items()}
    right = _right(result.classes, found, records, names)
    pieces: dict[str, dict[str, list[Piece]]] = {name: {} for name in names}
    for i in np.argsort(found['start'], kind='stable').tolist():
        label, score = result.classes[int(found['label'][i])], float(found['score'][i])
        least = result.operating[label]
        if least is not None and score >= least.score:
            piece = Piece(float(found['start'][i]), float(found['end'][i]), score, bool(right[i]))
            pieces[str(found['video'][i])].setdefault(label, []).append(piece)
    return {name: {label: tuple(row) for label, row in rows.items()} for name, rows in pieces.items()}


def _right(classes: Sequence[str], found: temporal.Columns, records, names: Sequence[str]) -> np.ndarray:
    """[M] bool: whether a detection takes a true segment at TIOU."""
    place = {label: number for number, label in enumerate(classes)}
    rows = [
        (name, segment.start, segment.end, place[segment.label])
        for name in names
        for segment in records[name].segments
        if segment.label in place
    ]
    truth = {
        'video': np.array([row[0] for row in rows], object),
        'start': np.array([row[1] for row in rows], np.float64),
        'end': np.array([row[2] for row in rows], np.float64),
        'label': np.array([row[3] for row in rows], np.int64),
    }
    matches = temporal.match(truth, found, dict(enumerate(classes)), (TIOU,))
    right = np.zeros(len(found['score']), bool)
    right[matches.row] = matches.taken[:, 0] >= 0
    return right


def operating_points(matches: temporal.SegmentMatches) -> dict[int, Operating | None]:
    """{id: where its F1 is best}, None of a class without a right detection; matches: at TIOU alone.

    F1 is 2 R / (D + G) of R right ones among D detections and G true segments.
    """
    points: dict[int, Operating | None] = {}
    for number, mine, truths in zip(matches.ids.tolist(), matches.of_class(), matches.positives(), strict=True):
        score = matches.score[mine]
        right = np.cumsum(matches.taken[mine, 0] >= 0)
        # A score takes all detections that have it: only the last of equal ones can be the end.
        last = np.flatnonzero(np.diff(score, append=-np.inf) != 0)
        if not len(last) or not right[-1]:
            points[number] = None
            continue
        f1 = 2 * right[last] / (last + 1 + truths)
        best = int(last[np.argmax(f1)])
        points[number] = Operating(
            score=float(score[best]),
            f1=float(f1.max()),
            precision=float(right[best] / (best + 1)),
            recall=float(right[best] / truths),
        )
    return points


def ranked(truth: temporal.Columns, detections: temporal.Columns) -> dict[str, float]:
    """{video: AP at TIOU of all its detections in one ranking, whatever the class}, of the videos with true segments.

    A detection can only take true segments of its own class.
    """
    videos = sorted(set(truth['video'].tolist()))
    number = {name: i for i, name in enumerate(videos)}

    def regrouped(columns: temporal.Columns) -> dict[str, np.ndarray]:
        mine = np.flatnonzero([name in number for name in columns['video'].tolist()])
        kept = {name: np.asarray(values)[mine] for name, values in columns.items()}
        pairs = zip(kept['video'].tolist(), kept['label'].tolist(), strict=True)
        group = np.array([number[name] for name in kept['video'].tolist()], np.int64)
        return {**kept, 'video': np.array([f'{label} {name}' for name, label in pairs], object), 'label': group}

    result = temporal.segment_ap(regrouped(truth), regrouped(detections), dict(enumerate(videos)), (TIOU,))
    return {name: float(result.per_class[i][0]) for i, name in enumerate(videos)}


def _lanes(
    record: VideoRecord, guesses: Mapping[str, tuple[Piece, ...]], others: Mapping[str, tuple[Piece, ...]]
) -> list[Lane]:
    """True classes as they appear, then classes that are only predicted, the best score first."""
    true: dict[str, list[Piece]] = {}
    for segment in record.segments:
        true.setdefault(segment.label, []).append(Piece(segment.start, segment.end))
    best: dict[str, float] = {}
    for rows in (guesses, others):
        for label, pieces in rows.items():
            best[label] = max([best.get(label, 0.0), *(piece.score or 0.0 for piece in pieces)])
    rest = sorted((label for label in best if label not in true), key=lambda label: -best[label])
    return [
        Lane(label, tuple(true.get(label, ())), guesses.get(label, ()), others.get(label, ()))
        for label in (*true, *rest)
    ]
