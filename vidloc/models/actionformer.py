"""ActionFormer: a pyramid over time, each point of which says what action it is in, and where that begins and ends.

Zhang, Wu and Li 2022, "ActionFormer: Localizing Moments of Actions with Transformers";
happyharrycn/actionformer_release, libs/modeling. Convolutions read what stands in the padding and only their
results are masked: behind a norm and a ReLU the padding is not zero, and positions next to it see that, as there.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vidloc.models import attention, dense, features, layers, local_attention, positions, temporal_conv
from vidloc.ops import points

EPS = 1e-5
NECKS = ('identity', 'fpn')


@flax.struct.dataclass
class Outputs:
    """What the network says of every point of every level, the finest level first (see ops/points.py).

    logits: [B, P, C] float32. distances: [B, P, 2] float32, from the point to the start and to the end of its segment,
    not below 0, in strides of its level. valid: [B, P] bool; logits and distances of the others mean nothing.
    """

    logits: jax.Array
    distances: jax.Array
    valid: jax.Array


def _norm(dtype: Any) -> nn.Module:
    return layers.NORMS['layer'](epsilon=EPS, dtype=dtype)


def _mask(x: jax.Array, valid: jax.Array) -> jax.Array:
    return x * valid[..., None].astype(x.dtype)


class ConvAttention(nn.Module):
    """Attention whose queries, keys and values come from depthwise convolutions, with every stride-th result.

    window: positions that a query sees, itself in their middle (2 * (window // 2) + 1); up to 1: all of them.
    relative: a learned number for each head and distance is added to the scores; not with attention to all.
    """

    width: int
    heads: int
    window: int
    stride: int = 1
    relative: bool = False
    dropout: float = 0.0
    dtype: Any = jnp.float32

    def setup(self):
        def conv() -> nn.Module:
            return temporal_conv.DepthwiseConv(self.width, self.stride, dtype=self.dtype)

        def linear(inputs: tuple[int, ...], outputs: tuple[int, ...]) -> nn.Module:
            return dense.Dense(inputs, outputs, kernel_init=temporal_conv.START, dtype=self.dtype)

        wide = (self.width,)
        self.query_conv, self.key_conv, self.value_conv = conv(), conv(), conv()
        self.query_norm, self.key_norm, self.value_norm = (_norm(self.dtype) for _ in range(3))
        self.query, self.key, self.value, self.out = (linear(wide, wide) for _ in range(4))
        self.drop = nn.Dropout(self.dropout)
        if self.relative and self.window > 1:
            start = nn.initializers.truncated_normal(math.sqrt(2 / self.width))
            self.position = self.param('position', start, (1, 1, self.heads, self.window))

    def __call__(self, x: Float[Array, 'B T D'], valid: Bool[Array, 'B t'], *, train: bool) -> Float[Array, 'B t D']:
        """valid: of the results, T / stride of them. Results that are not valid are 0."""
        query = self.query(self.query_norm(_mask(self.query_conv(x), valid)))
        key = self.key(self.key_norm(_mask(self.key_conv(x), valid)))
        value = self.value(self.value_norm(_mask(self.value_conv(x), valid)))
        shape = (*query.shape[:2], self.heads, self.width // self.heads)
        query, key, value = (each.reshape(shape) for each in (query, key, value))  # [B, t, D] -> [B, t, h, d]
        if self.window > 1:
            position = self.position if self.relative else None
            x = local_attention.attend(query, key, value, valid, self.window, position)
        else:
            x = attention.attend(query, key, value, valid)
        x = self.out(x.reshape(*x.shape[:2], self.width))  # [B, t, h, d] -> [B, t, D]
        return _mask(self.drop(x, deterministic=not train), valid)


class Mlp(nn.Module):
    """Two linear layers around a GELU, in its exact form."""

    width: int
    hidden: int
    dropout: float = 0.0
    dtype: Any = jnp.float32

    def setup(self):
        start = temporal_conv.START
        self.fc1 = dense.Dense((self.width,), (self.hidden,), kernel_init=start, dtype=self.dtype)
        self.fc2 = dense.Dense((self.hidden,), (self.width,), kernel_init=start, dtype=self.dtype)
        self.drop = nn.Dropout(self.dropout)

    def __call__(self, x: Float[Array, 'B T D'], *, train: bool) -> Float[Array, 'B T D']:
        gelu = jax.checkpoint(lambda x: jax.nn.gelu(x, approximate=False))
        x = self.drop(gelu(self.fc1(x)), deterministic=not train)
        return self.drop(self.fc2(x), deterministic=not train)


class Block(nn.Module):
    """Pre-norm transformer block over time; with stride 2 it halves the length.

    layer_scale: 0: none; else each branch is multiplied by a learned vector that starts at this value.
    drop_path: probability that a branch is left out, drawn for each branch and example, in training; what is kept is
      divided by the probability of keeping.
    """

    width: int
    heads: int
    window: int
    stride: int = 1
    relative: bool = False
    layer_scale: float = 0.0
    drop_path: float = 0.0
    dropout: float = 0.0
    dtype: Any = jnp.float32

    def setup(self):
        self.ln1, self.ln2 = _norm(self.dtype), _norm(self.dtype)
        self.attn = ConvAttention(
            self.width, self.heads, self.window, self.stride, self.relative, self.dropout, self.dtype
        )
        self.mlp = Mlp(self.width, 4 * self.width, self.dropout, self.dtype)
        # One draw for a whole example.
        self.skip = nn.Dropout(self.drop_path, broadcast_dims=(1, 2))
        if self.layer_scale:
            start = nn.initializers.constant(self.layer_scale)
            self.gamma1 = self.param('gamma1', start, (self.width,))
            self.gamma2 = self.param('gamma2', start, (self.width,))

    def __call__(self, x: Float[Array, 'B T D'], valid: Bool[Array, 'B t'], *, train: bool) -> Float[Array, 'B t D']:
        """valid: of the results, T / stride of them. Results that are not valid are 0."""
        branch = self.attn(self.ln1(x), valid, train=train)
        branch = branch * self.gamma1.astype(self.dtype) if self.layer_scale else branch
        # The maximum takes padding inside the sequence for what it is: zeros.
        x = x if self.stride == 1 else temporal_conv.halve_by_maximum(x)  # [B, T, D] -> [B, t, D]
        x = _mask(x, valid) + self.skip(branch, deterministic=not train)
        branch = _mask(self.mlp(self.ln2(x), train=train), valid)
        branch = branch * self.gamma2.astype(self.dtype) if self.layer_scale else branch
        return x + self.skip(branch, deterministic=not train)


class Convs(nn.Module):
    """Convolutions along time, the results of each masked, normed and put through a ReLU.

    with_norm: without norms the convolutions have a bias.
    outputs: channels of one more convolution, `output`, with a bias and without norm and ReLU; 0: there is none.
    bias_start: the start of that bias. dtype: of all but `output`, which is float32.
    """

    inputs: int
    width: int
    layers: int
    kernel: int
    with_norm: bool = True
    outputs: int = 0
    bias_start: float = 0.0
    dtype: Any = jnp.float32

    def setup(self):
        widths = [self.inputs, *[self.width] * self.layers]
        self.conv = [
            temporal_conv.TemporalConv(widths[i], self.width, self.kernel, not self.with_norm, dtype=self.dtype)
            for i in range(self.layers)
        ]
        if self.with_norm:
            self.norm = [_norm(self.dtype) for _ in range(self.layers)]
        if self.outputs:
            # In float32 whatever `dtype` is: rounded scores would tie, and rounded distances be off by whole points.
            self.output = temporal_conv.TemporalConv(widths[-1], self.outputs, self.kernel, True, self.bias_start)

    def __call__(
        self, x: Float[Array, 'B T C'], valid: Bool[Array, 'B T'], inside: Bool[np.ndarray, ' T'] | None = None
    ) -> Float[Array, 'B T D']:
        """inside: places of the sequence; the others are beyond its ends, where convolutions find zeros.

        Results that are not valid are 0 behind `output`, and else what norm and ReLU make of 0.
        """
        for i, conv in enumerate(self.conv):
            x = _mask(conv(x), valid)
            x = nn.relu(self.norm[i](x) if self.with_norm else x)
            x = x if inside is None else x * inside[:, None].astype(x.dtype)
        return _mask(self.output(x), valid) if self.outputs else x


class ScaledConvs(Convs):
    """Convs, whose last results are multiplied by a learned number of their level, `scale` [levels]."""

    levels: int = 1

    def setup(self):
        super().setup()
        self.scale = self.param('scale', nn.initializers.ones, (self.levels,))

    def __call__(
        self, x: Float[Array, 'B T C'], valid: Bool[Array, 'B T'], level: Int[np.ndarray, ' T']
    ) -> Float[Array, 'B T D']:
        """level: of each place, -1 beyond the ends; see Convs."""
        x = super().__call__(x, valid, level >= 0)
        return x * self.scale[np.maximum(level, 0), None].astype(x.dtype)


class Neck(nn.Module):
    """A norm for each level, whose results are not masked.

    kind: 'identity': nothing else. 'fpn': a linear layer in front, coarse levels repeated and added to the finer ones,
      then a depthwise convolution (Lin et al. 2017, in one dimension).
    """

    width: int
    levels: int
    kind: str = 'identity'
    dtype: Any = jnp.float32

    def setup(self):
        if self.kind not in NECKS:
            raise ValueError(f'neck is {self.kind!r}; it must be one of {", ".join(NECKS)}')
        self.norm = [_norm(self.dtype) for _ in range(self.levels)]
        if self.kind == 'fpn':
            wide, start = (self.width,), temporal_conv.START
            self.lateral = [
                dense.Dense(wide, wide, kernel_init=start, use_bias=False, dtype=self.dtype) for _ in range(self.levels)
            ]
            self.conv = [temporal_conv.DepthwiseConv(self.width, dtype=self.dtype) for _ in range(self.levels)]

    def __call__(self, pyramid: list[jax.Array], valid: list[jax.Array]) -> list[jax.Array]:
        """[B, T / 2**i, D] and [B, T / 2**i] of each level i -> [B, T / 2**i, D] of each."""
        if self.kind == 'fpn':
            merged = [_mask(linear(x), mask) for linear, x, mask in zip(self.lateral, pyramid, valid, strict=True)]
            for i in range(self.levels - 1, 0, -1):
                merged[i - 1] = merged[i - 1] + jnp.repeat(merged[i], 2, axis=1)  # [B, t, D] -> [B, 2 t, D]
            pyramid = [_mask(conv(x), mask) for conv, x, mask in zip(self.conv, merged, valid, strict=True)]
        return [norm(x) for norm, x in zip(self.norm, pyramid, strict=True)]


class ActionFormer(nn.Module):
    """The head: features over time -> Outputs.

    classes, inputs: classes and width of the features.
    width, heads: of the transformer. stem: its blocks on the finest level; the block of each other level halves the
      length. embed_layers, kernel: convolutions in front, and their length. embed_norm: without norms they have a bias.
    windows: places that a place attends to, itself in their middle; up to 1: all. One for all levels, or one each.
    ranges: the least and largest distance to an end of a segment that a level is for, grid units, `levels` of them.
    positions: sines and cosines of the place are added behind the first convolutions. Sequences longer than
      `max_length` have theirs stretched, and are refused in training. Unused without positions.
    relative: a learned number for each head and distance is added to the scores of attention to neighbours.
    neck: 'identity' or 'fpn', see Neck. head_layers: convolutions of each of the two heads, the last one included.
    layer_scale, drop_path: see Block. dropout: behind the attention, inside and behind the MLP.
    prior: probability of each class that the last bias starts at.
    dtype: of products and activations; norms and softmax take their statistics in float32.
    """

    classes: int
    inputs: int
    width: int = 512
    heads: int = 4
    stem: int = 2
    levels: int = 6
    windows: tuple[int, ...] = (19,)
    ranges: points.Ranges = ((0, 4), (4, 8), (8, 16), (16, 32), (32, 64), (64, 10000))
    embed_layers: int = 2
    embed_norm: bool = True
    head_layers: int = 3
    kernel: int = 3
    positions: bool = False
    relative: bool = False
    max_length: int = 2304
    neck: str = 'identity'
    layer_scale: float = 1e-4
    drop_path: float = 0.1
    dropout: float = 0.0
    prior: float = 0.01
    dtype: Any = jnp.float32

    def __call__(self, encoded: features.Features, batch: Mapping[str, Any], *, train: bool) -> Outputs:
        """For batch['grid_valid'] [B, G]: the mean of the features over space, at G places in time.

        Features at another number t of places are interpolated linearly, each standing for the same share of the time.
        What is not valid counts as 0. Raises ValueError as `run` does.
        """
        valid = batch['grid_valid']
        x = jnp.mean(encoded.grid.astype(jnp.float32), axis=(2, 3))  # [B, t, h, w, D] -> [B, t, D]
        if x.shape[1] != valid.shape[1]:
            x = jax.image.resize(x, (len(x), valid.shape[1], x.shape[2]), 'linear', antialias=False)  # [B, G, D]
        return self.run(jnp.where(valid[..., None], x, 0.0), valid, train=train)

    @nn.compact
    def run(self, x: Float[Array, 'B T C'], valid: Bool[Array, 'B T'], *, train: bool) -> Outputs:
        """x: 0 where not valid. Raises ValueError for fields or a length that do not fit, see points.check_length."""
        windows = self._windows()
        points.check_length(x.shape[1], windows)
        if x.shape[2] != self.inputs:
            raise ValueError(f'the head is built for features of width {self.inputs}, these have {x.shape[2]}')
        valids = [valid[:, :: 2**level] for level in range(self.levels)]  # [B, T / 2**level] each
        embed = functools.partial(Convs, self.inputs, self.width, self.embed_layers, self.kernel, self.embed_norm)
        x = embed(dtype=self.dtype, name='embed')(x, valid)  # [B, T, D]
        if self.positions:
            x = x + _mask(jnp.asarray(self._places(x.shape[1], train), x.dtype), valid)
        block = functools.partial(
            Block,
            self.width,
            self.heads,
            relative=self.relative,
            layer_scale=self.layer_scale,
            drop_path=self.drop_path,
            dropout=self.dropout,
            dtype=self.dtype,
        )
        for i in range(self.stem):
            x = block(window=windows[0], name=f'stem_{i}')(x, valid, train=train)
        pyramid = [x]
        for i in range(self.levels - 1):
            x = block(window=windows[i + 1], stride=2, name=f'branch_{i}')(x, valids[i + 1], train=train)
            pyramid.append(x)  # [B, T / 2**(i + 1), D]
        pyramid = Neck(self.width, self.levels, self.neck, self.dtype, name='neck')(pyramid, valids)

        # The two heads see all levels as one sequence, with zeros between them: fewer and larger products.
        gap = self.kernel // 2
        level = np.concatenate([np.repeat([i, -1], [each.shape[1], gap]) for i, each in enumerate(pyramid)])  # [P']
        x = jnp.concatenate([jnp.pad(each, ((0, 0), (0, gap), (0, 0))) for each in pyramid], axis=1)  # [B, P', D]
        shown = jnp.concatenate([jnp.pad(each, ((0, 0), (0, gap))) for each in valids], axis=1)  # [B, P']
        shape = {'inputs': self.width, 'width': self.width, 'layers': self.head_layers - 1, 'kernel': self.kernel}
        likely = math.log(self.prior / (1 - self.prior))
        classify = Convs(**shape, outputs=self.classes, bias_start=likely, dtype=self.dtype, name='classify')
        regress = ScaledConvs(**shape, outputs=2, levels=self.levels, dtype=self.dtype, name='regress')
        outputs = classify(x, shown, level >= 0), nn.relu(regress(x, shown, level))
        starts = np.cumsum([0] + [each.shape[1] + gap for each in pyramid])
        logits, distances = (
            jnp.concatenate(
                [each[:, at : at + part.shape[1]] for at, part in zip(starts, pyramid, strict=False)], axis=1
            ).astype(jnp.float32)
            for each in outputs
        )
        return Outputs(logits, distances, jnp.concatenate(valids, axis=1))

    def _windows(self) -> tuple[int, ...]:
        """The window of each level. Raises ValueError for fields that do not fit together."""
        if self.width % self.heads:
            raise ValueError(f'width {self.width} cannot be split into {self.heads} heads')
        if len(self.ranges) != self.levels:
            raise ValueError(f'{len(self.ranges)} ranges for {self.levels} levels; give one each')
        if len(self.windows) not in (1, self.levels):
            raise ValueError(f'{len(self.windows)} windows for {self.levels} levels; give 1 or one each')
        windows = self.windows if len(self.windows) == self.levels else self.windows * self.levels
        if self.relative and (even := [window for window in windows if window > 1 and window % 2 == 0]):
            raise ValueError(f'windows {even} are even; relative positions need odd ones')
        if self.head_layers < 1:
            raise ValueError(f'head_layers is {self.head_layers}; a head has one layer or more')
        return windows

    def _places(self, length: int, train: bool) -> np.ndarray:
        """[1, length, D], as flat_sincos, divided by the root of the width."""
        if train and length > self.max_length:
            raise ValueError(f'{length} places in training, but max_length is {self.max_length}')
        table = positions.flat_sincos(max(self.max_length, 1), self.width)
        if length > self.max_length:
            table = positions.resample(table, (self.max_length, 1, 1), (length, 1, 1))
        return table[None, :length] / math.sqrt(self.width)
