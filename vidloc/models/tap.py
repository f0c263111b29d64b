"""A tap: what is taken from the layers of a backbone while they run."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Tap:
    """Reduces what layers give inside the scan over them, so that no layer's own output has to be kept.

    layers: which, rising. reduce(parameters of one layer, x) -> a smaller array; x is what the layer gave, [M, N, D]
      or as `seen` shows it. It gets no gradient: a tap never trains the layers. params: a tree of arrays stacked
      [K, ...] over `layers`, or {}.
    """

    layers: tuple[int, ...]
    reduce: Callable[[Any, jax.Array], jax.Array]
    params: Any

    def seen(self, view: Callable[[jax.Array], jax.Array]) -> 'Tap':
        """The same tap on view(x): tokens brought to their places, say."""
        return dataclasses.replace(self, reduce=lambda params, x: self.reduce(params, view(x)))

    def between(self, first: int, last: int) -> 'Tap':
        """The part of the tap on the layers first to last, counted from `first`."""
        places = [k for k, layer in enumerate(self.layers) if first <= layer <= last]
        low, high = (places[0], places[-1] + 1) if places else (0, 0)
        whole = (low, high) == (0, len(self.layers))
        params = self.params if whole else jax.tree.map(lambda x: x[low:high], self.params)
        return Tap(tuple(self.layers[k] - first for k in places), self.reduce, params)

    def runs(self, first: int, last: int) -> list[tuple[int, int, bool]]:
        """(first, last, tapped or not) of the neighbouring layers that are alike, in order."""
        layers = set(self.layers)
        grouped = itertools.groupby(range(first, last + 1), key=lambda layer: layer in layers)
        runs = [(list(members), tapped) for tapped, members in grouped]
        return [(members[0], members[-1], tapped) for members, tapped in runs]

    def __call__(self, params: Any, x: jax.Array) -> jax.Array:
        return self.reduce(params, jax.lax.stop_gradient(x))


def joined(parts: list[jax.Array]) -> jax.Array | None:
    """The reduced outputs of several runs of layers, [K_i, ...] each -> [K, ...]; None of none."""
    if len(parts) < 2:
        return parts[0] if parts else None
    return jnp.concatenate(parts)
