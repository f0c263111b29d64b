"""Convolutions and the maximum over time against those of jax.lax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.models import temporal_conv


@pytest.mark.parametrize(('stride', 'kernel', 'length'), [(1, 5, 4), (2, 3, 8)])
def test_depthwise(stride, kernel, length):
    x = jax.random.normal(jax.random.key(0), (2, length, 4))
    conv = temporal_conv.DepthwiseConv(4, stride, kernel)
    params = conv.init(jax.random.key(1), x)['params']
    assert params['kernel'].shape == (kernel, 1, 4)

    def grouped(params, x):
        return jax.lax.conv_general_dilated(
            x,
            params['kernel'],
            (stride,),
            [(kernel // 2, kernel // 2)],
            dimension_numbers=('NTC', 'TIO', 'NTC'),
            feature_group_count=4,
        )

    def both(params, x):
        outputs = conv.apply({'params': params}, x), grouped(params, x)
        weight = jnp.cos(jnp.arange(outputs[1].size)).reshape(outputs[1].shape)
        return tuple(jnp.sum(each * weight) for each in outputs), outputs

    jacobian, outputs = jax.jit(jax.jacrev(both, (0, 1), has_aux=True))(params, x)
    for got, want in ((outputs), (jacobian)):
        for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


def test_dense():
    x = jax.random.normal(jax.random.key(0), (2, 6, 4))
    conv = temporal_conv.TemporalConv(4, 3, use_bias=True, bias_start=-2.0)
    params = conv.init(jax.random.key(1), x)['params']
    got = conv.apply({'params': params}, x)
    padded = np.pad(x, ((0, 0), (1, 1), (0, 0)))
    want = sum(padded[:, i : i + 6] @ np.asarray(params['kernel'][i]) for i in range(3)) - 2
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_maximum_of_three():
    x = jax.random.normal(jax.random.key(0), (2, 8, 5))
    weight = jax.random.normal(jax.random.key(1), (2, 4, 5))

    def window(x):
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 1), (1, 2, 1), ((0, 0), (1, 1), (0, 0)))

    @jax.jit
    def both(x):
        each = (temporal_conv.halve_by_maximum, window)
        return [jax.value_and_grad(lambda x, f=f: jnp.sum(f(x) * weight))(x) for f in each]

    (got, slope), (want, expected) = both(x)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    np.testing.assert_allclose(slope, expected, atol=1e-6)


@pytest.mark.parametrize('kernel', [0, 2])
def test_kernels_without_a_middle_are_refused(kernel):
    for conv in (temporal_conv.TemporalConv(4, 3, kernel), temporal_conv.DepthwiseConv(4, 1, kernel)):
        with pytest.raises(ValueError, match=f'kernel is {kernel}; .* odd'):
            conv.init(jax.random.key(0), jnp.zeros((1, 4, 4)))
