"""The pixels of a message: which there are, and how they are packed and unpacked.

Packed pixels are one chunk of Blosc2. A chunk from the network must be of the very kind that is
made here: others can have Blosc2 look for plugins, by running Python in a shell.
"""

from __future__ import annotations

import functools
import math
import reprlib
import struct
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

MAX_AXES = 3

PIXEL_TYPES = {
    name: np.dtype(name).newbyteorder("<")
    for name in (
        *("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"),
        *("float16", "float32", "float64", "complex64", "complex128"),
    )
}
"""The pixels a stream can have, by their names in a header."""

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxtuple, _SHORT.maxdict = 2, 4, 2
_SHORT.maxstring = _SHORT.maxother = 60


class MessageInvalid(ValueError):
    """A message, or a frame to be sent, is not what it has to be. The text is one line."""


class Codec(Enum):
    """How the pixels of a message are packed; lossless. The value stands in the header.

    Both ways of Blosc2 keep a camera of 16-bit pixels in multiband imaging below 500 Mbit/s at
    20 frames/s, also on bright stars; Zstandard two of them, for a little more time.
    """

    NONE = "none"
    BLOSC2_ZSTD = "blosc2-zstd"
    BLOSC2_LZ4 = "blosc2-lz4"


DEFAULT_CODEC = Codec.BLOSC2_ZSTD
_CODECS = {codec.value: codec for codec in Codec}

# The head of a Blosc2 chunk: version, version of the codec's format, flags, size of an element,
# sizes in bytes (frame, block, chunk), filters, codec and its meta, meta of filters, flags.
_CHUNK_HEAD = struct.Struct("<4B3i6s2B6s2B")
_CHUNK_VERSIONS = (5, 1)
_CHUNK_FLAGS = 0b101  # the head has 32 bytes
_CHUNK_SPLIT_FLAG = 0x10  # either way: the bytes of a pixel compressed apart, or together
_CHUNK_ZEROS_FLAG = 0x10  # of the last byte: a frame of nothing but zeros
_MAX_BLOCK_BYTES = 16 << 20
_MAX_CHUNK_BYTES = 2**31 - 1 - _CHUNK_HEAD.size  # Blosc2 counts in 32 bits


@dataclass(frozen=True)
class _Blosc2Kind:
    """One way of using Blosc2: its numbers in the head of a chunk, its names in the module."""

    codec_name: str
    filter_name: str
    codec: int
    format: int  # of the codec's bytes, the upper three bits of the flags
    filter: int


_BLOSC2_KINDS = {
    Codec.BLOSC2_ZSTD: _Blosc2Kind("ZSTD", "SHUFFLE", codec=5, format=4, filter=1),
    Codec.BLOSC2_LZ4: _Blosc2Kind("LZ4", "BITSHUFFLE", codec=1, format=1, filter=2),
}


def shown(value: object) -> str:
    """A value from the network for a message of one line: printable ASCII, cut when it is long
    or deep."""
    return _SHORT.repr(value).encode("ascii", "backslashreplace").decode("ascii")


def checked_shape(shape: tuple[Any, ...], dtype: np.dtype, max_bytes: int) -> tuple[int, ...]:
    """The shape, when it is that of a frame of at most max_bytes; MessageInvalid if not."""
    if not 1 <= len(shape) <= MAX_AXES or not all(type(size) is int for size in shape):
        raise MessageInvalid(f"a shape of {shown(shape)}: expected one to {MAX_AXES} integers")
    if min(shape) < 1:
        raise MessageInvalid(f"a shape of {shown(shape)}: expected sizes of at least 1")
    frame_bytes = math.prod(shape) * dtype.itemsize
    if frame_bytes > max_bytes:
        raise MessageInvalid(f"a frame of {frame_bytes} bytes: at most {max_bytes} are allowed")
    return shape


def sendable(frame: np.ndarray) -> np.ndarray:
    """The frame, C-contiguous and little endian; MessageInvalid when no stream has such."""
    dtype = PIXEL_TYPES.get(frame.dtype.name)
    if dtype is None:
        raise MessageInvalid(f"a frame of type {frame.dtype}: no stream has such pixels")
    if not 1 <= frame.ndim <= MAX_AXES or frame.size == 0:
        raise MessageInvalid(
            f"a frame of shape {frame.shape}: expected one to {MAX_AXES} sizes of at least 1"
        )
    return np.ascontiguousarray(frame, dtype)


