"""Optimisers: rules as data, one optax state per group, the rate outside of the chain.

A group is the body (every root that is not a head: backbone, adapters) or one head, `heads_<task>`. Each
keeps its own moments and its own count, because a head that is not in the batch must not move: a zero
gradient would still move it through momentum and decay. The rate is a function of the global step, so all
groups follow one schedule; bias correction follows the group's own count.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

BODY = 'body'
_HEADS = 'heads_'
_KINDS = ('cosine', 'linear', 'constant')


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The learning rate as a pure function of the global step (0 for the first update).

    Over the first `warmup` steps the rate climbs linearly, reaching `rate` at the last of them; from there to
    step `total` it follows `kind` down to `end` (half a cosine, or a line), or stays. Linear warm-up and
    cosine decay are the schedule of Arnab et al. 2022, section 4.1.

    warmup_from_zero: the climb starts at 0, and reaches `rate` at the last step of the warm-up, as it does otherwise;
    so the first update changes nothing (happyharrycn/actionformer_release, libs/utils/lr_schedulers.py).
    """

    rate: float
    total: int
    warmup: int = 0
    kind: str = 'cosine'
    end: float = 0.0
    warmup_from_zero: bool = False

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f'schedule kind {self.kind!r} is not one of {", ".join(_KINDS)}')
        if not 0 <= self.warmup <= self.total or self.total < 1:
            raise ValueError(f'schedule needs 0 <= warmup <= total and total >= 1, got {self.warmup} and {self.total}')

    def __call__(self, step: jax.Array | int) -> jax.Array:
        """[] float32; safe inside jit."""
        step = jnp.asarray(step, jnp.float32)
        done = jnp.clip((step - self.warmup) / max(self.total - self.warmup, 1), 0.0, 1.0)
        left = {'cosine': 0.5 * (1.0 + jnp.cos(jnp.pi * done)), 'linear': 1.0 - done, 'constant': 1.0}[self.kind]
        if self.warmup_from_zero and self.warmup:
            climb = jnp.minimum(step / max(self.warmup - 1, 1), 1.0)
        else:
            climb = jnp.minimum((step + 1.0) / max(self.warmup, 1), 1.0)
        return jnp.asarray(climb * (self.end + (self.rate - self.end) * left), jnp.float32)


@dataclasses.dataclass(frozen=True)
class SGD:
    """Momentum SGD; weight_decay is the classic L2 form: added to the gradient, momentum carries it."""

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0

    def chain(self, decay: Any) -> optax.GradientTransformation:
        """Updates before rate and sign; decay: tree of masks like the parameters."""
        momentum = _momentum(self.momentum, self.nesterov) if self.momentum else optax.identity()
        return optax.chain(_add_decay(self.weight_decay, decay), momentum)


@dataclasses.dataclass(frozen=True)
class AdamW:
    """Adam with decoupled decay (Loshchilov and Hutter 2019): decay follows the rate, not the moments."""

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0

    def chain(self, decay: Any) -> optax.GradientTransformation:
        """Updates before rate and sign; decay: tree of masks like the parameters."""
        return optax.chain(_adam(self.b1, self.b2, self.eps), _add_decay(self.weight_decay, decay))


