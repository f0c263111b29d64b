"""The words that the few-shot recipes take after commas: a backbone, a method, its sizes, and which samples are drawn.

configs/gra_ava.py, gra_moma.py and mocapstreet_gra.py share them; every field can be set by --config.FIELD=VALUE too.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from vidloc.config import ConfigError, nearest, plain
from vidloc.models import sizes
from vidloc.recipes import measure
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
COUNTS = {
    'shots': 15, 'N': 0, 'rank': 16, 'from-layer': -1, 'after': -1, 'shots-seed': 0, 'folds': 0, 'fold': 0
}  # fmt: skip
DRAW, OF_LORA, OF_COPIES = ('shots', 'shots-seed', 'folds', 'fold'), ('rank', 'from-layer'), ('N', 'after')
# Published backbones, by word. The summary of the paper does not name its own; that has 40 layers, as the first has.
MODELS = {
    'videomae-g': ('videomae', 'g'),
    **{f'{kind}-{size}': (kind, size) for kind, known in sizes.SIZES.items() for size in known},
}
# Settings and words of recipes that take any of them.
SETTINGS = ('weights', 'data', 'text', 'frames', 'rate', 'side')
WORDS = ('input', 'tiny')
# Frames of a clip, frames a second, pixels a side. Our choice; as many frames as each was published with, or 16.
CLIPS = {
    'videomae': (16, 7.5, 224),
    'vjepa2': (16, 7.5, 256),
    'internvideo2': (8, 3.75, 224),
    'vivit': (32, 15.0, 224),
    'vivit_joint': (32, 15.0, 224),
}
TINY_CLIP = (8, 7.5, 64)
TINY = {'width': 64, 'mlp': 128, 'heads': 4, 'patch': (16, 16), 'layers': 4, 'spatial_layers': 3, 'temporal_layers': 1}
DEPTH = ('layers', 'spatial_layers', 'temporal_layers')


@dataclasses.dataclass(frozen=True)
class Request:
    """What an argument asks for.

    model: one of those that were offered, '' if none were; named: whether the argument says it. counts: as COUNTS;
    from-layer and after below 0 where they were not given. settings: {key: text}. words: others that were offered.
    """

    recipe: str
    model: str
    named: bool
    method: str
    counts: Mapping[str, int]
    settings: Mapping[str, str]
    words: tuple[str, ...]

    @property
    def name(self) -> str:
        """What tells this run from the others of its recipe."""
        given = [f'{key.replace("-", "")}{self.counts[key]}' for key in COUNTS if self.counts[key] != COUNTS[key]]
        model = 'run' if self._run() and not self.named else self.model
        words = [model.lower().replace('.', '_'), self.method, *given, *self.words]
        return '-'.join(word for word in words if word)

    @property
    def tiny(self) -> bool:
        return 'tiny' in self.words

    def start(self) -> str:
        """Where the backbone comes from: `weights`, else a place that is called like the model; a toy has none."""
        return self.settings.get('weights', '' if self.tiny else f'weights/{self.model}')

    def backbone(self) -> dict[str, Any]:
        """One of MODELS, for build.config; that of the run in `weights`, if there is one and no model was named.

        Raises ConfigError if that one sees no video.
        """
        run = self._run()
        if run and not self.named:
            if run['backbone']['kind'] not in CLIPS:
                raise ConfigError(f'{self.recipe}: the backbone of {self.settings["weights"]} sees no video')
            return plain(run['backbone'])
        kind, size = MODELS[self.model]
        shape = {'kind': kind, **sizes.SIZES[kind][size]}
        toy = {field: value for field, value in TINY.items() if field in shape or field not in DEPTH}
        return shape | (toy if self.tiny else {})

    def preprocess(self) -> dict[str, Any]:
        """What the pictures go through: as in the run in `weights`, with brightness where pictures are augmented."""
        run = self._run()
        fields = {'difference': run['preprocess']['difference']} if run else {}
        return fields | ({'brightness': 0.1} if 'input' in self.words else {})

    def clip(self) -> dict[str, Any]:
        """Frames and size of what a backbone of MODELS is shown around a keyframe. Raises ConfigError."""
        frames, rate, side = TINY_CLIP if self.tiny else CLIPS[self.backbone()['kind']]
        side = number(self.recipe, self.settings, 'side', side, 1)
        return {
            'frames': number(self.recipe, self.settings, 'frames', frames, 1),
            'rate': measure(self.recipe, self.settings, 'rate', rate, 0.1),
            'size': (side, side),
        } | self.augmented()

    def augmented(self) -> dict[str, Any]:
        """How pictures are augmented in training: not at all, or with `input` by zoom and flips."""
        return {'scale': (0.8, 1.2), 'flip': 0.5} if 'input' in self.words else {'scale': (1.0, 1.0), 'flip': 0.0}

    def shots(self) -> dict[str, int]:
        """Which samples a source of training has."""
        return {key.replace('-', '_'): self.counts[key] for key in DRAW}

    def on_shots(self) -> dict[str, dict[str, int]]:
        """{source: its shots} of what evaluates on shots: `held`, the fold that is left out in training, or without
        folds `seen`, those that were trained on; nothing where all there is was trained on."""
        if not self.counts['shots']:
            return {}
        return {'held' if self.counts['folds'] else 'seen': self.shots()}

    def detector(self) -> dict[str, Any]:
        """A task of build.config, but for its classes: AVA's usual head behind a norm, which not every backbone ends
        with; its start differs from 0, so that copies differ from the first step on. With `text` it compares with
        embeddings of the names of classes."""
        head = {'kind': 'roi', 'norm': True, 'kernel_std': 0.01, 'text': self.settings.get('text', '')}
        return {'kind': 'action_detection', 'head': head, 'group': self.group()}

    def adapted(self, steps: int, *, workers: int, compared: str) -> dict[str, Any]:
        """How a backbone of MODELS is adapted by a training of so many steps, for build.config. workers: that read
        videos. compared: see scored. Raises ConfigError."""
        shape = self.backbone()
        return {
            'init_from': self.start(),
            'backbone': shape,
            'lora': self.lora(depth(shape)),
            'film': self.film(embedding=128),
            'preprocess': self.preprocess(),
            'trainable': self.trainable(),
            'optimizer': {'kind': 'adamw', 'weight_decay': 0.01},
            'schedule': {'rate': 5e-4, 'warmup_steps': max(1, steps // 10)},
            'train': {'batch_size': 8, 'steps': steps, 'clip_norm': 1.0, 'log_odds_bias': True},
            # Of what needs a gradient only the inputs of layers are kept, since there are 1 + N of every example.
            'precision': {} if self.tiny else {'compute': 'bfloat16', 'frozen': 'bfloat16', 'remat': 'full'},
            'eval': {'batch_size': 16, **self.scored(compared)},
            'log': {'log': 10, 'save': 100},
            'loading': {'workers': 0 if self.tiny else workers},
        }

    def scored(self, source: str) -> dict[str, Any]:
        """How figures are told, for settings.Evaluation. source: that `seen` is compared with, '' for none.

        Groups of classes: with more people in training than the shots (of people with several labels), as many, fewer
        (all there are).
        """
        if not self.counts['shots']:
            return {}
        seen = {'seen': source} if source and not self.counts['folds'] else {}
        return {'head': self.counts['shots'], 'tail': self.counts['shots'], 'seen': seen}

    def lora(self, depth: int) -> dict[str, Any]:
        """On queries and values of the last quarter of `depth` layers, or from the layer that was given on.

        Raises ConfigError for a layer that is not there.
        """
        if self.method == 'head':
            return {}
        first = self.counts['from-layer'] if self.counts['from-layer'] >= 0 else depth * 3 // 4
        for key, layer in (('from-layer', first), ('after', self.counts['after'])):
            if layer >= depth:
                raise ConfigError(f'{self.recipe}: {key}={layer}, but the layers are 0 to {depth - 1}')
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
        rest = (rf'.*/{PLAIN}', 1.0, False), (r'.*', 1.0, True)
        # Beside texts there may be no matrix that could decay, and a row must win something.
        rest = rest if 'text' not in self.settings else ((r'.*', 1.0, False),)
        return (
            *(((r'.*/lora_[ab]', 1.0, True),) if self.method != 'head' else ()),
            *(((r'film/.*', 1.0, False),) if kind == 'learned' else ()),
            (r'backbone/.*', None, False),
            *rest,
        )

    def _run(self) -> dict[str, Any] | None:
        """The config of the run that `weights` names, WORKDIR or WORKDIR@best; None if it names none."""
        given = self.settings.get('weights', '')
        for place in (given, given.rpartition('@')[0]):
            folder = pathlib.Path(place)
            if place and all((folder / name).is_file() for name in ('config.json', 'model.json')):
                return json.loads((folder / 'config.json').read_text(encoding='utf-8'))
        return None


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
    counts: dict[str, int] = {}
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
    method = found['method'][0] if found['method'] else next(iter(METHODS))
    augments = METHODS[method][0] != 'none'
    absent = (*(() if augments else OF_COPIES), *(OF_LORA if method == 'head' else ()))
    if strange := [key for key in counts if key in absent]:
        raise ConfigError(f'{recipe}: {strange[0]}= says nothing to the method {method!r}')
    counts = {**COUNTS, 'N': copies, **counts}
    if augments and counts['from-layer'] == 0 and counts['after'] < 0:
        raise ConfigError(f'{recipe}: no layer is in front of from-layer=0; name the one to augment, as after=0')
    return Request(
        recipe=recipe,
        model=found['model'][0] if found['model'] else next(iter(models), ''),
        named=bool(found['model']),
        method=method,
        counts=counts,
        settings=given,
        words=tuple(dict.fromkeys(found['word'])),
    )


def depth(backbone: Mapping[str, Any]) -> int:
    """Layers of a backbone of build.config, in all its stacks."""
    return sum(backbone[field] for field in DEPTH if field in backbone)


def number(recipe: str, settings: Mapping[str, str], key: str, default: int, least: int = 0) -> int:
    """A setting that is a whole number from `least` on. Raises ConfigError."""
    text = settings.get(key, str(default))
    if not text.isdecimal() or int(text) < least:
        raise ConfigError(f'{recipe}: {key}={text} is no whole number from {least} on')
    return int(text)
