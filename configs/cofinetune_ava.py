"""Co-finetuning on AVA with Kinetics, Moments in Time and Something-Something v2: each row of the paper's tables.

Paper: Arnab et al. 2022, Beyond transfer learning: co-finetuning for action localisation. ROWS below has what each of
its own rows trains on and the figures it reaches; docs/ava.md has the same as a table, and how to lay out the data.
The paper starts everything from ImageNet-21k weights: give them to the rows that follow no other with from=FILE
(docs/ava.md says which); from scratch, figures will be lower. Hardware of the paper: TPUs; time not stated. table3.4 is
about 169,000 steps of 128 clips (15 epochs of 1.44 M examples).

  python -m vidloc.main --config=configs/cofinetune_ava.py --mode=describe
  python -m vidloc.main --config=configs/cofinetune_ava.py:table3.4,from=ViT-B_16.npz,data=/mnt/videos
  python -m vidloc.main --config=configs/cofinetune_ava.py:L,512,ava,k700,mit,ssv2
  python -m vidloc.main --config=configs/cofinetune_ava.py:table1a.2      (after the same command with table1a.1)

Argument: words after commas, in any order.
  table3.4 ...         a row of the paper, see ROWS; `table8.352.baseline` has its column in its name too
  ava, ava_kinetics, k400, k600, k700, mit, ssv2      the sets to train on together (default ava,k400,mit,ssv2)
  B, L                 the size of ViViT (B)
  224, 352, 416, 512   the longer side of the input (224)
  weighted, alternating      how sets are drawn (weighted)
  from=WHERE           start from weights (from=ViT-B_16.npz, as the paper does) or from the backbone of a run (its
                       workdir, or WORKDIR@best)
  positions=224        learn positions for that side and resize them to the input (default: the input's own)
  data=DIR             the folder with the sets (data)
  prepared=DIR         read videos from DIR/<set>/{train,val}, made by tools/prepare_data.py
  truth                evaluate with true boxes in place of detections, too
  leave_out            go on without videos that are missing, counting them
  tiny                 a toy model, clip and run in place of the paper's: to try the path with tools/make_standin.py
A row takes only those from `from` on; every field can be changed by --config.FIELD=VALUE as well.

Settings are those of section 4.1 and appendix A.1. Ours, where the paper is silent: clipping the gradient at 1 (as in
google-research/scenic's ViViT), flips (for Something-Something none of a label with a side), the random place of a
zoomed frame, clip sets placed like AVA, ROI-Align 7 x 7 with max, AVA's 60 evaluated classes only, 15 epochs and 224
for pretraining too, whose 14 x 14 positions are resized when a row of table 8 fine-tunes at more. ViViT-L has 4
temporal layers: that is the default of the ViViT paper's factorised encoder and of scenic's Something-Something
configs; scenic's Kinetics checkpoints have 24, which would double the cost here, where the temporal encoder runs at
each place. Set --config.backbone.temporal_layers=24 to start from such a run.
A worker reads whole batches, 616 MB of frames each at 128 clips of 224: take fewer where memory is short.
"""

import pathlib
from typing import Any, NamedTuple

from vidloc import build
from vidloc.config import ConfigError, nearest

# Widths: vivit, table 1, and google-research/scenic projects/vivit.
SIZES = {
    'B': {'width': 768, 'mlp': 3072, 'heads': 12, 'spatial_layers': 12, 'temporal_layers': 4},
    'L': {'width': 1024, 'mlp': 4096, 'heads': 16, 'spatial_layers': 24, 'temporal_layers': 4},
}
SIDES = ('224', '352', '416', '512')
PATCH, FRAMES = 16, 32
# Seconds between frames are stride 2 of 30 frames a second.
RATE = 15.0
# {clip set: classes}; names come from the sets' own files.
CLIP_SETS = {'k400': 400, 'k600': 600, 'k700': 700, 'mit': 339, 'ssv2': 174}
BOX_SETS = ('ava', 'ava_kinetics')
USUAL = ('ava', 'k400', 'mit', 'ssv2')
STRATEGIES = ('weighted', 'alternating')
SWITCHES = ('truth', 'leave_out', 'tiny')
SETTINGS = ('from', 'positions', 'data', 'prepared')
WTS = (
    'starts from weights trained on WTS (60 million weakly labelled videos), which were never published; with weights '
    'of your own, add from=WORKDIR'
)


