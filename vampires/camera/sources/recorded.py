"""Recorded cubes, as a camera would have them: the files, their pace, settings and keywords.

Whatever a file holds, nothing but SourceError is raised for it, one line that names the file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vampires.camera.keywords import logical
from vampires.camera.settings import (
    DEFAULT_FPS,
    READOUT_MODES,
    CameraLimits,
    CameraSettings,
)
from vampires.camera.source import Keywords, KeywordValue, SourceError
from vampires.cube_pixels import CubePixels
from vampires.fits_cards import is_structural, keyword_dictionary
from vampires.fits_hdus import FitsInvalid
from vampires.header_cards import Cards, Value
from vampires.instrument.cameras import CAMERAS, Crop
from vampires.instrument.file import instrument_on
from vampires.keywords import encode_keyword

_SUFFIXES = (".fits", ".fits.fz")
_NS_PER_S = 1_000_000_000
MIN_HZ = 1e-4
_RATES = ("MFRATE", "FRATE")  # measured, then asked for
# Classes of the instrument's dictionary: keywords that a camera's stream carries.
_OF_STREAMS = ("SHM_CAMSTACK", "SHM_FEED_IN")
_NOT_FINITE = ("NaN", "Inf", "-Inf")  # how a header holds them, as strings


# -- files ------------------------------------------------------------------------------------


def cube_paths(path: Path) -> list[Path]:
    """The file, or those of a folder by their names; of a cube with its archive, the cube."""
    try:
        if not path.is_dir():
            return [path]
        found: dict[str, Path] = {}
        for entry in sorted(path.iterdir()):
            if entry.name.endswith(_SUFFIXES) and not entry.name.startswith("."):
                found.setdefault(entry.name.removesuffix(".fz"), entry)
    except OSError as error:
        raise _unusable(path, error) from None
    if not found:
        raise SourceError(f"cannot replay {path}: the folder holds no cubes (.fits, .fits.fz)")
    return [found[name] for name in sorted(found)]


def opened(path: Path) -> CubePixels:
    """A cube all of whose frames are in the file."""
    try:
        cube = CubePixels(path)
    except (FitsInvalid, OSError) as error:
        raise _unusable(path, error) from None
    if cube.whole_frames < cube.shape[0]:
        cube.close()
        raise SourceError(
            f"cannot replay {path}: {cube.fault} (whole are {cube.whole_frames} of "
            f"{cube.shape[0]} frames)"
        )
    return cube


def read_frame(cube: CubePixels, index: int) -> np.ndarray:
    """A frame [ny, nx] of a native type."""
    try:
        return cube.frame(index)
    except (FitsInvalid, OSError) as error:
        raise _unusable(cube.path, error) from None


def _unusable(path: Path, error: FitsInvalid | OSError) -> SourceError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return SourceError(f"cannot replay {path}: {reason}")


def unlike(path: Path, found: str, expected: str) -> SourceError:
    """The error for a file that does not go with the first one."""
    return SourceError(
        f"cannot replay {path}: it has {found}, the first file {expected}; "
        "replay them one after the other"
    )


# -- what a header says -----------------------------------------------------------------------


def stored_type(cards: Cards) -> str:
    """How pixels are stored, so that files of one type of pixels say the same."""
    prefix = "Z" if cards.get("ZIMAGE") is True else ""
    text = f"BITPIX {header_value(cards, f'{prefix}BITPIX')}"
    for name, default in (("BZERO", 0.0), ("BSCALE", 1.0)):
        number = _number(cards, name, default)
        text += f", {name} {number:.0f}" if number != default else ""
    return text + (", BLANK" if "BLANK" in cards else "")


def recorded_camera(
    cards: Cards, shape: tuple[int, int], fps: float | None, pace: Pace
) -> tuple[CameraLimits, CameraSettings]:
    """The camera that took the files, and how it was set.

    Whatever a camera may be told at its start, its limits allow: the names of all modes, any
    rate.
    """
    number, crop = header_value(cards, "U_CAMERA"), _crop(cards, shape)
    instrument = instrument_on()
    ny, nx = instrument.sensor_shape
    sensor_shape = (max(ny, crop.y1 + 1), max(nx, crop.x1 + 1))
    if type(number) is int and number in CAMERAS:
        windows = {name: mode.crops[number] for name, mode in instrument.modes.items()}
        modes = [name for name, window in windows.items() if window == crop]
    else:
        windows = dict.fromkeys(instrument.modes, crop)
        modes = [] if crop.x0 or crop.y0 else ["FULL"]
    limits = CameraLimits(sensor_shape, windows, {}, READOUT_MODES)
    rate, tint_s = fps or pace.rate_hz, _number(cards, "EXPTIME")
    readout = header_value(cards, "U_DETMOD")
    return limits, CameraSettings(
        mode=modes[0] if modes else "",
        crop=crop,
        tint_s=tint_s if tint_s > 0 else 1 / rate,
        fps=rate,
        readout=str(readout) if readout in READOUT_MODES else READOUT_MODES[0],
        external_trigger=header_value(cards, "EXTTRIG") is True,
    )


def _crop(cards: Cards, shape: tuple[int, int]) -> Crop:
    """The window of the frames; from pixel 0 on where the header does not say."""
    ny, nx = shape
    x0, y0 = header_value(cards, "PRD-MIN1"), header_value(cards, "PRD-MIN2")
    if type(x0) is int and type(y0) is int and x0 >= 0 and y0 >= 0:
        return Crop(x0, x0 + nx - 1, y0, y0 + ny - 1)
    return Crop(0, nx - 1, 0, ny - 1)


def recorded_keywords(cards: Cards) -> Keywords:
    """Those that a camera's stream carries and can hold, without the rates: they are no longer
    true."""
    found: Keywords = {}
    for name, entry in keyword_dictionary().items():
        if entry.source_class not in _OF_STREAMS or name in _RATES:
            continue
        if name not in cards or is_structural(name):
            continue
        value = _stream_value(cards, name, entry.printf)
        if value is not None:
            found[name] = (value, cards.comment(name))
    return found


def _stream_value(cards: Cards, name: str, printf: str) -> KeywordValue | None:
    """The value as a stream holds it; None for one that none can hold."""
    try:
        value = cards[name]
        if value in _NOT_FINITE and not printf.endswith("s"):
            value = float(str(value))
        encode_keyword(name, value)  # type: ignore[arg-type]
    except (FitsInvalid, ValueError, TypeError):
        return None
    return logical(value) if isinstance(value, bool) else value


def header_value(cards: Cards, name: str) -> Value:
    """A value of the header; None where there is none, or none that is FITS."""
    try:
        return cards.get(name)
    except FitsInvalid:
        return None


def _number(cards: Cards, name: str, default: float = 0.0) -> float:
    value = header_value(cards, name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return default
    return float(value)


# -- times ------------------------------------------------------------------------------------


class Pace:
    """When the frames of a cube were recorded: its table, else its sidecar; else unknown."""

    def __init__(self, cube: CubePixels) -> None:
        self._cube = cube
        self._frames = cube.shape[0]
        self._in_table = self._table_ns(0) > 0
        self._sidecar_us = None if self._in_table else _sidecar_times_us(cube)
        rates = [_number(cube.cards, name) for name in _RATES]
        self._header_hz = next((hz for hz in rates if hz >= MIN_HZ), 0.0)

    @property
    def interval_ns(self) -> int:
        """The usual interval, by that rate."""
        return max(1, round(_NS_PER_S / self.rate_hz))

    @property
    def rate_hz(self) -> float:
        """Frames/s: the header's; else those of the recorded times; else the usual."""
        span_ns = self.recorded_ns(self._frames - 1) - self.recorded_ns(0)
        if self._header_hz > 0:
            return self._header_hz
        if self._frames > 1 and span_ns > 0:
            return (self._frames - 1) * _NS_PER_S / span_ns
        return DEFAULT_FPS

    def recorded_ns(self, index: int) -> int:
        """Acquisition of a frame, ns since 1970 UTC; 0 where nothing tells it."""
        if self._in_table:
            return self._table_ns(index)
        return 0 if self._sidecar_us is None else max(0, int(self._sidecar_us[index]) * 1000)

    def _table_ns(self, index: int) -> int:
        try:
            row = self._cube.row(index)
        except OSError as error:
            raise _unusable(self._cube.path, error) from None
        return max(0, int(row["TACQ"][0])) if row is not None else 0


def _sidecar_times_us(cube: CubePixels) -> np.ndarray | None:
    """Column 5 of the sidecar, in us; None where it is missing or not of these frames."""
    stem = cube.path.name.removesuffix(".fz").removesuffix(".fits")
    try:
        with cube.path.with_name(f"{stem}.txt").open(encoding="ascii") as lines:
            times = np.fromiter(
                (_microseconds(line.split()[4]) for line in lines if line[:1] != "#"), np.int64
            )
    except (OSError, ValueError, IndexError, OverflowError):
        return None
    return times if len(times) == cube.shape[0] else None


def _microseconds(text: str) -> int:
    seconds, _, fraction = text.partition(".")
    return int(seconds) * 1_000_000 + int(fraction[:6].ljust(6, "0"))
