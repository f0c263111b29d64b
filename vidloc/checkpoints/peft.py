"""LoRA in the layout of Hugging Face's PEFT: a folder with adapter_config.json and adapter_model.safetensors.

Facts of the layout: huggingface/peft, utils/save_and_load.py and tuners/lora/config.py. A module `M` of the wrapped
model has `base_model.model.M.lora_A.weight` [r, in] and `base_model.model.M.lora_B.weight` [out, r]; the change is
lora_alpha / r times their product. Modules are called as transformers calls them in memory, which for ViViT is not what
its files call them.
"""

import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from vidloc.checkpoints import adapters, exporter, frozen, key_maps, store
from vidloc.checkpoints.adapters import Adapter, AdapterError
from vidloc.checkpoints.layouts import videomae, vivit, vjepa2
from vidloc.checkpoints.readers import opening
from vidloc.models.lora import LAYERS, LEAVES, Lora

CONFIG = 'adapter_config.json'
WEIGHTS = 'adapter_model.safetensors'
# As PEFT wrote it before safetensors.
PICKLED = 'adapter_model.bin'
# Kind of a backbone -> what its modules are called: as transformers 5 does, then as other releases do.
LAYOUTS: dict[str, tuple[key_maps.Layout, ...]] = {
    'videomae': (videomae.HF,),
    'vivit_joint': (vivit.HF_MEMORY, vivit.HF),
    'vjepa2': (vjepa2.HF,),
}
SHOWN = 5
# Fields that say nothing of what A and B mean, given that the ones below are as expected.
_FREE = frozenset(
    [
        *('peft_type', 'r', 'lora_alpha', 'lora_dropout', 'task_type', 'auto_mapping', 'peft_version', 'revision'),
        *('base_model_name_or_path', 'inference_mode', 'target_modules', 'exclude_modules', 'layers_to_transform'),
        *('layers_pattern', 'fan_in_fan_out', 'megatron_config', 'megatron_core', 'loftq_config', 'eva_config'),
        *('qalora_group_size', 'ensure_weight_tying'),
    ]
)
# Why an adapter cannot be taken that sets these.
_REFUSED = {
    'use_rslora': 'it is scaled by alpha / sqrt(r), here by alpha / r',
    'use_dora': 'it learns the lengths of columns, too',
    'modules_to_save': 'it holds layers that were trained whole; heads start new or come from a file of ours',
    'rank_pattern': 'layers differ in their rank, here they have one',
    'alpha_pattern': 'layers differ in their alpha, here they have one',
    'bias': 'it holds biases that were trained',
    'lora_bias': 'it has biases of its own',
}
# Starts that leave the matrices beside them as they are.
_STARTS = (None, True, False, 'gaussian', 'eva', 'orthogonal')
_PREFIX = re.compile(r'(?:base_model\.)?(?:(?:model|module)\.)*')
_NAME = re.compile(r'(?P<module>.+)\.lora_(?P<part>[AB])\.weight')


def write(out: str | os.PathLike[str], adapter: Adapter, model: exporter.Model) -> tuple[str, ...]:
    """Writes the folder `out`, which must be new or empty; returns what the user should know.

    adapter: of 'backbone' and 'head', LoRA and nothing else. model: what it is of, as for exporter.export.
    Raises AdapterError, exporter.ExportError for a model that transformers does not have, OSError.
    """
    out = pathlib.Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise AdapterError(f'{out} is there already and holds something: give a new folder')
    lora, params = adapter.lora, adapter.params
    owners = sorted(name.removesuffix(LEAVES[0]) for name in params if name.endswith(LEAVES[0]))
    if not owners:
        raise AdapterError("there is no LoRA in this run: PEFT's layout has no place for anything else")
    in_head = any(owner.startswith('head/') for owner in owners)
    architecture = exporter.architecture(model, with_head=in_head)
    layout = LAYOUTS[model.backbone['kind']][0]
    arrays, modules = {}, []
    for owner in owners:
        inside = layout.base if in_head and owner.startswith('backbone/') else ''
        modules.append(inside + _module(layout, owner))
        for leaf, part in zip(LEAVES, 'AB', strict=True):
            # [in, r] -> [r, in], [r, out] -> [out, r]
            arrays[f'base_model.model.{modules[-1]}.lora_{part}.weight'] = np.asarray(
                params[owner + leaf], np.float32
            ).T
    store.write_json(
        out / CONFIG,
        {
            'peft_type': 'LORA',
            'task_type': None,
            'auto_mapping': {'base_model_class': architecture, 'parent_library': 'transformers'},
            'base_model_name_or_path': adapter.base or None,
            'inference_mode': True,
            'r': lora.rank,
            'lora_alpha': int(lora.alpha) if float(lora.alpha).is_integer() else lora.alpha,
            'lora_dropout': lora.dropout,
            # Their whole names: a bare `query` would be that of the predictor of V-JEPA 2, too.
            'target_modules': modules,
            'bias': 'none',
            'fan_in_fan_out': False,
            'init_lora_weights': True,
            'use_rslora': False,
            'use_dora': False,
            'modules_to_save': None,
            'layers_to_transform': None,
            'rank_pattern': {},
            'alpha_pattern': {},
        },
    )
    frozen.write_safetensors(
        out / WEIGHTS,
        {name: (array.shape, array.dtype, lambda array=array: array) for name, array in arrays.items()},
        {'format': 'pt'},
    )
    notes = (f'modules are those of {architecture}',)
    if layout is vivit.HF_MEMORY:
        notes += ('they are called as in transformers 5; before, those of ViViT had other names',)
    if lora.dropout and lora.dropout_on != 'input':
        notes += (f'its dropout was on the {lora.dropout_on}; PEFT, where it trains on, has it on the input',)
    return notes