class Row(NamedTuple):
    """words: what the row trains on, as the argument's words. reach: {source: the paper's figure in percent}.

    after: the row whose backbone this one starts from. wts: whether it starts from weights that nobody has.
    """

    words: str
    reach: dict[str, float]
    after: str = ''
    wts: bool = False


# Counted as in the paper; table 6 and 7 have other people's models first.
ROWS = {
    'table1a.1': Row('k400', {'k400': 74.9}),
    'table1a.2': Row('ava', {'ava': 23.4}, after='table1a.1'),
    'table1a.3': Row('ava,k400', {'ava': 25.2, 'k400': 76.2}),
    'table1b.1': Row('mit', {'mit': 36.8}),
    'table1b.2': Row('ava', {'ava': 24.8}, after='table1b.1'),
    'table1b.3': Row('ava,mit', {'ava': 26.1, 'mit': 38.1}),
    'table2.1': Row('mit', {'mit': 37.2}, after='table1a.1'),
    'table2.2': Row('k400', {'k400': 76.3}, after='table1b.1'),
    'table2.3': Row('ava', {'ava': 25.3}, after='table2.1'),
    'table2.4': Row('ava', {'ava': 25.1}, after='table2.2'),
    'table2.5': Row('ava,k400,mit', {'ava': 26.3, 'k400': 76.7, 'mit': 38.9}),
    'table3.1': Row('ava', {'ava': 23.4}, after='table1a.1'),
    'table3.2': Row('ava,k400', {'ava': 25.2}),
    'table3.3': Row('ava,k400,mit', {'ava': 26.3}),
    'table3.4': Row('ava,k400,mit,ssv2', {'ava': 26.8}),
    'table4.1': Row('ava,k400,mit,alternating', {'ava': 25.0, 'k400': 76.4, 'mit': 34.8}),
    'table4.2': Row('ava,k400,mit', {'ava': 26.3, 'k400': 76.7, 'mit': 38.9}),
    'table5.1': Row('ava,512', {'ava': 33.3}, wts=True),
    'table5.2': Row('ava,k400,mit,ssv2,512', {'ava': 34.2}, wts=True),
    'table6.10': Row('B,ava,k400,mit,ssv2,512', {'ava': 31.2}),
    'table6.11': Row('L,ava,k700,mit,ssv2,512', {'ava': 32.8}),
    'table6.12': Row('B,ava,k400,mit,ssv2,512', {'ava': 34.2}, wts=True),
    'table6.13': Row('L,ava,k700,mit,ssv2,512', {'ava': 36.1}, wts=True),
    # Both parts together, on detections and on true boxes (section 4.3; the word `truth`).
    'table7.3': Row('L,ava_kinetics,k700,mit,ssv2,512', {'ava_kinetics': 33.1, 'ava_kinetics_truth': 47.0}),
    'table7.4': Row('L,ava_kinetics,k700,mit,ssv2,512', {'ava_kinetics': 36.2}, wts=True),
    **{
        f'table8.{side}.baseline': Row(f'ava,{side},positions=224', {'ava': figure}, after='table1a.1')
        for side, figure in zip(SIDES, (23.4, 26.9, 27.5, 28.5), strict=True)
    },
    **{
        f'table8.{side}.cofinetuning': Row(f'ava,k400,mit,{side}', {'ava': figure})
        for side, figure in zip(SIDES, (26.3, 29.1, 30.1, 31.0), strict=True)
    },
}
LAYOUT = """The layout of the data folder (docs/ava.md; change any path with --config.sources.<name>.<field>=...):
  ava/videos/<video>.mp4 (or .mkv, .webm)    movies, whole or cut; for cuts set time_offset to their start
  ava/ava_{train,val}_v2.2.csv, ava_{train,val}_excluded_timestamps_v2.2.csv, ava_included_timestamps_v2.2.txt,
  ava/ava_action_list_v2.2_for_activitynet_2019.pbtxt       https://research.google.com/ava/download.html
  ava/person_box_67091280_iou90/*.csv                       person boxes; see SlowFast's DATASET.md
  ava/kinetics_{train,val}_v1.0.csv, ava/kinetics_detection_val.csv and the clips in k700/    AVA-Kinetics only
  k400/annotations/{train,val}.csv, k400/{train,val}/       as the CVDF copy has it; k600 and k700 likewise
  mit/{trainingSet,validationSet}.csv, mit/moments_categories.txt, mit/{training,validation}/<category>/*.mp4
  ssv2/labels/{train,validation,labels}.json, ssv2/20bn-something-something-v2/<id>.webm
Check a set with tools/check_data.py. Nothing at hand? python tools/make_standin.py --out data writes a small stand-in
with this layout, for the word `tiny`."""


