"""Pools of simulated frames: what the cameras would see of a star, or a cheap ramp.

A simulated camera repeats a pool of P frames: frame cnt0 is pool[cnt0 % P] (see
vampires.frame_stamp). A pool depends on its arguments alone, so a reader of the stream or of
the files can make it again and compare every pixel; the sky also on the NumPy version, whose
random numbers and Fourier transforms it uses.

The star passes an 8 m telescope (central obscuration and four spiders) with a residual
wavefront error that drifts across the pupil and comes round after P frames. The image is the
Fourier transform of the pupil: the core is lambda/D wide and has its rings, and the speckles
around it move from frame to frame and scale with wavelength; out of focus it widens into an
image of the pupil. Light is counted in electrons (Poisson), then read noise, gain and bias of
the detector are applied. Flux and positions of the fields are chosen to look right; they are
not measured.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vampires import cameras

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


def frame_shape(mode_or_shape: str | tuple[int, int], camera: int = 1) -> tuple[int, int]:
    """[ny, nx] of a mode's frames, or the given shape. ValueError for no such mode or shape."""
    if isinstance(mode_or_shape, str):
        return cameras.crop(mode_or_shape, camera).shape
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
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Frames of a star in a camera mode, or centred in frames of the shape (ny, nx).

    Four fields in MBI, three in MBI_REDUCED, an image of the pupil in PUPIL, one star in all
    other modes. frames: size of the pool, by default pool_frames. defocus_nm: how far the
    camera is out of focus, as the rms of the wavefront error that this is over a full pupil
    (the Zernike polynomial Z4); a pupil image does not change with it. out: where to put the
    pool, an array like the one returned.

    Returns [P, ny, nx] in adu, C-contiguous. Integer types are rounded and clipped to their
    range; the 8-bit ones hold adu / 16. Complex frames hold the image in the real part and the
    same image turned by 180 degrees in the imaginary part. ValueError for unknown modes,
    cameras, dtypes.
    """
    pixel_type = stream_dtype(dtype)
    shape = frame_shape(mode_or_shape, camera)
    chip = cameras.detector(camera, readout)
    n_frames = pool_frames(shape) if frames is None else frames
    random = np.random.default_rng([seed, camera])
    screen = _wavefront_screen(random)
    dark_e = chip.dark_e_per_s * EXPOSURE_S
    pool = np.empty((n_frames, *shape), pixel_type) if out is None else out
    for index in range(n_frames):
        drifted = np.roll(screen, index * _SCREEN_PIXELS // n_frames, axis=1)
        light = _light(mode_or_shape, camera, shape, drifted, defocus_nm)
        light += dark_e
        adu = _expose(light, chip, random)
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
) -> np.ndarray:
    """The pool of a pattern, "sky" or "counter", with the default number of frames.

    readout and defocus_nm are for the sky, as in sky_pool.
    """
    if pattern == "sky":
        return sky_pool(
            mode_or_shape, camera, dtype, seed, readout=readout, defocus_nm=defocus_nm
        )
    if pattern == "counter":
        return counter_pool(frame_shape(mode_or_shape, camera), dtype)
    raise ValueError(f"no pattern {pattern!r}: expected sky or counter")


def star_fields(mode_or_shape: str | tuple[int, int], camera: int = 1) -> list[StarField]:
    """Where the star falls on a frame, field by field; one in the middle but for MBI modes.

    The MBI fields of 3 arcsec stand three in the row that MBI_REDUCED reads (760, 720, 670 nm)
    and one, 610 nm, in the row that it leaves out, the lower rows for camera 1.
    """
    ny, nx = frame_shape(mode_or_shape, camera)
    mode = mode_or_shape.upper() if isinstance(mode_or_shape, str) else ""
    if mode not in ("MBI", "MBI_REDUCED"):
        return [StarField((nx - 1) / 2, (ny - 1) / 2, cameras.WAVELENGTHS_NM["720"])]
    frame = cameras.crop(mode, camera)
    reduced = cameras.crop("MBI_REDUCED", camera)
    whole = cameras.crop("MBI", camera)
    row = (reduced.y0 + reduced.y1) / 2
    other_row = whole.y0 + whole.y1 - row
    columns = [whole.x0 + (whole.x1 - whole.x0) * k / 6 for k in (1, 3, 5)]
    places = [("760", columns[0], row, 0.8), ("720", columns[1], row, 1.0)]
    places.append(("670", columns[2], row, 0.9))
    if mode == "MBI":
        places.append(("610", columns[2], other_row, 0.6))
    return [
        StarField(x - frame.x0, y - frame.y0, cameras.WAVELENGTHS_NM[name], brightness)
        for name, x, y, brightness in places
    ]


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


def _star_image(
    screen: np.ndarray, wavelength_nm: float, scale_mas: float, defocus_nm: float = 0.0
) -> np.ndarray:
    """The star through the wavefront screen, [512, 512], its sum 1, centred on [256, 256]."""
    n = _FIELD_PIXELS
    # The Fourier transform of n pixels has lambda/D = n / pupil pixels.
    lambda_over_d = wavelength_nm * 1e-9 / TELESCOPE_M / (scale_mas * _MILLIARCSEC)
    n_pupil = round(n / lambda_over_d)
    sample = np.arange(n_pupil) * _pupil_pixels_max() // n_pupil
    path_nm = screen[np.ix_(sample, sample)]
    if defocus_nm:
        path_nm = path_nm + defocus_nm * _defocus(n_pupil)
    phase = path_nm * (2 * np.pi / wavelength_nm)
    field = np.zeros((n, n), np.complex128)
    field[:n_pupil, :n_pupil] = _pupil(n_pupil) * np.exp(1j * phase)
    image = np.abs(np.fft.fftshift(np.fft.fft2(field))) ** 2
    return image / image.sum()


def _light(
    mode_or_shape: str | tuple[int, int],
    camera: int,
    shape: tuple[int, int],
    screen: np.ndarray,
    defocus_nm: float,
) -> np.ndarray:
    """Mean electrons of each pixel of a frame, [ny, nx] float64."""
    light = np.zeros(shape)
    if isinstance(mode_or_shape, str) and mode_or_shape.upper() == "PUPIL":
        side = min(shape) * 9 // 10
        pupil = _pupil(side) * PUPIL_ELECTRONS
        _add_centred(light, pupil, (shape[1] - 1) / 2, (shape[0] - 1) / 2)
        return light
    scale_mas = cameras.PLATE_SCALE_MAS[camera]
    side = min(_FIELD_PIXELS, round(cameras.MBI_FIELD_ARCSEC * 1e3 / scale_mas))
    first = _FIELD_PIXELS // 2 - side // 2
    cut = slice(first, first + side)
    for star in star_fields(mode_or_shape, camera):
        image = _star_image(screen, star.wavelength_nm, scale_mas, defocus_nm)[cut, cut]
        electrons = image * (STAR_ELECTRONS * star.brightness) + FIELD_ELECTRONS
        _add_centred(light, electrons, star.x, star.y)
    return light


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
    light: np.ndarray, chip: cameras.Detector, random: np.random.Generator
) -> np.ndarray:
    """One exposure in adu, float32: photon noise, read noise, gain, bias."""
    adu = random.standard_normal(light.shape, np.float32)
    adu *= np.float32(chip.read_noise_e)
    adu += random.poisson(light)
    adu /= np.float32(chip.gain_e_per_adu)
    adu += np.float32(cameras.BIAS_ADU)
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
