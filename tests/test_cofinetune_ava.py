"""The rows of the co-finetuning paper: that each loads, says what it says, and builds the paper's models."""

import functools
import pathlib
import re

import pytest

from vidloc import build, main
from vidloc import config as config_lib

ROOT = pathlib.Path(__file__).parent.parent
RECIPE = 'configs/cofinetune_ava.py'


def recipe(*words: str):
    return config_lib.load(':'.join([str(ROOT / RECIPE), ','.join(words)] if words else [str(ROOT / RECIPE)]))


@functools.cache
def module():
    import importlib.util

    spec = importlib.util.spec_from_file_location('cofinetune_ava', ROOT / RECIPE)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


ROWS = module().ROWS


def parameters(width: int, mlp: int, layers: int, side: int, classes: tuple[int, ...]) -> int:
    """Closed form of ViViT's factorised encoder with CLS tokens, 16 x 16 x 2 tubelets of 32 frames, linear heads."""
    block = 4 * (width * width + width) + 2 * width * mlp + mlp + width + 4 * width
    embedding = 2 * 16 * 16 * 3 * width + width
    positions = (1 + (side // 16) ** 2) * width + (1 + 16) * width
    tokens_and_norms = 2 * width + 4 * width
    return layers * block + embedding + positions + tokens_and_norms + sum(width * n + n for n in classes)


def test_the_closed_form_is_that_of_the_public_model():
    # google-research/scenic, projects/vivit, B/16x2 with 400 classes.
    assert parameters(768, 3072, 16, 224, (400,)) == 115_062_928


def test_default_is_base_at_224_with_the_settings_of_the_paper():
    config = recipe()
    experiment = build.experiment(config)
    assert experiment.partition.total() == parameters(768, 3072, 16, 224, (60, 400, 339, 174))
    assert (config.schedule.rate, config.train.batch_size, config.train.epochs) == (0.2, 128, 15.0)
    assert config.schedule.warmup_epochs == 2.5
    assert (config.optimizer.kind, config.optimizer.momentum) == ('sgd', 0.9)
    assert config.backbone.drop_path == 0.2
    assert {task.label_smoothing for task in config.tasks.values()} == {0.1}
    view = config.sources.ava
    assert (view.frames, view.rate, view.scale, view.box_jitter, view.threshold) == (32, 15.0, (0.65, 1.1), 0.15, 0.8)
    assert (view.boxes, config.eval_sources.ava.boxes, config.eval_sources.ava.threshold) == (
        'detections',
        'detections',
        0.8,
    )
    assert config.mixture.strategy == 'weighted'
    assert not config.sources.ssv2.flip_sided


def test_large_at_512_has_the_parameters_of_its_closed_form():
    experiment = build.experiment(recipe('table6.11'))
    assert experiment.partition.total() == parameters(1024, 4096, 28, 512, (60, 700, 339, 174))
    assert experiment.abstract_batches['ava']['video'].shape == (128, 32, 512, 512, 3)


@pytest.mark.parametrize('row', ROWS)
def test_every_row_loads_as_it_says(row):
    words = ROWS[row].words.split(',')
    if ROWS[row].wts:
        with pytest.raises(config_lib.ConfigError, match=rf'{re.escape(row)} .*WTS.*never published.*from=WORKDIR'):
            recipe(row)
        config = recipe(row, 'from=runs/own')
        assert config.init_from == 'runs/own'
    else:
        config = recipe(row)
        after = ROWS[row].after
        assert config.init_from == (main.default_workdir(f'{RECIPE}:{after}') if after else '')
    clips = [word for word in words if word in module().CLIP_SETS]
    people = {'ava': ['ava'], 'ava_kinetics': ['ava', 'kinetics_boxes']}
    wanted = {*clips, *(name for word in words for name in people.get(word, ()))}
    assert set(config.sources) == set(config.eval_sources) == wanted
    assert set(config.tasks) == {config.sources[name].task for name in wanted}
    side = int(next((word for word in words if word.isdecimal()), 224))
    assert {tuple(view.size) for view in [*config.sources.values(), *config.eval_sources.values()]} == {(side, side)}
    assert config.backbone.width == (1024 if 'L' in words else 768)
    assert config.mixture.strategy == ('alternating' if 'alternating' in words else 'weighted')
    assert config.train.epochs == (15.0 if clips else 20.0)
    # A run that starts from another has that one's backbone.
    if ROWS[row].after:
        assert config.backbone == recipe(ROWS[row].after).backbone
    # What a row is to reach is a figure that its run reports, some only with the word truth.
    assert set(ROWS[row].reach) <= wanted | set(
        recipe(row, 'from=runs/own', *(['truth'] if people.keys() & set(words) else [])).eval.unions
    )


def test_the_start_of_a_row_keeps_the_other_words():
    config = recipe('data=/mnt/sets', 'table2.3', 'leave_out', 'truth')
    assert config.init_from == main.default_workdir(f'{RECIPE}:data=/mnt/sets,table2.1,leave_out')
    assert pathlib.PurePath(config.init_from).parts == ('runs', 'cofinetune_ava-data--mnt-sets-table2.1-leave_out')
    assert recipe('table2.3', 'from=elsewhere@best').init_from == 'elsewhere@best'


def test_words_in_any_order_and_each_does_something():
    assert recipe('L', '512').to_json() == recipe('512', 'L').to_json()
    plain = recipe().to_json()
    for word in ('L', '352', '416', '512', 'alternating', 'data=there', 'from=run', 'positions=352', 'leave_out'):
        assert recipe(word).to_json() != plain, word
    for word in ('ava', 'ava_kinetics', 'k400', 'k600', 'k700', 'mit', 'ssv2', 'truth', 'tiny'):
        assert recipe(word).to_json() != plain, word
    for word, classes in module().CLIP_SETS.items():
        assert recipe(word).tasks[word].num_classes == classes


def test_negatives_of_the_iou90_files_stay_negatives():
    """Their labels were copied at an overlap of 0.9: a box without any is one that public code trains as such."""
    view = recipe('ava').sources.ava
    assert 'iou90' in view.detections[0] and 'include_negative' in view.detections[0]
    assert view.match_iou == 0.9


def test_ava_kinetics_trains_on_true_boxes_and_tests_on_detections():
    config = recipe('table7.3', 'truth', 'data=D')
    assert {config.sources[name].boxes for name in ('ava', 'kinetics_boxes')} == {'truth'}
    for name in ('ava', 'kinetics_boxes'):
        assert config.sources[name].task == config.eval_sources[name].task == 'ava'
        view, true = config.eval_sources[name], config.eval_sources[f'{name}_truth']
        assert (view.boxes, view.threshold, len(view.detections)) == ('detections', 0.2, 1)
        assert (true.boxes, true.detections, true.annotations) == ('truth', (), view.annotations)
    assert config.sources.kinetics_boxes.annotations == ('D/ava/kinetics_train_v1.0.csv',)
    assert config.sources.kinetics_boxes.videos == config.sources.k700.videos == 'D/k700/train'
    together = {'ava_kinetics': ('ava', 'kinetics_boxes'), 'ava_kinetics_truth': ('ava_truth', 'kinetics_boxes_truth')}
    assert config.eval.unions.to_dict() == together and recipe('table3.4').eval.unions.to_dict() == {}
    assert config.checkpoint.best == 'eval/ava_kinetics/frame_map@0.5'
    # The clock of a clip is in its name, and the list of included seconds is that of movies.
    assert (config.sources.kinetics_boxes.time_offset, config.sources.kinetics_boxes.included) == (0.0, '')


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (('tabel3.2',), "'table3.2'"),
        (('k40',), "'k400'"),
        (('alternate',), "'alternating'"),
        (('dat=x',), "'data='"),
        (('/mnt/sets',), 'data=/mnt/sets'),
        (('table3.2', '512'), 'without table3.2'),
        (('table3.2', 'table3.3'), 'table3.3'),
        (('B', 'L'), 'B and L exclude'),
        (('ava', 'ava_kinetics'), 'ava_kinetics contains ava'),
        (('positions=225',), 'positions=225'),
        (('mit', 'truth'), 'mit has none'),
    ],
)
def test_wrong_words_are_refused_in_one_line(words, said):
    with pytest.raises(config_lib.ConfigError) as caught:
        recipe(*words)
    text = str(caught.value)
    assert said in text and '\n' not in text, text


def test_the_page_about_ava_has_every_row_with_its_figures():
    lines = (ROOT / 'docs' / 'ava.md').read_text(encoding='utf-8').splitlines()
    for row, (words, reach, after, wts) in ROWS.items():
        (line,) = [line for line in lines if line.startswith(f'| `{row}` ')]
        cells = [cell.strip() for cell in line.strip('|').split('|')]
        assert cells[1] == f'`{words}`', line
        start = 'WTS' if wts else f'`{after}`' if after else ''
        assert cells[2] == start, line
        assert re.findall(r'\d+\.\d', cells[3]) == [f'{figure:.1f}' for figure in reach.values()], line
