"""Formats as a config names them: which files, and how they are read into records of one split.

Each is a frozen dataclass whose fields are what a config sets and whose read() returns records sorted by video.
"""

import dataclasses

from vidloc.annotations import activitynet, ava, clips, table
from vidloc.annotations.records import PersonBox, VideoRecord


@dataclasses.dataclass(frozen=True)
class AvaFiles:
    """AVA and AVA-Kinetics csv files.

    annotations: ground-truth csv files (rows of 8, 7 or 2 columns). labels: the action list, pbtxt. detections:
    person boxes in the layout of LFB and SlowFast. excluded: csv of keyframes to leave out.
    """

    annotations: tuple[str, ...] = ()
    labels: str = ''
    detections: tuple[str, ...] = ()
    excluded: str = ''

    def files(self) -> dict[str, tuple[str, ...]]:
        """{field: paths} of everything that must be there."""
        needed = {'annotations': tuple(self.annotations), 'labels': (self.labels,)}
        optional = {'detections': tuple(self.detections), 'excluded': (self.excluded,) if self.excluded else ()}
        return needed | {field: paths for field, paths in optional.items() if paths}

    def read(self) -> list[VideoRecord]:
        """Truth and detections of each annotated video in one record.

        Detections on moments without truth stay (SlowFast's rules count them); `keyframes` are those of the truth, and
        what is excluded is nowhere. Raises AnnotationError.
        """
        truth = ava.read_ava(self.annotations, self.labels, self.excluded or None)
        left_out: set[tuple[str, float]] = set()
        if self.excluded:
            columns = ava.read_excluded(self.excluded)
            left_out = {(v, round(float(t), 6)) for v, t in zip(columns['video'], columns['timestamp'], strict=True)}
        detected: dict[str, list[PersonBox]] = {}
        for path in self.detections:
            for record in ava.read_detections(path, self.labels):
                kept = [box for box in record.boxes if (record.video, round(box.time, 6)) not in left_out]
                detected.setdefault(record.video, []).extend(kept)
        return [
            dataclasses.replace(
                record,
                boxes=tuple(sorted([*record.boxes, *detected.get(record.video, ())], key=lambda box: box.time)),
            )
            for record in truth
        ]


@dataclasses.dataclass(frozen=True)
class ClipFiles:
    """Lists of `path label` lines. labels: the file of class names, one a line, in the order of the ids."""

    annotations: tuple[str, ...] = ()
    labels: str = ''

    def files(self) -> dict[str, tuple[str, ...]]:
        """{field: paths} of everything that must be there."""
        return {'annotations': tuple(self.annotations), 'labels': (self.labels,)}

    def read(self) -> list[VideoRecord]:
        """Raises AnnotationError."""
        found = [record for path in self.annotations for record in clips.read_clips(path, self.labels)]
        return sorted(found, key=lambda record: record.video)


@dataclasses.dataclass(frozen=True)
class ActivityNetFiles:
    """ActivityNet's JSON. subset: one of the file's own names, such as 'training'; '' takes all."""

    annotations: tuple[str, ...] = ()
    subset: str = ''

    def files(self) -> dict[str, tuple[str, ...]]:
        """{field: paths} of everything that must be there."""
        return {'annotations': tuple(self.annotations)}

    def read(self) -> list[VideoRecord]:
        """Raises AnnotationError."""
        found = [
            record for path in self.annotations for record in activitynet.read_activitynet(path, self.subset or None)
        ]
        return sorted(found, key=lambda record: record.video)


@dataclasses.dataclass(frozen=True)
class TableFiles:
    """Our own CSV: video,start,end,label and optionally a box and a track (annotations/table.py)."""

    annotations: tuple[str, ...] = ()

    def files(self) -> dict[str, tuple[str, ...]]:
        """{field: paths} of everything that must be there."""
        return {'annotations': tuple(self.annotations)}

    def read(self) -> list[VideoRecord]:
        """Raises AnnotationError."""
        found = [record for path in self.annotations for record in table.read_table(path)]
        return sorted(found, key=lambda record: record.video)
