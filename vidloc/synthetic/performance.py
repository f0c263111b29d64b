"""Performing a script: the pose of one person at every frame, each action blended into the next."""

import dataclasses

import numpy as np

from vidloc.synthetic import gestures, motions, skeleton
from vidloc.synthetic import quaternions as quat
from vidloc.synthetic.script import ACTIONS, BLEND, Step

PROCEDURAL = {'stand': gestures.stand, 'squat': gestures.squat, 'sit': gestures.sit}
ARMS = {'wave': gestures.wave, 'clap': gestures.clap}
# Joint noise in radians: a constant habit of the person, and a slow trembling.
HABIT, TREMBLE = 0.05, 0.035


@dataclasses.dataclass(frozen=True)
class Person:
    """size: height over the model's 1.66 m; mirrored: left and right exchanged; seed: of everything random."""

    size: float
    mirrored: bool
    seed: np.random.SeedSequence


def _smooth(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3 - 2 * x)


def _play(step: Step, times: np.ndarray, rng: np.random.Generator) -> skeleton.Pose:
    """The step's own motion at `times` [T], wherever its take puts it, waving or clapping arms included."""
    kind = ACTIONS[step.action]
    seconds = (times - step.start) * step.speed + step.offset
    if kind.clips:
        if kind.core:
            seconds = np.maximum(seconds, 0.0)
        pose = motions.load()[kind.clips[step.clip]].play(seconds)
    else:
        pose = PROCEDURAL[step.action](seconds, rng)
    if step.arms is not None:
        for joint, rotations in ARMS[step.arms](seconds, rng).items():
            pose.rotations[:, joint] = rotations
    return pose


def _tremble(count: int, times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Small rotations for each frame and joint, [T, count, 4]."""
    habit = rng.normal(0.0, HABIT, (count, 3))
    rate, start = rng.uniform(0.2, 0.9, (2, count, 3))
    swing = np.sin(2 * np.pi * (times[:, None, None] * rate + start / 0.7))
    return quat.from_vector(habit + TREMBLE * swing)


def perform(steps: tuple[Step, ...], times: np.ndarray, person: Person) -> skeleton.Pose:
    """The person's pose at `times` [T], starting at x = z = 0 and facing +x when the first step begins.

    Each step goes on from where and towards where the one before left off: places are integrated from blended
    velocities, directions are taken over at the moment the step starts.
    """
    streams = person.seed.spawn(len(steps) + 1)
    rotations = height = velocity = None
    direction = 0.0
    for number, step in enumerate(steps):
        rng = np.random.Generator(np.random.Philox(streams[number]))
        own = _play(step, times, rng)
        begins = int(np.clip(np.searchsorted(times, step.start), 0, len(times) - 1))
        if rotations is not None:
            direction = float(quat.heading(rotations[begins, 0]))
        facing = direction - float(quat.heading(own.rotations[begins, 0])) + step.turn * (times - step.start)
        own.rotations[:, 0] = quat.multiply(quat.about('y', facing), own.rotations[:, 0])
        moved = np.diff(own.root, axis=0, append=own.root[-1:]) * ACTIONS[step.action].travel
        cos, sin = np.cos(facing), np.sin(facing)
        own_velocity = np.stack([moved[:, 0] * cos + moved[:, 2] * sin, moved[:, 2] * cos - moved[:, 0] * sin], axis=1)
        if rotations is None:
            rotations, height, velocity = own.rotations, own.root[:, 1], own_velocity
            continue
        weight = _smooth((times - step.start) / BLEND + 0.5)
        rotations = quat.blend(rotations, own.rotations, weight[:, None, None])
        height = height + (own.root[:, 1] - height) * weight
        velocity = velocity + (own_velocity - velocity) * weight[:, None]
    root = np.zeros((len(times), 3))
    root[1:, [0, 2]] = np.cumsum(velocity[:-1], axis=0)
    root[:, 1] = height
    noise = np.random.Generator(np.random.Philox(streams[-1]))
    # The root keeps its rotation: a tilted pelvis would lift the feet off the ground.
    rotations[:, 1:] = quat.multiply(rotations[:, 1:], _tremble(rotations.shape[1] - 1, times, noise))
    pose = skeleton.Pose(root, rotations)
    return skeleton.mirror(pose) if person.mirrored else pose


def placed(pose: skeleton.Pose, yaw: float, x: float, z: float) -> skeleton.Pose:
    """The whole performance turned about the y axis by `yaw`, its start moved to (x, z)."""
    turn = quat.about('y', yaw)
    rotations = pose.rotations.copy()
    rotations[:, 0] = quat.multiply(turn, rotations[:, 0])
    root = pose.root @ quat.matrix(turn).T + np.array([x, 0.0, z])
    return skeleton.Pose(root, rotations)
