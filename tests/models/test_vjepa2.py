"""V-JEPA 2 against the public model's outputs, a float64 forward (2.0 and 2.1), and its own promises."""

import functools
import importlib.util
import json
import pathlib

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.models import attentive_pooler, layers, vjepa2

_SPEC = importlib.util.spec_from_file_location(
    'vjepa2_reference', pathlib.Path(__file__).with_name('vjepa2_reference.py')
)
reference = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(reference)

CASES = pathlib.Path(__file__).parents[1] / 'reference/backbones'
TINY = vjepa2.VJepa2(width=24, mlp=40, heads=2, layers=2, patch=(4, 4), taps=(1, 0))
ALL = {
    'rope_interleave': True,
    'rope_interpolate': True,
    'modality': True,
    'image_embedding': True,
    'level_norms': True,
}


LEAVES = ('kernel', 'scale', 'bias')


def _video(frames=4, height=8, width=12, batch=2):
    video = jax.random.normal(jax.random.key(5), (batch, frames, height, width, 3))
    return video, jnp.ones((batch, frames), bool)


def _shapes(model, frames=2, height=4, width=4):
    video = jax.ShapeDtypeStruct((1, frames, height, width, 3), jnp.float32)
    valid = jax.ShapeDtypeStruct((1, frames), jnp.bool_)
    return jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), video, valid)['params']


@functools.cache
def _random(model):
    """Parameters with random biases, norms and vectors of the modalities: a default start would hide mistakes."""
    params = _shapes(model)
    rng = np.random.default_rng(0)
    paths = jax.tree_util.tree_flatten_with_path(params)[0]
    std = 0.3 * (24 / model.width) ** 0.5
    leaves = [(path[-1].key == 'scale') + rng.normal(0, std, leaf.shape).astype(np.float32) for path, leaf in paths]
    return jax.tree.unflatten(jax.tree.structure(params), leaves)


def _apply(model, params, video, valid):
    return model.apply({'params': params}, video, valid, train=False)


_run = functools.cache(lambda model: jax.jit(functools.partial(_apply, model)))


def _exact(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), layers.to_canonical(tree))


@functools.cache
def _public(name):
    """(model, head, parameters in run form, video [1, T, H, W, 3], outputs) of a reference case."""
    config = json.loads((CASES / name / 'config.json').read_text())
    width, heads = config['hidden_size'], config['num_attention_heads']
    depth = config['num_hidden_layers']
    model = vjepa2.VJepa2(
        width=width,
        mlp=int(width * config['mlp_ratio']),
        heads=heads,
        layers=depth,
        patch=(config['patch_size'],) * 2,
        taps=tuple(range(depth)),
    )
    head = attentive_pooler.AttentiveHead(len(config['id2label']), heads, config['num_pooler_layers'])
    tree = reference.canonical(reference.read(CASES / name / 'model.safetensors'), heads)
    video = jnp.asarray(np.load(CASES / name / 'input.npy').transpose(0, 1, 3, 4, 2))
    return model, head, layers.to_run(tree, {}), video, np.load(CASES / name / 'outputs.npz')


def _classify(name, video):
    """A number made of the logits of a reference case, for its gradient, and all stages on the way."""
    model, head, params, _, _ = _public(name)
    embedded = model.apply({'params': params['backbone']}, video, method=lambda model, x: model.embedding(x))
    encoded = _apply(model, params['backbone'], video, jnp.ones(video.shape[:2], bool))
    logits = head.apply({'params': params['head']}, encoded, {}, train=False)
    return jnp.sum(logits * jnp.linspace(-1, 1, head.classes)), (embedded, encoded, logits)


def _check_stages(stages, want):
    embedded, encoded, logits = stages
    flat = want['encoder_norm'].shape
    np.testing.assert_allclose(embedded.reshape(flat), want['embeddings'], atol=1e-4)
    for i, tap in enumerate(encoded.taps):
        np.testing.assert_allclose(tap.reshape(flat), want[f'layer_{i}'], atol=1e-4)
    np.testing.assert_allclose(encoded.grid.reshape(flat), want['encoder_norm'], atol=1e-4)
    np.testing.assert_allclose(logits, want['logits'], atol=2e-5)


def test_the_classifier_and_its_gradient_equal_the_public_ones():
    *_, video, want = _public('vjepa2_d64')
    gradient, stages = jax.jit(jax.grad(functools.partial(_classify, 'vjepa2_d64'), has_aux=True))(video)
    _check_stages(stages, want)
    gradient = gradient.transpose(0, 1, 4, 2, 3)
    assert np.abs(gradient - want['grad_input']).max() < 1e-3 * np.abs(want['grad_input']).max()


