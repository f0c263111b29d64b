"""A side ladder beside a frozen backbone: small temporal adapters on its layers, summed onto its output.

Liu et al. 2024, "End-to-End Temporal Action Detection with 1B Parameters Across 1000 Frames", the side form of AdaTAD;
sming256/OpenTAD, opentad/models/backbones/vit_ladder.py. There the sum is taken on maps and averaged over rows and
columns behind it. All that follows the GELU is linear and the same for every row and column, so that the average may
come first: an adapter sees vectors and no maps.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vidloc.models import dense, temporal_conv
from vidloc.models import layers as layers_lib

KERNEL = 3
# What a field may be.
CHOICES = {'spatial': ('map', 'pool'), 'memory': ('remat_clips', 'remat_adapters', 'store')}


class Down(nn.Module):
    """Linear layer and GELU, in front of the mean over rows and columns."""

    inputs: int
    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, '... D']) -> Float[Array, '... d']:
        start = nn.initializers.truncated_normal(0.02)
        x = dense.Dense((self.inputs,), (self.width,), kernel_init=start, dtype=self.dtype, name='down')(x)
        return nn.gelu(x, approximate=False)


class Temporal(nn.Module):
    """Depthwise convolution over three neighbours in time."""

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'B T d']) -> Float[Array, 'B T d']:
        start = nn.initializers.normal(math.sqrt(2 / KERNEL))
        kernel = self.param('kernel', start, (KERNEL, self.width)).astype(self.dtype)
        bias = self.param('bias', nn.initializers.zeros, (self.width,)).astype(self.dtype)
        windows = temporal_conv.shifted(x, KERNEL, 1, 0.0)
        return sum((window * kernel[i] for i, window in enumerate(windows)), bias)


class Rung(nn.Module):
    """What an adapter does along time: x + 1 x 1 convolution of a depthwise one -> up-projection -> times a number.

    The up-projection starts at 0 and the number at 1.
    """

    width: int
    outputs: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'B T d'], valid: Bool[Array, 'B T']) -> Float[Array, 'B T D']:
        """valid: tokens that are no padding; the others count as 0, as what lies beyond both ends. Gives float32."""
        x = jnp.where(valid[:, :, None], x, 0.0).astype(self.dtype)
        start = nn.initializers.normal(math.sqrt(2 / self.width))
        mix = dense.Dense((self.width,), (self.width,), kernel_init=start, dtype=self.dtype, name='mix')
        x = x + mix(Temporal(self.width, self.dtype, name='temporal')(x))
        start = nn.initializers.zeros
        x = dense.Dense((self.width,), (self.outputs,), kernel_init=start, dtype=self.dtype, name='up')(x)
        return x.astype(jnp.float32) * self.param('gate', nn.initializers.ones, ())


class Ladder(nn.Module):
    """Features of the layers are added to the last layer's own, each behind a small adapter. LoSA's interface.

    width, depth, tokens: channels of the backbone, its layers, its time tokens in one clip.
    ratio: how much narrower the adapters are. layers: those that have one, from 0; () all of them, the last one too.
    spatial: 'map': linear layer and GELU on maps, while the backbone runs, then their mean over rows and columns.
      'pool': maps are averaged first and can be stored; not the same function, for the GELU is not linear.
    dtype: of the products; the sum is float32. memory: 'store' keeps what the adapters compute for the backward pass.

    There is no norm in front of an adapter and none behind the sum, as in the public code. Different from it, what is
    summed onto is the backbone's output behind its final norm, which is what a head alone gets, and padding counts as
    zero. Raises ValueError for fields that do not fit.
    """

    width: int
    depth: int
    tokens: int
    ratio: int = 8
    layers: tuple[int, ...] = ()
    spatial: str = 'map'
    dtype: Any = jnp.float32
    memory: str = 'remat_clips'

    def setup(self):
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f'{name} is {getattr(self, name)!r}; it must be one of {", ".join(choices)}')
        if not 1 <= self.ratio <= self.width:
            raise ValueError(f'ratio is {self.ratio}; {self.width} channels can be divided by 1 to {self.width}')
        if len(set(self.layers)) < len(self.layers) or any(not 0 <= i < self.depth for i in self.layers):
            raise ValueError(f'layers {self.layers}: they are counted from 0 to {self.depth - 1}, each once')
        inner = self.width // self.ratio
        token, valid = jnp.zeros((1, 1, inner)), jnp.ones((1, 1), bool)
        self._reductions = self._start('reduce', lambda key: self._down().init(key, jnp.zeros((1, self.width))))
        self._rungs = self._start('adapters', lambda key: self._rung().init(key, token, valid))

    @nn.nowrap
    def tapped(self) -> tuple[int, ...]:
        """The layers that are reduced, rising: those with an adapter."""
        return tuple(sorted(self.layers or range(self.depth)))

    def reduction(self) -> Any:
        """What `reduce` learns, stacked over tapped(); {} when the features are pooled."""
        return {} if self.spatial == 'pool' else self._reductions

    @nn.nowrap
    def reduce(self, params: Any, x: Float[Array, 'M t h w D']) -> Float[Array, 'M t d']:
        """params: those of one layer out of reduction(). Pure; also of an unbound module. Gives float32.

        d: D / ratio, or D where features are pooled.
        """
        if self.spatial == 'map':
            x = self._down().apply({'params': params}, x)
        return jnp.mean(x, axis=(2, 3), dtype=jnp.float32)

    def __call__(
        self,
        reduced: Float[Array, 'K B T d'],
        last: Float[Array, 'B T D'],
        valid: Bool[Array, 'B T'],
        *,
        train: bool,
    ) -> Float[Array, 'B T D']:
        """reduced: what reduce gave, layer by layer. last: mean over rows and columns of the backbone's output.

        valid: tokens that are no padding. `train` changes nothing: there is no dropout.
        """
        down, rung = self._down(), self._rung()

        def added(params: Any, reductions: Any, features: jax.Array) -> jax.Array:
            if self.spatial == 'pool':
                features = down.apply({'params': reductions}, features)
            return rung.apply({'params': params}, features, valid)

        if self.memory != 'store':
            added = jax.checkpoint(added, prevent_cse=False)

        def body(total: jax.Array, layer: Any) -> tuple[jax.Array, None]:
            return total + added(*layer), None

        scanned = (self._rungs, self._reductions if self.spatial == 'pool' else {}, reduced)
        return jax.lax.scan(body, last.astype(jnp.float32), scanned)[0]

    def _start(self, name: str, init: Callable[[jax.Array], Any]) -> Any:
        """The parameters `name` of all the adapters, stacked."""
        count = len(self.tapped())
        segment = layers_lib.segment_name(0, count - 1)

        def start(key: jax.Array) -> Any:
            keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(count))
            return {segment: jax.vmap(lambda key: init(key)['params'])(keys)}

        return self.param(name, start)[segment]

    @nn.nowrap
    def _down(self) -> Down:
        return Down(self.width, self.width // self.ratio, self.dtype, parent=None)

    @nn.nowrap
    def _rung(self) -> Rung:
        return Rung(self.width // self.ratio, self.width, self.dtype, parent=None)
