"""The study of Group Relative Augmentation: how its arms (few_shot.py) are planned, trained and told of."""

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from vidloc import config as config_lib
from vidloc import run, workdir
from vidloc.experiments import few_shot, outcome
from vidloc.experiments import study as study_lib
from vidloc.experiments.few_shot import Arm
from vidloc.experiments.few_shot_bench import Bench
from vidloc.experiments.study import Plan, Request, Say
from vidloc.synthetic import export

RECIPE = 'mocapstreet_gra.py'
MILLISECONDS, MEGABYTES, PARAMETERS = 'cost/milliseconds', 'cost/megabytes', 'cost/parameters'


@dataclasses.dataclass(frozen=True)
class FewShot:
    """setting: what the arms share; arms: what is trained, in this order; claims: what is compared.

    backbone: folder with the pretrained ones, FOLDER/<model>; '': they are pretrained first, into OUT/backbones, by the
    recipe, `words` with it ('tiny'). Seeds differ in the shots, in their order and in the starts of head and adapters.

    Its plan has total: updates of every arm. cost: {recipe of an arm: [seconds a step, seconds to compile it, bytes,
    seconds of an evaluation]}. sources, config, words: of the data, the model and each arm.
    """

    setting: few_shot.Setting
    arms: tuple[Arm, ...]
    claims: tuple[outcome.Claim, ...]
    backbone: str = ''
    words: tuple[str, ...] = ()

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.setting.seeds

    def with_seeds(self, count: int) -> 'FewShot':
        """See Study."""
        return dataclasses.replace(self, setting=dataclasses.replace(self.setting, seeds=tuple(range(count))))

    def prepare(self, configs: pathlib.Path, data: pathlib.Path, out: pathlib.Path, say: Say) -> Bench:
        """Renders the videos and pretrains the backbones that arms need, each if it is not there.

        Raises ConfigError, MocapStreetError, what a run raises, and what opening data raises.
        """
        if not (data / export.MANIFEST).exists():
            say(f'rendering MocapStreet (size small) into {data}')
            export.make(data, 'small', 0, None)
        recipe = f'{configs / RECIPE}:{data}'
        backbones = {}
        for model in dict.fromkeys(arm.model for arm in self.arms):
            backbones[model] = pathlib.Path(self.backbone or out / 'backbones') / model
            if not self.backbone:
                say(f'the backbone {model}: pretraining into {backbones[model]}, unless it is there')
                run.train(config_lib.load(','.join([recipe, 'pretrain', model, *self.words])), backbones[model])
        return Bench(self.setting, recipe, backbones, self.words)

    def agreed(self, bench: Bench) -> dict[str, Any]:
        """See Study."""
        arm = self.arms[0]
        flat = config_lib.flatten(bench.config(arm, 0))
        shots = {str(arm.shots): arm for arm in self.arms}
        return {
            'sources': {
                'val': bench.val().fingerprint(),
                **{
                    f'{count} shots, seed {seed}': bench.shots(arm, seed)[0].fingerprint()
                    for count, arm in shots.items()
                    for seed in self.seeds
                },
            },
            'config': json.loads(json.dumps({k: v for k, v in flat.items() if not workdir.may_change(k)})),
            'words': {arm.name: list(arm.recipe) for arm in self.arms},
        }

    def planned(self, bench: Bench, request: Request, started: float) -> dict[str, Any]:
        """See Study."""
        arms = {_kind(arm): arm for arm in reversed(self.arms)}
        cost = {kind: dataclasses.asdict(bench.cost(arm)) for kind, arm in arms.items()}
        seeds = len(self.seeds)
        fixed = time.monotonic() - started
        fixed += seeds * sum(cost[_kind(arm)]['evaluation'] for arm in self.arms)
        # Of the length that is trained, once more.
        fixed += sum(each['compiling'] for each in cost.values())
        each = seeds * sum(cost[_kind(arm)]['step'] for arm in self.arms)
        total = request.steps or int((60 * request.minutes * study_lib.FILLED - fixed) / each)
        if total < 1:
            raise study_lib.ClaimsError(
                f'{len(self.arms)} arms with {seeds} seeds take about {fixed / 60:.0f} minutes here for compiling and '
                'evaluating alone: give more --minutes (or --steps), or fewer --seeds or --arms'
            )
        return {'total': total, 'cost': cost, 'minutes': round((fixed + total * each) / 60, 1)}

    def described(self, bench: Bench, plan: Plan) -> list[str]:
        """See Study."""
        return [
            f'{kind}: {1e3 * cost["step"]:.0f} ms a step of {self.setting.batch_size} keyframes, '
            f'{cost["compiling"]:.0f} s to compile, {cost["bytes"] / 1e6:.0f} MB'
            for kind, cost in plan['cost'].items()
        ]

    def each(self, bench: Bench, plan: Plan, arm: Arm) -> str:
        """See Study."""
        return f'{plan["total"]} updates, {arm.shots} people a class'

    def seconds(self, bench: Bench, plan: Plan, arm: Arm) -> float:
        """See Study."""
        cost = plan['cost'][_kind(arm)]
        return plan['total'] * cost['step'] + cost['evaluation']

    def complete(self, path: pathlib.Path, arm: Arm) -> bool:
        """See Study: there are no other files."""
        return True

    def train(
        self, bench: Bench, plan: Plan, arm: Arm, seed: int, path: Callable[[Arm], pathlib.Path]
    ) -> dict[str, Any]:
        """See Study."""
        began = time.monotonic()
        trained = bench.train(arm, plan['total'], seed)
        taken = time.monotonic() - began
        figures = bench.evaluate(arm, trained, seed)
        drawn = bench.shots(arm, seed)[0].shots.content()
        cost = {
            MILLISECONDS: 1e3 * trained.step,
            MEGABYTES: trained.bytes / 1e6,
            PARAMETERS: float(bench.trainer(arm).trainable),
        }
        return {
            'steps': plan['total'],
            'seconds': {'training': round(taken, 1), 'evaluating': round(time.monotonic() - began - taken, 1)},
            'shots': {'people': len(drawn['chosen']), 'per_class': drawn['per_class'], 'short': drawn['short']},
            'metrics': figures | cost,
            'losses': trained.losses,
        }

    def headline(self, metrics: Mapping[str, float]) -> str:
        """See Study."""
        return outcome.one_line(metrics, few_shot.metrics())

    def text(self, summed: Mapping[str, Any], plan: Plan) -> str:
        """See Study."""
        setting = (
            f'{len(plan["request"]["seeds"])} seeds, each with shots of its own; {plan["total"]} updates of '
            f'{self.setting.batch_size} keyframes in every arm; evaluated on {plan["sources"]["val"]["size"]} '
            f'keyframes with simulated detections. {plan["machine"]["devices"]}.'
        )
        reading = 'frame mAP@0.5 of the validation set in both protocols, and of the shots themselves ("seen").'
        return outcome.markdown(summed, setting, reading, few_shot.metrics(), _columns(summed))


def _columns(summed: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    means = {
        name: {metric: found[metric]['mean'] for metric in found if metric.startswith('cost/')}
        for name, found in summed['arms'].items()
    }
    return {
        'trains': {name: f'{each[PARAMETERS]:,.0f}' for name, each in means.items() if each},
        'ms': {name: f'{each[MILLISECONDS]:.0f}' for name, each in means.items() if each},
        'MB': {name: f'{each[MEGABYTES]:.0f}' for name, each in means.items() if each},
    }


def _kind(arm: Arm) -> str:
    """What arms of one model share."""
    return ', '.join(arm.recipe)
