"""Attention along time in which every place sees its neighbours only."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

# Queries of a block, about: CPUs are slower with the small products of smaller ones, and larger ones see more in vain.
BLOCK = 64


def attend(
    query: Float[Array, 'B T h d'],
    key: Float[Array, 'B T h d'],
    value: Float[Array, 'B T h d'],
    valid: Bool[Array, 'B T'],
    window: int,
    position: Float[Array, '1 1 h w'] | None = None,
) -> Float[Array, 'B T h d']:
    """softmax(query key^T / sqrt(d) + position) value over window // 2 neighbours on each side; softmax in float32.

    window: 2 or more. valid: the keys that may be attended to; a query with none of them around it gets some finite
      mean of values.
    position: a learned number for each head and distance, from the furthest neighbour before to the furthest behind.
    The sequence is cut into blocks, each of which attends to itself and what its ends can see: nothing is T x T.
    Beltagy et al. 2020 (Longformer), section 3.1; Zhang et al. 2022 (ActionFormer), section 3.2.
    """
    batch, length, heads, width = query.shape
    reach = window // 2
    size = 2 * reach * min(-(-BLOCK // (2 * reach)), -(-length // (2 * reach)))
    count = -(-length // size)
    query, key, value = (jnp.swapaxes(x, 1, 2) for x in (query * width**-0.5, key, value))  # [B, h, T, d]
    query = jnp.pad(query, ((0, 0), (0, 0), (0, count * size - length), (0, 0)))
    query = query.reshape(batch, heads, count, size, width)
    key, value = (_around(x, reach, size, count) for x in (key, value))  # [B, h, n, size + 2 reach, d]
    distance = np.arange(size + 2 * reach) - np.arange(size)[:, None]  # [size, size + 2 reach], 0 to 2 reach are near
    near = (distance >= 0) & (distance <= 2 * reach)
    shown = _around(valid[:, None], reach, size, count)[..., None, :] & near  # [B, 1, n, size, size + 2 reach]
    scores = jnp.einsum('bhnqd,bhnkd->bhnqk', query, key, preferred_element_type=jnp.float32)
    if position is not None:
        number = position[0, 0][:, np.clip(distance, 0, 2 * reach)]  # [h, size, size + 2 reach]
        scores = scores + number[:, None].astype(jnp.float32)
    scores = jnp.where(shown, scores, jnp.finfo(jnp.float32).min)
    weights = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
    mixed = jnp.einsum('bhnqk,bhnkd->bhnqd', weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
    mixed = (mixed / jnp.sum(weights, axis=-1, keepdims=True)).astype(value.dtype)
    return jnp.swapaxes(mixed.reshape(batch, heads, count * size, width)[:, :, :length], 1, 2)


def _around(x: jax.Array, reach: int, size: int, count: int) -> jax.Array:
    """[B, h, T, ...] -> [B, h, n, size + 2 reach, ...]: blocks with what is around them; zeros beyond the ends."""
    behind = (count + 1) * size - reach - x.shape[2]
    x = jnp.pad(x, ((0, 0), (0, 0), (reach, behind), *[(0, 0)] * (x.ndim - 3)))
    x = x.reshape(*x.shape[:2], count + 1, size, *x.shape[3:])
    return jnp.concatenate([x[:, :, :-1], x[:, :, 1:, : 2 * reach]], axis=3)
