"""What Gupta et al. 2024 claim for LoSA (tables 3a, 4a, 4b and 4c, THUMOS-14), as runs that can be compared.

The untrimmed videos of MocapStreet stand for THUMOS, a small VideoMAE that was pretrained on its clips for VideoMAEv2
g. Adapters see each layer's mean over space, which is computed once and read by every arm ("pooled"); two arms need the
pictures: adapters that reduce whole maps, as the paper's do, and a backbone that trains. They take longer, so they
have fewer updates, as have the arms they are compared with ("short").
"""

import dataclasses

import ml_collections

from vidloc.experiments.outcome import Claim

SOURCE = TASK = 'untrimmed'
MAP = f'{TASK}/average_map'
STRICTEST, LOOSEST = f'{TASK}/map@0.7', f'{TASK}/map@0.3'


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all arms share. batch_size: windows of an update. rate: the peak of every schedule. warmup: share of it.

    short: updates of a short arm as a share of those of the others. overlap: of the windows in evaluation. average:
    decay of the averaged parameters, with which an arm is evaluated.
    """

    batch_size: int
    rate: float
    warmup: float
    short: float
    overlap: float
    average: float
    seeds: tuple[int, ...]

    def applied(self, config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
        """A copy of the recipe's config with this setting, and without augmentation, which stored features cannot have.

        It is the same for arms that see pictures, so that they see no more than the others do.
        """
        config = ml_collections.ConfigDict(config).copy_and_resolve_references()
        for view in (config.sources[SOURCE], config.eval_sources[SOURCE]):
            view.batch_size, view.overlap = self.batch_size, self.overlap
            if 'flip' in view:
                view.flip, view.area, view.ratio = 0.0, (1.0, 1.0), (view.size[1] / view.size[0],) * 2
        config.preprocess.brightness = 0.0
        config.schedule.rate, config.train.ema = self.rate, self.average
        return config


# The same for all arms; chosen in advance and not searched for.
SETTING = Setting(batch_size=2, rate=1e-3, warmup=0.1, short=0.25, overlap=0.25, average=0.99, seeds=(0, 1, 2))


@dataclasses.dataclass(frozen=True)
class Arm:
    """words: of the recipe's argument (configs/mocapstreet_losa.py). pictures: not from stored features."""

    name: str
    words: tuple[str, ...]
    pictures: bool = False
    short: bool = False


HEAD, LOSA, LADDER, FULL, MAPS = 'head only', 'losa', 'ladder', 'full, short', 'losa on maps, short'
_WITHOUT = {'long': 'no-long', 'short': 'no-short', 'fusion': 'no-fusion'}
GATES, HALVES = ('one', 'random', 'cosine'), ('deep', 'shallow')
ARMS = (
    Arm(HEAD, ('head',)),
    Arm(LOSA, ('losa', 'pool')),
    Arm(LADDER, ('ladder', 'pool')),
    *(Arm(f'losa without {part}', ('losa', 'pool', word)) for part, word in _WITHOUT.items()),
    *(Arm(f'losa, gates {gate}', ('losa', 'pool', f'gate={gate}')) for gate in GATES),
    *(Arm(f'losa, {half} layers', ('losa', 'pool', f'layers={half}')) for half in HALVES),
    Arm(f'{HEAD}, short', ('head',), short=True),
    Arm(f'{LOSA}, short', ('losa', 'pool'), short=True),
    Arm(MAPS, ('losa',), pictures=True, short=True),
    Arm(FULL, ('full',), pictures=True, short=True),
)
# Average mAP of the paper on THUMOS-14 with VideoMAEv2 g; its ladder (AdaTAD's, from other papers) is not in it.
_PAPER = 71.0
CLAIMS = (
    Claim('3a', MAP, LOSA, HEAD, (69.6, _PAPER)),
    Claim('3a', STRICTEST, LOSA, HEAD),
    Claim('none', MAP, LADDER, HEAD),
    Claim('none', MAP, LOSA, LADDER),
    Claim('4a', MAP, LOSA, 'losa without long', (69.1, _PAPER)),
    Claim('4a', MAP, LOSA, 'losa without short', (69.2, _PAPER)),
    Claim('4a', MAP, LOSA, 'losa without fusion', (67.8, _PAPER)),
    *(
        Claim('4b', MAP, LOSA, f'losa, gates {gate}', (figure, _PAPER))
        for gate, figure in zip(GATES, (68.4, 69.1, 70.0), strict=True)
    ),
    Claim('4c', MAP, 'losa, deep layers', 'losa, shallow layers', (44.4, 70.6)),
    Claim('4c', MAP, LOSA, 'losa, deep layers', (70.6, _PAPER)),
    Claim('4c', MAP, LOSA, 'losa, shallow layers', (44.4, _PAPER)),
    Claim('none', MAP, f'{LOSA}, short', f'{HEAD}, short'),
    Claim('none', MAP, MAPS, f'{LOSA}, short'),
    Claim('none', MAP, MAPS, f'{HEAD}, short'),
    Claim('none', MAP, FULL, f'{HEAD}, short'),
    Claim('none', MAP, MAPS, FULL),
)


def metrics() -> tuple[str, ...]:
    """The names of the figures of an arm, in the order of the tables."""
    return MAP, LOOSEST, f'{TASK}/map@0.5', STRICTEST


def updates(arm: Arm, total: int, setting: Setting) -> int:
    """Updates of the arm when the longest has `total`, at least one."""
    return max(1, round(total * setting.short)) if arm.short else total
