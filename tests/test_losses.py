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


def test_entropies_are_those_of_the_probabilities():
    logits = np.random.default_rng(0).normal(size=(5, 4)) * 3
    p = 1 / (1 + np.exp(-logits))
    many = -p * np.log(p) - (1 - p) * np.log1p(-p)
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    one = -np.sum(p * np.log(p), axis=-1)
    for function, want in ((losses.sigmoid_entropy, many), (losses.softmax_entropy, one)):
        for each in (function, jax.jit(function)):
            np.testing.assert_allclose(each(jnp.array(logits)), want, atol=1e-6)


@jax.jit
def entropies(logits):
    return losses.sigmoid_entropy(logits).sum() + losses.softmax_entropy(logits).sum()


def test_entropies_are_finite_far_out():
    value, slope = jax.value_and_grad(entropies)(jnp.array([[-1e4, 1e4, 80.0, 0.0]]))
    assert float(value) == pytest.approx(np.log(2)) and np.all(np.isfinite(slope))


WEIGHTS = jax.jit(losses.group_relative_weights)


def test_weights_of_copies_are_gaussians_of_their_standing_in_the_group():
    d = np.random.default_rng(0).gamma(2.0, size=(6, 50))
    z = (d - d.mean(axis=0)) / (d.std(axis=0) + 1e-6)
    for weights in (losses.group_relative_weights, WEIGHTS):
        found = np.asarray(weights(jnp.array(d), 0.7))
        np.testing.assert_allclose(found, np.exp(-(z**2) / (2 * 0.7**2)), rtol=1e-4)
    assert np.all((found > 0) & (found <= 1))


def test_a_copy_alone_and_copies_that_are_alike_weigh_one():
    some = jnp.array([[0.0, 1e-8, 0.3, 7.0]])
    np.testing.assert_array_equal(WEIGHTS(some, 1.0), 1.0)
    # A mean of five would be rounded, and all of them be on one side of it.
    np.testing.assert_array_equal(WEIGHTS(jnp.tile(some, (5, 1)), 0.5), 1.0)


def test_weights_see_no_scale_or_shift_and_a_large_sensitivity_makes_all_of_them_one():
    d = jnp.array(np.random.default_rng(0).gamma(2.0, size=(5, 20)))
    np.testing.assert_allclose(WEIGHTS(3.5 * d + 2.0, 1.0), WEIGHTS(d, 1.0), rtol=1e-4)
    assert float(jnp.min(WEIGHTS(d, 1e4))) > 1 - 1e-6
    assert float(jnp.min(WEIGHTS(d, 1.0))) < 0.5


def test_weights_are_above_zero_however_small_the_sensitivity():
    """exp of a very negative number is 0 in float32, and sums of weights are divided by."""
    found = WEIGHTS(jnp.array([[1.0], [2.0]]), 1e-3)
    assert np.all(found > 0) and np.all(found < 1e-10)
    np.testing.assert_allclose(found / found.sum(axis=0), 0.5)


def test_no_gradient_passes_through_weights():
    d = jnp.array(np.random.default_rng(0).gamma(2.0, size=(5, 3)))
    assert not np.any(jax.grad(lambda d: WEIGHTS(d, 1.0).sum())(d))
    alike = jax.grad(lambda d: jnp.sum(WEIGHTS(d, 1.0) * d))(jnp.ones((4, 2)))
    np.testing.assert_array_equal(alike, 1.0)
