"""The whole model: one backbone, perhaps an adapter beside it, and a head for each task."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from vidloc.models import clip_loop, features, preprocess
from vidloc.models import film as film_lib
from vidloc.models import lora as lora_lib
from vidloc.models import tap as tap_lib

Batch = Mapping[str, Any]  # arrays, and perhaps Features


class Localizer(nn.Module):
    """{task: batch} -> {task: outputs}.

    backbone(video, frame_valid, train=) -> Features; heads {task: head(features, batch, train=) -> outputs}.
    side: an adapter beside the backbone, as models/losa.py; None: there is none. clips: how long videos are cut.
    still: no parameter of the backbone trains, so it runs as in evaluation, always.
    film: augments features inside the backbone in training, as models/film.py; None: nothing does.
    The parameter tree's roots are `backbone`, `side`, `film` and `heads_<task>`.
    """

    backbone: nn.Module
    heads: Mapping[str, nn.Module]
    preprocess: preprocess.Preprocess
    side: nn.Module | None = None
    clips: clip_loop.Clips = clip_loop.Clips()
    still: bool = False
    film: nn.Module | None = None

    def __call__(self, batches: Mapping[str, Batch], *, train: bool) -> dict[str, Any]:
        """Runs the tasks that the batches name and no others. With `film`, outputs in training are film.Augmented.

        A batch has either `video` [B, T, H, W, 3] uint8, `frame_valid` [B, T] and `seed` [B], or `sequence` [B, t, D]
        float32 and `sequence_valid` [B, t], a video's features over time that were computed before (with a side adapter
        also `layers` [B, K, t, D], the mean over space of the layers it taps), or `features`, a Features; and whatever
        its head reads. Raises ValueError for an unknown task.
        """
        if unknown := sorted(set(batches) - set(self.heads)):
            raise ValueError(f'no head for {", ".join(unknown)}; the heads are {", ".join(sorted(self.heads))}')
        run = self._augmented if self.film is not None and train else self._plain
        if self.film is not None and self.is_initializing():
            self.film(1)
        return {task: run(task, batch, train=train) for task, batch in sorted(batches.items())}

    def _plain(self, task: str, batch: Batch, *, train: bool) -> Any:
        return self.heads[task](self.encode(batch, train=train), batch, train=train)

    def _augmented(self, task: str, batch: Batch, *, train: bool) -> film_lib.Augmented:
        """A head's outputs of the examples and their copies, which share all but the features."""
        if 'video' not in batch:
            raise ValueError(f'task {task!r}: features are augmented inside the backbone, which needs a video')
        examples = len(batch['video'])
        copies = self.film(examples)
        rows = {name: value for name, value in batch.items() if name not in ('video', 'frame_valid')}
        repeated = {name: copies.repeat(value, examples) for name, value in rows.items()}
        outputs = self.heads[task](self._shown(batch, train=train, film=copies), repeated, train=train)
        teacher = self._unadapted(task, batch) if self.film.teacher == 'unadapted' else None
        return film_lib.told_apart(outputs, copies, teacher)

    def _unadapted(self, task: str, batch: Batch) -> Any:
        """A head's outputs with the backbone as it is without its LoRA, in evaluation; no gradient passes."""
        flat = traverse_util.flatten_dict(jax.lax.stop_gradient(self.variables['params']))
        adapted = {path for path in flat if path[0] == 'backbone' and path[-1] in lora_lib.LEAVES}
        params = traverse_util.unflatten_dict(
            {path: jnp.zeros_like(x) if path in adapted else x for path, x in flat.items()}
        )
        # The whole model, not the backbone alone, of which a head may have a part.
        return self.clone(parent=None).apply({'params': params}, task, batch, method='_judged')

    def _judged(self, task: str, batch: Batch) -> Any:
        """A head's outputs in evaluation, of a video as it is in training."""
        video = self.preprocess(batch['video'], batch['frame_valid'], batch['seed'], train=True)
        return self.heads[task](self.backbone(video, batch['frame_valid'], train=False), batch, train=False)

    def _shown(self, batch: Batch, *, train: bool, film: film_lib.Copies | None = None) -> features.Features:
        """The features of a video that the backbone sees as a whole."""
        video = self.preprocess(batch['video'], batch['frame_valid'], batch['seed'], train=train)
        augmenting = {} if film is None else {'film': film}
        return self.backbone(video, batch['frame_valid'], train=train and not self.still, **augmenting)

    def encode(self, batch: Batch, *, train: bool) -> features.Features:
        """The features of a batch; see __call__. A video of several clips, or beside an adapter, is [B, t, 1, 1, D]."""
        if 'features' in batch:
            return batch['features']
        if 'sequence' in batch:
            return self._fused(self._encoded(batch), train=train)
        if self.side is None and not self.clips.frames:
            return self._shown(batch, train=train)
        if self.is_initializing():
            return self._fused(self._started(batch), train=False)
        alone = train and not self.still and self.side is None
        encoded = clip_loop.encode(
            self.backbone.clone(parent=None),
            self.backbone.variables['params'],
            self.preprocess,
            self.clips,
            batch,
            self._tap(),
            train=train,
            alone=alone,
            key=self.make_rng('dropout') if alone and self.has_rng('dropout') else None,
        )
        return self._fused(encoded, train=train)

    def _tap(self) -> tap_lib.Tap | None:
        if self.side is None:
            return None
        return tap_lib.Tap(self.side.tapped(), self.side.clone(parent=None).reduce, self.side.reduction())

    def _started(self, batch: Batch) -> clip_loop.Encoded:
        """The first clip of a video; the parameters of the backbone start with it."""
        frames = batch['video'].shape[1]
        frames //= self.clips.count(frames)
        video, valid = batch['video'][:, :frames], batch['frame_valid'][:, :frames]
        found = self.backbone(self.preprocess(video, valid, batch['seed'], train=False), valid, train=False)
        reduced = None
        if self.side is not None:
            shapes = jax.eval_shape(self._tap(), jax.tree.map(lambda x: x[0], self.side.reduction()), found.grid)
            reduced = jnp.zeros((len(self.side.tapped()), *shapes.shape), shapes.dtype)
        return clip_loop.Encoded(jnp.mean(found.grid, axis=(2, 3), dtype=jnp.float32), found.valid, reduced)

    def _encoded(self, batch: Batch) -> clip_loop.Encoded:
        """What was computed before."""
        if self.side is not None and 'layers' not in batch:
            raise ValueError('an adapter beside the backbone needs the layers it taps; these features hold the last')
        layers = None
        if self.side is not None:
            layers = jnp.moveaxis(batch['layers'], 1, 0)  # [B, K, t, D] -> [K, B, t, D]
            if len(layers) == self.side.depth:  # All there are, not only those it taps.
                layers = layers[jnp.asarray(self.side.tapped())]
        return clip_loop.Encoded(batch['sequence'], batch['sequence_valid'], layers)

    def _fused(self, encoded: clip_loop.Encoded, *, train: bool) -> features.Features:
        x = encoded.last
        if self.still:
            x = jax.lax.stop_gradient(x)
        if self.side is not None:
            x = self.side(encoded.reduced, jax.lax.stop_gradient(x), encoded.valid, train=train)
        return features.Features(grid=x[:, :, None, None], valid=encoded.valid)  # [B, t, D] -> [B, t, 1, 1, D]


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
