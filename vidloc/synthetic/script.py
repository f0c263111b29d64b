"""Scripts: which action a person does when, and which labels hold at a moment."""

import dataclasses

import numpy as np

from vidloc.synthetic import motions

# Seconds over which one action turns into the next.
BLEND = 1 / 3


@dataclasses.dataclass(frozen=True)
class Action:
    """Something a person can do.

    label: the class it teaches.
    clips: motion-capture takes to choose from; empty: a procedural movement of the action's name.
    core: seconds of the take in which the action itself happens, for takes that are played once (one pair a clip);
      empty: the action goes on as long as the script wants.
    seconds: shortest and longest time in a script, for actions that go on.
    travel: how much of the take's travelling is kept, so that runners stay in a small scene.
    turn: the fastest it turns on its way, radians a second.
    arms: how often the free arms wave or clap meanwhile, (wave, clap).
    """

    label: str
    clips: tuple[str, ...] = ()
    core: tuple[tuple[float, float], ...] = ()
    seconds: tuple[float, float] = (1.5, 3.0)
    travel: float = 1.0
    turn: float = 0.0
    arms: tuple[float, float] = (0.0, 0.0)


ACTIONS: dict[str, Action] = {
    'stand': Action('stand', arms=(0.55, 0.20), seconds=(1.5, 3.0)),
    'walk': Action('walk', ('walk',), travel=0.75, turn=0.7, arms=(0.36, 0.10), seconds=(1.8, 3.5)),
    'run': Action('run', ('run',), travel=0.35, turn=1.2, seconds=(1.4, 2.6)),
    'punch': Action('punch', ('punch',), ((0.50, 1.80),)),
    'kick': Action('kick', ('kick',), ((0.42, 1.18),)),
    'jump': Action('jump', ('jump',), ((0.30, 1.45),)),
    'squat': Action('squat', seconds=(1.6, 3.0)),
    'sit': Action('sit', arms=(0.15, 0.10), seconds=(1.8, 3.5)),
    'dance': Action('dance', ('dance_a', 'dance_b')),
    'crawl': Action('crawl', ('crawl',), seconds=(1.8, 3.5)),
    'cartwheel': Action('cartwheel', ('cartwheel',), ((0.65, 2.05),)),
    'getup': Action('getup', ('getup_facedown', 'getup_faceup'), ((0.0, 2.6), (0.0, 3.4))),
    'backflip': Action('backflip', ('backflip',), ((0.25, 1.45),)),
    'roll': Action('roll', ('roll',), ((0.25, 1.65),)),
    'spin': Action('spin', ('spin',), ((0.90, 2.75),)),
    'spinkick': Action('spinkick', ('spinkick',), ((0.22, 1.08),)),
    'sway_dance': Action('sway_dance', ('dance_b',)),
    'wild_dance': Action('wild_dance', ('dance_a',)),
}
ARMS = ('wave', 'clap')
# Seconds of a once-played take that are kept before and after its core.
MARGIN = 0.3
# The label of a person before and after the core of an action.
IDLE = 'stand'
# The classes of the street, and how often an action is chosen there: a deliberate long tail.
STREET_CLASSES = (
    'stand',
    'walk',
    'wave',
    'run',
    'punch',
    'kick',
    'clap',
    'jump',
    'squat',
    'sit',
    'dance',
    'crawl',
    'cartwheel',
    'getup',
)
STREET_WEIGHTS = {
    'walk': 0.26,
    'kick': 0.22,
    'stand': 0.20,
    'punch': 0.20,
    'run': 0.19,
    'jump': 0.16,
    'cartwheel': 0.075,
    'squat': 0.055,
    'dance': 0.05,
    'sit': 0.05,
    'crawl': 0.045,
}
# Nobody lies down in a script, so getting up can only come first.
GETUP_FIRST = 0.04
# Between two actions the person may stand idle for a while.
GAP_CHANCE, GAP_SECONDS = 0.18, (0.5, 1.0)
# How fast people move, as a factor on the takes' own speed.
SPEED = (0.8, 1.3)


