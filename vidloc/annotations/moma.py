"""MOMA: annotated moments of activities, the people in them, and the actions that each of them does.

MOMA-LRG's anns.json is read here, MOMA 1.0's graph_anns.json by moma_graphs.py; which it is, its first entry tells.
`[{"file_name": "<id>.mp4", "num_frames": n, "width": w, "height": h, "duration": seconds, "activity": {"id",
"class_name", "start_time", "end_time", "sub_activities": [{"id", "class_name", "start_time", "end_time",
"higher_order_interactions": [{"id", "time", "actors": [{"id", "class_name", "bbox": [x, y, width, height]}],
"objects": [as actors], "intransitive_actions": [{"class_name", "source_id"}], "transitive_actions": [{"class_name",
"source_id", "target_id"}], "attributes": [as intransitive], "relationships": [as transitive]}]}]}}]`
Layout: StanfordVL/moma, README.md (Annotation Schema) and momaapi/data/ann.py. That all times count from the start of
the whole video and boxes are pixels of it: preproc/ann_merger.py there, which writes the file, and
preproc/video_processor.py, which cuts the videos by it; docstrings of momaapi say "relative to the start of the
activity video", its MOMA.is_sact takes them as here. Not confirmed: the archive itself was not opened.
"""

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from vidloc.annotations import json_list, moma_graphs, moma_splits, rows
from vidloc.annotations.json_list import field
from vidloc.annotations.moma_actors import Actors, Known, action_name, ids_of, pixels
from vidloc.annotations.records import PersonBox, Problem, VideoRecord

ACTIONS = ('intransitive_actions', 'transitive_actions')
LISTS = (*ACTIONS, 'attributes', 'relationships')
CLIPS = ('', 'activity')
OUTSIDE = 1.0  # seconds by which a moment may lie outside of its sub-activity


def read_moma(
    path: str | os.PathLike,
    split: str | os.PathLike | None = None,
    subset: str | None = None,
    *,
    actions: Sequence[str] = (),
    clips: str = '',
    first: float = 1.0,
    classes: Collection[str] | None = None,
    notes: list[Problem] | None = None,
) -> list[VideoRecord]:
    """Records sorted by video: keyframes, and a box for each person with the names of its actions.

    Args:
      path: anns.json of MOMA-LRG or graph_anns.json of MOMA 1.0.
      split, subset: only the videos that a file of splits names (moma_splits.read_split). None takes all.
      actions: the lists whose predicates are actions, of LISTS; none: ACTIONS. MOMA 1.0 has one, atomic_actions.
      clips: what the files are, on whose clock times are: '' for whole videos (MOMA 1.0: videos trimmed to
        sub-activities), 'activity' for MOMA-LRG's videos that begin where the activity does.
      first: of MOMA 1.0, the frame_timestamp of a video's first frame.
      classes: if given, the actions that are taken; others are dropped and counted, the people stay.
      notes: takes the warnings.

    What an object does, and what is in lists that were not asked for, is passed over. A moment in which a sub-activity
    ends and another begins is annotated twice; the people of the latter are taken. Tracks are
    `<sub-activity>/<actor>`, for ids tell people apart within a sub-activity only. Times are rounded to microseconds.
    Raises AnnotationError with every error found.
    """
    findings = rows.Findings(path)
    members = None
    if split is not None:
        members = moma_splits.read_split(split, subset)
    elif subset is not None:
        fix = 'Name the file of splits, such as splits/standard.json.'
        findings.stop('split-missing', None, f'the subset {subset!r} is that of a file of splits', fix)
    known = Known(classes)
    videos: _Activities | moma_graphs.Graphs | None = None
    for entry in json_list.entries(rows.read_text(path, findings), findings):
        if videos is None:
            graphs = isinstance(entry.value, dict) and 'annotation' in entry.value
            _check_options(actions, clips, graphs, findings)
            if graphs:
                videos = moma_graphs.Graphs(findings, members, known, first)
            else:
                videos = _Activities(findings, members, known, tuple(actions) or ACTIONS, clips)
        videos.add(entry)
    if videos is None:
        findings.stop('file-empty', None, 'the list is empty', 'Check that the file was written completely.')
    known.tell(findings)
    _compare(videos.seen, members, split, findings)
    findings.finish(notes)
    return videos.records()


