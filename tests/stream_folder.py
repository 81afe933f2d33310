"""A stream folder of a test's own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_SHARED_MEMORY = Path("/dev/shm")


@contextmanager
def stream_folder(monkeypatch: pytest.MonkeyPatch, elsewhere: Path) -> Iterator[Path]:
    """An empty stream folder, which ``$MILK_SHM_DIR`` names; gone afterwards.

    In shared memory where the machine has it, else below ``elsewhere``. Fails the test that
    leaves a hidden (temporary) file in it: whoever makes one has to rename or remove it.
    """
    parent = _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else elsewhere
    folder = Path(tempfile.mkdtemp(prefix="vampires-test-", dir=parent))
    monkeypatch.setenv("MILK_SHM_DIR", str(folder))
    try:
        yield folder
        hidden = sorted(entry.name for entry in folder.iterdir() if entry.name[0] == ".")
    finally:
        shutil.rmtree(folder)
    if hidden:
        pytest.fail(f"hidden files were left in the stream folder: {hidden}")
