"""The study of co-finetuning: how its arms (cofinetuning.py) are planned, trained and told of."""

import dataclasses
import io
import json
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
import numpy as np

from vidloc import config as config_lib
from vidloc import workdir
from vidloc.checkpoints import store
from vidloc.experiments import cofinetuning, outcome, workbench
from vidloc.experiments import study as study_lib
from vidloc.experiments.cofinetuning import Arm
from vidloc.experiments.study import Plan, Request, Say
from vidloc.experiments.workbench import Workbench
from vidloc.synthetic import export

RECIPE = 'mocapstreet.py'
# A length of training at which times are worked out before the length is known.
UNIT = 10**6


@dataclasses.dataclass(frozen=True)
class Cofinetuning:
    """setting: what the arms share; arms: what is trained, in this order; claims: what is compared.

    Its plan has total: updates of the weighted arm of all sources. updates: {source: updates in every weighted arm that
    uses it}. pace: {source: [seconds a step, seconds to compile it]}. sources: size and hash of the examples of all
    splits. config: every setting that matters, flat. shares: of the training videos.
    """

    setting: cofinetuning.Setting
    arms: tuple[Arm, ...]
    claims: tuple[outcome.Claim, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.setting.seeds

    def with_seeds(self, count: int) -> 'Cofinetuning':
        """See Study."""
        return dataclasses.replace(self, setting=dataclasses.replace(self.setting, seeds=tuple(range(count))))

    def prepare(self, configs: pathlib.Path, data: pathlib.Path, out: pathlib.Path, say: Say) -> Workbench:
        """The demo's model on the data of a folder, which is rendered (size small, seed 0) if it is not there.

        Raises ConfigError, MocapStreetError, and what opening the data raises.
        """
        if not (data / export.MANIFEST).exists():
            say(f'rendering MocapStreet (size small) into {data}')
            export.make(data, 'small', 0, None)
        return self.bench(config_lib.load(f'{configs / RECIPE}:{data}'))

    def bench(self, config: ml_collections.ConfigDict) -> Workbench:
        """config: the demo's, to which the setting is applied."""
        return Workbench(self.setting.applied(config), cofinetuning.BOXES, self.setting.shares)

    def agreed(self, bench: Workbench) -> dict[str, Any]:
        """See Study."""
        flat = config_lib.flatten(bench.config)
        return {
            'sources': {
                f'{split}.{name}': source.fingerprint()
                for split, opened in (('train', bench.opened), ('val', bench.evaluated))
                for name, source in opened.items()
            },
            'config': json.loads(json.dumps({k: v for k, v in flat.items() if not workdir.may_change(k)})),
            'shares': dict(self.setting.shares),
        }

    def planned(self, bench: Workbench, request: Request, started: float) -> dict[str, Any]:
        """See Study."""
        # By shares, not by what a seed happens to draw, so that all seeds have the same lengths.
        sizes = {name: max(1, round(self.setting.shares[name] * len(source))) for name, source in bench.opened.items()}
        many = cofinetuning.updates(UNIT, sizes)
        used = dict.fromkeys(name for arm in self.arms for name in arm.sources)
        pace = {name: list(each) for name, each in bench.pace(used).items()}
        seeds = len(self.seeds)
        fixed = time.monotonic() - started + seeds * sum(self._evaluation(bench, arm, pace) for arm in self.arms)
        fixed += sum(pace[name][1] for _, name in self._programs(many))
        each = seeds * sum(_training(arm, many, pace) for arm in self.arms) / UNIT
        total = request.steps or int((60 * request.minutes * study_lib.FILLED - fixed) / each)
        try:
            counts = cofinetuning.updates(max(total, 0), sizes)
        except ValueError as error:
            raise study_lib.ClaimsError(
                f'{error}; {seeds} seeds of {len(self.arms)} arms take about {fixed / 60:.0f} minutes here for '
                'compiling and evaluating alone: give more --minutes (or --steps), or fewer --seeds'
            ) from error
        minutes = round((fixed + total * each) / 60, 1)
        return {'total': total, 'updates': counts, 'pace': pace, 'minutes': minutes}

    def described(self, bench: Workbench, plan: Plan) -> list[str]:
        """See Study."""
        return [
            f'{name}: {1e3 * each:.0f} ms a step of {bench.config.sources[name].batch_size} examples, '
            f'{compiling:.0f} s to compile; {round(plan["shares"][name] * len(bench.opened[name]))} examples, '
            f'{plan["updates"][name]} updates'
            for name, (each, compiling) in plan['pace'].items()
        ]

    def each(self, bench: Workbench, plan: Plan, arm: Arm) -> str:
        """See Study."""
        taken = ', '.join(f'{count} {name}' for name, count in cofinetuning.taken(arm, plan['updates']).items())
        return f'{taken} updates' + (f' from the weights of {arm.after!r}' if arm.after else '')

    def seconds(self, bench: Workbench, plan: Plan, arm: Arm) -> float:
        """See Study."""
        return _training(arm, plan['updates'], plan['pace']) + self._evaluation(bench, arm, plan['pace'])

    def complete(self, path: pathlib.Path, arm: Arm) -> bool:
        """See Study: the weights, if another arm starts from them."""
        return not self._started_from(arm) or path.with_suffix('.npz').exists()

    def train(
        self, bench: Workbench, plan: Plan, arm: Arm, seed: int, path: Callable[[Arm], pathlib.Path]
    ) -> dict[str, Any]:
        """See Study; files the weights, if another arm starts from them."""
        began = time.monotonic()
        if arm.after:
            before = next(other for other in self.arms if other.name == arm.after)
            with np.load(path(before).with_suffix('.npz')) as file:
                params = bench.renewed(dict(file), arm.sources, seed)
        else:
            params = bench.start(seed)
        schedule = cofinetuning.schedule(arm, plan['updates'], seed)
        params, losses = bench.train(params, arm.sources, schedule, self.setting.warmup, seed)
        trained = time.monotonic() - began
        figures = bench.evaluate(params, cofinetuning.needed(arm, self.arms), seed)
        if self._started_from(arm):
            buffer = io.BytesIO()
            np.savez(buffer, **params)
            store.write_atomically(path(arm).with_suffix('.npz'), [buffer.getvalue()])
        return {
            'steps': len(schedule),
            'updates': cofinetuning.taken(arm, plan['updates']),
            'seconds': {'training': round(trained, 1), 'evaluating': round(time.monotonic() - began - trained, 1)},
            'metrics': figures,
            'losses': {
                name: [value if np.isfinite(value) else None for value in each] for name, each in losses.items()
            },
        }

    def headline(self, metrics: Mapping[str, float]) -> str:
        """See Study."""
        return outcome.one_line(metrics, cofinetuning.metrics())

    def text(self, summed: Mapping[str, Any], plan: Plan) -> str:
        """See Study."""
        updates = ', '.join(f'{count} of {name}' for name, count in plan['updates'].items())
        shares = ', '.join(
            f'{100 * share:.3g} % of {name} ({round(share * plan["sources"][f"train.{name}"]["size"])} examples)'
            for name, share in plan['shares'].items()
        )
        setting = (
            f'{len(plan["request"]["seeds"])} seeds; updates of each source in every arm that uses it (but the '
            f'alternating one): {updates}. Training data: {shares}. {plan["machine"]["devices"]}.'
        )
        reading = "`a > b`: first a, then b; `seen`: the street's training videos."
        metrics = (*cofinetuning.metrics(), f'{workbench.SEEN}/frame_map@0.5')
        return outcome.markdown(summed, setting, reading, metrics)

    def _evaluation(self, bench: Workbench, arm: Arm, pace: Mapping[str, Any]) -> float:
        """Seconds."""
        total = 0.0
        for name in cofinetuning.needed(arm, self.arms):
            examples = len(bench.evaluated[name])
            if name == bench.boxes:
                examples += round(len(bench.evaluated[workbench.SEEN]) * bench.shares[name])
            total += study_lib.FORWARD * examples / bench.config.sources[name].batch_size * pace[name][0]
        return total

    def _programs(self, counts: Mapping[str, int]) -> set[tuple[int, str]]:
        """(length, source) of every step that is compiled."""
        taken = [cofinetuning.taken(arm, counts) for arm in self.arms]
        return {(sum(each.values()), name) for each in taken for name in each}

    def _started_from(self, arm: Arm) -> bool:
        return any(other.after == arm.name for other in self.arms)


def _training(arm: Arm, counts: Mapping[str, int], pace: Mapping[str, Any]) -> float:
    """Seconds."""
    return sum(steps * pace[name][0] for name, steps in cofinetuning.taken(arm, counts).items())
