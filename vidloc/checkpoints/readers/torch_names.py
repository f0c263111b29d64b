"""The names that pickles of PyTorch hold, and what stands for each: descriptions of tensors, dicts, texts.

Nothing is imported or called: plain_pickle.py looks the names up here and refuses every other one. What PyTorch writes:
pytorch/pytorch, torch/_utils.py (_rebuild_*), torch/_tensor.py (_reduce_ex_internal), torch/serialization.py
(persistent_id). Settings that public files keep beside their weights (argparse, yacs, OmegaConf, ...) become records of
what was stored, or only the name of their class; no tensor is taken from them.
"""

import dataclasses
import pathlib
from typing import Any, NoReturn

import numpy as np

from vidloc.checkpoints.readers import weights
from vidloc.plain_pickle import Machine, Name, Refused, StandIn, Vocabulary, refuse

_TYPES = (
    'float64', 'float32', 'float16', 'bfloat16', 'int64', 'int32', 'int16', 'int8', 'uint8', 'uint16', 'uint32',
    'uint64', 'bool', 'complex64', 'complex128', 'float8_e4m3fn', 'float8_e4m3fnuz', 'float8_e5m2', 'float8_e5m2fnuz',
    'float8_e8m0fnu',
)  # fmt: skip
_DTYPES = {f'torch.{name}': weights.named_dtype(name) for name in _TYPES}
_STORAGES = {
    'Double': 'float64', 'Float': 'float32', 'Half': 'float16', 'BFloat16': 'bfloat16', 'Long': 'int64', 'Int': 'int32',
    'Short': 'int16', 'Char': 'int8', 'Byte': 'uint8', 'Bool': 'bool', 'ComplexFloat': 'complex64',
    'ComplexDouble': 'complex128',
}  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class StorageKind(StandIn):
    """A class of storages. dtype: of its elements; None for bytes, whose meaning the tensor says."""

    dtype: np.dtype | None

    def finished(self) -> NoReturn:
        refuse('a class of storages without a tensor')


@dataclasses.dataclass(frozen=True, slots=True)
class Storage(StandIn):
    """A storage: the member `data/<key>` of the archive, which should have nbytes."""

    key: str
    nbytes: int
    dtype: np.dtype | None

    def finished(self) -> NoReturn:
        refuse('a storage without a tensor')


@dataclasses.dataclass(frozen=True, slots=True)
class Tensor(StandIn):
    """A tensor as the pickle describes it, not yet compared with the storage; offset and strides in elements."""

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Ordered(dict, StandIn):
    """A dict of a class of its own (OrderedDict, ...), without the attributes that it had besides."""

    def build(self, machine: Machine, state: Any) -> None:
        """Attributes are dropped: of a state dict they are the versions of its modules (`_metadata`)."""


class Record(Ordered):
    """Settings that are a dict. What they hold is no weight, even if it were a tensor."""


class Namespace(Record):
    """Settings that are the attributes of an object, here as a dict."""

    def build(self, machine: Machine, state: Any) -> None:
        if not isinstance(state, dict):
            refuse('settings of an unknown layout')
        machine.spend(len(state))
        self.update(state)


class Opaque(StandIn):
    """An object of which only the name of its class is kept."""

    __slots__ = ('name',)

    def __init__(self, name: str):
        self.name = name

    def build(self, machine: Machine, state: Any) -> None:
        """The state is dropped."""

    def finished(self) -> str:
        return self.name


