"""A directory for files: made where it may be, and proven to take them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


class DirectoryRefused(ValueError):
    """Files cannot go there; the text is one line: why, and what to do."""


def parse_directory(text: str) -> Path:
    """An absolute path, ~ expanded. Raises DirectoryRefused."""
    path = os.path.expanduser(text)
    if not os.path.isabs(path) or not path.isprintable():
        raise DirectoryRefused(
            f"found {text!r}, expected a directory that begins with / or ~, such as /data"
        )
    return Path(os.path.normpath(path))


def check_directory(directory: Path) -> None:
    """Raises DirectoryRefused for one that cannot take files. Makes nothing.

    One that is not there is made by ready_directory if its parent is there; below the home
    directory also its parents. (Elsewhere a missing parent means that a disk is not mounted.)
    """
    place = directory
    while not os.path.lexists(place):
        if place != directory and not directory.is_relative_to(Path.home()):
            raise DirectoryRefused(
                f"no directory {directory.parent}; is its disk mounted? If it is right, make "
                f"it with: mkdir -p {directory.parent}"
            )
        place = place.parent
    if not place.is_dir():
        raise DirectoryRefused(f"{place} is no directory; choose another")
    if not os.access(place, os.W_OK | os.X_OK):
        raise DirectoryRefused(f"cannot write to {place}; choose another directory")


def ready_directory(directory: Path) -> None:
    """Makes the directory if need be, and writes a file there. Raises DirectoryRefused."""
    check_directory(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=directory, prefix=".vampires-probe-") as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
    except OSError as error:
        raise DirectoryRefused(
            f"cannot write to {directory}: {error.strerror}; choose another directory"
        ) from None
