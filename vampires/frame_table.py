"""The table of frames: one row for each frame of a cube, as it stands in the FITS extension
FRAMES and in the journal that the logger writes while the cube is open.

A row is 56 bytes, packed, big-endian (``FRAME_DTYPE``). Times are int64 nanoseconds since
1970-01-01T00:00:00 UTC, 0 where unknown.
"""

from enum import IntFlag
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vampires.fits_cards import END_CARD, comment_cards, generic_field, literal_card, value_card
from vampires.fits_sum import data_sum, stamp_checksum

BLOCK_BYTES = 2880

FRAME_DTYPE = np.dtype(
    [
        ("FRAME", ">i4"),
        ("CNT0", ">i8"),
        ("CNT1", ">i8"),
        ("TACQ", ">i8"),
        ("TSTREAM", ">i8"),
        ("TLOG", ">i8"),
        ("LOST", ">i8"),
        ("FLAGS", ">i4"),
    ]
)

Rows = npt.NDArray[np.void]


class FrameFlag(IntFlag):
    """Bits of the column FLAGS."""

    TORN_BEFORE = 1
    STREAM_RECREATED = 2
    COUNTER_RESET = 4
    RING_FULL = 8
    TACQ_FROM_ATIME = 16
    CLOCK_STEP = 32
    CAUGHT_UP = 64


_FLAG_MEANINGS = {
    FrameFlag.TORN_BEFORE: "of the frames lost just before, one or more was half overwritten",
    FrameFlag.STREAM_RECREATED: "first frame after the stream was re-created",
    FrameFlag.COUNTER_RESET: "the counter cnt0 went backwards before this frame",
    FrameFlag.RING_FULL: "frames before this one were lost: the memory of the logger was full",
    FrameFlag.TACQ_FROM_ATIME: "TACQ is the atime of the stream, not its keyword _MAQTIME",
    FrameFlag.CLOCK_STEP: "TACQ lies before that of the frame before",
    FrameFlag.CAUGHT_UP: "read from the ring of the stream after newer frames had come",
}
_TIME_UNIT = "ns"
# name, TFORM, TUNIT, meaning
_COLUMNS = (
    ("FRAME", "J", "", "index in the cube, from 0"),
    ("CNT0", "K", "", "frame counter of the stream"),
    ("CNT1", "K", "", "slice counter of the stream"),
    ("TACQ", "K", _TIME_UNIT, "acquisition of the frame, Unix time UTC; 0 unknown"),
    ("TSTREAM", "K", _TIME_UNIT, "write into the stream, Unix time UTC; 0 unknown"),
    ("TLOG", "K", _TIME_UNIT, "copy by the logger, Unix time UTC, logger clock"),
    ("LOST", "K", "", "frames missing just before this one"),
    ("FLAGS", "J", "", "what happened at this frame; see COMMENT"),
)


def frames_hdu(rows: Rows) -> bytes:
    """The extension FRAMES of a cube: header, rows and padding, with CHECKSUM and DATASUM.

    ``rows`` is a 1-D array of ``FRAME_DTYPE``, possibly empty. The result is a multiple of
    2880 bytes and goes behind the padded image.

    Raises:
        ValueError: ``rows`` has another dtype or shape.
    """
    check_rows(rows)
    data = _padded(rows.tobytes(), b"\0")
    row_count = literal_card("NAXIS2", generic_field(len(rows)), "number of frames")
    before, after = _header_around_row_count()
    header = _padded((before + row_count + after).encode("ascii"), b" ")
    return stamp_checksum(header, data_sum(data)) + data


def read_journal(path: str | Path) -> Rows:
    """The rows of a journal, dtype ``FRAME_DTYPE``; a half-written last row is ignored.

    Raises:
        OSError: the file cannot be read.
    """
    raw = Path(path).read_bytes()
    return np.frombuffer(raw, FRAME_DTYPE, count=len(raw) // FRAME_DTYPE.itemsize)


def check_rows(rows: Rows) -> None:
    """Raise ValueError unless ``rows`` is a 1-D array of ``FRAME_DTYPE``."""
    if rows.dtype != FRAME_DTYPE or rows.ndim != 1:
        raise ValueError(
            f"frame rows are {rows.ndim}-D of {rows.dtype}; 1-D of {FRAME_DTYPE} is expected"
        )


@cache
def _header_around_row_count() -> tuple[str, str]:
    """The cards before and behind NAXIS2, the one card that differs from cube to cube."""
    before = [
        value_card("XTENSION", "BINTABLE", "table of the frames of the cube"),
        literal_card("BITPIX", generic_field(8), "bytes"),
        literal_card("NAXIS", generic_field(2), "rows of bytes"),
        literal_card("NAXIS1", generic_field(FRAME_DTYPE.itemsize), "bytes a row"),
    ]
    after = [
        literal_card("PCOUNT", generic_field(0), "no heap"),
        literal_card("GCOUNT", generic_field(1), "one table"),
        literal_card("TFIELDS", generic_field(len(_COLUMNS)), "number of columns"),
        value_card("EXTNAME", "FRAMES"),
    ]
    for number, (name, form, unit, meaning) in enumerate(_COLUMNS, 1):
        after.append(value_card(f"TTYPE{number}", name))
        after.append(value_card(f"TFORM{number}", form))
        if unit:
            after.append(value_card(f"TUNIT{number}", unit))
        after.append(value_card(f"TCOMM{number}", meaning))
    after.append(value_card("TIMESYS", "UTC"))
    after += comment_cards(
        "Times are nanoseconds since 1970-01-01T00:00:00 UTC (Unix time), 0 where unknown."
    )
    after += comment_cards("FLAGS is a sum of these bits:")
    for flag, meaning in _FLAG_MEANINGS.items():
        after += comment_cards(f"{flag.value} {flag.name}: {meaning}")
    after.append(value_card("CHECKSUM", "0" * 16, "sum of this extension"))
    after.append(value_card("DATASUM", "0", "sum of the rows"))
    after.append(END_CARD)
    return "".join(before), "".join(after)


def _padded(data: bytes, fill: bytes) -> bytes:
    return data + fill * (-len(data) % BLOCK_BYTES)
