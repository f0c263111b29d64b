"""What an evaluation writes, from annotation files and videos on disk to JSON, csv and page."""

import json

import numpy as np
import pytest

from vidloc.annotations import ava as files
from vidloc.annotations import formats, moma
from vidloc.annotations.records import PersonBox, VideoRecord
from vidloc.data import encode, keyframes
from vidloc.metrics import ava
from vidloc.report import box_results, page, results, run

NAMES = {11: 'sit', 12: 'stand', 14: 'walk', 80: 'watch (a person)'}
TASK = ('stand', 'fly', 'sit', 'walk', 'watch (a person)', 'swim')  # a model of more classes than the list
BOX = (0.1, 0.2, 0.4, 0.9)


def score(detections, truth):
    """As the task of boxes does, without its head."""
    classes = dict(enumerate(TASK))
    return {
        name: ava.frame_ap(truth, detections, classes, protocol=protocol).mean
        for name, protocol in (('frame_map@0.5', 'official'), ('frame_map_slowfast@0.5', 'slowfast'))
    }


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A movie of 6 s and two clips of Kinetics, with AVA's and Kinetics' annotation files and detected boxes."""
    root = tmp_path_factory.mktemp('ava_kinetics')
    frames = np.full((24, 32, 48, 3), 90, np.uint8)
    (root / 'videos').mkdir()
    for name in ('movie', 'a-_b_000010_000020', 'a-_b_000050_000060'):
        encode.write_video(root / 'videos' / f'{name}.mp4', frames, 4.0)
    box = ','.join(map(str, BOX))
    labels = {901: (11, 80), 902: (12,), 903: (14, 80), 904: (12,), 905: (3,)}
    rows = [f'movie,0{time},{box},{action},0' for time, actions in labels.items() for action in actions]
    (root / 'ava_val_v2.2.csv').write_text('\n'.join(rows) + '\n')
    (root / 'kinetics_val_v1.0.csv').write_text(f'a-_b,12.5,{box},12\na-_b,53.25,{box},11\na-_b,14.5\n')
    (root / 'excluded.csv').write_text('movie,0904\n')
    files.write_label_map(root / 'list.pbtxt', NAMES)
    times = [
        *(('movie', f'0{time}') for time in range(901, 906)),
        ('a-_b', '12.5'),
        ('a-_b', '53.25'),
        ('a-_b', '14.5'),
    ]
    (root / 'boxes.csv').write_text(''.join(f'{video},{time},{box},,0.9\n' for video, time in times))
    return root


def view_of(root, **change):
    """The config of an evaluated source, as results gets it."""
    view = {
        'task': 'people',
        'annotations': (str(root / 'ava_val_v2.2.csv'), str(root / 'kinetics_val_v1.0.csv')),
        'labels': str(root / 'list.pbtxt'),
        'detections': (str(root / 'boxes.csv'),),
        'excluded': str(root / 'excluded.csv'),
        'videos': str(root / 'videos'),
        'boxes': 'detections',
        'time_offset': 900.0,
        'frame_rate': 30.0,
    }
    return view | change


def evaluated(view, name='both'):
    """(source, detections of every box and class with seeded scores that have no ties)."""
    kind = formats.AvaFiles if 'excluded' in view else formats.MomaFiles
    fields = ('annotations', 'labels', 'detections', 'excluded')
    form = kind(**{key: view[key] for key in fields if key in view})
    settings = {key: view[key] for key in ('videos', 'boxes', 'time_offset', 'frame_rate')}
    source = keyframes.KeyframeSource(name, keyframes.Keyframes(**settings), form.read(), TASK, train=False)
    rows = [(example.video, example.time, *box) for example in source.examples for box in example.boxes]
    rows = [(*row, action) for row in rows for action in range(len(TASK))]
    names = ('video', 'timestamp', 'x1', 'y1', 'x2', 'y2', 'action_id')
    kinds = (object, *[np.float64] * 5, np.int64)
    columns = {
        name: np.array([row[i] for row in rows], kind) for i, (name, kind) in enumerate(zip(names, kinds, strict=True))
    }
    columns['score'] = np.random.default_rng(7).permutation(len(rows)) / len(rows) + 1e-9
    return source, columns


def write(workdir, view, name='both'):
    source, found = evaluated(view, name)
    metrics = results.measure(score, source, found, view)
    scored = results.Scored(source, None, found, metrics, 5, view, head=2, tail=1)
    (workdir / 'config.json').write_text('{}')
    return json.loads(results.write(workdir, scored).read_text()), metrics


@pytest.fixture(scope='module')
def written(folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('run')
    return workdir, *write(workdir, view_of(folder))


def test_parts_and_union_are_what_the_files_alone_give(written, folder):
    workdir, content, metrics = written
    parts = ('ava_val_v2.2', 'kinetics_val_v1.0')
    names = ('frame_map@0.5', 'frame_map_slowfast@0.5')
    assert metrics.keys() == {*names, *(f'{part}/{name}' for part in parts for name in names)}
    found = files.read_ava_table(workdir / content['detections'])
    excluded = files.read_excluded(folder / 'excluded.csv')
    tables = {part: files.read_ava_table(folder / f'{part}.csv', scores=False) for part in parts}
    for part, truth in {'': ava.join(list(tables.values())), **tables}.items():
        mine = ava.on_videos_of(found, truth)
        for name, protocol in zip(names, ava.PROTOCOLS, strict=True):
            expected = ava.frame_ap(truth, mine, NAMES, protocol=protocol, excluded=excluded)
            assert metrics[f'{part}/{name}' if part else name] == expected.mean
        if part:
            assert content['parts'][part]['counts']['keyframes'] == (4 if part.startswith('ava') else 3)
    assert len({metrics['frame_map@0.5'], *(metrics[f'{part}/frame_map@0.5'] for part in parts)}) == 3


def test_only_the_classes_of_the_list_are_scored_and_written(written):
    workdir, content, _ = written
    assert content['classes'] == ['stand', 'sit', 'walk', 'watch (a person)']
    for key in ('per_class', 'prevalence', 'train_count', 'prior_per_class'):
        assert list(content[key]) == content['classes']
    table = files.read_ava_table(workdir / content['detections'])
    assert set(table['action_id'].tolist()) == set(NAMES)
    assert len(content['analysis']['confusion']) == 4
    # 7 keyframes with a box are left of 8.
    assert content['counts']['detections'] == len(table['score']) == 7 * 4


def test_it_is_said_where_labels_are_counted(written, folder):
    _, content, metrics = written
    assert content['counted_in'] == 'evaluation'  # no training source was there
    source, found = evaluated(view_of(folder))
    scored = results.Scored(source, source, found, metrics, 5, view_of(folder), head=2, tail=1)
    assert box_results.content(scored)['counted_in'] == 'training'


def test_the_limit_of_a_keyframe_counts_what_the_list_leaves(folder):
    """Eleven boxes on a keyframe: the best scores are of classes that are not in the list, the least is right."""
    source, found = evaluated(view_of(folder))
    row = np.flatnonzero(found['timestamp'] == 902)
    crowd = {name: np.concatenate([np.repeat(values[row], 10), values]) for name, values in found.items()}
    high = np.isin(crowd['action_id'], [1, 5])
    crowd['score'] = np.where(high, 2.0, crowd['score'])
    crowd['score'][(crowd['timestamp'] == 902) & (crowd['action_id'] == 0)] = 1e-12
    least = {name: values[~high] for name, values in crowd.items()}
    view = view_of(folder)
    assert results.measure(score, source, crowd, view) == results.measure(score, source, least, view)
    assert score(crowd, source.truth())['frame_map@0.5'] < score(least, source.truth())['frame_map@0.5']


def test_scores_are_written_exactly(written, folder):
    workdir, content, _ = written
    _, found = evaluated(view_of(folder))
    table = files.read_ava_table(workdir / content['detections'])
    expected = found['score'][np.isin(found['action_id'], [0, 2, 3, 4])]
    assert np.array_equal(np.sort(table['score']), np.sort(expected))


def test_actions_are_grouped_by_the_ids_of_the_list(written):
    _, content, _ = written
    assert content['action_groups'] == {
        'person movement': ['stand', 'sit', 'walk'],
        'person interaction': ['watch (a person)'],
    }


def test_files_of_one_name_are_told_apart_by_their_folders(folder, tmp_path):
    paths = []
    for part in ('one', 'two'):
        (tmp_path / part).mkdir()
        paths.append(str(tmp_path / part / 'val.csv'))
    (tmp_path / 'one' / 'val.csv').write_text((folder / 'ava_val_v2.2.csv').read_text())
    (tmp_path / 'two' / 'val.csv').write_text((folder / 'kinetics_val_v1.0.csv').read_text())
    source, _ = evaluated(view_of(folder))
    parts = box_results.parts(source.truth(), paths)
    assert list(parts) == ['one_val', 'two_val']
    assert set(parts['two_val']['video'].tolist()) == {'a-_b'}
    assert box_results.parts(source.truth(), paths[:1]) == {}


def test_the_page_reads_all_files_and_sets_true_boxes_beside_detected_ones(folder, tmp_path):
    write(tmp_path, view_of(folder))
    content, _ = write(tmp_path, view_of(folder, boxes='truth'), 'both_truth')
    assert content['analysis']['missed'] == 0.0 and content['analysis']['bound'] == 1.0
    text = page.write_page(tmp_path).read_text()
    assert 'on true boxes (both_truth)' in text and 'kinetics_val_v1.0' in text
    assert 'By kind of action' in text and 'person interaction' in text
    # The movie and one of the two takes of the other video, drawn once though two sources show them.
    assert text.count('<video ') == 2 and 'Not shown' not in text
    assert '<th scope="col">3 s</th><th scope="col">5 s</th>' in text  # 4 s is excluded
    shown = run.read_run(tmp_path).detections[0]
    assert shown.ground_truth == view_of(folder)['annotations'] and shown.excluded


def test_ground_truth_of_another_format_is_written_in_the_official_csv(folder, tmp_path):
    """Two files of MOMA: scored as one, without parts; the page and others' tools read the csv."""
    people = {
        'movie': (PersonBox(1.0, BOX, ('sit', 'swim'), None, '1/A'), PersonBox(2.5, BOX, ('swim',), None, '1/A')),
        'a-_b_000010_000020': (PersonBox(1.0, BOX, ('walk',), None, '2/A'),),
    }
    for number, (name, boxes) in enumerate(people.items()):
        records = [VideoRecord(name, keyframes=(1.0, 2.5, 4.0), boxes=boxes)]
        moma.write_moma(tmp_path / f'{number}.json', records, size=(1000, 1000))
    view = view_of(folder, annotations=(str(tmp_path / '0.json'), str(tmp_path / '1.json')), detections=())
    view = view | {'boxes': 'truth', 'time_offset': 0.0}
    del view['excluded']
    content, metrics = write(tmp_path, view)
    assert metrics.keys() == {'frame_map@0.5', 'frame_map_slowfast@0.5'} and content['parts'] == {}
    assert content['ground_truth'] == ['eval/both_truth.csv'] and content['excluded'] == ''
    truth = files.read_ava(tmp_path / 'eval/both_truth.csv', folder / 'list.pbtxt')
    assert {record.video: [person.labels for person in record.boxes] for record in truth} == {
        'a-_b_000010_000020': [('walk',)],
        'movie': [('sit',)],  # the list has no swimming
    }
    assert all(record.keyframes == (1.0, 2.5, 4.0) for record in truth)
    tables = [files.read_ava_table(tmp_path / f'eval/both_{name}.csv', scores=name != 'truth')
              for name in ('truth', 'detections')]  # fmt: skip
    assert ava.frame_ap(*tables, NAMES, protocol='official').mean == metrics['frame_map@0.5']
    text = page.write_page(tmp_path).read_text()
    assert text.count('<video ') == 2 and 'Not shown' not in text


