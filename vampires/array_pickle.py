"""Reads a pickle of plain values and NumPy arrays without running it.

A pickle is a program: what it names is imported, what it holds is called. Here a machine of
our own reads it. It knows the steps by which protocols 3 to 5 write numbers, texts, dicts,
tuples and the arrays of NumPy 1 and 2, and no others; it imports nothing and calls nothing that
the pickle names. Steps, texts and numbers are bounded; the pixels of an array stay where they
are until its frame is asked for.
"""

from __future__ import annotations

import math
import pickle  # for the numbers of its steps, and nothing else
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, NoReturn

import numpy as np

from vampires.link_pixels import PIXEL_TYPES, MessageInvalid, checked_shape, shown

LEAST_PROTOCOL, LARGEST_PROTOCOL = 3, 5
MAX_STEPS = 1 << 16  # a keyword takes at most 16, a frame about 50
MAX_TEXT_BYTES = 256
MAX_INTEGER_BYTES = 9
_MAX_LINE_BYTES = 64  # of a name that protocol 3 writes in a line


def read_array_pickle(pickled: memoryview, max_bytes: int) -> Any:
    """What a pickle that ends where the bytes end holds, arrays as PickledArray.

    A tuple or a dict (its keys are text) may hold anything, also itself: whoever reads on has
    to look at types alone. max_bytes: of one array.

    Raises:
        MessageInvalid: steps, names or values beyond those, or an array that is not whole.
    """
    return _PickleReader(pickled, max_bytes).read()


# -- what a pickle may name -------------------------------------------------------------------


class _Global(Enum):
    """The functions and types of NumPy that a pickled array names."""

    RECONSTRUCT = auto()
    FROMBUFFER = auto()
    SCALAR = auto()
    NDARRAY = auto()
    DTYPE = auto()


# NumPy 2 moved its modules.
_GLOBALS = {
    (f"numpy.{core}.{module}", name): found
    for core in ("core", "_core")
    for module, name, found in (
        ("multiarray", "_reconstruct", _Global.RECONSTRUCT),
        ("numeric", "_frombuffer", _Global.FROMBUFFER),
        ("multiarray", "scalar", _Global.SCALAR),
    )
} | {("numpy", "ndarray"): _Global.NDARRAY, ("numpy", "dtype"): _Global.DTYPE}

# Names such as "u2"; the order of bytes is told later.
_DTYPES = {dtype.str[1:]: dtype for dtype in PIXEL_TYPES.values()} | {"b1": np.dtype(np.bool_)}


_DTYPE_STATE_TYPES = [int, str, *[type(None)] * 3, int, int, int]


@dataclass
class _Dtype:
    """A numpy.dtype on its way."""

    dtype: np.dtype


@dataclass
class PickledArray:
    """A numpy.ndarray on its way; whole once it has pixels."""

    pixels: memoryview | None = None
    dtype: np.dtype = PIXEL_TYPES["uint8"]
    shape: tuple[int, ...] = ()
    order: str = "C"  # or "F": the first axis is the fastest
    axes: tuple[int, ...] | None = None  # to be put in this order afterwards

    def frame(self) -> np.ndarray:
        """The array in memory of its own, C-contiguous, native. MessageInvalid: not whole."""
        if self.pixels is None:
            raise MessageInvalid("a pickled array without pixels")
        flat = np.frombuffer(self.pixels, self.dtype)
        array = flat.reshape(self.shape, order="F" if self.order == "F" else "C")
        if self.axes is not None:
            array = array.transpose(self.axes)
        return np.array(array, self.dtype.newbyteorder("="), order="C", copy=True)


# -- the machine ------------------------------------------------------------------------------


