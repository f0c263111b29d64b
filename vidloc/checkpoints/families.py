"""Which family of models a weight file is of, in which layout, and every size of the model, from the file itself."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vidloc.checkpoints import actionformer, containers, key_maps, preprocessing
from vidloc.checkpoints import overrides as overrides_lib
from vidloc.checkpoints.containers import FamilyError
from vidloc.checkpoints.layouts import vjepa2
from vidloc.checkpoints.preprocessing import Preprocessing
from vidloc.checkpoints.sheet import Sheet
from vidloc.models import sizes

if TYPE_CHECKING:
    from vidloc.checkpoints.readers.weights import Weights

__all__ = ['FamilyError', 'Found', 'Preprocessing', 'recognise']

STACKS = {'vivit': 'backbone/spatial', 'image_vit': 'backbone/encoder'}
# fc_norm and the probes were made with torch's own epsilon, whatever the blocks have.
TORCH_EPS = 1e-5


@dataclasses.dataclass(frozen=True)
class Found:
    """What `recognise` read.

    family: 'vjepa2', 'videomae', 'vivit', 'vivit_joint', 'internvideo2', 'image_vit' or 'actionformer'.
    prefix: what was taken off the backbone's names (container and wrappers, such as 'target_encoder/module.backbone.').
    names: {name in the layout: name of the entry in the file}, of the chosen container; entries that are no value here
      belong to other containers of the file (other copies of the weights, optimiser state).
    backbone: {'kind': ..., every size of its module}; None in a file of a head alone. 'image_vit' is no module: its
      parameters, canonical under `backbone/encoder`, start those of 'vivit' and 'vivit_joint'; the sizes are those of a
      module over one frame, and `cls` says whether the positions have a place for a CLS token.
    head: {'kind': 'linear' | 'attentive' | 'projector' | 'actionformer', its fields, 'classes': n}; None in a file
      without. labels: the names of the classes; None if the file has none or placeholders.
    preprocessing: None in a file of a head over features, which sees no pixels.
    notes: choices that were made for the user, one sentence each.
    guessed: fields of the head that nothing in or beside the file tells, taken from a published recipe.
    """

    family: str
    layout: key_maps.Layout
    prefix: str
    names: dict[str, str]
    backbone: dict[str, Any] | None
    head: dict[str, Any] | None
    labels: tuple[str, ...] | None
    preprocessing: Preprocessing | None
    notes: tuple[str, ...] = ()
    guessed: tuple[str, ...] = ()


def recognise(weights: 'Weights', *, which: str = '', overrides: Mapping[str, Any] | None = None) -> Found:
    """weights -> the family, the layout and the sizes; no array is read.

    which: the container to read when the file has several ('encoder' instead of 'target_encoder', 'classifiers/3').
    overrides: what the weights and the files beside them do not tell, or tell wrong: any of overrides.NAMES, as in
      {'heads': 16, 'grid': (16, 14, 14)}; a grid is (t, h, w) tokens, a size (height, width) pixels.
    Raises FamilyError: what was looked for, and what is missing; ReadError for settings beside the file that cannot be
    read. Layers of which nothing is there are an error here; single arrays that are missing or have other shapes are
    left to the import, which lists all of them.
    """
    overrides = overrides_lib.checked(overrides or {})
    place = containers.find(weights, which=which)
    if place.layout.family == actionformer.FAMILY:
        place = actionformer.of_its_levels(place, weights.path)
        read = actionformer.head_of(Sheet(weights, place, overrides))
        return Found(
            actionformer.FAMILY,
            place.layout,
            place.prefix,
            place.names,
            backbone=None,
            head=read.head,
            labels=None,
            preprocessing=None,
            notes=read.notes,
            guessed=read.guessed,
        )
    sheet = Sheet(weights, place, overrides)
    notes = list(sheet.notes)
    if place.others:
        notes.append(f'the file has further models, behind {", ".join(map(repr, place.others[:8]))}')
    backbone = head = None
    if sheet.has('backbone/embedding/kernel'):
        backbone, more = _backbone(sheet)
        notes += more
    else:
        notes.append('the file has a head and no backbone; the backbone comes from another file')
    head, more = _head(sheet, backbone)
    notes += more
    prepared, more = _preprocessing(sheet, backbone)
    notes += more
    labels, more = _labels(sheet, head)
    notes += more
    return Found(
        place.layout.family, place.layout, place.prefix, place.names, backbone, head, labels, prepared, tuple(notes)
    )


def _backbone(sheet: Sheet) -> tuple[dict[str, Any], list[str]]:
    filters = sheet.layout.filter_axes
    *tubelet, rows, columns, colours, width = sheet.shape('backbone/embedding/kernel', filters)
    if colours != 3:
        raise FamilyError(f'{sheet.path}: the model takes {colours} colour channels; vidloc has 3')
    stack = STACKS.get(sheet.family, 'backbone/encoder')
    layers = sheet.layers(stack)
    sheet.expect('hidden_size', width, 'channels')
    _, mlp = sheet.shape(sheet.somewhere(f'{stack}/block_{{i}}/mlp/fc1/kernel', layers), 2)
    query = sheet.somewhere(f'{stack}/block_{{i}}/attn/query/kernel', layers)
    # Kernels of flax have the heads as an axis, matrices of torch do not.
    flax = any(rule.form == 'same' for rule in sheet.layout.bind(query))
    heads = sheet.shape(query, 3)[1] if flax else sheet.heads(width, layers)
    fields = {
        'kind': sheet.family,
        'width': width,
        'mlp': mlp,
        'heads': heads,
        'patch': (rows, columns),
        'tubelet': tubelet[0] if tubelet else 1,
    }
    make = {
        'vjepa2': _vjepa2,
        'videomae': _videomae,
        'vivit': _vivit,
        'vivit_joint': _joint,
        'internvideo2': _joint,
        'image_vit': _image,
    }
    more, notes = make[sheet.family](sheet, fields, layers)
    return fields | more, notes


def _vjepa2(sheet: Sheet, fields: dict[str, Any], layers: int) -> tuple[dict[str, Any], list[str]]:
    notes = []
    if 'pos_embed' in sheet.place.names:
        notes.append(
            'the file has a table of positions, which V-JEPA 2 does not use; V-JEPA (1) does, and its files have the '
            'same names: if this is one, the features are wrong'
        )
    flags = {}
    if sheet.layout is vjepa2.OFFICIAL_2_1:
        flags = sizes.VJEPA2_1 | {
            'modality': sheet.has('backbone/video_modality') or sheet.has('backbone/image_modality'),
            'image_embedding': sheet.has('backbone/image_embedding/kernel'),
        }
    return {'layers': layers, 'eps': _eps(sheet, 1e-6), **flags}, notes


def _videomae(sheet: Sheet, fields: dict[str, Any], layers: int) -> tuple[dict[str, Any], list[str]]:
    hub = bool(sheet.layout.base)
    more = {'layers': layers, 'eps': _eps(sheet, 1e-12 if hub else 1e-6)}
    more['final_norm'] = sheet.has('backbone/norm/scale')
    if sheet.beside is not None and sheet.beside.get('use_mean_pooling') == more['final_norm']:
        there = 'a' if more['final_norm'] else 'no'
        raise FamilyError(
            f'{sheet.path}: the weights have {there} norm behind the last layer, config.json beside them says '
            f'use_mean_pooling: {more["final_norm"]}; they do not belong together, or the file is incomplete'
        )
    if sheet.has(sheet.somewhere('backbone/encoder/block_{i}/gamma1', layers)):
        # The weights replace it; only whether it is 0 counts.
        more['layer_scale'] = 0.1
    frames, (height, width) = 16, (224, 224)
    if sheet.beside is not None:
        prepared, _ = preprocessing.read(preprocessing.FAMILIES['videomae'], sheet.beside, None, sheet.path)
        frames, (height, width) = prepared.frames, prepared.size
    rows, columns = fields['patch']
    grid = sheet.overrides.get('grid', (frames // fields['tubelet'], height // rows, width // columns))
    more['grid'] = _checked_grid(sheet, grid)
    notes = []
    if sheet.beside is None and 'grid' not in sheet.overrides:
        notes.append(f'the positions of VideoMAE are not in its files: {more["grid"]}, as it was published')
    return more, notes


def _vivit(sheet: Sheet, fields: dict[str, Any], layers: int) -> tuple[dict[str, Any], list[str]]:
    cls = sheet.has('backbone/spatial/cls')
    _, places, _ = sheet.shape('backbone/spatial/position', 3)
    _, times, _ = sheet.shape('backbone/temporal/position', 3)
    temporal = sheet.layers('backbone/temporal')
    grid, notes = _grid(sheet, (times - cls) * (places - cls), times - cls)
    more = {'spatial_layers': layers, 'temporal_layers': temporal, 'cls': cls, 'grid': grid, 'temporal_on': 'rois'}
    return more, notes


def _joint(sheet: Sheet, fields: dict[str, Any], layers: int) -> tuple[dict[str, Any], list[str]]:
    _, tokens, _ = sheet.shape('backbone/encoder/position', 3)
    rows, columns = fields['patch']
    times = None
    if 'pos_embed_temporal' in sheet.place.names:
        times = sheet.weights.entries[sheet.place.names['pos_embed_temporal']].shape[1]
    elif sheet.beside is not None:
        prepared, _ = preprocessing.read(preprocessing.FAMILIES[sheet.family], sheet.beside, None, sheet.path)
        times = prepared.frames // fields['tubelet']
    elif (tokens - 1) % ((224 // rows) * (224 // columns)) == 0:
        times = (tokens - 1) // ((224 // rows) * (224 // columns))
    grid, notes = _grid(sheet, tokens - 1, times)
    return {'layers': layers, 'grid': grid}, notes


def _image(sheet: Sheet, fields: dict[str, Any], layers: int) -> tuple[dict[str, Any], list[str]]:
    _, tokens, _ = sheet.shape('backbone/encoder/position', 3)
    notes = []
    # big_vision adds the positions before it puts the CLS token in front.
    cls = sheet.has('backbone/encoder/cls') and 'pos_embedding' not in sheet.place.names
    if sheet.has('backbone/encoder/cls') and not cls:
        notes.append('the CLS token of these weights has no position')
    grid, more = _grid(sheet, tokens - cls, 1)
    return {'layers': layers, 'grid': grid, 'cls': cls}, notes + more


def _grid(sheet: Sheet, tokens: int, times: int | None) -> tuple[tuple[int, int, int], list[str]]:
    """(t, h, w) of so many tokens: from overrides, else `times` squares."""
    if 'grid' in sheet.overrides:
        grid = _checked_grid(sheet, sheet.overrides['grid'])
        if math.prod(grid) != tokens:
            raise FamilyError(
                f'{sheet.path}: the weights have {tokens} positions, the grid {grid} has {math.prod(grid)}'
            )
        return grid, []
    side = math.isqrt(tokens // times) if times else 0
    if not times or not tokens or times * side * side != tokens:
        raise FamilyError(
            f'{sheet.path}: {tokens} positions can be laid out in time, height and width in several ways. Say which: '
            f'{overrides_lib.example("grid", (16, 14, 14))}'
        )
    return (times, side, side), []


def _checked_grid(sheet: Sheet, grid: Any) -> tuple[int, int, int]:
    grid = tuple(grid) if isinstance(grid, list | tuple) else ()
    if len(grid) != 3 or not all(isinstance(side, int) and side > 0 for side in grid):
        raise FamilyError(f'{sheet.path}: a grid is (times, rows, columns) of tokens, each at least 1, not {grid}')
    return grid


def _eps(sheet: Sheet, default: float) -> float:
    eps = sheet.beside.get('layer_norm_eps') if sheet.beside is not None else None
    if eps is None:
        return default
    if isinstance(eps, bool) or not isinstance(eps, int | float) or not 0 < eps < 1:
        raise FamilyError(f'{sheet.path}: config.json says layer_norm_eps: {eps!r}; it must lie between 0 and 1')
    return float(eps)


def _head(sheet: Sheet, backbone: dict[str, Any] | None) -> tuple[dict[str, Any] | None, list[str]]:
    if not sheet.has('head/output/kernel') and not sheet.has('head/output/bias'):
        return None, []
    _, classes = sheet.shape('head/output/kernel', 2)
    if sheet.has('head/pooler/query'):
        width = sheet.shape('head/pooler/query', 3)[2]
        heads = backbone['heads'] if backbone else sheet.heads(width, None)
        eps = backbone['eps'] if backbone else TORCH_EPS
        layers = sheet.layers('head/pooler/self')
        sheet.expect('num_pooler_layers', layers, 'self-attention layers in the pooler')
        return {'kind': 'attentive', 'heads': heads, 'layers': layers, 'eps': eps, 'classes': classes}, []
    if sheet.family == 'internvideo2':
        _, embed = sheet.shape('head/pool/out/kernel', 2)
        return {'kind': 'projector', 'embed': embed, 'classes': classes}, []
    if sheet.family == 'videomae':
        normed = sheet.has('head/norm/scale')
        if backbone['final_norm'] and not normed:
            return None, [
                'the classifier of this file reads the first token, as VideoMAE does without mean pooling; vidloc has '
                'no such head, and it is left out'
            ]
        eps = TORCH_EPS if sheet.layout.base else backbone['eps']
        return {'kind': 'linear', 'norm': normed, 'norm_eps': eps, 'classes': classes}, []
    return {'kind': 'linear', 'classes': classes}, []


def _preprocessing(sheet: Sheet, backbone: dict[str, Any] | None) -> tuple[Preprocessing, tuple[str, ...]]:
    base = preprocessing.FAMILIES[sheet.family]
    if backbone is not None and 'grid' in backbone:
        times, rows, columns = backbone['grid']
        size = (rows * backbone['patch'][0], columns * backbone['patch'][1])
        base = dataclasses.replace(base, size=size, frames=times * backbone['tubelet'])
    elif backbone is not None and backbone.get('level_norms'):
        base = dataclasses.replace(base, size=(384, 384))
    prepared, notes = preprocessing.read(base, sheet.beside, sheet.weights.preprocessor, sheet.path)
    chosen = {
        key: sheet.overrides[key] for key in ('size', 'frames', 'stride', 'mean', 'std') if key in sheet.overrides
    }
    return preprocessing.overridden(prepared, chosen), notes


def _labels(sheet: Sheet, head: dict[str, Any] | None) -> tuple[tuple[str, ...] | None, list[str]]:
    given = sheet.beside.get('id2label') if sheet.beside is not None else None
    if head is None or not isinstance(given, Mapping) or not given:
        return None, []
    try:
        labels = {int(key): str(value) for key, value in given.items()}
    except ValueError:
        return None, ['the names of the classes in config.json are not numbered, and are not used']
    if sorted(labels) != list(range(head['classes'])):
        return None, [
            f'config.json names {len(labels)} classes, the head has {head["classes"]}: the names are not used'
        ]
    if all(re.fullmatch(r'LABEL_\d+', label) for label in labels.values()):
        return None, []
    return tuple(labels[i] for i in sorted(labels)), []
