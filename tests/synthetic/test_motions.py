import importlib.util
import pathlib

import numpy as np
import pytest

from vidloc.synthetic import motions

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_all_takes_are_there_with_their_lengths():
    clips = motions.load()
    assert len(clips) == 15
    assert sum(len(clip.times) for clip in clips.values()) == 1620
    assert clips['walk'].loops and not clips['kick'].loops
    assert clips['cartwheel'].duration == pytest.approx(2.717, abs=2e-3)


@pytest.mark.parametrize('name', sorted(motions.load()))
def test_rotations_have_unit_length_also_between_rows(name):
    clip = motions.load()[name]
    played = clip.play(np.linspace(-1.0, 2.5 * clip.duration, 97))
    np.testing.assert_allclose(np.linalg.norm(played.rotations, axis=-1), 1.0, atol=1e-9)


def test_rows_are_met_exactly():
    clip = motions.load()['run']
    played = clip.play(clip.times[:-1])
    np.testing.assert_allclose(played.root, clip.pose.root[:-1], atol=1e-12)


def test_looping_take_travels_on():
    clip = motions.load()['walk']
    near, far = clip.play(np.array([0.3, 0.3 + 2 * clip.duration])).root
    assert far[0] - near[0] == pytest.approx(2 * 1.24, abs=0.03)
    assert far[1] == pytest.approx(near[1])


def test_take_that_does_not_loop_holds_its_ends():
    clip = motions.load()['punch']
    before, first, last, after = clip.play(np.array([-3.0, 0.0, clip.duration, 99.0])).rotations
    np.testing.assert_array_equal(before, first)
    np.testing.assert_array_equal(after, last)


def _converter():
    spec = importlib.util.spec_from_file_location('convert_motions', ROOT / 'tools/convert_motions.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_converter_normalises_and_keeps_signs_together():
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.normal(size=(1, 44)), 3, axis=0)
    rows[1, 4:8] *= -1.3
    converted, loops = _converter().clip_rows({'Loop': 'wrap', 'Frames': rows.tolist()}, 'x')
    assert loops
    np.testing.assert_allclose(np.linalg.norm(converted[:, 4:8], axis=1), 1.0)
    np.testing.assert_allclose(converted[1, 4:8], converted[0, 4:8])
    np.testing.assert_array_equal(converted[:, 20], rows[:, 20])


def test_converter_refuses_rows_of_another_robot():
    with pytest.raises(ValueError, match='44 numbers'):
        _converter().clip_rows({'Loop': 'wrap', 'Frames': [[0.0] * 20]}, 'laikago')
