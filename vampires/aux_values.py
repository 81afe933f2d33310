"""What other programs write into cards: read by the standard (FITS 4.0, sections 4.1, 4.2 and
9.1) and, where only one meaning is possible, made what the standard wants.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime, timedelta
from typing import NamedTuple

from vampires.fits_cards import CARD_CHARS, generic_field, is_iso_date
from vampires.keywords import KeywordValue

_FIELD_AT = 10  # where the field of a card begins
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[ED][+-]?\d+)?"
_COMPLEX = rf"\( *{_NUMBER} *, *{_NUMBER} *\)"
_FIELD = re.compile(
    rf" *(?P<value>'(?:[^']|'')*'|[TF](?= *(?:/|$))|{_NUMBER}|{_COMPLEX}|)"
    r" *(?:/(?P<comment>.*))?"
)
_CAPITALS = re.compile(rf"[TF]|{_NUMBER}|{_COMPLEX}")
_NO_NUMBER = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)

_DATE = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)(?:[T ](?P<hour>\d\d):(?P<minute>\d\d)"
    r"(?::(?P<second>\d\d)(?:\.(?P<fraction>\d*))?)?)? ?Z? *"
)
_OLD_DATE = re.compile(r"(?P<day>\d\d)/(?P<month>\d\d)/(?P<year>\d\d) *")  # of the years 19xx

# Characters whose decomposition in Unicode does not say it.
_SPELLED = {
    "\N{DEGREE SIGN}": "deg",
    "\N{MICRO SIGN}": "u",
    "\N{GREEK SMALL LETTER MU}": "u",
    "\N{PLUS-MINUS SIGN}": "+-",
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{MINUS SIGN}": "-",
    "\N{EN DASH}": "-",
    "\N{EM DASH}": "-",
    "\N{LATIN SMALL LETTER SHARP S}": "ss",
    "\N{LATIN SMALL LETTER O WITH STROKE}": "o",
    "\N{LATIN CAPITAL LETTER O WITH STROKE}": "O",
    **dict.fromkeys("\t\n\r\0", " "),
}


class Complex(NamedTuple):
    """A complex number, which no other place knows: its text."""

    text: str


class Field(NamedTuple):
    """What stands behind the equals sign of a card: its text, which is legal, the value that it
    means (None: undefined) and its comment. mended: what had to change; empty: nothing."""

    text: str
    value: KeywordValue | Complex | None
    comment: str
    mended: str = ""


def ascii_text(image: bytes) -> str:
    """The 80 characters of a card; others than those of ASCII are spelled out.

    Its bytes are UTF-8 or, where they are not, Latin-1. A comment that becomes too long is cut;
    where a string would be, and in the keyword, one character stays one.
    """
    if image.isascii():
        text = image.decode("ascii")
        return text if text.isprintable() else "".join(map(_spelled, text))
    words = [_spelled(character) for character in _decoded(image)]
    single = "".join(word if len(word) == 1 else "?" for word in words)
    spelled = single[:_FIELD_AT] + "".join(words[_FIELD_AT:])
    if len(spelled.rstrip()) > CARD_CHARS and not _FIELD.fullmatch(
        spelled[_FIELD_AT:CARD_CHARS]
    ):
        spelled = single
    return spelled[:CARD_CHARS].ljust(CARD_CHARS)


def _decoded(image: bytes) -> str:
    try:
        return image.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":  # the card ends within a character
            return image[: error.start].decode("utf-8")
        return image.decode("latin-1")


def _spelled(character: str) -> str:
    if character in _SPELLED:
        return _SPELLED[character]
    if character.isascii():
        return character if character.isprintable() else "?"
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode("ascii")
    return plain if plain.isprintable() and plain.strip() and "'" not in plain else "?"


def read_field(text: str) -> Field:
    """The field ``text``, which stands behind the equals sign of a card.

    Raises:
        ValueError: it is no FITS value, and what it means is not certain.
    """
    field = _legal_field(text)
    if field is not None:
        return field
    head, slash, comment = text.partition("/")
    token = head.strip()
    if token.startswith("'"):
        closed = _legal_field(f"{text.rstrip()}'".ljust(len(text)))
        if slash or closed is None or len(closed.text) > len(text):
            raise ValueError("its string has no end")
        return closed._replace(mended="its string had no end")
    if _CAPITALS.fullmatch(token.upper()):
        capitals = _legal_field(text.replace(token, token.upper(), 1))
        assert capitals is not None
        return capitals._replace(mended="its value in capitals")
    if _NO_NUMBER.fullmatch(token):
        value = generic_field(float(token))
        text = f" {value}{slash}{comment}"
        return Field(text, value.strip("' "), comment, "no number that FITS has")
    raise ValueError(f"{token[:20]!r} is no FITS value")


def _legal_field(text: str) -> Field | None:
    found = _FIELD.fullmatch(text)
    if found is None:
        return None
    return Field(text, _value(found["value"]), (found["comment"] or "").strip())


def _value(text: str) -> KeywordValue | Complex | None:
    if text.startswith("'"):
        return text[1:-1].replace("''", "'").rstrip()
    if text in ("T", "F"):
        return text == "T"
    if not text:
        return None
    if text.startswith("("):
        return Complex(text)
    return float(text.replace("D", "E")) if set(text) & set(".ED") else int(text)


def mended_date(text: str) -> str:
    """A date as the standard writes it, from one that is nearly so; empty where that is not
    certain. Second 60 becomes the next minute."""
    old = _OLD_DATE.fullmatch(text)
    if old is not None:
        text = f"19{old['year']}-{old['month']}-{old['day']}"
    found = _DATE.fullmatch(text)
    if found is None:
        return ""
    date, fraction = found["day"], found["fraction"]
    if found["hour"] is not None:
        second = found["second"] or "00"
        date = f"{date}T{found['hour']}:{found['minute']}:{second}"
        if second == "60":
            date = _next_minute(date[:-3])
    date = f"{date}.{fraction}" if fraction else date
    return date if is_iso_date(date) else ""


def _next_minute(date: str) -> str:
    try:
        return (datetime.fromisoformat(date) + timedelta(minutes=1)).isoformat()
    except (ValueError, OverflowError):
        return ""
