"""Where a frame lies on the sky: the four sets of coordinates of a science camera.

In the multiband modes the sets (suffix none, B, C, D) are the fields of the mode in its order;
one that the crop leaves out keeps its numbers under the name NA. In all other modes the first
set is the middle of the frame, and the others repeat it as NA. CRVAL is not here: where the
telescope points comes with the auxiliary header.

With a = INST-PA + D_IMRPAD and the signed scales dx, dy:

    CD1_1 = dx cos a    CD1_2 = -dy sin a
    CD2_1 = dx sin a    CD2_2 =  dy cos a

Hotspots are counted as NumPy does, from 0 at the centre of the first pixel; FITS counts from 1
there (standard, section 8.1), so CRPIX is a hotspot of the frame + 1. (The instrument's earlier
files add 0.5 in the multiband modes and 0 elsewhere, half a pixel less.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from vampires.instrument.cameras import Crop
from vampires.instrument.facts import Geometry, Instrument

SUFFIXES = ("", "B", "C", "D")
PRIMARY = "PRIMARY"
NOT_AVAILABLE = "NA"

_MAS_PER_DEG = 3600e3


@dataclass(frozen=True)
class Field:
    """A field on a frame: its name, and its centre in pixels of the frame, counted from 0.

    in_frame: whether the mode reads it. band: the field of the instrument that it is, or "".
    """

    name: str
    x: float
    y: float
    in_frame: bool = True
    band: str = ""


def fields_of(instrument: Instrument, mode: str, crop: Crop, camera: int) -> list[Field]:
    """The four fields of the sets of coordinates. mode: its name, "" for none."""
    named = instrument.modes.get(mode.upper())
    if named is None or not named.fields:
        ny, nx = crop.shape
        names = (PRIMARY, NOT_AVAILABLE, NOT_AVAILABLE, NOT_AVAILABLE)
        return [
            Field(name, (nx - 1) / 2, (ny - 1) / 2, in_frame=name == PRIMARY) for name in names
        ]
    hotspots = instrument.geometry[camera].hotspots
    left_out = [band for band in hotspots if band not in named.fields]
    found = []
    for name in named.fields:
        in_frame = name != NOT_AVAILABLE
        band = name if in_frame else left_out.pop(0)
        x, y = hotspots[band]
        found.append(Field(name, x - crop.x0, y - crop.y0, in_frame, band))
    return found


def linear_matrix(geometry: Geometry, image_rotation_deg: float = 0.0) -> list[list[float]]:
    """[[CD1_1, CD1_2], [CD2_1, CD2_2]] in deg a pixel. image_rotation_deg: D_IMRPAD."""
    dx, dy = (scale / _MAS_PER_DEG for scale in geometry.scale_mas)
    angle = math.radians(geometry.pa_deg + image_rotation_deg)
    sine, cosine = math.sin(angle), math.cos(angle)
    return [[dx * cosine, -dy * sine], [dx * sine, dy * cosine]]


def pixel_offset(
    geometry: Geometry, east_mas: float, north_mas: float, image_rotation_deg: float = 0.0
) -> tuple[float, float]:
    """Pixels in x and y from a field's centre to a place so far east and north of it."""
    (a, b), (c, d) = linear_matrix(geometry, image_rotation_deg)
    determinant = (a * d - b * c) * _MAS_PER_DEG
    return (
        (d * east_mas - b * north_mas) / determinant,
        (a * north_mas - c * east_mas) / determinant,
    )


def coordinate_keywords(
    instrument: Instrument,
    mode: str,
    crop: Crop,
    camera: int,
    image_rotation_deg: float = 0.0,
) -> dict[str, tuple[float | str, str]]:
    """The keywords of all four sets for camera 1 or 2, with their comments."""
    fields = fields_of(instrument, mode, crop, camera)
    geometry = instrument.geometry[camera]
    return {
        f"{name}{suffix}": given
        for suffix, field in zip(SUFFIXES, fields, strict=True)
        for name, given in _one_set(field, geometry, image_rotation_deg)
    }


def _one_set(
    field: Field, geometry: Geometry, image_rotation_deg: float
) -> Iterator[tuple[str, tuple[float | str, str]]]:
    (cd11, cd12), (cd21, cd22) = linear_matrix(geometry, image_rotation_deg)
    dx, dy = (scale / _MAS_PER_DEG for scale in geometry.scale_mas)
    yield "WCSNAME", (field.name, "field of these coordinates")
    yield "CTYPE1", ("RA---TAN", "right ascension, gnomonic projection")
    yield "CTYPE2", ("DEC--TAN", "declination, gnomonic projection")
    yield "CUNIT1", ("deg", "unit of CRVAL1 and CDELT1")
    yield "CUNIT2", ("deg", "unit of CRVAL2 and CDELT2")
    yield "CRPIX1", (field.x + 1, "[pixel] x; first pixel's centre is 1.0")
    yield "CRPIX2", (field.y + 1, "[pixel] y; first pixel's centre is 1.0")
    yield "CDELT1", (dx, "[deg/pixel] scale in x, signed")
    yield "CDELT2", (dy, "[deg/pixel] scale in y, signed")
    yield "CD1_1", (cd11, "[deg/pixel] to the east, in x")
    yield "CD1_2", (cd12, "[deg/pixel] to the east, in y")
    yield "CD2_1", (cd21, "[deg/pixel] to the north, in x")
    yield "CD2_2", (cd22, "[deg/pixel] to the north, in y")
