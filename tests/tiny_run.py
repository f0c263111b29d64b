"""The recipe of the tests that run the program: a model as small as can be, with everything random switched on.

Argument: the folder of a MocapStreet of size tiny, then options after commas. `street`: boxes alone, as two sources
that feed one task (one program is compiled in place of two). `unscored`: nothing is evaluated.
"""

import pathlib

from vidloc import build

CLIP = {'frames': 4, 'rate': 4.0, 'batch_size': 8}


def get_config(argument: str):
    folder, *options = argument.split(',')
    root = pathlib.Path(folder)

    def street(split: str, boxes: str) -> dict:
        return {
            'task': 'street',
            'format': 'ava',
            'videos': str(root / 'street' / split),
            'annotations': (str(root / f'street/ava_{split}.csv'),),
            'labels': str(root / 'street/action_list.pbtxt'),
            'detections': (str(root / f'street/detections_{split}.csv'),),
            'boxes': boxes,
            'threshold': 0.5,
            'match_iou': 0.5,
            'size': (32, 48),
            'max_boxes': 12,
            **CLIP,
        }

    studio = {
        'task': 'studio',
        'format': 'clips',
        'videos': str(root / 'studio'),
        'annotations': (str(root / 'studio/train.txt'),),
        'labels': str(root / 'studio/classes.txt'),
        'size': (24, 24),
        **CLIP,
    }
    tasks = {
        'street': {
            'kind': 'action_detection',
            'class_list': str(root / 'street/action_list.pbtxt'),
            'num_classes': 14,
            'head': {'kind': 'roi', 'size': (2, 2), 'kernel_std': 0.02},
        },
        'studio': {
            'kind': 'classification',
            'class_list': str(root / 'studio/classes.txt'),
            'num_classes': 10,
            'head': {'kind': 'linear', 'kernel_std': 0.02},
        },
    }
    if 'street' in options:
        del tasks['studio']
    sources = {'street': street('train', 'both')}
    sources |= {'truth': street('train', 'truth')} if 'street' in options else {'studio': studio}

    return build.config(
        name='tiny_run',
        backbone={
            'kind': 'vivit',
            'width': 16,
            'mlp': 32,
            'heads': 2,
            'spatial_layers': 1,
            'temporal_layers': 1,
            'grid': (2, 4, 6),
            'patch': (8, 8),
            'tubelet': 2,
            'dropout': 0.1,
        },
        preprocess={'brightness': 0.1},
        tasks=tasks,
        sources=sources,
        eval_sources={} if 'unscored' in options else {'street': street('val', 'detections')},
        mixture={'strategy': 'weighted'},
        optimizer={'kind': 'adamw'},
        schedule={'rate': 1e-3, 'warmup_steps': 2},
        train={'steps': 5, 'ema': 0.9, 'log_odds_bias': True},
        eval={'batch_size': 8, 'head': 40, 'tail': 15},
        log={'log': 1, 'save': 3},
    )
