"""Formats as a config names them: which files, and how they are read into records of one split.

Each is a frozen dataclass whose fields are what a config sets and whose read() returns records sorted by video.
docs/formats.md describes the layouts. `labels`, where a format has it, names the file of the class names; where it may
be '', the names are those that the annotations themselves use.
"""

import dataclasses
import logging
import pathlib
from collections.abc import Callable, Collection, Iterable

from vidloc.annotations import (
    activitynet,
    ava,
    class_list,
    clips,
    folders,
    kinetics,
    moma,
    moments,
    proposals,
    segment_table,
    something,
    table,
    ucf101,
)
from vidloc.annotations.records import PersonBox, Problem, VideoRecord

PICKLES = ('.pkl', '.pickle')  # the suffixes by which mmaction2's proposals are told from csv


@dataclasses.dataclass(frozen=True)
class AvaFiles:
    """AVA and AVA-Kinetics csv files.

    annotations: ground-truth csv files (rows of 8, 7 or 2 columns). labels: the action list, pbtxt. detections:
    person boxes, csv in the layout of LFB and SlowFast or mmaction2's pickle (.pkl). excluded: csv of keyframes to
    leave out. included: text file of the seconds that may be keyframes; any other is an error (for AVA itself; the
    keyframes of AVA-Kinetics' clips are at any time).
    """

    annotations: tuple[str, ...] = ()
    labels: str = ''
    detections: tuple[str, ...] = ()
    excluded: str = ''
    included: str = ''

    def files(self) -> dict[str, tuple[str, ...]]:
        """{field: paths} of everything that must be there."""
        needed = {'annotations': tuple(self.annotations), 'labels': (self.labels,)}
        return needed | _given(detections=self.detections, excluded=self.excluded, included=self.included)

    def read(self) -> list[VideoRecord]:
        """Truth and detections of each annotated video in one record.

        Detections on moments without truth stay (SlowFast's rules count them); `keyframes` are those of the truth, and
        what is excluded is nowhere. Raises AnnotationError.
        """
        truth = ava.read_ava(self.annotations, self.labels, self.excluded or None, self.included or None)
        left_out: set[tuple[str, float]] = set()
        if self.excluded:
            columns = ava.read_excluded(self.excluded)
            left_out = {(v, round(float(t), 6)) for v, t in zip(columns['video'], columns['timestamp'], strict=True)}
        return _with_detections(truth, self.detections, self.labels, self.included, left_out)


@dataclasses.dataclass(frozen=True)
class ClipFiles:
    """Lists of `path label` lines. labels: the file of class names in the order of the ids (from 0)."""

    annotations: tuple[str, ...] = ()
    labels: str = ''

    def files(self) -> dict[str, tuple[str, ...]]:
        """{field: paths} of everything that must be there."""
        return {'annotations': tuple(self.annotations), 'labels': (self.labels,)}

    def read(self) -> list[VideoRecord]:
        """Raises AnnotationError."""
        classes = class_list.read_class_list(self.labels)
        return _together(self.annotations, lambda path: clips.read_clips(path, classes))


@dataclasses.dataclass(frozen=True)
class KineticsFiles:
    """Kinetics-400/600/700 csv.

    labels: the class list, or ''. subset: the `split` of the rows to take, such as 'train', or '' for all.
    """

    annotations: tuple[str, ...] = ()
    labels: str = ''
    subset: str = ''

    def files(self) -> dict[str, tuple[str, ...]]:
        """{field: paths} of everything that must be there."""
        return {'annotations': tuple(self.annotations)} | _given(labels=self.labels)

    def read(self) -> list[VideoRecord]:
        """Raises AnnotationError."""
        classes = _names(self.labels)
        return _together(self.annotations, lambda path: kinetics.read_kinetics(path, classes, self.subset or None))


