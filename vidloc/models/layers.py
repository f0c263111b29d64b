"""The one transformer block, and a stack of them that runs as a scan over stacked parameters.

Parameters of a stack have two forms. Canonical, one entry a layer: `<stack>/block_07/attn/query/kernel`. Run form,
one entry a segment of consecutive layers, stacked along a first axis: `<stack>/blocks_00_11/attn/query/kernel`.
`to_run` and `to_canonical` convert trees on the host; nothing is stacked inside a compiled step.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

Segments = tuple[tuple[int, int], ...]

_SEGMENT = re.compile(r'blocks_(\d+)_(\d+)')
_LAYER = re.compile(r'block_(\d+)')
_REMAT = {
    'full': jax.checkpoint_policies.nothing_saveable,
    'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class Dense(nn.Module):
    """Linear map from the last `len(inputs)` axes to `outputs` axes.

    kernel [*inputs, *outputs] is initialised as the matrix [prod(inputs), prod(outputs)], so that fans are those
    of the matrix product whatever the axes; bias [*outputs].
    dtype: the precision of the product; parameters are float32.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kernel_init: Callable[..., Array] = nn.initializers.xavier_uniform()
    bias_init: Callable[..., Array] = nn.initializers.zeros
    dtype: Any = jnp.float32

    def setup(self):
        matrix = (math.prod(self.inputs), math.prod(self.outputs))
        shape = (*self.inputs, *self.outputs)
        self.kernel = self.param('kernel', lambda key: self.kernel_init(key, matrix).reshape(shape))
        self.bias = self.param('bias', self.bias_init, self.outputs)

    def __call__(self, x: Float[Array, '...']) -> Float[Array, '...']:
        matrix = self.kernel.reshape(math.prod(self.inputs), math.prod(self.outputs)).astype(self.dtype)
        lead = x.shape[: x.ndim - len(self.inputs)]
        # One product of two matrices: a third faster on CPUs than the same product with batch axes.
        x = x.reshape(-1, matrix.shape[0]).astype(self.dtype)
        return (x @ matrix + self.bias.reshape(-1).astype(self.dtype)).reshape(*lead, *self.outputs)


