"""Copies of features behind a layer: their order, that they change nothing but what they should, and their start."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.models import film, layers, tap, vjepa2

N, WIDTH = 3, 16


def identity(examples=1, count=N, width=WIDTH, after=0):
    return film.Copies(after, jnp.ones((examples, count, width)), jnp.zeros((examples, count, width)))


def a_change(examples=2, count=N, width=WIDTH, after=0, seed=0):
    rng = np.random.default_rng(seed)
    gamma, beta = (rng.normal(mean, 0.3, (examples, count, width)).astype(np.float32) for mean in (1.0, 0.0))
    return film.Copies(after, jnp.asarray(gamma), jnp.asarray(beta))


@pytest.mark.parametrize('each', [1, 5])
@pytest.mark.parametrize('own', [True, False])
def test_an_example_is_followed_by_its_copies(each, own):
    """each: sequences of an example, as those of a time or a place; own: changes of each example, or one for all."""
    copies = a_change(2 if own else 1, width=4)
    x = np.random.default_rng(1).normal(size=(2 * each, 3, 4)).astype(np.float32)
    found = np.asarray(copies.augment(jnp.asarray(x), 2))
    rows = np.asarray(copies.repeat(jnp.arange(2 * each), 2))
    assert len(found) == len(rows) == 2 * each * (1 + N) and copies.count == N
    row = 0
    for example in range(2):
        of = x[example * each : (example + 1) * each]
        for i in range(1 + N):
            want = of
            if i:
                gamma, beta = (np.asarray(part[example if own else 0, i - 1]) for part in (copies.gamma, copies.beta))
                want = gamma * of + beta
            np.testing.assert_allclose(found[row : row + each], want, rtol=1e-6, atol=1e-6)
            np.testing.assert_array_equal(rows[row : row + each], np.arange(example * each, (example + 1) * each))
            row += each


def test_copies_are_of_one_stack():
    copies = identity(after=4)
    assert copies.within(0, 4) is None and copies.within(5, 2) is None
    assert copies.within(3, 2).after == 1 and copies.within(0, 5).after == 4


def test_small_changes_are_not_lost_in_bfloat16():
    """bfloat16 has no number between 1 and 1.0078."""
    x = jax.random.uniform(jax.random.key(0), (1, 4000, 1), minval=1.0, maxval=2.0).astype(jnp.bfloat16)
    copies = film.Copies(0, jnp.full((1, 1, 1), 1.003), jnp.zeros((1, 1, 1)))
    original, copy = np.asarray(copies.augment(x, 1), np.float32)
    np.testing.assert_array_equal(original, np.asarray(x[0], np.float32))
    assert abs(np.mean(copy / original) - 1.003) < 5e-4


BEHIND = {
    'vivit': (0, 1, 2, 3), 'vivit on rois': (0, 1), 'vivit_joint': (0, 2), 'videomae': (0, 2), 'vjepa2': (0, 2),
    'internvideo2': (0, 2),
}  # fmt: skip


@pytest.mark.parametrize('family', BEHIND)
def test_a_copy_that_changes_nothing_is_its_example_bit_for_bit(families, clips, family):
    """Behind the first and the last layer, and in ViViT behind those of both encoders. One copy is changed: it alone
    differs, so that the order is example by example, whatever the encoders make of it on the way."""
    model = families[family]
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *clips, train=False)['params'])
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)
    changed = identity(2)
    changed = film.Copies(0, changed.gamma.at[1, 0].set(1.5), changed.beta.at[1, 0].set(0.1))

    @jax.jit
    def run(params):
        plain = model.apply({'params': params}, *clips, train=True)
        return plain, {
            after: model.apply(
                {'params': params}, *clips, train=True, film=film.Copies(after, changed.gamma, changed.beta)
            )
            for after in BEHIND[family]
        }

    plain, found = run(params)
    for after, features in found.items():
        parts = [(features.grid, plain.grid), (features.valid, plain.valid)]
        parts += [] if plain.pooled is None else [(features.pooled, plain.pooled)]
        for with_copies, alone in parts:
            rows = np.asarray(with_copies).reshape(2, 1 + N, *alone.shape[1:])
            np.testing.assert_allclose(rows[:, 0], alone, rtol=1e-5, atol=1e-5, err_msg=f'behind {after}')
            for example in range(2):
                for i in range(1, 1 + N):
                    same = np.array_equal(rows[example, i], rows[example, 0])
                    moved = (example, i) == (1, 1) and with_copies.dtype != bool
                    assert same != moved, (after, example, i)


BLOCK = layers.Block(width=8, hidden=16, heads=2)
STACK = layers.Stack(block=BLOCK, layers=3)
# The second example of the two, which are two sequences each, ends in padding.
X = jax.random.normal(jax.random.key(1), (4, 5, 8))
VALID = jnp.arange(5) < jnp.array([[5], [5], [3], [3]])


@functools.cache
def stack_params():
    shapes = jax.eval_shape(lambda: STACK.init(jax.random.key(0), X, train=False)['params'])
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)


@jax.jit
def one_layer(params, x, valid):
    return BLOCK.apply({'params': params}, x, train=False, valid=valid)


@pytest.mark.parametrize('after', [0, 2])
def test_copies_go_through_the_layers_behind_as_sequences_of_their_own(after):
    copies = a_change(width=8, after=after)
    blocks = layers.to_canonical(stack_params())

    @jax.jit
    def run(params):
        options = {'train': True, 'valid': VALID, 'examples': 2, 'film': copies}
        return STACK.apply({'params': params}, X, method='run_blocks', **options)[0]

    rows = []
    for example in range(2):
        here = slice(2 * example, 2 * example + 2)
        for i in range(1 + N):
            x = X[here]
            for layer in range(3):
                x = one_layer(blocks[f'block_{layer:02d}'], x, VALID[here])
                if layer == after and i:
                    x = copies.gamma[example, i - 1] * x + copies.beta[example, i - 1]
            rows.append(x)
    np.testing.assert_allclose(run(stack_params()), np.concatenate(rows), rtol=1e-4, atol=1e-4)


def test_drop_path_is_drawn_for_every_copy_and_shared_by_its_sequences():
    stack, x = STACK.clone(drop_path=0.6), jnp.repeat(X[:2], 2, axis=0)  # two equal sequences each

    @jax.jit
    def run(params, key):
        options = {'train': True, 'examples': 2, 'film': identity(2, count=8, width=8)}
        return stack.apply({'params': params}, x, method='run_blocks', rngs={'dropout': key}, **options)[0]

    found = np.asarray(run(stack_params(), jax.random.key(0))).reshape(2, 9, 2, 5, 8)
    np.testing.assert_array_equal(found[:, :, 0], found[:, :, 1])
    for example in found[:, :, 0]:
        assert len(np.unique(example.reshape(9, -1).round(4), axis=0)) > 3


def test_neither_what_is_computed_again_nor_unrolling_nor_segments_change_a_gradient():
    """The layer behind which copies are made is in the middle of a segment, or the last of one."""
    copies = a_change(width=8, after=1)
    parted = ((0, 1), (2, 2))
    ways = [{}, {'remat': 'full', 'segments': parted}, {'remat': 'dots', 'unroll': 3}]

    @jax.jit
    def slopes(forms, gamma):
        def loss(gamma, way):
            options = {'train': True, 'valid': VALID, 'examples': 2, 'film': dataclasses.replace(copies, gamma=gamma)}
            params = {'params': forms['segments' in way]}
            return jnp.sum(STACK.clone(**way).apply(params, X, method='run_blocks', **options)[0] ** 2)

        return [jax.grad(loss)(gamma, way) for way in ways]

    parts = layers.to_run({'stack': layers.to_canonical(stack_params())}, {'stack': parted})['stack']
    want, *others = slopes([stack_params(), parts], copies.gamma)
    assert np.abs(want).min() > 0
    for found in others:
        np.testing.assert_allclose(found, want, atol=1e-5 * np.abs(want).max())


def test_what_cannot_be_is_refused():
    def run(**options):
        jax.eval_shape(
            lambda: STACK.apply({'params': stack_params()}, X, train=True, examples=2, method='run_blocks', **options)
        )

    with pytest.raises(ValueError, match='film behind layer 3: the layers are 0 to 2'):
        run(film=identity(width=8, after=3))
    means = tap.Tap((1,), lambda params, x: x.mean(axis=1), {})
    for tapped in ({'taps': (0,)}, {'tap': means}):
        with pytest.raises(ValueError, match='layers cannot be tapped where features are augmented'):
            run(film=identity(width=8), **tapped)


def test_a_family_whose_result_is_made_of_several_layers_cannot_have_copies(clips):
    model = vjepa2.VJepa2(width=16, mlp=24, heads=2, layers=4, patch=(4, 4), level_norms=True, hierarchical=True)
    with pytest.raises(ValueError, match='layers cannot be tapped where features are augmented'):
        jax.eval_shape(lambda: model.init(jax.random.key(0), *clips, train=True, film=identity()))


def test_on_rois_there_are_no_layers_of_the_temporal_encoder_to_make_copies_behind(families, clips):
    model = families['vivit on rois']
    with pytest.raises(
        ValueError, match=r"film behind layer \[2\]: with temporal_on='rois' there are those from 0 to 1"
    ):
        jax.eval_shape(lambda: model.init(jax.random.key(0), *clips, train=True, film=identity(after=2)))


def made(module, seed=0, **rngs):
    keys = {name: jax.random.key(key) for name, key in rngs.items()}
    params = jax.jit(lambda key: module.init(key, 1))(jax.random.key(seed))
    return params, module.apply(params, 2, rngs=keys)


def test_learned_changes_start_near_none_and_differ():
    """A table of deviation 1 and width 128, a kernel of 1e-3: gamma - 1 and beta have sqrt(128) * 1e-3 = 0.0113."""
    params, copies = made(film.Film(64, count=10, after=5))
    assert (copies.after, copies.gamma.shape, copies.beta.shape) == (5, (1, 10, 64), (1, 10, 64))
    for part in (np.asarray(copies.gamma[0]) - 1, np.asarray(copies.beta[0])):
        assert np.all(part != 0) and np.abs(part).max() < 0.06
        assert part.std() == pytest.approx(0.0113, rel=0.15)
        assert np.abs(np.corrcoef(part) - np.eye(10)).max() < 0.7
    assert np.all(np.asarray(params['params']['generator']['bias']) == 0)
    _, none = made(film.Film(64, count=10, std=0.0))
    assert np.all(none.gamma == 1) and np.all(none.beta == 0)


def test_the_generator_is_linear_or_has_one_layer_with_a_gelu():
    module = film.Film(6, count=3, embedding=4, hidden=5, std=0.5)
    params, copies = made(module)
    tree = jax.tree.map(lambda x: np.asarray(x, np.float64), params['params'])
    x = tree['table'] @ tree['hidden']['kernel'] + tree['hidden']['bias']
    x = np.asarray(jax.nn.gelu(x)) @ tree['generator']['kernel'] + tree['generator']['bias']
    np.testing.assert_allclose(copies.gamma[0], 1 + x[:, :6], rtol=1e-5)
    np.testing.assert_allclose(copies.beta[0], x[:, 6:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ('fields', 'count'),
    [
        ({}, 364_544),  # the table 10 * 128, the generator 128 * 2816 + 2816
        ({'embedding': 32, 'hidden': 128}, 10 * 32 + 33 * 128 + 129 * 2816),
        ({'embedding': 32, 'hidden': 256, 'count': 10}, 732_480),
        ({'embedding': 8}, 25_424),
    ],
)
def test_parameters_of_the_generator(fields, count):
    module = film.Film(**{'width': 1408, 'count': 10, **fields})
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), 1))
    assert sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes)) == count


def test_noise_is_drawn_for_every_example_copy_and_step():
    noise = film.Noise(400, count=3, std=0.2, after=7)
    _, copies = made(noise, dropout=0)
    assert copies.after == 7 and copies.gamma.shape == copies.beta.shape == (2, 3, 400)
    gammas, betas = (np.asarray(part).reshape(6, -1) for part in (copies.gamma - 1, copies.beta))
    drawn = np.concatenate([gammas, betas])
    assert np.abs(np.corrcoef(drawn) - np.eye(12)).max() < 0.25
    np.testing.assert_allclose(drawn.std(axis=1), 0.2, rtol=0.15)
    np.testing.assert_allclose(drawn.mean(axis=1), 0, atol=0.04)
    assert np.all(made(noise, dropout=1)[1].gamma != copies.gamma)
    np.testing.assert_array_equal(made(noise, dropout=0)[1].gamma, copies.gamma)


def test_noise_has_no_parameters_and_vanishes_where_nothing_is_drawn():
    params, copies = made(film.Noise(4))
    assert params == {} and np.all(copies.gamma == 1) and np.all(copies.beta == 0)


@pytest.mark.parametrize('kind', [film.Film, film.Noise])
@pytest.mark.parametrize(
    ('fields', 'words'),
    [
        ({'count': 0}, "film.count is 0; it must be at least 1, or film.kind 'none'"),
        ({'after': -2}, 'film.after is -2; it must be a layer or -1'),
        ({'std': -1.0}, 'film.std is -1.0; it must be at least 0'),
        ({'teacher': 'frozen'}, "film.teacher is 'frozen'; it must be one of original, unadapted"),
    ],
)
def test_fields_that_do_not_fit_are_refused(kind, fields, words):
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(lambda: kind(8, **fields).init(jax.random.key(0), 1))


@pytest.mark.parametrize('fields', [{'embedding': 0}, {'hidden': -1}])
def test_a_generator_of_nothing_is_refused(fields):
    with pytest.raises(ValueError, match=r'film.embedding .* must be at least 1, film.hidden .* at least 0'):
        jax.eval_shape(lambda: film.Film(8, **fields).init(jax.random.key(0), 1))
