"""The loss of augmented features, term by term, against float64 NumPy, for boxes and for clips."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.models import classification_head, roi_head
from vidloc.models.film import Augmented
from vidloc.tasks import action_detection, classification, group_relative
from vidloc.tasks.group_relative import GroupRelative

N, B, BOXES, C = 4, 3, 2, 5
PLAIN = {'copies': 0.0, 'distillation': 0.0, 'entropy': 0.0}


def boxes_task(**group):
    head = roi_head.RoiHead(classes=C)
    return action_detection.ActionDetection(tuple('abcde'), head, label_smoothing=0.1, group=GroupRelative(**group))


def clips_task(**group):
    head = classification_head.ClassificationHead(classes=C)
    return classification.Classification(tuple('abcde'), head, label_smoothing=0.1, group=GroupRelative(**group))


TASKS = {'boxes': boxes_task, 'clips': clips_task}


def a_batch(kind):
    """The last example is a filler; of the second one the last box is padding."""
    rng = np.random.default_rng(0)
    valid = np.array([True, True, False])
    if kind == 'clips':
        return {'example_valid': valid, 'labels': np.eye(C, dtype=np.float32)[[0, 3, 2]]}
    labels = rng.integers(0, 2, (B, BOXES, C)).astype(np.float32)
    return {
        'example_valid': valid,
        'labels': labels,
        'box_mask': np.array([[True, True], [True, False], [True, True]]),
    }


def present_of(batch):
    if 'box_mask' in batch:
        return (batch['box_mask'] & batch['example_valid'][:, None]).astype(np.float64)
    return batch['example_valid'].astype(np.float64)


def some_outputs(kind, teacher=False, seed=1):
    rng = np.random.default_rng(seed)
    shape = (B, BOXES, C) if kind == 'boxes' else (B, C)
    original = rng.normal(0, 1.5, shape)
    copies = original + rng.normal(0, 0.5, (N, *shape)) * np.arange(1, N + 1).reshape(-1, *[1] * len(shape))
    taught = rng.normal(0, 1.5, shape) if teacher else None
    parts = original, copies, taught, 1 + rng.normal(0, 0.1, (1, N, 6)), rng.normal(0, 0.1, (1, N, 6))
    return Augmented(*(None if part is None else jnp.asarray(part, jnp.float32) for part in parts))


def exact(kind, outputs, batch, *, smoothing=0.1, group):
    """{name: [samples]} of every term, with the weights, in float64, from the formulas."""
    softmax = kind == 'clips'

    def chance(x):
        return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True) if softmax else 1 / (1 + np.exp(-x))

    def cross_entropy(target, x):
        p = chance(x)
        if softmax:
            return -np.sum(target * np.log(p), axis=-1)
        return -np.mean(target * np.log(p) + (1 - target) * np.log(1 - p), axis=-1)

    original, copies = np.asarray(outputs.original, np.float64), np.asarray(outputs.copies, np.float64)
    labels = batch['labels'].astype(np.float64)
    labels = labels * (1 - smoothing) + smoothing / (C if softmax else 2)

    def distances(teacher):
        target = chance(teacher)
        d = np.stack([cross_entropy(target, copy) for copy in copies])
        return d - cross_entropy(target, teacher) if group.distance == 'kl' else d

    d = distances(original)
    z = (d - d.mean(axis=0)) / (d.std(axis=0) + group.eps)
    weights = np.exp(-(z**2) / (2 * group.sensitivity**2)) if group.weighting == 'group' else np.ones_like(d)
    each = np.stack([cross_entropy(labels, copy) for copy in copies])
    weighted = (weights * each).sum(axis=0) / (weights.sum(axis=0) if group.normalize else N)
    taught = d if outputs.teacher is None else distances(np.asarray(outputs.teacher, np.float64))
    return {
        'original': cross_entropy(labels, original),
        'weights': weights,
        'divergence': d,
        'copies': each.mean(axis=0),
        'weighted_copies': weighted,
        'distillation': taught.mean(axis=0),
        'copies_entropy': np.mean([cross_entropy(chance(copy), copy) for copy in copies], axis=0),
        'original_entropy': cross_entropy(chance(original), original),
        'divergence_spread': d.std(axis=0) / d.mean(axis=0),
    }


@functools.partial(jax.jit, static_argnums=0)
def loss_of(task, outputs, batch):
    return task.loss(outputs, batch, train=True)


@pytest.mark.parametrize(
    ('kind', 'fields', 'teacher'),
    [
        ('boxes', {}, False),
        ('boxes', {'distance': 'kl', 'normalize': True, 'sensitivity': 0.6, 'eps': 0.01}, False),
        ('boxes', {'weighting': 'none', 'copies': 0.7, 'entropy': -0.2}, True),
        ('clips', {}, False),
        ('clips', {'distance': 'kl', 'normalize': True, 'distillation': 1.3}, True),
    ],
)
def test_every_term_is_its_formula(kind, fields, teacher):
    task, batch, outputs = TASKS[kind](**fields), a_batch(kind), some_outputs(kind, teacher)
    group, present = task.group, present_of(batch)
    found = loss_of(task, outputs, batch)
    want = exact(kind, outputs, batch, group=group)
    total = (
        want['original']
        + group.copies * want['weighted_copies']
        + group.distillation * want['distillation']
        + group.entropy * want['copies_entropy']
    )
    assert float(found.sum) == pytest.approx(np.sum(total * present), rel=1e-5)
    for name in want.keys() - {'weights', 'divergence'}:
        value, number = found.logs[name]
        assert number == present.sum()
        assert float(value) == pytest.approx(np.sum(want[name] * present), rel=1e-4, abs=1e-5), name
    for i in range(N):
        value, number = found.logs[f'divergence/{i:02d}']
        assert float(value / number) == pytest.approx(np.sum(want['divergence'][i] * present) / present.sum(), rel=1e-4)
        assert float(found.logs[f'gamma/{i:02d}'][0]) == pytest.approx(float(np.abs(outputs.gamma[0, i] - 1).mean()))
        assert float(found.logs[f'beta/{i:02d}'][0]) == pytest.approx(float(np.abs(outputs.beta[0, i]).mean()))
    bars = [float(found.logs[f'weights/{i / 10:.1f}'][0]) for i in range(10)]
    heights, _ = np.histogram(want['weights'][:, present > 0], bins=10, range=(0, 1))
    np.testing.assert_allclose(bars, heights / N, atol=1e-5)


@pytest.mark.parametrize('kind', TASKS)
def test_gradients_are_those_of_the_formula_with_constants_put_in(kind):
    """Weights, and what the copies are held against, are constants."""
    task, batch, outputs = TASKS[kind](), a_batch(kind), some_outputs(kind)
    group, present = task.group, jnp.asarray(present_of(batch), jnp.float32)
    weights = jnp.asarray(exact(kind, outputs, batch, group=group)['weights'], jnp.float32)
    says = group_relative.MANY if kind == 'boxes' else group_relative.ONE
    target = says.probabilities(outputs.original)

    def by_hand(outputs):
        labels = jnp.broadcast_to(batch['labels'], outputs.copies.shape)
        each = says.cross_entropy(outputs.original, jnp.asarray(batch['labels']), label_smoothing=0.1)
        each += jnp.mean(weights * says.cross_entropy(outputs.copies, labels, label_smoothing=0.1), axis=0)
        each += 0.5 * jnp.mean(says.cross_entropy(outputs.copies, jnp.broadcast_to(target, labels.shape)), axis=0)
        each += 0.01 * jnp.mean(says.entropy(outputs.copies), axis=0)
        return jnp.sum(each * present)

    @jax.jit
    def both(outputs):
        return jax.grad(lambda outputs: task.loss(outputs, batch, train=True).sum)(outputs), jax.grad(by_hand)(outputs)

    found, want = both(outputs)
    for name in ('original', 'copies'):
        np.testing.assert_allclose(getattr(found, name), getattr(want, name), rtol=1e-4, atol=1e-6, err_msg=name)
    # Logs of gamma and beta are no part of it.
    assert not np.any(found.gamma) and not np.any(found.beta)


def test_the_original_is_not_drawn_to_its_copies_nor_the_teacher():
    task, batch, outputs = boxes_task(copies=1.0), a_batch('boxes'), some_outputs('boxes', teacher=True)
    alone = boxes_task(**PLAIN)

    def slope(task):
        return jax.grad(lambda outputs: task.loss(outputs, batch, train=True).sum)(outputs)

    found, want = jax.jit(lambda: (slope(task), slope(alone)))()
    np.testing.assert_array_equal(found.original, want.original)
    assert not np.any(found.teacher) and np.any(found.copies) and not np.any(want.copies)


@pytest.mark.parametrize('kind', TASKS)
def test_copies_that_are_their_example_are_as_far_from_it_as_it_is_uncertain(kind):
    """So that the distance is its entropy, and every weight 1."""
    outputs, batch = some_outputs(kind), a_batch(kind)
    same = outputs.replace(copies=jnp.broadcast_to(outputs.original, outputs.copies.shape))
    found = loss_of(TASKS[kind](), same, batch).logs
    for i in range(N):
        assert float(found[f'divergence/{i:02d}'][0]) == pytest.approx(float(found['original_entropy'][0]), rel=1e-5)
    assert float(found['distillation'][0]) == pytest.approx(float(found['original_entropy'][0]), rel=1e-5)
    assert float(found['weighted_copies'][0]) == pytest.approx(float(found['original'][0]), rel=1e-5)
    assert float(found['weights/0.9'][0]) == pytest.approx(present_of(batch).sum(), rel=1e-5)
    assert float(found['divergence_spread'][0]) < 1e-4


def test_the_order_of_copies_does_not_matter_to_the_loss():
    outputs, batch, task = some_outputs('boxes'), a_batch('boxes'), boxes_task()
    turned = outputs.replace(copies=outputs.copies[::-1])
    assert float(loss_of(task, turned, batch).sum) == pytest.approx(float(loss_of(task, outputs, batch).sum), rel=1e-6)


@pytest.mark.parametrize('kind', TASKS)
def test_what_is_padding_changes_nothing(kind):
    outputs, batch, task = some_outputs(kind), a_batch(kind), TASKS[kind]()
    padding = present_of(batch) == 0
    loud = outputs.replace(
        original=jnp.where(padding[..., None], 30.0, outputs.original),
        copies=jnp.where(padding[..., None], -30.0, outputs.copies),
    )
    other = batch | {'labels': np.where(padding[..., None], 1 - batch['labels'], batch['labels'])}
    before, after = loss_of(task, outputs, batch), loss_of(task, loud, other)
    # The accuracy of the originals apart, of all terms and logs.
    for one, another in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert float(one) == pytest.approx(float(another), rel=1e-5)


def test_nothing_but_padding_is_finite():
    batch = a_batch('boxes') | {'box_mask': np.zeros((B, BOXES), bool)}
    found = loss_of(boxes_task(normalize=True), some_outputs('boxes'), batch)
    assert float(found.sum) == 0 and all(np.isfinite(leaf) for leaf in jax.tree.leaves(found))


@pytest.mark.parametrize(('count', 'sensitivity'), [(1, 1.0), (2, 1e-3)])
def test_one_copy_and_a_sharp_sensitivity_stay_finite(count, sensitivity):
    """Both of two copies are one deviation from their mean: they count alike, however little."""
    batch, task = a_batch('boxes'), boxes_task(normalize=True, sensitivity=sensitivity)
    outputs = some_outputs('boxes')
    outputs = outputs.replace(copies=outputs.copies[:count])

    def loss(outputs):
        found = task.loss(outputs, batch, train=True)
        return found.sum, found.logs

    (value, logs), slope = jax.jit(jax.value_and_grad(loss, has_aux=True))(outputs)
    assert np.isfinite(value) and all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slope))
    assert float(logs['weighted_copies'][0]) == pytest.approx(float(logs['copies'][0]), rel=1e-5)
    bar = 'weights/0.9' if count == 1 else 'weights/0.0'
    assert float(logs[bar][0]) == present_of(batch).sum()


def test_without_augmentation_the_loss_is_that_of_the_logits():
    outputs, batch = some_outputs('boxes'), a_batch('boxes')
    found = loss_of(boxes_task(), outputs.original, batch)
    assert set(found.logs) == {'boxes'}
    augmented = loss_of(boxes_task(**PLAIN), outputs, batch)
    assert float(augmented.sum) == pytest.approx(float(found.sum), rel=1e-6)


@pytest.mark.parametrize(
    ('fields', 'words'),
    [
        ({'weighting': 'softmax'}, "group.weighting is 'softmax'; it must be one of group, none"),
        ({'distance': 'l2'}, "group.distance is 'l2'; it must be one of cross_entropy, kl"),
        ({'sensitivity': 0.0}, r'group.sensitivity 0.0 and group.eps .* must be above 0'),
        ({'eps': 0.0}, r'group.eps 0.0 must be above 0'),
    ],
)
def test_fields_that_do_not_fit_are_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        GroupRelative(**fields)
