"""Every kind of published file is recognised by its names and shapes; everything else is refused with a reason."""

import contextlib
import gzip
import importlib.util
import json
import pathlib

import numpy as np
import pytest

from vidloc.checkpoints import key_maps, native
from vidloc.checkpoints.families import FamilyError, recognise
from vidloc.models import sizes

_SPEC = importlib.util.spec_from_file_location('published', pathlib.Path(__file__).with_name('published.py'))
published = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(published)
C, D, M, opened, prefixed = published.C, published.D, published.M, published.opened, published.prefixed

NAMES = pathlib.Path(__file__).parents[1] / 'reference/names'
HEADS = {'heads': 3}


def listed(file):
    return {name: tuple(shape) for name, shape in json.loads(gzip.decompress((NAMES / file).read_bytes())).items()}


def config(kind, **fields):
    return {'model_type': kind, 'hidden_size': D, 'num_hidden_layers': 2, 'num_attention_heads': 3} | fields


def filled(weights, found):
    """Every leaf of the model is filled, and every array is used in all its parts or ignored: which ones are."""
    modules = native.make_modules(found.backbone, found.head, {})
    shapes = native.canonical_shapes(native.abstract_params(modules, D))
    used, left = {}, set(found.names)
    for leaf, shape in shapes.items():
        (rule,) = found.layout.bind(leaf)
        arrays = [np.broadcast_to(np.float32(0), weights.entries[found.names[name]].shape) for name in rule.sources]
        assert key_maps.apply(rule, arrays[0], shape, *arrays[1:]).shape == shape
        used[leaf] = rule
        left -= set(rule.sources)
    for source in found.names.keys() - left:
        readers = {leaf for leaf, rule in used.items() if source in rule.sources}
        assert readers == {rule.canonical for rule in found.layout.leaves(source)}, f'parts of {source} are not used'
    assert all(found.layout.why_ignored(name) for name in left), left
    return left


@pytest.mark.parametrize(
    ('file', 'backbone', 'head', 'dropped'),
    [
        ('vjepa2_vitl_cls174', ('vjepa2', 'L'), {'kind': 'attentive', 'heads': 16, 'layers': 3, 'classes': 174}, True),
        ('vjepa2_vitg_cls174', ('vjepa2', 'g'), {'kind': 'attentive', 'heads': 22, 'layers': 3, 'classes': 174}, True),
        ('videomae_giant_v2', ('videomae', 'g'), {'kind': 'linear', 'norm': True, 'classes': 710}, False),
        ('vivit_base_module', ('vivit_joint', 'B'), {'kind': 'linear', 'classes': 400}, False),
    ],
)
def test_the_names_of_published_models(file, backbone, head, dropped):
    kind, size = backbone
    weights = opened(listed(f'{file}.json.gz'))
    found = recognise(weights)
    assert found.family == found.backbone['kind'] == kind
    assert sizes.SIZES[kind][size].items() <= found.backbone.items()
    assert head.items() <= found.head.items()
    left = filled(weights, found)
    assert bool(left) == dropped and all(name.startswith('predictor.') for name in left)


