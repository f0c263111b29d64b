"""K-shot sampling: a few labelled samples of every class, drawn from the annotations, and folds of them.

A sample is a person at a keyframe (data/keyframes.py) or a clip (data/clips.py). `choose` has the rule; views use it
through `draw`, which puts the samples in an order of their own first, so that the order of records changes nothing.
Random numbers are the raw output of PCG64, which NumPy keeps from version to version, and all arithmetic is on whole
numbers: every machine draws the same.
"""

import array
import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vidloc.annotations import clip_names
from vidloc.annotations import records as rec
from vidloc.data import catalogue, sources

_WHOLE = 1 << 20  # what all samples of a class weigh together when folds are balanced


def choose(labels: np.ndarray, shots: int, seed: int) -> np.ndarray:
    """Rows that give every class `shots` samples, or all it has where they are fewer.

    The rule, which the paper leaves open for samples of several classes. Every row draws a random number. Classes take
    their turn from the rarest (fewest rows) to the most frequent; of two with as many rows the one of the lower index
    goes first. Rows that were chosen for earlier classes count for every class they carry. A class that has fewer than
    `shots` of them takes, of its rows that are not chosen yet, those with the lowest random numbers until it has
    `shots` or none is left. Nothing is ever taken back, so classes that come along with others end with more.

    Args:
      labels: [M, C] bool or uint8, whether class c holds for row m; in an order that does not depend on chance, for
        the random numbers belong to places.
      shots: K, at least 1.
      seed: at least 0.

    Returns:
      int64, ascending; each class has at least min(shots, its rows) among them.
    """
    lot = np.random.PCG64(seed).random_raw(len(labels))  # [M]
    chosen = np.zeros(len(labels), bool)
    for number in np.argsort(labels.sum(axis=0, dtype=np.int64), kind='stable'):
        rows = np.flatnonzero(labels[:, number])
        free = rows[~chosen[rows]]
        lacking = max(0, shots - (len(rows) - len(free)))
        chosen[free[np.argsort(lot[free], kind='stable')[:lacking]]] = True
    return np.flatnonzero(chosen).astype(np.int64)


def folds(labels: np.ndarray, groups: Sequence[str], count: int, seed: int) -> np.ndarray:
    """The fold of every row; rows of one group are in one fold, and no fold is empty.

    Groups come from the largest to the smallest, in a random order where they are equal. Each goes to the fold that has
    least of what it brings: over the classes, the sum of its share of a class times the fold's; then to the one with
    the fewest rows; then to the first. The number of rows is balanced like one more class.

    Args:
      labels: [M, C] bool or uint8. groups: [M] names. count: of folds. seed: at least 0.

    Returns:
      int64 [M] in [0, count).

    Raises:
      ValueError: there are fewer groups than folds.
    """
    known = {name: number for number, name in enumerate(sorted(set(groups)))}
    if len(known) < count:
        raise ValueError(f'the shots lie in {len(known)} videos, too few for {count} folds, which share none')
    owner = np.array([known[name] for name in groups], np.int64)
    sizes = np.zeros((len(known), labels.shape[1] + 1), np.int64)
    np.add.at(sizes, owner, np.column_stack([labels, np.ones(len(labels), np.uint8)]))
    shares = sizes * _WHOLE // np.maximum(sizes.sum(axis=0), 1)  # [groups, C + 1]
    lot = np.random.PCG64(seed).random_raw(len(known))
    held, rows = np.zeros((count, shares.shape[1]), np.int64), np.zeros(count, np.int64)
    result = np.zeros(len(known), np.int64)
    for group in np.lexsort((lot, -sizes[:, -1])):
        # The last key is the first to decide. An empty fold has nothing of anything, so it comes before all others.
        fold = np.lexsort((rows, held @ shares[group]))[0]
        held[fold] += shares[group]
        rows[fold] += sizes[group, -1]
        result[group] = fold
    return result[owner]


@dataclasses.dataclass(frozen=True)
class Samples:
    """Labelled samples as columns, M of them.

    videos: [M] names. places: float64 [M, P], where in the video: second and box, or start and end, NaN where the
    annotation does not say. labels: uint8 [M, C]. owners: int64 [M, 2]: number of the record, and of the box or label
    in it.
    """

    videos: list[str]
    places: np.ndarray
    labels: np.ndarray
    owners: np.ndarray

    def __len__(self) -> int:
        return len(self.videos)

    def order(self) -> np.ndarray:
        """[M]: by video, place and labels, whatever the order of the records."""
        known = {video: number for number, video in enumerate(sorted(set(self.videos)))}
        first = np.array([known[video] for video in self.videos], np.int64)
        return np.lexsort((*np.packbits(self.labels, axis=1).T[::-1], *self.places.T[::-1], first))

    def take(self, rows: np.ndarray) -> 'Samples':
        """These rows alone."""
        videos = [self.videos[row] for row in rows]
        return Samples(videos, self.places[rows], self.labels[rows], self.owners[rows])

    def of_records(self) -> dict[int, set[int]]:
        """{number of the record: numbers in it}"""
        numbers: dict[int, set[int]] = {}
        for record, number in self.owners.tolist():
            numbers.setdefault(record, set()).add(number)
        return numbers

    def listed(self, classes: Sequence[str]) -> list[list[Any]]:
        """[[video, *place, [names of its classes]], ...] for JSON."""
        return [
            [video, *(None if math.isnan(x) else x for x in place), [classes[i] for i in np.flatnonzero(row)]]
            for video, place, row in zip(self.videos, self.places.tolist(), self.labels, strict=True)
        ]


