"""Attention to neighbours against attention to all places, those beyond the window left out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.models import local_attention


def whole(query, key, value, valid, window, position):
    length, reach = query.shape[1], window // 2
    distance = np.arange(length) - np.arange(length)[:, None]
    scores = jnp.einsum('bqhd,bkhd->bhqk', query, key) / np.sqrt(query.shape[-1])
    scores = scores + position[0, 0][:, np.clip(distance + reach, 0, 2 * reach)]
    shown = valid[:, None, None, :] & (np.abs(distance) <= reach)
    weights = jax.nn.softmax(jnp.where(shown, scores, -1e30), axis=-1)
    return jnp.einsum('bhqk,bkhd->bqhd', weights, value)


@pytest.mark.parametrize(('length', 'window'), [(72, 19), (37, 5), (3, 8)])
def test_neighbours_are_attended_to(length, window):
    keys = jax.random.split(jax.random.key(length), 5)
    query, key, value, weight = (jax.random.normal(each, (2, length, 3, 4)) for each in keys[:4])
    position = jax.random.normal(keys[4], (1, 1, 3, 2 * (window // 2) + 1))
    valid = jnp.arange(length) < jnp.array([[length], [length - length // 3]])
    weight = weight * valid[:, :, None, None]  # a query that is not valid may see none that is

    def loss(attend, *inputs):
        return jnp.sum(attend(*inputs[:3], valid, window, inputs[3]) * weight)

    @jax.jit
    def both(*inputs):
        return [jax.value_and_grad(loss, (1, 2, 3, 4))(each, *inputs) for each in (local_attention.attend, whole)]

    got, want = both(query, key, value, position)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5, rtol=1e-5)


def test_places_that_are_not_valid_are_not_read():
    query = jax.random.normal(jax.random.key(0), (1, 40, 2, 4))
    valid = jnp.arange(40)[None] < 25
    attend = jax.jit(lambda x: local_attention.attend(query, x, x, valid, 9))
    got, other = attend(query), attend(jnp.where(valid[..., None, None], query, 1e3))
    np.testing.assert_array_equal(got[:, :25], other[:, :25])
    assert np.isfinite(got).all() and np.isfinite(other).all()
