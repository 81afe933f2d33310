"""The array kernels give what NumPy gives, for every pixel type, size, layout and value."""

from __future__ import annotations

import math
import sys
import threading
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vampires import array_kernels
from vampires.simulated_sky import STREAM_DTYPES

REAL_DTYPES = [str(dtype) for dtype in STREAM_DTYPES if dtype.kind in "iuf"]
SMALL_DTYPES = ["uint8", "int8", "uint16", "int16"]

shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)
frames = st.sampled_from(REAL_DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, shapes))


def some_frame(dtype: str, shape: tuple[int, int] = (83, 611)) -> np.ndarray:
    """Values from all of an integer's range, and ordinary floats; more than one block."""
    random = np.random.default_rng(5)
    if np.dtype(dtype).kind == "f":
        return random.normal(200.0, 30.0, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return random.integers(limits.min, limits.max, shape, dtype, endpoint=True)


# Binning


def numpy_bins(frame: np.ndarray, factor_y: int, factor_x: int, dtype) -> np.ndarray:
    ny, nx = frame.shape[0] // factor_y, frame.shape[1] // factor_x
    cut = frame[: ny * factor_y, : nx * factor_x]
    return cut.reshape(ny, factor_y, nx, factor_x).sum(axis=(1, 3), dtype=dtype)


@pytest.mark.parametrize(
    ("dtype", "sums", "means"),
    [
        ("uint8", "uint32", "float32"),
        ("int8", "int32", "float32"),
        ("uint16", "uint32", "float32"),
        ("int16", "int32", "float32"),
        ("float16", "float32", "float32"),
        ("float32", "float32", "float32"),
        ("uint32", "float64", "float64"),
        ("int32", "float64", "float64"),
        ("uint64", "float64", "float64"),
        ("int64", "float64", "float64"),
        ("float64", "float64", "float64"),
    ],
)
@pytest.mark.parametrize("factors", [(1, 1), (2, 2), (4, 4), (3, 5), (1, 2), (83, 611)])
def test_bins_hold_the_sums_and_means_of_their_pixels(dtype, sums, means, factors):
    frame = some_frame(dtype)
    binned = array_kernels.bin_frame(frame, *factors)
    assert binned.dtype == sums
    expected = numpy_bins(frame, *factors, np.float64)
    assert np.allclose(binned, expected, rtol=2e-6 if sums == "float32" else 1e-12)
    mean = array_kernels.bin_frame(frame, *factors, mean=True)
    assert mean.dtype == means
    pixels = factors[0] * factors[1]
    assert np.allclose(mean, expected / pixels, rtol=2e-6 if means == "float32" else 1e-12)


@given(
    frame=st.sampled_from(SMALL_DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, shapes)),
    factors=st.tuples(st.integers(1, 12), st.integers(1, 12)),
)
def test_sums_of_small_integers_are_exact(frame, factors):
    factors = [min(factor, size) for factor, size in zip(factors, frame.shape, strict=True)]
    binned = array_kernels.bin_frame(frame, *factors)
    assert np.array_equal(binned, numpy_bins(frame, *factors, np.int64))


def test_a_sum_that_fills_its_type_is_right_and_a_larger_bin_is_refused():
    frame = np.full((65_537, 2), 65_535, np.uint16)
    assert array_kernels.bin_frame(frame, 65_537, 1).tolist() == [[2**32 - 1] * 2]
    with pytest.raises(ValueError, match=r"bins of 65537 x 2 pixels of uint16.* at most 65537"):
        array_kernels.bin_frame(frame, 65_537, 2)
    assert array_kernels.bin_frame(frame.astype(float), 65_537, 2) == 65_535 * 65_537 * 2


@pytest.mark.parametrize("factors", [(0, 1), (1, 0), (-1, 2), (9, 1), (1, 8)])
def test_bins_that_do_not_fit_the_frame_are_refused(factors):
    with pytest.raises(ValueError, match=r"expected 1 x 1 to 8 x 7"):
        array_kernels.bin_frame(np.zeros((8, 7)), *factors)


