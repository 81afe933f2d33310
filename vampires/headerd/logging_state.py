"""Whether the cameras are being logged, for the instrument's database: ``U_VLOG1`` and
``U_VLOG2`` by the number of the camera, with the database's texts for true and false."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vampires.fps import FPSError
from vampires.keywords import FALSE_STRING, TRUE_STRING
from vampires.logger_control import look

REPEAT_S = 10.0


def logging_keyword(camera_number: int) -> str:
    """The keyword that tells whether the camera of that number is being logged."""
    return f"U_VLOG{camera_number}"


def database_text(logical: bool) -> str:
    """A logical as the instrument's database holds it."""
    return TRUE_STRING if logical else FALSE_STRING


class LoggingState:
    """What is to be told, and when: on each change, and every ten seconds.

    numbers: of the cameras, by their streams.
    """

    def __init__(self, numbers: Mapping[str, int], shm_dir: Path) -> None:
        self._streams = {logging_keyword(n): stream for stream, n in numbers.items()}
        self._shm_dir = shm_dir
        self._told: dict[str, tuple[bool, float]] = {}
        self.error = ""
        """Why the state of a logger is not known; empty when all are."""

    def due(self, now_s: float) -> dict[str, bool]:
        """Keywords and values that are to be told now. One whose logger cannot be looked at is
        left out."""
        self.error = ""
        due = {}
        for keyword, stream in self._streams.items():
            try:
                saving = look(stream, self._shm_dir).saving
            except FPSError as error:
                self.error = str(error)
                continue
            told, told_s = self._told.get(keyword, (None, 0.0))
            if saving != told or now_s >= told_s + REPEAT_S:
                due[keyword] = saving
        return due

    def told(self, keyword: str, saving: bool, now_s: float) -> None:
        """Says that this was told."""
        self._told[keyword] = (saving, now_s)
