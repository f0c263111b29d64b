import numpy as np
import pytest

from vidloc.synthetic import motions, skeleton


@pytest.fixture(params=['walk', 'cartwheel', 'getup_faceup'])
def pose(request):
    clip = motions.load()[request.param]
    return clip.play(np.linspace(-0.3, clip.duration * 1.7, 40))


def test_bones_keep_their_lengths(pose):
    positions, _ = skeleton.forward(pose)
    for joint in range(1, len(skeleton.JOINTS)):
        lengths = np.linalg.norm(positions[:, joint] - positions[:, skeleton.PARENTS[joint]], axis=1)
        np.testing.assert_allclose(lengths, np.linalg.norm(skeleton.OFFSETS[joint]), atol=1e-9)


def test_mirror_is_an_involution(pose):
    twice = skeleton.mirror(skeleton.mirror(pose))
    np.testing.assert_array_equal(twice.root, pose.root)
    np.testing.assert_array_equal(twice.rotations, pose.rotations)


def test_mirror_reflects_every_joint_in_the_plane_of_the_body(pose):
    positions, _ = skeleton.forward(pose)
    reflected, _ = skeleton.forward(skeleton.mirror(pose))
    np.testing.assert_allclose(reflected, positions[:, skeleton.MIRRORED] * [1, 1, -1], atol=1e-9)


def test_mirrored_joints_are_the_other_side():
    names = np.array(skeleton.JOINTS)
    assert names[skeleton.MIRRORED[skeleton.INDEX['right_elbow']]] == 'left_elbow'
    assert names[skeleton.MIRRORED[skeleton.INDEX['neck']]] == 'neck'


def test_zero_pose_stands_upright_with_arms_down():
    rotations = np.zeros((1, len(skeleton.JOINTS), 4))
    rotations[..., 0] = 1
    height = skeleton.THIGH + skeleton.SHIN + skeleton.ANKLE_HEIGHT
    ends = skeleton.capsule_ends(skeleton.Pose(np.array([[0.0, height, 0.0]]), rotations))
    lowest = (ends[0, :, :, 1].min(axis=1) - skeleton.RADII).min()
    highest = (ends[0, :, :, 1].max(axis=1) + skeleton.RADII).max()
    assert abs(lowest) < 0.02
    assert highest == pytest.approx(skeleton.STANDING_HEIGHT, abs=0.05)


def test_capsules_scale_with_the_person(pose):
    np.testing.assert_allclose(skeleton.capsule_ends(pose, 0.9), skeleton.capsule_ends(pose) * 0.9)
