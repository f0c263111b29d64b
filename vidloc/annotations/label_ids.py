"""The numbers that annotations in ActionFormer's JSON give their labels: `label_id` beside `label`."""

from collections.abc import Mapping, Sequence

from vidloc.annotations import rows


class LabelIds:
    """What the annotations of one file say, video by video. classes: in their order, if there is a list of them."""

    def __init__(self, classes: Sequence[str] | None):
        self._classes = None if classes is None else {label: i for i, label in enumerate(classes)}
        self._of: dict[str, int] = {}
        self._labels: dict[int, str] = {}
        self._seen: set[str] = set()
        self._told: set[tuple[str, int]] = set()

    def see(self, entry: Mapping, line: int | None, findings: rows.Findings) -> None:
        """Warns of a label with two ids, an id with two labels, and of ids that are not the index of the class."""
        annotations = entry.get('annotations')
        for annotation in annotations if isinstance(annotations, list) else ():
            label = annotation.get('label') if isinstance(annotation, dict) else None
            if not isinstance(label, str):
                continue
            number = annotation.get('label_id')
            self._seen.add(label)
            if not isinstance(number, int) or isinstance(number, bool) or (label, number) in self._told:
                continue
            self._told.add((label, number))
            first, other = self._of.setdefault(label, number), self._labels.setdefault(number, label)
            fix = 'Names count here, not ids; correct the ids if another program reads them.'
            if first != number:
                findings.warn('label-id', line, f'{rows.shown(label)} has the ids {first} and {number}', fix)
            elif other != label:
                message = f'the id {number} is that of {rows.shown(other)} and of {rows.shown(label)}'
                findings.warn('label-id', line, message, fix)
            elif self._classes is not None and self._classes.get(label, number) != number:
                message = (
                    f'{rows.shown(label)} has the id {number}, but is {self._classes[label]} in the list of classes'
                )
                fix = 'Put the list in the order of the ids if weights that were trained with them are used.'
                findings.warn('label-id', line, message, fix)

    def order(self) -> tuple[str, ...]:
        """All labels, by their ids if these number them from 0."""
        labels = [self._labels[number] for number in sorted(self._labels)]
        if sorted(self._labels) == list(range(len(self._seen))) and set(labels) == self._seen:
            return tuple(labels)
        return tuple(sorted(self._seen))
