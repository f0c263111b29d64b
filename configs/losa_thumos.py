"""LoSA on THUMOS-14 or your own videos: adapters beside a frozen backbone of up to a billion parameters, and rivals.

Paper: Gupta et al. 2024, LoSA, tables 1 to 4. Expected there (average mAP at tIoU 0.3 to 0.7, 212 test videos):
VideoMAEv2 g 71.0 with losa and 69.6 with head, B 67.3 and 65.9; not reproduced here, see docs/temporal.md. Memory of a
training step at 576 frames: docs/benchmarks.md (the paper: 40.6 GB). Hardware: one GPU.

  python -m vidloc.main --config=configs/losa_thumos.py:videomae-g,weights=vit_g_hybrid_pt_1200e_k710_ft.pth
  python -m vidloc.main --config=configs/losa_thumos.py:videomae-B,head,weights=vit_b_k710_dl_from_giant.pth
  python -m vidloc.main --config=configs/losa_thumos.py:own,data=data/own,rate=10,videomae-B,weights=...

Argument: words after commas, in any order.
  videomae-g, videomae-B   the backbone (videomae-g)
  weights=PATH       its file (docs/weights.md)
  data=DIR           DIR/annotations.json and DIR/videos (data/thumos14)
  opentad            the JSON is OpenTAD's (training, validation); else ActionFormer's (Validation, Test)
  own                your videos: data=DIR is data/own, its subsets are training and validation, and the classes are
                     those of DIR/classes.txt; csv: DIR/train.csv and DIR/val.csv in place of DIR/annotations.json
  rate=R             frames a second, in place of every 4th
  losa, head, ladder, full   the method: adapters; the head alone; a side ladder (AdaTAD-dagger); everything trains
  no-long, no-short, no-fusion, gate=one|random|cosine   table 4a and 4b
  layers=21-39, layers=15-20+35-39 ...                   table 4c, counted from 1 as there
  short-keys=clip, positions, design=A, pool             what the paper leaves open: docs/losa.md
  frames=N           frames of a window (576), a multiple of 16; N/576 pyramids of the head's smallest length
  side=S             pixels (224)
Every field can be changed by --config.FIELD=VALUE as well.
"""

import pathlib
from typing import Any

from vidloc import build, recipes
from vidloc.config import ConfigError
from vidloc.models import sizes

HERE = 'configs/losa_thumos.py'
CLIP = 16


def get_config(argument: str = ''):
    models = [f'videomae-{size}' for size in ('g', 'B', 'S', 'L', 'H')]
    settings = ('weights', 'data', 'frames', 'side', 'rate')
    asked = recipes.read(HERE, argument, models=models, settings=settings, words=('opentad', 'own', 'csv'))
    own = 'own' in asked.words
    if not own and 'csv' in asked.words:
        raise ConfigError(f'{HERE}: csv is for own videos: say own,csv')
    name = 'own' if own else 'thumos'
    root = pathlib.Path(asked.settings.get('data', 'data/own' if own else 'data/thumos14'))
    frames = recipes.number(HERE, asked.settings, 'frames', 576)
    side = recipes.number(HERE, asked.settings, 'side', 224)
    rate = recipes.measure(HERE, asked.settings, 'rate', 0.0)
    subsets = ('training', 'validation') if own or 'opentad' in asked.words else ('Validation', 'Test')
    names = {'class_list': str(root / 'classes.txt')} if own else {'classes': recipes.THUMOS}

    def windows(subset: str, **fields: Any) -> dict[str, Any]:
        return {
            'task': name,
            **recipes.segments(root, subset, csv='csv' in asked.words),
            'videos': str(root / 'videos'),
            # Every fourth frame: 576 points are 77 s at 30 frames a second.
            'frames': frames,
            'grid': frames,
            'stride': 4,
            'rate': rate,
            'size': (side, side),
            'missing': 'leave_out',
            **fields,
        }

    return build.config(
        name=f'losa_{name}-{asked.name}',
        seed=0,
        init_from=asked.settings.get('weights', ''),
        backbone={'kind': 'videomae', **sizes.SIZES['videomae'][asked.model.partition('-')[2]]},
        side=asked.side(),
        clips={'frames': CLIP, 'chunk': 1, 'memory': 'remat_clips'},
        tasks={name: {'kind': 'temporal_localization', **names, 'head': {'max_length': frames}}},
        # One crop and one policy for all frames of a window; 2 operations of magnitude 9 are RandAugment's usual ones.
        sources={name: windows(subsets[0], keep=0.5, rand_augment=(2, 9.0), batch_size=2)},
        eval_sources={name: windows(subsets[1], overlap=0.5)},
        optimizer={'kind': 'adamw', 'weight_decay': 0.05},
        schedule={'rate': 1e-4, 'kind': 'cosine', 'warmup_epochs': 5.0, 'warmup_from_zero': True, 'end': 1e-8},
        trainable=asked.trainable(),
        # Over thousands of steps; of few videos there are fewer, and a longer average would be of untrained weights.
        train={'batch_size': 2, 'epochs': 35.0, 'clip_norm': 1.0, 'ema': 0.99 if own else 0.999},
        precision={
            'compute': 'bfloat16',
            'frozen': 'bfloat16',
            # A backbone that trains keeps the input of each block of the clips in work, and computes the rest again.
            'remat': 'full' if asked.method == 'full' else 'none',
        },
        eval={'batch_size': 1},
        loading={'workers': 4},
        log={'log': 20, 'save': 200},
        hint=f'docs/temporal.md says how {root} is laid out.',
    )
