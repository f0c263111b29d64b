"""Temporal localization on MocapStreet: a backbone pretrained on its clips, then four ways to use it, on a CPU.

Paper: Gupta et al. 2024, LoSA (the adapter and what it is compared with; sizes are a laptop's). Expected:
docs/results.md; `python tools/claims.py losa` compares all of it. Commands:

  python tools/make_mocapstreet.py --out data/mocapstreet-small --size small --untrimmed
  python -m vidloc.main --config=configs/mocapstreet_losa.py:data/mocapstreet-small,pretrain \
    --workdir=runs/mocapstreet-pretrain
  python -m vidloc.main --config=configs/mocapstreet_losa.py:data/mocapstreet-small,losa \
    --workdir=runs/mocapstreet-losa

Argument: the folder that make_mocapstreet.py wrote, then words after commas, in any order:
  pretrain       the backbone on the clips of studio and yard, as classification
  head           the backbone as it is; the head alone learns
  losa           adapters beside the backbone, which stays as it is (the default)
  ladder         a side ladder in their place
  full           everything learns, the backbone at a tenth of the rate
  from=WORKDIR   the pretrained backbone (runs/mocapstreet-pretrain)
  no-long, no-short, no-fusion, gate=one|random|cosine|none, layers=deep|shallow
                 losa without one of its parts, with other gates, or on the deeper or the shallower half of the layers
  pool           adapters on the mean of each layer over space in place of its maps
  cached=FOLDER  the features that tools/extract_features.py wrote (--rate 8 --clip_frames 8 --layers), in place of
                 videos; has pool
  tiny           the size of the test suite
"""

import pathlib
from typing import Any, NamedTuple

from vidloc import build
from vidloc.config import ConfigError, nearest
from vidloc.train.trainable import PLAIN

METHODS = ('losa', 'pretrain', 'head', 'ladder', 'full')
GATES = ('zero', 'one', 'random', 'cosine', 'none')
# Words of losa, and the fields they set. The paper's "without fusion" is a plain sum.
PARTS = {
    'no-long': {'long': False},
    'no-short': {'short': False},
    'no-fusion': {'fusion': 'add', 'gating': 'none'},
    **{f'gate={gate}': {'gating': gate} for gate in GATES},
    'layers=deep': {},
    'layers=shallow': {},
    'pool': {'spatial': 'pool'},
}
SETTINGS = ('from', 'cached')
CLIPS = ('studio', 'yard')
# A clip of the backbone, frames a second of all videos, and the input, in which a person is 30 to 36 rows high in the
# untrimmed videos and 29 to 41 in the clips, which are square and get zeros at their sides.
FRAMES, RATE, SIZE = 8, 8.0, (48, 64)


class Request(NamedTuple):
    """What an argument asks for; settings: {'from' or 'cached': value}; parts: words of PARTS."""

    folder: str
    method: str
    settings: dict[str, str]
    parts: tuple[str, ...]
    tiny: bool


def read_argument(argument: str) -> Request:
    """The words of an argument. Raises ConfigError for unknown and contradicting words."""
    folder, *words = (word.strip() for word in argument.split(','))
    methods = [word for word in words if word in METHODS]
    settings: dict[str, str] = {}
    parts = []
    for word in words:
        key, sign, value = word.partition('=')
        if sign and key in SETTINGS:
            settings[key] = value
        elif word in PARTS:
            parts.append(word)
        elif word not in (*METHODS, 'tiny'):
            hint = nearest(word, [*METHODS, *PARTS, 'tiny', *(f'{key}=' for key in SETTINGS)])
            raise ConfigError(f'configs/mocapstreet_losa.py: there is no word {word!r}; {hint}')
    if len(methods) > 1:
        raise ConfigError(f'configs/mocapstreet_losa.py: {methods[0]!r} and {methods[1]!r} at once; name one method')
    method = methods[0] if methods else METHODS[0]
    strange = [part for part in parts if method != 'losa' and not (part == 'pool' and method == 'ladder')]
    if strange:
        raise ConfigError(f'configs/mocapstreet_losa.py: {method!r} has no {strange[0]!r}')
    if 'cached' in settings and method in ('pretrain', 'full'):
        raise ConfigError(
            f'configs/mocapstreet_losa.py: {method!r} trains the backbone, which needs videos; not cached'
        )
    return Request(folder, method, settings, tuple(parts), 'tiny' in words)


