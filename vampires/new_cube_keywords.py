"""The keywords with whose change a cube ends: so what its header says is true of each frame.

As a text they are names with commas between them, ``none``, or ``default``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

DEFAULT_KEYWORDS = (
    "EXPTIME",
    "DATA-TYP",
    "OBJECT",
    "FILTER01",
    "FILTER02",
    "OBS-MOD",
    "U_DETMOD",
    "EXTTRIG",
)
DEFAULT_TEXT = "default"
NO_KEYWORDS_TEXT = "none"

NAME_PATTERN = "[A-Z0-9-][A-Z0-9_-]{0,7}"
NAME_RULE = "1 to 8 capital letters, digits, '_' and '-', not beginning with '_'"


def parse_keywords(text: str) -> tuple[str, ...]:
    """The keywords that a text names, each once. ValueError says which is no name of one."""
    if text == DEFAULT_TEXT:
        return DEFAULT_KEYWORDS
    if text == NO_KEYWORDS_TEXT:
        return ()
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if not re.fullmatch(NAME_PATTERN, name):
            raise ValueError(
                f"found keyword {name!r}, expected {NAME_RULE}; or '{NO_KEYWORDS_TEXT}'"
            )
    return tuple(dict.fromkeys(names))


def keywords_text(keywords: Iterable[str]) -> str:
    """The text of which parse_keywords makes these."""
    names = tuple(keywords)
    if names == DEFAULT_KEYWORDS:
        return DEFAULT_TEXT
    return ",".join(names) or NO_KEYWORDS_TEXT
