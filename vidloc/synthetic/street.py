"""A street video: one to four people, each with a script, before one camera, and the exact truth about them."""

import dataclasses

import numpy as np

from vidloc.annotations.records import PersonBox, Segment, VideoRecord
from vidloc.synthetic import looks, render, script, skeleton
from vidloc.synthetic.camera import Camera
from vidloc.synthetic.performance import Person, perform, placed

# Height of a standing person of the model's size, as a share of the frame's height: far and near end of the scene.
TALL = (0.47, 0.70)
# Focal length over the frame's width, and where the horizon is from the top.
FOCAL, HORIZON = 1.07, 0.34
EYE = (1.25, 1.5)
PEOPLE = (0.30, 0.38, 0.22, 0.10)  # chance of 1, 2, 3, 4 people
SIZE = (0.9, 1.08)
# Somebody is annotated on a keyframe with at least this many visible pixels, in squares of their standing height.
SEEN = 0.05
# Tries to find a direction in which a way fits, and a place away from others (metres that count as apart).
TURNS, PLACES, APART = 12, 8, 0.8
# The label that is no segment: between actions people stand.
BETWEEN = script.IDLE


@dataclasses.dataclass(frozen=True)
class Stage:
    """What the videos of a set have in common: size in pixels, rate, length in seconds, and look."""

    height: int
    width: int
    fps: int
    seconds: int
    look: str

    @property
    def keyframes(self) -> tuple[float, ...]:
        """Whole seconds with at least a second of video before and after: room for a clip around each."""
        return tuple(float(second) for second in range(1, self.seconds))


@dataclasses.dataclass(frozen=True)
class StreetVideo:
    """frames uint8 [T, H, W, 3]; ids uint8 [T, H, W]; truth: boxes, labels and segments, track = id - 1."""

    frames: np.ndarray
    ids: np.ndarray
    truth: VideoRecord


def _camera(stage: Stage, look: looks.Look, times: np.ndarray, rng: np.random.Generator) -> Camera:
    sweep, side = rng.uniform(0, look.pan), rng.choice((-1.0, 1.0))
    turn = side * sweep * (times / stage.seconds - 0.5)
    rate, start = rng.uniform(0.5, 2.0), rng.uniform()
    turn = turn + look.shake * np.sin(2 * np.pi * (rate * times + start))
    return Camera(
        height=stage.height,
        width=stage.width,
        focal=FOCAL * stage.width * rng.uniform(0.95, 1.05),
        horizon=HORIZON * stage.height * rng.uniform(0.92, 1.08),
        eye=rng.uniform(*EYE),
        turn=turn,
    )


def backdrop_width(look: looks.Look, camera: Camera) -> int:
    """Columns of the backdrop that a turning camera needs; just the frame's for one that stands still."""
    reach = look.pan / 2 + look.shake
    return camera.width + 2 * int(np.ceil(camera.focal * np.tan(reach)) + 2 if reach else 0)


def _overflow(low: np.ndarray, high: np.ndarray, walked: np.ndarray) -> float:
    return float(np.maximum(np.ptp(walked, axis=0) - (high - low), 0.0).sum())


def _place(pose: skeleton.Pose, camera: Camera, taken: list[np.ndarray], rng: np.random.Generator) -> skeleton.Pose:
    """Turns and moves a performance so that it stays in view and near nobody else, as far as that goes."""
    near, far = (camera.focal * skeleton.STANDING_HEIGHT / (share * camera.height) for share in TALL[::-1])
    across = 0.5 * camera.width / camera.focal * near * 0.85
    low, high = np.array([-across, -far]), np.array([across, -near])
    best, smallest = pose, np.inf
    for _ in range(TURNS):
        turned = placed(pose, rng.uniform(-np.pi, np.pi), 0.0, 0.0)
        excess = _overflow(low, high, turned.root[:, [0, 2]])
        if excess < smallest:
            best, smallest = turned, excess
        if excess == 0.0:
            break
    walked = best.root[:, [0, 2]]
    # Whoever would still walk out of the scene takes shorter steps.
    shrink = np.min((high - low) / np.maximum(np.ptp(walked, axis=0), high - low))
    walked = walked * shrink
    first, last = walked.min(axis=0), walked.max(axis=0)
    chosen, widest = np.zeros(2), -1.0
    for _ in range(PLACES):
        slack = np.maximum(high - low - (last - first), 0.0)
        middle = (low + high) / 2 + slack * rng.uniform(-0.5, 0.5, 2)
        move = middle - (first + last) / 2
        # How far apart they are sideways over time; beyond a body's width it does not matter how far.
        apart = (np.minimum(np.abs(walked + move - other)[:, 0], APART).mean() for other in taken)
        away = min(apart, default=np.inf)
        if away > widest:
            chosen, widest = move, away
    taken.append(walked + chosen)
    root = best.root * np.array([shrink, 1.0, shrink]) + np.array([chosen[0], 0.0, chosen[1]])
    return skeleton.Pose(root, best.rotations)


