"""The skeleton of the motion clips: joints, forward kinematics, mirror image, and the capsules that are drawn.

Metres; y is up, the person faces +x, its right side is +z. Offsets are those of the humanoid model that comes
with the motions (pybullet_data/data/motions and humanoid.urdf of the pybullet 3.2.7 wheel, there 4 times as large).
"""

import dataclasses

import numpy as np

from vidloc.synthetic import quaternions

JOINTS = (
    'root',
    'chest',
    'neck',
    'right_hip',
    'right_knee',
    'right_ankle',
    'right_shoulder',
    'right_elbow',
    'left_hip',
    'left_knee',
    'left_ankle',
    'left_shoulder',
    'left_elbow',
)
INDEX = {name: number for number, name in enumerate(JOINTS)}
PARENTS = (-1, 0, 1, 0, 3, 4, 1, 6, 0, 8, 9, 1, 11)
OFFSETS = np.array(
    [
        [0.0, 0.0, 0.0],
        [0.0, 0.236151, 0.0],
        [0.0, 0.223894, 0.0],
        [0.0, 0.0, 0.084887],
        [0.0, -0.421546, 0.0],
        [0.0, -0.409870, 0.0],
        [-0.024050, 0.243500, 0.183110],
        [0.0, -0.274788, 0.0],
        [0.0, 0.0, -0.084887],
        [0.0, -0.421546, 0.0],
        [0.0, -0.409870, 0.0],
        [-0.024050, 0.243500, -0.183110],
        [0.0, -0.274788, 0.0],
    ]
)
THIGH, SHIN = 0.421546, 0.409870
# Height of the ankle joint above the sole: the foot's capsule and its radius.
ANKLE_HEIGHT = 0.055
STANDING_HEIGHT = 1.66
_OTHER_SIDE = {'right': 'left', 'left': 'right'}
# The joint on the other side of the body, for each joint.
MIRRORED = np.array([INDEX['_'.join(_OTHER_SIDE.get(word, word) for word in name.split('_'))] for name in JOINTS])


@dataclasses.dataclass(frozen=True)
class Pose:
    """One person over T frames.

    root: position of the pelvis, float64 [T, 3].
    rotations: unit quaternions of the joints relative to their parents (the root: to the world), [T, 13, 4].
    """

    root: np.ndarray
    rotations: np.ndarray


def mirror(pose: Pose) -> Pose:
    """The reflection in the plane of x and y: left and right change places. Applied twice it changes nothing."""
    # A reflection in z turns the axis' x and y parts round and keeps z and the angle's cosine.
    rotations = pose.rotations[:, MIRRORED] * np.array([1.0, -1.0, -1.0, 1.0])
    return Pose(pose.root * np.array([1.0, 1.0, -1.0]), rotations)


def forward(pose: Pose) -> tuple[np.ndarray, np.ndarray]:
    """Joint positions [T, 13, 3] and world rotation matrices [T, 13, 3, 3]."""
    local = quaternions.matrix(pose.rotations)
    positions = np.empty((*pose.rotations.shape[:2], 3))
    world = np.empty_like(local)
    positions[:, 0], world[:, 0] = pose.root, local[:, 0]
    for joint in range(1, len(JOINTS)):
        parent = PARENTS[joint]
        positions[:, joint] = positions[:, parent] + world[:, parent] @ OFFSETS[joint]
        world[:, joint] = world[:, parent] @ local[:, joint]
    return positions, world


@dataclasses.dataclass(frozen=True)
class Capsule:
    """A part of the body: the points within `radius` of the line from `start` to `end`, in the joint's frame."""

    joint: str
    start: tuple[float, float, float]
    end: tuple[float, float, float]
    radius: float
    cloth: str


def _limbs(side: str) -> tuple[Capsule, ...]:
    return (
        Capsule(f'{side}_hip', (0, 0, 0), (0, -0.42, 0), 0.075, 'trousers'),
        Capsule(f'{side}_knee', (0, 0, 0), (0, -0.40, 0), 0.058, 'shins'),
        Capsule(f'{side}_ankle', (-0.03, -0.015, 0), (0.15, -0.022, 0), 0.042, 'shoes'),
        Capsule(f'{side}_shoulder', (0, 0, 0), (0, -0.27, 0), 0.055, 'shirt'),
        Capsule(f'{side}_elbow', (0, 0, 0), (0, -0.22, 0), 0.045, 'forearms'),
        Capsule(f'{side}_elbow', (0, -0.27, 0), (0, -0.27, 0), 0.062, 'skin'),
    )


CLOTHES = ('skin', 'hair', 'shirt', 'forearms', 'trousers', 'shins', 'shoes')
CAPSULES = (
    Capsule('root', (0, 0.03, -0.06), (0, 0.03, 0.06), 0.105, 'trousers'),
    Capsule('root', (0, 0.12, 0), (0, 0.24, 0), 0.115, 'shirt'),
    Capsule('chest', (0, 0.08, -0.045), (0, 0.08, 0.045), 0.125, 'shirt'),
    Capsule('chest', (-0.01, 0.21, -0.13), (-0.01, 0.21, 0.13), 0.07, 'shirt'),
    Capsule('neck', (0, 0.0, 0), (0, 0.08, 0), 0.05, 'skin'),
    Capsule('neck', (0.02, 0.15, 0), (0.01, 0.18, 0), 0.095, 'skin'),
    Capsule('neck', (-0.03, 0.19, 0), (-0.025, 0.205, 0), 0.10, 'hair'),
    *_limbs('right'),
    *_limbs('left'),
)
_CAPSULE_JOINT = np.array([INDEX[capsule.joint] for capsule in CAPSULES])
_CAPSULE_ENDS = np.array([[capsule.start, capsule.end] for capsule in CAPSULES], np.float64)  # [K, 2, 3]
RADII = np.array([capsule.radius for capsule in CAPSULES])
CLOTH_INDEX = np.array([CLOTHES.index(capsule.cloth) for capsule in CAPSULES])


def capsule_ends(pose: Pose, size: float = 1.0) -> np.ndarray:
    """World positions of the capsules' two ends, [T, K, 2, 3], of a person `size` times as tall as the model.

    The pose's root is scaled too, so that feet stay on the ground.
    """
    positions, world = forward(pose)
    # [T, K, 1, 3, 3] @ [K, 2, 3, 1] -> [T, K, 2, 3]
    ends = (world[:, _CAPSULE_JOINT, None] @ _CAPSULE_ENDS[..., None])[..., 0]
    return (ends + positions[:, _CAPSULE_JOINT, None]) * size
