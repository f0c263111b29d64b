"""InternVideo2 and its head against a float64 forward, the public parameter tree, and their own promises."""

import functools
import importlib.util
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.models import features, internvideo2, layers, localizer, preprocess, projector_head

_SPEC = importlib.util.spec_from_file_location(
    'internvideo2_reference', pathlib.Path(__file__).with_name('internvideo2_reference.py')
)
reference = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(reference)

# Heads of 8 channels in the tower and of 3 in the head, neither a multiple of the other; patches are not square.
MODEL = internvideo2.InternVideo2(
    width=48, mlp=20, heads=6, layers=3, grid=(3, 2, 2), patch=(4, 2), taps=(2, 0, 2), layer_scale=0.1
)
HEAD = projector_head.ProjectorHead(classes=5, heads=16, embed=7)


def _video(batch=2, frames=3, height=8, width=4):
    video = jax.random.normal(jax.random.key(5), (batch, frames, height, width, 3))
    return video, jnp.ones((batch, frames), bool)


def _apply(params, video, valid, model):
    encoded = model.apply({'params': params['backbone']}, video, valid, train=False)
    return encoded, HEAD.apply({'params': params['head']}, encoded, {}, train=False)


_run = jax.jit(_apply, static_argnames='model')


@functools.cache
def _random():
    """{backbone, head} with random biases, norms, positions, LayerScale and CLS."""

    def start():
        backbone, params = MODEL.init_with_output(jax.random.key(0), *_video(1), train=False)
        return {'backbone': params['params'], 'head': HEAD.init(jax.random.key(0), backbone, {}, train=False)['params']}

    params = jax.eval_shape(start)
    rng = np.random.default_rng(0)
    paths = jax.tree_util.tree_flatten_with_path(params)[0]
    centre = {'scale': 1.0, 'gamma1': 0.6, 'gamma2': 0.6}
    leaves = [
        np.asarray(centre.get(path[-1].key, 0.0) + rng.normal(0, 0.3, leaf.shape), np.float32) for path, leaf in paths
    ]
    return jax.tree.unflatten(jax.tree.structure(params), leaves)


@functools.cache
def _exact():
    return jax.tree.map(lambda x: np.asarray(x, np.float64), layers.to_canonical(_random()))


def _scaled(params, factor):
    """Tokens that small at the start, which tell one eps of the first norm from another."""
    backbone = params['backbone']
    small = {name: factor * backbone['encoder'][name] for name in ('cls', 'position')}
    embedding = jax.tree.map(lambda x: factor * x, backbone['embedding'])
    return params | {'backbone': {'embedding': embedding, 'encoder': backbone['encoder'] | small}}


def _compare(encoded, logits, video, factor, **options):
    exact = _scaled(_exact(), factor)['backbone']
    for i in range(len(video)):
        within, grid = reference.tower(np.asarray(video[i], np.float64), exact, MODEL.grid, **options)
        tokens = within[-1]
        assert encoded.grid.shape[1:] == (*grid, 48)
        np.testing.assert_allclose(encoded.pooled[i], tokens[0], rtol=0, atol=1e-4)
        np.testing.assert_allclose(encoded.grid[i], tokens[1:].reshape(*grid, 48), rtol=0, atol=1e-4)
        assert len(encoded.taps) == 3
        for tap, layer in zip(encoded.taps, MODEL.taps, strict=True):
            np.testing.assert_allclose(tap[i], within[layer][1:].reshape(*grid, 48), rtol=0, atol=1e-4)
        np.testing.assert_allclose(logits[i], reference.head(tokens, _exact()['head']), rtol=0, atol=2e-5)


def _erf_gelu(x):
    return x * (1 + np.vectorize(math.erf)(x / np.sqrt(2))) / 2


@pytest.mark.parametrize(
    'frames, height, width, factor, gelu',
    [(3, 8, 4, 1, reference.tanh_gelu), (3, 8, 4, 1e-3, reference.tanh_gelu), (5, 4, 6, 1, _erf_gelu)],
)
def test_features_and_logits_equal_numpy_in_float64_at_any_size(frames, height, width, factor, gelu):
    """The learned grid, another size and length; both forms of GELU; taps in any order."""
    video, valid = _video(2, frames, height, width)
    model = MODEL.clone(gelu_approximate=False) if gelu is _erf_gelu else MODEL
    _compare(*_run(_scaled(_random(), np.float32(factor)), video, valid, model), video, factor, gelu=gelu)


