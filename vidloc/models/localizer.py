"""The whole model: one backbone and a head for each task."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vidloc.models import features, preprocess

Batch = Mapping[str, Any]  # arrays, and perhaps Features


class Localizer(nn.Module):
    """{task: batch} -> {task: outputs}.

    backbone(video, frame_valid, train=) -> Features; heads {task: head(features, batch, train=) -> outputs}.
    The parameter tree's roots are `backbone` and `heads_<task>`.
    """

    backbone: nn.Module
    heads: Mapping[str, nn.Module]
    preprocess: preprocess.Preprocess

    def __call__(self, batches: Mapping[str, Batch], *, train: bool) -> dict[str, Any]:
        """Runs the tasks that the batches name and no others.

        A batch has either `video` [B, T, H, W, 3] uint8, `frame_valid` [B, T] and `seed` [B], or `features`, a
        Features that was computed before; and whatever its head reads. Raises ValueError for an unknown task.
        """
        if unknown := sorted(set(batches) - set(self.heads)):
            raise ValueError(f'no head for {", ".join(unknown)}; the heads are {", ".join(sorted(self.heads))}')
        return {
            task: self.heads[task](self.encode(batch, train=train), batch, train=train)
            for task, batch in sorted(batches.items())
        }

    def encode(self, batch: Batch, *, train: bool) -> features.Features:
        """The features of a batch; see __call__."""
        if 'features' in batch:
            return batch['features']
        video = self.preprocess(batch['video'], batch['frame_valid'], batch['seed'], train=train)
        return self.backbone(video, batch['frame_valid'], train=train)


def init(localizer: Localizer, key: jax.Array, batches: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Parameters in run form, for all the heads.

    batches: one of every task, arrays or jax.ShapeDtypeStruct; only shapes matter, and no parameter's shape depends on
      theirs. Works under jax.jit and jax.eval_shape. Raises ValueError if a task has no batch.
    """
    if missing := sorted(set(localizer.heads) - set(batches)):
        raise ValueError(f'initialisation needs a batch of every task; missing: {", ".join(missing)}')
    # One example is enough, and zeros do: only shapes are read.
    example = jax.tree.map(lambda x: jnp.zeros((1, *x.shape[1:]), x.dtype), dict(batches))
    return localizer.init(key, example, train=False)['params']
