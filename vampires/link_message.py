"""Messages of the slow link: a frame, what is known of it, and the bytes that travel.

One message is one part of ZeroMQ, so that a socket can keep the newest alone (ZMQ_CONFLATE)::

    stream name   b" "   b"VDL1"   u32 header bytes   header   payload

The header is a msgpack map; integers outside of it are little endian. Its fields are those of
FrameMessage without the frame, of which it holds ``dtype`` (the NumPy name), ``shape`` (y, x)
and ``codec``; ``keywords`` is a list of [name, value, comment]. The payload is the pixels in C
order, little endian, or one chunk of Blosc2 with them.

What comes from the network is believed in nothing: each size is checked before memory is taken
for it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

from vampires.keywords import (
    COMMENT_CHARS,
    INT64_MAX,
    INT64_MIN,
    NAME_CHARS,
    STRING_CHARS,
    Keyword,
    KeywordValue,
    printable,
)
from vampires.link_pixels import (
    DEFAULT_CODEC,
    PIXEL_TYPES,
    Codec,
    MessageInvalid,
    checked_shape,
    pack,
    sendable,
    shown,
    unpack,
)

__all__ = [
    "DEFAULT_CODEC",
    "MAX_FRAME_BYTES",
    "MAX_KEYWORDS",
    "Codec",
    "FrameMessage",
    "MessageInvalid",
    "decode",
    "encode",
    "is_native",
    "read_message",
    "read_topic",
    "topic",
]

MAGIC = b"VDL1"
MAX_FRAME_BYTES = 256 << 20  # of a frame, unless the caller allows another size
MAX_KEYWORDS = 4096
MAX_HEADER_BYTES = 512 << 10  # that many keywords of full length find room
UINT64_MAX = 2**64 - 1

_STREAM_NAME = re.compile(rb"[A-Za-z0-9_+-][A-Za-z0-9_+.-]{0,78}")
_NAME_BYTES = 79
_HEADER_BYTES = struct.Struct("<I")


@dataclass(frozen=True, eq=False)
class FrameMessage:
    """A frame on its way, and what its receiver is told of it.

    frame is [y, x] (or 1D, [z, y, x]) of a pixel type of streams. A field that the sender does
    not know (pyMilk sends none of them) is 0, cnt0 is then -1.
    """

    stream: str
    frame: np.ndarray
    cnt0: int = -1  # counter of the frame in its stream
    acquired_ns: int = 0  # Unix time
    sent_ns: int = 0  # Unix time, clock of the sender
    sequence: int = 0  # number of this message since its sender started, from 0
    sender: int = 0  # random number of that start
    throttled: int = 0  # frames left out by the throttle since that start
    keywords: tuple[Keyword, ...] = ()


_COUNTS = {
    "cnt0": (-1, INT64_MAX),
    "acquired_ns": (0, INT64_MAX),
    "sent_ns": (0, INT64_MAX),
    "sequence": (0, INT64_MAX),
    "sender": (0, UINT64_MAX),
    "throttled": (0, INT64_MAX),
}
"""The integers of a header: least and largest value."""


def topic(stream: str) -> bytes:
    """What the messages of a stream begin with; to be subscribed to. The space is part of it,
    so that "vcam1" is not also "vcam10". MessageInvalid for a name no stream can have."""
    return _checked_name(stream.encode("utf-8", "replace")).encode() + b" "


# -- to bytes ---------------------------------------------------------------------------------


def encode(message: FrameMessage, codec: Codec = DEFAULT_CODEC) -> bytes:
    """The bytes of a message. A frame that does not shrink is sent plain.

    Names and texts of keywords are cut to what a stream can be given, what is not printable
    ASCII becomes ``?``.

    Raises:
        MessageInvalid: a frame without pixels, of more than three axes or of a type no stream
            has; numbers below 0 or beyond 64 bits; more than MAX_KEYWORDS keywords.
    """
    frame = sendable(message.frame)
    payload, used = pack(frame, codec)
    header: dict[str, Any] = {
        "dtype": frame.dtype.name,
        "shape": frame.shape,
        "codec": used.value,
        "keywords": _listed(message.keywords),
    }
    for name in _COUNTS:
        header[name] = _checked_count(name, getattr(message, name))
    packed = msgpack.packb(header)
    start = topic(message.stream) + MAGIC + _HEADER_BYTES.pack(len(packed))
    return b"".join((start, packed, payload))


def _listed(keywords: tuple[Keyword, ...]) -> list[tuple[str, KeywordValue, str]]:
    if len(keywords) > MAX_KEYWORDS:
        raise MessageInvalid(
            f"{len(keywords)} keywords: a message holds at most {MAX_KEYWORDS}"
        )
    return [_cut(keyword) for keyword in keywords]


def _cut(keyword: Keyword) -> tuple[str, KeywordValue, str]:
    value = keyword.value
    if isinstance(value, str):
        value = printable(value[:STRING_CHARS])
    comment = printable(keyword.comment[:COMMENT_CHARS])
    return _checked_keyword((printable(keyword.name[:NAME_CHARS]), value, comment))


# -- from bytes -------------------------------------------------------------------------------


def is_native(data: bytes | memoryview) -> bool:
    """Whether a message begins as one of this module: a name, a space and the magic."""
    head = bytes(memoryview(data)[: _NAME_BYTES + 1 + len(MAGIC)])
    return head.partition(b" ")[2].startswith(MAGIC)


def decode(data: bytes | memoryview, *, max_bytes: int = MAX_FRAME_BYTES) -> FrameMessage:
    """The message that `encode` made. max_bytes: of its frame.

    The frame is the caller's own, writable. Unknown fields of a header are left out.

    Raises:
        MessageInvalid: anything is not as it has to be. Memory and time are bounded by
            max_bytes whatever the message claims.
    """
    view = memoryview(data)
    stream, header_start = _read_start(view)
    header, payload = _read_header(view[header_start:])
    shape, dtype = _frame_layout(header, max_bytes)
    counts = {name: _checked_count(name, header.get(name)) for name in _COUNTS}
    keywords = _read_keywords(header.get("keywords"))
    frame = unpack(payload, header.get("codec"), shape, dtype)
    return FrameMessage(stream=stream, frame=frame, keywords=keywords, **counts)


def read_message(data: bytes | memoryview, *, max_bytes: int = MAX_FRAME_BYTES) -> FrameMessage:
    """A message of either kind, this module's or pyMilk's. Raises MessageInvalid."""
    if is_native(data):
        return decode(data, max_bytes=max_bytes)
    from vampires.pymilk_message import decode_pymilk_message

    return decode_pymilk_message(data, max_bytes=max_bytes)


def read_topic(view: memoryview) -> tuple[str, int]:
    """The stream's name and where its message goes on, behind the space."""
    name, space, _ = bytes(view[: _NAME_BYTES + 1]).partition(b" ")
    if not space:
        raise MessageInvalid(f"begins with {shown(name)}: expected a stream's name and a space")
    return _checked_name(name), len(name) + 1


