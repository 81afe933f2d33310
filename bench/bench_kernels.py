"""One pass of copy, byte swap, offset and DATASUM, beside memcpy of the same bytes."""

from __future__ import annotations

import ctypes
import statistics
import time

import numpy as np
import pytest

from vampires import _core

# Frames of MBI, as many as do not fit into any cache.
FRAME_PIXELS = 1096 * 2236
POOL_BYTES = 400_000_000
ROUNDS = 7

ASKED = {"uint16": 1.0}
OTHERS = ("uint8", "int8", "int16", "uint32", "int32", "uint64", "int64")
FLOATS = ("float16", "float32", "float64")

_memcpy = ctypes.CDLL(None).memcpy
_memcpy.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


@pytest.mark.parametrize("dtype", [*ASKED, *OTHERS, *FLOATS])
def test_conversion_keeps_up_with_memcpy(benchmark, record, dtype):
    out_dtype = "float32" if dtype == "float16" else dtype
    in_bytes = FRAME_PIXELS * np.dtype(dtype).itemsize
    out_bytes = FRAME_PIXELS * np.dtype(out_dtype).itemsize
    count = max(4, POOL_BYTES // out_bytes)
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 256, (count, in_bytes), np.uint8).view(dtype)
    if np.dtype(dtype).kind == "f":
        frames = np.nan_to_num(frames)
    target = np.zeros((count, out_bytes), np.uint8)

    def convert() -> None:
        for k in range(count):
            _core.convert_to_fits(frames[k], target[k])

    def copy() -> None:  # of the bytes written
        for k in range(count):
            _memcpy(target[k].ctypes.data, target[count - 1 - k].ctypes.data, out_bytes)

    ratios = []
    for _ in range(ROUNDS):
        ratios.append(timed(copy) / timed(convert))
    benchmark.pedantic(convert, rounds=2)
    ratio = statistics.median(ratios)
    benchmark.extra_info["ratio to memcpy"] = ratio

    expected = frames[1].astype(f">{np.dtype(out_dtype).str[1:]}").view(np.uint8).copy()
    if dtype in ("uint16", "uint32", "uint64", "int8"):
        expected[:: np.dtype(dtype).itemsize] ^= 0x80
    assert np.array_equal(target[1], expected)
    assert _core.convert_to_fits(frames[1], target[1]) == _core.fits_sum(target[1])

    asked = ASKED.get(dtype, 0.8)
    record(
        f"{dtype} copy+swap+offset+DATASUM ({_core.kernel_variant()})",
        f">= {asked} x memcpy",
        f"{ratio:.2f} x",
        ratio >= asked,
    )


def timed(work) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