# Statistics


def numpy_statistics(frame: np.ndarray) -> tuple:
    good = frame[np.isfinite(frame)].astype(np.longdouble)
    if good.size == 0:
        return (math.nan, math.nan, math.nan, math.nan, 0)
    return (good.min(), good.max(), good.mean(), good.std(), good.size)


def assert_same_statistics(found, frame: np.ndarray) -> None:
    expected = [float(value) for value in numpy_statistics(frame)]
    scale = max(abs(expected[0]), abs(expected[1]))
    assert found[:2] == pytest.approx(expected[:2], rel=1e-15, nan_ok=True)
    assert found.mean == pytest.approx(expected[2], rel=1e-9, abs=1e-12 * scale, nan_ok=True)
    least = max(1e-12 * scale, 1e-150)  # squares of smaller ones are 0 in float64
    assert found.std == pytest.approx(expected[3], rel=1e-6, abs=least, nan_ok=True)
    assert found.finite == expected[4]


@pytest.mark.parametrize("dtype", REAL_DTYPES)
def test_statistics_of_a_frame_are_those_of_its_pixels(dtype):
    frame = some_frame(dtype)
    assert_same_statistics(array_kernels.statistics(frame), frame)


@given(
    st.sampled_from(REAL_DTYPES).flatmap(
        lambda dtype: hnp.arrays(
            dtype,
            hnp.array_shapes(min_dims=2, max_dims=2, max_side=20),
            # Squares of larger ones are infinite in any float64.
            elements=st.floats(-1e100, 1e100) if dtype == "float64" else None,
        )
    )
)
def test_statistics_of_any_values_are_those_of_the_finite_ones(frame):
    assert_same_statistics(array_kernels.statistics(frame), frame)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
def test_statistics_of_small_integers_are_exact_at_the_ends_of_their_range(dtype):
    for value in (np.iinfo(dtype).min, np.iinfo(dtype).max):
        found = array_kernels.statistics(np.full((257, 300), value, dtype))
        assert found == (value, value, value, 0.0, 257 * 300)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("first_bad", [0, 1, 40_000])
def test_pixels_that_are_not_finite_are_left_out(dtype, bad, first_bad):
    frame = some_frame(dtype)
    frame.reshape(-1)[first_bad::3] = bad
    frame.reshape(-1)[:first_bad:7] = bad
    assert_same_statistics(array_kernels.statistics(frame), frame)


def test_a_frame_without_a_finite_pixel_has_no_statistics_but_their_number():
    found = array_kernels.statistics(np.full((3, 4), math.nan, np.float32))
    assert found.finite == 0
    assert all(math.isnan(value) for value in found[:4])


def test_a_great_offset_leaves_the_deviation_exact():
    frame = np.random.default_rng(1).normal(0.0, 1.0, (300, 400))
    plain = array_kernels.statistics(frame)
    shifted = array_kernels.statistics(frame + 1e6)
    assert shifted.std == pytest.approx(plain.std, rel=1e-8)
    frame[0, 0] = 1e9  # the first pixel is no measure of the others
    found = array_kernels.statistics(frame)
    assert_same_statistics(found, frame)


# Percentiles


@pytest.mark.parametrize("dtype", REAL_DTYPES)
@pytest.mark.parametrize("limits", [(0.5, 99.5), (0.0, 100.0), (50.0, 50.0), (33.3, 99.99)])
def test_percentiles_are_those_of_numpy(dtype, limits):
    frame = some_frame(dtype)
    found = array_kernels.percentile_limits(frame, *limits)
    expected = np.percentile(frame.astype(np.float64), limits)
    assert found == pytest.approx(tuple(expected), rel=1e-12)


