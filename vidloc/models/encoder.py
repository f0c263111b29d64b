"""A transformer encoder over a grid of tokens, with learned positions."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vidloc.models import embedding, features, layers, positions
from vidloc.models import film as film_lib
from vidloc.models import tap as tap_lib


class Encoder(layers.Stack, kw_only=True):
    """A stack with position embeddings in front, a norm behind, and optionally a CLS token.

    grid: the places for which positions are learned; other grids get resized ones.
    with_norm: whether there is a norm behind.
    """

    grid: tuple[int, ...]
    with_cls: bool
    position_init: Callable[..., Array]
    with_norm: bool = True

    def setup(self):
        width = self.block.width
        tokens = math.prod(self.grid) + self.with_cls
        if self.with_cls:
            self.cls_token = self.param('cls', nn.initializers.zeros, (1, 1, width))
        self.position = self.param('position', self.position_init, (1, tokens, width))
        if self.with_norm:
            self.norm = layers.NORMS[self.block.norm](epsilon=self.block.eps, dtype=self.block.dtype)
        self.drop = nn.Dropout(self.block.dropout)
        super().setup()

    def __call__(
        self,
        x: Float[Array, 'M N D'],
        *,
        grid: tuple[int, ...],
        examples: int,
        train: bool,
        valid: Bool[Array, 'M N'] | None = None,
        taps: tuple[int, ...] = (),
        tap: tap_lib.Tap | None = None,
        film: film_lib.Copies | None = None,
    ) -> tuple[Float[Array, '_ N D'], Float[Array, '_ D'] | None, tuple[Float[Array, 'M N D'], ...], Array | None]:
        """x: M sequences over `grid`, those of an example side by side -> (tokens, CLS or None, taps, what `tap` made).

        Tokens and CLS are normed, taps are the tokens behind the layers `taps`, as they are there; so `tap` sees them.
        film: see Stack.run_blocks; a CLS token is a token.
        """
        if self.with_cls:
            token = jnp.broadcast_to(self.cls_token, (len(x), 1, x.shape[-1])).astype(x.dtype)
            x = jnp.concatenate([token, x], axis=1)  # [M, 1 + N, D]
            valid = None if valid is None else jnp.pad(valid, ((0, 0), (1, 0)), constant_values=True)
        x = x + positions.resize(self.position, self.grid, grid, cls=self.with_cls).astype(x.dtype)
        x = self.drop(x, deterministic=not train)
        if tap and self.with_cls:
            tap = tap.seen(lambda tokens: tokens[:, 1:])
        x, tapped, reduced = self.run_blocks(
            x, train=train, valid=valid, examples=examples, taps=taps, tap=tap, film=film
        )
        x = self.norm(x) if self.with_norm else x
        if not self.with_cls:
            return x, None, tapped, reduced
        return x[:, 1:], x[:, 0], tuple(tokens[:, 1:] for tokens in tapped), reduced


def encode_jointly(
    embed: embedding.TubeletEmbedding,
    encode: Encoder,
    video: Float[Array, 'B T H W 3'],
    frame_valid: Bool[Array, 'B T'],
    *,
    train: bool,
    taps: tuple[int, ...],
    tap: tap_lib.Tap | None = None,
    film: film_lib.Copies | None = None,
) -> features.Features:
    """All the tokens of a clip through one encoder over (t, h, w); its CLS token, if it has one, is the summary.

    frame_valid: False for padding frames, to whose tokens nothing attends.
    """
    x = embed(video)  # [B, t, h, w, D]
    shape = batch, t, h, w, width = x.shape
    valid = embedding.tubelet_valid(frame_valid, embed.tubelet)  # [B, T] -> [B, t]
    x, summary, tapped, reduced = encode(
        x.reshape(batch, t * h * w, width),  # [B, t, h, w, D] -> [B, t h w, D]
        grid=(t, h, w),
        examples=batch,
        train=train,
        valid=jnp.repeat(valid, h * w, axis=1),  # [B, t] -> [B, t h w]
        taps=taps,
        tap=tap and tap.seen(lambda tokens: tokens.reshape(shape)),
        film=film,
    )
    valid = film.repeat(valid, batch) if film else valid
    in_place = tuple(tokens.reshape(shape) for tokens in tapped)
    return features.Features(grid=x.reshape(-1, *shape[1:]), valid=valid, pooled=summary, taps=in_place, tapped=reduced)
