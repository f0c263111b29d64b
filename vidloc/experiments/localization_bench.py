"""One pretrained backbone, its stored features, and many short trainings of what uses it."""

import contextlib
import dataclasses
import functools
import math
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
from flax import traverse_util

from vidloc import build, run, supply, transfer
from vidloc import config as config_lib
from vidloc.annotations import activitynet
from vidloc.data import pipeline
from vidloc.data.feature_files import FeatureFiles
from vidloc.data.footage import VideoFiles
from vidloc.experiments import localization
from vidloc.experiments.localization import SOURCE, TASK, Arm
from vidloc.experiments.remembered import Remembered
from vidloc.experiments.workbench import AHEAD, LOADING, TENTHS, Diverged
from vidloc.inference import clips, feature_folder, features
from vidloc.inference import encoder as encoder_lib
from vidloc.train import evaluate as evaluate_lib
from vidloc.train import state as state_lib
from vidloc.train import step

CLIPS = 16  # that run at a time when features are computed
PROBED = 4  # steps that are timed


@dataclasses.dataclass(frozen=True)
class Cost:
    """Seconds of a step, of compiling it and the prediction, and of an evaluation without its suppression.

    bytes: of a step: arguments, results, what is in between.
    """

    step: float
    compiling: float
    bytes: int
    evaluation: float


@dataclasses.dataclass(frozen=True)
class Trained:
    """weights: what is evaluated; frozen: the rest. step, bytes: as in Cost. losses: the mean loss of each tenth of the
    steps, None for a tenth without a step."""

    weights: Any
    frozen: Any
    step: float
    bytes: int
    losses: list[float | None]


@dataclasses.dataclass(eq=False)
class _Prepared:
    """What an arm is trained with."""

    experiment: build.Experiment
    train: Any
    val: Any
    programs: dict[int, tuple[Any, Any]] = dataclasses.field(default_factory=dict)  # by the length of the training

    @functools.cached_property
    def init(self) -> Any:
        return jax.jit(self.experiment.init)

    @functools.cached_property
    def predict(self) -> Any:
        return step.make_predict_step(self.experiment.apply, self.experiment.tasks)


