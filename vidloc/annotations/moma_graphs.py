"""MOMA 1.0's graph_anns.json: one entry for each annotated second of a video trimmed to a sub-activity.

`[{"trim_video_id": "2020...", "frame_timestamp": 1, "frame_dim": {"width": 640, "height": 360}, "annotation":
{"actors": [{"id_in_video": "A", "class": "waiter", "bbox": {"topLeft": {"x": 10, "y": 20}, "bottomLeft": ...,
"topRight": ..., "bottomRight": ...}}], "atomic_actions": [{"class": "talk to (someone)", "actor_id": "A,B"}],
"objects": [...], "relationships": [...]}, "raw_video_id", "graph_id", "fps", "activity", "subactivity"}]`
Layout: d1ngn1gefe1/moma-1.0, README.md and load_annotations.py. Boxes, sizes and ids as d1ngn1gefe1/moma-hypergraph,
datasets/moma_api/base_api.py reads them: pixels of the frame, both corners in the box, cut at the frame; several actors
of an action are separated by commas. There frame_timestamp 1 is the first picture of the trimmed video sampled once a
second; that this is second 0 is inferred, not stated (`first`). Not confirmed: the archive itself was not opened.
"""

import json
import os
from collections.abc import Iterable, Mapping

from vidloc.annotations import json_list, rows
from vidloc.annotations.json_list import field
from vidloc.annotations.moma_actors import Actors, Known, action_name, ids_of, pixels
from vidloc.annotations.records import PersonBox, VideoRecord

ACTIONS = ('atomic_actions',)
SIDES = ('width', 'height')
CORNERS = ('topLeft', 'bottomLeft', 'topRight', 'bottomRight')


class Graphs:
    """Gathers the records of trimmed videos. members: {video: subset} of those to take, None: all.

    first: the frame_timestamp of a video's first frame. known: the actions that are taken.
    """

    def __init__(
        self,
        findings: rows.Findings,
        members: Mapping[str, str | None] | None,
        known: Known,
        first: float,
    ):
        self.findings, self.members, self.known, self.first = findings, members, known, first
        self.videos: dict[str, dict[float, tuple[PersonBox, ...]]] = {}  # {video: {time: people}}
        self.seen: set[str] = set()

    def add(self, entry: json_list.Entry) -> None:
        """One annotated frame."""
        line, found, findings = entry.line, entry.value, self.findings
        if not isinstance(found, dict):
            findings.add('json-layout', line, 'the entry is no object', json_list.LAYOUT)
            return
        video = field(found, 'trim_video_id', str, 'the entry', line, findings)
        if video is None or rows.video_name(video, line, findings) is None:
            return
        self.seen.add(video)
        if self.members is not None and video not in self.members:
            return
        stamp = field(found, 'frame_timestamp', float, f'an entry of {rows.shown(video)}', line, findings)
        if stamp is None:
            return
        where, time = f'{rows.shown(video)} at {stamp:g}', stamp - self.first + 0.0
        if time < 0:
            message = f'{where} is before its first frame, which has the frame_timestamp {self.first:g}'
            findings.add('timestamp-negative', line, message, 'Set first to the frame_timestamp of a first frame.')
            return
        people = self._people(found, where, line, time)
        if time in self.videos.setdefault(video, {}):
            findings.add('moment-duplicate', line, f'{where} is there twice', 'Keep one of the entries.')
        self.videos[video][time] = people

    def records(self) -> list[VideoRecord]:
        """Sorted by video."""
        return [
            VideoRecord(
                video,
                subset=None if self.members is None else self.members[video],
                keyframes=tuple(sorted(moments)),
                boxes=tuple(person for time in sorted(moments) for person in moments[time]),
            )
            for video, moments in sorted(self.videos.items())
        ]

    def _people(self, found: Mapping, where: str, line: int, time: float) -> tuple[PersonBox, ...]:
        findings = self.findings
        size = field(found, 'frame_dim', dict, where, line, findings)
        graph = field(found, 'annotation', dict, where, line, findings)
        if size is None or graph is None:
            return ()
        width, height = (field(size, side, float, f'frame_dim of {where}', line, findings) for side in SIDES)
        listed = {key: field(graph, key, list, where, line, findings) for key in ('actors', *ACTIONS)}
        if width is None or height is None or None in listed.values():
            return ()
        if min(width, height) <= 0:
            findings.add('size-invalid', line, f'the frame of {where} is {width} x {height}', 'Give pixels above 0.')
            return ()
        actors = Actors(where, line, (width, height), self.known, findings)
        for number, actor in enumerate(listed['actors']):
            what = f'actor {number} of {where}'
            if not isinstance(actor, dict):
                findings.add('json-layout', line, f'{what} is no object', json_list.LAYOUT)
                continue
            identity = field(actor, 'id_in_video', str, what, line, findings)
            if identity is not None:
                actors.add(identity, self._corners(actor, what, line, (width, height)))
        for number, action in enumerate(listed['atomic_actions']):
            what = f'action {number} of {where}'
            if not isinstance(action, dict):
                findings.add('json-layout', line, f'{what} is no object', json_list.LAYOUT)
                continue
            name = field(action, 'class', str, what, line, findings)
            ids = field(action, 'actor_id', str, what, line, findings)
            for identity in () if name is None or ids is None else ids.strip(' ()').split(','):
                actors.act(identity.strip(), name.strip())
        return actors.people(time)

    def _corners(
        self, actor: Mapping, what: str, line: int, size: tuple[float, float]
    ) -> tuple[float, float, float, float] | None:
        """x1, y1, x2, y2 in pixels, cut at the frame; None after a problem."""
        box = field(actor, 'bbox', dict, what, line, self.findings)
        corners = (
            [] if box is None else [field(box, key, dict, f'bbox of {what}', line, self.findings) for key in CORNERS]
        )
        if box is None or None in corners:
            return None
        xs, ys = (
            [field(corner, axis, float, f'a corner of {what}', line, self.findings) for corner in corners]
            for axis in ('x', 'y')
        )
        if None in xs or None in ys:
            return None
        x1, y1, x2, y2 = max(min(xs), 0), max(min(ys), 0), min(max(xs) + 1, size[0]), min(max(ys) + 1, size[1])
        if (min(xs), min(ys), max(xs) + 1, max(ys) + 1) != (x1, y1, x2, y2):
            message = f'the box of {what} leaves the frame of {size[0]:g} x {size[1]:g} pixels'
            self.findings.warn(
                'box-leaves-frame', line, message, "It is cut at the frame, as the data set's code does."
            )
        return x1, y1, x2, y2


