"""Lines of text files: what every reader and writer of annotations does with files, fields and findings.

Nothing here knows a format. Fields are parsed into plain values, or a Problem is noted and None comes back.
"""

import collections
import csv
import decimal
import difflib
import functools
import io
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from vidloc.annotations.records import AnnotationError, Problem

BOX_SLACK = 0.01  # public sets have boxes that leave the frame by a rounding; more than this is a mistake
TIME_LIMIT = 1e7  # seconds (115 days): larger values are milliseconds, frames or nonsense
VIDEO_SUFFIXES = (
    '.mp4',
    '.mkv',
    '.webm',
    '.avi',
    '.mov',
    '.m4v',
    '.mpg',
    '.mpeg',
    '.ts',
    '.flv',
    '.wmv',
    '.ogv',
)
_NUMBER = re.compile(r'[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?', re.ASCII)
_NOT_FINITE = re.compile(r'[+-]?(nan|inf|infinity)', re.ASCII | re.IGNORECASE)
_CONTROL = re.compile('[\x00-\x1f\x7f\ud800-\udfff]')
_PACKED = ((b'\x1f\x8b', 'gzip'), (b'PK\x03\x04', 'zip'), (b'BZh', 'bzip2'), (b'\xfd7zXZ', 'xz'))


class Findings:
    """Collects the problems met while one or several files are read.

    Of each kind the first KEPT are kept one by one and the rest are counted, so that a file which is wrong
    in every line does not fill the memory.
    """

    KEPT = 100

    def __init__(self, file: str | os.PathLike):
        self.file = os.fspath(file)
        self.problems: list[Problem] = []
        self._counts: collections.Counter = collections.Counter()

    def add(self, code: str, line: int | None, message: str, fix: str, severity: str = 'error') -> None:
        self._counts[code, self.file, severity] += 1
        if self._counts[code, self.file, severity] <= self.KEPT:
            self.problems.append(Problem(code, self.file, line, message, fix, severity))

    def warn(self, code: str, line: int | None, message: str, fix: str) -> None:
        self.add(code, line, message, fix, 'warning')

    def stop(self, code: str, line: int | None, message: str, fix: str):
        """Adds the problem and raises AnnotationError: nothing can be read past this one."""
        self.add(code, line, message, fix)
        raise AnnotationError(self.everything())

    def everything(self) -> list[Problem]:
        """All problems, errors first, with one more for each kind whose rest was only counted."""
        problems = list(self.problems)
        for (code, file, severity), count in self._counts.items():
            if count > self.KEPT:
                rest = f'{count - self.KEPT} more problems of this kind in the file'
                problems.append(Problem(code, file, None, rest, 'They are as the ones listed.', severity))
        return sorted(problems, key=lambda problem: problem.severity != 'error')

    def finish(self, notes: list[Problem] | None) -> None:
        """Raises AnnotationError if anything was an error; else the warnings are added to `notes`."""
        problems = self.everything()
        if any(problem.severity == 'error' for problem in problems):
            raise AnnotationError(problems)
        if notes is not None:
            notes.extend(problems)


def read_text(path: str | os.PathLike, findings: Findings, *, may_be_empty: bool = False) -> str:
    """The text of a UTF-8 file. Raises AnnotationError if it is missing, empty, packed, binary or not UTF-8."""
    try:
        data = pathlib.Path(path).read_bytes()
    except FileNotFoundError:
        findings.stop('file-missing', None, 'the file does not exist', 'Check the path.')
    except IsADirectoryError:
        findings.stop('file-is-folder', None, 'this is a folder', 'Name the annotation file inside it.')
    except (OSError, ValueError) as error:
        findings.stop('file-unreadable', None, f'the file cannot be read: {error}', 'Check path and permissions.')
    for mark, kind in _PACKED:
        if data.startswith(mark):
            findings.stop('file-packed', None, f'the file is packed with {kind}', 'Unpack it first.')
    if data.startswith((b'\xff\xfe', b'\xfe\xff')):
        findings.stop('file-not-utf8', 1, 'the file is UTF-16', 'Save it as UTF-8.')
    if b'\x00' in data:
        line = data.count(b'\n', 0, data.index(b'\x00')) + 1
        findings.stop('file-binary', line, 'the file holds binary data', 'Name a text file of this format.')
    try:
        text = data.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        line = data.count(b'\n', 0, error.start) + 1
        findings.stop('file-not-utf8', line, 'the file is not UTF-8', 'Save it as UTF-8.')
    if not may_be_empty and not text.strip():
        findings.stop('file-empty', None, 'the file is empty', 'Check that it was written or copied completely.')
    return text


