"""Counts of parameters against the closed forms of what they are."""

import jax
import numpy as np
import pytest

from vidloc import build, parameters
from vidloc.train import trainable

WIDTH, CLASSES = 16, 3
ADAPTED = (
    (r'.*/lora_[ab]', 1.0, False),
    (r'backbone/.*', None, False),
    (r'.*/(bias|scale)', 1.0, False),
    (r'.*', 1.0, True),
)


def partition(**parts):
    small = {'kind': 'videomae', 'width': WIDTH, 'mlp': 32, 'heads': 2, 'layers': 4, 'grid': (2, 2, 2)}
    return build.experiment(
        build.config(
            name='small',
            backbone={**small, 'patch': (8, 8), 'tubelet': 2},
            tasks={'street': {'kind': 'action_detection', 'classes': ('a', 'b', 'c'), 'head': {'kind': 'roi'}}},
            sources={'street': {'task': 'street', 'format': 'ava', 'frames': 4, 'size': (16, 16)}},
            optimizer={'kind': 'sgd'},
            trainable=ADAPTED,
            **parts,
        )
    ).partition


CASES = [(2, {'count': 4, 'embedding': 8}, 0), (5, {'count': 3, 'embedding': 6, 'hidden': 7}, 7)]


@pytest.mark.parametrize(('rank', 'film', 'hidden'), CASES)
def test_lora_film_and_heads_are_counted_apart(rank, film, hidden):
    found = partition(lora={'rank': rank, 'layers': (2, -1)}, film={'kind': 'learned', **film})
    adapted = 2 * 2 * rank * (WIDTH + WIDTH)  # layers x (query, value) x (A and B)
    table, inputs = film['count'] * film['embedding'], film['embedding']
    inner = hidden * (inputs + 1) if hidden else 0
    generator = table + inner + ((hidden or inputs) + 1) * 2 * WIDTH
    heads = (WIDTH + 1) * CLASSES
    counts = parameters.by_kind(found)
    assert counts == {'lora': adapted, 'film': generator, 'heads': heads, 'other': 0}
    total = adapted + generator + heads
    last = f'lora {adapted:,} + film {generator:,} + heads {heads:,} + other 0 = {total:,}'
    assert parameters.overview(found).splitlines()[-1] == f'Trainable by kind: {last}'
    assert found.total(trainable=True) == total


def test_without_adapters_the_table_says_all():
    kernel = {'kernel': jax.ShapeDtypeStruct((2, 3), np.float32)}
    found = trainable.resolve(build.TRAIN_ALL[1:], {'backbone': kernel, 'heads_street': kernel})
    assert parameters.overview(found) == found.overview()
    assert parameters.by_kind(found) == {'lora': 0, 'film': 0, 'heads': 6, 'other': 6}
