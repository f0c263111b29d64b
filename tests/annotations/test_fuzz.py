"""Readers meet damaged files: they read them or say what is wrong, and nothing else."""

import numpy as np
import pytest

from vidloc.annotations import activitynet, ava, clips, table
from vidloc.annotations.records import AnnotationError

CLASSES = ('walk', 'ride a bike', 'run')
LABEL_MAP = {1: 'walk', 2: 'ride a bike', 5: 'run'}
GROUND_TRUTH = ''.join(
    f'v{row % 3},{900 + row // 2:04d},0.1,0.2,0.{3 + row % 5},0.4,{1 + row % 2},{row}\n' for row in range(12)
)
FILES = {
    'label_map': ''.join(f'item {{\n  name: "{name}"\n  id: {number}\n}}\n' for number, name in LABEL_MAP.items()),
    'label_map_80': ''.join(
        f'label {{\n  name: "{name}"\n  label_id: {number}\n  label_type: PERSON_MOVEMENT\n}}\n'
        for number, name in LABEL_MAP.items()
    ),
    'ava': GROUND_TRUTH + 'v3,0950\nv3,951.5,0.1,0.2,0.3,0.4,1\n',
    'detections': ''.join(
        f'v{row % 3},{900 + row},0.1,0.2,0.3,0.4,{["", 1, 2][row % 3]},0.{row}\n' for row in range(12)
    ),
    'excluded': 'v0,0900\nv1,0901\n',
    'table_ava': GROUND_TRUTH.replace(',0\n', ',0.5\n'),
    'class_list': 'walk\nride a bike\nrun\n',
    'clips': 'a/b.mp4 0\nc d.mp4 ride a bike\ne.mp4 2\n',
    'activitynet': '{"version": 1, "database": {"v": {"subset": "training", "duration": 12.5, "annotations": '
    '[{"segment": [0.5, 3], "label": "walk"}, {"segment": [4, 5.25e0], "label": "r\\u00fcn"}]}, "w": {}}}',
    'table': 'video,start,end,label,x1,y1,x2,y2,track\n'
    'v,,,walk,,,,,\nv,1.5,2,run,,,,,\nv,3,,run,.1,.2,.3,.4,p1\nv,4,,,,,,,\n',
}
SNIPPETS = [
    b',',
    b'"',
    b'\n',
    b'\r',
    b'-',
    b'e',
    b'nan',
    b'1e999',
    b'{',
    b'}',
    b'[',
    b';',
    b'\t',
    b' ',
    b'0',
    b'\x00',
    b'\xff',
]
SNIPPETS += [
    b'\xc3\xa9',
    '²'.encode(),
    '１'.encode(),
    b'null',
    b'..',
    b'/',
    b':',
    b'\\',
    b'inf',
    b'9' * 5000,
    b"'",
    b'#',
    b'\xef\xbb\xbf',
]


def _damaged(data: bytes, rng: np.random.Generator) -> bytes:
    for _ in range(rng.integers(1, 4)):
        at, length = int(rng.integers(len(data) + 1)), int(rng.integers(1, 9))
        kind = rng.integers(5)
        if kind == 0:
            data = data[:at] + SNIPPETS[rng.integers(len(SNIPPETS))] + data[at:]
        elif kind == 1:
            data = data[:at] + data[at + length :]
        elif kind == 2:
            data = data[:at] + rng.bytes(1) + data[at + 1 :]
        elif kind == 3:
            data = data[:at] + SNIPPETS[rng.integers(len(SNIPPETS))] + data[at + length :]
        else:
            data = data[:at] if rng.random() < 0.5 else data + data[at : at + 40]
    return data


@pytest.mark.parametrize('kind', FILES)
def test_only_annotation_errors(tmp_path, kind):
    good = tmp_path / 'good.pbtxt'
    good.write_text(FILES['label_map'])
    truth = tmp_path / 'truth.csv'
    truth.write_text(FILES['ava'])
    path = tmp_path / 'damaged'
    readers = {
        'label_map': lambda: ava.read_label_map(path),
        'label_map_80': lambda: ava.read_label_map(path),
        'ava': lambda: ava.read_ava([path], good),
        'detections': lambda: ava.read_detections(path, good),
        'excluded': lambda: ava.read_ava([truth], good, path),
        'table_ava': lambda: ava.read_ava_table(path),
        'class_list': lambda: clips.read_class_list(path),
        'clips': lambda: clips.read_clips(path, CLASSES),
        'activitynet': lambda: activitynet.read_activitynet(path),
        'table': lambda: table.read_table(path),
    }
    path.write_text(FILES[kind])
    assert len(readers[kind]())
    rng = np.random.default_rng(sorted(FILES).index(kind))
    refused = 0
    for _ in range(120):
        path.write_bytes(_damaged(FILES[kind].encode(), rng))
        try:
            readers[kind]()
        except AnnotationError as error:
            refused += 1
            assert all(problem.message and problem.fix and problem.code for problem in error.problems)
    assert 10 < refused <= 120