def class_names(path: str | os.PathLike, actions: Sequence[str] = ()) -> tuple[str, ...]:
    """The names of all actions of a file, sorted; actions: as for read_moma. Raises AnnotationError."""
    records = read_moma(path, actions=actions)
    return tuple(sorted({label for record in records for person in record.boxes for label in person.labels}))


def write_moma(
    path: str | os.PathLike,
    records: Iterable[VideoRecord],
    *,
    size: tuple[int, int] = (1280, 720),
    transitive: Collection[str] = (),
) -> None:
    """Writes MOMA-LRG's layout: keyframes, boxes, actions, tracks and durations. Subsets: moma_splits.write_split.

    size: (width, height) of all videos; boxes are read back the same if their corners lie on whole pixels. transitive:
    names of actions to be written as such, with their source as target. A track `<sub-activity>/<actor>` says where its
    moment goes; people without one are called A, B, ..., in a sub-activity called like the video. Without a duration
    the video ends a second after its last keyframe.
    Raises ValueError for names, times and boxes that no reader would take.
    """
    written, taken = [], {}
    for record in sorted(records, key=lambda record: record.video):
        video = rows.safe_name(record.video)
        found: dict[str, list[dict]] = {}
        sub = video
        times = sorted({*record.keyframes, *(person.time for person in record.boxes)})
        for time in times:
            rows.time_text(time)
            people = [person for person in record.boxes if person.time == time]
            tracks = [(None, None) if person.track is None else _parted(person.track) for person in people]
            named = {name for name, _ in tracks if name is not None}
            if len(named) > 1:
                raise ValueError(f'{video} at {time}: people of the sub-activities {sorted(named)} at one moment')
            sub = next(iter(named), sub)
            if taken.setdefault(sub, video) != video:
                raise ValueError(f'the sub-activity {sub!r} is in {taken[sub]!r} and in {video!r}')
            identities = ids_of([identity for _, identity in tracks], f'{video} at {time}')
            moments = found.setdefault(sub, [])
            moments.append(_moment(f'{sub}_{round(time * 1e6)}', time, people, identities, size, transitive))
        duration = record.duration or max(times, default=0.0) + 1.0
        subs = [
            {
                'id': name,
                'class_name': 'sub-activity',
                'start_time': moments[0]['time'],
                'end_time': moments[-1]['time'],
                'higher_order_interactions': moments,
            }
            for name, moments in found.items()
        ]
        activity = {'id': video, 'class_name': 'activity', 'start_time': 0.0, 'end_time': duration}
        written.append(
            {
                'file_name': f'{record.stem or video}.mp4',
                'num_frames': round(duration * (record.fps or 30.0)),
                'width': size[0],
                'height': size[1],
                'duration': duration,
                'activity': {**activity, 'sub_activities': subs},
            }
        )
    rows.write_text(path, json.dumps(written, indent=1, ensure_ascii=False, allow_nan=False) + '\n')


def _parted(track: str) -> tuple[str, str]:
    """(sub-activity, actor) of a track."""
    sub, mark, identity = track.rpartition('/')
    if not mark or not sub:
        raise ValueError(f'the track {track!r} is no <sub-activity>/<actor>')
    return sub, identity


def _moment(
    name: str,
    time: float,
    people: Sequence[PersonBox],
    identities: Sequence[str],
    size: tuple[int, int],
    transitive: Collection[str],
) -> dict:
    acts = [
        (action_name(label), identity)
        for person, identity in zip(people, identities, strict=True)
        for label in person.labels
    ]
    return {
        'id': name,
        'time': time,
        'actors': [
            {'id': identity, 'class_name': 'person', 'bbox': list(pixels(person.box, size, name))}
            for person, identity in zip(people, identities, strict=True)
        ],
        'objects': [],
        'intransitive_actions': [
            {'class_name': label, 'source_id': source} for label, source in acts if label not in transitive
        ],
        'transitive_actions': [
            {'class_name': label, 'source_id': source, 'target_id': source}
            for label, source in acts
            if label in transitive
        ],
        'attributes': [],
        'relationships': [],
    }


def _check_options(actions: Sequence[str], clips: str, graphs: bool, findings: rows.Findings) -> None:
    known, pieces = (moma_graphs.ACTIONS, ('',)) if graphs else (LISTS, CLIPS)
    unknown = sorted(set(actions) - set(known))
    if unknown:
        message = f'there is no list of actions {rows.shown(unknown[0])} in this file'
        findings.stop('actions-unknown', None, message, f'Known: {", ".join(known)}.')
    if clips not in pieces:
        fix = f'Known: {", ".join(map(repr, pieces))}.'
        findings.stop('clips-unknown', None, f'there are no clips {clips!r} of what this file annotates', fix)


