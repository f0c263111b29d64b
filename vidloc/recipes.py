"""The words that the temporal recipes take after commas: a backbone, a method, and the parts of it to leave out.

configs/losa_thumos.py and configs/losa_activitynet.py share them; every field can be set by --config.FIELD=VALUE too.
"""

import dataclasses
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vidloc.config import ConfigError, nearest
from vidloc.train.trainable import PLAIN

METHODS = ('losa', 'ladder', 'head', 'full')
# Words that change the adapters of losa, and the fields they set; the tables are the paper's.
PARTS: Mapping[str, Mapping[str, Any]] = {
    # Table 4a. Without fusion, features are simply added.
    'no-long': {'long': False},
    'no-short': {'short': False},
    'no-fusion': {'fusion': 'add', 'gating': 'none'},
    # Table 4b.
    **{f'gate={gate}': {'gating': gate} for gate in ('zero', 'one', 'random', 'cosine')},
    # What the paper leaves open; docs/losa.md.
    'short-keys=clip': {'short_keys': 'clip'},
    'positions': {'positions': 'sincos'},
    'design=A': {'conv': 'own', 'up': 'none'},
    'pool': {'spatial': 'pool'},
}
# In the order of label_id in the public JSON files.
THUMOS = (
    'BaseballPitch', 'BasketballDunk', 'Billiards', 'CleanAndJerk', 'CliffDiving', 'CricketBowling', 'CricketShot',
    'Diving', 'FrisbeeCatch', 'GolfSwing', 'HammerThrow', 'HighJump', 'JavelinThrow', 'LongJump', 'PoleVault',
    'Shotput', 'SoccerPenalty', 'TennisSwing', 'ThrowDiscus', 'VolleyballSpiking',
)  # fmt: skip
_LAYERS = re.compile(r'(\d+)-(\d+)')


@dataclasses.dataclass(frozen=True)
class Request:
    """What an argument asks for. model: one of those that were offered. parts: words of PARTS. layers: with adapters,
    counted from 0; () all but the last. settings: {key: value}. words: others that were offered."""

    model: str
    method: str
    parts: tuple[str, ...]
    layers: tuple[int, ...]
    settings: dict[str, str]
    words: tuple[str, ...]

    @property
    def name(self) -> str:
        """What tells this run from the others of its recipe."""
        layers = [f'layers{"_".join(str(layer + 1) for layer in self.layers)}'] if self.layers else []
        words = [re.sub('[^a-z0-9]+', '', word.lower()) for word in (self.model, self.method, *self.parts)]
        return '-'.join([*words, *layers])

    def side(self) -> dict[str, Any]:
        """The adapter beside the backbone, for build.config."""
        if self.method not in ('losa', 'ladder'):
            return {'kind': 'none'}
        fields: dict[str, Any] = {'kind': self.method}
        for part in self.parts:
            fields |= PARTS[part]
        return fields | ({'layers': self.layers} if self.layers else {})

    def trainable(self) -> tuple[tuple[str, float | None, bool], ...]:
        """The freezing table, for build.config: all but the backbone trains; in `full` it does, at a tenth."""
        rest = ((rf'.*/{PLAIN}', 1.0, False), (r'.*', 1.0, True))
        if self.method == 'full':
            return ((rf'backbone/.*/{PLAIN}', 0.1, False), (r'backbone/.*', 0.1, True), *rest)
        return ((r'backbone/.*', None, False), *rest)


