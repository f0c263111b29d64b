"""What a run is watched by: built from its experiment and its data, and brought up to date from what it logged."""

import types

import numpy as np
import pytest

from vidloc import build, watching, workdir
from vidloc.models import film
from vidloc.tasks import action_detection, classification
from vidloc.train import loop, writer

SIZE = {'frames': 4, 'size': (16, 16)}
SOURCE = {'task': 'street', 'format': 'ava', **SIZE}


def experiment(*, lora=2, **parts):
    small = {'kind': 'videomae', 'width': 16, 'mlp': 32, 'heads': 2, 'layers': 2, 'grid': (2, 2, 2)}
    return build.experiment(
        build.config(
            name='small',
            backbone={**small, 'patch': (8, 8), 'tubelet': 2},
            tasks={
                'street': {'kind': 'action_detection', 'classes': ('a', 'b'), 'label_smoothing': 0.1},
                'clips': {'kind': 'classification', 'classes': ('a', 'b', 'c'), 'label_smoothing': 0.3},
            },
            sources={
                'street': SOURCE,
                'more': SOURCE,
                'clips': {'task': 'clips', 'format': 'clips', **SIZE},
            },
            eval_sources={'shots': SOURCE, 'street': SOURCE},
            eval={'seen': {'shots': 'street'}},
            lora={'rank': lora, 'layers': (1, 1)},
            optimizer={'kind': 'sgd'},
            **parts,
        )
    )


def opened(street=(0.5, 0.1), more=(0.3, 0.3), clips=(0.5, 0.25, 0.25)):
    """Stands for opened sources, of which only the share of classes is asked for."""
    shares = {'street': street, 'more': more, 'clips': clips}
    return {name: types.SimpleNamespace(label_share=lambda s=share: np.array(s)) for name, share in shares.items()}


def watch(made, folder, done=0, drawn=(30, 10, 5), given=None):
    return watching.watch(made, given or opened(), drawn, 0, folder, done)


def figures(step, gamma=0.004, loss=0.7):
    logged = {'loss': loss, 'original': loss, 'copies': loss, 'weighted_copies': loss, 'distillation': 0.2}
    logged |= {'copies_entropy': 0.2, 'original_entropy': 0.2, 'divergence_spread': 0.1}
    for i in range(8):
        logged |= {f'gamma/{i:02d}': gamma, f'beta/{i:02d}': gamma, f'divergence/{i:02d}': 0.201}
    logged |= {f'weights/{i / 10:.1f}': 0.1 for i in range(10)}
    return step, {f'train/street/{name}': value for name, value in logged.items()}


@pytest.fixture(scope='module')
def augmented():
    return experiment(film={'kind': 'learned', 'embedding': 16})


def test_a_run_without_adapters_is_not_watched(tmp_path):
    assert watch(experiment(lora=0), tmp_path) is loop.unwatched


def test_the_start_is_that_of_the_module_and_none_where_changes_are_drawn():
    expected = 1e-3 * np.sqrt(64) * np.sqrt(2 / np.pi)
    assert watching.start(film.Film(width=256, count=8, embedding=64)) == pytest.approx(expected, rel=0.1)
    assert watching.start(film.Noise(width=16)) is None


def test_signs_come_with_what_the_experiment_says(augmented, tmp_path):
    look = watch(augmented, tmp_path)
    assert look(*figures(50)) == {}
    assert list(look(*figures(100))) == ['identity']


def test_base_rates_are_those_of_the_data_as_often_as_they_are_drawn(tmp_path):
    """The share of (a, b) is (0.45, 0.15), smoothed (0.455, 0.185): a loss of 0.584 and not a bit less."""
    made = experiment()
    smooth = np.array([0.455, 0.185])
    base = -np.mean(smooth * np.log(smooth) + (1 - smooth) * np.log(1 - smooth))
    clips = np.array([0.45, 0.275, 0.275])
    for task, least in (('street', base), ('clips', -np.sum(clips * np.log(clips)))):
        for level, told in ((0.91, True), (0.89, False)):
            look = watch(made, tmp_path)
            evaluated = {'eval/street/map': 0.5, 'eval/street/gap/map': 0.01} if task == 'street' else {}
            loss = least * (level if task == 'clips' else level - 0.4)
            found = [look(step, {f'train/{task}/loss': loss, **evaluated}) for step in range(10, 310, 10)]
            assert [list(each) for each in found if each] == ([[f'{task}/underfitting']] if told else [])


def test_a_class_that_no_example_has_costs_nothing():
    clips = classification.Classification(classes=('a', 'b'), head_module=None)
    boxes = action_detection.ActionDetection(classes=('a', 'b'), head_module=None)
    for task in (clips, boxes):
        assert task.base_rate_loss(np.array([1.0, 0.0])) == 0
        assert task.base_rate_loss(np.array([0.5, 0.5])) == pytest.approx(np.log(2))


def test_a_run_that_goes_on_does_not_warn_again_and_forgets_what_it_does_again(augmented, tmp_path):
    with writer.Writer(tmp_path, enabled=True) as out:
        for step in range(20, 141, 20):
            out.scalars(*figures(step))
    assert watch(augmented, tmp_path, done=120)(*figures(140)) == {}
    assert list(watch(augmented, tmp_path, done=90)(*figures(100))) == ['identity']
    (tmp_path / 'metrics.jsonl').write_text('no\n{"step": 2}\n')
    with pytest.raises(workdir.RunError, match=r'metrics\.jsonl:1'):
        watch(augmented, tmp_path, done=90)
