import numpy as np
import pytest

from vidloc.synthetic import quaternions as quat


@pytest.fixture
def pairs():
    rng = np.random.default_rng(0)
    return quat.normalise(rng.normal(size=(2, 50, 4)))


def test_product_is_the_product_of_matrices(pairs):
    a, b = pairs
    np.testing.assert_allclose(quat.matrix(quat.multiply(a, b)), quat.matrix(a) @ quat.matrix(b), atol=1e-12)


def test_matrices_are_rotations(pairs):
    m = quat.matrix(pairs[0])
    np.testing.assert_allclose(m @ np.swapaxes(m, -1, -2), np.broadcast_to(np.eye(3), m.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(m), 1.0)


@pytest.mark.parametrize(
    ('axis', 'start', 'end'), [('x', [0, 1, 0], [0, 0, 1]), ('y', [0, 0, 1], [1, 0, 0]), ('z', [1, 0, 0], [0, 1, 0])]
)
def test_quarter_turns_are_right_handed(axis, start, end):
    np.testing.assert_allclose(quat.matrix(quat.about(axis, np.pi / 2)) @ start, end, atol=1e-12)


def test_rotation_vectors_agree_with_axes_and_allow_zero():
    np.testing.assert_allclose(quat.from_vector(np.array([0.0, 0.7, 0.0])), quat.about('y', 0.7), atol=1e-12)
    np.testing.assert_array_equal(quat.from_vector(np.zeros(3)), [1, 0, 0, 0])


def test_blend_goes_the_short_way_and_keeps_unit_length(pairs):
    a, b = pairs
    half = quat.blend(a, b, np.full((50, 1), 0.5))
    np.testing.assert_allclose(np.linalg.norm(half, axis=-1), 1.0)
    np.testing.assert_allclose(quat.matrix(half), quat.matrix(quat.blend(a, -b, np.full((50, 1), 0.5))), atol=1e-12)
    np.testing.assert_allclose(quat.matrix(quat.blend(a, b, np.ones((50, 1)))), quat.matrix(b), atol=1e-12)


def test_heading_is_the_turn_about_y_also_of_a_leaning_body():
    leaning = quat.multiply(quat.about('y', 0.8), quat.about('z', -1.1))
    np.testing.assert_allclose(quat.heading(leaning), 0.8)
