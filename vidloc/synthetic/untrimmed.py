"""An untrimmed video: one or two people before one camera for a minute or so, who now and then do something.

The classes are actions; standing and walking between them are background. A segment is the time in which a person does
an action, so segments overlap where two people act at once, though never two of one class.
"""

import dataclasses

import numpy as np

from vidloc.annotations.records import Segment, VideoRecord
from vidloc.synthetic import looks, motions, render, skeleton
from vidloc.synthetic.camera import Camera
from vidloc.synthetic.performance import Person, perform, placed
from vidloc.synthetic.script import ACTIONS, MARGIN, Step, draw_step

# How often a class is chosen: the last ones are rare.
CLASSES = {
    'wave': 0.15,
    'clap': 0.14,
    'punch': 0.14,
    'kick': 0.14,
    'jump': 0.12,
    'dance': 0.10,
    'squat': 0.10,
    'sit': 0.05,
    'crawl': 0.035,
    'cartwheel': 0.025,
}
# Arms move on top of standing, or of walking as often as this.
ARMS, WALKING = ('wave', 'clap'), 0.3
# Seconds of an action (as many turns of a take that is played once as come nearest), and of the time between two.
SECONDS = (1.0, 6.0)
PAUSE = {1: (0.6, 3.4), 2: (1.4, 6.5)}
# The first and the last action keep away from the ends of the video by at least this, seconds.
EDGE = 0.5
BACKGROUND = {'stand': 0.55, 'walk': 0.45}
SPEED, SIZE = (0.8, 1.25), (0.9, 1.08)
TWO_PEOPLE = 0.45
# A standing person of the model's size over the frame's height; metres away; the camera's height; metres between two.
TALL, DEPTH, EYE, APART = (0.62, 0.76), (4.5, 6.5), (1.0, 1.5), (1.25, 1.6)
# People go on as on a treadmill, as those of the clip sets do: places are taken relative to their own mean over about
# this many seconds, and stay within so many metres.
DRIFT, REACH = 1.5, (0.4, 0.5)
# Draws until an action is found that nobody else does at the same time.
TRIES = 20


@dataclasses.dataclass(frozen=True)
class Stage:
    """Size in pixels, frames a second, shortest and longest length in seconds, and look."""

    height: int
    width: int
    fps: int
    seconds: tuple[int, int]
    look: str


@dataclasses.dataclass(frozen=True)
class UntrimmedVideo:
    """frames uint8 [T, H, W, 3]; ids uint8 [T, H, W]; truth: duration, fps and segments."""

    frames: np.ndarray
    ids: np.ndarray
    truth: VideoRecord


def _repeated(label: str, start: float, speed: float, wanted: float, rng: np.random.Generator) -> list[Step]:
    """A take that is played once, several times over: the way in, the core as often as wanted, the way out."""
    first = draw_step(label, start, speed, rng)
    begins, ends = ACTIONS[label].core[first.clip]
    each = (ends - begins) / speed
    times = max(1, round(wanted / each), int(np.ceil(SECONDS[0] / each)))
    core = first.core[0]
    moment = core + each
    steps = [dataclasses.replace(first, end=moment, core=(core, moment))]
    for _ in range(times - 1):
        steps.append(Step(label, moment, moment + each, first.clip, begins, speed, (moment, moment + each), 0.0, None))
        moment += each
    way_out = min(MARGIN, motions.load()[ACTIONS[label].clips[first.clip]].duration - ends)
    steps[-1] = dataclasses.replace(steps[-1], end=moment + way_out / speed)
    return steps


def _act(label: str, start: float, speed: float, rng: np.random.Generator) -> tuple[list[Step], Segment]:
    """Steps from `start` that do `label`, and the time in which they do."""
    low, high = np.log(SECONDS)
    wanted = float(np.exp(rng.uniform(low, high)))
    if label not in ARMS and ACTIONS[label].core:
        steps = _repeated(label, start, speed, wanted, rng)
        return steps, Segment(steps[0].core[0], steps[-1].core[1], label)
    action = label
    if label in ARMS:
        action = 'walk' if rng.uniform() < WALKING else 'stand'
    step = draw_step(action, start, speed, rng)
    until = start + wanted
    arms = label if label in ARMS else None
    return [dataclasses.replace(step, end=until, core=(start, until), arms=arms)], Segment(start, until, label)


def _idle(start: float, until: float, speed: float, rng: np.random.Generator) -> Step:
    action = str(rng.choice(list(BACKGROUND), p=list(BACKGROUND.values())))
    step = draw_step(action, start, speed, rng)
    return dataclasses.replace(step, end=until, core=(start, until), arms=None)


