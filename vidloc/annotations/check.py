"""The validator: reads annotation files as training would, and tells all that is wrong and what is in them."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence

from vidloc.annotations import (
    activitynet,
    ava,
    class_list,
    clips,
    folders,
    formats,
    kinetics,
    moma,
    moments,
    proposals,
    segment_table,
    something,
    suspicions,
    table,
    ucf101,
)
from vidloc.annotations import summary as summary_lib
from vidloc.annotations.records import AnnotationError, Problem, VideoRecord

Path = str | os.PathLike


@dataclasses.dataclass(frozen=True)
class Options:
    """What the readers are given beside the file. classes: names of `labels` in order, None without a list."""

    labels: Path | None = None
    classes: tuple[str, ...] | None = None
    subset: str | None = None
    excluded: Path | None = None
    included: Path | None = None
    blocked: frozenset[str] = frozenset()
    prefix: str = ''
    split: Path | None = None
    actions: tuple[str, ...] = ()
    clips: str = ''
    first: float = formats.MomaFiles.first


Reader = Callable[[str, Options, list[Problem]], list[VideoRecord]]


def _read_detections(path: str, options: Options, notes: list[Problem]) -> list[VideoRecord]:
    if pathlib.Path(path).suffix.lower() in formats.PICKLES:
        return proposals.read_proposals(path, options.included, notes=notes)
    return ava.read_detections(path, options.labels, options.included, notes=notes)


# The names are those of a config's `format`, and two kinds of files that other formats refer to.
READERS: dict[str, Reader] = {
    'ava': lambda path, o, notes: ava.read_ava([path], o.labels, o.excluded, o.included, notes=notes),
    'ava_detections': _read_detections,
    'proposals': lambda path, o, notes: proposals.read_proposals(path, o.included, notes=notes),
    'clips': lambda path, o, notes: clips.read_clips(path, o.classes, notes=notes),
    'kinetics': lambda path, o, notes: kinetics.read_kinetics(path, o.classes, o.subset, notes=notes),
    'moments': lambda path, o, notes: moments.read_moments(path, o.classes, notes=notes),
    'something': lambda path, o, notes: something.read_something(path, o.classes, notes=notes),
    'ucf101': lambda path, o, notes: ucf101.read_ucf101(path, o.classes, notes=notes),
    'folders': lambda path, o, notes: folders.read_folders(path, o.classes, o.subset, notes=notes),
    'activitynet': lambda path, o, notes: activitynet.read_activitynet(
        path, o.subset, classes=o.classes, blocked=o.blocked, prefix=o.prefix, notes=notes
    ),
    'moma': lambda path, o, notes: moma.read_moma(
        path, o.split, o.subset, actions=o.actions, clips=o.clips, first=o.first, classes=o.classes, notes=notes
    ),
    'table': lambda path, o, notes: table.read_table(path, classes=o.classes, notes=notes),
}
FORMATS = tuple(READERS)
FILES = {
    'ava': formats.AvaFiles,
    'clips': formats.ClipFiles,
    'kinetics': formats.KineticsFiles,
    'moments': formats.MomentsFiles,
    'something': formats.SomethingFiles,
    'ucf101': formats.UcfFiles,
    'folders': formats.FolderFiles,
    'activitynet': formats.ActivityNetFiles,
    'moma': formats.MomaFiles,
    'table': formats.TableFiles,
}
# A label map in which ids stand, not a list of names.
WITH_LABEL_MAP = ('ava', 'ava_detections')
WITH_INCLUDED = ('ava', 'ava_detections', 'proposals')


@dataclasses.dataclass(frozen=True)
class Report:
    """What was found: all problems, and for each file that could be read its records and summary.

    summary: counts, see summary.summarise; plain numbers, lists and dicts, ready for JSON.
    """

    problems: tuple[Problem, ...]
    records: dict[str, list[VideoRecord]]
    summary: dict[str, dict]

    @property
    def errors(self) -> int:
        return sum(problem.severity == 'error' for problem in self.problems)


def check(
    format_name: str,
    annotations: Sequence[Path],
    *,
    labels: Path | None = None,
    subset: str | None = None,
    excluded: Path | None = None,
    included: Path | None = None,
    detections: Sequence[Path] = (),
    blocked: Path | None = None,
    prefix: str = '',
    split: Path | None = None,
    actions: Sequence[str] = (),
    clips: str = '',
    first: float | None = None,
) -> Report:
    """Checks each file by itself, that no video is in two of them, and detections against the truth of all.

    format_name: one of FORMATS. labels: a label map (.pbtxt) for ava and ava_detections, else a list of classes in any
    layout of class_list.py. subset: of activitynet, kinetics, folders and moma. excluded, included: of ava.
    detections: of ava and moma. blocked, prefix: of activitynet, see formats.ActivityNetFiles. split, actions, clips,
    first: of moma, see formats.MomaFiles.
    Raises ValueError for an unknown format, for options that it does not have, and for labels that lack.
    """
    _check_options(format_name, labels, subset, included)
    _check_fields(format_name, excluded=excluded, detections=detections, blocked=blocked, prefix=prefix)
    _check_fields(format_name, split=split, actions=actions, clips=clips, first=first)
    problems: list[Problem] = []
    try:
        names = frozenset(segment_table.read_blocked(blocked)) if blocked else frozenset()
        classes = _classes(format_name, labels, problems)
        options = Options(labels, classes, subset, excluded, included, names, prefix, split, tuple(actions), clips)
        if first is not None:
            options = dataclasses.replace(options, first=first)
    except AnnotationError as error:
        return Report(error.problems, {}, {})
    records, summary = _read_all(READERS[format_name], annotations, options, problems)
    for path, found in records.items():
        problems += suspicions.of_boxes(path, found)
        absent = summary[path]['classes_without_example']
        if format_name == 'clips':
            problems += suspicions.of_class_indices(path, options.classes, absent)
        if absent:
            message = f'{len(absent)} of {len(options.classes)} classes have no example ({_some(absent)})'
            fix = 'They cannot be learned, or scored, from this file.'
            problems.append(Problem('class-without-example', path, None, message, fix, 'warning'))
    if options.classes is None:
        problems += _classes_not_in_first(summary)
    problems += suspicions.shared({path: _identities(format_name, path, found) for path, found in records.items()})
    # Classes are counted in the truth only: detections need no labels.
    options = dataclasses.replace(options, classes=None)
    detected, of_detected = _read_all(_read_detections, detections, options, problems)
    for path, found in detected.items():
        problems += suspicions.of_boxes(path, found)
    problems += suspicions.of_detections(detected, [record for found in records.values() for record in found])
    return Report(tuple(dict.fromkeys(problems)), records, summary | of_detected)


def _check_options(format_name: str, labels: Path | None, subset: str | None, included: Path | None) -> None:
    if format_name not in FORMATS:
        raise ValueError(f'unknown format {format_name!r}; known: {", ".join(FORMATS)}')
    files = FILES.get(format_name)
    fields = {field.name for field in dataclasses.fields(files)} if files else set()
    if files and labels is None and 'labels' in files().files():
        raise ValueError(f'format {format_name} needs the classes: name their file with labels')
    if labels is not None and format_name == 'proposals':
        raise ValueError('format proposals has no labels')
    if subset is not None and 'subset' not in fields:
        raise ValueError(f'format {format_name} has no subsets')
    if included is not None and format_name not in WITH_INCLUDED:
        raise ValueError(f'format {format_name} has no list of included seconds')


def _check_fields(format_name: str, **given: object) -> None:
    """Raises ValueError for what is given and is no field of the format."""
    files = FILES.get(format_name)
    fields = {field.name for field in dataclasses.fields(files)} if files else set()
    for name, value in given.items():
        if value and name not in fields:
            raise ValueError(f'format {format_name} has no {name}')


def _classes(format_name: str, labels: Path | None, problems: list[Problem]) -> tuple[str, ...] | None:
    if labels is None:
        return None
    if format_name in WITH_LABEL_MAP:
        label_map = ava.read_label_map(labels)
        problems += suspicions.label_map_version(labels, label_map)
        return tuple(label_map.values())
    return class_list.read_class_list(labels)


def _read_all(
    read: Reader, paths: Sequence[Path], options: Options, problems: list[Problem]
) -> tuple[dict[str, list[VideoRecord]], dict[str, dict]]:
    """({file: records}, {file: summary}) of what can be read; what is wrong is added to `problems`."""
    records, summary = {}, {}
    for path in dict.fromkeys(map(os.fspath, paths)):
        notes: list[Problem] = []
        try:
            records[path] = read(path, options, notes)
        except AnnotationError as error:
            problems.extend(error.problems)
            continue
        problems.extend(notes)
        summary[path] = summary_lib.summarise(records[path], options.classes)
    return records, summary


def _identities(format_name: str, path: str, records: Sequence[VideoRecord]) -> dict[str, str]:
    """{what tells a video from others: its name}: in folders names may repeat, `walk/1.mp4` in each split."""
    if format_name != 'folders':
        return {record.video: record.video for record in records}
    return {os.path.realpath(os.path.join(path, record.path or record.video)): record.video for record in records}


def _classes_not_in_first(summary: dict[str, dict]) -> list[Problem]:
    """Without a list of classes the first file, which is for training, says which there are."""
    problems: list[Problem] = []
    for path in list(summary)[1:]:
        first = next(iter(summary))
        unknown = sorted(summary[path]['classes'].keys() - summary[first]['classes'].keys())
        if unknown:
            message = f'{len(unknown)} classes have no example in {first} ({_some(unknown)})'
            fix = 'They cannot be learned from it: check the spelling, or name the list of classes with labels.'
            line = suspicions.line_of(path, unknown[0])
            problems.append(Problem('class-without-training', path, line, message, fix, 'warning'))
    return problems


def _some(names: Sequence[str]) -> str:
    return ', '.join(names[:5]) + (', ...' if len(names) > 5 else '')