class Request(NamedTuple):
    """What an argument asks for; see the words in the text above. row: '' without one. start: init_from."""

    row: str
    sets: tuple[str, ...]
    size: str
    side: int
    positions: int
    strategy: str
    start: str
    data: str
    prepared: str
    switches: frozenset[str]


def read_argument(argument: str) -> Request:
    """The words of an argument. Raises ConfigError for unknown, contradicting and missing words."""
    words = [word.strip() for word in argument.split(',') if word.strip()]
    kinds = {
        'row': tuple(ROWS),
        'set': (*BOX_SETS, *CLIP_SETS),
        'size': tuple(SIZES),
        'side': SIDES,
        'strategy': STRATEGIES,
        'switch': SWITCHES,
    }
    kind_of = {word: kind for kind, known in kinds.items() for word in known}
    found: dict[str, list[str]] = {kind: [] for kind in kinds}
    settings: dict[str, str] = {}
    row = next((word for word in words if word in ROWS), '')
    for word in [*(ROWS[row].words.split(',') if row else ()), *words]:
        key, sign, value = word.partition('=')
        if sign and key in SETTINGS:
            settings[key] = value
        elif word in kind_of:
            found[kind_of[word]].append(word)
        else:
            hint = nearest(word, [*kind_of, *(f'{key}=' for key in SETTINGS)])
            folder = f'; a folder is given as data={word}' if pathlib.Path(word).is_dir() or '/' in word else ''
            raise ConfigError(f'configs/cofinetune_ava.py: there is no word {word!r}; {hint}{folder}')
    if row and (extra := [word for word in words if word != row and kind_of.get(word) not in (None, 'switch')]):
        raise ConfigError(
            f'configs/cofinetune_ava.py: {row} is {ROWS[row].words}; to change it, write these words without {row}, '
            f'and add {",".join(extra)}'
        )
    for kind in ('size', 'side', 'strategy'):
        if len(set(found[kind])) > 1:
            raise ConfigError(f'configs/cofinetune_ava.py: {" and ".join(found[kind])} exclude each other')
    sets = tuple(name for name in (*BOX_SETS, *CLIP_SETS) if name in found['set']) or USUAL
    if set(BOX_SETS) <= set(sets):
        raise ConfigError('configs/cofinetune_ava.py: ava_kinetics contains ava; name one of them')
    if 'truth' in found['switch'] and not set(BOX_SETS) & set(sets):
        raise ConfigError(f'configs/cofinetune_ava.py: truth evaluates boxes, and {",".join(sets)} has none')
    side = int((found['side'] or SIDES)[0])
    positions = settings.get('positions', str(side))
    if positions not in SIDES:
        raise ConfigError(f'configs/cofinetune_ava.py: positions={positions} is none of {", ".join(SIDES)}')
    start = settings.get('from', '')
    if row and ROWS[row].wts and not start:
        raise ConfigError(f'configs/cofinetune_ava.py: {row} {WTS}')
    if row and ROWS[row].after and not start:
        # The same words, so that data and size are the same; true boxes matter for evaluating alone.
        before = [ROWS[row].after if word.strip() == row else word for word in argument.split(',')]
        start = workdir_of(','.join(word for word in before if word.strip() != 'truth'))
    return Request(
        row,
        sets,
        (found['size'] or ['B'])[0],
        side,
        int(positions),
        (found['strategy'] or STRATEGIES)[0],
        start,
        settings.get('data', 'data'),
        settings.get('prepared', ''),
        frozenset(found['switch']),
    )


