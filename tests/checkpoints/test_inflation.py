"""Image ViTs as the start of video models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from vidloc.checkpoints import importer, inflation, native
from vidloc.checkpoints.importer import ImportFailed
from vidloc.models import embedding, layers, positions, vivit_joint

VIVIT = {
    'kind': 'vivit', 'width': 32, 'mlp': 48, 'heads': 2, 'patch': (4, 4), 'tubelet': 2, 'spatial_layers': 3,
    'temporal_layers': 1, 'grid': (2, 3, 3), 'cls': True, 'temporal_on': 'rois',
}  # fmt: skip
JOINT = {
    'kind': 'vivit_joint', 'width': 32, 'mlp': 48, 'heads': 2, 'patch': (4, 4), 'tubelet': 2, 'layers': 3,
    'grid': (2, 3, 3),
}  # fmt: skip
VJEPA2 = {'kind': 'vjepa2', 'width': 32, 'mlp': 48, 'heads': 2, 'layers': 3}


@pytest.fixture
def image(toys, tmp_path):
    """(kind of file, change of its arrays) -> (canonical parameters, path)"""

    def make(kind='augreg', change=lambda arrays: None):
        params, arrays = toys.image_arrays(kind)
        change(arrays)
        path = tmp_path / f'{kind}.npz'
        np.savez(path, **arrays)
        return params, path

    return make


def planned(path, backbone):
    """(plan of the import, {canonical name: array} of what has a source)"""
    weights, found = importer.read(path)
    plan = importer.plan(weights, found, native.own_shapes(backbone, None), backbone=backbone)
    return plan, {name: make() for name, make in plan.fill.items()}


def canonical(params):
    return traverse_util.flatten_dict(layers.to_canonical(params), sep='/')


@pytest.mark.parametrize('method', inflation.METHODS)
@pytest.mark.parametrize('frames', [1, 2, 3, 4])
def test_a_still_video_has_the_embedding_of_its_image(method, frames):
    rng = np.random.default_rng(frames)
    kernel, bias = rng.normal(size=(4, 4, 3, 8)).astype(np.float32), rng.normal(size=8).astype(np.float32)
    picture = jnp.asarray(rng.normal(size=(1, 1, 8, 12, 3)), jnp.float32)
    embed = embedding.TubeletEmbedding(8, 1, (4, 4), init=jax.nn.initializers.zeros)
    expected = embed.apply({'params': {'kernel': kernel[None], 'bias': bias}}, picture)
    inflated = inflation.inflate(kernel, frames, method)
    embed = embedding.TubeletEmbedding(8, frames, (4, 4), init=jax.nn.initializers.zeros)
    video = jnp.repeat(picture, frames, axis=1)
    found = embed.apply({'params': {'kernel': inflated, 'bias': bias}}, video)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_central_filter_lies_on_the_axis_of_time():
    kernel = np.ones((4, 6, 3, 8), np.float32)
    inflated = inflation.inflate(kernel, 3, 'central')
    np.testing.assert_array_equal(inflated.sum(axis=(1, 2, 3, 4)), [0, kernel.size, 0])
    np.testing.assert_array_equal(inflation.inflate(kernel, 4, 'mean'), np.full((4, *kernel.shape), 0.25))


@pytest.mark.parametrize('kind', ['augreg', 'scenic', 'big_vision', 'stacked'])
def test_into_the_factorised_vivit(image, kind):
    params, path = image(kind)
    plan, found = planned(path, VIVIT)
    for name, array in params.items():
        target = name.replace('/encoder/', '/spatial/')
        if target == 'backbone/embedding/kernel':
            np.testing.assert_array_equal(found[target][1], array)
            assert not found[target][0].any()
        elif target == 'backbone/spatial/position':
            np.testing.assert_array_equal(found[target][:, -9:], array[:, -9:])
            token = array[:, 0] if array.shape[1] == 10 else np.zeros((1, 32))
            np.testing.assert_array_equal(found[target][:, 0], token)
        else:
            np.testing.assert_array_equal(found[target], array)
    fresh = {row.name for row in plan.rows if row.kind == 'initialised' and row.name not in found}
    assert fresh == {name for name in native.own_shapes(VIVIT, None) if name.startswith('backbone/temporal/')}
    assert {row.name for row in plan.rows if row.kind == 'ignored'} == {'head/kernel', 'head/bias'}
    for said in (
        'the filter on frame 1 of 2, zeros elsewhere', 'from scratch: an image has no time',
        'the CLS token, which Scenic does not take along', 'the classifier of images',
    ):  # fmt: skip
        assert said in plan.table


def test_the_spatial_encoder_computes_what_the_image_model_computes(image, toys):
    params, path = image()
    video = importer.load(path, into=VIVIT, inflate='mean')
    sizes = {name: value for name, value in toys.IMAGE.items() if name != 'kind'}
    tree = traverse_util.unflatten_dict({name.removeprefix('backbone/'): x for name, x in params.items()}, sep='/')
    tree['embedding']['kernel'] = tree['embedding']['kernel'][None]
    picture = jnp.asarray(np.random.default_rng(0).normal(size=(1, 1, 12, 12, 3)), jnp.float32)
    module = vivit_joint.JointViViT(**sizes)
    run = jax.jit(lambda tree: module.apply({'params': tree}, picture, jnp.ones((1, 1), bool), train=False).grid)
    found = video.features(jnp.repeat(picture, 4, axis=1)).grid  # [1, 2, 3, 3, D]
    np.testing.assert_allclose(found, np.repeat(run(layers.to_run(tree, {})), 2, axis=1), atol=1e-4)


def test_into_the_joint_vivit(image):
    params, path = image()
    found = canonical(importer.load(path, into=JOINT | {'grid': (4, 3, 5)}).params)
    old, new = params['backbone/encoder/position'], found['backbone/encoder/position']
    resized = np.asarray(positions.resize(old, (3, 3), (3, 5), cls=True))
    np.testing.assert_array_equal(new[:, 0], old[:, 0])
    np.testing.assert_allclose(new[0, 1:].reshape(4, 15, 32), np.repeat(resized[:, 1:], 4, axis=0), atol=1e-6)
    np.testing.assert_array_equal(found['backbone/encoder/cls'], params['backbone/encoder/cls'])


def test_positions_are_resized_in_two_dimensions(image):
    params, path = image()
    plan, found = planned(path, VIVIT | {'grid': (2, 5, 4)})
    expected = positions.resize(params['backbone/encoder/position'], (3, 3), (5, 4), cls=True)
    np.testing.assert_allclose(found['backbone/spatial/position'], expected, atol=1e-6)
    assert 'resized from the grid (3, 3) to (5, 4)' in plan.table


def test_without_a_cls_token_its_place_is_dropped(image):
    params, path = image()
    plan, found = planned(path, VIVIT | {'cls': False})
    np.testing.assert_array_equal(found['backbone/spatial/position'], params['backbone/encoder/position'][:, 1:])
    assert 'backbone/spatial/cls' not in found
    assert 'the CLS token, which the model does not have' in plan.table


def test_what_is_missing_in_the_image_is_named_as_it_is_there(image):
    _, path = image(change=lambda arrays: arrays.pop('Transformer/encoderblock_1/LayerNorm_0/scale'))
    with pytest.raises(ImportFailed) as error:
        importer.load(path, into=VIVIT)
    assert "looked for 'Transformer/encoderblock_1/LayerNorm_0/scale'" in str(error.value)
    assert 'backbone/spatial/block_01/ln1/scale' in str(error.value)


@pytest.mark.parametrize(
    ('into', 'inflate', 'said'),
    [
        (None, 'central', 'told what it becomes'),
        (VIVIT, 'median', 'it must be one of central, mean'),
        (
            {'kind': 'vjepa2', 'width': 32, 'mlp': 48, 'heads': 2, 'layers': 3},
            'central',
            'becomes vivit or vivit_joint',
        ),
        (VIVIT | {'spatial_layers': 4}, 'central', r'backbone/spatial/block_03/\* \(16 names\)'),
        (VIVIT | {'patch': (2, 2)}, 'central', r'\[4, 4, 3, 32\] in the file, \[2, 2, 2, 3, 32\] in the model'),
        (VIVIT | {'depth': 3}, 'central', 'depth'),
    ],
)
def test_what_an_image_cannot_become(image, into, inflate, said):
    _, path = image()
    with pytest.raises(ImportFailed, match=said):
        importer.load(path, into=into, inflate=inflate)


def test_the_backbone_that_an_image_model_becomes(image):
    _, path = image()
    _, found = importer.read(path)
    given = {'size': None, 'frames': 8, 'tubelet': 2, 'temporal_layers': 1}
    made = inflation.backbone_of(found.backbone, 'vivit', **given)
    assert made == {name: value for name, value in VIVIT.items() if name != 'temporal_on'} | {'grid': (4, 3, 3)}
    made = inflation.backbone_of(found.backbone, 'vivit_joint', **given | {'size': (16, 20)})
    assert made == JOINT | {'grid': (4, 4, 5)}
    with pytest.raises(inflation.InflationError, match='frames 7, which is no multiple of 2'):
        inflation.backbone_of(found.backbone, 'vivit', **given | {'frames': 7})
    with pytest.raises(inflation.InflationError, match='width 18, which is no multiple of 4'):
        inflation.backbone_of(found.backbone, 'vivit', **given | {'size': (16, 18)})
