"""What Arnab et al. 2022 claim for co-finetuning (section 4.2, tables 1 to 4), as runs that can be compared.

The street of MocapStreet stands for AVA, the studio for Kinetics 400 and the yard, the larger one, for Moments in Time.
Equal data and equal updates: every source has one number of updates, the same in every arm that uses it (but for
alternating sampling, whose total is that of the weighted arm), and the n-th batch of a source holds the same examples
with the same augmentation in every arm of a seed.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import ml_collections
import numpy as np

from vidloc.data import mixture
from vidloc.experiments.outcome import Claim

BOXES, FIRST, SECOND = 'street', 'studio', 'yard'


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all arms share. shares: part of each source's training videos that is used, drawn anew for each seed.

    batch_sizes: of each source. clip_scale: the weight of the clips' losses. rate: the peak of every stage's schedule.
    warmup: share of a stage.
    """

    shares: Mapping[str, float]
    batch_sizes: Mapping[str, int]
    clip_scale: float
    rate: float
    warmup: float
    seeds: tuple[int, ...]

    def applied(self, config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
        """A copy of the demo's config with this setting."""
        config = ml_collections.ConfigDict(config).copy_and_resolve_references()
        for name, size in self.batch_sizes.items():
            config.sources[name].batch_size = size
        for name in (FIRST, SECOND):
            config.tasks[name].scale = self.clip_scale
        config.schedule.rate = self.rate
        return config


# The boxes are few beside the clips, as AVA's are, and few enough to be overfitted in a longer training; the yard is
# nearly twice the studio, so that sizes matter to sampling. The same for all arms; how chosen: docs/results.md.
SETTING = Setting(
    shares={BOXES: 0.125, FIRST: 0.24, SECOND: 0.43},
    batch_sizes={BOXES: 4, FIRST: 8, SECOND: 8},
    clip_scale=0.05,
    rate=8e-4,
    warmup=0.05,
    seeds=(0, 1, 2),
)


@dataclasses.dataclass(frozen=True)
class Arm:
    """One stage of training: its sources, how they are mixed, and the arm whose weights it starts from ('': none).

    Every stage has its own schedule and fresh moments; the heads of its sources are new.
    """

    name: str
    sources: tuple[str, ...]
    after: str = ''
    sampling: str = 'weighted'


# An arm stands after the one it starts from.
ARMS = (
    Arm('street', (BOXES,)),
    Arm('studio', (FIRST,)),
    Arm('studio > street', (BOXES,), after='studio'),
    Arm('studio + street', (FIRST, BOXES)),
    Arm('yard', (SECOND,)),
    Arm('studio > yard', (SECOND,), after='studio'),
    Arm('yard > studio', (FIRST,), after='yard'),
    Arm('studio > yard > street', (BOXES,), after='studio > yard'),
    Arm('yard > studio > street', (BOXES,), after='yard > studio'),
    Arm('studio + yard + street', (FIRST, SECOND, BOXES)),
    Arm('studio + yard + street, alternating', (FIRST, SECOND, BOXES), sampling='alternating'),
)


MAP, GROUPS = f'{BOXES}/frame_map@0.5', ('head', 'mid', 'tail')
_ONE, _TWO, _ALTERNATING = 'studio + street', 'studio + yard + street', 'studio + yard + street, alternating'
_TRANSFER = 'studio > street'
# The groups of the paper's table 3: head, mid, tail and, last, all classes.
_PAPER_GROUPS = {_TRANSFER: (65.5, 29.7, 6.9, 23.4), _ONE: (65.6, 31.8, 8.9, 25.2), _TWO: (66.1, 33.7, 9.5, 26.3)}


def _by_group(better: str, than: str) -> tuple[Claim, ...]:
    names = [f'{BOXES}/{group}' for group in GROUPS] + [MAP]
    pairs = zip(_PAPER_GROUPS[than], _PAPER_GROUPS[better], strict=True)
    return tuple(Claim('3', name, better, than, pair) for name, pair in zip(names, pairs, strict=True))


CLAIMS = (
    Claim('1a', MAP, _ONE, _TRANSFER, (23.4, 25.2)),
    Claim('1a', f'{FIRST}/top1', _ONE, 'studio', (74.9, 76.2)),
    Claim('2', MAP, _TWO, 'studio > yard > street', (25.3, 26.3)),
    Claim('2', MAP, _TWO, 'yard > studio > street', (25.1, 26.3)),
    Claim('2', f'{FIRST}/top1', _TWO, 'yard > studio', (76.3, 76.7)),
    Claim('2', f'{SECOND}/top1', _TWO, 'studio > yard', (37.2, 38.9)),
    *_by_group(_ONE, _TRANSFER)[:-1],
    *_by_group(_TWO, _ONE),
    *_by_group(_TWO, _TRANSFER),
    Claim('3, none', MAP, _TRANSFER, 'street'),
    Claim('3, none', MAP, _ONE, 'street'),
    Claim('3, none', MAP, _TWO, 'street'),
    *(Claim('3, none', f'{BOXES}/{group}', _TWO, 'street') for group in GROUPS),
    Claim('4', MAP, _TWO, _ALTERNATING, (25.0, 26.3)),
    Claim('4', f'{FIRST}/top1', _TWO, _ALTERNATING, (76.4, 76.7)),
    Claim('4', f'{SECOND}/top1', _TWO, _ALTERNATING, (34.8, 38.9)),
)


def metrics() -> tuple[str, ...]:
    """The names of all figures that the claims use, in the order of the tables."""
    return tuple(dict.fromkeys([MAP, *(f'{BOXES}/{group}' for group in GROUPS), *(c.metric for c in CLAIMS)]))


def updates(total: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """{source: updates} that add up to `total`, in proportion to the sizes: weighted sampling without its chance.

    What rounding down leaves goes to the largest remainders. Raises ValueError if a source would have none.
    """
    shares = mixture.Mixture().shares(sizes)
    exact = {name: total * share for name, share in shares.items()}
    counts = {name: math.floor(value) for name, value in exact.items()}
    left = total - sum(counts.values())
    for name in sorted(exact, key=lambda name: counts[name] - exact[name])[:left]:
        counts[name] += 1
    if min(counts.values()) < 1:
        raise ValueError(f'{total} updates are too few for sources of {dict(sizes)} examples')
    return counts


def schedule(arm: Arm, counts: Mapping[str, int], seed: int) -> np.ndarray:
    """[steps] int32: at each step of the arm the index of its source in arm.sources.

    Weighted: exactly counts[source] steps of each, in random order (sampling in proportion to the sizes, given that
    every source comes up as often as expected). Alternating: in turn, as many steps in total.
    """
    each = [counts[name] for name in arm.sources]
    if arm.sampling == 'alternating':
        sizes = dict(zip(arm.sources, each, strict=True))
        return mixture.Mixture('alternating').schedule(sizes, sum(each), seed)
    ordered = np.repeat(np.arange(len(each), dtype=np.int32), each)
    return np.random.default_rng([seed, len(each)]).permutation(ordered)


def needed(arm: Arm, arms: Sequence[Arm]) -> tuple[str, ...]:
    """The sources that the arm's weights have seen, those of the arms it starts from first."""
    before = next((other for other in arms if other.name == arm.after), None)
    seen = needed(before, arms) if before else ()
    return tuple(dict.fromkeys([*seen, *arm.sources]))


def taken(arm: Arm, counts: Mapping[str, int]) -> dict[str, int]:
    """{source: updates it takes in the arm}."""
    steps = np.bincount(schedule(arm, counts, 0), minlength=len(arm.sources))
    return dict(zip(arm.sources, steps.tolist(), strict=True))
