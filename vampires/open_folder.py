"""A folder that is written to by what it is, not by what it is called.

An observer may rename or remove the folder of a cube that is still growing. Paths below
``OpenFolder.path`` lead into the folder wherever it was moved meanwhile.
"""

from __future__ import annotations

import os
from pathlib import Path


class OpenFolder:
    """A folder held open. ``path`` is for system calls of this process alone, and for as long
    as the object is open; ``location`` is for people and other programs."""

    def __init__(self, wanted: Path) -> None:
        """Makes the folder with its parents where it is missing. Raises OSError."""
        self._wanted = wanted
        self._fd = _open(wanted)
        self.path = Path(f"/proc/self/fd/{self._fd}")

    @property
    def location(self) -> Path:
        """Where the folder is now; where it was, when it was removed."""
        now = Path(os.readlink(self.path))
        return now if self._is_at(now) else self._wanted

    def restore(self) -> None:
        """Makes the folder anew, where it was wanted, if it was removed. Raises OSError."""
        if self._is_at(Path(os.readlink(self.path))):
            return
        self.move(self._wanted)

    def move(self, wanted: Path) -> None:
        """``path`` leads to another folder from now on, made where it is missing; what is in
        the old one stays there. Raises OSError."""
        anew = _open(wanted)
        self._wanted = wanted
        os.dup2(anew, self._fd, inheritable=False)
        os.close(anew)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _is_at(self, place: Path) -> bool:
        try:
            return os.path.samestat(os.stat(place), os.fstat(self._fd))
        except OSError:
            return False


def _open(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    return os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
