"""Attention against a float64 softmax, its chunked and its fused form, and rotary positions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.models import attention

VALID = jnp.array([[True] * 9 + [False] * 2, [False] * 11, [False, True] * 5 + [True]])


def _arrays(queries=21, keys=11, heads=2, width=8, dtype=np.float32, sequences=3):
    rng = np.random.default_rng(0)
    shapes = ((sequences, queries, heads, width), *[(sequences, keys, heads, width)] * 2)
    return tuple(jnp.asarray(rng.normal(0, 1.5, shape), dtype) for shape in shapes)


def _exact(query, key, value, valid=None):
    """Softmax over the keys in float64; where none is valid, over all of them."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    scores = np.einsum('mqhd,mkhd->mhqk', query, key) / np.sqrt(query.shape[-1])
    if valid is not None:
        valid = np.asarray(valid)
        shown = valid | ~valid.any(axis=1, keepdims=True)
        scores = np.where(shown[:, None, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.einsum('mhqk,mkhd->mqhd', weights / weights.sum(axis=-1, keepdims=True), value)


@pytest.fixture
def small_chunks(monkeypatch):
    """21 queries are three chunks, the last of them with rows of padding."""
    monkeypatch.setattr(attention, 'WHOLE', 8)
    monkeypatch.setattr(attention, 'CHUNK', 8)


def _loss(arrays, valid, **options):
    out = attention.attend(*arrays, valid, **options).astype(jnp.float32)
    return jnp.sum(jnp.sin(out + jnp.arange(out.size).reshape(out.shape)))


def _gradient(arrays, valid, **options):
    return jax.jit(jax.grad(functools.partial(_loss, valid=valid, **options)))(arrays)


@pytest.mark.parametrize('valid', [None, VALID])
def test_it_is_the_softmax_over_the_valid_keys(valid):
    arrays = _arrays()
    np.testing.assert_allclose(attention.attend(*arrays, valid), _exact(*arrays, valid), atol=1e-5)


@pytest.mark.parametrize('jit', [False, True])
@pytest.mark.parametrize('valid', [None, VALID])
def test_chunks_equal_the_whole(valid, jit, small_chunks):
    arrays = _arrays()
    attend = jax.jit(attention.attend) if jit else attention.attend
    got = attend(*arrays, valid)
    assert got.shape == arrays[0].shape
    np.testing.assert_allclose(got, _exact(*arrays, valid), atol=1e-5)


@pytest.mark.parametrize('valid', [None, VALID])
def test_chunks_have_the_gradients_of_the_whole(valid, monkeypatch):
    arrays = _arrays()
    whole = _gradient(arrays, valid)
    text = jax.make_jaxpr(jax.grad(functools.partial(_loss, valid=valid)))(arrays).pretty_print()
    assert 'scan' not in text
    monkeypatch.setattr(attention, 'WHOLE', 8)
    monkeypatch.setattr(attention, 'CHUNK', 8)
    for got, want in zip(_gradient(arrays, valid), whole, strict=True):
        assert np.abs(want).max() > 0.1
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_the_gradients_are_those_of_the_softmax():
    """Central differences of the float64 softmax, in a random direction of each array."""
    arrays = _arrays(queries=5)
    gradients = _gradient(arrays, VALID)
    rng = np.random.default_rng(1)

    def loss(arrays):
        out = _exact(*arrays, VALID)
        return np.sum(np.sin(out + np.arange(out.size).reshape(out.shape)))

    for i, gradient in enumerate(gradients):
        direction = rng.normal(size=arrays[i].shape)
        ends = []
        for sign in (1e-5, -1e-5):
            moved = [np.asarray(x, np.float64) for x in arrays]
            moved[i] = moved[i] + sign * direction
            ends.append(loss(moved))
        np.testing.assert_allclose(np.sum(gradient * direction), (ends[0] - ends[1]) / 2e-5, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('size', [1e3, 1e4])
def test_large_scores_stay_finite(size, small_chunks):
    query, key, value = _arrays()
    got = attention.attend(size * query, size * key, value, VALID)
    np.testing.assert_allclose(got, _exact(size * query, size * key, value, VALID), atol=1e-4)
    assert all(np.isfinite(x).all() for x in _gradient((size * query, size * key, value), VALID))


def test_hidden_keys_take_no_part(small_chunks):
    query, key, value = _arrays()
    hidden = ~VALID[:, :, None, None] & VALID.any(axis=1)[:, None, None, None]
    other = jnp.where(hidden, 1e4, key), jnp.where(hidden, -1e4, value)
    np.testing.assert_array_equal(attention.attend(query, *other, VALID), attention.attend(query, key, value, VALID))
    shown = np.asarray(_gradient((query, key, value), VALID)[1]) != 0
    np.testing.assert_array_equal(shown.any(axis=(2, 3)), VALID | ~VALID.any(axis=1, keepdims=True))


def test_bfloat16_sums_the_chunks_in_float32(monkeypatch):
    """512 chunks that each add a quarter: sums in bfloat16 would stop growing at 64."""
    monkeypatch.setattr(attention, 'WHOLE', 8)
    monkeypatch.setattr(attention, 'CHUNK', 4)
    query = jnp.zeros((1, 2048, 1, 8), jnp.bfloat16)
    key, value = jnp.zeros((2, 1, 16, 1, 8), jnp.bfloat16)
    gradient = jax.jit(jax.grad(lambda v: jnp.sum(attention.attend(query, key, v).astype(jnp.float32))))(value)
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_array_equal(gradient.astype(jnp.float32), np.full((1, 16, 1, 8), 128.0))


def test_bfloat16_stays_near_float32(small_chunks):
    arrays = _arrays(dtype=jnp.bfloat16)
    got = attention.attend(*arrays, VALID)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(got.astype(jnp.float32), _exact(*arrays, VALID), atol=0.03)


@pytest.mark.parametrize('valid', [None, VALID])
def test_the_fused_form_equals_the_products(valid):
    arrays = _arrays(dtype=jnp.bfloat16)
    got = jax.jit(functools.partial(attention.attend, kernel='cudnn'))(*arrays, valid)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(got.astype(jnp.float32), _exact(*arrays, valid), atol=0.03)
    exact = _gradient([x.astype(jnp.float32) for x in arrays], valid)
    for a, b in zip(_gradient(arrays, valid, kernel='cudnn'), exact, strict=True):
        assert np.linalg.norm(a.astype(jnp.float32) - b) < 0.02 * np.linalg.norm(b)


def test_the_fused_form_hides_keys_without_a_mask():
    query, key, value = _arrays(dtype=jnp.bfloat16)
    hidden = ~VALID[:, :, None, None] & VALID.any(axis=1)[:, None, None, None]
    attend = jax.jit(functools.partial(attention.attend, kernel='cudnn'))
    other = jnp.where(hidden, 100.0, key), jnp.where(hidden, -100.0, value)
    np.testing.assert_array_equal(attend(query, *other, VALID), attend(query, key, value, VALID))
    assert all(np.isfinite(x).all() for x in _gradient((query, key, value), VALID, kernel='cudnn'))


def test_what_the_fused_kernel_takes():
    assert attention.fused(1024, 16, jnp.bfloat16) and attention.fused(1408, 16, jnp.float16)
    assert not attention.fused(1024, 16, jnp.float32)
    assert not attention.fused(132, 11, jnp.bfloat16)  # 12 channels
    assert attention.fused(120, 1, jnp.bfloat16) and not attention.fused(128, 1, jnp.bfloat16)
    with pytest.raises(ValueError, match='got float32 and 8; use the attention kernel xla'):
        attention.attend(*_arrays(), kernel='cudnn')
    with pytest.raises(ValueError, match="kernel is 'flash'; it must be one of xla, cudnn"):
        attention.attend(*_arrays(), kernel='flash')


def _angles(count, width, still=0):
    """A rotation by position times a frequency for each pair of channels, the last `still` pairs left alone."""
    frequency = 0.5 ** np.arange(width // 2)
    frequency[width // 2 - still :] = 0
    angle = np.repeat(np.arange(count)[:, None] * frequency, 2, axis=1)
    return np.cos(angle), np.sin(angle)


def test_rotations_turn_pairs_of_channels():
    x = _arrays()[0]
    got = np.asarray(attention.rotate(x, _angles(21, 8, still=1)))
    complex_x = np.asarray(x)[..., ::2] + 1j * np.asarray(x)[..., 1::2]
    cosine, sine = (table[:, None, ::2] for table in _angles(21, 8, still=1))
    turned = complex_x * (cosine + 1j * sine)
    np.testing.assert_allclose(got[..., ::2], turned.real, atol=1e-5)
    np.testing.assert_allclose(got[..., 1::2], turned.imag, atol=1e-5)
    np.testing.assert_array_equal(got[..., 6:], x[..., 6:])
    assert np.abs(got - x)[:, 1:, :, :6].max() > 1


def test_rotated_scores_depend_on_the_distance_alone():
    query, key = (jnp.broadcast_to(x[:1, :1], (1, 21, 2, 8)) for x in _arrays()[:2])
    turned = [attention.rotate(x, _angles(21, 8)) for x in (query, key)]
    scores = np.einsum('mqhd,mkhd->mhqk', *(np.asarray(x) for x in turned))[0, 0]
    for distance in range(-5, 6):
        np.testing.assert_allclose(np.diff(np.diagonal(scores, distance)), 0, atol=1e-4)
    assert np.abs(scores[0] - scores[0, 0]).max() > 0.5


def test_rotations_are_computed_in_float32():
    x = _arrays(queries=300)[0].astype(jnp.bfloat16)
    got = attention.rotate(x, _angles(300, 8))
    assert got.dtype == jnp.bfloat16
    want = attention.rotate(x.astype(jnp.float32), _angles(300, 8)).astype(jnp.bfloat16)
    np.testing.assert_array_equal(got, want)


def _module(**fields):
    module = attention.Attention(width=8, heads=2, **fields)
    x = jax.random.normal(jax.random.key(1), (2, 5, 8))
    params = jax.eval_shape(lambda: module.init(jax.random.key(0), x))['params']
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.7, leaf.shape).astype(np.float32), params)
    return module, params, x


@pytest.mark.parametrize(('bias', 'biased'), [('full', 'query key value'), ('qv', 'query value'), ('none', '')])
def test_biases_of_queries_keys_and_values(bias, biased):
    _, params, _ = _module(bias=bias)
    found = {name for name in ('query', 'key', 'value') if 'bias' in params[name]}
    assert found == set(biased.split()) and 'bias' in params['out']


def test_a_module_projects_norms_turns_and_attends():
    module, params, x = _module(qk_norm=True, bias='qv')
    valid = jnp.array([[True] * 5, [True, True, False, True, False]])
    rope = _angles(5, 4)
    got = jax.jit(lambda params, x: module.apply({'params': params}, x, valid, rope))(params, x)
    parts = {}
    for name in ('query', 'key', 'value'):
        part = np.einsum('mnd,dhe->mnhe', x, params[name]['kernel']) + params[name].get('bias', 0)
        if name != 'value':  # RMS over all the heads, then the rotation
            flat = part.reshape(2, 5, 8)
            flat = flat / np.sqrt(np.mean(flat**2, axis=-1, keepdims=True) + 1e-6) * params[f'{name}_norm']['scale']
            part = attention.rotate(jnp.asarray(flat.reshape(2, 5, 2, 4)), rope)
        parts[name] = part
    mixed = _exact(*parts.values(), valid)
    want = np.einsum('mnhd,hde->mne', mixed, params['out']['kernel']) + params['out']['bias']
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_a_module_refuses_what_it_cannot_be():
    x = jnp.zeros((1, 2, 8))
    for fields, message in (
        ({'heads': 3}, 'width 8 cannot be split into 3 heads'),
        ({'heads': 2, 'bias': 'k'}, "bias is 'k'; it must be one of full, qv, none"),
    ):
        with pytest.raises(ValueError, match=message):
            attention.Attention(width=8, **fields).init(jax.random.key(0), x)
