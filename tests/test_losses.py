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


def focal_by_hand(x, y, alpha=0.25, gamma=2.0):
    p = 1 / (1 + np.exp(-x))
    likelihood = p * y + (1 - p) * (1 - y)
    cross = -(y * np.log(p) + (1 - y) * np.log1p(-p))
    return (alpha * y + (1 - alpha) * (1 - y)) * (1 - likelihood) ** gamma * cross


def test_sigmoid_focal_is_the_formula_also_for_soft_targets():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 5)) * 3
    for y in (rng.integers(0, 2, (4, 5)).astype(float), rng.random((4, 5))):
        for function in (losses.sigmoid_focal, jax.jit(losses.sigmoid_focal)):
            np.testing.assert_allclose(function(jnp.array(x), jnp.array(y)), focal_by_hand(x, y), rtol=1e-5, atol=1e-7)


def test_sigmoid_focal_without_its_two_numbers_is_half_the_cross_entropy():
    logits, targets = jnp.linspace(-4, 4, 9), jnp.array([0.0, 1.0, 0.0] * 3)
    each = losses.sigmoid_focal(logits, targets, alpha=0.5, gamma=0.0)
    np.testing.assert_allclose(each, 0.5 * losses.sigmoid_cross_entropy(logits, targets), rtol=1e-6)


def test_sigmoid_focal_is_finite_far_out_and_in_bfloat16():
    logits, targets = jnp.array([-1e4, 1e4, 80.0, -80.0], jnp.bfloat16), jnp.array([1.0, 0.0, 1.0, 0.0])
    value, gradient = jax.jit(jax.value_and_grad(lambda z: losses.sigmoid_focal(z, targets).sum()))(logits)
    assert jnp.isfinite(value)
    assert jnp.all(jnp.isfinite(gradient))
    # What is certain and right is not rounded to 0 too early: (e^-20)^2 * e^-20 / 4.
    right = losses.sigmoid_focal(jnp.array([20.0]), jnp.array([1.0]))
    np.testing.assert_allclose(right, 0.25 * np.exp(-60.0), rtol=1e-4)


def test_diou_1d_by_hand():
    predicted = jnp.array([[1.0, 3.0], [2.0, 2.0], [0.0, 4.0]])
    target = jnp.array([[1.0, 3.0], [1.0, 3.0], [4.0, 0.0]])
    # Equal; shifted by 1: IoU 3 / 5, hull 5; only the point in common: IoU 0, hull 8, centres 4 apart.
    expected = [0.0, 1 - 3 / 5 + (1 / 5) ** 2, 1 + (4 / 8) ** 2]
    for function in (losses.diou_1d, jax.jit(losses.diou_1d)):
        np.testing.assert_allclose(function(predicted, target), expected, atol=1e-6)


def test_diou_1d_is_symmetric_and_has_no_unit():
    rng = np.random.default_rng(0)
    one, other = rng.random((2, 50, 2)).astype(np.float32) * 5
    diou = jax.jit(losses.diou_1d)
    each = np.asarray(diou(one, other))
    np.testing.assert_allclose(diou(other, one), each, rtol=1e-5)
    np.testing.assert_allclose(diou(8 * one, 8 * other), each, rtol=1e-4)
    np.testing.assert_allclose(diou(one[:, ::-1], other[:, ::-1]), each, rtol=1e-5)
    assert ((each >= 0) & (each <= 2)).all()


def test_diou_1d_of_segments_without_length_has_finite_gradients():
    zero, some = jnp.zeros((1, 2)), jnp.array([[1.0, 2.0]])
    both = jax.jit(jax.value_and_grad(lambda z, t: losses.diou_1d(z, t).sum()))
    for predicted, target in ((zero, zero), (zero, some), (some, zero)):
        value, gradient = both(predicted, target)
        assert jnp.isfinite(value)
        assert float(jnp.abs(gradient).max()) < 10
    assert float(losses.diou_1d(zero, zero)[0]) == 1.0
