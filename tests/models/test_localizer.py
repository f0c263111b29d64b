"""The whole model: dispatch by task, one tree for all tasks, joint batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.models import classification_head, film, localizer, lora, preprocess, roi_head, vivit

BACKBONE = vivit.ViViT(
    width=8, mlp=16, heads=2, spatial_layers=1, temporal_layers=1, grid=(2, 2, 3), patch=(4, 4), tubelet=2
)


def _model(temporal='mean', **changes):
    backbone = BACKBONE.clone(**changes)
    encoder = backbone if temporal == 'encoder' else None
    heads = {
        'street': roi_head.RoiHead(3, (2, 2), temporal=temporal, encoder=encoder, kernel_std=1.0),
        'studio': classification_head.ClassificationHead(4, kernel_std=1.0),
    }
    return localizer.Localizer(backbone, heads, preprocess.Preprocess(brightness=0.2))


def _batches():
    video = jax.random.randint(jax.random.key(0), (2, 4, 8, 12, 3), 0, 256).astype(jnp.uint8)
    clip = {'frame_valid': jnp.ones((2, 4), bool), 'seed': jnp.arange(2, dtype=jnp.uint32)}
    boxes = jnp.array([[[0.1, 0.2, 0.7, 0.9], [0, 0, 0, 0]]] * 2)
    return {
        'street': clip | {'video': video, 'boxes': boxes},
        'studio': clip | {'video': video[:, :, :, :8]},  # another size
    }


def _start(model, batches=None):
    batches = batches or _batches()
    return jax.jit(lambda key: localizer.init(model, key, batches))(jax.random.key(0))


def test_one_tree_from_shapes_and_tasks_run_alone_or_together():
    model, batches = _model(), _batches()
    params = _start(model)
    assert set(params) == {'backbone', 'heads_street', 'heads_studio'}
    shapes = jax.eval_shape(lambda key: localizer.init(model, key, jax.eval_shape(lambda: batches)), jax.random.key(0))
    assert shapes == jax.eval_shape(lambda: params)
    larger = jax.tree.map(lambda x: jax.ShapeDtypeStruct((7, *x.shape[1:]), x.dtype), batches)
    larger['studio']['video'] = jax.ShapeDtypeStruct((7, 8, 16, 4, 3), jnp.uint8)
    larger['studio']['frame_valid'] = jax.ShapeDtypeStruct((7, 8), jnp.bool_)
    assert shapes == jax.eval_shape(lambda key: localizer.init(model, key, larger), jax.random.key(0))

    run = jax.jit(lambda params, batches: model.apply({'params': params}, batches, train=False))
    joint = run(params, batches)
    assert joint['street'].shape == (2, 2, 3) and joint['studio'].shape == (2, 4)
    for task, batch in batches.items():
        alone = run({name: params[name] for name in ('backbone', f'heads_{task}')}, {task: batch})
        assert set(alone) == {task}
        np.testing.assert_allclose(alone[task], joint[task], atol=1e-5)


def test_features_that_are_there_are_not_computed_again():
    model, batches = _model(), _batches()
    params = _start(model)

    @jax.jit
    def run(params):
        encoded = model.apply({'params': params}, batches['street'], train=False, method='encode')
        given = {'street': {'features': encoded, 'boxes': batches['street']['boxes']}}
        heads = {'heads_street': params['heads_street']}
        return (
            model.apply({'params': heads}, given, train=False),
            model.apply({'params': params}, {'street': batches['street']}, train=False),
        )

    given, whole = run(params)
    np.testing.assert_allclose(given['street'], whole['street'], atol=1e-6)


def test_the_roi_head_shares_the_temporal_encoder():
    model, batches = _model('encoder', temporal_on='rois', cls=True), _batches()
    plain = _model(temporal_on='rois', cls=True)
    params = _start(model)
    assert jax.tree.structure(params) == jax.tree.structure(jax.eval_shape(lambda: _start(plain)))

    def loss(params, task):
        return jnp.sum(model.apply({'params': params}, {task: batches[task]}, train=False)[task] ** 2)

    for task, other in (('street', 'studio'), ('studio', 'street')):
        gradient = jax.jit(jax.grad(loss), static_argnums=1)(params, task)
        assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient['backbone']['temporal']['norm']))
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient[f'heads_{other}']))


def test_training_draws_come_from_the_seeds_and_the_dropout_key():
    model, batches = _model(dropout=0.2), _batches()
    params = _start(model)

    @jax.jit
    def run(seed, key):
        batch = {'studio': batches['studio'] | {'seed': seed}}
        return model.apply({'params': params}, batch, train=True, rngs={'dropout': key})['studio']

    seed, key = jnp.arange(2, dtype=jnp.uint32), jax.random.key(0)
    first = run(seed, key)
    np.testing.assert_array_equal(first, run(seed, key))
    assert np.abs(first - run(seed + 1, key)).max() > 1e-4
    assert np.abs(first - run(seed, jax.random.key(1))).max() > 1e-4


def test_unknown_and_missing_tasks_are_refused():
    model, batches = _model(), _batches()
    with pytest.raises(ValueError, match='no head for ava; the heads are street, studio'):
        model.apply({'params': {}}, {'ava': batches['street']}, train=False)
    with pytest.raises(ValueError, match='missing: studio'):
        localizer.init(model, jax.random.key(0), {'street': batches['street']})


COPIES = 3
# Behind the layer of the spatial encoder; LoRA is on that of the temporal one.
FILM = film.Film(8, count=COPIES, after=0, embedding=4, std=0.2)


def _adapted(teacher='original', temporal='mean', **changes):
    model = _model(temporal, lora=lora.Lora(rank=2, layers=(1, 1)), **changes)
    return model.clone(film=FILM.clone(teacher=teacher))


def _random(model):
    shapes = jax.eval_shape(lambda: _start(model))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)


def _persons():
    """Two examples whose boxes differ; the second has one person and a filler."""
    batches = _batches()
    boxes = jnp.array([[[0.1, 0.2, 0.7, 0.9], [0.5, 0, 1, 0.5]], [[0.4, 0.4, 0.9, 0.8], [0, 0, 0, 0]]])
    return {'street': batches['street'] | {'boxes': boxes}, 'studio': batches['studio']}


def _zeroed(params, *names):
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: 0 * leaf if any(part.key in names for part in path) else leaf, params
    )


@pytest.fixture(scope='module')
def augmented():
    """(parameters, compiled training pass, its result, that of the model without copies)"""
    model, batches = _adapted(), _persons()
    params = _random(model)
    run = jax.jit(lambda params: model.apply({'params': params}, batches, train=True))
    alone = jax.jit(lambda params: model.clone(film=None).apply({'params': params}, batches, train=True))
    return params, run, run(params), alone(params)


def test_originals_are_what_they_are_without_copies(augmented):
    _, _, found, alone = augmented
    for task, shape in {'street': (2, 2, 3), 'studio': (2, 4)}.items():
        each = found[task]
        assert each.original.shape == shape and each.copies.shape == (COPIES, *shape)
        assert each.gamma.shape == each.beta.shape == (1, COPIES, 8) and each.teacher is None
        np.testing.assert_allclose(each.original, alone[task], rtol=1e-5, atol=1e-5)
        assert all(np.abs(copy - each.original).max() > 0.01 for copy in each.copies)


def test_at_test_time_there_are_no_copies(augmented):
    """The program is that of the model without augmentation."""
    params, batches = augmented[0], _persons()
    programs = [
        str(jax.make_jaxpr(lambda params, model=model: model.apply({'params': params}, batches, train=False))(params))
        for model in (_adapted(), _adapted().clone(film=None))
    ]
    assert programs[0] == programs[1]


def test_copies_that_change_nothing_have_the_boxes_of_their_example(augmented):
    params, run, *_ = augmented
    found = run(params | {'film': _zeroed(params['film'], 'generator')})
    for task in ('street', 'studio'):
        for copy in found[task].copies:
            np.testing.assert_array_equal(copy, found[task].original)
    assert np.abs(found['street'].original[0] - found['street'].original[1]).max() > 0.01


def test_rows_of_the_table_are_copies(augmented):
    params, run, before, _ = augmented
    order = np.array([2, 0, 1])
    turned = params | {'film': params['film'] | {'table': params['film']['table'][order]}}
    after = run(turned)
    for task in ('street', 'studio'):
        np.testing.assert_allclose(after[task].copies, before[task].copies[order], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(after[task].original, before[task].original, rtol=1e-5, atol=1e-5)


def test_the_unadapted_teacher_is_the_model_with_lora_at_zero_and_without_dropout():
    """Of the same pixels, and where the head runs a part of the backbone, too. No gradient passes."""
    fields = {'temporal': 'encoder', 'temporal_on': 'rois', 'cls': True}
    model = _adapted('unadapted', dropout=0.2, **fields)
    quiet = _adapted('original', **fields).clone(film=None)
    params, batches = _random(model), {'street': _persons()['street']}

    @jax.jit
    def run(params, without):
        def taught(params):
            rngs = {'dropout': jax.random.key(0)}
            found = model.apply({'params': params}, batches, train=True, rngs=rngs)['street']
            return jnp.sum(found.teacher**2), found

        (_, found), slope = jax.value_and_grad(taught, has_aux=True)(params)
        return found, slope, quiet.apply({'params': without}, batches, train=True)['street']

    without = _zeroed({name: tree for name, tree in params.items() if name != 'film'}, 'lora_b')
    found, slope, want = run(params, without)
    np.testing.assert_allclose(found.teacher, want, rtol=1e-5, atol=1e-5)
    assert np.abs(found.teacher - found.original).max() > 0.01
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(slope))


def test_copies_need_a_video():
    batch = {'features': None, 'boxes': jnp.zeros((2, 1, 4))}
    told = "task 'street': features are augmented inside the backbone, which needs a video"
    with pytest.raises(ValueError, match=told):
        _adapted().apply({'params': {}}, {'street': batch}, train=True)
