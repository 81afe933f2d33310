"""Where the star is in each multiband field of a frame, measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vampires.instrument.cameras import Crop
from vampires.instrument.facts import Instrument

Image = npt.NDArray[np.float64]

SEARCH_PIXELS = 200  # from where the field was last, on each side
MIN_SIGNAL = 20.0  # of the star's peak, against the noise of the background
_CORE_PIXELS = 3.0  # sigma of the weights around the star
_WINDOW_PIXELS = 10
_ROUNDS = 30
_SETTLED_PIXELS = 1e-3


class HotspotsNotFound(Exception):
    """The stars cannot be measured in this frame. One line: which, found, what to do."""


@dataclass(frozen=True)
class Hotspot:
    """A field's star: x, y on the sensor, counted from 0; how far it is from where it was, in
    pixels; its peak against the noise of the background."""

    field: str
    x: float
    y: float
    moved: float
    signal: float


def measured_hotspots(
    image: npt.ArrayLike, crop: Crop, camera: int, instrument: Instrument
) -> list[Hotspot]:
    """The stars of all multiband fields within a frame of one camera.

    Parameters
    ----------
    image : [ny, nx] of the crop, adu; best the mean of many frames.
    crop : of the sensor.
    camera : 1 or 2.
    instrument : the facts so far: fields are looked for near their hotspots.

    Raises
    ------
    HotspotsNotFound
        No field of the instrument lies in the frame, or one has no star.
    """
    pixels = np.asarray(image, np.float64)
    ny, nx = pixels.shape
    found = []
    for field, (x, y) in instrument.geometry[camera].hotspots.items():
        if 0 <= x - crop.x0 < nx and 0 <= y - crop.y0 < ny:
            column, row, signal = _star(pixels, x - crop.x0, y - crop.y0, field)
            place = (column + crop.x0, row + crop.y0)
            found.append(Hotspot(field, *place, math.dist(place, (x, y)), signal))
    if not found:
        raise HotspotsNotFound(
            f"found no multiband field within x {crop.x0} to {crop.x1}, y {crop.y0} to "
            f"{crop.y1}, expected a frame of a multiband mode: set_crop MBI"
        )
    return found


def _star(pixels: Image, x: float, y: float, field: str) -> tuple[float, float, float]:
    """Column, row and signal of the brightest star near x, y."""
    left, low = max(round(x) - SEARCH_PIXELS, 0), max(round(y) - SEARCH_PIXELS, 0)
    near = pixels[low : round(y) + SEARCH_PIXELS + 1, left : round(x) + SEARCH_PIXELS + 1]
    background = float(np.median(near))
    smooth = _smoothed(near - background)
    noise = 1.4826 * float(np.median(np.abs(smooth - np.median(smooth)))) or 1.0
    row, column = np.unravel_index(np.argmax(smooth), smooth.shape)
    signal = float(smooth[row, column]) / noise
    if not signal >= MIN_SIGNAL:
        raise HotspotsNotFound(
            f"found no star in {field} (peak {signal:.1f} times the noise), expected "
            f"{MIN_SIGNAL:g} times or more: check light, focus and filters"
        )
    place = _centroid(pixels - background, left + int(column), low + int(row))
    if place is None:
        raise HotspotsNotFound(
            f"found a star at the edge of the frame in {field}, expected one with "
            f"{_WINDOW_PIXELS} pixels around it: set_crop MBI"
        )
    return *place, signal


def _smoothed(pixels: Image) -> Image:
    """Means over 3 x 3 pixels, so that no single hot pixel is a star; the rim is 0."""
    smooth = np.zeros_like(pixels)
    ny, nx = pixels.shape
    for dy in (0, 1, 2):
        for dx in (0, 1, 2):
            smooth[1:-1, 1:-1] += pixels[dy : ny - 2 + dy, dx : nx - 2 + dx] / 9
    return smooth


def _centroid(light: Image, column: int, row: int) -> tuple[float, float] | None:
    """The centre of light with Gaussian weights around it; None: it leaves the frame."""
    ny, nx = light.shape
    x, y = float(column), float(row)
    for _ in range(_ROUNDS):
        left, low = round(x) - _WINDOW_PIXELS, round(y) - _WINDOW_PIXELS
        size = 2 * _WINDOW_PIXELS + 1
        if left < 0 or low < 0 or left + size > nx or low + size > ny:
            return None
        window = light[low : low + size, left : left + size]
        columns = left + np.arange(size)[None, :]
        rows = low + np.arange(size)[:, None]
        distance = (columns - x) ** 2 + (rows - y) ** 2
        weights = np.clip(window, 0, None) * np.exp(-distance / (2 * _CORE_PIXELS**2))
        total = float(weights.sum())
        if total <= 0:
            return None
        # The weights pull towards their own centre; twice the step makes up for that.
        step_x = 2 * (float((weights * columns).sum()) / total - x)
        step_y = 2 * (float((weights * rows).sum()) / total - y)
        x, y = x + step_x, y + step_y
        if math.hypot(step_x, step_y) < _SETTLED_PIXELS:
            break
    return x, y