HF_VJEPA2, HF_VJEPA2_HEAD = published.vjepa2_hf()
VIDEOMAE, VIDEOMAE_END = published.videomae_original()
DECODER = {name: shape for name, shape in VIDEOMAE.items() if not name.startswith('patch_embed')}
HF_VIDEOMAE, HF_VIDEOMAE_HEAD = published.videomae_hf()
HF_VIDEOMAE_NORM = {'layernorm.weight': (D,), 'layernorm.bias': (D,)}
HF_VIVIT, HF_VIVIT_HEAD = published.vivit_hf()
FLAX_OF_MOMENTS = {f'opt_state/0/mu/{name}': shape for name, shape in published.scenic_factorised().items()}
GRID = {'grid': (2, 4, 4)}
# name: (file, config.json beside it, overrides, what is found, what of the backbone, what of the head, what is dropped)
FILES = {
    'vjepa2 hub': (
        prefixed('vjepa2.', HF_VJEPA2) | HF_VJEPA2_HEAD,
        config('vjepa2', num_pooler_layers=1, layer_norm_eps=1e-6),
        {},
        ('vjepa2', 'vjepa2.'),
        {'layers': 2, 'eps': 1e-6},
        {'kind': 'attentive', 'layers': 1, 'heads': 3, 'eps': 1e-6},
        2 + 1,
    ),
    'vjepa2 hub, bare': (HF_VJEPA2, None, HEADS, ('vjepa2', ''), {'heads': 3}, None, 2 + 1),
    'vjepa2 official': (
        {
            **prefixed('encoder/module.backbone.', published.vjepa2_encoder() | {'pos_embed': (1, 2048, D)}),
            **prefixed('target_encoder/module.backbone.', published.vjepa2_encoder() | {'pos_embed': (1, 2048, D)}),
            **prefixed('predictor/module.backbone.', {'predictor_blocks.0.norm1.weight': (D,), 'norm.weight': (D,)}),
            'opt/state/0/exp_avg': (D,),
        },
        None,
        HEADS,
        ('vjepa2', 'target_encoder/module.backbone.'),
        {'layers': 2, 'eps': 1e-6},
        None,
        1,
    ),
    'vjepa2.1 official': (
        prefixed('ema_encoder/module.backbone.', published.vjepa2_1_encoder()) | {'encoder/module.x': (1,)},
        None,
        HEADS,
        ('vjepa2', 'ema_encoder/module.backbone.'),
        {'layers': 4, **sizes.VJEPA2_1},
        None,
        0,
    ),
    'videomae hub': (
        prefixed('videomae.', HF_VIDEOMAE) | HF_VIDEOMAE_HEAD,
        config('videomae', num_frames=4, image_size=16, layer_norm_eps=1e-12),
        {},
        ('videomae', 'videomae.'),
        {'eps': 1e-12, 'grid': (2, 4, 4), 'final_norm': False},
        {'kind': 'linear', 'norm': True, 'norm_eps': 1e-5},
        0,
    ),
    'videomae hub, pretraining': (
        prefixed('videomae.', HF_VIDEOMAE | HF_VIDEOMAE_NORM)
        | {'encoder_to_decoder.weight': (12, D), 'mask_token': (1, 1, 12), 'decoder.norm.weight': (12,)},
        None,
        HEADS | GRID,
        ('videomae', 'videomae.'),
        {'eps': 1e-12, 'grid': (2, 4, 4), 'final_norm': True},
        None,
        3,
    ),
    'videomae original': (
        prefixed('module/', VIDEOMAE | VIDEOMAE_END) | {'optimizer/state/0/exp_avg': (D,)},
        None,
        HEADS | GRID,
        ('videomae', 'module/'),
        {'eps': 1e-6, 'final_norm': False},
        {'kind': 'linear', 'norm': True, 'norm_eps': 1e-6},
        0,
    ),
    'videomae original, wrapped': (
        prefixed('model/_orig_mod.backbone.', published.videomae_original(gammas=True)[0])
        | prefixed('model/_orig_mod.', VIDEOMAE_END),
        None,
        HEADS,
        ('videomae', 'model/_orig_mod.backbone.'),
        {'layer_scale': 0.1, 'grid': (8, 56, 56)},
        {'kind': 'linear', 'norm': True},
        0,
    ),
    'videomae original, pretraining': (
        prefixed('model/encoder.', VIDEOMAE | {'norm.weight': (D,), 'norm.bias': (D,)})
        | prefixed('model/decoder.', DECODER)
        | {'model/encoder_to_decoder.weight': (12, D), 'model/mask_token': (1, 1, 12)},
        None,
        HEADS,
        ('videomae', 'model/encoder.'),
        {'final_norm': True},
        None,
        len(DECODER) + 2,
    ),
    'vivit hub': (
        prefixed('vivit.', HF_VIVIT) | HF_VIVIT_HEAD,
        config('vivit', num_frames=4, image_size=16, tubelet_size=[2, 4, 4], layer_norm_eps=1e-6),
        {},
        ('vivit_joint', 'vivit.'),
        {'grid': (2, 4, 4), 'patch': (4, 4), 'tubelet': 2},
        {'kind': 'linear'},
        0,
    ),
    'vivit Scenic, old': (
        prefixed('optimizer/target/', published.scenic_factorised())
        | {'optimizer/state/param_states/embedding/kernel/momentum': (1,)},
        None,
        {},
        ('vivit', 'optimizer/target/'),
        {'spatial_layers': 2, 'temporal_layers': 3, 'grid': (2, 4, 4), 'heads': 3, 'cls': True, 'temporal_on': 'rois'},
        {'kind': 'linear'},
        0,
    ),
    'vivit Scenic, new, without CLS': (
        prefixed('params/', published.scenic_factorised(cls=False)) | FLAX_OF_MOMENTS,
        None,
        {},
        ('vivit', 'params/'),
        {'cls': False, 'grid': (2, 4, 4), 'heads': 3},
        {'kind': 'linear'},
        0,
    ),
    'vivit Scenic, joint': (
        published.scenic_joint(),
        None,
        GRID,
        ('vivit_joint', ''),
        {'grid': (2, 4, 4), 'patch': (14, 14), 'heads': 3},
        {'kind': 'linear'},
        0,
    ),
    'internvideo2': (
        prefixed('module/', published.internvideo2()),
        None,
        HEADS,
        ('internvideo2', 'module/'),
        {'grid': (2, 16, 16), 'tubelet': 1},
        {'kind': 'projector', 'embed': 32},
        0,
    ),
    'internvideo2, separate positions': (
        published.internvideo2(separate=True) | {'clip_decoder.0.head.weight': (8, D), 'clip_pos_embed': (1, 513, D)},
        None,
        HEADS,
        ('internvideo2', ''),
        {'grid': (2, 16, 16)},
        {'kind': 'projector'},
        2,
    ),
}


