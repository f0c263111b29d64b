"""Each kind of broken annotation gives its own code, the file, the line and what to do."""

import json

import pytest

from vidloc.annotations import activitynet, ava, clips, table
from vidloc.annotations.records import AnnotationError

MAP = 'item {\n  name: "walk"\n  id: 1\n}\nitem {\n  name: "run"\n  id: 2\n}\n'
ROW = 'v,0902,0.1,0.2,0.3,0.4,1,0\n'
TABLE = 'video,start,end,label,x1,y1,x2,y2,track\n'


def _json(entry: str) -> str:
    return '{"database": {\n"w": {"subset": "training"},\n"v": ' + entry + '}}'


def _annotation(segment: str, label: str = '"walk"') -> str:
    annotation = f'{{"segment": {segment}, "label": {label}}}'
    return _json(f'{{"subset": "training", "duration": 9, "annotations": [{annotation}]}}')


# (format, content, code, line, severity)
TRAPS = [
    ('ava', ROW + 'v,0903,10,20,300,400,1,0\n', 'box-not-normalised', 2, 'error'),
    ('ava', ROW + 'v,0903,0.1,0.2,1.2,0.4,1,0\n', 'box-not-normalised', 2, 'error'),
    ('ava', ROW + 'v,0903,-0.1,0.2,0.3,0.4,1,0\n', 'box-negative', 2, 'error'),
    ('ava', ROW + 'v,0903,0.1,0.2,1.005,0.4,1,0\n', 'box-leaves-frame', 2, 'warning'),
    ('ava', ROW + 'v,0903,0.1,0.3,0.2,0.1,1,0\n', 'box-swapped', 2, 'error'),
    ('ava', ROW + 'v,0903,0.1,0.2,0.1,0.4,1,0\n', 'box-empty', 2, 'error'),
    ('ava', ROW + 'v,0903,0.1,x,0.3,0.4,1,0\n', 'box-not-a-number', 2, 'error'),
    ('ava', ROW + 'v,0903,0.1,nan,0.3,0.4,1,0\n', 'not-finite', 2, 'error'),
    ('ava', ROW + 'v,0903,0.1,1e999,0.3,0.4,1,0\n', 'not-finite', 2, 'error'),
    ('ava', ROW + 'v,00:15:03,0.1,0.2,0.3,0.4,1,0\n', 'timestamp-not-a-number', 2, 'error'),
    ('ava', ROW + 'v,9_02,0.1,0.2,0.3,0.4,1,0\n', 'timestamp-not-a-number', 2, 'error'),
    ('ava', ROW + 'v,-1,0.1,0.2,0.3,0.4,1,0\n', 'timestamp-negative', 2, 'error'),
    ('ava', ROW + 'v,902000000,0.1,0.2,0.3,0.4,1,0\n', 'timestamp-too-large', 2, 'error'),
    ('ava', ROW + 'v,0903,0.1,0.2,0.3,0.4\n', 'column-count', 2, 'error'),
    ('ava', 'video_id,timestamp,x1,y1,x2,y2,action_id,person_id\n' + ROW, 'header-line', 1, 'error'),
    ('ava', ROW + 'v,0903,0.1,0.2,0.3,0.4,0,0\n', 'action-id-zero', 2, 'error'),
    ('ava', ROW + 'v,0903,0.1,0.2,0.3,0.4,walk,0\n', 'action-id-not-a-number', 2, 'error'),
    ('ava', ROW + 'v,0903,0.1,0.2,0.3,0.4,81,0\n', 'action-id-unknown', 2, 'error'),
    ('ava', ROW + 'v,0903,0.1,0.2,0.3,0.4,80,0\n', 'action-outside-label-map', 2, 'warning'),
    ('ava', ROW + 2 * 'v,0903,0.1,0.2,0.3,0.4,80,0\n', 'wrong-label-map', 2, 'error'),
    ('ava', 'v,0902,0.1,0.2,0.3,0.4,7,0\n', 'wrong-label-map', 1, 'error'),
    ('ava', ROW + ROW, 'duplicate-row', 2, 'warning'),
    ('ava', ROW + 'v,0902,0.1,0.2,0.3,0.4,2,9\n', 'same-box-two-people', 2, 'warning'),
    ('ava', ROW.replace(',', ';'), 'semicolon-separated', 1, 'error'),
    ('ava', ROW.replace(',', '\t'), 'tab-separated', 1, 'error'),
    ('ava', ROW + '"v,0902\n', 'csv-syntax', 2, 'error'),
    ('ava', '', 'file-empty', None, 'error'),
    ('ava', ' \n', 'file-empty', None, 'error'),
    ('ava', None, 'file-missing', None, 'error'),
    ('ava', ROW.encode() + b'\x00\x01', 'file-binary', 2, 'error'),
    ('ava', ROW.encode() + b'caf\xe9', 'file-not-utf8', 2, 'error'),
    ('ava', ROW.encode('utf-16'), 'file-not-utf8', 1, 'error'),
    ('ava', b'\x1f\x8b\x08\x00', 'file-packed', None, 'error'),
    ('detections', 'v,0902,0.1,0.2,0.3,0.4,,1.5\n', 'score-out-of-range', 1, 'error'),
    ('detections', 'v,0902,0.1,0.2,0.3,0.4,,\n', 'score-not-a-number', 1, 'error'),
    ('detections', 'v,0902,0.1,0.2,0.3,0.4,,inf\n', 'not-finite', 1, 'error'),
    ('detections', 'v,0902,0.1,0.2,0.3,0.4,0.9\n', 'column-count', 1, 'error'),
    ('label_map', 'item {\n  name: "walk"\n  id: 0\n}\n', 'label-map-id', 1, 'error'),
    ('label_map', MAP + 'item {\n  name: "jump"\n  id: 2\n}\n', 'label-map-duplicate', 9, 'error'),
    ('label_map', MAP + 'item {\n  name: "run"\n  id: 3\n}\n', 'label-map-duplicate', 9, 'error'),
    ('label_map', MAP + 'item {\n  name: "jump"\n}\n', 'label-map-incomplete', 9, 'error'),
    ('label_map', MAP + 'item {\n  name: "jump\n', 'label-map-syntax', 10, 'error'),
    ('label_map', 'walk\nrun\n', 'label-map-syntax', 1, 'error'),
    ('label_map', '# nothing\n', 'label-map-empty', None, 'error'),
    ('excluded', '', 'excluded-empty', None, 'warning'),
    ('excluded', 'v,0902,1\n', 'excluded-columns', 1, 'error'),
    ('excluded', 'v;0902\n', 'semicolon-separated', 1, 'error'),
    ('class_list', 'walk\nrun\nwalk\n', 'class-name-duplicate', 3, 'error'),
    ('class_list', '0\n1\n', 'class-name-number', 1, 'error'),
    ('clips', 'a.mp4 0\nb.mp4 jog\n', 'label-unknown', 2, 'error'),
    ('clips', 'a.mp4 0\nb.mp4 2\n', 'label-index-out-of-range', 2, 'error'),
    ('clips', 'a.mp4 0\nb.mp4 -1\n', 'label-index-out-of-range', 2, 'error'),
    ('clips', 'a.mp4 0\nb.mp4\n', 'label-missing', 2, 'error'),
    ('clips', 'a.mp4,0\n', 'comma-separated', 1, 'error'),
    ('clips', 'a.mp4;0\n', 'semicolon-separated', 1, 'error'),
    ('clips', 'a.mp4 0\na.mp4 walk\n', 'duplicate-row', 2, 'warning'),
    ('clips', 'a.mp4 0\na.mp4 1\n', 'clip-two-labels', 2, 'warning'),
    ('activitynet', _annotation('[3, 3]'), 'segment-empty', 3, 'warning'),
    ('activitynet', _annotation('[5, 3]'), 'segment-order', 3, 'error'),
    ('activitynet', _annotation('[-1, 3]'), 'segment-negative', 3, 'error'),
    ('activitynet', _annotation('[1, 30]'), 'segment-beyond-duration', 3, 'warning'),
    ('activitynet', _annotation('[1, NaN]'), 'segment-not-a-number', 3, 'error'),
    ('activitynet', _annotation('[1, "2"]'), 'segment-not-a-number', 3, 'error'),
    ('activitynet', _annotation('[1, 1' + 400 * '0' + ']'), 'segment-not-a-number', 3, 'error'),
    ('activitynet', _annotation('[1]'), 'segment-layout', 3, 'error'),
    ('activitynet', _annotation('[1, 2]', 'null'), 'label-missing', 3, 'error'),
    ('activitynet', _annotation('[1, 2]', '"wlak"'), 'label-unknown', 3, 'error'),
    ('activitynet', _json('{"subset": "training", "duration": -2}'), 'duration-invalid', 3, 'error'),
    ('activitynet', _json('{"subset": "training", "fps": 0}'), 'fps-invalid', 3, 'error'),
    ('activitynet', _json('{"subset": "training", "fps": "30"}'), 'fps-invalid', 3, 'error'),
    ('activitynet', _json('{"subset": "training", "fps": 30000}'), 'fps-invalid', 3, 'error'),
    ('activitynet', _annotation('[1, 2]', '"walk", "label_id": 1'), 'label-id', 3, 'warning'),
    ('activitynet', _json('{}').replace('training', 'TRAINING'), 'subset-case', None, 'warning'),
    ('activitynet', _json('{"subset": 3}'), 'subset-invalid', 3, 'error'),
    ('activitynet', _json('[]'), 'json-layout', 3, 'error'),
    ('activitynet', _json('{}').replace('"w"', '"v"'), 'json-duplicate-key', None, 'error'),
    ('activitynet', _json('{"subset": "training",'), 'json-syntax', 3, 'error'),
    ('activitynet', 10_000 * '[', 'json-syntax', None, 'error'),
    ('activitynet', '{"database": []}', 'json-layout', 1, 'error'),
    ('activitynet', '{"database": {}}', 'file-empty', 1, 'error'),
    ('activitynet', '{"database": {"w": {"subset": "validation"}}}', 'subset-unknown', None, 'error'),
    ('table', 'v,0,1,walk\n', 'header-missing', 1, 'error'),
    ('table', TABLE, 'file-empty', None, 'error'),
    ('table', TABLE.replace(',', ';'), 'semicolon-separated', 1, 'error'),
    ('table', TABLE + 'v,0,1,walk\n', 'column-count', 2, 'error'),
    ('table', TABLE + 'v,5,1,walk,,,,,\n', 'segment-order', 2, 'error'),
    ('table', TABLE + 'v,5,,walk,,,,,\n', 'row-incomplete', 2, 'error'),
    ('table', TABLE + 'v,5,6,walk,.1,.2,.3,.4,\n', 'box-without-moment', 2, 'error'),
    ('table', TABLE + 'v,5,,walk,.1,.2,3,.4,\n', 'box-not-normalised', 2, 'error'),
    ('table', TABLE + 'v,5,,walk,.1,.2,,.4,\n', 'box-not-a-number', 2, 'error'),
    ('table', TABLE + 'v,five,,walk,.1,.2,.3,.4,\n', 'timestamp-not-a-number', 2, 'error'),
    ('table', TABLE + 'v,,,wlak,,,,,\n', 'label-unknown', 2, 'error'),
    ('table', TABLE + 2 * 'v,,,walk,,,,,\n', 'duplicate-row', 3, 'warning'),
    ('table_ava', ROW + 'v,0903,0.1,0.2,0.3,0.4,0,0\n', 'action-id-zero', 2, 'error'),
    ('table_ava', ROW + 'v,0903,1,2,30,40,1,0\n', 'box-not-normalised', 2, 'error'),
    ('table_ava', ROW + 'v,0903,0.1,0.2,,0.4,1,0\n', 'box-not-a-number', 2, 'error'),
    ('table_ava', ROW + 'v,0903,0.1,0.2,0.3,0.4,1,nan\n', 'not-finite', 2, 'error'),
    ('table_ava', ROW + 'v,-5,0.1,0.2,0.3,0.4,1,1\n', 'timestamp-out-of-range', 2, 'error'),
    ('table_ava', ROW + 'v,0903\n', 'prediction-incomplete', 2, 'error'),
    ('table_ava', ROW + 'v,0903,0.1\n', 'column-count', 2, 'error'),
    ('table_ava', 'video,timestamp,x1,y1,x2,y2,action,score\n' + ROW, 'header-line', 1, 'error'),
    ('table_ava', ROW + '../v,0903,0.1,0.2,0.3,0.4,1,1\n', 'video-path-refused', 2, 'error'),
    ('table_ava', '', 'file-empty', None, 'error'),
    ('table_ava', None, 'file-missing', None, 'error'),
]


