"""Is a cube whole, and does it say the truth? Everything that its files can prove.

The structure of the file, the sums of every HDU, the table of frames against the header and the
sidecar, counters and times, and the header against what its readers want. A file that this
logger did not write is foreign: it is held to what FITS and its sidecar promise, no more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vampires.cube_check_frames import FrameFinding, check_frames, read_frames_table
from vampires.cube_check_sums import check_sums, check_unpacked
from vampires.fits_hdus import BLOCK_BYTES, FitsInvalid, Hdu, opened, read_hdus
from vampires.header_cards import CARD_BYTES, Cards
from vampires.header_rules import blank_card_fault, header_faults
from vampires.version import DISTRIBUTION

Kind = Literal["cube", "compressed", "foreign"]
Progress = Callable[[int], None]
"""Called with the number of bytes read since the last call; may raise to end the check."""

TABLE = "FRAMES"
MOST_NAMED = 64  # of the keywords that are missing


@dataclass
class CubeReport:
    """What was found of one file. ``frames`` in the image; ``lost`` by its own account, of
    which ``torn`` were half overwritten; ``bytes`` of the file. ``faults`` and ``warnings``
    are lines for people."""

    path: Path
    kind: Kind = "foreign"
    frames: int = 0
    lost: int = 0
    torn: int = 0
    bytes: int = 0
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; warnings do not count."""
        return not self.faults

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "path": os.fspath(self.path),
            "ok": self.ok,
            "kind": self.kind,
            "frames": self.frames,
            "lost": self.lost,
            "torn": self.torn,
            "bytes": self.bytes,
            "faults": self.faults,
            "warnings": self.warnings,
        }


def check_cube(
    path: str | Path,
    *,
    strict: bool = False,
    pixels: bool = True,
    keywords: bool = True,
    progress: Progress | None = None,
) -> CubeReport:
    """Checks one file, ``.fits`` or ``.fits.fz``, with its sidecar.

    strict: the header also against the instrument's dictionary (``header_faults``).
    pixels: False leaves the image unread: quick, and blind to damaged pixels. The pixels of a
    compressed cube are unpacked by funpack, into memory.
    keywords: False leaves out what the readers want of the header, which can still be mended.
    Whatever the file is, nothing is raised but what ``progress`` raises.
    """
    report = CubeReport(Path(path))
    try:
        with opened(path) as fd:
            before = os.fstat(fd)
            report.bytes = before.st_size
            check = _Check(fd, report, pixels, progress or _no_progress)
            hdus, image = check.run()
            if keywords and image is not None:
                check.check_keywords(hdus, image, strict)
            _check_unchanged(report, before, os.fstat(fd))
    except FitsInvalid as error:
        report.faults.append(str(error))
    except OSError as error:
        report.faults.append(_why(report.path, error))
    except MemoryError:
        report.faults.append("not checked to the end: not enough memory")
    return report


class _Check:
    """The checks of one open file."""

    def __init__(self, fd: int, report: CubeReport, pixels: bool, progress: Progress) -> None:
        self._fd = fd
        self._report = report
        self._pixels = pixels
        self._progress = progress

    def run(self) -> tuple[list[Hdu], Hdu | None]:
        """Structure, sums and the account of the frames. The HDUs, and the one of the image."""
        report = self._report
        hdus, fault = read_hdus(self._fd)
        image = next((hdu for hdu in hdus if _holds_image(hdu)), None)
        if hdus:
            report.kind = _kind(hdus[0] if image is None else image)
        if fault:
            report.faults.append(fault)
        report.faults += [text for hdu in hdus for text in _structure(self._fd, hdu)]
        whole = [hdu for hdu in hdus if hdu.end_offset <= report.bytes]
        self._check_sums(whole, image)
        if image is None:
            if hdus and report.path.suffix == ".fz":
                report.faults.append("there is no compressed image in it")
            elif hdus:
                self._not_ours("there is no image in it")
            return hdus, None
        report.frames = _frames(image)
        self._check_frames(whole, image)
        return hdus, image

    def _not_ours(self, text: str) -> None:
        """A fault of our own cubes; of a foreign file it is worth a word."""
        foreign = self._report.kind == "foreign"
        (self._report.warnings if foreign else self._report.faults).append(text)

    def _check_sums(self, hdus: list[Hdu], image: Hdu | None) -> None:
        unread = None if self._pixels else image
        faults, missing = check_sums(self._fd, hdus, unread=unread, progress=self._progress)
        self._report.faults += faults
        for text in missing:
            self._not_ours(text)
        if self._pixels and image in hdus and image is not None and "ZDATASUM" in image.cards:
            fault, warning = check_unpacked(self._fd, image.cards, self._progress)
            self._report.faults += [fault] if fault else []
            self._report.warnings += [warning] if warning else []

    def check_keywords(self, hdus: list[Hdu], image: Hdu, strict: bool) -> None:
        """What the readers of the cube want of its headers."""
        for hdu in hdus:
            fault = "" if hdu is image else blank_card_fault(hdu.cards)
            if fault:
                self._not_ours(f"HDU {hdu.number}: {fault}")
        missing: dict[str, list[str]] = {}
        for found in header_faults(image.cards, strict=strict):
            if found.level != "error" and found.text.endswith(" is missing"):
                missing.setdefault(found.level, []).append(found.keyword)
            elif found.level == "warning":
                self._report.warnings.append(found.text)
            else:
                self._not_ours(found.text)
        if "strict" in missing:
            self._not_ours(_missing(missing["strict"]))
        if "warning" in missing:
            self._report.warnings.append(_missing(missing["warning"]))

    def _check_frames(self, hdus: list[Hdu], image: Hdu) -> None:
        report = self._report
        table = next((hdu for hdu in hdus if _string(hdu.cards, "EXTNAME") == TABLE), None)
        rows = None
        if table is not None:
            rows, fault = read_frames_table(self._fd, table)
            report.faults += [fault] if fault else []
        elif report.kind != "foreign":
            told = report.warnings if _is_rewritten(image) else report.faults
            told.append(f"the extension {TABLE}, the table of its frames, is missing")
        finding = FrameFinding()
        check_frames(finding, _sidecar(report.path), rows, report.frames, image.cards)
        report.lost, report.torn = finding.lost, finding.torn
        report.faults += finding.faults
        report.warnings += finding.warnings
        for text in finding.not_ours:
            self._not_ours(text)


