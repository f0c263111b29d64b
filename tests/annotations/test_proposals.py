"""mmaction2's proposals: pickles of every kind are read, and none of them can run anything."""

import os
import pickle
import pickletools
import struct
import warnings

import numpy as np
import pytest

from vidloc.annotations import formats, proposals
from vidloc.annotations.records import AnnotationError, PersonBox, VideoRecord

ARRAY = np.array([[0.011, 0.157, 0.655, 0.983, 0.998163], [0.0, 0.25, 1.0, 0.5, 0.0]])
FRAMES = {'0f39OWEqJ24,0902': ARRAY, '0f39OWEqJ24,0903': ARRAY[:0], '-a_b,1798': ARRAY[1:].astype(np.float32)}


def _old_names(data: bytes) -> bytes:
    """The pickle as NumPy 1 writes it, which has numpy.core where NumPy 2 has numpy._core."""
    for room in (b'multiarray', b'numeric'):
        data = data.replace(b'cnumpy._core.' + room + b'\n', b'cnumpy.core.' + room + b'\n')
        new, old = b'numpy._core.' + room, b'numpy.core.' + room
        framed = data.replace(b'\x8c' + bytes([len(new)]) + new, b'\x8c' + bytes([len(old)]) + old)
        if framed != data:
            at = framed.index(b'\x95') + 1
            length = struct.unpack_from('<Q', framed, at)[0] + len(framed) - len(data)
            data = framed[:at] + struct.pack('<Q', length) + framed[at + 8 :]
    return data


def _read(tmp_path, data: bytes, **options):
    (tmp_path / 'p.pkl').write_bytes(data)
    return proposals.read_proposals(tmp_path / 'p.pkl', **options)


def _codes(tmp_path, data: bytes) -> list[str]:
    with pytest.raises(AnnotationError) as raised:
        _read(tmp_path, data)
    assert all(problem.fix and problem.message for problem in raised.value.problems)
    return [problem.code for problem in raised.value.problems if problem.severity == 'error']


@pytest.mark.parametrize('seed', range(15))
def test_round_trip(generate, tmp_path, seed):
    records = [
        VideoRecord(
            record.video,
            keyframes=record.keyframes,
            boxes=tuple(PersonBox(box.time, box.box, (), box.score) for box in record.boxes),
        )
        for record in generate(seed).boxes(scores=True, tracks=False)
    ]
    proposals.write_proposals(tmp_path / 'p.pkl', records)
    assert proposals.read_proposals(tmp_path / 'p.pkl') == records


def test_what_is_written_is_read_by_pickle_itself(tmp_path):
    box = PersonBox(902.0, (0.1, 0.2, 0.3, 0.4), (), 0.5)
    proposals.write_proposals(tmp_path / 'p.pkl', [VideoRecord('v', keyframes=(902.0, 903.0), boxes=(box,))])
    data = (tmp_path / 'p.pkl').read_bytes()
    assert b'numpy._core' not in data and b'numpy.core.multiarray' in data
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)
        found = pickle.loads(data)  # noqa: S301 - written two lines above
    assert list(found) == ['v,0902', 'v,0903']
    assert np.array_equal(found['v,0902'], [[0.1, 0.2, 0.3, 0.4, 0.5]]) and found['v,0903'].shape == (0, 5)


@pytest.mark.parametrize('protocol', range(6))
@pytest.mark.parametrize('names', ['numpy 2', 'numpy 1'])
def test_protocols(tmp_path, protocol, names):
    data = pickle.dumps(FRAMES, protocol)
    if names == 'numpy 1':
        data = _old_names(data)
        assert b'numpy._core' not in data and b'numpy.core' in data
        assert list(pickletools.genops(data))[-1][0].name == 'STOP'
    first, second = _read(tmp_path, data)
    assert first == VideoRecord('-a_b', keyframes=(1798.0,), boxes=(PersonBox(1798.0, (0.0, 0.25, 1.0, 0.5), (), 0.0),))
    assert second.keyframes == (902.0, 903.0)
    assert [[*box.box, box.score] for box in second.boxes] == ARRAY.tolist()
    assert all(type(number) is float for box in second.boxes for number in (*box.box, box.score, box.time))