class _PickleReader:
    """The stack, the memo and the place in the bytes.

    Items are int, float, str, bool, None, memoryview (bytes), tuple, dict, _Global, _Dtype and
    PickledArray. None is ever hashed, compared or printed before its type is known to be a
    simple one: tuples of tuples can be built in a few steps that would take for ever to walk.
    """

    def __init__(self, pickled: memoryview, max_bytes: int) -> None:
        self._bytes = pickled
        self._at = 0
        self._max_bytes = max_bytes
        self._stack: list[Any] = []
        self._stacks: list[list[Any]] = []  # those below the marks
        self._memo: dict[int, Any] = {}

    def read(self) -> Any:
        for _ in range(MAX_STEPS):
            opcode = bytes(self._take(1))
            if opcode == pickle.STOP:
                return self._end()
            step = _STEPS.get(opcode)
            if step is None:
                raise MessageInvalid(f"a pickle with the step {opcode!r}, which no array needs")
            step(self)
        raise MessageInvalid(f"a pickle of more than {MAX_STEPS} steps")

    def _end(self) -> Any:
        item = self._pop()
        if self._stack or self._stacks or self._at != len(self._bytes):
            raise MessageInvalid("a pickle that ends before its end")
        return item

    # Bytes.

    def _take(self, size: int) -> memoryview:
        start, self._at = self._at, self._at + size
        if self._at > len(self._bytes):
            raise MessageInvalid("a pickle that is cut off")
        return self._bytes[start : self._at]

    def _number(self, form: struct.Struct) -> Any:
        return form.unpack(self._take(form.size))[0]

    def _text(self, size: int) -> str:
        if size > MAX_TEXT_BYTES:
            raise MessageInvalid(
                f"a pickle with a text of {size} bytes: expected {MAX_TEXT_BYTES} at most"
            )
        return _decoded(bytes(self._take(size)))

    def _line(self) -> str:
        ahead = bytes(self._bytes[self._at : self._at + _MAX_LINE_BYTES])
        line, newline, _ = ahead.partition(b"\n")
        if not newline:
            raise MessageInvalid("a pickle with a name that has no end")
        self._at += len(line) + 1
        return _decoded(line)

    # Items.

    def _push(self, item: Any) -> None:
        self._stack.append(item)

    def _pop(self) -> Any:
        if not self._stack:
            raise MessageInvalid("a pickle that takes more than it has")
        return self._stack.pop()

    def _top(self) -> Any:
        item = self._pop()
        self._push(item)
        return item

    def _pop_group(self) -> list[Any]:
        """The items since the mark."""
        if not self._stacks:
            raise MessageInvalid("a pickle that takes more than it has")
        group, self._stack = self._stack, self._stacks.pop()
        return group

    # Steps.

    def step_protocol(self) -> None:
        protocol = self._number(_U8)
        if not LEAST_PROTOCOL <= protocol <= LARGEST_PROTOCOL:
            raise MessageInvalid(
                f"a pickle of protocol {protocol}: expected {LEAST_PROTOCOL} to "
                f"{LARGEST_PROTOCOL}"
            )

    def step_frame(self) -> None:
        self._take(_U64.size)  # tells a reader of files how far to read; here all is there

    def step_mark(self) -> None:
        self._stacks.append(self._stack)
        self._stack = []

    def step_long1(self) -> None:
        size = self._number(_U8)
        if size > MAX_INTEGER_BYTES:
            raise MessageInvalid(f"a pickle with an integer of {size} bytes")
        self._push(int.from_bytes(self._take(size), "little", signed=True))

    def step_tuple(self) -> None:
        self._push(tuple(self._pop_group()))

    def step_setitem(self) -> None:
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def step_setitems(self) -> None:
        self._set_items(self._pop_group())

    def _set_items(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) is not dict or len(items) % 2:
            raise MessageInvalid("a pickle that sets what is no item of a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not str:
                raise MessageInvalid(
                    f"a pickle of a dict with a key of type {type(key).__name__}"
                )
            target[key] = value

    def step_memoize(self) -> None:
        self._memo[len(self._memo)] = self._top()

    def put(self, index: int) -> None:
        self._memo[index] = self._top()

    def get(self, index: int) -> None:
        if index not in self._memo:
            raise MessageInvalid("a pickle that recalls what it never noted")
        self._push(self._memo[index])

    def step_global(self) -> None:
        module, name = self._line(), self._line()
        self._push(_global(module, name))

    def step_stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if type(name) is not str or type(module) is not str:
            raise MessageInvalid("a pickle that names something with no text")
        self._push(_global(module, name))

    def step_reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if type(arguments) is not tuple or type(function) is not _Global:
            raise MessageInvalid("a pickle that calls what is no function")
        if function is _Global.RECONSTRUCT:
            self._push(_reconstruct(arguments))
        elif function is _Global.FROMBUFFER:
            self._push(_from_buffer(arguments, self._max_bytes))
        elif function is _Global.DTYPE:
            self._push(_dtype(arguments))
        elif function is _Global.SCALAR:
            self._push(_scalar(arguments))
        else:
            raise MessageInvalid("a pickle that makes an array in a way of its own")

    def step_build(self) -> None:
        state, item = self._pop(), self._top()
        if type(item) is _Dtype:
            _build_dtype(item, state)
        elif type(item) is PickledArray:
            _build_array(item, state, self._max_bytes)
        else:
            raise MessageInvalid(f"a pickle that sets up an item of type {_kind(item)}")


# -- NumPy's part -----------------------------------------------------------------------------


def _global(module: str, name: str) -> _Global:
    found = _GLOBALS.get((module, name))
    if found is None:
        raise MessageInvalid(
            f"a pickle that names {shown(f'{module}.{name}')}: only arrays of NumPy are read"
        )
    return found


def _reconstruct(arguments: tuple[Any, ...]) -> PickledArray:
    """numpy._core.multiarray._reconstruct(ndarray, (0,), b"b"): an empty array, to be built."""
    if len(arguments) != 3 or arguments[0] is not _Global.NDARRAY:
        _refuse_array()
    _, shape, code = arguments
    if type(shape) is not tuple or len(shape) != 1 or type(shape[0]) is not int or shape[0]:
        _refuse_array()
    if type(code) is not memoryview or code != b"b":
        _refuse_array()
    return PickledArray()


def _from_buffer(arguments: tuple[Any, ...], max_bytes: int) -> PickledArray:
    """numpy._core.numeric._frombuffer(bytes, dtype, shape, order[, order of the axes])."""
    if len(arguments) == 4:
        arguments = (*arguments, None)
    if len(arguments) != 5 or type(arguments[3]) is not str:
        _refuse_array()
    pixels, dtype, shape, order, axes = arguments
    if order == "K":
        if type(axes) is not tuple or not all(type(axis) is int for axis in axes):
            _refuse_array()
    elif order in ("C", "F"):
        axes = None
    else:
        _refuse_array()
    array = _whole_array(pixels, dtype, shape, order, max_bytes)
    if axes is not None and sorted(axes) != list(range(len(array.shape))):
        _refuse_array()
    array.axes = axes
    return array


def _build_array(array: PickledArray, state: Any, max_bytes: int) -> None:
    """ndarray.__setstate__((version 1, shape, dtype, Fortran order, bytes))."""
    if type(state) is not tuple or len(state) != 5 or type(state[3]) is not bool:
        _refuse_array()
    _, shape, dtype, fortran, pixels = state
    whole = _whole_array(pixels, dtype, shape, "F" if fortran else "C", max_bytes)
    array.__dict__.update(whole.__dict__)


def _whole_array(
    pixels: Any, dtype: Any, shape: Any, order: str, max_bytes: int
) -> PickledArray:
    if type(dtype) is not _Dtype or type(shape) is not tuple:
        _refuse_array()
    if type(pixels) is not memoryview or dtype.dtype.kind == "b":
        raise MessageInvalid("a pickled array of pixels that no stream has")
    checked = checked_shape(shape, dtype.dtype, max_bytes)
    expected = math.prod(checked) * dtype.dtype.itemsize
    if len(pixels) != expected:
        raise MessageInvalid(
            f"a pickled array of shape {checked} with {len(pixels)} bytes of pixels: expected "
            f"{expected}"
        )
    return PickledArray(pixels, dtype.dtype, checked, order)


def _dtype(arguments: tuple[Any, ...]) -> _Dtype:
    """numpy.dtype("u2", False, True): not aligned, a copy. Earlier NumPy has 0 and 1 there."""
    if len(arguments) != 3:
        _refuse_dtype()
    name, align, copy = arguments
    if not _is_flag(align, False) or not _is_flag(copy, True):
        _refuse_dtype()
    found = _DTYPES.get(name) if type(name) is str else None
    if found is None:
        said = shown(name) if type(name) is str else _kind(name)
        raise MessageInvalid(f"a pickle with the dtype {said}: no stream has such pixels")
    return _Dtype(found)


def _build_dtype(item: _Dtype, state: Any) -> None:
    """dtype.__setstate__((version 3, byte order, None, None, None, -1, -1, 0)): for a simple
    dtype, there are no subtype, field names and fields."""
    if type(state) is not tuple or [type(part) for part in state] != _DTYPE_STATE_TYPES:
        _refuse_dtype()
    version, order, _, _, _, *sizes = state
    if version != 3 or order not in ("<", ">", "|", "=") or sizes != [-1, -1, 0]:
        _refuse_dtype()
    if order == ">":
        item.dtype = item.dtype.newbyteorder(">")
    elif order == "<":
        item.dtype = item.dtype.newbyteorder("<")


def _scalar(arguments: tuple[Any, ...]) -> Any:
    """numpy._core.multiarray.scalar(dtype, bytes): a number."""
    if len(arguments) != 2 or type(arguments[0]) is not _Dtype:
        _refuse_dtype()
    dtype, value = arguments[0].dtype, arguments[1]
    if type(value) is not memoryview or len(value) != dtype.itemsize:
        _refuse_dtype()
    return np.frombuffer(value, dtype)[0].item()


def _is_flag(item: Any, expected: bool) -> bool:
    return type(item) in (bool, int) and item == expected


def _refuse_array() -> NoReturn:
    raise MessageInvalid("a pickled array that is not put together as NumPy does it")


def _refuse_dtype() -> NoReturn:
    raise MessageInvalid("a pickled dtype or number that is not put together as NumPy does it")


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MessageInvalid(f"a pickle with the text {shown(raw)}: no UTF-8") from error


def _kind(item: Any) -> str:
    return type(item).__name__.lstrip("_")


# -- the table of steps -----------------------------------------------------------------------

_U8, _U16, _U32, _U64 = (struct.Struct(f"<{code}") for code in "BHIQ")
_I32, _F64 = struct.Struct("<i"), struct.Struct(">d")

_Step = Callable[[_PickleReader], None]


def _constant(value: Any) -> _Step:
    return lambda reader: reader._push(value)


def _number(form: struct.Struct) -> _Step:
    return lambda reader: reader._push(reader._number(form))


def _text(size: struct.Struct) -> _Step:
    return lambda reader: reader._push(reader._text(reader._number(size)))


def _bytes(size: struct.Struct) -> _Step:
    return lambda reader: reader._push(reader._take(reader._number(size)))


def _tuple(items: int) -> _Step:
    def step(reader: _PickleReader) -> None:
        popped = [reader._pop() for _ in range(items)]
        reader._push(tuple(reversed(popped)))

    return step


_STEPS: dict[bytes, _Step] = {
    pickle.PROTO: _PickleReader.step_protocol,
    pickle.FRAME: _PickleReader.step_frame,
    pickle.NONE: _constant(None),
    pickle.NEWTRUE: _constant(True),
    pickle.NEWFALSE: _constant(False),
    pickle.BININT: _number(_I32),
    pickle.BININT1: _number(_U8),
    pickle.BININT2: _number(_U16),
    pickle.LONG1: _PickleReader.step_long1,
    pickle.BINFLOAT: _number(_F64),
    pickle.SHORT_BINUNICODE: _text(_U8),
    pickle.BINUNICODE: _text(_U32),
    pickle.SHORT_BINBYTES: _bytes(_U8),
    pickle.BINBYTES: _bytes(_U32),
    pickle.BINBYTES8: _bytes(_U64),
    pickle.BYTEARRAY8: _bytes(_U64),
    pickle.EMPTY_TUPLE: _constant(()),
    pickle.TUPLE1: _tuple(1),
    pickle.TUPLE2: _tuple(2),
    pickle.TUPLE3: _tuple(3),
    pickle.MARK: _PickleReader.step_mark,
    pickle.TUPLE: _PickleReader.step_tuple,
    pickle.EMPTY_DICT: lambda reader: reader._push({}),
    pickle.SETITEM: _PickleReader.step_setitem,
    pickle.SETITEMS: _PickleReader.step_setitems,
    pickle.MEMOIZE: _PickleReader.step_memoize,
    pickle.BINPUT: lambda reader: reader.put(reader._number(_U8)),
    pickle.LONG_BINPUT: lambda reader: reader.put(reader._number(_U32)),
    pickle.BINGET: lambda reader: reader.get(reader._number(_U8)),
    pickle.LONG_BINGET: lambda reader: reader.get(reader._number(_U32)),
    pickle.GLOBAL: _PickleReader.step_global,
    pickle.STACK_GLOBAL: _PickleReader.step_stack_global,
    pickle.REDUCE: _PickleReader.step_reduce,
    pickle.BUILD: _PickleReader.step_build,
}
"""All that a pickle of NumPy arrays and plain values does."""
