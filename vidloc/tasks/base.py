"""The Task protocol: all that the trainer knows of a task."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import flax
import flax.linen as nn
import jax
import numpy as np

Batch = Mapping[str, jax.Array]


@flax.struct.dataclass
class LossOutput:
    """sum: the loss summed over this micro-batch, [] float32; logs: {name: (sum, weight)}, divided at the end."""

    sum: jax.Array
    logs: dict[str, tuple[jax.Array, jax.Array]]


class Collector(Protocol):
    """Gathers decoded predictions on the host."""

    def add(self, example_id: np.ndarray, valid: np.ndarray, predictions: Mapping[str, np.ndarray]) -> None:
        """example_id [B] int32, valid [B] bool (False: filler of the last batch), predictions of [B, ...] arrays."""

    def detections(self) -> dict[str, np.ndarray]:
        """All predictions as columns, one row a detection, in an order that does not depend on batching."""


class Task(Protocol):
    """A named head with its loss, decoding and score. Pure; implementations are small frozen dataclasses."""

    scale: float
    classes: tuple[str, ...]

    def head(self) -> nn.Module:
        """The module that turns Features and a batch into outputs."""

    def init_state(self) -> Any:
        """State that the loss carries from step to step (a running normaliser, say); () if none."""

    def weight(self, batch: Batch, state: Any) -> tuple[jax.Array, Any]:
        """([] float32, new state) from labels and masks of the whole step, before the forward pass."""

    def loss(self, outputs: Any, batch: Batch, *, train: bool) -> LossOutput:
        """Loss of one micro-batch; the step divides by `weight`."""

    def decode(self, outputs: Any, batch: Batch) -> dict[str, jax.Array]:
        """Predictions of static shape [B, K, ...] with a `valid` mask, in seconds and displayed-frame boxes."""

    def collector(self, examples: Sequence[Any]) -> Collector:
        """A host object; examples[i] describes example_id i (video, time, duration, view)."""

    def score(self, detections: Mapping[str, np.ndarray], truth: Any) -> dict[str, float]:
        """{metric name: value}; the function that tools/evaluate.py calls too."""
