"""Signs that training with augmented features, or with LoRA, goes wrong, told from the figures that a run logs.

Patel et al. 2025, "Group Relative Augmentation", names four: augmentations that collapse to the identity, divergences
that are all equal, LoRA that underfits, and too much noise. What counts as one is our choice, a field of Limits.
"""

import bisect
import dataclasses
import math
from collections.abc import Mapping

from vidloc.tasks import group_relative


@dataclasses.dataclass(frozen=True)
class Limits:
    """From where on a figure is a sign, and why from there.

    settle: steps after the warm-up before anything is judged; the paper looks at gamma and beta after 100 steps.
    moved, least, most: a copy is still the identity while |gamma - 1| and |beta| are below `moved` times their start,
      but no less than `least` (a change of 1 % shows in no prediction) and no more than `most` (a start above that is
      no identity). Where features moved, ours were at 10 times the start after 25 steps.
    alike: the divergences of a group are equal when their deviation is below this share of the divergence that is more
      than the original's own entropy; ours were at 0.2 to 1, all through a run. one_bin: as are the weights when this
      share of them is in one bin of the ten.
    unsure, of_start: copies are too noisy when their entropy, or their loss, is `unsure` times that of the originals
      and at least `of_start` of what it was at first: originals that are learned have figures near 0, and copies may
      then have several times of them and yet be learned. Copies that were destroyed (random gamma and beta of 8 and
      more) were as sure as the originals, but could not be learned: the loss tells of them. dominates: or when the
      entropy term is more than this share of the loss.
    window, progress: the loss stands still when it fell by less than this share from one window to the next; a window
      is a third of the steps since the warm-up, at least `window` steps, so that long runs may fall slowly.
    high, apart: it stands high above this share of the loss of predicting base rates, and the gap is small when
      training is ahead of validation by less than this share of its own figure. alone: where no gap is known: the loss
      is then called high only if the run is hardly better than base rates.
    back: a sign is gone, and may be given again, when its figure is below this share of its limit.
    """

    settle: int = 100
    moved: float = 2.0
    least: float = 0.01
    most: float = 0.1
    alike: float = 0.02
    one_bin: float = 0.95
    unsure: float = 1.5
    of_start: float = 0.5
    dominates: float = 0.5
    window: int = 100
    progress: float = 0.02
    high: float = 0.5
    apart: float = 0.1
    alone: float = 0.9
    back: float = 0.8


@dataclasses.dataclass(frozen=True)
class Watched:
    """What is known of a task before it trains.

    group: its loss of augmented features; None where there are none. base_rates: the loss of predicting the share of
    each class for every example; None where it is not known. held: evaluated sources for which the gap is logged.
    """

    group: group_relative.GroupRelative | None = None
    base_rates: float | None = None
    held: tuple[str, ...] = ()


class _Losses:
    """Losses in the order of their steps, for means over steps."""

    def __init__(self):
        self._steps: list[int] = []
        self._sums = [0.0]

    def add(self, step: int, loss: float) -> None:
        self._steps.append(step)
        self._sums.append(self._sums[-1] + loss)

    def mean(self, after: float, to: float) -> float | None:
        """Of the steps after the first and up to the second, None if there are none."""
        first, last = bisect.bisect_right(self._steps, after), bisect.bisect_right(self._steps, to)
        return (self._sums[last] - self._sums[first]) / (last - first) if last > first else None