def read(kind, path, folder):
    """Reads the file as this kind and returns its problems, warnings included."""
    (folder / 'map.pbtxt').write_text(MAP)
    (folder / 'good.csv').write_text(ROW)
    notes = []
    readers = {
        'ava': lambda: ava.read_ava([path], folder / 'map.pbtxt', notes=notes),
        'detections': lambda: ava.read_detections(path, folder / 'map.pbtxt', notes=notes),
        'label_map': lambda: ava.read_label_map(path),
        'excluded': lambda: ava.read_ava([folder / 'good.csv'], folder / 'map.pbtxt', path, notes=notes),
        'class_list': lambda: clips.read_class_list(path),
        'clips': lambda: clips.read_clips(path, ('walk', 'run'), notes=notes),
        'activitynet': lambda: activitynet.read_activitynet(path, 'training', classes=('walk', 'run'), notes=notes),
        'table': lambda: table.read_table(path, classes=('walk', 'run'), notes=notes),
        'table_ava': lambda: ava.read_ava_table(path),
    }
    try:
        readers[kind]()
    except AnnotationError as error:
        return list(error.problems)
    return notes


@pytest.mark.parametrize(('kind', 'content', 'code', 'line', 'severity'), TRAPS)
def test_trap(tmp_path, kind, content, code, line, severity):
    path = tmp_path / 'broken.txt'
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    problems = read(kind, path, tmp_path)
    assert problems, 'the reader found nothing'
    first = problems[0]
    assert (first.code, first.line, first.severity) == (code, line, severity), first
    assert first.file == str(path)
    assert first.message and first.fix.endswith(('.', '?', '}')) and '\n' not in str(first)


