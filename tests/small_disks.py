"""A small file system of one's own, in memory: what a disk does when full or read-only.

Needs the right to mount; see missing_rights.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from missing_rights import cannot_run


@contextmanager
def memory_disks(place: Path) -> Iterator[Callable[[str], Path]]:
    """Gives mount(options) -> place, on which a tmpfs is mounted then; unmounted at the end."""
    if os.geteuid() != 0:
        cannot_run("needs root, to mount a small file system")
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode:
            cannot_run(f"needs the right to mount a file system: {ran.stderr.strip()}")
        mounted.append(place)
        return place

    try:
        yield mount
    finally:
        for disk in mounted:
            subprocess.run(["umount", "-l", str(disk)], check=True)
