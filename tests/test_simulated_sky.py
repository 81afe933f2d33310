"""Pools of simulated frames: the same for the same arguments, and true to the detector."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from vampires import simulated_sky
from vampires.instrument.cameras import CAMERAS
from vampires.instrument.coordinates import fields_of, linear_matrix
from vampires.instrument.file import instrument_of, instrument_on

ALL_DTYPES = [str(dtype) for dtype in simulated_sky.STREAM_DTYPES]


def brightest_pixel(image: np.ndarray) -> tuple[int, int]:
    y, x = np.unravel_index(np.argmax(image), image.shape)
    return int(y), int(x)


@pytest.mark.parametrize("dtype", ALL_DTYPES)
def test_the_sky_is_the_same_for_the_same_seed_in_every_dtype(dtype):
    first, second = (simulated_sky.sky_pool((24, 20), 1, dtype, 7) for _ in range(2))
    assert first.dtype == np.dtype(dtype)
    assert first.shape == (8, 24, 20)
    assert np.array_equal(first, second)


def test_the_sky_differs_by_seed_by_camera_and_by_frame():
    def pool(camera: int, seed: int) -> np.ndarray:
        return simulated_sky.sky_pool((24, 20), camera, "uint16", seed)

    assert not np.array_equal(pool(1, 0), pool(1, 1))
    assert not np.array_equal(pool(1, 0), pool(2, 0))
    frames = pool(1, 0)
    assert len({frame.tobytes() for frame in frames}) == len(frames)


@pytest.mark.parametrize(
    ("mode", "camera", "n_fields"),
    [
        ("MBI", 1, 4),
        ("MBI", 2, 4),
        ("mbi_reduced", 1, 3),
        ("MBI_REDUCED", 2, 3),
        ("ONEARC", 1, 1),
    ],
)
def test_a_star_stands_in_the_middle_of_each_field(mode, camera, n_fields):
    frame = simulated_sky.sky_pool(mode, camera, "uint16", 0, frames=1)[0]
    fields = simulated_sky.star_fields(mode, camera)
    assert len(fields) == n_fields
    for field in fields:
        x, y = round(field.x), round(field.y)
        near = frame[max(y - 200, 0) : y + 200, max(x - 200, 0) : x + 200]
        star_y, star_x = brightest_pixel(near)
        assert abs(star_y + max(y - 200, 0) - field.y) <= 1.5  # the wavefront tilts it
        assert abs(star_x + max(x - 200, 0) - field.x) <= 1.5
        assert near.max() > 50 * instrument_on().bias_adu


def test_the_fields_of_mbi_reduced_are_those_of_mbi_without_610_nm():
    for camera in CAMERAS:
        places = {}
        for mode in ("MBI", "MBI_REDUCED"):
            crop = instrument_on().crop(mode, camera)
            places[mode] = {
                (field.wavelength_nm, field.x + crop.x0, field.y + crop.y0)
                for field in simulated_sky.star_fields(mode, camera)
            }
        assert places["MBI_REDUCED"] < places["MBI"]
        ((wavelength_nm, _, sensor_y),) = places["MBI"] - places["MBI_REDUCED"]
        reduced = instrument_on().crop("MBI_REDUCED", camera)
        assert wavelength_nm == 610.0
        assert not reduced.y0 <= sensor_y <= reduced.y1


def centroid(image: np.ndarray, x: float, y: float, half: int = 6) -> tuple[float, float]:
    """The centre of light above the surroundings, in a small window around x, y."""
    left, low = round(x) - half, round(y) - half
    window = image[low : low + 2 * half + 1, left : left + 2 * half + 1].astype(float)
    window -= np.median(image[low - 20 : low + 21, left - 20 : left + 21])
    weights = np.where(window > 0.1 * window.max(), window, 0)
    rows, columns = np.indices(window.shape)
    return (
        left + float((columns * weights).sum() / weights.sum()),
        low + float((rows * weights).sum() / weights.sum()),
    )


@pytest.mark.parametrize("day", ["2024-06-01", "2026-06-01"])
@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("mode", ["STANDARD", "MBI", "MBI_REDUCED", "MBI_ONEHALF"])
def test_stars_lie_on_the_hotspots_and_the_companion_where_the_sky_has_it(mode, camera, day):
    """Within a tenth of a pixel, without speckles; the companion shows angle and parity."""
    instrument, crop = instrument_of(day), instrument_of(day).crop(mode, camera)
    image = np.zeros(crop.shape)
    screen = np.zeros((256, 256))
    star = simulated_sky._Star(screen)
    simulated_sky._illuminate(image, mode, camera, instrument, star)
    matrix = np.array(linear_matrix(instrument.geometry[camera])) * 3600e3
    fields = [f for f in fields_of(instrument, mode, crop, camera) if f.in_frame]
    assert len(fields) == {"STANDARD": 1, "MBI": 4}.get(mode, 3)
    ny, nx = crop.shape
    for field in fields:
        if not (100 < field.x < nx - 100 and 100 < field.y < ny - 100):
            assert mode == "MBI_ONEHALF" and 0 < field.x < nx and 0 < field.y < ny
            continue  # the row of fields lies at the edge of that crop
        assert centroid(image, field.x, field.y) == pytest.approx((field.x, field.y), abs=0.1)
        dx, dy = simulated_sky.companion_offset(camera, day)
        x, y = centroid(image, field.x + dx, field.y + dy)
        east, north = matrix @ [x - field.x, y - field.y]
        assert np.hypot(east, north) == pytest.approx(400, abs=6)
        assert np.degrees(np.arctan2(east, north)) == pytest.approx(60, abs=1)


def test_lamp_and_shutter_are_seen():
    sky, flat, dark = (
        simulated_sky.frame_pool(pattern, "MBI", 1, "float32", 0)[0]
        for pattern in ("sky", "flat", "dark")
    )
    (field, *_) = simulated_sky.star_fields("MBI", 1)
    x, y = round(field.x), round(field.y)
    lit = flat[y - 200 : y + 200, x - 200 : x + 200]
    assert lit.mean() == pytest.approx(200 + 1500 / 0.103, rel=0.01)
    assert lit.std() < 0.05 * lit.mean()
    assert flat[:20, :20].mean() == pytest.approx(200, abs=1)
    assert dark.mean() == pytest.approx(200, abs=0.1) and dark.max() < 300 < sky.max()


@pytest.mark.parametrize("wavelength_nm", [610.0, 760.0])
def test_the_core_of_the_star_is_as_wide_as_the_telescope_makes_it(wavelength_nm):
    flat = np.zeros((256, 256))
    scale_mas = abs(instrument_on().geometry[1].scale_mas[0])
    image = simulated_sky._Star(flat).image(wavelength_nm, scale_mas)
    assert brightest_pixel(image) == (256, 256)
    above_half = np.count_nonzero(image > image.max() / 2)
    width_mas = 2 * np.sqrt(above_half / np.pi) * scale_mas
    lambda_over_d_mas = wavelength_nm * 1e-9 / 8.0 * 206264806.2
    assert width_mas == pytest.approx(lambda_over_d_mas, rel=0.12)


def test_speckles_move_from_frame_to_frame(monkeypatch):
    monkeypatch.setattr(
        simulated_sky, "_expose", lambda light, chip, bias_adu, random: light.astype(np.float32)
    )
    pool = simulated_sky.sky_pool((120, 120), 1, "float32", 0)
    near = [np.corrcoef(pool[0][90:].ravel(), frame[90:].ravel())[0, 1] for frame in pool[1:]]
    assert max(near) < 0.9
    assert near[3] < max(near[0], near[-1])


@pytest.mark.parametrize(
    ("readout", "noise_e", "gain"), [("FAST", 0.403, 0.103), ("SLOW", 0.245, 0.105)]
)
def test_dark_pixels_have_the_bias_and_read_noise_of_the_detector(readout, noise_e, gain):
    frame = simulated_sky.sky_pool("MBI", 1, "float32", 0, readout=readout, frames=1)[0]
    dark = frame[:500, 1000:]  # no field of view is there
    assert dark.mean() == pytest.approx(instrument_on().bias_adu, abs=0.1)
    assert dark.std() == pytest.approx(noise_e / gain, rel=0.05)


def test_photon_noise_passes_through_the_gain():
    chip = instrument_on().detector(1)
    light = np.full((400, 400), 900.0)
    adu = simulated_sky._expose(light, chip, 200.0, np.random.default_rng(0))
    assert adu.mean() == pytest.approx(200 + 900 / chip.gain_e_per_adu, rel=1e-3)
    assert adu.std() == pytest.approx(30 / chip.gain_e_per_adu, rel=0.02)


def test_the_pupil_mode_shows_the_obscured_pupil():
    frame = simulated_sky.sky_pool("PUPIL", 2, "uint16", 0, frames=1)[0]
    centre = frame[370:390, 370:390].mean()
    lit = frame[370:390, 600:620].mean()
    assert lit > 3 * centre
    assert frame[:20, :20].mean() == pytest.approx(centre, rel=0.1)


@pytest.mark.parametrize(
    ("dtype", "largest"), [("int8", 127), ("uint8", 255), ("int16", 32767)]
)
def test_integers_are_rounded_and_clipped_to_their_range(dtype, largest):
    frame = np.zeros((1, 3), dtype)
    simulated_sky._store_adu(np.float32([[-1e6, 168.7, 1e6]]), frame)
    middle = 11 if frame.dtype.itemsize == 1 else 169
    assert frame.tolist() == [[np.iinfo(dtype).min, middle, largest]]


def test_complex_frames_have_an_imaginary_part_of_their_own():
    frame = simulated_sky.sky_pool((24, 20), 1, "complex64", 0)[0]
    assert np.array_equal(frame.imag, frame.real[::-1, ::-1])
    assert not np.array_equal(frame.imag, frame.real)


@pytest.mark.parametrize("dtype", ALL_DTYPES)
def test_every_pixel_of_a_ramp_tells_its_position_and_frame(dtype):
    pool = simulated_sky.counter_pool((6, 7), dtype)
    assert pool.dtype == np.dtype(dtype)
    assert all(len(np.unique(frame)) == 42 for frame in pool)
    assert len({frame.tobytes() for frame in pool}) == len(pool) == 8


def test_a_ramp_uses_every_byte_of_a_wide_pixel():
    pixels = simulated_sky.counter_pool((64, 64), "int64", frames=1).reshape(-1, 1)
    assert (np.ptp(pixels.view(np.uint8).astype(int), axis=0) > 0).all()


def test_large_frames_get_a_smaller_pool():
    assert simulated_sky.pool_frames((1096, 2236)) == 8
    assert simulated_sky.pool_frames(instrument_on().sensor_shape) == 2


@pytest.mark.parametrize("pattern", ["sky", "counter"])
def test_a_pool_is_found_by_the_name_of_its_pattern(pattern):
    made = {
        "sky": simulated_sky.sky_pool("HALFARC", 2, "int32", 3),
        "counter": simulated_sky.counter_pool((268, 268), "int32"),
    }
    assert np.array_equal(
        simulated_sky.frame_pool(pattern, "HALFARC", 2, "int32", 3), made[pattern]
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("stars", (8, 8)), "'stars': expected one of sky, flat, dark, counter"),
        (("sky", (0, 8)), "0 x 8 pixels"),
        (("sky", "NOMODE"), "'NOMODE': expected one of FULL"),
        (("counter", (8, 8), 1, "bool"), "bool: expected one of uint8"),
        (("counter", (8, 8), 1, "pixel"), "pixel: expected one of uint8"),
    ],
)
def test_a_pool_that_cannot_be_is_an_error_that_says_what_can(arguments, text):
    with pytest.raises(ValueError, match=text):
        simulated_sky.frame_pool(*arguments)


def sharpness(frames: np.ndarray) -> float:
    """Sum of squares over square of the sum, of what is above the bias."""
    light = frames.astype(np.float64) - np.median(frames)
    return float((light**2).sum() / light.sum() ** 2)


@pytest.mark.parametrize("where", [(160, 160), "MBI_REDUCED"])
def test_stars_widen_on_both_sides_of_the_focus(where):
    def seen(defocus_nm: float) -> float:
        return sharpness(
            simulated_sky.sky_pool(where, 1, "float32", 0, frames=1, defocus_nm=defocus_nm)
        )

    for side in (-1, 1):
        row = [seen(side * nm) for nm in (0, 60, 120, 240, 480)]
        assert all(near > 1.05 * far for near, far in itertools.pairwise(row))
    assert seen(-100) == pytest.approx(seen(100), rel=0.3)


def test_defocus_is_given_as_the_rms_of_the_wavefront_over_a_full_pupil():
    z4 = simulated_sky._defocus(400)
    axis = (np.arange(400) + 0.5) / 200 - 1
    inside = axis[None, :] ** 2 + axis[:, None] ** 2 < 1
    assert z4[inside].std() == pytest.approx(1.0, rel=1e-2)
    assert z4[inside].mean() == pytest.approx(0.0, abs=1e-2)


def test_light_is_not_lost_out_of_focus():
    sharp, wide = (
        simulated_sky.sky_pool("ONEARC", 1, "float64", 0, frames=1, defocus_nm=nm)
        for nm in (0.0, 300.0)
    )
    dark = instrument_on().bias_adu
    assert (wide - dark).sum() == pytest.approx((sharp - dark).sum(), rel=0.02)


@pytest.mark.parametrize("dtype", ["uint16", "complex64"])
def test_a_pool_may_be_put_into_memory_that_is_there(dtype):
    expected = simulated_sky.sky_pool((24, 20), 1, dtype, 7, defocus_nm=55.0)
    memory = np.zeros_like(expected)
    pool = simulated_sky.sky_pool((24, 20), 1, dtype, 7, defocus_nm=55.0, out=memory)
    assert pool is memory
    assert np.array_equal(memory, expected)


def test_a_pupil_image_has_no_focus():
    pupils = [
        simulated_sky.sky_pool("PUPIL", 1, "uint16", 0, frames=1, defocus_nm=nm)
        for nm in (0.0, 500.0)
    ]
    assert np.array_equal(*pupils)