PATHS = [
    '/etc/passwd',
    '../secret.mp4',
    'a/../../b.mp4',
    'http://host/a.mp4',
    'file:///etc/passwd',
    'concat:a.mp4|b.mp4',
    'C:\\videos\\a.mp4',
    'C:/videos/a.mp4',
    '\\\\server\\share\\a.mp4',
    'rtsp://host/stream',
    'subfile,,start,0,end,9,,:/etc/passwd',
    'data:video/mp4;base64,AAAA',
    '~/a.mp4',
    'a\x07.mp4',
    5000 * 'a',
]


@pytest.mark.parametrize('name', PATHS)
@pytest.mark.parametrize('kind', ['ava', 'table', 'clips', 'activitynet'])
def test_hostile_video_names_are_refused(tmp_path, kind, name):
    quoted = '"' + name.replace('"', '""') + '"'
    content = {
        'ava': f'{quoted},0902,0.1,0.2,0.3,0.4,1,0\n',
        'table': f'video,start,end,label\n{quoted},0,1,walk\n',
        'clips': f'{name} 0\n',
        'activitynet': json.dumps({'database': {name: {'subset': 'training'}}}),
    }[kind]
    path = tmp_path / 'list.txt'
    path.write_text(content)
    problems = read(kind, path, tmp_path)
    assert [problem.code for problem in problems][:1] == ['video-path-refused']


