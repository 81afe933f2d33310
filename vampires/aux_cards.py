"""One card that another program wrote, as a cube can take it.

A legal card stays as it is, but for three kinds, which become comments. On a card without a
keyword the readers of the cubes stop; a card without a value indicator, commentary by the
standard (FITS 4.0, section 4.1.2), they take for a keyword without a value; and of a keyword
that they know they want a value, or no card.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, replace

from vampires.aux_values import Complex, Field, ascii_text, mended_date, read_field
from vampires.fits_cards import (
    CARD_CHARS,
    HISTORY_CHARS,
    NAME_CHARS,
    generic_field,
    is_structural,
    keyword_dictionary,
    legal_name,
    reserved_kind,
    reserved_value,
)

COMMENTARY = ("COMMENT", "HISTORY")
CONTINUE = "CONTINUE"

_LEGAL_NAME = re.compile(r"[A-Z0-9_-]{1,8}")
_LONG_NAME = re.compile(r" +[^='/]*[^='/ ] *")  # behind HIERARCH
_DEPRECATED = {"EPOCH": "EQUINOX"}  # FITS 4.0, table 6


class CardRefused(ValueError):
    """A card that no cube can take. keyword: its name; the text says why."""

    def __init__(self, keyword: str, why: str) -> None:
        super().__init__(why)
        self.keyword = keyword


@dataclass(frozen=True)
class OneCard:
    """A card as a cube can take it.

    ``text`` is 80 characters, or a multiple for a comment that needs several cards; empty where
    there is nothing to take. ``mended`` says what had to change, empty: nothing. ``goes_on``:
    its string ends with an ampersand, so that CONTINUE cards may follow.
    """

    name: str
    text: str
    mended: str = ""
    goes_on: bool = False


def read_card(image: bytes, *, behind_string: bool = False) -> OneCard:
    """The 80 bytes of a card before END. behind_string: that of the card before may go on here.

    Raises:
        CardRefused: it breaks the standard, and what it means is not certain.
    """
    text = ascii_text(image)
    continues = behind_string and text.startswith(f"{CONTINUE}  ")
    card = _continuation(text) if continues else _read(text)
    if text.encode("ascii") == image:
        return card
    return replace(card, mended=_and("made ASCII", card.mended))


def _read(text: str) -> OneCard:
    name = text[:NAME_CHARS].rstrip()
    if not name:
        return _comment(text[NAME_CHARS:])
    if name.upper() in COMMENTARY:
        mended = "" if name.isupper() else "its name in capitals"
        return OneCard(name.upper(), name.upper() + text[len(name) :], mended)
    if name == "HIERARCH":
        return _long_named(text)
    head, _, tail = text.partition("=")
    if len(head) == NAME_CHARS and tail.startswith(" "):
        return _keyword(head, tail[1:])
    return _misplaced(head, tail) or _comment(
        text, "" if _LEGAL_NAME.fullmatch(name) else "written as COMMENT"
    )


def _comment(text: str, mended: str = "") -> OneCard:
    """``text`` as COMMENT, from column 10 on, since it may begin with an equals sign."""
    lines = textwrap.wrap(text.strip(), HISTORY_CHARS - 1)
    cards = (f"COMMENT  {line}".ljust(CARD_CHARS) for line in lines)
    return OneCard("COMMENT", "".join(cards), mended)


def _continuation(text: str) -> OneCard:
    """A CONTINUE card; a comment where it holds no string (section 4.2.1.2)."""
    try:
        field = read_field(text[10:])
    except ValueError:
        return _comment(text)
    if not isinstance(field.value, str):
        return _comment(text)
    return OneCard(CONTINUE, _joined(text[:10], field), field.mended, _goes_on(field))


def _long_named(text: str) -> OneCard:
    head, equals, tail = text[NAME_CHARS:].partition("=")
    name = " ".join(head.upper().split())
    if not equals or not _LONG_NAME.fullmatch(head):
        return _comment(text)
    if is_structural(name):
        return _passed_over(name, tail)
    field = _field(name, tail)
    text = _joined(f"HIERARCH{head.upper()}=", field)
    return OneCard(name, text, field.mended, _goes_on(field))


def _misplaced(head: str, tail: str) -> OneCard | None:
    """A keyword whose equals sign is not in column 9 with a blank behind it; None where the
    card seems to be text."""
    if len(head) > NAME_CHARS or not _LEGAL_NAME.fullmatch(head.strip().upper()):
        return None
    try:
        if read_field(tail).value is None:
            return None
    except ValueError:
        return None
    card = _keyword(head, tail)
    return replace(card, mended=_and(card.mended, "its equals sign was in another column"))


def _keyword(head: str, tail: str) -> OneCard:
    """``tail`` is the field of the keyword ``head``."""
    name, mended = legal_name(head), ""
    if name != head.rstrip(" "):
        mended = f"its name was {head.strip()!r}"
    if name in _DEPRECATED:
        name, mended = _DEPRECATED[name], f"its name was {name}"
    if is_structural(name):
        return _passed_over(name, tail)
    field = _field(name, tail)
    text = _joined(f"{name:<{NAME_CHARS}}= ", field)
    if field.value is None and (reserved_kind(name) or name in keyword_dictionary()):
        return _comment(text, mended)
    return OneCard(name, text, _and(mended, field.mended), _goes_on(field))


def _passed_over(name: str, tail: str) -> OneCard:
    try:
        return OneCard(name, "", goes_on=_goes_on(read_field(tail)))
    except ValueError:
        return OneCard(name, "")


def _field(name: str, text: str) -> Field:
    """The field of a keyword, whose value is one that the standard allows there."""
    try:
        field = read_field(text)
        if field.value is None or reserved_kind(name) is None:
            return field
        if isinstance(field.value, Complex):
            raise ValueError("FITS wants no complex number there")
        return _reserved(name, field, field.value)
    except ValueError as error:
        raise CardRefused(name, str(error)) from None


def _reserved(name: str, field: Field, value: bool | int | float | str) -> Field:
    """The field with the value as the standard wants it. Raises ValueError."""
    wanted = value
    if isinstance(value, str) and reserved_kind(name) == "date":
        wanted = mended_date(value) or value
    fitting = reserved_value(name, wanted)
    if type(fitting) is type(value) and fitting == value:
        return field
    comment = f" / {field.comment}" if field.comment else ""
    new = generic_field(fitting)
    return Field(f"{new}{comment}", fitting, field.comment, f"its value was {value!r}")


def _joined(start: str, field: Field) -> str:
    """A card of 80 characters; a comment that has no room is cut. Raises CardRefused."""
    text = f"{start}{field.text}".rstrip().ljust(CARD_CHARS)
    if len(text) == CARD_CHARS:
        return text
    try:
        if read_field(text[len(start) : CARD_CHARS]).value == field.value:
            return text[:CARD_CHARS]
    except ValueError:
        pass
    raise CardRefused(start.strip(" ="), "its value has no room in a card")


def _goes_on(field: Field) -> bool:
    return isinstance(field.value, str) and field.value.endswith("&")


def _and(one: str, other: str) -> str:
    return "; ".join(filter(None, (one, other)))
