"""Small real videos of coloured rectangles, and records that say where they are."""

import types

import numpy as np
import pytest

from vidloc.annotations import records as rec
from vidloc.data import encode
from vidloc.data import keyframes as keyframe_data

SIZE = (48, 64)
RED, BLUE = (230, 20, 20), (20, 20, 230)
# In pixels, even, so that 4:2:0 colours keep the edges: left, top, right, bottom.
PLACES = {RED: (6, 10, 22, 40), BLUE: (40, 8, 56, 32)}


def box_of(colour):
    height, width = SIZE
    left, top, right, bottom = PLACES[colour]
    return (left / width, top / height, right / width, bottom / height)


def write_rectangles(path, seconds=2, fps=8):
    """A red and a blue rectangle that stand still on black; brightness of the lowest rows tells the time."""
    frame = np.zeros((*SIZE, 3), np.uint8)
    for colour, (left, top, right, bottom) in PLACES.items():
        frame[top:bottom, left:right] = colour
    frames = [frame.copy() for _ in range(seconds * fps)]
    for i, each in enumerate(frames):
        each[-4:] = 10 * i
    path.parent.mkdir(parents=True, exist_ok=True)
    encode.write_video(path, frames, fps, crf=4)
    return path


def keyframes(count, name='v'):
    """`count` records with a keyframe at 1 s: red walks, blue waves and talks; and an empty keyframe at 1.5 s."""
    people = (
        rec.PersonBox(1.0, box_of(RED), ('walk',)),
        rec.PersonBox(1.0, box_of(BLUE), ('wave', 'talk')),
    )
    return [rec.VideoRecord(f'{name}{i:02d}', keyframes=(1.0, 1.5), boxes=people) for i in range(count)]


def make_source(folder, count, *, name='street', train=True, records=None, **view):
    """A KeyframeSource of `count` videos in `folder`, which are written if they are not there."""
    for i in range(count):
        path = folder / f'v{i:02d}.mp4'
        if not path.exists():
            write_rectangles(path)
    fields = {'frames': 2, 'rate': 8.0, 'size': (24, 32), 'max_boxes': 4, 'boxes': 'truth', 'threshold': 0.5}
    return keyframe_data.KeyframeSource(
        name,
        keyframe_data.Keyframes(videos=str(folder), **{**fields, **view}),
        keyframes(count) if records is None else records,
        ('walk', 'wave', 'talk'),
        train=train,
    )


@pytest.fixture(scope='session')
def rectangles(tmp_path_factory):
    """What tests need of this file; `folder` holds ten videos that tests must not change."""
    folder = tmp_path_factory.mktemp('rectangles')
    make_source(folder, 10)
    return types.SimpleNamespace(
        folder=folder,
        size=SIZE,
        red=RED,
        blue=BLUE,
        box_of=box_of,
        write=write_rectangles,
        keyframes=keyframes,
        source=make_source,
    )
