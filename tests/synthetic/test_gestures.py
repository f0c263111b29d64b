import numpy as np
import pytest

from vidloc.synthetic import gestures, skeleton

SECONDS = np.linspace(0.0, 4.0, 60)


def _hands(pose):
    positions, world = skeleton.forward(pose)
    reach = np.array([0.0, -0.27, 0.0])
    return {
        side: positions[:, skeleton.INDEX[f'{side}_elbow']] + world[:, skeleton.INDEX[f'{side}_elbow']] @ reach
        for side in ('right', 'left')
    }


@pytest.mark.parametrize('name', ['stand', 'squat', 'sit'])
@pytest.mark.parametrize('seed', range(5))
def test_nobody_sinks_into_the_ground_or_floats(name, seed):
    pose = getattr(gestures, name)(SECONDS, np.random.default_rng(seed))
    ends = skeleton.capsule_ends(pose)
    lowest = (ends[..., 1].min(axis=2) - skeleton.RADII).min(axis=1)
    assert np.all(lowest > -0.08) and np.all(lowest < 0.06)


def test_squats_go_deep_and_come_up():
    height = gestures.squat(SECONDS, np.random.default_rng(1)).root[:, 1]
    assert height.max() > 0.8 and height.min() < 0.6


@pytest.mark.parametrize('seed', range(5))
def test_claps_bring_the_hands_together_and_apart(seed):
    rng = np.random.default_rng(seed)
    pose = gestures.stand(SECONDS, rng)
    for joint, rotations in gestures.clap(SECONDS, rng).items():
        pose.rotations[:, joint] = rotations
    hands = _hands(pose)
    apart = np.linalg.norm(hands['right'] - hands['left'], axis=1)
    assert apart.min() < 0.15 and apart.max() > 0.4


@pytest.mark.parametrize('seed', range(5))
def test_waves_raise_a_hand_over_the_shoulder(seed):
    rng = np.random.default_rng(seed)
    pose = gestures.stand(SECONDS, rng)
    for joint, rotations in gestures.wave(SECONDS, rng).items():
        pose.rotations[:, joint] = rotations
    shoulder = skeleton.forward(pose)[0][:, skeleton.INDEX['right_shoulder'], 1]
    highest = np.maximum(*(hand[:, 1] for hand in _hands(pose).values()))
    assert np.mean(highest > shoulder) > 0.7
