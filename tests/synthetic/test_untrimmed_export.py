import json
import pathlib
import shutil

import numpy as np
import pytest

from vidloc.annotations import activitynet, clips
from vidloc.data import video
from vidloc.synthetic import collection, export, untrimmed


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.fixture(scope='module')
def added(mocapstreet, tmp_path_factory):
    """A copy of the shared folder to which the untrimmed videos were added."""
    out = tmp_path_factory.mktemp('untrimmed') / 'street_of_mocap'
    shutil.copytree(mocapstreet, out)
    return export.make(out, 'tiny', 0, long=True)


@pytest.fixture(scope='module')
def manifest(added):
    return json.loads((added / export.MANIFEST).read_text())


def test_nothing_else_changes_when_they_are_added(mocapstreet, added):
    before, after = files(mocapstreet), files(added)
    assert {name for name in after if name not in before} == {
        name for name in after if pathlib.PurePath(name).parts[0] == 'untrimmed'
    }
    assert sorted(name for name in before if before[name] != after[name]) == ['README.md', 'mocapstreet.json']
    both = json.loads((added / export.MANIFEST).read_text())
    assert both.pop('untrimmed')['version'] == export.UNTRIMMED_VERSION
    assert both == json.loads((mocapstreet / export.MANIFEST).read_text())
    assert not list(added.glob('.*'))


@pytest.mark.parametrize('split', collection.SPLITS)
def test_annotations_read_back_as_the_truth(added, split):
    subset, number = collection.SUBSETS[split], collection.SPLITS.index(split)
    classes = clips.read_class_list(added / 'untrimmed/classes.txt')
    read = activitynet.read_activitynet(added / 'untrimmed/annotations.json', subset, classes=classes)
    count = collection.SIZES['tiny'].long_videos[number]
    expected = [collection.draw('tiny', 0, 'untrimmed', split, i)[1] for i in range(count)]
    assert tuple(classes) == tuple(untrimmed.CLASSES)
    assert [(one.video, one.duration, one.subset, one.fps) for one in read] == [
        (one.video, one.duration, one.subset, 8.0) for one in expected
    ]
    assert [sorted(one.segments, key=repr) for one in read] == [sorted(one.segments, key=repr) for one in expected]


def test_videos_have_the_length_that_is_said_and_about_the_rendered_frames(added, manifest):
    frames, truth, _ = collection.draw('tiny', 0, 'untrimmed', 'val', 1)
    path = str(added / f'untrimmed/val/{truth.video}.mp4')
    index = video.index_video(path)
    assert len(index.pts) == len(frames) == truth.duration * 8
    decoded = video.read_frames(path, np.arange(len(frames)) / 8, index=index)
    assert np.abs(decoded.astype(int) - frames).mean() < 4
    assert manifest['untrimmed']['videos'] == {'train': 6, 'val': 4}
    segments = sum(sum(each.values()) for each in manifest['untrimmed']['segments'].values())
    listed = json.loads((added / 'untrimmed/annotations.json').read_text())['database']
    assert segments == sum(len(each['annotations']) for each in listed.values()) > 10


def test_card_tells_of_them_only_if_they_are_there(mocapstreet, added):
    assert '--untrimmed' in (added / 'README.md').read_text()
    assert 'untrimmed' not in (mocapstreet / 'README.md').read_text()


def test_what_is_there_is_used_again(added):
    before = (added / export.MANIFEST).stat().st_mtime_ns
    for long in (True, False):
        assert export.make(added, 'tiny', 0, long=long) == added
    assert (added / export.MANIFEST).stat().st_mtime_ns == before


def test_what_contradicts_is_refused(added, manifest, tmp_path):
    with pytest.raises(export.MocapStreetError, match='would be lost'):
        export.make(added, 'tiny', 0, force=True)
    with pytest.raises(export.MocapStreetError, match=r'seed 0.*seed 1'):
        export.make(added, 'tiny', 1, long=True)
    with pytest.raises(export.MocapStreetError, match='bench has no untrimmed videos; choose one of tiny, small'):
        export.make(tmp_path / 'bench', 'bench', 0, long=True)
    old = json.loads(json.dumps(manifest))
    old['untrimmed']['version'] = 0
    (tmp_path / export.MANIFEST).write_text(json.dumps(old))
    with pytest.raises(export.MocapStreetError, match='untrimmed videos of version 0'):
        export.make(tmp_path, 'tiny', 0, long=True)
    assert export.make(tmp_path, 'tiny', 0) == tmp_path
    del old['untrimmed']
    (tmp_path / export.MANIFEST).write_text(json.dumps(old))
    (tmp_path / 'untrimmed').mkdir()
    with pytest.raises(export.MocapStreetError, match='does not know it'):
        export.make(tmp_path, 'tiny', 0, long=True)


def test_interrupted_addition_leaves_the_rest_as_it_was(mocapstreet, tmp_path, monkeypatch):
    out = tmp_path / 'out'
    out.mkdir()
    shutil.copy(mocapstreet / export.MANIFEST, out)
    original = export._produce

    def interrupt(job):
        if job.number == 1:
            raise KeyboardInterrupt
        return original(job)

    monkeypatch.setattr(export, '_produce', interrupt)
    with pytest.raises(KeyboardInterrupt):
        export.make(out, 'tiny', 0, 1, long=True)
    assert [path.name for path in out.iterdir()] == [export.MANIFEST]
