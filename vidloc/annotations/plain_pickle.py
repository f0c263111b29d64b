"""Pickles that hold nothing but plain data: texts, numbers, lists, tuples, dicts and NumPy arrays of numbers.

A pickle is a program, and Python's own reader runs it. Here its opcodes are read by a machine that knows only how to
build plain data, so that no content of a file can call, import or overwrite anything: names of functions are looked up
in a table of seven stand-ins made here, and every other name or opcode is refused. Protocols 0 to 5, as written by
Python 2 and 3 and by NumPy 1 and 2. Opcodes: CPython, Lib/pickletools.py; what NumPy writes: numpy/_core/multiarray.
"""

import dataclasses
import math
import struct
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

DEPTH = 64  # containers in containers; more is no data of anybody's
DTYPES = ('f2', 'f4', 'f8', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'b1')


class PickleError(ValueError):
    """The bytes are no pickle of plain data. refused: it asks for something that is never done; else it is broken."""

    def __init__(self, text: str, *, refused: bool = False):
        super().__init__(text)
        self.refused = refused


def loads(data: bytes) -> Any:
    """The value that the bytes describe; byte strings of Python 2 become texts (latin-1). Raises PickleError."""
    try:
        return _Machine(data).run()
    except PickleError:
        raise
    except (IndexError, KeyError, struct.error, UnicodeError, ValueError, TypeError, OverflowError) as error:
        raise PickleError(f'it is damaged ({type(error).__name__})') from error


def _refuse(what: str) -> NoReturn:
    raise PickleError(what, refused=True)


_MARK = object()  # where a list of items begins on the stack


class _Dtype:
    """A stand-in for numpy.dtype while it is built: its kind and size, then its byte order."""

    __slots__ = ('numpy',)

    def __init__(self, code: str):
        self.numpy = np.dtype(code)

    def build(self, machine: '_Machine', state: Any) -> None:
        if not isinstance(state, tuple) or len(state) not in (8, 9) or any(part is not None for part in state[2:5]):
            _refuse('an array of records')
        if state[1] not in ('<', '>', '|', '='):
            _refuse('an array of an unknown byte order')
        self.numpy = self.numpy.newbyteorder(state[1])


