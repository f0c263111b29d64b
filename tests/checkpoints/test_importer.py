"""Weights of every family, completely or not at all."""

import gzip
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import traverse_util

from vidloc.checkpoints import importer, native
from vidloc.checkpoints.importer import ImportFailed
from vidloc.models import layers

REFERENCE = pathlib.Path(__file__).parents[1] / 'reference' / 'backbones'
MODELS = (
    'vjepa2_hf', 'vjepa2_official', 'vjepa2_1', 'videomae_hf', 'videomae_original', 'vivit_hf', 'scenic_joint',
    'scenic_factorised', 'internvideo2',
)  # fmt: skip


def canonical(params):
    return traverse_util.flatten_dict(layers.to_canonical(params), sep='/')


def kinds(rows):
    return {row.kind for row in rows}


@pytest.mark.parametrize('case', ['vjepa2_d64', 'videomae_b', 'vivit_b'])
def test_logits_of_the_reference_cases(case):
    model = importer.load(REFERENCE / case)
    video = np.load(REFERENCE / case / 'input.npy').transpose(0, 1, 3, 4, 2)  # [B, T, C, H, W] -> [B, T, H, W, C]
    expected = np.load(REFERENCE / case / 'outputs.npz')['logits']
    np.testing.assert_allclose(model.logits(video), expected, atol=2e-5)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(model.params))


@pytest.mark.parametrize('name', MODELS)
def test_every_parameter_of_every_family(toys, tmp_path, name):
    params, path = toys.write(tmp_path, name)
    model = importer.load(path, overrides=toys.overrides(name))
    found = canonical(model.params)
    assert found.keys() == params.keys()
    for each, array in params.items():
        np.testing.assert_array_equal(found[each], array, err_msg=each)
    assert kinds(model.rows) == {'used'}
    assert model.family == model.found.backbone['kind']


def test_layers_fall_into_the_segments_that_are_asked_for(toys, tmp_path):
    params, path = toys.write(tmp_path, 'vjepa2_hf')
    segments = {'backbone/encoder': ((0, 0), (1, 2)), 'head/pooler/self': ((0, 0), (1, 1))}
    model = importer.load(path, overrides={'heads': 2}, segments=segments)
    assert {'blocks_00_00', 'blocks_01_02'} <= model.params['backbone']['encoder'].keys()
    found = canonical(model.params)
    assert found.keys() == params.keys()
    for name, array in params.items():
        np.testing.assert_array_equal(found[name], array)
    with pytest.raises(ImportFailed, match='stacks are under'):
        importer.load(path, overrides={'heads': 2}, segments={'encoder': ((0, 2),)})


@pytest.mark.parametrize('dtype', ['float16', 'float64', 'bfloat16'])
def test_other_precisions_become_float32_and_the_table_says_so(toys, tmp_path, dtype):
    import ml_dtypes

    params, arrays = toys.arrays('videomae_original')
    kind = getattr(ml_dtypes, dtype, dtype)
    arrays = {name: array.astype(kind) for name, array in arrays.items()}
    model = importer.load(toys.write_safetensors(tmp_path / 'x.safetensors', arrays), overrides=GRID)
    assert f'parameters become float32: {len(arrays)} of {dtype}' in model.table
    expected = params['backbone/encoder/block_01/mlp/fc1/kernel'].astype(kind).astype(np.float32)
    found = canonical(model.params)['backbone/encoder/block_01/mlp/fc1/kernel']
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


GRID = {'heads': 2, 'grid': (2, 3, 3)}


@pytest.fixture
def damaged(toys, tmp_path):
    """(change of the arrays of a VideoMAE file) -> path"""

    def make(change):
        _, arrays = toys.arrays('videomae_original')
        change(arrays)
        return toys.write_safetensors(tmp_path / 'damaged.safetensors', arrays)

    return make


def failure(path, **given):
    with pytest.raises(ImportFailed) as error:
        importer.load(path, overrides=GRID, **given)
    return str(error.value)


def test_a_wrong_shape_is_named_with_both_shapes(damaged):
    def change(arrays):
        arrays['blocks.1.mlp.fc1.weight'] = np.zeros((40, 32), np.float32)

    text = failure(damaged(change))
    assert 'backbone/encoder/block_01/mlp/fc1/kernel: [40, 32] in the file, [32, 48] in the model' in text
    assert 'Nothing was loaded' in text


def test_a_misspelt_name_is_found_again(damaged):
    def change(arrays):
        arrays['blocks.2.norm2.wieght'] = arrays.pop('blocks.2.norm2.weight')

    text = failure(damaged(change))
    assert "looked for 'blocks.2.norm2.weight'; is it 'blocks.2.norm2.wieght'?" in text
    assert 'unused' in text and 'missing' in text