def _checked_name(name: bytes) -> str:
    if not _STREAM_NAME.fullmatch(name):
        raise MessageInvalid(
            f"{shown(name)} cannot be a stream's name: expected 1 to {_NAME_BYTES} letters, "
            "digits, _ - + . and no dot at the start"
        )
    return name.decode("ascii")


def _read_start(view: memoryview) -> tuple[str, int]:
    """The stream's name and where the size of the header stands."""
    stream, start = read_topic(view)
    magic = bytes(view[start : start + len(MAGIC)])
    if magic != MAGIC:
        raise MessageInvalid(f"{shown(magic)} behind the name, expected {MAGIC!r}")
    return stream, start + len(MAGIC)


def _read_header(view: memoryview) -> tuple[dict[Any, Any], memoryview]:
    """The header, an unchecked map, and the payload behind it."""
    start = _HEADER_BYTES.size
    if len(view) < start:
        raise MessageInvalid("ends within the size of its header")
    (size,) = _HEADER_BYTES.unpack_from(view)
    if size > MAX_HEADER_BYTES:
        raise MessageInvalid(
            f"a header of {size} bytes: expected {MAX_HEADER_BYTES} bytes at most"
        )
    if len(view) < start + size:
        raise MessageInvalid(f"a header of {size} bytes: {len(view) - start} bytes are there")
    return _unpack_header(view[start : start + size]), view[start + size :]


