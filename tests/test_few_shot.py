"""The words of the few-shot recipes, and what the recipes for AVA, own boxes and MOMA make of them."""

import functools
import json
import math
import pathlib

import pytest

from vidloc import build, few_shot
from vidloc import config as config_lib

ROOT = pathlib.Path(__file__).parent.parent
AVA, MOMA, STREET = (f'{ROOT}/configs/{name}.py' for name in ('gra_ava', 'gra_moma', 'mocapstreet_gra'))


def load(recipe, *words):
    return config_lib.load(f'{recipe}:{",".join(words)}')


@functools.cache
def trained(recipe, *words):
    """{root: trainable parameters}; those of LoRA under 'lora'."""
    partition = build.experiment(load(recipe, *words)).partition
    found = {}
    for name, leaf in partition.leaves.items():
        if leaf.trainable:
            root = 'lora' if 'lora_' in name else name.split('/')[0]
            found[root] = found.get(root, 0) + math.prod(leaf.shape)
    return found


@pytest.mark.parametrize(
    ('recipe', 'words', 'text'),
    [
        (AVA, ('lroa',), "did you mean 'lora'"),
        (AVA, ('videomae-q',), "did you mean 'videomae-g'"),
        (AVA, ('shot=4',), "did you mean 'shots='"),
        (AVA, ('lora', 'film'), 'lora and film: name one method'),
        (AVA, ('videomae-B', 'vjepa2-L'), 'name one model'),
        (AVA, ('N=0',), 'N=0 is no whole number from 1 on'),
        (AVA, ('shots=x',), 'shots=x is no whole number from 0 on'),
        (AVA, ('lora', 'N=4'), "N= says nothing to the method 'lora'"),
        (AVA, ('head', 'rank=4'), "rank= says nothing to the method 'head'"),
        (AVA, ('from-layer=40',), 'from-layer=40, but the layers are 0 to 39'),
        (AVA, ('after=40',), 'after=40, but the layers are 0 to 39'),
        (AVA, ('from-layer=0',), 'as after=0'),
        (AVA, ('rate=0',), 'rate=0 is no number'),
        (AVA, ('detections',), 'AVA is evaluated with them'),
        (AVA, ('own', 'truth'), 'truth says nothing here'),
        (AVA, ('no-val', 'truth'), 'no-val leaves it out'),
        (MOMA, ('moma1', 'test'), 'has no test videos'),
        (MOMA, ('no-val', 'test'), 'no-val leaves out'),
        (MOMA, ('own',), "no word 'own'"),
        (STREET, ('data', 'lora', 'after=2'), "after= says nothing to the method 'lora'"),
    ],
)
def test_words_that_mean_nothing_are_refused_in_one_line(recipe, words, text):
    with pytest.raises(config_lib.ConfigError) as caught:
        load(recipe, *words)
    assert text in str(caught.value) and '\n' not in str(caught.value), caught.value


def test_the_whole_method_is_the_default_and_is_that_of_the_paper():
    config = load(AVA)
    assert config.sources.ava.shots == 15 and config.sources.ava.boxes == 'truth'
    assert (config.lora.rank, config.lora.layers, config.lora.on) == (16, (30, -1), ('query', 'value'))
    assert (config.film.kind, config.film.count) == ('learned', 10)
    assert config.film.after == -1
    assert load(MOMA).film.count == 8
    assert load(AVA).to_json() == load(AVA, 'gra', 'videomae-g').to_json() == load(AVA, 'N=10', 'rank=16').to_json()


@pytest.mark.parametrize(
    ('method', 'film', 'rank', 'group'),
    [
        ('gra', 'learned', 16, {'weighting': 'group', 'distillation': 0.5, 'entropy': 0.01}),
        ('distilled', 'learned', 16, {'weighting': 'group', 'distillation': 0.5, 'entropy': 0.0}),
        ('weighted', 'learned', 16, {'weighting': 'group', 'distillation': 0.0, 'entropy': 0.0}),
        ('film', 'learned', 16, {'weighting': 'none', 'distillation': 0.0, 'entropy': 0.0}),
        ('noise', 'noise', 16, {'weighting': 'none', 'distillation': 0.0, 'entropy': 0.0}),
        ('lora', 'none', 16, {}),
        ('head', 'none', 0, {}),
    ],
)
def test_each_row_of_the_ablation_leaves_out_what_it_says(method, film, rank, group):
    config = load(AVA, method)
    assert (config.film.kind, config.lora.rank) == (film, rank)
    assert {name: config.tasks.ava.group[name] for name in group} == group
    # And nothing else differs from the whole method.
    whole, own = (config_lib.flatten(each) for each in (load(AVA), config))
    changed = {name for name in whole.keys() | own.keys() if whole.get(name) != own.get(name)}
    assert all(name.startswith(('film.', 'lora.', 'tasks.ava.group.', 'trainable', 'name')) for name in changed)


