"""Makes a cube of what a dead logger left: its partial cube becomes a file like any other.

The work is done in place, since the pixels are where they belong: header, table and sidecar are
written, then the files get their names. Whatever moment ends it, the next run finds the same
frames: rows come first, then the header, which says how many frames there are; only then the
file is cut to them. No name is ever taken from another file.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from vampires import _core
from vampires.cube_names import FinalNames, HiddenNames, final_names
from vampires.fits_cards import CARD_CHARS, END_CARD
from vampires.fits_hdus import BLOCK_BYTES, FitsInvalid, Hdu, read_hdus, read_primary
from vampires.fits_sum import add_sums
from vampires.frame_table import FRAME_DTYPE, Rows, frames_hdu, read_journal
from vampires.partial_cubes import CubeInUse, PartialCube, lock_cube
from vampires.recovered_header import Gaps, recovered_header
from vampires.sidecar import sidecar_text

# A logger writes the rows of so many bytes of pixels at a time, after the pixels.
LARGEST_WRITE_BYTES = 8 << 20
PIECE_BYTES = 4 << 20
SHORT_HEADER_BYTES = 4 << 20
MAX_NAMES = 1000

_WHY_NOT = {
    "empty": "it holds no frame",
    "untimed": "the rows of its frames did not reach the disk; "
    "vampires-recover --without-times makes a cube of them all the same",
}

Action = Literal["recover", "untimed", "empty", "leftover", "writing", "damaged"]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Plan:
    """What can be done about a partial cube.

    ``action``: "recover"; "untimed": it has frames without rows, to be recovered on demand
    only; "empty": it holds no frame; "leftover": its frames stand in the finished cube
    ``reason``; "writing": somebody is at work on it; "damaged": nothing can be done, and
    ``reason`` says why. ``frames`` is their number in the cube to be, ``bytes`` its pixels.
    """

    partial: PartialCube
    action: Action
    frames: int = 0
    bytes: int = 0
    gaps: Gaps = field(default_factory=Gaps)
    reason: str = ""


@dataclass(frozen=True)
class _Contents:
    """What the files of a partial cube hold. ``rows`` fit frames that are whole on disk."""

    hdu: Hdu
    frame_bytes: int
    rows: Rows
    rows_left_out: int
    without_row: int  # whole frames behind those of the rows

    @property
    def end(self) -> int:
        return self.hdu.header_bytes + len(self.rows) * self.frame_bytes


# -- looking ----------------------------------------------------------------------------------


def plan_recovery(partial: PartialCube, *, without_times: bool = False) -> Plan:
    """What ``recover`` would do; nothing is changed. without_times: also frames that have no
    row in the journal are wanted. Never raises for what the files are or hold."""
    if partial.state == "writing":
        return Plan(partial, "writing", partial.frames_on_disk)
    try:
        if partial.cube is None:
            finished = _finished_cube(partial)
            action: Action = "empty" if finished is None else "leftover"
            return Plan(partial, action, reason=os.fspath(finished or ""))
        fd = os.open(partial.cube, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            return _plan(partial, fd, without_times)
        finally:
            os.close(fd)
    except OSError as error:
        return Plan(partial, "damaged", reason=f"cannot be read: {error.strerror or error}")


def _plan(partial: PartialCube, fd: int, without_times: bool) -> Plan:
    try:
        contents = _look(partial, fd)
    except FitsInvalid as error:
        empty = _holds_no_more_than_a_header(partial, fd)
        return Plan(partial, "empty" if empty else "damaged", reason=f"its header: {error}")
    frames, without_row = len(contents.rows), contents.without_row
    gaps = Gaps(contents.rows_left_out, cut=without_row)
    if without_times:
        frames += without_row
        gaps = Gaps(contents.rows_left_out, untimed=without_row)
    elif without_row and (not frames or _too_much_to_leave_out(contents)):
        gaps = Gaps(contents.rows_left_out, untimed=without_row)
        size = (frames + without_row) * contents.frame_bytes
        return Plan(partial, "untimed", frames + without_row, size, gaps)
    action: Action = "recover" if frames else "empty"
    return Plan(partial, action, frames, frames * contents.frame_bytes, gaps)


def _look(partial: PartialCube, fd: int) -> _Contents:
    """Raises FitsInvalid where the header is not that of a cube."""
    hdu = read_primary(fd)
    if len(hdu.shape) != 3 or not hdu.shape[0] or not hdu.data_bytes:
        raise FitsInvalid(f"axes {hdu.shape}, expected those of a cube")
    frame_bytes = hdu.data_bytes // hdu.shape[0]
    behind_header = os.fstat(fd).st_size - hdu.header_bytes
    # What is behind NAXIS3 frames is a table that somebody began to write.
    whole = min(max(behind_header, 0) // frame_bytes, hdu.shape[0])
    rows = _trusted_rows(partial)
    n_rows = min(len(rows), whole)
    while whole > n_rows and not _frame(fd, hdu, frame_bytes, whole - 1).any():
        whole -= 1  # the end of a page, or room that was never written
    return _Contents(hdu, frame_bytes, rows[:n_rows], len(rows) - n_rows, whole - n_rows)


def _trusted_rows(partial: PartialCube) -> Rows:
    """The rows of the journal up to the first that a crash did not let become whole."""
    if partial.frames is None:
        return np.empty(0, FRAME_DTYPE)
    try:
        rows = read_journal(partial.frames)
    except FileNotFoundError:
        return np.empty(0, FRAME_DTYPE)
    good = rows["FRAME"] == np.arange(len(rows))
    good[:1] &= (rows["TACQ"][:1] != 0) | (rows["TLOG"][:1] != 0)
    return rows if good.all() else rows[: int(np.argmin(good))]


def _frame(fd: int, hdu: Hdu, frame_bytes: int, number: int) -> np.ndarray:
    raw = os.pread(fd, frame_bytes, hdu.header_bytes + number * frame_bytes)
    return np.frombuffer(raw, np.uint8)


def _too_much_to_leave_out(contents: _Contents) -> bool:
    """More than the rows of one write are missing: the journal itself suffered."""
    left_out = contents.without_row * contents.frame_bytes
    return left_out > LARGEST_WRITE_BYTES + contents.frame_bytes


def _holds_no_more_than_a_header(partial: PartialCube, fd: int) -> bool:
    size = os.fstat(fd).st_size
    begins = b"SIMPLE  ="[:size]
    short = size < SHORT_HEADER_BYTES and os.pread(fd, len(begins), 0) == begins
    return short and not len(_trusted_rows(partial))


def _finished_cube(partial: PartialCube) -> Path | None:
    """The cube with the rows of a journal that has lost its own: it got its name, and then the
    logger was killed."""
    rows = _trusted_rows(partial).tobytes()
    names = final_names(partial.folder, partial.stream, partial.first_ns)
    for _, final in zip(range(MAX_NAMES if rows else 0), names, strict=False):
        if not os.path.lexists(final.fits):
            return None
        with contextlib.suppress(OSError, FitsInvalid):
            table = _table(final.fits, len(rows))
            if table and rows.startswith(table):
                return final.fits
    return None


def _table(fits: Path, most: int) -> bytes | None:
    """The rows of the table of a cube, where they are not more than `most` bytes."""
    fd = os.open(fits, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        for hdu in read_hdus(fd)[0][1:]:
            if hdu.cards.get("EXTNAME") == "FRAMES" and hdu.data_bytes <= most:
                return os.pread(fd, hdu.data_bytes, hdu.data_offset)
    finally:
        os.close(fd)
    return None


# -- doing ------------------------------------------------------------------------------------


def recover(
    partial: PartialCube,
    *,
    without_times: bool = False,
    progress: Progress = lambda done, total: None,
) -> Path:
    """Makes the cube; returns its name. May be ended at any moment and done again.

    progress: called with bytes read and all bytes to read; what it raises ends the recovery.

    Raises:
        CubeInUse: somebody else writes or recovers it.
        ValueError: the plan for it is not to recover.
        OSError: the disk refused; all frames are where they were.
    """
    if partial.cube is None:
        raise ValueError("the file of its frames is not there")
    fd = lock_cube(partial.cube)
    try:
        plan = _plan(partial, fd, without_times)
        if plan.action != "recover":
            raise ValueError(plan.reason or _WHY_NOT[plan.action])
        contents = _look(partial, fd)
        rows = _add_rows(partial, contents) if plan.gaps.untimed else contents.rows
        # Also those that an earlier try has added.
        untimed = int(np.count_nonzero(rows["TLOG"] == 0))
        plan = replace(plan, gaps=replace(plan.gaps, untimed=untimed))
        _finish(fd, plan, contents, rows, progress)
        return _publish(partial, sidecar_text(partial.stream, rows))
    finally:
        os.close(fd)


def remove(plan: Plan) -> None:
    """Removes the files of a plan that is "empty" or "leftover". Raises CubeInUse, OSError."""
    if plan.action not in ("empty", "leftover"):
        raise ValueError(f"it holds frames: {plan.action}")
    fd = -1 if plan.partial.cube is None else lock_cube(plan.partial.cube)
    try:
        if fd >= 0 and _plan(plan.partial, fd, without_times=False).action != "empty":
            raise CubeInUse(f"{plan.partial.cube} holds frames now")
        for path in plan.partial.files:
            path.unlink(missing_ok=True)
    finally:
        if fd >= 0:
            os.close(fd)


def _add_rows(partial: PartialCube, contents: _Contents) -> Rows:
    """The rows with those that are missing, in the journal too: what is known of a frame
    without a row is its place, and of the first one what the header says."""
    known, missing = contents.rows, contents.without_row
    rows = np.zeros(len(known) + missing, FRAME_DTYPE)
    rows[: len(known)] = known
    rows["FRAME"] = np.arange(len(rows))
    cards = contents.hdu.cards
    begin = cards.get("CNT0-BEG")
    first = int(begin) if isinstance(begin, int) else 0
    if len(known):
        first = int(known["CNT0"][-1]) + 1
    else:
        acquired = "DATE-BEG" in cards and "acquisition" in cards.comment("DATE-BEG")
        rows["TACQ" if acquired else "TLOG"][0] = partial.first_ns
    rows["CNT0"][len(known) :] = np.arange(first, first + missing)
    path = partial.frames or _hidden(partial).frames
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644), "wb") as journal:
        journal.truncate(known.nbytes)
        journal.seek(known.nbytes)
        journal.write(rows[len(known) :].tobytes())
        journal.flush()
        os.fsync(journal.fileno())
    return rows


def _finish(fd: int, plan: Plan, contents: _Contents, rows: Rows, progress: Progress) -> None:
    """Header, padding and table: the file then is a whole cube."""
    begin = contents.hdu.header_bytes
    end = begin + len(rows) * contents.frame_bytes
    data_sum = _data_sum(fd, begin, end, progress)
    header = recovered_header(
        contents.hdu, plan.partial, rows, plan.gaps, data_sum=data_sum, now_ns=time.time_ns()
    )
    # Whenever the next write is cut short, the header has an END, in its last block.
    _write(fd, END_CARD.encode("ascii"), begin - CARD_CHARS)
    os.fsync(fd)
    _write(fd, header, 0)
    os.fsync(fd)  # from here on nothing behind the frames is taken for one
    table = b"\0" * (-end % BLOCK_BYTES) + frames_hdu(rows)
    try:
        _write(fd, table, end)  # into the space that the logger kept for it
        os.ftruncate(fd, end + len(table))
        os.fsync(fd)
    except OSError:
        os.ftruncate(fd, end)  # what there is of a table must not fill the disk
        raise


def _write(fd: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def _data_sum(fd: int, begin: int, end: int, progress: Progress) -> int:
    """DATASUM of the bytes from begin to end of the file."""
    os.posix_fadvise(fd, begin, end - begin, os.POSIX_FADV_SEQUENTIAL)
    piece = memoryview(bytearray(min(PIECE_BYTES, end - begin)))
    total, at = 0, begin
    while at < end:
        progress(at - begin, end - begin)
        wanted = piece[: end - at]
        filled = 0
        while filled < len(wanted):  # whole pieces: the sum is one of words
            got = os.preadv(fd, [wanted[filled:]], at + filled)
            if got == 0:
                raise OSError(f"the file ended at byte {at + filled} while it was read")
            filled += got
        total = add_sums(total, _core.fits_sum(wanted))
        at += len(wanted)
    return total


# -- names ------------------------------------------------------------------------------------


def _hidden(partial: PartialCube) -> HiddenNames:
    assert partial.cube is not None
    stem = partial.cube.name.removesuffix(".cube")
    names = (partial.folder / (stem + end) for end in (".cube", ".frames", ".sidecar"))
    return HiddenNames(*names)


def _publish(partial: PartialCube, sidecar: bytes) -> Path:
    """Gives sidecar and cube their names, the cube last, and tidies up behind them."""
    hidden = _hidden(partial)
    if hidden.frames.exists():  # gives back the space that the logger kept for the sidecar
        os.truncate(hidden.frames, hidden.frames.stat().st_size)
    _write_new(hidden.sidecar, sidecar)
    for final in final_names(partial.folder, partial.stream, partial.first_ns):
        if _take_names(hidden, final, sidecar):
            _core.sync_directory(os.fspath(partial.folder))
            for path in (hidden.frames, hidden.sidecar):
                path.unlink(missing_ok=True)
            return final.fits
    raise AssertionError("the names never end")


def _take_names(hidden: HiddenNames, final: FinalNames, sidecar: bytes) -> bool:
    """False when one of the names is taken by another cube."""
    if os.path.lexists(final.fits):
        # Where renaming is linking and removing, the second half may be missing.
        if not _same_file(hidden.cube, final.fits):
            return False
        hidden.cube.unlink()
        return True
    if os.path.lexists(f"{final.fits}.fz"):
        return False
    if not _core.rename_new(os.fspath(hidden.sidecar), os.fspath(final.sidecar)):
        # A sidecar of these frames without its cube: the end came between the two renames.
        if not _holds(final.sidecar, sidecar):
            return False
        hidden.sidecar.unlink()
    if _core.rename_new(os.fspath(hidden.cube), os.fspath(final.fits)):
        return True
    final.sidecar.rename(hidden.sidecar)
    return False


def _same_file(path: Path, other: Path) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(os.lstat(path), os.lstat(other))
    return False


def _holds(path: Path, content: bytes) -> bool:
    with contextlib.suppress(OSError):
        return path.is_file() and path.read_bytes() == content
    return False


def _write_new(path: Path, content: bytes) -> None:
    """Writes a hidden file whole and durably; what stood there was a try of the same."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644), "wb") as file:
        file.truncate()
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