def _unpack_header(packed: memoryview) -> dict[Any, Any]:
    try:
        header = msgpack.unpackb(
            packed,
            use_list=False,
            strict_map_key=True,
            max_str_len=256,
            max_bin_len=0,
            max_array_len=MAX_KEYWORDS,
            max_map_len=64,
            max_ext_len=0,
        )
    except (ValueError, TypeError, RecursionError) as error:
        said = shown(str(error) or type(error).__name__)
        raise MessageInvalid(f"a header that msgpack cannot read: {said}") from error
    if not isinstance(header, dict):
        raise MessageInvalid(f"a header of type {type(header).__name__}: expected a map")
    return header


def _frame_layout(header: dict[Any, Any], max_bytes: int) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and pixels of the frame; the whole of it is no larger than max_bytes."""
    name, shape = header.get("dtype"), header.get("shape")
    dtype = PIXEL_TYPES.get(name) if isinstance(name, str) else None
    if dtype is None:
        raise MessageInvalid(f"pixels of type {shown(name)}: no stream has such pixels")
    if not isinstance(shape, tuple):
        raise MessageInvalid(f"a shape of {shown(shape)}: expected sizes of axes")
    return checked_shape(shape, dtype, max_bytes), dtype


def _checked_count(name: str, value: object) -> int:
    least, largest = _COUNTS[name]
    # A bool is an int for isinstance, and none for the reader.
    if type(value) is not int or not least <= value <= largest:
        raise MessageInvalid(
            f"{name} is {shown(value)}: expected an integer from {least} to {largest}"
        )
    return value


def _read_keywords(listed: object) -> tuple[Keyword, ...]:
    if not isinstance(listed, tuple):
        raise MessageInvalid(f"keywords are {shown(listed)}: expected a list")
    return tuple(Keyword(*_checked_keyword(entry)) for entry in listed)


def _checked_keyword(entry: object) -> tuple[str, KeywordValue, str]:
    """A keyword that a stream can hold, as vampires.keywords.encode_keyword takes it."""
    if not isinstance(entry, tuple) or len(entry) != 3:
        raise MessageInvalid(f"the keyword {shown(entry)}: expected name, value, comment")
    name, value, comment = entry
    if not _is_text(name, NAME_CHARS) or not name:
        raise MessageInvalid(
            f"a keyword named {shown(name)}: expected 1 to {NAME_CHARS} characters of ASCII"
        )
    if not _is_text(comment, COMMENT_CHARS):
        raise MessageInvalid(
            f"keyword {name}: the comment is {shown(comment)}, expected at most "
            f"{COMMENT_CHARS} characters of ASCII"
        )
    check = _VALUE_CHECKS.get(type(value))
    if check is None or not check(value):
        raise MessageInvalid(
            f"keyword {name}: the value is {shown(value)}, expected a number of 64 bits, a "
            f"logical or at most {STRING_CHARS} characters of ASCII"
        )
    return name, value, comment


def _is_text(value: object, max_chars: int) -> bool:
    return isinstance(value, str) and len(value) <= max_chars and printable(value) == value


_VALUE_CHECKS: dict[type, Callable[[Any], bool]] = {
    bool: lambda value: True,
    int: lambda value: INT64_MIN <= value <= INT64_MAX,
    float: lambda value: True,
    str: lambda value: _is_text(value, STRING_CHARS),
}