@dataclasses.dataclass(frozen=True)
class MomentsFiles:
    """Moments in Time: trainingSet.csv or validationSet.csv. labels: moments_categories.txt, or ''."""

    annotations: tuple[str, ...] = ()
    labels: str = ''

    def files(self) -> dict[str, tuple[str, ...]]:
        """{field: paths} of everything that must be there."""
        return {'annotations': tuple(self.annotations)} | _given(labels=self.labels)

    def read(self) -> list[VideoRecord]:
        """Raises AnnotationError."""
        classes = _names(self.labels)
        return _together(self.annotations, lambda path: moments.read_moments(path, classes))


@dataclasses.dataclass(frozen=True)
class SomethingFiles:
    """Something-Something v2 JSON (or test-answers.csv). labels: ...-labels.json, or ''."""

    annotations: tuple[str, ...] = ()
    labels: str = ''

    def files(self) -> dict[str, tuple[str, ...]]:
        """{field: paths} of everything that must be there."""
        return {'annotations': tuple(self.annotations)} | _given(labels=self.labels)

    def read(self) -> list[VideoRecord]:
        """Raises AnnotationError."""
        classes = _names(self.labels)
        return _together(self.annotations, lambda path: something.read_something(path, classes))


@dataclasses.dataclass(frozen=True)
class UcfFiles:
    """UCF-101: trainlist0N.txt or testlist0N.txt. labels: classInd.txt."""

    annotations: tuple[str, ...] = ()
    labels: str = ''

    def files(self) -> dict[str, tuple[str, ...]]:
        """{field: paths} of everything that must be there."""
        return {'annotations': tuple(self.annotations), 'labels': (self.labels,)}

    def read(self) -> list[VideoRecord]:
        """Raises AnnotationError."""
        classes = class_list.read_class_list(self.labels)
        return _together(self.annotations, lambda path: ucf101.read_ucf101(path, classes))


@dataclasses.dataclass(frozen=True)
class FolderFiles:
    """Videos in a folder for each class. annotations: the folders that hold them, each DIR of DIR/<class>/<file>.

    subset: the split's folder, where the layout is DIR/<subset>/<class>/<file>; else ''. labels: the class list, or ''.
    """

    annotations: tuple[str, ...] = ()
    labels: str = ''
    subset: str = ''

    def files(self) -> dict[str, tuple[str, ...]]:
        """{field: paths} of everything that must be there; those of `annotations` are folders."""
        return {'annotations': tuple(self.annotations)} | _given(labels=self.labels)

    def read(self) -> list[VideoRecord]:
        """Raises AnnotationError."""
        classes = _names(self.labels)
        return _together(self.annotations, lambda path: folders.read_folders(path, classes, self.subset or None))


@dataclasses.dataclass(frozen=True)
class ActivityNetFiles:
    """ActivityNet's JSON, as ActionFormer and OpenTAD have it too.

    subset: one of the file's own names, such as 'training'; '' takes all. blocked: file of the videos to leave out, or
    ''. prefix: what files of videos have before the video's name, 'v_' for ActivityNet's own.
    """

    annotations: tuple[str, ...] = ()
    subset: str = ''
    blocked: str = ''
    prefix: str = ''

    def files(self) -> dict[str, tuple[str, ...]]:
        """{field: paths} of everything that must be there."""
        return {'annotations': tuple(self.annotations)} | _given(blocked=self.blocked)

    def read(self) -> list[VideoRecord]:
        """Logs what the reader has to say. Raises AnnotationError."""
        blocked = frozenset(segment_table.read_blocked(self.blocked)) if self.blocked else frozenset()
        notes: list[Problem] = []
        found = _together(
            self.annotations,
            lambda path: activitynet.read_activitynet(
                path, self.subset or None, blocked=blocked, prefix=self.prefix, notes=notes
            ),
        )
        _log(notes)
        return found


