"""What one file says of itself, from its headers and its sidecar. Pixels are never read."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from datetime import date

from vampires.fits_hdus import Cards, FitsInvalid, Hdu, Value, read_hdus, read_primary
from vampires.fitswatch.listing import FileStamp, stream_of
from vampires.header_rules import HeaderFault, header_faults
from vampires.times import DAY_NS, SECOND_NS

MOST_AXES = 9  # of a compressed image
_READ_BYTES = 1 << 18
_UNIX_EPOCH_DAY = date(1970, 1, 1).toordinal()


@dataclass(frozen=True)
class FileFacts:
    """A file as it was when it was read.

    shape: the axes, slowest first; None where there is no image. image_bytes: the pixels alone,
    or of a compressed image the file. data_type, object: keywords, empty where missing.
    begin_ns, end_ns: first and last frame, ns UTC, 0 unknown. lost, torn: the counts of the
    header, torn ones within lost; 0 where it has none. structure: the one of the failures that
    a half-written file has. failures: what is wrong with the file itself; None: not looked for
    yet. faults: keywords that the readers of the header stumble over, errors before warnings.
    """

    name: str
    stamp: FileStamp
    shape: tuple[int, ...] | None = None
    image_bytes: int = 0
    data_type: str = ""
    object: str = ""
    begin_ns: int = 0
    end_ns: int = 0
    lost: int = 0
    torn: int = 0
    structure: str = ""
    failures: tuple[str, ...] | None = None
    faults: tuple[HeaderFault, ...] = ()

    @property
    def is_checked(self) -> bool:
        """Whether failures and faults were looked for."""
        return self.failures is not None


def read_facts(folder: str, name: str, stamp: FileStamp, *, check: bool = True) -> FileFacts:
    """Reads the headers of a file and its sidecar. Without check only what counts of a file
    that is not shown, in half the time: losses, times, and whether it is cut off.

    Never raises for what a file holds, nor when it cannot be read or has vanished: then the
    failures say so.
    """
    facts = FileFacts(name, stamp)
    if stamp.dangling:
        return replace(facts, failures=("a link to a file that is not there",))
    path = os.path.join(folder, name)
    try:
        glanced = None if check else _glanced(facts, path)
        if glanced is not None:
            return glanced
        hdus, structure = read_hdus(path)
    except FitsInvalid as error:
        return replace(facts, structure=str(error), failures=(str(error),))
    except OSError as error:
        return replace(facts, failures=(f"cannot be read: {error.strerror or error}",))
    image = _image(hdus)
    if image is None:
        return replace(facts, structure=structure, failures=(structure or "holds no image",))
    return _checked(replace(_from_header(facts, image), structure=structure), path, image.cards)


def _glanced(facts: FileFacts, path: str) -> FileFacts | None:
    """What counts, by the primary header; None for a file that must be read as a whole."""
    primary = read_primary(path)
    if not primary.data_bytes or primary.end_offset > facts.stamp.size:
        return None
    cards = primary.cards
    begin_ns, end_ns = _span(cards)
    lost = _count(cards, "NLOST")
    return FileFacts(
        facts.name, facts.stamp, begin_ns=begin_ns, end_ns=end_ns, lost=lost,
        torn=_count(cards, "NTORN") if lost else 0,
    )  # fmt: skip


def _image(hdus: list[Hdu]) -> Hdu | None:
    """The HDU with the frames: the first image, also one that fpack has compressed."""
    for hdu in hdus:
        kind = _value(hdu.cards, "XTENSION")
        if "ZIMAGE" in hdu.cards or (hdu.shape and kind in (None, "IMAGE")):
            return hdu
    return hdus[0] if hdus else None


def _from_header(facts: FileFacts, image: Hdu) -> FileFacts:
    cards = image.cards
    begin_ns, end_ns = _span(cards)
    return replace(
        facts,
        shape=_shape(image),
        image_bytes=facts.stamp.size if "ZIMAGE" in cards else image.data_bytes,
        data_type=_text(cards, "DATA-TYP"),
        object=_text(cards, "OBJECT"),
        begin_ns=begin_ns,
        end_ns=end_ns,
        lost=_count(cards, "NLOST"),
        torn=_count(cards, "NTORN"),
    )


def _shape(image: Hdu) -> tuple[int, ...] | None:
    cards = image.cards
    if "ZIMAGE" not in cards:
        return image.shape or None
    axes = min(_count(cards, "ZNAXIS"), MOST_AXES)
    return tuple(_count(cards, f"ZNAXIS{axis}") for axis in range(axes, 0, -1)) or None


def _checked(facts: FileFacts, path: str, cards: Cards) -> FileFacts:
    failures = [facts.structure] if facts.structure else []
    if facts.shape is not None and len(facts.shape) == 3 and stream_of(facts.name):
        failure = _sidecar_failure(path, facts.shape[0])
        failures += [failure] if failure else []
    faults = sorted(header_faults(cards), key=lambda fault: fault.level != "error")
    return replace(facts, failures=tuple(failures), faults=tuple(faults))


def sidecar_path(path: str) -> str:
    """The sidecar that belongs to a cube."""
    return path.removesuffix(".fz").removesuffix(".fits") + ".txt"


def _sidecar_failure(path: str, frames: int) -> str:
    sidecar = sidecar_path(path)
    try:
        lines = _sidecar_lines(sidecar)
    except FileNotFoundError:
        return "no sidecar"
    except OSError as error:
        return f"sidecar cannot be read: {error.strerror or error}"
    return "" if lines == frames else f"sidecar has {lines} lines for {frames} frames"


def _sidecar_lines(sidecar: str) -> int:
    """The lines of a sidecar that are no comments."""
    fd = os.open(sidecar, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with open(fd, "rb") as file:
        lines, last = 0, b"\n"
        while part := file.read(_READ_BYTES):
            text = last + part  # so that a comment is known by the line break before it
            lines += part.count(b"\n") - text.count(b"\n#")
            last = part[-1:]
        return lines + (last != b"\n")


# -- keywords ---------------------------------------------------------------------------------


def _value(cards: Cards, keyword: str) -> Value:
    with contextlib.suppress(FitsInvalid, KeyError):
        return cards[keyword]
    return None


def _text(cards: Cards, keyword: str) -> str:
    value = _value(cards, keyword)
    return "" if value is None else str(value).strip()


def _count(cards: Cards, keyword: str) -> int:
    value = _value(cards, keyword)
    is_count = isinstance(value, int) and not isinstance(value, bool)
    return max(0, int(value)) if is_count and value is not None else 0


def _span(cards: Cards) -> tuple[int, int]:
    """First and last frame by DATE-OBS, UT-STR and UT-END; 0, 0 where one is unknown."""
    try:
        day = date.fromisoformat(_text(cards, "DATE-OBS")[:10])
        begin_ns = _time_of_day_ns(_text(cards, "UT-STR"))
        end_ns = _time_of_day_ns(_text(cards, "UT-END"))
    except ValueError:
        return 0, 0
    midnight_ns = (day.toordinal() - _UNIX_EPOCH_DAY) * DAY_NS
    if end_ns < begin_ns:  # past midnight
        end_ns += DAY_NS
    return midnight_ns + begin_ns, midnight_ns + end_ns


def _time_of_day_ns(text: str) -> int:
    """HH:MM:SS.ffffff in ns. Raises ValueError."""
    hour, minute, second = text.split(":")
    whole, _, fraction = second.partition(".")
    seconds = (int(hour) * 60 + int(minute)) * 60 + int(whole)
    return seconds * SECOND_NS + int(f"{fraction[:9]:0<9}")
