"""The account of the frames of a cube: the table FRAMES, the sidecar and the header must tell
one and the same story, and a story in which no frame is missing untold.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vampires import times
from vampires.fits_hdus import FitsInvalid, Hdu, opened
from vampires.frame_table import FRAME_DTYPE, FrameFlag, Rows
from vampires.header_cards import Cards
from vampires.sidecar import sidecar_text

NEW_COUNT = FrameFlag.STREAM_RECREATED | FrameFlag.COUNTER_RESET
_TFORMS = {4: "J", 8: "K"}  # of big-endian integers, by their bytes
_LINE_BYTES = 400  # of a sidecar, at most
_HEADING_BYTES = 1 << 20
_COLUMNS = 7
_MJD_TOLERANCE = 2e-8  # of a day: 8 decimals are enough

Flags = npt.NDArray[np.bool_]


@dataclass
class FrameFinding:
    """What the account of the frames gave. ``not_ours``: lines that are faults of this
    logger's cubes, and warnings for those of others."""

    lost: int = 0
    torn: int = 0
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    not_ours: list[str] = field(default_factory=list)


def read_frames_table(fd: int, hdu: Hdu) -> tuple[Rows | None, str]:
    """The rows of the extension FRAMES, or why there are none."""
    cards = hdu.cards
    try:
        for number, name in enumerate(FRAME_DTYPE.names or (), 1):
            form = _TFORMS[FRAME_DTYPE[name].itemsize]
            found = (cards.get(f"TTYPE{number}"), cards.get(f"TFORM{number}"))
            if found != (name, form):
                return None, (
                    f"column {number} of the table FRAMES is {found[0]} of {found[1]}; "
                    f"expected {name} of {form}"
                )
    except FitsInvalid as error:
        return None, f"table FRAMES: {error}"
    if len(hdu.shape) != 2 or hdu.shape[1] != FRAME_DTYPE.itemsize:
        size = FRAME_DTYPE.itemsize
        return (
            None,
            f"the table FRAMES has the shape {hdu.shape}; expected rows of {size} bytes",
        )
    raw = os.pread(fd, hdu.shape[0] * FRAME_DTYPE.itemsize, hdu.data_offset)
    return np.frombuffer(raw, FRAME_DTYPE, count=len(raw) // FRAME_DTYPE.itemsize), ""


def check_frames(
    finding: FrameFinding, sidecar: Path, rows: Rows | None, frames: int, cards: Cards
) -> None:
    """Adds to the finding what table, sidecar and header of a cube of so many frames say.

    rows: of the table FRAMES; None where it is missing.
    """
    counts = _header_counts(finding, cards)
    if rows is not None:
        if len(rows) != frames:
            finding.faults.append(
                f"the table FRAMES has {len(rows)} rows, the image {frames} frames"
            )
        _check_rows(finding, rows)
        _check_header_counts(finding, rows, counts)
        _check_header_times(finding, rows, cards)
    lines = _sidecar_lines(finding, sidecar, frames)
    if lines is None:
        return
    if len(lines) != frames:
        finding.faults.append(
            f"the sidecar has {len(lines)} lines of frames, the image {frames} frames"
        )
    if rows is not None:
        _compare_lines(finding, lines, rows)
    else:
        _check_lines(finding, lines, counts.get("NLOST"))


# -- the table --------------------------------------------------------------------------------


def _check_rows(finding: FrameFinding, rows: Rows) -> None:
    """Counters and times go on, and every gap is declared in the row behind it."""
    index = rows["FRAME"].astype(np.int64)
    cnt0, lost = rows["CNT0"].astype(np.int64), rows["LOST"].astype(np.int64)
    flags = rows["FLAGS"].astype(np.int64)
    finding.lost = int(lost.sum())

    def tell(wrong: Flags, text: Callable[[int], str], into: list[str]) -> None:
        if wrong.any():
            more = int(wrong.sum()) - 1
            also = f" ({more} more like it)" if more else ""
            into.append(text(int(np.argmax(wrong))) + also)

    faults = finding.faults
    tell(
        index != np.arange(len(rows)),
        lambda k: f"row {k} of the table FRAMES is that of frame {index[k]}",
        faults,
    )
    tell(lost < 0, lambda k: f"frame {k}: LOST is {lost[k]}, less than nothing", faults)
    declared = cnt0[:-1] + lost[1:] + 1
    undeclared = (cnt0[1:] != declared) & (flags[1:] & NEW_COUNT == 0)
    tell(
        undeclared,
        lambda k: (
            f"frame {k + 1}: cnt0 is {cnt0[k + 1]}; expected {declared[k]}, after {cnt0[k]} "
            f"with {lost[k + 1]} declared lost"
        ),
        faults,
    )
    accused = FrameFlag.TORN_BEFORE | FrameFlag.RING_FULL
    tell(
        (flags & accused != 0) & (lost == 0),
        lambda k: f"frame {k}: its FLAGS tell of lost frames, its LOST of none",
        faults,
    )
    stepped = flags & FrameFlag.CLOCK_STEP != 0
    tell(
        _goes_back(rows["TACQ"]) & ~stepped,
        lambda k: f"frame {k}: its acquisition time is earlier than that of a frame before",
        faults,
    )
    tell(
        _goes_back(rows["TLOG"]),
        lambda k: f"frame {k}: the clock of the logger went back before it",
        finding.warnings,
    )


def _goes_back(time_ns: npt.NDArray[np.void]) -> Flags:
    """Whether a time is earlier than the last known one before it; 0 is not known."""
    known = np.flatnonzero(time_ns)
    backwards = np.zeros(len(time_ns), bool)
    instants = time_ns[known].astype(np.int64)
    backwards[known[1:]] = instants[1:] < instants[:-1]
    return backwards


# -- the header -------------------------------------------------------------------------------


def _header_counts(finding: FrameFinding, cards: Cards) -> dict[str, int]:
    """The counts of the header that there are; others are told."""
    counts: dict[str, int] = {}
    names = ("NLOST", "NLOSTEND", "NTORN", "CNT0-BEG", "CNT0-END")
    if not any(name in cards for name in names):
        finding.not_ours.append(f"the header has no counts of frames: no {', '.join(names)}")
        return counts
    for name in names:
        try:
            value = cards.get(name)
        except FitsInvalid as error:
            finding.faults.append(str(error))
            continue
        if isinstance(value, int) and not isinstance(value, bool):
            counts[name] = value
        else:
            state = "is missing" if value is None else f"is {value!r}; expected a whole number"
            finding.not_ours.append(f"{name} {state}")
    finding.lost, finding.torn = counts.get("NLOST", 0), counts.get("NTORN", 0)
    return counts


def _check_header_counts(finding: FrameFinding, rows: Rows, counts: dict[str, int]) -> None:
    in_rows = finding.lost
    finding.lost = counts.get("NLOST", in_rows)
    at_end = counts.get("NLOSTEND", 0)
    if "NLOST" in counts and counts["NLOST"] != in_rows + at_end:
        finding.faults.append(
            f"NLOST is {counts['NLOST']}; the table FRAMES declares {in_rows} lost, "
            f"NLOSTEND {at_end} more"
        )
    if not 0 <= counts.get("NTORN", 0) <= finding.lost:
        finding.faults.append(f"NTORN is {counts['NTORN']}; expected 0 to NLOST")
    if not len(rows):
        return
    for name, row in (("CNT0-BEG", rows[0]), ("CNT0-END", rows[-1])):
        if name in counts and counts[name] != row["CNT0"]:
            finding.faults.append(
                f"{name} is {counts[name]}; expected {row['CNT0']}, of FRAMES"
            )


def _check_header_times(finding: FrameFinding, rows: Rows, cards: Cards) -> None:
    """The header's times are those of the first and last frame and half-way between."""
    source = rows["TACQ"] if len(rows) and rows["TACQ"][0] else rows["TLOG"]
    known = source[source != 0]
    if not len(known):
        return
    first, last = int(known[0]), int(known[-1])
    try:
        for ending, fits_ending, time_ns in (
            ("-STR", "BEG", first),
            ("-END", "END", last),
            ("", "AVG", first + (last - first) // 2),
        ):
            _check_instant(finding, cards, ending, fits_ending, time_ns)
        if cards.get("DATE-OBS") not in (None, times.utc_date(first)):
            finding.faults.append(
                f"DATE-OBS is {cards['DATE-OBS']}; expected {times.utc_date(first)}, of FRAMES"
            )
    except FitsInvalid as error:
        finding.faults.append(str(error))
    except (ValueError, OverflowError):  # a year that no calendar has
        finding.faults.append(f"the table FRAMES has impossible times: {first} to {last} ns")


def _check_instant(
    finding: FrameFinding, cards: Cards, ending: str, fits_ending: str, time_ns: int
) -> None:
    texts = {
        f"UT{ending}": times.utc_time_of_day(time_ns, 6),
        f"DATE-{fits_ending}": times.iso_utc(time_ns, 9),
    }
    for name, expected in texts.items():
        found = cards.get(name)
        if found not in (None, expected):
            finding.faults.append(f"{name} is {found}; expected {expected}, of FRAMES")
    day = times.UNIX_EPOCH_MJD + time_ns / times.DAY_NS
    for name in (f"MJD{ending}", f"MJD-{fits_ending}"):
        value = cards.get(name)
        if isinstance(value, float) and abs(value - day) > _MJD_TOLERANCE:
            finding.faults.append(f"{name} is {value:.8f}; expected {day:.8f}, of FRAMES")


# -- the sidecar ------------------------------------------------------------------------------


def _sidecar_lines(finding: FrameFinding, path: Path, frames: int) -> list[str] | None:
    """The lines that are no comments; None without a sidecar."""
    try:
        with opened(path) as fd:
            most = _HEADING_BYTES + _LINE_BYTES * max(frames, 0)
            if os.fstat(fd).st_size > most:
                finding.faults.append(
                    f"the sidecar is no sidecar: it has more than {most} bytes"
                )
                return None
            with open(fd, "rb", closefd=False) as file:
                text = file.read(most).decode("latin-1")
    except FileNotFoundError:
        finding.not_ours.append(f"the sidecar {path.name} is missing")
        return None
    except FitsInvalid as error:
        finding.faults.append(f"the sidecar is {error}")
        return None
    except OSError as error:
        finding.faults.append(f"the sidecar cannot be read: {error.strerror or error}")
        return None
    if text and not text.endswith("\n"):
        finding.faults.append("the sidecar breaks off in its last line")
    return [line for line in text.split("\n") if line.strip() and not line.startswith("#")]


def _compare_lines(finding: FrameFinding, lines: list[str], rows: Rows) -> None:
    """Every line says what its row says."""
    expected = sidecar_text("", rows).decode("ascii").splitlines()
    ours = [line.split() for line in expected if not line.startswith("#")]
    differing = [
        frame
        for frame, (line, own) in enumerate(zip(lines, ours, strict=False))
        if line.split() != own
    ]
    if differing:
        frame, more = differing[0], len(differing) - 1
        also = f" ({more} more like it)" if more else ""
        found = " ".join(lines[frame].split())[:120]
        finding.faults.append(
            f"frame {frame}: the sidecar says {found!a}, the table FRAMES "
            f"{' '.join(ours[frame])!r}{also}"
        )


def _check_lines(finding: FrameFinding, lines: list[str], declared: int | None) -> None:
    """A sidecar without a table: its counters and times, and the gaps it shows."""
    before: tuple[int, list[float]] | None = None
    missing = 0
    for frame, line in enumerate(lines):
        words = line.split()
        try:
            if len(words) != _COLUMNS:
                raise ValueError
            index, cnt0, instants = int(words[0]), int(words[5]), [float(w) for w in words[2:5]]
        except ValueError:
            finding.faults.append(
                f"line {frame} of the sidecar is no seven numbers: {line!a:.80}"
            )
            return
        if index != frame:
            finding.faults.append(f"line {frame} of the sidecar is that of frame {index}")
            return
        if before is not None:
            if cnt0 <= before[0]:
                finding.not_ours.append(f"frame {frame}: cnt0 is {cnt0}, after {before[0]}")
            missing += max(0, cnt0 - before[0] - 1)
            if any(0 < now < then for now, then in zip(instants, before[1], strict=True)):
                finding.not_ours.append(f"frame {frame}: a time of the sidecar goes back")
        before = cnt0, instants
    if declared is None and missing:
        finding.lost = missing
        finding.warnings.append(
            f"{missing} frames are missing by cnt0; the header says nothing"
        )
    elif declared is not None and missing > declared:
        finding.faults.append(f"{missing} frames are missing by cnt0; NLOST says {declared}")
