"""The sidecar of a cube: ``<stem>.txt``, one line for each frame, as the readers of the
real logger's files expect it.

Seven columns in the C formats
``%10ld  %10lu  %15.9lf   %20.9lf  %17.6lf   %10ld   %10ld``. The digits come from integers:
a double holds Unix time to 0.24 us only.
"""

import numpy as np
import numpy.typing as npt

from vampires.frame_table import Rows, check_rows
from vampires.keywords import printable
from vampires.times import SECOND_NS

MICROSECOND_NS = 1000
SECOND_US = 1_000_000

_HEADING = """\
# Telemetry stream timing data
# File written by vampires-daq for stream {stream}
#
# col1 : datacube frame index
# col2 : Main index
# col3 : Time since cube origin (logging)
# col4 : Absolute time (logging)
# col5 : Absolute time (acquisition)
# col6 : stream cnt0 index
# col7 : stream cnt1 index
#
"""
_LINE = "%10d  %10d  %5s.%09d   %10s.%09d  %10s.%06d   %10d   %10d\n"


def sidecar_text(stream: str, rows: Rows) -> bytes:
    """The whole sidecar: comment lines, then as many lines as ``rows``, dtype ``FRAME_DTYPE``.

    Column 3 counts from the first row. Column 5 is TACQ, truncated to the microsecond, and 0
    where the stream has no acquisition time.

    Raises:
        ValueError: ``rows`` has another dtype or shape.
    """
    check_rows(rows)
    heading = _HEADING.format(stream=printable(stream))
    return (heading + "".join(map(_LINE.__mod__, _columns(rows)))).encode("ascii")


def _columns(rows: Rows) -> "zip[tuple[int | str, ...]]":
    cnt0 = rows["CNT0"].astype(np.int64)
    log_ns = rows["TLOG"].astype(np.int64)
    acquired_us = rows["TACQ"].astype(np.int64) // MICROSECOND_NS
    return zip(
        rows["FRAME"].tolist(),
        cnt0.view(np.uint64).tolist(),
        *_seconds_and_fraction(log_ns - log_ns[:1], SECOND_NS),
        *_seconds_and_fraction(log_ns, SECOND_NS),
        *_seconds_and_fraction(acquired_us, SECOND_US),
        cnt0.tolist(),
        rows["CNT1"].tolist(),
        strict=True,
    )


def _seconds_and_fraction(
    times: npt.NDArray[np.int64], units_a_second: int
) -> tuple[list[int | str], list[int]]:
    """Whole seconds, with the sign, and the fraction that follows the point."""
    whole, fraction = np.divmod(np.abs(times), units_a_second)
    if not np.any(times < 0):
        return whole.tolist(), fraction.tolist()
    negative = (times < 0).tolist()
    seconds = zip(negative, whole.tolist(), strict=True)
    return [f"-{number}" if minus else number for minus, number in seconds], fraction.tolist()
