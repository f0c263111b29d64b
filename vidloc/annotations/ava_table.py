"""AVA csv as columns, raw and fast: what evaluation reads, and the detections that a run writes.

pyarrow parses the rows of the common width; the few of another width are parsed apart and put back in their place.
Where pyarrow cannot read a file, a slow reader finds the line that is wrong.
"""

import array
import codecs
import os
import pathlib
from collections.abc import Mapping

import numpy as np

from vidloc.annotations import rows

COLUMNS = ('video', 'timestamp', 'x1', 'y1', 'x2', 'y2', 'action_id', 'score')
BOX = ('x1', 'y1', 'x2', 'y2')
BOX_LIMIT = 2.0  # predicted boxes may leave the frame; beyond this they are pixels
BLOCK = 1 << 24  # bytes that pyarrow parses at a time


def read_ava_table(path: str | os.PathLike, *, scores: bool = True) -> dict[str, np.ndarray]:
    """Columns of all rows, in the order of the file: nothing is merged, dropped or looked up.

    video object [M] (str), timestamp, x1, y1, x2, y2 float64 [M], action_id int32 [M], score float64 [M].
    Rows of 2 columns and rows without an action have action_id -1, without a box NaN coordinates. `score` is column
    8; 1.0 where a row has 7 columns. scores: False for ground truth, whose column 8 is a person: score is 1.0.
    Raises AnnotationError for anything that cannot be scored: broken rows, times below 0, ids of 0, pixel boxes.
    """
    findings = rows.Findings(path)
    try:
        columns = _fast(path, scores)
    except (OSError, ValueError):  # pyarrow's errors are ValueErrors
        columns = _slow(path, scores, findings)
    _check(columns, path, scores, findings)
    findings.finish(None)
    return columns