@given(
    frame=frames,
    limits=st.tuples(st.floats(0, 100), st.floats(0, 100)).map(sorted),
)
def test_percentiles_of_any_values_are_those_of_the_finite_ones(frame, limits):
    finite = frame[np.isfinite(frame)].astype(np.float64)
    if finite.size == 0:
        with pytest.raises(ValueError, match="no pixel of the frame is finite"):
            array_kernels.percentile_limits(frame, *limits)
        return
    if finite.size and np.ptp(finite / 2) > 1e307:
        return  # their difference is infinite
    found = array_kernels.percentile_limits(frame, *limits)
    scale = np.abs(finite).max()
    # A rank just beside a whole number is rounded differently.
    expected = np.percentile(finite, limits)
    assert found == pytest.approx(tuple(expected), rel=1e-9, abs=1e-12 * scale)


def test_the_default_percentiles_leave_out_a_star_and_dead_pixels():
    frame = np.full((200, 200), 200, np.uint16)
    frame[:5, :20] = 0
    frame[100:105, 100:110] = 60_000
    assert array_kernels.percentile_limits(frame) == (200.0, 200.0)


@pytest.mark.parametrize("limits", [(-1, 50), (0, 101), (60, 50), (math.nan, 50)])
def test_percentiles_that_are_none_are_refused(limits):
    with pytest.raises(ValueError, match="expected 0 <= low <= high <= 100"):
        array_kernels.percentile_limits(np.zeros((2, 2)), *limits)


# Display


def numpy_levels(frame: np.ndarray, low: float, high: float, stretch: str) -> np.ndarray:
    """Levels before they are rounded."""
    with np.errstate(all="ignore"):
        part = (frame.astype(np.float64) - low) / (high - low)
    part = np.clip(np.nan_to_num(part, nan=0.0, posinf=1.0, neginf=0.0), 0, 1)
    curve = {
        "linear": lambda t: t,
        "sqrt": np.sqrt,
        "log": lambda t: np.log1p(1000 * t) / np.log(1001),
    }
    return 255 * curve[stretch](part)


@pytest.mark.parametrize("stretch", ["linear", "sqrt", "log"])
@pytest.mark.parametrize("dtype", REAL_DTYPES)
def test_display_levels_follow_the_stretch(dtype, stretch):
    frame = some_frame(dtype)
    low, high = np.percentile(frame.astype(np.float64), (20, 80))
    levels = array_kernels.scale_for_display(frame, low, high, stretch=stretch)
    assert levels.dtype == np.uint8
    # The nearest level, but for what single precision makes of one half.
    assert np.abs(levels - numpy_levels(frame, low, high, stretch)).max() <= 0.501


@given(
    frame=frames,
    limits=st.tuples(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6)),
    stretch=st.sampled_from(["linear", "sqrt", "log"]),
)
def test_display_levels_of_any_values_are_black_or_white_or_between(frame, limits, stretch):
    low, high = limits[0], limits[0] + limits[1]
    levels = array_kernels.scale_for_display(frame, low, high, stretch=stretch)
    with np.errstate(all="ignore"):
        assert (levels[~(frame.astype(np.float64) > low)] == 0).all()
        assert (levels[frame.astype(np.float64) >= high] == 255).all()
    order = np.argsort(np.nan_to_num(frame, nan=-np.inf), axis=None, kind="stable")
    finite = np.isfinite(frame.reshape(-1)[order])
    assert (np.diff(levels.reshape(-1)[order][finite].astype(int)) >= 0).all()


