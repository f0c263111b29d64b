"""Few-shot action detection on AVA or on boxes of your own: 15 people a class adapt a frozen video backbone.

Paper: Patel et al. 2025, Group Relative Augmentation for Data Efficient Action Detection (arXiv 2507.21353). Its text
was not at hand, only a summary: docs/fewshot.md tells what is the paper's and what was chosen here. Expected there on
AVA v2.2 with K = 15 (frame mAP): 25.56 with gra, 1.27 M trainable parameters; 24.3 with lora; unweighted, film, 0.3 to
0.5 less than weighted (its table 4, not seen). Not reproduced here. Which backbone the paper adapts is not stated in
the summary; it has 40 layers, and so have videomae-g, vjepa2-g, vjepa2-g-2.1 and internvideo2-1B, all 1,408 wide.
Hardware of the paper: not stated; here one GPU, see docs/fewshot.md for the memory.

  python -m vidloc.main --config=configs/gra_ava.py --mode=describe
  python -m vidloc.main --config=configs/gra_ava.py:weights=vit_g_hybrid_pt_1200e_k710_ft.pth,data=/mnt/videos
  python -m vidloc.main --config=configs/gra_ava.py:lora,internvideo2-1B,weights=InternVideo2-Stage1-1B.pth
  python -m vidloc.main --config=configs/gra_ava.py:own,data=data/own,videomae-B,weights=vit_b_k710_dl_from_giant.pth

Argument: words after commas, in any order.
  videomae-g, vjepa2-g, internvideo2-1B, vivit-L-4 ...   the backbone: a kind and a size of models/sizes.py (videomae-g)
  weights=WHERE      its file (docs/weights.md), or the workdir of a run: with no backbone named, that run's
  data=DIR           the folder with the data (data; with own data/own)
  own                your boxes: DIR/{train,val}.csv, DIR/actions.pbtxt and DIR/videos (docs/fewshot.md)
  gra                LoRA, learned augmentation, group weights, distillation and entropy (the default)
  distilled, weighted, film, lora, head    a part less each: without entropy, distillation, weights, augmentation, LoRA
  noise              as film, with random changes of the features in place of learned ones
  input              flips, zoom and brightness of the pictures, too
  shots=K            people a class (15); shots=0 takes all there are; shots-seed=S: others (0)
  N=10, rank=16      augmentations and the rank of LoRA
  from-layer=30      the first layer with LoRA (the last quarter); after=29: the layer to augment (the one before)
  folds=F, fold=I    hold a fold of the shots out and evaluate on it (`held`), to choose settings by the shots alone;
                     without folds `seen` has the shots themselves: how much is learnt by heart
  no-val             evaluate on the shots alone
  truth              evaluate with true boxes in place of detections, too
  detections         own: evaluate with the boxes of DIR/detections_val.csv in place of true ones
  text=FILE          compare with embeddings of the names of classes (docs/formats.md) in place of a linear output
  frames=N, rate=R, side=S    the clip: frames, frames a second, pixels a side (16, 7.5, 224; see few_shot.CLIPS)
  tiny               a toy model, clip and run: to try the path with tools/make_standin.py, without weights
Every field can be changed by --config.FIELD=VALUE as well.

Where the summary is silent, ours: rank 16, which with N = 10 and a class head by texts is 1,265,664 parameters; the
layer that is augmented; the ROI head of AVA's public recipes behind a layer norm; true boxes in training; loss weights;
AdamW at 5e-4 with 10 % of warm-up for 1,500 steps of 8 keyframes (own: 500); bfloat16 and no augmentation of pictures.
"""

import pathlib
from typing import Any

from vidloc import build, few_shot
from vidloc.config import ConfigError

HERE = 'configs/gra_ava.py'
LAYOUT = """The layout of the data folder (docs/ava.md; change any path with --config.sources.ava.<field>=...):
  ava/videos/<video>.mp4 (or .mkv, .webm), ava/ava_{train,val}_v2.2.csv,
  ava/ava_{train,val}_excluded_timestamps_v2.2.csv, ava/ava_included_timestamps_v2.2.txt,
  ava/ava_action_list_v2.2_for_activitynet_2019.pbtxt,
  ava/person_box_67091280_iou90/ava_detection_val_boxes_and_labels.csv
Nothing at hand? python tools/make_standin.py --out data/standin, then data=data/standin,tiny"""
OWN = """The layout of {root} (docs/fewshot.md; change any path with --config.sources.own.<field>=...):
  videos/, train.csv, actions.pbtxt, and val.csv unless the argument says no-val; detections_val.csv if it says
  detections. Check it with tools/check_data.py."""