class Attention(nn.Module):
    """Multi-head self-attention with biases (Vaswani et al. 2017, section 3.2); softmax in float32."""

    width: int
    heads: int
    dtype: Any = jnp.float32

    def setup(self):
        if self.width % self.heads:
            raise ValueError(f'width {self.width} cannot be split into {self.heads} heads')
        split = (self.heads, self.width // self.heads)
        self.query = Dense((self.width,), split, dtype=self.dtype)
        self.key = Dense((self.width,), split, dtype=self.dtype)
        self.value = Dense((self.width,), split, dtype=self.dtype)
        self.out = Dense(split, (self.width,), dtype=self.dtype)

    def __call__(self, x: Float[Array, 'M N D'], valid: Bool[Array, 'M N'] | None = None) -> Float[Array, 'M N D']:
        """valid: tokens that may be attended to; all of them if None."""
        query, key, value = (self._by_head(project(x)) for project in (self.query, self.key, self.value))
        scores = jnp.einsum('bqd,bkd->bqk', query * query.shape[-1] ** -0.5, key).astype(jnp.float32)  # [M h, N, N]
        if valid is not None:
            scores = jnp.where(jnp.repeat(valid, self.heads, axis=0)[:, None], scores, jnp.finfo(jnp.float32).min)
        mixed = jnp.einsum('bqk,bkd->bqd', jax.nn.softmax(scores).astype(self.dtype), value)  # [M h, N, D / h]
        mixed = mixed.reshape(len(x), self.heads, -1, mixed.shape[-1]).transpose(0, 2, 1, 3)  # [M, N, h, D / h]
        return self.out(mixed)  # [M, N, D]

    def _by_head(self, x: jax.Array) -> jax.Array:
        """[M, N, h, D / h] -> [M h, N, D / h]: one batch axis makes plain matrix products, faster on CPUs."""
        return x.transpose(0, 2, 1, 3).reshape(-1, x.shape[1], x.shape[3])


class Mlp(nn.Module):
    """Two linear layers around a GELU; `approximate`: the tanh form."""

    width: int
    hidden: int
    dropout: float = 0.0
    approximate: bool = True
    dtype: Any = jnp.float32

    def setup(self):
        bias = nn.initializers.normal(1e-6)
        self.fc1 = Dense((self.width,), (self.hidden,), bias_init=bias, dtype=self.dtype)
        self.fc2 = Dense((self.hidden,), (self.width,), bias_init=bias, dtype=self.dtype)
        self.drop = nn.Dropout(self.dropout)

    def __call__(self, x: Float[Array, 'M N D'], *, train: bool) -> Float[Array, 'M N D']:
        x = jax.nn.gelu(self.fc1(x), approximate=self.approximate)
        return self.fc2(self.drop(x, deterministic=not train))


class Block(nn.Module):
    """Pre-norm transformer block (Dosovitskiy et al. 2021, equations 2 and 3).

    hidden: width inside the MLP.
    dropout: after the attention, inside and after the MLP.
    rescale: divide what drop path keeps by the probability of keeping (timm does, Scenic's ViViT does not).
    gelu_approximate: the tanh form of GELU.
    dtype: of the products and the activations; norms and softmax take their statistics in float32.
    """

    width: int
    hidden: int
    heads: int
    dropout: float = 0.0
    rescale: bool = False
    gelu_approximate: bool = True
    eps: float = 1e-6
    dtype: Any = jnp.float32

    def setup(self):
        self.ln1 = nn.LayerNorm(epsilon=self.eps, dtype=self.dtype)
        self.attn = Attention(self.width, self.heads, self.dtype)
        self.ln2 = nn.LayerNorm(epsilon=self.eps, dtype=self.dtype)
        self.mlp = Mlp(self.width, self.hidden, self.dropout, self.gelu_approximate, self.dtype)
        self.drop = nn.Dropout(self.dropout)

    def __call__(
        self,
        x: Float[Array, 'M N D'],
        *,
        train: bool,
        valid: Bool[Array, 'M N'] | None = None,
        drop_path: Float[Array, ''] | None = None,
        examples: int | None = None,
    ) -> Float[Array, 'M N D']:
        """x: M sequences; valid: tokens that may be attended to.

        drop_path: probability of leaving out a branch, drawn per branch and example; used only in training.
        examples: the sequences are those of so many examples, example by example (None: M); all the sequences of
          an example share their draw.
        """
        branch = self.drop(self.attn(self.ln1(x), valid), deterministic=not train)
        x = x + self._keep(branch, drop_path, examples, train)
        branch = self.drop(self.mlp(self.ln2(x), train=train), deterministic=not train)
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
    """

    block: Block
    layers: int
    segments: Segments = ()
    drop_path: float = 0.0
    remat: str = 'none'
    unroll: int = 1

    def setup(self):
        check_segments(self.segments, self.layers)
        if self.remat != 'none' and self.remat not in _REMAT:
            raise ValueError(f'remat is {self.remat!r}; it must be one of none, {", ".join(_REMAT)}')
        block = self.block.clone(parent=None)
        # One key for all segments: the keys that self.param hands out would depend on the boundaries.
        key = self.make_rng('params') if self.is_initializing() else jax.random.key(0)

        def start(layer: jax.Array) -> Any:
            token = jnp.zeros((1, 1, block.width))
            return block.init(jax.random.fold_in(key, layer), token, train=False)['params']

        self.stacked = {
            f'{first:02d}_{last:02d}': self.param(
                segment_name(first, last),
                lambda _, first=first, last=last: jax.vmap(start)(jnp.arange(first, last + 1)),
            )
            for first, last in self.segments or ((0, self.layers - 1),)
        }

    def run_blocks(
        self,
        x: Float[Array, 'M N D'],
        *,
        train: bool,
        valid: Bool[Array, 'M N'] | None = None,
        examples: int | None = None,
    ) -> Float[Array, 'M N D']:
        """x [M, N, D] through all the layers; the arguments are those of Block."""
        block = self.block.clone(parent=None)
        drop_path = train and self.drop_path > 0
        random = drop_path or (train and block.dropout > 0)
        key = self.make_rng('dropout') if random else None
        rates = self.drop_path * jnp.arange(self.layers) / max(self.layers - 1, 1)  # [L]

        def body(x: jax.Array, layer: tuple[Any, Any, Any]) -> tuple[jax.Array, None]:
            params, layer_key, rate = layer
            x = block.apply(
                {'params': params},
                x,
                train=train,
                valid=valid,
                drop_path=rate,
                examples=examples,
                rngs={'dropout': layer_key} if random else {},
            )
            return x, None

        if self.remat != 'none':
            body = jax.checkpoint(body, policy=_REMAT[self.remat], prevent_cse=False)
        for first, last in self.segments or ((0, self.layers - 1),):
            index = jnp.arange(first, last + 1)
            keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(index) if random else None
            params = self.stacked[f'{first:02d}_{last:02d}']
            scanned = (params, keys, rates[first : last + 1] if drop_path else None)
            x, _ = jax.lax.scan(body, x, scanned, unroll=min(self.unroll, last + 1 - first))
        return x

    def __call__(self, x: Float[Array, 'M N D'], *, train: bool) -> Float[Array, 'M N D']:
        return self.run_blocks(x, train=train)


def check_segments(segments: Segments, layers: int) -> None:
    """Raises ValueError unless the segments cover the layers 0 to layers - 1 in order, each once."""
    covered = [i for first, last in segments for i in range(first, last + 1)]
    if segments and covered != list(range(layers)):
        raise ValueError(f'segments {segments} do not cover the layers 0 to {layers - 1} in order')


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
