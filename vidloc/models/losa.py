"""LoSA: adapters beside a frozen backbone, from every layer to its last one, over a clip and over the whole video.

Gupta et al. 2024, "LoSA: Long-Short-range Adapter for Scaling End-to-End Temporal Action Localization". There is no
public code; docs/losa.md lists what the paper leaves open, what is chosen here, and the field for the other reading.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vidloc.models import layer_adapters, spatial_reduction
from vidloc.models import layers as layers_lib

# What a field may be.
CHOICES = {
    'fusion': ('project', 'add'),
    'gating': (*layer_adapters.GATES, 'cosine', 'none'),
    'short_keys': ('video', 'clip'),
    'positions': ('none', 'sincos'),
    'spatial': ('conv', 'pool'),
    'conv': ('shared', 'own'),
    'up': ('layer', 'none'),
    'memory': ('remat_clips', 'remat_adapters', 'store'),
}

# Part of the parameters -> what its names have in them; the first that fits counts.
_PARTS = {
    'norms': r'(^|/|_)norm/',
    'convolution': r'(^|/)conv/',
    'depthwise': r'(^|/)depthwise/',
    'attention': r'(^|/)attention/',
    'time': r'(^|/)time/',
    'up': r'(^|/)up/',
    'projection': r'(^|/)projection/',
    'gates': r'(^|/)gate$',
}


class Stage(NamedTuple):
    """Neighbouring layers whose maps are alike: how many layers, their width, their time tokens in one clip."""

    layers: int
    width: int
    tokens: int


class _Taps(NamedTuple):
    """What is taken from one stage: the scope of its parameters ('' of the only one), adapted layers, and whether its
    last layer is the backbone's, which is reduced and not adapted."""

    scope: str
    stage: Stage
    adapted: tuple[int, ...]
    last: bool

    @property
    def layers(self) -> int:
        return len(self.adapted) + self.last


