"""Room on a disk: how much there is, how long it lasts, and what to call that.

No NumPy: screens and commands ask often, and start with it.

>>> room_text(90e9, 280e6)
'90 GB free, full in 5 min'
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

WARNING_S = 1800
ALARM_S = 300
# Kept free of cubes: directories and the tables of the file system grow, too.
RESERVE_BYTES = 256 << 10


class RoomLevel(Enum):
    """How urgent it is. FULL: no room for one more cube."""

    OK = "ok"
    LOW = "low"
    ALARM = "alarm"
    FULL = "full"


@dataclass(frozen=True)
class DiskRoom:
    """free_bytes: what a user without privileges may still use; total_bytes: of the disk."""

    free_bytes: int
    total_bytes: int
    read_only: bool


def existing_parent(path: str | os.PathLike[str]) -> Path:
    """The path itself, or the nearest directory above it that is there."""
    place = Path(path).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return place


def disk_room(path: str | os.PathLike[str]) -> DiskRoom:
    """Of the disk that the path is on, or would be. Raises OSError."""
    found = os.statvfs(existing_parent(path))
    return DiskRoom(
        found.f_bavail * found.f_frsize,
        found.f_blocks * found.f_frsize,
        bool(found.f_flag & os.ST_RDONLY),
    )


def time_to_full_s(free_bytes: float, bytes_per_s: float) -> float:
    """Seconds until nothing is free at this rate; -1: nothing is written."""
    return max(0.0, free_bytes) / bytes_per_s if bytes_per_s > 0 else -1.0


def room_level(free_bytes: float, bytes_per_s: float, cube_bytes: float = 0) -> RoomLevel:
    """How urgent it is at this rate; cube_bytes: of one more cube, with its tables."""
    if free_bytes <= max(cube_bytes, 0):
        return RoomLevel.FULL
    left_s = time_to_full_s(free_bytes, bytes_per_s)
    if 0 <= left_s < ALARM_S:
        return RoomLevel.ALARM
    if 0 <= left_s < WARNING_S:
        return RoomLevel.LOW
    return RoomLevel.OK


def room_text(free_bytes: float, bytes_per_s: float, cube_bytes: float = 0) -> str:
    """One line of it, such as "1.2 TB free, full in 3 h 24 min"."""
    free = f"{bytes_text(free_bytes)} free"
    if room_level(free_bytes, bytes_per_s, cube_bytes) is RoomLevel.FULL:
        return f"{free}, no room for another cube"
    left_s = time_to_full_s(free_bytes, bytes_per_s)
    return free if left_s < 0 else f"{free}, full in {duration(left_s)}"


# -- in words ---------------------------------------------------------------------------------


def bytes_text(number: float) -> str:
    """A number of bytes with its unit, three digits."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= 0.9995 * size:
            return f"{_three_digits(number / size)} {unit}"
    return f"{_three_digits(number / 1e3)} kB"


def _three_digits(number: float) -> str:
    return f"{number:.3g}" if number < 999.5 else f"{number:.0f}"


def duration(seconds: float) -> str:
    """A time in the two largest of its units."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if minutes < 120:
        return f"{minutes} min"
    if hours < 72:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{round(seconds / 86400)} d"


# -- which disk it is -------------------------------------------------------------------------


def mount_points() -> list[str]:
    """Where file systems are mounted. No disk is asked: one that hangs must not hang this."""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
            words = [line.split(" ") for line in mounts]
    except OSError:
        return []
    return [_unescaped(parts[1]) for parts in words if len(parts) > 1]


def _unescaped(text: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def mount_of(directory: str, mounts: Sequence[str]) -> str:
    """The mount point below which a directory lies, by its name."""
    above = [m for m in mounts if os.path.join(directory, "").startswith(os.path.join(m, ""))]
    return max(above, key=len, default="/")