def csv_rows(text: str, findings: Findings) -> Iterator[tuple[int, list[str]]]:
    """(line, fields) of the rows of comma-separated text that are not blank; fields have no spaces around them."""
    reader = csv.reader(io.StringIO(text, newline=''), strict=True)
    try:
        for row in reader:
            if len(row) == 1:
                for mark, name in ((';', 'semicolon'), ('\t', 'tab')):
                    if row[0].count(mark) > 0:
                        findings.stop(
                            f'{name}-separated',
                            reader.line_num,
                            f'the columns are separated by {name}s',
                            'Save the file with commas between the columns and points in the numbers.',
                        )
            fields = [field.strip() for field in row]
            if any(fields):
                yield reader.line_num, fields
    except csv.Error as error:
        findings.stop('csv-syntax', reader.line_num, f'not a row of CSV: {error}', 'Check the quotation marks.')


def json_root(text: str, findings: Findings, pairs: Callable[[list[tuple[str, object]]], object] | None = None):
    """The value of a JSON text; pairs: json's object_pairs_hook. Stops at what is no JSON."""
    try:
        return json.loads(text, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        findings.stop('json-syntax', error.lineno, f'not JSON: {error.msg}', 'Check that the file is complete.')
    except (ValueError, RecursionError) as error:
        findings.stop('json-syntax', None, f'not JSON that can be read: {error}', 'Check the file.')


def add_label(
    labels: dict[str | None, int | None], label: str | None, video: str, line: int | None, findings: Findings
) -> None:
    """Adds a label to those of a clip, {label: line}; warns of one that is there and of a second one."""
    if label in labels:
        findings.warn('duplicate-row', line, f'the row repeats line {labels[label]}', 'It is counted once; remove it.')
    elif labels:
        message = f'{shown(video)} is {shown(next(iter(labels)))} and {shown(label)}'
        findings.warn('clip-two-labels', line, message, 'Both are kept; remove one if a clip has only one label.')
    labels.setdefault(label, line)


def is_header(row: Sequence[str]) -> bool:
    """Whether a row of a format without header holds column names: its timestamp is a word."""
    return len(row) >= 2 and row[1].lower() in ('timestamp', 'time', 'sec', 'second', 'seconds', 'time_stamp')


def number(text: str, what: str, code: str, line: int | None, findings: Findings) -> float | None:
    """A finite float, or None after a problem `code` (not a number) or `not-finite`."""
    value = _finite(text)
    if value is not None:
        return value
    if _NUMBER.fullmatch(text) or _NOT_FINITE.fullmatch(text):
        findings.add(
            'not-finite',
            line,
            f'{what} is {shown(text)}',
            'Only finite numbers are allowed: remove or correct the row.',
        )
    else:
        findings.add(code, line, f'{what} is not a number: {shown(text)}', 'Write it as a decimal number with a point.')
    return None


@functools.lru_cache(maxsize=1 << 16)  # files repeat the same few thousand coordinates and times
def _finite(text: str) -> float | None:
    value = float(text) if _NUMBER.fullmatch(text) else float('inf')
    return value if abs(value) != float('inf') else None


def timestamp(text: str, line: int | None, findings: Findings, what: str = 'the timestamp') -> float | None:
    """Seconds from 0 to TIME_LIMIT, or None after a problem."""
    value = number(text, what, 'timestamp-not-a-number', line, findings)
    if value is None:
        return None
    if value < 0:
        findings.add('timestamp-negative', line, f'{what} is {text}', 'Times are seconds from the start: 0 or more.')
        return None
    if value > TIME_LIMIT:
        findings.add(
            'timestamp-too-large',
            line,
            f'{what} is {text}',
            'Times are in seconds, not in milliseconds or ticks.',
        )
        return None
    return value + 0.0  # no negative zero


def box(texts: Sequence[str], line: int, findings: Findings) -> tuple[float, float, float, float] | None:
    """(x1, y1, x2, y2) in [0,1], or None after a problem."""
    names = ('x1', 'y1', 'x2', 'y2')
    values = [number(text, name, 'box-not-a-number', line, findings) for text, name in zip(texts, names, strict=True)]
    if any(value is None for value in values):
        return None
    x1, y1, x2, y2 = values
    problem = box_problem((x1, y1, x2, y2))
    if problem is not None:
        findings.add(problem[0], line, f'the box {",".join(texts)} {problem[1]}', problem[2])
        return None
    if min(values) < 0 or max(values) > 1:
        findings.warn(
            'box-leaves-frame',
            line,
            f'the box {",".join(texts)} leaves [0,1] a little',
            'It is kept as it is; clip it if that is a rounding error.',
        )
    return x1, y1, x2, y2


def box_problem(values: Sequence[float]) -> tuple[str, str, str] | None:
    """(code, message, fix) when four finite numbers are no box x1, y1, x2, y2 in [0,1]."""
    x1, y1, x2, y2 = values
    if max(values) > 1 + BOX_SLACK:
        kind = 'looks like pixels' if max(values) > 2 else 'leaves the frame'
        return (
            'box-not-normalised',
            f'has a value above 1 ({kind})',
            'Divide x by the width and y by the height of the displayed frame.',
        )
    if min(values) < -BOX_SLACK:
        return 'box-negative', 'has a value below 0', 'Clip boxes to the frame; all four values lie in [0,1].'
    if x2 < x1 or y2 < y1:
        return (
            'box-swapped',
            'has its second corner left of or above the first',
            'The order is x1,y1,x2,y2: the two corners, not x1,x2,y1,y2 and not x,y,width,height.',
        )
    if x2 == x1 or y2 == y1:
        return 'box-empty', 'has no area', 'Remove the row or correct the box.'
    return None


def path_problem(text: str) -> str | None:
    """Why this name of a video must not be opened, or None: only relative names below the folder of videos are safe."""
    if not text.strip():
        return 'is empty'
    if len(text.encode('utf-8', 'replace')) > 1024:
        return 'is longer than 1024 bytes'
    if _CONTROL.search(text):
        return 'holds control characters'
    if '\\' in text:
        return 'holds a backslash'
    parts = text.split('/')
    if ':' in parts[0]:
        return 'is a URL, a protocol or a drive'
    if text.startswith(('/', '~')):
        return 'is not relative to the folder of videos'
    if '..' in parts:
        return 'leaves the folder of videos'
    return None


def video_name(text: str, line: int | None, findings: Findings) -> str | None:
    """The name or path of a video, or None after a problem."""
    reason = path_problem(text)
    if reason is None:
        return text
    findings.add(
        'video-path-refused',
        line,
        f'the video {shown(text)} {reason}',
        'Name videos by a path relative to the folder of videos, with / between folders.',
    )
    return None


def label_problem(text: str) -> str | None:
    """Why a text cannot be the name of a class, or None."""
    if not text.strip():
        return 'is empty'
    if text != text.strip():
        return 'has spaces around it'
    if _CONTROL.search(text):
        return 'holds control characters'
    return None


def nearest(name: str, names: Iterable[str]) -> str:
    """A sentence that names what was perhaps meant."""
    names = list(names)
    close = difflib.get_close_matches(name[:200], names, n=1, cutoff=0.5)
    if close:
        return f'Did you mean {shown(close[0])}?'
    listed = ', '.join(shown(entry) for entry in names[:5])
    return f'Known are {listed}{", ..." if len(names) > 5 else ""}.'


def shown(text: str) -> str:
    """A text from a file as it may appear in a message: quoted, escaped, not long."""
    return repr(text if len(text) <= 80 else text[:77] + '...')


def time_text(seconds: float) -> str:
    """Whole seconds with four digits as AVA writes them (0902), else the shortest exact decimal."""
    seconds = float(seconds)
    if not 0 <= seconds <= TIME_LIMIT:
        raise ValueError(f'a time of {seconds} seconds cannot be written')
    if seconds == int(seconds):
        return f'{int(seconds):04d}'
    return format(decimal.Decimal(repr(seconds)), 'f')


def box_texts(values: Sequence[float], where: str) -> list[str]:
    """The four numbers of a box, exact. Raises ValueError for what no reader would take."""
    values = [float(value) for value in values]
    if len(values) != 4 or not all(abs(value) < float('inf') for value in values):
        raise ValueError(f'{where}: {values} is no box')
    problem = box_problem(values)
    if problem is not None:
        raise ValueError(f'{where}: the box {values} {problem[1]}. {problem[2]}')
    return [repr(value) for value in values]


def safe_name(name: str) -> str:
    """The name of a video, unchanged. Raises ValueError for what no reader would take."""
    reason = path_problem(name)
    if reason is None and name != name.strip():
        reason = 'has spaces around it'
    if reason is not None:
        raise ValueError(f'the video {shown(name)} {reason}')
    return name


def safe_track(track: str) -> str:
    """The identity of a person, unchanged. Raises ValueError for what no reader would take."""
    if label_problem(track):
        raise ValueError(f'the track {shown(track)} {label_problem(track)}')
    return track


def write_csv(path: str | os.PathLike, rows: Iterable[Sequence[str]]) -> None:
    """Rows without a header, quoted where needed; the file appears whole or not at all."""
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows(rows)
    write_text(path, text.getvalue())


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes UTF-8, as write_bytes does."""
    write_bytes(path, text.encode('utf-8'))


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Writes under another name and renames, so that a reader never sees half a file."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.{os.getpid()}.part')
    try:
        part.write_bytes(data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