def draw_script(
    duration: float, people: int, others: list[Segment], rng: np.random.Generator
) -> tuple[tuple[Step, ...], list[Segment]]:
    """A person's steps over a video of `duration` seconds and the segments of the actions among them.

    people: how many are in the video; `others`: what the others do: no class is done by two people at once.
    """
    speed = rng.uniform(*SPEED)
    names, weights = list(CLASSES), np.array(list(CLASSES.values()))
    steps: list[Step] = []
    segments: list[Segment] = []
    time = 0.0
    while True:
        until = time + max(rng.uniform(*PAUSE[people]), EDGE)
        for _ in range(TRIES):
            label = names[int(rng.choice(len(names), p=weights / weights.sum()))]
            acts, segment = _act(label, until, speed, rng)
            if not any(
                label == other.label and segment.start < other.end and other.start < segment.end for other in others
            ):
                break
        else:
            break
        if acts[-1].end > duration - EDGE:
            break
        steps += [_idle(time, until, speed, rng), *acts]
        segments.append(segment)
        time = steps[-1].end
    steps.append(_idle(time, duration + 1.0, speed, rng))
    return tuple(steps), segments


def _drift(places: np.ndarray, sigma: float) -> np.ndarray:
    """Places [T, 2] relative to their own Gaussian mean over `sigma` frames, drawn in towards REACH."""
    reach = int(np.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    wide = np.pad(places, ((reach, reach), (0, 0)), mode='edge')
    mean = np.stack([np.convolve(axis, kernel, mode='valid') for axis in wide.T], axis=1)
    return np.array(REACH) * np.tanh((places - mean) / REACH)


def _camera(stage: Stage, frames: int, rng: np.random.Generator) -> tuple[Camera, float]:
    """A camera that stands still, and how far away people are."""
    depth, eye = rng.uniform(*DEPTH), rng.uniform(*EYE)
    focal = rng.uniform(*TALL) * stage.height * depth / skeleton.STANDING_HEIGHT
    middle = 0.52 * skeleton.STANDING_HEIGHT
    horizon = stage.height * rng.uniform(0.48, 0.54) - focal * (eye - middle) / depth
    return Camera(stage.height, stage.width, focal, horizon, eye, np.zeros(frames)), depth


def draw(video: str, stage: Stage, seed: np.random.SeedSequence) -> UntrimmedVideo:
    """Renders one untrimmed video and tells the truth about it. All randomness comes from `seed`."""
    scene_seed, *person_seeds = seed.spawn(3)
    rng = np.random.Generator(np.random.Philox(scene_seed))
    shortest, longest = stage.seconds
    frames = int(rng.integers(shortest * stage.fps, longest * stage.fps + 1))
    duration, times = frames / stage.fps, np.arange(frames) / stage.fps
    look = looks.LOOKS[stage.look]
    camera, depth = _camera(stage, frames, rng)
    people = 2 if rng.uniform() < TWO_PEOPLE else 1
    half = rng.uniform(*APART) / 2
    sides = (-half, half) if people == 2 else (rng.uniform(-0.3, 0.3),)
    figures: list[render.Figure] = []
    segments: list[Segment] = []
    for side, person_seed in zip(sides, person_seeds[:people], strict=True):
        motion_seed, own_seed = person_seed.spawn(2)
        own = np.random.Generator(np.random.Philox(own_seed))
        person = Person(own.uniform(*SIZE), bool(own.integers(2)), motion_seed)
        steps, acted = draw_script(duration, people, segments, own)
        segments += acted
        pose = placed(perform(steps, times, person), own.uniform(-np.pi, np.pi), 0.0, 0.0)
        ground = _drift(pose.root[:, [0, 2]], DRIFT * stage.fps) + np.array([side, -depth])
        place = np.stack([ground[:, 0], np.zeros(frames), ground[:, 1]], axis=1)  # [T, 3]
        standing = skeleton.Pose(pose.root * np.array([0.0, 1.0, 0.0]), pose.rotations)
        ends = skeleton.capsule_ends(standing, person.size) + place[:, None, None]
        figures.append(render.Figure(ends, person.size, looks.dress(look, own)))
    backdrop = looks.backdrop(look, stage.height, stage.width, camera.horizon, rng)
    light = looks.light_direction(look, rng)
    drawn = render.render(figures, camera, look, backdrop, light, noise=rng)
    rounded = [Segment(round(each.start, 3), round(each.end, 3), each.label) for each in segments]
    ordered = tuple(sorted(rounded, key=lambda each: (each.start, each.end, each.label)))
    truth = VideoRecord(video, duration=duration, segments=ordered, fps=float(stage.fps))
    return UntrimmedVideo(drawn.frames, drawn.ids, truth)
