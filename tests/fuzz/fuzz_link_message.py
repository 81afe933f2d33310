"""Fuzzes vampires.link_message.decode: whatever comes is a message, or is refused in one line.

See fuzzing.py for the ways to run it."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from random import Random
from typing import Any

import fuzzing
import msgpack
import numpy as np

from vampires.keywords import Keyword
from vampires.link_message import (
    MAGIC,
    Codec,
    FrameMessage,
    MessageInvalid,
    decode,
    encode,
)

MAX_FRAME_BYTES = 1 << 20
GOLDEN = Path(__file__).parents[1] / "data" / "zmq"

# Stands for lists within lists, deeper than msgpack would pack.
_DEEP = "@deep"
_DEEP_BYTES = b"\x91" * 1000 + b"\x90"

# What a field of a header may be replaced by.
STRANGE: list[Any] = [
    *(None, True, 1.5, float("nan"), -1, -2, 0, 1, 2, 2**31, 2**63 - 1, 2**63, 2**64 - 1),
    *("", "x" * 300, "é", "object", "uint16", ">f4", "U5", "V8", "none", "blosc2-lz4"),
    *([], [0], [-1, 5], [2**32, 2**32], [1] * 9, [3, 4.0], [[3], 4], [True, 4], b"", b"\0" * 9),
    *({}, {"a": 1}, _DEEP, [["A", 1, ""]], [["A", None, ""]], [["", 1, ""]], [["A", 1]]),
]


def seeds() -> list[bytes]:
    """Messages of each codec, and the golden ones."""
    ramp = np.arange(48 * 40).reshape(48, 40)
    frames = [ramp.astype(np.uint16), ramp.astype(np.complex128)[:9], np.zeros((50, 9), "u1")]
    keywords = (Keyword("EXPTIME", 0.25, "[s]"), Keyword("N", 7), Keyword("OK", True))
    made = [
        encode(FrameMessage("vcam1", frame, 5, 6, 7, 8, 9, 10, keywords), codec)
        for frame in frames
        for codec in Codec
    ]
    return made + [path.read_bytes() for path in sorted(GOLDEN.glob("native*.bin"))]


def mutate(data: bytes, random: Random) -> bytes:
    """Another header of the right size, or another head of the chunk of pixels."""
    try:
        start = data.index(MAGIC) + len(MAGIC)
        (size,) = struct.unpack_from("<I", data, start)
        header = msgpack.unpackb(data[start + 4 : start + 4 + size])
        payload = data[start + 4 + size :]
        if random.random() < 0.5:
            head = fuzzing.mutate_bytes(payload[:32], random)
            return data[: start + 4 + size] + head + payload[32:]
        name = random.choice(list(header))
        header[name] = random.choice(STRANGE)
        packed = msgpack.packb(header).replace(msgpack.packb(_DEEP), _DEEP_BYTES)
    except (ValueError, TypeError, IndexError, struct.error, msgpack.UnpackException):
        return fuzzing.mutate_bytes(data, random)
    return data[:start] + struct.pack("<I", len(packed)) + packed + payload


def check(data: bytes) -> None:
    """Raises when a message is neither refused as it should be nor the same when sent on."""
    try:
        message = decode(data, max_bytes=MAX_FRAME_BYTES)
    except MessageInvalid as refused:
        assert str(refused).isascii() and str(refused).isprintable(), str(refused)
        return
    assert message.frame.nbytes <= MAX_FRAME_BYTES
    again = decode(encode(message, Codec.NONE), max_bytes=MAX_FRAME_BYTES)
    assert again.frame.tobytes() == message.frame.tobytes()
    assert _facts(again) == _facts(message)


def _facts(message: FrameMessage) -> str:
    """All but the pixels; as text, in which what is no number equals itself."""
    facts = {name: value for name, value in vars(message).items() if name != "frame"}
    return repr((facts, message.frame.shape, message.frame.dtype))


if __name__ == "__main__":
    sys.exit(
        fuzzing.main(check, seeds(), mutate, ["vampires.link_message", "vampires.link_pixels"])
    )
