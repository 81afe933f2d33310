"""Values of parameters: their Python types, their bytes, and what a person may type."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

from vampires.fps import layout
from vampires.fps.errors import FPSRefused
from vampires.fps.layout import ParameterFlag, ParameterType

Value = bool | int | float | str

_ON_TEXTS = {"on": True, "true": True, "yes": True, "1": True}
_OFF_TEXTS = {"off": False, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class NewParameter:
    """A parameter to create. Times in seconds; limits are for numbers."""

    key: str
    type: ParameterType
    value: Value
    description: str
    flags: ParameterFlag = layout.DEFAULT_INPUT
    minimum: Value = 0
    maximum: Value = 0


@dataclass(frozen=True)
class Parameter:
    """A parameter as it was when read. `current` is what its process says it uses."""

    index: int
    key: str
    full_key: str
    type: ParameterType
    flags: ParameterFlag
    value: Value
    minimum: int | float | None
    maximum: int | float | None
    current: Value
    description: str
    cnt0: int

    @property
    def visible(self) -> bool:
        return bool(self.flags & ParameterFlag.VISIBLE)

    def writable(self, *, conf_running: bool, run_running: bool) -> bool:
        """Whether a client may set it while these processes run."""
        flags = self.flags
        return bool(
            flags & ParameterFlag.WRITE
            and (flags & ParameterFlag.WRITECONF or not conf_running)
            and (flags & ParameterFlag.WRITERUN or not run_running)
        )


def decoded_text(raw: bytes) -> str:
    """The text up to the first NUL, or all of it."""
    return raw.partition(b"\0")[0].decode(errors="replace")


def packed_text(text: str, size: int, what: str) -> bytes:
    """The text and NULs, size bytes. Raises FPSRefused when it is too long or no text."""
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raise FPSRefused(f"{what} is {text!r}, expected text (UTF-8)") from None
    if b"\0" in raw:
        raise FPSRefused(f"{what} is {text!r}, expected text without NUL")
    if len(raw) >= size:
        raise FPSRefused(f"{what} has {len(raw)} bytes, at most {size - 1} fit; shorten it")
    return raw.ljust(size, b"\0")


def _timespec(seconds: float) -> tuple[int, int]:
    whole = math.floor(seconds)
    nanoseconds = min(round((seconds - whole) * 1e9), 999_999_999)
    return whole, nanoseconds


def parse_value(parameter: Parameter, text: str) -> Value:
    """What a person typed, as a value of the parameter's type. Raises FPSRefused."""
    kind = parameter.type
    stripped = text.strip()
    value: Value = text
    if kind is ParameterType.ONOFF:
        states = _ON_TEXTS | _OFF_TEXTS
        if stripped.lower() not in states:
            raise FPSRefused(f"{parameter.full_key}: found {text!r}, expected ON or OFF")
        value = states[stripped.lower()]
    elif kind in layout.FLOAT_TYPES or kind in layout.NUMBER_CODES:
        noun = "a number" if kind in layout.FLOAT_TYPES else "a whole number"
        convert = float if kind in layout.FLOAT_TYPES else int
        try:
            value = convert(stripped)
        except ValueError:
            raise FPSRefused(f"{parameter.full_key}: found {text!r}, expected {noun}") from None
    checked = checked_value(parameter, value)
    check_limits(parameter, checked)
    return checked


def checked_value(parameter: Parameter, value: object) -> Value:
    """The value as the parameter's type, or FPSRefused."""
    kind, name = parameter.type, parameter.full_key
    if kind is ParameterType.UNDEF:
        raise FPSRefused(f"{name} has no type yet; its program may still be starting")
    if kind is ParameterType.ONOFF:
        if isinstance(value, str) and value.upper() in ("ON", "OFF"):
            return value.upper() == "ON"
        if not isinstance(value, Real) or value not in (0, 1):
            raise FPSRefused(f"{name}: found {value!r}, expected True or False")
        return bool(value)
    if kind in layout.FLOAT_TYPES or kind in layout.NUMBER_CODES:
        return _checked_number(kind, value, name)
    if not isinstance(value, str):
        raise FPSRefused(f"{name}: found {value!r}, expected text")
    packed_text(value, layout.STRING_BYTES, f"the value of {name}")
    return value