def workdir_of(argument: str) -> str:
    """Where vidloc.main puts the run of an argument unless it is told (main.default_workdir, which cannot be imported
    by a config that it loads)."""
    safe = ''.join(c if c.isalnum() or c in '._' else '-' for c in argument)
    return f'runs/cofinetune_ava-{safe}'


def get_config(argument: str = ''):
    asked = read_argument(argument)
    tiny = 'tiny' in asked.switches
    root = pathlib.Path(asked.data)
    ava = root / 'ava'
    action_list = str(ava / 'ava_action_list_v2.2_for_activitynet_2019.pbtxt')
    side, frames, rate = (64, 8, 7.5) if tiny else (asked.side, FRAMES, RATE)
    positions = side if tiny else asked.positions
    kinetics_boxes = 'ava_kinetics' in asked.sets
    boxes = kinetics_boxes or 'ava' in asked.sets
    clip_sets = [name for name in asked.sets if name in CLIP_SETS]
    view = {
        'frames': frames,
        'rate': rate,
        'size': (side, side),
        'scale': (0.65, 1.1),
        'missing': 'leave_out' if 'leave_out' in asked.switches else 'refuse',
    }

    def videos(source: str, split: str, folder: pathlib.Path) -> str:
        return str(pathlib.Path(asked.prepared) / source / split if asked.prepared else folder)

    def people(split: str, **fields: Any) -> dict:
        """Boxes of `ava` or, with other fields, of `kinetics_boxes`."""
        found = f'ava_detection_{split}_boxes_and_labels{"_include_negative_v2.2" if split == "train" else ""}.csv'
        common = {
            'task': 'ava',
            'format': 'ava',
            'videos': videos('ava', split, ava / 'videos'),
            'annotations': (str(ava / f'ava_{split}_v2.2.csv'),),
            'labels': action_list,
            'detections': (str(ava / 'person_box_67091280_iou90' / found),),
            'excluded': str(ava / f'ava_{split}_excluded_timestamps_v2.2.csv'),
            'included': str(ava / 'ava_included_timestamps_v2.2.txt'),
            'boxes': 'detections',
            'threshold': 0.8,
            # The folder's name says at what overlap its labels were copied; what has none there is to have none here.
            'match_iou': 0.9,
            'max_boxes': 40,
            'box_jitter': 0.15,
            # The stand-in's movies are cut at this second, as copies of AVA often are.
            'time_offset': 900.0 if tiny else 0.0,
        }
        if kinetics_boxes:
            # AVA-Kinetics trains on true boxes and tests on detections above 0.2: more of them on a keyframe.
            common |= {'boxes': 'truth', 'detections': ()} if split == 'train' else {'threshold': 0.2, 'max_boxes': 100}
        return {**common, **view, **fields}

    def clip_people(split: str, **fields: Any) -> dict:
        return people(
            split,
            **{
                'videos': videos('kinetics_boxes', split, root / 'k700' / split),
                'annotations': (str(ava / f'kinetics_{split}_v1.0.csv'),),
                'detections': () if split == 'train' else (str(ava / 'kinetics_detection_val.csv'),),
                'excluded': '',
                'included': '',
                'time_offset': 0.0,
                **fields,
            },
        )

    def person_sources(split: str) -> dict:
        """Sources that feed the task `ava`; the parts of AVA-Kinetics are evaluated apart and together."""
        if not boxes:
            return {}
        made = {'ava': people(split)} | ({'kinetics_boxes': clip_people(split)} if kinetics_boxes else {})
        if split == 'val' and 'truth' in asked.switches:
            given = {'boxes': 'truth', 'detections': ()}
            made['ava_truth'] = people(split, **given)
            if kinetics_boxes:
                made['kinetics_boxes_truth'] = clip_people(split, **given)
        return made

    def clips(name: str, split: str) -> dict:
        folder = root / name
        if name == 'mit':
            long = {'train': 'training', 'val': 'validation'}[split]
            files = {
                'format': 'moments',
                'videos': videos(name, split, folder / long),
                'annotations': (str(folder / f'{long}Set.csv'),),
                'labels': class_file(name),
            }
        elif name == 'ssv2':
            long = {'train': 'train', 'val': 'validation'}[split]
            files = {
                'format': 'something',
                'videos': videos(name, split, folder / '20bn-something-something-v2'),
                'annotations': (str(folder / 'labels' / f'{long}.json'),),
                'labels': class_file(name),
            }
        else:
            files = {
                'format': 'kinetics',
                'videos': videos(name, split, folder / split),
                'annotations': (str(folder / 'annotations' / f'{split}.csv'),),
                'labels': class_file(name),
            }
        return {'task': name, **files, **view}

    def class_file(name: str) -> str:
        own = {'mit': 'moments_categories.txt', 'ssv2': 'labels/labels.json'}
        return str(root / name / own.get(name, 'annotations/train.csv'))

    def counted(classes: int) -> int:
        # The stand-in has fewer classes than the clip sets that it stands for.
        return 0 if tiny else classes

    tasks = {
        name: {
            'kind': 'classification',
            'class_list': class_file(name),
            'num_classes': counted(CLIP_SETS[name]),
            'label_smoothing': 0.1,
        }
        for name in clip_sets
    }
    if boxes:
        tasks['ava'] = {
            'kind': 'action_detection',
            'class_list': action_list,
            'num_classes': 60,
            'label_smoothing': 0.1,
            'head': {'kind': 'roi'},
        }
    unions = {}
    if kinetics_boxes:
        unions['ava_kinetics'] = ('ava', 'kinetics_boxes')
        if 'truth' in asked.switches:
            unions['ava_kinetics_truth'] = ('ava_truth', 'kinetics_boxes_truth')
    scored = 'ava_kinetics' if kinetics_boxes else 'ava'
    best = f'eval/{scored}/frame_map@0.5' if boxes else f'eval/{clip_sets[0]}/top1'
    model = {'width': 64, 'mlp': 128, 'heads': 4, 'spatial_layers': 2, 'temporal_layers': 1} if tiny else None
    grid = (frames // 2, positions // PATCH, positions // PATCH)
    return build.config(
        name='cofinetune_ava',
        seed=0,
        init_from=asked.start,
        backbone={
            'kind': 'vivit',
            **(model or SIZES[asked.size]),
            'patch': (PATCH, PATCH),
            'tubelet': 2,
            'cls': True,
            'grid': grid,
            'drop_path': 0.2,
        },
        tasks=tasks,
        sources={**person_sources('train'), **{name: clips(name, 'train') for name in clip_sets}},
        eval_sources={**person_sources('val'), **{name: clips(name, 'val') for name in clip_sets}},
        mixture={'strategy': asked.strategy},
        optimizer={'kind': 'sgd', 'momentum': 0.9},
        schedule={'rate': 0.2, 'kind': 'cosine', **({'warmup_steps': 10} if tiny else {'warmup_epochs': 2.5})},
        train={
            'clip_norm': 1.0,
            **(
                {'batch_size': 8, 'steps': 60}
                if tiny
                # Boxes alone are fine-tuned for 20 epochs, everything else is trained for 15.
                else {'batch_size': 128, 'epochs': 15.0 if clip_sets else 20.0}
            ),
        },
        eval={
            'batch_size': 16 if tiny else 64,
            'head': 100 if tiny else 10_000,
            'tail': 20 if tiny else 1_000,
            'unions': unions,
        },
        checkpoint={'best': best},
        log={'log': 10, 'evaluate': 0, 'save': 30} if tiny else {'evaluate': 11_000, 'save': 1_000},
        precision={} if tiny else {'compute': 'bfloat16', 'remat': 'full'},
        loading={'workers': 0 if tiny else 8, 'prefetch': 2},
        hint=LAYOUT,
    )