def read(
    recipe: str, argument: str, *, models: Sequence[str], settings: Sequence[str], words: Sequence[str] = ()
) -> Request:
    """The words of an argument. models: the first is taken if none is named. Raises ConfigError, in one line."""
    found: dict[str, list[str]] = {'model': [], 'method': [], 'part': [], 'word': []}
    given: dict[str, str] = {}
    layers: list[int] = []
    offered = {'model': models, 'method': METHODS, 'part': PARTS, 'word': words}
    for word in (word.strip() for word in argument.split(',') if word.strip()):
        key, sign, value = word.partition('=')
        kinds = [kind for kind, known in offered.items() if word in known]
        if kinds:
            found[kinds[0]].append(word)
        elif sign and key == 'layers':
            layers = _layers(recipe, value)
        elif sign and key in settings:
            given[key] = value
        else:
            known = [*models, *METHODS, *PARTS, *words, 'layers=', *(f'{each}=' for each in settings)]
            raise ConfigError(f'{recipe}: there is no word {word!r}; {nearest(word, known)}')
    for kind in ('model', 'method'):
        if len(found[kind]) > 1:
            raise ConfigError(f'{recipe}: {" and ".join(found[kind])}: name one {kind}')
    setting: dict[str, str] = {}
    for part in dict.fromkeys(found['part']):
        for field in PARTS[part]:
            if field in setting:
                raise ConfigError(f'{recipe}: {setting[field]} and {part} both say what {field} is; name one')
            setting[field] = part
    method = found['method'][0] if found['method'] else METHODS[0]
    strange = [part for part in found['part'] if method != 'losa' and not (part == 'pool' and method == 'ladder')]
    if strange or (layers and method not in ('losa', 'ladder')):
        raise ConfigError(f'{recipe}: {strange[0] if strange else "layers="} says nothing to the method {method!r}')
    model = found['model'][0] if found['model'] else models[0]
    return Request(model, method, tuple(found['part']), tuple(layers), given, tuple(found['word']))


def _layers(recipe: str, text: str) -> list[int]:
    """'15-20+35-39', counted from 1 as in the paper's table 4c, -> layers counted from 0."""
    layers = []
    for part in text.split('+'):
        match = _LAYERS.fullmatch(part)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise ConfigError(f'{recipe}: layers={text} is not as layers=15-20+35-39, counted from 1')
        layers += range(int(match[1]) - 1, int(match[2]))
    return sorted(set(layers))


def number(recipe: str, settings: Mapping[str, str], key: str, default: int) -> int:
    """A setting that is a whole number above 0. Raises ConfigError."""
    text = settings.get(key, str(default))
    if not text.isdecimal() or not int(text):
        raise ConfigError(f'{recipe}: {key}={text} is no whole number above 0')
    return int(text)


def measure(recipe: str, settings: Mapping[str, str], key: str, default: float, least: float = 0.0) -> float:
    """A setting that is a number from `least` on. Raises ConfigError."""
    text = settings.get(key, str(default))
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value < math.inf:
        raise ConfigError(f'{recipe}: {key}={text} is no number from {least:g} on')
    return value


def segments(root: pathlib.Path, subset: str, *, csv: bool = False) -> dict[str, Any]:
    """Which segments a source has, for build.config: of root/annotations.json those of the subset.

    csv: root/train.csv for the subset 'training', root/val.csv for any other (annotations/table.py).
    """
    if csv:
        file = 'train.csv' if subset == 'training' else 'val.csv'
        return {'format': 'table', 'annotations': (str(root / file),)}
    return {'format': 'activitynet', 'annotations': (str(root / 'annotations.json'),), 'subset': subset}


def activitynet(scores: str, points: int) -> dict[str, Any]:
    """Fields of the task for ActivityNet-1.3, as happyharrycn/actionformer_release has them (configs/anet_tsp.yaml).

    scores: file of an external classifier, for which the head makes proposals; '': it tells the classes apart itself.
    points: of the grid over a video.
    """
    return {
        'proposals': bool(scores),
        'external_scores': scores,
        'regression_weight': 2.0,
        'label_smoothing': 0.1,
        'normalizer': 200.0,
        'duration_threshold': 0.001,
        'sigma': 0.75,
        'multiclass': not scores,
        'voting': 0.9,
        'max_segments': 100,
        'tiou': (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95),
        'head': {'width': 256, 'windows': (7, 7, 7, 7, 7, -1), 'positions': True, 'max_length': points},
    }