@pytest.mark.parametrize("stretch", ["linear", "sqrt", "log"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_no_number_is_black_and_the_infinities_are_the_ends(dtype, stretch):
    frame = np.array([[math.nan, -math.nan, -math.inf, math.inf, 1.0, 2.0]], dtype)
    levels = array_kernels.scale_for_display(frame, 1.0, 2.0, stretch=stretch)
    assert levels.tolist() == [[0, 0, 0, 255, 0, 255]]


@pytest.mark.parametrize("dtype", REAL_DTYPES)
@pytest.mark.parametrize("stretch", ["linear", "sqrt", "log"])
def test_a_flat_frame_can_be_shown(dtype, stretch):
    frame = np.array([[4, 5, 6]], dtype)
    levels = array_kernels.scale_for_display(frame, 5, 5, stretch=stretch)
    assert levels.tolist() == [[0, 0, 255]]


@pytest.mark.parametrize("dtype", ["uint16", "float32", "float64"])
@pytest.mark.parametrize("limits", [(-1e300, 1e300), (0.0, 1e-300), (-1e38, 3e38)])
@pytest.mark.parametrize("stretch", ["linear", "sqrt", "log"])
def test_limits_of_any_size_are_kept(dtype, limits, stretch):
    frame = np.array([[0, 1, 60000]], dtype)
    levels = array_kernels.scale_for_display(frame, *limits, stretch=stretch)
    assert np.abs(levels - numpy_levels(frame, *limits, stretch)).max() <= 0.501


@pytest.mark.parametrize(
    ("limits", "stretch", "text"),
    [
        ((2, 1), "linear", "limits 2 and 1: expected finite numbers, low <= high"),
        ((math.nan, 1), "linear", "limits nan and 1"),
        ((0, math.inf), "linear", "limits 0 and inf"),
        ((-1.5e308, 1.5e308), "linear", "expected finite numbers"),
        ((0, 1), "cube", "stretch 'cube': expected one of linear, sqrt, log"),
    ],
)
def test_a_display_that_cannot_be_is_refused(limits, stretch, text):
    with pytest.raises(ValueError, match=text):
        array_kernels.scale_for_display(np.zeros((2, 2)), *limits, stretch=stretch)


# What all of them take

KERNELS = [
    lambda frame: array_kernels.bin_frame(frame, 2, 3),
    array_kernels.statistics,
    array_kernels.percentile_limits,
    lambda frame: array_kernels.scale_for_display(frame, 10, 200),
]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", REAL_DTYPES)
def test_byte_order_layout_and_protection_of_a_frame_do_not_matter(kernel, dtype):
    frame = some_frame(dtype, (30, 42))
    read_only = frame.copy()
    read_only.flags.writeable = False
    wide = np.zeros((60, 84), dtype)
    wide[::2, ::2] = frame
    others = [
        frame.astype(np.dtype(dtype).newbyteorder(">")),
        np.asfortranarray(frame),
        read_only,
        wide[::2, ::2],
        np.ascontiguousarray(frame[::-1])[::-1],
    ]
    for other in others:
        assert np.array_equal(np.asarray(kernel(other)), np.asarray(kernel(frame)))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", ["complex64", "bool", "S4", "longdouble", "object"])
def test_pixels_that_are_no_real_numbers_are_refused(kernel, dtype):
    with pytest.raises(TypeError, match="expected real numbers of up to 64 bits"):
        kernel(np.zeros((4, 6), dtype))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (5,), (2, 3, 4), ()])
def test_what_is_no_frame_is_refused(kernel, shape):
    with pytest.raises(ValueError, match=r"expected a frame \[y, x\]"):
        kernel(np.zeros(shape))


@pytest.mark.parametrize("kernel", KERNELS)
@given(frame=frames)
def test_a_kernel_leaves_the_frame_as_it_is(kernel, frame):
    before = frame.tobytes()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            kernel(frame)
        except ValueError:
            return
    assert frame.tobytes() == before


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_other_threads_run_while_a_kernel_works(kernel, dtype):
    frame = np.zeros((3000, 4000), dtype)
    gate = threading.Semaphore(0)
    ran = []

    def run_once_let() -> None:
        gate.acquire()
        ran.append(True)

    thread = threading.Thread(target=run_once_let)
    thread.start()
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # only a thread that gives Python's lock away is followed
    try:
        gate.release()
        for _ in range(100):
            kernel(frame)
            if ran:
                break
        ran_meanwhile = bool(ran)
    finally:
        sys.setswitchinterval(interval_s)
        thread.join()
    assert ran_meanwhile
