"""VideoMAE against the outputs and gradients of transformers, and against a forward in float64."""

import functools
import importlib.util
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.models import classification_head, layers, videomae

_SPEC = importlib.util.spec_from_file_location(
    'videomae_reference', pathlib.Path(__file__).with_name('videomae_reference.py')
)
reference = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(reference)

CASE = pathlib.Path(__file__).parents[1] / 'reference/backbones/videomae_b'
OF_CASE = {'width': 24, 'mlp': 96, 'layers': 2, 'heads': 3, 'grid': (2, 4, 4), 'patch': (4, 4), 'eps': 1e-12}
TINY = videomae.VideoMAE(width=12, mlp=20, layers=3, heads=2, grid=(2, 3, 3), patch=(4, 4))


@pytest.fixture(scope='module')
def case():
    names = reference.read_safetensors(CASE / 'model.safetensors')
    video = np.load(CASE / 'input.npy').transpose(0, 1, 3, 4, 2)  # [B, T, 3, H, W] -> [B, T, H, W, 3]
    with np.load(CASE / 'outputs.npz') as outputs:
        return reference.from_hugging_face(names, layers_count=2, heads=3), video, dict(outputs)


def test_the_reference_case(case):
    params, video, want = case
    model = videomae.VideoMAE(**OF_CASE, taps=(1, 0))
    head = classification_head.ClassificationHead(3, norm=True, norm_eps=1e-5)

    def run(video, params):
        encoded = model.apply({'params': params['backbone']}, video, jnp.ones(video.shape[:2], bool), train=False)
        logits, within = head.apply({'params': params['head']}, encoded, {}, train=False, capture_intermediates=True)
        start = model.bind({'params': params['backbone']})
        embedded = start.embedding(video).reshape(1, 32, 24) + start.positions((2, 4, 4))
        normed = within['intermediates']['norm']['__call__'][0]
        return jnp.sum(logits * jnp.linspace(-1.0, 1.0, 3)), (encoded, logits, normed, embedded)

    (_, outputs), gradient = jax.jit(jax.value_and_grad(run, has_aux=True))(video, layers.to_run(params, {}))
    got, logits, normed, embedded = outputs
    flat = {'embeddings': embedded, 'layer_0': got.taps[1], 'layer_1': got.taps[0]}
    for name, value in flat.items():
        np.testing.assert_allclose(value.reshape(1, 32, 24), want[name], atol=2e-5, rtol=0, err_msg=name)
    assert got.grid.shape == (1, 2, 4, 4, 24) and got.valid.all() and got.pooled is None
    np.testing.assert_array_equal(got.grid, got.taps[0])
    np.testing.assert_allclose(normed, want['pooled'], atol=2e-5, rtol=0)
    np.testing.assert_allclose(logits, want['logits'], atol=2e-5, rtol=0)
    expected = want['grad_input'].transpose(0, 1, 3, 4, 2)
    assert np.abs(gradient - expected).max() < 1e-3 * np.abs(expected).max()


def shapes_of(model, classes=None):
    """Of all parameters in run form, with those of a head with a norm if there are classes."""
    video = jnp.zeros((1, model.tubelet, *model.patch, 3))
    valid = jnp.ones((1, model.tubelet), bool)

    def start():
        encoded, params = model.init_with_output(jax.random.key(0), video, valid, train=False)
        if classes is None:
            return {'backbone': params['params']}
        head = classification_head.ClassificationHead(classes, norm=True)
        return {'backbone': params['params'], 'head': head.init(jax.random.key(0), encoded, {}, train=False)['params']}

    return jax.eval_shape(start)


@functools.cache
def random_params(model, classes=None):
    """Canonical parameters with random biases and norms: a default start would hide mistakes."""
    rng = np.random.default_rng(0)
    paths, tree = jax.tree_util.tree_flatten_with_path(layers.to_canonical(shapes_of(model, classes)))
    return jax.tree.unflatten(
        tree, [(path[-1].key == 'scale') + rng.normal(0, 0.3, leaf.shape).astype(np.float32) for path, leaf in paths]
    )


@functools.cache
def compiled(model):
    return jax.jit(lambda params, video, valid: model.apply({'params': params}, video, valid, train=False))


def some_video(frames, height, width, batch=2):
    rng = np.random.default_rng(frames)
    return rng.normal(size=(batch, frames, height, width, 3)).astype(np.float32)


ODD = TINY.clone(width=33, heads=3, layer_scale=0.1, final_norm=True, eps=1e-5, taps=(2, 0))


@pytest.mark.parametrize(
    ('model', 'shape'),
    [
        (TINY, (4, 12, 12)),  # the native grid
        (TINY, (6, 8, 20)),  # more frames, another size, not square
        (ODD, (1, 16, 12)),  # an image; an odd width and heads of 11 channels
    ],
)
def test_any_size_and_length(model, shape):
    params, video = random_params(model), some_video(*shape)
    valid = np.ones(video.shape[:2], bool)
    got = compiled(model)(layers.to_run(params, {})['backbone'], video, valid)
    want, found, _ = reference.forward(params, model, video)
    np.testing.assert_allclose(got.grid, want, atol=1e-4, rtol=0)
    assert len(got.taps) == len(model.taps)
    for tap, value in zip(model.taps, got.taps, strict=True):
        np.testing.assert_allclose(value, found[tap], atol=1e-4, rtol=0)


