"""Few-shot action detection on MOMA-LRG or MOMA 1.0: 15 people a class adapt a frozen video backbone.

Paper: Patel et al. 2025, Group Relative Augmentation for Data Efficient Action Detection (arXiv 2507.21353). Its text
was not at hand, only a summary: docs/fewshot.md tells what is the paper's and what was chosen here. It says that MOMA
was tried and that N = 8 is best there; figures, the number of shots, which MOMA, which classes and which videos are
evaluated are not in it, nor is the backbone. Hardware of the paper: not stated; here one GPU, see docs/fewshot.md for
the memory. Without the data --mode=describe reckons with 42 classes (MOMA 1.0: 52).

  python tools/check_data.py --format moma --annotations data/moma/anns/anns.json --videos data/moma/videos/raw \\
    --write_labels data/moma/actions.pbtxt
  python -m vidloc.main --config=configs/gra_moma.py:weights=vit_g_hybrid_pt_1200e_k710_ft.pth
  python -m vidloc.main --config=configs/gra_moma.py:moma1,lora,vjepa2-g,weights=vitg.pt,data=data/moma1

Argument: words after commas, in any order.
  videomae-g, vjepa2-g, internvideo2-1B, vivit-L-4 ...   the backbone: a kind and a size of models/sizes.py (videomae-g)
  weights=WHERE      its file (docs/weights.md), or the workdir of a run: with no backbone named, that run's
  data=DIR           the folder with the data (data/moma, with moma1 data/moma1)
  moma1              MOMA 1.0: videos trimmed to sub-activities
  test               evaluate on the test videos of MOMA-LRG in place of val
  gra                LoRA, learned augmentation, group weights, distillation and entropy (the default)
  distilled, weighted, film, lora, head    a part less each: without entropy, distillation, weights, augmentation, LoRA
  noise              as film, with random changes of the features in place of learned ones
  input              flips, zoom and brightness of the pictures, too
  shots=K            people a class (15); shots=0 takes all there are; shots-seed=S: others (0)
  N=8, rank=16       augmentations and the rank of LoRA
  from-layer=30      the first layer with LoRA (the last quarter); after=29: the layer to augment (the one before)
  folds=F, fold=I    hold a fold of the shots out and evaluate on it (`held`), to choose settings by the shots alone;
                     without folds `seen` has the shots themselves: how much is learnt by heart
  no-val             evaluate on the shots alone
  detections         evaluate with the boxes of DIR/detections_{val,test}.csv in place of true ones
  text=FILE          compare with embeddings of the names of classes (docs/formats.md) in place of a linear output
  frames=N, rate=R, side=S    the clip: frames, frames a second, pixels a side (16, 7.5, 224; see few_shot.CLIPS)
  tiny               a toy model, clip and run, without weights
Every field can be changed by --config.FIELD=VALUE as well.

Ours: actions are those of both lists of actions of MOMA-LRG (sources.moma.actions), with true boxes, and everything
else as in configs/gra_ava.py.
"""

import pathlib
from typing import Any

from vidloc import build, few_shot
from vidloc.config import ConfigError

HERE = 'configs/gra_moma.py'
LAYOUT = """The layout of {root} (docs/formats.md; change any path with --config.sources.moma.<field>=...):
  {annotations}, {split}, {videos}/
  actions.pbtxt    python tools/check_data.py --format moma --annotations {root}/{annotations} --write_labels
                   {root}/actions.pbtxt"""
LRG = {'annotations': 'anns/anns.json', 'split': 'anns/splits/standard.json', 'videos': 'videos/raw'}
FIRST = {'annotations': 'graph_anns.json', 'split': 'split_by_trim/{subset}.txt', 'videos': 'trim_videos'}


def get_config(argument: str = ''):
    asked = few_shot.read(
        HERE,
        argument,
        copies=8,
        models=tuple(few_shot.MODELS),
        settings=few_shot.SETTINGS,
        words=(*few_shot.WORDS, 'moma1', 'test', 'no-val', 'detections'),
    )
    words = set(asked.words)
    if {'moma1', 'test'} <= words:
        raise ConfigError(f'{HERE}: MOMA 1.0 has no test videos; leave out test')
    if strange := sorted(words & {'test', 'detections'}) if 'no-val' in words else []:
        raise ConfigError(f'{HERE}: {strange[0]} is about what no-val leaves out')
    first = 'moma1' in words
    root = pathlib.Path(asked.settings.get('data', 'data/moma1' if first else 'data/moma'))
    files, classes = (FIRST, 52) if first else (LRG, 42)
    labels = root / 'actions.pbtxt'
    scored = 'test' if 'test' in words else 'val'
    steps = 40 if asked.tiny else 1500

    def people(subset: str, **fields: Any) -> dict[str, Any]:
        return {
            'task': 'moma',
            'format': 'moma',
            'videos': str(root / files['videos']),
            'annotations': (str(root / files['annotations']),),
            'labels': str(labels),
            'split': str(root / files['split'].format(subset=subset)),
            'subset': '' if first else subset,
            'boxes': 'truth',
            'max_boxes': 40,
            'box_jitter': 0.05,
            **asked.clip(),
            **fields,
        }

    detected = {'boxes': 'detections', 'detections': (str(root / f'detections_{scored}.csv'),), 'threshold': 0.8}
    evaluated = {} if 'no-val' in words else {'moma': people(scored, **(detected if 'detections' in words else {}))}
    compared = next(iter(evaluated), '')
    evaluated |= {source: people('train', **shots) for source, shots in asked.on_shots().items()}
    return build.config(
        name=f'gra_moma-{asked.name}',
        tasks={
            'moma': {
                'class_list': str(labels),
                'num_classes': 0 if labels.is_file() else classes,
                **asked.detector(),
            }
        },
        sources={'moma': people('train', **asked.shots())},
        eval_sources=evaluated,
        **asked.adapted(steps, workers=8, compared=compared),
        hint=LAYOUT.format(root=root, **{key: value.format(subset='{train,val}') for key, value in files.items()}),
    )
