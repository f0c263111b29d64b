"""Procedural movements on the same skeleton: stand, squat, sit, and arms that wave or clap.

Each function takes seconds [T] and draws its own variation from `rng`. Positive angles about z bring a leg, arm or
forearm forward; knees bend with negative ones.
"""

import numpy as np

from vidloc.synthetic import quaternions as quat
from vidloc.synthetic.skeleton import ANKLE_HEIGHT, INDEX, JOINTS, SHIN, THIGH, Pose

Arms = dict[int, np.ndarray]  # joint index -> local rotations [T, 4]
SIDES = {'right': 1.0, 'left': -1.0}


def _rest(count: int) -> np.ndarray:
    rotations = np.zeros((count, len(JOINTS), 4))
    rotations[..., 0] = 1.0
    return rotations


def _sway(seconds: np.ndarray, rng: np.random.Generator, amount: float) -> np.ndarray:
    """A slow oscillation of unit-free size `amount`, [T]."""
    return amount * np.sin(2 * np.pi * (rng.uniform(0.25, 0.5) * seconds + rng.uniform()))


def _hang_arms(rotations: np.ndarray, seconds: np.ndarray, rng: np.random.Generator) -> None:
    for side, sign in SIDES.items():
        away = rng.uniform(0.06, 0.2) + _sway(seconds, rng, 0.03)
        swing = rng.uniform(-0.1, 0.2) + _sway(seconds, rng, 0.06)
        rotations[:, INDEX[f'{side}_shoulder']] = quat.multiply(quat.about('x', -sign * away), quat.about('z', swing))
        rotations[:, INDEX[f'{side}_elbow']] = quat.about('z', rng.uniform(0.1, 0.5) + 0 * seconds)


def _bend_legs(rotations: np.ndarray, bend: np.ndarray, apart: float) -> np.ndarray:
    """Bends hips by `bend` and knees by twice that, feet flat; returns the height of the pelvis, [T]."""
    for side, sign in SIDES.items():
        rotations[:, INDEX[f'{side}_hip']] = quat.multiply(quat.about('x', -sign * apart), quat.about('z', bend))
        rotations[:, INDEX[f'{side}_knee']] = quat.about('z', -2 * bend)
        rotations[:, INDEX[f'{side}_ankle']] = quat.about('z', bend)
    return ANKLE_HEIGHT + (THIGH + SHIN) * np.cos(bend) * np.cos(apart)


def _with_height(height: np.ndarray, rotations: np.ndarray) -> Pose:
    root = np.zeros((len(height), 3))
    root[:, 1] = height
    return Pose(root, rotations)


def stand(seconds: np.ndarray, rng: np.random.Generator) -> Pose:
    """Stands and shifts its weight a little."""
    rotations = _rest(len(seconds))
    _hang_arms(rotations, seconds, rng)
    bend = rng.uniform(0.02, 0.1) + _sway(seconds, rng, 0.015)
    height = _bend_legs(rotations, bend, rng.uniform(0.03, 0.12))
    rotations[:, INDEX['chest']] = quat.multiply(
        quat.about('y', _sway(seconds, rng, 0.08)), quat.about('z', _sway(seconds, rng, 0.03))
    )
    rotations[:, INDEX['neck']] = quat.about('y', rng.uniform(-0.3, 0.3) + _sway(seconds, rng, 0.25))
    return _with_height(height, rotations)


