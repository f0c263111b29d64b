"""Classification: one label a clip; softmax."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vidloc import losses
from vidloc.metrics import classification
from vidloc.models import film
from vidloc.tasks import base, group_relative

# A video and the second at which the clip starts.
Clip = tuple[str, float]


@dataclasses.dataclass(frozen=True)
class Classification:
    """A linear classifier on the clip (Arnab et al. 2022, section 3.1).

    head_module: takes (Features, batch, train=) to logits [B, C].
    label_smoothing: see losses.softmax_cross_entropy.
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
        """The number of real clips in the step (at least 1)."""
        return jnp.maximum(jnp.sum(batch['example_valid'].astype(jnp.float32)), 1.0), state

    def loss(self, outputs: jax.Array | film.Augmented, batch: base.Batch, *, train: bool) -> base.LossOutput:
        """outputs: logits [B, C], or of the clips and of copies of them. Summed over clips; no smoothing when not
        training. The label of a mixed clip is, for the accuracy that is logged, the class of its larger share.
        """
        smoothing = self.label_smoothing if train else 0.0
        valid, labels = batch['example_valid'].astype(jnp.float32), batch['labels']  # [B], [B, C]
        augmented = isinstance(outputs, film.Augmented)
        logits = outputs.original if augmented else outputs
        each = losses.softmax_cross_entropy(logits, labels, label_smoothing=smoothing)  # [B]
        hit = jnp.argmax(logits, axis=-1) == jnp.argmax(labels, axis=-1)
        logs = {'top1': (jnp.sum(hit * valid), jnp.sum(valid))}
        if augmented:
            logs['original'] = (jnp.sum(each * valid), jnp.sum(valid))
            more, told = self.group.terms(outputs, labels, valid, group_relative.ONE, label_smoothing=smoothing)
            each, logs = each + more, logs | told
        return base.LossOutput(sum=jnp.sum(each * valid), logs=logs)

    def base_rate_loss(self, share: np.ndarray) -> float:
        """The training loss of predicting the share of each class, [C], for every clip: no constant has less."""
        targets = share * (1.0 - self.label_smoothing) + self.label_smoothing / len(share)
        return float(-np.sum(targets * np.log(np.clip(targets, 1e-12, 1.0))))

    def decode(self, outputs: jax.Array, batch: base.Batch) -> dict[str, jax.Array]:
        """scores [B, 1, C] float32 probabilities, valid [B, 1]."""
        return {
            'scores': jax.nn.softmax(outputs.astype(jnp.float32), axis=-1)[:, None],
            'valid': batch['example_valid'][:, None],
        }

    def collector(self, examples: Sequence[Any]) -> 'ClipCollector':
        return ClipCollector(examples, len(self.classes))

    def score(self, detections: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Top-1 and top-5 accuracy over all clips of `truth`; a clip without a prediction counts as wrong.

        truth: columns video, time and label (index of the class), [M] each.
        """
        scores = classification.aligned(detections, truth)
        labels = truth['label']
        return {f'top{k}': classification.top_k(scores, labels, k) for k in (1, 5) if k == 1 or scores.shape[1] > k}


class ClipCollector:
    """Averages the probabilities of a clip's views; a clip is a video and the second at which it starts.

    A clip whose views have all come is averaged at once, so that only one row a clip is kept.
    """

    def __init__(self, examples: Sequence[Any], classes: int):
        self._examples = examples
        self._classes = classes
        self._expected = collections.Counter((example.video, example.time) for example in examples)
        self._waiting: dict[Clip, dict[int, np.ndarray]] = {}
        self._done: dict[Clip, np.ndarray] = {}

    def add(self, example_id: np.ndarray, valid: np.ndarray, predictions: Mapping[str, np.ndarray]) -> None:
        """example_id [B], valid [B], predictions as Classification.decode gives them."""
        for row in np.flatnonzero(valid):
            number = int(example_id[row])
            example = self._examples[number]
            clip = (example.video, example.time)
            views = self._waiting.setdefault(clip, {})
            views[number] = predictions['scores'][row, 0].copy()  # not a view that keeps the whole batch
            if len(views) == self._expected[clip]:
                self._done[clip] = _mean(self._waiting.pop(clip))

    def detections(self) -> dict[str, np.ndarray]:
        """Columns video and time [M] (sorted), scores [M, C]; a clip that lacks views has the mean of the others."""
        found = self._done | {clip: _mean(views) for clip, views in self._waiting.items()}
        clips = sorted(found)
        return {
            'video': np.array([video for video, _ in clips], dtype=object),
            'time': np.array([time for _, time in clips], dtype=np.float64),
            'scores': np.array([found[clip] for clip in clips], dtype=np.float64).reshape(-1, self._classes),
        }


def _mean(views: Mapping[int, np.ndarray]) -> np.ndarray:
    """[C]; summed in the order of the examples, so that batches do not matter to the last bit."""
    return np.mean(np.stack([views[number] for number in sorted(views)]), axis=0)