def _pillars(look: looks.Look, camera: Camera, rng: np.random.Generator) -> list[render.Pillar]:
    near = camera.focal * skeleton.STANDING_HEIGHT / (TALL[1] * camera.height)
    pillars = []
    for _ in range(int(rng.integers(look.occluders + 1)) if look.occluders else 0):
        depth = near * rng.uniform(0.6, 0.8)
        across = 0.5 * camera.width / camera.focal * depth
        colour = np.asarray(look.ground[int(rng.integers(len(look.ground)))], np.float32)
        colour = np.clip(colour * rng.uniform(0.5, 1.3), 0, 255).astype(np.float32)
        half = rng.uniform(0.05, 0.11)
        pillars.append(render.Pillar(rng.uniform(-across, across), -depth, half, 3.5, colour))
    return pillars


def _truth(video: str, stage: Stage, camera: Camera, scripts, ends, ids) -> VideoRecord:
    boxes = []
    for time in stage.keyframes:
        frame = round(time * stage.fps)
        found, visible = render.boxes(ids[frame], len(scripts))
        for person, steps in enumerate(scripts):
            depth = max(float(-ends[person][frame, :, :, 2].mean()), 1.0)
            tall = camera.focal * skeleton.STANDING_HEIGHT / depth
            if visible[person] < SEEN * tall**2:
                continue
            box = tuple(round(float(edge), 6) for edge in found[person])
            boxes.append(PersonBox(time, box, script.labels_at(steps, time), None, str(person)))
    joined: dict[str, list[list[float]]] = {}
    everything = sorted(span for steps in scripts for span in script.spans(steps, float(stage.seconds)))
    for start, end, label in everything:
        known = joined.setdefault(label, [])
        if known and start <= known[-1][1]:
            known[-1][1] = max(known[-1][1], end)
        else:
            known.append([start, end])
    segments = [
        Segment(round(start, 3), round(end, 3), label)
        for label, parts in joined.items()
        for start, end in parts
        if label != BETWEEN and end - start >= 0.1
    ]
    return VideoRecord(
        video,
        duration=float(stage.seconds),
        keyframes=stage.keyframes,
        boxes=tuple(boxes),
        segments=tuple(sorted(segments, key=lambda segment: (segment.start, segment.end, segment.label))),
    )


def draw(video: str, stage: Stage, seed: np.random.SeedSequence) -> StreetVideo:
    """Renders one street video and tells the truth about it.

    Boxes enclose exactly a person's visible pixels. Segments are the times at which anybody does something other
    than stand. All randomness comes from `seed`.
    """
    scene_seed, *person_seeds = seed.spawn(1 + len(PEOPLE))
    rng = np.random.Generator(np.random.Philox(scene_seed))
    look = looks.LOOKS[stage.look]
    times = np.arange(stage.seconds * stage.fps) / stage.fps
    camera = _camera(stage, look, times, rng)
    count = 1 + int(rng.choice(len(PEOPLE), p=PEOPLE))
    scripts, figures, taken = [], [], []
    for person_seed in person_seeds[:count]:
        motion_seed, own_seed = person_seed.spawn(2)
        own = np.random.Generator(np.random.Philox(own_seed))
        person = Person(own.uniform(*SIZE), bool(own.integers(2)), motion_seed)
        steps = script.draw_script(float(stage.seconds), own)
        pose = _place(perform(steps, times, person), camera, taken, own)
        # The body is scaled about the ground under its place, which stays where it was put.
        ground = pose.root * np.array([1.0, 0.0, 1.0])
        ends = skeleton.capsule_ends(skeleton.Pose(pose.root - ground, pose.rotations), person.size)
        figures.append(render.Figure(ends + ground[:, None, None], person.size, looks.dress(look, own)))
        scripts.append(steps)
    backdrop = looks.backdrop(look, stage.height, backdrop_width(look, camera), camera.horizon, rng)
    light = looks.light_direction(look, rng)
    pillars = _pillars(look, camera, rng)
    drawn = render.render(figures, camera, look, backdrop, light, pillars=pillars, noise=rng)
    truth = _truth(video, stage, camera, scripts, [figure.ends for figure in figures], drawn.ids)
    return StreetVideo(drawn.frames, drawn.ids, truth)
