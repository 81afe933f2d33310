"""Header cards: 80 ASCII characters each, after FITS standard 4.0 section 4.

Every value of a keyword of the instrument dictionary takes the printf format the dictionary
gives; a value the format cannot hold (wrong type, wider than the 20 columns of a number, a
number that would print as zero) is written in full instead. So are the scales and matrices of
coordinates: the eight decimals of a degree that the dictionary gives them are up to half a
percent of a pixel.

FITS has no NaN. It is written as the string ``'NaN'`` (``'Inf'``, ``'-Inf'``), which
``float()`` takes back, and the comment says so. The keywords that the standard reserves must
hold what the standard says; ``reserved_value`` tells.
"""

import csv
import math
import re
import textwrap
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib import resources

from vampires.keywords import KeywordValue, printable

CARD_CHARS = 80
NAME_CHARS = 8
NUMBER_CHARS = 20  # fixed format: columns 11 to 30
HISTORY_CHARS = 72
END_CARD = "END".ljust(CARD_CHARS)
EMPTY_COMMENT = "COMMENT".ljust(CARD_CHARS)
FILLER_NOTE = "Room kept for HISTORY; these comments carry nothing"
AXES = 3  # NAXIS of every cube
NO_UNIT = ("", "NA")

# Keywords that describe the layout of an HDU, or that only mean something in another kind of
# HDU or in a compressed file: a wrong one makes the file unreadable.
_STRUCTURAL = re.compile(
    r"SIMPLE|BITPIX|NAXIS\d*|EXTEND|END|BZERO|BSCALE|BLANK|GROUPS|PCOUNT|GCOUNT|XTENSION|INHERIT"
    r"|BLOCKED|EPOCH|CHECKSUM|DATASUM|TFIELDS|THEAP|COMMENT|HISTORY|CONTINUE|HIERARCH|LONGSTRN"
    r"|P(SCAL|ZERO|TYPE)\d.*"
    r"|T(BCOL|FORM|SCAL|ZERO|NULL|TYPE|UNIT|DISP|DIM|CTYP|CUNI|CRVL|CDLT|CRPX|CROT)\d.*"
    r"|Z(IMAGE|TABLE|CMPTYPE|BITPIX|NAXIS\d*|TILE\d+|NAME\d+|VAL\d+|MASKCMP|QUANTIZ|DITHER0"
    r"|SIMPLE|EXTEND|TENSION|PCOUNT|GCOUNT|BLOCKED|HECKSUM|DATASUM|BLANK|SCALE|ZERO|THEAP"
    r"|FORM\d+|CTYP\d+)|FZ(ALGOR|TILE|QVALUE|QMETHD|DTHRSD|INT2F|ALGN|TILELN).*|"
)
# Keywords with a type in the standard; ``axis`` and ``axis2`` are pixel axes, 1 to NAXIS.
_FLOAT = re.compile(
    r"EQUINOX|MJD-OBS|MJD-AVG|DATAMAX|DATAMIN|(CRPIX|CRVAL|CDELT|CROTA|CRDER|CSYER|PV)(?P<axis>\d+).*"
    r"|(PC|CD)(?P<axis1>\d+)_(?P<axis2>\d*).*"
    r"|(RESTFRQ|RESTFREQ|RESTWAV|OBSGEO-X|OBSGEO-Y|OBSGEO-Z|VELOSYS|ZSOURCE|VELANGL|LONPOLE"
    r"|LATPOLE).*"
)
_STRING = re.compile(
    r"EXTNAME|ORIGIN|AUTHOR|CREATOR|REFERENC|TELESCOP|INSTRUME|OBSERVER|OBJECT|BUNIT"
    r"|(CTYPE|CUNIT|PS|CNAME)(?P<axis>\d+).*"
)
_INTEGER = re.compile(r"EXTVER|EXTLEVEL|WCSAXES.*")
_DATE = re.compile(r"DATE.*")
# Years of five digits have a sign; FITS 4.0 section 9.1.1.
_ISO_DATE = re.compile(
    r"(?P<year>\d{4}|[+-]\d{5})(?P<day>-\d\d-\d\d)"
    r"(T(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)(\.\d+)?)? *"
)
_CHOICES = (
    (re.compile(r"RADESYS.*|RADECSYS.*"), ("ICRS", "FK5", "FK4", "FK4-NO-E", "GAPPT")),
    (
        re.compile(r"SPECSYS.*|SSYSOBS.*|SSYSSRC.*"),
        ("TOPOCENT", "GEOCENTR", "BARYCENT", "HELIOCEN", "LSRK", "LSRD", "GALACTOC", "LOCALGRP",
         "CMBDIPOL", "SOURCE"),
    ),
)  # fmt: skip
_SCALE = re.compile(r"CD\d_\d[A-Z]?|CDELT\d[A-Z]?")
_ILLEGAL_IN_NAME = re.compile(r"[^A-Z0-9_-]")