class Bench:
    """Trains and evaluates arms. One device.

    recipe: configs/mocapstreet_losa.py and its folder of data. backbone: workdir of a pretrained one. features: folder.
    words: of every argument of the recipe.
    """

    def __init__(
        self,
        setting: localization.Setting,
        recipe: str,
        backbone: str,
        features: pathlib.Path,
        words: tuple[str, ...] = (),
    ):
        self.setting, self.recipe, self.backbone, self.features, self.words = setting, recipe, backbone, features, words
        self._encoder = encoder_lib.open_encoder(backbone)
        self._params, _ = transfer.read_backbone(*transfer.split(backbone))
        self.fingerprint = self._encoder.fingerprint
        self._shown: dict[str, Remembered] = {}
        self._stored: dict[tuple[str, str], Any] = {}
        self._prepared: dict[tuple[tuple[str, ...], bool], _Prepared] = {}
        self._pictures = self.config(Arm('', ('head',), pictures=True))
        views = (self._pictures.sources[SOURCE], self._pictures.eval_sources[SOURCE])
        self._folders = {
            view.videos: activitynet.read_activitynet(view.annotations[0], view.subset or None) for view in views
        }

    @property
    def videos(self) -> int:
        """How many there are in all."""
        return sum(len(records) for records in self._folders.values())

    def extract(self) -> None:
        """Stores the features of the videos that have none yet. Raises what the encoder and the folder raise."""
        view, frames = self._pictures.sources[SOURCE], self._pictures.clips.frames
        extraction = features.Extraction(
            clip_frames=frames, rate=view.rate, layers=True, size=view.size, dtype='float32', batch=CLIPS
        )
        # As tools/extract_features.py has it with --rate.
        description = extraction.description(self._encoder) | {'clock': 'rate'}
        with contextlib.closing(feature_folder.FeatureFolder(self.features, description)) as folder:
            program = extraction.program(self._encoder)
            for place, records in self._folders.items():
                footage = VideoFiles(place)
                found = [clips.Video(each.video, take.key) for each in records for take in footage.takes(each)]
                report = features.extract(footage, found, folder, program, extraction)
                for video, why in report.broken.items():
                    raise features.ExtractionError(f'{video}: {why}')

    def config(self, arm: Arm) -> ml_collections.ConfigDict:
        """Of an arm, with the setting."""
        words = [f'from={self.backbone}' if arm.pictures else f'cached={self.features}', *self.words]
        kept = [word for word in arm.words if word != 'pool' or arm.pictures]
        return self.setting.applied(config_lib.load(','.join([self.recipe, *kept, *words])))

    def fingerprints(self) -> dict[str, Any]:
        """Of the examples of both splits."""
        prepared = self._arm(Arm('', ('head',)))
        return {'train': prepared.train.fingerprint(), 'val': prepared.val.fingerprint()}

    def parameters(self, arm: Arm) -> int:
        """Those that train."""
        return self._arm(arm).experiment.partition.total(trainable=True)

    def _arm(self, arm: Arm) -> _Prepared:
        key = arm.words, arm.pictures
        if key not in self._prepared:
            config = self.config(arm)
            experiment = build.experiment(config)
            opened = [supply.open_sources(config, experiment.tasks, train=train)[SOURCE] for train in (True, False)]
            for source in opened:
                source.footage = self._remembered(source.footage)
            self._prepared[key] = _Prepared(experiment, *opened)
        return self._prepared[key]

    def _remembered(self, footage: Any) -> Any:
        """The footage of a source, kept in memory and shared by all arms."""
        if isinstance(footage, FeatureFiles):
            return _Stored(footage, self._stored)
        return self._shown.setdefault(footage.folder, Remembered(footage))

    def train(self, arm: Arm, steps: int, seed: int) -> Trained:
        """Raises Diverged."""
        prepared = self._arm(arm)
        state, frozen, program = self._begun(prepared, steps, seed)
        logged, times = [], [time.perf_counter()]
        for batch in self._batches(prepared, steps, seed):
            state, figures = program(state, frozen, {TASK: batch})
            logged.append((figures['logs'][TASK]['loss'], figures['finite']))
            jax.block_until_ready(logged[max(0, len(logged) - AHEAD)])
            times.append(time.perf_counter())
        logged = jax.device_get(logged)
        bad = [i for i, (_, finite) in enumerate(logged) if not finite]
        if bad:
            raise Diverged(f'the loss was not finite at step {bad[0]} of {steps} of {arm.name!r}')
        jax.block_until_ready(state)
        losses = [float(total / weight) for (total, weight), _ in logged]
        return Trained(
            weights=state_lib.weights(state),
            frozen=frozen,
            step=(time.perf_counter() - times[0]) / steps,
            bytes=run.memory(program),
            losses=_tenths(losses),
        )

    def _begun(self, prepared: _Prepared, steps: int, seed: int) -> tuple[Any, Any, Any]:
        """(state, frozen parameters, compiled step) of a training."""
        experiment = prepared.experiment
        params = traverse_util.flatten_dict(jax.device_get(prepared.init(jax.random.key(seed))), sep='/')
        if any(name.startswith(transfer.ROOT) for name in params):
            params |= transfer.into(self._params, experiment.abstract_params)
        trained, frozen = experiment.partition.split(traverse_util.unflatten_dict(params, sep='/'))
        frozen = jax.device_put(experiment.kept(frozen))
        if steps not in prepared.programs:
            optimizer = experiment.optimizer(steps, max(1, round(self.setting.warmup * steps)))
            make = jax.jit(lambda params, seed: state_lib.create(params, optimizer, experiment.tasks, seed=seed))
            train_step = step.make_train_step(experiment.apply, experiment.tasks, optimizer)
            shapes = jax.eval_shape(make, trained, np.uint32(seed)), frozen, experiment.abstract_batches
            prepared.programs[steps] = make, train_step.lower(*shapes).compile()
        make, program = prepared.programs[steps]
        state = make(trained, np.uint32(seed))
        return state, frozen, program

    def _batches(self, prepared: _Prepared, steps: int, seed: int) -> Iterator[dict[str, np.ndarray]]:
        size = self.setting.batch_size
        plan = pipeline.Plan((prepared.train,), np.zeros(steps, np.int32), (size,), ((0, size),), seed)
        wanted = prepared.experiment.abstract_batches[TASK]
        for batch in pipeline.train_batches(plan, LOADING):
            yield {name: batch[name] for name in wanted}

    def evaluate(self, arm: Arm, weights: Any, frozen: Any) -> dict[str, float]:
        """{task/metric: value} of all validation videos; figures that are not defined are left out."""
        prepared = self._arm(arm)
        task, size = prepared.experiment.tasks[TASK], prepared.experiment.config.eval.batch_size
        found, _ = evaluate_lib.predict(
            lambda params, batches: prepared.predict(params, frozen, batches),
            weights,
            TASK,
            pipeline.eval_batches(pipeline.EvalPlan(prepared.val, size, (0, size)), LOADING),
            task.collector(prepared.val.examples),
            place=lambda batch: batch,
            to_host=jax.device_get,
        )
        figures = task.score(found, prepared.val.truth())
        return {f'{TASK}/{metric}': value for metric, value in figures.items() if math.isfinite(value)}

    def cost(self, arm: Arm) -> Cost:
        """Measured in a few steps, and in the evaluation of one batch."""
        prepared = self._arm(arm)
        began = time.perf_counter()
        state, frozen, program = self._begun(prepared, PROBED + 1, 0)
        compiling = time.perf_counter() - began
        times = []
        for batch in self._batches(prepared, PROBED + 1, 0):
            began = time.perf_counter()
            state, _ = program(state, frozen, {TASK: batch})
            jax.block_until_ready(state)
            times.append(time.perf_counter() - began)
        size = prepared.experiment.config.eval.batch_size
        batch = next(iter(pipeline.eval_batches(pipeline.EvalPlan(prepared.val, size, (0, size)), LOADING)))
        taken = []
        for _ in range(2):  # The first one compiles.
            began = time.perf_counter()
            jax.block_until_ready(prepared.predict(state_lib.weights(state), frozen, {TASK: batch}))
            taken.append(time.perf_counter() - began)
        return Cost(
            step=float(np.mean(times[1:])),
            compiling=compiling + taken[0] - taken[1],
            bytes=run.memory(program),
            evaluation=taken[1] * math.ceil(len(prepared.val) / size),
        )


class _Stored:
    """Feature files that stay in memory."""

    def __init__(self, files: FeatureFiles, held: dict[tuple[str, str], np.ndarray]):
        self._files, self._held = files, held

    def vectors(self, path: str) -> np.ndarray:
        """See FeatureFiles."""
        return self._kept(path, 'vectors', lambda: self._files.vectors(path))

    def layers(self, path: str, count: int) -> np.ndarray:
        """See FeatureFiles."""
        return self._kept(path, 'layers', lambda: self._files.layers(path, count))

    def _kept(self, path: str, what: str, read: Any) -> np.ndarray:
        if (path, what) not in self._held:
            self._held[path, what] = np.array(read())
        return self._held[path, what]


def _tenths(losses: list[float]) -> list[float | None]:
    """The mean of each tenth."""
    parts = np.array_split(np.array(losses), TENTHS)
    return [float(part.mean()) if len(part) else None for part in parts]
