"""Whether the cameras are being logged, as the instrument's database is told: ``U_VLOG1`` and
``U_VLOG2`` by the number of the camera, "True" or "False"."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vampires.fps import FPSError
from vampires.logger_control import look

REPEAT_S = 10.0


def logging_keyword(camera_number: int) -> str:
    """The keyword that tells whether the camera of that number is being logged."""
    return f"U_VLOG{camera_number}"


class LoggingState:
    """What is to be told, and when: on each change, and every ten seconds.

    numbers: of the cameras, by their streams.
    """

    def __init__(self, numbers: Mapping[str, int], shm_dir: Path) -> None:
        self._streams = {logging_keyword(n): stream for stream, n in numbers.items()}
        self._shm_dir = shm_dir
        self._told: dict[str, tuple[str, float]] = {}
        self.error = ""
        """Why the state of a logger is not known; empty when all are."""

    def due(self, now_s: float) -> dict[str, str]:
        """Keywords and values that are to be told now. One whose logger cannot be looked at is
        left out."""
        self.error = ""
        due = {}
        for keyword, stream in self._streams.items():
            try:
                value = str(look(stream, self._shm_dir).saving)
            except FPSError as error:
                self.error = str(error)
                continue
            told, told_s = self._told.get(keyword, ("", 0.0))
            if value != told or now_s >= told_s + REPEAT_S:
                due[keyword] = value
        return due

    def told(self, keyword: str, value: str, now_s: float) -> None:
        """Says that this was told."""
        self._told[keyword] = (value, now_s)
