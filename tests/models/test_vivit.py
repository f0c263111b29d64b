"""ViViT against a float64 forward, the public parameter tree, and its own promises."""

import functools
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.models import classification_head, layers, localizer, preprocess, roi_head, vivit

_SPEC = importlib.util.spec_from_file_location(
    'vivit_reference', pathlib.Path(__file__).with_name('vivit_reference.py')
)
reference = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(reference)

# Heads of 3 channels.
TINY = vivit.ViViT(
    width=12, mlp=16, heads=4, spatial_layers=2, temporal_layers=1, grid=(2, 2, 3), patch=(4, 4), tubelet=2
)
NATIVE = (4, 8, 12)  # frames and pixels of its grid
# In no order and with a repetition; layer 2 is that of the temporal encoder.
TAPS = {'tokens': (2, 0, 1, 2), 'rois': (1, 0, 1)}


def _video(batch=2, frames=NATIVE[0], height=NATIVE[1], width=NATIVE[2]):
    video = jax.random.normal(jax.random.key(5), (batch, frames, height, width, 3))
    return video, jnp.ones((batch, frames), bool)


@functools.cache
def _random(model):
    """Parameters with random biases, norms and CLS tokens: a default start would hide mistakes."""
    video, valid = _video(1)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), video, valid, train=False)['params'])
    rng = np.random.default_rng(0)
    paths = jax.tree_util.tree_flatten_with_path(params)[0]
    leaves = [(path[-1].key == 'scale') + rng.normal(0, 0.4, leaf.shape).astype(np.float32) for path, leaf in paths]
    return jax.tree.unflatten(jax.tree.structure(params), leaves)


@functools.cache
def _compiled(model, train=False):
    return jax.jit(
        lambda params, video, valid, key=None: model.apply(
            {'params': params}, video, valid, train=train, rngs={'dropout': key} if train else {}
        )
    )


def _compare(got, video, params, model):
    """Grid, summary and taps of every example against NumPy."""
    exact = jax.tree.map(lambda x: np.asarray(x, np.float64), layers.to_canonical(params))
    assert len(got.taps) == len(model.taps)
    for i in range(len(video)):
        clip = np.asarray(video[i], np.float64)
        grid, pooled, within = reference.forward(clip, exact, model.temporal_on, model.grid)
        assert got.grid.shape[1:] == grid.shape
        np.testing.assert_allclose(got.grid[i], grid, atol=1e-4)
        if pooled is None:
            assert got.pooled is None
        else:
            np.testing.assert_allclose(got.pooled[i], pooled, atol=1e-4)
        for tap, layer in zip(got.taps, model.taps, strict=True):
            np.testing.assert_allclose(tap[i], within[layer], atol=1e-4)


