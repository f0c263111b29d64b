"""Videos in a folder for each class, DIR/<class>/<file>, or for each split and class, DIR/<split>/<class>/<file>."""

import os
import pathlib
import shutil
from collections.abc import Iterable, Sequence

from vidloc.annotations import class_list, rows
from vidloc.annotations.records import ClipLabel, Problem, VideoRecord

_FIX = 'Expected a folder for each class and the videos in it; name the split, if the classes are below it.'


def read_folders(
    folder: str | os.PathLike,
    classes: str | os.PathLike | Sequence[str] | None = None,
    subset: str | None = None,
    *,
    notes: list[Problem] | None = None,
) -> list[VideoRecord]:
    """A record for each video, sorted; `video` and `path` are its path below `folder`.

    Files whose suffix is no video's, and those and folders whose name starts with a dot, are passed over; the former
    are counted in a warning. subset: the folder of the split below `folder`. classes: if given, each folder must be
    one of them (spaces and underscores are the same); else the folders' names are the classes.
    Raises AnnotationError with every error found.
    """
    findings = rows.Findings(folder)
    root = pathlib.Path(folder, subset or '')
    if subset is not None and (rows.path_problem(subset) or not root.is_dir()):
        fix = _FIX if rows.path_problem(subset) else f'Found: {_found(pathlib.Path(folder))}.'
        findings.stop('subset-unknown', None, f'there is no folder {rows.shown(subset)} in it', fix)
    if not root.is_dir():
        findings.stop('folder-missing', None, 'there is no such folder', 'Name the folder that holds the videos.')
    known = None if classes is None else class_list.spellings(class_list.names(classes))
    records, loose, others = [], [], []
    for home in _entries(root, findings):
        if not home.is_dir():
            (loose if home.suffix.lower() in rows.VIDEO_SUFFIXES else others).append(home)
            continue
        label = _label(home, known, findings)
        for file in _entries(home, findings):
            if file.is_dir():
                message = f'{rows.shown(f"{home.name}/{file.name}")} is a folder below the folder of a class'
                findings.add('folder-too-deep', None, message, _FIX)
            elif file.suffix.lower() not in rows.VIDEO_SUFFIXES:
                others.append(file)
            elif label is not None:
                name = file.relative_to(folder).as_posix()
                if rows.video_name(name, None, findings) is not None:
                    records.append(VideoRecord(name, path=name, subset=subset, labels=(ClipLabel(label),)))
    if loose:
        message = f'{len(loose)} videos, such as {rows.shown(loose[0].name)}, are in no folder of a class'
        findings.add('video-without-class', None, message, _FIX)
    if not records and not findings.problems:
        findings.add('file-empty', None, 'no video was found', _FIX)
    if others:
        known_suffixes = ' '.join(rows.VIDEO_SUFFIXES)
        message = f'{len(others)} files, such as {rows.shown(others[0].name)}, have no suffix of a video'
        findings.warn('file-not-a-video', None, message, f'They are passed over; known: {known_suffixes}')
    findings.finish(notes)
    return sorted(records, key=lambda record: record.video)


def write_folders(folder: str | os.PathLike, records: Iterable[VideoRecord], videos: str | os.PathLike) -> None:
    """Lays the videos of the records out as folder/[subset/]class/file: as hard links, or copies where none can be.

    videos: the folder that the records' paths are relative to. What is there already stays. Raises ValueError for
    records without a path or without exactly one label, and if two files would get one name.
    """
    placed: dict[pathlib.PurePosixPath, str] = {}
    for record in records:
        if record.path is None or len(record.labels) != 1:
            raise ValueError(f'{record.video} needs a path and exactly one label')
        label = record.labels[0].label
        if rows.label_problem(label) or rows.path_problem(label) or '/' in label or label.startswith('.'):
            raise ValueError(f'{record.video}: {label!r} cannot be the name of a folder')
        if record.subset is not None:
            rows.safe_name(record.subset)
        source = pathlib.PurePosixPath(rows.safe_name(record.path))
        target = pathlib.PurePosixPath(record.subset or '', label, source.name)
        if target in placed:
            raise ValueError(f'{record.path} and {placed[target]} would both be {target}')
        placed[target] = record.path
    for target, path in placed.items():
        place = pathlib.Path(folder, target)
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            continue
        try:
            os.link(pathlib.Path(videos, path), place)
        except OSError:
            shutil.copyfile(pathlib.Path(videos, path), place)


def _entries(folder: pathlib.Path, findings: rows.Findings) -> list[pathlib.Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith('.'))
    except OSError as error:
        findings.stop('file-unreadable', None, f'{folder} cannot be read: {error}', 'Check the permissions.')


def _found(folder: pathlib.Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
    return ', '.join(map(rows.shown, names[:5])) or 'no folder'


def _label(home: pathlib.Path, known: dict[str, str] | None, findings: rows.Findings) -> str | None:
    name = home.name
    if rows.label_problem(name):
        message = f'the folder {rows.shown(name)} {rows.label_problem(name)}'
        findings.add('class-name', None, message, 'Give each folder the plain name of its class.')
        return None
    if known is None:
        return name
    if name not in known:
        fix = rows.nearest(name, dict.fromkeys(known.values()))
        findings.add('label-unknown', None, f'the folder {rows.shown(name)} is not in the list of classes', fix)
        return None
    return known[name]