@dataclasses.dataclass(frozen=True)
class Step:
    """One action from `start` to `end` (seconds of the video; may begin before it and end after it).

    action: a key of ACTIONS; clip: index into its clips.
    offset: seconds into the take at `start`; speed: a factor on the take's time.
    core: when the action itself happens, seconds of the video.
    turn: radians a second; arms: 'wave', 'clap' or None.
    """

    action: str
    start: float
    end: float
    clip: int
    offset: float
    speed: float
    core: tuple[float, float]
    turn: float
    arms: str | None

    def labels(self, time: float) -> tuple[str, ...]:
        """What holds at `time` if this step is on then."""
        own = ACTIONS[self.action].label if self.core[0] <= time <= self.core[1] else IDLE
        return (own,) if self.arms is None else (own, self.arms)


def draw_step(action: str, start: float, speed: float, rng: np.random.Generator) -> Step:
    """A step from `start` with all its random parts."""
    kind = ACTIONS[action]
    clip = int(rng.integers(max(len(kind.clips), 1)))
    offset = rng.uniform(0.0, 4.0)
    length = rng.uniform(*kind.seconds)
    choice = rng.uniform()
    turn = rng.uniform(-kind.turn, kind.turn)
    core = (start, start + length)
    if kind.core:
        first, last = kind.core[clip]
        take_start = max(first - MARGIN, 0.0)
        take_end = min(last + MARGIN, motions.load()[kind.clips[clip]].duration)
        offset, length = take_start, (take_end - take_start) / speed
        core = (start + (first - take_start) / speed, start + (last - take_start) / speed)
    wave, clap = kind.arms
    arms = 'wave' if choice < wave else 'clap' if choice < wave + clap else None
    return Step(action, start, start + length, clip, offset, speed, core, turn, arms)


def draw_script(duration: float, rng: np.random.Generator) -> tuple[Step, ...]:
    """A person's steps over a street video of `duration` seconds, one after the other without holes."""
    speed = rng.uniform(*SPEED)
    names = list(STREET_WEIGHTS)
    weights = np.array(list(STREET_WEIGHTS.values()))
    steps: list[Step] = []
    if rng.uniform() < GETUP_FIRST:
        steps.append(draw_step('getup', rng.uniform(-0.4, 0.4), speed, rng))
        # Lies until then.
        steps[0] = dataclasses.replace(steps[0], core=(min(steps[0].start, 0.0), steps[0].core[1]))
    time = steps[0].end if steps else -rng.uniform(0.0, 1.5)
    while time < duration + BLEND:
        if steps and rng.uniform() < GAP_CHANCE:
            gap = draw_step('stand', time, speed, rng)
            end = time + rng.uniform(*GAP_SECONDS)
            steps.append(dataclasses.replace(gap, end=end, core=(time, end), arms=None))
            time = end
        action = names[int(rng.choice(len(names), p=weights / weights.sum()))]
        steps.append(draw_step(action, time, speed, rng))
        time = steps[-1].end
    return tuple(steps)


def labels_at(steps: tuple[Step, ...], time: float) -> tuple[str, ...]:
    """The labels that hold at `time`; in the middle of a blend the next step takes over."""
    current = steps[0]
    for step in steps[1:]:
        if step.start <= time:
            current = step
    return current.labels(time)


def spans(steps: tuple[Step, ...], duration: float) -> list[tuple[float, float, str]]:
    """(start, end, label) of everything the person does within [0, duration], touching spans of a label joined."""
    pieces: list[tuple[float, float, str]] = []
    for number, step in enumerate(steps):
        until = steps[number + 1].start if number + 1 < len(steps) else step.end
        core_start, core_end = step.core
        own = ACTIONS[step.action].label
        start = min(step.start, core_start)
        pieces.append((max(start, core_start), min(until, core_end), own))
        pieces.append((start, core_start, IDLE))
        pieces.append((core_end, until, IDLE))
        if step.arms is not None:
            pieces.append((start, until, step.arms))
    joined: dict[str, list[list[float]]] = {}
    for start, end, label in sorted(pieces):
        start, end = max(start, 0.0), min(end, duration)
        if end - start < 1e-6:
            continue
        known = joined.setdefault(label, [])
        if known and start <= known[-1][1] + 1e-6:
            known[-1][1] = max(known[-1][1], end)
        else:
            known.append([start, end])
    return sorted((start, end, label) for label, parts in joined.items() for start, end in parts)
