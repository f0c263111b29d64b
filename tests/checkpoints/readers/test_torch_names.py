"""Pickles of torch: the names that are known, and that no file can make anything run."""

import collections
import importlib.util
import os
import pathlib
import pickle
import sys

import pytest

from vidloc.checkpoints.readers import torch_zip
from vidloc.checkpoints.readers.weights import ReadError

_SPEC = importlib.util.spec_from_file_location('torch_archive', pathlib.Path(__file__).with_name('torch_archive.py'))
made = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(made)
CANARY = 'vidloc-canary'
TENSOR = made.tensor((2, 3), (3, 1))


def _read(path, pickle: bytes):
    return torch_zip.read(made.write(path / 'f.pt', pickle, {'0': bytes(24)}))


def _extra(path, value: bytes):
    entries, extras = _read(path, made.pickled({'weight': TENSOR, 'extra': value}))
    assert list(entries) == ['weight']
    return extras['extra']


class _Call:
    """Pickles as a call of anything."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


def _state(*items: bytes) -> bytes:
    return b'}(' + b''.join(items) + b'u'


TOUCH = f'touch {CANARY}'
ARGUMENTS = b'(' + made.text(TOUCH) + b't'
OPEN = made.name('io', 'open') + b'(' + made.text(CANARY) + made.text('w') + b't'
STORAGE = made.storage()
NAMESPACE = made.name('argparse', 'Namespace') + b')\x81'
ORDERED = made.call('collections', 'OrderedDict')
DOUBLE = b''.join(b'(g%d\ng%d\ntp%d\n0' % (n, n, n + 1) for n in range(60))  # 2 ** 60 of what is in memo 0
DOUBLED = b'(tp0\n0' + DOUBLE


def _shortened(stored: bytes, *, key: bytes) -> bytes:
    return stored.replace(made.text('0'), key)


def _hostile() -> dict[str, bytes]:
    """{what: the opcodes of a value}, each of which has to be refused."""
    values = {
        f'{what} {protocol}': pickle.dumps(value, protocol)[2 if protocol > 1 else 0 : -1]
        for protocol in (0, 2)
        for what, value in {
            'system': _Call(os.system, TOUCH),
            'eval': _Call(eval, f'open({CANARY!r}, "w")'),
            'exec in a list': [_Call(exec, f'open({CANARY!r}, "w")')],
            'import': _Call(__import__, CANARY.replace('-', '_')),
            'open': _Call(open, CANARY, 'w'),
            'key': {_Call(open, CANARY, 'w'): 1},
            'state of an OrderedDict': _Call(collections.OrderedDict, state={'x': _Call(open, CANARY, 'w')}),
            'factory': _Call(collections.defaultdict, _Call(open, CANARY, 'w')),
        }.items()
    }
    named = {
        'module of its own': made.name('vidloc_canary', 'anything'),
        'module of its own, called': made.call('vidloc_canary', 'anything'),
        'inst': b'(' + made.text(TOUCH) + b'iposix\nsystem\n',
        'inst of a known name': b'(iargparse\nNamespace\n',
        'obj': b'(' + made.name('posix', 'system') + made.text(TOUCH) + b'o',
        'obj of a known name': b'(' + made.name('argparse', 'Namespace') + b'o',
        'newobj': made.name('posix', 'system') + ARGUMENTS + b'\x81',
        'newobj of a function': made.name('torch._utils', '_rebuild_tensor_v2') + b')\x81',
        'newobj of a text': made.text('posix.system') + ARGUMENTS + b'\x81',
        'newobj_ex': made.name('argparse', 'Namespace') + b')}\x92',
        'stack global': made.text('posix') + made.text('system') + b'\x93' + ARGUMENTS + b'R',
        'stack global of a list': b']' + made.text('system') + b'\x93',
        'dotted name': made.text('torch') + made.text('os.system') + b'\x93' + ARGUMENTS + b'R',
        'dotted known name': made.text('argparse') + made.text('Namespace.__init__.__globals__') + b'\x93',
        'getattr': made.call('builtins', 'getattr', made.name('argparse', 'Namespace'), made.text('__init__')),
        'getattr of python 2': made.call('__builtin__', 'getattr', NAMESPACE, made.text('__class__')),
        'attrgetter': made.call('operator', 'attrgetter', made.text('__class__')),
        'partial': made.call('functools', 'partial', made.name('posix', 'system')),
        'reconstructor': made.call('copyreg', '_reconstructor', made.name('argparse', 'Namespace')),
        'torch.load': made.call('torch', 'load', made.text(CANARY)),
        'torch.load of bytes': made.call('torch.storage', '_load_from_bytes', ARGUMENTS),
        'torch.hub': made.call('torch.hub', 'load', made.text(CANARY)),
        'torch.jit': made.call('torch.jit', 'load', made.text(CANARY)),
        'runpy': made.call('runpy', 'run_path', made.text(CANARY)),
        'numpy.load': made.call('numpy', 'load', made.text(CANARY)),
        'torch.nn module': made.name('torch.nn.modules.linear', 'Linear') + b')\x81}b',
        'extension 1': b'\x82\x01',
        'extension 2': b'\x83\x01\x00',
        'extension 4': b'\x84\x01\x00\x00\x00',
        'out of band': b'\x97',
        'read-only out of band': b'\x97\x98',
        'state on a text': made.text('x') + _state(made.text('a'), b'N') + b'b',
        'state on a list': b']' + _state(made.text('__class__'), b'N') + b'b',
        'state on a dict': b'}' + _state(made.text('a'), b'N') + b'b',
        'state on a tensor': TENSOR + _state(made.text('storage'), b'N') + b'b',
        'state on a storage': STORAGE + _state(made.text('key'), made.text('1')) + b'b',
        'state on a name': made.name('torch._utils', '_rebuild_tensor_v2') + _state(made.text('make'), b'N') + b'b',
        'state on a class': made.name('argparse', 'Namespace') + _state(made.text('a'), b'N') + b'b',
        'state that is a list': NAMESPACE + b']b',
        'state in slots': NAMESPACE + b'N}\x86b',
        'items on a namespace of code': NAMESPACE + _state(made.text('a'), OPEN + b'R') + b'b',
        'items on a tensor': TENSOR + made.text('a') + b'Ns',
        'items on a tuple': b')Na',
        'a persistent text': b'P' + TOUCH.encode() + b'\n',
        'a persistent number': b'K\x01Q',
        'a persistent dict': b'}Q',
        'a persistent list': b']Q',
        'a persistent call': OPEN + b'RQ',
        'a persistent id of another kind': b'(' + made.text('module') + b'NNNNtQ',
        'a storage of a called class': _shortened(STORAGE, key=OPEN + b'R'),
        'a storage of a dict': _shortened(STORAGE, key=b'}'),
        'a storage of a class of its own': STORAGE.replace(b'torch\nFloatStorage', b'os\nPathLike'),
        'a storage of no class': STORAGE.replace(b'ctorch\nFloatStorage\n', made.text('FloatStorage')),
        'a storage of negative size': made.storage(count=-1),
        'a storage of a size in text': STORAGE.replace(made.number(6), made.text('6')),
        'a storage of a true size': STORAGE.replace(made.number(6), b'\x88'),
        'a tensor of a text': made.tensor((1,), (1,), 0, made.text('x')),
        'a tensor of a dict': made.tensor((1,), (1,), 0, b'}'),
        'a tensor of a tensor': made.tensor((1,), (1,), 0, TENSOR),
        'a tensor of too few parts': made.call('torch._utils', '_rebuild_tensor_v2', STORAGE),
        'a tensor of no parts': made.call('torch._utils', '_rebuild_tensor_v2'),
        'a shape of lists': made.tensor((7,), (1,)).replace(made.number(7), b']'),
        'a shape of truths': made.tensor((7,), (1,)).replace(made.number(7), b'\x88'),
        'a shape of fractions': made.tensor((7,), (1,)).replace(made.number(7), b'F1.0\n'),
        'a shape without an end': DOUBLED + made.tensor((7,), (1,)).replace(made.number(7), b'g60\n'),
        'a storage key without an end': DOUBLED + _shortened(STORAGE, key=b'g60\n'),
        'a parameter of a text': made.call('torch._utils', '_rebuild_parameter', made.text('x'), b'\x89', b'}'),
        'a parameter of nothing': made.call('torch._utils', '_rebuild_parameter'),
        'a type of its own': made.call(
            'torch._tensor', '_rebuild_from_type_v2', made.name('posix', 'system'), b'N', ARGUMENTS, b'}'
        ),
        'a type that is a function': made.call(
            'torch._tensor', '_rebuild_from_type_v2', *2 * [made.name('torch._utils', '_rebuild_tensor')], b')}'
        ),
        'a type of itself': made.call(
            'torch._tensor', '_rebuild_from_type_v2', made.name('torch._tensor', '_rebuild_from_type_v2'), b'N)}'
        ),
        'a type of another maker': made.call(
            'torch._tensor', '_rebuild_from_type_v2', made.name('torch', 'Size'), made.name('torch', 'Tensor'), b')}'
        ),
        'a negated view': TENSOR[:-2] + _state(made.text('neg'), b'\x88') + b'tR',
        'flags of a list': TENSOR[:-2] + b']tR',
        'a quantised storage': made.storage(kind='QInt8Storage'),
        'a class of storages': made.name('torch', 'FloatStorage'),
        'a class': made.name('torch', 'Tensor'),
        'a mark': b'(',
        'a size of a list': made.call('torch', 'Size', b']'),
        'a device of a list': made.call('torch', 'device', b']'),
        'a device of nothing': made.call('torch', 'device'),
        'a version of a number': made.name('torch.torch_version', 'TorchVersion') + b'K\x01\x85\x81',
        'a layout of a dict': made.call('torch.serialization', '_get_layout', b'}'),
        'a path of numbers': made.call('pathlib', 'PosixPath', b'K\x01'),
        'a set of a number': made.call('builtins', 'set', b'K\x01'),
        'a range of texts': made.call('builtins', 'range', made.text('a')),
        'a complex text': made.call('builtins', 'complex', made.text('1'), made.text('2')),
        'a bytearray of a huge number': made.call('builtins', 'bytearray', made.number(1 << 60)),
        'bytes of a huge number': made.call('builtins', 'bytes', made.number(1 << 60)),
        'pairs of three': made.call('collections', 'OrderedDict', b'](NNNta'),
        'keys that are tuples': b'}))s',
        'keys that are tensors': b'}' + TENSOR + b'Ns',
        'keys without an end': DOUBLED + b'}g60\nNs',
        'pairs with keys without an end': DOUBLED + made.call('collections', 'OrderedDict', b'](g60\nNta'),
        'a huge number': b'I' + b'9' * 5000 + b'\n',
        'a huge long': b'\x8b\xff\xff\xff\x7f',
        'a huge text': b'X\xff\xff\xff\xff',
        'a text of more than memory': b'\x8d' + b'\xff' * 8,
        'a text of negative size': b'T\xff\xff\xff\xff',
        'bytes of more than memory': b'\x8e' + b'\xff' * 8,
        'a missing memo': b'h\x63',
        'an empty stack': b'0' * 9,
        'a missing mark': b't' * 9,
        'deep tuples': b'(' * 100_000 + b't' * 100_000,
        'deep lists': b']' * 50_000 + b'a' * 49_999,
        'deep lists of a tensor': b']' * 100 + TENSOR + b'a' * 100,
        'a list in itself': b']p0\ng0\na',
        'a list in itself, with a tensor': b']p0\n(g0\n' + TENSOR + b'e',
        'a dict in itself': b'}p0\n' + made.text('a') + b'g0\ns',
        'a tuple of two to the sixtieth': DOUBLED + b'g60\n',
        'two to the sixtieth tensors': TENSOR + b'p0\n0' + DOUBLE + b'g60\n',
        'depth by another way': b']p0\n0' + b''.join(b']g%d\nap%d\n0' % (n, n + 1) for n in range(3000)) + b']('
        + NAMESPACE + b'}(' + made.text('a') + b'](' + b''.join(b'g%d\n' % n for n in range(3001)) + b'eubg3000\ne',
        'one list copied for ever': b'](' + b'N' * 2000 + b'ep0\n0]('
        + made.call('builtins', 'set', b'g0\n') * 300 + b'e',
        'an unknown opcode': b'\xff',
        'protocol 9': b'\x80\x09',
    }  # fmt: skip
    return values | named


HOSTILE = _hostile()


@pytest.mark.parametrize('what', HOSTILE)
def test_nothing_is_run(tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    pathlib.Path('vidloc_canary.py').write_text(f'open({CANARY!r}, "w")\nanything = dict')
    for value in (made.pickled({'weight': TENSOR, 'extra': HOSTILE[what]}), b'\x80\x02' + HOSTILE[what] + b'.'):
        with pytest.raises(ReadError) as raised:
            _read(tmp_path, value)
        assert len(str(raised.value)) < 1000
    assert sorted(os.listdir()) == ['f.pt', 'vidloc_canary.py']
    assert 'vidloc_canary' not in sys.modules


@pytest.mark.parametrize('what', ['open 0', 'open 2', 'system 2', 'import 2', 'module of its own', 'obj', 'inst'])
def test_the_hostile_ones_would_run(tmp_path, monkeypatch, what):
    """That the canary can be found at all: Python's own reader leaves it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    pathlib.Path('vidloc_canary.py').write_text(f'open({CANARY!r}, "w").close()\nanything = dict')
    pickle.loads(b'\x80\x02' + HOSTILE[what] + b'.')  # noqa: S301 - made above
    sys.modules.pop('vidloc_canary', None)
    assert CANARY in os.listdir()


