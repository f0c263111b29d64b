"""Pickles that hold nothing but plain data: texts, numbers, lists, tuples, dicts and NumPy arrays of numbers.

A pickle is a program, and Python's own reader runs it. Here its opcodes are read by a machine that knows only how to
build plain data, so that no content of a file can call, import or overwrite anything: names of functions are looked up
in a table of stand-ins made here, and every other name or opcode is refused. A reader of files that hold more (weights
of PyTorch) brings a Vocabulary: further names with stand-ins of its own. Protocols 0 to 5, as written by Python 2 and
3 and by NumPy 1 and 2. Opcodes: CPython, Lib/pickletools.py; what NumPy writes: numpy/_core/multiarray.
"""

import dataclasses
import math
import struct
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np

DEPTH = 64  # containers in containers; more is no data of anybody's
DTYPES = ('f2', 'f4', 'f8', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'b1')


class PickleError(ValueError):
    """The bytes are no pickle of plain data. refused: it asks for something that is never done; else it is broken."""

    def __init__(self, text: str, *, refused: bool = False):
        super().__init__(text)
        self.refused = refused


def refuse(what: str) -> NoReturn:
    """Raises the PickleError of something that is never done."""
    raise PickleError(what, refused=True)


class StandIn:
    """What stands for an object of a class while plain data are built, and does nothing by itself."""

    __slots__ = ()

    def build(self, machine: 'Machine', state: Any) -> None:
        """What BUILD, which would set an object's state, does here."""
        refuse('an object with a state of its own')

    def finished(self) -> Any:
        """What is in its place in the value that loads gives back: itself, or something that is no container."""
        return self


@dataclasses.dataclass(frozen=True, slots=True)
class Name:
    """The name of a function or class. make: what a call of it gives; without it a call is refused.

    new: whether NEWOBJ, which makes an object of a class, may call it too.
    """

    name: str
    make: 'Callable[[Machine, tuple], Any] | None' = None
    new: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Refused:
    """A name that is known and refused; `what` it stands for."""

    what: str


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """What a kind of file may hold beyond plain data.

    names: {(module, name): Name, Refused, or the plain value or stand-in that the name is}. persistent: what stands for
    an object outside of the pickle, from its id. keys: types that a dict may have besides texts.
    """

    names: Mapping[tuple[str, str], Any] = dataclasses.field(default_factory=dict)
    persistent: Callable[[Any], Any] | None = None
    keys: tuple[type, ...] = ()


PLAIN = Vocabulary()


def loads(data: bytes, vocabulary: Vocabulary = PLAIN) -> Any:
    """The value that the bytes describe; byte strings of Python 2 become texts (latin-1). Raises PickleError."""
    try:
        return Machine(data, vocabulary).run()
    except PickleError:
        raise
    except (IndexError, KeyError, struct.error, UnicodeError, ValueError, TypeError, OverflowError) as error:
        raise PickleError(f'it is damaged ({type(error).__name__})') from error


_MARK = object()  # where a list of items begins on the stack


class _Dtype(StandIn):
    """A stand-in for numpy.dtype while it is built: its kind and size, then its byte order."""

    __slots__ = ('numpy',)

    def __init__(self, code: str):
        self.numpy = np.dtype(code)

    def build(self, machine: 'Machine', state: Any) -> None:
        if not isinstance(state, tuple) or len(state) not in (8, 9) or any(part is not None for part in state[2:5]):
            refuse('an array of records')
        if state[1] not in ('<', '>', '|', '='):
            refuse('an array of an unknown byte order')
        self.numpy = self.numpy.newbyteorder(state[1])

    def finished(self) -> NoReturn:
        refuse('something else than plain data')


