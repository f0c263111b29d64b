"""A long video through a backbone that was made for short ones: clip by clip, in a bounded amount of memory.

What the backward pass keeps of it is a policy, `Clips.memory`; the results and gradients are the same:

- 'store': all that the derivatives of reductions and adapters read, and every tapped layer's map (or, of a backbone
  that trains, whatever its own `remat` keeps).
- 'remat_adapters': every tapped layer's map; reductions and adapters are computed again from them.
- 'remat_clips': what the side adapter reduces a layer to, and nothing of the backbone, which runs again, one chunk of
  clips at a time. The forward pass of the backbone is paid twice.
"""

import dataclasses
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from vidloc.models import preprocess as preprocess_lib
from vidloc.models import tap as tap_lib

MEMORY = ('remat_clips', 'remat_adapters', 'store')


@dataclasses.dataclass(frozen=True)
class Clips:
    """How a video is cut.

    frames: of a clip, which the backbone sees alone; 0: the video is one clip. chunk: clips of each video that run at
    a time. memory: what the backward pass keeps, see above.
    """

    frames: int = 0
    chunk: int = 1
    memory: str = 'remat_clips'

    def __post_init__(self):
        if self.memory not in MEMORY:
            raise ValueError(f'clips.memory is {self.memory!r}; it must be one of {", ".join(MEMORY)}')
        if self.frames < 0 or self.chunk < 1:
            raise ValueError(f'clips.frames {self.frames} and clips.chunk {self.chunk} must be at least 0 and 1')

    def count(self, frames: int) -> int:
        """Clips of a video of so many frames. Raises ValueError if it does not split into whole chunks of them."""
        each = self.frames or frames
        if frames % each:
            raise ValueError(f'a video of {frames} frames does not split into clips of {each} (clips.frames)')
        count = frames // each
        if count % min(self.chunk, count):
            raise ValueError(f'{count} clips do not split into chunks of {self.chunk} (clips.chunk)')
        return count


@flax.struct.dataclass
class Encoded:
    """A video, clip after clip: t = clips * tokens of a clip.

    last: [B, t, D] float32, the backbone's output, mean over space. valid: [B, t] bool. reduced: [K, B, t, d], what the
    side adapter made of the layers it taps; None without one.
    """

    last: jax.Array
    valid: jax.Array
    reduced: jax.Array | None


def encode(
    backbone: nn.Module,
    params: Any,
    preprocess: preprocess_lib.Preprocess,
    clips: Clips,
    batch: dict[str, jax.Array],
    tap: tap_lib.Tap | None,
    *,
    train: bool,
    alone: bool,
    key: jax.Array | None,
) -> Encoded:
    """batch: video [B, T, H, W, 3] uint8, frame_valid [B, T], seed [B].

    backbone: unbound, with its parameters. train: colours are augmented; alone: the backbone is in training, too, and
    draws what it draws from `key`. Raises ValueError if the video does not split into clips and chunks.
    """
    video, frame_valid, seed = batch['video'], batch['frame_valid'], batch['seed']
    size, frames = video.shape[:2]
    count = clips.count(frames)
    each, together = frames // count, min(clips.chunk, count)
    if tap and clips.memory != 'store':
        tap = dataclasses.replace(tap, reduce=jax.checkpoint(tap.reduce, prevent_cse=False))

    def chunk(params: Any, reduction: Any, index: jax.Array) -> Encoded:
        start = index * together * each
        clip = jax.lax.dynamic_slice_in_dim(video, start, together * each, axis=1)
        clip = clip.reshape(size * together, each, *video.shape[2:])  # [B, c f, ...] -> [B c, f, H, W, 3]
        valid = jax.lax.dynamic_slice_in_dim(frame_valid, start, together * each, axis=1)
        valid = valid.reshape(size * together, each)
        # A clip of nothing but padding runs like another one, for nothing can attend to nothing; it is marked below.
        real = jnp.any(valid, axis=1, keepdims=True)  # [B c, 1]
        shown = valid | ~real
        x = preprocess(clip, shown, jnp.repeat(seed, together), train=train)
        rngs = {'dropout': jax.random.fold_in(key, index)} if alone and key is not None else {}
        own = tap and dataclasses.replace(tap, params=reduction)
        found = backbone.apply({'params': params}, x, shown, train=alone, tap=own, rngs=rngs)
        last = jnp.mean(found.grid.astype(jnp.float32), axis=(2, 3))  # [B c, t, D]
        reduced = found.tapped
        if reduced is not None:
            reduced = reduced.reshape(len(reduced), size, -1, reduced.shape[-1])  # [K, B c, t, d] -> [K, B, c t, d]
        return Encoded(
            last.reshape(size, -1, last.shape[-1]),  # [B, c t, D]
            (found.valid & real).reshape(size, -1),  # [B, c t]
            reduced,
        )

    if clips.memory == 'remat_clips':
        chunk = jax.checkpoint(chunk, prevent_cse=False)
    reduction = tap.params if tap else None
    parts = jax.lax.map(lambda index: chunk(params, reduction, index), jnp.arange(count // together))

    def joined(parts: jax.Array, axis: int) -> jax.Array:
        """[chunks, ...] -> their `axis` (counted without the chunks) one after another."""
        moved = jnp.moveaxis(parts, 0, axis)  # [..., chunks, c t, ...]
        return moved.reshape(*moved.shape[:axis], -1, *moved.shape[axis + 2 :])

    reduced = None if parts.reduced is None else joined(parts.reduced, 2)  # [K, B, t, d]
    return Encoded(joined(parts.last, 1), joined(parts.valid, 1), reduced)