@dataclass(frozen=True)
class DictionaryEntry:
    """What the instrument dictionary says of a keyword: printf format (or BOOLEAN) and unit."""

    printf: str
    unit: str
    source_class: str


@cache
def keyword_dictionary() -> dict[str, DictionaryEntry]:
    """The instrument's dictionary, ``data/vampires_keywords.csv``, read once a process."""
    table = resources.files("vampires") / "data" / "vampires_keywords.csv"
    with table.open(encoding="ascii") as lines:
        return {
            row["keyword"]: DictionaryEntry(row["format"], row["unit"], row["class"])
            for row in csv.DictReader(lines)
        }


def legal_name(name: str) -> str:
    """``name`` as FITS can hold it: upper case, every other illegal character a ``_``.

    A result of more than 8 characters needs a HIERARCH card, which ``value_card`` makes.
    """
    return _ILLEGAL_IN_NAME.sub("_", name.strip(" ").upper())


@cache
def is_structural(name: str) -> bool:
    """Whether a keyword describes the layout of the file, so that no stream may give it."""
    return _STRUCTURAL.fullmatch(name) is not None


def reserved_value(name: str, value: KeywordValue) -> KeywordValue:
    """``value`` as the standard wants it for ``name``; as it is for a name not reserved.

    A number in a string becomes a number, and the reverse, where the standard wants that.

    Raises:
        ValueError: the standard reserves ``name`` for something that ``value`` is not.
    """
    kind = reserved_kind(name)
    if kind is None:
        return value
    if kind == "axis":
        raise ValueError(f"the axis is not 1 to {AXES}")
    if kind == "float":
        return _as_number(name, value)
    if kind == "integer":
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError("FITS wants an integer there")
        return value
    text = value if isinstance(value, str) else generic_field(value).strip(" '")
    if kind == "date" and not is_iso_date(text):
        raise ValueError("FITS wants a date there (YYYY-MM-DDThh:mm:ss)")
    if kind == "choice":
        allowed = _allowed_values(name)
        if text.rstrip() not in allowed:
            raise ValueError(f"FITS wants one of {' '.join(allowed)} there")
    return text


def value_field(name: str, value: KeywordValue) -> str:
    """The value as it stands in the card from column 11, in its dictionary format."""
    entry = keyword_dictionary().get(name)
    if entry is not None:
        field = _dictionary_field(entry.printf, value)
        if field is not None:
            return _in_full(value) if _loses_scale(name, value, field) else field
    return generic_field(value)


def generic_field(value: KeywordValue) -> str:
    """The value in full: ``T``, an integer, a float that reads back the same, or a string."""
    if isinstance(value, bool):
        return ("T" if value else "F").rjust(NUMBER_CHARS)
    if isinstance(value, int):
        return str(value).rjust(NUMBER_CHARS)
    if isinstance(value, float):
        return _float_field(value)
    return string_field(value)


def string_field(text: str) -> str:
    """``text`` quoted, at least 8 characters between the quotes."""
    quoted = printable(text).replace("'", "''")
    return f"'{quoted:<8}'".ljust(NUMBER_CHARS)


def value_card(name: str, value: KeywordValue, comment: str = "") -> str:
    """One card of 80 characters; HIERARCH where ``name`` has more than 8.

    Without a comment, the unit of the dictionary takes its place. What does not fit of a
    comment is cut.

    Raises:
        ValueError: the value is too long for a card.
    """
    if not comment:
        comment = _unit_comment(name)
    if isinstance(value, float) and not math.isfinite(value):
        comment = f"(no such number in FITS) {comment}"
    return literal_card(name, value_field(name, value), comment)


def literal_card(name: str, field: str, comment: str) -> str:
    """A card of a value that is already text (a number of given digits, a quoted string)."""
    if len(name) <= NAME_CHARS:
        text = f"{name:<8}= {field:<20}"
    else:
        text = f"HIERARCH {name} = {field.strip()}"
    if len(text.rstrip()) > CARD_CHARS:
        raise ValueError(f"{name}: the value {field.strip()} is too long for a FITS card")
    if comment:
        text = f"{text} / {printable(comment)}"
    return f"{text[:CARD_CHARS]:<80}"


def history_cards(text: str) -> list[str]:
    """``text`` as HISTORY cards of up to 72 characters, broken between words."""
    text = printable(text)
    lines = [text] if len(text) <= HISTORY_CHARS else textwrap.wrap(text, HISTORY_CHARS)
    return [f"HISTORY {line:<72}" for line in lines]


