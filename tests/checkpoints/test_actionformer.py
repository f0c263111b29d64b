"""ActionFormer checkpoints: the public network's numbers, every form of file, and all that speaks against one."""

import importlib.util
import json
import pathlib
import pprint
import re
import shutil

import numpy as np
import pytest
from flax import traverse_util

from vidloc.checkpoints import conversion, description, families, importer, key_maps, native
from vidloc.checkpoints.containers import FamilyError
from vidloc.checkpoints.importer import ImportFailed
from vidloc.checkpoints.layouts import actionformer as layout
from vidloc.checkpoints.readers import weights as weights_lib
from vidloc.checkpoints.readers.weights import ReadError
from vidloc.models import layers

REFERENCE = pathlib.Path(__file__).parents[1] / 'reference' / 'actionformer'
STATE = 'thumos_small_win5_state_dict'
FILE = REFERENCE / f'{STATE}.npz'
CONFIG = json.loads((REFERENCE / 'thumos_small_win5_meta.json').read_text())['config']
GIVEN = {'heads': 4, 'windows': 5, 'ranges': CONFIG['regression_range'], 'positions': False, 'max_length': 128}
# Small and unlike the reference: 3 levels, and whatever a test adds. All fields, as recognition gives them.
SMALL = {
    'kind': 'actionformer', 'classes': 2, 'inputs': 3, 'width': 8, 'heads': 2, 'stem': 1, 'levels': 3, 'windows': (3,),
    'ranges': ((0, 4), (4, 8), (8, 10000)), 'max_length': 16, 'layer_scale': 0.0, 'embed_layers': 1, 'head_layers': 2,
    'embed_norm': True, 'kernel': 3, 'relative': False, 'neck': 'identity', 'positions': False,
}  # fmt: skip


