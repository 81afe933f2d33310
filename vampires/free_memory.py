"""How much memory the machine has to give."""

from __future__ import annotations

import os

MIN_RING_MEMORY = 16 << 20


def available_bytes() -> int:
    """Memory that can be had without swapping."""
    with open("/proc/meminfo", encoding="ascii") as meminfo:
        for line in meminfo:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def memory_for_one_of(loggers: int, wanted: int) -> int:
    """Bytes of ring memory for each of the loggers that start now: at most half of what is
    free for all of them together."""
    return max(MIN_RING_MEMORY, min(wanted, available_bytes() // 2 // max(1, loggers)))
