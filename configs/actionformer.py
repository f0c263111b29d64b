"""ActionFormer on features that were extracted before: the baseline of all temporal recipes, and the quickest start.

Paper: Zhang, Wu and Li 2022, ActionFormer; expected there: THUMOS-14 66.8 on I3D features (ActionFormer's README), 69.6
on VideoMAEv2 g's (its model zoo; 68.7 was reproduced by others), ActivityNet-1.3 36.6 on TSP's with external scores.
Not reproduced here. Hardware: one GPU of 5 GB, or a CPU and patience: 2 s a step on two cores.

  python -m vidloc.main --config=configs/actionformer.py:thumos,features=data/thumos14/i3d,width=2048
  python -m vidloc.main --config=configs/actionformer.py:activitynet,features=data/activitynet/tsp,width=512

Argument: words after commas, in any order.
  thumos, activitynet, own   the recipe: settings of the public code for these sets; own: yours (thumos)
  csv                own: DIR/train.csv and DIR/val.csv in place of DIR/annotations.json
  features=DIR       <video>.npy or .npz, [T, width], as tools/extract_features.py writes them
  width=N            channels (thumos 2048, activitynet 512, own 768)
  data=DIR           DIR/annotations.json (ActivityNet's layout), and DIR/classes.txt but for thumos
  stride=, span=     frames from one vector to the next and that one sees; 0 and -1: as the folder's features.json
                     says (thumos: 4 and 16, activitynet: 16 and 16, own: 0 and -1)
  rate=R             frames a second in which stride and span are counted (activitynet 15; else 0: as features.json or
                     the annotations say)
  scores=FILE        activitynet: classes of each video, by an external classifier
  length=N           own: points of a window (2304), a multiple of 576
Every field can be changed by --config.FIELD=VALUE as well.
"""

import pathlib
from typing import Any

from vidloc import build, recipes
from vidloc.config import ConfigError

HERE = 'configs/actionformer.py'
SETTINGS = ('rate', 'features', 'width', 'data', 'stride', 'span', 'scores', 'length')
WIDTHS = {'thumos': 2048, 'activitynet': 512, 'own': 768}
FOLDERS = {'thumos': 'data/thumos14', 'activitynet': 'data/activitynet', 'own': 'data/own'}
SUBSETS = {
    'thumos': ('Validation', 'Test'),
    'activitynet': ('training', 'validation'),
    'own': ('training', 'validation'),
}
# (stride, span) in frames; 0 and -1: what features.json says.
STEPS = {'thumos': (4.0, 16.0), 'activitynet': (16.0, 16.0), 'own': (0.0, -1.0)}


def get_config(argument: str = ''):
    asked = recipes.read(HERE, argument, models=tuple(WIDTHS), settings=SETTINGS, words=('csv',))
    if asked.method != 'losa' or asked.parts or asked.layers:
        raise ConfigError(f'{HERE}: features have no layers for adapters; configs/losa_thumos.py has them')
    recipe, given = asked.model, asked.settings
    if recipe != 'own' and asked.words:
        raise ConfigError(f'{HERE}: csv is for own videos: say own,csv')
    root = pathlib.Path(given.get('data', FOLDERS[recipe]))
    width = recipes.number(HERE, given, 'width', WIDTHS[recipe])
    length = recipes.number(HERE, given, 'length', 192 if recipe == 'activitynet' else 2304)
    stride = recipes.measure(HERE, given, 'stride', STEPS[recipe][0])
    span = recipes.measure(HERE, given, 'span', STEPS[recipe][1], least=-1.0)
    whole = recipe == 'activitynet'
    # TSP's videos are resampled to 15 frames a second, whatever the annotations say of the originals.
    rate = recipes.measure(HERE, given, 'rate', 15.0 if whole else 0.0)
    scores = given.get('scores', '')

    def features(subset: str, **fields: Any) -> dict[str, Any]:
        return {
            'task': recipe,
            **recipes.segments(root, subset, csv='csv' in asked.words),
            'view': 'features',
            'features': given.get('features', str(root / 'features')),
            'width': width,
            'length': length,
            'stride': stride,
            'span': span,
            'rate': rate,
            'mode': 'resize' if whole else 'window',
            **({'prefix': 'v_'} if whole else {}),
            'missing': 'leave_out',
            **fields,
        }

    names = {'classes': recipes.THUMOS} if recipe == 'thumos' else {'class_list': str(root / 'classes.txt')}
    if whole:
        names['num_classes'] = 200
    task: dict[str, Any] = {'kind': 'temporal_localization', **names, 'head': {'max_length': length}}
    if whole:
        task |= {
            **recipes.activitynet(scores, length),
        }
    subsets = SUBSETS[recipe]
    return build.config(
        name=f'actionformer-{recipe}',
        seed=0,
        backbone={'kind': 'features', 'width': width},
        tasks={recipe: task},
        sources={recipe: features(subsets[0])},
        # The public code gives a video to the network as a whole; windows this long hold nearly all of them.
        eval_sources={recipe: features(subsets[1], length=length if whole else 2 * length)},
        optimizer={'kind': 'adamw', 'weight_decay': 0.05},
        schedule={
            'rate': 1e-3 if whole else 1e-4,
            'kind': 'cosine',
            'warmup_epochs': 5.0,
            'warmup_from_zero': True,
            'end': 1e-8,
        },
        train={
            'batch_size': 16 if whole else 2,
            'epochs': 15.0 if whole else 35.0,
            'clip_norm': 1.0,
            # Over thousands of steps; of few videos there are fewer.
            'ema': 0.99 if recipe == 'own' else 0.999,
        },
        eval={'batch_size': 1},
        log={'log': 20, 'save': 500},
        hint=f'docs/temporal.md says how {root} is laid out and where features come from.',
    )