def _weights(decay: float, going: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(what stays of an average, what is added to it), [] float32 each: (1, 0) in a step that is refused."""
    return jnp.where(going, decay, 1.0), jnp.where(going, 1.0 - decay, 0.0)


def _momentum(decay: float, nesterov: bool) -> optax.GradientTransformationExtraArgs:
    """optax.trace, whose state stays as it is where `going` is False.

    Choosing between an old and a new state would keep both in memory; factors of 1 and 0 do not.
    """

    def update(updates: Any, state: optax.TraceState, params: Any = None, *, going: jax.Array) -> tuple[Any, Any]:
        del params
        keep, _ = _weights(decay, going)
        add = jnp.where(going, 1.0, 0.0)
        trace = jax.tree.map(lambda g, m: add * g + keep * m, updates, state.trace)
        if nesterov:
            return jax.tree.map(lambda g, m: g + decay * m, updates, trace), optax.TraceState(trace)
        return trace, optax.TraceState(trace)

    return optax.GradientTransformationExtraArgs(optax.trace(decay, nesterov).init, update)


def _adam(b1: float, b2: float, eps: float) -> optax.GradientTransformationExtraArgs:
    """optax.scale_by_adam, whose state stays as it is where `going` is False; see _momentum."""

    def update(updates: Any, state: optax.ScaleByAdamState, params: Any = None, *, going: jax.Array) -> tuple[Any, Any]:
        del params
        (keep1, add1), (keep2, add2) = _weights(b1, going), _weights(b2, going)
        mu = jax.tree.map(lambda g, m: add1 * g + keep1 * m, updates, state.mu)
        nu = jax.tree.map(lambda g, v: add2 * g**2 + keep2 * v, updates, state.nu)
        count = optax.safe_increment(state.count)
        first, second = 1.0 - b1**count, 1.0 - b2**count
        scaled = jax.tree.map(lambda m, v: (m / first) / (jnp.sqrt(v / second) + eps), mu, nu)
        return scaled, optax.ScaleByAdamState(jnp.where(going, count, state.count), mu, nu)

    return optax.GradientTransformationExtraArgs(optax.scale_by_adam(b1, b2, eps).init, update)


def _add_decay(weight_decay: float, decay: Any) -> optax.GradientTransformation:
    """u + weight_decay * mask * p; the mask may be a vector over a stacked leaf's layers."""
    if not weight_decay:
        return optax.identity()
    return optax.stateless(
        lambda updates, params: jax.tree.map(
            lambda u, p, mask: u + weight_decay * np.asarray(mask, np.float32) * p, updates, params, decay
        )
    )


def group_of(root: str) -> str:
    """The group of a root of the parameter tree: heads stand alone, all else is the body."""
    return root if root.startswith(_HEADS) else BODY


def groups(tree: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """{group: {root: subtree}} of a tree of parameters (or of anything with its roots)."""
    found: dict[str, dict[str, Any]] = {}
    for root in sorted(tree):
        found.setdefault(group_of(root), {})[root] = tree[root]
    return found


def roots_in_batch(tree: Mapping[str, Any], tasks: Collection[str]) -> tuple[str, ...]:
    """The roots that a batch with these tasks trains: the body's and those tasks' heads."""
    wanted = {BODY} | {_HEADS + task for task in tasks}
    return tuple(root for root in sorted(tree) if group_of(root) in wanted)


def global_norm(tree: Any) -> jax.Array:
    """The Euclidean norm over all leaves, [] float32 (float32 also for leaves of fewer bits)."""
    squares = [jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(sum(squares, jnp.zeros((), jnp.float32)))


@dataclasses.dataclass(frozen=True, eq=False)
class Optimizer:
    """Settings plus the freezing table's verdict; pure, holds no state.

    rates, decay: trees like the trainable leaves (trainable.Partition): a rate multiplier (float, or [L, 1,
    ...] on a
        stacked leaf) and a decay mask (bool, or the same shape).
    clip: the global gradient norm is scaled down to this; taken over the groups in the batch.
    ema: decay of the moving average of the parameters; None keeps none. It moves only for groups in the
    batch.
    update_idle_heads: heads that are not in the batch get a zero gradient in place of no update.
    """

    rule: SGD | AdamW
    schedule: Schedule
    rates: Any
    decay: Any
    clip: float | None = None
    ema: float | None = None
    update_idle_heads: bool = False

    def init(self, params: Any) -> dict[str, Any]:
        """{group: optax state}; params: the trainable leaves."""
        decay = groups(self.decay)
        return {group: self.rule.chain(decay[group]).init(tree) for group, tree in groups(params).items()}

    def update(
        self,
        gradients: Any,
        opt: Mapping[str, Any],
        params: Any,
        ema: Any,
        step: jax.Array,
        norm: jax.Array,
        going: jax.Array | bool = True,
    ) -> tuple[Any, dict[str, Any], Any]:
        """(params, opt, ema) after one update of the groups whose roots `gradients` holds; the others pass
        untouched.

        norm: the global norm of `gradients`, which the caller has at hand. going: where it is False, everything stays
        as it is, bit for bit, whatever the gradients are.
        """
        factor = jnp.ones((), jnp.float32)
        if self.clip is not None:
            factor = jnp.minimum(1.0, self.clip / jnp.maximum(norm, 1e-12))
        # What is not finite must not meet a factor of 0.
        factor = jnp.where(going, factor, 0.0)
        gradients = jax.tree.map(lambda g: jnp.where(going, g, 0) * factor.astype(g.dtype), gradients)
        rate = jnp.where(going, self.schedule(step), 0.0)
        params, opt, ema = dict(params), dict(opt), None if ema is None else dict(ema)
        decay, rates = groups(self.decay), groups(self.rates)
        for group, gradient in groups(gradients).items():
            old = {root: params[root] for root in gradient}
            updates, opt[group] = self.rule.chain(decay[group]).update(gradient, opt[group], old, going=going)
            new = jax.tree.map(
                lambda p, u, scale: (p - rate * np.asarray(scale, np.float32) * u).astype(p.dtype),
                old,
                updates,
                rates[group],
            )
            params.update(new)
            if ema is not None:
                keep, add = _weights(self.ema, going)
                kept = {root: ema[root] for root in gradient}
                ema.update(jax.tree.map(lambda a, p: (keep * a + add * p).astype(a.dtype), kept, new))  # noqa: B023
        return params, opt, ema
