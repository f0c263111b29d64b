"""Scores by cosine with given embeddings, against the formula in float64 NumPy, alone and in both heads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.models import classification_head, features, roi_head, text_similarity

C, D, E = 4, 6, 3
BOXES = {'boxes': jnp.array([[[0.1, 0.2, 0.7, 0.9], [0.0, 0.0, 1.0, 1.0]]])}


def encoded():
    keys = jax.random.split(jax.random.key(0), 2)
    grid, pooled = jax.random.normal(keys[0], (1, 2, 3, 3, D)), jax.random.normal(keys[1], (1, D))
    return features.Features(grid=grid, valid=jnp.ones((1, 2), bool), pooled=pooled)


def given(params, width=E):
    """The parameters with embeddings of any length."""
    return params | {'embedding': 3.0 * jax.random.normal(jax.random.key(5), (C, width))}


def expected(x, params):
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    x, embedding = np.asarray(x, np.float64), params['embedding']
    x = x @ params['projection']['kernel'] if 'projection' in params else x
    cosine = (x / np.linalg.norm(x, axis=-1, keepdims=True)) @ (
        embedding / np.linalg.norm(embedding, axis=-1, keepdims=True)
    ).T
    return np.exp(params['scale']) * cosine + params['bias']


@pytest.mark.parametrize('project', [True, False])
def test_logits_are_scaled_cosines_and_a_bias(project):
    width = E if project else D
    head = text_similarity.TextSimilarity(C, width, project, start_scale=7.0, start_bias=(-2.0, -1.0, 0.0, 1.0))
    x = jax.random.normal(jax.random.key(1), (2, 5, D))
    params = head.init(jax.random.key(2), x)['params']
    shapes = {'embedding': (C, width), 'scale': (), 'bias': (C,)}
    shapes |= {'projection': {'kernel': (D, E)}} if project else {}
    assert jax.tree.map(np.shape, params) == shapes
    assert np.exp(params['scale']) == pytest.approx(7.0) and params['bias'].tolist() == [-2.0, -1.0, 0.0, 1.0]
    params = given(params, width)
    for apply in (head.apply, jax.jit(head.apply)):
        out = apply({'params': params}, x)
        assert out.dtype == jnp.float32 and out.shape == (2, 5, C)
        np.testing.assert_allclose(out, expected(x, params), atol=1e-5)
    # As precision.frozen may keep them; nothing else is rounded.
    rounded = params | {'embedding': params['embedding'].astype(jnp.bfloat16)}
    out = jax.jit(head.apply)({'params': rounded}, x)
    np.testing.assert_allclose(out, expected(x, rounded), atol=1e-5)


def test_embeddings_have_to_be_given():
    head = text_similarity.TextSimilarity(C, E)
    out, _ = head.init_with_output(jax.random.key(2), jnp.ones((1, D)))
    assert np.isnan(out).all()


def test_gradients_are_finite_and_a_feature_of_zeros_has_none():
    head = text_similarity.TextSimilarity(C, E)
    x = jax.random.normal(jax.random.key(1), (3, D)).at[1].set(0.0)
    params = given(head.init(jax.random.key(2), x)['params'])
    embedding = params.pop('embedding')

    @jax.jit
    def loss(params, x):
        out = head.apply({'params': params | {'embedding': embedding}}, x)
        return jnp.sum(jax.nn.softplus(out)), out

    (_, out), (slopes, to_x) = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)
    np.testing.assert_array_equal(out[1], 0)  # the bias
    for slope in jax.tree.leaves(slopes):
        assert np.isfinite(slope).all() and np.abs(slope).max() > 1e-3
    to_x = np.asarray(to_x)
    assert np.isfinite(to_x).all() and not to_x[1].any() and to_x[0].any() and to_x[2].any()
    # The direction of a feature matters, its length does not.
    np.testing.assert_allclose(np.sum(to_x * np.asarray(x), axis=-1), 0, atol=1e-5)


@pytest.mark.parametrize(
    ('fields', 'text'),
    [
        ({'width': 0}, 'text_width 0'),
        ({'width': D, 'start_scale': 0.0}, 'text_scale 0.0 above 0'),
        ({'width': E, 'project': False}, 'of 6 channels, with text embeddings of 3.*text_project=True'),
    ],
)
def test_what_does_not_fit_is_refused(fields, text):
    with pytest.raises(ValueError, match=text):
        text_similarity.TextSimilarity(C, **fields).init(jax.random.key(0), jnp.ones((1, D)))


def run(head, params, batch):
    return jax.jit(lambda params: head.apply({'params': params}, encoded(), batch, train=False))(params)


def test_heads_compare_what_they_pool():
    boxes = roi_head.RoiHead(C, (1, 1), 'mean', bias=(-3.0,), text='names.npz', text_width=E)
    clips = classification_head.ClassificationHead(C, text='names.npz', text_width=D, text_project=False)
    for head, batch, shape in ((boxes, BOXES, (1, 2, C)), (clips, {}, (1, C))):
        start = jax.jit(lambda head=head, batch=batch: head.init(jax.random.key(1), encoded(), batch, train=False))()
        start = start['params']
        assert start.keys() == {'text'}
        assert (start['text']['bias'] == (-3.0 if head is boxes else 0.0)).all()
        params = given(start['text'], head.text_width)
        out = run(head, {'text': params}, batch)
        assert out.shape == shape
        if head is clips:
            np.testing.assert_allclose(out, expected(encoded().pooled, params), atol=1e-5)
            continue
        # A linear head with the projection in its place gives what is compared.
        linear = roi_head.RoiHead(E, (1, 1), 'mean')
        output = {'kernel': params['projection']['kernel'], 'bias': jnp.zeros(E)}
        mapped = run(linear, {'output': output}, batch)
        alone = {name: leaf for name, leaf in params.items() if name != 'projection'}
        np.testing.assert_allclose(out, expected(mapped, alone), atol=1e-4)