class LoSA(nn.Module):
    """Reduced features of the layers, and the last layer's own features -> features for a head over time.

    width, depth, tokens: channels of the backbone, its layers, and its time tokens in one clip.
    adapter_width: channels inside the adapters. heads: of their attention.
    layers: those with adapters, from 0; () all but the last one, which cannot have any.
    short, long: which adapters there are. The sum over a kind that is left out is 0; the projection stays.
    fusion: 'project': a linear layer over [short sum + F, long sum + F], F being the last layer's features; it starts
      as the mean of the two, so that gates of 0 give F itself. 'add': both sums + F.
    gating: what multiplies an adapter's output: 'zero', 'one' or 'random' (standard normal): a learned number that
      starts there; 'cosine': how alike the mean reduced features of layer and last layer are; 'none': nothing.
    short_keys: to which of the last layer's tokens the short-range adapters attend: those of the whole 'video', as
      the paper says, which makes both kinds the same function, or those of the query's own 'clip'.
    positions: 'none', or 'sincos': added to what becomes queries and keys.
    spatial: 'conv': maps go through SpatialReduction, layer by layer, while the backbone runs. 'pool': they are
      averaged over rows and columns and can be stored, and all that learns comes after (no depthwise convolution).
    conv: 'shared': both adapters of a layer share a SpatialReduction; 'own': each has one. The last layer has one.
    up: 'layer': one linear layer back to `width` behind both adapters of a layer. 'none': sums stay adapter_width
      wide, F is the last layer's reduced features, and the projection leads back; it then starts at random.
    stages: of a backbone whose maps differ from layer to layer, (layers, width, tokens) each, in order; () one stage.
      The last one has `width` and `tokens`. Layers with other tokens than the last get learned linear maps over the
      tokens of a clip.
    dtype: of the products; sums and projection are float32.
    memory: 'store' keeps what the adapters compute for the backward pass; else layer by layer it is computed again.

    Raises ValueError for fields that do not fit.
    """

    width: int
    depth: int
    tokens: int
    adapter_width: int = 512
    heads: int = 4
    layers: tuple[int, ...] = ()
    short: bool = True
    long: bool = True
    fusion: str = 'project'
    gating: str = 'zero'
    short_keys: str = 'video'
    positions: str = 'none'
    spatial: str = 'conv'
    conv: str = 'shared'
    up: str = 'layer'
    stages: tuple[tuple[int, int, int], ...] = ()
    dtype: Any = jnp.float32
    memory: str = 'remat_clips'

    def setup(self):
        self._check()
        self._params = {taps.scope: self._stage_params(taps) for taps in self._taps()}
        if self.fusion == 'project':
            self.projection = _Projection(self.width if self.up == 'layer' else self.adapter_width, self.width)

    @nn.nowrap
    def tapped(self) -> tuple[int, ...]:
        """The layers that are reduced, rising: the adapted ones and the last one."""
        return (*sorted(self.layers or range(self.depth - 1)), self.depth - 1)

    def reduction(self) -> Any:
        """What `reduce` learns, stacked over tapped(); of several stages a tuple, a tree for each that is tapped.

        {} when the features are pooled.
        """
        trees = tuple(
            {} if self.spatial == 'pool' else self._reductions(self._params[taps.scope], taps) for taps in self._taps()
        )
        return trees if self.stages else trees[0]

    @nn.nowrap
    def reduce(self, params: Any, x: Float[Array, 'M t h w D']) -> Float[Array, 'M t d']:
        """params: those of one layer out of reduction(). Pure; also of an unbound module. Gives float32.

        d: adapter_width, twice that where both adapters have their own reduction, or D where features are pooled.
        """
        if self.spatial == 'pool':
            return jnp.mean(x, axis=(2, 3), dtype=jnp.float32)
        block = self._block(x.shape[-1])
        return jnp.concatenate([block.apply({'params': params[name]}, x) for name in self._blocks()], axis=-1)

    def __call__(
        self,
        reduced: Float[Array, 'K B t d'] | tuple[Array, ...],
        last: Float[Array, 'B T D'],
        valid: Bool[Array, 'B T'],
        *,
        train: bool,
    ) -> Float[Array, 'B T D']:
        """reduced: what reduce gave, layer by layer, of several stages a tuple as reduction() is; T clips * tokens.

        last: mean over rows and columns of the backbone's output, float32. valid: tokens that are no padding.
        `train` changes nothing: there is no dropout.
        """
        reduced = reduced if self.stages else (reduced,)
        source = self._last_reduced(reduced[-1][-1])  # [B, T, d]
        base = last if self.up == 'layer' else source
        sums = {kind: jnp.zeros(base.shape, jnp.float32) for kind in self._keys()}
        for taps, features in zip(self._taps(), reduced, strict=True):
            if taps.adapted:
                sums = self._adapt(taps, features[: len(taps.adapted)], source, valid, sums)
        if self.fusion == 'add':
            return base + sum(sums.values())
        return self.projection(*(base + sums.get(kind, 0.0) for kind in ('short', 'long')))

    def _adapt(
        self, taps: _Taps, features: jax.Array, source: jax.Array, valid: jax.Array, sums: dict[str, jax.Array]
    ) -> dict[str, jax.Array]:
        """The sums and what the adapted layers of a stage add to them. features: [layers, B, N, d]"""
        params = self._params[taps.scope]
        adapters, block = self._adapters(taps.stage), self._block(taps.stage.width)
        reductions = {}
        if self.spatial == 'pool':
            reductions = {
                name: jax.tree.map(lambda x: x[: len(taps.adapted)], stacked)
                for name, stacked in self._reductions(params, taps).items()
            }

        def added(params: Any, reductions: Any, features: jax.Array, source: jax.Array) -> dict[str, jax.Array]:
            if self.spatial == 'pool':
                blocks = [_pointwise(block, reductions[name], features) for name in self._blocks()]
            else:
                blocks = jnp.split(features, len(self._blocks()), axis=-1)
            # A single block is for all the adapters.
            asking = {kind: blocks[i % len(blocks)] for i, kind in enumerate(self._keys())}
            return adapters.apply({'params': params}, asking, source, valid)

        if self.memory != 'store':
            added = jax.checkpoint(added, prevent_cse=False)

        def body(sums: dict[str, jax.Array], layer: Any) -> tuple[dict[str, jax.Array], None]:
            # The sums stay out of the checkpoint, which would keep them once a layer.
            return jax.tree.map(jnp.add, sums, added(*layer, source)), None

        return jax.lax.scan(body, sums, (_stacked(params['adapters']), reductions, features))[0]

    def _last_reduced(self, x: jax.Array) -> jax.Array:
        """What all adapters attend to, out of the last layer's entry: [B, T, .] -> [B, T, d]."""
        if self.spatial == 'conv':
            return x[..., : self.adapter_width]
        last = self._taps()[-1]
        params = jax.tree.map(lambda leaf: leaf[-1], _stacked(self._params[last.scope]['reduce']))
        return _pointwise(self._block(self.width), params, x)

    def _reductions(self, params: Mapping[str, Any], taps: _Taps) -> dict[str, Any]:
        """{block: parameters [layers of the stage, ...]}; a second block the last layer does not have gets zeros."""
        stacked = {name: _stacked(params[name]) for name in self._blocks() if name in params}
        if taps.last and 'reduce_long' in self._blocks():
            first = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[:1]), stacked['reduce'])
            own = [stacked['reduce_long']] if taps.adapted else []
            stacked['reduce_long'] = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *own, first)
        return stacked

    def _stage_params(self, taps: _Taps) -> dict[str, Any]:
        """The parameters of one stage, {name: {segment: stacked}}; see the names in docs/losa.md."""
        stage = taps.stage
        maps = jnp.zeros((1, 1, 1, 1, stage.width))
        asking = dict.fromkeys(self._keys(), jnp.zeros((1, stage.tokens, self.adapter_width)))
        source, valid = jnp.zeros((1, self.tokens, self.adapter_width)), jnp.ones((1, self.tokens), bool)
        starts = {'reduce': (taps.layers, lambda key: self._block(stage.width).init(key, maps))}
        if 'reduce_long' in self._blocks():
            starts['reduce_long'] = (len(taps.adapted), starts['reduce'][1])
        starts['adapters'] = (len(taps.adapted), lambda key: self._adapters(stage).init(key, asking, source, valid))

        def start(key: jax.Array, count: int, init: Callable[[jax.Array], Any]) -> Any:
            keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(count))
            return {layers_lib.segment_name(0, count - 1): jax.vmap(lambda key: init(key)['params'])(keys)}

        params = {}
        for name, (count, init) in starts.items():
            if count:
                path = f'{taps.scope}_{name}' if taps.scope else name
                params[name] = self.param(path, start, count, init)
        return params

    @nn.nowrap
    def _taps(self) -> tuple[_Taps, ...]:
        """Of every stage with a tapped layer."""
        tapped, found, first = self.tapped(), [], 0
        for number, fields in enumerate(self.stages or ((self.depth, self.width, self.tokens),)):
            stage = Stage(*fields)
            here = [layer for layer in tapped if first <= layer < first + stage.layers]
            last = bool(here) and here[-1] == self.depth - 1
            adapted = tuple(here[:-1] if last else here)
            if here:
                found.append(_Taps(f'stage_{number}' if self.stages else '', stage, adapted, last))
            first += stage.layers
        return tuple(found)

    @nn.nowrap
    def _keys(self) -> dict[str, str]:
        """{adapter: its keys}, of those there are."""
        return {
            kind: keys
            for kind, there, keys in (('short', self.short, self.short_keys), ('long', self.long, 'video'))
            if there
        }

    @nn.nowrap
    def _blocks(self) -> tuple[str, ...]:
        """Names of the reductions that each adapted layer has."""
        return ('reduce', 'reduce_long') if self.conv == 'own' and self.short and self.long else ('reduce',)

    @nn.nowrap
    def _block(self, inputs: int) -> spatial_reduction.SpatialReduction:
        return spatial_reduction.SpatialReduction(
            inputs, self.adapter_width, self.spatial == 'conv', self.dtype, parent=None
        )

    @nn.nowrap
    def _adapters(self, stage: Stage) -> layer_adapters.LayerAdapters:
        return layer_adapters.LayerAdapters(
            keys=self._keys(),
            width=self.adapter_width,
            outputs=self.width if self.up == 'layer' else 0,
            heads=self.heads,
            tokens=stage.tokens,
            last_tokens=self.tokens,
            positions=self.positions,
            gating=self.gating,
            dtype=self.dtype,
            parent=None,
        )

    def _check(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f'{name} is {getattr(self, name)!r}; it must be one of {", ".join(choices)}')
        if self.depth < 2:
            raise ValueError(f'LoSA adapts the layers before the last one: a backbone of {self.depth} layer has none')
        if not (self.short or self.long):
            raise ValueError('short and long are both False: LoSA without adapters is the head alone (no side module)')
        if self.up == 'none' and self.fusion == 'add':
            raise ValueError(
                f"up='none' with fusion='add' adds {self.adapter_width} channels and nothing leads back to the "
                f"backbone's {self.width}: take up='layer' or fusion='project'"
            )
        if len(set(self.layers)) < len(self.layers) or any(not 0 <= i < self.depth - 1 for i in self.layers):
            raise ValueError(
                f'layers {self.layers}: they are counted from 0, each once, and the last of the {self.depth} layers '
                f'({self.depth - 1}) is what the others attend to; it has no adapters'
            )
        if self.stages and (
            sum(stage[0] for stage in self.stages) != self.depth or self.stages[-1][1:] != (self.width, self.tokens)
        ):
            raise ValueError(
                f'stages {self.stages}: their layers must sum to {self.depth} and the last one must have width '
                f"{self.width} and {self.tokens} tokens, which are the backbone's"
            )