def _checked_number(kind: ParameterType, value: Any, name: str) -> int | float:
    is_float = kind in layout.FLOAT_TYPES
    noun = "a finite number" if is_float else "a whole number"
    convert: Callable[[Any], int | float] = float if is_float else int
    wrong = FPSRefused(f"{name}: found {value!r}, expected {noun}")
    if not isinstance(value, Real):
        raise wrong
    try:
        number = convert(value)
        fits = math.isfinite(number) if is_float else number == value
        if fits:
            packed(kind, number, name)
    except ValueError:
        raise wrong from None
    except (struct.error, OverflowError):
        raise FPSRefused(f"{name}: found {value!r}, which does not fit {kind.name}") from None
    if not fits:
        raise wrong
    return number


def check_limits(parameter: Parameter, value: Value) -> None:
    """Raises FPSRefused for a value that no client may set: out of limits, or a text with
    control characters, which terminals and shells would obey."""
    if isinstance(value, str):
        if any(c < " " or c == "\x7f" for c in value):
            raise FPSRefused(
                f"{parameter.full_key}: found {value!r}, expected no control characters"
            )
        return
    low, high = parameter.minimum, parameter.maximum
    if low is not None and value < low:
        raise FPSRefused(f"{parameter.full_key}: found {value}, expected at least {low}")
    if high is not None and value > high:
        raise FPSRefused(f"{parameter.full_key}: found {value}, expected at most {high}")


def packed(kind: ParameterType, value: Value, name: str) -> bytes:
    """The bytes of the first element of a value of that type. struct.error or OverflowError
    for a number that does not fit, FPSRefused for such a text."""
    if kind is ParameterType.ONOFF:
        return struct.pack("<q", int(value))
    if kind is ParameterType.TIMESPEC:
        return struct.pack("<qq", *_timespec(float(value)))
    if kind in layout.NUMBER_CODES:
        return struct.pack("<" + layout.NUMBER_CODES[kind], value)
    return packed_text(str(value), layout.STRING_BYTES, f"the value of {name}")


def unpacked(kind: ParameterType, raw: bytes, flags: int) -> Value:
    """The value, from its 128 bytes. An ONOFF is on when its value or its flag is."""
    if kind is ParameterType.ONOFF:
        return raw[:8] != bytes(8) or bool(flags & ParameterFlag.ONOFF)
    return unpacked_slot(kind, raw, 0)


def unpacked_slot(kind: ParameterType, raw: bytes, slot: int) -> int | float | str:
    """One element of a value: 0 value, 1 minimum, 2 maximum, 3 current. Times, process ids
    and texts have two."""
    if kind is ParameterType.TIMESPEC:
        seconds, nanoseconds = struct.unpack_from("<qq", raw, 16 * slot)
        return float(seconds + nanoseconds / 1e9)
    if kind in layout.NUMBER_CODES:
        code = "<" + layout.NUMBER_CODES[kind]
        number: int | float = struct.unpack_from(code, raw, struct.calcsize(code) * slot)[0]
        return number
    if kind in layout.NULL_TEXTS:
        return decoded_text(raw[layout.STRING_BYTES * slot :][: layout.STRING_BYTES])
    return ""


def unpacked_parameter(index: int, prefix: str, kind: ParameterType, raw: bytes) -> Parameter:
    """A parameter from its bytes; prefix: what stands before its short key."""
    (flags,) = struct.unpack_from("<Q", raw, layout.FLAGS_AT)
    full_key = decoded_text(raw[layout.KEYWORDFULL_AT :][: layout.KEYWORDFULL_BYTES])
    raw_value = raw[layout.VALUE_AT :][: layout.VALUE_BYTES]
    value = unpacked(kind, raw_value, flags)
    current: Value = value
    if kind in layout.FOUR_SLOT_TYPES:
        current = unpacked_slot(kind, raw_value, 3)
    elif kind in layout.NULL_TEXTS:
        current = unpacked_slot(kind, raw_value, 1)

    def limit(flag: ParameterFlag, slot: int, types: frozenset[ParameterType]) -> Any:
        return unpacked_slot(kind, raw_value, slot) if flags & flag and kind in types else None

    return Parameter(
        index=index,
        key=full_key.removeprefix(prefix),
        full_key=full_key,
        type=kind,
        flags=ParameterFlag(flags),
        value=value,
        minimum=limit(
            ParameterFlag.MINLIMIT, 1, layout.FOUR_SLOT_TYPES | {ParameterType.TIMESPEC}
        ),
        maximum=limit(ParameterFlag.MAXLIMIT, 2, layout.FOUR_SLOT_TYPES),
        current=current,
        description=decoded_text(raw[layout.DESCRIPTION_AT :][: layout.DESCRIPTION_BYTES]),
        cnt0=struct.unpack_from("<q", raw, layout.CNT0_AT)[0],
    )
