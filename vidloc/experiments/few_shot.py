"""What Patel et al. 2025 claim for Group Relative Augmentation, as runs that can be compared on MocapStreet.

The street stands for AVA, a small encoder that was pretrained on its clips, as classification, for the video-language
model. Every arm has the same few people a class to learn from, drawn anew for each seed, the same number of updates and
the same backbone; figures are on the whole validation set, with simulated detections.
"""

import dataclasses

import ml_collections

from vidloc.experiments.outcome import Claim

TASK = SOURCE = 'street'
SEEN = 'seen'
MAP = f'{TASK}/frame_map@0.5'
LEARNT = f'{SEEN}/frame_map@0.5'


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all arms share. batch_size: keyframes of an update. rate: the peak of every schedule; warmup: share of
    it."""

    batch_size: int
    rate: float
    warmup: float
    seeds: tuple[int, ...]

    def applied(self, config: ml_collections.ConfigDict, seed: int) -> ml_collections.ConfigDict:
        """A copy of the recipe's config with this setting and the shots of a seed."""
        config = ml_collections.ConfigDict(config).copy_and_resolve_references()
        config.sources[SOURCE].batch_size, config.schedule.rate = self.batch_size, self.rate
        config.sources[SOURCE].shots_seed = config.eval_sources[SEEN].shots_seed = seed
        return config


SETTING = Setting(batch_size=4, rate=1e-2, warmup=0.1, seeds=(0, 1, 2, 3, 4))


@dataclasses.dataclass(frozen=True)
class Arm:
    """words: of the recipe's argument (configs/mocapstreet_gra.py), but for the shots. shots: people a class."""

    name: str
    words: tuple[str, ...]
    shots: int = 15
    model: str = 'videomae'

    @property
    def recipe(self) -> tuple[str, ...]:
        """All the words, so that arms of the same are the same model."""
        return (self.model, *self.words)


RANK = 'rank=4'
LORA, FILM, WEIGHTED, WHOLE = 'lora', 'film', 'weighted', 'gra'
SHOTS = (5, 15, 50)
# LoRA in all layers; features are augmented where they are in the other arms.
ALL = ('from-layer=0', 'after=5')
OTHERS = ('vjepa2', 'vivit')
LADDER = (LORA, FILM, WEIGHTED)


def _named(method: str, shots: int) -> str:
    return f'{method}, K = {shots}'


ARMS = (
    *(Arm(_named(method, shots), (method, RANK), shots) for shots in (15, 5, 50) for method in LADDER),
    Arm('gra, K = 15', (WHOLE, RANK)),
    Arm('noise, K = 15', ('noise', RANK)),
    Arm('lora, pictures augmented, K = 15', (LORA, RANK, 'input')),
    Arm('lora in all layers, K = 15', (LORA, RANK, 'from-layer=0')),
    Arm('weighted, lora in all layers, K = 15', (WEIGHTED, RANK, *ALL)),
    Arm('head alone, K = 15', ('head',)),
    *(
        Arm(f'{method}, {model}, K = 15', (method, RANK), model=model)
        for model in OTHERS
        for method in (LORA, WEIGHTED)
    ),
)
# Frame mAP of the paper on AVA with K = 15: 24.3 with LoRA alone, which is 25.56 less the 1.23 of the augmentation, and
# weights are about 0.3 to 0.5 of them.
CLAIMS = (
    *(Claim('augmentation', MAP, _named(FILM, shots), _named(LORA, shots)) for shots in SHOTS),
    *(Claim('weights', MAP, _named(WEIGHTED, shots), _named(FILM, shots)) for shots in SHOTS),
    Claim('both', MAP, _named(WEIGHTED, 5), _named(LORA, 5)),
    Claim('both', MAP, _named(WEIGHTED, 15), _named(LORA, 15), (24.3, 25.56)),
    Claim('both', MAP, _named(WEIGHTED, 50), _named(LORA, 50)),
    Claim('all terms', MAP, 'gra, K = 15', _named(LORA, 15), (24.3, 25.56)),
    Claim('all terms', MAP, 'gra, K = 15', _named(WEIGHTED, 15)),
    Claim('late layers', MAP, _named(LORA, 15), 'lora in all layers, K = 15'),
    Claim('late layers', MAP, _named(WEIGHTED, 15), 'weighted, lora in all layers, K = 15'),
    Claim('control', MAP, _named(FILM, 15), 'noise, K = 15'),
    Claim('control', MAP, _named(FILM, 15), 'lora, pictures augmented, K = 15'),
    Claim('control', MAP, 'lora, pictures augmented, K = 15', _named(LORA, 15)),
    Claim('control', MAP, _named(LORA, 15), 'head alone, K = 15'),
    *(Claim('backbones', MAP, f'weighted, {model}, K = 15', f'lora, {model}, K = 15') for model in OTHERS),
)


def metrics() -> tuple[str, ...]:
    """The names of the figures of an arm, in the order of the tables."""
    return MAP, f'{TASK}/frame_map_slowfast@0.5', LEARNT
