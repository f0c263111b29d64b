"""Temporal localisation: which actions happen from when to when in an untrimmed video; one sigmoid a class."""

import collections
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vidloc import losses
from vidloc.annotations import video_scores
from vidloc.annotations.records import Problem
from vidloc.metrics import temporal
from vidloc.ops import nms as nms_ops
from vidloc.ops import points as point_ops
from vidloc.tasks import base, score_fusion, segment_targets


@dataclasses.dataclass(frozen=True)
class TemporalLocalization:
    """Points of a pyramid over time, each with a score a class and its distances to both ends of the action.

    Zhang et al. 2022 (ActionFormer), sections 3.3 to 3.5; numbers and order of operations are those of
    happyharrycn/actionformer_release (libs/modeling/meta_archs.py, libs/utils/postprocessing.py).

    head_module: takes (Features, batch, train=) to outputs with logits [B, P, C], distances [B, P, 2] and valid
    [B, P]; its field `ranges` says what the points P are (ops/points.py). C is the number of classes, or 1 with
    `proposals`.
    scale: the task's share in a joint batch.
    proposals: the head tells action from none, and external_scores say which action it is.
    regression_weight: of the regression against the classification; below 0 the regression is weighed so that both
    are equal, micro-batch by micro-batch (so it changes a little with accumulation).
    label_smoothing s: a target y becomes y * (1 - s) + s / (C + 1), also where nothing happens.
    normalizer, momentum: the loss is divided by a running mean of the number of positive points of a step, which
    starts at `normalizer`.
    radius: centre sampling, in strides (segment_targets.assign).
    tiou: thresholds of the score.
    pre_nms_threshold, pre_nms_topk, duration_threshold: a level keeps its best pre_nms_topk pairs of point and class
    with a higher score than the threshold, then those longer than duration_threshold grid units.
    nms, sigma, iou, min_score, max_segments, multiclass, voting: see ops/nms.py (method, sigma, iou, min_score, limit,
    per_class, voting); one suppression a video, over all of its windows, in seconds.
    external_scores: file of video scores (annotations/video_scores.py), '' for none; external_top, external_proposals:
    see score_fusion.fuse.
    """

    classes: tuple[str, ...]
    head_module: nn.Module
    scale: float = 1.0
    proposals: bool = False
    regression_weight: float = 1.0
    label_smoothing: float = 0.0
    normalizer: float = 100.0
    momentum: float = 0.9
    radius: float = 1.5
    tiou: tuple[float, ...] = (0.3, 0.4, 0.5, 0.6, 0.7)
    pre_nms_threshold: float = 0.001
    pre_nms_topk: int = 2000
    duration_threshold: float = 0.05
    nms: str = 'soft'
    sigma: float = 0.5
    iou: float = 0.1
    min_score: float = 0.001
    max_segments: int = 200
    multiclass: bool = True
    voting: float = 0.7
    external_scores: str = ''
    external_top: int = 2
    external_proposals: int = 200

    def __post_init__(self) -> None:
        self.rule()
        if self.proposals and len(self.classes) > 1 and not self.external_scores:
            raise ValueError(
                'proposals have no class: set external_scores to a file with scores of the '
                f'{len(self.classes)} classes, or proposals to False'
            )
        if min(self.pre_nms_topk, self.external_top, self.external_proposals) < 1:
            raise ValueError('pre_nms_topk, external_top and external_proposals must be 1 or more')

    @property
    def outputs(self) -> int:
        """The classes that the head tells apart."""
        return 1 if self.proposals else len(self.classes)

    def rule(self) -> nms_ops.Rule:
        """The suppression. Raises ValueError if a setting makes no sense."""
        return nms_ops.Rule(
            method=self.nms,
            sigma=float(self.sigma),
            iou=float(self.iou),
            min_score=float(self.min_score),
            limit=self.max_segments,
            per_class=self.multiclass,
            voting=float(self.voting),
        )

    def head(self) -> nn.Module:
        return self.head_module

    def init_state(self) -> np.ndarray:
        """[] float32, the running number of positive points."""
        return np.array(self.normalizer, np.float32)

    def weight(self, batch: base.Batch, state: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The running number of positive points, this whole step included; it is the new state too."""
        points = self._points(batch)
        valid = batch['grid_valid'][:, points[:, 0].astype(int)] & batch['example_valid'][:, None]  # [B, P]
        positive = jnp.any(self._targets(points, batch).classes > 0, axis=-1) & valid
        count = jnp.maximum(jnp.sum(positive.astype(jnp.float32)), 1.0)
        new = self.momentum * state + (1.0 - self.momentum) * count
        return new, new

    def loss(self, outputs: Any, batch: base.Batch, *, train: bool) -> base.LossOutput:
        """Focal loss of all points and classes plus DIoU loss of the positive points; no smoothing when not training.

        Logged: both sums over the number of positives, and positives an example.
        """
        points = self._points(batch)
        targets = self._targets(points, batch)
        valid = outputs.valid & batch['example_valid'][:, None]  # [B, P]
        positive = jnp.any(targets.classes > 0, axis=-1) & valid
        count = jnp.sum(positive.astype(jnp.float32))

        smoothing = self.label_smoothing if train else 0.0
        smoothed = targets.classes * (1.0 - smoothing) + smoothing / (self.outputs + 1)
        classification = jnp.sum(losses.sigmoid_focal(outputs.logits, smoothed) * valid[..., None])
        # What is not positive gets ones on both sides, so that no distance of 0 is divided by.
        ends = [jnp.where(positive[..., None], each, 1.0) for each in (outputs.distances, targets.offsets)]
        regression = jnp.sum(losses.diou_1d(*ends) * positive)
        logs = {
            'classification': (classification, count),
            'regression': (regression, count),
            'positives': (count, jnp.sum(batch['example_valid'].astype(jnp.float32))),
        }
        return base.LossOutput(
            sum=classification + self._balance(classification, regression, count) * regression, logs=logs
        )

    def decode(self, outputs: Any, batch: base.Batch) -> dict[str, jax.Array]:
        """segments [B, K, 2] in grid units, scores [B, K] float32, labels [B, K] int32, valid [B, K].

        Level by level, the finest first, within a level by falling score; K is the sum over levels of the smaller of
        pre_nms_topk and points * classes.
        """
        points = self._points(batch)
        classes = outputs.logits.shape[-1]
        valid = (outputs.valid & batch['example_valid'][:, None])[..., None]  # [B, P, 1]
        scores = jnp.where(valid, jax.nn.sigmoid(outputs.logits.astype(jnp.float32)), 0.0)  # [B, P, C]
        reach = outputs.distances * points[:, 3:]
        segments = jnp.stack([points[:, 0] - reach[..., 0], points[:, 0] + reach[..., 1]], axis=-1)  # [B, P, 2]

        levels = []
        first = 0
        for length in np.unique(points[:, 3], return_counts=True)[1]:
            level = slice(first, first + length)
            first += length
            pairs = scores[:, level].reshape(len(scores), length * classes)  # [B, T * C]
            best, index = jax.lax.top_k(pairs, min(self.pre_nms_topk, length * classes))  # [B, k]
            ends = jnp.take_along_axis(segments[:, level], (index // classes)[..., None], axis=1)  # [B, k, 2]
            keep = (best > self.pre_nms_threshold) & (ends[..., 1] - ends[..., 0] > self.duration_threshold)
            levels.append((ends, best, index % classes, keep))
        return {
            name: jnp.concatenate(parts, axis=1)
            for name, parts in zip(('segments', 'scores', 'labels', 'valid'), zip(*levels, strict=True), strict=True)
        }

    def collector(self, examples: Sequence[Any]) -> 'SegmentCollector':
        """examples: with video, grid_start, grid_step and limit. Raises ValueError if a video lacks external scores."""
        scores = self.read_external() if self.external_scores else None
        if scores is not None:
            score_fusion.check(scores, sorted({example.video for example in examples}), self.external_scores)
        return SegmentCollector(examples, self.rule(), scores, self.external_top, self.external_proposals)

    def read_external(self) -> dict[str, np.ndarray]:
        """{video: scores of the classes [C]} from external_scores; what is odd about it is logged.

        Raises AnnotationError.
        """
        notes: list[Problem] = []
        scores = video_scores.read_video_scores(self.external_scores, self.classes, notes=notes)
        for note in notes:
            logging.warning('%s', note)
        return scores

    def score(self, detections: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Mean average precision at each threshold of `tiou`, and its mean over them (metrics/temporal.py)."""
        result = temporal.segment_ap(truth, detections, dict(enumerate(self.classes)), self.tiou)
        each = {f'map@{tiou:g}': float(value) for tiou, value in zip(self.tiou, result.mean, strict=True)}
        return each | {'average_map': float(result.average)}

    def _points(self, batch: base.Batch) -> np.ndarray:
        return point_ops.points(batch['grid_valid'].shape[1], self.head_module.ranges)  # [P, 4]

    def _targets(self, points: np.ndarray, batch: base.Batch) -> segment_targets.Targets:
        labels = batch['segment_labels']
        return segment_targets.assign(
            points,
            batch['segments'],
            jnp.zeros_like(labels) if self.proposals else labels,
            batch['segment_mask'],
            classes=self.outputs,
            radius=self.radius,
        )

    def _balance(self, classification: jax.Array, regression: jax.Array, count: jax.Array) -> jax.Array | float:
        """The weight of the regression; a regression of less than 0.01 a positive point is not blown up further."""
        if self.regression_weight >= 0:
            return self.regression_weight
        least = 0.01 * jnp.maximum(count, 1.0)
        return jax.lax.stop_gradient(classification / jnp.maximum(regression, least))


class SegmentCollector:
    """Gathers the candidates of a video's windows; once all have come, one suppression makes its detections.

    Neither batches nor the order of the windows matter: the windows of a video are joined by example id.
    """

    def __init__(
        self,
        examples: Sequence[Any],
        rule: nms_ops.Rule,
        external: Mapping[str, np.ndarray] | None = None,
        top: int = 2,
        proposals: int = 200,
    ):
        self._examples = examples
        self._rule = rule
        self._fusion = (external, top, proposals)
        self._expected = collections.Counter(example.video for example in examples)
        self._waiting: dict[str, dict[int, tuple[np.ndarray, ...]]] = {}
        self._done: dict[str, tuple[np.ndarray, ...]] = {}

    def add(self, example_id: np.ndarray, valid: np.ndarray, predictions: Mapping[str, np.ndarray]) -> None:
        """example_id [B], valid [B], predictions as TemporalLocalization.decode gives them."""
        for row in np.flatnonzero(valid):
            number = int(example_id[row])
            video = self._examples[number].video
            keep = np.asarray(predictions['valid'][row])
            windows = self._waiting.setdefault(video, {})
            windows[number] = tuple(
                np.asarray(predictions[name][row])[keep] for name in ('segments', 'scores', 'labels')
            )
            if len(windows) == self._expected[video]:
                self._done[video] = self._finish(self._waiting.pop(video))

    def detections(self) -> dict[str, np.ndarray]:
        """Columns video (sorted), start, end (seconds), label (class index) and score (falling within a video).

        A video that lacks windows has the detections of the others.
        """
        found = self._done | {video: self._finish(windows) for video, windows in self._waiting.items()}
        videos = sorted(found)
        none = (np.zeros((0, 2)), np.zeros(0), np.zeros(0, np.int64))
        segments, scores, labels = (
            np.concatenate(parts) for parts in zip(none, *(found[v] for v in videos), strict=True)
        )
        return {
            'video': np.repeat(np.array(videos, dtype=object), [len(found[video][1]) for video in videos]),
            'start': segments[:, 0],
            'end': segments[:, 1],
            'label': labels.astype(np.int64),
            'score': scores.astype(np.float64),
        }

    def _finish(self, windows: Mapping[int, tuple[np.ndarray, ...]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Segments [M, 2] in seconds, scores [M], labels [M] of one video, by falling score.

        Suppressed as they are, and only then cut to the video, as in the public code: what sticks out of the video
        counts in the overlaps. What lies outside altogether is left out.
        """
        numbers = sorted(windows)
        segments, scores, labels = (np.concatenate(parts) for parts in zip(*(windows[n] for n in numbers), strict=True))
        counts = [len(windows[number][1]) for number in numbers]
        start, step = (
            np.repeat([getattr(self._examples[number], name) for number in numbers], counts)[:, None]
            for name in ('grid_start', 'grid_step')
        )
        seconds = start + step * segments.astype(np.float64)  # [N, 2]
        seconds, scores, labels = nms_ops.suppress(seconds, scores.astype(np.float64), labels, self._rule)
        seconds = np.clip(seconds, 0.0, self._examples[numbers[0]].limit)
        inside = seconds[:, 1] > seconds[:, 0]
        seconds, scores, labels = seconds[inside], scores[inside], labels[inside]
        external, top, proposals = self._fusion
        if external is None:
            return seconds, scores, labels
        video = self._examples[numbers[0]].video
        return score_fusion.fuse(seconds, scores, score_fusion.of_video(external, video), top=top, proposals=proposals)
