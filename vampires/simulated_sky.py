"""Pools of simulated frames: what the cameras would see of a star, or a cheap ramp.

A simulated camera repeats a pool of P frames: frame cnt0 is pool[cnt0 % P] (see
vampires.frame_stamp). A pool depends on its arguments alone, so a reader of the stream or of
the files can make it again and compare every pixel; the sky also on the NumPy version, whose
random numbers and Fourier transforms it uses.

The star passes an 8 m telescope (central obscuration and four spiders) with a residual
wavefront error that drifts across the pupil and comes round after P frames. The image is the
Fourier transform of the pupil: the core is lambda/D wide and has its rings, and the speckles
around it move from frame to frame and scale with wavelength; out of focus it widens into an
image of the pupil. A companion stands at a fixed place on the sky, so that scale, angle and
parity of a camera show in its frames. Light is counted in electrons (Poisson), then read noise,
gain and bias of the detector are applied. Fields lie where the facts of the instrument have
them on the day that is played; flux and companion are chosen, not measured.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vampires.instrument.cameras import Crop
from vampires.instrument.coordinates import fields_of, pixel_offset
from vampires.instrument.facts import Detector, Instrument
from vampires.instrument.file import instrument_of

PATTERNS = ("sky", "flat", "dark", "counter")
"""What a pool shows."""

_INTEGERS = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64)
_FLOATS = (np.float16, np.float32, np.float64, np.complex64, np.complex128)
STREAM_DTYPES = tuple(np.dtype(kind) for kind in _INTEGERS + _FLOATS)
"""The thirteen pixel types a stream can have."""

TELESCOPE_M = 8.0
OBSCURATION = 0.29  # central obscuration, fraction of the diameter
SPIDER = 0.012  # width of a spider, fraction of the diameter

WAVEFRONT_RMS_NM = 105.0  # residual of the adaptive optics
EXPOSURE_S = 0.0175  # sets the dark; a frame at the 57 Hz of MBI
STAR_ELECTRONS = 8.0e4  # of a star of brightness 1 in one frame; its peak is near 24000 adu
FIELD_ELECTRONS = 0.5  # diffuse light of a pixel within a field
FLAT_ELECTRONS = 1500.0  # of a pixel within a field that a lamp fills
COMPANION_MAS, COMPANION_PA_DEG = 400.0, 60.0  # separation; from north through east
COMPANION_BRIGHTNESS = 0.05  # of the star's
PUPIL_ELECTRONS = 100.0  # of an illuminated pixel in a pupil image

_FIELD_PIXELS = 512  # side of the patch around a star: 3 arcsec
_SCREEN_PIXELS = 256  # side of the periodic wavefront screen; the telescope covers 3/4 of it
_MAX_FRAMES, _MIN_FRAMES, _POOL_PIXELS = 8, 2, 24_000_000
_ADU_DIVISOR_8BIT = 16
_MILLIARCSEC = math.pi / 180 / 3600e3  # in radians


@dataclass(frozen=True)
class StarField:
    """One image of the star on the detector: its centre in pixels of the frame."""

    x: float
    y: float
    wavelength_nm: float
    brightness: float = 1.0


# The star in each multiband field, against one of brightness 1.
_BRIGHTNESS = {610.0: 0.6, 670.0: 0.9, 720.0: 1.0, 760.0: 0.8}
_WHITE_NM = 720.0  # where no field says the wavelength


def frame_shape(
    mode_or_shape: str | tuple[int, int], camera: int = 1, day: str | None = None
) -> tuple[int, int]:
    """[ny, nx] of a mode's frames, or the given shape. ValueError for no such mode or shape."""
    if isinstance(mode_or_shape, str):
        return instrument_of(day).crop(mode_or_shape, camera).shape
    ny, nx = mode_or_shape
    if ny < 1 or nx < 1:
        raise ValueError(f"no frame of {ny} x {nx} pixels: expected 1 or more each way")
    return (ny, nx)