def test_a_layer_of_which_most_is_missing_is_one_line(damaged):
    def change(arrays):
        for name in [name for name in arrays if name.startswith('blocks.1.') and 'norm1' not in name]:
            del arrays[name]

    lines = failure(damaged(change)).splitlines()
    assert any('backbone/encoder/block_01/* (13 names)' in line for line in lines)
    assert len(lines) < 10


def test_what_is_not_known_is_an_error_unless_it_is_allowed(damaged):
    def change(arrays):
        arrays['blocks.1.adapter.weight'] = np.zeros((3, 3), np.float32)
        arrays['surplus'] = np.zeros(2, np.float32)

    path = damaged(change)
    text = failure(path)
    assert 'blocks.1.adapter.weight [3, 3]' in text and 'surplus [2]' in text
    assert 'surplus' not in failure(path, allow='surplus')
    model = importer.load(path, overrides=GRID, allow=r'surplus|.*adapter\.weight')
    assert sum(row.allowed for row in model.rows) == 2
    assert 'surplus [2] (allowed)' in model.table
    assert 'no regular expression' in failure(path, allow='(')


def test_a_missing_parameter_that_is_allowed_starts_as_in_a_new_model(damaged):
    path = damaged(lambda arrays: arrays.pop('blocks.1.norm1.weight'))
    assert 'backbone/encoder/block_01/ln1/scale' in failure(path)
    model = importer.load(path, overrides=GRID, allow='backbone/encoder/block_01/ln1/scale')
    scale = canonical(model.params)['backbone/encoder/block_01/ln1/scale']
    np.testing.assert_array_equal(scale, np.ones(32, np.float32))
    assert np.ptp(canonical(model.params)['backbone/encoder/block_00/ln1/scale']) > 0


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_an_error_with_the_name(damaged, value):
    def change(arrays):
        arrays['blocks.2.mlp.fc2.weight'][3, 4] = value

    path = damaged(change)
    text = failure(path)
    assert 'blocks.2.mlp.fc2.weight' in text and '1 numbers of 1536' in text
    model = importer.load(path, overrides=GRID, allow=r'blocks\.2\.mlp\.fc2\.weight')
    assert not np.isfinite(canonical(model.params)['backbone/encoder/block_02/mlp/fc2/kernel']).all()


def test_numbers_too_large_for_float32_are_not_finite(toys, tmp_path):
    _, arrays = toys.arrays('videomae_original')
    arrays['head.bias'] = np.array([1e300, 0, 0, 0, 0])
    assert 'head.bias' in failure(toys.write_safetensors(tmp_path / 'large.safetensors', arrays))


def test_whole_numbers_are_no_parameters(damaged):
    def change(arrays):
        arrays['head.bias'] = np.zeros(5, np.int64)

    assert 'int64 is no type of a parameter' in failure(damaged(change))


@pytest.mark.parametrize('lost', ['zero', 'missing'])
def test_videomae_without_its_biases_is_refused(damaged, lost):
    def change(arrays):
        for name in list(arrays):
            if name.endswith(('q_bias', 'v_bias')):
                if lost == 'zero':
                    arrays[name][:] = 0
                else:
                    del arrays[name]

    path = damaged(change)
    text = failure(path)
    assert 'biases would stay zero' in text and 'block_{00..02}/attn/query/bias' in text
    model = importer.load(path, overrides=GRID, allow='.*/attn/(query|value)/bias')
    assert not canonical(model.params)['backbone/encoder/block_00/attn/query/bias'].any()


def test_one_layer_with_zero_biases_is_no_error(damaged):
    path = damaged(lambda arrays: arrays['blocks.1.attn.q_bias'].fill(0))
    assert kinds(importer.load(path, overrides=GRID).rows) == {'used'}


def test_an_array_of_which_a_part_is_not_used_is_unused(toys, tmp_path):
    _, arrays = toys.arrays('videomae_original')
    path = toys.write_safetensors(tmp_path / 'x.safetensors', arrays)
    weights, found = importer.read(path, overrides=GRID)
    shapes = {
        name: shape for name, shape in importer.own_shapes(weights, found).items() if 'block_01/attn/key' not in name
    }
    with pytest.raises(ImportFailed, match='not exactly this model') as error:
        importer.plan(weights, found, shapes)
    assert 'blocks.1.attn.qkv.weight' in str(error.value)


# A run whose model differs from that of the file.


@pytest.fixture
def planned(toys, tmp_path):
    """(name of a model, changes of its backbone, options) -> Plan for a model with those changes"""

    def make(name, changes, **options):
        _, path = toys.write(tmp_path, name)
        weights, found = importer.read(path, overrides=toys.overrides(name))
        backbone = {**found.backbone, **changes}
        shapes = native.own_shapes(backbone, None)
        return importer.plan(weights, found, shapes, backbone=backbone, **options), weights, found

    return make