def _module(layout: key_maps.Layout, owner: str) -> str:
    rules = layout.bind(f'{owner}kernel')
    if not rules:
        raise AdapterError(f'{owner}kernel has no counterpart in files of the layout {layout.name!r}')
    return rules[0].source.removesuffix('.weight')


def read(path: str | os.PathLike[str], kind: str) -> Adapter:
    """The LoRA of a folder, for a backbone of this kind; parameters of its head are under 'head/'.

    Raises AdapterError with all that forbids it, ReadError.
    """
    path = pathlib.Path(path)
    about = _about(path)
    if kind not in LAYOUTS:
        raise AdapterError(
            f'{path}: PEFT names modules of transformers, which has no backbone of kind {kind!r}; it has '
            f'{", ".join(LAYOUTS)}'
        )
    held = [path / name for name in (WEIGHTS, PICKLED) if (path / name).is_file()]
    if not held:
        raise AdapterError(f'{path} has neither {WEIGHTS} nor {PICKLED}: it is not whole')
    weights = opening.open_weights(held[0])
    params, strange = {}, []
    for name, entry in weights.entries.items():
        match = _NAME.fullmatch(name)
        owner = match and _owner(match['module'], LAYOUTS[kind])
        if owner is None:
            strange.append(name)
            continue
        matrix = np.asarray(entry.read(), np.float32)
        leaf = LEAVES['AB'.index(match['part'])]
        rank = matrix.shape[0 if leaf == LEAVES[0] else -1] if matrix.ndim == 2 else None
        if rank != about['r']:
            raise AdapterError(f'{path}: {name} has the shape {list(matrix.shape)}, and r is {about["r"]}')
        params[owner + leaf] = np.ascontiguousarray(matrix.T)
    if strange or not params:
        shown = ', '.join(strange[:SHOWN]) + (f' and {len(strange) - SHOWN} more' if len(strange) > SHOWN else '')
        raise AdapterError(
            f'{path}: {f"{shown}: not LoRA" if strange else "there is no LoRA"} on {", ".join(LAYERS)} of a block of '
            f'{kind}, which is all that can be adapted here'
        )
    if alone := [name for name in params if not {name[:-1] + part for part in 'ab'} <= params.keys()]:
        raise AdapterError(f'{path}: there is only one of the two matrices of {alone[0][:-7]}')
    base = about.get('base_model_name_or_path') or 'it names none'
    return adapters.finite(path, Adapter(params, _lora(about, params), None, base=base))


def _about(path: pathlib.Path) -> dict[str, Any]:
    """adapter_config.json. Raises AdapterError with everything in it that cannot be taken."""
    try:
        about = json.loads((path / CONFIG).read_text(encoding='utf-8'))
        if not isinstance(about, dict):
            raise ValueError('it is no table')
    except FileNotFoundError as error:
        raise AdapterError(f'{path} has no {CONFIG}: it is no folder of PEFT') from error
    except (OSError, ValueError) as error:
        raise AdapterError(f'{path / CONFIG} cannot be read: {error}') from error
    if about.get('peft_type') != 'LORA':
        raise AdapterError(f'{path}: peft_type is {about.get("peft_type")!r}; only LORA can be taken')
    rank, alpha = about.get('r'), about.get('lora_alpha')
    if type(rank) is not int or rank < 1 or type(alpha) not in (int, float):
        raise AdapterError(f'{path}: r is {rank!r} and lora_alpha {alpha!r}; they must be numbers, r at least 1')
    usual = {'rank_pattern': rank, 'alpha_pattern': alpha}
    refused = []
    for name, value in about.items():
        if name in usual and isinstance(value, dict):
            value = {where: each for where, each in value.items() if each != usual[name]}
        if name == 'init_lora_weights':
            if value not in _STARTS:
                refused.append(f'{name} is {value!r}: the matrices beside it are not those of the published weights')
        elif name not in _FREE and value and (name, value) != ('bias', 'none'):
            refused.append(f'{name} is {value!r}: {_REFUSED.get(name, "this is not known here")}')
    if refused:
        raise AdapterError(f'{path} cannot be taken:\n  ' + '\n  '.join(refused))
    return about


def _owner(module: str, layouts: tuple[key_maps.Layout, ...]) -> str | None:
    """'base_model.model.vjepa2.encoder.layer.3.attention.query' -> 'backbone/encoder/block_03/attn/query/'"""
    name = module[_PREFIX.match(module).end() :]
    for layout in layouts:
        rules = layout.leaves(f'{name.removeprefix(layout.base)}.weight')
        if len(rules) == 1 and rules[0].canonical.split('/')[-2:-1] and rules[0].canonical.endswith('/kernel'):
            owner = rules[0].canonical.removesuffix('kernel')
            return owner if owner.split('/')[-2] in LAYERS else None
    return None


def _lora(about: Mapping[str, Any], params: Mapping[str, np.ndarray]) -> Lora:
    """What the names say; a LoRA that is not on all of these layers alike is none of ours, which the names show."""
    blocks = [int(match[1]) for name in params if (match := re.match(r'backbone/.*block_(\d+)/', name))]
    held = {name.split('/')[-2] for name in params}
    roots = {name.split('/')[0] for name in params}
    return Lora(
        rank=about['r'],
        alpha=float(about['lora_alpha']),
        dropout=float(about.get('lora_dropout') or 0.0),
        on=tuple(name for name in LAYERS if name in held),
        where=tuple(place for place, root in (('backbone', 'backbone'), ('heads', 'head')) if root in roots),
        layers=(min(blocks), max(blocks)) if blocks else (0, -1),
    )