def _compare(
    seen: Collection[str],
    members: Mapping[str, str | None] | None,
    split: str | os.PathLike | None,
    findings: rows.Findings,
) -> None:
    """Videos of the split that are not annotated: a warning, an error if that is all of them."""
    lacking = [video for video in members or () if video not in seen]
    if lacking:
        message = f'{len(lacking)} of {len(members)} videos are not in {findings.file} ({", ".join(lacking[:5])})'
        findings.file = os.fspath(split)
        severity = 'error' if len(lacking) == len(members) else 'warning'
        findings.add('split-unknown', None, message, 'Use the split that belongs to the annotations.', severity)


class _Moment(NamedTuple):
    """people of one sub-activity, which begins at `start`, at one time."""

    start: float
    sub: str
    people: tuple[PersonBox, ...]


class _Activities:
    """Gathers the records of MOMA-LRG. members: {video: subset} of those to take, None: all; else as for read_moma."""

    def __init__(
        self,
        findings: rows.Findings,
        members: Mapping[str, str | None] | None,
        known: Known,
        actions: tuple[str, ...],
        clips: str,
    ):
        self.findings, self.members, self.known, self.actions = findings, members, known, actions
        self.clips = clips
        self.found: list[VideoRecord] = []
        self.seen: dict[str, None] = {}
        self._ids: set[tuple[str, str]] = set()

    def records(self) -> list[VideoRecord]:
        """Sorted by video."""
        return sorted(self.found, key=lambda record: record.video)

    def add(self, entry: json_list.Entry) -> None:
        """One activity with its video."""
        line, found, findings = entry.line, entry.value, self.findings
        if not isinstance(found, dict):
            findings.add('json-layout', line, 'the entry is no object', json_list.LAYOUT)
            return
        activity = field(found, 'activity', dict, 'the entry', line, findings)
        video = None if activity is None else self._identity('activity', activity, 'the activity', line)
        if video is None or rows.video_name(video, line, findings) is None:
            return
        self.seen[video] = None
        if self.members is not None and video not in self.members:
            return
        where = rows.shown(video)
        file = field(found, 'file_name', str, where, line, findings)
        numbers = [field(found, key, float, where, line, findings) for key in ('width', 'height', 'duration')]
        begin, end = (field(activity, key, float, where, line, findings) for key in ('start_time', 'end_time'))
        subs = field(activity, 'sub_activities', list, where, line, findings)
        if None in (file, begin, end, subs, *numbers) or rows.video_name(file, line, findings) is None:
            return
        width, height, duration = numbers
        if min(numbers) <= 0:
            message = f'{where} is {width} x {height} pixels and {duration} s'
            findings.add('size-invalid', line, message, 'Give pixels and seconds above 0.')
            return
        offset = begin if self.clips else 0.0
        stem = os.path.splitext(file)[0]
        moments = self._moments(subs, entry, where, (width, height), offset)
        self.found.append(
            VideoRecord(
                video,
                subset=None if self.members is None else self.members[video],
                duration=end - begin if self.clips else duration,
                keyframes=tuple(sorted(moments)),
                boxes=tuple(person for time in sorted(moments) for person in moments[time].people),
                stem=None if self.clips or stem == video else stem,
            )
        )

    def _identity(self, kind: str, found: Mapping, where: str, line: int) -> str | None:
        """The id, which nothing else of its kind has in the file; None after a problem."""
        identity = field(found, 'id', str, where, line, self.findings)
        if identity is None:
            return None
        if (kind, identity) in self._ids:
            message = f'the {kind} {rows.shown(identity)} is there twice'
            self.findings.add('id-duplicate', line, message, 'Keep one of them.')
            return None
        self._ids.add((kind, identity))
        return identity

    def _moments(
        self, subs: Sequence, entry: json_list.Entry, video: str, size: tuple[float, float], offset: float
    ) -> dict[float, _Moment]:
        """{time: moment}, one where sub-activities meet. offset: when the file begins."""
        findings, moments = self.findings, {}
        twice: list[float] = []
        for number, sub in enumerate(subs):
            where = f'sub-activity {number} of {video}'
            if not isinstance(sub, dict):
                findings.add('json-layout', entry.line, f'{where} is no object', json_list.LAYOUT)
                continue
            name = self._identity('sub-activity', sub, where, entry.line)
            line = entry.line if name is None else entry.line_of(name)
            start, end = (field(sub, key, float, where, line, findings) for key in ('start_time', 'end_time'))
            listed = field(sub, 'higher_order_interactions', list, where, line, findings)
            if None in (name, start, end, listed):
                continue
            for index, hoi in enumerate(listed):
                what = f'interaction {index} of {where}'
                if not isinstance(hoi, dict):
                    findings.add('json-layout', line, f'{what} is no object', json_list.LAYOUT)
                    continue
                identity = self._identity('interaction', hoi, what, line)
                mine = line if identity is None else entry.line_of(identity)
                time = self._time(hoi, what, mine, (start, end), offset)
                if identity is None or time is None:
                    continue
                moment = _Moment(start, name, self._people(hoi, what, mine, size, time, f'{name}/'))
                other = moments.get(time)
                if other is not None and other.start == start:
                    message = f'{what} is at {time + offset:g} s, as another of {video} is'
                    findings.add('moment-duplicate', mine, message, 'Keep one of them.')
                elif other is not None:
                    twice.append(time + offset)
                if other is None or other.start < start:
                    moments[time] = moment
        if twice:
            message = f'{len(twice)} moments of {video} are in two sub-activities, such as {twice[0]:g} s'
            findings.warn('moment-twice', entry.line, message, 'The people of the one that begins last are taken.')
        return moments

    def _time(self, hoi: Mapping, what: str, line: int, span: tuple[float, float], offset: float) -> float | None:
        """Seconds from the start of the file, or None after a problem."""
        time = field(hoi, 'time', float, what, line, self.findings)
        if time is None:
            return None
        if time < offset:
            message = f'{what} is at {time:g} s, before {offset:g} s, when its video begins'
            self.findings.add('timestamp-negative', line, message, 'Times count from the start of the whole video.')
            return None
        if not span[0] - OUTSIDE <= time <= span[1] + OUTSIDE:
            message = f'{what} is at {time:g} s, its sub-activity from {span[0]:g} to {span[1]:g} s'
            fix = 'It is kept; both count from the start of the whole video.'
            self.findings.warn('moment-outside', line, message, fix)
        return round(time - offset, 6) + 0.0

    def _people(
        self, hoi: Mapping, what: str, line: int, size: tuple[float, float], time: float, prefix: str
    ) -> tuple[PersonBox, ...]:
        findings = self.findings
        listed = {key: field(hoi, key, list, what, line, findings) for key in ('actors', 'objects', *self.actions)}
        for key, values in listed.items():
            if values is not None and not all(isinstance(value, dict) for value in values):
                findings.add('json-layout', line, f'not all {key} of {what} are objects', json_list.LAYOUT)
                return ()
        if None in listed.values():
            return ()
        others = {other.get('id') for other in listed['objects'] if isinstance(other.get('id'), str)}
        actors = Actors(what, line, size, self.known, findings, others)
        for actor in listed['actors']:
            identity = field(actor, 'id', str, f'an actor of {what}', line, findings)
            if identity is not None:
                actors.add(identity, self._corners(actor, f'the actor {rows.shown(identity)} of {what}', line))
        for key in self.actions:
            for action in listed[key]:
                name = field(action, 'class_name', str, f'one of the {key} of {what}', line, findings)
                source = field(action, 'source_id', str, f'one of the {key} of {what}', line, findings)
                if name is not None and source is not None:
                    actors.act(source, name.strip())
        return actors.people(time, prefix)

    def _corners(self, actor: Mapping, what: str, line: int) -> tuple[float, float, float, float] | None:
        """x1, y1, x2, y2 in pixels; None after a problem."""
        box = field(actor, 'bbox', list, what, line, self.findings)
        if box is None:
            return None
        if len(box) != 4:
            message = f'the bbox of {what} has {len(box)} numbers'
            self.findings.add('box-layout', line, message, 'Expected [x, y, width, height] in pixels.')
            return None
        named = dict(zip(('x', 'y', 'width', 'height'), box, strict=True))
        x, y, width, height = (field(named, key, float, f'the bbox of {what}', line, self.findings) for key in named)
        return None if None in (x, y, width, height) else (x, y, x + width, y + height)
