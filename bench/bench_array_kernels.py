"""The array kernels on MBI frames, beside NumPy doing the same."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vampires import array_kernels

FRAME_SHAPE = (1096, 2240)
FRAMES = 8
ROUNDS = 7
LIMITS = (190.0, 2000.0)


def frames_of(dtype: str) -> np.ndarray:
    """A dark sky with a few bright pixels."""
    random = np.random.default_rng(0)
    frames = random.normal(200.0, 4.0, (FRAMES, *FRAME_SHAPE))
    frames[:, 500:530, 500:530] = random.uniform(500.0, 20_000.0, (FRAMES, 30, 30))
    return frames.astype(dtype)


def numpy_bins(frame: np.ndarray) -> np.ndarray:
    ny, nx = frame.shape
    wide = np.uint32 if frame.dtype.kind == "u" else frame.dtype
    return frame.reshape(ny // 2, 2, nx // 2, 2).sum(axis=(1, 3), dtype=wide)


def numpy_statistics(frame: np.ndarray) -> tuple:
    return (frame.min(), frame.max(), frame.mean(dtype=float), frame.std(dtype=float))


def numpy_percentiles(frame: np.ndarray) -> tuple:
    return tuple(np.percentile(frame, (0.5, 99.5)))


def numpy_display(frame: np.ndarray) -> np.ndarray:
    low, high = LIMITS
    part = (frame.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    return np.rint(part.clip(0, 255)).astype(np.uint8)


def numpy_log_display(frame: np.ndarray) -> np.ndarray:
    low, high = LIMITS
    part = ((frame.astype(np.float32) - np.float32(low)) / np.float32(high - low)).clip(0, 1)
    return np.rint(np.log1p(1000 * part) * np.float32(255 / np.log(1001))).astype(np.uint8)


# What, with the kernel, with NumPy, and the least ratio of times for uint16 and float32.
KERNELS: list[tuple[str, Callable[..., Any], Callable[..., Any], float, float]] = [
    ("bins 2 x 2", lambda f: array_kernels.bin_frame(f, 2, 2), numpy_bins, 10.0, 10.0),
    ("statistics", array_kernels.statistics, numpy_statistics, 3.0, 2.0),
    ("percentiles", array_kernels.percentile_limits, numpy_percentiles, 8.0, 2.0),
    (
        "display, linear",
        lambda f: array_kernels.scale_for_display(f, *LIMITS),
        numpy_display,
        2.0,
        1.2,
    ),
    (
        "display, log",
        lambda f: array_kernels.scale_for_display(f, *LIMITS, stretch="log"),
        numpy_log_display,
        4.0,
        1.2,
    ),
]


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel[0])
def test_a_kernel_is_faster_than_numpy(benchmark, record, kernel, dtype):
    what, with_kernel, with_numpy, *asked_of = kernel
    asked = asked_of[dtype == "float32"]
    frames = frames_of(dtype)

    found, expected = with_kernel(frames[0]), with_numpy(frames[0])
    if what.startswith("display"):
        assert np.abs(found.astype(int) - expected).max() <= 1
    elif what == "bins 2 x 2":
        assert np.allclose(found, expected, rtol=1e-6)
    else:
        assert tuple(found[: len(expected)]) == pytest.approx(expected, rel=1e-6)

    ratios = []
    for _ in range(ROUNDS):
        ratios.append(timed(with_numpy, frames) / timed(with_kernel, frames))
    benchmark.pedantic(with_kernel, (frames[0],), rounds=ROUNDS)
    ratio = statistics.median(ratios)
    benchmark.extra_info["ratio to NumPy"] = ratio
    record(f"{dtype} {what}", f">= {asked} x NumPy", f"{ratio:.1f} x", ratio >= asked)


def timed(work: Callable[[np.ndarray], Any], frames: np.ndarray) -> float:
    begun = time.perf_counter()
    for frame in frames:
        work(frame)
    return time.perf_counter() - begun
