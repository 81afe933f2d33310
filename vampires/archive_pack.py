"""One cube into the archive: compressed, unpacked again, compared, and only then named.

Runs in a process of its own, on this machine or another. At any moment the folder holds whole
files under final names, and hidden ones that nobody takes for cubes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vampires import _core
from vampires.archive_manifest import Entry
from vampires.compression import FPACK, FUNPACK, NICE
from vampires.disk_room import disk_room
from vampires.fits_hdus import FitsInvalid, Hdu, read_hdus, read_primary
from vampires.header_cards import CARD_BYTES
from vampires.whole_file import hidden_name, write_whole

PURPOSE = "archive"  # of hidden files: so their names begin
PACKED_END = ".fz"
PROGRAM_ENDS = ("Tmp1", "Tmp2", "Tmp3")  # what fpack and funpack add while they write
_PIECE_BYTES = 4 << 20
_POLL_S = 0.1
_CHECKSUM = b"CHECKSUM"
_SUMS = (_CHECKSUM, b"DATASUM ")

Kind = Literal["packed", "already", "removed", "left", "full", "stopped"]
Stopped = Callable[[], bool]


class PackFault(Exception):
    """The cube cannot be archived, and stays as it is. One line."""


class _ProgramFailed(PackFault):
    """fpack or funpack: perhaps for want of room."""


class PackStopped(Exception):
    """Asked to end."""


@dataclass(frozen=True)
class Job:
    """A cube and the folder it goes to. entry: what the manifest says of it, None: nothing."""

    original: Path
    folder: Path
    entry: Entry | None = None

    @property
    def packed(self) -> Path:
        return self.folder / (self.original.name + PACKED_END)

    @property
    def moves(self) -> bool:
        """Whether the archive is another folder than that of the cube."""
        return not os.path.samefile(self.original.parent, self.folder)


@dataclass(frozen=True)
class Outcome:
    """What became of a cube. entry: for its manifest; fault: one line, where it was left."""

    original: Path
    kind: Kind
    entry: Entry | None = None
    fault: str = ""


def pack(job: Job, stopped: Stopped = lambda: False) -> Outcome:
    """Archives a cube, or checks that it is archived. Does not raise for what is wrong."""
    return _outcome(job, _pack, stopped)


def remove(job: Job, stopped: Stopped = lambda: False) -> Outcome:
    """Removes the original of job.entry, after the archive was read again from the disk."""
    return _outcome(job, _remove, stopped)


def _outcome(job: Job, act: Callable[[Job, Stopped], Outcome], stopped: Stopped) -> Outcome:
    try:
        return act(job, stopped)
    except PackStopped:
        return Outcome(job.original, "stopped")
    except FileNotFoundError as error:
        name = error.filename or job.original
        return Outcome(job.original, "left", fault=f"vanished meanwhile: {name}")
    except (PackFault, FitsInvalid) as error:
        full = isinstance(error, _ProgramFailed) and _is_full(job)
        text = "no room for it" if full else " ".join(str(error).split())
        return Outcome(job.original, "full" if full else "left", fault=text)
    except OSError as error:
        kind: Kind = "full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "left"
        place = f": {error.filename}" if error.filename else ""
        return Outcome(job.original, kind, fault=f"{error.strerror or error}{place}")


def _is_full(job: Job) -> bool:
    """Whether the disk of the archive has no room for a cube, packed and unpacked again."""
    with suppress(OSError):
        return disk_room(job.folder).free_bytes < 2 * job.original.stat().st_size
    return False


# -- packing ----------------------------------------------------------------------------------


def _pack(job: Job, stopped: Stopped) -> Outcome:
    if job.entry is not None and job.packed.exists():
        return _recheck(job, job.entry, stopped)
    frames, method = _verified(job.original, stopped)
    before = job.original.stat()
    with ExitStack() as stack:
        if job.packed.exists():  # of a run that ended before its manifest was written
            packed = job.packed
        else:
            packed = _hidden(job.folder, stack)
            _compress(job.original, packed, method, stopped)
        size, digest = _from_disk(packed, stopped)
        try:
            original_digest = _compared(job.original, packed, method, stack, stopped)
        except PackFault as error:
            there = f"{packed} is there already: " if packed == job.packed else ""
            raise type(error)(f"{there}{error}") from None
        if _identity(job.original.stat()) != _identity(before):
            raise PackFault("it changed while it was archived; archive it again")
        sidecar = _sidecar(job)
        if packed != job.packed:
            if not _core.rename_new(os.fspath(packed), os.fspath(job.packed)):
                raise PackFault(f"{job.packed.name} was made by another program meanwhile")
            _core.sync_directory(os.fspath(job.folder))
    entry = Entry(
        job.packed.name, size, digest, job.packed.stat().st_mtime_ns,
        job.original.name, before.st_size, original_digest, before.st_mtime_ns,
        frames, method, *sidecar,
    )  # fmt: skip
    return Outcome(job.original, "packed", entry)


def _verified(original: Path, stopped: Stopped) -> tuple[int, str]:
    """Frames of a cube, and how it is archived. PackFault when it does not verify.

    A keyword that its readers miss keeps no cube out of the archive: it can be mended there.
    """
    from vampires.cube_check import check_cube

    if original.is_symlink():
        raise PackFault("it is a link; archive the folder that it leads to")
    report = check_cube(original, keywords=False, progress=lambda done: _go_on(stopped))
    _go_on(stopped)
    if not report.ok:
        more = f" (and {len(report.faults) - 1} more)" if len(report.faults) > 1 else ""
        raise PackFault(f"{(report.faults or ['it does not verify'])[0]}{more}")
    if report.kind == "compressed":
        return report.frames, "copied"
    if read_primary(original).cards["BITPIX"] == 64:
        raise PackFault("fpack does not know 64-bit integers")
    return report.frames, "packed"


def _compress(original: Path, packed: Path, method: str, stopped: Stopped) -> None:
    if method == "copied":
        with original.open("rb") as source, packed.open("xb") as target:
            while piece := source.read(_PIECE_BYTES):
                _go_on(stopped)
                target.write(piece)
        return
    # Whole numbers by Rice; floating point, where Rice would round, by gzip.
    whole = int(str(read_primary(original).cards["BITPIX"])) > 0
    options = ["-r"] if whole else ["-g", "-q", "0"]
    with original.open("rb") as opened:  # CFITSIO reads meaning into names; this one has none
        source_name = f"/dev/fd/{opened.fileno()}"
        command = [FPACK, *options, "-O", packed.name, source_name]
        _run(command, packed.parent, stopped, (opened.fileno(),))


def _run(command: list[str], folder: Path, stopped: Stopped, fds: tuple[int, ...] = ()) -> None:
    with subprocess.Popen(
        [*NICE, *command],
        cwd=folder,
        pass_fds=fds,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    said, _ = process.communicate(timeout=_POLL_S)
                    break
                _go_on(stopped)
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        text = " ".join(said.decode(errors="replace").split())[-200:]
        raise _ProgramFailed(f"{command[0]} failed with status {process.returncode}: {text}")


def _sidecar(job: Job) -> tuple[str, int, str]:
    """Name, size and sum of the sidecar of a cube, beside its archive now; ("", 0, "")."""
    source = job.original.with_suffix(".txt")
    try:
        content = source.read_bytes()
    except FileNotFoundError:
        return "", 0, ""
    target = job.folder / source.name
    if job.moves:
        try:
            write_whole(target, content, purpose=PURPOSE)
        except FileExistsError:
            if target.read_bytes() != content:
                raise PackFault(f"{target} is there already, and differs") from None
    return source.name, len(content), hashlib.sha256(content).hexdigest()


def _recheck(job: Job, entry: Entry, stopped: Stopped) -> Outcome:
    """Of a cube in the manifest whose files were touched: is each still the same?"""
    size, digest = _from_disk(job.packed, stopped)
    if digest != entry.sha256:
        raise PackFault(f"{job.packed} is no longer what its manifest says; look at it")
    if _digest(job.original, stopped) != entry.original_sha256:
        raise PackFault(f"it changed after it was archived in {job.packed}; look at both")
    kept = {
        **vars(entry),
        "bytes": size,
        "mtime_ns": job.packed.stat().st_mtime_ns,
        "original_mtime_ns": job.original.stat().st_mtime_ns,
    }
    return Outcome(job.original, "already", Entry(**kept))


# -- checking ---------------------------------------------------------------------------------


def _compared(
    original: Path, packed: Path, method: str, stack: ExitStack, stopped: Stopped
) -> str:
    """SHA-256 of the original, which what was unpacked again equals. PackFault."""
    if method == "copied":
        digest = _digest(original, stopped)
        if digest != _digest(packed, stopped):
            raise PackFault(f"{packed.name} differs from it")
        return digest
    unpacked = _hidden(packed.parent, stack)
    with packed.open("rb") as opened:
        source = f"/dev/fd/{opened.fileno()}"
        _run([FUNPACK, "-O", unpacked.name, source], packed.parent, stopped, (opened.fileno(),))
    return _same_content(original, unpacked, stopped)


def _same_content(original: Path, unpacked: Path, stopped: Stopped) -> str:
    """SHA-256 of the original, after all its HDUs were found equal. PackFault."""
    digest = hashlib.sha256()
    ours, fault = read_hdus(original)
    theirs, their_fault = read_hdus(unpacked)
    if fault or their_fault or len(ours) != len(theirs):
        raise PackFault(f"what was unpacked again has other HDUs {fault or their_fault}")
    with original.open("rb") as first, unpacked.open("rb") as second:
        for hdu, other in zip(ours, theirs, strict=True):
            _check_cards(hdu, other)
            if hdu.header_bytes != other.header_bytes:
                _check_sums(second.fileno(), other, stopped)
            digest.update(first.read(hdu.header_bytes))
            second.seek(other.data_offset)
            left = hdu.padded_bytes
            if left != other.padded_bytes:
                raise PackFault(f"what was unpacked again differs in size, HDU {hdu.number}")
            while left:
                _go_on(stopped)
                piece = first.read(min(left, _PIECE_BYTES))
                if not piece or not _equal(piece, second.read(len(piece)), hdu):
                    raise PackFault(f"what was unpacked again differs, HDU {hdu.number}")
                digest.update(piece)
                left -= len(piece)
        while piece := first.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _equal(ours: bytes, theirs: bytes, hdu: Hdu) -> bool:
    """Byte for byte; floating point by value, since a nan has many patterns of bits and fpack
    keeps one."""
    if ours == theirs or not _is_floating(hdu):
        return ours == theirs
    import numpy as np

    kind = ">f4" if hdu.cards["BITPIX"] == -32 else ">f8"
    first, second = np.frombuffer(ours, kind), np.frombuffer(theirs, kind)
    return np.array_equal(first, second, equal_nan=True)


def _is_floating(hdu: Hdu) -> bool:
    return hdu.cards["BITPIX"] in (-32, -64)


def _check_sums(fd: int, hdu: Hdu, stopped: Stopped) -> None:
    """The sums of an HDU that was unpacked again. PackFault."""
    from vampires.cube_check_sums import check_sums

    faults, missing = check_sums(fd, [hdu], unread=None, progress=lambda done: _go_on(stopped))
    for fault in (*faults, *missing):
        raise PackFault(f"what was unpacked again does not verify: {fault}")


def _check_cards(hdu: Hdu, other: Hdu) -> None:
    """The cards are the same, in order; blank ones, which are room only, do not count.

    Sums that a file had not, or those of floating point, may be others now. So may CHECKSUM in
    a header of another length: it is the sum of all blocks, and CFITSIO drops an empty one.
    """
    ours, theirs = _cards(hdu), _cards(other)
    for name in _SUMS:
        other_length = name == _CHECKSUM and hdu.header_bytes != other.header_bytes
        had_none = not any(card.startswith(name) for card in ours)
        if _is_floating(hdu) or other_length or had_none:
            ours = [card for card in ours if not card.startswith(name)]
            theirs = [card for card in theirs if not card.startswith(name)]
    for mine, yours in zip(ours, theirs, strict=False):
        if mine != yours:
            keyword = mine[:8].decode("latin-1").strip()
            raise PackFault(f"what was unpacked again has another header: {keyword}")
    if len(ours) != len(theirs):
        raise PackFault("what was unpacked again has a header of another length")


def _cards(hdu: Hdu) -> list[bytes]:
    raw = hdu.cards.raw
    cards = (raw[at : at + CARD_BYTES] for at in range(0, len(raw), CARD_BYTES))
    return [card for card in cards if card.strip()]


def _from_disk(file: Path, stopped: Stopped) -> tuple[int, str]:
    """Size and SHA-256 of a file as it lies on the disk, not in memory."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return file.stat().st_size, _digest(file, stopped)


