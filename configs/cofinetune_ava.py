"""Co-finetuning on AVA with Kinetics-400, Moments in Time and Something-Something v2, as the paper does it.

Paper: Arnab et al. 2022, Beyond transfer learning: co-finetuning for action localisation. Table 4 (ViViT-B, 224):
26.8 mAP on AVA v2.2 with all four sets, 23.4 when fine-tuned on AVA alone. The paper starts from ImageNet-21k
weights; from scratch, as this file stands until such weights are named, the figures will be lower. Hardware of
the paper: TPUs; time not stated. About 169,000 steps of 128 clips for 1.44 M examples an epoch.

  python -m vidloc.main --config=configs/cofinetune_ava.py:DATA --mode=describe
  python -m vidloc.main --config=configs/cofinetune_ava.py:DATA

Argument: the folder with the data sets (default `data`), laid out as below; each path is a field of its own, such as
--config.sources.k400.videos=/mnt/kinetics.
The same goes for eval_sources.<name> and tasks.<name>.class_list. Settings are those of the paper's section 4.1 and
appendix A.1. Not in the paper, and our choice: clipping the gradient at 1 (as in google-research/scenic's ViViT),
flips, the random place of a zoomed frame, clip sets placed like AVA, ROI-Align 7 x 7 with max, and AVA's 60 evaluated
classes only. A worker reads whole batches, 616 MB of frames each at 128 clips: take fewer where memory is short.
"""

import pathlib

from vidloc import build

# Sizes: vivit, table 1, and google-research/scenic projects/vivit (4 temporal layers).
VIVIT_B = {
    'kind': 'vivit',
    'width': 768,
    'mlp': 3072,
    'heads': 12,
    'spatial_layers': 12,
    'temporal_layers': 4,
    'patch': (16, 16),
    'tubelet': 2,
    'cls': True,
}
FRAMES, SIZE = 32, 224
# Seconds between frames are stride 2 of 30 frames a second.
RATE = 15.0
# {task: classes}; names come from the class lists.
CLIP_SETS = {'k400': 400, 'mit': 339, 'ssv2': 174}
LAYOUT = """Expected layout of the data folder (change any path with --config.sources.<name>.<field>=...):
  ava/videos/<video>.mp4 (or .mkv, .webm)         the movies, whole or cut; for cuts set time_offset to their start
  ava/ava_train_v2.2.csv, ava_val_v2.2.csv, ava_*_excluded_timestamps_v2.2.csv and
  ava/ava_action_list_v2.2_for_activitynet_2019.pbtxt, all from https://research.google.com/ava/download.html
  ava/ava_detection_{train,val}_boxes_and_labels_include_negative_v2.2.csv (person boxes; SlowFast's DATASET.md)
  {k400,mit,ssv2}/videos/..., {train,val}.txt with a line `path label` for each clip, and classes.txt
Check a set with: python tools/check_data.py --format ava|clips --annotations ... --videos ...
Nothing at hand? python tools/make_mocapstreet.py makes a small data set with the same structure (tools/demo.sh)."""


def get_config(argument: str = 'data'):
    root = pathlib.Path(argument)
    ava = root / 'ava'
    action_list = str(ava / 'ava_action_list_v2.2_for_activitynet_2019.pbtxt')

    def boxes(split: str) -> dict:
        return {
            'task': 'ava',
            'format': 'ava',
            'videos': str(ava / 'videos'),
            'annotations': (str(ava / f'ava_{split}_v2.2.csv'),),
            'labels': action_list,
            'detections': (str(ava / f'ava_detection_{split}_boxes_and_labels_include_negative_v2.2.csv'),),
            'excluded': str(ava / f'ava_{split}_excluded_timestamps_v2.2.csv'),
            'boxes': 'detections',
            'threshold': 0.8,
            'frames': FRAMES,
            'rate': RATE,
            'size': (SIZE, SIZE),
            'max_boxes': 40,
            'scale': (0.65, 1.1),
            'box_jitter': 0.15,
        }

    def clips(name: str, split: str) -> dict:
        return {
            'task': name,
            'format': 'clips',
            'videos': str(root / name / 'videos'),
            'annotations': (str(root / name / f'{split}.txt'),),
            'labels': str(root / name / 'classes.txt'),
            'frames': FRAMES,
            'rate': RATE,
            'size': (SIZE, SIZE),
            'scale': (0.65, 1.1),
            # Something-Something's labels tell left from right.
            'flip': 0.0 if name == 'ssv2' else 0.5,
        }

    return build.config(
        name='cofinetune_ava',
        seed=0,
        backbone={**VIVIT_B, 'grid': (FRAMES // 2, SIZE // 16, SIZE // 16), 'drop_path': 0.2},
        tasks={
            'ava': {
                'kind': 'action_detection',
                'class_list': action_list,
                'num_classes': 60,
                'label_smoothing': 0.1,
                'head': {'kind': 'roi'},
            },
            **{
                name: {
                    'kind': 'classification',
                    'class_list': str(root / name / 'classes.txt'),
                    'num_classes': classes,
                    'label_smoothing': 0.1,
                }
                for name, classes in CLIP_SETS.items()
            },
        },
        sources={'ava': boxes('train'), **{name: clips(name, 'train') for name in CLIP_SETS}},
        eval_sources={'ava': boxes('val'), **{name: clips(name, 'val') for name in CLIP_SETS}},
        mixture={'strategy': 'weighted'},
        optimizer={'kind': 'sgd', 'momentum': 0.9},
        schedule={'rate': 0.2, 'warmup_epochs': 2.5, 'kind': 'cosine'},
        train={'batch_size': 128, 'epochs': 15.0, 'clip_norm': 1.0},
        eval={'head': 10_000, 'tail': 1_000},
        checkpoint={'best': 'eval/ava/frame_map@0.5'},
        log={'evaluate': 11_000, 'save': 1_000},
        precision={'compute': 'bfloat16', 'remat': 'full'},
        loading={'workers': 8, 'prefetch': 2},
        hint=LAYOUT,
    )