def samples(
    records: Sequence[rec.VideoRecord],
    index: Mapping[str, int],
    pick: Callable[[rec.VideoRecord], Iterable[tuple[int, Sequence[float], Sequence[str]]]],
) -> Samples:
    """What `pick` finds in the records: (number in the record, place, labels) of each sample. index: of the classes."""
    videos, places, owners = [], array.array('d'), array.array('q')
    rows, ids = array.array('q'), array.array('q')
    for number, record in enumerate(records):
        for within, place, labels in pick(record):
            ids.extend(index[label] for label in labels)
            rows.extend([len(videos)] * len(labels))
            videos.append(record.video)
            places.extend(place)
            owners.extend((number, within))
    held = np.zeros((len(videos), len(index)), np.uint8)
    held[np.array(rows), np.array(ids)] = 1
    return Samples(
        videos,
        np.array(places, np.float64).reshape(len(videos), -1) if videos else np.zeros((0, 0)),
        held,
        np.array(owners, np.int64).reshape(-1, 2),
    )


@dataclasses.dataclass(frozen=True)
class Shots:
    """The few samples of a source.

    view: its shots, shots_seed, folds and fold. train: whether it is trained on. classes: names [C]. available:
    int64 [C], samples of each class that there were to draw from. total: how many samples there were. drawn: those that
    are this source's by the draw, in order. held: those of them that it really has; others are in videos that are not
    there, say.
    """

    view: Any
    train: bool
    classes: tuple[str, ...]
    available: np.ndarray
    total: int
    drawn: Samples
    held: Samples

    def holding(self, held: Samples) -> 'Shots':
        """The same draw, of which the source has these."""
        return dataclasses.replace(self, held=held.take(held.order()))

    def counts(self) -> np.ndarray:
        """int64 [C]: samples of each class that the source has."""
        return self.held.labels.sum(axis=0, dtype=np.int64)

    def short(self) -> dict[str, int]:
        """{class: samples there are} of the classes that have fewer than K in all, those without any too."""
        pairs = zip(self.classes, self.available.tolist(), strict=True)
        return {label: count for label, count in pairs if count < self.view.shots}

    def keys(self) -> list[str]:
        """A line for each sample."""
        return [json.dumps(row) for row in self.held.listed(self.classes)]

    def content(self) -> dict[str, Any]:
        """What W/shots.json says of the source.

        lost: samples that were drawn for it and that it does not have. chosen: rows as in Samples.listed.
        """
        return {
            'shots': self.view.shots,
            'seed': self.view.shots_seed,
            'folds': self.view.folds,
            'fold': self.view.fold,
            'available': self.total,
            'lost': len(self.drawn) - len(self.held),
            'per_class': dict(zip(self.classes, self.counts().tolist(), strict=True)),
            'short': self.short(),
            'chosen': self.held.listed(self.classes),
        }

    def line(self) -> str:
        """The draw in words, for the log."""
        counts, short = self.counts(), self.short()
        parts = [
            f'{self.view.shots} shots a class, seed {self.view.shots_seed}: {len(self.held):,} of {self.total:,} '
            f'samples, {counts.min()} to {counts.max()} a class'
        ]
        if self.view.folds:
            parts.append(f'{"without" if self.train else "only"} fold {self.view.fold} of {self.view.folds}')
        if lost := len(self.drawn) - len(self.held):
            parts.append(f'{lost} more were drawn but cannot be shown')
        if short:
            named = sources.some([f'{label} {count}' for label, count in short.items()])
            parts.append(f'{len(short)} of {len(counts)} classes have fewer in all: {named}')
        return '; '.join(parts)


def draw(name: str, view: Any, given: Samples, classes: Sequence[str], *, train: bool) -> Shots:
    """The shots of a source, all of them held: with folds those outside of view.fold in training, those in it else.

    Raises sources.DataError if there is nothing to draw from, or fewer videos than folds.
    """
    if not len(given):
        raise sources.DataError(f'source {name}: no sample carries a label, so no shots can be drawn; set shots=0')
    order = given.order()
    rows = order[choose(given.labels[order], view.shots, view.shots_seed)]
    if view.folds:
        groups = [_whole_video(given.videos[row]) for row in rows]
        try:
            held_out = folds(given.labels[rows], groups, view.folds, view.shots_seed) == view.fold
        except ValueError as error:
            raise sources.DataError(f'source {name}: {error}; set folds to fewer, or shots to more') from error
        rows = rows[~held_out if train else held_out]
    drawn = given.take(rows)
    available = given.labels.sum(axis=0, dtype=np.int64)
    return Shots(view, train, tuple(classes), available, len(given), drawn, drawn)


def check(name: str, view: Any) -> None:
    """Raises sources.DataError for shots, shots_seed, folds and fold of a view that make no sense."""
    wrong = [
        f'{field} is {value!r}; give a whole number of at least 0'
        for field in ('shots', 'shots_seed', 'folds', 'fold')
        if not isinstance(value := getattr(view, field), int) or isinstance(value, bool) or value < 0
    ]
    if not wrong and view.folds == 1:
        wrong.append('folds is 1, which leaves nothing to train on; set at least 2, or 0 for none')
    if not wrong and view.folds and not view.shots:
        wrong.append(f'folds is {view.folds}, but folds are of the shots; set shots, such as 15, or folds=0')
    if not wrong and view.fold >= max(view.folds, 1):
        known = f'folds={view.folds} are numbered 0 to {view.folds - 1}' if view.folds else 'there are no folds: set it'
        wrong.append(f'fold is {view.fold}; {known}')
    if wrong:
        raise sources.DataError('\n'.join(f'source {name}: {line}' for line in wrong))


def _whole_video(name: str) -> str:
    """The video, or group of UCF-101, that the name of a clip says it was cut from; else the name itself."""
    return clip_names.whole(catalogue.stem(name[name.rfind('/') + 1 :])) or name