def _digest(file: Path, stopped: Stopped) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while piece := opened.read(_PIECE_BYTES):
            _go_on(stopped)
            digest.update(piece)
    return digest.hexdigest()


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _go_on(stopped: Stopped) -> None:
    if stopped():
        raise PackStopped


def _hidden(folder: Path, stack: ExitStack) -> Path:
    """A hidden name, whose file is gone at the end, if it was not renamed."""
    path = hidden_name(folder, PURPOSE)
    for name in (path.name, *(path.name + end for end in PROGRAM_ENDS)):
        stack.callback(path.with_name(name).unlink, missing_ok=True)
    return path


# -- removing ---------------------------------------------------------------------------------


def _remove(job: Job, stopped: Stopped) -> Outcome:
    entry = job.entry
    assert entry is not None
    status = job.original.lstat()
    if (status.st_size, status.st_mtime_ns) != (entry.original_bytes, entry.original_mtime_ns):
        raise PackFault("it changed after it was archived; it was not removed")
    if os.path.samestat(status, job.packed.stat()):
        raise PackFault(f"it is the same file as {job.packed}; it was not removed")
    if _from_disk(job.packed, stopped) != (entry.bytes, entry.sha256):
        raise PackFault(f"{job.packed} does not read back from the disk; it was not removed")
    sidecar = job.original.with_name(entry.sidecar) if entry.sidecar and job.moves else None
    if sidecar is not None and _digest(job.folder / entry.sidecar, stopped) != (
        entry.sidecar_sha256
    ):
        raise PackFault(f"{job.folder / entry.sidecar} differs from it; nothing was removed")
    for folder in (job.folder, job.folder.parent):  # the names, too, are on the disk
        _core.sync_directory(os.fspath(folder))
    job.original.unlink()
    packed_beside = job.original.with_name(job.packed.name)  # the sidecar is its, too
    if sidecar is not None and not packed_beside.exists():
        with suppress(FileNotFoundError):
            if _digest(sidecar, stopped) == entry.sidecar_sha256:
                sidecar.unlink()
    _core.sync_directory(os.fspath(job.original.parent))
    return Outcome(job.original, "removed", entry)
