"""Which source is sampled at which step: a pure function of (seed, step, sizes), the same on every host."""

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np

STRATEGIES = ('weighted', 'alternating', 'explicit')


@dataclasses.dataclass(frozen=True)
class Mixture:
    """One data set a minibatch (Arnab et al. 2022, section 3.3).

    strategy: 'weighted' draws a source with probability proportional to its number of examples; 'alternating'
      takes the sources in turn, in the order of the config; 'explicit' draws by `weights`.
    weights: {source: weight}, for 'explicit' only; they need not add up to 1.
    """

    strategy: str = 'weighted'
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def shares(self, sizes: Mapping[str, int]) -> dict[str, float]:
        """The expected share of steps of each source. Raises ValueError if the settings do not fit the sources."""
        if not sizes or min(sizes.values()) < 1:
            empty = [name for name, size in sizes.items() if size < 1]
            raise ValueError(f'mixture: every source needs an example; without any: {", ".join(empty) or "all"}')
        if self.strategy == 'weighted':
            raw = dict(sizes)
        elif self.strategy == 'alternating':
            raw = dict.fromkeys(sizes, 1.0)
        elif self.strategy == 'explicit':
            if set(self.weights) != set(sizes) or min(self.weights.values()) <= 0:
                raise ValueError(
                    f'mixture.weights must give each source a positive number: sources are {sorted(sizes)}, '
                    f'weights are {dict(self.weights)}'
                )
            raw = {name: self.weights[name] for name in sizes}
        else:
            raise ValueError(f'mixture.strategy is {self.strategy!r}; known: {", ".join(STRATEGIES)}')
        total = sum(raw.values())
        return {name: value / total for name, value in raw.items()}

    def schedule(self, sizes: Mapping[str, int], steps: int, seed: int) -> np.ndarray:
        """[steps] int32, the index of the source (in the order of `sizes`) at each step.

        A longer schedule starts with the shorter one, so a run can be extended.
        """
        shares = list(self.shares(sizes).values())
        if self.strategy == 'alternating':
            return (np.arange(steps) % len(shares)).astype(np.int32)
        draws = np.random.Generator(np.random.Philox(key=seed)).random(steps)
        edges = np.cumsum(shares)
        return np.minimum(np.searchsorted(edges, draws, side='right'), len(shares) - 1).astype(np.int32)

    def steps_per_epoch(self, sizes: Mapping[str, int], batch_sizes: Mapping[str, int]) -> float:
        """Steps in which as many examples are drawn as all sources have together (facts: epoch = sum of sizes)."""
        drawn = sum(share * batch_sizes[name] for name, share in self.shares(sizes).items())
        return sum(sizes.values()) / drawn


def visits(schedule: np.ndarray, sources: int) -> np.ndarray:
    """[steps] int64: how often the source of a step was drawn at earlier steps."""
    seen = np.zeros(len(schedule), np.int64)
    for source in range(sources):
        here = schedule == source
        seen[here] = np.arange(np.count_nonzero(here))
    return seen


@functools.lru_cache(maxsize=16)  # a source is between two epochs at most; threads may ask at the same time
def permutation(seed: tuple[int, ...], epoch: int, size: int) -> np.ndarray:
    """[size] int64, read-only: the order of a source's examples in its own epoch `epoch`."""
    order = np.random.default_rng(np.random.SeedSequence([*seed, epoch])).permutation(size)
    order.setflags(write=False)
    return order
