"""Every format written and read again gives the same records, bit for bit."""

import dataclasses

import pytest

from vidloc.annotations import activitynet, ava, clips, table
from vidloc.annotations.records import ClipLabel

SEEDS = range(25)
CLASSES = ('walk', 'ride a bike', 'say "hello"', 'back\\slash', 'comma, and', 'schlürfen', "one's own")
LABEL_MAP = {3 * number + 1: name for number, name in enumerate(CLASSES)}


@pytest.fixture
def label_map(tmp_path):
    ava.write_label_map(tmp_path / 'classes.pbtxt', LABEL_MAP)
    return tmp_path / 'classes.pbtxt'


def test_label_map(label_map):
    assert ava.read_label_map(label_map) == LABEL_MAP


def test_class_list(tmp_path):
    clips.write_class_list(tmp_path / 'classes.txt', CLASSES)
    assert clips.read_class_list(tmp_path / 'classes.txt') == CLASSES


@pytest.mark.parametrize('seed', SEEDS)
def test_ava(generate, label_map, tmp_path, seed):
    records = generate(seed).boxes(scores=False, tracks=True)
    ava.write_ava(tmp_path / 'a.csv', records, LABEL_MAP)
    assert ava.read_ava([tmp_path / 'a.csv'], label_map) == records


@pytest.mark.parametrize('seed', SEEDS)
def test_detections(generate, label_map, tmp_path, seed):
    records = generate(seed).boxes(scores=True, tracks=False)
    ava.write_detections(tmp_path / 'd.csv', records, LABEL_MAP)
    assert ava.read_detections(tmp_path / 'd.csv', label_map) == records


def test_detections_without_label_map_keep_ids(generate, label_map, tmp_path):
    records = generate(1).boxes(scores=True, tracks=False)
    ava.write_detections(tmp_path / 'd.csv', records, LABEL_MAP)
    by_id = ava.read_detections(tmp_path / 'd.csv')
    assert {label for record in by_id for person in record.boxes for label in person.labels} <= set(map(str, LABEL_MAP))
    ava.write_detections(tmp_path / 'e.csv', by_id)
    assert (tmp_path / 'd.csv').read_bytes() == (tmp_path / 'e.csv').read_bytes()


@pytest.mark.parametrize('seed', SEEDS)
def test_clips(generate, tmp_path, seed):
    records = generate(seed).clips()
    clips.write_clips(tmp_path / 'c.txt', records, CLASSES)
    assert clips.read_clips(tmp_path / 'c.txt', CLASSES) == records


@pytest.mark.parametrize('seed', SEEDS)
def test_activitynet(generate, tmp_path, seed):
    made = generate(seed)
    records = [
        dataclasses.replace(
            record, keyframes=(), boxes=(), segments=made.segments(), subset='training', duration=130.25
        )
        for record in made.boxes(scores=False, tracks=False)
    ]
    activitynet.write_activitynet(tmp_path / 's.json', records)
    assert activitynet.read_activitynet(tmp_path / 's.json', 'training') == records


@pytest.mark.parametrize('seed', SEEDS)
def test_table(generate, tmp_path, seed):
    made = generate(seed)
    records = []
    for number, record in enumerate(made.boxes(scores=False, tracks=True)):
        path = None if number % 2 else f'{record.video}.mp4'
        labels = (ClipLabel('walk'), ClipLabel('comma, and')) if number % 3 == 0 else ()
        video = path or record.video
        records.append(dataclasses.replace(record, video=video, path=path, segments=made.segments(), labels=labels))
    records.sort(key=lambda record: record.video)
    table.write_table(tmp_path / 't.csv', records)
    assert table.read_table(tmp_path / 't.csv', classes=CLASSES) == records


def test_table_without_boxes_has_four_columns(generate, tmp_path):
    record = dataclasses.replace(generate(4).clips()[0], segments=generate(3).segments())
    table.write_table(tmp_path / 't.csv', [record])
    assert (tmp_path / 't.csv').read_text().splitlines()[0] == 'video,start,end,label'
    assert table.read_table(tmp_path / 't.csv') == [record]
