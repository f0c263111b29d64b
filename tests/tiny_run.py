"""The recipe of the tests that run the program: as small as co-finetuning can be, with everything random switched on.

Argument: the folder of a MocapStreet of size tiny.
"""

import pathlib

from vidloc import build


def get_config(folder: str):
    root = pathlib.Path(folder)

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
            'frames': 4,
            'rate': 4.0,
            'size': (32, 48),
            'max_boxes': 12,
            'batch_size': 8,
        }

    def studio(split: str) -> dict:
        return {
            'task': 'studio',
            'format': 'clips',
            'videos': str(root / 'studio'),
            'annotations': (str(root / f'studio/{split}.txt'),),
            'labels': str(root / 'studio/classes.txt'),
            'frames': 4,
            'rate': 4.0,
            'size': (24, 24),
            'batch_size': 8,
        }

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
        preprocess={'difference': 2.0, 'brightness': 0.1},
        tasks={
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
        },
        sources={'street': street('train'), 'studio': studio('train')},
        eval_sources={'street': street('val')},
        mixture={'strategy': 'alternating'},
        optimizer={'kind': 'adamw'},
        schedule={'rate': 1e-3, 'warmup_steps': 2},
        train={'steps': 12, 'ema': 0.9, 'log_odds_bias': True},
        eval={'batch_size': 8, 'head': 40, 'tail': 15},
        log={'log': 1, 'save': 2},
        hint='The tests render it.',
    )
