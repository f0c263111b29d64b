"""The one train step and the one predict step.

Both take a pure `apply(params, batches, *, train, rngs) -> {task: outputs}`, not a module. A batch's keys are
the dispatch: one program is compiled for each set of keys and shapes.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vidloc.tasks import base
from vidloc.train import optimizer as optimizer_lib
from vidloc.train import state as state_lib
from vidloc.train import trainable

Apply = Callable[..., Mapping[str, Any]]
Batches = Mapping[str, base.Batch]
TrainStep = Callable[[state_lib.TrainState, Any, Batches], tuple[state_lib.TrainState, dict[str, Any]]]
PredictStep = Callable[[Any, Any, Batches], dict[str, dict[str, jax.Array]]]


def make_train_step(
    apply: Apply,
    tasks: Mapping[str, base.Task],
    optimizer: optimizer_lib.Optimizer,
    *,
    accumulate: int = 1,
    log_parameter_norm: bool = False,
    log_gradient_norm: bool = True,
    shardings: tuple[Any, Any] | None = None,
) -> TrainStep:
    """train_step(state, frozen, batches) -> (state, metrics), compiled; the old state is donated.

    Minimises the sum over the batch's tasks of scale * sum over `accumulate` micro-batches of loss sum /
    weight, where the weight is taken once from the labels of the whole step: neither accumulation nor devices
    change the update. Micro-batch m is taken at m of the reshape [B / M, M, ...], so no row leaves its
    device. Gradients exist for the trainable leaves of the groups in the batch only.

    metrics: loss [], finite [] bool, rate [], gradient_norm [] (before clipping, over the groups in the batch),
    logs {task: {name: (sum, weight)}} with 'loss' among the names, and parameter_norm [] (of the same groups) if
    asked for. If the loss or the gradient's norm is not finite, finite is False and the state comes back as it
    was, its step included.

    log_gradient_norm: without it and without clipping nothing needs all gradients at once, which may save their size;
    gradient_norm is then not among the metrics, and `finite` speaks of the loss alone.
    accumulate: micro-batches a step, M; must divide every batch size (ValueError while tracing).
    shardings: (those of the state, that of the metrics), from train.sharding; None leaves them to XLA.
    """

    def objective(params: Any, rest: Any, batches: Batches, weights: Any, key: jax.Array) -> tuple[jax.Array, Any]:
        outputs = apply(trainable.merge(params, rest), batches, train=True, rngs={'dropout': key})
        total, logs = jnp.zeros((), jnp.float32), {}
        for name, batch in batches.items():
            loss = tasks[name].loss(outputs[name], batch, train=True)
            total += tasks[name].scale * loss.sum / weights[name]
            logs[name] = {**loss.logs, 'loss': (loss.sum, weights[name] / accumulate)}
        return total, logs

    def train_step(
        state: state_lib.TrainState, frozen: Any, batches: Batches
    ) -> tuple[state_lib.TrainState, dict[str, Any]]:
        _check(batches, tasks, accumulate)
        weights, task_states = {}, dict(state.tasks)
        for name, batch in batches.items():
            weights[name], task_states[name] = tasks[name].weight(batch, state.tasks[name])
        key = jax.random.fold_in(jax.random.key(state.seed), state.step)

        active = optimizer_lib.roots_in_batch(state.params, batches)
        moving = {root: state.params[root] for root in active}
        idle = {root: tree for root, tree in state.params.items() if root not in active}
        rest = trainable.merge(idle, frozen)

        def micro(index: jax.Array) -> tuple[tuple[jax.Array, Any], Any]:
            part = batches if accumulate == 1 else _micro_batch(batches, accumulate, index)
            return jax.value_and_grad(objective, has_aux=True)(
                moving, rest, part, weights, jax.random.fold_in(key, index)
            )

        if accumulate == 1:
            (loss, logs), gradients = micro(jnp.zeros((), jnp.int32))
        else:
            (loss, logs), gradients = _summed(micro, moving, accumulate)

        measured = log_gradient_norm or optimizer.clip is not None
        norm = optimizer_lib.global_norm(gradients) if measured else jnp.zeros((), jnp.float32)
        if optimizer.update_idle_heads:
            gradients = {**gradients, **jax.tree.map(jnp.zeros_like, idle)}
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)

        params, opt, ema = optimizer.update(
            gradients, state.opt, state.params, state.ema, state.step, norm, going=finite
        )
        few = jax.tree.map(
            lambda after, before: jnp.where(finite, after, before),
            {'step': state.step + 1, 'tasks': task_states},
            {'step': state.step, 'tasks': dict(state.tasks)},
        )
        new = state.replace(params=params, opt=opt, ema=ema, **few)
        metrics = {
            'loss': loss,
            'finite': finite,
            'rate': optimizer.schedule(state.step),
            'logs': logs,
        }
        if log_gradient_norm:
            metrics['gradient_norm'] = norm
        if log_parameter_norm:
            metrics['parameter_norm'] = optimizer_lib.global_norm({root: new.params[root] for root in active})
        return new, metrics

    return jax.jit(train_step, donate_argnums=0, out_shardings=shardings)


def make_predict_step(apply: Apply, tasks: Mapping[str, base.Task], *, shardings: Any = None) -> PredictStep:
    """predict_step(params, frozen, batches) -> {task: decoded predictions, arrays [B, K, ...]}, compiled.

    params: the trainable leaves, as they are or averaged (state.weights). shardings: that of the predictions.
    """

    def predict_step(params: Any, frozen: Any, batches: Batches) -> dict[str, dict[str, jax.Array]]:
        _check(batches, tasks, 1)
        outputs = apply(trainable.merge(params, frozen), batches, train=False, rngs={})
        return {name: tasks[name].decode(outputs[name], batch) for name, batch in batches.items()}

    return jax.jit(predict_step, out_shardings=shardings)


def _micro_batch(batches: Batches, count: int, index: jax.Array) -> Batches:
    def take(rows: jax.Array) -> jax.Array:
        split = rows.reshape(rows.shape[0] // count, count, *rows.shape[1:])  # [B / M, M, ...]
        return jax.lax.dynamic_index_in_dim(split, index, axis=1, keepdims=False)  # [B / M, ...]

    return jax.tree.map(take, batches)


def _summed(micro: Callable[[jax.Array], Any], moving: Any, count: int) -> tuple[tuple[jax.Array, Any], Any]:
    """The sum of micro(0) .. micro(count - 1); one gradient is kept, whatever the count."""

    def add(total: Any, index: jax.Array) -> tuple[Any, Any]:
        values, gradients = micro(index)
        return jax.tree.map(jnp.add, total, gradients), values

    zeros = jax.tree.map(jnp.zeros_like, moving)
    gradients, values = jax.lax.scan(add, zeros, jnp.arange(count, dtype=jnp.int32))
    return jax.tree.map(lambda each: jnp.sum(each, axis=0), values), gradients


def _check(batches: Batches, tasks: Mapping[str, base.Task], accumulate: int) -> None:
    if not batches:
        raise ValueError('the step was given no batch')
    for name, batch in batches.items():
        if name not in tasks:
            raise ValueError(f'a batch for task {name!r}, but the tasks are {", ".join(sorted(tasks))}')
        for leaf in jax.tree.leaves(batch):
            if leaf.shape[0] % accumulate:
                raise ValueError(
                    f'task {name!r}: a batch of {leaf.shape[0]} does not split into {accumulate} '
                    'micro-batches: change the batch size or the accumulation'
                )
