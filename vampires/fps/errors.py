"""What can go wrong with a function parameter structure (FPS). Each text is one line."""

from __future__ import annotations

MAX_CHARACTERS = 600


def one_line(text: str) -> str:
    """The text with what a terminal would not print as it stands replaced, and not endless.

    Names and values in a file may hold anything, and end in messages.
    """
    if not text.isprintable():
        text = "".join(c if c.isprintable() else "?" for c in text)
    if len(text) > MAX_CHARACTERS:
        return text[: MAX_CHARACTERS - 3] + "..."
    return text


class FPSError(Exception):
    """Something about an FPS."""

    def __str__(self) -> str:
        return one_line(str(self.args[0]) if self.args else "")


class FPSNotFound(FPSError):
    """There is no FPS of that name."""


class FPSInvalid(FPSError):
    """The file is no FPS: truncated, of another layout, or broken."""


class FPSRefused(FPSError):
    """The value was not accepted: wrong type, out of limits, or not writable now."""


class FPSKeyError(FPSError, KeyError):
    """The FPS has no parameter of that name."""