def _python_2(protocol: int) -> bytes:
    """{'v,0902': ARRAY} as cPickle of Python 2.7 with NumPy 1 writes it."""
    if protocol == 0:
        raw = repr(ARRAY.tobytes().decode('latin-1').encode('unicode_escape').decode('ascii'))
        raw = raw.replace('\\\\', '\\').encode('ascii')
        return (
            b"(dp1\nS'v,0902'\np2\ncnumpy.core.multiarray\n_reconstruct\np3\n(cnumpy\nndarray\np4\n(I0\ntS'b'\ntRp5\n"
            b"(I1\n(I2\nI5\ntcnumpy\ndtype\np6\n(S'f8'\nI0\nI1\ntRp7\n(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS"
            + raw
            + b'\ntbs.'
        )
    return (
        b'\x80\x02}q\x01U\x06v,0902q\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b'
        b'\x87Rq\x05(K\x01K\x02K\x05\x86cnumpy\ndtype\nq\x06U\x02f8K\x00K\x01\x87Rq\x07(K\x03U\x01<NNNJ\xff\xff\xff\xff'
        b'J\xff\xff\xff\xffK\x00tb\x89U' + bytes([ARRAY.nbytes]) + ARRAY.tobytes() + b'tbs.'
    )


@pytest.mark.parametrize('protocol', [0, 2])
def test_python_2(tmp_path, protocol):
    data = _python_2(protocol)
    reference = pickle.loads(data, encoding='latin1')  # noqa: S301 - made above
    assert np.array_equal(reference['v,0902'], ARRAY)
    (record,) = _read(tmp_path, data)
    assert [[*box.box, box.score] for box in record.boxes] == ARRAY.tolist()


class _Call:
    """Pickles as a call of anything."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


def _payloads(canary: str) -> dict[str, bytes]:
    command = f'touch {canary}'
    made = {
        f'{name} {protocol}': pickle.dumps(value, protocol)
        for protocol in range(6)
        for name, value in {
            'system': {'v,0902': _Call(os.system, command)},
            'eval': _Call(eval, f'open({canary!r}, "w")'),
            'exec in a list': [_Call(exec, f'open({canary!r}, "w")')],
            'import': _Call(__import__, 'os'),
            'open': _Call(open, canary, 'w'),
            'key': {_Call(open, canary, 'w'): 1},
            'load': _Call(np.load, canary),
            'memmap': _Call(np.memmap, canary, 'u1', 'w+', 0, (4,)),
            'subclass': {'v,0902': np.ma.masked_array([1.0])},
            'objects': {'v,0902': np.array([_Call(open, canary, 'w'), 1], dtype=object)},
        }.items()
    }
    text = command.encode()
    hand = {
        'inst': b"(S'" + text + b"'\niposix\nsystem\n.",
        'obj': b"(cposix\nsystem\nS'" + text + b"'\no.",
        'newobj': b'\x80\x02cposix\nsystem\nU' + bytes([len(text)]) + text + b'\x85\x81.',
        'stack global': b'\x80\x04\x8c\x05posix\x8c\x06systemq\x00\x93\x8c' + bytes([len(text)]) + text + b'\x85R.',
        'persistent id': b'P' + text + b'\n.',
        'binary persistent id': b'N' + b'Q.',
        'extension': b'\x80\x02\x82\x01.',
        'out of band': b'\x80\x05\x97.',
        'dotted name': b'\x80\x04\x8c\x05numpy\x8c\x0ef2py.os.system\x93.',
        'name of a name': b'cnumpy\nos.system\n.',
        'numpy itself': b"cnumpy\nfromfile\n(S'/etc/hostname'\ntR.",
        'state on a name': b"cnumpy\nndarray\n(dS'x'\nI1\nsb.",
        'slots on a name': b"cnumpy\ndtype\n(N(dS'make'\nI1\nstb.",
        'state on a dict': b"(d(dS'x'\nI1\nsb.",
        'call of a text': b"S'x'\n)R.",
        'object dtype': b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR.",
        'dtype alone': b"cnumpy\ndtype\n(S'f8'\nI0\nI1\ntR.",
        'name alone': b'cnumpy\nndarray\n.',
        'codec': b'c_codecs\nencode\n(VAAAA\nVzip\ntR.',
        'int keys': b'(dI1\nI2\ns.',
        'protocol 9': b'\x80\x09}.',
    }
    return made | hand


CANARY = 'vidloc-canary'
PAYLOADS = _payloads(CANARY)


@pytest.mark.parametrize('name', PAYLOADS)
def test_nothing_is_run(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert _codes(tmp_path, PAYLOADS[name]) == ['pickle-refused']
    assert sorted(os.listdir(tmp_path)) == ['p.pkl']


def test_the_payloads_would_run(tmp_path, monkeypatch):
    """That the canary can be found at all: Python's own reader leaves it."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(PAYLOADS['open 2'])  # noqa: S301 - made above
    assert os.listdir(tmp_path) == [CANARY]


