"""Plain data are read from pickles of all protocols; more than that only with a vocabulary that names it."""

import collections
import pickle

import numpy as np
import pytest

from vidloc import plain_pickle
from vidloc.plain_pickle import Name, PickleError, Refused, StandIn, Vocabulary


@pytest.mark.parametrize('protocol', range(6))
def test_other_plain_data(protocol):
    value = {
        'a': [1, -5, 10**12, 2.5, None, True, False, 'é', b'\xff\x00', (), (1,), (1, (2, 3, 4, 5))],
        'b': np.float32(0.25),
        'c': np.asfortranarray(np.arange(6, dtype='>i4').reshape(2, 3)),
        'd': {'e': np.array([True, False]), 'f': np.uint8(3), 'g': b''},
    }
    found = plain_pickle.loads(pickle.dumps(value, protocol))
    assert found['a'] == value['a'] and found['b'] == 0.25 and found['d']['f'] == 3 and found['d']['g'] == b''
    assert np.array_equal(found['c'], value['c']) and found['c'].dtype == np.int32
    assert found['d']['e'].dtype == bool and found['d']['e'].tolist() == [True, False]


class _Counted(dict, StandIn):
    def build(self, machine, state):
        machine.spend(len(state))
        self.update(state)


class _Text(StandIn):
    def finished(self):
        return 'a text'


WORDS = Vocabulary(
    {
        ('collections', 'OrderedDict'): Name('OrderedDict', lambda machine, arguments: _Counted()),
        ('a', 'Class'): Name('Class', lambda machine, arguments: _Counted(), new=True),
        ('a', 'value'): 'value',
        ('a', 'text'): _Text(),
        ('a', 'bad'): Refused('something bad'),
    },
    persistent=lambda key: f'<{key}>',
    keys=(int,),
)


@pytest.mark.parametrize('protocol', range(6))
def test_names_of_a_vocabulary(protocol):
    value = {'a': collections.OrderedDict(b=1), 3: np.arange(3)}
    data = pickle.dumps(value, protocol)
    found = plain_pickle.loads(data, WORDS)
    assert found['a'] == {'b': 1} and np.array_equal(found[3], [0, 1, 2])
    with pytest.raises(PickleError, match='OrderedDict'):
        plain_pickle.loads(data)


@pytest.mark.parametrize(
    ('data', 'value'),
    [
        (b'ca\nvalue\n.', 'value'),
        (b'(lca\ntext\na.', ['a text']),
        (b"ca\nClass\n)\x81(dS'x'\nI1\nsb.", {'x': 1}),
        (b'(dI7\nI8\ns.', {7: 8}),
        (b'Pname\n.', '<name>'),
        (b'I5\nQ.', '<5>'),
    ],
)
def test_opcodes_of_a_vocabulary(data, value):
    assert plain_pickle.loads(data, WORDS) == value
    with pytest.raises(PickleError) as raised:
        plain_pickle.loads(data)
    assert raised.value.refused


@pytest.mark.parametrize(
    'data',
    [
        b'ca\nbad\n.',
        b'ca\nClass\n.',  # a class is no value
        b'ccollections\nOrderedDict\n)\x81.',  # of which no object may be made
        b'cnumpy\ndtype\n)\x81.',
        b'ca\nother\n.',
        b"ca\nvalue\n(dS'x'\nI1\nsb.",
        b'ca\nvalue\n)R.',
        b"ca\ntext\n(dS'x'\nI1\nsb.",
        b'(dI%d\nI8\ns.' % (1 << 61),
        b'(d(tI8\ns.',
        b'(dF1.5\nI8\ns.',
        b'(dI01\nI8\ns.',
        # One state of 50 items, copied again and again.
        b'ca\nClass\n)\x81p0\n0(dp1\n('
        + b''.join(b"S'%d'\nN" % n for n in range(50))
        + b'u0'
        + b'g0\ng1\nb' * 100
        + b'.',
    ],
)
def test_what_a_vocabulary_does_not_open(data):
    with pytest.raises(PickleError) as raised:
        plain_pickle.loads(data, WORDS)
    assert raised.value.refused
