"""Few-shot action detection on MocapStreet: a backbone pretrained on clips learns from K people a class, on a CPU.

Paper: Patel et al. 2025, Group Relative Augmentation (LoRA in late layers, learned augmentation of features, weights
relative to a group; sizes are a laptop's). Expected: docs/results.md; `python tools/claims.py gra` compares all of it.
Commands:

  python tools/make_mocapstreet.py --out data/mocapstreet-small --size small
  python -m vidloc.main --config=configs/mocapstreet_gra.py:data/mocapstreet-small,pretrain --workdir=runs/gra-pretrain
  python -m vidloc.main --config=configs/mocapstreet_gra.py:data/mocapstreet-small,shots=15 --workdir=runs/gra

Argument: the folder that make_mocapstreet.py wrote, then words after commas, in any order:
  pretrain           the backbone on the clips of studio and yard, as classification
  gra                LoRA, learned augmentation, group weights, distillation and entropy (the default)
  distilled, weighted, film, lora, head    a part less each: without entropy, distillation, weights, augmentation, LoRA
  noise              as film, with random changes of the features in place of learned ones
  input              flips, zoom and brightness of the pictures, too
  shots=K            people a class (15); shots=0 takes all there are; shots-seed=S: others (0)
  N=4, rank=4        augmentations and the rank of LoRA
  from-layer=6       the first layer with LoRA (the last quarter); after=5: the layer that is augmented (the one before)
  folds=F, fold=I    hold a fold of the shots out and evaluate on it (`held`), to choose settings by the shots alone;
                     without folds `seen` has the shots themselves: how much is learnt by heart
  no-val             evaluate on the shots alone
  videomae, vjepa2, vivit    the backbone (videomae)
  from=WORKDIR       the pretrained one (runs/gra-pretrain)
  tiny               the size of the test suite
"""

import pathlib
from typing import Any

from vidloc import build, few_shot

HERE = 'configs/mocapstreet_gra.py'
CLIPS = ('studio', 'yard')
FRAMES, RATE, TUBELET = 8, 8.0, 4
# Of the street, in which people are about as high as in the clips, which are square.
SIZE, CLIP_SIZE = (64, 96), (48, 48)
MODELS = ('videomae', 'vjepa2', 'vivit')


def backbone(kind: str, tiny: bool) -> dict[str, Any]:
    """About 0.7 M parameters in 8 layers."""
    width, layers, patch = (24, 4, (16, 16)) if tiny else (96, 8, (8, 8))
    grid = (FRAMES // TUBELET, SIZE[0] // patch[0], SIZE[1] // patch[1])
    shared = {'kind': kind, 'width': width, 'mlp': 2 * width, 'patch': patch, 'tubelet': TUBELET}
    return (
        shared
        | {
            'videomae': {
                'layers': layers,
                'heads': 4,
                'grid': grid,
                'tubelet_init': 'random',
                'final_norm': True,
            },
            'vjepa2': {'layers': layers, 'heads': 4 if tiny else 6},
            'vivit': {
                'heads': 4,
                'spatial_layers': layers - 2,
                'temporal_layers': 2,
                'grid': grid,
                'tubelet_init': 'random',
                'position_init': 'sincos',
            },
        }[kind]
    )


def get_config(argument: str = 'data/mocapstreet-small'):
    folder, _, rest = argument.partition(',')
    asked = few_shot.read(
        HERE, rest, copies=4, models=MODELS, settings=('from',), words=('pretrain', 'input', 'no-val', 'tiny')
    )
    root = pathlib.Path(folder)
    return _pretraining(asked, root) if 'pretrain' in asked.words else _few_shots(asked, root)


def _pretraining(asked: few_shot.Request, root: pathlib.Path):
    tiny = 'tiny' in asked.words
    steps = 6 if tiny else 900

    def clips(name: str, split: str) -> dict[str, Any]:
        return {
            'task': name,
            'format': 'clips',
            'videos': str(root / name),
            'annotations': (str(root / name / f'{split}.txt'),),
            'labels': str(root / name / 'classes.txt'),
            'frames': FRAMES,
            'rate': RATE,
            'size': CLIP_SIZE,
            'scale': (0.9, 1.1),
            'batch_size': 4 if tiny else 24,
        }

    return build.config(
        name=f'mocapstreet-gra-{asked.model}-pretrain',
        backbone=backbone(asked.model, tiny),
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
        precision={'unroll': 1 if tiny else 8},
        eval={'batch_size': 50},
        log={'log': 2 if tiny else 50, 'save': 0},
        hint=_hint(root, tiny),
    )


def _few_shots(asked: few_shot.Request, root: pathlib.Path):
    tiny = 'tiny' in asked.words
    shape = backbone(asked.model, tiny)
    steps = 8 if tiny else 300

    def street(split: str, **fields: Any) -> dict[str, Any]:
        return {
            'task': 'street',
            'format': 'ava',
            'videos': str(root / 'street' / split),
            'annotations': (str(root / f'street/ava_{split}.csv'),),
            'labels': str(root / 'street/action_list.pbtxt'),
            'frames': FRAMES,
            'rate': RATE,
            'size': SIZE,
            'max_boxes': 12,
            'boxes': 'truth',
            'box_jitter': 0.05,
            'batch_size': 4,
            **asked.augmented(),
            **fields,
        }

    evaluated = {}
    if 'no-val' not in asked.words:
        evaluated['street'] = street(
            'val',
            boxes='detections',
            detections=(str(root / 'street/detections_val.csv'),),
            threshold=0.5,
            match_iou=0.5,
        )
    evaluated |= {name: street('train', **shots) for name, shots in asked.on_shots().items()}
    return build.config(
        name=f'mocapstreet-{asked.name}',
        init_from=asked.settings.get('from', 'runs/gra-pretrain'),
        backbone=shape,
        lora=asked.lora(few_shot.depth(shape)),
        film=asked.film(embedding=16 if tiny else 32),
        preprocess=_colours() | ({} if 'input' in asked.words else {'brightness': 0.0}),
        tasks={
            'street': {
                'kind': 'action_detection',
                'class_list': str(root / 'street/action_list.pbtxt'),
                'num_classes': 14,
                'head': {'kind': 'roi', 'size': (6, 4), 'kernel_std': 0.02},
                'group': asked.group(),
            }
        },
        sources={'street': street('train', **asked.shots())},
        eval_sources=evaluated,
        trainable=asked.trainable(),
        optimizer={'kind': 'adamw', 'b2': 0.98, 'weight_decay': 0.01},
        schedule={'rate': 1e-2, 'warmup_steps': max(1, steps // 10)},
        train={'steps': steps, 'clip_norm': 1.0, 'log_odds_bias': True},
        precision={'unroll': 1 if tiny else 8},
        eval={'batch_size': 32, 'head': 1000, 'tail': 300, **asked.scored('street' if 'street' in evaluated else '')},
        log={'log': 2 if tiny else 25, 'save': 0},
        hint=_hint(root, tiny),
    )


def _colours() -> dict[str, Any]:
    """Motion is what tells actions apart here; a small model that sees colours first does not find it."""
    return {'difference': 2.0, 'brightness': 0.1}


def _hint(root: pathlib.Path, tiny: bool) -> str:
    return f'Make them with: python tools/make_mocapstreet.py --out {root} --size {"tiny" if tiny else "small"}'