def pool_frames(shape: tuple[int, int]) -> int:
    """Default number of frames of a pool: 8, fewer for large frames, at least 2."""
    return max(_MIN_FRAMES, min(_MAX_FRAMES, _POOL_PIXELS // (shape[0] * shape[1])))


def stream_dtype(dtype: npt.DTypeLike) -> np.dtype:
    """The dtype in native byte order; ValueError where streams have no such pixels."""
    with contextlib.suppress(TypeError):
        found = np.dtype(dtype).newbyteorder("=")
        if found in STREAM_DTYPES:
            return found
    names = ", ".join(map(str, STREAM_DTYPES))
    raise ValueError(f"no stream has pixels of type {dtype!s}: expected one of {names}")


def sky_pool(
    mode_or_shape: str | tuple[int, int] = "MBI",
    camera: int = 1,
    dtype: npt.DTypeLike = "uint16",
    seed: int = 0,
    *,
    readout: str = "FAST",
    frames: int | None = None,
    defocus_nm: float = 0.0,
    day: str | None = None,
    light: str = "sky",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Frames of a star in a camera mode, or centred in frames of the shape (ny, nx).

    Four fields in MBI, three in MBI_REDUCED, an image of the pupil in PUPIL, one star in all
    other modes. frames: size of the pool, by default pool_frames. defocus_nm: how far the
    camera is out of focus, as the rms of the wavefront error that this is over a full pupil
    (the Zernike polynomial Z4); a pupil image does not change with it. day: YYYY-MM-DD, whose
    facts of the instrument are played; by default today. light: "sky", or "flat" (a lamp fills
    the fields) or "dark" (the shutter is closed). out: where to put the pool, an array like
    the one returned.

    Returns [P, ny, nx] in adu, C-contiguous. Integer types are rounded and clipped to their
    range; the 8-bit ones hold adu / 16. Complex frames hold the image in the real part and the
    same image turned by 180 degrees in the imaginary part. ValueError for unknown modes,
    cameras, dtypes.
    """
    pixel_type = stream_dtype(dtype)
    instrument = instrument_of(day)
    shape = frame_shape(mode_or_shape, camera, day)
    chip = instrument.detector(camera, readout)
    n_frames = pool_frames(shape) if frames is None else frames
    random = np.random.default_rng([seed, camera])
    screen = _wavefront_screen(random)
    dark_e = chip.dark_e_per_s * EXPOSURE_S
    pool = np.empty((n_frames, *shape), pixel_type) if out is None else out
    for index in range(n_frames):
        drifted = np.roll(screen, index * _SCREEN_PIXELS // n_frames, axis=1)
        electrons = np.zeros(shape)
        if light != "dark":
            star = None if light == "flat" else _Star(drifted, defocus_nm)
            _illuminate(electrons, mode_or_shape, camera, instrument, star)
        electrons += dark_e
        adu = _expose(electrons, chip, instrument.bias_adu, random)
        _store_adu(adu, pool[index])
    return pool


def counter_pool(
    shape: tuple[int, int], dtype: npt.DTypeLike = "uint16", *, frames: int | None = None
) -> np.ndarray:
    """Ramps: every pixel tells its position and its frame of the pool.

    With n = y * nx + x + 1009 * index, pixels are n times an odd constant with other digits in
    each 16-bit word, modulo the range of the integer type (so each byte of a wide pixel is
    exercised); n modulo 2**11 for float16, 2**24 for float32; the same less 0.5 for complex,
    negative in the imaginary part. Returns [P, ny, nx], the same on every machine.
    """
    pixel_type = stream_dtype(dtype)
    shape = frame_shape(shape)
    n_frames = pool_frames(shape) if frames is None else frames
    position = np.arange(shape[0] * shape[1], dtype=np.uint64).reshape(shape)
    pool = np.empty((n_frames, *shape), pixel_type)
    for index in range(n_frames):
        number = position + np.uint64(1009 * index)
        if pixel_type.kind in "iu":
            word = (number * np.uint64(0x0007_0005_0003_0001)).view(np.int64)
            pool[index] = word.astype(pixel_type)
        elif pixel_type.kind == "f":
            pool[index] = number % np.uint64(2**11 if pixel_type.itemsize == 2 else 2**24)
        else:
            pool[index].real = number % np.uint64(2**23) - 0.5
            pool[index].imag = -pool[index].real
    return pool


def frame_pool(
    pattern: str,
    mode_or_shape: str | tuple[int, int],
    camera: int = 1,
    dtype: npt.DTypeLike = "uint16",
    seed: int = 0,
    *,
    readout: str = "FAST",
    defocus_nm: float = 0.0,
    day: str | None = None,
) -> np.ndarray:
    """The pool of a pattern (PATTERNS), with the default number of frames.

    readout, defocus_nm and day are as in sky_pool, for all but "counter".
    """
    if pattern == "counter":
        return counter_pool(frame_shape(mode_or_shape, camera, day), dtype)
    if pattern not in PATTERNS:
        raise ValueError(f"no pattern {pattern!r}: expected one of {', '.join(PATTERNS)}")
    return sky_pool(
        mode_or_shape,
        camera,
        dtype,
        seed,
        readout=readout,
        defocus_nm=defocus_nm,
        day=day,
        light=pattern,
    )


def star_fields(
    mode_or_shape: str | tuple[int, int], camera: int = 1, day: str | None = None
) -> list[StarField]:
    """Where the star falls on a frame, field by field; one in the middle but for the multiband
    modes, whose fields are those of the instrument."""
    return _star_fields(mode_or_shape, camera, instrument_of(day))


def _star_fields(
    mode_or_shape: str | tuple[int, int], camera: int, instrument: Instrument
) -> list[StarField]:
    if isinstance(mode_or_shape, str):
        mode, crop = mode_or_shape, instrument.crop(mode_or_shape, camera)
    else:
        ny, nx = mode_or_shape
        mode, crop = "", Crop(0, nx - 1, 0, ny - 1)
    found = []
    for field in fields_of(instrument, mode, crop, camera):
        if field.in_frame:
            wavelength_nm = instrument.bands_nm.get(field.band, _WHITE_NM)
            brightness = _BRIGHTNESS.get(wavelength_nm, 1.0) if field.band else 1.0
            found.append(StarField(field.x, field.y, wavelength_nm, brightness))
    return found


def companion_offset(camera: int, day: str | None = None) -> tuple[float, float]:
    """Pixels in x and y from the star to its companion on a camera, to half a pixel."""
    return _companion_offset(camera, instrument_of(day))


def _companion_offset(camera: int, instrument: Instrument) -> tuple[float, float]:
    angle = math.radians(COMPANION_PA_DEG)
    east_mas, north_mas = COMPANION_MAS * math.sin(angle), COMPANION_MAS * math.cos(angle)
    return pixel_offset(instrument.geometry[camera], east_mas, north_mas)


def _wavefront_screen(random: np.random.Generator) -> np.ndarray:
    """A periodic screen of optical path differences, in nm, that wraps around when shifted.

    Power falls as f**(-11/3) beyond the control radius of the deformable mirror (24 cycles a
    pupil) and is flat within it, where the adaptive optics works.
    """
    n = _SCREEN_PIXELS
    cycles = np.fft.fftfreq(n, 1 / n)
    radius = np.hypot(cycles[:, None], cycles[None, :])
    control = 24 * n / _pupil_pixels_max()
    amplitude = np.maximum(radius, control) ** (-11 / 6)
    amplitude[0, 0] = 0.0
    noise = np.fft.fft2(random.standard_normal((n, n)))
    screen = np.fft.ifft2(noise * amplitude).real
    return screen * (WAVEFRONT_RMS_NM / screen.std())


def _pupil_pixels_max() -> int:
    """Pixels of the wavefront screen across the telescope."""
    return _SCREEN_PIXELS * 3 // 4


def _pupil(n: int) -> np.ndarray:
    """The telescope's pupil, [n, n], 1 where light passes."""
    axis = (np.arange(n) + 0.5) / n * 2 - 1
    x, y = axis[None, :], axis[:, None]
    radius = np.hypot(x, y)
    spiders = np.minimum(np.abs(x + y), np.abs(x - y)) / math.sqrt(2) < SPIDER
    return ((radius < 1) & (radius > OBSCURATION) & ~spiders).astype(np.float32)


def _defocus(n: int) -> np.ndarray:
    """The Zernike polynomial Z4 on a pupil [n, n]: its rms over the full circle is 1."""
    axis = (np.arange(n) + 0.5) / n * 2 - 1
    return math.sqrt(3) * (2 * (axis[None, :] ** 2 + axis[:, None] ** 2) - 1)


@dataclass(frozen=True)
class _Star:
    """A star as it is seen in one frame: through this wavefront screen, so much defocused."""

    screen: np.ndarray
    defocus_nm: float = 0.0

    def image(
        self, wavelength_nm: float, scale_mas: float, shift: tuple[float, float] = (0.0, 0.0)
    ) -> np.ndarray:
        """[512, 512], its sum 1, centred on [256, 256] and so many pixels in x and y."""
        n = _FIELD_PIXELS
        # The Fourier transform of n pixels has lambda/D = n / pupil pixels.
        lambda_over_d = wavelength_nm * 1e-9 / TELESCOPE_M / (scale_mas * _MILLIARCSEC)
        n_pupil = round(n / lambda_over_d)
        sample = np.arange(n_pupil) * _pupil_pixels_max() // n_pupil
        path_nm = self.screen[np.ix_(sample, sample)]
        if self.defocus_nm:
            path_nm = path_nm + self.defocus_nm * _defocus(n_pupil)
        phase = path_nm * (2 * np.pi / wavelength_nm)
        ramp = np.arange(n_pupil) * (2 * np.pi / n)
        phase = phase + shift[0] * ramp[None, :] + shift[1] * ramp[:, None]
        field = np.zeros((n, n), np.complex128)
        field[:n_pupil, :n_pupil] = _pupil(n_pupil) * np.exp(1j * phase)
        image = np.abs(np.fft.fftshift(np.fft.fft2(field))) ** 2
        return image / image.sum()


def _illuminate(
    electrons: np.ndarray,
    mode_or_shape: str | tuple[int, int],
    camera: int,
    instrument: Instrument,
    star: _Star | None,
) -> None:
    """Adds the mean electrons of each pixel to a frame; star None: a lamp fills the fields."""
    ny, nx = electrons.shape
    if isinstance(mode_or_shape, str) and mode_or_shape.upper() == "PUPIL":
        pupil = _pupil(min(ny, nx) * 9 // 10) * PUPIL_ELECTRONS
        _add_centred(electrons, pupil, (nx - 1) / 2, (ny - 1) / 2)
        return
    scale_mas = abs(instrument.geometry[camera].scale_mas[0])
    side = min(_FIELD_PIXELS, round(instrument.field_arcsec * 1e3 / scale_mas))
    fields = _star_fields(mode_or_shape, camera, instrument)
    if star is None:
        for place in fields:
            _add_centred(electrons, np.full((side, side), FLAT_ELECTRONS), place.x, place.y)
        return
    companion = _companion_offset(camera, instrument)
    for place in fields:
        patch = np.full((side, side), FIELD_ELECTRONS)
        patch += _stars(star, place, scale_mas, companion, side)
        _add_centred(electrons, patch, place.x, place.y)


def _stars(
    star: _Star, place: StarField, scale_mas: float, companion: tuple[float, float], side: int
) -> np.ndarray:
    """The star and its companion, [side, side], electrons, to be put on whole pixels: the
    star's centre has the fraction of a pixel of its place, the companion is whole pixels away.
    """
    middle = _FIELD_PIXELS // 2 - side // 2
    cut = slice(middle, middle + side)
    x, y = place.x - round(place.x), place.y - round(place.y)
    image = star.image(place.wavelength_nm, scale_mas, (x, y))
    away = (round(companion[1]), round(companion[0]))
    image = image + COMPANION_BRIGHTNESS * np.roll(image, away, (0, 1))
    return image[cut, cut] * (STAR_ELECTRONS * place.brightness)


def _add_centred(frame: np.ndarray, patch: np.ndarray, x: float, y: float) -> None:
    """Adds a patch to the frame with its middle on the pixel nearest x, y; cuts what is out."""
    spans = []
    for centre, size, room in zip((y, x), patch.shape, frame.shape, strict=True):
        start = round(centre) - size // 2
        first, last = max(start, 0), min(start + size, room)
        spans.append((slice(first, last), slice(first - start, last - start)))
    (rows, patch_rows), (columns, patch_columns) = spans
    frame[rows, columns] += patch[patch_rows, patch_columns]


def _expose(
    light: np.ndarray, chip: Detector, bias_adu: float, random: np.random.Generator
) -> np.ndarray:
    """One exposure in adu, float32: photon noise, read noise, gain, bias."""
    adu = random.standard_normal(light.shape, np.float32)
    adu *= np.float32(chip.read_noise_e)
    adu += random.poisson(light)
    adu /= np.float32(chip.gain_e_per_adu)
    adu += np.float32(bias_adu)
    return adu


def _store_adu(adu: np.ndarray, frame: np.ndarray) -> None:
    """Writes adu into a frame of any stream dtype, as sky_pool documents."""
    if frame.dtype.kind == "c":
        frame.real = adu
        frame.imag = adu[::-1, ::-1]
        return
    if frame.dtype.kind == "f":
        frame[:] = adu
        return
    if frame.dtype.itemsize == 1:
        adu = adu / _ADU_DIVISOR_8BIT
    limits = np.iinfo(frame.dtype)
    # Beyond 2**24 adu no camera counts, and float32 would not hold the limit exactly.
    np.clip(np.rint(adu), max(limits.min, -(2**24)), min(limits.max, 2**24), out=adu)
    frame[:] = adu
