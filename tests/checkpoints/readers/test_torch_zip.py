"""Files of torch.save: what torch wrote is read exactly; what is broken says what it is."""

import importlib.util
import math
import os
import pathlib
import struct
import subprocess
import sys
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest

from vidloc.checkpoints.readers import torch_zip
from vidloc.checkpoints.readers.weights import ReadError

_SPEC = importlib.util.spec_from_file_location('torch_archive', pathlib.Path(__file__).with_name('torch_archive.py'))
made = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(made)
FILES = pathlib.Path(__file__).parents[2] / 'reference' / 'torch_zip'


def ramp(*shape: int, dtype=np.float32) -> np.ndarray:
    return np.arange(math.prod(shape)).reshape(shape).astype(dtype)


def _expected() -> dict[str, np.ndarray]:
    """What tests/reference/torch_zip/write.py put into state_dict.pt."""
    base = ramp(4, 6)
    return {
        'weight': np.ones(3, np.float32),
        'bias': np.zeros(3, np.float32),
        'float32': ramp(2, 3),
        'float16': ramp(2, 3, dtype=np.float16),
        'bfloat16': (ramp(2, 3) * 8.5).astype(ml_dtypes.bfloat16),
        'float64': ramp(3, dtype=np.float64),
        'int64': ramp(3, dtype=np.int64) - (1 << 40),
        'uint8': ramp(3, dtype=np.uint8),
        'bool': np.array([True, False, True]),
        'complex64': np.array([0, 1 - 1j], np.complex64),
        'uint16': np.array([1, 65535], np.uint16),
        'whole': base,
        'transposed': base.T,
        'sliced': base[1:3, 2:5],
        'strided': base[::2, 1::3],
        'column': base[:, 4],
        'expanded': np.full((5, 1), 3, np.float32),
        'parameter': ramp(2, 2),
        'scalar': np.array(7.5, np.float32),
        'empty': np.empty((0, 3), np.float32),
        'attributes': ramp(2),
    }


def _check(entries, expected):
    assert list(entries) == list(expected)
    for name, entry in entries.items():
        wanted, found = expected[name], entry.read()
        assert type(found) is np.ndarray and found.flags.c_contiguous and found.flags.writeable, name
        assert (entry.shape, entry.dtype) == (found.shape, found.dtype) == (wanted.shape, wanted.dtype), name
        assert np.array_equal(found, wanted), name
        found[...] = 1
        assert found.size == 0 or np.array_equal(entry.read(), wanted), f'{name} is not its own'


def _message(path) -> str:
    with pytest.raises(ReadError) as raised:
        for entry in torch_zip.read(path)[0].values():
            entry.read()
    text = str(raised.value)
    assert text.startswith(f'{path}: ') and text.endswith('.')
    return text


@pytest.mark.parametrize('block', [torch_zip.BLOCK, 8])
def test_state_dict(monkeypatch, block):
    monkeypatch.setattr(torch_zip, 'BLOCK', block)
    entries, extras = torch_zip.read(FILES / 'state_dict.pt')
    _check(entries, _expected())
    assert extras == {}


def test_checkpoint():
    entries, extras = torch_zip.read(FILES / 'checkpoint.pt')
    optimizer = [f'optimizer/state/{n}/{name}' for n in range(2) for name in ('step', 'exp_avg', 'exp_avg_sq')]
    assert list(entries) == ['model/weight', 'model/bias', *optimizer]
    assert np.array_equal(entries['model/weight'].read(), ramp(2, 3))
    assert entries['optimizer/state/1/step'].read() == 1
    assert extras['optimizer/param_groups'][0]['lr'] == 0.125 and extras['optimizer/param_groups'][0]['params'] == [
        0,
        1,
    ]
    assert extras['epoch'] == 3 and extras['counts'] == {'seen': 5}
    assert extras['scaler'] == {'scale': 65536.0, '_growth_tracker': 0}
    args = extras['args']
    assert type(args) is dict and args.pop('version').startswith('2.')
    assert args == {
        'lr': 0.125, 'betas': [0.9, 0.95], 'output': '/out/run', 'device': 'cuda:1', 'dtype': 'torch.bfloat16',
        'size': (2, 3), 'names': ['b'], 'weight': 'tensor',
    }  # fmt: skip