@pytest.mark.parametrize('file', FILES)
def test_a_published_layout(file):
    names, beside, overrides, (family, prefix), backbone, head, dropped = FILES[file]
    weights = opened(names, config=beside)
    found = recognise(weights, overrides=overrides)
    assert (found.family, found.prefix) == (family, prefix)
    assert found.backbone['kind'] == family
    assert {'width': D, 'mlp': M, 'heads': 3}.items() <= found.backbone.items()
    assert backbone.items() <= found.backbone.items()
    assert (found.head is None) if head is None else (head | {'classes': C}).items() <= found.head.items()
    assert len(filled(weights, found)) == dropped


@pytest.mark.parametrize(
    ('names', 'cls', 'dropped'),
    [
        (published.vit_augreg(), True, 4),
        (prefixed('opt/target/', published.vit_augreg()), True, 4),
        (published.vit_big_vision(), False, 2),
        (prefixed('params/img/', published.vit_big_vision(stacked=True)) | {'params/txt/x': (3,)}, False, 2),
    ],
)
def test_models_of_images(names, cls, dropped):
    weights = opened(names, kind='npz')
    found = recognise(weights)
    want = {'width': D, 'mlp': M, 'heads': 3, 'layers': 2, 'patch': (4, 4), 'tubelet': 1, 'grid': (1, 4, 4), 'cls': cls}
    assert found.backbone == {'kind': 'image_vit', **want} and found.head is None
    read = {rule.canonical for name in found.names for rule in found.layout.leaves(name)}
    assert {'backbone/embedding/kernel', 'backbone/encoder/position', 'backbone/encoder/norm/scale'} <= read
    left = [name for name in found.names if not found.layout.leaves(name)]
    assert len(left) == dropped and all(found.layout.why_ignored(name) for name in left)


def test_a_probe_is_a_head_alone():
    probes = {}
    for i in range(2):
        probes |= prefixed(f'classifiers/{i}/module.', published.vjepa2_probe())
    with pytest.raises(FamilyError, match=r'classifiers/0, classifiers/1; .*which='):
        recognise(opened(probes), overrides=HEADS)
    found = recognise(opened(probes), which='classifiers/1', overrides=HEADS)
    assert (found.family, found.backbone, found.prefix) == ('vjepa2', None, 'classifiers/1/module.')
    assert found.head == {'kind': 'attentive', 'heads': 3, 'layers': 3, 'eps': 1e-5, 'classes': C}
    assert any('no backbone' in note for note in found.notes)
    assert filled(opened(probes), found) == set()
    # Its heads are those of the encoder of this width.
    assert recognise(opened(published.vjepa2_probe(0, width=1408))).head['heads'] == 22


def test_a_file_that_lost_its_biases_is_still_named():
    hub = prefixed('videomae.', published.videomae_hf(biases=())[0])
    assert recognise(opened(hub), overrides=HEADS).family == 'videomae'
    original = {name: shape for name, shape in VIDEOMAE.items() if '_bias' not in name}
    assert recognise(opened(original), overrides=HEADS).family == 'videomae'