@pytest.mark.parametrize(
    ('value', 'wanted'),
    [
        (made.call('collections', 'OrderedDict', b'](' + b'](' + made.text('a') + b'K\x01ee'), {'a': 1}),
        (made.call('collections', 'defaultdict', made.name('__builtin__', 'list')), {}),
        (made.call('collections', 'Counter', _state(b'K\x05', b'K\x01')), {5: 1}),
        (NAMESPACE + _state(made.text('a'), TENSOR) + b'b', {'a': 'tensor'}),
        (made.call('types', 'SimpleNamespace') + _state(made.text('a'), b'N') + b'b', {'a': None}),
        (made.name('yacs.config', 'CfgNode') + b')\x81' + made.text('a') + TENSOR + b's}b', {'a': 'tensor'}),
        (made.name('torch.torch_version', 'TorchVersion') + made.text('2.1') + b'\x85\x81', '2.1'),
        (made.call('torch', 'device', made.text('cuda'), b'K\x01'), 'cuda:1'),
        (made.call('torch', 'Size', made.numbers((2, 3))), (2, 3)),
        (made.call('torch.serialization', '_get_layout', made.text('torch.strided')), 'torch.strided'),
        (made.name('torch', 'float16'), 'torch.float16'),
        (made.call('pathlib', 'PosixPath', *map(made.text, ('/', 'a', 'b'))), '/a/b'),
        (made.call('__builtin__', 'set', b'](K\x01K\x02e'), [1, 2]),
        (made.call('__builtin__', 'slice', b'K\x01', b'N', b'N'), (1, None, None)),
        (made.call('__builtin__', 'xrange', b'K\x00', b'K\x03', b'K\x01'), (0, 3, 1)),
        (made.call('__builtin__', 'complex', b'F1.0\n', b'F-2.0\n'), 1 - 2j),
        (made.call('__builtin__', 'bytearray', b'C\x02ab'), b'ab'),
        (made.call('datetime', 'datetime', b'C\x02ab'), 'datetime.datetime'),
        (made.name('omegaconf.dictconfig', 'DictConfig') + b')\x81' + _state(made.text('a'), TENSOR) + b'b',
         'omegaconf.dictconfig.DictConfig'),
        (made.name('__builtin__', 'int'), 'int'),
        (_state(b'N', b'K\x01', b'K\x02', b'\x88'), {None: 1, 2: True}),
    ],
)  # fmt: skip
def test_values_beside_the_tensors(tmp_path, value, wanted):
    found = _extra(tmp_path, value)
    assert found == wanted and type(found) is type(wanted)


