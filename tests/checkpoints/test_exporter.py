"""Folders for transformers: the published names and settings, refusals, and what is said about differences."""

import dataclasses
import functools
import json
import pathlib
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from vidloc.checkpoints import exporter, key_maps
from vidloc.checkpoints.layouts import videomae as videomae_names
from vidloc.checkpoints.layouts import vivit as vivit_names
from vidloc.checkpoints.layouts import vjepa2 as vjepa2_names
from vidloc.models import attentive_pooler, classification_head, layers, videomae, vivit_joint, vjepa2

CASES = pathlib.Path(__file__).parents[1] / 'reference/backbones'
GREY = (127.5, 127.5, 127.5)
# Folder -> the layout of its file, the model, the kind of its head.
PUBLISHED = {
    'videomae_b': (
        videomae_names.HF,
        videomae.VideoMAE(width=24, mlp=96, layers=2, heads=3, grid=(2, 4, 4), patch=(4, 4), eps=1e-12),
        'linear',
        classification_head.ClassificationHead(3, norm=True, norm_eps=1e-5),
    ),
    'vivit_b': (
        vivit_names.HF,
        vivit_joint.JointViViT(width=24, mlp=96, layers=2, heads=3, grid=(2, 4, 4), patch=(4, 4)),
        'linear',
        classification_head.ClassificationHead(3),
    ),
    'vjepa2_d12_two_heads': (
        vjepa2_names.HF,
        vjepa2.VJepa2(width=24, mlp=96, layers=2, heads=2, patch=(4, 4)),
        'attentive',
        attentive_pooler.AttentiveHead(3, heads=2, layers=1),
    ),
}


def read(path):
    """(arrays, metadata) of a safetensors file."""
    data = path.read_bytes()
    (size,) = struct.unpack('<Q', data[:8])
    header = json.loads(data[8 : 8 + size])
    metadata = header.pop('__metadata__', None)
    arrays = {
        name: np.frombuffer(data[8 + size :][slice(*entry['data_offsets'])], np.float32).reshape(entry['shape'])
        for name, entry in header.items()
    }
    return arrays, metadata


def fields_of(kind, module, **changed):
    names = [field.name for field in dataclasses.fields(module) if field.name not in ('parent', 'name')]
    return {'kind': kind, **{name: getattr(module, name) for name in names}, **changed}


def model_of(kind, backbone, head_kind='', head=None, size=(16, 16), labels=None):
    head = fields_of(head_kind, head) if head else None
    return exporter.Model(fields_of(kind, backbone), head, labels, GREY, (50.0, 60.0, 70.0), size, 4)


@functools.cache
def shapes_of(backbone, head):
    video, valid = jnp.zeros((1, 4, 16, 16, 3)), jnp.ones((1, 4), bool)

    def start():
        encoded, params = backbone.init_with_output(jax.random.key(0), video, valid, train=False)
        found = {'backbone': params['params']}
        if head is not None:
            found['head'] = head.init(jax.random.key(0), encoded, {}, train=False)['params']
        return found

    return jax.eval_shape(start)


def random_params(backbone, head=None):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes_of(backbone, head))


@pytest.mark.parametrize('form', ['run', 'canonical'])
@pytest.mark.parametrize('name', PUBLISHED)
def test_a_published_file_comes_back_as_it_was(name, form, tmp_path):
    layout, backbone, head_kind, head = PUBLISHED[name]
    arrays, _ = read(CASES / name / 'model.safetensors')
    params = {}
    for leaf, shape in traverse_util.flatten_dict(layers.to_canonical(shapes_of(backbone, head)), sep='/').items():
        rule = layout.bind(leaf)[0]
        source = (layout.base if leaf.startswith('backbone/') else '') + rule.source
        params[leaf] = key_maps.apply(rule, arrays[source], shape.shape)
    params = traverse_util.unflatten_dict(params, sep='/')
    if form == 'run':
        params = layers.to_run(params, {'backbone/encoder': ((0, 0), (1, 1))})
    model = model_of(layout.family, backbone, head_kind, head)
    done = exporter.export(tmp_path / 'out', params, model)
    want = json.loads((CASES / name / 'config.json').read_text())
    assert done.with_head and done.architecture == want['architectures'][0]
    found, metadata = read(tmp_path / 'out/model.safetensors')
    assert metadata == {'format': 'pt'}
    wanted = {key: value for key, value in arrays.items() if 'predictor' not in key}
    assert {key for key in found if 'predictor' not in key} == wanted.keys()
    for key, value in wanted.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)
    config = json.loads((tmp_path / 'out/config.json').read_text())
    assert 'architectures' in config and 'label2id' in config
    for key, value in config.items():
        if not key.startswith('pred_') and key != 'frames_per_clip':
            assert want[key] == value, key


def test_labels_and_preprocessing(tmp_path):
    _, backbone, kind, head = PUBLISHED['videomae_b']
    params = random_params(backbone, head)
    exporter.export(tmp_path / 'named', params, model_of('videomae', backbone, kind, head, labels=('a', 'b', 'c')))
    config = json.loads((tmp_path / 'named/config.json').read_text())
    assert config['id2label'] == {'0': 'a', '1': 'b', '2': 'c'}
    assert config['label2id'] == {'a': 0, 'b': 1, 'c': 2}
    with pytest.raises(exporter.ExportError, match='there are 2 labels for 3 classes'):
        exporter.export(tmp_path / 'two', params, model_of('videomae', backbone, kind, head, labels=('a', 'b')))
    pixels = np.array([0.0, 100.0, 255.0])
    for name, offset in (('videomae_b', 0.0), ('vivit_b', 1.0)):
        layout, backbone, _, _ = PUBLISHED[name]
        out = tmp_path / name
        exporter.export(out, random_params(backbone), model_of(layout.family, backbone, size=(16, 24)))
        prepare = json.loads((out / 'preprocessor_config.json').read_text())
        mean, std = np.array(prepare['image_mean']), np.array(prepare['image_std'])
        got = (pixels * prepare['rescale_factor'] - offset - mean) / std
        np.testing.assert_allclose(got, (pixels - 127.5) / [50, 60, 70], rtol=1e-12)
        assert prepare['crop_size'] == {'height': 16, 'width': 24} and prepare['size'] == {'shortest_edge': 16}


