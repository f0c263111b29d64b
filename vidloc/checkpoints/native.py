"""The model that a weight file is of: its modules, and the shapes of its parameters without computing anything."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from vidloc.checkpoints import families, key_maps
from vidloc.checkpoints.leaves import Shape
from vidloc.checkpoints.readers.weights import Weights
from vidloc.models import (
    actionformer,
    attentive_pooler,
    classification_head,
    features,
    internvideo2,
    layers,
    projector_head,
    videomae,
    vivit,
    vivit_joint,
    vjepa2,
)

# Those of build.py that published weights are of; build.py imports this package, so they cannot be taken from there.
BACKBONES: dict[str, type[nn.Module]] = {
    'vivit': vivit.ViViT,
    'vivit_joint': vivit_joint.JointViViT,
    'videomae': videomae.VideoMAE,
    'vjepa2': vjepa2.VJepa2,
    'internvideo2': internvideo2.InternVideo2,
}
HEADS: dict[str, type[nn.Module]] = {
    'linear': classification_head.ClassificationHead,
    'attentive': attentive_pooler.AttentiveHead,
    'projector': projector_head.ProjectorHead,
    'actionformer': actionformer.ActionFormer,
}


class SizeError(ValueError):
    """Sizes or segments that no module has; the text says which."""


def make_modules(
    backbone: Mapping[str, Any] | None, head: Mapping[str, Any] | None, segments: Mapping[str, layers.Segments]
) -> dict[str, nn.Module]:
    """{'backbone': module, 'head': module}, those that are given as {'kind': ..., fields}.

    segments: {path of a stack, such as 'backbone/encoder' or 'head/pooler/self': its segments}.
    Raises SizeError for kinds, fields and roots that do not exist.
    """
    split: dict[str, dict[str, layers.Segments]] = {'backbone': {}, 'head': {}}
    for path, runs in segments.items():
        root, _, stack = path.partition('/')
        if root not in split:
            raise SizeError(f'segments for {path!r}: stacks are under {" and ".join(split)}')
        split[root][stack.removeprefix('pooler/')] = tuple(tuple(run) for run in runs)
    made = {}
    for root, values, kinds in (('backbone', backbone, BACKBONES), ('head', head, HEADS)):
        if values is None:
            continue
        if values.get('kind') not in kinds:
            raise SizeError(f'{root}: there is no kind {values.get("kind")!r}; it must be one of {", ".join(kinds)}')
        given = {name: plain(value) for name, value in values.items() if name != 'kind'}
        try:
            made[root] = kinds[values['kind']](**given, **({'segments': split[root]} if split[root] else {}))
        except TypeError as error:
            raise SizeError(f'{root} {dict(values)}: {error}') from error
    return made


def plain(value: Any) -> Any:
    """Lists, as JSON has them, to tuples, as modules need them."""
    return tuple(plain(inner) for inner in value) if isinstance(value, list | tuple) else value


def abstract_params(modules: Mapping[str, nn.Module], width: int = 1) -> dict[str, Any]:
    """{'backbone': ..., 'head': ...}: the parameters in run form as jax.ShapeDtypeStruct.

    width: of the tokens that a head gets, where there is no backbone. Raises SizeError for sizes that do not fit.
    """
    try:
        return jax.eval_shape(lambda: _start(modules, width))
    except (ValueError, TypeError) as error:
        raise SizeError(f'the sizes do not make a model: {error}') from error


def own_shapes(backbone: Mapping[str, Any] | None, head: Mapping[str, Any] | None, width: int = 1) -> dict[str, Shape]:
    """{canonical name: shape} of the model of these sizes; see make_modules and abstract_params."""
    given = (
        None if part is None else tuple(sorted((name, plain(each)) for name, each in part.items()))
        for part in (backbone, head)
    )
    return dict(_own_shapes(*given, width))


@functools.lru_cache(maxsize=16)
def _own_shapes(backbone: tuple | None, head: tuple | None, width: int) -> dict[str, Shape]:
    modules = make_modules(*(None if part is None else dict(part) for part in (backbone, head)), {})
    return canonical_shapes(abstract_params(modules, width))


def canonical_shapes(abstract: Mapping[str, Any]) -> dict[str, Shape]:
    """{canonical name: shape} of parameters in run form."""
    flat = traverse_util.flatten_dict(layers.to_canonical(abstract), sep='/')
    return {name: tuple(leaf.shape) for name, leaf in flat.items()}


def head_width(weights: Weights, found: families.Found) -> int:
    """Width of the tokens that the head of a file takes: its `inputs`, else by its classifier; 1 without either."""
    if found.head is not None and 'inputs' in found.head:
        return found.head['inputs']
    for rule in found.layout.bind('head/output/kernel'):
        if rule.source in found.names:
            return key_maps.natural_shape(rule, weights.entries[found.names[rule.source]].shape)[0]
    return 1


def start(modules: Mapping[str, nn.Module], width: int, names: Sequence[str]) -> dict[str, np.ndarray]:
    """{run-form name: array} of a new model's parameters; only these are computed."""

    def make() -> dict[str, jax.Array]:
        flat = traverse_util.flatten_dict(_start(modules, width), sep='/')
        return {name: flat[name] for name in names}

    return {name: np.asarray(array) for name, array in jax.jit(make)().items()}


def _start(modules: Mapping[str, nn.Module], width: int) -> dict[str, Any]:
    key = jax.random.key(0)
    params: dict[str, Any] = {}
    encoded = features.Features(jnp.zeros((1, 1, 1, 1, width)), jnp.ones((1, 1), bool))
    if 'backbone' in modules:
        module = modules['backbone']
        video = jnp.zeros((1, module.tubelet, *module.patch, 3))  # one token
        valid = jnp.ones(video.shape[:2], bool)
        encoded, variables = module.init_with_output(key, video, valid, train=False)
        params['backbone'] = variables['params']
    if 'head' in modules:
        params['head'] = modules['head'].init(key, encoded, _batch(modules['head']), train=False)['params']
    return params


def _batch(head: nn.Module) -> dict[str, jax.Array]:
    """What a head reads of a batch, as short as it can be."""
    if isinstance(head, actionformer.ActionFormer):
        return {'grid_valid': jnp.ones((1, head.max_length), bool)}
    return {}