def test_lists_of_state_dicts():
    entries, extras = torch_zip.read(FILES / 'probes.pt')
    assert np.array_equal(entries['classifiers/1/module.linear.weight'].read(), ramp(2, 3) + 1)
    assert len(entries) == 4 and extras == {'opt': [None, {'lr': 0.5}], 'epoch': 20, 'batch_size': 4}


def test_settings_of_other_packages():
    entries, extras = torch_zip.read(FILES / 'settings.pt')
    nested = {'name': 'vit', 'model': {'depth': 12, 'sizes': [14, 16]}}
    assert list(entries) == ['weight'] and extras['omegaconf'] == 'omegaconf.dictconfig.DictConfig'
    for package in ('yacs', 'easydict', 'addict'):
        assert extras[package] == nested and type(extras[package]['model']) is dict


def test_a_single_tensor():
    entries, extras = torch_zip.read(str(FILES / 'tensor.pt'))
    _check(entries, {'tensor': ramp(2)})
    assert extras == {}


@pytest.mark.parametrize(
    ('name', 'text'),
    [
        ('legacy.pt', 'torch before 1.6.*Convert it'),
        ('module.pt', 'torch.nn.modules.linear.Linear.*nothing of it was run.*state_dict'),
        ('quantised.pt', 'quantised tensor'),
        ('sparse.pt', 'sparse tensor'),
        ('meta.pt', 'device "meta"'),
        ('script.pt', 'TorchScript.*torch.jit.load'),
        ('README.md', 'no file of torch.save; it begins with'),
        ('none.pt', 'cannot be read'),
        ('', 'no file'),
    ],
)
def test_other_files(name, text):
    with pytest.raises(ReadError, match=text):
        torch_zip.read(FILES / name)


def test_reading_needs_neither_torch_nor_jax():
    code = (
        'import sys; sys.modules["torch"] = None\n'
        'from vidloc.checkpoints.readers import torch_zip\n'
        f'torch_zip.read({str(FILES / "checkpoint.pt")!r})[0]["model/weight"].read()\n'
        'sys.exit("jax" in sys.modules)'
    )
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0


# Views of NumPy arrays have strides as those of torch have.


