"""Adapters of a config: LoRA, augmentation inside the backbone, what stands beside it, where layers part for them."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import ml_collections
from flax import traverse_util

from vidloc import config as config_lib
from vidloc.config import ConfigError, Part
from vidloc.models import clip_loop, localizer, lora
from vidloc.models import film as film_lib

LORA = Part(lora.Lora)


def change(config: ml_collections.ConfigDict) -> lora.Lora | None:
    """The LoRA of a config, None if it has none."""
    made = config_lib.make(LORA, config.lora)
    return made if made.rank else None


def film(
    part: Part | None,
    config: ml_collections.ConfigDict,
    backbone: nn.Module,
    beside: nn.Module | None,
    without: Sequence[str],
) -> nn.Module | None:
    """The augmentation, behind a layer counted from the first; part: of its kind, None for none.

    beside: the side adapter. without: tasks whose loss does not take augmented features. Raises ConfigError where it
    would mean nothing.
    """
    if part is None:
        return None
    if without:
        raise ConfigError(f'film: task {without[0]!r} has no loss for augmented features; set film.kind="none"')
    if not backbone.stacks() or config.clips.frames or beside is not None:
        raise ConfigError(
            'film needs a backbone that sees a whole video and nothing beside it: no stored features, no clips.frames, '
            "side.kind='none'"
        )
    made = config_lib.make(part, config.film, width=backbone.width)
    film_lib.check(made)
    depth = sum(backbone.stacks().values())
    if made.after >= depth:
        raise ConfigError(f'film.after is {made.after}; the layers are 0 to {depth - 1}')
    if made.teacher == 'unadapted' and backbone.lora is None:
        raise ConfigError("film.teacher='unadapted' is the backbone without its LoRA, and it has none; set lora.rank")
    if made.after >= 0:
        return made
    if backbone.lora is None or backbone.lora.span(depth)[0] == 0:
        raise ConfigError(
            'film.after: there is no layer in front of the first with LoRA; name the layer behind which features are '
            f'augmented, from 0 to {depth - 1}'
        )
    return made.clone(after=backbone.lora.span(depth)[0] - 1)


def side(
    part: Part | None, config: ml_collections.ConfigDict, backbone: nn.Module, loop: clip_loop.Clips, dtype: Any
) -> nn.Module | None:
    """The adapter beside the backbone; part: of its kind, None for none.

    Raises ConfigError where it would mean nothing.
    """
    if part is None:
        return None
    chosen = config.side
    if not backbone.stacks():  # It has run already.
        depth, tokens = backbone.layers, backbone.tokens
        if chosen.spatial != 'pool':
            raise ConfigError(
                f"side.spatial is {chosen.spatial!r}, which works on whole maps; features hold each layer's mean over "
                "space: set side.spatial='pool'"
            )
    elif loop.frames % backbone.tubelet or not loop.frames:
        raise ConfigError(
            f'side={chosen.kind!r} needs clips.frames, a multiple of the tubelet ({backbone.tubelet}); '
            f'it is {loop.frames}'
        )
    else:
        depth, tokens = sum(backbone.stacks().values()), loop.frames // backbone.tubelet
    if depth < 2:
        raise ConfigError(f'side={chosen.kind!r} needs a backbone of several layers; backbone.layers is {depth}')
    known = {'width': backbone.width, 'depth': depth, 'tokens': tokens, 'dtype': dtype, 'memory': loop.memory}
    return config_lib.make(part, chosen, **known)


def parted(model: localizer.Localizer) -> dict[str, Any]:
    """The segments that keep apart layers that an adapter taps or changes, or behind which features are augmented, and
    those of which that is not so."""
    changed = model.backbone.lora if hasattr(model.backbone, 'lora') else None
    if model.side is None and model.film is None and changed is None:
        return {}
    depth = sum(model.backbone.stacks().values())
    tapped = model.side.tapped() if model.side is not None else ()
    low, high = changed.span(depth) if changed is not None else (depth, depth)
    last = model.film.after if model.film is not None else depth
    marks = [(layer in tapped, low <= layer <= high, layer <= last) for layer in range(depth)]
    segments, first = {}, 0
    for name, count in model.backbone.stacks().items():
        runs = [list(run) for _, run in itertools.groupby(range(count), key=lambda layer: marks[first + layer])]
        segments[f'backbone/{name}'] = tuple((run[0], run[-1]) for run in runs)
        first += count
    return segments


def check(config: ml_collections.ConfigDict, params: Any) -> None:
    """Raises ConfigError if there is nothing that LoRA would be on."""
    if config.lora.rank and not any(path[-1] in lora.LEAVES for path in traverse_util.flatten_dict(params)):
        where, names = (config_lib.plain(config.lora[field]) for field in ('where', 'on'))
        raise ConfigError(f'lora.where={where}: none of it has blocks with {names}')


def trace(model: localizer.Localizer, params: Any, batches: Mapping[str, Any]) -> None:
    """Traces a pass in training: what a backbone cannot do with augmented features is said now."""

    def run(params: Any, batches: Mapping[str, Any]) -> None:
        model.apply({'params': params}, batches, train=True, rngs={'dropout': jax.random.key(0)})

    jax.eval_shape(run, params, batches)
