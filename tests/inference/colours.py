"""Features that need no backbone, for tests of what writes them; as a program: a process that writes them and waits.

python colours.py VIDEOS OUT MINE WAIT: writes MINE when the first clip is there, and goes on when WAIT is there, too.
"""

import json
import pathlib
import sys
import time

import numpy as np

from vidloc.data import footage
from vidloc.inference import clips, feature_folder, features

FRAMES = {'a': 23, 'b': 9, 'c': 3}
PLAIN = {'layers': 0, 'width': 3}


def colours(video, valid):
    """The mean colour of each tubelet of 2 frames."""
    tubelets = video.reshape(len(video), 2, 2, -1, 3).mean((2, 3)) / 255  # [N, 4, H, W, 3] -> [N, 2, 3]
    return tubelets.astype(np.float32), valid[:, ::2], None


def named(videos, names=FRAMES):
    return [clips.Video(name, str(videos / f'{name}.mp4')) for name in names]


def extraction(**changes):
    given = {'clip_frames': 4, 'stride': 2, 'size': (12, 12), 'batch': 3, 'dtype': 'float32', **changes}
    return features.Extraction(**given)


def main(videos, out, mine, wait):
    def run(video, valid):
        if not mine.exists():
            mine.write_text('computing')
            while not wait.exists():
                time.sleep(0.02)
        return colours(video, valid)

    folder = feature_folder.FeatureFolder(out, PLAIN)
    every = named(videos, sorted(path.stem for path in videos.iterdir()))
    report = features.extract(footage.VideoFiles(videos), every, folder, run, extraction(batch=1, threads=1))
    print(json.dumps([report.written, report.there + report.elsewhere]))


if __name__ == '__main__':
    main(*map(pathlib.Path, sys.argv[1:]))
