"""What a person detector might have said: the true boxes with errors, misses, false alarms and scores.

Tuned to be as good as the detectors that AVA recipes use, somewhat over 90 AP at an overlap of a half
(github.com/facebookresearch/video-long-term-feature-banks: 93.9 on AVA validation).
"""

import dataclasses

import numpy as np

from vidloc.annotations.records import PersonBox, VideoRecord

MISSED = 0.03
# Spread of each edge as a share of the box's side: careful and careless detections, and how often they are careless.
SPREAD, CARELESS_SPREAD, CARELESS = 0.035, 0.13, 0.10
FALSE_ALARMS = 0.12  # a keyframe
# A detection carries the labels of the true box that it overlaps by at least this much, as in the iou75 files.
LABEL_OVERLAP = 0.75


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over union of two boxes (x1, y1, x2, y2)."""
    wide = min(a[2], b[2]) - max(a[0], b[0])
    tall = min(a[3], b[3]) - max(a[1], b[1])
    if wide <= 0 or tall <= 0:
        return 0.0
    both = wide * tall
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def _clip(box: np.ndarray) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(edge) for edge in np.clip(box, 0.0, 1.0).round(6))
    return x1, y1, x2, y2


def _moved(box: tuple[float, ...], spread: float, rng: np.random.Generator) -> tuple[float, float, float, float]:
    sides = np.array([box[2] - box[0], box[3] - box[1]])
    # Errors stay under half a side, so that no edge passes its opposite.
    errors = np.clip(rng.normal(0.0, spread, 4), -0.4, 0.4) * np.tile(sides, 2)
    return _clip(np.asarray(box) + errors)


def _alarm(rng: np.random.Generator) -> tuple[float, float, float, float]:
    tall = rng.uniform(0.25, 0.7)
    wide = tall * rng.uniform(0.2, 0.6)
    x, y = rng.uniform(0, 1 - wide), rng.uniform(0.1, 1.0 - 0.9 * tall)
    return _clip(np.array([x, y, x + wide, y + tall]))


def detect(truth: VideoRecord, labelled: bool, seed: np.random.SeedSequence) -> VideoRecord:
    """Detections on the keyframes of a video.

    Args:
      truth: its true boxes.
      labelled: whether detections take over the labels of the boxes that they match (training files have them).
      seed: of all errors.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    found: list[PersonBox] = []
    for time in truth.keyframes:
        people = [person for person in truth.boxes if person.time == time]
        guesses = []
        for person in people:
            careless = rng.uniform() < CARELESS
            box = _moved(person.box, CARELESS_SPREAD if careless else SPREAD, rng)
            score = rng.beta(5, 2) if careless else rng.beta(16, 1)
            if rng.uniform() >= MISSED:
                guesses.append((box, score))
        guesses += [(_alarm(rng), rng.beta(2, 4)) for _ in range(rng.poisson(FALSE_ALARMS))]
        for box, score in guesses:
            best = max(people, key=lambda person: overlap(person.box, box), default=None)
            matched = best is not None and overlap(best.box, box) >= LABEL_OVERLAP
            labels = best.labels if labelled and matched else ()
            found.append(PersonBox(time, box, labels, round(float(score), 4)))
    return dataclasses.replace(truth, boxes=tuple(found), segments=())