def get_config(argument: str = ''):
    asked = few_shot.read(
        HERE,
        argument,
        copies=10,
        models=tuple(few_shot.MODELS),
        settings=few_shot.SETTINGS,
        words=(*few_shot.WORDS, 'own', 'no-val', 'truth', 'detections'),
    )
    own = 'own' in asked.words
    _check(asked)
    name, layout = ('own', _own) if own else ('ava', _ava)
    root = pathlib.Path(asked.settings.get('data', 'data/own' if own else 'data'))
    labels = layout(root, 'train')['labels']
    steps = 40 if asked.tiny else 500 if own else 1500

    def people(split: str, **fields: Any) -> dict[str, Any]:
        return {
            'task': name,
            'format': 'ava',
            **layout(root, split),
            'boxes': 'truth',
            'max_boxes': 40,
            'box_jitter': 0.05,
            # The stand-in's movies are cut at this second, as copies of AVA often are.
            'time_offset': 900.0 if asked.tiny and not own else 0.0,
            **asked.clip(),
            **fields,
        }

    evaluated = {f'{name}_truth': people('val')} if 'truth' in asked.words else {}
    if 'no-val' not in asked.words:
        detected = {'boxes': 'detections', 'detections': (_detected(root, own),), 'threshold': 0.8}
        evaluated[name] = people('val', **(detected if not own or 'detections' in asked.words else {}))
    compared = next(iter(evaluated), '')
    evaluated |= {source: people('train', **shots) for source, shots in asked.on_shots().items()}
    return build.config(
        name=f'gra_ava-{asked.name}',
        tasks={
            name: {
                'class_list': labels,
                # Without the data, --mode=describe reckons with ten classes of your own.
                'num_classes': 60 if not own else 0 if pathlib.Path(labels).is_file() else 10,
                **asked.detector(),
            }
        },
        sources={name: people('train', **asked.shots())},
        eval_sources=evaluated,
        **asked.adapted(steps, workers=2 if own else 8, compared=compared),
        hint=OWN.format(root=root) if own else LAYOUT,
    )


def _ava(root: pathlib.Path, split: str) -> dict[str, Any]:
    ava = root / 'ava'
    return {
        'videos': str(ava / 'videos'),
        'annotations': (str(ava / f'ava_{split}_v2.2.csv'),),
        'labels': str(ava / 'ava_action_list_v2.2_for_activitynet_2019.pbtxt'),
        'excluded': str(ava / f'ava_{split}_excluded_timestamps_v2.2.csv'),
        'included': str(ava / 'ava_included_timestamps_v2.2.txt'),
    }


def _own(root: pathlib.Path, split: str) -> dict[str, Any]:
    return {
        'videos': str(root / 'videos'),
        'annotations': (str(root / f'{split}.csv'),),
        'labels': str(root / 'actions.pbtxt'),
    }


def _detected(root: pathlib.Path, own: bool) -> str:
    if own:
        return str(root / 'detections_val.csv')
    return str(root / 'ava/person_box_67091280_iou90/ava_detection_val_boxes_and_labels.csv')


def _check(asked: few_shot.Request) -> None:
    """Raises ConfigError for words that contradict each other, or say nothing."""
    words = set(asked.words)
    if 'detections' in words and 'own' not in words:
        raise ConfigError(f'{HERE}: detections says nothing here: AVA is evaluated with them; for true boxes say truth')
    if {'own', 'truth'} <= words and 'detections' not in words:
        raise ConfigError(f'{HERE}: truth says nothing here: own boxes are, unless it says detections')
    if strange := sorted(words & {'truth', 'detections'}) if 'no-val' in words else []:
        raise ConfigError(f'{HERE}: {strange[0]} is about val, and no-val leaves it out')