def write_ava_table(path: str | os.PathLike, columns: Mapping[str, np.ndarray]) -> None:
    """Writes detections in the official layout, `video,timestamp,x1,y1,x2,y2,action_id,score`.

    Coordinates and scores are exact (up to 17 digits), so no ties arise. columns: as read_ava_table gives them.
    Raises ValueError for values that no reader would take.
    """
    import pyarrow as pa
    from pyarrow import csv

    values = {name: np.asarray(columns[name], np.float64) for name in ('timestamp', *BOX, 'score')}
    ids = np.asarray(columns['action_id'])
    for name, column in values.items():
        if not np.isfinite(column).all():
            raise ValueError(f'{name} has values that are not finite')
    if len(ids) and (ids.min() < 1 or values['timestamp'].min() < 0 or values['timestamp'].max() > rows.TIME_LIMIT):
        raise ValueError('action ids count from 1 and times are seconds from 0')
    names, codes = _codes(columns['video'])
    for name in names:
        rows.safe_name(name)
    times, moments = np.unique(values['timestamp'], return_inverse=True)
    texts = pa.array([rows.time_text(time) for time in times.tolist()], pa.string())
    table = pa.table(
        {
            'video': pa.array(names, pa.string()).take(pa.array(codes)),
            'timestamp': texts.take(pa.array(moments.astype(np.int64))),
            **{name: values[name] for name in BOX},
            'action_id': ids.astype(np.int64),
            'score': values['score'],
        }
    )
    # 'needed' quotes every text; tools that split lines at commas want it only where there is no other way.
    quoting = 'needed' if any(mark in name for name in names for mark in ',"') else 'none'
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.{os.getpid()}.part')
    try:
        csv.write_csv(table, part, csv.WriteOptions(include_header=False, quoting_style=quoting))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _codes(video: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The different names in order of appearance, and for each row which of them it is."""
    values = video.tolist() if isinstance(video, np.ndarray) else list(video)
    index = {name: code for code, name in enumerate(dict.fromkeys(values))}
    return list(index), np.fromiter(map(index.__getitem__, values), np.int64, len(values))


def _fast(path: str | os.PathLike, scores: bool) -> dict[str, np.ndarray]:
    """Raises ValueError (pyarrow's) or OSError where the file is not as it should be."""
    odd: dict[int, list[tuple[int, str]]] = {}
    main = 8 if 8 in _widths(path) else 7
    columns = _parse(os.fspath(path), main, scores, odd)
    if not odd:
        return columns
    total = len(columns['timestamp']) + sum(len(lines) for lines in odd.values())
    place = np.ones(total, bool)
    parts, places = [columns], []
    for width, lines in odd.items():
        if width not in (2, 7, 8):
            raise ValueError(f'a row has {width} columns')
        numbers = np.array([number for number, _ in lines]) - 1
        place[numbers] = False
        further: dict[int, list[tuple[int, str]]] = {}
        parts.append(_parse('\n'.join(text for _, text in lines).encode(), width, scores, further))
        places.append(numbers)
        if further:
            raise ValueError('a row has a line break')
    order = np.argsort(np.concatenate([np.flatnonzero(place), *places]), kind='stable')
    return {name: np.concatenate([part[name] for part in parts])[order] for name in COLUMNS}


def _widths(path: str | os.PathLike) -> set[int]:
    """Numbers of columns in the first block. Reads all of the file: pyarrow loses odd rows that are not UTF-8."""
    decoder = codecs.getincrementaldecoder('utf-8')()
    with open(path, 'rb') as file:
        first = block = file.read(BLOCK)
        while block:
            if not block.isascii() or decoder.getstate()[0]:
                decoder.decode(block)
            if b'\x00' in block:
                raise ValueError('not plain text')
            block = file.read(BLOCK)
    decoder.decode(b'', final=True)
    if first.startswith(codecs.BOM_UTF8) or not first.strip():
        raise ValueError('not plain text')
    return {line.count(b',') + 1 for line in first[: 1 << 16].splitlines() if line.strip()}


def _parse(source: str | bytes, width: int, scores: bool, odd: dict) -> dict[str, np.ndarray]:
    """Rows of one width; the others go to `odd` as {width: [(number from 1, text)]}."""
    import pyarrow as pa
    from pyarrow import csv

    def other(row):
        odd.setdefault(row.actual_columns, []).append((row.number, row.text))
        return 'skip'

    types = {'video': pa.dictionary(pa.int32(), pa.string()), 'action_id': pa.int32()}
    types |= {name: pa.float64() for name in ('timestamp', *BOX, 'score')}
    wanted = COLUMNS if scores else COLUMNS[:7]
    table = csv.read_csv(
        source if isinstance(source, str) else pa.BufferReader(source),
        read_options=csv.ReadOptions(column_names=COLUMNS[:width], use_threads=False, block_size=BLOCK),
        parse_options=csv.ParseOptions(invalid_row_handler=other),
        convert_options=csv.ConvertOptions(
            column_types=types, include_columns=wanted[:width], null_values=[''], strings_can_be_null=False
        ),
    )
    length = len(table)
    columns = {}
    for name in wanted[:width]:  # one after the other, each freed at once: the table is never held twice
        column = table.column(name)
        table = table.drop_columns([name])
        if name == 'video':
            column = column.unify_dictionaries().combine_chunks()
            column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
            names = np.array(column.dictionary.to_pylist(), dtype=object)
            columns[name] = names[column.indices.to_numpy(zero_copy_only=False)] if length else names[:0]
        elif name in ('timestamp', 'score') and column.null_count:
            raise ValueError(f'a {name} is empty')
        elif name == 'action_id':
            columns[name] = column.fill_null(-1).to_numpy()
        else:
            columns[name] = column.to_numpy()
    for name in BOX:
        columns.setdefault(name, np.full(length, np.nan))
    columns.setdefault('action_id', np.full(length, -1, np.int32))
    columns.setdefault('score', np.ones(length))
    return columns


def _slow(path: str | os.PathLike, scores: bool, findings: rows.Findings) -> dict[str, np.ndarray]:
    """Row by row: collects what is wrong, or reads what pyarrow did not understand (spaces around numbers)."""
    video: list[str] = []
    numbers = array.array('d')  # timestamp, x1, y1, x2, y2, action_id, score a row
    nothing = (float('nan'),) * 4
    for index, (line, row) in enumerate(rows.csv_rows(rows.read_text(path, findings), findings)):
        if index == 0 and rows.is_header(row):
            findings.add('header-line', line, 'the first line holds column names', 'Remove it: AVA has no header.')
            continue
        if len(row) not in (2, 7, 8):
            fix = 'The columns are video,timestamp,x1,y1,x2,y2,action_id,score (or person_id in ground truth).'
            findings.add('column-count', line, f'the row has {len(row)} columns, expected 2, 7 or 8', fix)
            continue
        time = rows.timestamp(row[1], line, findings)
        box, number, score = nothing, -1.0, 1.0
        if any(row[2:6]):
            coordinates = zip(BOX, row[2:6], strict=True)
            box = [rows.number(text, name, 'box-not-a-number', line, findings) for name, text in coordinates]
        if any(row[6:7]):
            number = rows.number(row[6], 'the action id', 'action-id-not-a-number', line, findings)
            if number is not None and (number != int(number) or abs(number) > 1e6):
                findings.add(
                    'action-id-not-a-number', line, f'the action id is {row[6]}', 'Ids are whole numbers from 1.'
                )
        if scores and len(row) == 8:
            score = rows.number(row[7], 'the score', 'score-not-a-number', line, findings)
        if not findings.problems:
            video.append(row[0])
            numbers.extend((time, *box, number, score))
    findings.finish(None)
    table = np.frombuffer(numbers, np.float64).reshape(-1, 7)  # [M, 7]
    columns = {name: table[:, index].copy() for index, name in enumerate(('timestamp', *BOX, 'action_id', 'score'))}
    columns['action_id'] = columns['action_id'].astype(np.int32)
    return {'video': np.array(video, dtype=object), **columns}


def _check(columns: dict[str, np.ndarray], path: str | os.PathLike, scores: bool, findings: rows.Findings) -> None:
    """Adds a problem for the first row of each kind of value that cannot be scored."""
    ids, times = columns['action_id'], columns['timestamp']
    boxes = [columns[name] for name in BOX]
    boxless = np.isnan(boxes[0])
    kinds = {
        'timestamp': (
            ~((times >= 0) & (times <= rows.TIME_LIMIT)),
            'the timestamp is below 0, too large or not finite',
        ),
        'score': (~np.isfinite(columns['score']), 'the score is not finite'),
        'id': ((ids < 1) & (ids != -1), 'the action id is below 1'),
        'prediction': ((ids == -1) & scores, 'a prediction needs a box and an action id'),
        'box': (boxless & (ids != -1), 'a box value is missing or not finite'),
    }
    pixels = np.zeros(len(ids), bool)
    for values in boxes:
        kinds['box'][0][:] |= np.isinf(values) | (np.isnan(values) != boxless)
        pixels |= np.abs(values) > BOX_LIMIT
    kinds['pixels'] = (pixels & ~kinds['box'][0], 'the box is not normalised')
    x1, y1, x2, y2 = boxes
    swapped = ((x2 < x1) | (y2 < y1)) & (not scores)
    kinds['swapped'] = (swapped & ~pixels, 'the second corner of the box is left of or above the first')
    fixes = {
        'timestamp': ('timestamp-out-of-range', 'Times are finite seconds from 0.'),
        'score': ('not-finite', 'Only finite scores can be sorted.'),
        'id': ('action-id-zero', 'Ids count from 1, as in the label map: add 1 if yours count from 0.'),
        'prediction': ('prediction-incomplete', 'Give all of video,timestamp,x1,y1,x2,y2,action_id,score.'),
        'box': ('box-not-a-number', 'Give four finite numbers x1,y1,x2,y2.'),
        'swapped': ('box-swapped', 'The order is x1,y1,x2,y2, not x1,x2,y1,y2 and not x,y,width,height.'),
        'pixels': ('box-not-normalised', 'Divide x by the width and y by the height of the displayed frame.'),
    }
    for kind, (wrong, message) in kinds.items():
        if wrong.any():
            row = int(np.argmax(wrong))
            code, fix = fixes[kind]
            count = int(wrong.sum())
            findings.add(code, _line(path, row, findings), message + f' (in {count} rows)', fix)
    for name in dict.fromkeys(columns['video'].tolist()):
        reason = rows.path_problem(name)
        if reason is not None:
            row = int(np.argmax(columns['video'] == name))
            line = _line(path, row, findings)
            fix = 'Name videos by a path relative to the folder of videos.'
            findings.add('video-path-refused', line, f'the video {rows.shown(name)} {reason}', fix)


def _line(path: str | os.PathLike, row: int, findings: rows.Findings) -> int | None:
    """The line of the file in which a row, counted from 0, ends."""
    for index, (line, _) in enumerate(rows.csv_rows(rows.read_text(path, findings), findings)):
        if index == row:
            return line
    return None
