"""The study of LoSA: how its arms (localization.py) are planned, trained and told of."""

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from vidloc import config as config_lib
from vidloc import run, workdir
from vidloc.experiments import localization, outcome
from vidloc.experiments import study as study_lib
from vidloc.experiments.localization import Arm
from vidloc.experiments.localization_bench import Bench
from vidloc.experiments.study import Plan, Request, Say
from vidloc.synthetic import collection, export

RECIPE = 'mocapstreet_losa.py'
# Figures of a cell that are no shares: what a step costs as the arm is trained.
MILLISECONDS, MEGABYTES, PARAMETERS = 'cost/milliseconds', 'cost/megabytes', 'cost/parameters'


@dataclasses.dataclass(frozen=True)
class Localization:
    """setting: what the arms share; arms: what is trained, in this order; claims: what is compared.

    backbone: workdir of a pretrained one; '': it is pretrained first, into OUT/backbone, by the recipe, `words` with it
    ('tiny'). Seeds differ in the starts of heads and adapters and in the order of the windows; backbone and videos are
    the same.

    Its plan has total: updates of the longest arms. cost: {what: [seconds a step, seconds to compile it, bytes,
    seconds of an evaluation]} of each method, from pictures and from stored features. sources, backbone, config, words:
    of the data, the weights, the model and each arm.
    """

    setting: localization.Setting
    arms: tuple[Arm, ...]
    claims: tuple[outcome.Claim, ...]
    backbone: str = ''
    words: tuple[str, ...] = ()

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.setting.seeds

    def with_seeds(self, count: int) -> 'Localization':
        """See Study."""
        return dataclasses.replace(self, setting=dataclasses.replace(self.setting, seeds=tuple(range(count))))

    def prepare(self, configs: pathlib.Path, data: pathlib.Path, out: pathlib.Path, say: Say) -> Bench:
        """Renders the videos, pretrains the backbone and stores its features, each if it is not there.

        Raises ConfigError, MocapStreetError, what a run raises, and what opening data and features raises.
        """
        if not (data / collection.UNTRIMMED).exists():
            say(f'rendering MocapStreet (size small) with untrimmed videos into {data}')
            export.make(data, 'small', 0, None, long=True)
        recipe = f'{configs / RECIPE}:{data}'
        backbone = self.backbone
        if not backbone:
            backbone = str(out / 'backbone')
            say(f'the backbone: pretraining into {backbone}, unless it is there')
            run.train(config_lib.load(','.join([recipe, 'pretrain', *self.words])), backbone)
        bench = Bench(self.setting, recipe, backbone, out / 'features', self.words)
        say(f'features of {bench.videos} videos: into {bench.features}, unless they are there')
        bench.extract()
        return bench

    def agreed(self, bench: Bench) -> dict[str, Any]:
        """See Study."""
        flat = config_lib.flatten(bench.config(Arm('', ('losa',), pictures=True)))
        return {
            'sources': bench.fingerprints(),
            'backbone': bench.fingerprint,
            'config': json.loads(json.dumps({k: v for k, v in flat.items() if not workdir.may_change(k)})),
            'words': {arm.name: [*arm.words, *(['pictures'] * arm.pictures)] for arm in self.arms},
            'short': self.setting.short,
        }

    def planned(self, bench: Bench, request: Request, started: float) -> dict[str, Any]:
        """See Study."""
        # An arm costs about what its method does; the three methods with a frozen backbone from pictures as well.
        kinds = {_kind(arm): arm for arm in reversed(self.arms)}
        for arm in self.arms:
            method = arm.words[:1]
            kinds.setdefault(f'{arm.words[0]}, pictures', Arm('', method, pictures=True))
        cost = {kind: dataclasses.asdict(bench.cost(arm)) for kind, arm in kinds.items()}
        seeds = len(self.seeds)
        fixed = time.monotonic() - started
        fixed += seeds * sum(cost[_kind(arm)]['evaluation'] for arm in self.arms)
        fixed += sum(cost[_kind(arm)]['compiling'] for arm in self.arms)
        shares = {arm: self.setting.short if arm.short else 1.0 for arm in self.arms}
        each = seeds * sum(shares[arm] * cost[_kind(arm)]['step'] for arm in self.arms)
        total = request.steps or int((60 * request.minutes * study_lib.FILLED - fixed) / each)
        if total * min(shares.values()) < 1:
            raise study_lib.ClaimsError(
                f'{max(total, 0)} updates are too few for {len(self.arms)} arms; {seeds} seeds of them take about '
                f'{fixed / 60:.0f} minutes here for compiling and evaluating alone: give more --minutes (or --steps), '
                'or fewer --seeds'
            )
        return {'total': total, 'cost': cost, 'minutes': round((fixed + total * each) / 60, 1)}

    def described(self, bench: Bench, plan: Plan) -> list[str]:
        """See Study."""
        return [
            f'{kind}: {1e3 * cost["step"]:.0f} ms a step of {self.setting.batch_size} windows, '
            f'{cost["compiling"]:.0f} s to compile, {cost["bytes"] / 1e6:.0f} MB'
            for kind, cost in plan['cost'].items()
        ]

    def each(self, bench: Bench, plan: Plan, arm: Arm) -> str:
        """See Study."""
        origin = 'pictures' if arm.pictures else 'stored features'
        return f'{localization.updates(arm, plan["total"], self.setting)} updates from {origin}'

    def seconds(self, bench: Bench, plan: Plan, arm: Arm) -> float:
        """See Study."""
        cost = plan['cost'][_kind(arm)]
        return localization.updates(arm, plan['total'], self.setting) * cost['step'] + cost['evaluation']

    def complete(self, path: pathlib.Path, arm: Arm) -> bool:
        """See Study: there are no other files."""
        return True

    def train(
        self, bench: Bench, plan: Plan, arm: Arm, seed: int, path: Callable[[Arm], pathlib.Path]
    ) -> dict[str, Any]:
        """See Study."""
        began = time.monotonic()
        steps = localization.updates(arm, plan['total'], self.setting)
        trained = bench.train(arm, steps, seed)
        taken = time.monotonic() - began
        figures = bench.evaluate(arm, trained.weights, trained.frozen)
        cost = {
            MILLISECONDS: 1e3 * trained.step,
            MEGABYTES: trained.bytes / 1e6,
            PARAMETERS: float(bench.parameters(arm)),
        }
        return {
            'steps': steps,
            'seconds': {'training': round(taken, 1), 'evaluating': round(time.monotonic() - began - taken, 1)},
            'metrics': figures | cost,
            'losses': trained.losses,
        }

    def headline(self, metrics: Mapping[str, float]) -> str:
        """See Study."""
        return outcome.one_line(metrics, localization.metrics())

    def text(self, summed: Mapping[str, Any], plan: Plan) -> str:
        """See Study."""
        short = max(1, round(plan['total'] * plan['short']))
        setting = (
            f'{len(plan["request"]["seeds"])} seeds; {plan["total"]} updates of {self.setting.batch_size} windows, '
            f'{short} in arms called short; {plan["sources"]["train"]["size"]} untrimmed videos to train on. One '
            f'backbone and the same videos for all seeds. {plan["machine"]["devices"]}.'
        )
        reading = (
            'mAP over classes, its mean over the overlaps 0.3 to 0.7, and at three of them. A step as the arm is '
            'trained (from stored features, but for those that need pictures), and of the method from pictures: '
            'milliseconds and megabytes in all by the analysis of the compiler.'
        )
        return outcome.markdown(summed, setting, reading, localization.metrics(), self._columns(summed, plan))

    def _columns(self, summed: Mapping[str, Any], plan: Plan) -> dict[str, dict[str, str]]:
        means = {
            name: {metric: found[metric]['mean'] for metric in found if metric.startswith('cost/')}
            for name, found in summed['arms'].items()
        }

        def pictured(key: str, scale: float) -> dict[str, str]:
            named = {arm.name: plan['cost'].get(f'{arm.words[0]}, pictures') for arm in self.arms if _whole(arm)}
            return {name: f'{scale * cost[key]:.0f}' for name, cost in named.items() if cost}

        return {
            'trains': {name: f'{each[PARAMETERS]:,.0f}' for name, each in means.items() if each},
            'ms': {name: f'{each[MILLISECONDS]:.0f}' for name, each in means.items() if each},
            'MB': {name: f'{each[MEGABYTES]:.0f}' for name, each in means.items() if each},
            'ms, pictures': pictured('step', 1e3),
            'MB, pictures': pictured('bytes', 1e-6),
        }


def _kind(arm: Arm) -> str:
    """What arms of about one cost share."""
    return f'{arm.words[0]}, {"pictures" if arm.pictures else "stored"}'


def _whole(arm: Arm) -> bool:
    """Whether the arm is a method with nothing left out."""
    return set(arm.words[1:]) <= {'pool'}
