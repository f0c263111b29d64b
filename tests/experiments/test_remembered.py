import numpy as np
import pytest

from vidloc.data import footage, video
from vidloc.experiments import remembered


class Counted(footage.VideoFiles):
    """Files that count how often they are read."""

    reads = 0

    def read(self, key, times):
        self.reads += 1
        return super().read(key, times)


def test_frames_are_those_of_the_footage_and_files_are_read_once(mocapstreet):
    files = Counted(str(mocapstreet / 'street/train'))
    key = str(sorted((mocapstreet / 'street/train').glob('*.mp4'))[0])
    kept = remembered.Remembered(files)
    for times in (np.array([0.0, 0.3, 0.31, 1.0]), np.array([-1.0, 0.125, 99.0])):
        np.testing.assert_array_equal(kept.read(key, times), footage.VideoFiles.read(files, key, times))
    assert files.reads == 1
    assert kept.timeline(key).duration == files.timeline(key).duration


def test_a_file_that_cannot_be_read_is_an_error_each_time(tmp_path):
    (tmp_path / 'broken.mp4').write_bytes(b'no video')
    kept = remembered.Remembered(footage.VideoFiles(str(tmp_path)))
    for _ in range(2):
        with pytest.raises(video.VideoError):
            kept.read(str(tmp_path / 'broken.mp4'), np.zeros(1))