def squat(seconds: np.ndarray, rng: np.random.Generator) -> Pose:
    """Goes down and up again and again, arms forward for balance."""
    rotations = _rest(len(seconds))
    period, deepest = rng.uniform(1.0, 1.6), rng.uniform(0.95, 1.25)
    low = 0.5 - 0.5 * np.cos(2 * np.pi * (seconds / period + rng.uniform()))
    height = _bend_legs(rotations, 0.08 + deepest * low, rng.uniform(0.15, 0.3))
    lean = rng.uniform(0.3, 0.55) * low
    rotations[:, INDEX['root']] = quat.about('z', -lean)
    for side, sign in SIDES.items():
        # The hips give back what the pelvis leans, so that the feet stay where they are.
        hip = INDEX[f'{side}_hip']
        rotations[:, hip] = quat.multiply(quat.about('z', lean), rotations[:, hip])
        raised = 0.2 + rng.uniform(1.0, 1.5) * low + lean
        rotations[:, INDEX[f'{side}_shoulder']] = quat.multiply(quat.about('x', -sign * 0.1), quat.about('z', raised))
        rotations[:, INDEX[f'{side}_elbow']] = quat.about('z', 0.2 + 0 * seconds)
    return _with_height(height, rotations)


def sit(seconds: np.ndarray, rng: np.random.Generator) -> Pose:
    """Sits on the ground, legs stretched out or knees up."""
    rotations = _rest(len(seconds))
    _hang_arms(rotations, seconds, rng)
    height = 0.13
    lean = rng.uniform(-0.05, 0.3) + _sway(seconds, rng, 0.04)
    rotations[:, INDEX['root']] = quat.about('z', lean)
    for side, sign in SIDES.items():
        hip = rng.uniform(1.5, 2.3)
        # Thigh at `hip` from straight down; the shin's angle follows from the ankle's height.
        shin = np.arccos(np.clip((height - ANKLE_HEIGHT - THIGH * np.cos(hip)) / SHIN, -1.0, 1.0))
        rotations[:, INDEX[f'{side}_hip']] = quat.multiply(
            quat.about('z', -lean), quat.multiply(quat.about('x', -sign * 0.15), quat.about('z', hip))
        )
        rotations[:, INDEX[f'{side}_knee']] = quat.about('z', min(shin - hip, 0.0) + 0 * seconds)
    rotations[:, INDEX['neck']] = quat.about('y', rng.uniform(-0.3, 0.3) + _sway(seconds, rng, 0.3))
    return _with_height(height + 0 * seconds, rotations)


def wave(seconds: np.ndarray, rng: np.random.Generator) -> Arms:
    """One raised arm (sometimes both) that swings from side to side."""
    sides = list(SIDES) if rng.uniform() < 0.3 else [list(SIDES)[int(rng.integers(2))]]
    rate, start = rng.uniform(1.1, 1.9), rng.uniform()
    swing = np.sin(2 * np.pi * (rate * seconds + start))
    arms: Arms = {}
    for side in sides:
        sign = SIDES[side]
        raised = rng.uniform(1.6, 2.2) + 0.25 * swing
        # Twisting the upper arm by a quarter turn lets the elbow bend upwards in the plane of the body.
        arms[INDEX[f'{side}_shoulder']] = quat.multiply(
            quat.about('x', -sign * raised), quat.about('y', np.full(len(seconds), -sign * np.pi / 2))
        )
        arms[INDEX[f'{side}_elbow']] = quat.about('z', rng.uniform(0.5, 0.9) + 0.6 * swing)
    return arms


def clap(seconds: np.ndarray, rng: np.random.Generator) -> Arms:
    """Both hands in front of the chest, apart and together."""
    rate, start = rng.uniform(1.3, 2.1), rng.uniform()
    opened = 0.5 + 0.5 * np.sin(2 * np.pi * (rate * seconds + start))
    lift, elbow, wide = rng.uniform(0.7, 1.1), rng.uniform(0.5, 0.8), rng.uniform(0.9, 1.3)
    arms: Arms = {}
    for side, sign in SIDES.items():
        arms[INDEX[f'{side}_shoulder']] = quat.multiply(
            quat.about('y', sign * (0.4 - wide * opened)), quat.about('z', np.full(len(seconds), lift))
        )
        arms[INDEX[f'{side}_elbow']] = quat.about('z', elbow + 0 * seconds)
    return arms
