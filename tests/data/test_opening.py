"""Opening videos in processes that may hang or die."""

import os
import signal
import time
from fractions import Fraction

import numpy as np
import pytest

from vidloc.data import footage, opening
from vidloc.data.timeline import Timeline
from vidloc.data.video import VideoError


class Treacherous:
    """Footage whose keys say what happens to the process that opens them."""

    def takes(self, record):
        return ()

    def timeline(self, key):
        if key == 'hang':
            time.sleep(600)
        if key == 'die':
            os.kill(os.getpid(), signal.SIGKILL)
        if key == 'odd':
            raise ZeroDivisionError('nobody expects this')
        if key == 'bad':
            raise VideoError('bad: is empty')
        pts = np.arange(20)
        return Timeline(pts, pts, Fraction(1, 10), 1, 3 if key == 'cut' else 0)

    def read(self, key, times):
        if key == 'hole' and times[0] > 0.5:
            raise VideoError(f'hole: cannot be decoded at {times[0]:g} s')
        return np.zeros((len(times), 2, 2, 3), np.uint8)


KEYS = ('a', 'hang', 'b', 'die', 'odd', 'bad', 'cut', 'c')


def test_one_that_hangs_or_dies_costs_only_itself():
    seen = []
    found = opening.open_all(Treacherous(), KEYS, workers=2, timeout=3.0, seen=lambda: seen.append(1))
    assert tuple(found) == KEYS and len(seen) == len(KEYS)
    assert {key: each.code for key, each in found.items() if each.code} == {
        'hang': 'video-hangs',
        'die': 'video-crashes',
        'odd': 'video-unreadable',
        'bad': 'video-unreadable',
    }
    assert found['hang'].problem == 'hang: is not open after 3 s; leave it out, or give it more time'
    assert 'ZeroDivisionError: nobody expects this' in found['odd'].problem
    assert found['a'].duration == 2.0 and found['a'].rate == pytest.approx(10) and found['cut'].lacking == 3


def test_decoding_looks_at_start_middle_and_end():
    assert opening.open_all(Treacherous(), ['hole'])['hole'].code == ''
    found = opening.open_all(Treacherous(), ['hole', 'a'], decode=True)
    assert found['hole'].code == 'video-damaged' and found['hole'].problem == 'hole: cannot be decoded at 0.8 s'
    assert found['a'].code == ''


def test_processes_tell_what_this_one_tells(rectangles):
    files = footage.open_footage(str(rectangles.folder))
    keys = [os.path.join(rectangles.folder, f'v{i:02d}.mp4') for i in range(3)] + [str(rectangles.folder / 'gone.mp4')]
    alone = opening.open_all(files, keys, decode=True)
    assert opening.open_all(files, keys, decode=True, workers=1) == alone
    assert alone[keys[0]].size == rectangles.size and alone[keys[0]].rate == pytest.approx(8)
    assert alone[keys[3]].code == 'video-unreadable'


def test_nothing_to_open_starts_nothing():
    assert opening.open_all(Treacherous(), [], workers=4) == {}
