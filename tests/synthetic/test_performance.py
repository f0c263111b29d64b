import numpy as np
import pytest

from vidloc.synthetic import performance, script, skeleton

TIMES = np.arange(32) / 8


def _perform(seed, mirrored=False, times=TIMES):
    steps = script.draw_script(4.0, np.random.default_rng(seed))
    return performance.perform(steps, times, performance.Person(1.0, mirrored, np.random.SeedSequence(seed)))


@pytest.mark.parametrize('seed', range(20))
def test_people_do_not_jump_between_actions(seed):
    pose = _perform(seed, times=np.arange(240) / 60)
    positions, _ = skeleton.forward(pose)
    speed = np.linalg.norm(np.diff(positions, axis=0), axis=-1) * 60
    # A kicking foot reaches about 10 m/s; a cut would show as tens of metres a second.
    assert speed.max() < 25
    np.testing.assert_allclose(np.linalg.norm(pose.rotations, axis=-1), 1.0, atol=1e-9)


def test_same_seed_same_performance():
    a, b = _perform(3), _perform(3)
    np.testing.assert_array_equal(a.root, b.root)
    np.testing.assert_array_equal(a.rotations, b.rotations)


def test_mirrored_person_does_the_mirror_image():
    plain, mirrored = _perform(4), _perform(4, mirrored=True)
    np.testing.assert_allclose(mirrored.root, plain.root * [1, 1, -1])


def test_placing_turns_and_moves_the_whole_performance():
    pose = _perform(5)
    moved = performance.placed(pose, np.pi / 2, 2.0, -3.0)
    before, _ = skeleton.forward(pose)
    after, _ = skeleton.forward(moved)
    expected = np.stack([before[..., 2], before[..., 1], -before[..., 0]], axis=-1) + [2.0, 0.0, -3.0]
    np.testing.assert_allclose(after, expected, atol=1e-9)
