"""The one transformer block, and a stack of them that runs as a scan over stacked parameters.

Parameters of a stack have two forms. Canonical, one entry a layer: `<stack>/block_07/attn/query/kernel`. Run form,
one entry a segment of consecutive layers, stacked along a first axis: `<stack>/blocks_00_11/attn/query/kernel`.
`to_run` and `to_canonical` convert trees on the host; nothing is stacked inside a compiled step.
"""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vidloc.models import attention, dense
from vidloc.models import film as film_lib
from vidloc.models import lora as lora_lib
from vidloc.models import tap as tap_lib

Segments = tuple[tuple[int, int], ...]

_SEGMENT = re.compile(r'blocks_(\d+)_(\d+)')
_LAYER = re.compile(r'block_(\d+)')
# Checkpointed: their derivative keeps their input, in place of what they compute on the way, which is as large.
NORMS = {'layer': nn.checkpoint(nn.LayerNorm), 'rms': nn.checkpoint(nn.RMSNorm)}
_REMAT = {
    'full': jax.checkpoint_policies.nothing_saveable,
    'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class Mlp(nn.Module):
    """Two linear layers around a GELU; `approximate`: the tanh form. lora: of those that it names."""

    width: int
    hidden: int
    dropout: float = 0.0
    approximate: bool = True
    dtype: Any = jnp.float32
    lora: lora_lib.Lora | None = None

    def setup(self):
        bias = nn.initializers.normal(1e-6)
        change = {name: self.lora and self.lora.dense(name) for name in ('fc1', 'fc2')}
        self.fc1 = dense.Dense((self.width,), (self.hidden,), bias_init=bias, dtype=self.dtype, lora=change['fc1'])
        self.fc2 = dense.Dense((self.hidden,), (self.width,), bias_init=bias, dtype=self.dtype, lora=change['fc2'])
        self.drop = nn.Dropout(self.dropout)

    def __call__(self, x: Float[Array, 'M N D'], *, train: bool) -> Float[Array, 'M N D']:
        # A derivative of its own would keep four arrays of the size of `hidden`.
        gelu = jax.checkpoint(functools.partial(jax.nn.gelu, approximate=self.approximate))
        x = self.drop(gelu(self.fc1(x, train=train)), deterministic=not train)
        return self.fc2(x, train=train)


class Block(nn.Module):
    """Pre-norm transformer block (Dosovitskiy et al. 2021, equations 2 and 3).

    hidden: width inside the MLP.
    dropout: after the attention, inside and after the MLP.
    rescale: divide what drop path keeps by the probability of keeping (timm does, Scenic's ViViT does not).
    gelu_approximate: the tanh form of GELU.
    norm: 'layer' or 'rms' (a scale and no bias, no mean taken off). eps: of all its norms.
    bias, qk_norm, kernel: see attention.Attention.
    layer_scale: 0: none; else each branch is multiplied by a learned vector that starts at this value (CaiT).
    lora: of its dense layers; see lora.Lora.
    dtype: of the products and the activations; norms and softmax take their statistics in float32.
    """

    width: int
    hidden: int
    heads: int
    dropout: float = 0.0
    rescale: bool = False
    gelu_approximate: bool = True
    norm: str = 'layer'
    eps: float = 1e-6
    bias: str = 'full'
    qk_norm: bool = False
    layer_scale: float = 0.0
    kernel: str = 'xla'
    dtype: Any = jnp.float32
    lora: lora_lib.Lora | None = None

    def setup(self):
        if self.norm not in NORMS:
            raise ValueError(f'norm is {self.norm!r}; it must be one of {", ".join(NORMS)}')
        norm = NORMS[self.norm]
        self.ln1 = norm(epsilon=self.eps, dtype=self.dtype)
        self.attn = attention.Attention(
            self.width, self.heads, self.bias, self.qk_norm, self.eps, self.kernel, self.dtype, self.lora
        )
        self.ln2 = norm(epsilon=self.eps, dtype=self.dtype)
        self.mlp = Mlp(self.width, self.hidden, self.dropout, self.gelu_approximate, self.dtype, self.lora)
        self.drop = nn.Dropout(self.dropout)
        if self.layer_scale:
            start = nn.initializers.constant(self.layer_scale)
            self.gamma1 = self.param('gamma1', start, (self.width,))
            self.gamma2 = self.param('gamma2', start, (self.width,))

    def __call__(
        self,
        x: Float[Array, 'M N D'],
        *,
        train: bool,
        valid: Bool[Array, 'M N'] | None = None,
        rope: attention.Rope | None = None,
        drop_path: Float[Array, ''] | None = None,
        examples: int | None = None,
    ) -> Float[Array, 'M N D']:
        """x: M sequences; valid: tokens that may be attended to; rope: see attention.rotate.

        drop_path: probability of leaving out a branch, drawn per branch and example; used only in training.
        examples: the sequences are those of so many examples, example by example (None: M); all the sequences of
          an example share their draw.
        """
        branch = self.drop(self.attn(self.ln1(x), valid, rope, train=train), deterministic=not train)
        branch = branch * self.gamma1.astype(self.dtype) if self.layer_scale else branch
        x = x + self._keep(branch, drop_path, examples, train)
        branch = self.drop(self.mlp(self.ln2(x), train=train), deterministic=not train)
        branch = branch * self.gamma2.astype(self.dtype) if self.layer_scale else branch
        return x + self._keep(branch, drop_path, examples, train)

    def _keep(self, branch: jax.Array, drop_path: jax.Array | None, examples: int | None, train: bool) -> jax.Array:
        if not train or drop_path is None:
            return branch
        sequences = branch.shape[0]
        examples = examples or sequences
        keep = jax.random.bernoulli(self.make_rng('dropout'), 1.0 - drop_path, (examples,))
        scale = keep / jnp.maximum(1.0 - drop_path, 1e-6) if self.rescale else keep
        scale = jnp.repeat(scale.astype(branch.dtype), sequences // examples)  # [examples] -> [M]
        return branch * scale[:, None, None]


class Stack(nn.Module):
    """Blocks one after another: a scan per segment over parameters stacked along the layers.

    block: the template, unbound; every layer is a copy with its own parameters and its own dropout key.
    segments: (first, last) of each run of layers that is stacked together; () means one run of all the layers.
      They change neither the start (layer i is initialised from fold_in(key, i)) nor the result.
    drop_path: rate of the last layer; the rates rise linearly from 0 at the first.
    remat: what the backward pass computes again: 'none', 'full' (all but the input of each block) or 'dots' (all
      but the matrix products without batch axes).
    unroll: layers written out in each turn of the scan: faster on CPUs for short stacks, slower to compile for long.
    lora: of the blocks, with the first and last layer of this stack that have it; segments must part there.
    """

    block: Block
    layers: int
    lora: lora_lib.Lora | None = None
    segments: Segments = ()
    drop_path: float = 0.0
    remat: str = 'none'
    unroll: int = 1

    def setup(self):
        check_segments(self.segments, self.layers)
        if self.remat != 'none' and self.remat not in _REMAT:
            raise ValueError(f'remat is {self.remat!r}; it must be one of none, {", ".join(_REMAT)}')
        # One key for all segments: the keys that self.param hands out would depend on the boundaries.
        key = self.make_rng('params') if self.is_initializing() else jax.random.key(0)

        def start(first: int, last: int) -> Any:
            block, token = self._block(first, last), jnp.zeros((1, 1, self.block.width))

            def layer(index: jax.Array) -> Any:
                return block.init(jax.random.fold_in(key, index), token, train=False)['params']

            return jax.vmap(layer)(jnp.arange(first, last + 1))

        self.stacked = {
            segment_name(*segment): self.param(segment_name(*segment), lambda _, segment=segment: start(*segment))
            for segment in self._segments()
        }

    def _segments(self) -> Segments:
        return self.segments or (self.lora.runs(self.layers) if self.lora else ((0, self.layers - 1),))

    def _block(self, first: int, last: int) -> Block:
        """The block of the layers first to last, unbound."""
        changed = self.lora is not None and self.lora.touches(first, last)
        return self.block.clone(parent=None, lora=self.lora if changed else None)

    def run_blocks(
        self,
        x: Float[Array, 'M N D'],
        *,
        train: bool,
        valid: Bool[Array, 'M N'] | None = None,
        rope: attention.Rope | None = None,
        examples: int | None = None,
        taps: tuple[int, ...] = (),
        tap: tap_lib.Tap | None = None,
        film: film_lib.Copies | None = None,
    ) -> tuple[Float[Array, '_ N D'], tuple[Float[Array, 'M N D'], ...], Array | None]:
        """x through all the layers -> (their result, what each of the layers `taps` gave, in that order, and what `tap`
        made of its layers, stacked [K, ...]).

        film: behind its layer there are M (1 + N) sequences, of as many times the examples. Segments that `tap` takes
        whole, or not at all, and that end where `film` has its layer, are not copied. The other arguments are those of
        Block. Raises ValueError for a tap or a layer of `film` that does not exist, and for taps beside `film`.
        """
        if wrong := [i for i in (*taps, *(tap.layers if tap else ())) if not 0 <= i < self.layers]:
            raise ValueError(f'taps {wrong}: the layers are 0 to {self.layers - 1}')
        if film and not 0 <= film.after < self.layers:
            raise ValueError(f'film behind layer {film.after}: the layers are 0 to {self.layers - 1}')
        if film and (taps or tap):
            raise ValueError('layers cannot be tapped where features are augmented: there are more behind than before')
        examples = examples or len(x)
        drop_path = train and self.drop_path > 0
        random = train and (self.drop_path > 0 or self.block.dropout > 0 or bool(self.lora and self.lora.dropout))
        key = self.make_rng('dropout') if random else None
        rates = self.drop_path * jnp.arange(self.layers) / max(self.layers - 1, 1)  # [L]
        # Where each layer's result goes: the place of its tap, or the last place, which nobody reads.
        kept = sorted(set(taps))
        places = jnp.asarray([kept.index(i) if i in kept else len(kept) for i in range(self.layers)])

        x = x.astype(self.block.dtype)
        carry = (x, jnp.zeros((len(kept) + 1, *x.shape), x.dtype) if kept else None)
        reduced = []
        for segment in self._segments():
            stacked = self.stacked[segment_name(*segment)]
            for first, last, tapped in _parts(segment, tap, film):
                run = self._runner(self._block(*segment), valid, rope, examples, train=train, random=random)

                def body(carry: tuple[jax.Array, jax.Array | None], layer: tuple[Any, ...]) -> tuple[Any, Any]:
                    x, tapped = carry
                    params, layer_key, rate, place, reduction = layer
                    x = run(x, params, layer_key, rate)  # noqa: B023
                    if kept:
                        tapped = jax.lax.dynamic_update_index_in_dim(tapped, x, place, 0)
                    return (x, tapped), None if reduction is None else tap(reduction, x)

                index = jnp.arange(first, last + 1)
                keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(index) if random else None
                low, high = first - segment[0], last + 1 - segment[0]
                params = stacked if (first, last) == segment else jax.tree.map(lambda x: x[low:high], stacked)  # noqa: B023
                rate = rates[first : last + 1] if drop_path else None
                reduction = tap.between(first, last).params if tapped else None
                scanned = (params, keys, rate, places[first : last + 1], reduction)
                carry, found = jax.lax.scan(body, carry, scanned, unroll=self._unroll(last + 1 - first))
                reduced += [found] if tapped else []
                if film and last == film.after:
                    carry = (film.augment(carry[0], examples), None)
                    valid = None if valid is None else film.repeat(valid, examples)
                    examples *= 1 + film.count
        x, tapped = carry
        return x, tuple(tapped[kept.index(i)] for i in taps), tap_lib.joined(reduced)

    def _runner(
        self,
        block: Block,
        valid: jax.Array | None,
        rope: attention.Rope | None,
        examples: int,
        *,
        train: bool,
        random: bool,
    ) -> Callable[..., jax.Array]:
        """(x, parameters of a layer, its key, its rate of drop path) -> x behind it."""

        def run(x: jax.Array, params: Any, layer_key: jax.Array | None, rate: jax.Array | None) -> jax.Array:
            return block.apply(
                {'params': params},
                x,
                train=train,
                valid=valid,
                rope=rope,
                drop_path=rate,
                examples=examples,
                rngs={'dropout': layer_key} if random else {},
            )

        if self.remat == 'none':
            return run
        # Only the block: what holds the taps would otherwise be kept once a layer.
        return jax.checkpoint(run, policy=_REMAT[self.remat], prevent_cse=False)

    def _unroll(self, count: int) -> int:
        """Layers of a segment of `count` that are written out in each turn.

        With remat there are two turns or more: without a loop XLA finds the work of the forward pass in the backward
        one, and keeps its result in place of computing it again.
        """
        return min(self.unroll, count if self.remat == 'none' else max(1, count // 2))

    def __call__(self, x: Float[Array, 'M N D'], *, train: bool) -> Float[Array, 'M N D']:
        return self.run_blocks(x, train=train)[0]


def _parts(
    segment: tuple[int, int], tap: tap_lib.Tap | None, film: film_lib.Copies | None
) -> list[tuple[int, int, bool]]:
    """(first, last, tapped or not) of the layers of a segment that run in one scan, in order."""
    if tap:
        return tap.runs(*segment)
    first, last = segment
    if film and first <= film.after < last:
        return [(first, film.after, False), (film.after + 1, last, False)]
    return [(first, last, False)]


def check_segments(segments: Segments, layers: int) -> None:
    """Raises ValueError unless the segments cover the layers 0 to layers - 1 in order, each once."""
    covered = [i for first, last in segments for i in range(first, last + 1)]
    if segments and covered != list(range(layers)):
        raise ValueError(f'segments {segments} do not cover the layers 0 to {layers - 1} in order')


def check_stacks(segments: Mapping[str, Segments] | None, stacks: Mapping[str, int]) -> None:
    """Raises ValueError if segments are given for a stack that is none of `stacks` {name: its number of layers}."""
    if unknown := sorted(set(segments or ()) - set(stacks)):
        raise ValueError(f'segments for {", ".join(unknown)}: the stacks are {", ".join(stacks) or "none"}')


def segment_name(first: int, last: int) -> str:
    """The run-form name of the layers first to last."""
    return f'blocks_{first:02d}_{last:02d}'


def to_canonical(run: Mapping[str, Any]) -> dict[str, Any]:
    """A tree in run form -> one entry a layer. Leaves: arrays (copied to the host) or jax.ShapeDtypeStruct."""
    tree: dict[str, Any] = {}
    for name, value in run.items():
        match = _SEGMENT.fullmatch(name)
        if match:
            first, last = int(match[1]), int(match[2])
            stacked = jax.tree.map(lambda x: _check_layers(_host(x), first, last), value)  # noqa: B023
            for i in range(first, last + 1):
                tree[f'block_{i:02d}'] = jax.tree.map(lambda x, i=i, first=first: _take(x, i - first), stacked)
        else:
            tree[name] = to_canonical(value) if isinstance(value, Mapping) else value
    return tree


def to_run(canonical: Mapping[str, Any], segments: Mapping[str, Segments]) -> dict[str, Any]:
    """A tree with one entry a layer -> run form. Leaves as in to_canonical; layers are stacked on the host.

    segments: {path of a stack, such as 'backbone/spatial': its segments}; a stack that is not named is one segment.
    Raises ValueError if a path has no layers, if segments do not cover them, or layers of a segment differ.
    """
    unused = set(segments)
    tree = _to_run(canonical, segments, '', unused)
    if unused:
        raise ValueError(f'no layers (block_00, ...) are found under {", ".join(sorted(unused))}')
    return tree


def canonical_names(run: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """{run-form name of a leaf: its canonical names}; as many as layers for a stacked leaf, in order, else one."""
    names = {}
    for path, _ in jax.tree_util.tree_flatten_with_path(run)[0]:
        name = '/'.join(str(part.key) for part in path)
        match = _SEGMENT.search(name)
        layers = range(int(match[1]), int(match[2]) + 1) if match else ()
        names[name] = tuple(_SEGMENT.sub(f'block_{i:02d}', name) for i in layers) or (name,)
    return names


def _to_run(canonical: Any, segments: Mapping[str, Segments], path: str, unused: set[str]) -> Any:
    if not isinstance(canonical, Mapping):
        return canonical
    tree = {}
    layers = {int(match[1]): name for name in canonical if (match := _LAYER.fullmatch(name))}
    for name, value in canonical.items():
        if name not in layers.values():
            tree[name] = _to_run(value, segments, f'{path}/{name}' if path else name, unused)
    if not layers:
        return tree
    unused.discard(path)
    if sorted(layers) != list(range(len(layers))):
        raise ValueError(f'{path}: layers {sorted(layers)} are not 0 to {len(layers) - 1}')
    runs = segments[path] if segments.get(path) else ((0, len(layers) - 1),)
    check_segments(runs, len(layers))
    for first, last in runs:
        parts = [canonical[layers[i]] for i in range(first, last + 1)]
        if len({jax.tree.structure(part) for part in parts}) > 1:
            raise ValueError(f'{path}: the layers {first} to {last} do not have the same parameters')
        tree[segment_name(first, last)] = jax.tree.map(_stack, *parts)
    return tree


def _host(leaf: Any) -> Any:
    return leaf if isinstance(leaf, jax.ShapeDtypeStruct) else np.asarray(leaf)


def _check_layers(leaf: Any, first: int, last: int) -> Any:
    if leaf.shape[:1] != (last - first + 1,):
        raise ValueError(f'a leaf of {segment_name(first, last)} has shape {leaf.shape}: its first axis is wrong')
    return leaf


def _take(leaf: Any, index: int) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
    return leaf[index]


def _stack(*leaves: Any) -> Any:
    if isinstance(leaves[0], jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct((len(leaves), *leaves[0].shape), leaves[0].dtype)
    return np.stack([np.asarray(leaf) for leaf in leaves])
