"""Which folders are watched: those that match now, and the ones of the next UTC day."""

from __future__ import annotations

import glob
import os
import re
import time
from collections.abc import Sequence

from vampires.times import day_folder


def utc_day() -> str:
    """Today as folders are named: YYYYMMDD, UTC."""
    return day_folder(time.time_ns())


class FolderGlobs:
    """Patterns of folders, as a shell has them; also plain paths, as the shell leaves them when
    it has expanded a pattern itself.

    A path that holds the day on which the watch began (YYYYMMDD, UTC) stands for the days after
    it as well: so a watch that was begun with names of today goes on past midnight.
    """

    def __init__(self, patterns: Sequence[str], today: str | None = None) -> None:
        self.patterns = [_tidy(pattern) for pattern in patterns]
        self._first_day = today or utc_day()
        self._days = [self._first_day]

    def folders(self, today: str | None = None) -> list[str]:
        """The folders that are there, in the order of the patterns, each once."""
        today = today or utc_day()
        if today not in self._days:
            self._days.append(today)
        found: dict[str, None] = {}
        for day in self._days:
            for pattern in self.patterns:
                of_day = self._of_day(pattern, day)
                if of_day is not None:
                    found |= dict.fromkeys(_matching(of_day))
        return list(found)

    def _of_day(self, pattern: str, day: str) -> str | None:
        """The pattern for a day; None when it does not depend on the day."""
        if day == self._first_day:
            return pattern
        whole_name = rf"(?<![^/]){self._first_day}(?![^/])"
        changed = re.sub(whole_name, day, pattern)
        return changed if changed != pattern else None


def _tidy(pattern: str) -> str:
    return pattern.rstrip("/") or "/"


def _matching(pattern: str) -> list[str]:
    """The folders a pattern matches; a folder of that very name is what is meant."""
    if os.path.isdir(pattern):
        return [pattern]
    if not glob.has_magic(pattern):
        return []
    try:
        return sorted(
            path for path in glob.iglob(pattern, recursive=True) if os.path.isdir(path)
        )
    except (OSError, ValueError, re.error):  # a name that no file can have
        return []