def test_the_classifier_with_two_heads_equals_the_public_one():
    *_, video, want = _public('vjepa2_d12_two_heads')
    _check_stages(jax.jit(functools.partial(_classify, 'vjepa2_d12_two_heads'))(video)[1], want)


@pytest.mark.parametrize('name', ['vjepa2_d64', 'vjepa2_d12_two_heads'])
def test_the_float64_forward_equals_the_public_model(name):
    """What judges V-JEPA 2.1, of which no outputs are at hand, is itself judged here."""
    _, _, params, video, want = _public(name)
    exact = _exact(params)
    grid, per_layer = reference.encode(np.asarray(video[0], np.float64), exact['backbone'])
    np.testing.assert_allclose(grid.reshape(-1, grid.shape[-1]), want['encoder_norm'][0], atol=2e-5)
    for i, tokens in enumerate(per_layer):
        np.testing.assert_allclose(tokens.reshape(-1, grid.shape[-1]), want[f'layer_{i}'][0], atol=2e-5)
    np.testing.assert_allclose(reference.classify(grid, exact['head']), want['logits'][0], atol=2e-6)


@pytest.mark.parametrize(
    ('flags', 'size', 'width', 'heads'),
    [
        ({}, (4, 8, 12), 24, 2),
        ({'rope_interleave': True}, (2, 8, 20), 88, 1),
        ({'rope_interpolate': True, 'modality': True}, (1, 4, 12), 64, 1),
        ({'image_embedding': True, 'level_norms': True}, (1, 8, 8), 24, 2),
        (ALL, (6, 12, 8), 80, 1),
    ],
    ids=lambda value: '+'.join(value) or 'none' if isinstance(value, dict) else None,
)
def test_forward_equals_numpy_in_float64(flags, size, width, heads):
    """Every flag with and without each other one; images with and without an embedding of their own."""
    model = TINY.clone(width=width, heads=heads, **flags)
    params = _random(model)
    video, valid = _video(*size)
    got = _run(model)(params, video, valid)
    options = {'interleave': model.rope_interleave, 'interpolate': model.rope_interpolate}
    grid, per_layer = reference.encode(np.asarray(video[1], np.float64), _exact(params), **options)
    assert got.grid.shape[1:] == grid.shape == (max(size[0] // 2, 1), size[1] // 4, size[2] // 4, width)
    np.testing.assert_array_equal(got.valid, np.ones((2, grid.shape[0]), bool))
    np.testing.assert_allclose(got.grid[1], grid, atol=1e-4)
    for tap, layer in zip(got.taps, (1, 0), strict=True):
        np.testing.assert_allclose(tap[1], per_layer[layer], atol=1e-4)


def test_gradients_of_2_1_equal_finite_differences_in_float64(check_slopes):
    """Of every parameter and of the video."""
    model = TINY.clone(taps=(), **ALL)
    params = _random(model)
    video, valid = _video(4, 4, 8, batch=1)
    weights = np.random.default_rng(3).normal(size=(2, 1, 2, 24))

    def loss(params, video):
        return jnp.sum(model.apply({'params': params}, video, valid, train=False).grid * weights)

    got = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, video)

    def function(start):
        params, video = start
        return np.sum(reference.encode(video[0], params, interleave=True, interpolate=True)[0] * weights)

    # Images have parameters of their own, and the grid is normed by the last level's norm alone.
    unused = ('image_embedding', 'norm_0', 'norm_1', 'norm_2')
    nothing = ("['image_modality']", *(f"['{name}']['{leaf}']" for name in unused for leaf in LEAVES))
    start = (_exact(params), np.asarray(video, np.float64))
    check_slopes(function, start, (layers.to_canonical(got[0]), got[1]), nothing)


def test_hierarchical_features_are_the_four_normed_levels():
    model = TINY.clone(layers=12, hierarchical=True, taps=(11, 3), **ALL)
    # 12 layers of larger weights would amplify what float32 rounds.
    params = jax.tree.map(lambda leaf: leaf * np.float32(0.5), _random(model))
    video, valid = _video(batch=1)
    got = _run(model)(params, video, valid)
    options = {'interleave': True, 'interpolate': True}
    video, exact = np.asarray(video[0], np.float64), _exact(params)
    grid, per_layer = reference.encode(video, exact, **options, hierarchical=True)
    assert got.grid.shape[-1] == 4 * 24
    np.testing.assert_allclose(got.grid[0], grid, atol=1e-4)
    for tap, layer in zip(got.taps, (11, 3), strict=True):
        np.testing.assert_allclose(tap[0], per_layer[layer], atol=1e-4)


def test_levels_belong_to_quarters_of_the_depth():
    assert {depth: vjepa2.level_layers(depth) for depth in reference.LEVEL_LAYERS} == reference.LEVEL_LAYERS
    for depth in range(1, 60):
        found = vjepa2.level_layers(depth)
        assert len(found) == 4 and found[-1] == depth - 1 and min(found) >= 0 and sorted(found) == list(found)


def test_the_parameters_do_not_depend_on_the_input():
    model = TINY.clone(**ALL)
    image, video = _shapes(model, frames=1), _shapes(model, frames=4)
    assert jax.tree.map(lambda x: x.shape, image) == jax.tree.map(lambda x: x.shape, video)
    norms = {f'norm_{i}' for i in range(4)}
    vectors = {'video_modality', 'image_modality'}
    assert set(video) == {'embedding', 'image_embedding', 'encoder'} | norms | vectors
    assert video['image_embedding']['kernel'].shape == (1, 4, 4, 3, 24)
    assert video['embedding']['kernel'].shape == (2, 4, 4, 3, 24)
    assert {video[name].shape for name in vectors} == {(1, 1, 24)}
    assert set(_shapes(TINY)) == {'embedding', 'encoder', 'norm'}


@pytest.mark.parametrize(
    ('sizes', 'count'),
    [
        ({'width': 1024, 'mlp': 4096, 'heads': 16, 'layers': 24}, 303_885_312),
        ({'width': 1280, 'mlp': 5120, 'heads': 16, 'layers': 32}, 631_648_000),
        ({'width': 1408, 'mlp': 6144, 'heads': 22, 'layers': 40}, 1_012_173_952),
    ],
    ids=['L', 'H', 'g'],
)
def test_the_public_sizes_have_the_public_number_of_parameters(sizes, count):
    model = vjepa2.VJepa2(**sizes)
    params = _shapes(model, height=16, width=16)
    assert sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params)) == count


