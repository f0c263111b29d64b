"""Adapters in PEFT's layout, without PEFT: names, axes, and what cannot be taken."""

import json

import numpy as np
import pytest

from vidloc.checkpoints import exporter, peft
from vidloc.checkpoints.adapters import Adapter, AdapterError
from vidloc.checkpoints.readers import safetensors
from vidloc.models.lora import Lora

LORA = Lora(rank=2, alpha=3.0, on=('query', 'value', 'fc1'), layers=(1, 2))
BACKBONES = {
    'videomae': {'layer_scale': 0.0, 'final_norm': False, 'eps': 1e-6},
    'vivit_joint': {'eps': 1e-6},
    'vjepa2': {
        'eps': 1e-6, 'rope_interleave': False, 'rope_interpolate': False, 'modality': False, 'image_embedding': False,
        'level_norms': False,
    },
}  # fmt: skip
MODULES = {
    'videomae': ('encoder.layer.1.attention.attention.query', 'encoder.layer.2.intermediate.dense'),
    'vivit_joint': ('layers.1.attention.q_proj', 'layers.2.mlp.fc1'),
    'vjepa2': ('encoder.layer.1.attention.query', 'encoder.layer.2.mlp.fc1'),
}


def model(kind, head=None):
    sizes = {'kind': kind, 'width': 6, 'mlp': 10, 'layers': 3, 'heads': 2, 'grid': (2, 2, 2), 'patch': (4, 4)}
    backbone = sizes | {'tubelet': 2} | BACKBONES[kind]
    return exporter.Model(backbone, head, None, (0.0,) * 3, (1.0,) * 3, (8, 8), 4)


def parameters(*owners):
    """LoRA of blocks 1 and 2, and of these."""
    blocks = [f'backbone/encoder/block_{i:02d}/' for i in (1, 2)]
    owners = [*owners, *(block + name for block in blocks for name in ('attn/query', 'attn/value', 'mlp/fc1'))]
    rng = np.random.default_rng(0)
    params = {}
    for owner in owners:
        outputs = 10 if owner.endswith('fc1') else 6
        params |= {f'{owner}/lora_a': rng.normal(size=(6, 2)), f'{owner}/lora_b': rng.normal(size=(2, outputs))}
    return {name: value.astype(np.float32) for name, value in params.items()}


@pytest.fixture
def written(tmp_path):
    """A folder for V-JEPA 2."""
    peft.write(tmp_path / 'peft', Adapter(parameters(), LORA, None, base='weights/vjepa2'), model('vjepa2'))
    return tmp_path / 'peft'


@pytest.mark.parametrize('kind', BACKBONES)
def test_round_trip(kind, tmp_path):
    params = parameters()
    peft.write(tmp_path / 'out', Adapter(params, LORA, None, base='weights/base'), model(kind))
    entries, notes = safetensors.read(tmp_path / 'out' / 'adapter_model.safetensors')
    about = json.loads((tmp_path / 'out' / 'adapter_config.json').read_text())
    query, hidden = MODULES[kind]
    assert notes == {'format': 'pt'} and len(entries) == len(params)
    assert {query, hidden} < set(about['target_modules']) and len(about['target_modules']) == len(params) // 2
    ours = 'backbone/encoder/block_01/attn/query'
    a = entries[f'base_model.model.{query}.lora_A.weight'].read()
    b = entries[f'base_model.model.{hidden}.lora_B.weight'].read()
    np.testing.assert_array_equal(a, params[f'{ours}/lora_a'].T)  # [r, in]
    np.testing.assert_array_equal(b, params['backbone/encoder/block_02/mlp/fc1/lora_b'].T)  # [out, r]
    assert (about['r'], about['lora_alpha'], about['base_model_name_or_path']) == (2, 3, 'weights/base')
    found = peft.read(tmp_path / 'out', kind)
    assert (found.lora, found.fingerprint, found.base) == (LORA, None, 'weights/base')
    assert found.params.keys() == params.keys()
    for name, value in params.items():
        np.testing.assert_array_equal(found.params[name], value, err_msg=name)