def test_padding_frames_are_not_attended_to():
    params, video = random_params(TINY), some_video(6, 8, 20)
    valid = np.ones((2, 6), bool)
    valid[0, 4:] = False
    valid[1, 3:] = False  # the second tubelet has one frame left
    run = layers.to_run(params, {})['backbone']
    got = compiled(TINY)(run, video, valid)
    np.testing.assert_array_equal(got.valid, [[True, True, False]] * 2)
    want, _, _ = reference.forward(params, TINY, video, frames_valid=valid)
    np.testing.assert_allclose(got.grid, want, atol=1e-4, rtol=0)
    video[:, 4:] = 9.0
    np.testing.assert_array_equal(compiled(TINY)(run, video, valid).grid[:, :2], got.grid[:, :2])


def test_gradients_of_all_parameters():
    model = TINY.clone(layers=1, layer_scale=0.1, final_norm=True)
    head = classification_head.ClassificationHead(3, norm=True, norm_eps=1e-5)
    params, video = random_params(model, 3), some_video(2, 4, 8, batch=1)
    weight = np.linspace(-1, 1, 3)

    @jax.jit
    @jax.grad
    def gradient(params):
        clip = jnp.asarray(video)
        encoded = model.apply({'params': params['backbone']}, clip, jnp.ones((1, 2), bool), train=False)
        return jnp.sum(head.apply({'params': params['head']}, encoded, {}, train=False) * weight)

    found = layers.to_canonical(gradient(layers.to_run(params, {})))
    rng = np.random.default_rng(1)
    paths, tree = jax.tree_util.tree_flatten_with_path(params)
    paths = [(path, value.astype(np.float64)) for path, value in paths]
    slopes = {jax.tree_util.keystr(path): value for path, value in jax.tree_util.tree_flatten_with_path(found)[0]}
    assert len(slopes) == len(paths)

    def moved(leaf, step):
        leaves = [value + step if i == leaf else value for i, (_, value) in enumerate(paths)]
        return (reference.forward(jax.tree.unflatten(tree, leaves), model, video, head_eps=1e-5)[2] * weight).sum()

    for i, (path, value) in enumerate(paths):
        got = np.asarray(slopes[jax.tree_util.keystr(path)], np.float64)
        # Along the gradient itself, where all of it counts, plus a random way, in which a turned one would show.
        direction = got / np.linalg.norm(got) + rng.normal(size=value.shape) / np.sqrt(value.size)
        slope = (moved(i, 1e-5 * direction) - moved(i, -1e-5 * direction)) / 2e-5
        assert abs(slope - (got * direction).sum()) < 1e-3 * np.linalg.norm(got), jax.tree_util.keystr(path)


def test_parameter_counts_of_the_published_sizes():
    def count(classes, patch, **size):
        model = videomae.VideoMAE(patch=patch, **size)
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes_of(model, classes)))

    assert count(400, (16, 16), width=768, mlp=3072, layers=12, heads=12) == 86_534_800
    assert count(710, (14, 14), width=1408, mlp=6144, layers=40, heads=16) == 1_012_611_142


def test_what_does_not_fit_is_refused():
    video, valid = jnp.zeros((1, 4, 12, 12, 3)), jnp.ones((1, 4), bool)
    for model, text in (
        (TINY.clone(taps=(3,)), r'taps \[3\]: the layers are 0 to 2'),
        (TINY.clone(tubelet_init='inflated'), "tubelet_init is 'inflated'"),
        (TINY.clone(segments={'spatial': ((0, 2),)}), 'segments for spatial: the stacks are encoder'),
        (TINY.clone(heads=5), 'width 12 cannot be split into 5 heads'),
    ):
        with pytest.raises(ValueError, match=text):
            jax.eval_shape(lambda model=model: model.init(jax.random.key(0), video, valid, train=False))


def test_segments_remat_and_half_precision_keep_the_result():
    params, video = random_params(TINY), some_video(4, 12, 12)
    valid = np.ones((2, 4), bool)
    want = compiled(TINY)(layers.to_run(params, {})['backbone'], video, valid).grid
    segments = ((0, 0), (1, 2))
    model = TINY.clone(segments={'encoder': segments}, remat='full', unroll=2, dtype=jnp.bfloat16)
    run = layers.to_run(params, {'backbone/encoder': segments})['backbone']
    got = jax.jit(lambda run, *args: model.apply({'params': run}, *args, train=False).grid)(run, video, valid)
    assert got.dtype == jnp.bfloat16
    assert np.abs(got.astype(jnp.float32) - want).mean() < 0.05
