"""A model of ours as a folder that `transformers` loads: model.safetensors, config.json, preprocessor_config.json.

Parameters get the names of the published files, not those that transformers 5 has for them in memory.
"""

import dataclasses
import math
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from vidloc.checkpoints import frozen, key_maps, store
from vidloc.checkpoints.layouts import videomae, vivit, vjepa2
from vidloc.models import layers

WEIGHTS = 'model.safetensors'
# Of VideoMAE's norm behind the mean and of nothing else: PyTorch's default, which no field of the config changes.
POOLED_EPS = 1e-5


class ExportError(ValueError):
    """The model cannot be exported: what of it transformers has no place for."""


@dataclasses.dataclass(frozen=True)
class Model:
    """What is exported beside the parameters.

    backbone: {'kind': ..., all fields of its module}. head: the same of its head, with 'classes'; None: none.
    labels: names of the classes; None: they have none. mean, std: of red, green and blue on 0..255: the input is
    (pixel - mean) / std. size: (height, width) of the input in pixels; frames: of a clip.
    """

    backbone: Mapping[str, Any]
    head: Mapping[str, Any] | None
    labels: tuple[str, ...] | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: tuple[int, int]
    frames: int


@dataclasses.dataclass(frozen=True)
class Exported:
    """architecture: the class of transformers. with_head: whether it has our head. notes: what the user should know."""

    architecture: str
    with_head: bool
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Target:
    """A model of a family in transformers.

    classes: its classes (with classifier, without). config: fields of config.json. refused: why the backbone cannot be
    expressed, unfit: why the head cannot; empty if they can. fixed: arrays which that class has and we have not, where
    there is (a classifier, none). offset: its processors take 1 from what they have scaled.
    """

    layout: key_maps.Layout
    classes: tuple[str, str]
    processors: Mapping[str, str]
    config: Mapping[str, Any]
    refused: tuple[str, ...] = ()
    unfit: tuple[str, ...] = ()
    fixed: tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]] = ({}, {})
    notes: tuple[str, ...] = ()
    offset: bool = False


def architecture(model: Model, *, with_head: bool) -> str:
    """The class of transformers that has our backbone, and our head or none. Raises ExportError if there is none."""
    target = _target(model)
    if with_head and target.unfit:
        raise ExportError(f'transformers has no such head: {"; ".join(target.unfit)}')
    return target.classes[0 if with_head else 1]


def export(out: str | os.PathLike[str], params: Mapping[str, Any], model: Model) -> Exported:
    """Writes the folder `out`; no more than one tensor is copied at a time.

    params: {'backbone': ..., 'head': ...}, run form or canonical, arrays on the host; written as float32. A head that
    the family has not in transformers is left out, and a note says why.
    Raises ExportError if the backbone has no counterpart, if parameters and model do not agree, or if `out` is there
    and no empty folder; store.CheckpointError and OSError if it cannot be written.
    """
    out = pathlib.Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f'{out} is there already and holds something: give a new folder')
    target = _target(model)
    with_head = model.head is not None and not target.unfit
    notes = target.notes
    if target.unfit and model.head is not None:
        notes += (f'the head is left out, the backbone is exported alone: {"; ".join(target.unfit)}',)
    arrays = _arrays(params, target, with_head)
    name = target.classes[0 if with_head else 1]
    config = {'architectures': [name], 'dtype': 'float32', **target.config}
    if with_head:
        config |= _labels(model)
    store.write_json(out / 'config.json', config)
    store.write_json(out / 'preprocessor_config.json', _processor(model, target))
    frozen.write_safetensors(out / WEIGHTS, arrays, {'format': 'pt'})
    return Exported(name, with_head, notes)


def _target(model: Model) -> _Target:
    kind = model.backbone['kind']
    if kind not in _TARGETS:
        raise ExportError(f'transformers has no model like backbone kind {kind!r}; it has {", ".join(_TARGETS)}')
    target = _TARGETS[kind](model)
    if target.refused:
        raise ExportError(f'transformers cannot express this {kind}: {"; ".join(target.refused)}')
    return target