def write_moma_graphs(
    path: str | os.PathLike, records: Iterable[VideoRecord], *, size: tuple[int, int] = (1280, 720), first: float = 1.0
) -> None:
    """Writes keyframes, boxes, actions and tracks; size: (width, height) of all frames.

    Boxes are read back the same if their corners lie on whole pixels. People without a track are called A, B, ....
    Raises ValueError for names, times and boxes that no reader would take.
    """
    written = []
    for record in sorted(records, key=lambda record: record.video):
        video = rows.safe_name(record.video)
        for time in sorted({*record.keyframes, *(person.time for person in record.boxes)}):
            rows.time_text(time)
            people = [person for person in record.boxes if person.time == time]
            names = ids_of([person.track for person in people], f'{video} at {time}')
            actions: dict[str, list[str]] = {}
            actors = []
            for identity, person in zip(names, people, strict=True):
                x, y, width, height = pixels(person.box, size, f'{video} at {time}')
                sides = {'Left': x, 'Right': x + width - 1}
                tops = {'top': y, 'bottom': y + height - 1}
                box = {f'{top}{side}': {'x': sides[side], 'y': tops[top]} for side in sides for top in tops}
                actors.append({'id_in_video': identity, 'class': 'person', 'bbox': box})
                for label in person.labels:
                    actions.setdefault(action_name(label), []).append(identity)
            written.append(
                {
                    'annotation': {
                        'actors': actors,
                        'atomic_actions': [
                            {'class': label, 'actor_id': ','.join(ids)} for label, ids in actions.items()
                        ],
                        'objects': [],
                        'relationships': [],
                    },
                    'graph_id': len(written),
                    'raw_video_id': video,
                    'trim_video_id': video,
                    'frame_timestamp': time + first,
                    'frame_dim': dict(zip(SIDES, size, strict=True)),
                }
            )
    rows.write_text(path, json.dumps(written, indent=1, ensure_ascii=False, allow_nan=False) + '\n')