def test_a_head_that_is_not_asked_for_is_reported_and_no_error(planned):
    plan, _, _ = planned('vjepa2_hf', {})
    assert not any(name.startswith('head/') for name in plan.fill)
    elsewhere = [row.name for row in plan.rows if row.kind == 'elsewhere']
    assert 'classifier.weight' in elsewhere
    assert 'the head was not asked for' in plan.table


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'layers': 5}, 'backbone/encoder/block_{03..04}/* (16 names)'),
        ({'layers': 2}, 'encoder.layer.2.* (16 names)'),
        ({'heads': 4}, '[32, 32] in the file, [32, 4, 8] in the model'),
        ({'eps': 1e-5}, 'backbone.eps: 1e-06 in the file, 1e-05 in the model'),
        ({'mlp': 64}, 'backbone.mlp: 48 in the file, 64 in the model'),
    ],
)
def test_a_model_of_other_sizes_is_refused(planned, changes, said):
    with pytest.raises(ImportFailed) as error:
        planned('vjepa2_hf', changes)
    assert said in str(error.value)
    assert len(str(error.value).splitlines()) < 45


def test_a_setting_may_be_allowed_to_differ(planned):
    plan, _, _ = planned('vjepa2_hf', {'eps': 1e-5}, allow=r'backbone\.eps')
    assert '1e-06 in the file, 1e-05 in the model (allowed)' in plan.table


def test_another_kind_is_refused_in_one_sentence(toys, tmp_path):
    _, path = toys.write(tmp_path, 'vjepa2_hf')
    weights, found = importer.read(path, overrides={'heads': 2})
    with pytest.raises(ImportFailed, match="of kind 'vjepa2', and the model has one of kind 'videomae'"):
        importer.plan(weights, found, {'backbone/norm/scale': (32,)}, backbone=toys.VIDEOMAE)


def test_a_model_of_another_published_size_is_told_the_size_of_the_file(toys, tmp_path):
    shapes = json.loads(gzip.decompress((REFERENCE.parent / 'names' / 'vjepa2_vitl_cls174.json.gz').read_bytes()))
    toys.write_zeros(tmp_path / 'model.safetensors', shapes)
    weights, found = importer.read(tmp_path / 'model.safetensors')
    with pytest.raises(ImportFailed, match=r'the file is of the size vjepa2-L \(configs/finetune\.py:vjepa2-L\)'):
        importer.plan(weights, found, {'backbone/norm/scale': (1280,)}, backbone={**found.backbone, 'width': 1280})


def test_positions_are_resized_to_the_grid_of_the_model(planned, toys):
    plan, _, _ = planned('scenic_joint', {'grid': (4, 3, 5)})
    params, _ = toys.arrays('scenic_joint')
    old = params['backbone/encoder/position']
    new = plan.fill['backbone/encoder/position']()
    assert new.shape == (1, 1 + 60, 32)
    np.testing.assert_array_equal(new[0, 0], old[0, 0])
    old, new = old[0, 1:].reshape(2, 3, 3, 32), new[0, 1:].reshape(4, 3, 5, 32)
    np.testing.assert_allclose(new[[0, -1]][:, [0, -1]][:, :, [0, -1]], old[:, [0, -1]][:, :, [0, -1]], atol=1e-6)
    np.testing.assert_allclose(new[0, 0, 1], (old[0, 0, 0] + old[0, 0, 1]) / 2, atol=1e-6)
    assert 'resized from the grid (2, 3, 3) to (4, 3, 5)' in plan.table
    assert '[1, 19, 32] in the file, [1, 61, 32] in the model' in plan.table


def test_a_grid_with_as_many_places_is_another_grid(planned):
    plan, _, _ = planned('scenic_joint', {'grid': (2, 1, 9)})
    assert 'resized from the grid (2, 3, 3) to (2, 1, 9), linearly with corners on corners' in plan.table
    plan, _, _ = planned('internvideo2', {'grid': (2, 4, 4)})
    assert 'its own code does it with centres at halves, bicubically' in plan.table


def test_a_cls_token_that_the_model_has_not_is_dropped_with_its_place(planned, toys):
    plan, _, _ = planned('scenic_factorised', {'cls': False})
    params, _ = toys.arrays('scenic_factorised')
    for stack in ('spatial', 'temporal'):
        position = plan.fill[f'backbone/{stack}/position']()
        np.testing.assert_array_equal(position, params[f'backbone/{stack}/position'][:, 1:])
    dropped = [row for row in plan.rows if row.kind == 'ignored']
    assert [row.sources[0].rsplit('/')[-1] for row in dropped] == ['cls_SpatialTransformer', 'cls_TemporalTransformer']
    assert 'without the place of the CLS token' in plan.table


