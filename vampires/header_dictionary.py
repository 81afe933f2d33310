"""A header held against the instrument's dictionary: 392 keywords, each with its format."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator

from vampires.fits_cards import DictionaryEntry, is_structural, keyword_dictionary, value_field
from vampires.header_cards import Cards, FitsInvalid, Value
from vampires.header_rules import HeaderFault

# The dictionary gives these 8 decimals or none; the readers want at least so many.
_AT_LEAST = re.compile(r"MJD.*|UT.*|HST.*")
_NOT_WITH_THE_CUBE = "APOSTERIORI"  # the class of keywords that later programs add
_VALUE = re.compile(r" *('(?:[^']|'')*'|[^/]*)")


def dictionary_faults(cards: Cards, *, besides: Container[str] = ()) -> list[HeaderFault]:
    """Keywords whose value is not in the format of the dictionary, and, as warnings, those of
    the dictionary that the header has not; none of the keywords ``besides``.

    A value that its format cannot hold is expected in full, as the logger writes it.
    """
    return list(_faults(cards, besides))


def _faults(cards: Cards, besides: Container[str]) -> Iterator[HeaderFault]:
    for keyword, entry in keyword_dictionary().items():
        if keyword in besides or is_structural(keyword) or _AT_LEAST.fullmatch(keyword):
            continue
        if keyword not in cards:
            if entry.source_class != _NOT_WITH_THE_CUBE:
                yield HeaderFault(keyword, f"{keyword} is missing", "warning")
            continue
        try:
            text = _format_fault(cards, keyword, entry)
        except FitsInvalid as error:
            yield HeaderFault(keyword, str(error), "error")
        else:
            if text:
                yield HeaderFault(keyword, f"{keyword} {text}", "strict")


def _format_fault(cards: Cards, keyword: str, entry: DictionaryEntry) -> str:
    value = cards[keyword]
    if value is None:
        return "has no value"
    field = _VALUE.match(cards.card(keyword)[10:])
    found = field[1].strip(" ") if field else ""
    if not _is_of_type(value, entry.printf):
        return f"is {found}; expected the format {entry.printf}"
    expected = value_field(keyword, value).strip(" ")
    if found == expected or found.endswith("&'"):  # a string that goes on
        return ""
    return f"is {found}; expected {expected} (format {entry.printf})"


def _is_of_type(value: Value, printf: str) -> bool:
    if printf == "BOOLEAN":
        return isinstance(value, bool)
    if printf.endswith("s"):
        return isinstance(value, str)
    if isinstance(value, bool):
        return False
    return isinstance(value, int if printf.endswith("d") else (int, float))
