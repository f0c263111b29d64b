"""Small weight files of every family, made from random parameters of our models by the rules of key_maps."""

import collections
import json
import math
import pathlib
import struct

import numpy as np

from vidloc.checkpoints import key_maps, native
from vidloc.checkpoints.layouts import image_vit, internvideo2, videomae, vivit, vjepa2

SIZES = {'width': 32, 'mlp': 48, 'heads': 2, 'patch': (4, 4)}
JOINT = {'kind': 'vivit_joint', **SIZES, 'layers': 3, 'grid': (2, 3, 3), 'tubelet': 2}
IMAGE = {'kind': 'vivit_joint', **SIZES, 'layers': 3, 'grid': (1, 3, 3), 'tubelet': 1}
FACTORISED = {'kind': 'vivit', **SIZES, 'spatial_layers': 2, 'temporal_layers': 2, 'grid': (2, 3, 3), 'cls': True}
VJEPA2 = {'kind': 'vjepa2', **SIZES, 'layers': 3}
VJEPA2_1 = {
    **VJEPA2, 'layers': 4, 'rope_interleave': True, 'rope_interpolate': True, 'modality': True,
    'image_embedding': True, 'level_norms': True,
}  # fmt: skip
VIDEOMAE = {'kind': 'videomae', **SIZES, 'layers': 3, 'grid': (2, 3, 3)}
INTERNVIDEO2 = {'kind': 'internvideo2', **SIZES, 'layers': 3, 'grid': (2, 3, 3)}
LINEAR = {'kind': 'linear', 'classes': 5}
ATTENTIVE = {'kind': 'attentive', 'heads': 2, 'layers': 2, 'classes': 5}
# Name -> layout, backbone, head, what the file does not tell.
MODELS = {
    'vjepa2_hf': (vjepa2.HF, VJEPA2, ATTENTIVE, {'heads': 2}),
    'vjepa2_official': (vjepa2.OFFICIAL, VJEPA2, None, {'heads': 2}),
    'vjepa2_1': (vjepa2.OFFICIAL_2_1, VJEPA2_1, None, {'heads': 2}),
    'videomae_hf': (videomae.HF, {**VIDEOMAE, 'eps': 1e-12}, {**LINEAR, 'norm': True, 'norm_eps': 1e-5}, 'grid'),
    'videomae_original': (videomae.ORIGINAL, VIDEOMAE, {**LINEAR, 'norm': True}, 'grid'),
    'vivit_hf': (vivit.HF, JOINT, LINEAR, 'grid'),
    'scenic_joint': (vivit.SCENIC_JOINT, JOINT, LINEAR, {'grid': (2, 3, 3)}),
    'scenic_factorised': (vivit.SCENIC, {**FACTORISED, 'temporal_on': 'rois'}, LINEAR, {'grid': (2, 3, 3)}),
    'internvideo2': (internvideo2.JOINT, INTERNVIDEO2, {'kind': 'projector', 'embed': 8, 'classes': 5}, 'grid'),
}
FLAX = ('scenic_joint', 'scenic_factorised')
IMAGES = {
    'augreg': image_vit.AUGREG,
    'scenic': image_vit.SCENIC,
    'big_vision': image_vit.BIG_VISION,
    'stacked': image_vit.BIG_VISION_STACKED,
}


def overrides(name):
    missing = MODELS[name][3]
    return {'heads': 2, 'grid': (2, 3, 3)} if missing == 'grid' else missing


def parameters(backbone, head=None, seed=0):
    """{canonical name: array}, none of them as at a start."""
    shapes = native.own_shapes(backbone, head)
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def sources(layout, params):
    """{name in the file: array}"""
    groups = collections.defaultdict(list)
    for name, array in params.items():
        rule = layout.bind(name)[0]
        groups[rule.source].append((rule.layer if rule.stacked else 0, rule.part, rule, array))
    return {
        source: key_maps.invert(held[0][2], [array for *_, array in sorted(held, key=lambda item: item[:2])])
        for source, held in groups.items()
    }


def arrays(name, seed=0):
    """(canonical parameters, arrays of the file)"""
    layout, backbone, head, _ = MODELS[name]
    params = parameters(backbone, head, seed)
    found = sources(layout, params)
    classifier = ('classifier.', 'pooler.', 'fc_norm.', 'head.')
    return params, {
        source if source.startswith(classifier) else layout.base + source: array for source, array in found.items()
    }


def image_arrays(kind, seed=0):
    """(canonical parameters of an image ViT, arrays of the file)"""
    params = parameters(IMAGE, seed=seed)
    params['backbone/embedding/kernel'] = params['backbone/embedding/kernel'][0]
    if kind in ('big_vision', 'stacked'):
        params['backbone/encoder/position'] = params['backbone/encoder/position'][:, 1:]
    found = sources(IMAGES[kind], params)
    classifier = {'head/kernel': np.ones((32, 7), np.float32), 'head/bias': np.ones(7, np.float32)}
    return params, found | classifier


def write_safetensors(path, found):
    """found: {name: array}; float32, float64, float16 or int64."""
    codes = {'float32': 'F32', 'float64': 'F64', 'float16': 'F16', 'int64': 'I64', 'bfloat16': 'BF16'}
    header, start = {}, 0
    for name, array in found.items():
        end = start + array.nbytes
        header[name] = {'dtype': codes[array.dtype.name], 'shape': list(array.shape), 'data_offsets': [start, end]}
        start = end
    text = json.dumps(header).encode()
    with pathlib.Path(path).open('wb') as file:
        file.write(struct.pack('<Q', len(text)) + text)
        for array in found.values():
            file.write(np.ascontiguousarray(array).tobytes())
    return path


def write_zeros(path, shapes):
    """A safetensors file of float32 zeros that takes no room on the disk; returns its length."""
    header, start = {}, 0
    for name, shape in shapes.items():
        end = start + 4 * math.prod(shape)
        header[name] = {'dtype': 'F32', 'shape': list(shape), 'data_offsets': [start, end]}
        start = end
    text = json.dumps(header).encode()
    with pathlib.Path(path).open('wb') as file:
        file.write(struct.pack('<Q', len(text)) + text)
        file.truncate(8 + len(text) + start)
    return 8 + len(text) + start


def write_msgpack(path, found):
    """As Scenic's older checkpoints."""
    from flax import serialization, traverse_util

    tree = {'optimizer': {'target': traverse_util.unflatten_dict(found, sep='/')}}
    pathlib.Path(path).write_bytes(serialization.msgpack_serialize(tree))
    return path


def write(folder, name, seed=0):
    """(canonical parameters, path) of the file of a model."""
    params, found = arrays(name, seed)
    writer, ending = (write_msgpack, 'msgpack') if name in FLAX else (write_safetensors, 'safetensors')
    return params, writer(folder / f'{name}.{ending}', found)
