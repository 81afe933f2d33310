"""The frame number at both ends of a frame: exact, by dtype, also after a FITS file."""

from __future__ import annotations

import io

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from vampires import frame_stamp
from vampires.simulated_sky import STREAM_DTYPES, counter_pool

ALL_DTYPES = [str(dtype) for dtype in STREAM_DTYPES]
FITS_DTYPES = [name for name in ALL_DTYPES if not name.startswith("complex")]
counters = st.integers(0, 2**64 - 1)


def stamped_cube(dtype: str, numbers: list[int], shape: tuple[int, int] = (4, 6)) -> np.ndarray:
    pool = counter_pool(shape, dtype)
    return np.stack([frame_stamp.expected_frame(pool, number) for number in numbers])


def through_fits(cube: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    fits.PrimaryHDU(cube).writeto(file)
    file.seek(0)
    with fits.open(file) as hdus:
        return np.array(hdus[0].data, copy=True, subok=False)


@pytest.mark.parametrize("dtype", ALL_DTYPES)
@given(numbers=st.lists(counters, min_size=1, max_size=4))
def test_a_stamp_reads_back_at_both_ends(dtype, numbers):
    cube = stamped_cube(dtype, numbers)
    expected = [frame_stamp.stamped_number(number, dtype) for number in numbers]
    first, last = frame_stamp.read_stamps(cube)
    assert first.dtype == last.dtype == np.uint64
    assert first.tolist() == last.tolist() == expected


@pytest.mark.parametrize("dtype", FITS_DTYPES)
@given(numbers=st.lists(counters, min_size=1, max_size=3))
def test_a_stamp_survives_the_fits_file(dtype, numbers):
    cube = stamped_cube(dtype, numbers)
    read_back = through_fits(cube.astype(np.float32) if dtype == "float16" else cube)
    first, last = frame_stamp.read_stamps(read_back, dtype)
    expected = [frame_stamp.stamped_number(number, dtype) for number in numbers]
    assert first.tolist() == last.tolist() == expected


@pytest.mark.parametrize("dtype", ALL_DTYPES)
def test_both_byte_orders_are_read(dtype):
    cube = stamped_cube(dtype, [5, 1234])
    swapped = cube.astype(cube.dtype.newbyteorder(">"))
    assert frame_stamp.read_stamps(swapped)[1].tolist() == [5, 1234]


@pytest.mark.parametrize(
    ("dtype", "wrap"),
    [("float16", 2048), ("float32", 2**24), ("complex64", 2**24), ("float64", 2**53)],
)
def test_a_float_stamp_wraps_where_the_type_stops_being_exact(dtype, wrap):
    cube = stamped_cube(dtype, [wrap - 1, wrap, wrap + 1])
    assert frame_stamp.read_stamps(cube)[0].tolist() == [wrap - 1, 0, 1]


def test_an_integer_stamp_is_little_endian_in_the_first_and_last_8_bytes():
    raw = stamped_cube("uint16", [0x0102030405060708]).tobytes()
    assert raw[:8] == raw[-8:] == bytes([8, 7, 6, 5, 4, 3, 2, 1])


@pytest.mark.parametrize("dtype", ALL_DTYPES)
def test_the_two_ends_are_read_apart_so_a_torn_frame_shows(dtype):
    old, new = stamped_cube(dtype, [41, 42])
    torn = np.concatenate([new[:2], old[2:]])
    first, last = frame_stamp.read_stamps(torn)
    assert (int(first), int(last)) == (42, 41)


@pytest.mark.parametrize("dtype", ALL_DTYPES)
def test_the_pixels_between_the_stamps_are_those_of_the_pool(dtype):
    pool = counter_pool((4, 6), dtype)
    before = pool.copy()
    number = 8 * 5 + 3
    frame = frame_stamp.expected_frame(pool, number)
    kept = 8 // pool.dtype.itemsize if pool.dtype.kind in "iu" else 1
    assert np.array_equal(frame.ravel()[kept:-kept], pool[3].ravel()[kept:-kept])
    assert np.array_equal(pool, before)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((1, 15), "uint8"), ((1, 7), "int16"), ((1, 1), "float64")]
)
def test_a_frame_too_small_for_two_stamps_is_an_error(shape, dtype):
    with pytest.raises(ValueError, match=r"too few for two stamps.*take a larger frame"):
        frame_stamp.stamp(np.zeros(shape, dtype), 1)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((1, 16), "uint8"), ((2, 1), "uint64"), ((1, 2), "float16")]
)
def test_the_smallest_frames_hold_two_stamps(shape, dtype):
    frame = np.zeros(shape, dtype)
    frame_stamp.stamp(frame, 9)
    assert [int(number) for number in frame_stamp.read_stamps(frame)] == [9, 9]


def test_a_stamp_never_goes_into_a_silent_copy():
    for frame in (
        np.zeros((8, 8), "uint16").T[:, ::2],
        np.zeros((8, 8), ">u2"),
        np.frombuffer(bytes(128), "uint16"),
    ):
        with pytest.raises(ValueError, match="cannot stamp this array"):
            frame_stamp.stamp(frame, 1)


def test_frames_that_were_converted_on_the_way_are_an_error():
    cube = stamped_cube("uint16", [1]).astype(np.float32)
    with pytest.raises(TypeError, match="read back as float32, expected uint16"):
        frame_stamp.read_stamps(cube, "uint16")


@pytest.mark.parametrize("value", [-1.0, 0.5, 2.0**24, np.nan, np.inf])
def test_a_float_that_is_no_frame_number_is_an_error(value):
    frame = np.full((4, 4), value, np.float32)
    with pytest.raises(ValueError, match="no frame number at the ends"):
        frame_stamp.read_stamps(frame)


def test_pixels_without_a_stamp_form_are_an_error():
    with pytest.raises(TypeError, match="no stamp for dtype bool"):
        frame_stamp.stamp(np.zeros((8, 8), bool), 1)