class Signs:
    """Looks at all that a run logs, in order, and tells of each sign when it appears.

    tasks: {name: what is known of it}. copies: N, 0 where nothing is augmented. start: |gamma - 1| on average before
    training; None where the changes are not learned. lora: whether there is some. warmup: steps.
    """

    def __init__(
        self,
        tasks: Mapping[str, Watched],
        *,
        copies: int = 0,
        start: float | None = None,
        lora: bool = False,
        warmup: int = 0,
        limits: Limits | None = None,
    ):
        self._tasks, self._copies, self._start, self._lora = dict(tasks), copies, start, lora
        self._warmup, self._limits = warmup, Limits() if limits is None else limits
        self._given: set[str] = set()
        self._first: dict[str, float] = {}
        self._losses = {name: _Losses() for name in tasks}

    def look(self, step: int, figures: Mapping[str, float]) -> dict[str, str]:
        """{sign: what it is and what to try}, of those that were not there when it looked before.

        figures: averages as logged at `step`, of training, of an evaluation or of both. A sign is named after its task,
        such as `street/noise`; `identity` is of all tasks, which share the copies. The answer depends on nothing but
        what was looked at, so a run that goes on first looks again at what it logged.
        """
        found: dict[str, str] = {}
        late = step >= self._warmup + self._limits.settle
        if self._start is not None and late:
            self._identity(figures, found)
        for name, task in self._tasks.items():
            if task.group is not None and f'train/{name}/copies_entropy' in figures:
                for key in (f'train/{name}/copies_entropy', f'train/{name}/copies'):
                    self._first.setdefault(key, figures[key])
                # Copies that are the features themselves diverge alike; that is said already.
                if late and task.group.weighting == 'group' and self._copies > 1 and 'identity' not in self._given:
                    self._alike(name, task, figures, found)
                if late:
                    self._noise(name, task, figures, found)
            if self._lora:
                self._underfitting(name, task, step, figures, found)
        return found

    def _judge(self, sign: str, degree: float, text: str, found: dict[str, str]) -> None:
        """degree: the figure as a share of its limit, from 1 on a sign."""
        if degree >= 1 and sign not in self._given:
            self._given.add(sign)
            found[sign] = text
        elif degree < self._limits.back:
            self._given.discard(sign)

    def _identity(self, figures: Mapping[str, float], found: dict[str, str]) -> None:
        limits = self._limits
        near = min(max(limits.moved * self._start, limits.least), limits.most)
        sizes = {
            part: [value for name in self._tasks for value in numbered(figures, f'train/{name}/{part}/').values()]
            for part in ('gamma', 'beta')
        }
        if not sizes['gamma']:
            return
        gamma, beta = max(sizes['gamma']), max(sizes['beta'])
        text = (
            f'the augmented features are still the features themselves: |gamma - 1| is at most {gamma:.2g} and |beta| '
            f'{beta:.2g} in every copy, {self._start:.2g} before training. Such copies teach nothing, and weights of '
            "them mean nothing. Try a higher rate (schedule.rate, or a row ('film/.*', 10.0, True) of the table "
            '`trainable`), a larger film.std, or less weight on what holds copies near their example '
            '(tasks.NAME.group.distillation)'
        )
        self._judge('identity', _share(near, max(gamma, beta)), text, found)

    def _alike(self, name: str, task: Watched, figures: Mapping[str, float], found: dict[str, str]) -> None:
        own = above_entropy(figures, name, task.group)
        divergences = numbered(figures, f'train/{name}/divergence/').values()
        mean = math.fsum(divergences) / len(divergences)
        spread = _share(figures[f'train/{name}/divergence_spread'] * mean, math.fsum(own.values()) / len(own))
        bins = numbered(figures, f'train/{name}/weights/')
        place = max(bins, key=bins.get)
        if self._copies == 2:
            why = 'of two copies each is as far from their mean as the other. Take film.count of 3 or more'
        elif bins[place] >= self._limits.one_bin and spread >= self._limits.alike:
            why = f'tasks.{name}.group.sensitivity is {task.group.sensitivity:g}, so weights are alike. Lower it'
        else:
            why = (
                f'the divergences of a group differ by {spread:.1%} of what they are. Try a larger film.std, an '
                'earlier film.after, or a larger film.embedding or film.hidden, from which copies differ more'
            )
        text = (
            f'{name}: the group weights tell no copy from another: {bins[place]:.0%} of them are at {place} to '
            f"{float(place) + 0.1:.1f}, and {why}; or train all copies alike: tasks.{name}.group.weighting='none'"
        )
        degree = max(bins[place] / self._limits.one_bin, _share(self._limits.alike, spread))
        self._judge(f'{name}/alike', degree, text, found)

    def _noise(self, name: str, task: Watched, figures: Mapping[str, float], found: dict[str, str]) -> None:
        limits, degrees = self._limits, []
        for of_copies, of_originals in (('copies_entropy', 'original_entropy'), ('copies', 'original')):
            key = f'train/{name}/{of_copies}'
            beside = _share(figures[key], limits.unsure * figures[f'train/{name}/{of_originals}'])
            degrees.append(min(beside, _share(figures[key], limits.of_start * self._first[key])))
        terms = loss_terms(figures, name, task.group)
        entropy = _share(abs(terms['entropy']), math.fsum(abs(value) for value in terms.values()))
        names = ('copies_entropy', 'copies', 'original_entropy', 'original')
        unsure, wrong, sure, right = (f'{figures[f"train/{name}/{each}"]:.2g}' for each in names)
        text = (
            f'{name}: the augmented features are mostly noise: their predictions have an entropy of {unsure} and a '
            f'loss of {wrong}, those of the originals {sure} and {right}, and the entropy term is {entropy:.0%} of '
            'the loss. Try a lower rate for film/.* in the table `trainable`, a smaller film.std, a later film.after, '
            f'more tasks.{name}.group.distillation, or tasks.{name}.group.entropy nearer to 0 (it is '
            f'{task.group.entropy:g})'
        )
        self._judge(f'{name}/noise', max(*degrees, entropy / limits.dominates), text, found)

    def _underfitting(
        self, name: str, task: Watched, step: int, figures: Mapping[str, float], found: dict[str, str]
    ) -> None:
        """Judged at evaluations where a gap is known, else whenever a loss is logged."""
        key = f'train/{name}/loss' if task.group is None else f'train/{name}/original'
        losses = self._losses[name]
        if key in figures and step > self._warmup:
            losses.add(step, figures[key])
        gaps = {held: gap for held in task.held if (gap := relative_gap(figures, held)) is not None}
        limits = self._limits
        size = max(limits.window, (step - self._warmup) / 3)
        now, before = losses.mean(step - size, step), losses.mean(step - 2 * size, step - size)
        judged = gaps if task.held else key in figures
        if task.base_rates is None or not judged or now is None or before is None:
            return
        still = step - 2 * size >= self._warmup and before - now < limits.progress * before
        apart = max(gaps.values(), default=0.0)
        high = limits.high if gaps else limits.alone
        degree = _share(now, high * task.base_rates) if apart < limits.apart else 0.0
        sign = f'{name}/underfitting'
        if not still and sign not in self._given:
            return
        seen = ''.join(
            f', and training data are {f"{gap:.1%} of their figure" if gap > 0 else "not"} ahead of {held}'
            for held, gap in gaps.items()
        )
        text = (
            f'{name}: LoRA underfits: the loss stands still at {now:.3g}, {now / task.base_rates:.0%} of what '
            f'predicting base rates costs{seen}. Try a larger lora.rank or lora.alpha, more '
            'of lora.on and lora.layers, a higher schedule.rate, less weight decay or lora.dropout, or more steps'
        )
        self._judge(sign, degree, text, found)