def test_a_cls_token_that_the_file_has_not_starts_at_zero(toys, tmp_path):
    backbone = {**toys.FACTORISED, 'cls': False, 'temporal_on': 'rois'}
    params = toys.parameters(backbone)
    path = toys.write_msgpack(tmp_path / 'gap', toys.sources(toys.MODELS['scenic_factorised'][0], params))
    model = importer.load(path, overrides={'grid': (2, 3, 3)}, into={**backbone, 'cls': True})
    found = canonical(model.params)
    assert not found['backbone/spatial/cls'].any()
    assert not found['backbone/spatial/position'][:, 0].any()
    np.testing.assert_array_equal(found['backbone/spatial/position'][:, 1:], params['backbone/spatial/position'])


def test_a_file_with_other_models_and_an_optimiser(toys, tmp_path):
    params, arrays = toys.arrays('vjepa2_official')
    other = {name: array + 1 for name, array in arrays.items()}
    parts = {f'target_encoder/module.backbone.{name}': array for name, array in arrays.items()}
    parts |= {f'encoder/module.backbone.{name}': array for name, array in other.items()}
    parts['target_encoder/module.backbone.pos_embed'] = np.zeros((1, 9, 32), np.float32)
    path = toys.write_safetensors(tmp_path / 'vitl.safetensors', parts)
    model = importer.load(path, overrides={'heads': 2})
    np.testing.assert_array_equal(canonical(model.params)['backbone/norm/scale'], params['backbone/norm/scale'])
    assert kinds(model.rows) == {'used', 'ignored', 'elsewhere'}
    assert 'encoder' in model.table and 'pos_embed: a table of positions' in model.table
    chosen = importer.load(path, which='encoder', overrides={'heads': 2})
    np.testing.assert_array_equal(canonical(chosen.params)['backbone/norm/scale'], params['backbone/norm/scale'] + 1)


def test_a_head_alone(toys, tmp_path):
    from vidloc.checkpoints.layouts import vjepa2

    params = {name: array for name, array in toys.arrays('vjepa2_hf')[0].items() if name.startswith('head/')}
    arrays = {f'classifiers/0/module.{name}': array for name, array in toys.sources(vjepa2.PROBE, params).items()}
    model = importer.load(toys.write_safetensors(tmp_path / 'probe.safetensors', arrays), overrides={'heads': 2})
    assert model.backbone is None
    for name, array in canonical(model.params).items():
        np.testing.assert_array_equal(array, params[name])
    with pytest.raises(ImportFailed, match='without a backbone'):
        model.features(np.zeros((1, 2, 8, 8, 3)))
    weights, found = importer.read(tmp_path / 'probe.safetensors', overrides={'heads': 2})
    with pytest.raises(ImportFailed, match='a head without a backbone: name a file with the backbone'):
        importer.plan(weights, found, {'backbone/norm/scale': (32,)}, backbone=toys.VJEPA2)


def test_a_config_beside_the_weights_gives_heads_and_labels(toys, tmp_path):
    _, path = toys.write(tmp_path, 'vjepa2_hf')
    labels = {str(i): f'class {i}' for i in range(5)}
    config = {'model_type': 'vjepa2', 'num_attention_heads': 4, 'num_hidden_layers': 3, 'id2label': labels}
    (tmp_path / 'config.json').write_text(json.dumps(config))
    model = importer.load(path)
    assert model.backbone.heads == 4
    assert model.labels == tuple(labels.values())


# Memory.

LOAD = """
import sys
from vidloc.checkpoints import importer
def status(field):
    return int(dict(line.split(':', 1) for line in open('/proc/self/status'))[field].split()[0]) * 1024
before = status('VmRSS')
model = importer.load(sys.argv[1], overrides={'heads': 16})
print(status('VmHWM') - before, model.params['backbone']['encoder']['blocks_00_05']['mlp']['fc1']['kernel'].shape)
"""


@pytest.mark.skipif(not pathlib.Path('/proc/self/status').exists(), reason='peak memory is read from /proc')
def test_the_peak_of_memory_is_the_model_and_one_array(toys, tmp_path):
    names = json.loads(gzip.decompress((REFERENCE.parent / 'names' / 'vjepa2_vitl_cls174.json.gz').read_bytes()))
    kept = re.compile(r'vjepa2\.encoder\.(embeddings|layernorm|layer\.[0-5]\.).*')
    shapes = {name: shape for name, shape in names.items() if kept.fullmatch(name)}
    size = toys.write_zeros(tmp_path / 'model.safetensors', shapes)
    assert size > 300e6
    command = [sys.executable, '-c', LOAD, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, 'JAX_PLATFORMS': 'cpu'})
    assert done.returncode == 0, done.stderr
    grown, shape = done.stdout.split(' ', 1)
    assert shape.strip() == '(6, 1024, 4096)'
    assert int(grown) < 1.3 * size
