"""Imported weights as a model that runs."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vidloc.checkpoints import actionformer, families
from vidloc.checkpoints.key_table import Row
from vidloc.models.actionformer import ActionFormer
from vidloc.models.features import Features


class ImportFailed(ValueError):
    """The weights are not exactly those of the model; the text lists all the differences. rows: of the table."""

    def __init__(self, text: str, rows: Sequence[Row] = ()) -> None:
        super().__init__(text)
        self.rows = tuple(rows)


@dataclasses.dataclass(frozen=True)
class Imported:
    """Weights in a model of their own sizes.

    backbone, head: modules; None where the file has none. params: {'backbone': ..., 'head': ...} in run form, NumPy.
    found: what was recognised (family, sizes, labels, preprocessing). rows, table: what became of every array.
    Weights with a backbone give `features` and `logits` of a video, an ActionFormer `outputs` of features.
    """

    found: families.Found
    backbone: nn.Module | None
    head: nn.Module | None
    params: dict[str, Any]
    rows: tuple[Row, ...]
    table: str

    @property
    def family(self) -> str:
        return self.found.family

    @property
    def labels(self) -> tuple[str, ...] | None:
        return self.found.labels

    @property
    def preprocessing(self) -> families.Preprocessing | None:
        return self.found.preprocessing

    def features(self, video: Any) -> Features:
        """video: normalised float [B, T, H, W, 3]. Raises ImportFailed if the file has no backbone."""
        if self.backbone is None:
            raise ImportFailed(f'these weights are a head without a backbone{self._instead}')
        return self._features(self._placed['backbone'], jnp.asarray(video, jnp.float32))

    def logits(self, video: Any) -> jax.Array:
        """video: normalised float [B, T, H, W, 3] -> [B, classes]. Raises ImportFailed without backbone or head."""
        if self.backbone is None or self.head is None:
            lacking = 'classifier' if self.backbone is not None else 'backbone'
            raise ImportFailed(f'these weights have no {lacking}{self._instead}')
        return self._logits(self._placed, jnp.asarray(video, jnp.float32))

    def outputs(self, features: Any, mask: Any) -> tuple[jax.Array, jax.Array]:
        """What an ActionFormer says of sequences of features, as its public inference runs it.

        features: [B, T, C]; mask: [B, T] bool, False for padding at the end. T is padded with zeros to
        `padded_length(T)`, for which the results are: logits [B, P, C'] and distances [B, P, 2] to start and end, not
        below 0, in strides of their level, float32. P counts the points of all levels, the finest level first (see
        ops/points.py); what the padding says means nothing. Raises ImportFailed if this is no such head, or the shapes
        are wrong.
        """
        length = np.shape(features)[1] if np.ndim(features) == 3 else 0
        padded = self.padded_length(length)
        inputs = self.found.head['inputs']
        if not length or np.shape(features)[2] != inputs or np.shape(mask) != np.shape(features)[:2]:
            raise ImportFailed(
                f'features have the shape {list(np.shape(features))} and their mask {list(np.shape(mask))}; they must '
                f'be [B, T, {inputs}] and [B, T], T above 0'
            )
        room = (0, padded - length)
        features = np.pad(np.asarray(features, np.float32), ((0, 0), room, (0, 0)))  # [B, T, C] -> [B, padded, C]
        mask = np.pad(np.asarray(mask, bool), ((0, 0), room))
        return self._outputs(self._placed['head'], jnp.asarray(features), jnp.asarray(mask))

    def padded_length(self, length: int) -> int:
        """To how many features the public inference pads `length`: max_length, or beyond it the next multiple of what
        strides and windows need (meta_archs.py, preprocessing). Raises ImportFailed if this is no such head.
        """
        if not isinstance(self.head, ActionFormer):
            raise ImportFailed('these weights are no head over sequences of features; they have features and logits')
        step = actionformer.divisor(self.head.windows, self.head.levels)
        return self.head.max_length if length <= self.head.max_length else -(-length // step) * step

    @property
    def _instead(self) -> str:
        return ': call outputs(features, mask)' if isinstance(self.head, ActionFormer) else ''

    @functools.cached_property
    def _placed(self) -> Any:
        """The parameters where they are computed with; on CPUs that is where they are."""
        return self.params if jax.default_backend() == 'cpu' else jax.device_put(self.params)

    @functools.cached_property
    def _features(self) -> Callable[[Any, jax.Array], Features]:
        return jax.jit(self._encode)

    @functools.cached_property
    def _logits(self) -> Callable[[Any, jax.Array], jax.Array]:
        def run(params: Any, video: jax.Array) -> jax.Array:
            return self.head.apply({'params': params['head']}, self._encode(params['backbone'], video), {}, train=False)

        return jax.jit(run)

    @functools.cached_property
    def _outputs(self) -> Callable[[Any, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
        def run(params: Any, features: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
            found = self.head.apply({'params': params}, features, mask, train=False, method='run')
            return found.logits, found.distances

        return jax.jit(run)

    def _encode(self, params: Any, video: jax.Array) -> Features:
        return self.backbone.apply({'params': params}, video, jnp.ones(video.shape[:2], bool), train=False)