def _arrays(
    params: Mapping[str, Any], target: _Target, with_head: bool
) -> dict[str, tuple[tuple[int, ...], np.dtype, Callable[[], np.ndarray]]]:
    """{name in the file: (shape, dtype, gives the array)}"""
    roots = ('backbone', 'head') if with_head else ('backbone',)
    if missing := [root for root in roots if root not in params]:
        raise ExportError(f'there are no parameters of the {" and the ".join(missing)}')
    leaves = traverse_util.flatten_dict(layers.to_canonical({root: params[root] for root in roots}), sep='/')
    made: dict[str, list[tuple[key_maps.Rule, np.ndarray]]] = {}
    for name, leaf in leaves.items():
        rules = target.layout.bind(name)
        if not rules:
            raise ExportError(f'{name} has no counterpart in files of the layout {target.layout.name!r}')
        base = target.layout.base if with_head and name.startswith('backbone/') else ''
        made.setdefault(base + rules[0].source, []).append((rules[0], np.asarray(leaf)))
    found: dict[str, tuple[tuple[int, ...], np.dtype, Callable[[], np.ndarray]]] = {}
    for source, parts in made.items():
        rule = parts[0][0]
        pieces = [leaf for _, leaf in sorted(parts, key=lambda part: part[0].part)]
        # Of one byte an element, for the shape alone.
        shape = key_maps.invert(rule, [np.broadcast_to(np.zeros((), bool), piece.shape) for piece in pieces]).shape
        found[source] = (
            shape,
            np.dtype(np.float32),
            lambda rule=rule, pieces=pieces: key_maps.invert(rule, pieces).astype(np.float32, copy=False),
        )
    for name, array in target.fixed[0 if with_head else 1].items():
        found[name] = (array.shape, array.dtype, lambda array=array: array)
    return found


def _labels(model: Model) -> dict[str, Any]:
    """Entries of config.json."""
    count = model.head['classes']
    names = model.labels or tuple(f'LABEL_{i}' for i in range(count))
    if len(names) != count:
        raise ExportError(f'there are {len(names)} labels for {count} classes')
    return {
        'id2label': {str(i): name for i, name in enumerate(names)},
        'label2id': {name: i for i, name in enumerate(names)},
    }


def _processor(model: Model, target: _Target) -> dict[str, Any]:
    """preprocessor_config.json: (pixel factor - offset - image_mean) / image_std is (pixel - mean) / std."""
    factor, offset = (1 / 127.5, 1.0) if target.offset else (1 / 255, 0.0)
    height, width = model.size
    return {
        **target.processors,
        'do_resize': True,
        'size': {'shortest_edge': min(height, width)},
        'resample': 2,
        'do_center_crop': True,
        'crop_size': {'height': height, 'width': width},
        'do_rescale': True,
        'rescale_factor': factor,
        **({'offset': True} if target.offset else {}),
        'do_normalize': True,
        'image_mean': [value * factor - offset for value in model.mean],
        'image_std': [value * factor for value in model.std],
    }


def _image_size(backbone: Mapping[str, Any]) -> int | list[int]:
    """Pixels of the grid that positions are for."""
    height, width = (cells * side for cells, side in zip(backbone['grid'][1:], backbone['patch'], strict=True))
    return height if height == width else [height, width]


def _grid_notes(model: Model) -> tuple[str, ...]:
    """Positions of transformers are those of one grid."""
    backbone = model.backbone
    side = _image_size(backbone)
    height, width = side if isinstance(side, list) else (side, side)
    frames = backbone['grid'][0] * backbone['tubelet']
    if (model.frames, *model.size) == (frames, height, width):
        return ()
    return (
        f'transformers takes {frames} frames of {height} x {width} pixels alone, the grid that the positions are for; '
        f'ours was used with {model.frames} of {model.size[0]} x {model.size[1]}, for which it interpolates them',
    )


def _wrong_head(model: Model, kind: str) -> tuple[str, ...]:
    if model.head is None:
        return ()
    if model.head['kind'] != kind:
        return (f'the classifier there is of kind {kind!r}, ours of kind {model.head["kind"]!r}',)
    if model.head.get('text'):
        return ('the classifier there is linear, ours compares with text embeddings',)
    return ()


