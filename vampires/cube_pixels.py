"""The frames of a FITS file, one at a time: memory for one frame, however long the cube.

Frames are read at their offsets, not mapped, so a file that is cut off meanwhile is an error
and not the end of the process. Of a tile-compressed file only the tiles of one frame are
unpacked at a time.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vampires.closing import Closing
from vampires.fits_hdus import FitsInvalid, Hdu, read_hdus
from vampires.frame_table import FRAME_DTYPE, Rows
from vampires.header_cards import Cards

Frame = npt.NDArray[Any]
Summary = Literal["mean", "std", "max"]

_STORED = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
# BITPIX -> (BZERO, type) of integers that FITS stores with an offset; FITS 4.0, section 5.2.5
_OFFSET = {8: (-128, "i1"), 16: (2**15, "u2"), 32: (2**31, "u4"), 64: (2**63, "u8")}
_BAND_PIXELS = 1 << 16  # summed up at a time: they stay in the cache


class CubePixels(Closing):
    """The first image of a FITS file, plain or tile-compressed, as frames [y, x].

    ``shape`` is (frames, ny, nx); axes beyond the third count as frames. ``cards`` are those of
    the image's header. ``fault`` says what is wrong with the file behind its header, "" for
    nothing; ``whole_frames`` is how many frames can be read. A context manager.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens a file. Raises FitsInvalid (one line, without the path) and OSError."""
        self.path = Path(path)
        with ExitStack() as stack:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            stack.callback(os.close, self._fd)
            self._hdus, self.fault = read_hdus(self._fd)
            if not self._hdus:
                raise FitsInvalid(self.fault)
            self._hdu, self._packed = self._image()
            self.cards: Cards = self._hdu.cards
            prefix = "Z" if self._packed else ""
            axes = [
                _integer(self.cards, f"{prefix}NAXIS{axis}")
                for axis in range(_integer(self.cards, f"{prefix}NAXIS"), 0, -1)
            ]
            self.shape = (math.prod(axes[:-2]), axes[-2], axes[-1])
            self._bitpix = _integer(self.cards, f"{prefix}BITPIX")
            self._scaling = _Scaling(self.cards, self._bitpix)
            self._astropy: Any = None
            self.whole_frames = self._whole_frames()
            self._stack = stack.pop_all()

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame as it stands in a file that is not compressed."""
        return abs(self._bitpix) // 8 * self.shape[1] * self.shape[2]

    @property
    def compressed(self) -> bool:
        """Whether the image is tile-compressed."""
        return self._packed

    def frame(self, index: int) -> Frame:
        """Frame [ny, nx] of a native type, from 0; float64 with nan where BLANK or scaled.

        Raises FitsInvalid when it is not whole in the file, or cannot be unpacked; OSError.
        """
        if index not in range(self.whole_frames):
            raise FitsInvalid(self.fault or f"there is no frame {index}")
        if self._packed:
            return self._unpacked(index)
        offset = self._hdu.data_offset + index * self.frame_bytes
        raw = _read_at(self._fd, self.frame_bytes, offset)
        return self._scaling.applied(raw.view(_STORED[self._bitpix])).reshape(self.shape[1:])

    def row(self, index: int) -> Rows | None:
        """What the table FRAMES says of a frame, one element of FRAME_DTYPE; None: nothing."""
        table = next((hdu for hdu in self._hdus if _is_frame_table(hdu)), None)
        if table is None or index not in range(table.shape[0]):
            return None
        offset = table.data_offset + index * FRAME_DTYPE.itemsize
        try:
            return _read_at(self._fd, FRAME_DTYPE.itemsize, offset).view(FRAME_DTYPE)
        except FitsInvalid:
            return None

    def close(self) -> None:
        self._stack.close()

    def _image(self) -> tuple[Hdu, bool]:
        """The HDU of the first image of two axes or more, and whether it is compressed."""
        for hdu in self._hdus:
            packed = hdu.cards.get("ZIMAGE") is True
            if not packed and hdu.cards.get("XTENSION", "IMAGE") != "IMAGE":
                continue
            prefix = "Z" if packed else ""
            axes = _integer(hdu.cards, f"{prefix}NAXIS")
            lengths = [_integer(hdu.cards, f"{prefix}NAXIS{n}") for n in range(1, axes + 1)]
            if axes >= 2 and math.prod(lengths) > 0:
                return hdu, packed
        what = ", ".join(f"HDU {hdu.number} {hdu.shape}" for hdu in self._hdus[:4])
        raise FitsInvalid(self.fault or f"it holds no image of two or three axes, but {what}")

    def _whole_frames(self) -> int:
        size = os.fstat(self._fd).st_size
        if self._hdu.data_offset + self._hdu.data_bytes <= size:
            return self.shape[0]
        if self._packed:  # the tiles stand behind a table of them, in any order
            return 0
        return max(0, size - self._hdu.data_offset) // self.frame_bytes

    def _unpacked(self, index: int) -> Frame:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pixels = np.asarray(self._section()[self._place(index)])
        except MemoryError:
            raise
        except Exception as error:  # whatever broken tiles make of astropy
            raise FitsInvalid(f"frame {index} cannot be unpacked: {error}") from None
        if pixels.shape != self.shape[1:]:
            raise FitsInvalid(f"frame {index} unpacks to {pixels.shape}")
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)

    def _section(self) -> Any:
        if self._astropy is None:
            from astropy.io import fits

            # Not mapped: a file cut off under a mapping ends the process.
            opened = fits.open(f"/proc/self/fd/{self._fd}", memmap=False)
            self._stack.callback(opened.close)
            self._astropy = opened[self._hdu.number].section
        return self._astropy

    def _place(self, index: int) -> Any:
        axes = _integer(self.cards, "ZNAXIS")
        leading = [_integer(self.cards, f"ZNAXIS{axis}") for axis in range(axes, 2, -1)]
        return np.unravel_index(index, leading) if leading else ...