def test_gradients_equal_finite_differences_in_float64(check_slopes):
    """Of every parameter and of the video."""
    video, valid = _video(1)
    coefficients = np.linspace(-1, 1, 5)
    got = jax.jit(
        jax.grad(lambda params, video: jnp.sum(_apply(params, video, valid, MODEL)[1] * coefficients), argnums=(0, 1))
    )(_random(), video)

    def function(start):
        params, video = start
        tokens = reference.tower(video[0], params['backbone'], MODEL.grid)[0][-1]
        return reference.head(tokens, params['head']) @ coefficients

    # A bias of all the keys moves all scores alike.
    nothing = ("['key']['bias']", "['ln_key']['bias']")
    check_slopes(function, (_exact(), np.asarray(video, np.float64)), (layers.to_canonical(got[0]), got[1]), nothing)


def test_padding_frames_count_for_nothing():
    video, valid = _video()
    valid = valid.at[0, 2].set(False)
    (a, logits), (b, others) = (_run(_random(), v, valid, MODEL) for v in (video, video.at[0, 2].set(9.0)))
    np.testing.assert_array_equal(a.valid, valid)
    np.testing.assert_allclose(a.grid[0, :2], b.grid[0, :2], atol=1e-5)
    np.testing.assert_allclose(a.pooled, b.pooled, atol=1e-5)
    np.testing.assert_allclose(logits, others, atol=1e-5)
    assert np.abs(a.grid[0, 2] - b.grid[0, 2]).max() > 1e-2
    within, _ = reference.tower(np.asarray(video[0], np.float64), _exact()['backbone'], MODEL.grid, np.array(valid[0]))
    hidden = np.concatenate([[False], np.repeat(~np.asarray(valid[0]), 4)])
    np.testing.assert_allclose(logits[0], reference.head(within[-1], _exact()['head'], hidden), rtol=0, atol=2e-5)


def test_the_head_without_a_summary_and_without_a_valid_time():
    video, valid = _video()
    encoded, _ = _run(_random(), video, valid, MODEL)
    run = jax.jit(lambda encoded: HEAD.apply({'params': _random()['head']}, encoded, {}, train=False))
    for factor in (1.0, 0.01):  # small tokens tell one eps from another
        got = run(encoded.replace(pooled=None, grid=factor * encoded.grid))
        for i in range(2):
            tokens = factor * np.asarray(encoded.grid[i], np.float64).reshape(-1, 48)
            np.testing.assert_allclose(got[i], reference.head(tokens, _exact()['head']), rtol=0, atol=2e-5)
    nothing = encoded.replace(pooled=None, valid=jnp.zeros_like(encoded.valid))
    assert got.dtype == jnp.float32 and np.all(np.isfinite(run(nothing)))


def test_the_parameters_are_those_of_the_public_1b_model():
    """1408 channels, 40 layers, 16 heads, 8 frames of 224 pixels; the tree, and the numbers worked out by hand."""
    backbone = internvideo2.InternVideo2(width=1408, mlp=6144, heads=16, layers=40, grid=(8, 16, 16))
    model = localizer.Localizer(backbone, {'clips': projector_head.ProjectorHead(400)}, preprocess.Preprocess())
    shape = jax.ShapeDtypeStruct
    batch = {
        'video': shape((2, 8, 224, 224, 3), jnp.uint8),
        'frame_valid': shape((2, 8), jnp.bool_),
        'seed': shape((2,), jnp.uint32),
    }
    run = jax.eval_shape(lambda key: localizer.init(model, key, {'clips': batch}), jax.random.key(0))
    tree = layers.to_canonical(run)
    leaves = {'/'.join(p.key for p in path): x.shape for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]}
    want = {
        'backbone/embedding/kernel': (1, 14, 14, 3, 1408),
        'backbone/embedding/bias': (1408,),
        'backbone/encoder/cls': (1, 1, 1408),
        'backbone/encoder/position': (1, 2049, 1408),
        'heads_clips/norm/scale': (768,),
        'heads_clips/norm/bias': (768,),
        'heads_clips/output/kernel': (768, 400),
        'heads_clips/output/bias': (400,),
        'heads_clips/pool/out/kernel': (16, 88, 768),
        'heads_clips/pool/out/bias': (768,),
    }
    for part in ('query', 'key', 'value'):
        pool = 'heads_clips/pool'
        want |= {f'{pool}/{part}/kernel': (1408, 16, 88), f'{pool}/{part}/bias': (16, 88)}
        want |= {f'{pool}/ln_{part}/scale': (1408,), f'{pool}/ln_{part}/bias': (1408,)}
    for i in range(40):
        block = f'backbone/encoder/block_{i:02d}'
        want |= {f'{block}/attn/{part}/kernel': (1408, 16, 88) for part in ('query', 'key', 'value')}
        want |= {f'{block}/attn/out/kernel': (16, 88, 1408), f'{block}/attn/out/bias': (1408,)}
        norms = ('ln1', 'ln2', 'attn/query_norm', 'attn/key_norm')
        want |= {f'{block}/{norm}/scale': (1408,) for norm in norms}
        want |= {f'{block}/{gamma}': (1408,) for gamma in ('gamma1', 'gamma2')}
        want |= {f'{block}/mlp/fc1/kernel': (1408, 6144), f'{block}/mlp/fc1/bias': (6144,)}
        want |= {f'{block}/mlp/fc2/kernel': (6144, 1408), f'{block}/mlp/fc2/bias': (1408,)}
    assert leaves == want


