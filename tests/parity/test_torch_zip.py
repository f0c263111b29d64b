"""Files that torch writes here and now are read as torch itself reads them."""

import random

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from vidloc.checkpoints.readers import torch_zip  # noqa: E402
from vidloc.checkpoints.readers.weights import ReadError  # noqa: E402

TYPES = ('float32', 'float16', 'bfloat16', 'float64', 'int64', 'int32', 'int16', 'int8', 'uint8', 'bool', 'complex64',
         'uint16', 'uint32', 'float8_e4m3fn', 'float8_e5m2')  # fmt: skip


def _bits(tensor) -> np.ndarray:
    """The tensor's bytes, one after the other."""
    plain = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
    return plain.reshape(-1).view(torch.uint8).numpy()


def _compare(path, *, weights_only=True):
    entries, extras = torch_zip.read(path)
    reference = {}

    def flatten(value, name):
        if isinstance(value, torch.Tensor):
            reference[name] = value
        elif isinstance(value, dict | list | tuple):
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                flatten(item, f'{name}/{key}' if name else str(key))

    flatten(torch.load(path, weights_only=weights_only), '')
    assert list(entries) == list(reference)
    for name, entry in entries.items():
        found = entry.read()
        assert found.shape == entry.shape == tuple(reference[name].shape), name
        assert found.dtype.name == str(reference[name].dtype).removeprefix('torch.'), name
        assert found.flags.c_contiguous and np.array_equal(found.reshape(-1).view(np.uint8), _bits(reference[name]))
    return entries, extras


def _view(base, rng):
    view = base
    for axis in range(base.ndim):
        start = rng.randrange(base.shape[axis])
        view = view.narrow(axis, start, rng.randint(1, base.shape[axis] - start))
        if rng.random() < 0.3:
            view = view[(slice(None),) * axis + (slice(None, None, 2),)]
    return view.permute(*rng.sample(range(base.ndim), base.ndim))


@pytest.mark.parametrize('name', TYPES)
@pytest.mark.parametrize('block', [torch_zip.BLOCK, 64])
def test_types_and_views(tmp_path, monkeypatch, name, block):
    monkeypatch.setattr(torch_zip, 'BLOCK', block)
    rng = random.Random(name)
    base = (torch.arange(3 * 4 * 5 * 6) % 100).reshape(3, 4, 5, 6).to(getattr(torch, name))
    values = {f'{number}': _view(base, rng) for number in range(12)}
    values |= {'whole': base, 'flat': base.reshape(-1)[7:], 'scalar': base[1, 1, 1, 1], 'empty': base[:0]}
    values['expanded'] = base[0, 0, 0, :1].expand(4, 3)
    torch.save(values, tmp_path / 'f.pt')
    _compare(tmp_path / 'f.pt')


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_a_training_checkpoint(tmp_path, protocol):
    model = torch.nn.Sequential(torch.nn.Conv3d(3, 4, 2), torch.nn.LayerNorm(4), torch.nn.Linear(4, 2))
    model.append(torch.nn.Linear(4, 2))
    model[3].weight = model[2].weight
    optimizer = torch.optim.AdamW([{'params': model[0].parameters()}, {'params': model[2].parameters(), 'lr': 0.5}])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    sum(parameter.sum() for parameter in model.parameters()).backward()
    optimizer.step()
    schedule.step()
    state = {'model': model.state_dict(), 'ema': [model.state_dict()], 'parameters': dict(model.named_parameters())}
    state |= {'optimizer': optimizer.state_dict(), 'schedule': schedule.state_dict(), 'epoch': 7}
    state['scaler'] = torch.amp.GradScaler('cpu').state_dict()
    state['random'] = {'torch': torch.get_rng_state(), 'python': random.getstate()}
    torch.save(state, tmp_path / 'f.pt', pickle_protocol=protocol)
    entries, extras = _compare(tmp_path / 'f.pt', weights_only=protocol < 4)
    assert extras['epoch'] == 7 and extras['optimizer/param_groups'][1]['initial_lr'] == 0.5
    assert extras['schedule']['T_max'] == 10 and extras['random/python'] == random.getstate()
    assert np.array_equal(entries['model/3.weight'].read(), entries['parameters/2.weight'].read())


def test_names_of_archives_and_missing_checksums(tmp_path):
    for name in ('code.pt', 'with space.pth', 'ümlaut.bin', 'none'):
        torch.save({'a': torch.arange(5)}, tmp_path / name)
        _compare(tmp_path / name)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({'a': torch.arange(5)}, tmp_path / 'f.pt')
    finally:
        torch.serialization.set_crc32_options(True)
    _compare(tmp_path / 'f.pt')


def test_what_numpy_left_in_a_file(tmp_path):
    value = {'a': torch.ones(2), 'state': np.random.RandomState(0).get_state(), 'best': np.float64(0.5)}
    torch.save(value, tmp_path / 'f.pt')
    entries, extras = torch_zip.read(tmp_path / 'f.pt')
    assert np.array_equal(entries['state/1'].read(), value['state'][1]) and extras['best'] == 0.5
    assert extras['state/0'] == 'MT19937'


@pytest.mark.parametrize('kind', ['csr', 'nested', 'storage', 'function', 'lazy', 'conjugated'])
def test_what_is_no_plain_tensor_is_refused(tmp_path, kind):
    value = {
        'csr': lambda: torch.eye(3).to_sparse_csr(),
        'nested': lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        'storage': lambda: torch.ones(3).untyped_storage(),
        'function': lambda: torch.nn.functional.gelu,
        'lazy': lambda: torch.nn.UninitializedParameter(),
        'conjugated': lambda: torch.complex(torch.ones(2), torch.ones(2)).conj(),
    }[kind]()
    torch.save({'a': torch.ones(2), 'b': value}, tmp_path / 'f.pt')
    with pytest.raises(ReadError):
        torch_zip.read(tmp_path / 'f.pt')


def test_a_legacy_file_can_be_converted_as_the_error_says(tmp_path):
    torch.save({'a': torch.ones(2)}, tmp_path / 'f.pt', _use_new_zipfile_serialization=False)
    with pytest.raises(
        ReadError, match=r'torch.save\(torch.load\(file, map_location="cpu", weights_only=True\), new_f'
    ):
        torch_zip.read(tmp_path / 'f.pt')
    torch.save(torch.load(tmp_path / 'f.pt', map_location='cpu', weights_only=True), tmp_path / 'g.pt')
    _compare(tmp_path / 'g.pt')
