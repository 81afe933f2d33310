"""Messages of the slow link that are refused: in one line, and without taking much memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from vampires.link_message import MessageInvalid


def refusal_of(
    read: Callable[..., object], data: bytes, *, most_bytes: int, **options: Any
) -> str:
    """Why read(data, **options) refuses the message; most_bytes: of memory meanwhile."""
    tracemalloc.start()
    try:
        with pytest.raises(MessageInvalid) as refused:
            read(data, **options)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    text = str(refused.value)
    assert text.isascii() and text.isprintable() and len(text) < 300
    assert peak_bytes < most_bytes
    return text
