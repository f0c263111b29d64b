import hashlib
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from vidloc.annotations import activitynet, ava, clips, table
from vidloc.data import video
from vidloc.synthetic import collection, export, script

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools/make_mocapstreet.py'


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    return export.make(tmp_path_factory.mktemp('data') / 'street_of_mocap', 'tiny', 3)


@pytest.fixture(scope='module')
def manifest(tiny):
    return json.loads((tiny / export.MANIFEST).read_text())


def _truth(split):
    count = collection.SIZES['tiny'].street_videos[collection.SPLITS.index(split)]
    return [collection.draw('tiny', 3, 'street', split, number) for number in range(count)]


def test_everything_promised_is_there(tiny, manifest):
    names = {str(path.relative_to(tiny)) for path in tiny.rglob('*') if path.is_file()}
    assert {'README.md', 'mocapstreet.json', 'street/action_list.pbtxt', 'street/segments.json'} <= names
    for split in collection.SPLITS:
        assert {f'street/{kind}_{split}.csv' for kind in ('ava', 'detections', 'table')} <= names
        assert {f'{name}/{split}.txt' for name in ('studio', 'yard')} <= names
        street = manifest['counts']['street videos'][split]
        assert len(list((tiny / 'street' / split).glob('*.mp4'))) == street
    assert sum(name.endswith('.mp4') for name in names) == 38 + 2 * 50
    assert not list(tiny.parent.glob('.*'))
    assert manifest['size'] == 'tiny' and manifest['seed'] == 3


@pytest.mark.parametrize('split', collection.SPLITS)
def test_ava_files_read_back_as_the_truth(tiny, split):
    read = ava.read_ava([tiny / f'street/ava_{split}.csv'], tiny / 'street/action_list.pbtxt')
    expected = [truth for _, truth, _ in _truth(split)]
    assert [record.video for record in read] == [record.video for record in expected]
    for one, other in zip(read, expected, strict=True):
        assert one.keyframes == other.keyframes
        assert sorted(one.boxes, key=repr) == sorted(other.boxes, key=repr)


@pytest.mark.parametrize('split', collection.SPLITS)
def test_detections_read_back(tiny, split):
    read = ava.read_detections(tiny / f'street/detections_{split}.csv', tiny / 'street/action_list.pbtxt')
    found = {record.video: record.boxes for record in read}
    for _, truth, detected in _truth(split):
        assert sorted(found[truth.video], key=repr) == sorted(detected.boxes, key=repr)
    assert any(box.labels for boxes in found.values() for box in boxes) == (split == 'train')


@pytest.mark.parametrize('split', collection.SPLITS)
def test_table_and_segments_read_back(tiny, split):
    rows = {record.video: record for record in table.read_table(tiny / f'street/table_{split}.csv')}
    spans = activitynet.read_activitynet(tiny / 'street/segments.json', collection.SUBSETS[split])
    spans = {record.video: record for record in spans}
    for _, truth, _ in _truth(split):
        by_time = sorted(truth.segments, key=repr)
        assert sorted(rows[truth.video].segments, key=repr) == by_time
        assert sorted(rows[truth.video].boxes, key=repr) == sorted(truth.boxes, key=repr)
        assert sorted(spans[truth.video].segments, key=repr) == by_time
        assert spans[truth.video].duration == truth.duration
    assert len(spans) == len(rows)


@pytest.mark.parametrize('name', ['studio', 'yard'])
def test_clip_lists_read_back_and_hold_every_class(tiny, name):
    classes = clips.read_class_list(tiny / name / 'classes.txt')
    assert len(classes) == 10
    for split in collection.SPLITS:
        records = clips.read_clips(tiny / name / f'{split}.txt', tiny / name / 'classes.txt')
        assert {record.labels[0].label for record in records} == set(classes)
        assert all((tiny / name / record.path).is_file() for record in records)