def test_lora_of_a_head_is_that_of_the_class_with_a_classifier(tmp_path):
    head = {'kind': 'attentive', 'heads': 2, 'layers': 1, 'eps': 1e-6, 'classes': 3}
    lora = Lora(rank=2, alpha=3.0, on=LORA.on, where=('backbone', 'heads'), layers=(1, 2))
    params = parameters('head/pooler/cross/attn/query', 'head/pooler/self/block_00/attn/value')
    notes = peft.write(tmp_path / 'out', Adapter(params, lora, None), model('vjepa2', head))
    assert notes == ('modules are those of VJEPA2ForVideoClassification',)
    modules = json.loads((tmp_path / 'out' / 'adapter_config.json').read_text())['target_modules']
    expected = {'vjepa2.encoder.layer.1.attention.query', 'pooler.self_attention_layers.0.self_attn.v_proj'}
    assert expected < set(modules) and 'pooler.cross_attention_layer.cross_attn.q_proj' in modules
    found = peft.read(tmp_path / 'out', 'vjepa2')
    assert found.lora == lora and found.params.keys() == params.keys()
    with pytest.raises(exporter.ExportError, match='its pooler has the 2 heads'):
        peft.write(tmp_path / 'no', Adapter(params, lora, None), model('vjepa2', head | {'heads': 3}))


def test_what_cannot_be_written(tmp_path, written):
    with pytest.raises(AdapterError, match='is there already'):
        peft.write(written, Adapter(parameters(), LORA, None), model('vjepa2'))
    with pytest.raises(AdapterError, match='there is no LoRA in this run'):
        peft.write(tmp_path / 'a', Adapter({}, Lora(), None), model('vjepa2'))
    other = model('vjepa2')
    other.backbone['level_norms'] = True
    with pytest.raises(exporter.ExportError, match='it has no level_norms'):
        peft.write(tmp_path / 'a', Adapter(parameters(), LORA, None), other)
    assert not (tmp_path / 'a').exists()


def changed(folder, **fields):
    path = folder / 'adapter_config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return folder


@pytest.mark.parametrize(
    ('fields', 'text'),
    [
        ({'peft_type': 'LOHA'}, "peft_type is 'LOHA'; only LORA"),
        ({'r': 0}, 'r is 0 and lora_alpha 3; they must be numbers'),
        ({'lora_alpha': None}, 'lora_alpha None; they must be numbers'),
        ({'use_rslora': True}, r'use_rslora is True: it is scaled by alpha / sqrt\(r\), here by alpha / r'),
        ({'use_dora': True}, 'use_dora is True: it learns the lengths of columns'),
        ({'modules_to_save': ['classifier']}, r"modules_to_save is \['classifier'\]: it holds layers"),
        ({'bias': 'lora_only'}, "bias is 'lora_only': it holds biases"),
        ({'rank_pattern': {'query': 4}}, "rank_pattern is {'query': 4}: layers differ in their rank"),
        ({'alpha_pattern': {'query': 3, 'value': 4}}, "alpha_pattern is {'value': 4}: layers differ in their alpha"),
        ({'init_lora_weights': 'pissa_niter_4'}, "'pissa_niter_4': the matrices beside it are not those of the publ"),
        ({'layer_replication': [[0, 2]]}, 'layer_replication is .*: this is not known here'),
    ],
)
def test_what_cannot_be_taken(written, fields, text):
    with pytest.raises(AdapterError, match=text):
        peft.read(changed(written, **fields), 'vjepa2')


def test_all_that_cannot_be_taken_is_said_at_once(written):
    with pytest.raises(AdapterError, match='cannot be taken') as raised:
        peft.read(changed(written, use_dora=True, bias='all'), 'vjepa2')
    assert len(str(raised.value).splitlines()) == 3


