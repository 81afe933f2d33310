"""CHECKSUM and DATASUM of every HDU of a file, and the pixels of a compressed image."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from typing import IO

from vampires import _core
from vampires.compression import FUNPACK
from vampires.fits_hdus import Hdu, data_bytes
from vampires.fits_sum import WORD_MASK, add_sums
from vampires.header_cards import Cards, FitsInvalid

# A multiple of 2880 bytes, so that sums of pieces add up; between two pieces the check may be
# ended.
PIECE_BYTES = 2880 * 4096
_HEADER_BYTES = 16 << 20  # of an unpacked header, at most

Progress = Callable[[int], None]


def check_sums(
    fd: int, hdus: Sequence[Hdu], *, unread: Hdu | None, progress: Progress
) -> tuple[list[str], list[str]]:
    """Holds each HDU, all of them whole, against its CHECKSUM and DATASUM.

    unread: the HDU whose data are not read; its DATASUM is believed. Returns what is damaged,
    and which sums are missing. Raises OSError when reading fails.
    """
    faults: list[str] = []
    missing: list[str] = []
    for hdu in hdus:
        stated, checksum, fault = _stated(hdu)
        faults += [fault] if fault else []
        names = [name for name in ("CHECKSUM", "DATASUM") if name not in hdu.cards]
        if names:
            missing.append(f"HDU {hdu.number} has no {' and no '.join(names)}")
        data = None if hdu is unread else _sum(fd, hdu.data_offset, hdu.padded_bytes, progress)
        if stated is not None and data is not None and not _equal(stated, data):
            faults.append(
                f"the data of HDU {hdu.number} are damaged: DATASUM is {stated}, "
                f"the sum of the data {data}"
            )
        believed = data if stated is None else stated
        if checksum and believed is not None:
            header = _sum(fd, hdu.header_offset, hdu.header_bytes, progress)
            if not _equal(add_sums(header, believed), 0):
                faults.append(f"the header of HDU {hdu.number} is damaged: CHECKSUM differs")
    return faults, missing


def check_unpacked(fd: int, cards: Cards, progress: Progress) -> tuple[str, str]:
    """Unpacks a tile-compressed image and holds its pixels against ZDATASUM, the sum they had.

    Returns a fault and a warning, each empty where there is none.
    """
    try:
        stated = int(str(cards["ZDATASUM"]))
    except (FitsInvalid, ValueError):
        return "ZDATASUM is no number", ""
    if shutil.which(FUNPACK) is None:
        return "", f"its pixels were not unpacked: {FUNPACK} is missing; install libcfitsio-bin"
    found, error = _unpacked_sum(fd, progress)
    if found is None:
        return f"its pixels cannot be unpacked: {error}", ""
    if not _equal(found, stated):
        return f"its pixels unpack to the sum {found}, ZDATASUM is {stated}", ""
    return "", ""


def _stated(hdu: Hdu) -> tuple[int | None, bool, str]:
    """DATASUM, whether there is a CHECKSUM, and what is wrong with the cards."""
    try:
        text, checksum = hdu.cards.get("DATASUM"), hdu.cards.get("CHECKSUM")
        number = None if text in (None, "") else int(str(text))
    except (FitsInvalid, ValueError):
        return None, False, f"CHECKSUM or DATASUM of HDU {hdu.number} is no FITS sum"
    if number is not None and not 0 <= number <= WORD_MASK:
        return None, False, f"DATASUM of HDU {hdu.number} is {number}; expected 32 bits"
    return number, bool(checksum), ""


def _equal(one: int, other: int) -> bool:
    """In ones' complement there are two zeros."""
    return (one - other) % WORD_MASK == 0


def _sum(fd: int, offset: int, n_bytes: int, progress: Progress) -> int:
    os.posix_fadvise(fd, offset, n_bytes, os.POSIX_FADV_SEQUENTIAL)
    total, done = 0, 0
    while done < n_bytes:
        part, read = _core.file_sum(fd, offset + done, min(PIECE_BYTES, n_bytes - done))
        if read == 0:
            raise FitsInvalid(f"truncated at byte {offset + done} while it was read")
        total, done = add_sums(total, part), done + read
        progress(read)
    return total


# -- unpacking --------------------------------------------------------------------------------


def _unpacked_sum(fd: int, progress: Progress) -> tuple[int | None, str]:
    """The sum of the image that funpack makes of a file, or why there is none."""
    # By its descriptor: CFITSIO takes brackets in a name for a request of its own.
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [FUNPACK, "-S", f"/proc/self/fd/{fd}"],
            pass_fds=[fd],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        assert process.stdout is not None
        try:
            found, error = _sum_of_primary(process.stdout, progress)
        finally:
            process.kill()
            process.stdout.close()
            process.wait()
        errors.seek(0)
        told = errors.read(4096).decode("utf-8", "replace").strip().splitlines()
    return found, told[0] if error and told else error


def _sum_of_primary(pipe: IO[bytes], progress: Progress) -> tuple[int | None, str]:
    """The sum of the data of the first HDU that comes out of a pipe."""
    header = b""
    while (end := _end_of(header)) < 0:
        block = pipe.read(2880)
        if len(block) < 2880 or len(header) > _HEADER_BYTES:
            return None, "funpack gave no FITS"
        header += block
    try:
        left = -(-data_bytes(Cards(header[:end])) // 2880) * 2880
    except FitsInvalid as error:
        return None, str(error)
    total = 0
    while left:
        piece = pipe.read(min(PIECE_BYTES, left))
        if not piece:
            return None, f"{left} bytes short"
        total = add_sums(total, _core.fits_sum(piece))
        left -= len(piece)
        progress(0)
    return total, ""


def _end_of(header: bytes) -> int:
    end = b"END".ljust(80)
    begin = max(0, len(header) - 2880)
    return next((at for at in range(begin, len(header), 80) if header[at : at + 80] == end), -1)
