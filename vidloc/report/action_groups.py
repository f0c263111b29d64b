"""Kinds of actions, such as those of AVA, over which a page gives means beside those over head, mid and tail.

They come from the ids of the label map, or from a csv file of `class,group` rows.
"""

import csv
import os
from collections.abc import Mapping, Sequence

# First and last id of each type in AVA's list of 80 actions (Gu et al., AVA, 2018; research.google.com/ava).
AVA = {'person movement': (1, 14), 'object manipulation': (15, 63), 'person interaction': (64, 80)}
# Ids are AVA's if at least ANCHORED of these are in the label map with just these names, and none with another.
ANCHORS = {
    11: 'sit',
    12: 'stand',
    14: 'walk',
    17: 'carry/hold (an object)',
    59: 'touch (an object)',
    74: 'listen to (a person)',
    79: 'talk to (e.g., self, a person, a group)',
    80: 'watch (a person)',
}
ANCHORED = 3


class GroupError(ValueError):
    """A file of groups is not as it should be; the text says which line and what to do."""


def of_label_map(classes: Mapping[int, str]) -> dict[str, tuple[str, ...]]:
    """{group: class names} of a label map with AVA's ids, {} of any other. classes: {id: name}."""
    known = {number: name for number, name in ANCHORS.items() if number in classes}
    if len(known) < ANCHORED or any(classes[number] != name for number, name in known.items()):
        return {}
    return {
        group: tuple(name for number, name in sorted(classes.items()) if first <= number <= last)
        for group, (first, last) in AVA.items()
    }


def read_groups(path: str | os.PathLike) -> dict[str, tuple[str, ...]]:
    """{group: class names} from csv rows of a class and its group, in the order of the file.

    Raises GroupError for rows of another shape and for a class that is there twice; OSError.
    """
    groups: dict[str, list[str]] = {}
    seen: dict[str, int] = {}
    with open(path, encoding='utf-8-sig', newline='') as file:
        try:
            for line, row in enumerate(csv.reader(file), 1):
                if not row:
                    continue
                if len(row) != 2 or not all(cell.strip() for cell in row):
                    raise GroupError(
                        f'{path}:{line}: expected a class and its group, separated by a comma; '
                        'put quotes around a name that has a comma.'
                    )
                name, group = (cell.strip() for cell in row)
                if name in seen:
                    raise GroupError(f'{path}:{line}: {name!r} is there since line {seen[name]}; keep one of the rows.')
                seen[name] = line
                groups.setdefault(group, []).append(name)
        except (UnicodeDecodeError, csv.Error) as error:
            raise GroupError(f'{path}: this is no csv file of UTF-8 text ({error}).') from error
    if not groups:
        raise GroupError(f'{path}: the file has no row; give a class and its group in each.')
    return {group: tuple(names) for group, names in groups.items()}


def among(groups: Mapping[str, Sequence[str]], classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The groups with only the names that `classes` has, in their order; groups without any are left out."""
    kept = {group: tuple(name for name in classes if name in set(names)) for group, names in groups.items()}
    return {group: names for group, names in kept.items() if names}
