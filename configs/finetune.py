"""Fine-tuning pretrained weights on clips of your own, in a folder for each class.

Paper: none; a start that works with a few hundred clips, and no number to expect. Weights are files as published:
docs/weights.md lists them, and tools/describe_checkpoint.py says of a file which it is.

  python -m vidloc.main --config=configs/finetune.py:vjepa2-L,weights=vjepa2-vitl-fpc16-256-ssv2,data=clips
  python -m vidloc.main --config=configs/finetune.py:videomae-B,weights=model.safetensors,data=clips,last=4

Argument: words after commas, in any order.
  vjepa2-L, videomae-B ...   the model: a kind and a size of models/sizes.py (vjepa2-L)
  weights=PATH         the file, or the folder that holds it; without it everything starts from nothing and
                       trains
  data=DIR             DIR/train/<class>/<video> and DIR/val/<class>/<video> (data/clips)
  head                 train the head alone (the default)
  last=N               train the last N blocks, too, at a tenth of the head's rate
  all                  train everything, each layer at 0.75 of the rate of the next
  frames=N, rate=R, side=S   the clip: frames, frames a second, pixels a side (16, 7.5 and what the model was made for)
Every field can be changed by --config.FIELD=VALUE as well. Hardware: a GPU for the large models; `head` and a base
model run on a CPU.
"""

import pathlib
import re
from typing import Any, NamedTuple

from vidloc import build
from vidloc.config import ConfigError, nearest
from vidloc.models import sizes

# The heads that the families' own classifiers have.
HEADS = {
    'vivit': {'kind': 'linear'},
    'vivit_joint': {'kind': 'linear'},
    'videomae': {'kind': 'linear', 'norm': True},
    'vjepa2': {'kind': 'attentive'},
    'internvideo2': {'kind': 'projector'},
}
SIDES = {'vjepa2': 256}  # others: 224
LAYOUT = 'clips lie as {data}/train/<class>/<video> and {data}/val/<class>/<video>; name their folder with data=DIR'
DECAY = 0.75
SETTINGS = ('weights', 'data', 'last', 'frames', 'rate', 'side')
HOW = ('head', 'all')
DEFAULT = 'vjepa2-L'


class Request(NamedTuple):
    """What an argument asks for; see the words in the text above. last: -1 for all the blocks."""

    kind: str
    size: str
    settings: dict[str, str]
    last: int


def read_argument(argument: str) -> Request:
    """The words of an argument. Raises ConfigError for unknown, contradicting and missing words."""
    models = {f'{kind}-{size}': (kind, size) for kind, known in sizes.SIZES.items() for size in known}
    settings: dict[str, str] = {}
    words = []
    for word in (word.strip() for word in argument.split(',') if word.strip()):
        key, sign, value = word.partition('=')
        if sign and key in SETTINGS:
            settings[key] = value
        elif word in models or word in HOW:
            words.append(word)
        else:
            hint = nearest(word, [*models, *HOW, *(f'{key}=' for key in SETTINGS)])
            raise ConfigError(f'configs/finetune.py: there is no word {word!r}; {hint}')
    chosen = [word for word in words if word in models]
    if len(chosen) > 1:
        raise ConfigError(f'configs/finetune.py: {" and ".join(chosen)}: name one model')
    if ('head' in words) + ('all' in words) + ('last' in settings) > 1:
        raise ConfigError('configs/finetune.py: head, last=N and all exclude each other')
    if not settings.get('last', '0').isdecimal():
        raise ConfigError(f'configs/finetune.py: last={settings["last"]} is no number of blocks')
    if 'weights' not in settings and ('head' in words or 'last' in settings):
        raise ConfigError('configs/finetune.py: what does not train must come from somewhere; add weights=PATH, or all')
    for name in ('frames', 'side'):
        if name in settings and (not settings[name].isdecimal() or not int(settings[name])):
            raise ConfigError(f'configs/finetune.py: {name}={settings[name]} is no whole number above 0')
    if not re.fullmatch(r'\d+(\.\d*)?|\.\d+', settings.get('rate', '1')) or not float(settings.get('rate', 1)):
        raise ConfigError(f'configs/finetune.py: rate={settings["rate"]} is no number above 0')
    last = -1 if 'all' in words or 'weights' not in settings else int(settings.get('last', 0))
    return Request(*models[chosen[0] if chosen else DEFAULT], settings, last)


def trainable(backbone: dict[str, Any], last: int) -> tuple:
    """The freezing table."""
    if last < 0:
        return build.layerwise(backbone, DECAY)
    stack = 'temporal' if 'temporal_layers' in backbone else 'encoder'
    layers = backbone.get('temporal_layers', backbone.get('layers'))
    if last > layers:
        raise ConfigError(f'configs/finetune.py: last={last}, but the last encoder has {layers} blocks')
    blocks = '|'.join(f'{i:02d}' for i in range(layers - last, layers))
    table = ((rf'backbone/{stack}/block_({blocks})/.*', 0.1, True),) if last else ()
    return (*table, (r'backbone/.*', None, False), (r'.*/(bias|scale|query)', 1.0, False), (r'.*', 1.0, True))


def get_config(argument: str = ''):
    asked = read_argument(argument)
    given = asked.settings
    root = pathlib.Path(given.get('data', 'data/clips'))
    train = root / 'train'
    names = tuple(sorted(path.name for path in train.iterdir() if path.is_dir())) if train.is_dir() else ()
    backbone = {'kind': asked.kind, **sizes.SIZES[asked.kind][asked.size]}
    side = int(given.get('side', SIDES.get(asked.kind, 224)))
    head = dict(HEADS[asked.kind])
    if head['kind'] == 'attentive':  # as many as the encoder; those of the projector are the same for all sizes
        head['heads'] = backbone['heads']
    view = {
        'task': 'clips',
        'format': 'folders',
        'frames': int(given.get('frames', 16)),
        'rate': float(given.get('rate', 7.5)),
        'size': (side, side),
        'cover': True,
    }

    def clips(split: str, **fields: Any) -> dict[str, Any]:
        return {'videos': str(root / split), 'annotations': (str(root / split),), **view, **fields}

    return build.config(
        name='finetune',
        init_from=given.get('weights', ''),
        weights={'head': 'clips'},
        backbone=backbone,
        # Without the data, --mode=describe reckons with ten classes.
        tasks={'clips': {'kind': 'classification', 'classes': names, 'num_classes': 0 if names else 10, 'head': head}},
        sources={'clips': clips('train', scale=(1.03, 1.52))},
        eval_sources={'clips': clips('val', test_scale=256 / 224)},
        optimizer={'kind': 'adamw', 'weight_decay': 0.05},
        schedule={'rate': 1e-3 if asked.last == 0 else 5e-4, 'kind': 'cosine', 'warmup_epochs': 1.0},
        trainable=trainable(backbone, asked.last),
        train={'batch_size': 8, 'clip_norm': 1.0, 'epochs': 20.0},
        eval={'batch_size': 8},
        checkpoint={'best': 'eval/clips/top1'},
        log={'log': 10, 'save': 100},
        precision={'remat': 'full' if asked.last else 'none'},
        loading={'workers': 2},
        hint=LAYOUT.format(data=root),
    )