def test_padding_frames_change_no_other_token():
    params = _random(TINY)
    video, valid = _video()
    valid = valid.at[0, 2:].set(False).at[1, 3].set(False)  # a token of example 1 is half real
    run = _run(TINY)
    a, b = run(params, video, valid), run(params, video.at[0, 2:].set(9.0), valid)
    np.testing.assert_array_equal(a.valid, [[True, False], [True, True]])
    np.testing.assert_allclose(a.grid[0, 0], b.grid[0, 0], atol=1e-5)
    assert np.abs(a.grid[0, 1] - b.grid[0, 1]).max() > 1e-2
    grid, _ = reference.encode(np.asarray(video[0], np.float64), _exact(params), seen=np.array([True, False]))
    np.testing.assert_allclose(a.grid[0], grid, atol=1e-4)


def test_segments_and_remat_do_not_change_the_result():
    other = TINY.clone(segments=flax.core.freeze({'encoder': ((0, 0), (1, 1))}), remat='full')
    video, valid = _video()
    params = layers.to_canonical(_random(TINY))
    stacked = layers.to_run(params, other.segments)
    assert jax.tree.map(np.shape, stacked) == jax.tree.map(np.shape, _shapes(other))
    a, b = _run(TINY)(layers.to_run(params, {}), video, valid), _run(other)(stacked, video, valid)
    np.testing.assert_allclose(a.grid, b.grid, atol=1e-5)


def test_bfloat16_stays_near_float32():
    model = TINY.clone(width=80, heads=1, **ALL)
    params = _random(model)
    video, valid = _video(6, 12, 8)
    exact = _run(model)(params, video, valid).grid
    rough = _run(model.clone(dtype=jnp.bfloat16))(params, video, valid).grid
    assert rough.dtype == jnp.bfloat16 and exact.dtype == jnp.float32
    error = np.linalg.norm(rough.astype(jnp.float32) - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < 0.03


def test_sizes_and_fields_that_do_not_fit_are_refused():
    for size in ({'frames': 3}, {'height': 9}, {'width': 11}):
        with pytest.raises(ValueError, match=f'{next(iter(size))} .* no multiple'):
            _shapes(TINY, **size)
    with pytest.raises(ValueError, match='the stacks are encoder'):
        _shapes(TINY.clone(segments={'spatial': ((0, 1),)}))
    with pytest.raises(ValueError, match='set level_norms=True'):
        _shapes(TINY.clone(hierarchical=True))
    with pytest.raises(ValueError, match='at least 6 channels, and an even number, not 4'):
        _shapes(TINY.clone(heads=6))
    with pytest.raises(ValueError, match=r'taps .* the layers are 0 to 1'):
        _shapes(TINY.clone(taps=(2,)))