class _Projection(nn.Module):
    """Linear map of two arrays side by side, in float32.

    Between equal widths it starts as the mean of the two, which of two equal arrays is exactly that array.
    """

    inputs: int
    width: int

    def setup(self):
        half = lambda key, shape: jnp.tile(jnp.eye(self.width) / 2, (2, 1))  # noqa: E731
        start = half if self.inputs == self.width else nn.initializers.xavier_uniform()
        self.kernel = self.param('kernel', start, (2 * self.inputs, self.width))
        self.bias = self.param('bias', nn.initializers.zeros, (self.width,))

    def __call__(self, short: Float[Array, 'B T W'], long: Float[Array, 'B T W']) -> Float[Array, 'B T D']:
        # GPUs and TPUs would round float32 factors to fewer bits.
        exactly = jax.lax.Precision.HIGHEST
        first, second = self.kernel[: self.inputs], self.kernel[self.inputs :]
        return jnp.matmul(short, first, precision=exactly) + jnp.matmul(long, second, precision=exactly) + self.bias


def parts(params: Mapping[str, Any]) -> dict[str, int]:
    """Numbers of parameters of a LoSA, by part. params: arrays or shapes, in run form or one entry a layer.

    norms; convolution: the 1 x 1; depthwise: the 3 x 3; attention: without its norms; time: the maps over the tokens
    of a clip; up; projection; gates. Raises ValueError for a parameter of no part.
    """
    counts = dict.fromkeys(_PARTS, 0)
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        name = '/'.join(str(part.key) for part in path)
        part = next((part for part, pattern in _PARTS.items() if re.search(pattern, name)), None)
        if part is None:
            raise ValueError(f'{name} is no parameter of LoSA')
        counts[part] += int(np.prod(leaf.shape))
    return counts


def _stacked(segment: Mapping[str, Any]) -> Any:
    """{'blocks_00_11': tree} -> tree"""
    (tree,) = segment.values()
    return tree


def _pointwise(block: spatial_reduction.SpatialReduction, params: Any, x: jax.Array) -> jax.Array:
    """Pooled features [B, N, D] through a reduction, as maps of a single place -> [B, N, d]."""
    return block.apply({'params': params}, x[:, :, None, None])
