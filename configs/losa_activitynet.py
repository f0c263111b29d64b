"""LoSA on ActivityNet-1.3: each video as a whole, resampled to one window.

Paper: Gupta et al. 2024, LoSA, table 3b. Expected there (average mAP at tIoU 0.5 to 0.95, 4,926 validation videos):
VideoMAEv2 g 38.6 with losa and 37.1 with head, B 38.1 and 36.8; not reproduced here, see docs/temporal.md. The paper
does not say whether its head tells 200 classes apart or makes proposals that an external classifier labels: the first
is the default, `scores=FILE` is the second. Hardware: GPUs; the batch of 16 is the sum over them
(about 18 GB of host memory while batches are read).

  python -m vidloc.main --config=configs/losa_activitynet.py:videomae-g,weights=vit_g_hybrid_pt_1200e_k710_ft.pth
  python -m vidloc.main --config=configs/losa_activitynet.py:videomae-B,weights=...,scores=data/cuhk_val_simp_7.json

Argument: words after commas, in any order.
  videomae-g, videomae-B   the backbone (videomae-g)
  weights=PATH       its file (docs/weights.md)
  data=DIR           DIR/annotations.json, DIR/classes.txt and DIR/videos/v_<id>.mp4 (data/activitynet)
  scores=FILE        proposals: the head tells action from none, and the two best classes of each video are the file's
  blocked=FILE       videos that cannot be had any more; they leave the truth (4,728 videos stay of OpenTAD's list)
  losa, head, ladder, full   the method: adapters; the head alone; a side ladder (AdaTAD-dagger); everything trains
  no-long, no-short, no-fusion, gate=one|random|cosine   table 4a and 4b
  layers=21-39, layers=15-20+35-39 ...                   table 4c, counted from 1 as there
  short-keys=clip, positions, design=A, pool             what the paper leaves open: docs/losa.md
  frames=N           frames of a video (768), a multiple of 384; a quarter of them are points of the head
  side=S             pixels (224)
Every field can be changed by --config.FIELD=VALUE as well.
"""

import pathlib
from typing import Any

from vidloc import build, recipes
from vidloc.models import sizes

HERE = 'configs/losa_activitynet.py'
CLIP = 16


def get_config(argument: str = ''):
    models = [f'videomae-{size}' for size in ('g', 'B', 'S', 'L', 'H')]
    settings = ('weights', 'data', 'frames', 'side', 'scores', 'blocked')
    asked = recipes.read(HERE, argument, models=models, settings=settings)
    root = pathlib.Path(asked.settings.get('data', 'data/activitynet'))
    frames = recipes.number(HERE, asked.settings, 'frames', 768)
    side = recipes.number(HERE, asked.settings, 'side', 224)
    scores = asked.settings.get('scores', '')
    points = frames // 4

    def whole(subset: str, **fields: Any) -> dict[str, Any]:
        return {
            'task': 'activitynet',
            'format': 'activitynet',
            'annotations': (str(root / 'annotations.json'),),
            'subset': subset,
            'blocked': asked.settings.get('blocked', ''),
            'prefix': 'v_',
            'videos': str(root / 'videos'),
            'mode': 'resize',
            'frames': frames,
            'grid': points,
            'size': (side, side),
            'missing': 'leave_out',
            **fields,
        }

    return build.config(
        name=f'losa_activitynet-{asked.name}',
        seed=0,
        init_from=asked.settings.get('weights', ''),
        backbone={'kind': 'videomae', **sizes.SIZES['videomae'][asked.model.partition('-')[2]]},
        side=asked.side(),
        clips={'frames': CLIP, 'chunk': 1, 'memory': 'remat_clips'},
        tasks={
            'activitynet': {
                'kind': 'temporal_localization',
                'class_list': str(root / 'classes.txt'),
                'num_classes': 200,
                **recipes.activitynet(scores, points),
            }
        },
        # One crop and one policy for all frames of a video; 2 operations of magnitude 9 are RandAugment's usual ones.
        sources={'activitynet': whole('training', rand_augment=(2, 9.0))},
        eval_sources={'activitynet': whole('validation')},
        optimizer={'kind': 'adamw', 'weight_decay': 0.05},
        schedule={'rate': 1e-3, 'kind': 'cosine', 'warmup_epochs': 5.0, 'warmup_from_zero': True, 'end': 1e-8},
        trainable=asked.trainable(),
        train={'batch_size': 16, 'epochs': 15.0, 'clip_norm': 1.0, 'ema': 0.999},
        precision={
            'compute': 'bfloat16',
            'frozen': 'bfloat16',
            # A backbone that trains keeps the input of each block of the clips in work, and computes the rest again.
            'remat': 'full' if asked.method == 'full' else 'none',
        },
        eval={'batch_size': 4},
        # A batch is 1.85 GB of frames; each worker has one in work and one ready.
        loading={'workers': 4, 'prefetch': 1},
        log={'log': 20, 'save': 500},
        hint=f'docs/temporal.md says how {root} is laid out.',
    )