def _shared(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the same name in VideoMAE and ViViT."""
    return {
        'hidden_size': backbone['width'],
        'intermediate_size': backbone['mlp'],
        'num_hidden_layers': backbone['layers'],
        'num_attention_heads': backbone['heads'],
        'image_size': _image_size(backbone),
        'num_frames': backbone['grid'][0] * backbone['tubelet'],
        'num_channels': 3,
    }


def _videomae(model: Model) -> _Target:
    backbone, head = model.backbone, model.head or {}
    rows, columns = backbone['patch']
    unfit = _wrong_head(model, 'linear')
    if head and not unfit:
        if not head['norm']:
            unfit += ('the classifier there has a norm behind the mean, ours has none',)
        if backbone['final_norm']:
            unfit += ('behind a norm of all tokens the classifier there takes the first token in place of the mean',)
    notes = _grid_notes(model)
    if head and not unfit and head['norm_eps'] != POOLED_EPS:
        notes += (
            f'the norm behind the mean has epsilon {POOLED_EPS:g} in transformers and {head["norm_eps"]:g} here; '
            'logits differ accordingly, at usual scales in the fifth digit',
        )
    return _Target(
        layout=videomae.HF,
        classes=('VideoMAEForVideoClassification', 'VideoMAEModel'),
        processors={
            'image_processor_type': 'VideoMAEImageProcessor',
            'video_processor_type': 'VideoMAEVideoProcessor',
        },
        config={
            'model_type': 'videomae',
            **_shared(backbone),
            'patch_size': rows if rows == columns else [rows, columns],
            'tubelet_size': backbone['tubelet'],
            'hidden_act': 'gelu',
            'layer_norm_eps': backbone['eps'],
            'qv_bias': True,
            'use_mean_pooling': not backbone['final_norm'],
        },
        refused=('it has no layer scale',) if backbone['layer_scale'] else (),
        unfit=unfit,
        notes=notes,
    )


def _vivit_joint(model: Model) -> _Target:
    backbone, head = model.backbone, model.head or {}
    width = backbone['width']
    unfit = _wrong_head(model, 'linear')
    if head and not unfit and head['norm']:
        unfit += ('the classifier there has no norm of its own',)
    # The model without classifier always has this layer.
    pooler = {'pooler.dense.weight': np.eye(width, dtype=np.float32), 'pooler.dense.bias': np.zeros(width, np.float32)}
    notes = _grid_notes(model)
    if not head or unfit:
        notes += ('VivitModel has a pooler, which is none of ours: pooler_output is the tanh of the CLS token',)
    return _Target(
        layout=vivit.HF,
        classes=('VivitForVideoClassification', 'VivitModel'),
        processors={
            'image_processor_type': 'VivitImageProcessor',
            'video_processor_type': 'VivitVideoProcessor',
        },
        config={
            'model_type': 'vivit',
            **_shared(backbone),
            'tubelet_size': [backbone['tubelet'], *backbone['patch']],
            'hidden_act': 'gelu_fast',
            'layer_norm_eps': 1e-6,
            'qkv_bias': True,
        },
        unfit=unfit,
        fixed=({}, pooler),
        notes=notes,
        offset=True,
    )


def _vjepa2(model: Model) -> _Target:
    backbone, head = model.backbone, model.head or {}
    later = ('rope_interleave', 'rope_interpolate', 'modality', 'image_embedding', 'level_norms')
    refused = tuple(f'it has no {name}, which V-JEPA 2.1 has' for name in later if backbone[name])
    rows, columns = backbone['patch']
    if rows != columns or model.size[0] != model.size[1]:
        refused += (f'it takes squares, and here patches are {rows} x {columns} and the input is {model.size}',)
    unfit = _wrong_head(model, 'attentive')
    notes: tuple[str, ...] = ()
    if head and not unfit:
        if head['heads'] != backbone['heads']:
            unfit = (f'its pooler has the {backbone["heads"]} heads of the encoder, ours has {head["heads"]}',)
        elif head['eps'] != backbone['eps']:
            notes = (f'the norms of the pooler have epsilon {backbone["eps"]:g} there and {head["eps"]:g} here',)
    notes += (
        'the predictor of the pretraining, which transformers always builds and no classifier runs, is written without '
        'layers and with zeros: call the bare model with skip_predictor=True',
    )
    return _Target(
        layout=vjepa2.HF,
        classes=('VJEPA2ForVideoClassification', 'VJEPA2Model'),
        processors={'video_processor_type': 'VJEPA2VideoProcessor'},
        config={
            'model_type': 'vjepa2',
            'hidden_size': backbone['width'],
            'mlp_ratio': _ratio(backbone['mlp'], backbone['width']),
            'num_hidden_layers': backbone['layers'],
            'num_attention_heads': backbone['heads'],
            # Positions there are those of the tokens of one crop_size, whatever the input is.
            'crop_size': model.size[0],
            'frames_per_clip': model.frames,
            'patch_size': rows,
            'tubelet_size': backbone['tubelet'],
            'in_chans': 3,
            'hidden_act': 'gelu',
            'layer_norm_eps': backbone['eps'],
            'qkv_bias': True,
            'num_pooler_layers': head['layers'] if head and not unfit else 0,
            'pred_hidden_size': 1,
            'pred_num_attention_heads': 1,
            'pred_num_hidden_layers': 0,
            'pred_num_mask_tokens': 1,
        },
        refused=refused,
        unfit=unfit,
        fixed=(_predictor(backbone['width'], vjepa2.HF.base), _predictor(backbone['width'], '')),
        notes=notes,
    )


def _predictor(width: int, base: str) -> dict[str, np.ndarray]:
    """The smallest predictor that transformers builds."""
    shapes = {
        'embeddings.predictor_embeddings.weight': (1, width),
        'embeddings.predictor_embeddings.bias': (1,),
        'embeddings.mask_tokens': (1, 1, 1, 1),
        'layernorm.weight': (1,),
        'layernorm.bias': (1,),
        'proj.weight': (width, 1),
        'proj.bias': (width,),
    }
    return {f'{base}predictor.{name}': np.zeros(shape, np.float32) for name, shape in shapes.items()}


def _ratio(hidden: int, width: int) -> float:
    """The number whose product with the width, cut to an integer, is `hidden`."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


_TARGETS: dict[str, Callable[[Model], _Target]] = {
    'videomae': _videomae,
    'vivit_joint': _vivit_joint,
    'vjepa2': _vjepa2,
}
