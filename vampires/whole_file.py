"""Files that appear under their names whole, or not at all."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from itertools import count
from pathlib import Path

from vampires import _core

_numbers = count()


def hidden_name(folder: Path, purpose: str) -> Path:
    """A name for a file under way that nobody else uses and no ``*.fits*`` matches."""
    host = socket.gethostname().partition(".")[0] or "host"
    return folder / f".{purpose}-{host}-{os.getpid()}-{next(_numbers)}.part"


def write_whole(
    path: Path, content: bytes, *, replace: bool = False, purpose: str = "new"
) -> None:
    """Writes a file durably; a file that is there is replaced in one step, or not touched.

    Raises FileExistsError, OSError.
    """
    hidden = hidden_name(path.parent, purpose)
    try:
        write_durably(hidden, content)
        if replace:
            hidden.replace(path)
        elif not _core.rename_new(os.fspath(hidden), os.fspath(path)):
            raise FileExistsError(f"{path} is there already")
        _core.sync_directory(os.fspath(path.parent))
    finally:
        with suppress(OSError):
            hidden.unlink(missing_ok=True)


def write_durably(path: Path, content: bytes) -> None:
    """Writes a file under a name that nobody looks at, all of it on the disk when this returns;
    on a failure nothing of it stays to fill the disk. Raises OSError."""
    try:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise
