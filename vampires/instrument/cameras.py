"""The science cameras vcam1 and vcam2 (Hamamatsu ORCA-Quest C15550-20UP): names and windows."""

from __future__ import annotations

import re
from dataclasses import dataclass

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
