"""The two sets of short clips, one person and one action each: what a model is co-finetuned or pretrained on."""

import dataclasses

import numpy as np

from vidloc.synthetic import looks, motions, render, skeleton
from vidloc.synthetic.camera import Camera
from vidloc.synthetic.performance import Person, perform, placed
from vidloc.synthetic.script import ACTIONS, Step, draw_step
from vidloc.synthetic.street import backdrop_width


@dataclasses.dataclass(frozen=True)
class ClipSet:
    """A clip set: what its classes are called, and how it is filmed.

    classes: {class name: (action, arms)}; arms is 'wave', 'clap' or None.
    tall: height of a standing person over the frame's; eye: metres above the ground; depth: metres away.
    """

    classes: dict[str, tuple[str, str | None]]
    look: str
    tall: tuple[float, float]
    eye: tuple[float, float]
    depth: tuple[float, float]


CLIP_SETS: dict[str, ClipSet] = {
    'studio': ClipSet(
        classes={
            'standing still': ('stand', None),
            'strolling': ('walk', None),
            'greeting': ('stand', 'wave'),
            'applauding': ('stand', 'clap'),
            'doing squats': ('squat', None),
            'sitting': ('sit', None),
            'boxing': ('punch', None),
            'karate kick': ('kick', None),
            'slow dance': ('sway_dance', None),
            'wild dance': ('wild_dance', None),
        },
        look='studio',
        tall=(0.72, 0.86),
        eye=(0.9, 1.3),
        depth=(3.2, 4.2),
    ),
    'yard': ClipSet(
        classes={
            'walking': ('walk', None),
            'jogging': ('run', None),
            'hopping': ('jump', None),
            'crawling': ('crawl', None),
            'standing up': ('getup', None),
            'turning cartwheels': ('cartwheel', None),
            'back flip': ('backflip', None),
            'forward roll': ('roll', None),
            'spinning': ('spin', None),
            'spin kick': ('spinkick', None),
        },
        look='yard',
        tall=(0.60, 0.76),
        eye=(1.5, 2.0),
        depth=(6.0, 8.0),
    ),
}
SPEED = (0.75, 1.35)
SIZE = (0.88, 1.1)
# A clip shows the middle of an action; its own middle strays by up to this share of the action's length.
STRAY = 0.3


@dataclasses.dataclass(frozen=True)
class ClipStage:
    """Side of the square frames in pixels, frames a clip, frames a second; `hard` adds texture, movement, noise."""

    side: int
    frames: int
    fps: int
    hard: bool = False


def _step(action: str, arms: str | None, length: float, rng: np.random.Generator) -> Step:
    """One step that fills a clip of `length` seconds."""
    speed = rng.uniform(*SPEED)
    step = draw_step(action, 0.0, speed, rng)
    offset = step.offset
    kind = ACTIONS[action]
    if kind.core:
        first, last = kind.core[step.clip]
        centre = (first + last) / 2 + (last - first) * rng.uniform(-STRAY, STRAY)
        longest = motions.load()[kind.clips[step.clip]].duration - length * speed
        offset = float(np.clip(centre - length * speed / 2, 0.0, max(longest, 0.0)))
    return dataclasses.replace(step, end=length, offset=offset, core=(0.0, length), arms=arms)


def draw(clip_set: ClipSet, label: str, stage: ClipStage, seed: np.random.SeedSequence) -> np.ndarray:
    """Frames uint8 [T, side, side, 3] of one clip of class `label`; all randomness comes from `seed`."""
    own_seed, motion_seed = seed.spawn(2)
    rng = np.random.Generator(np.random.Philox(own_seed))
    look = looks.LOOKS[clip_set.look]
    if stage.hard:
        look = looks.harder(look)
    times = np.arange(stage.frames) / stage.fps
    person = Person(rng.uniform(*SIZE), bool(rng.integers(2)), motion_seed)
    step = _step(*clip_set.classes[label], stage.frames / stage.fps, rng)
    depth = rng.uniform(*clip_set.depth)
    pose = placed(perform((step,), times, person), rng.uniform(-np.pi, np.pi), 0.0, 0.0)
    ground = pose.root * np.array([1.0, 0.0, 1.0])
    body = skeleton.Pose(pose.root - ground, pose.rotations)
    ends = skeleton.capsule_ends(body, person.size) + ground[:, None, None]
    focal = rng.uniform(*clip_set.tall) * stage.side * depth / skeleton.STANDING_HEIGHT
    eye = rng.uniform(*clip_set.eye)
    # The middle of the body, wherever it is between lying and jumping, comes to about the middle of the frame.
    middle = float((ends[..., 1].max(axis=(1, 2)) + ends[..., 1].min(axis=(1, 2))).mean() / 2)
    sweep = rng.uniform(-look.pan, look.pan) / 2
    camera = Camera(
        height=stage.side,
        width=stage.side,
        focal=focal,
        horizon=stage.side * (0.5 + rng.uniform(-0.04, 0.04)) - focal * (eye - middle) / depth,
        eye=eye,
        turn=sweep * (times / times[-1] - 0.5),
        follow=ground[:, [0, 2]] + np.array([rng.uniform(-0.12, 0.12), depth]),
    )
    backdrop = looks.backdrop(look, stage.side, backdrop_width(look, camera), camera.horizon, rng)
    figure = render.Figure(ends, person.size, looks.dress(look, rng))
    light = looks.light_direction(look, rng)
    return render.render([figure], camera, look, backdrop, light, noise=rng).frames
