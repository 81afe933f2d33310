"""A stream file as other programs make and write it, byte by byte, without vampires._core.

Offsets are computed here a second time, from the description of the format; semaphores are
posted by the C library. Writers are generators that stop after every store, so that a test can
look at the stream in each of its intermediate states; ``run`` carries one to its end.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

DTYPES = (
    *("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"),
    *("float32", "float64", "complex64", "complex128", "float16"),
)
MATH_DATA = 0x2
TEMPORAL_RING = 0x20001
METADATA_BYTES = 384
# name -> (offset, struct format) in the metadata
FIELDS = {
    "version": (0, "32s"),
    "name": (32, "80s"),
    "naxis": (112, "B"),
    "size": (116, "3I"),
    "nelement": (128, "Q"),
    "datatype": (136, "B"),
    "imagetype": (144, "Q"),
    "creationtime": (152, "2q"),
    "lastaccesstime": (168, "2q"),
    "atime": (184, "2q"),
    "writetime": (200, "2q"),
    "creatorPID": (216, "i"),
    "ownerPID": (220, "i"),
    "shared": (224, "B"),
    "inode": (232, "Q"),
    "location": (240, "b"),
    "sem": (258, "H"),
    "NBproctrace": (260, "H"),
    "cnt0": (264, "Q"),
    "cnt1": (272, "Q"),
    "cnt2": (280, "Q"),
    "write": (288, "B"),
    "NBkw": (290, "H"),
    "CBsize": (292, "I"),
    "CBindex": (296, "I"),
    "CBcycle": (304, "Q"),
    "imdatamemsize": (312, "Q"),
}

_libc = ctypes.CDLL(None, use_errno=True)


def round_up_8(size: int) -> int:
    return -(-size // 8) * 8


def region_offsets(
    data_bytes: int, keywords: int, semaphores: int, slices: int, cbsize: int
) -> dict[str, int]:
    """Offsets of all regions; ``slices`` is the z size of a temporal ring, else 0."""
    regions = {
        "array": data_bytes,
        "kw": 128 * keywords,
        "semfile": 32 * semaphores,
        "semlog": 32,
        "semReadPID": 4 * semaphores,
        "semWritePID": 4 * semaphores,
        "semctrl": 4 * semaphores,
        "semstatus": 4 * semaphores,
        "streamproctrace": 64 * 10,
        "atimearray": 16 * slices,
        "writetimearray": 16 * slices,
        "cntarray": 8 * slices,
        "CircBuff_md": 48 * cbsize,
        "CBimdata": data_bytes * cbsize,
    }
    offsets, at = {}, METADATA_BYTES
    for region, size in regions.items():
        offsets[region] = at
        at += round_up_8(size)
    return {**offsets, "EOF": at}


def keyword(name: str, kind: bytes, value: object, comment: str = "") -> bytes:
    if kind == b"L":
        field = struct.pack("<q", value)
    elif kind == b"D":
        field = struct.pack("<d", value)
    else:
        field = str(value).encode()
    return struct.pack("<16sc7x16sQ80s", name.encode(), kind, field, 0, comment.encode())


def stream_bytes(
    name: str = "foreign",
    size: tuple[int, ...] = (4, 3),
    dtype: str = "uint16",
    *,
    imagetype: int = MATH_DATA,
    keywords: int = 3,
    semaphores: int = 10,
    cbsize: int = 0,
    version: bytes = b"2.00",
) -> bytearray:
    """The file of a new stream as the library leaves it; size is x, y, z."""
    item = np.dtype(dtype).itemsize
    nelement = int(np.prod(size, dtype=object))
    ring = len(size) == 3 and imagetype & 0xF000F == TEMPORAL_RING
    at = region_offsets(item * nelement, keywords, semaphores, size[2] if ring else 0, cbsize)
    raw = bytearray(at["EOF"])
    now = divmod(time.time_ns(), 10**9)
    fields = {
        "version": (version,),
        "name": (name.encode(),),
        "naxis": (len(size),),
        "size": (*size, *[0] * (3 - len(size))),
        "nelement": (nelement,),
        "datatype": (1 + DTYPES.index(dtype),),
        "imagetype": (imagetype,),
        "creationtime": now,
        "lastaccesstime": now,
        "creatorPID": (os.getpid(),),
        "ownerPID": (os.getpid(),),
        "shared": (1,),
        "location": (-1,),
        "sem": (semaphores,),
        "NBproctrace": (10,),
        "NBkw": (keywords,),
        "CBsize": (cbsize,),
        "imdatamemsize": (item * nelement,),
    }
    for field, values in fields.items():
        set_field(raw, field, *values)
    for k in range(keywords):
        raw[at["kw"] + 128 * k + 16] = ord("N")
    for s in range(semaphores):
        struct.pack_into("<I", raw, at["semfile"] + 32 * s + 8, 0x80)
        struct.pack_into("<i", raw, at["semReadPID"] + 4 * s, -1)
        struct.pack_into("<i", raw, at["semWritePID"] + 4 * s, -1)
    for p in range(10):
        struct.pack_into("<i", raw, at["streamproctrace"] + 64 * p + 48, -1)
    return raw


def store(raw: bytearray | mmap.mmap, offset: int, form: str, *values: object) -> None:
    """struct.pack_into without the zeros that it stores first, which a reader could see."""
    packed = struct.pack(form, *values)
    raw[offset : offset + len(packed)] = packed


def set_field(raw: bytearray | mmap.mmap, field: str, *values: object) -> None:
    offset, form = FIELDS[field]
    store(raw, offset, "<" + form, *values)


def get_field(raw: bytes | bytearray | mmap.mmap, field: str) -> tuple:
    offset, form = FIELDS[field]
    return struct.unpack_from("<" + form, raw, offset)


def file_of(directory: Path, name: str) -> Path:
    return directory / f"{name}.im.shm"


class ForeignStream:
    """An existing stream file, mapped by another program. Close it, or use ``with``."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self.raw = mmap.mmap(file.fileno(), 0)
        (naxis,) = self.get("naxis")
        self.size = self.get("size")[:naxis]
        self.cbsize = self.get("CBsize")[0]
        self.semaphores = self.get("sem")[0]
        self.dtype = np.dtype(DTYPES[self.get("datatype")[0] - 1])
        self.ring = naxis == 3 and self.get("imagetype")[0] & 0xF000F == TEMPORAL_RING
        self.data_bytes = self.dtype.itemsize * int(np.prod(self.size))
        self.at = region_offsets(
            self.data_bytes,
            self.get("NBkw")[0],
            self.semaphores,
            self.size[2] if self.ring else 0,
            self.cbsize,
        )
        self._anchor = (ctypes.c_char * len(self.raw)).from_buffer(self.raw)
        self.array = np.frombuffer(
            self.raw, self.dtype, int(np.prod(self.size)), self.at["array"]
        ).reshape(self.size[::-1])

    @classmethod
    def create(cls, directory: Path, name: str = "foreign", **options) -> ForeignStream:
        """A new file; what stood there before is removed (its readers keep the old one)."""
        path = file_of(directory, name)
        path.unlink(missing_ok=True)
        path.write_bytes(stream_bytes(name, **options))
        stream = cls(path)
        stream.set("inode", path.stat().st_ino)
        return stream

    def close(self) -> None:
        del self.array, self._anchor
        with contextlib.suppress(BufferError):  # closed when the last writer on it ends
            self.raw.close()

    def __enter__(self) -> ForeignStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, field: str) -> tuple:
        return get_field(self.raw, field)

    def set(self, field: str, *values: object) -> None:
        set_field(self.raw, field, *values)

    def add(self, field: str) -> int:
        value = self.get(field)[0] + 1
        self.set(field, value)
        return value

    def set_keyword(self, index: int, entry: bytes) -> None:
        at = self.at["kw"] + 128 * index
        self.raw[at : at + 128] = entry

    def semaphore_value(self, index: int) -> int:
        return struct.unpack_from("<I", self.raw, self.at["semfile"] + 32 * index)[0]

    def waiting(self, index: int) -> int:
        return struct.unpack_from("<I", self.raw, self.at["semfile"] + 32 * index + 4)[0]

    def read_pids(self) -> tuple[int, ...]:
        return struct.unpack_from(f"<{self.semaphores}i", self.raw, self.at["semReadPID"])

    def post_all(self) -> None:
        """ImageStreamIO_sempost(image, -1)."""
        base = ctypes.addressof(self._anchor)
        for s in range(self.semaphores):
            if self.semaphore_value(s) < 10:
                _libc.sem_post(ctypes.c_void_p(base + self.at["semfile"] + 32 * s))
                struct.pack_into("<i", self.raw, self.at["semWritePID"] + 4 * s, os.getpid())

    def put(self, target: npt.NDArray, pixels: npt.NDArray) -> Iterator[str]:
        """The copy of the pixels, in two halves."""
        half = target.size // 2
        flat, source = target.reshape(-1), np.broadcast_to(pixels, target.shape).reshape(-1)
        flat[:half] = source[:half]
        yield "half of the pixels"
        flat[half:] = source[half:]
        yield "pixels"

    # -- writers -----------------------------------------------------------------------------

    def library(
        self,
        pixels: npt.NDArray,
        *,
        cnt1: int | None = None,
        atime_ns: int | None = None,
        clock_offset_ns: int = 0,
        post: bool = True,
        clears_write: bool = True,
    ) -> Iterator[str]:
        """ImageStreamIO_UpdateIm_atime, by a caller that sets write and the pixels before."""
        self.set("write", 1)
        yield "write = 1"
        target = self.array if cnt1 is None else self.array[cnt1]
        yield from self.put(target, pixels)
        if cnt1 is not None:
            self.set("cnt1", cnt1)
            yield "cnt1"
        if self.cbsize:
            yield from self._update_ring()
        now_ns = time.time_ns() + clock_offset_ns
        self.set("writetime", *divmod(now_ns, 10**9))
        self.set("atime", *divmod(now_ns if atime_ns is None else atime_ns, 10**9))
        yield "times"
        self.add("cnt0")
        yield "cnt0"
        if clears_write:
            self.set("write", 0)
            yield "write = 0"
        if post:
            self.post_all()
            yield "post"

    def _update_ring(self) -> Iterator[str]:
        index = self.get("CBindex")[0] + 1
        if index == self.cbsize:
            index = 0
        self.set("CBindex", index)
        yield "CBindex"
        if index == 0:
            self.add("CBcycle")
            yield "CBcycle"
        copies = np.frombuffer(
            self.raw, self.dtype, self.array.size * self.cbsize, self.at["CBimdata"]
        ).reshape(self.cbsize, *self.array.shape)
        yield from self.put(copies[index], self.array)

    def pymilk(self, pixels: npt.NDArray, *, at_once: bool = False) -> Iterator[str]:
        """Image.write() of the Python wrapper: posts before it counts, sets no times.

        at_once: the last three stores a nanosecond apart, as in the compiled wrapper.
        """
        self.set("write", 1)
        yield "write = 1"
        yield from self.put(self.array, pixels)
        self.post_all()
        yield "post"
        self.set("lastaccesstime", *divmod(time.time_ns(), 10**9))
        yield "lastaccesstime"
        if at_once:
            counters = [self.get(field)[0] for field in ("cnt0", "cnt1", "cnt2")]
            counters = [counters[0] + 1, counters[1] + 1, counters[2]]
            self.raw[264:289] = struct.pack("<3QB", *counters, 0)
            return
        self.set("write", 0)
        yield "write = 0"
        self.add("cnt0")
        yield "cnt0"
        self.add("cnt1")
        yield "cnt1"

    def magaox(
        self,
        pixels: npt.NDArray,
        *,
        counts_slices: bool = True,
        post: bool = True,
        acquired_ns: int | None = None,
    ) -> Iterator[str]:
        """The frame grabber of MagAO-X on a temporal ring: cnt0 before the slice's counter."""
        self.set("write", 1)
        yield "write = 1"
        slice_ = 0 if self.get("cnt0")[0] == 0 else (self.get("cnt1")[0] + 1) % self.size[2]
        yield from self.put(self.array[slice_], pixels)
        now = divmod(time.time_ns(), 10**9)
        acquired = now if acquired_ns is None else divmod(acquired_ns, 10**9)
        self.set("writetime", *now)
        self.set("atime", *acquired)
        yield "times"
        self.set("cnt1", slice_)
        yield "cnt1"
        cnt0 = self.add("cnt0")
        yield "cnt0"
        if counts_slices:
            store(self.raw, self.at["writetimearray"] + 16 * slice_, "<2q", *now)
            store(self.raw, self.at["atimearray"] + 16 * slice_, "<2q", *acquired)
            yield "times of the slice"
            store(self.raw, self.at["cntarray"] + 8 * slice_, "<Q", cnt0)
            yield "counter of the slice"
        self.set("write", 0)
        yield "write = 0"
        if post:
            self.post_all()
            yield "post"


def run(writer: Iterator[str]) -> None:
    """Carries a writer to its end."""
    for _ in writer:
        pass