def pack(frame: np.ndarray, codec: Codec) -> tuple[bytes | memoryview, Codec]:
    """The payload of a sendable frame, and the codec that made it: a frame that does not shrink
    stays plain."""
    plain = frame.reshape(-1).view(np.uint8).data
    if codec is not Codec.NONE and plain.nbytes <= _MAX_CHUNK_BYTES:
        kind = _BLOSC2_KINDS[codec]
        chunk = _blosc2().compress2(plain, typesize=frame.itemsize, **_settings(kind))
        if len(chunk) < plain.nbytes:
            return chunk, codec
    return plain, Codec.NONE


@functools.cache
def _blosc2() -> Any:
    """The module, which takes half a second to import: when the first chunk needs it."""
    import blosc2

    return blosc2


@functools.cache
def _settings(kind: _Blosc2Kind) -> dict[str, Any]:
    """Level 1 and one thread: beyond that, a little is gained for much time."""
    return {
        "codec": _blosc2().Codec[kind.codec_name],
        "clevel": 1,
        "filters": [_blosc2().Filter[kind.filter_name]],
        "filters_meta": [0],
        "nthreads": 1,
    }


def unpack(
    payload: memoryview, codec_name: object, shape: tuple[int, ...], dtype: np.dtype
) -> np.ndarray:
    """The frame of a payload, in memory of its own. The shape must have been checked.

    Raises MessageInvalid, before it takes memory, unless the payload is one for such a frame.
    """
    codec = _CODECS.get(codec_name) if isinstance(codec_name, str) else None
    if codec is None:
        raise MessageInvalid(
            f"a codec {shown(codec_name)}: expected one of {', '.join(_CODECS)}"
        )
    frame_bytes = math.prod(shape) * dtype.itemsize
    if codec is Codec.NONE:
        if len(payload) != frame_bytes:
            raise MessageInvalid(
                f"a payload of {len(payload)} bytes: expected {frame_bytes} for the frame"
            )
        return np.frombuffer(payload, dtype).reshape(shape).copy()
    _check_chunk(payload, _BLOSC2_KINDS[codec], frame_bytes, dtype.itemsize)
    frame = np.empty(shape, dtype)
    try:
        _blosc2().decompress2(payload, dst=frame, nthreads=1)
    except (RuntimeError, ValueError) as error:
        raise MessageInvalid("the chunk of pixels is damaged: Blosc2 cannot read it") from error
    return frame


def _check_chunk(
    chunk: memoryview, kind: _Blosc2Kind, frame_bytes: int, pixel_bytes: int
) -> None:
    """Raises MessageInvalid unless the chunk is of this kind and holds so many bytes.

    Chunks with other filters, other codecs, dictionaries, or that refer to files are none of
    ours, and nothing of them may reach Blosc2.
    """
    if not _CHUNK_HEAD.size <= len(chunk) < frame_bytes:
        raise MessageInvalid(
            f"a chunk of {len(chunk)} bytes for a frame of {frame_bytes}: expected "
            f"{_CHUNK_HEAD.size} bytes or more, and fewer than the frame has"
        )
    head = _CHUNK_HEAD.unpack_from(chunk)
    version, format_version, flags, pixel, whole, block, chunk_bytes = head[:7]
    if (pixel, whole, chunk_bytes) != (pixel_bytes, frame_bytes, len(chunk)):
        raise MessageInvalid(
            f"a chunk of {chunk_bytes} bytes for {whole} bytes in pixels of {pixel}: expected "
            f"{len(chunk)} bytes for {frame_bytes} in pixels of {pixel_bytes}"
        )
    if not 1 <= block <= min(whole, _MAX_BLOCK_BYTES):
        raise MessageInvalid(f"a chunk in blocks of {block} bytes")
    zeros = head[12] == _CHUNK_ZEROS_FLAG
    if not zeros and chunk_bytes < _CHUNK_HEAD.size + 4 * -(-whole // block):
        raise MessageInvalid("a chunk without room for the places of its blocks")
    own_flags = kind.format << 5 | _CHUNK_FLAGS
    own_head = (bytes((kind.filter, 0, 0, 0, 0, 0)), kind.codec, 0, bytes(6), 0)
    if (
        (version, format_version) != _CHUNK_VERSIONS
        or flags & ~_CHUNK_SPLIT_FLAG != own_flags
        or head[7:12] != own_head
        or not (zeros or head[12] == 0)
    ):
        raise MessageInvalid("a chunk of another kind than its codec makes")
