"""Which values may stand in a header: by the dictionary's format, and by the FITS standard.

Text of Redis becomes a value here (``value_of_text``), and a value of any source is held
against both (``checked_value``). Whatever passes makes a card that a cube takes.
"""

from __future__ import annotations

import math
import re
from functools import cache

from vampires.fits_cards import (
    DictionaryEntry,
    is_structural,
    keyword_dictionary,
    reserved_value,
    value_card,
)
from vampires.keywords import INT64_MAX, INT64_MIN, KeywordValue, printable
from vampires.toml_text import quoted

OWN_PREFIX = "U_AUX"
"""Keywords that begin so are the service's own."""

# Classes of the dictionary whose keywords the camera, the logger or a later program gives.
_NOT_OF_REDIS = ("SHM_CAMSTACK", "LOGSHIM", "APOSTERIORI")
_TRUTHS = {
    "true": True,
    "1": True,
    "#true#": True,
    "false": False,
    "0": False,
    "#false#": False,
}
_WHOLE = re.compile(r"([+-]?\d{1,20})(\.0*)?", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([EeDd][+-]?\d+)?", re.ASCII)
_SHOWN_CHARS = 30
_MOST_CHARS = 256  # of text that is looked at at all; a card holds 68


@cache
def redis_keywords() -> tuple[str, ...]:
    """Keywords of the dictionary that no camera stream gives, in its order."""
    return tuple(
        name
        for name, entry in keyword_dictionary().items()
        if entry.source_class not in _NOT_OF_REDIS and not is_structural(name)
    )


def value_of_text(name: str, raw: object) -> KeywordValue:
    """The value of a keyword of the dictionary, from what Redis gave.

    Raises:
        ValueError: one line on what was found and expected.
    """
    if not isinstance(raw, bytes):
        raise ValueError(f"found {type(raw).__name__}, expected text")
    if len(raw) > _MOST_CHARS:
        raise ValueError(f"found {len(raw)} characters, too long for a FITS card")
    text = raw.decode("latin-1")
    if not (text.isascii() and text.isprintable()):
        raise ValueError(f"found {_shown(printable(text))}, expected printable ASCII")
    entry = keyword_dictionary()[name]
    if entry.printf.endswith("s"):
        return checked_value(name, text.rstrip(" "))
    return checked_value(name, _number_of(entry, text.strip(" ")))


def _number_of(entry: DictionaryEntry, text: str) -> KeywordValue:
    if entry.printf == "BOOLEAN":
        if text.lower() in _TRUTHS:
            return _TRUTHS[text.lower()]
    elif entry.printf.endswith("d"):
        found = _WHOLE.fullmatch(text)
        if found:
            return int(found[1])
    elif _NUMBER.fullmatch(text):
        return float(text.upper().replace("D", "E"))
    raise ValueError(f"found {_shown(text)}, expected {_expected(entry)}")


def checked_value(name: str, value: KeywordValue, comment: str = "") -> KeywordValue:
    """The value as the header will have it: of the dictionary's type where the keyword is in
    the dictionary, as the standard wants it, short enough for a card.

    Raises:
        ValueError: one line on what was found and expected.
    """
    entry = keyword_dictionary().get(name)
    if entry is not None:
        value = _of_type(entry, value)
    if isinstance(value, str) and not (value.isascii() and value.isprintable()):
        raise ValueError(f"found {_shown(printable(value))}, expected printable ASCII")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"found {value}, expected a number that is finite")
    if isinstance(value, int) and not INT64_MIN <= value <= INT64_MAX:
        raise ValueError(f"found {_shown(str(value))}, expected a number of 64 bits")
    try:
        value = reserved_value(name, value)
    except ValueError as error:
        raise ValueError(f"found {_shown(str(value))}: {error}") from None
    try:
        value_card(name, value, comment)
    except ValueError:
        raise ValueError(f"found {_shown(str(value))}, too long for a FITS card") from None
    return value


def _of_type(entry: DictionaryEntry, value: KeywordValue) -> KeywordValue:
    fits = False
    if entry.printf == "BOOLEAN":
        fits = isinstance(value, bool)
    elif entry.printf.endswith("s"):
        fits = isinstance(value, str)
    elif not isinstance(value, bool):
        if entry.printf.endswith("d"):
            fits = isinstance(value, int)
        elif isinstance(value, (int, float)):
            return _as_float(value)
    if not fits:
        raise ValueError(f"found {_shown(str(value))}, expected {_expected(entry)}")
    return value


def _as_float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"found {_shown(str(value))}, expected a number") from None


def _expected(entry: DictionaryEntry) -> str:
    if entry.printf == "BOOLEAN":
        return "true or false"
    kinds = {"s": "text", "d": "a whole number"}
    return f"{kinds.get(entry.printf[-1], 'a number')} (format {entry.printf})"


def _shown(text: str) -> str:
    return quoted(text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "...")
