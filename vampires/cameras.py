"""The science cameras vcam1 and vcam2 (Hamamatsu ORCA-Quest C15550-20UP): modes and detectors.

Crops are those the instrument was set up with. They drift by a few pixels between nights, so
they serve as defaults (the simulated camera, the demo); nothing that reads a stream may depend
on an exact size. Detector numbers are the measured ones of the two cameras.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SENSOR_SHAPE = (2304, 4096)
"""Rows and columns of the whole sensor, [y, x]."""

PIXEL_MM = 0.0046
"""Side of a pixel, in mm."""

BIAS_ADU = 200.0
"""Level of a frame without light, about, in adu."""

WAVELENGTHS_NM = {"610": 610.0, "670": 670.0, "720": 720.0, "760": 760.0}
"""Centres of the multiband imaging (MBI) fields, in nm."""

MBI_FIELD_ARCSEC = 3.0
"""Side of one MBI field, in arcseconds."""

CAMERAS = (1, 2)


@dataclass(frozen=True)
class Crop:
    """A window of the sensor: inclusive pixel ranges x0..x1 and y0..y1."""

    x0: int
    x1: int
    y0: int
    y1: int

    @property
    def shape(self) -> tuple[int, int]:
        """Shape [ny, nx] of a frame read with this crop."""
        return (self.y1 - self.y0 + 1, self.x1 - self.x0 + 1)

    @property
    def is_full(self) -> bool:
        """Whether the crop is the whole sensor."""
        return self.shape == SENSOR_SHAPE


@dataclass(frozen=True)
class Mode:
    """A camera mode: the crop of each camera, its rate and its ending of OBS-MOD.

    rate_hz is the usual (MBI) or the highest documented rate; None where none is documented.
    """

    name: str
    crops: dict[int, Crop]
    rate_hz: float | None = None
    obs_mod_suffix: str = ""


@dataclass(frozen=True)
class Detector:
    """Constants of one camera in one readout mode."""

    gain_e_per_adu: float
    read_noise_e: float
    dark_e_per_s: float
    """Electrons a pixel and second."""
    frame_jitter_us: float
    """Jitter of the frame time."""
    line_time_us: float | None
    """Readout time of a row (the shutter rolls over four rows at a time); None if unknown."""


def _both(x0: int, x1: int, y0: int, y1: int) -> dict[int, Crop]:
    return {camera: Crop(x0, x1, y0, y1) for camera in CAMERAS}


MODES = {
    mode.name: mode
    for mode in (
        Mode("FULL", _both(0, 4095, 0, 2303)),
        Mode("STANDARD", _both(1780, 2315, 884, 1419), rate_hz=506.0),
        Mode("TWOARC", _both(1868, 2227, 972, 1331)),
        Mode("ONEARC", _both(1956, 2139, 1060, 1243)),
        Mode("HALFARC", _both(1914, 2181, 1018, 1285)),
        Mode(
            "MBI",
            {1: Crop(920, 3155, 596, 1691), 2: Crop(916, 3155, 692, 1787)},
            rate_hz=57.0,
            obs_mod_suffix="_MBI",
        ),
        Mode(
            "MBI_REDUCED",
            {1: Crop(924, 3155, 1152, 1691), 2: Crop(928, 3155, 692, 1243)},
            rate_hz=500.0,
            obs_mod_suffix="_MBIR",
        ),
        Mode(
            "PUPIL",
            {1: Crop(1604, 2491, 704, 1595), 2: Crop(1648, 2407, 772, 1531)},
            obs_mod_suffix="_PUP",
        ),
        Mode("NPBS", {1: Crop(1780, 2315, 884, 1419), 2: Crop(1700, 2235, 816, 1351)}),
    )
}
"""The modes by name."""

PLATE_SCALE_MAS = {1: 5.908, 2: 5.895}
"""Plate scale of each camera, in mas a pixel."""

INSTRUMENT_ANGLE_DEG = {1: -38.90, 2: -38.58}
"""Offset angle of the instrument on each camera, in degrees (INST-PA)."""

_FAST_LINE_TIME_US = 0.868

DETECTORS = {
    ("FAST", 1): Detector(0.103, 0.403, 3.6e-3, 7.2, _FAST_LINE_TIME_US),
    ("FAST", 2): Detector(0.103, 0.399, 3.5e-3, 7.2, _FAST_LINE_TIME_US),
    ("SLOW", 1): Detector(0.105, 0.245, 3.6e-3, 172.8, None),
    ("SLOW", 2): Detector(0.105, 0.220, 3.5e-3, 172.8, None),
}
"""Detector constants by (readout mode, camera)."""


def find_mode(name: str) -> Mode:
    """The mode of that name, in any case. ValueError lists the modes there are."""
    mode = MODES.get(name.upper())
    if mode is None:
        raise ValueError(f"no camera mode {name!r}: expected one of {', '.join(MODES)}")
    return mode


def crop(mode: str, camera: int = 1) -> Crop:
    """The crop of a mode (name in any case) on camera 1 or 2. ValueError for any other."""
    return find_mode(mode).crops[check_camera(camera)]


def detector(camera: int = 1, readout: str = "FAST") -> Detector:
    """The detector constants of camera 1 or 2 in readout mode FAST or SLOW (any case)."""
    found = DETECTORS.get((readout.upper(), check_camera(camera)))
    if found is None:
        raise ValueError(f"no readout mode {readout!r}: expected FAST or SLOW")
    return found


def detector_name(camera: int) -> str:
    """The name of the detector of camera 1 or 2, as the readers of the cubes know it."""
    return f"VCAM{check_camera(camera)} - OrcaQ"


def check_camera(camera: int) -> int:
    """Returns the camera number; ValueError where it is neither 1 nor 2."""
    if camera not in CAMERAS:
        raise ValueError(f"no camera {camera!r}: expected 1 (vcam1) or 2 (vcam2)")
    return camera


def camera_number(stream: str) -> int:
    """Camera number of a stream name: vcam1 -> 1, vcam2 -> 2 (also vcam2sim), others -> 1."""
    found = re.match(r"vcam([12])(?!\d)", stream, re.IGNORECASE)
    return int(found.group(1)) if found else 1
