"""The demo: co-finetuning on MocapStreet, a small ViViT trained from scratch on boxes and two sets of clips.

Paper: Arnab et al. 2022, Beyond transfer learning: co-finetuning for action localisation (the strategy; sizes are
a laptop's). Expected: docs/results.md. Command (tools/demo.sh runs all of it, rendering first):

  python tools/make_mocapstreet.py --out data/mocapstreet --size small
  python -m vidloc.main --config=configs/mocapstreet.py:data/mocapstreet

Argument: the folder that make_mocapstreet.py wrote, then options after commas: `tiny` for the test suite's size,
`boxes` to train on the street alone with as many box steps.
"""

import pathlib

from vidloc import build

CLIP_SETS = ('studio', 'yard')
# Steps a source takes: 60 % street, the rest shared by the clip sets.
WEIGHTS = {'street': 0.6, 'studio': 0.2, 'yard': 0.2}


def get_config(argument: str = 'data/mocapstreet'):
    folder, *options = argument.split(',')
    unknown = set(options) - {'tiny', 'boxes'}
    if unknown:
        raise build.ConfigError(f'configs/mocapstreet.py: unknown option {sorted(unknown)}; known: tiny, boxes')
    root = pathlib.Path(folder)
    tiny, boxes_only = 'tiny' in options, 'boxes' in options
    clip_sets = () if boxes_only else CLIP_SETS
    steps = 30 if tiny else 1050

    def street(split: str) -> dict:
        return {
            'task': 'street',
            'format': 'ava',
            'videos': str(root / 'street' / split),
            'annotations': (str(root / f'street/ava_{split}.csv'),),
            'labels': str(root / 'street/action_list.pbtxt'),
            'detections': (str(root / f'street/detections_{split}.csv'),),
            'boxes': 'both' if split == 'train' else 'detections',
            'threshold': 0.5,
            'match_iou': 0.5,
            'frames': 8,
            'rate': 8.0,
            'size': (64, 96),
            'max_boxes': 12,
            'scale': (1.0, 1.0),
            'box_jitter': 0.05,
            'batch_size': 8,
        }

    def clips(name: str, split: str) -> dict:
        return {
            'task': name,
            'format': 'clips',
            'videos': str(root / name),
            'annotations': (str(root / name / f'{split}.txt'),),
            'labels': str(root / name / 'classes.txt'),
            'frames': 8,
            'rate': 8.0,
            'size': (48, 48),
            'scale': (1.0, 1.0),
            'batch_size': 24,
        }

    return build.config(
        name='mocapstreet' + ''.join(f'-{option}' for option in options),
        seed=0,
        backbone={
            'kind': 'vivit',
            'width': 96,
            'mlp': 192,
            'heads': 4,
            'spatial_layers': 3,
            'temporal_layers': 1,
            'grid': (4, 8, 12),
            'patch': (8, 8),
            'tubelet': 2,
            'tubelet_init': 'random',
            'position_init': 'sincos',
            'temporal_position_std': 0.3,
        },
        # Motion is what tells actions apart here; a small model that sees colours first does not find it.
        preprocess={'difference': 2.0, 'brightness': 0.1},
        tasks={
            'street': {
                'kind': 'action_detection',
                'class_list': str(root / 'street/action_list.pbtxt'),
                'num_classes': 14,
                'head': {'kind': 'roi', 'size': (6, 4), 'kernel_std': 0.02},
            },
            **{
                name: {
                    'kind': 'classification',
                    'class_list': str(root / name / 'classes.txt'),
                    'num_classes': 10,
                    'label_smoothing': 0.1,
                    # A softmax over a clip has far larger gradients than a mean over boxes and classes; unscaled it
                    # owns the second moments of the shared body, and the boxes hardly learn.
                    'scale': 0.05,
                    'head': {'kind': 'linear', 'kernel_std': 0.02},
                }
                for name in clip_sets
            },
        },
        sources={'street': street('train'), **{name: clips(name, 'train') for name in clip_sets}},
        eval_sources={'street': street('val'), **{name: clips(name, 'val') for name in clip_sets}},
        mixture={'strategy': 'explicit', 'weights': {name: WEIGHTS[name] for name in ('street', *clip_sets)}},
        optimizer={'kind': 'adamw', 'b2': 0.98, 'weight_decay': 0.05},
        schedule={'rate': 8e-4, 'warmup_steps': max(1, steps // 20)},
        train={
            # Alone, the street takes the steps it has in the mixture.
            'steps': round(steps * WEIGHTS['street']) if boxes_only else steps,
            'clip_norm': 1.0,
            'log_odds_bias': True,
        },
        precision={'unroll': 3},
        eval={'batch_size': 32, 'head': 40 if tiny else 1000, 'tail': 15 if tiny else 300},
        log={'log': 10 if tiny else 25, 'save': 10 if tiny else 250},
        hint=f'Make them with: python tools/make_mocapstreet.py --out {folder} --size {"tiny" if tiny else "small"}',
    )
