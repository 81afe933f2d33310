"""A frame to be looked at: its limits of grey, as a PNG, as the characters of a terminal.

Frames are arrays [y, x] of real numbers. In a picture y grows upwards, as in DS9.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vampires.array_kernels import scale_for_display

if TYPE_CHECKING:
    from PIL.Image import Image

Limits = tuple[float, float]

_HALF_BLOCK = "\u2580"  # upper half of a cell, in the foreground colour
_RAMP = " .:-=+*#%@"
_GREYS_256 = np.array([16, *range(232, 256), 231])  # of the palette of 256, black to white
_RESET = "\x1b[0m"


class Colours(Enum):
    """What a terminal shows: 24-bit colours, the palette of 256, or characters alone."""

    TRUE = "true"
    PALETTE = "palette"
    NONE = "none"


def zscale_limits(frame: npt.NDArray[Any]) -> Limits:
    """The limits of IRAF's zscale, as astropy has it; (0, 1) where no pixel is finite."""
    from astropy.visualization import ZScaleInterval

    if not np.isfinite(frame).any():
        return 0.0, 1.0
    with np.errstate(all="ignore"):
        low, high = map(float, ZScaleInterval().get_limits(frame))
    if not (np.isfinite([low, high]).all() and low <= high):
        finite = frame[np.isfinite(frame)]
        return float(finite.min()), float(finite.max())
    return low, high


def _picture(frame: npt.NDArray[Any], limits: Limits) -> Image:
    """8-bit greys, the last row of the frame on top."""
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(scale_for_display(frame, *limits)[::-1]))


def png_bytes(frame: npt.NDArray[Any], limits: Limits, texts: Mapping[str, str]) -> bytes:
    """A PNG of 8-bit grey, one pixel a pixel. texts: kept in the file by their keys."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    content = io.BytesIO()
    _picture(frame, limits).save(content, "PNG", pnginfo=info)
    return content.getvalue()


def terminal_colours(environment: Mapping[str, str] | None = None) -> Colours:
    """What this terminal shows, by its environment."""
    found = os.environ if environment is None else environment
    if found.get("NO_COLOR") or found.get("TERM", "dumb") in ("dumb", "vt100", "vt220"):
        return Colours.NONE
    return Colours.TRUE if found.get("COLORTERM") in ("truecolor", "24bit") else Colours.PALETTE


def terminal_picture(
    frame: npt.NDArray[Any], limits: Limits, columns: int, rows: int, colours: Colours
) -> list[str]:
    """Lines of a terminal that show the frame in its proportions, as large as they fit.

    With colours two pixels stand in a cell, one above the other; without, one of ten characters
    stands for the mean of both.
    """
    if columns < 1 or rows < 1:
        return []
    levels = _fitted(_picture(frame, limits), columns, 2 * rows)
    if len(levels) % 2:
        levels = np.vstack([levels, np.zeros_like(levels[:1])])
    upper, lower = levels[0::2], levels[1::2]
    if colours is Colours.NONE:
        mean = (upper.astype(int) + lower) // 2 * len(_RAMP) // 256
        return ["".join(_RAMP[level] for level in line).rstrip() for line in mean.tolist()]
    if colours is Colours.PALETTE:
        upper, lower = (_GREYS_256[half.astype(int) * 26 // 256] for half in (upper, lower))
    pairs = zip(upper.tolist(), lower.tolist(), strict=True)
    return [_cells(above, below, colours) for above, below in pairs]


def _fitted(picture: Image, columns: int, rows: int) -> npt.NDArray[np.uint8]:
    """The picture with at most so many pixels: means of areas, or each pixel several times."""
    from PIL.Image import Resampling

    scale = min(columns / picture.width, rows / picture.height)
    if scale >= 1:
        scale = int(scale)
    size = (
        min(columns, max(1, round(picture.width * scale))),
        min(rows, max(1, round(picture.height * scale))),
    )
    return np.asarray(
        picture.resize(size, Resampling.NEAREST if scale >= 1 else Resampling.BOX)
    )


def _cells(above: list[int], below: list[int], colours: Colours) -> str:
    """One line of half blocks; a colour is set only where it changes."""
    parts, before = [], (-1, -1)
    for upper, lower in zip(above, below, strict=True):
        if (upper, lower) != before:
            parts.append(f"\x1b[{_colour(38, upper, colours)};{_colour(48, lower, colours)}m")
            before = (upper, lower)
        parts.append(_HALF_BLOCK)
    return "".join(parts) + _RESET


def _colour(ground: int, level: int, colours: Colours) -> str:
    if colours is Colours.TRUE:
        return f"{ground};2;{level};{level};{level}"
    return f"{ground};5;{level}"
