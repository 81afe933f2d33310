"""Keywords of a stream: the bytes of ``IMAGE_KEYWORD[NBkw]`` and their Python values.

One entry is 128 bytes, little endian (ImageStreamIO 2.00)::

    name[16] @0   type char @16   value @24..39   cnt u64 @40   comment[80] @48

``L`` is an int64, ``D`` a double, ``S`` 16 characters, ``N`` an unused slot. The list ends at
the first empty name: what stands behind it was left there by an earlier, longer list. A
logical travels as the string ``#TRUE#`` or ``#FALSE#``.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral, Real

KEYWORD_BYTES = 128
NAME_CHARS = 15  # of 16: readers in C need the closing NUL
STRING_CHARS = 15  # of 16, for the same reason
COMMENT_CHARS = 79  # of 80, for the same reason
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

TRUE_STRING = "#TRUE#"
FALSE_STRING = "#FALSE#"

KeywordValue = int | float | str | bool

_ENTRY = struct.Struct("<16sc7x16sQ80s")
_INT64 = struct.Struct("<q")
_DOUBLE = struct.Struct("<d")
_LOGICALS = {TRUE_STRING: True, FALSE_STRING: False}


@dataclass(frozen=True)
class Keyword:
    """One keyword of a stream. Text is ASCII; a byte that is not became ``?``."""

    name: str
    value: KeywordValue
    comment: str = ""


def decode_keywords(raw: bytes) -> list[Keyword]:
    """Keywords of a stream, in the order of the stream.

    ``raw`` is ``IMAGE_KEYWORD[NBkw]`` as it stands in shared memory. Full 16 and 80 byte fields
    without a NUL are read whole. An entry of a type other than L, D, S has no value and is not
    returned (``unreadable_keywords`` names it). No bytes make this raise.
    """
    return [
        Keyword(name, value, comment)
        for name, _, value, comment in _entries(raw)
        if value is not None
    ]


def unreadable_keywords(raw: bytes) -> list[tuple[str, str]]:
    """(name, type character) of the named entries whose type has no meaning."""
    return [(name, kind) for name, kind, value, _ in _entries(raw) if value is None]


def encode_keyword(name: str, value: KeywordValue, comment: str = "") -> bytes:
    """The 128 bytes of one keyword; the last byte of name, string and comment stays NUL.

    A comment is cut at 79 characters. Text that is not printable ASCII becomes ``?``.

    Raises:
        ValueError: name empty or longer than 15 characters, integer outside int64, string
            longer than 15 characters.
        TypeError: a value that is neither int, float, str nor bool.
    """
    if not 1 <= len(name) <= NAME_CHARS:
        raise ValueError(
            f"keyword name {name!r} has {len(name)} characters; 1 to {NAME_CHARS} fit a stream"
        )
    kind, field = _encode_value(name, value)
    return _ENTRY.pack(_ascii(name), kind, field, 0, _ascii(comment[:COMMENT_CHARS]))


def _entries(raw: bytes) -> Iterator[tuple[str, str, KeywordValue | None, str]]:
    whole_bytes = len(raw) - len(raw) % KEYWORD_BYTES
    for offset in range(0, whole_bytes, KEYWORD_BYTES):
        name, kind, field, _, comment = _ENTRY.unpack_from(raw, offset)
        if name[0] == 0:
            return
        yield _text(name), _text(kind), _decode_value(kind, field), _text(comment)


def _decode_value(kind: bytes, field: bytes) -> KeywordValue | None:
    if kind == b"L":
        return int(_INT64.unpack_from(field)[0])
    if kind == b"D":
        return float(_DOUBLE.unpack_from(field)[0])
    if kind == b"S":
        text = _text(field)
        return _LOGICALS.get(text, text)
    return None


def _encode_value(name: str, value: KeywordValue) -> tuple[bytes, bytes]:
    if isinstance(value, bool):
        return b"S", _ascii(TRUE_STRING if value else FALSE_STRING)
    if isinstance(value, str):
        if len(value) > STRING_CHARS:
            raise ValueError(
                f"keyword {name}: the string {value!r} has {len(value)} characters; "
                f"a stream holds {STRING_CHARS}"
            )
        return b"S", _ascii(value)
    if isinstance(value, Integral):
        if not INT64_MIN <= int(value) <= INT64_MAX:
            raise ValueError(
                f"keyword {name}: {value} is outside int64 ({INT64_MIN} to {INT64_MAX})"
            )
        return b"L", _INT64.pack(int(value))
    if isinstance(value, Real):
        return b"D", _DOUBLE.pack(float(value))
    import numpy as np  # reading keywords does without it

    if isinstance(value, np.bool_):
        return _encode_value(name, bool(value))
    raise TypeError(
        f"keyword {name}: value of type {type(value).__name__}; "
        "a stream holds int, float, str or bool"
    )


def _text(field: bytes) -> str:
    text = field.split(b"\0", 1)[0].decode("ascii", "replace")
    return printable(text)


def _ascii(text: str) -> bytes:
    return printable(text).encode("ascii")


def printable(text: str) -> str:
    """``text`` with ``?`` for every character outside printable ASCII (0x20 to 0x7E)."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if " " <= c <= "~" else "?" for c in text)
