"""A classifier that pools tokens by attention: the attentive probe of V-JEPA 2.

Bardes et al. 2024, "V-JEPA", and Assran et al. 2025, "V-JEPA 2"; the parameters are those of facebookresearch/vjepa2,
src/models/attentive_pooler.py, and of Hugging Face's VJEPA2ForVideoClassification.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Bool, Float

from vidloc.models import attention, dense, features, layers
from vidloc.models import lora as lora_lib

# The field `layers` of AttentiveHead hides the module in its annotations.
Segments = Mapping[str, layers.Segments]

MLP_RATIO = 4
STD = 0.02


class CrossAttention(nn.Module):
    """Attention of queries to other tokens, head by head, with no layer behind it."""

    width: int
    heads: int
    dtype: Any
    lora: lora_lib.Lora | None = None

    def setup(self):
        if self.width % self.heads:
            raise ValueError(f'width {self.width} cannot be split into {self.heads} heads')
        split = (self.heads, self.width // self.heads)
        change = {name: self.lora and self.lora.dense(name) for name in ('query', 'key', 'value')}
        self.query = dense.Dense((self.width,), split, dtype=self.dtype, lora=change['query'])
        self.key = dense.Dense((self.width,), split, dtype=self.dtype, lora=change['key'])
        self.value = dense.Dense((self.width,), split, dtype=self.dtype, lora=change['value'])

    def __call__(
        self, query: Float[Array, 'B Q D'], x: Float[Array, 'B N D'], valid: Bool[Array, 'B N'], *, train: bool
    ) -> Float[Array, 'B Q D']:
        """valid: the tokens of x that may be attended to."""
        # A few queries have few scores: no need of a fused kernel, which would not take a single one.
        query_, key, value = self.query(query, train=train), self.key(x, train=train), self.value(x, train=train)
        mixed = attention.attend(query_, key, value, valid)  # [B, Q, h, d]
        return mixed.reshape(query.shape)


class CrossBlock(nn.Module):
    """Queries attend to normed tokens; they themselves are not normed before, only in front of the MLP."""

    width: int
    heads: int
    eps: float
    dtype: Any
    lora: lora_lib.Lora | None = None

    def setup(self):
        self.ln1 = nn.LayerNorm(epsilon=self.eps, dtype=self.dtype)
        self.attn = CrossAttention(self.width, self.heads, self.dtype, self.lora)
        self.ln2 = nn.LayerNorm(epsilon=self.eps, dtype=self.dtype)
        self.mlp = layers.Mlp(self.width, MLP_RATIO * self.width, approximate=False, dtype=self.dtype, lora=self.lora)

    def __call__(
        self, query: Float[Array, 'B Q D'], x: Float[Array, 'B N D'], valid: Bool[Array, 'B N'], *, train: bool
    ) -> Float[Array, 'B Q D']:
        query = query + self.attn(query, self.ln1(x), valid, train=train)
        return query + self.mlp(self.ln2(query), train=train)


class AttentivePooler(nn.Module):
    """Tokens [B, N, D] -> [B, D]: self-attention blocks over all the tokens, then one learned query attends to them.

    The MLPs have 4 times the width, also behind encoders that have another ratio.
    blocks: number of self-attention blocks; 0: none, and no parameters of theirs.
    segments, remat, unroll: see layers.Stack. eps, kernel, dtype: see layers.Block. lora: of all the blocks.
    """

    width: int
    heads: int
    blocks: int
    eps: float = 1e-6
    segments: layers.Segments = ()
    remat: str = 'none'
    unroll: int = 1
    kernel: str = 'xla'
    dtype: Any = jnp.float32
    lora: lora_lib.Lora | None = None

    def setup(self):
        if self.blocks:
            block = layers.Block(
                self.width,
                MLP_RATIO * self.width,
                self.heads,
                gelu_approximate=False,
                eps=self.eps,
                # Tokens may be wider than the backbone's, whose heads the kernel was chosen for.
                kernel=self.kernel if attention.fused(self.width, self.heads, self.dtype) else 'xla',
                dtype=self.dtype,
                parent=None,
            )
            self.self_blocks = layers.Stack(
                block=block,
                layers=self.blocks,
                segments=self.segments,
                remat=self.remat,
                unroll=self.unroll,
                lora=self.lora and self.lora.of_head(self.blocks),
                name='self',
            )
        self.cross = CrossBlock(self.width, self.heads, self.eps, self.dtype, self.lora)
        self.query = self.param('query', nn.initializers.normal(STD), (1, 1, self.width))

    def __call__(self, x: Float[Array, 'B N D'], valid: Bool[Array, 'B N'], *, train: bool) -> Float[Array, 'B D']:
        """valid: the tokens that may be attended to; an example without any gets finite numbers without meaning."""
        x = x.astype(self.dtype)
        if self.blocks:
            x, *_ = self.self_blocks.run_blocks(x, train=train, valid=valid)
        query = jnp.broadcast_to(self.query, (len(x), 1, self.width)).astype(self.dtype)
        pooled = self.cross(query, x, valid, train=train)[:, 0]  # [B, 1, D] -> [B, D]
        if self.is_initializing():
            self._start()
        return pooled

    def _start(self) -> None:
        """Starts the blocks as Hugging Face's VJEPA2PreTrainedModel does; the cross block counts as the last one."""
        key = self.make_rng('params')
        started = {'cross': _start_block(self.variables['params']['cross'], key, self.blocks)}
        if self.blocks:
            stacked = self.variables['params']['self']
            started['self'] = {
                layers.segment_name(first, last): jax.vmap(_start_block, in_axes=(0, None, 0))(
                    stacked[layers.segment_name(first, last)], key, jnp.arange(first, last + 1)
                )
                for first, last in self.segments or ((0, self.blocks - 1),)
            }
        for name, params in started.items():
            self.put_variable('params', name, params)