def test_heads_come_from_the_config_or_the_published_sizes_or_the_user():
    with pytest.raises(FamilyError, match=r"width 48 and 2 layers.*overrides=\{'heads'"):
        recognise(opened(VIDEOMAE))
    assert recognise(opened(HF_VIDEOMAE, config=config('videomae'))).backbone['heads'] == 3
    assert recognise(opened(HF_VIDEOMAE, config=config('videomae')), overrides={'heads': 6}).backbone['heads'] == 6
    with pytest.raises(FamilyError, match='48 cannot be split into 5 heads'):
        recognise(opened(VIDEOMAE), overrides={'heads': 5})
    with pytest.raises(FamilyError, match='overrides has head; it can have heads'):
        recognise(opened(VIDEOMAE), overrides={'head': 5})


def test_a_config_of_other_weights():
    other = config('vjepa2')
    found = recognise(opened(HF_VIDEOMAE, config=other), overrides=HEADS)
    assert found.backbone['heads'] == 3 and any('nothing of it is used' in note for note in found.notes)
    for wrong in ({'hidden_size': 24}, {'num_hidden_layers': 3}):
        with pytest.raises(FamilyError, match='do not belong together'):
            recognise(opened(HF_VIDEOMAE, config=config('videomae', **wrong)))
    for wrong in ({'num_attention_heads': '3'}, {'layer_norm_eps': 'small'}, {'image_size': [16, 0]}):
        with pytest.raises(FamilyError, match=r'heads|layer_norm_eps|image_size'):
            recognise(opened(HF_VIDEOMAE, config=config('videomae', **wrong)))


@pytest.mark.parametrize(
    ('names', 'kind', 'known', 'other'),
    [
        (HF_VJEPA2, 'vjepa2', {'hidden_act': 'gelu', 'qkv_bias': True}, {'hidden_act': 'gelu_fast'}),
        (HF_VJEPA2, 'vjepa2', {}, {'qkv_bias': False}),
        (HF_VIDEOMAE, 'videomae', {'hidden_act': 'gelu_python', 'use_mean_pooling': True}, {'hidden_act': 'relu'}),
        (HF_VIDEOMAE, 'videomae', {'qkv_bias': True}, {'qkv_bias': False}),
        (HF_VIDEOMAE, 'videomae', {}, {'use_mean_pooling': False}),
        (HF_VIDEOMAE | HF_VIDEOMAE_NORM, 'videomae', {'use_mean_pooling': False}, {'use_mean_pooling': True}),
        (HF_VIVIT, 'vivit', {'hidden_act': 'gelu_pytorch_tanh', 'qkv_bias': True}, {'hidden_act': 'gelu'}),
        (HF_VIVIT, 'vivit', {'layer_norm_eps': 1e-6}, {'layer_norm_eps': 1e-12}),
    ],
)
def test_models_that_compute_something_else_are_refused(names, kind, known, other):
    recognise(opened(names, config=config(kind, num_frames=4, image_size=16, **known)))
    ((key, value),) = other.items()
    with pytest.raises(FamilyError, match=f'config.json .*says {key}: {value!r}'):
        recognise(opened(names, config=config(kind, num_frames=4, image_size=16, **other)))


def test_a_layer_that_is_not_there():
    gap = {name: shape for name, shape in published.videomae_original(layers=4)[0].items() if '.2.' not in name}
    with pytest.raises(FamilyError, match='nothing of layer 2'):
        recognise(opened(gap), overrides=HEADS)
    far = VIDEOMAE | {'blocks.9999.norm1.weight': (D,)}
    with pytest.raises(FamilyError, match=r'3 layers up to number 9999, but nothing of layer 2 '):
        recognise(opened(far), overrides=HEADS)


def test_single_arrays_are_left_to_the_import():
    names = dict(VIDEOMAE)
    del names['blocks.0.mlp.fc1.weight']
    assert recognise(opened(names), overrides=HEADS).backbone['mlp'] == M
    extra = VIDEOMAE | {'blocks.2.norm1.weight': (D,), 'blocks.1.norm1.weight': (D + 1,)}
    assert recognise(opened(extra), overrides=HEADS).backbone['layers'] == 3


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        ({'patch_embed.proj.weight': (D, 3, 4, 4)}, 'patch_embed.proj.weight has 4 axes, not 5'),
        ({'patch_embed.proj.weight': (D, 1, 2, 4, 4)}, 'takes 1 colour channels'),
        ({'patch_embed.proj.weight': (0, 3, 2, 4, 4)}, r'shape \(0, 3, 2, 4, 4\)'),
        ({'head.weight': (C,)}, r'head.weight has the shape \(5,\)'),
        ({'cls_token': (1, 1, D)}, 'there is cls_token'),
        ({'blocks.0.mlp.fc1.weight': ()}, 'blocks.0.mlp.fc1.weight has the shape'),
        ({'patch_embed.proj.weight': None}, 'no patch_embed.proj.weight'),
    ],
)
def test_shapes_that_no_model_has(change, reason):
    names = {name: shape for name, shape in (VIDEOMAE | VIDEOMAE_END | change).items() if shape is not None}
    with pytest.raises(FamilyError, match=reason):
        recognise(opened(names), overrides=HEADS)