@pytest.mark.parametrize(
    ('temporal_on', 'cls', 'size', 'jit'),
    [
        ('tokens', True, (8, 4, 20), True),
        ('rois', False, (1, 4, 8), True),
        ('rois', True, NATIVE, True),
        ('rois', True, NATIVE, False),
    ],
)
def test_forward_equals_numpy_in_float64(temporal_on, cls, size, jit):
    """The learned grid, other sizes and lengths, and a single image, whose frame fills the tubelet; with taps."""
    model = TINY.clone(temporal_on=temporal_on, cls=cls, taps=TAPS[temporal_on])
    params = _random(model)
    video, valid = _video(2, *size)
    if jit:
        got = _compiled(model)(params, video, valid)
    else:
        got = model.apply({'params': params}, video, valid, train=False)
    assert got.grid.shape == (2, max(1, size[0] // 2), size[1] // 4, size[2] // 4, 12)
    np.testing.assert_array_equal(got.valid, np.ones((2, max(1, size[0] // 2)), bool))
    _compare(got, video, params, model)


@pytest.mark.parametrize('temporal_on', ['tokens', 'rois'])
def test_gradients_equal_finite_differences_in_float64(temporal_on, check_slopes):
    """Of every parameter and of the video."""
    model = TINY.clone(temporal_on=temporal_on, cls=True)
    params = _random(model)
    video, valid = _video(1)

    def number(found):
        grid, pooled = found
        terms = (jnp if isinstance(grid, jax.Array) else np).sin(grid).sum()
        return terms if pooled is None else terms + (pooled * np.linspace(-1, 1, pooled.size)).sum()

    def loss(params, video):
        found = model.apply({'params': params}, video, valid, train=False)
        return number((found.grid, found.pooled))

    got = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, video)
    exact = jax.tree.map(lambda x: np.asarray(x, np.float64), layers.to_canonical(params))

    def function(start):
        return number(reference.forward(start[1][0], start[0], temporal_on, model.grid)[:2])

    # A bias of all the keys moves all scores alike.
    start = (exact, np.asarray(video, np.float64))
    check_slopes(function, start, (layers.to_canonical(got[0]), got[1]), ("['key']['bias']",))


def test_the_parameters_are_those_of_the_public_base_model():
    """Scenic's ViViT-B/16x2 factorised encoder with 400 classes: 268 leaves, 115,062,928 parameters."""
    assert _shapes(TINY.clone(temporal_on='rois')) == _shapes(TINY)
    backbone = vivit.ViViT(
        width=768,
        mlp=3072,
        heads=12,
        spatial_layers=12,
        temporal_layers=4,
        grid=(16, 14, 14),
        cls=True,
    )
    heads = {'clips': classification_head.ClassificationHead(400)}
    model = localizer.Localizer(backbone, heads, preprocess.Preprocess())
    shape = jax.ShapeDtypeStruct
    batch = {
        'video': shape((2, 32, 224, 224, 3), jnp.uint8),
        'frame_valid': shape((2, 32), jnp.bool_),
        'seed': shape((2,), jnp.uint32),
    }
    run = jax.eval_shape(lambda key: localizer.init(model, key, {'clips': batch}), jax.random.key(0))
    tree = layers.to_canonical(run)
    leaves = {'/'.join(p.key for p in path): x.shape for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]}
    want = {
        'backbone/embedding/kernel': (2, 16, 16, 3, 768),
        'backbone/embedding/bias': (768,),
        'heads_clips/output/kernel': (768, 400),
        'heads_clips/output/bias': (400,),
    }
    for name, count, places in (('spatial', 12, 196), ('temporal', 4, 16)):
        want |= {
            f'backbone/{name}/cls': (1, 1, 768),
            f'backbone/{name}/position': (1, places + 1, 768),
            f'backbone/{name}/norm/scale': (768,),
            f'backbone/{name}/norm/bias': (768,),
        }
        for i in range(count):
            block = f'backbone/{name}/block_{i:02d}'
            for part in ('query', 'key', 'value'):
                want |= {f'{block}/attn/{part}/kernel': (768, 12, 64), f'{block}/attn/{part}/bias': (12, 64)}
            want |= {f'{block}/attn/out/kernel': (12, 64, 768), f'{block}/attn/out/bias': (768,)}
            want |= {f'{block}/{ln}/{leaf}': (768,) for ln in ('ln1', 'ln2') for leaf in ('scale', 'bias')}
            want |= {f'{block}/mlp/fc1/kernel': (768, 3072), f'{block}/mlp/fc1/bias': (3072,)}
            want |= {f'{block}/mlp/fc2/kernel': (3072, 768), f'{block}/mlp/fc2/bias': (768,)}
    assert leaves == want
    assert len(leaves) == 268
    assert sum(int(np.prod(x)) for x in leaves.values()) == 115_062_928


def test_temporal_on_tokens_and_on_rois_agree_for_a_grid_of_one_place():
    """One place: its token is the mean over places and every box's feature, whatever the encoder is applied to."""
    tokens = TINY.clone(grid=(2, 1, 1))
    rois = tokens.clone(temporal_on='rois')
    video, valid = _video(height=4, width=4)
    batch = {'boxes': jnp.array([[[0.0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9]]] * 2)}
    params = _random(tokens)

    @jax.jit
    def run(params):
        a = tokens.apply({'params': params}, video, valid, train=False)
        b = rois.apply({'params': params}, video, valid, train=False)
        head = roi_head.RoiHead(3, kernel_std=1.0)
        twin = roi_head.RoiHead(3, kernel_std=1.0, temporal='encoder', encoder=rois)
        weights = head.init(jax.random.key(1), a, batch, train=False)['params']
        whole = weights | {'encoder': params}
        return (
            (a.grid.mean((1, 2, 3)), b.pooled),
            (
                head.apply({'params': weights}, a, batch, train=False),
                twin.apply({'params': whole}, b, batch, train=False),
            ),
        )

    for a, b in run(params):
        assert np.abs(a).max() > 0.1
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(('temporal_on', 'size'), [('tokens', (8, 4, 20)), ('rois', NATIVE)])
def test_padding_frames_change_no_other_token(temporal_on, size):
    model = TINY.clone(cls=True, temporal_on=temporal_on, taps=TAPS[temporal_on])
    params = _random(model)
    video, valid = _video(2, *size)
    valid = valid.at[0, 2:].set(False).at[1, 3].set(False)  # a token of example 1 is half real
    run = _compiled(model)
    a, b = run(params, video, valid), run(params, video.at[0, 2:].set(9.0), valid)
    assert a.valid[0, 0] and not a.valid[0, 1:].any() and a.valid[1].all()
    np.testing.assert_allclose(a.grid[0, 0], b.grid[0, 0], atol=1e-5)
    assert np.abs(a.grid[0, 1] - b.grid[0, 1]).max() > 1e-2
    if temporal_on == 'rois':
        np.testing.assert_allclose(a.pooled, b.pooled, atol=1e-5)


def _shapes(model, **size):
    """Only traced: what is refused is refused before anything is computed."""
    return jax.eval_shape(lambda: model.init(jax.random.key(0), *_video(1, **size), train=False)['params'])


def test_sizes_and_fields_that_do_not_fit_are_refused():
    for size in ({'frames': 3}, {'height': 9}, {'width': 11}):
        with pytest.raises(ValueError, match=f'{next(iter(size))} .* no multiple'):
            _shapes(TINY, **size)
    for field in ('temporal_on', 'tubelet_init', 'position_init'):
        with pytest.raises(ValueError, match=f"{field} is 'other'; it must be one of"):
            _shapes(TINY.clone(**{field: 'other'}))
    with pytest.raises(ValueError, match='spatial, temporal'):
        _shapes(TINY.clone(segments={'depth': ((0, 1),)}))


@pytest.mark.parametrize(('temporal_on', 'wrong', 'last'), [('tokens', 3, 2), ('tokens', -1, 2), ('rois', 2, 1)])
def test_taps_that_are_no_layers_are_refused(temporal_on, wrong, last):
    """In 'rois' mode the temporal encoder does not run on tokens, so its layers are none."""
    text = rf"taps \[{wrong}\]: with temporal_on='{temporal_on}' there are those from 0 to {last}"
    with pytest.raises(ValueError, match=text):
        _shapes(TINY.clone(temporal_on=temporal_on, taps=(0, wrong)))


def test_position_starts():
    model = TINY.clone(position_init='sincos', position_amplitude=0.25, temporal_position_std=3.0, cls=True)

    @jax.jit
    def start():
        params = model.init(jax.random.key(0), *_video(1), train=False)['params']
        return {name: params[name]['position'] for name in ('spatial', 'temporal')}

    position = start()
    spatial = np.asarray(position['spatial'][0])
    assert spatial.shape == (7, 12) and not spatial[0].any()
    np.testing.assert_allclose((spatial[1:] ** 2).sum(-1), 6 * 0.25**2, rtol=1e-5)
    assert 1.0 < position['temporal'].std() < 6.0


def test_gradients_with_dropout_and_drop_path():
    model = TINY.clone(cls=True, temporal_on='rois', dropout=0.1, drop_path=0.2)
    params = _random(TINY.clone(cls=True))
    video, valid = _video()

    def loss(params, key):
        encoded = model.apply({'params': params}, video, valid, train=True, rngs={'dropout': key})
        return jnp.mean(encoded.grid**2) + jnp.mean(encoded.pooled**2)

    gradient = jax.jit(jax.value_and_grad(loss))
    value, grads = gradient(params, jax.random.key(0))
    assert value != gradient(params, jax.random.key(1))[0]
    for leaf in jax.tree.leaves(grads):
        assert leaf.dtype == jnp.float32 and np.all(np.isfinite(leaf)) and np.abs(leaf).max() > 0


def test_bfloat16_stays_near_float32():
    model = TINY.clone(cls=True, temporal_on='rois', taps=TAPS['rois'])
    params = _random(model)
    video, valid = _video()
    exact, rough = (_compiled(each)(params, video, valid) for each in (model, model.clone(dtype=jnp.bfloat16)))
    for want, got in zip(jax.tree.leaves(exact), jax.tree.leaves(rough), strict=True):
        if want.dtype == jnp.float32:
            assert got.dtype == jnp.bfloat16
            assert np.abs(got.astype(jnp.float32) - want).mean() < 0.05