class AttentiveHead(nn.Module):
    """AttentivePooler over all tokens of a clip -> linear.

    layers: self-attention blocks of the pooler. The public probes have 3 and one cross-attention ("4 blocks").
    eps: 1e-6 as in the files of Hugging Face; the probes of facebookresearch/vjepa2 were trained with 1e-5.
    segments: {'self': ...}, as layers.Stack takes them. Others: see AttentivePooler.
    """

    classes: int
    heads: int
    layers: int = 3
    eps: float = 1e-6
    segments: Segments | None = None
    remat: str = 'none'
    unroll: int = 1
    kernel: str = 'xla'
    dtype: Any = jnp.float32
    lora: lora_lib.Lora | None = None

    def stacks(self) -> dict[str, int]:
        """{name of each stack: its number of layers}."""
        return {'self': self.layers} if self.layers else {}

    @nn.compact
    def __call__(self, encoded: features.Features, batch: Mapping[str, Any], *, train: bool) -> Float[Array, 'B C']:
        """Logits, float32; nothing of `batch` is used."""
        layers.check_stacks(self.segments, self.stacks())
        batch_size, t, h, w, width = encoded.grid.shape
        pooler = AttentivePooler(
            width,
            self.heads,
            self.layers,
            eps=self.eps,
            segments=(self.segments or {}).get('self', ()),
            remat=self.remat,
            unroll=self.unroll,
            kernel=self.kernel,
            dtype=self.dtype,
            lora=self.lora,
            name='pooler',
        )
        tokens = encoded.grid.reshape(batch_size, t * h * w, width)  # [B, N, D]
        x = pooler(tokens, jnp.repeat(encoded.valid, h * w, axis=1), train=train)
        output = dense.Dense((width,), (self.classes,), kernel_init=nn.initializers.normal(STD), name='output')
        return output(x.astype(jnp.float32))


def _start_block(params: Mapping[str, Any], key: jax.Array, index: int | jax.Array) -> Any:
    """The parameters of block `index` at their start: kernels normal, those of `out` and `fc2` / sqrt(index + 1).

    The public code cuts the normal off at +-2, which is a hundred deviations: it is a plain one.
    """
    leaves = traverse_util.flatten_dict(params)
    # LoRA has a start of its own, and does not change that of the others.
    flat = {path: leaf for path, leaf in sorted(leaves.items()) if path[-1] not in lora_lib.LEAVES}
    ends = np.cumsum([leaf.size for leaf in flat.values()])
    # One draw for the whole block: many small ones take seconds to compile.
    drawn = jnp.split(jax.random.normal(jax.random.fold_in(key, index), ends[-1:]), ends[:-1])
    for own, (path, leaf) in zip(drawn, flat.items(), strict=True):
        layer, name = path[-2:]
        if name == 'kernel':
            std = STD / jnp.sqrt(index + 1) if layer in ('out', 'fc2') else STD
            leaves[path] = std * own.reshape(leaf.shape)
        elif name == 'bias':
            leaves[path] = jnp.zeros_like(leaf)
    return traverse_util.unflatten_dict(leaves)