def test_a_classifier_of_the_first_token_is_left_out():
    names = VIDEOMAE | {'norm.weight': (D,), 'norm.bias': (D,), 'head.weight': (C, D), 'head.bias': (C,)}
    found = recognise(opened(names), overrides=HEADS)
    assert found.head is None and any('first token' in note for note in found.notes)


def test_the_grid_of_positions():
    tokens = {'embeddings.position_embeddings': (1, 1 + 2 * 3 * 5, D)}
    with pytest.raises(FamilyError, match=r"30 positions .*overrides=\{'grid'"):
        recognise(opened(HF_VIVIT | tokens), overrides=HEADS)
    found = recognise(opened(HF_VIVIT | tokens), overrides=HEADS | {'grid': (2, 3, 5)})
    assert found.backbone['grid'] == (2, 3, 5)
    assert (found.preprocessing.size, found.preprocessing.frames) == ((12, 20), 4)
    for grid, reason in (((2, 3, 4), 'has 24'), ((2, 15), 'a grid is'), ('2x3x5', 'a grid is')):
        with pytest.raises(FamilyError, match=reason):
            recognise(opened(HF_VIVIT | tokens), overrides=HEADS | {'grid': grid})


def test_a_table_of_positions_in_vjepa_is_a_doubt():
    found = recognise(opened(published.vjepa2_encoder() | {'pos_embed': (1, 1568, D)}), overrides=HEADS)
    assert any('V-JEPA (1)' in note for note in found.notes)


def labelled(given, classes=C):
    names = prefixed('vjepa2.', HF_VJEPA2) | HF_VJEPA2_HEAD | {'classifier.weight': (classes, D)}
    return recognise(opened(names, config=config('vjepa2', id2label=given))).labels


def test_labels_are_in_the_order_of_their_numbers():
    assert labelled({str(i): f'action {i}' for i in reversed(range(11))}, 11)[8:] == (
        'action 8',
        'action 9',
        'action 10',
    )
    assert labelled({str(i): f'LABEL_{i}' for i in range(C)}) is None
    assert labelled({str(i): 'x' for i in range(C + 1)}) is None
    assert labelled({'one': 'x'}) is None
    assert labelled(None) is None


def test_the_preprocessing_of_families():
    defaults = {
        name: recognise(opened(names), overrides=overrides).preprocessing
        for name, (names, beside, overrides, *_) in FILES.items()
        if beside is None
    }
    assert {prepared.source for prepared in defaults.values()} == {'family default'}
    assert defaults['vjepa2 official'].mean == (123.675, 116.28, 103.53)
    assert defaults['vjepa2 official'].std == (58.395, 57.12, 57.375)
    assert defaults['vjepa2.1 official'].size == (384, 384)
    assert defaults['vivit Scenic, old'].mean == (127.5,) * 3
    assert defaults['videomae original'].frames == 4
    assert recognise(opened(HF_VJEPA2), overrides=HEADS | {'frames': 7}).preprocessing.frames == 7


@pytest.mark.parametrize('file', FILES)
def test_damage_is_told_and_never_a_crash(file):
    names, beside, overrides, *_ = FILES[file]
    rng = np.random.default_rng(0)
    for _ in range(20):
        damaged = {}
        for name, shape in names.items():
            kind = rng.choice(['whole', 'gone', 'named', 'shaped'], p=[0.97, 0.01, 0.01, 0.01])
            shape = tuple(int(side) for side in rng.integers(0, 50, rng.integers(0, 6))) if kind == 'shaped' else shape
            if kind != 'gone':
                damaged[name.replace('e', '7', 1) if kind == 'named' else name] = shape
        with contextlib.suppress(FamilyError):
            found = recognise(opened(damaged, config=beside), overrides=overrides)
            assert set(found.names.values()) <= damaged.keys()
            assert found.backbone is None or found.backbone['width'] % found.backbone['heads'] == 0
