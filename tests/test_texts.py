"""Heads that compare with text embeddings: from a config and a file to a run that needs the file no more."""

import pathlib

import numpy as np
import pytest

from vidloc import build, run, settling, supply, texts, trained, transfer
from vidloc import config as config_lib
from vidloc import workdir as workdir_lib
from vidloc.annotations import class_list
from vidloc.checkpoints.readers.weights import ReadError
from vidloc.workdir import RunError

TINY = pathlib.Path(__file__).with_name('tiny_run.py')
PUBLISHED = TINY.parent / 'reference/backbones/videomae_b'
BACKBONE = {'kind': 'videomae', 'width': 12, 'mlp': 16, 'layers': 1, 'heads': 2, 'grid': (2, 2, 2), 'patch': (8, 8)}
FROZEN = (('backbone/.*', None, False), ('.*', 1.0, True))
CLASSES, WIDTH = ('walk', 'run', 'sit'), 5
EMBEDDING = 'heads_street/text/embedding'


def write(path, names=CLASSES, width=WIDTH):
    np.savez(path, names=np.array(names), embeddings=np.random.default_rng(0).normal(size=(len(names), width)))
    return str(path)


def recipe(text, *, table=build.TRAIN_ALL, kind='action_detection', **head):
    size = {'task': 'street', 'frames': 4, 'size': (16, 16)}
    form = {'format': 'ava'} if kind == 'action_detection' else {'format': 'folders'}
    return build.config(
        name='texts',
        backbone=BACKBONE,
        tasks={'street': {'kind': kind, 'classes': CLASSES, 'head': {'text': text, **head}}},
        sources={'street': {**size, **form}},
        optimizer={'kind': 'adamw'},
        trainable=table,
    )


def leaves(experiment):
    return {name: leaf for name, leaf in experiment.partition.leaves.items() if name.startswith('heads_')}


@pytest.mark.parametrize('kind', ['action_detection', 'classification'])
def test_a_head_is_built_from_the_width_in_the_file(kind, tmp_path):
    path = write(tmp_path / 'a.npz')
    experiment = build.experiment(recipe(path, kind=kind))
    shapes = {name.removeprefix('heads_street/text/'): leaf.shape for name, leaf in leaves(experiment).items()}
    assert shapes == {'embedding': (3, WIDTH), 'projection/kernel': (12, WIDTH), 'scale': (), 'bias': (3,)}
    assert not experiment.partition.leaves[EMBEDDING].trainable
    assert experiment.partition.counts()[EMBEDDING] == 0
    decayed = {name for name, leaf in leaves(experiment).items() if leaf.trainable and leaf.decay}
    assert decayed == {'heads_street/text/projection/kernel'}


def test_without_projection_a_scale_and_biases_are_all_that_is_learned(tmp_path):
    made = recipe(write(tmp_path / 'a.npz', width=12), text_project=False, table=FROZEN)
    assert build.experiment(made).partition.total(trainable=True) == 1 + len(CLASSES)


def test_a_row_of_their_own_trains_the_embeddings(tmp_path):
    made = recipe(write(tmp_path / 'a.npz'), table=(('heads_.*/text/embedding', 0.1, False), *build.TRAIN_ALL))
    assert build.experiment(made).partition.leaves[EMBEDDING].rate == 0.1


@pytest.mark.parametrize(
    ('head', 'said'),
    [
        ({'text': 'nowhere.npz'}, r'tasks.street.head.text: nowhere.npz.*No such file'),
        ({'text_project': False}, 'of 12 channels, with text embeddings of 5'),
        ({'text_scale': 0.0}, 'text_scale 0.0 above 0'),
    ],
)
def test_what_cannot_be_built_is_refused(head, said, tmp_path):
    with pytest.raises(config_lib.ConfigError, match=said):
        build.experiment(recipe(**{'text': write(tmp_path / 'a.npz'), **head}))


def test_embeddings_are_in_the_order_of_the_classes(tmp_path):
    path = write(tmp_path / 'a.npz', ('sit', 'Walk', 'run', 'jump'))
    vectors = np.load(path)['embeddings'][[1, 2, 0]]
    given = texts.embeddings(recipe(path), {'street': CLASSES})
    assert given.keys() == {EMBEDDING}
    np.testing.assert_allclose(given[EMBEDDING], vectors / np.linalg.norm(vectors, axis=1, keepdims=True), rtol=1e-6)
    with pytest.raises(config_lib.ConfigError, match=r'text_width is 6, the embeddings in .* have 5 channels'):
        texts.embeddings(recipe(path, text_width=6), {'street': CLASSES})
    with pytest.raises(ReadError, match=r"1 of 1 classes .*'fly' is not among its 4 names"):
        texts.embeddings(recipe(path), {'street': ('fly',)})


