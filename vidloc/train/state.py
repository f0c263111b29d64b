"""TrainState: all that changes from step to step, and nothing else."""

from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from vidloc.models import layers
from vidloc.tasks import base
from vidloc.train import optimizer as optimizer_lib


@flax.struct.dataclass
class TrainState:
    """A pytree of arrays; the frozen leaves are a separate tree that the step is given beside it.

    step: [] int32, updates done.
    seed: [] uint32, the root of the step's random keys; in the state, so that one compiled step serves every
    seed.
    params: trainable leaves only, nested dict in run form.
    opt: {group: optax state}, the groups of optimizer.groups.
    ema: like params, or None when no average is kept.
    tasks: {task: what its loss carries from step to step}.
    """

    step: jax.Array
    seed: jax.Array
    params: Any
    opt: Any
    ema: Any
    tasks: Any


def create(
    params: Any,
    optimizer: optimizer_lib.Optimizer,
    tasks: Mapping[str, base.Task],
    *,
    seed: int | jax.Array,
) -> TrainState:
    """The state before the first step; params: trainable leaves. Pure: sharding.initialise compiles it."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        seed=jnp.asarray(seed, jnp.uint32),
        params=params,
        opt=optimizer.init(params),
        ema=jax.tree.map(jnp.copy, params) if optimizer.ema is not None else None,
        tasks={name: jax.tree.map(jnp.asarray, task.init_state()) for name, task in tasks.items()},
    )


def weights(state: TrainState, *, average: bool = True) -> Any:
    """What evaluation uses: the average if one is kept (and wanted), else the parameters."""
    return state.ema if average and state.ema is not None else state.params


def to_form(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Host arrays {name: array} of one run form in the run form of `wanted`: the `convert` of checkpoints.store.

    Serves parameters, optimiser state and EMA alike, because their names end in the parameters' names. Returns the
    wanted leaves that the stored layers can fill; the store names the others.
    """
    canonical: dict[str, Any] = {}
    for name, names in layers.canonical_names(stored).items():
        stacked = names != (name,)
        canonical.update((each, stored[name][i] if stacked else stored[name]) for i, each in enumerate(names))
    found = {}
    for name, names in layers.canonical_names(wanted).items():
        if all(each in canonical for each in names):
            parts = [canonical[each] for each in names]
            if names == (name,):
                found[name] = parts[0]
            elif len({np.shape(part) for part in parts}) == 1:
                found[name] = np.stack(parts)  # [L, ...]
    return found