# -- what a file is ---------------------------------------------------------------------------


def _holds_image(hdu: Hdu) -> bool:
    if hdu.cards.raw.find(b"ZIMAGE  =") >= 0:
        return _value(hdu.cards, "ZIMAGE") is True
    extension = _string(hdu.cards, "XTENSION")
    return extension in ("", "IMAGE") and hdu.data_bytes > 0


def _kind(image: Hdu) -> Kind:
    if not _string(image.cards, "LOGGER").startswith(DISTRIBUTION):
        return "foreign"
    return "compressed" if "ZIMAGE" in image.cards else "cube"


def _is_rewritten(image: Hdu) -> bool:
    """Whether the archive wrote the header again, in the formats of the dictionary: the logger
    writes BZERO as a whole number. Some of its programs keep the image alone."""
    return isinstance(_value(image.cards, "BZERO"), float)


def _frames(image: Hdu) -> int:
    """NAXIS3; 1 for a flat image."""
    prefix = "Z" if "ZIMAGE" in image.cards else ""
    axes = _value(image.cards, f"{prefix}NAXIS")
    if not isinstance(axes, int) or axes < 3:
        return 1
    frames = _value(image.cards, f"{prefix}NAXIS3")
    return frames if isinstance(frames, int) else 0


def _missing(keywords: list[str]) -> str:
    named, more = keywords[:MOST_NAMED], len(keywords) - MOST_NAMED
    also = f" and {more} more" if more > 0 else ""
    return f"keywords that are missing: {', '.join(named)}{also}"


def _sidecar(path: Path) -> Path:
    """``<stem>.txt`` beside ``<stem>.fits`` or ``<stem>.fits.fz``."""
    return (path.with_suffix("") if path.suffix == ".fz" else path).with_suffix(".txt")


def _value(cards: Cards, keyword: str) -> object:
    try:
        return cards.get(keyword)
    except FitsInvalid:
        return None


def _string(cards: Cards, keyword: str) -> str:
    value = _value(cards, keyword)
    return value if isinstance(value, str) else ""


# -- structure --------------------------------------------------------------------------------


def _structure(fd: int, hdu: Hdu) -> Iterator[str]:
    """What the standard wants of the layout of an HDU, beyond what its size depends on."""
    cards = hdu.cards.raw
    axes = len(hdu.shape)
    first = ["XTENSION" if hdu.number else "SIMPLE", "BITPIX", "NAXIS"]
    first += [f"NAXIS{axis}" for axis in range(1, axes + 1)]
    first += ["PCOUNT", "GCOUNT"] if hdu.number else []
    for number, keyword in enumerate(first):
        found = cards[number * CARD_BYTES :][:8].decode("latin-1").rstrip(" ")
        if found != keyword:
            where = f"card {number + 1} of HDU {hdu.number}"
            yield f"{where} is {found!r}; FITS wants {keyword} there"
            break
    if not hdu.number and _value(hdu.cards, "SIMPLE") is not True:
        yield "SIMPLE is not T: the file says itself that it is no standard FITS"
    after_end = hdu.header_offset + len(cards) + CARD_BYTES
    if os.pread(fd, max(0, hdu.data_offset - after_end), after_end).strip(b" "):
        yield f"the header of HDU {hdu.number} goes on behind its END card"
    fill = b" " if _string(hdu.cards, "XTENSION") == "TABLE" else b"\0"
    end = hdu.data_offset + hdu.data_bytes
    if os.pread(fd, min(BLOCK_BYTES, hdu.end_offset - end), end).strip(fill):
        yield f"the padding behind the data of HDU {hdu.number} is not empty"


def _check_unchanged(report: CubeReport, before: os.stat_result, after: os.stat_result) -> None:
    """A file that somebody writes, replaces or removes meanwhile was not checked."""
    state = (before.st_size, before.st_mtime_ns)
    changed = state != (after.st_size, after.st_mtime_ns)
    try:
        changed = changed or not os.path.samestat(before, os.stat(report.path))
    except OSError:
        report.faults.append("it vanished while it was read")
        return
    if changed:
        report.faults.append("it changed while it was read; check it again")


def _why(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        return f"a dangling link, to {os.readlink(path)}"
    return f"cannot be read: {error.strerror or error}"


def _no_progress(n_bytes: int) -> None:
    pass
