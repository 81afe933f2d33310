"""A FITS file of one frame of a cube, or of what became of all its frames.

It carries the header of the cube, made right for one frame: readers want NAXIS 3, so NAXIS3 is
1. Where the time of the frame is known, the times and counters are those of the frame.
"""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vampires import times
from vampires.fits_hdus import FitsInvalid
from vampires.frame_table import Rows
from vampires.header_cards import CARD_BYTES, Cards
from vampires.keywords import printable
from vampires.version import DISTRIBUTION, package_version

if TYPE_CHECKING:
    from astropy.io.fits import Header

# Keywords of the layout, which is another now; of a tile-compressed image those of its table.
_LAYOUT = (
    "XTENSION", "EXTNAME", "EXTEND", "PCOUNT", "GCOUNT", "TFIELDS", "TTYPE1", "TFORM1", "THEAP",
    "CHECKSUM", "DATASUM", "BLANK", "BZERO", "BSCALE",
)  # fmt: skip
_OF_TILES = (
    "ZIMAGE", "ZSIMPLE", "ZTENSION", "ZEXTEND", "ZPCOUNT", "ZGCOUNT", "ZCMPTYPE", "ZBITPIX",
    "ZHECKSUM", "ZDATASUM", "ZQUANTIZ", "ZDITHER0", "ZBLANK", "ZMASKCMP",
)  # fmt: skip
_NUMBERED = ("ZNAXIS", "ZTILE", "ZNAME", "ZVAL")


def frame_fits(
    frame: npt.NDArray[Any], cards: Cards, done: Sequence[str], row: Rows | None = None
) -> bytes:
    """A FITS file with checksums: frame [y, x] under the header of the cube it came from.

    done: lines for HISTORY. row: what the table FRAMES says of the frame, None where it says
    nothing or the frame stands for many. Raises FitsInvalid where the header cannot be kept.
    """
    from astropy.io import fits

    content = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd in a header was odd before
            header = fits.Header.fromstring(_text(cards))
            _drop_layout(header, packed=cards.get("ZIMAGE") is True)
            hdu = fits.PrimaryHDU(frame[np.newaxis], header)
            hdu.header.remove("EXTEND", ignore_missing=True)
            if row is not None:
                _set_times(hdu.header, row)
            hdu.header.set(
                "DATE", times.iso_utc(time.time_ns(), 0), "creation of the file, UTC"
            )
            for line in (*done, f"by {DISTRIBUTION} {package_version()}"):
                hdu.header.add_history(printable(line))
            hdu.writeto(content, checksum=True, output_verify="silentfix+ignore")
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise FitsInvalid(f"its header cannot be kept: {error}") from None
    return content.getvalue()


def frame_time_ns(row: Rows) -> int:
    """When the frame of a row was taken, ns UTC; when it was logged, where that is unknown."""
    return int(row["TACQ"][0]) or int(row["TLOG"][0])


def _text(cards: Cards) -> str:
    raw = cards.raw
    return raw[: len(raw) // CARD_BYTES * CARD_BYTES].decode("latin-1")


def _drop_layout(header: Header, *, packed: bool) -> None:
    for keyword in _LAYOUT:
        header.remove(keyword, ignore_missing=True, remove_all=True)
    if packed:
        numbered = [name for name in header if name.rstrip("0123456789") in _NUMBERED]
        for keyword in (*_OF_TILES, *numbered):
            header.remove(keyword, ignore_missing=True, remove_all=True)


def _set_times(header: Header, row: Rows) -> None:
    """The times of the frame in place of those of the cube, in the cards that are there."""
    time_ns = frame_time_ns(row)
    mjd = float(times.mjd_text(time_ns))
    values: dict[str, str | float | int] = {"DATE-OBS": times.utc_date(time_ns)}
    for suffix, fits_suffix in (("", "AVG"), ("-STR", "BEG"), ("-END", "END")):
        values[f"UT{suffix}"] = times.utc_time_of_day(time_ns)
        values[f"HST{suffix}"] = times.hst_time_of_day(time_ns)
        values[f"MJD{suffix}"] = values[f"MJD-{fits_suffix}"] = mjd
        values[f"DATE-{fits_suffix}"] = times.iso_utc(time_ns)
    values["CNT0-BEG"] = values["CNT0-END"] = int(row["CNT0"][0])
    for keyword, value in values.items():
        if keyword in header:
            header[keyword] = (value, "of this frame")