@pytest.mark.parametrize('compression', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize('block', [torch_zip.BLOCK, 40])
def test_random_views(tmp_path, monkeypatch, compression, block):
    monkeypatch.setattr(torch_zip, 'BLOCK', block)
    rng = np.random.default_rng(0)
    base = rng.standard_normal(720).astype(np.float32)
    views = {}
    for number in range(60):
        view = base.reshape([(720,), (24, 30), (6, 8, 15), (2, 3, 4, 5, 6)][number % 4])
        for axis, size in enumerate(view.shape):
            start = rng.integers(size)
            kept = slice(start, rng.integers(start, size) + 1, rng.integers(1, 4))
            view = view[(slice(None),) * axis + (kept,)]
        view = view.transpose(rng.permutation(view.ndim))
        if rng.random() < 0.3:
            view = np.broadcast_to(view, (3, *view.shape))
        views[f'{number}'] = view
    origin = base.__array_interface__['data'][0]
    pickle = made.pickled(
        {
            name: made.tensor(
                view.shape,
                [stride // 4 for stride in view.strides],
                (view.__array_interface__['data'][0] - origin) // 4,
                made.storage(count=720),
            )
            for name, view in views.items()
        }
    )
    path = made.write(tmp_path / 'f.pt', pickle, {'0': base.tobytes()}, compression=compression)
    _check(torch_zip.read(path)[0], views)


@pytest.mark.parametrize(
    ('kind', 'dtype'),
    [('Float', 'f4'), ('Half', 'f2'), ('Double', 'f8'), ('Long', 'i8'), ('Bool', '?'), ('ComplexFloat', 'c8')],
)
@pytest.mark.parametrize('order', [b'big', b'little', None])
def test_byte_orders(tmp_path, kind, dtype, order):
    values = np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype)
    raw = values.astype(np.dtype(dtype).newbyteorder('>' if order == b'big' else '<')).tobytes()
    stored = made.storage(kind=f'{kind}Storage')
    items = {'whole': made.tensor((2, 3), (3, 1), 0, stored), 'turned': made.tensor((3, 2), (1, 3), 0, stored)}
    items['one'] = made.tensor((), (), 5, stored)
    path = made.write(tmp_path / 'f.pt', made.pickled(items), {'0': raw}, order=order)
    _check(torch_zip.read(path)[0], {'whole': values, 'turned': values.T, 'one': values[1, 2]})


def test_bfloat16_of_the_other_byte_order(tmp_path):
    values = ramp(6).astype(ml_dtypes.bfloat16)
    path = tmp_path / 'f.pt'
    pickle = made.pickled({'a': made.tensor((6,), (1,), 0, made.storage(kind='BFloat16Storage'))})
    made.write(path, pickle, {'0': values.view('<u2').astype('>u2').tobytes()}, order=b'big')
    _check(torch_zip.read(path)[0], {'a': values})


def test_truth_values_of_other_programs(tmp_path):
    stored = made.storage(count=3, kind='BoolStorage')
    pickle = made.pickled({'a': made.tensor((3,), (1,), 0, stored), 'b': made.tensor((), (), 2, stored)})
    entries, _ = torch_zip.read(made.write(tmp_path / 'f.pt', pickle, {'0': b'\x00\x02\xff'}))
    assert entries['a'].read().view(np.uint8).tolist() == [0, 1, 1]
    assert entries['b'].read().shape == () and entries['b'].read().view(np.uint8) == 1


def test_arrays_of_numpy_are_entries(tmp_path):
    raw = b'X\x08\x00\x00\x00' + b'\x01\x00\x00\x00\x02\x00\x00\x00' + made.text('latin1')
    dtype = made.call('numpy', 'dtype', made.text('i4'), made.number(0), made.number(1))
    dtype += b'(' + made.number(3) + made.text('<') + b'NNN' + made.number(-1) * 2 + made.number(0) + b'tb'
    parts = made.name('_codecs', 'encode') + b'(' + raw + b'tR', dtype, made.numbers([2]), made.text('C')
    pickle = made.pickled({'array': made.call('numpy.core.numeric', '_frombuffer', *parts), 'epoch': b'K\x03'})
    entries, extras = torch_zip.read(made.write(tmp_path / 'f.pt', pickle))
    _check(entries, {'array': np.array([1, 2], np.int32)})
    assert extras == {'epoch': 3}


def test_members_need_no_folder_and_no_checksum(tmp_path):
    path = made.write(
        tmp_path / 'f.pt', made.pickled({'a': made.tensor((6,), (1,))}), {'0': ramp(6).tobytes()}, root=''
    )
    with zipfile.ZipFile(path) as archive:
        places = [archive.getinfo(name) for name in ('data.pkl', 'data/0')]
        start = archive.start_dir
    data = bytearray(path.read_bytes())
    for number, place in enumerate(places):  # torch.serialization.set_crc32_options(False) leaves the sums out
        assert struct.unpack_from('<I', data, place.header_offset + 14)[0] == place.CRC
        at = data.index(struct.pack('<I', place.CRC), start)
        data[place.header_offset + 14 : place.header_offset + 18] = data[at : at + 4] = struct.pack('<I', number)
    path.write_bytes(data)
    _check(torch_zip.read(path)[0], {'a': ramp(6)})


TENSOR = made.tensor((2, 3), (3, 1))


@pytest.mark.parametrize(
    ('value', 'text'),
    [
        (made.tensor((7,), (1,)), "'a': it reaches to the element 6 of a storage that has 6"),
        (made.tensor((2, 3), (3, 1), 1), 'it reaches to the element 6'),
        (made.tensor((2, 3), (10**30, 1)), 'it reaches to the element'),
        (made.tensor((1,), (1,), 10**30), 'it reaches to the element'),
        (made.tensor((2, 2), (2, 2)), 'overlap'),
        (made.tensor((3, 3), (1, 1)), 'overlap'),
        (made.tensor((10**5, 10**5), (0, 0)), 'far larger than the file'),
        (made.tensor((0, 10**15), (0, 0)), 'far larger than the file'),
        (made.tensor((10**30,), (0,)), 'larger than any memory'),
        (made.tensor((2,), (1,), 0, made.storage('1')), "the member 'archive/data/1', are missing"),
        (made.tensor((2,), (1,), 0, made.storage('../0')), 'are missing'),
        (made.tensor((6,), (1,), 0, made.storage(count=7)), "has 28 bytes, but the member 'archive/data/0' has 24"),
        (made.tensor((6,), (1,), 0, made.storage(kind='DoubleStorage')), 'has 48 bytes'),
        (made.tensor((6,), (1,), 0, made.storage(kind='UntypedStorage')), 'without a type'),
        (made.tensor((-6,), (1,)), 'no natural numbers'),
        (made.tensor((6,), (-1,), 5), 'no natural numbers'),
        (made.tensor((6,), (1, 1)), 'unknown layout'),
        (made.tensor((1,) * 33, (1,) * 33), 'unknown layout'),
        (made.storage(), 'a storage without a tensor'),
        (b'K\x03', 'holds no tensor'),
        (b'}(' + made.text('b') + TENSOR + b'u' + made.text('a/b') + TENSOR, "two of its values are called 'a/b'"),
    ],
)
def test_tensors_that_are_not_in_the_file(tmp_path, value, text):
    assert text in _message(made.write(tmp_path / 'f.pt', made.pickled({'a': value})))


def test_archives_that_are_damaged(tmp_path):
    path, cut = made.write(tmp_path / 'f.pt', made.pickled({'a': TENSOR})), tmp_path / 'cut.pt'
    data = path.read_bytes()
    for size in (*range(4, 64), *range(64, len(data), 50), len(data) - 1):
        cut.write_bytes(data[:size])
        assert 'cut off or damaged' in _message(cut)
    cut.write_bytes(b'')
    assert 'it is empty' in _message(cut)
    cut.write_bytes(b'\x80\x02}.')
    assert 'a pickle that torch.save did not write' in _message(cut)
    cut.write_bytes(data[: data.index(b'data/0') - 20] + data[data.index(b'data/0') + 20 :])
    assert 'damaged' in _message(cut) or 'does not begin where' in _message(cut)


def test_random_damage_is_read_or_refused(tmp_path):
    good, path = (FILES / 'checkpoint.pt').read_bytes(), tmp_path / 'f.pt'
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        data = bytearray(good)
        for _ in range(rng.integers(1, 6)):
            at = rng.integers(len(data))
            if rng.random() < 0.8:
                data[at] = rng.integers(256)
            else:
                del data[at : at + rng.integers(1, 9)]
        path.write_bytes(data)
        try:
            for entry in torch_zip.read(path)[0].values():
                entry.read()
        except ReadError:
            refused += 1
    assert 15 < refused < 150


def _archive(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, 'w', compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


@pytest.mark.filterwarnings('ignore:Duplicate name')
@pytest.mark.parametrize(
    ('change', 'text'),
    [
        ([('archive/data/0', bytes(24))], "'archive/data/0' stands in it twice"),
        ([('archive/data.pkl', b'.')], "'archive/data.pkl' stands in it twice"),
        ([('other/data.pkl', b'.')], 'two pickles'),
        ([('../data/0', b'')], 'leads out of the archive'),
        ([('/etc/x', b'')], 'leads out of the archive'),
        ([('archive/..\\x', b'')], 'leads out of the archive'),
        ([('archive/code/a.py', b'')], 'TorchScript'),
        ([('archive/constants.pkl', b'')], 'TorchScript'),
        ([('archive/byteorder', b'middle')], "its byte order is b'middle'"),
        ([('archive/byteorder', b'little' * 99)], 'no description of weights'),
    ],
)
def test_archives_with_more_in_them(tmp_path, change, text):
    members = [('archive/data.pkl', made.pickled({'a': TENSOR})), ('archive/data/0', bytes(24))]
    assert text in _message(_archive(tmp_path / 'f.pt', members + change))


def test_archives_of_something_else(tmp_path):
    assert 'no data.pkl' in _message(_archive(tmp_path / 'f.pt', [('a.npy', b'')]))
    assert 'no data.pkl' in _message(_archive(tmp_path / 'f.pt', [('deep/in/data.pkl', b'.')]))
    members = [('code/data.pkl', made.pickled({'a': TENSOR})), ('code/data/0', bytes(24))]  # saved as code.pt
    assert list(torch_zip.read(_archive(tmp_path / 'f.pt', members))[0]) == ['a']
    assert 'compressed in a rare way' in _message(_archive(tmp_path / 'f.pt', members, zipfile.ZIP_BZIP2))
    path = _archive(tmp_path / 'f.pt', members)
    data = bytearray(path.read_bytes())
    data[data.index(b'PK\x01\x02') + 8] |= 1
    path.write_bytes(data)
    assert 'encrypted' in _message(path)


def test_compressed_bombs(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_zip, 'LARGEST_PICKLE', 1 << 20)
    path = tmp_path / 'f.pt'
    padding = bytes(torch_zip.LARGEST_PICKLE + 1)
    _archive(path, [('archive/data.pkl', padding), ('archive/data/0', bytes(24))], zipfile.ZIP_DEFLATED)
    assert os.path.getsize(path) < 10_000
    assert 'no description of weights' in _message(path)
    members = [('archive/data.pkl', made.pickled({'a': TENSOR})), ('archive/data/0', bytes(24))]
    data = _archive(path, members, zipfile.ZIP_DEFLATED).read_bytes()
    at = data.rindex(b'PK\x01\x02') + 24  # the length of the storage, as the list of members has it
    for size, text in ((1 << 30, 'far more than there are'), (25, 'has 25'), (23, 'has 23')):
        path.write_bytes(data[:at] + struct.pack('<I', size) + data[at + 4 :])
        assert text in _message(path)


def test_a_file_that_changes_after_it_was_opened(tmp_path):
    for compression, text in ((zipfile.ZIP_STORED, 'it ends'), (zipfile.ZIP_DEFLATED, 'damaged')):
        path = made.write(tmp_path / 'f.pt', made.pickled({'a': TENSOR}), compression=compression)
        entries, _ = torch_zip.read(path)
        path.write_bytes(path.read_bytes()[:50])
        with pytest.raises(ReadError, match=text):
            entries['a'].read()
        path.unlink()
        with pytest.raises(ReadError, match='cannot be read'):
            entries['a'].read()


def test_a_large_file_is_not_loaded(tmp_path):
    count = 1 << 28  # of float32: a gigabyte
    stored = made.storage(count=count)
    items = {
        'whole': made.tensor((count,), (1,), 0, stored),
        'row': made.tensor((1, 1 << 10), (1 << 10, 1), count - (1 << 10), stored),
        'turned': made.tensor((1 << 10, 1 << 11), (1, 1 << 10), 0, stored),
        'far': made.tensor((2, 3), (count // 2, 1), 0, stored),
    }
    path = made.write_sparse(tmp_path / 'f.pt', made.pickled(items), 4 * count)
    if path.stat().st_blocks * 512 > 1 << 28:
        pytest.skip('this disk has no sparse files')
    tracemalloc.start()
    entries, _ = torch_zip.read(path)
    assert entries['whole'].shape == (count,) and path.stat().st_size > 4 * count
    assert not entries['row'].read().any() and entries['far'].read().shape == (2, 3)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    array = entries['turned'].read()
    assert tracemalloc.get_traced_memory()[1] < array.nbytes + torch_zip.BLOCK + (1 << 20)
    tracemalloc.stop()
