"""Action detection: several actions may hold for each given person box; one sigmoid a class."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vidloc import losses
from vidloc.metrics import ava
from vidloc.models import film
from vidloc.tasks import base, group_relative


@dataclasses.dataclass(frozen=True)
class ActionDetection:
    """Fast R-CNN style detection on given boxes (papers: Girshick 2015; Arnab et al. 2022, section 3.1).

    head_module: takes (Features, batch, train=) to logits [B, N, C].
    label_smoothing: see losses.sigmoid_cross_entropy.
    scale: the task's share in a joint batch.
    group: the loss of augmented features, where there are some.
    """

    classes: tuple[str, ...]
    head_module: nn.Module
    label_smoothing: float = 0.0
    scale: float = 1.0
    group: group_relative.GroupRelative = dataclasses.field(default_factory=group_relative.GroupRelative)

    def head(self) -> nn.Module:
        return self.head_module

    def init_state(self) -> tuple[()]:
        return ()

    def weight(self, batch: base.Batch, state: Any) -> tuple[jax.Array, Any]:
        """The number of real boxes in the step (at least 1): the loss is a mean over boxes."""
        return jnp.maximum(jnp.sum(_present(batch)), 1.0), state

    def loss(self, outputs: jax.Array | film.Augmented, batch: base.Batch, *, train: bool) -> base.LossOutput:
        """outputs: logits [B, N, C], or of the examples and of copies of them. Summed over boxes, averaged over
        classes; no smoothing when not training."""
        smoothing = self.label_smoothing if train else 0.0
        present, labels = _present(batch), batch['labels']  # [B, N], [B, N, C]
        logs = {'boxes': (jnp.sum(present), jnp.sum(batch['example_valid']))}
        augmented = isinstance(outputs, film.Augmented)
        logits = outputs.original if augmented else outputs
        each = jnp.mean(losses.sigmoid_cross_entropy(logits, labels, label_smoothing=smoothing), axis=-1)  # [B, N]
        if augmented:
            logs['original'] = (jnp.sum(each * present), jnp.sum(present))
            more, told = self.group.terms(outputs, labels, present, group_relative.MANY, label_smoothing=smoothing)
            each, logs = each + more, logs | told
        return base.LossOutput(sum=jnp.sum(each * present), logs=logs)

    def base_rate_loss(self, share: np.ndarray) -> float:
        """The training loss of predicting the share of each class, [C], for every box: no constant has less."""
        targets = share * (1.0 - self.label_smoothing) + 0.5 * self.label_smoothing
        yes, no = (np.clip(part, 1e-12, 1.0) for part in (targets, 1.0 - targets))
        return float(-np.mean(targets * np.log(yes) + (1.0 - targets) * np.log(no)))

    def decode(self, outputs: jax.Array, batch: base.Batch) -> dict[str, jax.Array]:
        """scores [B, N, C] float32, boxes [B, N, 4] of the displayed frame, valid [B, N]."""
        return {
            'scores': jax.nn.sigmoid(outputs.astype(jnp.float32)),
            'boxes': batch['source_boxes'],
            'valid': _present(batch) > 0,
        }

    def collector(self, examples: Sequence[Any]) -> 'DetectionCollector':
        return DetectionCollector(examples, len(self.classes))

    def score(self, detections: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Frame mAP at IoU 0.5 in both protocols (metrics/ava.py).

        detections, truth: columns as DetectionCollector and data.sources make them; `action_id` is the index of
        the class, -1 in a truth row that only says that a keyframe is annotated. Where fewer classes than the task
        has are to be scored, the rows of the others are left out before (report/results.py): the limit of the
        official protocol counts what is left, and a class without truth takes no part in the mean.
        """
        classes = dict(enumerate(self.classes))
        official = ava.frame_ap(truth, detections, classes, protocol='official')
        slowfast = ava.frame_ap(truth, detections, classes, protocol='slowfast')
        return {'frame_map@0.5': official.mean, 'frame_map_slowfast@0.5': slowfast.mean}


def _present(batch: base.Batch) -> jax.Array:
    """[B, N] float32: 1 for a real box of a real example."""
    return (batch['box_mask'] & batch['example_valid'][:, None]).astype(jnp.float32)


class DetectionCollector:
    """Turns decoded batches into detection columns; the order of the rows does not depend on batching."""

    def __init__(self, examples: Sequence[Any], classes: int):
        self._examples = examples
        self._classes = classes
        self._found: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def add(self, example_id: np.ndarray, valid: np.ndarray, predictions: Mapping[str, np.ndarray]) -> None:
        """example_id [B], valid [B], predictions as ActionDetection.decode gives them."""
        for row in np.flatnonzero(valid):
            keep = predictions['valid'][row]
            self._found[int(example_id[row])] = (
                predictions['boxes'][row][keep],
                predictions['scores'][row][keep],
            )

    def detections(self) -> dict[str, np.ndarray]:
        """Columns video, timestamp (seconds), x1, y1, x2, y2, action_id (index of the class), score.

        Boxes are rounded to a millionth of the frame: what was 0.077 in the file of detections is so again, and not
        the float32 next to it, which takes 17 digits to write.
        """
        ids = sorted(self._found)
        boxes = np.concatenate([self._found[i][0] for i in ids] or [np.zeros((0, 4), np.float32)])  # [M, 4]
        scores = np.concatenate([self._found[i][1] for i in ids] or [np.zeros((0, self._classes), np.float32)])
        counts = [len(self._found[i][0]) for i in ids]
        video = np.repeat(np.array([self._examples[i].video for i in ids], dtype=object), counts)
        time = np.repeat(np.array([self._examples[i].time for i in ids], dtype=np.float64), counts)
        c = self._classes
        columns = {'video': np.repeat(video, c), 'timestamp': np.repeat(time, c)}  # [M] -> [M * C]
        for axis, name in enumerate(('x1', 'y1', 'x2', 'y2')):
            columns[name] = np.repeat(boxes[:, axis].astype(np.float64).round(6), c)
        columns['action_id'] = np.tile(np.arange(c, dtype=np.int64), len(boxes))
        columns['score'] = scores.astype(np.float64).reshape(-1)
        return columns
