"""One pretrained backbone, its stored features, and many short trainings of what uses it."""

import contextlib
import dataclasses
import pathlib
from typing import Any

import ml_collections
import numpy as np
from flax import traverse_util

from vidloc import build, supply, transfer
from vidloc import config as config_lib
from vidloc.annotations import activitynet
from vidloc.data.feature_files import FeatureFiles
from vidloc.data.footage import VideoFiles
from vidloc.experiments import localization
from vidloc.experiments.localization import SOURCE, TASK, Arm
from vidloc.experiments.remembered import Remembered
from vidloc.experiments.trainer import Cost, Trained, Trainer
from vidloc.inference import clips, feature_folder, features
from vidloc.inference import encoder as encoder_lib

CLIPS = 16  # that run at a time when features are computed


@dataclasses.dataclass(frozen=True)
class _Prepared:
    """What an arm is trained with. given: parameters it begins with."""

    trainer: Trainer
    train: Any
    val: Any
    given: dict[str, np.ndarray]


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
        return self._arm(arm).trainer.trainable

    def _arm(self, arm: Arm) -> _Prepared:
        key = arm.words, arm.pictures
        if key not in self._prepared:
            config = self.config(arm)
            experiment = build.experiment(config)
            opened = [supply.open_sources(config, experiment.tasks, train=train)[SOURCE] for train in (True, False)]
            for source in opened:
                source.footage = self._remembered(source.footage)
            trainer = Trainer(experiment, TASK, self.setting.batch_size, self.setting.warmup)
            names = traverse_util.flatten_dict(experiment.abstract_params, sep='/')
            pictured = any(name.startswith(transfer.ROOT) for name in names)
            given = transfer.into(self._params, experiment.abstract_params) if pictured else {}
            self._prepared[key] = _Prepared(trainer, *opened, given)
        return self._prepared[key]

    def _remembered(self, footage: Any) -> Any:
        """The footage of a source, kept in memory and shared by all arms."""
        if isinstance(footage, FeatureFiles):
            return _Stored(footage, self._stored)
        return self._shown.setdefault(footage.folder, Remembered(footage))

    def train(self, arm: Arm, steps: int, seed: int) -> Trained:
        """Raises Diverged."""
        prepared = self._arm(arm)
        return prepared.trainer.train(prepared.train, prepared.given, steps, seed)

    def evaluate(self, arm: Arm, weights: Any, frozen: Any) -> dict[str, float]:
        """{task/metric: value} of all validation videos; figures that are not defined are left out."""
        prepared = self._arm(arm)
        figures = prepared.trainer.evaluate(prepared.val, weights, frozen)
        return {f'{TASK}/{metric}': value for metric, value in figures.items()}

    def cost(self, arm: Arm) -> Cost:
        """Measured in a few steps, and in the evaluation of one batch."""
        prepared = self._arm(arm)
        return prepared.trainer.cost(prepared.train, prepared.val, prepared.given)


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
