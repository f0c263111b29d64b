import numpy as np
import pytest

from vidloc.annotations import records as rec
from vidloc.data import clips as clip_data
from vidloc.data import video

CLASSES = ('walk', 'wave', 'talk')


def clips(folder, records, *, train=True, **view):
    fields = {'frames': 4, 'rate': 8.0, 'size': (48, 64), 'scale': (1.0, 1.0), 'flip': 0.0}
    return clip_data.ClipSource(
        'studio', clip_data.Clips(videos=str(folder), **{**fields, **view}), records, CLASSES, train=train
    )


def test_clips_start_anywhere_in_training_and_in_the_middle_in_evaluation(rectangles):
    records = [rec.VideoRecord('v00', path='v00.mp4', labels=(rec.ClipLabel('wave'),))]
    source = clips(rectangles.folder, records)
    middle = source.load(0, None)
    assert middle['labels'].tolist() == [0.0, 1.0, 0.0]
    # 16 frames, 4 of them: the middle four are 6 to 9
    np.testing.assert_allclose(middle['video'][:, -2:, :, 0].mean(axis=(1, 2)), [60, 70, 80, 90], atol=11)
    firsts = [source.load(0, np.random.default_rng(seed))['video'][0, -2:, :, 0].mean() for seed in range(40)]
    assert min(firsts) < 25 and max(firsts) > 95


def test_a_part_of_a_video_can_be_a_clip(rectangles):
    labels = (rec.ClipLabel('walk', 0.0, 0.5), rec.ClipLabel('talk', 1.5, 2.0))
    source = clips(rectangles.folder, [rec.VideoRecord('v01', path='v01.mp4', labels=labels)])
    shades = [source.load(i, None)['video'][:, -2:, :, 0].mean(axis=(1, 2)) for i in range(2)]
    np.testing.assert_allclose(shades, [[0, 10, 20, 30], [120, 130, 140, 150]], atol=6)
    assert source.truth()['label'].tolist() == [0, 2]
    np.testing.assert_array_equal(source.label_counts(), [1, 0, 1])


def test_a_video_that_cannot_be_read_raises_a_video_error(rectangles, tmp_path):
    path = rectangles.write(tmp_path / 'v00.mp4')
    source = clips(tmp_path, [rec.VideoRecord('v00', path='v00.mp4', labels=(rec.ClipLabel('walk'),))])
    path.write_bytes(b'')
    with pytest.raises(video.VideoError, match=r'v00\.mp4'):
        source.load(0, None)
