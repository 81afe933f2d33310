"""Where a frame lies on the sky: the four sets of coordinates of a science camera.

In the multiband modes the sets (suffix none, B, C, D) are the fields of 610, 670, 720 and
760 nm, in that order; in all other modes each of them is the one field, in the middle of the
frame. CRVAL is not here: where the telescope points comes with the auxiliary header.

The conventions, of which only the plate scale and the angle are measured numbers:

* The columns of the detector (+y) point to the position angle INST-PA, counted from north
  through east, and the image is not mirrored: at angle 0 north is up and east is left, which
  makes CDELT1 negative. No parity of either camera is documented; both are taken to be so.
* The rotation of the field (image rotator, parallactic angle) is not in it: a camera does not
  know it, and the readers add it from D_IMRPAP and its like.
* The multiband fields are where vampires.simulated_sky has them. In MBI_REDUCED the field of
  610 nm is outside of the crop, and its reference pixel too.
* A window of one's own is taken to be set around the field.

In a FITS header the dictionary's formats leave a tenth of a pixel and 1e-8 degrees a pixel,
which is half a percent of the scale: PLATE_SCALE_MAS and INST-PA are the finer numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from vampires import cameras, simulated_sky
from vampires.camera.source import Keywords
from vampires.cameras import Crop

SUFFIXES = ("", "B", "C", "D")
FIELDS = ("610", "670", "720", "760")
"""The multiband fields, in the order of the suffixes; names of cameras.WAVELENGTHS_NM."""

_MULTIBAND = ("MBI", "MBI_REDUCED")
_MAS_PER_DEG = 3600e3


def wcs_keywords(mode: str, crop: Crop, camera: int) -> Keywords:
    """The keywords of all four sets, for camera 1 or 2. mode: its name, "" for none."""
    found: Keywords = {}
    for suffix, (name, x, y) in zip(SUFFIXES, _centres(mode, crop, camera), strict=True):
        found |= _one_set(suffix, name, x, y, camera)
    return found


def _centres(mode: str, crop: Crop, camera: int) -> Iterator[tuple[str, float, float]]:
    """Name and centre of each field, in pixels of the frame, counted from 0."""
    if mode.upper() not in _MULTIBAND:
        ny, nx = crop.shape
        for _ in SUFFIXES:
            yield "FIELD", (nx - 1) / 2, (ny - 1) / 2
        return
    whole = cameras.crop("MBI", camera)
    stars = {star.wavelength_nm: star for star in simulated_sky.star_fields("MBI", camera)}
    for name in FIELDS:
        star = stars[cameras.WAVELENGTHS_NM[name]]
        yield f"F{name}", star.x + whole.x0 - crop.x0, star.y + whole.y0 - crop.y0


def _one_set(suffix: str, name: str, x: float, y: float, camera: int) -> Keywords:
    scale = cameras.PLATE_SCALE_MAS[camera] / _MAS_PER_DEG
    angle = math.radians(cameras.INSTRUMENT_ANGLE_DEG[camera])
    sine, cosine = scale * math.sin(angle), scale * math.cos(angle)
    keywords: Keywords = {
        "WCSNAME": (name, "field of these coordinates"),
        "CTYPE1": ("RA---TAN", "right ascension, gnomonic projection"),
        "CTYPE2": ("DEC--TAN", "declination, gnomonic projection"),
        "CUNIT1": ("deg", "unit of CRVAL1 and CDELT1"),
        "CUNIT2": ("deg", "unit of CRVAL2 and CDELT2"),
        "CRPIX1": (x + 1, "[pixel] centre of the field in x, counted from 1"),
        "CRPIX2": (y + 1, "[pixel] centre of the field in y, counted from 1"),
        "CDELT1": (-scale, "[deg/pixel] scale in x"),
        "CDELT2": (scale, "[deg/pixel] scale in y"),
        "CD1_1": (-cosine, "[deg/pixel] to the east, in x"),
        "CD1_2": (sine, "[deg/pixel] to the east, in y"),
        "CD2_1": (sine, "[deg/pixel] to the north, in x"),
        "CD2_2": (cosine, "[deg/pixel] to the north, in y"),
    }
    return {key + suffix: given for key, given in keywords.items()}