def test_makers_of_tensors(tmp_path):
    parts = STORAGE + made.number(0) + made.numbers((6,)) + made.numbers((1,))
    plain = made.call('torch._utils', '_rebuild_tensor', parts)
    untyped = made.storage(count=24, kind='UntypedStorage').replace(b'ctorch\n', b'ctorch.storage\n')
    third = untyped + made.number(0) + made.numbers((12,)) + made.numbers((1,)) + b'\x89' + ORDERED
    third = made.call('torch._utils', '_rebuild_tensor_v3', third, made.name('torch', 'uint16'))
    parameter = made.call('torch._utils', '_rebuild_parameter', plain, b'\x88', ORDERED)
    with_state = made.call('torch._utils', '_rebuild_parameter_with_state', plain, b'\x88', ORDERED, b'}')
    function = made.name('torch._utils', '_rebuild_tensor')
    of_type = made.call(
        'torch._tensor', '_rebuild_from_type_v2', function, made.name('torch', 'Tensor'), b'(' + parts + b't', b'}'
    )
    flagged = TENSOR[:-2] + _state(made.text('neg'), b'\x89') + b'tR'
    items = {'a': plain, 'b': third, 'c': parameter, 'd': with_state, 'e': of_type, 'f': flagged}
    entries, _ = _read(tmp_path, made.pickled(items))
    found = {name: (entry.shape, entry.dtype.name) for name, entry in entries.items()}
    assert found.pop('b') == ((12,), 'uint16') and found.pop('f') == ((2, 3), 'float32')
    assert set(found.values()) == {((6,), 'float32')} and len(found) == 4
