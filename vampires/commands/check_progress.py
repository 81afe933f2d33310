"""The line of progress of vampires-verify."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from vampires.commands.status_table import bytes_text, duration

if TYPE_CHECKING:
    from vampires.cube_check import CubeReport

EVERY_S = 0.2
QUIET_S = 1.0  # what is over by then needs no bar
BAR_COLUMNS = 20


class CheckProgress:
    """A bar on standard error, if that is a terminal: bytes read, files, faults, time left."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        files = list(files)
        self._n_files = len(files)
        self._total = sum(map(_size, files)) if self._terminal else 0
        self._read = self._n_finished = self._n_faulty = 0
        self._begun_at = self._drawn_at = time.monotonic()
        self._shown = False

    def read(self, n_bytes: int) -> None:
        """So many bytes more were read."""
        self._read += n_bytes
        now = time.monotonic()
        due = now - self._drawn_at >= EVERY_S and now - self._begun_at >= QUIET_S
        if self._terminal and due:
            self._draw(now)

    def finished(self, report: CubeReport) -> None:
        """A file is checked."""
        self._n_finished += 1
        self._n_faulty += not report.ok

    def clear(self) -> None:
        """Takes the line away, before something else is printed."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._shown = False

    def _draw(self, now: float) -> None:
        self._drawn_at = now
        rate = self._read / max(now - self._begun_at, 1e-3)
        done = min(1.0, self._read / self._total) if self._total else 0.0
        filled = int(done * BAR_COLUMNS)
        line = f"[{'#' * filled}{'.' * (BAR_COLUMNS - filled)}] {100 * done:3.0f} %"
        line += f"  {self._n_finished} of {self._n_files} files, {bytes_text(rate)}/s"
        if rate > 0:
            line += f", {duration(max(0, self._total - self._read) / rate)} left"
        if self._n_faulty:
            line += f", {self._n_faulty} FAULTY"
        columns = shutil.get_terminal_size().columns - 1
        print(f"\r{line[:columns]}\x1b[K", end="", file=sys.stderr, flush=True)
        self._shown = True


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return os.stat(path).st_size
    return 0