def test_settings_that_change_nothing(written):
    fields = {
        'rank_pattern': {'query': 2}, 'alpha_pattern': {'value': 3.0}, 'init_lora_weights': 'gaussian',
        'target_modules': 'all-linear', 'layers_to_transform': [1, 2], 'peft_version': '0.18.0', 'use_qalora': False,
        'qalora_group_size': 16, 'megatron_core': 'megatron.core', 'lora_dropout': 0.1, 'new_field': None,
    }  # fmt: skip
    assert peft.read(changed(written, **fields), 'vjepa2').lora.dropout == 0.1


def renamed(folder, toys, change):
    """The folder with names changed as change(name) says, None: left out."""
    path = folder / 'adapter_model.safetensors'
    arrays = {change(name): entry.read() for name, entry in safetensors.read(path)[0].items()}
    arrays.pop(None, None)
    toys.write_safetensors(path, arrays)
    return folder


@pytest.mark.parametrize('prefix', ['base_model.model.vjepa2.', 'base_model.model.model.', 'model.', 'vjepa2.', ''])
def test_wrappers_are_taken_off(written, toys, prefix):
    renamed(written, toys, lambda name: name.replace('base_model.model.', prefix))
    assert peft.read(written, 'vjepa2').params.keys() == parameters().keys()


def test_the_older_names_of_vivit(tmp_path, toys):
    peft.write(tmp_path / 'out', Adapter(parameters(), LORA, None), model('vivit_joint'))
    older = {
        'model.layers': 'model.vivit.encoder.layer', 'attention.q_proj': 'attention.attention.query',
        'attention.v_proj': 'attention.attention.value', 'mlp.fc1': 'intermediate.dense',
    }  # fmt: skip

    def rename(name):
        for new, old in older.items():
            name = name.replace(new, old)
        return name

    found = peft.read(renamed(tmp_path / 'out', toys, rename), 'vivit_joint').params
    for name, value in parameters().items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (lambda name: name.replace('layer.1.attention.query', 'embeddings.patch_embeddings.proj'), 'patch_embeddings'),
        (lambda name: name.replace('encoder.layer.1', 'predictor.layer.1'), 'predictor.layer.1.attention.query.lora_A'),
        (lambda name: name.replace('encoder.layer.1.attention.query', 'classifier'), 'classifier.lora_A'),
        (lambda name: name.replace('query.lora_A.weight', 'query.lora_magnitude_vector'), 'lora_magnitude_vector'),
        (lambda name: name.replace('lora_', 'delta_'), 'delta_A.weight.* and 7 more:'),
    ],
)
def test_layers_that_are_not_adapted_here(written, toys, change, text):
    with pytest.raises(
        AdapterError, match=rf'{text}.* not LoRA on query, key, value, out, fc1, fc2 of a block of vjepa2'
    ):
        peft.read(renamed(written, toys, change), 'vjepa2')


def test_matrices_that_are_not_two_of_one_rank(written, toys):
    with pytest.raises(AdapterError, match=r'lora_A\.weight has the shape \[2, 6\], and r is 3'):
        peft.read(changed(written, r=3), 'vjepa2')
    changed(written, r=2)
    renamed(written, toys, lambda name: None if name.endswith('layer.1.attention.query.lora_B.weight') else name)
    with pytest.raises(AdapterError, match='only one of the two matrices of backbone/encoder/block_01/attn/query'):
        peft.read(written, 'vjepa2')


def test_no_folder_for_this_backbone(written, tmp_path):
    with pytest.raises(AdapterError, match="no backbone of kind 'internvideo2'; it has videomae"):
        peft.read(written, 'internvideo2')
    with pytest.raises(AdapterError, match=r'has no adapter_config\.json: it is no folder of PEFT'):
        peft.read(tmp_path, 'vjepa2')
    (written / 'adapter_model.safetensors').unlink()
    with pytest.raises(AdapterError, match=r'has neither adapter_model\.safetensors nor adapter_model\.bin'):
        peft.read(written, 'vjepa2')
    (written / 'adapter_config.json').write_text('[')
    with pytest.raises(AdapterError, match=r'adapter_config\.json cannot be read'):
        peft.read(written, 'vjepa2')