def backbone(tiny: bool) -> dict[str, Any]:
    """A VideoMAE of 0.5 M parameters."""
    return {
        'kind': 'videomae',
        'width': 24 if tiny else 96,
        'mlp': 48 if tiny else 192,
        'layers': 3 if tiny else 6,
        'heads': 2 if tiny else 4,
        'patch': (16, 16) if tiny else (8, 8),
        'grid': (4, 3, 4) if tiny else (4, 6, 8),
        'tubelet': 2,
        'tubelet_init': 'random',
        'final_norm': True,
    }


def side(request: Request, layers: int, pooled: bool) -> dict[str, Any] | None:
    """What stands beside the backbone."""
    if request.method == 'ladder':
        return {'kind': 'ladder', 'ratio': 4, 'spatial': 'pool' if pooled else 'map'}
    if request.method != 'losa':
        return None
    fields: dict[str, Any] = {'kind': 'losa', 'adapter_width': 12 if request.tiny else 48, 'heads': 2}
    if pooled:
        fields['spatial'] = 'pool'
    # Of the layers that can have adapters, all but the last, the first and the second half, the middle one in neither.
    half = (layers - 1) // 2
    halves = {'layers=shallow': range(half), 'layers=deep': range(layers - 1 - half, layers - 1)}
    for part in request.parts:
        fields |= {'layers': tuple(halves[part])} if part in halves else PARTS[part]
    return fields


def get_config(argument: str = 'data/mocapstreet-small'):
    request = read_argument(argument)
    return _pretraining(request) if request.method == 'pretrain' else _localization(request)


