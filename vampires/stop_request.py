"""How a long run learns that it should end."""

from __future__ import annotations

from typing import Protocol


class Stop(Protocol):
    """A threading.Event, or the StopEvent of the commands, which signals set."""

    def is_set(self) -> bool: ...

    def wait(self, timeout: float | None = None) -> bool: ...