def test_nul_in_a_video_name_is_refused(tmp_path):
    path = tmp_path / 'list.json'
    path.write_text('{"database": {"a\\u0000.mp4": {"subset": "training"}}}')
    assert read('activitynet', path, tmp_path)[0].code == 'video-path-refused'


def test_nearest_name_is_offered(tmp_path):
    path = tmp_path / 'list.txt'
    path.write_text('a.mp4 wlak\n')
    assert "Did you mean 'walk'?" in read('clips', path, tmp_path)[0].fix


def test_subset_error_names_what_is_there(tmp_path):
    path = tmp_path / 'list.json'
    path.write_text('{"database": {"a": {"subset": "validation"}, "b": {"subset": "validation"}}}')
    assert "'validation' (2)" in read('activitynet', path, tmp_path)[0].fix


def test_a_file_wrong_in_every_line_stays_small(tmp_path):
    path = tmp_path / 'broken.csv'
    path.write_text(''.join(f'v,x{number},0.1,0.2,0.3,0.4,1,0\n' for number in range(3000)))
    problems = read('ava', path, tmp_path)
    assert len(problems) == 101
    assert '2900 more' in problems[-1].message
    with pytest.raises(AnnotationError) as caught:
        ava.read_ava([path], tmp_path / 'map.pbtxt')
    assert len(str(caught.value).splitlines()) == 6