def test_videos_decode_to_about_the_rendered_frames(tiny):
    frames, truth, _ = collection.draw('tiny', 3, 'street', 'val', 4)
    path = tiny / f'street/val/{truth.video}.mp4'
    decoded = video.read_frames(str(path), np.arange(len(frames)) / 8)
    assert decoded.shape == frames.shape
    assert np.abs(decoded.astype(int) - frames).mean() < 4


def test_checksums_are_those_of_the_frames(manifest):
    total = hashlib.sha256()
    for number in range(10):
        frames, _, _ = collection.draw('tiny', 3, 'yard', 'val', number)
        total.update(hashlib.sha256(frames.tobytes()).digest())
    assert manifest['sha256_frames']['yard']['val'] == total.hexdigest()


def test_other_processes_and_workers_make_the_same_files(tiny, tmp_path):
    command = [sys.executable, TOOL, '--out', tmp_path / 'again', '--size', 'tiny', '--seed', '3', '--workers', '2']
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    first = {path.relative_to(tiny): path.read_bytes() for path in tiny.rglob('*') if path.is_file()}
    again = tmp_path / 'again'
    second = {path.relative_to(again): path.read_bytes() for path in again.rglob('*') if path.is_file()}
    assert first.keys() == second.keys()
    assert [str(path) for path in first if first[path] != second[path]] == []


def test_streams_are_never_shared():
    states = [
        tuple(collection.stream(seed, name, split, number).generate_state(4))
        for seed in (0, 1)
        for name in (*collection.SETS, collection.UNTRIMMED)
        for split in collection.SPLITS
        for number in range(300)
    ]
    assert len(states) == len(set(states)) == 4800


def test_training_and_validation_draws_differ():
    for name in collection.SETS:
        frames = [collection.draw('tiny', 3, name, split, 0)[0] for split in collection.SPLITS]
        assert np.any(frames[0] != frames[1])


def test_readme_says_what_is_shared(tiny):
    text = (tiny / 'README.md').read_text()
    assert 'same movements' in text and 'No random draw is' in text and 'Licence' in text
    assert all(f'{label} ' in text for label in script.STREET_CLASSES)


def test_complete_directory_is_reused(tiny, capsys):
    before = (tiny / export.MANIFEST).stat().st_mtime_ns
    assert export.make(tiny, 'tiny', 3) == tiny
    assert (tiny / export.MANIFEST).stat().st_mtime_ns == before
    assert 'is used' in capsys.readouterr().err


def test_other_seed_or_foreign_directory_is_left_alone(tiny, tmp_path):
    with pytest.raises(export.MocapStreetError, match=r'seed 3.*--force'):
        export.make(tiny, 'tiny', 4)
    (tmp_path / 'thesis.tex').write_text('precious')
    for force in (False, True):
        with pytest.raises(export.MocapStreetError, match='left alone'):
            export.make(tmp_path, 'tiny', 3, force=force)
    assert (tmp_path / 'thesis.tex').read_text() == 'precious'


@pytest.mark.parametrize(
    ('arguments', 'text'), [(('huge', 0), 'tiny, small'), (('tiny', -1), 'negative'), (('tiny', 0, 0), 'workers')]
)
def test_bad_requests_say_what_is_wrong(tmp_path, arguments, text):
    with pytest.raises(export.MocapStreetError, match=text):
        export.make(tmp_path / 'new', *arguments)
    assert not (tmp_path / 'new').exists()


def test_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    original = export._produce

    def interrupt(job):
        if job.number == 3:
            raise KeyboardInterrupt
        return original(job)

    monkeypatch.setattr(export, '_produce', interrupt)
    with pytest.raises(KeyboardInterrupt):
        export.make(tmp_path / 'new', 'tiny', 5, 1)
    assert list(tmp_path.iterdir()) == []


def test_tool_reports_errors_without_a_traceback(tmp_path):
    (tmp_path / 'file').write_text('')
    done = subprocess.run(
        [sys.executable, TOOL, '--out', tmp_path / 'file', '--size', 'tiny'], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 1 and 'is a file' in done.stderr and 'Traceback' not in done.stderr
