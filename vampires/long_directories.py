"""Directories whose names are too long for a parameter, which holds 63 characters.

A long one is given as a link with a short name, ``<shm dir>/dirs/<digest>``. So every program
that reads or sets the parameter has a path that works.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

MAX_BYTES = 63
DIGEST_CHARACTERS = 8


def _links(shm_dir: Path) -> Path:
    return shm_dir / "dirs"


def _fits(text: str) -> bool:
    """Whether a parameter can hold the text."""
    return text.isprintable() and len(os.fsencode(text)) <= MAX_BYTES


def short_form(directory: Path, shm_dir: Path) -> str:
    """The directory as a text of at most 63 bytes, without control characters; makes the link
    where one is needed.

    Raises OSError when the link cannot be made, ValueError when even its name is too long.
    """
    text = os.fspath(directory)
    if _fits(text):
        return text
    if not _fits(os.fspath(_links(shm_dir) / (DIGEST_CHARACTERS * "0"))):
        raise ValueError(
            f"{text!r} is no text of at most {MAX_BYTES} bytes, and {shm_dir} is too long for "
            "a link to it; choose a shorter directory, or a shorter MILK_SHM_DIR"
        )
    _links(shm_dir).mkdir(exist_ok=True)
    digest = hashlib.sha256(os.fsencode(text))
    while True:
        link = _links(shm_dir) / digest.hexdigest()[:DIGEST_CHARACTERS]
        with contextlib.suppress(FileExistsError):
            link.symlink_to(text)
        if os.readlink(link) == text:
            return os.fspath(link)
        digest.update(b"/")  # another directory has that link


def full_form(text: str, shm_dir: Path) -> Path:
    """The directory that a parameter names."""
    path = Path(text)
    if path.parent == _links(shm_dir):
        with contextlib.suppress(OSError):
            return Path(os.readlink(path))
    return path


def short_file_form(file: str, shm_dir: Path) -> str:
    """A file's path in at most 63 bytes: through a link, or its name alone."""
    if _fits(file):
        return file
    path = Path(file)
    with contextlib.suppress(OSError, ValueError):
        linked = os.path.join(short_form(path.parent, shm_dir), path.name)
        if _fits(linked):
            return linked
    name = "".join(c if c.isprintable() else "?" for c in path.name)
    return os.fsencode(name)[:MAX_BYTES].decode(errors="ignore")