class _Scaling:
    """From the numbers that are stored to those that are meant: BSCALE, BZERO, BLANK."""

    def __init__(self, cards: Cards, bitpix: int) -> None:
        self._scale = _number(cards, "BSCALE", 1)
        self._zero = _number(cards, "BZERO", 0)
        self._blank = _integer(cards, "BLANK") if bitpix > 0 and "BLANK" in cards else None
        zero, self._unsigned = _OFFSET.get(bitpix, (0, ""))
        self._offset = self._blank is None and self._scale == 1 and self._zero == zero != 0

    def applied(self, stored: Frame) -> Frame:
        native = stored.astype(stored.dtype.newbyteorder("="))
        if self._offset:
            bits = native.view(f"u{native.dtype.itemsize}")
            bits ^= bits.dtype.type(1 << (8 * native.dtype.itemsize - 1))
            return bits.view(self._unsigned)
        if self._blank is None and self._scale == 1 and self._zero == 0:
            return native
        values = native * float(self._scale) + float(self._zero)
        if self._blank is not None:
            values[native == self._blank] = np.nan
        return values


def summary(
    pixels: CubePixels, what: Summary, progress: Callable[[int, int], None] | None = None
) -> Frame:
    """Mean, standard deviation (of the population) or maximum of each pixel over all frames.

    Memory for a few frames. Not finite pixels are left out; nan where there are no others. The
    maximum keeps the type of the pixels; the others are float32, or float64 for wide pixels.
    progress: called with the frames done and their number. Raises as ``frame``.
    """
    frames = pixels.shape[0]
    total: _Moments | _Maximum | None = None
    for index in range(frames):
        frame = pixels.frame(index)
        if total is None:
            total = _Maximum(frame) if what == "max" else _Moments(frame, what == "std")
        total.add(frame)
        if progress is not None:
            progress(index + 1, frames)
    assert total is not None
    return total.result().reshape(pixels.shape[1:])


class _Maximum:
    def __init__(self, like: Frame) -> None:
        self._floating = like.dtype.kind == "f"
        self._greatest: Frame | None = None

    def add(self, frame: Frame) -> None:
        if self._floating:
            frame = np.where(np.isfinite(frame), frame, frame.dtype.type(np.nan))
        if self._greatest is None:
            self._greatest = frame.copy()
        else:
            np.fmax(self._greatest, frame, out=self._greatest)

    def result(self) -> Frame:
        assert self._greatest is not None
        return self._greatest


class _Moments:
    """Running mean of each pixel and, for the deviation, its sum of squares, after Welford."""

    def __init__(self, like: Frame, deviation: bool) -> None:
        self._floating = like.dtype.kind == "f"
        narrow = like.dtype.itemsize <= 2 or like.dtype == np.float32
        self._dtype = np.float32 if narrow else np.float64
        self._mean = np.zeros(like.size)
        self._squares = np.zeros(like.size) if deviation else None
        self._counts = np.zeros(like.size if self._floating else 1, np.int64)

    def add(self, frame: Frame) -> None:
        flat = frame.reshape(-1)
        if not self._floating:
            self._counts += 1
        with np.errstate(all="ignore"):
            for begin in range(0, flat.size, _BAND_PIXELS):
                self._add_band(slice(begin, begin + _BAND_PIXELS), flat)

    def _add_band(self, band: slice, flat: Frame) -> None:
        values, mean = flat[band].astype(np.float64), self._mean[band]
        if not self._floating:
            before = values - mean
            mean += before / self._counts
            if self._squares is not None:
                self._squares[band] += before * (values - mean)
            return
        good = np.isfinite(values)
        counts = self._counts[band]
        counts += good
        before = np.where(good, values - mean, 0.0)
        mean += before / np.maximum(counts, 1)
        if self._squares is not None:
            self._squares[band] += before * np.where(good, values - mean, 0.0)

    def result(self) -> Frame:
        with np.errstate(all="ignore"):
            if self._squares is None:
                found = np.where(self._counts > 0, self._mean, np.nan)
            else:
                found = np.sqrt(self._squares / self._counts)
            return found.astype(self._dtype)


def _read_at(fd: int, count: int, offset: int) -> npt.NDArray[np.uint8]:
    """count bytes at an offset, writable. FitsInvalid when the file ends before."""
    raw = bytearray(count)
    view, done = memoryview(raw), 0
    while done < count:
        got = os.preadv(fd, [view[done:]], offset + done)
        if not got:
            raise FitsInvalid(f"truncated meanwhile: it ends before byte {offset + count}")
        done += got
    return np.frombuffer(raw, np.uint8)


def _is_frame_table(hdu: Hdu) -> bool:
    cards = hdu.cards
    return (
        cards.get("XTENSION") == "BINTABLE"
        and cards.get("EXTNAME") == "FRAMES"
        and (cards.get("NAXIS1"), cards.get("TFIELDS")) == (FRAME_DTYPE.itemsize, 8)
    )


def _integer(cards: Cards, keyword: str) -> int:
    value = cards.get(keyword)
    if isinstance(value, bool) or not isinstance(value, int):
        raise FitsInvalid(f"{keyword} is {value!r}; expected a whole number")
    return value


def _number(cards: Cards, keyword: str, default: int) -> int | float:
    value = cards.get(keyword, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FitsInvalid(f"{keyword} is {value!r}; expected a number")
    return value
