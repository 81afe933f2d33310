"""Names and values of FPS as text that can be shown and typed."""

from __future__ import annotations

import struct

from vampires.fps.layout import ParameterType


def clean(text: str) -> str:
    """The text on one line, without what would control a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "?" for c in text)


def typed(value: bool | int | float | str, kind: ParameterType) -> str:
    """A value as a person types it: ON, 250, 0.4. It reads back as the same value."""
    if isinstance(value, bool):
        return "ON" if value else "OFF"
    if not isinstance(value, float):
        return str(value)
    if kind is ParameterType.FLOAT32:
        for digits in range(6, 9):
            text = f"{value:.{digits}g}"
            if struct.unpack("f", struct.pack("f", float(text)))[0] == value:
                return text
    return repr(value).removesuffix(".0")
