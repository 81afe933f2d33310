"""The frame number, stamped into both ends of every simulated frame.

A frame that carries its number cnt0 at its beginning and at its end proves where it went: a
reader sees lost frames as gaps, torn frames as two numbers that differ, and with the pool the
frames were made from it can rebuild every pixel (`expected_frame`).

The stamp, by pixel type:

- integers: cnt0 as uint64, little-endian, in the first 8 and the last 8 bytes of the frame;
- floats and complex: cnt0 as the value of the first and of the last pixel, modulo the number
  up to which the type holds every integer exactly: 2**11 = 2048 for float16, 2**24 for float32
  and complex64, 2**53 for float64 and complex128. The imaginary part is 0.

A stamp read back therefore equals `stamped_number(cnt0, dtype)`, which is cnt0 itself for the
integers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

STAMP_BYTES = 8

_FLOAT_WRAP = {
    np.dtype(np.float16): 2**11,
    np.dtype(np.float32): 2**24,
    np.dtype(np.float64): 2**53,
    np.dtype(np.complex64): 2**24,
    np.dtype(np.complex128): 2**53,
}
_INTEGER_WRAP = 2**64


def _wrap(dtype: np.dtype) -> int:
    """Numbers of a stamp wrap to 0 here."""
    if dtype.kind in "iu":
        return _INTEGER_WRAP
    wrap = _FLOAT_WRAP.get(dtype)
    if wrap is None:
        raise TypeError(f"no stamp for dtype {dtype}: expected integers, floats or complex")
    return wrap


def stamped_number(cnt0: int, dtype: npt.DTypeLike) -> int:
    """The number that a stamp of cnt0 reads back as, in frames of this dtype."""
    return cnt0 % _wrap(np.dtype(dtype).newbyteorder("="))


def check_stampable(shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
    """ValueError where a frame is too small for two stamps that do not overlap.

    Integer frames need 16 bytes, the other types two pixels.
    """
    dtype = np.dtype(dtype).newbyteorder("=")
    stamp_bytes = STAMP_BYTES if _wrap(dtype) == _INTEGER_WRAP else dtype.itemsize
    n_bytes = int(np.prod(shape)) * dtype.itemsize
    if n_bytes < 2 * stamp_bytes:
        raise ValueError(
            f"a frame of {' x '.join(map(str, shape))} {dtype} pixels has {n_bytes} bytes, "
            f"too few for two stamps: expected {2 * stamp_bytes} or more, take a larger frame"
        )


def stamp(frame: np.ndarray, cnt0: int) -> None:
    """Writes cnt0 into both ends of a frame, in place.

    frame: any shape and one of the stream dtypes, in native byte order, C-contiguous and
    writable (ValueError otherwise).
    """
    if not (frame.flags.c_contiguous and frame.flags.writeable and frame.dtype.isnative):
        raise ValueError(
            "cannot stamp this array: expected writable, C-contiguous pixels in native byte "
            "order; stamp a copy made with np.array(frame, order='C')"
        )
    check_stampable(frame.shape, frame.dtype)
    number = stamped_number(cnt0, frame.dtype)
    pixels = frame.reshape(-1)
    if frame.dtype.kind in "iu":
        raw = pixels.view(np.uint8)
        raw[:STAMP_BYTES] = raw[-STAMP_BYTES:] = np.frombuffer(
            number.to_bytes(STAMP_BYTES, "little"), np.uint8
        )
    else:
        pixels[0] = pixels[-1] = number


def read_stamps(
    frames: np.ndarray, dtype: npt.DTypeLike | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The stamps at the beginning and at the end of each frame.

    frames: [..., ny, nx], in either byte order: frames of a stream, or a cube as astropy
    returns it (BZERO applied). dtype: that of the stream, where it is not the array's own; a
    FITS file holds float16 widened to float32. Any other difference is a TypeError, since the
    pixels then are not what was written.

    Returns (first, last), two uint64 arrays of shape frames.shape[:-2]. A float frame whose
    ends hold no frame number (negative, fractional, too large) is a ValueError.
    """
    found = frames.dtype.newbyteorder("=")
    expected = found if dtype is None else np.dtype(dtype).newbyteorder("=")
    widened = expected == np.float16 and found == np.float32
    if found != expected and not widened:
        raise TypeError(
            f"frames read back as {found}, expected {expected}"
            f"{' or float32' if expected == np.float16 else ''}: they were scaled or converted"
        )
    check_stampable(frames.shape[-2:], expected)
    pixels = frames.reshape(*frames.shape[:-2], -1)
    if expected.kind in "iu":
        n = STAMP_BYTES // expected.itemsize
        return _integer_stamp(pixels[..., :n]), _integer_stamp(pixels[..., -n:])
    wrap = _wrap(expected)
    return _float_stamp(pixels[..., 0], wrap), _float_stamp(pixels[..., -1], wrap)


def _integer_stamp(pixels: np.ndarray) -> np.ndarray:
    little = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<"))
    return little.view("<u8")[..., 0].astype(np.uint64)


def _float_stamp(pixels: np.ndarray, wrap: int) -> np.ndarray:
    real = pixels.real.astype(np.float64)
    valid = (real >= 0) & (real < wrap) & (real == np.floor(real)) & (pixels.imag == 0)
    if not np.all(valid):
        raise ValueError(
            f"no frame number at the ends of a frame: found {pixels[~valid].ravel()[:4]}, "
            f"expected whole numbers from 0 to {wrap - 1}"
        )
    return real.astype(np.uint64)


def expected_frame(pool: np.ndarray, cnt0: int) -> np.ndarray:
    """The frame number cnt0 of a simulated camera: pool[cnt0 % P] with its stamps, a new array.

    pool: [P, ny, nx], the pool that the camera used.
    """
    frame = np.array(pool[cnt0 % len(pool)])
    stamp(frame, cnt0)
    return frame
