"""Pretrained backbones, the shots of each seed, and many short trainings of what adapts to them."""

import pathlib
from typing import Any

import ml_collections

from vidloc import build, supply, transfer
from vidloc import config as config_lib
from vidloc.data import sources
from vidloc.experiments import few_shot
from vidloc.experiments.few_shot import SEEN, SOURCE, TASK, Arm
from vidloc.experiments.remembered import Remembered
from vidloc.experiments.trainer import Cost, Trained, Trainer


class Bench:
    """Trains and evaluates arms. One device.

    recipe: configs/mocapstreet_gra.py and its folder of data. backbones: {model: workdir of a pretrained one}. words:
    of every argument of the recipe.
    """

    def __init__(
        self, setting: few_shot.Setting, recipe: str, backbones: dict[str, pathlib.Path], words: tuple[str, ...] = ()
    ):
        self.setting, self.recipe, self.backbones, self.words = setting, recipe, backbones, words
        self._weights: dict[str, Any] = {}
        self._shown: dict[str, Remembered] = {}
        self._trainers: dict[tuple[str, ...], Trainer] = {}
        self._shots: dict[tuple[tuple[str, ...], int, int], tuple[sources.Source, sources.Source]] = {}
        self._val: sources.Source | None = None

    def config(self, arm: Arm, seed: int) -> ml_collections.ConfigDict:
        """Of an arm, with the setting."""
        words = [*arm.recipe, *self.words, f'shots={arm.shots}', f'from={self.backbones[arm.model]}']
        return self.setting.applied(config_lib.load(','.join([self.recipe, *words])), seed)

    def trainer(self, arm: Arm) -> Trainer:
        """The compiled steps of all arms of the same words."""
        if arm.recipe not in self._trainers:
            experiment = build.experiment(self.config(arm, 0))
            self._trainers[arm.recipe] = Trainer(experiment, TASK, self.setting.batch_size, self.setting.warmup)
        return self._trainers[arm.recipe]

    def val(self) -> sources.Source:
        """The validation set, the same for all."""
        if self._val is None:
            arm = few_shot.ARMS[0]
            config, tasks = self.config(arm, 0), self.trainer(arm).experiment.tasks
            opened = supply.open_sources(config, tasks, train=False, only=(SOURCE,))
            self._val = self._remembered(opened[SOURCE])
        return self._val

    def shots(self, arm: Arm, seed: int) -> tuple[sources.Source, sources.Source]:
        """(to train on, the same to evaluate): the people that an arm of a seed learns from."""
        key = arm.recipe, arm.shots, seed
        if key not in self._shots:
            config, tasks = self.config(arm, seed), self.trainer(arm).experiment.tasks
            train = supply.open_sources(config, tasks, train=True)[SOURCE]
            seen = supply.open_sources(config, tasks, train=False, only=(SEEN,))[SEEN]
            self._shots[key] = self._remembered(train), self._remembered(seen)
        return self._shots[key]

    def _remembered(self, source: sources.Source) -> sources.Source:
        """The source with footage that stays in memory and is shared by all arms."""
        source.footage = self._shown.setdefault(source.view.videos, Remembered(source.footage))
        return source

    def _given(self, arm: Arm, source: sources.Source) -> dict[str, Any]:
        """What a training begins with: the pretrained backbone, and biases by the shots."""
        if arm.model not in self._weights:
            self._weights[arm.model], _ = transfer.read_backbone(str(self.backbones[arm.model]))
        experiment = self.trainer(arm).experiment
        given = transfer.into(self._weights[arm.model], experiment.abstract_params)
        return given | supply.start_biases(experiment, {SOURCE: source})

    def train(self, arm: Arm, steps: int, seed: int) -> Trained:
        """Raises Diverged."""
        source, _ = self.shots(arm, seed)
        return self.trainer(arm).train(source, self._given(arm, source), steps, seed)

    def evaluate(self, arm: Arm, trained: Trained, seed: int) -> dict[str, float]:
        """{source/metric: value} of the validation set and of the shots; undefined figures are left out."""
        figures = {}
        for name, source in ((SOURCE, self.val()), (SEEN, self.shots(arm, seed)[1])):
            found = self.trainer(arm).evaluate(source, trained.weights, trained.frozen)
            figures |= {f'{name}/{metric}': value for metric, value in found.items()}
        return figures

    def cost(self, arm: Arm) -> Cost:
        """Measured in a few steps, and in the evaluation of one batch."""
        source, _ = self.shots(arm, 0)
        return self.trainer(arm).cost(source, self.val(), self._given(arm, source))