def comment_cards(text: str) -> list[str]:
    """``text`` as COMMENT cards of up to 72 characters, broken between words."""
    return [f"COMMENT {line:<72}" for line in textwrap.wrap(printable(text), HISTORY_CHARS)]


def _loses_scale(name: str, value: KeywordValue, field: str) -> bool:
    """Whether a scale or matrix element would be another one in the file."""
    if isinstance(value, str) or _SCALE.fullmatch(name) is None:
        return False
    return not math.isclose(float(field), value, rel_tol=1e-6)


def _in_full(value: KeywordValue) -> str:
    return f"{value:{NUMBER_CHARS}.12E}"


def filler_cards(count: int) -> list[str]:
    """``count`` cards that take up room before END; the first says so.

    They are comments because the readers stop on a card without a keyword.
    """
    return ([*comment_cards(FILLER_NOTE), *[EMPTY_COMMENT] * count])[:count]


def is_filler(card: str) -> bool:
    """Whether a card is one of ``filler_cards``."""
    return card in (EMPTY_COMMENT, *comment_cards(FILLER_NOTE))


def _dictionary_field(printf: str, value: KeywordValue) -> str | None:
    """``value`` in its printf format, or None where the format does not hold it."""
    if printf == "BOOLEAN":
        holds = isinstance(value, int) and value in (0, 1)
        return generic_field(bool(value)) if holds else None
    if isinstance(value, bool):
        return None
    if printf.endswith("s"):
        return _padded_string(printf, value) if isinstance(value, str) else None
    if isinstance(value, str) or not math.isfinite(value):
        return None
    if printf.endswith("d") and value != int(value):
        return None
    return _printf_number(printf, value)


def _padded_string(printf: str, text: str) -> str | None:
    padded = printf % text
    return string_field(padded) if padded.startswith(text) else None


def _printf_number(printf: str, value: int | float) -> str | None:
    text = printf % value
    number = float(text)
    lost = value != 0 and number == 0
    inexact = isinstance(value, int) and number != value
    held = len(text) <= NUMBER_CHARS and not lost and not inexact
    return text.rjust(NUMBER_CHARS) if held else None


def _float_field(value: float) -> str:
    if math.isnan(value):
        return string_field("NaN")
    if math.isinf(value):
        return string_field("Inf" if value > 0 else "-Inf")
    mantissa, _, exponent = repr(value).partition("e")
    if not exponent:
        return mantissa.rjust(NUMBER_CHARS)
    point = "" if "." in mantissa else ".0"
    return f"{mantissa}{point}E{exponent}".rjust(NUMBER_CHARS)


@cache
def _unit_comment(name: str) -> str:
    entry = keyword_dictionary().get(name)
    return "" if entry is None or entry.unit in NO_UNIT else f"[{entry.unit}]"


@cache
def reserved_kind(name: str) -> str | None:
    """What the standard wants for a keyword that it reserves: float, string, integer, date,
    choice; axis for one of an axis that a cube has not. None for all others."""
    if len(name) > NAME_CHARS:
        return None
    for kind, pattern in (("float", _FLOAT), ("string", _STRING)):
        found = pattern.fullmatch(name)
        if found is not None:
            axes = [axis for axis in found.groupdict().values() if axis is not None]
            legal = all(axis != "" and 1 <= int(axis) <= AXES for axis in axes)
            return kind if legal else "axis"
    if _INTEGER.fullmatch(name):
        return "integer"
    if _DATE.fullmatch(name):
        return "date"
    return "choice" if _allowed_values(name) else None


def _allowed_values(name: str) -> tuple[str, ...]:
    for pattern, values in _CHOICES:
        if pattern.fullmatch(name):
            return values
    return ()


def _as_number(name: str, value: KeywordValue) -> int | float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise ValueError("FITS wants a number there") from None
    if isinstance(value, bool) or not math.isfinite(value):
        raise ValueError("FITS wants a number there")
    if name.startswith("CDELT") and value == 0:
        raise ValueError("FITS wants a number other than 0 there")
    if name.startswith(("CRDER", "CSYER")) and value < 0:
        raise ValueError("FITS wants a number not below 0 there")
    return value


def is_iso_date(text: str) -> bool:
    """Whether ``text`` is a date, or date and time, as the standard writes it.

    Second 60, which it allows where UTC has a leap second, is refused: the readers do so, too.
    """
    found = _ISO_DATE.fullmatch(text)
    if found is None:
        return False
    leap_cycle = 2000 + int(found["year"]) % 400  # years that ``date`` knows
    try:
        date.fromisoformat(f"{leap_cycle}{found['day']}")
    except ValueError:
        return False
    if found["hour"] is None:
        return True
    return int(found["hour"]) < 24 and int(found["minute"]) < 60 and int(found["second"]) < 60
