"""What holds of the instrument on a day, as objects. Immutable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from vampires.instrument.cameras import Crop, check_camera

FULL = "FULL"


@dataclass(frozen=True)
class Mode:
    """A camera mode: the crop of each camera, and what it means for the header.

    rate_hz is the usual (MBI) or the highest documented rate; None where none is documented.
    fields: of a multiband mode, the names in the order of the sets of coordinates, "NA" for
    one that is cropped away; () for any other mode. obs_mod: its part of OBS-MOD.
    """

    name: str
    crops: Mapping[int, Crop]
    rate_hz: float | None = None
    fields: tuple[str, ...] = ()
    obs_mod: str = ""


@dataclass(frozen=True)
class Detector:
    """Constants of one camera in one readout mode."""

    gain_e_per_adu: float
    read_noise_e: float
    dark_e_per_s: float
    """Electrons a pixel and second."""


@dataclass(frozen=True)
class Readout:
    """A readout mode. row_s: time that a row adds to the shortest frame interval."""

    frame_jitter_us: float
    min_exposure_s: float
    row_s: float
    detectors: Mapping[int, Detector]
    line_time_us: float | None = None


@dataclass(frozen=True)
class Geometry:
    """Where a camera looks. scale_mas: mas a pixel in x and y, signed as CDELT1 and CDELT2.
    pa_deg: INST-PA. hotspots: x, y of each multiband field on the sensor, counted from 0."""

    scale_mas: tuple[float, float]
    pa_deg: float
    hotspots: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Polarimetry:
    """What makes an observation polarimetry: the beamsplitter (U_BS), and a stage of stages_mm
    (keyword: positions) within tolerance_mm of a position, or a polariser that is in."""

    beamsplitter: str
    tolerance_mm: float
    stages_mm: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Instrument:
    """The facts of one state of the instrument, which began on a day (UTC).

    sensor_shape: rows and columns. field_arcsec: side of a multiband field. bands_nm: centre
    of each. half_width_us: of the liquid crystal's switching, half of what it adds to every
    other frame interval. tables: all of it, as a file has it.
    """

    name: str
    since: date
    sensor_shape: tuple[int, int]
    pixel_mm: float
    bias_adu: float
    focal_ratio: float
    field_arcsec: float
    half_width_us: float
    bands_nm: Mapping[str, float]
    readouts: Mapping[str, Readout]
    geometry: Mapping[int, Geometry]
    modes: Mapping[str, Mode]
    polarimetry: Polarimetry
    tables: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def mode(self, name: str) -> Mode:
        """The mode of that name, in any case. ValueError lists the modes there are."""
        found = self.modes.get(name.upper())
        if found is None:
            raise ValueError(
                f"no camera mode {name!r}: expected one of {', '.join(self.modes)}"
            )
        return found

    def crop(self, mode: str, camera: int = 1) -> Crop:
        """The crop of a mode (in any case) on camera 1 or 2. ValueError for any other."""
        return self.mode(mode).crops[check_camera(camera)]

    def readout(self, name: str) -> Readout:
        """The readout mode FAST or SLOW, in any case. ValueError for any other."""
        found = self.readouts.get(name.upper())
        if found is None:
            expected = " or ".join(self.readouts)
            raise ValueError(f"no readout mode {name!r}: expected {expected}")
        return found

    def detector(self, camera: int = 1, readout: str = "FAST") -> Detector:
        """The detector of camera 1 or 2 in a readout mode. ValueError for any other."""
        return self.readout(readout).detectors[check_camera(camera)]
