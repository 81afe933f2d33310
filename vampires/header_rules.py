"""What the readers of the cubes want of a header, checked.

The reduction pipeline and the archive sort, pair and calibrate cubes by these keywords; each
rule here is one of theirs. The instrument's dictionary gives the formats (``strict``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from typing import Literal

from vampires.header_cards import CARD_BYTES, Cards, FitsInvalid, Value
from vampires.times import UNIX_EPOCH_MJD

Level = Literal["error", "warning", "strict"]

DATA_TYPES = (
    "ACQUISITION", "BIAS", "COMPARISON", "DARK", "DOMEFLAT", "FLAT", "FOCUSING", "OBJECT",
    "SKYFLAT", "STANDARD", "TEST",
)  # fmt: skip
"""Values of DATA-TYP that the archive and the reduction pipeline know."""

# Keywords of the logger: a cube without them was not written to the end.
_OF_LOGGER = (
    "DATE", "DATE-OBS", "UT", "UT-STR", "UT-END", "HST", "HST-STR", "HST-END",
    "MJD", "MJD-STR", "MJD-END",
)  # fmt: skip
_STRINGS = ("OBJECT", "FILTER01", "FILTER02", "U_FLDSTP", "U_FLCST", "RADESYS", "RET-MOD1",
            "U_MBI", "BUNIT", "RA", "DEC")  # fmt: skip
_NUMBERS = ("EXPTIME", "U_TRIGJT", "EQUINOX", "D_IMRPAP", "D_IMRANG", "ALTITUDE", "AZIMUTH",
            "AIRMASS", "RET-ANG1", "GAIN", "DET-TMP", "FRATE", "MFRATE", "INST-PA")  # fmt: skip
_WHOLE = ("PRD-MIN1", "PRD-MIN2", "PRD-RNG1", "PRD-RNG2", "BIN-FCT1", "BIN-FCT2")
_LOGICAL = ("EXTTRIG", "U_FLCEN", "CROPPED")
# Of the science cameras only: their streams have U_CAMERA.
_SCIENCE_KEYWORD = "U_CAMERA"
_NUMBERS_OF_SCIENCE = (
    "F-RATIO", "DETBIAS", "X_POLARP", "D_IMRPAD", "U_QWP1", "U_QWP1TH", "U_QWP2", "U_QWP2TH",
    "RET-ANG2", "RET-POS1", "RET-POS2",
)  # fmt: skip
_STATES_OF_FLC = ("NA", "A", "B", "D")  # NA until the frames are sorted by it; D: neither
# Without these a reader stops (KeyError): the archive's synchronisation and sorting, the
# reduction's sorting and polarimetry.
_INDISPENSABLE = ("FILTER01", "FILTER02", "U_FLC", "RET-ANG1", "D_IMRANG")
_CHOICES: dict[str, tuple[str | int, ...]] = {
    "DATA-TYP": DATA_TYPES,
    "U_CAMERA": (1, 2),
    "U_DETMOD": ("FAST", "SLOW"),
    "DETECTOR": ("VCAM1 - OrcaQ", "VCAM2 - OrcaQ"),
}
_WCS_AXES = ("CTYPE1", "CTYPE2", "CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2")
_WCS_SETS = ("", "B", "C", "D")  # endings of the four sets of coordinates
_MODE_ENDINGS = ("_MBI", "_MBIR", "_SDI", "_PUP")

# BITPIX -> BZERO of unsigned pixels (signed ones at 8 bits); FITS 4.0, section 5.2.5
_OFFSETS = {8: -128, 16: 32768, 32: 2147483648, 64: 9223372036854775808}

_NO_KEYWORD = b" " * 8
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_DATE_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d+)?")
_TIME = re.compile(r"(\d\d):(\d\d):(\d\d)(?:\.(\d+))?")
_TIME_DIGITS = 6
_MJD = re.compile(r" *-?\d+\.\d{8,} *(?:/.*)?")
_DAY_US = 86_400_000_000
_HST_US = -10 * 3_600_000_000
_TOLERANCE_US = 2_000  # 8 decimals of a day are 0.9 ms


@dataclass(frozen=True)
class HeaderFault:
    """One thing that is wrong with a keyword. text: one line, what was found and expected.
    keyword: empty where it is not one keyword's.

    level: "error" breaks a rule of the readers; "warning" is missing or strange, and a reader
    may do without; "strict" is asked for only where ``strict`` is.
    """

    keyword: str
    text: str
    level: Level


def header_faults(cards: Cards, *, strict: bool = False) -> list[HeaderFault]:
    """What the readers of a cube will stumble over; empty where its header is as it should be.

    cards: of the HDU of the image: the primary one, or that of a tile-compressed image.
    strict: keywords the readers want and that are missing count, and every keyword of the
    instrument's dictionary is held against its format there. Never raises for what a header
    holds.
    """
    rules = _Rules(cards, "strict" if strict else "warning")
    for rule in _RULES:
        rule(rules)
    if strict:
        from vampires.header_dictionary import dictionary_faults

        known = {fault.keyword for fault in rules.faults}
        rules.faults += dictionary_faults(cards, besides=known)
    return rules.faults


def blank_card_fault(cards: Cards) -> str:
    """Which cards have no keyword; empty where all have one.

    The reduction pipeline goes through all keywords and stops on an empty one.
    """
    raw = cards.raw
    numbers = [
        number
        for number, at in enumerate(range(0, len(raw), CARD_BYTES), 1)
        if raw.startswith(_NO_KEYWORD, at)
    ]
    if not numbers:
        return ""
    return f"{len(numbers)} cards without a keyword, first card {numbers[0]}; expected none"


class _Rules:
    """A header under examination: its values by keyword, and the faults found so far."""

    def __init__(self, cards: Cards, if_missing: Level) -> None:
        self.cards = cards
        self.faults: list[HeaderFault] = []
        self.science = _SCIENCE_KEYWORD in cards
        self.compressed = cards.raw.find(b"ZIMAGE  = ") >= 0 and "ZIMAGE" in cards
        self._if_missing = if_missing
        self._unreadable: set[str] = set()

    def add(self, keyword: str, text: str, level: Level = "error") -> None:
        self.faults.append(HeaderFault(keyword, f"{keyword} {text}", level))

    def found(self, keyword: str, expected: str, level: Level = "error") -> None:
        """A value that is not as expected."""
        self.add(keyword, f"is {_shown(self.value(keyword))}; expected {expected}", level)

    def value(self, keyword: str) -> Value:
        """The value; None, with its fault told once, for one that cannot be read."""
        try:
            return self.cards.get(keyword)
        except FitsInvalid as error:
            if keyword not in self._unreadable:
                self._unreadable.add(keyword)
                self.faults.append(HeaderFault(keyword, str(error), "error"))
            return None

    def wanted(self, keyword: str, level: Level | None = None) -> Value:
        """The value of a keyword that should be there."""
        value = self.value(keyword)
        if value is None and keyword not in self._unreadable:
            state = "has no value" if keyword in self.cards else "is missing"
            if self.science and keyword in _INDISPENSABLE:
                level = "error"
            self.add(keyword, state, level or self._if_missing)
        return value

    def layout(self, keyword: str) -> Value:
        """The value of a keyword that describes the image, compressed or not."""
        return self.value(f"Z{keyword}" if self.compressed else keyword)


def _shown(value: Value) -> str:
    if isinstance(value, bool):
        return "T" if value else "F"
    return repr(value) if isinstance(value, str) else str(value)


# -- the rules --------------------------------------------------------------------------------


def _blank_cards(rules: _Rules) -> None:
    fault = blank_card_fault(rules.cards)
    if fault:
        rules.faults.append(HeaderFault("", fault, "error"))


def _pixels(rules: _Rules) -> None:
    axes = rules.layout("NAXIS")
    if axes != 3:
        rules.add("NAXIS", f"is {_shown(axes)}; expected 3, even for one frame")
    bitpix, bzero, bscale = rules.layout("BITPIX"), rules.value("BZERO"), rules.value("BSCALE")
    if bitpix not in _OFFSETS:
        return
    offset = _OFFSETS[bitpix]  # type: ignore[index]
    # The archive's header program writes 32768.0, as the dictionary has it.
    if bzero is not None and (isinstance(bzero, bool) or bzero not in (0, offset)):
        rules.found("BZERO", f"{offset} for BITPIX {bitpix}")
    if bscale is not None and bscale != 1:
        rules.found("BSCALE", "1")


def _dates(rules: _Rules) -> None:
    written, observed = rules.wanted("DATE", "error"), rules.wanted("DATE-OBS", "error")
    if written is not None:
        found = _DATE_TIME.fullmatch(str(written))
        if not found or found[3] or not _is_date(found[1]) or _time_us(found[2]) is None:
            rules.found("DATE", "YYYY-MM-DDTHH:MM:SS, no fraction")
    if observed is not None and not _is_date(str(observed)):
        rules.found("DATE-OBS", "a date only, YYYY-MM-DD")
    if rules.value("TIMESYS") not in (None, "UTC"):
        rules.found("TIMESYS", "'UTC'")


def _times(rules: _Rules) -> None:
    for zone in ("UT", "HST"):
        for name in (zone, f"{zone}-STR", f"{zone}-END"):
            value = rules.wanted(name, "error")
            time_us = _time_us(value)
            if value is not None and (time_us is None or not _six_digits(value)):
                rules.found(name, "HH:MM:SS.ffffff, seconds below 60")
    begin, middle, end = (
        _time_us(rules.value(f"UT{suffix}")) for suffix in ("-STR", "", "-END")
    )
    if begin is not None and end is not None and end < begin:
        rules.found("UT-END", f"no earlier than UT-STR, {rules.value('UT-STR')}")
    elif None not in (begin, middle, end) and not begin <= middle <= end:  # type: ignore[operator]
        rules.found("UT", "a time between UT-STR and UT-END")
    for suffix in ("", "-STR", "-END"):
        _hawaii(rules, suffix)
        _mjd(rules, suffix)


def _hawaii(rules: _Rules, suffix: str) -> None:
    """Hawaii standard time is UTC - 10 h, all year."""
    ut, hst = _time_us(rules.value(f"UT{suffix}")), _time_us(rules.value(f"HST{suffix}"))
    if ut is None or hst is None:
        return
    if (hst - ut - _HST_US + _TOLERANCE_US) % _DAY_US > 2 * _TOLERANCE_US:
        rules.found(f"HST{suffix}", f"10 h less than UT{suffix}, {rules.value(f'UT{suffix}')}")


def _mjd(rules: _Rules, suffix: str) -> None:
    """MJD with its decimals, and the same instant as DATE-OBS and UT together."""
    name = f"MJD{suffix}"
    value = rules.wanted(name, "error")
    if value is None:
        return
    if isinstance(value, (bool, str)) or not _MJD.fullmatch(rules.cards.card(name)[10:]):
        rules.found(name, "a number with 8 decimals or more")
        return
    day, time_us = rules.value("DATE-OBS"), _time_us(rules.value(f"UT{suffix}"))
    if time_us is None or not _is_date(str(day)):
        return
    days = date.fromisoformat(str(day)).toordinal() - _UNIX_EPOCH_ORDINAL + UNIX_EPOCH_MJD
    if abs((value - days) * _DAY_US - time_us) > _TOLERANCE_US:
        rules.found(name, f"{days + time_us / _DAY_US:.8f}, from DATE-OBS and UT{suffix}")


def _kinds(rules: _Rules) -> None:
    """What the cubes are sorted by, and the types of the values."""
    for name, choices in _CHOICES.items():
        value = rules.wanted(name)
        if value is not None and (isinstance(value, (bool, float)) or value not in choices):
            rules.found(name, f"one of {', '.join(map(_shown, choices))}")
    _types(rules, _STRINGS, "a string", lambda value: isinstance(value, str))
    _types(rules, _LOGICAL, "the logical T or F", lambda value: isinstance(value, bool))
    _types(rules, _WHOLE, "a whole number", _is_whole)
    _types(rules, _NUMBERS, "a number", _is_number)
    exposure = rules.value("EXPTIME")
    if _is_number(exposure) and exposure < 0:  # type: ignore[operator]
        rules.found("EXPTIME", "seconds, 0 or more")


def _types(
    rules: _Rules, names: Iterable[str], expected: str, fits: Callable[[Value], bool]
) -> None:
    for name in names:
        value = rules.wanted(name)
        if value in ("NaN", "Inf", "-Inf"):
            rules.found(name, expected, "warning")  # how FITS writes what it has no number for
        elif value is not None and not fits(value):
            rules.found(name, expected)


def _science(rules: _Rules) -> None:
    if not rules.science:
        return
    _types(rules, _NUMBERS_OF_SCIENCE, "a number", _is_number)
    state = rules.wanted("U_FLC")
    if state is not None and state not in _STATES_OF_FLC:
        rules.found("U_FLC", f"one of {', '.join(map(_shown, _STATES_OF_FLC))}")


def _mode(rules: _Rules) -> None:
    mode = rules.wanted("OBS-MOD")
    if mode is None:
        return
    if not isinstance(mode, str) or not ("IPOL" in mode or "IMAG" in mode):
        rules.found("OBS-MOD", "IPOL or IMAG in it")
    elif "_" in mode and not mode.endswith(_MODE_ENDINGS):
        rules.found("OBS-MOD", f"one of the endings {', '.join(_MODE_ENDINGS)}", "warning")


def _detector_of_camera(rules: _Rules) -> None:
    camera, detector = rules.value("U_CAMERA"), rules.value("DETECTOR")
    both_known = camera in (1, 2) and detector in _CHOICES["DETECTOR"]
    if both_known and detector != f"VCAM{camera} - OrcaQ":
        rules.found("DETECTOR", f"'VCAM{camera} - OrcaQ', as U_CAMERA is {camera}")


def _coordinates(rules: _Rules) -> None:
    for ending in _WCS_SETS:
        for name in _WCS_AXES:
            rules.wanted(name + ending)


_RULES = (
    _blank_cards,
    _pixels,
    _dates,
    _times,
    _kinds,
    _science,
    _mode,
    _detector_of_camera,
    _coordinates,
)
_UNIX_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


def _is_number(value: Value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_whole(value: Value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_date(text: str) -> bool:
    try:
        return _DATE.fullmatch(text) is not None and bool(date.fromisoformat(text))
    except ValueError:
        return False


def _six_digits(value: Value) -> bool:
    return isinstance(value, str) and len(value.partition(".")[2]) == _TIME_DIGITS


def _time_us(value: Value) -> int | None:
    """Microseconds of the day of HH:MM:SS.f, None for anything else."""
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    hour, minute, second = int(found[1]), int(found[2]), int(found[3])
    if hour > 23 or minute > 59 or second > 59:
        return None
    fraction_us = int((found[4] or "")[:_TIME_DIGITS].ljust(_TIME_DIGITS, "0"))
    return ((hour * 60 + minute) * 60 + second) * 1_000_000 + fraction_us
