"""Messages of pyMilk's zmq_send.py: a stream's name, a space, a pickle of (keywords, frame).

pyMilk's own receiver runs the pickle, whatever it holds. Ours is read by
vampires.array_pickle, which can build plain values and arrays of pixels and nothing else.
"""

from __future__ import annotations

import pickle  # to write; nothing is ever loaded with it
from collections.abc import Mapping

import numpy as np

from vampires.array_pickle import PickledArray, read_array_pickle
from vampires.keywords import (
    FALSE_STRING,
    INT64_MAX,
    INT64_MIN,
    NAME_CHARS,
    STRING_CHARS,
    TRUE_STRING,
    Keyword,
    KeywordValue,
    printable,
)
from vampires.link_message import (
    MAX_FRAME_BYTES,
    MAX_KEYWORDS,
    FrameMessage,
    MessageInvalid,
    read_topic,
    topic,
)
from vampires.link_pixels import sendable, shown

PICKLE_PROTOCOL = 4  # what pyMilk sends with Python 3.8 to 3.13
_MAX_EXTRA_BYTES = 1 << 20  # of a message, beyond its frame

_LOGICALS = {TRUE_STRING: True, FALSE_STRING: False}


def encode_pymilk(
    stream: str, frame: np.ndarray, keywords: Mapping[str, KeywordValue] | None = None
) -> bytes:
    """What zmq_send.py sends of a frame [y, x], byte for byte.

    Logicals go as the strings that a stream holds for them.

    Raises:
        MessageInvalid: a frame or a name that no stream has; pixels that pyMilk cannot read
            (float16 and complex).
    """
    pixels = sendable(frame)
    if pixels.dtype == np.float16 or pixels.dtype.kind == "c":
        raise MessageInvalid(f"a frame of type {pixels.dtype}: pyMilk has no such pixels")
    values = {name: _as_in_stream(value) for name, value in (keywords or {}).items()}
    return topic(stream) + pickle.dumps((values, pixels), PICKLE_PROTOCOL)


def decode_pymilk(
    data: bytes | memoryview, *, max_bytes: int = MAX_FRAME_BYTES
) -> tuple[str, np.ndarray, dict[str, KeywordValue]]:
    """The stream's name, the frame and the keywords of a message of pyMilk.

    The frame has the axes that were sent; it is C-contiguous, in native byte order, and the
    caller's own. max_bytes: of the frame.

    Raises:
        MessageInvalid: anything else than a pickled tuple of a dict of numbers and texts and an
            array of pixels. Memory and time are bounded by max_bytes whatever it claims.
    """
    view = memoryview(data)
    if len(view) > max_bytes + _MAX_EXTRA_BYTES:
        raise MessageInvalid(
            f"a message of {len(view)} bytes: frames of at most {max_bytes} are allowed"
        )
    stream, start = read_topic(view)
    pickled = read_array_pickle(view[start:], max_bytes)
    if type(pickled) is not tuple or [type(item) for item in pickled] != [dict, PickledArray]:
        raise MessageInvalid("a pickle of something else than keywords and a frame")
    values, array = pickled
    _check_keywords(values)
    return stream, array.frame(), values


def decode_pymilk_message(
    data: bytes | memoryview, *, max_bytes: int = MAX_FRAME_BYTES
) -> FrameMessage:
    """A message of pyMilk as one of ours: cnt0 -1, all else that pyMilk does not send 0.

    pyMilk's cubes are [y, x, z]; the frame is [z, y, x]. Keywords are cut to what a stream can
    be given. Raises MessageInvalid.
    """
    stream, frame, values = decode_pymilk(data, max_bytes=max_bytes)
    if frame.ndim == 3:
        frame = np.ascontiguousarray(np.moveaxis(frame, 2, 0))
    keywords = tuple(_keyword(name, value) for name, value in values.items())
    return FrameMessage(stream=stream, frame=frame, keywords=keywords)


def _as_in_stream(value: KeywordValue) -> KeywordValue:
    if isinstance(value, bool):
        return TRUE_STRING if value else FALSE_STRING
    return value


def _keyword(name: str, value: KeywordValue) -> Keyword:
    if isinstance(value, str):
        value = _LOGICALS.get(value, printable(value[:STRING_CHARS]))
    return Keyword(printable(name[:NAME_CHARS]), value)


def _check_keywords(values: dict[str, object]) -> None:
    """Raises MessageInvalid unless they are few enough, with names and with plain values."""
    if len(values) > MAX_KEYWORDS:
        raise MessageInvalid(f"{len(values)} keywords: expected {MAX_KEYWORDS} at most")
    for name, value in values.items():
        if not name:
            raise MessageInvalid("a keyword without a name")
        if type(value) not in (bool, int, float, str):
            raise MessageInvalid(
                f"keyword {shown(name)} is of type {type(value).__name__}: expected a number, "
                "a logical or text"
            )
        if isinstance(value, int) and not INT64_MIN <= value <= INT64_MAX:
            raise MessageInvalid(f"keyword {shown(name)} is {value}: beyond 64 bits")
