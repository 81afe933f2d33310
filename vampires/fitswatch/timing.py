"""When the frames of a cube came: rate, gaps, jitter and a histogram of the intervals.

From the table FRAMES of the cube, else from its sidecar; pixels are never read.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vampires.fits_hdus import FitsInvalid, Hdu, read_hdus
from vampires.fitswatch.facts import sidecar_path
from vampires.frame_table import FRAME_DTYPE
from vampires.times import SECOND_NS

MOST_ROWS = 5_000_000
GAP_FACTOR = 1.5  # of the median interval: longer ones are gaps
BINS = 10
LISTED_GAPS = 20

Int64s = npt.NDArray[np.int64]


class NoTimes(ValueError):
    """The cube tells no times of its frames; one line that says why."""


@dataclass(frozen=True)
class Gap:
    """A long interval: index of the frame after it, its length, frames lost in it by the
    counter."""

    frame: int
    interval_ns: int
    lost: int


@dataclass(frozen=True)
class Timing:
    """frames: rows found; times in ns. jitter_ns: standard deviation of the intervals without
    the gaps. bins: (from ns, to ns, number) of all intervals between the 1st and 99th
    percentile and a little around. clock: which time it is."""

    source: str
    clock: str
    frames: int
    duration_ns: int
    rate_hz: float
    median_ns: float
    least_ns: int
    most_ns: int
    jitter_ns: float
    gaps: tuple[Gap, ...]
    bins: tuple[tuple[float, float, int], ...]


def read_timing(path: str) -> Timing:
    """The timing of a cube. Raises NoTimes."""
    try:
        hdus, _ = read_hdus(path)
    except (FitsInvalid, OSError) as error:
        raise NoTimes(f"no times: {error}") from None
    table = next((hdu for hdu in hdus[1:] if _is_frames(hdu)), None)
    if table is not None:
        times, cnt0, clock = _from_table(path, table)
        return summary(times, cnt0, source="table FRAMES", clock=clock)
    times, cnt0, clock = _from_sidecar(sidecar_path(path))
    return summary(times, cnt0, source="sidecar", clock=clock)


def _is_frames(hdu: Hdu) -> bool:
    try:
        return (
            hdu.cards.get("EXTNAME") == "FRAMES"
            and hdu.cards.get("XTENSION") == "BINTABLE"
            and hdu.cards.get("NAXIS1") == FRAME_DTYPE.itemsize
        )
    except FitsInvalid:
        return False


def _from_table(path: str, table: Hdu) -> tuple[Int64s, Int64s, str]:
    wanted = min(table.data_bytes // FRAME_DTYPE.itemsize, MOST_ROWS) * FRAME_DTYPE.itemsize
    try:
        with open(path, "rb") as file:
            raw = os.pread(file.fileno(), wanted, table.data_offset)
    except OSError as error:
        raise NoTimes(f"the table FRAMES cannot be read: {error.strerror}") from None
    rows = np.frombuffer(raw, FRAME_DTYPE, count=len(raw) // FRAME_DTYPE.itemsize)
    times = rows["TACQ"].astype(np.int64)
    clock = "acquisition"
    if not times.all():
        times, clock = rows["TLOG"].astype(np.int64), "logger clock"
    return times, rows["CNT0"].astype(np.int64), clock


def _from_sidecar(path: str) -> tuple[Int64s, Int64s, str]:
    """Columns 2 (counter), 4 (logger) and 5 (acquisition) of the sidecar."""
    times: list[tuple[int, int, int]] = []
    try:
        with open(path, encoding="ascii") as lines:
            for line in lines:
                if line.startswith("#"):
                    continue
                columns = line.split()
                cnt0, logged, acquired = int(columns[1]), columns[3], columns[4]
                times.append((cnt0, _ns(logged), _ns(acquired)))
                if len(times) == MOST_ROWS:
                    break
    except OSError as error:
        raise NoTimes(f"neither a table FRAMES nor a sidecar: {error.strerror}") from None
    except (ValueError, IndexError):
        raise NoTimes(f"the sidecar is not one, in its line {len(times) + 1} of data") from None
    try:
        rows = np.array(times, np.int64).reshape(-1, 3)
    except OverflowError:
        raise NoTimes("the sidecar holds numbers of more than 64 bits") from None
    if rows[:, 2].all():
        return rows[:, 2], rows[:, 0], "acquisition"
    return rows[:, 1], rows[:, 0], "logger clock"


def _ns(seconds: str) -> int:
    whole, _, fraction = seconds.partition(".")
    return int(whole) * SECOND_NS + int(f"{fraction[:9]:0<9}")


def summary(times: Int64s, cnt0: Int64s, *, source: str, clock: str) -> Timing:
    """The timing of frames; times: ns, cnt0: counters, both [frames]. Raises NoTimes."""
    if len(times) < 2:
        raise NoTimes(f"{len(times)} frame{'s' * (len(times) != 1)}: no intervals")
    intervals = np.diff(times)
    median = float(np.median(intervals))
    is_gap = intervals > GAP_FACTOR * max(median, 0)
    steps = np.diff(cnt0)
    is_gap |= steps > 1
    usual = intervals[~is_gap] if not is_gap.all() else intervals
    gaps = tuple(
        Gap(int(at) + 1, int(intervals[at]), max(0, int(steps[at]) - 1))
        for at in np.flatnonzero(is_gap)
    )
    duration = int(times[-1] - times[0])
    return Timing(
        source,
        clock,
        len(times),
        duration,
        (len(times) - 1) * SECOND_NS / duration if duration > 0 else 0.0,
        median,
        int(intervals.min()),
        int(intervals.max()),
        float(usual.std()),
        gaps,
        _histogram(usual),
    )


def _histogram(intervals: Int64s) -> tuple[tuple[float, float, int], ...]:
    """Equal bins over the middle 98 %; the first and last also take what lies beyond."""
    low, high = np.percentile(intervals, [1, 99])
    if high <= low:
        return ((float(low), float(high), len(intervals)),)
    edges = np.linspace(low, high, BINS + 1)
    counts, _ = np.histogram(np.clip(intervals, low, high), edges)
    return tuple(
        (float(a), float(b), int(n))
        for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)
    )
