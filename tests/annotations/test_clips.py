"""Clip lists: where the path ends and the label begins."""

import pytest

from vidloc.annotations import clips
from vidloc.annotations.records import ClipLabel, VideoRecord

CLASSES = ('walk', 'ride a bike', 'bike')


@pytest.mark.parametrize(
    ('line', 'path', 'label'),
    [
        ('a.mp4 0', 'a.mp4', 'walk'),
        ('a.mp4\t1', 'a.mp4', 'ride a bike'),
        ('my clip.mp4 ride a bike', 'my clip.mp4', 'ride a bike'),
        ('folder/ride a bike/x.mp4 bike', 'folder/ride a bike/x.mp4', 'bike'),
        ('-5KQ_1.mp4  2', '-5KQ_1.mp4', 'bike'),
    ],
)
def test_path_and_label(tmp_path, line, path, label):
    (tmp_path / 'l.txt').write_text(line + '\n')
    assert clips.read_clips(tmp_path / 'l.txt', CLASSES) == [VideoRecord(path, path=path, labels=(ClipLabel(label),))]


def test_a_path_that_reads_as_a_label_is_not_written(tmp_path):
    record = VideoRecord('a 1', path='a 1', labels=(ClipLabel('x'),))
    with pytest.raises(ValueError, match='cannot be told'):
        clips.write_clips(tmp_path / 'l.txt', [record], ('x', '1 0'))


def test_an_unknown_label_is_not_written(tmp_path):
    record = VideoRecord('a', path='a', labels=(ClipLabel('wlak'),))
    with pytest.raises(ValueError, match="Did you mean 'walk'"):
        clips.write_clips(tmp_path / 'l.txt', [record], CLASSES)