def test_parameters_of_the_full_size_are_the_closed_form():
    # Of q and v in ten layers A and B of rank 16; a table of N x 128 and one linear map to gamma and beta.
    lora, film = 10 * 2 * 16 * (1408 + 1408), 10 * 128 + 128 * 2816 + 2816
    assert (lora, film, lora + film) == (901_120, 364_544, 1_265_664)
    head = 2 * 1408 + 1408 * 60 + 60
    assert trained(AVA) == {'lora': lora, 'film': film, 'heads_ava': head}
    assert trained(AVA, 'internvideo2-1B', 'lora') == {'lora': lora, 'heads_ava': head}
    moma = 2 * 1408 + 1408 * 42 + 42
    assert trained(MOMA) == {'lora': lora, 'film': film - 2 * 128, 'heads_moma': moma}


@pytest.mark.parametrize(('project', 'head'), [(True, 64 * 24), (False, 0)])
def test_texts_in_place_of_the_class_head_stay_as_they_are(project, head):
    config = load(AVA, 'tiny', 'text=names.npz')
    config.tasks.ava.head.text_width, config.tasks.ava.head.text_project = 24 if project else 64, project
    partition = build.experiment(config).partition
    assert not partition.leaves['heads_ava/text/embedding'].trainable
    # A norm, a bias a class and the scale.
    assert partition.total(trainable=True) == trained(AVA, 'tiny', 'lora')['lora'] + 10 * 128 + 129 * 128 + (
        2 * 64 + 60 + 1 + head
    )


def test_the_page_about_few_shots_has_these_counts():
    page = (ROOT / 'docs/fewshot.md').read_text(encoding='utf-8')
    parts = trained(AVA)
    for number in (
        *parts.values(),
        sum(parts.values()),
        parts['lora'] + parts['film'],
        sum(trained(MOMA).values()),
    ):
        assert f'{number:,}' in page, number


@pytest.mark.parametrize(
    ('words', 'wanted'),
    [
        ((), {'ava': 'detections', 'seen': 'truth'}),
        (('truth',), {'ava': 'detections', 'ava_truth': 'truth', 'seen': 'truth'}),
        (('folds=5', 'fold=2'), {'ava': 'detections', 'held': 'truth'}),
        (('folds=5', 'no-val'), {'held': 'truth'}),
        (('shots=0',), {'ava': 'detections'}),
        (('own',), {'own': 'truth', 'seen': 'truth'}),
        (('own', 'detections', 'truth'), {'own': 'detections', 'own_truth': 'truth', 'seen': 'truth'}),
    ],
)
def test_what_is_evaluated_and_with_which_boxes(words, wanted):
    config = load(AVA, 'data=D', *words)
    found = {name: source.boxes for name, source in config.eval_sources.items()}
    assert found == wanted
    assert all(bool(source.detections) == (source.boxes == 'detections') for source in config.eval_sources.values())
    (training,) = config.sources.values()
    assert (training.boxes, training.detections) == ('truth', ())
    for name in found.keys() & {'seen', 'held'}:
        source = config.eval_sources[name]
        drawn = ('annotations', 'shots', 'shots_seed', 'folds', 'fold')
        assert [source[field] for field in drawn] == [training[field] for field in drawn]


def test_the_seed_of_the_shots_and_the_folds_are_not_the_run_s():
    config = load(AVA, 'shots=5', 'shots-seed=3', 'folds=4', 'fold=1')
    view = config.sources.ava
    assert (view.shots, view.shots_seed, view.folds, view.fold, config.seed) == (5, 3, 4, 1, 0)
    assert (config.eval.head, config.eval.tail) == (5, 5)


@pytest.mark.parametrize(
    ('words', 'clip'),
    [
        ((), (16, 7.5, (224, 224))),
        (('vjepa2-g',), (16, 7.5, (256, 256))),
        (('internvideo2-1B',), (8, 3.75, (224, 224))),
        (('vivit-B', 'frames=8', 'rate=2.5', 'side=96'), (8, 2.5, (96, 96))),
    ],
)
def test_the_clip_is_that_of_the_backbone_unless_words_say_otherwise(words, clip):
    view = load(AVA, *words).sources.ava
    assert (view.frames, view.rate, view.size) == clip