def _pretraining(request: Request):
    root, tiny = pathlib.Path(request.folder), request.tiny
    steps = 6 if tiny else 600

    def clips(name: str, split: str) -> dict[str, Any]:
        return {
            'task': name,
            'format': 'clips',
            'videos': str(root / name),
            'annotations': (str(root / name / f'{split}.txt'),),
            'labels': str(root / name / 'classes.txt'),
            'frames': FRAMES,
            'rate': RATE,
            'size': SIZE,
            'scale': (0.9, 1.1),
            'batch_size': 4 if tiny else 24,
        }

    return build.config(
        name='mocapstreet-pretrain',
        seed=0,
        backbone=backbone(tiny),
        preprocess=_colours(),
        tasks={
            name: {
                'kind': 'classification',
                'class_list': str(root / name / 'classes.txt'),
                'num_classes': 10,
                'label_smoothing': 0.1,
                'head': {'kind': 'linear', 'kernel_std': 0.02},
            }
            for name in CLIPS
        },
        sources={name: clips(name, 'train') for name in CLIPS},
        eval_sources={name: clips(name, 'val') for name in CLIPS},
        mixture={'strategy': 'explicit', 'weights': dict.fromkeys(CLIPS, 0.5)},
        optimizer={'kind': 'adamw', 'b2': 0.98, 'weight_decay': 0.05},
        schedule={'rate': 8e-4, 'warmup_steps': max(1, steps // 20)},
        train={'steps': steps, 'clip_norm': 1.0},
        precision={'unroll': 1 if tiny else 6},
        eval={'batch_size': 50},
        log={'log': 2 if tiny else 50, 'save': 0},
        hint=_hint(request),
    )


def _localization(request: Request):
    root, tiny = pathlib.Path(request.folder), request.tiny
    shape = backbone(tiny)
    cached = request.settings.get('cached', '')
    steps = 8 if tiny else 300
    frames = 64 if tiny else 256
    # In vectors of a quarter of a second; actions last 1 to 6 s.
    ranges = ((0, 8), (8, 10000)) if tiny else ((0, 4), (4, 8), (8, 16), (16, 10000))
    tokens = FRAMES // shape['tubelet']

    def untrimmed(split: str) -> dict[str, Any]:
        return {
            'task': 'untrimmed',
            'format': 'activitynet',
            'annotations': (str(root / 'untrimmed/annotations.json'),),
            'subset': {'train': 'training', 'val': 'validation'}[split],
            'max_segments': 64,
            'overlap': 0.5,
            'batch_size': 2,
        } | (features() if cached else pictures(split))

    def pictures(split: str) -> dict[str, Any]:
        return {
            'videos': str(root / 'untrimmed' / split),
            'frames': frames,
            'grid': frames // shape['tubelet'],
            'rate': RATE,
            'size': SIZE,
            'area': (0.8, 1.0),
            'ratio': (1.2, 1.5),
        }

    def features() -> dict[str, Any]:
        return {
            'view': 'features',
            'features': cached,
            'width': shape['width'],
            'length': frames // shape['tubelet'],
            'layers': shape['layers'] if beside else 0,
        }

    beside = side(request, shape['layers'], bool(cached) or 'pool' in request.parts)
    words = [request.method, *request.parts]
    return build.config(
        name='mocapstreet-' + '-'.join(word.replace('=', '-') for word in words),
        seed=0,
        init_from='' if cached else request.settings.get('from', 'runs/mocapstreet-pretrain'),
        backbone={'kind': 'features', 'width': shape['width'], 'layers': shape['layers'], 'tokens': tokens}
        if cached
        else shape,
        side=beside,
        clips={'frames': 0 if cached else FRAMES, 'chunk': 8, 'memory': 'remat_clips'},
        preprocess={} if cached else _colours(),
        tasks={
            'untrimmed': {
                'kind': 'temporal_localization',
                'class_list': str(root / 'untrimmed/classes.txt'),
                'num_classes': 10,
                'normalizer': 40.0,
                # A model of some hundred steps finds all too much likely; suppressing that would take longer than
                # all of the training.
                'pre_nms_threshold': 0.005,
                'pre_nms_topk': 200,
                'max_segments': 100,
                'head': {
                    'kind': 'actionformer',
                    'width': 24 if tiny else 96,
                    'heads': 2 if tiny else 4,
                    'stem': 1,
                    'embed_layers': 1 if tiny else 2,
                    'head_layers': 2 if tiny else 3,
                    'levels': len(ranges),
                    'windows': (9,),
                    'ranges': ranges,
                    # Trained for minutes: blocks that begin at nothing would stay there.
                    'layer_scale': 0.0,
                },
            }
        },
        sources={'untrimmed': untrimmed('train')},
        eval_sources={'untrimmed': untrimmed('val')},
        trainable=(*(() if cached else _backbone_rules(request.method)), *build.TRAIN_ALL),
        optimizer={'kind': 'adamw', 'weight_decay': 0.05},
        schedule={'rate': 1e-3, 'warmup_steps': max(1, steps // 10)},
        train={'steps': steps, 'clip_norm': 1.0, 'ema': 0.9 if tiny else 0.99},
        eval={'batch_size': 4},
        log={'log': 2 if tiny else 25, 'save': 0},
        hint=_hint(request),
    )


def _backbone_rules(method: str) -> tuple[tuple[str, float | None, bool], ...]:
    if method != 'full':
        return ((r'backbone/.*', None, False),)
    return ((rf'backbone/(.*/)?{PLAIN}', 0.1, False), (r'backbone/.*', 0.1, True))


def _colours() -> dict[str, Any]:
    """Motion is what tells actions apart here; a small model that sees colours first does not find it."""
    return {'difference': 2.0, 'brightness': 0.1}


def _hint(request: Request) -> str:
    size = 'tiny' if request.tiny else 'small'
    return f'Make them with: python tools/make_mocapstreet.py --out {request.folder} --size {size} --untrimmed'