def _persistent(key: Any) -> Storage:
    if not isinstance(key, tuple) or len(key) != 5 or key[0] != 'storage':
        refuse('an object outside of the pickle that is no storage')
    _, kind, name, _, count = key
    if not isinstance(kind, StorageKind) or not isinstance(name, str) or type(count) is not int or count < 0:
        refuse('a storage of an unknown layout')
    return Storage(name, count * (1 if kind.dtype is None else kind.dtype.itemsize), kind.dtype)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, dtype: np.dtype | None) -> Tensor:
    if not isinstance(storage, Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        refuse('a tensor of an unknown layout')
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or len(shape) > weights.DIMENSIONS:
        refuse('a tensor of an unknown layout')
    # Checked before any of it is shown in a text: tuples of tuples of ... may be endless to print.
    if not all(type(number) is int and number >= 0 for number in numbers):
        refuse('a tensor whose shape, strides or offset are no natural numbers')
    if dtype is None:
        refuse('a tensor without a type of its elements')
    return Tensor(storage, dtype, offset, shape, strides)


def _check_flags(flags: tuple) -> None:
    """flags: (), or a dict of the bits with which torch negates or conjugates values as they are read."""
    if flags and not (flags[0] is None or (isinstance(flags[0], dict) and not any(flags[0].values()))):
        refuse('a view that is conjugated or negated when it is read (resolve_conj() or resolve_neg() makes it plain)')


def _rebuild_tensor(machine: Machine, arguments: tuple) -> Tensor:
    storage, offset, shape, strides = arguments
    return _tensor(storage, offset, shape, strides, getattr(storage, 'dtype', None))


def _rebuild_tensor_v2(machine: Machine, arguments: tuple) -> Tensor:
    storage, offset, shape, strides, _, _, *flags = arguments
    _check_flags(tuple(flags))
    return _tensor(storage, offset, shape, strides, getattr(storage, 'dtype', None))


def _rebuild_tensor_v3(machine: Machine, arguments: tuple) -> Tensor:
    storage, offset, shape, strides, _, _, dtype, *flags = arguments
    _check_flags(tuple(flags))
    return _tensor(storage, offset, shape, strides, _DTYPES.get(dtype) if isinstance(dtype, str) else None)


def _rebuild_parameter(machine: Machine, arguments: tuple) -> Tensor:
    """A parameter is its tensor; whether it wants a gradient, and attributes of its own, are dropped."""
    if not arguments or not isinstance(arguments[0], Tensor):
        refuse('a parameter that is no tensor')
    return arguments[0]


def _rebuild_from_type(machine: Machine, arguments: tuple) -> Tensor:
    """A tensor or parameter with attributes of its own, which are dropped: (function, class, its arguments, state)."""
    function, kind, inner, _ = arguments
    if not isinstance(function, Name) or function.make not in _REBUILD.values() or not isinstance(inner, tuple):
        refuse('a tensor of an unknown layout')
    if not isinstance(kind, Name) or kind.name not in _TENSORS:
        refuse('a tensor of a class of its own')
    return function.make(machine, inner)


_TENSORS = ('torch.Tensor', 'torch.nn.parameter.Parameter', 'torch.nn.parameter.Buffer')
_REBUILD = {
    '_rebuild_tensor': _rebuild_tensor,
    '_rebuild_tensor_v2': _rebuild_tensor_v2,
    '_rebuild_tensor_v3': _rebuild_tensor_v3,
    '_rebuild_parameter': _rebuild_parameter,
    '_rebuild_parameter_with_state': _rebuild_parameter,
}


def _make_ordered(machine: Machine, arguments: tuple) -> Ordered:
    """OrderedDict([[key, value], ...]), OrderedDict(), defaultdict(factory), Counter({key: count})."""
    found = Ordered()
    for given in arguments[-1:]:
        if isinstance(given, dict):
            given = list(given.items())
        if isinstance(given, list | tuple):
            machine.spend(len(given))
            for key, value in given:
                machine.fill(found, [key, value])
    return found


def _make_list(machine: Machine, arguments: tuple) -> list:
    """set(list) and frozenset(list), which stay lists."""
    items = arguments[0] if arguments else []
    if not isinstance(items, list | tuple):
        refuse('a set of something else than a list')
    machine.spend(len(items))
    return list(items)


def _make_size(machine: Machine, arguments: tuple) -> tuple:
    (sizes,) = arguments
    if not isinstance(sizes, tuple):
        refuse('a size of an unknown layout')
    return sizes


def _make_text(machine: Machine, arguments: tuple) -> str:
    (text,) = arguments
    if not isinstance(text, str):
        refuse('a text of an unknown layout')
    return text


def _make_bytes(machine: Machine, arguments: tuple) -> bytes:
    data = arguments[0] if arguments else b''
    if not isinstance(data, bytes):
        refuse('bytes of an unknown layout')
    return data


def _make_complex(machine: Machine, arguments: tuple) -> complex:
    real, imaginary = arguments
    if type(real) is not float or type(imaginary) is not float:
        refuse('a complex number of something else than two numbers')
    return complex(real, imaginary)


def _make_device(machine: Machine, arguments: tuple) -> str:
    if not 1 <= len(arguments) <= 2 or not isinstance(arguments[0], str) or type(arguments[-1]) not in (str, int):
        refuse('a device of an unknown layout')
    return ':'.join(str(part) for part in arguments)


def _make_interval(machine: Machine, arguments: tuple) -> tuple:
    """range(start, stop, step) and slice(start, stop, step), which become tuples of their numbers."""
    if len(arguments) > 3 or not all(number is None or type(number) is int for number in arguments):
        refuse('a range of something else than numbers')
    return arguments


def _make_path(machine: Machine, arguments: tuple) -> str:
    if not all(isinstance(part, str) for part in arguments):
        refuse('a path of something else than texts')
    machine.spend(sum(map(len, arguments)))
    return pathlib.PurePosixPath(*arguments).as_posix()


def _names() -> dict[tuple[str, str], Any]:
    found: dict[tuple[str, str], Any] = {}
    for name, make in _REBUILD.items():
        found['torch._utils', name] = Name(name, make)
    found['torch._tensor', '_rebuild_from_type_v2'] = Name('_rebuild_from_type_v2', _rebuild_from_type)
    for name in _TENSORS:
        found[tuple(name.rsplit('.', 1))] = Name(name)
    for name, dtype in _STORAGES.items():
        found['torch', f'{name}Storage'] = StorageKind(weights.named_dtype(dtype))
    for module in ('torch', 'torch.storage'):
        found[module, 'UntypedStorage'] = StorageKind(None)
    for name in _TYPES:
        found['torch', name] = f'torch.{name}'
    found['torch', 'Size'] = Name('torch.Size', _make_size)
    found['torch', 'device'] = Name('torch.device', _make_device)
    found['torch.serialization', '_get_layout'] = Name('_get_layout', _make_text)
    found['torch.torch_version', 'TorchVersion'] = Name('TorchVersion', _make_text, new=True)
    for name in ('OrderedDict', 'defaultdict', 'Counter'):
        found['collections', name] = Name(name, _make_ordered)
    for module in ('builtins', '__builtin__'):
        for name in ('int', 'long', 'float', 'str', 'unicode', 'bool', 'dict', 'list', 'tuple', 'object'):
            found[module, name] = name
        for name in ('set', 'frozenset'):
            found[module, name] = Name(name, _make_list)
        for name in ('range', 'xrange', 'slice'):
            found[module, name] = Name(name, _make_interval)
        found[module, 'complex'] = Name('complex', _make_complex)
        found[module, 'bytearray'] = Name('bytearray', _make_bytes)
    for module in ('pathlib', 'pathlib._local'):
        for name in ('PosixPath', 'WindowsPath', 'PurePosixPath', 'PureWindowsPath'):
            found[module, name] = Name(name, _make_path)
    return found | _settings() | _refused()


def _settings() -> dict[tuple[str, str], Any]:
    """Classes of settings that public files keep beside their weights."""
    found: dict[tuple[str, str], Any] = {}
    for module, name in (('argparse', 'Namespace'), ('types', 'SimpleNamespace')):
        found[module, name] = Name(name, lambda machine, arguments: Namespace(), new=True)
    for module, name in (
        ('yacs.config', 'CfgNode'),
        ('fvcore.common.config', 'CfgNode'),
        ('easydict', 'EasyDict'),
        ('addict.addict', 'Dict'),
        ('mmcv.utils.config', 'ConfigDict'),
        ('mmengine.config.config', 'ConfigDict'),
        ('pytorch_lightning.utilities.parsing', 'AttributeDict'),
        ('lightning_fabric.utilities.data', 'AttributeDict'),
        ('lightning.fabric.utilities.data', 'AttributeDict'),
    ):
        found[module, name] = Name(name, lambda machine, arguments: Record(), new=True)
    opaque = [('omegaconf.dictconfig', 'DictConfig'), ('omegaconf.listconfig', 'ListConfig')]
    opaque += [('omegaconf.base', name) for name in ('ContainerMetadata', 'Metadata')]
    for kind in ('Any', 'String', 'Integer', 'Float', 'Boolean', 'Enum', 'Bytes', 'Path'):
        opaque.append(('omegaconf.nodes', f'{kind}Node'))
    opaque += [('datetime', name) for name in ('datetime', 'date', 'time', 'timedelta')]
    for module, name in opaque:
        text = f'{module}.{name}'
        found[module, name] = Name(name, lambda machine, arguments, text=text: Opaque(text), new=True)
    found['typing', 'Any'] = 'typing.Any'
    return found


def _refused() -> dict[tuple[str, str], Refused]:
    found = {
        ('torch._utils', '_rebuild_qtensor'): 'a quantised tensor (dequantize() makes it plain)',
        ('torch._utils', '_rebuild_sparse_tensor'): 'a sparse tensor (to_dense() makes it plain)',
        ('torch._utils', '_rebuild_sparse_csr_tensor'): 'a sparse tensor (to_dense() makes it plain)',
        ('torch._utils', '_rebuild_nested_tensor'): 'a nested tensor, which has no single shape',
        ('torch._utils', '_rebuild_meta_tensor_no_storage'): 'a tensor on the device "meta", which has no values',
        ('torch._utils', '_rebuild_wrapper_subclass'): 'a tensor of a class of its own, without its values',
        ('torch._utils', '_rebuild_device_tensor_from_numpy'): 'a tensor of an accelerator (cpu() makes it plain)',
        ('torch._utils', '_rebuild_device_tensor_from_cpu_tensor'): 'a tensor of an accelerator (cpu() makes it plain)',
        ('torch.nn.parameter', 'UninitializedParameter'): 'a parameter without values yet',
        ('torch.storage', '_load_from_bytes'): 'a file in the file (torch.storage._load_from_bytes)',
    }
    for name in ('QInt8', 'QUInt8', 'QInt32', 'QUInt4x2', 'QUInt2x4'):
        found['torch', f'{name}Storage'] = found['torch._utils', '_rebuild_qtensor']
    return {name: Refused(what) for name, what in found.items()}


TORCH = Vocabulary(_names(), _persistent, (int, bool, type(None)))