def test_the_width_stays_in_the_config_of_the_run(tmp_path):
    path = write(tmp_path / 'a.npz')
    settled, said = settling.settle(recipe(path), tmp_path)
    assert settled.tasks.street.head.text_width == WIDTH and not said
    (tmp_path / 'config.json').write_text(workdir_lib.as_json(settled))
    again, _ = settling.settle(recipe(str(tmp_path / 'gone.npz')), tmp_path)
    assert again.tasks.street.head.text_width == WIDTH
    experiment = build.experiment(again)
    assert experiment.partition.leaves[EMBEDDING].shape == (3, WIDTH)
    # The file may move, but a head does not begin or end to compare with texts.
    workdir_lib.check(tmp_path, again, experiment, {})
    linear, _ = settling.settle(recipe(''), tmp_path)
    with pytest.raises(RunError, match=r'street\.head\.text_width: 5 there, 0 now'):
        workdir_lib.check(tmp_path, linear, build.experiment(linear), {})
    (tmp_path / 'config.json').write_text(workdir_lib.as_json(linear))
    with pytest.raises(RunError, match=r'street\.head\.text_width: 0 there, 5 now'):
        settled, _ = settling.settle(recipe(path), tmp_path)
        workdir_lib.check(tmp_path, settled, build.experiment(settled), {})


def test_of_the_head_in_a_file_all_but_its_linear_output_is_taken(tmp_path):
    made = recipe(write(tmp_path / 'a.npz'), kind='classification', norm=True, norm_eps=1e-5)
    size = {'width': 24, 'mlp': 96, 'layers': 2, 'heads': 3, 'patch': (4, 4), 'grid': (2, 4, 4), 'eps': 1e-12}
    with made.unlocked():
        made.backbone.update(size)
        made.init_from, made.weights.head = str(PUBLISHED), 'street'
    found, said = transfer.begin(build.experiment(made))
    assert 'the output of street is new: it compares with text embeddings' in said
    of_head = {name for name in found if name.startswith('heads_')}
    assert of_head == {'heads_street/norm/scale', 'heads_street/norm/bias'}


def street(root, text, steps):
    """The recipe over MocapStreet with a backbone that is frozen, as small as can be: little to compile."""
    tiny = config_lib.load(f'{TINY}:{root},street')
    size = {'frames': 2, 'size': (16, 24), 'batch_size': 8}
    made = build.config(
        name='texts',
        backbone={**BACKBONE, 'grid': (1, 2, 3)},
        tasks={'street': {**tiny.tasks.street, 'head': {'text': text, 'size': (1, 1), 'text_project': False}}},
        sources={'street': {**tiny.sources.street, **size}},
        eval_sources={'street': {**tiny.eval_sources.street, **size}},
        optimizer={'kind': 'adamw'},
        schedule={'rate': 1e-3},
        trainable=FROZEN,
        train={'steps': steps, 'log_odds_bias': True},
        eval={'batch_size': 64},
    )
    return made


def test_a_run_reads_its_file_once(mocapstreet, tmp_path):
    classes = class_list.read_class_list(mocapstreet / 'street/action_list.pbtxt')
    path = write(tmp_path / 'texts.npz', [name.upper() for name in reversed(classes)], 12)
    vectors = np.load(path)['embeddings'][::-1]
    workdir = tmp_path / 'run'
    first = run.train(street(mocapstreet, path, 2), workdir)
    begun = trained.read_run(workdir)
    np.testing.assert_allclose(
        begun.params[EMBEDDING], vectors / np.linalg.norm(vectors, axis=1, keepdims=True), rtol=1e-6
    )
    # Two steps of Adam at a rate of 1e-3 move nothing far from where it began.
    opened = supply.open_sources(begun.experiment.config, begun.experiment.tasks, train=True)
    biases = supply.start_biases(begun.experiment, opened)
    assert biases.keys() == {'heads_street/text/bias'}
    np.testing.assert_allclose(begun.params['heads_street/text/bias'], biases['heads_street/text/bias'], atol=3e-3)
    assert begun.params['heads_street/text/scale'] == pytest.approx(np.log(10), abs=3e-3)
    (tmp_path / 'texts.npz').unlink()
    second = run.train(street(mocapstreet, path, 3), workdir)
    # By class, a scale and a bias leave the order of the boxes as it is.
    assert second.keys() == first.keys() and second['eval/street/frame_map@0.5'] > 0
    ended = trained.read_run(workdir)
    assert (begun.step, ended.step) == (2, 3)
    for name, value in begun.params.items():
        moved = name in ('heads_street/text/scale', 'heads_street/text/bias')
        assert (ended.params[name] != value).any() == moved and np.isfinite(ended.params[name]).all(), name
    assert run.evaluate(street(mocapstreet, path, 3), workdir) == second
    with pytest.raises(config_lib.ConfigError, match=r'tasks\.street\.head\.text: .*No such file'):
        run.train(street(mocapstreet, path, 2), tmp_path / 'other')
