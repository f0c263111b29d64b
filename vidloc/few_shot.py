"""The words that the few-shot recipes take after commas: a method, its sizes, and the parts of it to leave out.

configs/gra_ava.py, gra_moma.py and mocapstreet_gra.py share them; every field can be set by --config.FIELD=VALUE too.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from vidloc.config import ConfigError, nearest
from vidloc.train.trainable import PLAIN

# Rows of an ablation, each a part more than the one before it; the last is the whole method. What is beside LoRA: the
# augmentation of features, and the terms of the loss that are left out (tasks.group_relative).
METHODS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    'gra': ('learned', {}),
    'distilled': ('learned', {'entropy': 0.0}),
    'weighted': ('learned', {'entropy': 0.0, 'distillation': 0.0}),
    'film': ('learned', {'entropy': 0.0, 'distillation': 0.0, 'weighting': 'none'}),
    # Random changes in place of learned ones, without weights as 'film' is.
    'noise': ('noise', {'entropy': 0.0, 'distillation': 0.0, 'weighting': 'none'}),
    'lora': ('none', {}),
    # No LoRA either.
    'head': ('none', {}),
}
COUNTS = {'shots': 15, 'N': 0, 'rank': 16, 'from-layer': -1, 'after': -1}


@dataclasses.dataclass(frozen=True)
class Request:
    """What an argument asks for. model: one of those that were offered, '' if none were. counts: as COUNTS; from-layer
    and after below 0 where they were not given. settings: {key: text}. words: others that were offered."""

    model: str
    method: str
    counts: Mapping[str, int]
    settings: Mapping[str, str]
    words: tuple[str, ...]

    @property
    def name(self) -> str:
        """What tells this run from the others of its recipe."""
        given = [f'{key.replace("-", "")}{self.counts[key]}' for key in COUNTS if self.counts[key] != COUNTS[key]]
        words = [self.model.lower().replace('.', '_'), self.method, *given, *self.words]
        return '-'.join(word for word in words if word)

    def lora(self, depth: int) -> dict[str, Any]:
        """On queries and values of the last quarter of `depth` layers, or from the layer that was given on.

        Raises ConfigError for a layer that is not there.
        """
        if self.method == 'head':
            return {}
        first = self.counts['from-layer'] if self.counts['from-layer'] >= 0 else depth * 3 // 4
        if first >= depth:
            raise ConfigError(f'from-layer={first}: the layers are 0 to {depth - 1}')
        return {'rank': self.counts['rank'], 'alpha': float(self.counts['rank']), 'layers': (first, -1)}

    def film(self, **fields: Any) -> dict[str, Any]:
        """The augmentation, for build.config. fields: of the learned one."""
        kind = METHODS[self.method][0]
        if kind == 'none':
            return {'kind': kind}
        shared = {'kind': kind, 'count': self.counts['N'], 'after': self.counts['after']}
        return shared | (fields if kind == 'learned' else {})

    def group(self) -> dict[str, Any]:
        """The loss of augmented features, for a task of build.config."""
        return dict(METHODS[self.method][1])

    def trainable(self) -> tuple[tuple[str, float | None, bool], ...]:
        """The freezing table: LoRA, FiLM and the head train, nothing else of the backbone does."""
        kind = METHODS[self.method][0]
        return (
            *(((r'.*/lora_[ab]', 1.0, True),) if self.method != 'head' else ()),
            *(((r'film/.*', 1.0, False),) if kind == 'learned' else ()),
            (r'backbone/.*', None, False),
            (rf'.*/{PLAIN}', 1.0, False),
            (r'.*', 1.0, True),
        )


def read(
    recipe: str,
    argument: str,
    *,
    copies: int,
    models: Sequence[str] = (),
    settings: Sequence[str] = (),
    words: Sequence[str] = (),
) -> Request:
    """The words of an argument. copies: N if none is given. models: the first is taken if none is named.

    Raises ConfigError, in one line.
    """
    counts: dict[str, int] = {**COUNTS, 'N': copies}
    given: dict[str, str] = {}
    found: dict[str, list[str]] = {'model': [], 'method': [], 'word': []}
    offered = {'model': models, 'method': METHODS, 'word': words}
    for word in (word.strip() for word in argument.split(',') if word.strip()):
        key, sign, value = word.partition('=')
        kinds = [kind for kind, known in offered.items() if word in known]
        if kinds:
            found[kinds[0]].append(word)
        elif sign and key in COUNTS:
            counts[key] = number(recipe, {key: value}, key, 0, least=1 if key in ('N', 'rank') else 0)
        elif sign and key in settings:
            given[key] = value
        else:
            known = [*models, *METHODS, *words, *(f'{each}=' for each in (*COUNTS, *settings))]
            raise ConfigError(f'{recipe}: there is no word {word!r}; {nearest(word, known)}')
    for kind in ('model', 'method'):
        if len(found[kind]) > 1:
            raise ConfigError(f'{recipe}: {" and ".join(found[kind])}: name one {kind}')
    model = found['model'][0] if found['model'] else next(iter(models), '')
    method = found['method'][0] if found['method'] else next(iter(METHODS))
    return Request(model, method, counts, given, tuple(dict.fromkeys(found['word'])))


def number(recipe: str, settings: Mapping[str, str], key: str, default: int, least: int = 0) -> int:
    """A setting that is a whole number from `least` on. Raises ConfigError."""
    text = settings.get(key, str(default))
    if not text.isdecimal() or int(text) < least:
        raise ConfigError(f'{recipe}: {key}={text} is no whole number from {least} on')
    return int(text)