def test_heads_that_transformers_does_not_have_are_left_out(tmp_path):
    _, backbone, _, head = PUBLISHED['videomae_b']
    plain = classification_head.ClassificationHead(3)
    by_text = head.clone(text='names.npz', text_width=5)
    pretrained = backbone.clone(final_norm=True)
    joint = PUBLISHED['vivit_b'][1]
    jepa, probe = PUBLISHED['vjepa2_d12_two_heads'][1], attentive_pooler.AttentiveHead(3, heads=3, layers=1)
    for i, (kind, module, head_kind, head_module, why) in enumerate(
        (
            ('videomae', backbone, 'roi', plain, "ours of kind 'roi'"),
            ('videomae', backbone, 'linear', plain, 'ours has none'),
            ('videomae', backbone, 'linear', by_text, 'is linear, ours compares with text embeddings'),
            ('videomae', pretrained, 'linear', head, 'takes the first token'),
            ('vivit_joint', joint, 'linear', head, 'no norm of its own'),
            ('vjepa2', jepa, 'linear', plain, "is of kind 'attentive'"),
            ('vjepa2', jepa, 'attentive', probe, '2 heads of the encoder, ours has 3'),
        )
    ):
        out = tmp_path / str(i)
        params = random_params(module, head_module)
        done = exporter.export(out, params, model_of(kind, module, head_kind, head_module))
        assert not done.with_head and any('left out' in note and why in note for note in done.notes), done
        config = json.loads((out / 'config.json').read_text())
        assert config['architectures'] == [done.architecture] and done.architecture.endswith('Model')
        assert 'id2label' not in config
        names = read(out / 'model.safetensors')[0]
        assert not any(name.startswith(('classifier', 'fc_norm', f'{config["model_type"]}.')) for name in names)


def test_differences_that_remain_are_said(tmp_path):
    _, backbone, kind, _ = PUBLISHED['videomae_b']
    head = classification_head.ClassificationHead(3, norm=True)
    params = random_params(backbone, head)
    model = model_of('videomae', backbone, kind, head, size=(16, 32))
    notes = exporter.export(tmp_path / 'a', params, model).notes
    assert any('epsilon 1e-05 in transformers and 1e-06 here' in note for note in notes)
    assert any('4 frames of 16 x 16 pixels alone' in note and '4 of 16 x 32' in note for note in notes)
    _, jepa, kind, head = PUBLISHED['vjepa2_d12_two_heads']
    head = head.clone(eps=1e-5)
    notes = exporter.export(tmp_path / 'b', random_params(jepa, head), model_of('vjepa2', jepa, kind, head)).notes
    assert any('the pooler have epsilon 1e-06 there and 1e-05 here' in note for note in notes)


def test_what_cannot_be_exported_is_refused_before_anything_is_written(tmp_path):
    _, backbone, _, head = PUBLISHED['videomae_b']
    jepa = PUBLISHED['vjepa2_d12_two_heads'][1]
    params = random_params(backbone, head)
    renamed = {**params, 'backbone': {**params['backbone'], 'gamma': np.ones(3, np.float32)}}
    good = model_of('videomae', backbone, 'linear', head)
    later = jepa.clone(rope_interleave=True, level_norms=True)
    for given, model, text in (
        (params, model_of('vivit', backbone), "like backbone kind 'vivit'; it has videomae, vivit_joint, vjepa2"),
        (params, model_of('videomae', backbone.clone(layer_scale=0.1)), 'no layer scale'),
        (params, model_of('vjepa2', later), 'no rope_interleave, which V-JEPA 2.1 has; it has no level_norms'),
        (params, model_of('vjepa2', jepa, size=(16, 24)), r'squares.*\(16, 24\)'),
        (params, model_of('vjepa2', jepa.clone(patch=(4, 8))), 'patches are 4 x 8'),
        ({'backbone': params['backbone']}, good, 'no parameters of the head'),
        (renamed, good, 'backbone/gamma has no counterpart'),
    ):
        with pytest.raises(exporter.ExportError, match=text):
            exporter.export(tmp_path / 'out', given, model)
        assert not (tmp_path / 'out').exists()
    for place in (tmp_path / 'kept', tmp_path / 'file'):
        kept = place / 'config.json' if place.name == 'kept' else place
        kept.parent.mkdir(exist_ok=True)
        kept.write_text('of a run')
        with pytest.raises(exporter.ExportError, match='is there already'):
            exporter.export(place, params, good)
        assert kept.read_text() == 'of a run'


def test_the_ratio_of_the_mlp_gives_its_width_back(tmp_path):
    for width, hidden in ((1408, 6144), (1664, 8192), (1024, 4096), (24, 44), (49, 97), (161, 1000)):
        backbone = vjepa2.VJepa2(width=width, mlp=hidden, layers=1, heads=1, patch=(1, 1))
        params = {'backbone': {'norm': {'scale': np.ones(width, np.float32), 'bias': np.ones(width, np.float32)}}}
        out = tmp_path / str(hidden)
        exporter.export(out, params, model_of('vjepa2', backbone))
        assert int(width * json.loads((out / 'config.json').read_text())['mlp_ratio']) == hidden