@dataclasses.dataclass(frozen=True)
class MomaFiles:
    """MOMA-LRG's anns.json, or MOMA 1.0's graph_anns.json (annotations/moma.py).

    labels: the action list, pbtxt, whose actions are taken; needed to evaluate, '' takes all. split, subset: file of
    splits and one of its subsets, such as 'train'; '' takes all. actions: lists whose entries are actions; () takes
    intransitive_actions and transitive_actions. clips: 'activity' where the files are MOMA-LRG's videos of activities,
    '' where they are whole. first: of MOMA 1.0, the frame_timestamp of a video's first frame. detections: person
    boxes, as for AvaFiles.
    """

    annotations: tuple[str, ...] = ()
    labels: str = ''
    split: str = ''
    subset: str = ''
    actions: tuple[str, ...] = ()
    clips: str = ''
    first: float = 1.0
    detections: tuple[str, ...] = ()

    def files(self) -> dict[str, tuple[str, ...]]:
        """{field: paths} of everything that must be there."""
        needed = {'annotations': tuple(self.annotations)}
        return needed | _given(labels=self.labels, split=self.split, detections=self.detections)

    def read(self) -> list[VideoRecord]:
        """Truth and detections of each video in one record. Logs what the reader has to say. Raises AnnotationError."""
        notes: list[Problem] = []
        classes = _names(self.labels)
        truth = _together(
            self.annotations,
            lambda path: moma.read_moma(
                path,
                self.split or None,
                self.subset or None,
                actions=self.actions,
                clips=self.clips,
                first=self.first,
                classes=classes,
                notes=notes,
            ),
        )
        _log(notes)
        return _with_detections(truth, self.detections, self.labels)


@dataclasses.dataclass(frozen=True)
class TableFiles:
    """Our own CSV: video,start,end,label and optionally a box and a track (annotations/table.py)."""

    annotations: tuple[str, ...] = ()

    def files(self) -> dict[str, tuple[str, ...]]:
        """{field: paths} of everything that must be there."""
        return {'annotations': tuple(self.annotations)}

    def read(self) -> list[VideoRecord]:
        """Raises AnnotationError."""
        return _together(self.annotations, table.read_table)


def _with_detections(
    truth: Iterable[VideoRecord],
    paths: Iterable[str],
    labels: str,
    included: str = '',
    left_out: Collection[tuple[str, float]] = (),
) -> list[VideoRecord]:
    """Records with the boxes of these files too, but for those at what is left out, (video, rounded time)."""
    detected: dict[str, list[PersonBox]] = {}
    for path in paths:
        if pathlib.Path(path).suffix.lower() in PICKLES:
            records = proposals.read_proposals(path, included or None)
        else:
            records = ava.read_detections(path, labels or None, included or None)
        for record in records:
            kept = [box for box in record.boxes if (record.video, round(box.time, 6)) not in left_out]
            detected.setdefault(record.video, []).extend(kept)
    return [
        dataclasses.replace(
            record,
            boxes=tuple(sorted([*record.boxes, *detected.get(record.video, ())], key=lambda box: box.time)),
        )
        for record in truth
    ]


def _log(notes: Iterable[Problem]) -> None:
    """The first of each kind: training goes on all the same."""
    kinds: dict[str, list[Problem]] = {}
    for note in notes:
        kinds.setdefault(note.code, []).append(note)
    for alike in kinds.values():
        more = ' (and more of this kind; tools/check_data.py lists them)' if len(alike) > 1 else ''
        logging.warning('%s%s', alike[0], more)


def _given(**fields: str | tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """{field: paths} of the optional fields that are set."""
    return {field: (value,) if isinstance(value, str) else tuple(value) for field, value in fields.items() if value}


def _names(labels: str) -> tuple[str, ...] | None:
    return class_list.read_class_list(labels) if labels else None


def _together(paths: Iterable[str], read: Callable[[str], list[VideoRecord]]) -> list[VideoRecord]:
    return sorted((record for path in paths for record in read(path)), key=lambda record: record.video)