class _Array(StandIn):
    """A stand-in for an array that is filled by BUILD, as all protocols but the fifth do it."""

    __slots__ = ('value',)

    def __init__(self):
        self.value: np.ndarray | None = None

    def build(self, machine: 'Machine', state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            refuse('an array of an unknown layout')
        self.value = _filled(machine, state[4], state[2], state[1], 'F' if state[3] else 'C')

    def finished(self) -> np.ndarray:
        if self.value is None:
            raise PickleError('an array has no data')
        return self.value


def _filled(machine: 'Machine', buffer: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if isinstance(buffer, str):
        buffer = buffer.encode('latin-1')
    if not isinstance(dtype, _Dtype) or not isinstance(buffer, bytes):
        refuse('an array of something else than numbers')
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape) or len(shape) > 8:
        refuse('an array of an unknown shape')
    if math.prod(shape) * dtype.numpy.itemsize != len(buffer) or order not in ('C', 'F'):
        raise PickleError('an array has more or less data than its shape says')
    machine.spend(len(buffer))
    flat = np.frombuffer(buffer, dtype.numpy)
    return flat.astype(dtype.numpy.newbyteorder('='), copy=False).reshape(shape, order=order)


def _make_dtype(machine: 'Machine', arguments: tuple) -> _Dtype:
    code = arguments[0] if arguments else None
    if not isinstance(code, str) or code not in DTYPES:
        refuse(f'an array of {code!r:.40}' if isinstance(code, str) else 'an array of an unknown type')
    return _Dtype(code)


def _make_array(machine: 'Machine', arguments: tuple) -> _Array:
    if len(arguments) != 3 or arguments[0] is not _NAMES['numpy', 'ndarray']:
        refuse('an array of a class of its own')
    return _Array()


def _make_filled(machine: 'Machine', arguments: tuple) -> np.ndarray:
    buffer, dtype, shape, order = arguments
    return _filled(machine, buffer, dtype, shape, order)


def _make_scalar(machine: 'Machine', arguments: tuple) -> int | float | bool:
    dtype, buffer = arguments
    return _filled(machine, buffer, dtype, (), 'C').item()


def _make_bytes(machine: 'Machine', arguments: tuple) -> bytes:
    """Python 3 writes bytes so in the protocols of Python 2: bytes() and codecs.encode(text, 'latin1')."""
    if not arguments:
        return b''
    text, encoding = arguments
    if encoding != 'latin1' or not isinstance(text, str):
        refuse('a text in another encoding')
    machine.spend(len(text))
    return text.encode('latin-1')


def _names() -> dict[tuple[str, str], Name]:
    found = {('numpy', 'ndarray'): Name('numpy.ndarray'), ('numpy', 'dtype'): Name('numpy.dtype', _make_dtype)}
    for room in ('numpy.core', 'numpy._core'):
        found[f'{room}.multiarray', '_reconstruct'] = Name('_reconstruct', _make_array)
        found[f'{room}.multiarray', 'scalar'] = Name('scalar', _make_scalar)
        found[f'{room}.numeric', '_frombuffer'] = Name('_frombuffer', _make_filled)
    for module, name in (('_codecs', 'encode'), ('builtins', 'bytes'), ('__builtin__', 'bytes')):
        found[module, name] = Name(f'{module}.{name}', _make_bytes)
    return found


_NAMES = _names()


class Machine:
    """A stack, a memo, and a step for each opcode."""

    def __init__(self, data: bytes, vocabulary: Vocabulary):
        self.data, self.at = data, 0
        self.names = {**vocabulary.names, **_NAMES}
        self.persistent, self.keys = vocabulary.persistent, (str, *vocabulary.keys)
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        # What is copied is in the file once, and is copied twice at the most; a file that uses one buffer for
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
                refuse(f'the opcode {code:#04x}, which is for other things than plain data')
            step(self)

    def spend(self, count: int) -> None:
        """To be called with the bytes or items that a `make` or `build` is about to copy."""
        self.left -= count
        if self.left < 0:
            refuse('more data, of one part used again and again, than the file holds')

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
        self.call('a call of something that is no function', new=False)

    def new(self) -> None:
        self.call('an object of something that is no class', new=True)

    def call(self, otherwise: str, *, new: bool) -> None:
        arguments, name = self.pop(tuple), self.pop()
        if not isinstance(name, Name) or name.make is None or (new and not name.new):
            refuse(otherwise)
        self.stack.append(name.make(self, arguments))

    def build(self) -> None:
        state, target = self.pop(), self.top()
        if not isinstance(target, StandIn):
            refuse('an object with a state of its own')
        target.build(self, state)

    def name(self, module: str, name: str) -> None:
        if (module, name) not in self.names:
            refuse(f'the name {f"{module}.{name}"!r:.80}')
        found = self.names[module, name]
        if isinstance(found, Refused):
            refuse(found.what)
        self.stack.append(found)

    def outside(self, key: Any) -> None:
        if self.persistent is None:
            refuse('an object outside of the pickle')
        self.stack.append(self.persistent(key))

    def fill(self, target: dict, items: list[Any]) -> dict:
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Other kinds of keys, and numbers of any size, may be made to take for ever to hash or to compare.
            if type(key) not in self.keys or (type(key) is int and not -(1 << 60) < key < 1 << 60):
                refuse('a dict with other keys than texts' + ' and numbers' * (len(self.keys) > 1))
            target[key] = value
        return target


def _finished(value: Any, depth: int, done: dict[int, Any]) -> Any:
    """The value with what stand-ins stand for in their place. done: {id: value} of the containers that were seen."""
    if isinstance(value, StandIn):
        value = value.finished()
    if value is _MARK or isinstance(value, Name):
        refuse('something else than plain data')
    if not isinstance(value, (list, tuple, dict)):
        return value
    if id(value) in done:
        return done[id(value)]
    if depth >= DEPTH:
        refuse(f'more than {DEPTH} containers in one another')
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


def _steps() -> tuple[Callable[[Machine], Any] | None, ...]:
    """For each opcode what it does with the machine; None where it is refused. What comes back is not used."""
    u1, u2, i4, u4, u8, f8 = (struct.Struct(form) for form in ('<B', '<H', '<i', '<I', '<Q', '>d'))

    def push(read: Callable[[Machine], Any]) -> Callable[[Machine], None]:
        return lambda m: m.stack.append(read(m))

    def counted(size: struct.Struct, make: Callable[[bytes], Any]) -> Callable[[Machine], None]:
        return lambda m: m.stack.append(make(m.take(m.number(size))))

    def gather(make: Callable[[list], Any]) -> Callable[[Machine], None]:
        return lambda m: m.stack.append(make(m.above_mark()))

    def last(count: int) -> Callable[[Machine], None]:
        def step(m: Machine) -> None:
            if len(m.stack) < count:
                raise PickleError('a tuple is too short')
            m.stack[-count:] = [tuple(m.stack[-count:])]

        return step

    def text(raw: bytes) -> str:
        return raw.decode('utf-8', 'surrogatepass')

    def latin(raw: bytes) -> str:
        return raw.decode('latin-1')

    def appends(m: Machine) -> None:
        items = m.above_mark()
        m.top(list).extend(items)

    def setitems(m: Machine) -> None:
        items = m.above_mark()
        m.fill(m.top(dict), items)

    def append(m: Machine) -> None:
        item = m.pop()
        m.top(list).append(item)

    def setitem(m: Machine) -> None:
        value, key = m.pop(), m.pop()
        m.fill(m.top(dict), [key, value])

    def proto(m: Machine) -> None:
        if m.number(u1) > 5:
            refuse('a protocol above 5')

    def stack_global(m: Machine) -> None:
        name, module = m.pop(str), m.pop(str)
        m.name(module, name)

    known: dict[bytes, Callable[[Machine], Any]] = {
        b'\x80': proto,
        b'\x95': lambda m: m.number(u8),  # a frame's length, of use only in a stream
        b'(': lambda m: m.stack.append(_MARK),
        b'0': lambda m: m.stack.pop(),
        b'1': Machine.above_mark,
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
        b'd': lambda m: m.stack.append(m.fill({}, m.above_mark())),
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
        b'R': Machine.reduce,
        b'\x81': Machine.new,
        b'b': Machine.build,
        b'P': lambda m: m.outside(latin(m.line())),
        b'Q': lambda m: m.outside(m.pop()),
    }
    return tuple(known.get(bytes([code])) for code in range(256))


_STEPS = _steps()