def _array_of(shape: bytes, raw: bytes, order: bytes = b'I00\n') -> bytes:
    return (
        b"(dS'v,0902'\ncnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n("
        + shape
        + b"tcnumpy\ndtype\n(S'f8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
        + order
        + b"S'"
        + raw
        + b"'\ntbs."
    )


@pytest.mark.parametrize(
    ('data', 'code'),
    [
        (b'', 'file-empty'),
        (b'x1,y1\n', 'pickle-refused'),
        (b'(dp0', 'pickle-broken'),
        (b'.', 'pickle-broken'),
        (b't.', 'pickle-broken'),
        (b'\x80', 'pickle-broken'),
        (b'\x80\x02X\xff\xff\xff\x7fab.', 'pickle-broken'),
        (b'\x80\x02T\xff\xff\xff\xffab.', 'pickle-broken'),
        (b'h\x05.', 'pickle-broken'),
        (b"(dS'a'\nu.", 'pickle-broken'),
        (b'I' + b'9' * 5000 + b'\n.', 'pickle-broken'),
        (b'\x8b\xff\xff\xff\x7f.', 'pickle-broken'),
        (_array_of(b'I9\nI5\n', b'a' * 80), 'pickle-broken'),
        (_array_of(b'I1000000000\nI1000000000\n', b'a' * 80), 'pickle-broken'),
        (_array_of(b'I-2\nI-5\n', b'a' * 80), 'pickle-refused'),
        (_array_of(b'I0\nI' + b'9' * 30 + b'\n', b''), 'pickle-broken'),
        (pickle.dumps([1]), 'proposals-layout'),
        (pickle.dumps({}), 'file-empty'),
        (pickle.dumps({'v': ARRAY}), 'proposals-layout'),
        (pickle.dumps({'v,0902': ARRAY[:, :4]}), 'proposals-layout'),
        (pickle.dumps({'v,0902': ARRAY[0]}), 'proposals-layout'),
        (pickle.dumps({'v,0902': 'x'}), 'proposals-layout'),
        (pickle.dumps({'v,0902': [[1, 2, 3]]}), 'proposals-layout'),
        (pickle.dumps({'../v,0902': ARRAY}), 'video-path-refused'),
        (pickle.dumps({'v,x': ARRAY}), 'timestamp-not-a-number'),
        (pickle.dumps({'v,902': ARRAY, 'v,0902': ARRAY}), 'proposals-twice'),
        (pickle.dumps({'v,0902': ARRAY * 320}), 'box-not-normalised'),
        (pickle.dumps({'v,0902': ARRAY[:, [2, 3, 0, 1, 4]]}), 'box-swapped'),
        (pickle.dumps({'v,0902': ARRAY[:, [0, 1, 0, 3, 4]]}), 'box-empty'),
        (pickle.dumps({'v,0902': ARRAY + [0, 0, 0, 0, 1]}), 'score-out-of-range'),
        (pickle.dumps({'v,0902': ARRAY * np.nan}), 'not-finite'),
    ],
)
def test_broken(tmp_path, data, code):
    assert set(_codes(tmp_path, data)) == {code}


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / 'none.pkl', tmp_path):
        with pytest.raises(AnnotationError):
            proposals.read_proposals(path)