def archive():
    spec = importlib.util.spec_from_file_location(
        'torch_archive', pathlib.Path(__file__).parent / 'readers' / 'torch_archive.py'
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def io():
    return np.load(REFERENCE / 'thumos_small_win5_io.npz')


@pytest.fixture(scope='module')
def arrays():
    return dict(np.load(FILE))


@pytest.fixture(scope='module')
def model():
    return importer.load(FILE)


def by_point(io, name):
    """[B, C, T_i] of each level -> [B, P, C]"""
    return np.concatenate([io[f'{name}_{level}'] for level in range(4)], axis=2).transpose(0, 2, 1)


def canonical(params):
    return traverse_util.flatten_dict(layers.to_canonical(params), sep='/')


def as_file(head, seed=0):
    """(canonical parameters of a head of these fields, arrays of its file)"""
    rng = np.random.default_rng(seed)
    params = {
        name: rng.normal(0, 0.3, shape).astype(np.float32)
        for name, shape in native.own_shapes(None, head, head['inputs']).items()
    }
    found = {}
    for name, array in params.items():
        (rule,) = layout.of_levels(head['levels']).bind(name)
        if rule.form == 'levels':
            found |= dict(zip(rule.sources, array, strict=True))
        else:
            found[rule.source] = key_maps.invert(rule, [array])
    return params, found


def untold(head):
    """What a file does not tell of a head."""
    return {name: head[name] for name in ('heads', 'windows', 'ranges', 'positions', 'max_length')}


def planned(path, **options):
    """(the table, {name: array}, what was recognised) of a file, read into a model of its own sizes."""
    allow = options.pop('allow', '')
    weights, found = importer.read(path, **options)
    plan = importer.plan(weights, found, importer.own_shapes(weights, found), allow=allow)
    return plan.table, {name: read() for name, read in plan.fill.items()}, found


def test_the_public_networks_numbers(model, io):
    logits, distances = model.outputs(io['input'].transpose(0, 2, 1), io['mask'][:, 0])
    valid = np.concatenate([io[f'mask_{level}'][:, 0] for level in range(4)], axis=1)
    assert logits.shape == (2, 240, 5) and distances.shape == (2, 240, 2) and not valid.all()
    np.testing.assert_allclose(logits, by_point(io, 'cls_logits'), atol=2e-5)
    np.testing.assert_allclose(distances, by_point(io, 'offsets'), atol=2e-5)
    assert {row.kind for row in model.rows} == {'used'}
    assert sum(leaf.size for leaf in canonical(model.params).values()) == 324939
    assert 'as thumos_small_win5_meta.json beside it says' in model.table


def test_shorter_sequences_are_padded_as_the_public_inference_does(model, io):
    short = np.stack([io['feats_0'][:, :96].T, io['feats_1'].T])  # [2, 96, 32]
    logits, distances = model.outputs(short, np.ones((2, 96), bool))
    np.testing.assert_allclose(logits[1], by_point(io, 'cls_logits')[1], atol=2e-5)
    np.testing.assert_allclose(distances[1], by_point(io, 'offsets')[1], atol=2e-5)


def test_longer_sequences_are_padded_to_the_next_multiple(model, tmp_path):
    assert [model.padded_length(length) for length in (1, 128, 129, 150, 160)] == [128, 128, 160, 160, 160]
    head = SMALL | {'levels': 2, 'ranges': ((0, 4), (4, 10000)), 'windows': (-1, 3), 'max_length': 8, 'positions': True}
    np.savez(tmp_path / 'small.npz', **as_file(head)[1])
    small = importer.load(tmp_path / 'small.npz', overrides=untold(head))
    long = np.random.default_rng(0).normal(size=(1, 19, 3)).astype(np.float32)
    logits, distances = small.outputs(long, np.ones((1, 19), bool))
    assert logits.shape == (1, 20 + 10, 2) and distances.shape == (1, 30, 2)
    # What is beyond the mask is as good as padding.
    again, _ = small.outputs(np.pad(long, ((0, 0), (0, 1), (0, 0))), np.arange(20)[None] < 19)
    np.testing.assert_array_equal(logits, again)


def test_what_a_head_cannot_do_is_said(model):
    with pytest.raises(ImportFailed, match=r'without a backbone: call outputs\(features, mask\)'):
        model.features(np.zeros((1, 2, 4, 4, 3)))
    with pytest.raises(ImportFailed, match='have no backbone: call outputs'):
        model.logits(np.zeros((1, 2, 4, 4, 3)))
    for features, mask in (((1, 8, 31), (1, 8)), ((8, 32), (1, 8)), ((1, 8, 32), (1, 7)), ((1, 0, 32), (1, 0))):
        with pytest.raises(ImportFailed, match=r'must be \[B, T, 32\] and \[B, T\]'):
            model.outputs(np.zeros(features), np.zeros(mask, bool))


def test_another_head_has_no_outputs(toys, tmp_path):
    _, path = toys.write(tmp_path, 'vjepa2_official')
    with pytest.raises(ImportFailed, match='no head over sequences of features'):
        importer.load(path, overrides={'heads': 2}).outputs(np.zeros((1, 2, 3)), np.ones((1, 2), bool))


# The files of the public code.


def published(folder, arrays, change=1.0):
    """epoch_034.pth.tar as train.py saves it: weights of DataParallel, their average, one moment of the optimiser."""
    torch = archive()
    storages, items = {}, {}

    def tree(values):
        made = b''
        for name, array in values.items():
            key = str(len(storages))
            storages[key] = np.ascontiguousarray(array, '<f4').tobytes()
            strides = [int(np.prod(array.shape[k + 1 :], dtype=int)) for k in range(array.ndim)]
            stored = torch.storage(key, array.size)
            made += torch.text(f'module.{name}') + torch.tensor(array.shape, strides, 0, stored)
        return b'}(' + made + b'u'

    items['epoch'] = torch.number(34)
    items['state_dict'] = tree({name: change * array for name, array in arrays.items()})
    items['optimizer'] = tree({'exp_avg': np.ones(3, np.float32)})
    items['state_dict_ema'] = tree(arrays)
    return torch.write(folder / 'epoch_034.pth.tar', torch.pickled(items), storages)


def test_a_public_checkpoint_is_read_by_its_average(tmp_path, arrays):
    path = published(tmp_path, arrays, 2.0)
    (tmp_path / 'config.txt').write_text(pprint.pformat({'dataset_name': 'thumos', 'model': CONFIG}))
    table, params, found = planned(tmp_path)
    bias = arrays['cls_head.cls_head.conv.bias']
    np.testing.assert_array_equal(params['head/classify/output/bias'], bias)
    assert 'state_dict_ema: the averaged weights' in table and 'as config.txt beside it says' in table
    assert 'optimizer' in table.split('elsewhere')[1]
    assert found.head['ranges'] == ((0, 4), (4, 8), (8, 16), (16, 10000)) and not found.guessed
    table, params, _ = planned(path, which='state_dict')
    np.testing.assert_array_equal(params['head/classify/output/bias'], 2 * bias)
    assert 'averaged' not in table
    shutil.copy(path, tmp_path / 'epoch_030.pth.tar')
    assert importer.read(tmp_path)[0].path.endswith('epoch_034.pth.tar')


def test_a_damaged_average_is_not_silently_replaced(tmp_path, arrays):
    damaged = {f'state_dict_ema/module.{name}': array for name, array in arrays.items() if 'cls_head.cls' not in name}
    whole = {f'state_dict/module.{name}': array for name, array in arrays.items()}
    np.savez(tmp_path / 'both.npz', **damaged, **whole)
    with pytest.raises(FamilyError, match='state_dict_ema would be read'):
        importer.read(tmp_path / 'both.npz', overrides=GIVEN)


@pytest.mark.parametrize(
    ('changes', 'arms'),
    [
        ({'layer_scale': 1e-4}, {'head/stem_0/gamma1', 'head/branch_1/gamma2'}),
        ({'neck': 'fpn'}, {'head/neck/lateral_0/kernel', 'head/neck/conv_2/kernel'}),
        (
            {'relative': True, 'windows': (3, 3, 5), 'max_length': 32},
            {'head/stem_0/attn/position', 'head/branch_1/attn/position'},
        ),
        ({'embed_norm': False}, {'head/embed/conv_0/bias'}),
        ({'stem': 3, 'embed_layers': 2, 'head_layers': 3, 'kernel': 5, 'positions': True}, {'head/stem_2/ln1/scale'}),
    ],
)
def test_every_form_of_the_network(tmp_path, changes, arms):
    head = SMALL | changes
    params, found = as_file(head)
    assert arms <= params.keys()
    np.savez(tmp_path / 'small.npz', **found)
    table, read, recognised = planned(tmp_path / 'small.npz', overrides=untold(head))
    assert recognised.head == head
    assert read.keys() == params.keys() and f'{len(params)} used' in table and 'missing' not in table
    for name, array in params.items():
        np.testing.assert_array_equal(read[name], array, err_msg=name)


# What the arrays do not tell.


@pytest.fixture(scope='module')
def files():
    """(width, inputs, classes) -> a file of such a head of six levels, whose arrays cannot be read."""
    head = {'kind': 'actionformer', 'classes': 20, 'inputs': 7}
    made = {}
    for name, shape in native.own_shapes(None, head, 7).items():
        (rule,) = layout.of_levels(6).bind(name)
        if rule.form == 'levels':
            made |= dict.fromkeys(rule.sources, ())
        else:
            made[rule.source] = key_maps.invert(rule, [np.broadcast_to(np.float32(0), shape)]).shape

    def opened(width, inputs, classes):
        sizes = {512: width, 4 * 512: 4 * width, 7: inputs, 20: classes}
        found = {name: tuple(sizes.get(size, size) for size in shape) for name, shape in made.items()}
        entries = {
            name: weights_lib.Entry(shape, np.dtype('float32'), lambda: pytest.fail('an array was read'))
            for name, shape in found.items()
        }
        return weights_lib.Weights('gone/file.npz', 'npz', entries, {})

    return opened


@pytest.mark.parametrize(
    ('sizes', 'recipe', 'expected', 'count'),
    [
        ((512, 1408, 20), 'THUMOS-14', {'windows': (19,), 'max_length': 2304}, 28_268_572),
        ((512, 2048, 20), 'THUMOS-14', {'heads': 4, 'positions': False}, 29_251_612),
        ((512, 2304, 97), 'EPIC-Kitchens', {'windows': (9,)}, None),
        ((256, 512, 1), 'ActivityNet', {'windows': (7, 7, 7, 7, 7, -1), 'positions': True}, 6_943_497),
        ((256, 2048, 200), 'ActivityNet', {'max_length': 192}, 8_276_176),
    ],
)
def test_published_recipes_and_parameter_counts(files, sizes, recipe, expected, count):
    weights = files(*sizes)
    found = families.recognise(weights)
    fields = dict(zip(('width', 'inputs', 'classes'), sizes, strict=True))
    assert (expected | fields).items() <= found.head.items()
    assert set(found.guessed) == {'heads', 'windows', 'ranges', 'positions', 'max_length'}
    assert f'the published recipe for {recipe}' in found.notes[-1]
    if count:
        assert sum(int(np.prod(entry.shape)) for entry in weights.entries.values()) == count
    given = families.recognise(weights, overrides={'windows': (3,), 'heads': 8})
    assert given.head['windows'] == (3,) and set(given.guessed) == {'ranges', 'positions', 'max_length'}


@pytest.fixture
def alone(tmp_path, arrays):
    """The reference file without its settings."""
    return shutil.copy(FILE, tmp_path / 'weights.npz')


def test_what_nothing_tells_has_to_be_given(alone, arrays):
    with pytest.raises(FamilyError, match='do not tell its heads, windows, ranges, positions, max_length') as error:
        importer.read(alone)
    assert "--set heads=4 windows='(19,)' ranges='((0,4),(4,8),(8,16),(16,10000))' positions=False" in str(error.value)
    assert importer.read(alone, overrides=GIVEN)[1].head == importer.read(FILE)[1].head


@pytest.mark.parametrize(
    ('given', 'said'),
    [
        ({'heads': 3}, 'width 64 cannot be split into 3 heads'),
        ({'windows': (5, 5)}, 'one for each of 4 levels'),
        ({'windows': 'wide'}, 'one for each of 4 levels'),
        ({'ranges': ((0, 4),)}, 'of each of 4 levels'),
        ({'ranges': ((4, 0), (4, 8), (8, 16), (16, 20))}, 'low below high'),
        ({'ranges': 7}, 'ranges are 7'),
        ({'positions': 1}, 'positions is 1'),
        ({'max_length': 100}, 'must be a multiple of 32'),
        ({'max_length': -32}, 'a whole number above 0'),
    ],
)
def test_what_is_given_must_make_sense(alone, given, said):
    with pytest.raises(FamilyError, match=re.escape(said)):
        importer.read(alone, overrides=GIVEN | given)


@pytest.mark.parametrize(
    ('settings', 'error', 'said'),
    [
        ({'model': CONFIG | {'input_dim': 2048}}, FamilyError, 'have input_dim 32, config.txt beside them says 2048'),
        ({'model': CONFIG | {'backbone_arch': [2, 2, 5]}}, FamilyError, 'do not belong together'),
        ({'model': CONFIG | {'scale_factor': 3}}, FamilyError, 'differ by a factor of 3'),
        ({'dataset': {}}, ReadError, "no settings of a network ('model')"),
        ('__import__("os").abort()', ReadError, 'no table of settings'),
        ('(' * 50000, ReadError, 'no table of settings'),
        ('{"model": {}, ' + ' ' * 70000, ReadError, 'longer than 65536'),
    ],
)
def test_settings_of_another_model_are_refused(alone, settings, error, said):
    text = settings if isinstance(settings, str) else pprint.pformat(settings)
    pathlib.Path(alone).with_name('config.txt').write_text(text)
    with pytest.raises(error, match=re.escape(said)):
        importer.read(alone)


# What speaks against a file.


@pytest.fixture
def failure(tmp_path, arrays):
    """(change of the arrays) -> what loading them says"""

    def load(change, error=ImportFailed, **options):
        changed = dict(arrays)
        change(changed)
        np.savez(tmp_path / 'changed.npz', **changed)
        with pytest.raises(error) as found:
            planned(tmp_path / 'changed.npz', overrides=GIVEN, **options)
        return str(found.value)

    return load


def test_every_difference_is_named(failure):
    def change(arrays):
        arrays['backbone.stem.1.mlp.3.wieght'] = arrays.pop('backbone.stem.1.mlp.3.weight')
        arrays['reg_head.offset_head.conv.weight'] = np.zeros((3, 64, 3), np.float32)
        arrays['reg_head.scale.2.scale'] = np.zeros(1, np.float32)
        arrays['backbone.branch.0.ln1.bias'] = np.zeros((64,), np.float32)

    text = failure(change)
    assert "looked for 'backbone.stem.1.mlp.3.weight'; is it 'backbone.stem.1.mlp.3.wieght'?" in text
    assert 'head/regress/output/kernel: [3, 64, 3] in the file, [3, 64, 2] in the model' in text
    assert 'head/regress/scale' in text and 'head/branch_0/ln1/bias' in text and 'Nothing was loaded' in text


def test_numbers_that_are_not_finite_are_refused(failure):
    text = failure(lambda arrays: arrays['reg_head.scale.2.scale'].fill(np.nan))
    assert '1 numbers of 4' in text and 'head/regress/scale' in text


@pytest.mark.parametrize(
    ('gone', 'said'),
    [
        ('backbone.branch.1.', 'nothing of number 1'),
        ('backbone.branch.2.', '2 layers that halve the sequence and 4 levels'),
        ('reg_head.scale.0.', 'nothing of number 0'),
    ],
)
def test_a_file_with_a_gap_is_refused(failure, gone, said):
    def change(arrays):
        for name in [name for name in arrays if name.startswith(gone)]:
            del arrays[name]

    assert said in failure(change, FamilyError)


def test_features_of_several_kinds_are_refused(failure):
    text = failure(lambda arrays: arrays.update({'backbone.proj.0.conv.weight': np.zeros((8, 8, 1))}), FamilyError)
    assert 'joins features of several kinds' in text


def test_the_pyramid_of_convolutions_is_of_no_known_family(failure):
    def change(arrays):
        for name in [name for name in arrays if '.attn.' in name]:
            del arrays[name]

    assert 'The nearest is ActionFormer' in failure(change, FamilyError)


# The tools.


def test_importing_once_and_describing(tmp_path, model):
    done = conversion.convert(FILE, tmp_path / 'out')
    assert f"init_from={str(tmp_path / 'out')!r}, weights={{'head': TASK}}," in done.config
    assert "head={'kind': 'actionformer', 'width': 64, 'levels': 4, 'layer_scale': 0.0, 'windows': (5,)" in done.config
    assert '5 classes, over features of width 32' in done.config
    _, params, again = planned(tmp_path / 'out')
    assert again.head == model.found.head and again.preprocessing is None
    for name, array in canonical(model.params).items():
        np.testing.assert_array_equal(params[name], array)
    for source in (FILE, tmp_path / 'out'):
        about = description.describe(source)
        assert about['parameters'] == {'head': 324939} and not about['left_out'] and about['preprocessing'] is None
        text = description.text(json.loads(json.dumps(about)))
        assert 'family        actionformer' in text and 'preprocessing' not in text
