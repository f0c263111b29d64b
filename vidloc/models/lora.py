"""LoRA: a low-rank change beside a matrix that stays as it is (Hu et al. 2022, "LoRA", equation 3)."""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import Array

# The dense layers of a block that can be adapted, as parameters are named.
LAYERS = ('query', 'key', 'value', 'out', 'fc1', 'fc2')
PLACES = ('backbone', 'heads')
DROPOUTS = ('input', 'rank')
LEAVES = ('lora_a', 'lora_b')


@dataclasses.dataclass(frozen=True)
class Lora:
    """Which dense layers learn a change x A B * alpha / rank, and how.

    rank: columns of A and rows of B; 0: there is no LoRA. alpha: the change is scaled by alpha / rank. A starts uniform
      in +-1 / sqrt(inputs), B at zero (huggingface/peft, tuners/lora/layer.py), so that the model starts as it was.
    dropout: of the change alone, in training; dropout_on: of its 'input', as in the paper and in PEFT, or on the
      'rank', between A and B, as in ZacCarrico/vjepa2.
    on: names of LAYERS. where: in the blocks of the 'backbone', in those of 'heads' that have some, or in both.
    layers: first and last layer of the backbone, both included, counted through all its stacks; those below 0 count
      from the end, so (30, -1) is layer 30 and all behind it. All blocks of heads have it.
    """

    rank: int = 0
    alpha: float = 16.0
    dropout: float = 0.0
    dropout_on: str = 'input'
    on: tuple[str, ...] = ('query', 'value')
    where: tuple[str, ...] = ('backbone',)
    layers: tuple[int, ...] = (0, -1)

    def __post_init__(self):
        for field, known in (('on', LAYERS), ('where', PLACES)):
            if strange := [name for name in getattr(self, field) if name not in known]:
                raise ValueError(f'lora.{field} has {strange[0]!r}; known: {", ".join(known)}')
        if self.dropout_on not in DROPOUTS:
            raise ValueError(f'lora.dropout_on is {self.dropout_on!r}; it must be one of {", ".join(DROPOUTS)}')
        if self.rank < 0 or not 0 <= self.dropout < 1:
            raise ValueError(f'lora.rank {self.rank} must be at least 0, lora.dropout {self.dropout} in [0, 1)')
        if len(self.layers) != 2:
            raise ValueError(f'lora.layers is {self.layers}; it must be the first and the last layer, such as (0, -1)')
        if self.rank and not (self.on and self.where):
            raise ValueError('lora.rank is set, but lora.on or lora.where names nothing to adapt')

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def dense(self, name: str) -> 'Lora | None':
        """What the dense layer of that name gets."""
        return self if name in self.on else None

    def span(self, depth: int) -> tuple[int, int]:
        """First and last adapted layer of a backbone of `depth` layers, both included. Raises ValueError."""
        first, last = (layer + depth if layer < 0 else layer for layer in self.layers)
        if not 0 <= first <= last < depth:
            raise ValueError(f'lora.layers {self.layers}: the layers are 0 to {depth - 1}')
        return first, last

    def of_stack(self, first: int, count: int, depth: int) -> 'Lora | None':
        """The part on `count` layers from `first` on, of `depth` in all, counted from `first`; None if there is
        none."""
        low, high = self.span(depth)
        low, high = max(low - first, 0), min(high - first, count - 1)
        return dataclasses.replace(self, layers=(low, high)) if low <= high else None

    def of_head(self, count: int) -> 'Lora':
        """The same on all of the `count` layers of a head's stack."""
        return dataclasses.replace(self, layers=(0, count - 1))

    def runs(self, count: int) -> tuple[tuple[int, int], ...]:
        """The layers 0 to count - 1 as (first, last) of those before, with, and behind the change."""
        low, high = self.layers
        runs = ((0, low - 1), (low, high), (high + 1, count - 1))
        return tuple((first, last) for first, last in runs if first <= last)

    def touches(self, first: int, last: int) -> bool:
        """Whether the layers first to last have the change. Raises ValueError if only some of them have."""
        low, high = self.layers
        inside = [low <= layer <= high for layer in (first, last)]
        if inside[0] != inside[1] or (not inside[0] and first < low and high < last):
            raise ValueError(f'the layers {first} to {last} are stacked together, but LoRA is on {low} to {high}')
        return inside[0]


def starting(key: Array, shape: tuple[int, int]) -> Array:
    """lora_a at its start: uniform in +-1 / sqrt(inputs)."""
    bound = shape[0] ** -0.5
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def merged(params: Mapping[str, np.ndarray], lora: Lora) -> dict[str, np.ndarray]:
    """{canonical name: array} with LoRA -> the same without: every kernel with its change added, in float32.

    The result gives the outputs that the model with the change gives in evaluation. Raises ValueError where a change
    has no kernel or one of its two parts alone, or is of another rank, whose scale would be another one.
    """
    plain = {name: value for name, value in params.items() if name.rpartition('/')[2] not in LEAVES}
    for owner in sorted({name.rpartition('/')[0] for name in params.keys() - plain.keys()}):
        if missing := [f'{owner}/{leaf}' for leaf in ('kernel', *LEAVES) if f'{owner}/{leaf}' not in params]:
            raise ValueError(f'the LoRA of {owner} cannot be merged: there is no {", ".join(missing)}')
        kernel = np.asarray(plain[f'{owner}/kernel'], np.float32)
        a, b = (np.asarray(params[f'{owner}/{leaf}'], np.float64) for leaf in LEAVES)
        if a.shape[1] != lora.rank:
            raise ValueError(f'the LoRA of {owner} has rank {a.shape[1]}, not {lora.rank}')
        change = lora.scale * (a @ b)
        plain[f'{owner}/kernel'] = (kernel + change.reshape(kernel.shape)).astype(np.float32)
    return plain
