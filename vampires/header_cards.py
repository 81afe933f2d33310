"""The cards of a header that somebody wrote: the values of its keywords, parsed when asked for.

After FITS standard 4.0, section 4. Nothing but the standard library is needed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from functools import cached_property

CARD_BYTES = 80
Value = bool | int | float | str | None

_NAME_BYTES = 8
_INDICATOR = b"= "
_HIERARCH = b"HIERARCH "
_STRING = re.compile(r" *'((?:[^']|'')*)' *(?:/(.*))?")
_OTHER = re.compile(r" *([^/]*?) *(?:/(.*))?")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_FLOAT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[EDed][+-]?[0-9]+)?")
_COMPLEX = re.compile(r"\( *[-+.0-9EDed]+ *, *[-+.0-9EDed]+ *\)")
_LOGICALS = {"T": True, "F": False}
NOT_TEXT = re.compile(rb"[^\x20-\x7e]")


class FitsInvalid(ValueError):
    """The file is not FITS. One line: what was found, at which byte or card."""


class Cards(Mapping[str, Value]):
    """The keywords of a header that have a value, in the order of the header.

    Values are parsed when they are asked for; one that is not FITS raises FitsInvalid then. The
    first of several cards of the same keyword counts. A string that goes on in CONTINUE cards
    is whole; a HIERARCH keyword goes by its long name. An undefined value is None, a complex
    number its text.
    """

    def __init__(self, raw: bytes) -> None:
        """raw: the cards before END, 80 bytes each."""
        self._raw = raw

    @property
    def raw(self) -> bytes:
        """All cards before END, 80 bytes each."""
        return self._raw

    def __getitem__(self, keyword: str) -> Value:
        return self._parsed(keyword)[0]

    def __contains__(self, keyword: object) -> bool:
        return isinstance(keyword, str) and self._find(keyword) is not None

    def __iter__(self) -> Iterator[str]:
        names = {
            at: start[:_NAME_BYTES].decode("latin-1").rstrip(" ")
            for start, at in self._starts.items()
            if start.endswith(_INDICATOR)
        }
        names |= {at: name for name, at in self._long_names.items()}
        return iter([names[at] for at in sorted(names)])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def comment(self, keyword: str) -> str:
        """What stands behind the slash of a card, without blanks around it. KeyError."""
        return self._parsed(keyword)[1]

    def card(self, keyword: str) -> str:
        """The 80 characters of a card as they are, read as Latin-1. KeyError."""
        at = self._offset(keyword)
        return self._raw[at : at + CARD_BYTES].decode("latin-1")

    def commentary(self, keyword: str) -> list[str]:
        """The texts of all cards of a keyword without value, such as COMMENT and HISTORY."""
        name = keyword.encode("latin-1", "replace").ljust(_NAME_BYTES)
        return [
            card[_NAME_BYTES:].decode("latin-1").rstrip()
            for card in _split(self._raw)
            if card.startswith(name) and card[8:10] != _INDICATOR
        ]

    @cached_property
    def _starts(self) -> dict[bytes, int]:
        """Where the cards are, by their first ten bytes."""
        raw = self._raw
        # From the last card to the first, so that the first of equal keywords stays.
        return {raw[at : at + 10]: at for at in range(len(raw) - CARD_BYTES, -1, -CARD_BYTES)}

    @cached_property
    def _long_names(self) -> dict[str, int]:
        """Where the HIERARCH cards are, by the name that follows that word."""
        found: dict[str, int] = {}
        if _HIERARCH not in self._raw:
            return found
        for at in range(0, len(self._raw), CARD_BYTES):
            card = self._raw[at : at + CARD_BYTES]
            name, equals, _ = card[len(_HIERARCH) :].partition(b"=")
            if card.startswith(_HIERARCH) and equals:
                found.setdefault(name.decode("latin-1").strip(" "), at)
        return found

    def _find(self, keyword: str) -> int | None:
        name = keyword.encode("latin-1", "replace").ljust(_NAME_BYTES)
        at = self._starts.get(name + _INDICATOR)
        return self._long_names.get(keyword) if at is None else at

    def _offset(self, keyword: str) -> int:
        at = self._find(keyword)
        if at is None:
            raise KeyError(keyword)
        return at

    def _parsed(self, keyword: str) -> tuple[Value, str]:
        """Value and comment of a keyword, with those of the CONTINUE cards of a string."""
        at = self._offset(keyword)
        value, comment = _value(keyword, self._field(at))
        before = ""
        while isinstance(value, str) and value.endswith("&"):
            at += CARD_BYTES
            if not self._raw.startswith(b"CONTINUE  ", at):
                break
            before += value[:-1]
            value, more = _value(keyword, self._field(at))
            if not isinstance(value, str):
                raise FitsInvalid(f"{keyword}: a CONTINUE card holds no string")
            comment += more
        return (before + value if isinstance(value, str) else value), comment

    def _field(self, at: int) -> str:
        """Of a card, what stands behind the equals sign, or behind CONTINUE."""
        card = self._raw[at : at + CARD_BYTES]
        strange = NOT_TEXT.search(card)
        if strange is not None:
            raise FitsInvalid(
                f"card {at // CARD_BYTES + 1} ({card[:8].decode('latin-1')!a}) holds the byte "
                f"{card[strange.start()]:#04x}, which is not text"
            )
        begin = card.index(b"=") + 1 if card.startswith(_HIERARCH) else 10
        return card[begin:].decode("ascii")


def _split(raw: bytes) -> Iterator[bytes]:
    for at in range(0, len(raw), CARD_BYTES):
        yield raw[at : at + CARD_BYTES]


def _value(keyword: str, field: str) -> tuple[Value, str]:
    """Value and comment of what stands behind the value indicator."""
    string = _STRING.fullmatch(field)
    if string is not None:
        return string[1].replace("''", "'").rstrip(" "), (string[2] or "").strip(" ")
    other = _OTHER.fullmatch(field)
    if other is not None:
        text, comment = other[1], (other[2] or "").strip(" ")
        if not text:
            return None, comment
        if text in _LOGICALS:
            return _LOGICALS[text], comment
        if _INTEGER.fullmatch(text):
            return int(text), comment
        if _FLOAT.fullmatch(text):
            number = float(text.upper().replace("D", "E"))
            if math.isfinite(number):
                return number, comment
        if _COMPLEX.fullmatch(text):
            return text, comment
    raise FitsInvalid(f"{keyword}: {field.strip(' ')[:40]!r} is no FITS value")