def test_how_parameters_start():
    @jax.jit
    def start():
        model = MODEL.clone(layer_scale=1e-5)
        encoder = model.init(jax.random.key(0), *_video(1), train=False)['params']['encoder']
        return {'position': encoder['position'], 'gamma1': encoder['blocks_00_02']['gamma1']}

    params = start()
    np.testing.assert_array_equal(params['gamma1'], np.full((3, 48), 1e-5, np.float32))
    position = np.asarray(params['position'][0])
    assert not position[0].any()
    table = position[1:].reshape(3, 2, 2, 48)
    for t, h, w in np.ndindex(3, 2, 2):
        # Time has 12 channels, the column 18, the row 18; sines first, then cosines.
        parts = []
        for place, count in ((t, 6), (w, 9), (h, 9)):
            angles = [place / 10000 ** (i / count) for i in range(count)]
            parts += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
        np.testing.assert_allclose(table[t, h, w], parts, atol=1e-6)
    with pytest.raises(ValueError, match='divisible by 16, not 24'):
        internvideo2.position_table((3, 2, 2), 24)


def test_bfloat16_and_the_randomness_of_training():
    video, valid = _video(1)
    model = MODEL.clone(dtype=jnp.bfloat16, drop_path=0.5)

    @jax.jit
    def run(params, key):
        encoded = model.apply({'params': params['backbone']}, video, valid, train=True, rngs={'dropout': key})
        head = HEAD.clone(dropout=0.5)
        return encoded, head.apply({'params': params['head']}, encoded, {}, train=True, rngs={'dropout': key})

    found = [run(_random(), jax.random.key(i)) for i in range(4)]
    encoded, logits = found[0]
    assert encoded.grid.dtype == encoded.pooled.dtype == encoded.taps[0].dtype == jnp.bfloat16
    assert logits.dtype == jnp.float32 and np.all(np.isfinite(logits))
    assert any(np.any(logits != others) for _, others in found[1:])
    # The first layer is never left out; bfloat16 has 8 bits.
    first = encoded.taps[1][0].astype(np.float32).reshape(-1, 48)
    want = reference.tower(np.asarray(video[0], np.float64), _exact()['backbone'], MODEL.grid)[0][0][1:]
    assert 1e-4 < np.abs(first - want).max() < 0.02 * np.abs(want).max()


def _shapes(model, **size):
    """Only traced: what is refused is refused before anything is computed."""
    return jax.eval_shape(lambda: model.init(jax.random.key(0), *_video(1, **size), train=False)['params'])


def test_segments_and_what_does_not_fit():
    encoder = _shapes(MODEL.clone(segments={'encoder': ((0, 0), (1, 2))}))['encoder']
    assert set(encoder) == {'cls', 'position', 'blocks_00_00', 'blocks_01_02'}
    for size in ({'height': 9}, {'width': 11}):
        with pytest.raises(ValueError, match=f'{next(iter(size))} .* no multiple'):
            _shapes(MODEL, **size)
    for field, text in (
        ({'taps': (3, 0)}, r'taps \[3\]: the layers are 0 to 2'),
        ({'tubelet_init': 'other'}, "tubelet_init is 'other'; it must be one of"),
        ({'segments': {'spatial': ((0, 2),)}}, 'the stacks are encoder'),
        ({'width': 24}, 'divisible by 16, not 24'),
    ):
        with pytest.raises(ValueError, match=text):
            _shapes(MODEL.clone(**field))
    encoded = features.Features(grid=jnp.zeros((1, 1, 2, 2, 48)), valid=jnp.ones((1, 1), bool))
    with pytest.raises(ValueError, match='width 48 cannot be split into 5 heads'):
        jax.eval_shape(lambda: HEAD.clone(heads=5).init(jax.random.key(0), encoded, {}, train=False))
