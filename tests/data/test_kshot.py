"""What a draw of a few shots promises, whatever the labels; and folds of it."""

import dataclasses
import json

import numpy as np
import pytest

from vidloc.annotations import records as rec
from vidloc.data import kshot, sources


def labels_like_ava(rows, classes, seed, share=1.7):
    """[rows, classes] uint8: one to three classes a row, whose frequencies fall off as those of AVA do."""
    rng = np.random.default_rng(seed)
    frequency = 1 / np.arange(1, classes + 1) ** share
    drawn = rng.choice(classes, (rows, 3), p=frequency / frequency.sum())
    labels = np.zeros((rows, classes), np.uint8)
    for column in range(3):
        there = np.flatnonzero(rng.random(rows) < (1.0, 0.6, 0.3)[column])
        labels[there, drawn[there, column]] = 1
    return labels


@dataclasses.dataclass(frozen=True)
class View:
    shots: int = 2
    shots_seed: int = 0
    folds: int = 0
    fold: int = 0


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('shots', [1, 4, 15])
def test_every_class_has_its_shots_or_all_it_has(seed, shots):
    labels = labels_like_ava(600, 20, seed)
    chosen = kshot.choose(labels, shots, seed)
    counts, available = labels[chosen].sum(axis=0, dtype=int), labels.sum(axis=0, dtype=int)
    assert (counts >= np.minimum(shots, available)).all()
    assert (available < shots).any() == (counts < shots).any()
    # No class asks for more than it lacks, so there are never more than K for each.
    assert len(chosen) <= np.minimum(shots, available).sum()
    assert chosen.dtype == np.int64 and (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(kshot.choose(labels.astype(bool), shots, seed), chosen)


def test_rows_of_one_class_give_exactly_k_of_each():
    labels = np.eye(5, dtype=np.uint8)[np.random.default_rng(0).choice(5, 200, p=[0.5, 0.3, 0.15, 0.04, 0.01])]
    counts = labels[kshot.choose(labels, 6, 0)].sum(axis=0)
    np.testing.assert_array_equal(counts, np.minimum(6, labels.sum(axis=0)))


def test_the_rarest_class_comes_first_and_what_it_brings_along_counts():
    # Every row of the rare class 1 carries class 0 too: with its two nothing is left to draw for class 0.
    labels = np.array([[1, 0]] * 20 + [[1, 1]] * 2, np.uint8)
    for seed in range(10):
        assert kshot.choose(labels, 2, seed).tolist() == [20, 21]
    assert len(kshot.choose(labels, 5, 0)) == 5


def test_the_draw_is_seeded_and_the_same_everywhere():
    row, column = np.indices((50, 6))
    labels = ((row * row + 3 * row) % (column + 3) == 0).astype(np.uint8)
    draws = {tuple(kshot.choose(labels, 2, seed).tolist()) for seed in range(8)}
    assert len(draws) == 8
    # Written down: other versions and machines must draw the same.
    assert kshot.choose(labels, 2, 7).tolist() == [6, 24, 32, 37, 46]
    assert kshot.folds(labels[:12], list('aabbccddeeff'), 3, 7).tolist() == [2, 2, 2, 2, 0, 0, 0, 0, 1, 1, 1, 1]


def test_every_row_can_be_drawn():
    labels = np.ones((12, 1), np.uint8)
    drawn = [kshot.choose(labels, 3, seed) for seed in range(200)]
    counts = np.bincount(np.concatenate(drawn), minlength=12)
    assert counts.sum() == 600 and counts.min() > 25 and counts.max() < 80  # 50 each are expected


def test_no_label_draws_nothing_and_many_shots_draw_all():
    assert kshot.choose(np.zeros((4, 3), np.uint8), 5, 0).tolist() == []
    labels = labels_like_ava(40, 5, 1)
    assert kshot.choose(labels, 100, 0).tolist() == list(range(40))


def test_a_hundred_thousand_rows_take_no_more_than_they_need():
    labels = labels_like_ava(100_000, 80, 0)
    chosen = kshot.choose(labels, 15, 0)
    counts = labels[chosen].sum(axis=0, dtype=int)
    assert (counts >= np.minimum(15, labels.sum(axis=0, dtype=int))).all() and len(chosen) <= 15 * 80


@pytest.mark.parametrize('seed', range(4))
def test_folds_share_no_group_and_are_balanced(seed):
    rng = np.random.default_rng(seed)
    labels = labels_like_ava(400, 10, seed, share=1.0)
    groups = [f'v{i}' for i in rng.integers(0, 60, 400)]
    found = kshot.folds(labels, groups, 5, seed)
    assert found.shape == (400,) and set(found.tolist()) == set(range(5))
    assert all(len({fold for fold, of in zip(found, groups, strict=True) if of == group}) == 1 for group in groups)
    sizes = np.bincount(found)
    assert sizes.max() - sizes.min() <= 0.1 * 400 / 5 + 6
    per_class = np.stack([labels[found == fold].sum(axis=0, dtype=int) for fold in range(5)])
    frequent = labels.sum(axis=0) >= 25
    shares = per_class[:, frequent] / labels.sum(axis=0)[frequent]
    assert shares.min() > 0.1 and shares.max() < 0.35  # 0.2 each would be even
    shuffled = rng.permutation(400)
    again = kshot.folds(labels[shuffled], [groups[i] for i in shuffled], 5, seed)
    np.testing.assert_array_equal(again, found[shuffled])


def test_as_many_folds_as_groups_leave_one_out():
    labels = labels_like_ava(6, 3, 0)
    assert sorted(kshot.folds(labels, list('abcdef'), 6, 0).tolist()) == list(range(6))
    assert len({tuple(kshot.folds(labels, list('abcdef'), 3, seed).tolist()) for seed in range(6)}) > 1
    with pytest.raises(ValueError, match='2 videos, too few for 3 folds'):
        kshot.folds(labels, list('aabbab'), 3, 0)


def people(seed, videos=12, each=40):
    """Records, and the classes of their index; of `rare` there is one, of `never` none."""
    rng = np.random.default_rng(seed)
    names = ('stand', 'talk', 'sit', 'rare', 'never')
    records = []
    for number in range(videos):
        boxes = []
        for time in sorted(rng.integers(0, 8, each).tolist()):
            labels = [name for name, share in zip(names, (0.7, 0.3, 0.1, 0, 0), strict=True) if rng.random() < share]
            labels += ['rare'] if number == 3 and not boxes else []
            boxes.append(rec.PersonBox(float(time), tuple(rng.random(4).round(2).tolist()), tuple(labels)))
        records.append(rec.VideoRecord(f'v{number:02d}', boxes=tuple(boxes)))
    return records, names


def pick(record):
    for number, person in enumerate(record.boxes):
        if person.labels:
            yield number, (person.time, *person.box), person.labels


def drawn(records, names, *, train=True, **view):
    index = {name: i for i, name in enumerate(names)}
    return kshot.draw('street', View(**view), kshot.samples(records, index, pick), names, train=train)


def test_the_order_of_the_annotations_changes_nothing():
    records, names = people(0)
    rng = np.random.default_rng(1)
    mixed = [
        dataclasses.replace(
            record,
            boxes=tuple(
                dataclasses.replace(record.boxes[i], labels=record.boxes[i].labels[::-1])
                for i in rng.permutation(len(record.boxes))
            ),
        )
        for record in (records[i] for i in rng.permutation(len(records)))
    ]
    for view in ({}, {'shots': 5, 'shots_seed': 3}, {'shots': 5, 'folds': 3, 'fold': 1}):
        one, other = drawn(records, names, **view), drawn(mixed, names, **view)
        assert one.content() == other.content() and len(one.held)
        # The owners lead back to the same people.
        for number, within in other.drawn.of_records().items():
            assert all(mixed[number].boxes[i].labels for i in within)


def test_a_draw_says_what_it_drew():
    records, names = people(0)
    found = drawn(records, names, shots=4)
    content = json.loads(json.dumps(found.content()))
    everyone = [(record.video, person) for record in records for person in record.boxes if person.labels]
    known = {(video, person.time, *person.box): set(person.labels) for video, person in everyone}
    assert content['available'] == len(everyone) and content['lost'] == 0
    assert all(known[tuple(row[:-1])] == set(row[-1]) for row in content['chosen'])
    assert content['chosen'] == sorted(content['chosen'])
    counted = {name: sum(name in row[-1] for row in content['chosen']) for name in names}
    assert content['per_class'] == counted
    assert counted['rare'] == 1 and counted['never'] == 0 and min(counted[name] for name in names[:3]) >= 4
    assert content['short'] == {'rare': 1, 'never': 0}
    assert f'4 shots a class, seed 0: {len(found.held)} of {len(everyone)} samples, 0 to ' in found.line()
    assert found.line().endswith('2 of 5 classes have fewer in all: rare 1, never 0')


def test_folds_hold_out_videos_and_leave_nothing_out():
    records, names = people(1)
    everything = drawn(records, names, shots=6).content()['chosen']
    held_out = []
    for fold in range(3):
        training = drawn(records, names, shots=6, folds=3, fold=fold).content()['chosen']
        out = drawn(records, names, train=False, shots=6, folds=3, fold=fold)
        mine = out.content()['chosen']
        assert not {row[0] for row in training} & {row[0] for row in mine}
        assert sorted(training + mine) == everything
        held_out += mine
        assert f'only fold {fold} of 3' in out.line()
    assert sorted(held_out) == everything


def test_clips_of_one_video_are_in_one_fold():
    names = [f'walk/film{i // 3}_{i:06d}_{i + 1:06d}.mp4' for i in range(12)]
    records = [rec.VideoRecord(name, boxes=(rec.PersonBox(0.0, (0, 0, 1, 1), ('walk',)),)) for name in names]
    for fold in range(2):
        found = drawn(records, ('walk',), train=False, shots=12, folds=2, fold=fold).drawn.videos
        assert len(found) == 6 and len({name.split('_')[0] for name in found}) == 2
    with pytest.raises(sources.DataError, match=r'street: the shots lie in 4 videos, too few for 5 folds.*fewer'):
        drawn(records, ('walk',), shots=12, folds=5)


def test_nothing_to_draw_from_is_an_error():
    with pytest.raises(sources.DataError, match='street: no sample carries a label'):
        drawn([rec.VideoRecord('v', boxes=(rec.PersonBox(0.0, (0, 0, 1, 1)),))], ('walk',))


@pytest.mark.parametrize(
    ('view', 'said'),
    [
        ({'shots': -1}, 'shots is -1; give a whole number of at least 0'),
        ({'shots': 1.5}, r'shots is 1\.5; give a whole'),
        ({'shots': True}, 'shots is True; give a whole'),
        ({'shots_seed': -2}, 'shots_seed is -2'),
        ({'folds': -2}, 'folds is -2'),
        ({'folds': 1}, 'folds is 1, which leaves nothing to train on'),
        ({'shots': 0, 'folds': 3}, 'folds is 3, but folds are of the shots; set shots'),
        ({'folds': 3, 'fold': 3}, 'fold is 3; folds=3 are numbered 0 to 2'),
        ({'fold': 1}, 'fold is 1; there are no folds'),
        ({'shots': 0, 'fold': -1}, 'fold is -1'),
    ],
)
def test_numbers_without_sense_are_refused(view, said):
    with pytest.raises(sources.DataError, match=f'source street: {said}'):
        kshot.check('street', View(**view))


def test_numbers_with_sense_are_not():
    for view in (View(), View(shots=0), View(folds=2, fold=1), View(shots=0, shots_seed=3)):
        kshot.check('street', view)
