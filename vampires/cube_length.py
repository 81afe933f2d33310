"""How many frames a cube should have."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

_ROUND = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)


def proposed_length(
    frame_bytes: int,
    cube_bytes: int,
    modes: Iterable[str] = (),
    lengths: Mapping[str, int] | None = None,
) -> int:
    """Frames of a cube of about cube_bytes, a round number; or what lengths has for a mode.

    >>> proposed_length(1096 * 2236 * 2, 1_200_000_000)
    250
    """
    for mode in modes:
        if lengths and mode in lengths:
            return lengths[mode]
    return round_number(cube_bytes / frame_bytes)


def round_number(value: float) -> int:
    """The nearest (as a ratio) whole number with few digits, at least 1."""
    if value <= 1:
        return 1
    scale = 10.0 ** math.floor(math.log10(value))
    nearest = min(_ROUND, key=lambda digits: abs(math.log(value / (digits * scale))))
    return max(1, round(nearest * scale))