def test_a_source_of_clips_is_scored_by_its_task_alone():
    class Clips:
        def truth(self):
            return {'label': np.array([1])}

    found = {'scores': np.array([[0.1, 0.9]])}
    assert results.measure(lambda given, truth: {'top1': float(given['scores'].argmax() == truth['label'][0])}, Clips(),
                           found, {}) == {'top1': 1.0}  # fmt: skip


def test_a_union_of_sources_scores_as_their_files_together(written, folder, tmp_path):
    """The two parts of AVA-Kinetics as two sources give what they give as two files of one source."""
    _, _, together = written
    members = []
    for name, part in (('movies', 'ava_val_v2.2'), ('clips', 'kinetics_val_v1.0')):
        view = view_of(folder, annotations=(str(folder / f'{part}.csv'),))
        source, _ = evaluated(view, name)
        _, found = evaluated(view_of(folder))
        metrics = results.measure(score, source, ava.on_videos_of(found, source.truth()), view)
        found = ava.on_videos_of(found, source.truth())
        members.append(results.Scored(source, None, found, metrics, 5, view, head=2, tail=1))
    union = results.measure_union(score, members)
    assert union == {name: together[name] for name in union}
    for member in members:
        results.write(tmp_path, member)
    path = results.write_union(tmp_path, 'both', members, union)
    table = files.read_ava_table(tmp_path / json.loads(path.read_text())['detections'])
    assert set(table['video'].tolist()) == {'movie', 'a-_b'} and len(table['score']) == 7 * 4
    (tmp_path / 'config.json').write_text('{}')
    (found,) = run.read_run(tmp_path).unions
    assert (found.source, found.step, found.members) == ('both', 5, ('movies', 'clips'))
    text = page.write_page(tmp_path).read_text()
    assert 'both: frame mAP@0.5' in text and 'movies and clips scored together' in text
    assert f'{union["frame_map@0.5"]:.3f}' in text