@pytest.mark.parametrize('model', ['vjepa2-g-2.1', 'vivit-L-4'])
def test_a_toy_of_a_backbone_has_its_kind_and_no_weights(model):
    toy, full = load(AVA, model, 'tiny'), load(AVA, model)
    assert (toy.init_from, full.init_from) == ('', f'weights/{model}')
    assert config_lib.plain(toy.backbone).keys() == config_lib.plain(full.backbone).keys()
    assert (toy.backbone.kind, toy.backbone.width, few_shot.depth(toy.backbone)) == (full.backbone.kind, 64, 4)
    assert {'lora', 'film', 'heads_ava'} == trained(AVA, model, 'tiny').keys()


@pytest.mark.parametrize(
    ('model', 'layers', 'first'), [('videomae-B', 12, 9), ('vivit-L-4', 28, 21), ('vjepa2-G-2.1', 48, 36)]
)
def test_lora_is_on_the_last_quarter_of_all_layers(model, layers, first):
    config = load(AVA, model)
    assert few_shot.depth(config.backbone) == layers and config.lora.layers == (first, -1)
    assert load(AVA, model, 'from-layer=3').lora.layers == (3, -1)


def test_weights_of_a_run_bring_its_backbone_unless_one_is_named(tmp_path):
    ran = tmp_path / 'ran'
    ran.mkdir()
    stored = json.loads(load(AVA, 'vjepa2-L', 'tiny', '').to_json_best_effort())
    stored['preprocess']['difference'] = 2.0
    (ran / 'config.json').write_text(json.dumps(stored))
    (ran / 'model.json').write_text('{}')
    for place in (str(ran), f'{ran}@best'):
        config = load(AVA, f'weights={place}')
        assert config.backbone == load(AVA, 'vjepa2-L', 'tiny').backbone
        assert config.lora.layers == (3, -1) and config.init_from == place
        assert config.preprocess.difference == 2.0 and config.name.startswith('gra_ava-run-gra')
    assert load(AVA, 'videomae-S', f'weights={ran}').backbone.width == 384
    stored['backbone'] = {'kind': 'features', 'width': 8}
    (ran / 'config.json').write_text(json.dumps(stored))
    with pytest.raises(config_lib.ConfigError, match='sees no video'):
        load(AVA, f'weights={ran}')


def test_own_classes_are_those_of_the_list(tmp_path):
    assert load(AVA, 'own', f'data={tmp_path}').tasks.own.num_classes == 10
    (tmp_path / 'actions.pbtxt').write_text('item { name: "wave" id: 1 }\nitem { name: "jump" id: 4 }\n')
    config = load(AVA, 'own', f'data={tmp_path}')
    assert build.class_names('own', config.tasks.own) == ('wave', 'jump')


def test_files_of_both_momas():
    config = load(MOMA, 'data=D', 'test', 'detections')
    assert (config.sources.moma.split, config.sources.moma.subset) == ('D/anns/splits/standard.json', 'train')
    assert (config.eval_sources.moma.subset, config.eval_sources.seen.subset) == ('test', 'train')
    assert config.eval_sources.moma.detections == ('D/detections_test.csv',)
    first = load(MOMA, 'data=D', 'moma1')
    assert (first.sources.moma.split, first.sources.moma.subset) == ('D/split_by_trim/train.txt', '')
    assert first.eval_sources.moma.split == 'D/split_by_trim/val.txt'
    assert (first.tasks.moma.num_classes, config.tasks.moma.num_classes) == (52, 42)


def test_pretraining_and_few_shots_on_mocapstreet_have_one_backbone():
    before, after = load(STREET, 'data', 'pretrain', 'vivit').backbone, load(STREET, 'data', 'vivit').backbone
    assert config_lib.plain(before) == config_lib.plain(after)
    assert load(STREET, 'data').init_from == 'runs/gra-pretrain'
    assert load(STREET, 'data', 'from=there', 'lora').init_from == 'there'
    assert set(load(STREET, 'data', 'folds=3').eval_sources) == {'street', 'held'}
    assert few_shot.depth(load(STREET, 'data', 'vivit').backbone) == 8
