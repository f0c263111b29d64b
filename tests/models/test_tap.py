"""What is taken from layers while they run, on a stack and through every backbone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.models import internvideo2, layers, tap, videomae, vivit, vivit_joint, vjepa2

BLOCK = layers.Block(width=8, hidden=12, heads=2, parent=None)
# One of each backbone, with every layer given along, to compare with.
BACKBONES = {
    'vivit': vivit.ViViT(
        width=8, mlp=12, heads=2, spatial_layers=2, temporal_layers=1, grid=(2, 2, 3), patch=(4, 4), taps=(0, 1, 2)
    ),
    'vivit_joint': vivit_joint.JointViViT(
        width=8, mlp=12, heads=2, layers=3, grid=(2, 2, 3), patch=(4, 4), taps=(0, 1, 2)
    ),
    'videomae': videomae.VideoMAE(width=8, mlp=12, heads=2, layers=3, grid=(2, 2, 3), patch=(4, 4), taps=(0, 1, 2)),
    'vjepa2': vjepa2.VJepa2(width=24, mlp=12, heads=2, layers=3, patch=(4, 4), taps=(0, 1, 2)),
    'internvideo2': internvideo2.InternVideo2(
        width=16, mlp=12, heads=2, layers=3, grid=(4, 2, 3), patch=(4, 4), taps=(0, 1, 2)
    ),
}


def scaled(params, x):
    """A reduction with a parameter of its own: the mean over places, times it."""
    return jnp.mean(x, axis=(2, 3)) * params['scale']


def a_tap(places):
    return tap.Tap(places, scaled, {'scale': jnp.arange(1.0, len(places) + 1)})


@pytest.mark.parametrize('name', BACKBONES)
@pytest.mark.parametrize('places', [(0, 1, 2), (0, 2), (1,)])
def test_a_tap_sees_what_each_layer_of_a_backbone_gives(name, places):
    model = BACKBONES[name]
    video = jax.random.normal(jax.random.key(1), (2, 4, 8, 12, 3))
    valid = jnp.ones((2, 4), bool)
    params = jax.jit(lambda key: model.init(key, video, valid, train=False))(jax.random.key(0))
    given = a_tap(places)
    got = jax.jit(lambda params: model.apply(params, video, valid, train=False, tap=given))(params)
    wanted = [np.asarray(got.taps[i]).mean(axis=(2, 3)) * (k + 1) for k, i in enumerate(places)]
    np.testing.assert_allclose(got.tapped, np.stack(wanted), atol=1e-5)
    assert model.apply(params, video, valid, train=False).tapped is None


@pytest.mark.parametrize('segments', [(), ((0, 0), (1, 3)), ((0, 2), (3, 3))])
def test_segments_change_nothing(segments):
    stack = layers.Stack(block=BLOCK, layers=4, segments=segments)
    x = jax.random.normal(jax.random.key(1), (2, 3, 8))
    params = stack.init(jax.random.key(0), x, train=False)
    given = tap.Tap((1, 3), lambda params, x: jnp.sum(x, axis=1) + params, jnp.arange(2.0))
    _, taps, reduced = stack.apply(params, x, train=False, taps=(1, 3), tap=given, method='run_blocks')
    np.testing.assert_allclose(reduced, [taps[0].sum(axis=1), taps[1].sum(axis=1) + 1], atol=1e-5)


def test_a_tap_trains_its_own_parameters_and_no_layer():
    stack = layers.Stack(block=BLOCK, layers=3)
    x = jax.random.normal(jax.random.key(1), (2, 3, 8))
    params = stack.init(jax.random.key(0), x, train=False)

    def loss(params, scale):
        given = tap.Tap((0, 2), lambda scale, x: scale * x, scale)
        return jnp.sum(stack.apply(params, x, train=False, tap=given, method='run_blocks')[2] ** 2)

    layer, own = jax.grad(loss, (0, 1))(params, jnp.array([1.0, 2.0]))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(layer))
    assert np.abs(own).min() > 0.1


def test_layers_that_are_alike_run_together():
    given = tap.Tap((3, 4, 7), lambda params, x: x, {})
    assert given.runs(0, 8) == [(0, 2, False), (3, 4, True), (5, 6, False), (7, 7, True), (8, 8, False)]
    assert given.runs(3, 4) == [(3, 4, True)]
    assert given.between(4, 7).layers == (0, 3)
    with pytest.raises(ValueError, match=r'taps \[3, 4, 7\]: the layers are 0 to 1'):
        stack = layers.Stack(block=BLOCK, layers=2)
        jax.eval_shape(
            lambda: stack.init(jax.random.key(0), jnp.ones((1, 2, 8)), train=False, tap=given, method='run_blocks')
        )
