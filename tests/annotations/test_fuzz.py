"""Readers meet damaged files: they read them or say what is wrong, and nothing else."""

import numpy as np
import pytest

from vidloc.annotations import activitynet, ava, check, class_list, clips, proposals, table
from vidloc.annotations.records import AnnotationError, PersonBox, VideoRecord

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


CLIPS = {
    'kinetics.csv': 'label,youtube_id,time_start,time_end,split\nwalk,-x_1,10,20,train\n"ride a bike",b,0,10,train\n',
    'moments.csv': 'walk/a.mp4,walk,3,0\nride a bike/b.mp4,ride a bike,2,1\nrun/c.mp4,run\n',
    'something.json': '[{"id": "1", "label": "walking", "template": "[walk]", "placeholders": ["x"]},\n'
    '{"id": 2, "template": "run"}]',
    'ucf101.txt': 'walk/v_walk_g01_c01.avi 1\nrun/v_run_g02_c03.avi 3\nwalk/v_walk_g08_c01.avi 1\n',
    'clips.txt': FILES['clips'],
    'activitynet.json': FILES['activitynet'].replace('r\\u00fcn', 'run'),
    'moma.json': '[{"file_name": "v.mp4", "num_frames": 30, "width": 64, "height": 48, "duration": 9.0, "activity": '
    '{"id": "v", "class_name": "a", "start_time": 0.0, "end_time": 9.0, "sub_activities": [{"id": "0", "class_name": '
    '"s", "start_time": 1.0, "end_time": 2.0, "higher_order_interactions": [{"id": "0_1", "time": 1.0, "actors": '
    '[{"id": "A", "class_name": "p", "bbox": [1, 2, 3, 4]}], "objects": [], "intransitive_actions": [{"class_name": '
    '"walk", "source_id": "A"}], "transitive_actions": []}]}]}}]',
    'table.csv': FILES['table'],
}
CLASS_LISTS = {
    'labels.json': '{"walk": "0", "ride a bike": "1", "run": "2"}',
    'ids.csv': 'id,name\n0,walk\n1,ride a bike\n2,run\n',
    'categories.txt': 'walk,0\nride a bike,1\nrun,2\n',
    'classInd.txt': '1 walk\n2 ride a bike\n3 run\n',
    'classes.txt': FILES['class_list'],
    'map.pbtxt': FILES['label_map'],
}


def _check_damaged(path, whole, rng, call, times=60):
    """How many of the damaged copies have an error; what `call` raises fails the test."""
    path.write_bytes(whole)
    assert not call().errors
    wrong = 0
    for _ in range(times):
        path.write_bytes(_damaged(whole, rng))
        report = call()
        wrong += report.errors > 0
        assert all(problem.message and problem.fix and problem.code for problem in report.problems)
    return wrong


@pytest.mark.parametrize('name', CLIPS)
def test_the_check_of_every_format_raises_nothing(tmp_path, name):
    (tmp_path / 'classes.txt').write_text(FILES['class_list'])
    path = tmp_path / name
    rng = np.random.default_rng(list(CLIPS).index(name))
    labels = tmp_path / 'classes.txt'
    assert _check_damaged(path, CLIPS[name].encode(), rng, lambda: check.check(path.stem, [path], labels=labels)) > 5


@pytest.mark.parametrize('name', CLASS_LISTS)
def test_the_check_of_class_lists_raises_nothing(tmp_path, name):
    (tmp_path / 'clips.txt').write_text('a.mp4 walk\n')
    path = tmp_path / name
    assert class_list.read_class_list(_written(path, CLASS_LISTS[name])) == CLASSES
    rng = np.random.default_rng(sorted(CLASS_LISTS).index(name))
    wrong = _check_damaged(
        path, CLASS_LISTS[name].encode(), rng, lambda: check.check('clips', [tmp_path / 'clips.txt'], labels=path)
    )
    assert wrong > 5


def test_the_check_of_proposals_raises_nothing(tmp_path):
    path = tmp_path / 'boxes.pkl'
    people = [PersonBox(902.0 + i, (0.1, 0.2, 0.3, 0.4 + i / 100), (), 0.5) for i in range(3)]
    times = tuple(person.time for person in people)
    proposals.write_proposals(path, [VideoRecord(name, keyframes=times, boxes=tuple(people)) for name in 'vw'])
    whole, rng = path.read_bytes(), np.random.default_rng(5)
    for name in ('proposals', 'ava_detections'):
        assert _check_damaged(path, whole, rng, lambda name=name: check.check(name, [path])) > 30


@pytest.mark.parametrize('option', ['excluded', 'included', 'detections'])
def test_the_check_of_what_goes_with_ava_raises_nothing(tmp_path, option):
    (tmp_path / 'truth.csv').write_text(FILES['ava'])
    whole = {
        'excluded': FILES['excluded'],
        'included': '\n'.join(map(str, [*range(900, 906), 950, 951.5])),
        'detections': FILES['detections'],
    }[option]
    labels = _written(tmp_path / 'map.pbtxt', FILES['label_map'])
    path = tmp_path / 'damaged.csv'
    files = [path] if option == 'detections' else path
    rng = np.random.default_rng(len(option))
    wrong = _check_damaged(
        path,
        whole.encode(),
        rng,
        lambda: check.check('ava', [tmp_path / 'truth.csv'], labels=labels, **{option: files}),
    )
    assert wrong > 5


def test_the_check_of_folders_raises_nothing(tmp_path):
    rng = np.random.default_rng(3)
    names = ['walk', 'x.mp4', 'a b.MP4', '.hidden', 'ü', "q'uote", '\udcff', 'new\nline', '..mp4', 'deep', '0' * 200]
    for number in range(30):
        root = tmp_path / str(number)
        for _ in range(rng.integers(0, 8)):
            parts = rng.permutation(names)[: rng.integers(1, 4)].tolist()
            path = root.joinpath(*parts)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if rng.random() < 0.3:
                    path.symlink_to(rng.choice(['..', 'nowhere', str(root)]))
                else:
                    path.touch()
            except (FileExistsError, NotADirectoryError, OSError):
                continue
        report = check.check('folders', [root])
        assert all(problem.message and problem.fix and problem.code for problem in report.problems)


def _written(path, text):
    path.write_text(text)
    return path
