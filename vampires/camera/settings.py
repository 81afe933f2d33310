"""What is set of a camera, and what may be: values only, no camera is needed for them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from vampires.instrument.cameras import Crop
from vampires.instrument.facts import FULL, Instrument
from vampires.instrument.file import instrument_on

READOUT_MODES = ("FAST", "SLOW")
DEFAULT_FPS = 30.0
MAX_FPS = 1e5
MAX_TINT_S = 1800.0

_KINDS = {str: "text", bool: "true or false", int: "a whole number"}


class SettingRefused(Exception):
    """A value that the camera cannot take. One line: what was found, what is possible."""


@dataclass(frozen=True)
class CameraSettings:
    """All that is set of a camera.

    mode: name of a camera mode, "" for a window of one's own. crop: the window of the sensor.
    tint_s: exposure time of a frame. fps: frames/s; with the external trigger the highest rate
    it may have. readout: FAST or SLOW.
    """

    mode: str
    crop: Crop
    tint_s: float
    fps: float
    readout: str = "FAST"
    external_trigger: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """[ny, nx] of a frame."""
        return self.crop.shape

    def with_values(self, **values: Any) -> CameraSettings:
        """The same with other values."""
        return replace(self, **values)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CameraSettings:
        """From as_dict(). SettingRefused for anything else."""
        try:
            crop = Crop(
                **{name: _typed(values["crop"][name], int) for name in ("x0", "x1", "y0", "y1")}
            )
            return cls(
                mode=_typed(values["mode"], str),
                crop=crop,
                tint_s=_above_zero(values["tint_s"]),
                fps=_above_zero(values["fps"]),
                readout=_typed(values["readout"], str),
                external_trigger=_typed(values["external_trigger"], bool),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise SettingRefused(f"found no settings of a camera: {error}") from None


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"found {value!r}, expected {_KINDS[kind]}")
    return value


def _above_zero(value: Any) -> float:
    if isinstance(value, (bool, str)) or not 0 < float(value) < math.inf:
        raise ValueError(f"found {value!r}, expected a number above 0")
    return float(value)


@dataclass(frozen=True)
class CameraLimits:
    """What a kind of camera can do. sensor_shape: [ny, nx] of the whole sensor.

    modes: window of each named mode. mode_fps: the usual rate of a mode. readouts: those it
    has. row_s, min_tint_s: by readout mode; a camera without limits has none.
    """

    sensor_shape: tuple[int, int]
    modes: Mapping[str, Crop]
    mode_fps: Mapping[str, float]
    readouts: tuple[str, ...] = ("FAST",)
    row_s: Mapping[str, float] | None = None
    min_tint_s: Mapping[str, float] | None = None

    def max_fps(self, rows: int, readout: str = "FAST") -> float:
        """The highest rate of so many rows; it leaves room for the shortest exposure."""
        if self.row_s is None:
            return MAX_FPS
        shortest_s = self.min_tint_s[readout] if self.min_tint_s else 0.0
        return 1 / max(rows * self.row_s[readout], shortest_s)

    def first_settings(self, mode: str, fps: float | None = None) -> CameraSettings:
        """Those of a camera that was just started. SettingRefused for an unknown mode."""
        crop = self.mode_crop(mode)
        usual = min(self.mode_fps.get(mode.upper(), DEFAULT_FPS), self.max_fps(crop.shape[0]))
        start = CameraSettings(mode.upper(), crop, self._longest_tint(usual), usual)
        if fps is None:
            return start
        return self.with_fps(start, fps).with_values(tint_s=self._longest_tint(fps))

    def mode_crop(self, mode: str) -> Crop:
        """The window of a mode, its name in any case. SettingRefused lists those there are."""
        crop = self.modes.get(mode.upper())
        if crop is None:
            raise SettingRefused(
                f"no camera mode {mode!r}: expected one of {', '.join(self.modes)}"
            )
        return crop

    # -- changes ------------------------------------------------------------------------------

    def with_mode(self, now: CameraSettings, mode: str) -> CameraSettings:
        """Another mode: its window and its usual rate, readout and trigger as they are."""
        crop = self.mode_crop(mode)
        limit = self.max_fps(crop.shape[0], now.readout)
        fps = min(self.mode_fps.get(mode.upper(), now.fps), limit)
        return now.with_values(
            mode=mode.upper(), crop=crop, fps=fps, tint_s=self._longest_tint(fps)
        )

    def with_crop(self, now: CameraSettings, crop: Crop) -> CameraSettings:
        """A window of one's own; a rate it cannot have is lowered."""
        ny, nx = self.sensor_shape
        inside = 0 <= crop.x0 <= crop.x1 < nx and 0 <= crop.y0 <= crop.y1 < ny
        if not inside:
            raise SettingRefused(
                f"no window x {crop.x0} to {crop.x1}, y {crop.y0} to {crop.y1}: expected first "
                f"and last pixels within x 0 to {nx - 1}, y 0 to {ny - 1}"
            )
        if crop.shape[0] * crop.shape[1] < 16:
            raise SettingRefused(f"a window of {crop.shape} pixels: expected 16 pixels or more")
        named = [name for name, window in self.modes.items() if window == crop]
        return self._fitted(now.with_values(mode=named[0] if named else "", crop=crop))

    def with_tint(self, now: CameraSettings, tint_s: float) -> CameraSettings:
        """Another exposure time; a rate that leaves no room for it is lowered."""
        least = self.min_tint_s[now.readout] if self.min_tint_s else 1e-6
        if not (math.isfinite(tint_s) and least <= tint_s <= MAX_TINT_S):
            raise SettingRefused(
                f"no exposure time of {tint_s:g} s: expected {least:g} to {MAX_TINT_S:g} s in "
                f"readout mode {now.readout}"
            )
        return now.with_values(tint_s=tint_s, fps=min(now.fps, 1 / tint_s))

    def with_fps(self, now: CameraSettings, fps: float) -> CameraSettings:
        """Another rate; an exposure time that is too long for it is shortened."""
        limit = self.max_fps(now.shape[0], now.readout)
        if not (math.isfinite(fps) and 0 < fps <= limit * (1 + 1e-9)):
            raise SettingRefused(
                f"no rate of {fps:g} frames/s: expected more than 0 and up to {limit:.6g}, for "
                f"{now.shape[0]} rows in readout mode {now.readout}"
            )
        fps = min(fps, limit)
        return now.with_values(fps=fps, tint_s=min(now.tint_s, self._longest_tint(fps)))

    def with_readout(self, now: CameraSettings, readout: str) -> CameraSettings:
        """Another readout mode; a rate it cannot have is lowered."""
        if readout.upper() not in self.readouts:
            raise SettingRefused(
                f"no readout mode {readout!r}: expected {' or '.join(self.readouts)}"
            )
        return self._fitted(now.with_values(readout=readout.upper()))

    def with_trigger(self, now: CameraSettings, external: bool) -> CameraSettings:
        """With the external trigger, or free-running."""
        return now.with_values(external_trigger=external)

    def _fitted(self, wanted: CameraSettings) -> CameraSettings:
        fps = min(wanted.fps, self.max_fps(wanted.shape[0], wanted.readout))
        least = self.min_tint_s[wanted.readout] if self.min_tint_s else 0.0
        tint_s = max(least, min(wanted.tint_s, self._longest_tint(fps)))
        return wanted.with_values(fps=fps, tint_s=tint_s)

    @staticmethod
    def _longest_tint(fps: float) -> float:
        return min(1 / fps, MAX_TINT_S)


def science_camera(number: int, instrument: Instrument | None = None) -> CameraLimits:
    """vcam1 or vcam2: the ORCA-Quest. instrument: the facts that hold, by default today's."""
    instrument = instrument or instrument_on()
    modes, readouts = instrument.modes, instrument.readouts
    return CameraLimits(
        sensor_shape=instrument.sensor_shape,
        modes={name: mode.crops[number] for name, mode in modes.items()},
        mode_fps={n: m.rate_hz for n, m in modes.items() if m.rate_hz is not None},
        readouts=READOUT_MODES,
        row_s={name: readout.row_s for name, readout in readouts.items()},
        min_tint_s={name: readout.min_exposure_s for name, readout in readouts.items()},
    )


def plain_camera(sensor_shape: tuple[int, int]) -> CameraLimits:
    """A camera of which nothing is known but its sensor, [ny, nx]: one mode, FULL."""
    ny, nx = sensor_shape
    return CameraLimits(sensor_shape, {FULL: Crop(0, nx - 1, 0, ny - 1)}, {})
