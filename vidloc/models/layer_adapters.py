"""The short- and long-range adapters of one layer of a backbone (Gupta et al. 2024, "LoSA", sections 3.2 to 3.4)."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vidloc.models import cross_attention, dense

# Gating with a learned number: how it starts. The others are 'cosine' and 'none', see losa.LoSA.
GATES = {'zero': nn.initializers.zeros, 'one': nn.initializers.ones, 'random': nn.initializers.normal(1.0)}


class RangeAdapter(nn.Module):
    """One adapter of one layer: its tokens attend to the last layer's, are brought to its places in time, and gated.

    tokens, last_tokens: time tokens of a clip in this layer and in the last one. keys: 'video' or 'clip'.
    """

    width: int
    heads: int
    tokens: int
    last_tokens: int
    keys: str
    positions: str
    gating: str
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, 'B N d'],
        source: Float[Array, 'B T d'],
        valid: Bool[Array, 'B T'],
        up: Callable[[jax.Array], jax.Array],
    ) -> Float[Array, 'B T W']:
        """up: what comes between the adapter and its gate. Gives float32."""
        clips, rest = divmod(valid.shape[1], self.last_tokens)
        if rest and (self.keys == 'clip' or self.tokens != self.last_tokens):
            raise ValueError(
                f'{valid.shape[1]} time tokens are no whole number of clips of {self.last_tokens} tokens, which '
                "adapters need that attend within a clip (short_keys='clip') or change the tokens of one (stages)"
            )
        tables = None
        if self.positions == 'sincos':
            # Both in steps of the last layer's tokens.
            places = _centres(x.shape[1], source.shape[1]), np.arange(source.shape[1])
            tables = tuple(cross_attention.sinusoid(each, self.width) for each in places)
        attend = cross_attention.CrossAttention(self.width, self.heads, self.dtype, name='attention')
        adapted = attend(x, source, valid, parts=clips if self.keys == 'clip' else 1, tables=tables)
        if self.tokens != self.last_tokens:
            to_last = dense.Dense((self.tokens,), (self.last_tokens,), _resampling, dtype=self.dtype, name='time')
            adapted = adapted.reshape(-1, clips, self.tokens, self.width).swapaxes(2, 3)  # [B, clips, d, tokens]
            adapted = to_last(adapted).swapaxes(2, 3).reshape(source.shape)
        adapted = up(adapted).astype(jnp.float32)  # [B, T, W]
        if self.gating in GATES:
            return adapted * self.param('gate', GATES[self.gating], ())
        if self.gating == 'cosine':
            return adapted * _similarity(x, source, valid, self.tokens, self.last_tokens)
        return adapted


class LayerAdapters(nn.Module):
    """The adapters of one layer and the up-projection they share.

    keys: {'short' or 'long', whichever there are: the keys of its attention}. outputs: channels behind the
      up-projection; 0: there is none. Others: see RangeAdapter.
    """

    keys: Mapping[str, str]
    width: int
    outputs: int
    heads: int
    tokens: int
    last_tokens: int
    positions: str
    gating: str
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Mapping[str, Float[Array, 'B N d']], source: Float[Array, 'B T d'], valid: Bool[Array, 'B T']
    ) -> dict[str, Float[Array, 'B T W']]:
        """x: what each of the adapters asks with -> {adapter: what it adds to its sum}."""
        up = dense.Dense((self.width,), (self.outputs,), dtype=self.dtype, name='up') if self.outputs else _unchanged
        tokens = (self.tokens, self.last_tokens)
        return {
            kind: RangeAdapter(
                self.width, self.heads, *tokens, keys, self.positions, self.gating, self.dtype, name=kind
            )(x[kind], source, valid, up)
            for kind, keys in self.keys.items()
        }


def _unchanged(x: jax.Array) -> jax.Array:
    return x


def _centres(cells: int, length: int) -> np.ndarray:
    """Middles of equal cells that share out `length` steps, in steps from the middle of the first one."""
    return (np.arange(cells) + 0.5) * length / cells - 0.5


def _resampling(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """[tokens, others]: linear interpolation between the middles of the tokens, those at the ends repeated."""
    tokens, others = shape
    place = np.clip(_centres(others, tokens), 0, tokens - 1)
    return jnp.asarray(np.maximum(0.0, 1.0 - np.abs(place - np.arange(tokens)[:, None])), jnp.float32)


def _similarity(x: jax.Array, source: jax.Array, valid: jax.Array, tokens: int, last_tokens: int) -> jax.Array:
    """Cosine of the angle between the mean valid tokens of x [B, N, d] and source [B, T, d] -> [B, 1, 1]."""
    ours = valid
    if tokens != last_tokens:
        nearest = np.arange(tokens) * last_tokens // tokens
        ours = valid.reshape(len(valid), -1, last_tokens)[:, :, nearest].reshape(len(valid), -1)  # [B, T] -> [B, N]
    # Sums have the same angle as means. The small number is for examples without a valid token.
    first, second = (jnp.sum(y * shown[:, :, None], axis=1) for y, shown in ((x, ours), (source, valid)))  # [B, d]
    lengths = jnp.sum(jnp.square(first), axis=-1) * jnp.sum(jnp.square(second), axis=-1)
    return (jnp.sum(first * second, axis=-1) * jax.lax.rsqrt(lengths + 1e-12))[:, None, None]