def test_bombs_take_neither_time_nor_memory(tmp_path):
    doubled = b'(tp0\n0' + b''.join(b'(g%d\ng%d\ntp%d\n0' % (n, n, n + 1) for n in range(60))  # 2 ** 60 of them
    assert _codes(tmp_path, doubled + b'g60\n.') == ['proposals-layout']
    assert _codes(tmp_path, doubled + b'(dg60\nI1\ns.') == ['pickle-refused']  # as a key it would be hashed
    assert _codes(tmp_path, doubled + b"(dS'v,0902'\ng60\ns.") == ['proposals-layout']
    assert _codes(tmp_path, b'(' * 100000 + b't' * 100000 + b'.') == ['pickle-refused']
    assert _codes(tmp_path, b'(lp0\ng0\na.') == ['proposals-layout']  # a list that holds itself
    assert _codes(tmp_path, b'Nr\xff\xff\xff\xff.') == ['proposals-layout']  # an index that an array could not hold
    many = b'(' + b"S'" + b'a' * 8000 + b"'\np0\n0cnumpy\ndtype\n(S'f8'\nI0\nI1\ntRp1\n0(I1000\ntp2\n0"
    many += b"cnumpy.core.numeric\n_frombuffer\n(g0\ng1\ng2\nS'C'\ntR" * 3000 + b't.'
    assert _codes(tmp_path, many) == ['pickle-refused']


@pytest.mark.parametrize('protocol', range(6))
def test_random_damage_is_read_or_refused(tmp_path, protocol):
    rng = np.random.default_rng(protocol)
    good = pickle.dumps(FRAMES, protocol)
    refused = 0
    for _ in range(150):
        data = bytearray(good)
        for _ in range(rng.integers(1, 4)):
            at = rng.integers(len(data))
            if rng.random() < 0.5:
                data[at] = rng.integers(256)
            else:
                del data[at : at + rng.integers(1, 9)]
        try:
            _read(tmp_path, bytes(data))
        except AnnotationError:
            refused += 1
    assert 10 < refused <= 150


def test_equal_rows_are_one_box(tmp_path):
    notes = []
    (record,) = _read(tmp_path, pickle.dumps({'v,0902': np.repeat(ARRAY[:1], 3, 0)}), notes=notes)
    assert len(record.boxes) == 1 and [note.code for note in notes] == ['duplicate-row']
    (record,) = _read(tmp_path, pickle.dumps({'v,0902': [[0.1, 0.2, 1.003, 1, 0.5]]}), notes=notes)
    assert record.boxes[0].box == (0.1, 0.2, 1.003, 1.0) and notes[-1].code == 'box-leaves-frame'


def test_beside_ground_truth(tmp_path):
    (tmp_path / 'a.csv').write_text('v,0902,0.1,0.2,0.3,0.4,1,0\nw,0902\n')
    (tmp_path / 'm.pbtxt').write_text('item {\n  name: "walk"\n  id: 1\n}\n')
    (tmp_path / 'i.txt').write_text('0902\n0903\n')
    (tmp_path / 'x.csv').write_text('v,0903\n')
    (tmp_path / 'p.PKL').write_bytes(pickle.dumps({'v,0902': ARRAY, 'v,0903': ARRAY, 'other,0902': ARRAY}))
    names = {field: str(tmp_path / name) for field, name in (('labels', 'm.pbtxt'), ('included', 'i.txt'))}
    form = formats.AvaFiles((str(tmp_path / 'a.csv'),), detections=(str(tmp_path / 'p.PKL'),), **names)
    assert set(form.files()) == {'annotations', 'labels', 'detections', 'included'}
    first, second = form.read()
    assert [box.score for box in first.boxes] == [None, 0.998163, 0.0, 0.998163, 0.0] and second.boxes == ()
    assert first.keyframes == (902.0,)
    (tmp_path / 'i.txt').write_text('0902\n')
    with pytest.raises(AnnotationError, match='timestamp-not-included'):
        form.read()


@pytest.mark.parametrize(
    'record',
    [
        VideoRecord('v', boxes=(PersonBox(1.0, (0.1, 0.2, 0.3, 0.4)),)),
        VideoRecord('v', boxes=(PersonBox(1.0, (0.1, 0.2, 0.3, 0.4), (), 1.5),)),
        VideoRecord('v', boxes=(PersonBox(1.0, (0.3, 0.2, 0.1, 0.4), (), 0.5),)),
        VideoRecord('/v', keyframes=(1.0,)),
    ],
)
def test_what_no_reader_would_take_is_not_written(tmp_path, record):
    with pytest.raises(ValueError):
        proposals.write_proposals(tmp_path / 'p.pkl', [record])
    assert not os.listdir(tmp_path)
