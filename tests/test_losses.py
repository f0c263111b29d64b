import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidloc import losses


def test_sigmoid_cross_entropy_is_the_negative_log_likelihood():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 5)) * 3, rng.integers(0, 2, (4, 5)).astype(float)
    p = 1 / (1 + np.exp(-x))
    expected = -(y * np.log(p) + (1 - y) * np.log1p(-p))
    for function in (losses.sigmoid_cross_entropy, jax.jit(losses.sigmoid_cross_entropy)):
        np.testing.assert_allclose(function(jnp.array(x), jnp.array(y)), expected, rtol=1e-5, atol=1e-6)


def test_sigmoid_cross_entropy_is_finite_far_out_and_in_bfloat16():
    logits = jnp.array([-1e4, 1e4, 80.0], jnp.bfloat16)
    value, gradient = jax.value_and_grad(lambda z: losses.sigmoid_cross_entropy(z, jnp.array([1.0, 0.0, 1.0])).sum())(
        logits
    )
    assert jnp.isfinite(value)
    assert jnp.all(jnp.isfinite(gradient))


@pytest.mark.parametrize('smoothing', [0.0, 0.1, 0.4])
def test_smoothed_sigmoid_loss_is_least_at_the_smoothed_target(smoothing):
    # The minimum over the logit lies where its sigmoid is the smoothed target: 1 - s / 2 for a target of 1.
    logits = jnp.linspace(-8, 8, 4001)
    each = losses.sigmoid_cross_entropy(logits, jnp.ones_like(logits), label_smoothing=smoothing)
    best = float(jax.nn.sigmoid(logits[jnp.argmin(each)]))
    assert best == pytest.approx(min(1 - smoothing / 2, float(jax.nn.sigmoid(8.0))), abs=2e-3)


def test_softmax_cross_entropy_of_a_uniform_guess_is_log_classes():
    targets = jnp.eye(7)[:3]
    for smoothing in (0.0, 0.3):
        each = losses.softmax_cross_entropy(jnp.zeros((3, 7)), targets, label_smoothing=smoothing)
        np.testing.assert_allclose(each, np.log(7), rtol=1e-6)


def test_softmax_cross_entropy_does_not_see_a_shift_of_the_logits_and_mixes_targets():
    rng = np.random.default_rng(1)
    logits = jnp.array(rng.normal(size=(2, 4)), jnp.float32)
    one, two = jnp.eye(4)[jnp.array([0, 1])], jnp.eye(4)[jnp.array([2, 3])]
    mixed = losses.softmax_cross_entropy(logits + 5.0, 0.25 * one + 0.75 * two)
    apart = 0.25 * losses.softmax_cross_entropy(logits, one) + 0.75 * losses.softmax_cross_entropy(logits, two)
    np.testing.assert_allclose(mixed, apart, rtol=1e-5)
