"""The people of one annotated frame of MOMA: ids, boxes in pixels, and which of them does what."""

import collections
from collections.abc import Collection, Iterable, Sequence

from vidloc.annotations import rows
from vidloc.annotations.records import PersonBox


class Known:
    """The actions that are taken: those of a list of classes, or all (None). What the list lacks is counted."""

    def __init__(self, classes: Collection[str] | None):
        self.classes = None if classes is None else frozenset(classes)
        self.taken = 0
        self.lacking: collections.Counter = collections.Counter()

    def takes(self, action: str) -> bool:
        """Whether the action is one; called for each time that somebody does it."""
        if self.classes is None or action in self.classes:
            self.taken += 1
            return True
        self.lacking[action] += 1
        return False

    def tell(self, findings: rows.Findings) -> None:
        """A warning of what the list lacks; an error if that is everything."""
        count = self.lacking.total()
        names = ', '.join(map(rows.shown, sorted(self.lacking)[:20]))
        if count and not self.taken:
            message = f'none of the {count} actions is in the list of classes ({names})'
            fix = 'Use the list that belongs to these annotations, and to the lists of actions that are read.'
            findings.add('wrong-label-map', None, message, fix)
        elif count:
            message = (
                f'{count} actions of {len(self.lacking)} classes outside the list of classes were dropped ({names})'
            )
            fix = 'This is as it should be if only some classes are to be scored; else use the complete list.'
            findings.warn('action-outside-label-map', None, message, fix)


class Actors:
    """Collects boxes and actions of one frame.

    where, line: the frame in messages. size: (width, height) of the frame in pixels. known: the actions that are taken.
    others: ids that are there and no people (objects): what they do is passed over.
    """

    def __init__(
        self,
        where: str,
        line: int | None,
        size: tuple[float, float],
        known: Known,
        findings: rows.Findings,
        others: Collection[str] = (),
    ):
        self.where, self.line, self.size, self.known, self.findings = where, line, size, known, findings
        self.others = frozenset(others)
        self._boxes: dict[str, tuple[float, float, float, float] | None] = {}
        self._labels: dict[str, list[str]] = {}

    def add(self, identity: str, corners: Sequence[float] | None) -> None:
        """A person. corners: x1, y1, x2, y2 in pixels; None: there was a problem with them."""
        if rows.label_problem(identity):
            message = f'the actor {rows.shown(identity)} of {self.where} {rows.label_problem(identity)}'
            self.findings.add('actor-id', self.line, message, 'Give each actor a plain id.')
        elif identity in self._boxes or identity in self.others:
            message = f'the id {rows.shown(identity)} is there twice in {self.where}'
            self.findings.add(
                'actor-duplicate', self.line, message, 'Ids tell the people and objects of a frame apart.'
            )
        else:
            self._boxes[identity] = None if corners is None else self._fraction(identity, corners)
            self._labels[identity] = []

    def act(self, source: str, action: str) -> None:
        """An action of the person whose id is `source`."""
        if source in self.others:
            return
        if source not in self._labels:
            known = ', '.join(map(rows.shown, self._labels)) or 'none'
            message = f'{rows.shown(action)} of {self.where} is done by {rows.shown(source)}, who is not in the frame'
            self.findings.add('actor-unknown', self.line, message, f'Actors of this frame: {known}.')
        elif rows.label_problem(action):
            message = f'the action {rows.shown(action)} of {self.where} {rows.label_problem(action)}'
            self.findings.add('label-name', self.line, message, 'Give each class a plain name.')
        elif self.known.takes(action) and action not in self._labels[source]:
            self._labels[source].append(action)

    def people(self, time: float, prefix: str = '') -> tuple[PersonBox, ...]:
        """Everybody whose box is one; tracks are the ids behind `prefix`."""
        return tuple(
            PersonBox(time, box, tuple(self._labels[identity]), None, f'{prefix}{identity}')
            for identity, box in self._boxes.items()
            if box is not None
        )

    def _fraction(self, identity: str, corners: Sequence[float]) -> tuple[float, float, float, float] | None:
        """The box in [0,1], or None after a problem."""
        x1, y1, x2, y2 = corners
        width, height = self.size
        box = (x1 / width, y1 / height, x2 / width, y2 / height)
        what = f'the box {x1:g}, {y1:g} to {x2:g}, {y2:g} of {rows.shown(identity)} of {self.where}'
        frame = f'the frame of {width:g} x {height:g} pixels'
        if x2 <= x1 or y2 <= y1:
            fix = 'Remove the actor or correct the box.'
            self.findings.add('box-empty', self.line, f'{what} has no size', fix)
            return None
        if min(box) < -rows.BOX_SLACK or max(box) > 1 + rows.BOX_SLACK:
            fix = 'Boxes are in pixels of the video, whose width and height stand beside them.'
            self.findings.add('box-beyond-frame', self.line, f'{what} leaves {frame}', fix)
            return None
        if min(box) < 0 or max(box) > 1:
            fix = 'It is kept as it is; clip it if that is a rounding error.'
            self.findings.warn('box-leaves-frame', self.line, f'{what} leaves {frame} a little', fix)
        return box


def ids_of(tracks: Iterable[str | None], where: str) -> list[str]:
    """Ids of the people of a frame: their tracks, and letters for those who have none. Raises ValueError."""
    tracks = list(tracks)
    free = (f'{"ABCDEFGHIJKLMNOPQRSTUVWXYZ"[i % 26]}{i // 26 or ""}' for i in range(1000))
    names = [next(name for name in free if name not in tracks) if track is None else track for track in tracks]
    if len(set(names)) < len(names) or any(rows.label_problem(name) or ',' in name for name in names):
        raise ValueError(f'{where}: {names} are no ids that tell people apart')
    return names


def action_name(label: str) -> str:
    """The name of an action, unchanged. Raises ValueError for what no reader would take."""
    if rows.label_problem(label):
        raise ValueError(f'{label!r} cannot be the name of a class')
    return label


def pixels(
    box: tuple[float, float, float, float], size: tuple[int, int], where: str
) -> tuple[float, float, float, float]:
    """x, y, width, height of a box in [0,1]: whole numbers where its corners lie on whole pixels. Raises ValueError."""
    rows.box_texts(box, where)
    corners = [value * size[i % 2] for i, value in enumerate(box)]
    whole = [round(value) if abs(value - round(value)) < 1e-6 else value for value in corners]
    return whole[0], whole[1], whole[2] - whole[0], whole[3] - whole[1]