def numbered(figures: Mapping[str, float], start: str) -> dict[str, float]:
    """{what is behind `start`: figure}, in order: of each copy or bin."""
    return {name.removeprefix(start): figures[name] for name in sorted(figures) if name.startswith(start)}


def above_entropy(figures: Mapping[str, float], task: str, group: group_relative.GroupRelative) -> dict[str, float]:
    """{copy: its divergence less the least that it can be}, which as a cross-entropy is the original's entropy."""
    least = figures[f'train/{task}/original_entropy'] if group.distance == 'cross_entropy' else 0.0
    return {copy: value - least for copy, value in numbered(figures, f'train/{task}/divergence/').items()}


def loss_terms(figures: Mapping[str, float], task: str, group: group_relative.GroupRelative) -> dict[str, float]:
    """{term: what it adds to the task's loss}."""
    return {
        'original': figures[f'train/{task}/original'],
        'copies': group.copies * figures[f'train/{task}/weighted_copies'],
        'distillation': group.distillation * figures[f'train/{task}/distillation'],
        'entropy': group.entropy * figures[f'train/{task}/copies_entropy'],
    }


def relative_gap(figures: Mapping[str, float], held: str) -> float | None:
    """The largest eval/<held>/gap/<metric> as a share of the figure on training data; None where none is logged."""
    gaps = numbered(figures, f'eval/{held}/gap/')
    shares = [_share(gap, figures[f'eval/{held}/{metric}'] + gap) for metric, gap in gaps.items()]
    return max((share for share in shares if math.isfinite(share)), default=None)


def _share(part: float, whole: float) -> float:
    """part / whole; infinite where a part is left of nothing, NaN where the whole is none."""
    if whole > 0 or math.isnan(whole):
        return part / whole
    return math.inf if part > 0 else 0.0
