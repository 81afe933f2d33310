"""Text that a terminal may be given: whatever a file name or a header holds, it is shown and
not obeyed; and lines of such text with tones, for the screens that know no terminal.
"""

from __future__ import annotations

import re
import unicodedata
from enum import Enum

ELLIPSIS = "…"  # stands where a text was cut
UNSHOWN = "?"  # stands for what a terminal would obey


class Tone(Enum):
    """How a piece of text looks; the screen knows the colours."""

    PLAIN = "plain"
    FAINT = "faint"
    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"
    STRONG = "strong"
    SELECTED = "selected"
    TITLE = "title"


# Letters that take no cell (parts of Hangul syllables and what fills their place, modifiers of
# emoji), and symbols of whose width terminals disagree.
_NO_SURE_WIDTH = re.compile(
    "[\u115f-\u11ff\u3164\ua953\ud7b0-\ud7ff\uffa0\U0001f3fb-\U0001f3ff"
    "\u2630-\u2637\u268a-\u268f\u4dc0-\u4dff\U0001d300-\U0001d376]"
)

Span = tuple[str, Tone]
Line = tuple[Span, ...]


def safe_text(text: str, width: int | None = None) -> str:
    """``text`` on one line, each character of it one or two cells wide and harmless.

    Control characters and so escape sequences, line breaks, controls of the writing direction,
    marks without a width of their own, and bytes that are no text (surrogates, as os.fsdecode
    makes them) become ``?``, one cell each. width: at most so many cells; what is cut off is
    marked with an ellipsis. East Asian wide characters count as two.
    """
    if not (text.isascii() and text.isprintable()):
        text = "".join(map(_shown, unicodedata.normalize("NFC", text)))
    if width is None or cells(text) <= width:
        return text
    return clipped(text, width - 1) + ELLIPSIS if width > 0 else ""


def cells(text: str) -> int:
    """The cells a safe text takes in a terminal."""
    return len(text) if text.isascii() else sum(map(_cells_of, text))


def clipped(text: str, width: int) -> str:
    """The beginning of a safe text, at most so many cells, without a mark."""
    if text.isascii():
        return text[: max(0, width)]
    used = 0
    for at, character in enumerate(text):
        used += _cells_of(character)
        if used > width:
            return text[:at]
    return text


def _shown(character: str) -> str:
    if not character.isprintable() or unicodedata.category(character)[0] == "M":
        return UNSHOWN
    return UNSHOWN if _NO_SURE_WIDTH.match(character) else character


def _cells_of(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