class _Array:
    """A stand-in for an array that is filled by BUILD, as all protocols but the fifth do it."""

    __slots__ = ('value',)

    def __init__(self):
        self.value: np.ndarray | None = None

    def build(self, machine: '_Machine', state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            _refuse('an array of an unknown layout')
        self.value = _filled(machine, state[4], state[2], state[1], 'F' if state[3] else 'C')


@dataclasses.dataclass(frozen=True, slots=True)
class _Name:
    """The name of a function or class; only REDUCE does something with it, and only if it has a `make`."""

    name: str
    make: 'Callable[[_Machine, tuple], Any] | None' = None


def _filled(machine: '_Machine', buffer: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if isinstance(buffer, str):
        buffer = buffer.encode('latin-1')
    if not isinstance(dtype, _Dtype) or not isinstance(buffer, bytes):
        _refuse('an array of something else than numbers')
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape) or len(shape) > 8:
        _refuse('an array of an unknown shape')
    if math.prod(shape) * dtype.numpy.itemsize != len(buffer) or order not in ('C', 'F'):
        raise PickleError('an array has more or less data than its shape says')
    machine.spend(len(buffer))
    flat = np.frombuffer(buffer, dtype.numpy)
    return flat.astype(dtype.numpy.newbyteorder('='), copy=False).reshape(shape, order=order)


def _make_dtype(machine: '_Machine', arguments: tuple) -> _Dtype:
    code = arguments[0] if arguments else None
    if not isinstance(code, str) or code not in DTYPES:
        _refuse(f'an array of {code!r:.40}' if isinstance(code, str) else 'an array of an unknown type')
    return _Dtype(code)


def _make_array(machine: '_Machine', arguments: tuple) -> _Array:
    if len(arguments) != 3 or arguments[0] is not _NAMES['numpy', 'ndarray']:
        _refuse('an array of a class of its own')
    return _Array()


def _make_filled(machine: '_Machine', arguments: tuple) -> np.ndarray:
    buffer, dtype, shape, order = arguments
    return _filled(machine, buffer, dtype, shape, order)


def _make_scalar(machine: '_Machine', arguments: tuple) -> int | float | bool:
    dtype, buffer = arguments
    return _filled(machine, buffer, dtype, (), 'C').item()


def _make_bytes(machine: '_Machine', arguments: tuple) -> bytes:
    """Python 3 writes bytes so in the protocols of Python 2: bytes() and codecs.encode(text, 'latin1')."""
    if not arguments:
        return b''
    text, encoding = arguments
    if encoding != 'latin1' or not isinstance(text, str):
        _refuse('a text in another encoding')
    machine.spend(len(text))
    return text.encode('latin-1')


def _names() -> dict[tuple[str, str], _Name]:
    found = {('numpy', 'ndarray'): _Name('numpy.ndarray'), ('numpy', 'dtype'): _Name('numpy.dtype', _make_dtype)}
    for room in ('numpy.core', 'numpy._core'):
        found[f'{room}.multiarray', '_reconstruct'] = _Name('_reconstruct', _make_array)
        found[f'{room}.multiarray', 'scalar'] = _Name('scalar', _make_scalar)
        found[f'{room}.numeric', '_frombuffer'] = _Name('_frombuffer', _make_filled)
    for module, name in (('_codecs', 'encode'), ('builtins', 'bytes'), ('__builtin__', 'bytes')):
        found[module, name] = _Name(f'{module}.{name}', _make_bytes)
    return found


_NAMES = _names()


class _Machine:
    """A stack, a memo, and a step for each opcode."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        # Each byte of an array is in the file once, and is copied twice at the most; a file that uses one buffer for
        # thousands of arrays is made to fill the memory.
        self.left = 2 * len(data)

    def run(self) -> Any:
        data, steps = self.data, _STEPS
        while True:
            if self.at >= len(data):
                raise PickleError('it ends in the middle')
            code = data[self.at]
            self.at += 1
            if code == 0x2E:  # STOP
                return _finished(self.pop(), 0, {})
            step = steps[code]
            if step is None:
                _refuse(f'the opcode {code:#04x}, which is for other things than plain data')
            step(self)

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            _refuse('arrays with more data than the file holds')

    def take(self, count: int) -> bytes:
        if count < 0 or self.at + count > len(self.data):
            raise PickleError('it ends in the middle')
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form: struct.Struct) -> Any:
        value = form.unpack_from(self.data, self.at)[0]
        self.at += form.size
        return value

    def line(self) -> bytes:
        end = self.data.index(b'\n', self.at)
        value = self.data[self.at : end]
        self.at = end + 1
        return value

    def above_mark(self) -> list[Any]:
        stack = self.stack
        for index in range(len(stack) - 1, -1, -1):
            if stack[index] is _MARK:
                items = stack[index + 1 :]
                del stack[index:]
                return items
        raise PickleError('a mark is missing')

    def pop(self, kind: type = object) -> Any:
        value = self.stack.pop()
        if not isinstance(value, kind):
            raise PickleError('its opcodes are in no order that makes sense')
        return value

    def top(self, kind: type = object) -> Any:
        value = self.pop(kind)
        self.stack.append(value)
        return value

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def put(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    def reduce(self) -> None:
        arguments, name = self.pop(tuple), self.pop()
        if not isinstance(name, _Name) or name.make is None:
            _refuse('a call of something that is no function')
        self.stack.append(name.make(self, arguments))

    def build(self) -> None:
        state, target = self.pop(), self.top()
        if not isinstance(target, (_Array, _Dtype)):
            _refuse('an object with a state of its own')
        target.build(self, state)

    def name(self, module: str, name: str) -> None:
        if (module, name) not in _NAMES:
            _refuse(f'the name {f"{module}.{name}"!r:.80}')
        self.stack.append(_NAMES[module, name])


def _fill(target: dict, items: list[Any]) -> dict:
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str):  # others may be made to take for ever to hash or to compare
            _refuse('a dict with other keys than texts')
        target[key] = value
    return target


def _finished(value: Any, depth: int, done: dict[int, Any]) -> Any:
    """The value with arrays in place of their stand-ins. done: {id: value} of the containers that were seen."""
    if isinstance(value, _Array):
        if value.value is None:
            raise PickleError('an array has no data')
        return value.value
    if value is _MARK or isinstance(value, (_Dtype, _Name)):
        _refuse('something else than plain data')
    if not isinstance(value, (list, tuple, dict)):
        return value
    if id(value) in done:
        return done[id(value)]
    if depth >= DEPTH:
        _refuse(f'more than {DEPTH} containers in one another')
    if isinstance(value, tuple):
        done[id(value)] = tuple(_finished(item, depth + 1, done) for item in value)
        return done[id(value)]
    done[id(value)] = value
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        value[key] = _finished(item, depth + 1, done)
    return value


def _int(text: bytes) -> int | bool:
    """INT and LONG of protocol 0; 00 and 01 are the truth values."""
    if text in (b'00', b'01'):
        return text == b'01'
    if len(text) > 40:
        raise PickleError('a number is too long')
    return int(text.rstrip(b'L'))


def _quoted(raw: bytes) -> str:
    """A text of Python 2 in protocol 0: quoted, with escapes."""
    if len(raw) < 2 or raw[0] != raw[-1] or raw[:1] not in (b'"', b"'"):
        raise PickleError('a text has no quotation marks')
    return raw[1:-1].decode('unicode_escape')


def _long(raw: bytes) -> int:
    if len(raw) > 16:
        raise PickleError('a number is too long')
    return int.from_bytes(raw, 'little', signed=True)


def _steps() -> tuple[Callable[[_Machine], Any] | None, ...]:
    """For each opcode what it does with the machine; None where it is refused. What comes back is not used."""
    u1, u2, i4, u4, u8, f8 = (struct.Struct(form) for form in ('<B', '<H', '<i', '<I', '<Q', '>d'))

    def push(read: Callable[[_Machine], Any]) -> Callable[[_Machine], None]:
        return lambda m: m.stack.append(read(m))

    def counted(size: struct.Struct, make: Callable[[bytes], Any]) -> Callable[[_Machine], None]:
        return lambda m: m.stack.append(make(m.take(m.number(size))))

    def gather(make: Callable[[list], Any]) -> Callable[[_Machine], None]:
        return lambda m: m.stack.append(make(m.above_mark()))

    def last(count: int) -> Callable[[_Machine], None]:
        def step(m: _Machine) -> None:
            if len(m.stack) < count:
                raise PickleError('a tuple is too short')
            m.stack[-count:] = [tuple(m.stack[-count:])]

        return step

    def text(raw: bytes) -> str:
        return raw.decode('utf-8', 'surrogatepass')

    def latin(raw: bytes) -> str:
        return raw.decode('latin-1')

    def appends(m: _Machine) -> None:
        items = m.above_mark()
        m.top(list).extend(items)

    def setitems(m: _Machine) -> None:
        items = m.above_mark()
        _fill(m.top(dict), items)

    def append(m: _Machine) -> None:
        item = m.pop()
        m.top(list).append(item)

    def setitem(m: _Machine) -> None:
        value, key = m.pop(), m.pop()
        _fill(m.top(dict), [key, value])

    def proto(m: _Machine) -> None:
        if m.number(u1) > 5:
            _refuse('a protocol above 5')

    def stack_global(m: _Machine) -> None:
        name, module = m.pop(str), m.pop(str)
        m.name(module, name)

    known: dict[bytes, Callable[[_Machine], Any]] = {
        b'\x80': proto,
        b'\x95': lambda m: m.number(u8),  # a frame's length, of use only in a stream
        b'(': lambda m: m.stack.append(_MARK),
        b'0': lambda m: m.stack.pop(),
        b'1': _Machine.above_mark,
        b'2': lambda m: m.stack.append(m.top()),
        b'N': push(lambda m: None),
        b'\x88': push(lambda m: True),
        b'\x89': push(lambda m: False),
        b'I': push(lambda m: _int(m.line())),
        b'L': push(lambda m: _int(m.line())),
        b'J': push(lambda m: m.number(i4)),
        b'K': push(lambda m: m.byte()),
        b'M': push(lambda m: m.number(u2)),
        b'\x8a': counted(u1, _long),
        b'\x8b': counted(i4, _long),
        b'F': push(lambda m: float(m.line())),
        b'G': push(lambda m: m.number(f8)),
        b'S': push(lambda m: _quoted(m.line())),
        b'T': counted(i4, latin),
        b'U': counted(u1, latin),
        b'B': counted(u4, bytes),
        b'C': counted(u1, bytes),
        b'\x8e': counted(u8, bytes),
        b'\x96': counted(u8, bytes),
        b'V': push(lambda m: m.line().decode('raw-unicode-escape')),
        b'X': counted(u4, text),
        b'\x8c': counted(u1, text),
        b'\x8d': counted(u8, text),
        b']': push(lambda m: []),
        b'l': gather(list),
        b'a': append,
        b'e': appends,
        b')': push(lambda m: ()),
        b't': gather(tuple),
        b'\x85': last(1),
        b'\x86': last(2),
        b'\x87': last(3),
        b'}': push(lambda m: {}),
        b'd': gather(lambda items: _fill({}, items)),
        b's': setitem,
        b'u': setitems,
        b'g': push(lambda m: m.memo[_int(m.line())]),
        b'h': push(lambda m: m.memo[m.byte()]),
        b'j': push(lambda m: m.memo[m.number(u4)]),
        b'p': lambda m: m.put(_int(m.line())),
        b'q': lambda m: m.put(m.byte()),
        b'r': lambda m: m.put(m.number(u4)),
        b'\x94': lambda m: m.put(len(m.memo)),
        b'c': lambda m: m.name(latin(m.line()), latin(m.line())),
        b'\x93': stack_global,
        b'R': _Machine.reduce,
        b'b': _Machine.build,
    }
    return tuple(known.get(bytes([code])) for code in range(256))


_STEPS = _steps()
