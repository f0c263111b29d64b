"""Operation counts against closed forms."""

import jax
import jax.numpy as jnp
import pytest

from vidloc.models import classification_head, flops, layers, localizer, preprocess, vivit


def _shape(*shape, dtype='float32'):
    return jax.ShapeDtypeStruct(shape, dtype)


def test_matrix_products():
    assert flops.count(jnp.matmul, _shape(3, 4), _shape(4, 5)) == 2 * 3 * 4 * 5
    assert flops.count(lambda a, b: jnp.einsum('bij,bkj->bik', a, b), _shape(7, 3, 4), _shape(7, 5, 4)) == 7 * 2 * 60


@pytest.mark.parametrize('remat', [False, True])
def test_a_scan_counts_as_often_as_it_runs(remat):
    def body(x, w):
        return jnp.tanh(x @ w), None

    def run(x, w):
        return jax.lax.scan(jax.checkpoint(body) if remat else body, x, w)[0]

    one = 2 * 3 * 4 * 4
    args = _shape(3, 4), _shape(6, 4, 4)
    assert flops.count(run, *args) == 6 * one
    # Backward: two products a layer, and the forward one again if it is rematerialised.
    gradient = jax.grad(lambda *args: run(*args).sum(), argnums=(0, 1))
    assert flops.count(gradient, *args) == (4 if remat else 3) * 6 * one


def test_convolution():
    def conv(x, k):
        names = ('NHWC', 'HWIO', 'NHWC')
        return jax.lax.conv_general_dilated(x, k, (2, 2), 'VALID', dimension_numbers=names, feature_group_count=2)

    assert flops.count(conv, _shape(5, 8, 8, 6), _shape(2, 2, 3, 10)) == 2 * 5 * 4 * 4 * 10 * 2 * 2 * 3


def test_branches_loops_and_unused_work():
    square = jax.custom_jvp(lambda x: x @ x)
    square.defjvp(lambda x, dx: (x[0] @ x[0], x[0] @ dx[0] + dx[0] @ x[0]))
    x = _shape(4, 4)
    one = 2 * 4**3
    assert flops.count(lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x), x) == 2 * one
    assert flops.count(lambda x: jax.lax.while_loop(lambda x: x[0, 0] < 9, lambda x: x @ x, x), x) == one
    assert flops.count(lambda x: (x @ x, x @ x @ x)[0], x) == one
    assert flops.count(square, x) == one


def test_a_block():
    block = layers.Block(width=8, hidden=32, heads=2)
    x = _shape(3, 5, 8)
    params = jax.eval_shape(lambda: block.init(jax.random.key(0), jnp.zeros((3, 5, 8)), train=False))
    tokens = 3 * 5
    want = 2 * tokens * (4 * 8 * 8 + 2 * 8 * 32) + 2 * 2 * tokens * 5 * 8
    assert flops.count(lambda p, x: block.apply(p, x, train=False), params, x) == want


def test_vivit_b_forward_is_near_the_published_figure():
    """284.4 G multiply-adds = 568.8 GFLOP with elementwise work by XLA's count of the unrolled public code."""
    backbone = vivit.ViViT(
        width=768,
        mlp=3072,
        heads=12,
        spatial_layers=12,
        temporal_layers=4,
        grid=(16, 14, 14),
        cls=True,
        temporal_on='rois',
    )
    heads = {'clips': classification_head.ClassificationHead(400)}
    model = localizer.Localizer(backbone, heads, preprocess.Preprocess())
    batch = {
        'video': _shape(1, 32, 224, 224, 3, dtype='uint8'),
        'frame_valid': _shape(1, 32, dtype='bool'),
        'seed': _shape(1, dtype='uint32'),
    }
    params = jax.eval_shape(lambda key: localizer.init(model, key, {'clips': batch}), jax.random.key(0))
    found = flops.count(lambda p, b: model.apply({'params': p}, b, train=False), params, {'clips': batch})
    assert 0.99 * 568.8e9 < found < 568.8e9
